//! Events as upstreams send them, and what they are; and what clients are told.

mod decoder;
mod encoder;

use std::borrow::Cow;

use bytes::BytesMut;
use omniroute_wire::sse::Frame;
use serde_json::{Value, json};

use super::{Decoder, Encoder};
use crate::{
    Echo,
    ir::{ErrorKind, FinishReason, PublicError, Usage},
    stream::{BlockHead, Delta, GrammarCheck, Lines, StreamDecoder as _, StreamEncoder as _, StreamEvent},
};

fn decode(events: &[Value]) -> Vec<String> {
    let mut decoder = Decoder::default();
    let mut check = GrammarCheck::new(Lines::default());
    for event in events {
        decoder.frame(Frame { event: None, data: event.to_string().as_bytes() }, &mut check).unwrap();
    }
    decoder.finish(&mut check).unwrap();
    check.finish().unwrap().0
}

fn about(name: &str, index: u64, item: Value) -> Value {
    let mut event = json!({"type": name, "output_index": index});
    event["item"] = item;
    event
}

fn added(index: u64, item: Value) -> Value {
    about("response.output_item.added", index, item)
}

fn done(index: u64, item: Value) -> Value {
    about("response.output_item.done", index, item)
}

fn call(id: &str, call_id: &str, name: &str, arguments: &str) -> Value {
    json!({"type": "function_call", "id": id, "call_id": call_id, "name": name, "arguments": arguments})
}

fn message(id: &str, text: &str) -> Value {
    json!({"type": "message", "id": id, "role": "assistant",
        "content": [{"type": "output_text", "text": text, "annotations": []}]})
}

fn text_delta(index: u64, id: &str, text: &str) -> Value {
    json!({"type": "response.output_text.delta", "output_index": index, "item_id": id, "content_index": 0,
        "delta": text})
}

fn arguments_delta(index: u64, text: &str) -> Value {
    json!({"type": "response.function_call_arguments.delta", "output_index": index, "item_id": "x", "delta": text})
}

fn completed(output: Value) -> Value {
    let mut event = json!({"type": "response.completed", "response": {"id": "resp_1", "status": "completed",
        "usage": {"input_tokens": 3, "output_tokens": 2}}});
    event["response"]["output"] = output;
    event
}
