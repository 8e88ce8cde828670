//! How an answer gets into the cache: read from what its client got, in the client's own dialect.

use bytes::{Bytes, BytesMut};
use omniroute_dialect::Framing;
use omniroute_dialect::ir::{BlockKind, ChatResponse, FinishReason, Usage};
use omniroute_dialect::stream::StreamCollector;
use omniroute_wire::splice::Pieces;

use super::cache::Ticket;
use crate::ctx::RequestCtx;
use crate::ports::KeptAnswer;

/// Longest answer that is kept.
const MAX_ANSWER: usize = 256 * 1024;
/// Longest stream that is put together: events are several times longer than what they say.
const MAX_STREAM: usize = 8 * MAX_ANSWER;

/// Keeps a whole answer, if it is one to be kept. Its money has to be settled.
pub(crate) fn keep_whole(ctx: &mut RequestCtx, pieces: &Pieces) {
    let Some(ticket) = ctx.take_ticket() else { return };
    if pieces.iter().map(Bytes::len).sum::<usize>() > MAX_ANSWER {
        return ticket.decline();
    }
    let mut body = BytesMut::new();
    for piece in pieces {
        body.extend_from_slice(piece);
    }
    let body = body.freeze();
    match ctx.dialect().decode_response(&body) {
        Ok(response) => keep(ctx, ticket, &response, body),
        Err(_) => ticket.decline(),
    }
}

/// Keeps an answer that came whole and is told as a stream.
pub(crate) fn keep_told(ctx: &mut RequestCtx, pieces: &Pieces) {
    let Some(keeping) = Keeping::of(ctx) else { return };
    let all = pieces.iter().try_fold(keeping, |keeping, piece| keeping.push(piece));
    if let Some(keeping) = all {
        keeping.finish(ctx);
    }
}

fn keep(ctx: &RequestCtx, ticket: Ticket, response: &ChatResponse, body: Bytes) {
    let (Some(envelope), Some(target)) = (&ctx.envelope, &ctx.target) else { return ticket.decline() };
    // What was answered with a summary in mind belongs to that conversation alone.
    if !is_to_be_kept(response) || body.len() > MAX_ANSWER || ctx.told().is_some() {
        return ticket.decline();
    }
    let usage = ctx.total_usage();
    let answer = KeptAnswer {
        asked: envelope.model.to_string(),
        provider: target.provider.id.clone(),
        model: target.model.clone(),
        dialect: ctx.dialect().id(),
        tokens: usage.input_total().unwrap_or(0).saturating_add(usage.output_total.unwrap_or(0)),
        cost_nano: ctx.cost_nano(),
        body,
    };
    ticket.keep(ctx, answer);
}

/// Complete, with something in it, and nothing that only belongs to the first conversation.
fn is_to_be_kept(response: &ChatResponse) -> bool {
    let is_complete = matches!(
        response.finish,
        Some(FinishReason::Stop | FinishReason::StopSequence | FinishReason::ToolUse)
    );
    let has = |wanted: fn(&BlockKind) -> bool| response.blocks.iter().any(|block| wanted(&block.kind));
    let is_empty = !has(|kind| match kind {
        BlockKind::Text(text) => !text.is_empty(),
        BlockKind::Thinking { .. } | BlockKind::RedactedThinking { .. } => false,
        _ => true,
    });
    // What the vendor did or found is another thing tomorrow; a refusal may be too.
    let is_of_today = has(|kind| {
        matches!(kind, BlockKind::Refusal(_) | BlockKind::WebSearch(_) | BlockKind::Opaque { .. })
    });
    // Signatures can be bound to calls, whose ids are made anew.
    let has_bound_call = has(|kind| matches!(kind, BlockKind::ToolCall(_)))
        && has(|kind| {
            matches!(
                kind,
                BlockKind::Thinking { signature: Some(_), .. } | BlockKind::RedactedThinking { .. }
            )
        });
    is_complete && !is_empty && !is_of_today && !has_bound_call
}

/// A stream that is put together on its way to the client.
pub(crate) struct Keeping {
    ticket: Ticket,
    collector: StreamCollector,
    room: usize,
    /// A stream that is a list is read when it is whole.
    list: Option<BytesMut>,
}

impl Keeping {
    /// For a stream that is to be kept.
    pub(crate) fn of(ctx: &mut RequestCtx) -> Option<Box<Self>> {
        let ticket = ctx.take_ticket()?;
        let collector = StreamCollector::new(ctx.dialect());
        let list = (ctx.framing() == Framing::JsonList).then(BytesMut::new);
        Some(Box::new(Self { ticket, collector, room: MAX_STREAM, list }))
    }

    /// Takes what the client gets; `None` when there is no use in going on.
    pub(crate) fn push(mut self: Box<Self>, bytes: &[u8]) -> Option<Box<Self>> {
        let room = self.room.checked_sub(bytes.len());
        let is_read = match &mut self.list {
            Some(list) => {
                list.extend_from_slice(&bytes[..bytes.len().min(self.room)]);
                true
            }
            None => self.collector.push(bytes).is_ok(),
        };
        match room.filter(|_| is_read) {
            Some(room) => {
                self.room = room;
                Some(self)
            }
            None => {
                self.ticket.decline();
                None
            }
        }
    }

    /// The stream came to its proper end.
    pub(crate) fn finish(self: Box<Self>, ctx: &mut RequestCtx) {
        // What the answer cost is known now; nothing more is paid for it.
        ctx.settle_money();
        let Self { ticket, mut collector, list, .. } = *self;
        if list.is_some_and(|list| collector.push_list(&list).is_err()) {
            return ticket.decline();
        }
        let Ok(mut response) = collector.finish() else { return ticket.decline() };
        if !response.usage.is_known() {
            response.usage = last_usage(ctx);
        }
        let body = ctx.dialect().encode_response(&response, &ctx.echo()).body;
        keep(ctx, ticket, &response, body);
    }
}

/// What the call that answered has used.
fn last_usage(ctx: &RequestCtx) -> Usage {
    match ctx.attempts.last() {
        Some(last) if last.usage.is_known() => last.usage,
        _ => ctx.outcome.usage,
    }
}
