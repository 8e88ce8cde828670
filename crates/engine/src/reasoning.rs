//! Reasoning that clients do not bring back: kept for the next turn of their conversation, and put back into it.

use std::time::Duration;

use omniroute_dialect::ir::ChatRequest;
use omniroute_dialect::shape::{self, Notes};

use crate::ctx::RequestCtx;

/// How long reasoning is kept for a conversation to go on.
const KEPT_FOR: Duration = Duration::from_secs(7 * 24 * 3_600);

/// Keeps what an answer thought.
pub(crate) fn keep(ctx: &RequestCtx, notes: &Notes) {
    let (engine, bytes) = (&ctx.engine, notes.to_bytes());
    for key in notes.keys() {
        engine.reasoning.put(&place(ctx, &key), bytes.clone(), engine.clock.now_ms(), KEPT_FOR);
    }
}

/// Puts what is kept back into the turns of a request that came without.
pub(crate) async fn recall(ctx: &RequestCtx, request: &mut ChatRequest) {
    for (turn, keys) in shape::forgotten(request) {
        for key in keys {
            let found = ctx.engine.reasoning.get(&place(ctx, &key), ctx.engine.clock.now_ms()).await;
            if let Some(note) = found {
                shape::recall(request, turn, &note);
                break;
            }
        }
    }
}

/// Nobody is reminded of what somebody else's model thought.
fn place(ctx: &RequestCtx, key: &str) -> String {
    let tenant = ctx.caller.as_ref().map_or("-", |caller| caller.id.as_str());
    format!("reasoning:{tenant}:{key}")
}
