//! How many tokens a request would have: asked of the upstream where it counts in the client's dialect, else estimated.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Limited};
use omniroute_dialect::estimate;
use omniroute_domain::resolve::{self, Route, Target};
use omniroute_domain::snapshot::ConnectionState;
use tokio::time::timeout;

use crate::admit;
use crate::answer::Answer;
use crate::ctx::RequestCtx;
use crate::error::GatewayError;
use crate::ports::OutboundCall;
use crate::serve::Engine;

/// How long an upstream may count; an estimate is at once.
const PATIENCE: Duration = Duration::from_secs(10);
/// Most bytes of an upstream's count.
const MAX_COUNT_BYTES: usize = 64 * 1024;

impl Engine {
    /// Counts the tokens of a request whose caller is known.
    pub async fn count(self: &Arc<Self>, mut ctx: Box<RequestCtx>, body: Bytes) -> Response<Answer> {
        ctx.set_body(body);
        match count(&mut ctx).await {
            Ok(body) => self.reply(ctx, StatusCode::OK, body),
            Err(error) => self.refuse(ctx, &error),
        }
    }
}

async fn count(ctx: &mut RequestCtx) -> Result<Bytes, GatewayError> {
    let client = ctx.dialect();
    let request = client.decode_count(ctx.head(), &ctx.body)?;
    if let Some(target) = target(ctx, &request.model) {
        admit::check_model(ctx, &request.model, &target)?;
        if let Some(counted) = asked(ctx, &target).await {
            return Ok(counted);
        }
    }
    Ok(client.encode_count(estimate::tokens(&request)))
}

/// Who would be asked first.
fn target(ctx: &RequestCtx, requested: &str) -> Option<Arc<Target>> {
    match resolve::resolve(&ctx.snapshot, requested).ok()? {
        Route::Target(target) => Some(target),
        Route::Combo(combo) => combo.first_target(&ctx.snapshot, ctx.started_ms),
    }
}

/// The upstream's own count, if it gives one in the client's dialect. Whatever goes wrong says nothing about the account:
/// chat is what it is there for.
async fn asked(ctx: &RequestCtx, target: &Target) -> Option<Bytes> {
    let (connections, _) = crate::resolve::standing(ctx, target, ctx.engine.clock.now_ms());
    let call = connections.iter().find_map(|connection| call(ctx, target, connection))?;
    let response = timeout(PATIENCE, ctx.engine.transport.send(call)).await.ok()?.ok()?;
    if !response.status().is_success() {
        return None;
    }
    let body = Limited::new(response.into_body(), MAX_COUNT_BYTES);
    let bytes = timeout(PATIENCE, body.collect()).await.ok()?.ok()?.to_bytes();
    ctx.dialect().is_count(&bytes).then_some(bytes)
}

fn call(ctx: &RequestCtx, target: &Target, connection: &ConnectionState) -> Option<OutboundCall> {
    let client = ctx.dialect();
    let only = target.provider.only_dialect(&target.model);
    let endpoint = connection.endpoint_for(client.id(), only, ctx.started_ms)?;
    if endpoint.dialect != client.id() {
        return None;
    }
    let chat = endpoint.chat_uri(&target.model, false).ok()?;
    let path = client.count_path(chat.path())?;
    let mut parts = chat.into_parts();
    parts.path_and_query = Some(path.parse().ok()?);
    let mut headers = HeaderMap::with_capacity(endpoint.headers.len() + 2);
    headers.extend(endpoint.headers.iter().map(|(name, value)| (name.clone(), value.clone())));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    client.forward_headers(client.id(), &ctx.arrival.headers, &mut headers);
    Some(OutboundCall {
        method: Method::POST,
        uri: Uri::from_parts(parts).ok()?,
        headers,
        body: client.edit_count(&ctx.body, &target.model).into_pieces(),
        attachment: None,
        allow_private: connection.allow_private,
    })
}
