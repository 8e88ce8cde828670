//! What would become of a client's request: the stage *accept* for requests that are only asked about.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::Method;
use http_body_util::BodyExt as _;
use omniroute_admin::{PreviewAnswer, PreviewAsk, Previews, WrongAsk};
use omniroute_engine::preview::Preview;
use omniroute_engine::task::Asked;
use omniroute_engine::{Arrival, Engine, RequestCtx};

use super::routes::{self, Found, Operation};

/// Answers for the management API.
pub(crate) struct Explainer(pub(crate) Arc<Engine>);

impl Previews for Explainer {
    fn preview(&self, ask: PreviewAsk) -> BoxFuture<'_, Result<Preview, WrongAsk>> {
        self.explain(ask).boxed()
    }

    fn ask(&self, ask: PreviewAsk) -> BoxFuture<'_, Result<PreviewAnswer, WrongAsk>> {
        self.serve(ask).boxed()
    }
}

impl Explainer {
    async fn explain(&self, ask: PreviewAsk) -> Result<Preview, WrongAsk> {
        let body = ask.body.clone();
        let (ctx, asked) = self.begin(ask, false)?;
        let wrong = |message: String| WrongAsk { field: "body", message };
        let preview = match asked {
            None => self.0.preview(ctx, body).await,
            Some(asked) => self.0.preview_task(ctx, body, asked).await,
        };
        preview.map_err(|error| wrong(error.message))
    }

    async fn serve(&self, ask: PreviewAsk) -> Result<PreviewAnswer, WrongAsk> {
        let body = ask.body.clone();
        let (ctx, asked) = self.begin(ask, true)?;
        if asked.is_some() {
            return Err(WrongAsk { field: "path", message: "is no path of a conversation".to_owned() });
        }
        let (head, answer) = self.0.serve(ctx, body).await.into_parts();
        let body = match answer.collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) => return Err(WrongAsk { field: "body", message: error.to_string() }),
        };
        Ok(PreviewAnswer { status: head.status.as_u16(), body })
    }

    /// The request, and what it asks for where that is not chat.
    fn begin(&self, ask: PreviewAsk, is_logged: bool) -> Result<(Box<RequestCtx>, Option<Asked>), WrongAsk> {
        let wrong = |field, message: String| WrongAsk { field, message };
        let (path, query) =
            ask.path.split_once('?').map_or((ask.path.as_str(), None), |(path, query)| (path, Some(query)));
        let path = routes::normal_form(path).into_owned();
        let elsewhere = || wrong("path", "is no path at which clients ask for answers as JSON".to_owned());
        let Found::Route(route) = routes::find(&path, &Method::POST) else { return Err(elsewhere()) };
        let asked = match route.operation {
            Operation::Chat => None,
            Operation::Embed { form, model } => Some(Asked::Embeddings { form, model }),
            Operation::Images { edits: false } => Some(Asked::Images),
            Operation::Speech => Some(Asked::Speech),
            _ => return Err(elsewhere()),
        };
        let mut ctx = self.0.begin(Arrival {
            peer: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            method: Method::POST,
            path: path.into(),
            query: query.map(str::to_owned),
            headers: ask.headers,
            dialect: route.dialect,
            endpoint: route.endpoint,
            provider: route.provider,
            is_logged,
        });
        if let Some(id) = &ask.api_key {
            let caller = ctx.snapshot.caller_by_id(id).cloned();
            ctx.caller = Some(caller.ok_or_else(|| wrong("apiKeyId", "is no key's id".to_owned()))?);
        }
        Ok((ctx, asked))
    }
}
