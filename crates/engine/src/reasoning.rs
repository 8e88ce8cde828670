//! Reasoning that clients do not bring back: kept for the next turn of their conversation, and put back into it.
//!
//! It is looked for in memory alone, so that no request waits for a database. What is kept is handed to the recorder
//! as well, and what that has kept fills the memory when the process starts.

use std::time::Duration;

use bytes::Bytes;
use omniroute_dialect::Dialect;
use omniroute_dialect::ir::{Block, BlockKind, ChatRequest};
use omniroute_dialect::shape::{self, Notes, Shape};

use crate::ctx::RequestCtx;
use crate::ports::{Memory, ReasoningRow};
use crate::serve::Engine;
use crate::time::millis;

/// How long reasoning is kept for a conversation to go on.
const KEPT_FOR: Duration = Duration::from_secs(7 * 24 * 3_600);

/// Keeps what an answer thought. Of callers whose contents are not to be stored it stays in memory.
pub(crate) fn keep(ctx: &RequestCtx, notes: &Notes) {
    let (engine, parts) = (&ctx.engine, notes.to_bytes());
    let created_at = engine.clock.now_ms();
    let outlives = !ctx.caller.as_ref().is_some_and(|caller| caller.no_log);
    for key in notes.keys() {
        engine.reasoning.put(&place(ctx.tenant(), &key), parts.clone(), created_at, KEPT_FOR);
        if outlives {
            engine.recorder.remember(Memory::Reasoning(ReasoningRow {
                tenant: ctx.tenant().to_owned(),
                key,
                parts: parts.clone(),
                created_at,
                expires_at: created_at.saturating_add(millis(KEPT_FOR)),
            }));
        }
    }
}

/// Takes over what an earlier process kept.
pub(crate) fn restore(engine: &Engine, row: ReasoningRow) {
    let now_ms = engine.clock.now_ms();
    if let Ok(left @ 1..) = u64::try_from(row.expires_at.saturating_sub(now_ms)) {
        let left = Duration::from_millis(left).min(KEPT_FOR);
        engine.reasoning.put(&place(&row.tenant, &row.key), row.parts, now_ms, left);
    }
}

/// Keeps what a whole answer thought that stays in its dialect.
pub(crate) fn keep_whole(ctx: &RequestCtx, dialect: &'static dyn Dialect, body: &Bytes) {
    let Ok(mut answer) = dialect.decode_response(body) else { return };
    let mut shape = Shape::none(dialect);
    shape.response(&mut answer);
    if let Some(notes) = shape.notes() {
        keep(ctx, notes);
    }
}

/// The client's body with the reasoning in it that its upstream wants back, as far as it is known.
pub(crate) async fn returned(ctx: &RequestCtx, body: Bytes) -> Bytes {
    let dialect = ctx.dialect();
    // Without calls nothing is missed, and what cannot be read is for the upstream to judge.
    if memchr::memmem::find(&body, b"\"tool_calls\"").is_none() {
        return body;
    }
    let Ok(mut request) = dialect.decode_request(ctx.head(), &body) else { return body };
    recall(ctx, &mut request).await;
    let thoughts = |at: usize| {
        let path = format!("messages[{at}]");
        let turn = request.turns.iter().find(|turn| turn.path == path);
        let blocks = turn.map_or(&[][..], |turn| &turn.blocks);
        blocks.iter().filter_map(|block| own_thought(block, dialect)).collect()
    };
    dialect.return_reasoning(&body, &thoughts).to_bytes()
}

fn own_thought<'a>(block: &'a Block, dialect: &dyn Dialect) -> Option<&'a str> {
    match &block.kind {
        BlockKind::Thinking { text, signature: None, origin } if *origin == dialect.id() => Some(text),
        _ => None,
    }
}

/// Puts what is kept back into the turns of a request that came without.
pub(crate) async fn recall(ctx: &RequestCtx, request: &mut ChatRequest) {
    for (turn, keys) in shape::forgotten(request) {
        for key in keys {
            let found = ctx.engine.reasoning.get(&place(ctx.tenant(), &key), ctx.engine.clock.now_ms()).await;
            if let Some(note) = found {
                shape::recall(request, turn, &note);
                break;
            }
        }
    }
}

/// Nobody is reminded of what somebody else's model thought.
fn place(tenant: &str, key: &str) -> String {
    format!("reasoning:{tenant}:{key}")
}
