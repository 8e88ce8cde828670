//! Answers that their upstream paused (`pause_turn`): it goes on when what it said is sent back to it. A client whose dialect
//! has no word for that gets the whole as one answer.

use std::sync::Arc;
use std::time::Instant;

use http::StatusCode;
use omniroute_dialect::ir::{Block, ChatResponse, Role, Turn};
use omniroute_dialect::stream::MAX_PAUSES;
use omniroute_dialect::{DialectId, error_in_success};
use omniroute_domain::resolve::Target;
use omniroute_domain::snapshot::ConnectionState;
use omniroute_provider::Failure;
use tokio::time::timeout;

use super::{Fault, judged, open_row, push_row, read_refusal, read_whole, transport_failure};
use crate::ctx::RequestCtx;
use crate::ports::UpstreamBody;
use crate::prepare::{self, Prepared};
use crate::time::seconds;

/// Lets a whole answer go on until it is complete, or has paused too often. The parts are put together.
pub(super) async fn complete(
    ctx: &mut RequestCtx,
    target: &Arc<Target>,
    connection: &Arc<ConnectionState>,
    (answer, content): (&mut ChatResponse, Vec<Block>),
    mut sent: Instant,
) -> Result<(), Fault> {
    let (mut next, mut resumed) = (Some(content), Ok(()));
    for _ in 0..MAX_PAUSES {
        let Some(content) = next.take() else { break };
        ctx.outcome.usage = answer.usage;
        match more(ctx, target, connection, content, sent).await {
            Ok((part, paused, at)) => {
                (next, sent) = (paused, at);
                answer.blocks.extend(part.blocks);
                (answer.finish, answer.stop_sequence) = (part.finish, part.stop_sequence);
                answer.usage.add(&part.usage);
            }
            Err(fault) => {
                resumed = Err(fault);
                break;
            }
        }
    }
    // Whoever is asked instead begins anew.
    forget(ctx);
    resumed
}

/// The next part of a whole answer, what to send back if it paused again, and when it was asked for.
async fn more(
    ctx: &mut RequestCtx,
    target: &Arc<Target>,
    connection: &Arc<ConnectionState>,
    content: Vec<Block>,
    sent: Instant,
) -> Result<(ChatResponse, Option<Vec<Block>>, Instant), Fault> {
    let Resumed { body, upstream, sent } = go_on(ctx, target, connection, content, sent).await?;
    let bytes = read_whole(ctx, body).await?;
    let dialect = omniroute_dialect::registry::by_id(upstream);
    if let Some(error) = error_in_success(&bytes) {
        let status = error.status.and_then(|status| StatusCode::from_u16(status).ok());
        let status = status.unwrap_or(StatusCode::BAD_GATEWAY);
        return Err(judged(ctx, target, error, status, &http::HeaderMap::new()));
    }
    let part = dialect.decode_response(&bytes).map_err(|error| Failure::protocol(&error.message))?;
    Ok((part, dialect.paused_content(&bytes), sent))
}

/// A call that goes on with an answer.
pub(crate) struct Resumed {
    /// Its answer.
    pub(crate) body: UpstreamBody,
    upstream: DialectId,
    /// When it was sent.
    pub(crate) sent: Instant,
}

/// Sends back what the upstream said before it paused. The call that was sent at `before` has succeeded by that; what it used,
/// which the outcome has, is billed with the parts that follow.
pub(crate) async fn go_on(
    ctx: &mut RequestCtx,
    target: &Arc<Target>,
    connection: &Arc<ConnectionState>,
    content: Vec<Block>,
    before: Instant,
) -> Result<Resumed, Fault> {
    let request = ctx.canonical().await?;
    match request.turns.last_mut().filter(|_| request.resumes) {
        Some(turn) => turn.blocks.extend(content),
        None => request.turns.push(Turn {
            role: Role::Assistant,
            blocks: content,
            name: None,
            path: "the paused answer".to_owned(),
        }),
    }
    request.resumes = true;
    let engine = ctx.engine.clone();
    // What the part before cost stays held.
    let prepared = match ctx.hold_for(std::iter::once(&**target), 1, engine.clock.now_ms()) {
        Ok(()) => prepare::call(ctx, target, connection).await,
        Err(error) => Err(error),
    };
    let used = if prepared.is_ok() { std::mem::take(&mut ctx.outcome.usage) } else { ctx.outcome.usage };
    push_row(ctx, target, connection, Some(StatusCode::OK), None, before);
    let Prepared { mut call, dialect, .. } = prepared?;
    let sent = engine.clock.instant();
    open_row(ctx, target, connection, sent);
    ctx.outcome.usage = used;
    call.departure = ctx.outcome.departure.clone();
    let limit = ctx.within(engine.options.first_byte_timeout);
    ctx.copy_call(&call);
    let response = match timeout(limit, engine.transport.send(call)).await {
        Err(_) => return Err(Failure::timeout(&format!("no answer within {}", seconds(limit))).into()),
        Ok(Err(error)) => return Err(transport_failure(&error).into()),
        Ok(Ok(response)) => ctx.copy_answer(response),
    };
    let (head, body) = response.into_parts();
    if !head.status.is_success() {
        let bytes = read_refusal(ctx, body).await;
        let error = dialect.decode_error(head.status, &bytes);
        return Err(judged(ctx, target, error, head.status, &head.headers));
    }
    Ok(Resumed { body, upstream: dialect.id(), sent })
}

/// The request is again what the client sent.
fn forget(ctx: &mut RequestCtx) {
    if let Some(request) = ctx.canonical.as_deref_mut().filter(|request| request.resumes) {
        request.turns.pop();
        request.resumes = false;
    }
}
