//! Requests of clients of the dialect, and requests for upstreams of it.

mod reading;
mod writing;

use bytes::Bytes;
use http::HeaderMap;
use serde_json::{Value, json};

use super::{decode, encode, opaque_as_text};
use crate::{
    Caps, DecodeError, EncodeError, Head,
    ir::{
        BlockKind, ChatRequest, Effort, Loss, MediaSource, OutputFormat, ReasoningAmount, Role, Signature,
        ToolCall, ToolChoice, ToolKind, ToolResult, Turn,
    },
    openai,
};

fn read(body: &Value) -> Result<ChatRequest, DecodeError> {
    let headers = HeaderMap::new();
    let head = Head { headers: &headers, path: "", query: None };
    decode(head, &Bytes::from(body.to_string()))
}

fn with(member: &str, value: Value) -> Value {
    let mut body = json!({"model": "m", "input": "hi"});
    body[member] = value;
    body
}

fn written(request: &ChatRequest, caps: &Caps) -> Result<(Value, Vec<Loss>), EncodeError> {
    let encoded = encode(request, caps)?;
    Ok((serde_json::from_slice(&encoded.body).unwrap(), encoded.losses))
}

/// The paths of what the client is told of.
fn told(losses: &[Loss]) -> Vec<&str> {
    losses.iter().filter(|loss| !loss.silent).map(|loss| &*loss.path).collect()
}

/// A request of a stranger.
fn foreign(turns: Vec<Turn>) -> ChatRequest {
    ChatRequest { model: "up".to_owned(), turns, ..ChatRequest::default() }
}

fn turn(role: Role, kinds: Vec<BlockKind>) -> Turn {
    let blocks = kinds.into_iter().map(Into::into).collect();
    Turn { role, blocks, name: None, path: "messages[0]".to_owned() }
}

fn user(text: &str) -> Turn {
    turn(Role::User, vec![BlockKind::Text(text.to_owned())])
}

fn call(id: &str, name: &str, arguments: &str) -> BlockKind {
    BlockKind::ToolCall(ToolCall {
        id: id.to_owned(),
        name: name.to_owned(),
        arguments: arguments.to_owned(),
    })
}

fn result(call_id: &str, text: &str, is_error: bool) -> BlockKind {
    let blocks = if text.is_empty() { Vec::new() } else { vec![BlockKind::Text(text.to_owned()).into()] };
    BlockKind::ToolResult(ToolResult { call_id: call_id.to_owned(), blocks, is_error })
}

proptest::proptest! {
    #[test]
    fn requests_of_any_shape_are_written_and_read_again(
        items in proptest::collection::vec(proptest::sample::select(vec![
            r#"{"role":"user","content":"a"}"#, r#"{"role":"user","content":""}"#,
            r#"{"role":"developer","content":"S"}"#, r#"{"role":"assistant","content":[]}"#,
            r#"{"type":"message","role":"assistant","content":[{"type":"output_text","text":"b"},{"type":"refusal","refusal":"r"}]}"#,
            r#"{"type":"reasoning","id":"rs","summary":[{"type":"summary_text","text":"t"}],"encrypted_content":"E"}"#,
            r#"{"type":"reasoning","summary":[]}"#,
            r#"{"type":"function_call","call_id":"c","name":"f","arguments":"{\"x\":"}"#,
            r#"{"type":"function_call","call_id":"","name":" ","arguments":""}"#,
            r#"{"type":"function_call_output","call_id":"c","output":"o"}"#,
            r#"{"type":"function_call_output","call_id":"d","output":[{"type":"input_image","image_url":"https://a/b"}]}"#,
            r#"{"type":"custom_tool_call","call_id":"e","name":"p","input":"i"}"#,
            r#"{"type":"custom_tool_call_output","output":""}"#,
            r#"{"type":"web_search_call","id":"ws","action":{"type":"open_page","url":"u"}}"#,
            r#"{"type":"shell_call","call_id":"s","action":{}}"#, r#"{"type":"shell_call_output","output":"o"}"#,
            r#"{"type":"additional_tools","tools":[{"type":"function","name":"late"}]}"#, r#"{"id":"msg_1"}"#,
        ]), 0..8),
        tools in proptest::sample::select(vec![
            "[]", r#"[{"type":"function","name":"f"},{"type":"custom","name":"p"}]"#,
            r#"[{"type":"namespace","name":"n","tools":[{"type":"function","name":"f"}]},{"type":"web_search"}]"#,
            r#"[{"type":"file_search"}]"#,
        ]),
    ) {
        let body = format!(r#"{{"model":"m","input":[{}],"tools":{tools}}}"#, items.join(","));
        crate::fuzz::request(&super::super::Responses, body.as_bytes());
    }
}
