//! The upstream's own count.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use http_body_util::{BodyExt as _, Limited};
use omniroute_domain::resolve::Target;
use omniroute_domain::snapshot::ConnectionState;
use omniroute_provider::{Endpoint, Failure, scrub};
use tokio::time::timeout;

use crate::attempt;
use crate::ctx::RequestCtx;
use crate::ports::{Departure, OutboundCall};
use crate::time::{millis, seconds};

/// How long an upstream may count; an estimate is at once.
const PATIENCE: Duration = Duration::from_secs(10);
/// Most bytes of an upstream's count.
const MAX_COUNT_BYTES: usize = 64 * 1024;

/// The upstream's own count, if it gives one. Whatever goes wrong says nothing about the account: chat is what it is there for.
pub(super) async fn ask(
    ctx: &mut RequestCtx,
    target: &Arc<Target>,
    connection: &Arc<ConnectionState>,
) -> Option<Bytes> {
    let call = call(ctx, target, connection)?;
    let sent = ctx.engine.clock.instant();
    ctx.outcome.sent.get_or_insert(sent);
    ctx.upstream_dialect = Some(ctx.dialect().id());
    attempt::open_row(ctx, target, connection, sent);
    // Nobody bills it, even where it has left and the client goes away.
    ctx.outcome.departure = Departure::default();
    let heard = heard(ctx, target, call).await;
    ctx.outcome.calling = None;
    let took = ctx.engine.clock.instant().saturating_duration_since(sent);
    let row = ctx.attempts.last_mut()?;
    row.duration_ms = millis(took);
    match heard {
        Ok((status, counted)) => {
            (row.status, row.failure) = (Some(status.as_u16()), None);
            Some(counted)
        }
        Err((status, mut failure)) => {
            connection.conceal(&mut failure.upstream);
            row.status = status.map(|status| status.as_u16());
            row.failure = Some(failure.kind.as_str());
            row.message = Some(scrub::scrub(&failure.upstream.message));
            None
        }
    }
}

/// A count, or what was heard instead.
async fn heard(
    ctx: &mut RequestCtx,
    target: &Target,
    call: OutboundCall,
) -> Result<(StatusCode, Bytes), (Option<StatusCode>, Failure)> {
    let late = || Failure::timeout(&format!("no count within {}", seconds(PATIENCE)));
    ctx.copy_call(&call);
    let sending = timeout(PATIENCE, ctx.engine.transport.send(call)).await;
    let response = sending.map_err(|_| (None, late()))?;
    let response = response.map_err(|error| (None, attempt::transport_failure(&error)))?;
    let (head, body) = ctx.copy_answer(response).into_parts();
    let status = head.status;
    let body = timeout(PATIENCE, Limited::new(body, MAX_COUNT_BYTES).collect()).await;
    let body = body.map_err(|_| (Some(status), late()))?;
    let bytes = body.map_err(|error| (Some(status), Failure::protocol(&error.to_string())))?.to_bytes();
    let client = ctx.dialect();
    if !status.is_success() {
        let (error, now_ms) = (client.decode_error(status, &bytes), ctx.engine.clock.now_ms());
        return Err((Some(status), target.provider.provider.classify(error, status, &head.headers, now_ms)));
    }
    match client.is_count(&bytes) {
        true => Ok((status, bytes)),
        false => Err((Some(status), Failure::protocol("the answer is no count"))),
    }
}

/// Where an account is called to count in the client's dialect, if it can be.
fn counting<'c>(
    ctx: &RequestCtx,
    target: &Target,
    connection: &'c ConnectionState,
) -> Option<(&'c Endpoint, Uri)> {
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
    Some((endpoint, Uri::from_parts(parts).ok()?))
}

/// The same as an address alone.
pub(super) fn counting_uri(ctx: &RequestCtx, target: &Target, connection: &ConnectionState) -> Option<Uri> {
    counting(ctx, target, connection).map(|(_, uri)| uri)
}

fn call(ctx: &RequestCtx, target: &Target, connection: &ConnectionState) -> Option<OutboundCall> {
    let client = ctx.dialect();
    let (endpoint, uri) = counting(ctx, target, connection)?;
    let mut headers = HeaderMap::with_capacity(endpoint.headers.len() + 2);
    headers.extend(endpoint.headers.iter().map(|(name, value)| (name.clone(), value.clone())));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    client.forward_headers(client.id(), &ctx.arrival.headers, &mut headers);
    Some(OutboundCall {
        method: Method::POST,
        uri,
        headers,
        body: client.edit_count(&ctx.body, &target.model).into_pieces(),
        attachment: None,
        allow_private: connection.allow_private,
        departure: Departure::default(),
    })
}
