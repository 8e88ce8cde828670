//! Answers that their upstream pauses: clients whose dialect has no word for that get them whole.

use omniroute_dialect::ir::Usage;
use omniroute_dialect::responses::Responses;
use omniroute_testkit::Answer;
use serde_json::{Value, json};

use crate::world::{Got, World, connection};

const ASK: &str = r#"{"model":"anthropic/claude-opus-4-6","messages":[{"role":"user","content":"hi"}],"web_search_options":{}"#;

/// The vendor itself, whose models search the web.
fn vendor() -> World {
    let vendor = omniroute_provider::ProviderId::from("anthropic");
    World::with(|entities| entities.connections.push(connection("a1", &vendor, "vendor", 1)), |_| {})
}

fn named(events: &[Value]) -> String {
    let lines =
        events.iter().map(|event| format!("event: {}\ndata: {event}\n\n", event["type"].as_str().unwrap()));
    lines.collect()
}

/// Tokens of prompt and answer that are billed; the log has the same.
fn billed(world: &World) -> (u64, u64) {
    let row = world.row();
    let mut sum = Usage::default();
    row.bills.iter().for_each(|bill| sum.add(&bill.usage));
    assert_eq!(row.usage, sum);
    (sum.input_total().unwrap(), sum.output_total.unwrap())
}

/// The blocks of a part of an answer: a search without its results, and some text.
fn content(text: &str) -> Value {
    json!([
        {"type": "thinking", "thinking": "so", "signature": "S1"},
        {"type": "text", "text": text, "citations": [{"type": "char_location", "cited_text": "x", "document_index": 0}]},
        {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "rust"}},
    ])
}

fn usage(input: u64, output: u64) -> Value {
    json!({"input_tokens": input, "output_tokens": output, "cache_read_input_tokens": 2})
}

fn whole(content: &Value, reason: &str) -> Answer {
    let body = json!({"id": "msg_1", "type": "message", "role": "assistant", "model": "claude", "content": content,
        "stop_reason": reason, "usage": usage(10, 5)});
    Answer::json(200, body.to_string())
}

fn block(index: u64, start: Value, deltas: &[Value]) -> Vec<Value> {
    let mut first = json!({"type": "content_block_start", "index": index});
    first["content_block"] = start;
    let mut events = vec![first];
    let delta = |delta: &Value| json!({"type": "content_block_delta", "index": index, "delta": delta});
    events.extend(deltas.iter().map(delta));
    events.push(json!({"type": "content_block_stop", "index": index}));
    events
}

fn stream(blocks: Vec<Vec<Value>>, reason: &str) -> Answer {
    let message = json!({"id": "msg_1", "model": "claude", "usage": usage(10, 1)});
    let mut events = vec![json!({"type": "message_start", "message": message})];
    events.extend(blocks.into_iter().flatten());
    events.push(
        json!({"type": "message_delta", "delta": {"stop_reason": reason}, "usage": {"output_tokens": 5}}),
    );
    events.push(json!({"type": "message_stop"}));
    Answer::new(200, "text/event-stream").send(named(&events))
}

