//! What upstreams say: answers in whatever dialect they are asked in, written by the dialects themselves, and errors that
//! every dialect can read.

use bytes::{Bytes, BytesMut};
use omniroute_dialect::ir::{Block, BlockKind, ChatResponse, FinishReason, Usage};
use omniroute_dialect::stream::{EventSink, StreamEncoder, StreamError, StreamEvent, replay};
use omniroute_dialect::{Dialect, Echo};

/// What every upstream answers.
const TEXT: &str = "All is well.";

/// A whole answer.
pub(super) fn whole(dialect: &dyn Dialect, model: &str, usage: Usage) -> Bytes {
    dialect.encode_response(&response(model, usage), &echo(model)).body
}

/// A stream, cut in two behind the first piece of its text.
pub(super) fn stream(
    dialect: &dyn Dialect,
    model: &str,
    usage: Usage,
) -> Result<(Bytes, Bytes), StreamError> {
    let out = BytesMut::with_capacity(2 * 1024);
    let mut writing = Writing { encoder: dialect.stream_encoder(echo(model)), out };
    replay(&response(model, usage), &mut writing)?;
    let out = writing.out.freeze();
    let separator: &[u8] = match dialect.framing().media_type() {
        "text/event-stream" => b"\n\n",
        _ => b"\n",
    };
    let said = memchr::memmem::find(&out, TEXT.as_bytes()).unwrap_or(0);
    let end =
        memchr::memmem::find(&out[said..], separator).map_or(out.len(), |at| said + at + separator.len());
    Ok((out.slice(..end), out.slice(end..)))
}

/// A 200 without content.
pub(super) fn empty(dialect: &dyn Dialect, model: &str) -> Bytes {
    let response = ChatResponse { blocks: Vec::new(), ..response(model, Usage::default()) };
    dialect.encode_response(&response, &echo(model)).body
}

/// An error with the members of all dialects.
pub(super) fn error(status: u16, kind: &str, code: &str, message: &str) -> Bytes {
    let text = format!(
        r#"{{"type":"error","error":{{"type":"{kind}","code":"{code}","message":"{message}","param":null,"status":{status}}}}}"#
    );
    text.into()
}

/// Events become bytes.
struct Writing {
    encoder: Box<dyn StreamEncoder>,
    out: BytesMut,
}

impl EventSink for Writing {
    fn event(&mut self, event: StreamEvent<'_>) -> Result<(), StreamError> {
        self.encoder.event(event, &mut self.out)
    }
}

fn response(model: &str, usage: Usage) -> ChatResponse {
    ChatResponse {
        id: "answer_1".to_owned(),
        model: model.to_owned(),
        blocks: vec![Block::from(BlockKind::Text(TEXT.to_owned()))],
        finish: Some(FinishReason::Stop),
        usage,
        ..ChatResponse::default()
    }
}

fn echo(model: &str) -> Echo {
    Echo { model: model.into(), request_id: "req_1".into(), include_usage: true, ..Echo::default() }
}
