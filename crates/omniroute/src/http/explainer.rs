//! What would become of a client's request: the stage *accept* for requests that are only asked about.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::Method;
use omniroute_admin::{PreviewAsk, Previews, WrongAsk};
use omniroute_engine::preview::Preview;
use omniroute_engine::{Arrival, Engine};

use super::routes::{self, Found, Operation};

/// Answers for the management API.
pub(crate) struct Explainer(pub(crate) Arc<Engine>);

impl Previews for Explainer {
    fn preview(&self, ask: PreviewAsk) -> BoxFuture<'_, Result<Preview, WrongAsk>> {
        self.explain(ask).boxed()
    }
}

impl Explainer {
    async fn explain(&self, ask: PreviewAsk) -> Result<Preview, WrongAsk> {
        let wrong = |field, message: String| WrongAsk { field, message };
        let (path, query) =
            ask.path.split_once('?').map_or((ask.path.as_str(), None), |(path, query)| (path, Some(query)));
        let path = routes::normal_form(path).into_owned();
        let route = match routes::find(&path, &Method::POST) {
            Found::Route(route) if route.operation == Operation::Chat => route,
            _ => return Err(wrong("path", "is no path at which clients ask for answers".to_owned())),
        };
        let mut ctx = self.0.begin(Arrival {
            peer: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            method: Method::POST,
            path,
            query: query.map(str::to_owned),
            headers: ask.headers,
            dialect: route.dialect,
            endpoint: route.endpoint,
            provider: route.provider,
            is_logged: false,
        });
        if let Some(id) = &ask.api_key {
            let caller = ctx.snapshot.caller_by_id(id).cloned();
            ctx.caller = Some(caller.ok_or_else(|| wrong("apiKeyId", "is no key's id".to_owned()))?);
        }
        self.0.preview(ctx, ask.body).await.map_err(|error| wrong("body", error.message))
    }
}
