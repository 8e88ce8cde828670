//! Whether an upstream gets its own signature back with the client's next request.

use bytes::Bytes;
use omniroute_dialect::{
    Dialect,
    ir::{ChatRequest, ChatResponse},
    shape::{Notes, Seal, Shape, forgotten, open_carriers, recall},
};
use serde_json::{Value, json};

use super::{answers, words::Words};
use crate::support::{decode, dialect, echo, full_caps};

/// What the probes sign with.
const SIGNATURE: &str = "U0lHMQ==";

/// By which means it gets it back, or a dash where it signs nothing.
pub(super) fn sign(upstream: &Words, client: &Words, faults: &mut Vec<String>) -> String {
    let word = upstream.answers.get("signature");
    let Some(answer) = word.and_then(|word| upstream.answer(word)) else { return "–".to_owned() };
    if upstream.dialect == client.dialect {
        return "kept".to_owned();
    }
    let (from, to) = (dialect(&upstream.dialect), dialect(&client.dialect));
    let seal = Seal::new([7; 32]);
    let mut shape = Shape::of(&ChatRequest::default(), to, from, &full_caps(), Some(&seal)).1;
    let heard = from.decode_response(&Bytes::from(answer.to_string())).unwrap();
    let stream = answers::played(from, &heard);
    let mut whole = heard;
    shape.response(&mut whole);
    let notes = shape.notes().cloned();
    let (stream, _) = answers::passed(from, to, &stream);
    let whole = written(to, &whole);
    let streamed = match client.dialect.as_str() {
        "openai" => put_together(&answers::frames(&stream)),
        _ => written(to, &answers::collect(to, &stream)),
    };
    let way = |body| {
        let request = decode(to, &next(client, body).to_string()).unwrap();
        if is_back(request.clone(), upstream, client, None) {
            "carrier"
        } else if notes.as_ref().is_some_and(|notes| is_back(request, upstream, client, Some(notes))) {
            "memory"
        } else {
            "lost"
        }
    };
    let ways = [way(&whole), way(&streamed)];
    if ways.contains(&"lost") || ways[0] != ways[1] {
        faults.push(format!("signature back: {} -> {}: {ways:?}", upstream.dialect, client.dialect));
    }
    format!("kept, {}", ways[0])
}

fn written(client: &dyn Dialect, answer: &ChatResponse) -> Value {
    serde_json::from_slice(&client.encode_response(answer, &echo()).body).unwrap()
}

/// The message that an SDK for Chat Completions makes of chunks. The dialect's reader is for upstreams, which do not sign
/// as the gateway does for its clients.
fn put_together(chunks: &Value) -> Value {
    let mut message = json!({"role": "assistant", "content": null, "tool_calls": []});
    for chunk in chunks.as_array().unwrap() {
        let delta = &chunk["choices"][0]["delta"];
        if let Some(blocks) = delta.get("thinking_blocks") {
            message["thinking_blocks"] = blocks.clone();
        }
        for part in delta["tool_calls"].as_array().into_iter().flatten() {
            let calls = message["tool_calls"].as_array_mut().unwrap();
            let at = usize::try_from(part["index"].as_u64().unwrap()).unwrap();
            if at == calls.len() {
                calls.push(part.clone());
            } else {
                let arguments = &mut calls[at]["function"]["arguments"];
                let more = part["function"]["arguments"].as_str().unwrap();
                *arguments = format!("{}{more}", arguments.as_str().unwrap()).into();
            }
        }
    }
    json!({"choices": [{"message": message}]})
}

/// Whether the upstream finds its signature in what it is sent of a request.
fn is_back(mut request: ChatRequest, upstream: &Words, client: &Words, notes: Option<&Notes>) -> bool {
    let (from, to) = (dialect(&client.dialect), dialect(&upstream.dialect));
    let seal = Seal::new([7; 32]);
    open_carriers(&mut request, &seal);
    if let Some(notes) = notes {
        for (turn, keys) in forgotten(&request) {
            if notes.keys().any(|key| keys.contains(&key)) {
                recall(&mut request, turn, &notes.to_bytes());
            }
        }
    }
    let (request, _) = Shape::of(&request, from, to, &full_caps(), Some(&seal));
    let body = to.encode_request(&request, &full_caps()).unwrap().body;
    let body: Value = serde_json::from_slice(&body).unwrap();
    super::pattern::only_in(&body, &Value::Null).iter().any(|leaf| leaf == SIGNATURE)
}

/// The next request of a client that keeps what it was answered: the answer as its SDK appends it, and a result.
fn next(client: &Words, answer: &Value) -> Value {
    let user = "Hello";
    let (member, turns) = match client.dialect.as_str() {
        "openai" => {
            let message = &answer["choices"][0]["message"];
            let id = &message["tool_calls"][0]["id"];
            let result = json!({"role": "tool", "tool_call_id": id, "content": "Sun"});
            ("messages", vec![json!({"role": "user", "content": user}), message.clone(), result])
        }
        "responses" => {
            let output = answer["output"].as_array().unwrap();
            let id = output.iter().find_map(|item| item.get("call_id")).unwrap();
            let mut input = vec![json!({"type": "message", "role": "user", "content": user})];
            input.extend(output.iter().cloned());
            input.push(json!({"type": "function_call_output", "call_id": id, "output": "Sun"}));
            ("input", input)
        }
        "anthropic" => {
            let content = answer["content"].as_array().unwrap();
            let id = content.iter().find_map(|block| block.get("id")).unwrap();
            let result = json!({"type": "tool_result", "tool_use_id": id, "content": "Sun"});
            let turns = vec![
                json!({"role": "user", "content": user}),
                json!({"role": "assistant", "content": content}),
                json!({"role": "user", "content": [result]}),
            ];
            ("messages", turns)
        }
        "gemini" => {
            let content = &answer["candidates"][0]["content"];
            let result = json!({"functionResponse": {"name": "weather", "response": {"output": "Sun"}}});
            let turns = vec![
                json!({"role": "user", "parts": [{"text": user}]}),
                content.clone(),
                json!({"role": "user", "parts": [result]}),
            ];
            ("contents", turns)
        }
        "ollama" => {
            let result = json!({"role": "tool", "tool_name": "weather", "content": "Sun"});
            ("messages", vec![json!({"role": "user", "content": user}), answer["message"].clone(), result])
        }
        other => panic!("how does a client of {other} go on?"),
    };
    let (_, mut body) = client.request(&client.requests["tools"]).unwrap();
    body[member] = turns.into();
    body
}
