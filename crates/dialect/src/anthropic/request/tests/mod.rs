mod conversation;
mod options;
mod reading;

use bytes::Bytes;
use serde_json::{Value, value::RawValue};

use super::{decode, encode};
use crate::{
    Caps, DialectId, ReasoningOff,
    ir::{
        Block, BlockKind, CacheMark, ChatRequest, Effort, File, Image, Loss, MediaSource, OutputFormat,
        Reasoning, ReasoningAmount, Role, Tool, ToolCall, ToolChoice, ToolKind, ToolResult, Turn,
    },
};

const OTHER: DialectId = DialectId("other");

fn raw(text: &str) -> Box<RawValue> {
    serde_json::from_str(text).expect("valid JSON")
}

fn text(text: &str) -> Block {
    BlockKind::Text(text.into()).into()
}

fn call(id: &str) -> Block {
    BlockKind::ToolCall(ToolCall { id: id.into(), name: "f".into(), arguments: "{\"n\":1}".into() }).into()
}

fn result(id: &str, answer: &str) -> Block {
    let blocks = vec![text(answer)];
    BlockKind::ToolResult(ToolResult { call_id: id.into(), blocks, is_error: false }).into()
}

fn turn(role: Role, blocks: Vec<Block>) -> (Role, Vec<Block>) {
    (role, blocks)
}

/// A request of another dialect.
fn request(turns: Vec<(Role, Vec<Block>)>) -> ChatRequest {
    let turns = turns.into_iter().enumerate();
    let turns = turns
        .map(|(at, (role, blocks))| Turn { role, blocks, name: None, path: format!("messages[{at}]") })
        .collect();
    let mut request =
        ChatRequest { model: "m".into(), turns, max_output_tokens: Some(100), ..ChatRequest::default() };
    request.extras.origin = Some(OTHER);
    request
}

fn asking() -> ChatRequest {
    request(vec![turn(Role::User, vec![text("hi")])])
}

fn function(name: &str, schema: Option<&str>) -> Tool {
    let kind =
        ToolKind::Function { name: name.into(), description: None, schema: schema.map(raw), strict: None };
    Tool::at("", kind)
}

fn written(request: &ChatRequest, caps: &Caps) -> (Value, Vec<String>) {
    let encoded = encode(request, caps).expect("can be written");
    let body = serde_json::from_slice(&encoded.body).expect("valid JSON");
    (body, encoded.losses.iter().map(shown).collect())
}

/// `dropped top_k`; in brackets what is not told to the client.
fn shown(loss: &Loss) -> String {
    let shown = format!("{} {}", loss.action.as_str(), loss.path);
    if loss.silent { format!("({shown})") } else { shown }
}

fn messages(request: &ChatRequest) -> (String, Vec<String>) {
    messages_with(request, &Caps::permissive())
}

fn messages_with(request: &ChatRequest, caps: &Caps) -> (String, Vec<String>) {
    let encoded = encode(request, caps).expect("can be written");
    let body: std::collections::BTreeMap<String, Box<RawValue>> =
        serde_json::from_slice(&encoded.body).expect("valid JSON");
    (body["messages"].get().to_owned(), encoded.losses.iter().map(shown).collect())
}

fn refusal(request: &ChatRequest, caps: &Caps) -> (&'static str, String) {
    let error = encode(request, caps).expect_err("is refused");
    (error.code, error.param.unwrap_or_default())
}
