//! What is done to an answer between two dialects because of what was asked.

use omniroute_dialect::{
    Caps,
    ir::{BlockKind, FinishReason},
    shape::Shape,
    stream::Transcoder,
};
use serde_json::{Value, json};

use crate::support::{chunks, decode, dialect, echo, events, named, run};

fn messages_stream(block: &Value, deltas: &[Value]) -> String {
    let mut input = vec![
        json!({"type": "message_start", "message": {"id": "msg_1", "model": "m", "usage": {"input_tokens": 1}}}),
        json!({"type": "content_block_start", "index": 0, "content_block": block}),
    ];
    input.extend(
        deltas.iter().map(|delta| json!({"type": "content_block_delta", "index": 0, "delta": delta})),
    );
    input.push(json!({"type": "content_block_stop", "index": 0}));
    input.push(
        json!({"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 1}}),
    );
    input.push(json!({"type": "message_stop"}));
    named(&input)
}

/// The content of a chat stream and why it ended.
fn content(out: &str) -> (String, Value) {
    let mut text = String::new();
    let mut finish = Value::Null;
    for event in events(out) {
        text.push_str(event["choices"][0]["delta"]["content"].as_str().unwrap_or_default());
        if event["choices"][0]["finish_reason"].is_string() {
            finish = event["choices"][0]["finish_reason"].clone();
        }
    }
    (text, finish)
}

#[test]
fn a_model_without_schemas_answers_by_a_call_and_the_client_sees_text() {
    let (client, upstream) = (dialect("openai"), dialect("anthropic"));
    let caps = Caps { json_schema: false, ..Caps::permissive() };
    let body = json!({"model": "m", "messages": [{"role": "user", "content": "a"}], "response_format": {
        "type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object", "properties": {"x": {}}}}}});
    let request = decode(client, &body.to_string()).unwrap();
    let (request, mut shape) = Shape::of(&request, client, upstream, &caps, None);
    let sent = upstream.encode_request(&request, &caps).unwrap().body;
    let sent: Value = serde_json::from_slice(&sent).unwrap();
    let name = sent["tool_choice"]["name"].as_str().unwrap().to_owned();
    assert_eq!(sent["tools"][0]["name"], name);

    let call = json!({"type": "tool_use", "id": "toolu_1", "name": name, "input": {"x": 1}});
    let whole = json!({"id": "msg_1", "content": [call], "stop_reason": "tool_use"});
    let mut answer = upstream.decode_response(&whole.to_string().into()).unwrap();
    shape.response(&mut answer);
    assert!(matches!(&answer.blocks[0].kind, BlockKind::Text(text) if text == "{\"x\":1}"));
    assert_eq!(answer.finish, Some(FinishReason::Stop));

    let start = json!({"type": "tool_use", "id": "toolu_1", "name": name, "input": {}});
    let delta = |text: &str| json!({"type": "input_json_delta", "partial_json": text});
    let stream = messages_stream(&start, &[delta("{\"x\""), delta(":1}")]);
    let pipe = Transcoder::new(upstream, client, echo(), shape);
    let (out, _) = run(Box::new(pipe), [stream.as_bytes()]);
    assert_eq!(content(&out), ("{\"x\":1}".to_owned(), json!("stop")));
}

#[test]
fn json_without_a_schema_comes_without_its_fence() {
    let (client, upstream) = (dialect("openai"), dialect("anthropic"));
    let body = json!({"model": "m", "messages": [{"role": "user", "content": "a"}],
        "response_format": {"type": "json_object"}});
    let request = decode(client, &body.to_string()).unwrap();
    let (_, shape) = Shape::of(&request, client, upstream, &Caps::permissive(), None);
    let delta = |text: &str| json!({"type": "text_delta", "text": text});
    let block = json!({"type": "text", "text": ""});
    let stream =
        messages_stream(&block, &[delta("```js"), delta("on\n{\"x\":"), delta("1}\n``"), delta("`")]);
    let pipe = Transcoder::new(upstream, client, echo(), shape);
    let (out, _) = run(Box::new(pipe), stream.as_bytes().chunks(11));
    assert_eq!(content(&out).0, "{\"x\":1}");
}

#[test]
fn thinking_between_tags_becomes_thinking() {
    let (client, upstream) = (dialect("anthropic"), dialect("openai"));
    let caps = Caps { inline_thinking: true, ..Caps::permissive() };
    let body = json!({"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "a"}]});
    let request = decode(client, &body.to_string()).unwrap();
    let piece = |text: &str| json!({"content": text});
    let stream = chunks(&[
        piece("<thi"),
        piece("nk>pl"),
        piece("an</think"),
        piece(">\n\nHi"),
        json!({"finish": "stop"}),
    ]);
    let (_, shape) = Shape::of(&request, client, upstream, &caps, None);
    let (out, _) = run(Box::new(Transcoder::new(upstream, client, echo(), shape)), [stream.as_bytes()]);
    let starts: Vec<_> = events(&out)
        .iter()
        .filter(|event| event["type"] == "content_block_start")
        .map(|event| (event["index"].clone(), event["content_block"]["type"].clone()))
        .collect();
    assert_eq!(starts, [(json!(0), json!("thinking")), (json!(1), json!("text"))]);
    assert!(out.contains("\"thinking\":\"pl") && out.contains("\"text\":\"Hi\"") && !out.contains("think>"));

    let whole =
        json!({"choices": [{"message": {"content": "<think>plan</think>\n\nHi"}, "finish_reason": "stop"}]});
    let mut answer = upstream.decode_response(&whole.to_string().into()).unwrap();
    Shape::of(&request, client, upstream, &caps, None).1.response(&mut answer);
    let kinds: Vec<_> = answer.blocks.iter().map(|block| format!("{:?}", block.kind)).collect();
    assert!(kinds[0].starts_with("Thinking") && kinds[1] == "Text(\"Hi\")", "{kinds:?}");

    // Where it is not known to do that, a text is a text.
    let (_, shape) = Shape::of(&request, client, upstream, &Caps::permissive(), None);
    let (out, _) = run(Box::new(Transcoder::new(upstream, client, echo(), shape)), [stream.as_bytes()]);
    assert!(out.contains("<thi"));
}
