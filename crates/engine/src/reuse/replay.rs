//! How an answer gets out of the cache: read in the dialect in which it was given, written in that of whoever asks now.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Response, StatusCode};
use omniroute_dialect::ir::{BlockKind, ChatResponse};
use omniroute_dialect::registry;
use omniroute_dialect::stream::{Delta, EventSink, StreamEncoder, StreamError, StreamEvent, replay};

use super::cache::{HEADER, Reuse};
use crate::answer::Answer;
use crate::answer_head::{MODEL, PROVIDER, insert, stream_headers};
use crate::ctx::{AnswerSource, RequestCtx};
use crate::ports::{BillRow, KeptAnswer};
use crate::serve::Engine;

/// Most characters of text in one event of a stream that is made of a whole answer.
const PIECE: usize = 48;

/// The answer as it was given; `None` where it cannot be read any more.
pub(super) fn read(answer: &KeptAnswer) -> Option<ChatResponse> {
    let dialect = registry::by_name(answer.dialect.as_str())?;
    dialect.decode_response(&answer.body).ok()
}

impl Engine {
    /// Answers with what the cache has, under new ids.
    pub(crate) fn reply_from_cache(
        self: &Arc<Self>,
        mut ctx: Box<RequestCtx>,
        answer: &KeptAnswer,
        mut response: ChatResponse,
    ) -> Response<Answer> {
        let usage = response.usage;
        response.id.clear();
        for block in &mut response.blocks {
            if let BlockKind::ToolCall(call) = &mut block.kind {
                call.id = new_call_id(&call.id, self.random());
            }
        }
        let dialect = ctx.dialect();
        let is_stream = ctx.envelope.as_ref().is_some_and(|envelope| envelope.stream);
        let body = if is_stream {
            as_stream(&ctx, &response)
        } else {
            let encoded = dialect.encode_response(&response, &ctx.echo());
            ctx.note_losses(encoded.losses);
            encoded.body
        };
        let content_type = dialect.stream_content_type(ctx.framing());
        ctx.source = AnswerSource::Cache;
        ctx.outcome.first_event = Some(self.clock.instant());
        ctx.reuse = Some(Box::new(Reuse::Given(BillRow {
            attempt: 1,
            provider: answer.provider.clone(),
            model: answer.model.clone(),
            usage,
            units: None,
            estimated: false,
            amount_nano: answer.cost_nano,
            price_source: None,
            price_version: None,
            settled_ms: self.clock.now_ms(),
            is_saved: true,
        })));
        ctx.settle_money();
        let mut reply = self.reply(ctx, StatusCode::OK, body);
        let headers = reply.headers_mut();
        if is_stream {
            stream_headers(headers, content_type);
        }
        headers.insert(HEADER, HeaderValue::from_static("HIT"));
        insert(headers, PROVIDER, answer.provider.as_str());
        insert(headers, MODEL, &answer.model);
        reply
    }
}

/// An id of the same kind: clients tell calls of one answer from those of others by them.
fn new_call_id(old: &str, random: u64) -> String {
    let kind = old.split_once('_').map(|(kind, _)| kind);
    let kind =
        kind.filter(|kind| (1..=8).contains(&kind.len()) && kind.bytes().all(|b| b.is_ascii_lowercase()));
    format!("{}_{random:016x}", kind.unwrap_or("call"))
}

fn as_stream(ctx: &RequestCtx, response: &ChatResponse) -> Bytes {
    let mut writer = Writer { encoder: ctx.dialect().stream_encoder(ctx.echo()), out: BytesMut::new() };
    // The only error of a writer is a grammar that is broken, and what is read from a whole answer has none to break.
    let told = replay(response, &mut writer);
    debug_assert!(told.is_ok(), "{told:?}");
    writer.out.freeze()
}

/// Writes the events of a client's stream, long texts in pieces.
struct Writer {
    encoder: Box<dyn StreamEncoder>,
    out: BytesMut,
}

impl EventSink for Writer {
    fn event(&mut self, event: StreamEvent<'_>) -> Result<(), StreamError> {
        let StreamEvent::Delta { index, delta } = event else {
            return self.encoder.event(event, &mut self.out);
        };
        let (text, wrap): (_, fn(&str) -> Delta<'_>) = match &delta {
            Delta::Text(text) => (text, |piece| Delta::Text(piece.into())),
            Delta::Thinking(text) => (text, |piece| Delta::Thinking(piece.into())),
            _ => return self.encoder.event(StreamEvent::Delta { index, delta }, &mut self.out),
        };
        let mut rest: &str = text;
        while !rest.is_empty() {
            let end = rest.char_indices().nth(PIECE).map_or(rest.len(), |(at, _)| at);
            let (piece, after) = rest.split_at(end);
            self.encoder.event(StreamEvent::Delta { index, delta: wrap(piece) }, &mut self.out)?;
            rest = after;
        }
        Ok(())
    }
}