/// The same as [`content`], as a stream.
fn paused_stream(text: &str) -> Answer {
    let citation = json!({"type": "char_location", "cited_text": "x", "document_index": 0});
    stream(
        vec![
            block(
                0,
                json!({"type": "thinking", "thinking": "", "signature": ""}),
                &[
                    json!({"type": "thinking_delta", "thinking": "s"}),
                    json!({"type": "thinking_delta", "thinking": "o"}),
                    json!({"type": "signature_delta", "signature": "S1"}),
                ],
            ),
            block(
                1,
                json!({"type": "text", "text": ""}),
                &[
                    json!({"type": "text_delta", "text": text}),
                    json!({"type": "citations_delta", "citation": citation}),
                ],
            ),
            block(
                2,
                json!({"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {}}),
                &[
                    json!({"type": "input_json_delta", "partial_json": "{\"query\":"}),
                    json!({"type": "input_json_delta", "partial_json": "\"rust\"}"}),
                ],
            ),
        ],
        "pause_turn",
    )
}

fn sent(world: &World) -> Vec<Value> {
    world.transport.sent().iter().map(|sent| serde_json::from_slice(&sent.body).unwrap()).collect()
}

/// What was sent back, member by member, whatever the order.
fn sent_back(world: &World, call: usize) -> Value {
    let body = &sent(world)[call];
    let last = body["messages"].as_array().unwrap().last().unwrap().clone();
    assert_eq!(last["role"], "assistant", "{body}");
    last["content"].clone()
}

async fn ask(world: &World, more: &str) -> Got {
    world.chat(&format!("{ASK}{more}}}")).await
}

#[tokio::test(start_paused = true)]
async fn a_whole_answer_goes_on_with_what_was_said_as_it_was() {
    let world = vendor();
    let rest = json!([{"type": "text", "text": "there"}]);
    world.transport.answer(whole(&content("hi "), "pause_turn"));
    world.transport.answer(whole(&content("over "), "pause_turn"));
    world.transport.answer(whole(&rest, "end_turn"));
    let got = ask(&world, "").await;
    let answer: Value = serde_json::from_str(&got.body).unwrap();
    assert_eq!(got.status, 200, "{answer}");
    assert_eq!(answer["choices"][0]["message"]["content"], "hi over there");
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");
    assert_eq!(answer["usage"]["prompt_tokens"], 36, "what all parts read: {answer}");
    assert_eq!(answer["usage"]["completion_tokens"], 15);
    assert_eq!(sent_back(&world, 1), content("hi "));
    let both: Vec<Value> =
        [content("hi "), content("over ")].iter().flat_map(|one| one.as_array().unwrap().clone()).collect();
    assert_eq!(sent_back(&world, 2), json!(both));
    assert_eq!(got.header("x-omniroute-attempts"), "3");
    let row = world.row();
    assert_eq!(row.attempts.iter().filter(|one| one.status == Some(200)).count(), 3);
    assert_eq!((row.usage.input_total(), row.usage.output_total), (Some(36), Some(15)));
    assert_eq!(billed(&world), (36, 15));
}

#[tokio::test(start_paused = true)]
async fn a_stream_goes_on_as_the_same_stream() {
    let world = vendor();
    world.transport.answer(paused_stream("hi "));
    let rest =
        block(0, json!({"type": "text", "text": ""}), &[json!({"type": "text_delta", "text": "there"})]);
    world.transport.answer(stream(vec![rest], "end_turn"));
    let got = ask(&world, r#","stream":true,"stream_options":{"include_usage":true}"#).await;
    let chunks: Vec<Value> = got
        .body
        .split("\n\n")
        .filter_map(|line| serde_json::from_str(line.strip_prefix("data: ")?).ok())
        .collect();
    let texts = chunks.iter().filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str());
    assert_eq!(texts.collect::<String>(), "hi there", "{}", got.body);
    let ends: Vec<_> =
        chunks.iter().filter_map(|chunk| chunk["choices"][0]["finish_reason"].as_str()).collect();
    assert_eq!(ends, ["stop"]);
    assert!(got.body.ends_with("data: [DONE]\n\n"), "{}", got.body);
    assert_eq!(chunks.last().unwrap()["usage"]["prompt_tokens"], 24, "{}", got.body);
    assert_eq!(sent_back(&world, 1), content("hi "));
    assert!(sent(&world)[1]["stream"] == true && world.row().attempts.len() == 2);
    assert_eq!(billed(&world), (24, 10));
}

#[tokio::test(start_paused = true)]
async fn items_of_a_stream_that_goes_on_are_numbered_on() {
    let world = vendor();
    world.transport.answer(paused_stream("hi "));
    let rest =
        block(0, json!({"type": "text", "text": ""}), &[json!({"type": "text_delta", "text": "there"})]);
    world.transport.answer(stream(vec![rest], "end_turn"));
    let body =
        r#"{"model":"anthropic/claude-opus-4-6","input":"hi","tools":[{"type":"web_search"}],"stream":true}"#;
    let got = world.send(&Responses, body, &[]).await;
    let done = got.body.split("\n\n").filter(|event| event.starts_with("event: response.output_item.done"));
    let places: Vec<u64> = done
        .map(|event| {
            let event: Value = serde_json::from_str(event.split_once("data: ").unwrap().1).unwrap();
            event["output_index"].as_u64().unwrap()
        })
        .collect();
    assert!(places.iter().copied().eq(0..places.len() as u64) && places.len() >= 2, "{}", got.body);
    assert_eq!(got.body.matches("event: response.created").count(), 1);
    assert_eq!(got.body.matches("event: response.completed").count(), 1);
}

#[tokio::test(start_paused = true)]
async fn after_five_pauses_the_answer_ends() {
    for stream in ["", r#","stream":true"#] {
        let world = vendor();
        for _ in 0..7 {
            let part =
                if stream.is_empty() { whole(&content("x"), "pause_turn") } else { paused_stream("x") };
            world.transport.answer(part);
        }
        let got = ask(&world, stream).await;
        assert_eq!((got.status, world.transport.left()), (200, 1), "{}", got.body);
        assert!(got.body.contains(r#""finish_reason":"stop""#), "{}", got.body);
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_continuation_is_a_failure() {
    let refusal = |status| {
        Answer::json(status, r#"{"type":"error","error":{"type":"invalid_request_error","message":"broke"}}"#)
    };
    let world = vendor();
    world.transport.answer(paused_stream("hi ")).answer(refusal(500));
    let got = ask(&world, r#","stream":true"#).await;
    assert!(got.body.contains("broke") && !got.body.contains("[DONE]"), "{}", got.body);
    assert_eq!(billed(&world), (12, 5), "what came before");
    let world = vendor();
    world.transport.answer(whole(&content("x"), "pause_turn")).answer(refusal(400));
    let got = ask(&world, "").await;
    assert!(got.status == 400 && got.body.contains("broke"), "{}", got.body);
    assert_eq!(billed(&world), (12, 5));
}

#[tokio::test(start_paused = true)]
async fn clients_that_know_pauses_are_told() {
    let world = vendor();
    world.transport.answer(whole(&content("x"), "pause_turn"));
    let body = r#"{"model":"anthropic/claude-opus-4-6","max_tokens":9,"messages":[{"role":"user","content":"hi"}],"tools":[{"type":"web_search_20250305","name":"web_search"}]}"#;
    let got = world.messages(body).await;
    assert!(got.body.contains(r#""stop_reason":"pause_turn""#), "{}", got.body);
    assert_eq!(world.transport.sent().len(), 1);
}
