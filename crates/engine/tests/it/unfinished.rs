//! Streams that do not come to their end, of upstreams that tell a usage before it.

use std::time::Duration;

use http_body_util::BodyExt as _;
use omniroute_dialect::{Dialect, anthropic::Anthropic, openai::OpenAi};
use omniroute_domain::price::PriceRow;
use omniroute_testkit::Answer;

use crate::world::{World, stream};

const CLAUDE: &str =
    r#"{"model":"anth/m","max_tokens":99,"stream":true,"messages":[{"role":"user","content":"hi"}]}"#;
const CHAT: &str = r#"{"model":"anth/m","messages":[{"role":"user","content":"hi"}],"stream":true}"#;
/// 40 characters, so 10 tokens.
const TEXT: &str = "a text of forty characters, or just so..";
const LIMIT: Duration = Duration::from_secs(100);

fn event(name: &str, data: &str) -> String {
    format!("event: {name}\ndata: {{\"type\":\"{name}\",{data}}}\n\n")
}

/// The beginning of a message tells the prompt, and one token of answer.
fn begun(input: u64) -> String {
    let message = format!(
        r#""message":{{"id":"msg_1","type":"message","role":"assistant","model":"m","content":[],"stop_reason":null,"usage":{{"input_tokens":{input},"cache_read_input_tokens":0,"output_tokens":1}}}}"#
    );
    let block = r#""index":0,"content_block":{"type":"text","text":""}"#;
    event("message_start", &message) + &event("content_block_start", block)
}

fn says(text: &str) -> String {
    let delta = format!(r#""index":0,"delta":{{"type":"text_delta","text":"{text}"}}"#);
    event("content_block_delta", &delta)
}

fn ended(output: u64) -> String {
    let delta = format!(r#""delta":{{"stop_reason":"end_turn"}},"usage":{{"output_tokens":{output}}}"#);
    event("content_block_stop", r#""index":0"#)
        + &event("message_delta", &delta)
        + "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n"
}

fn half(input: u64) -> Answer {
    stream().send(begun(input)).send(says(TEXT)).send(says(TEXT))
}

fn world() -> World {
    World::with(
        |entities| {
            let row = PriceRow { input: Some(1_000.0), output: Some(2_000.0), ..PriceRow::default() };
            for node in ["anthropic-compatible-1", "gemini-compatible-1"] {
                entities.prices.user.entry(node.into()).or_default().insert("m".into(), row.clone());
            }
        },
        |options| options.stream_idle_timeout = LIMIT,
    )
}

/// What the request was billed: prompt, answer, and whether that is an estimate.
fn billed(world: &World) -> (Option<u64>, Option<u64>, bool) {
    let row = world.row();
    let [bill] = &*row.bills else { panic!("one bill: {:?}", row.bills) };
    assert_eq!((bill.usage, bill.estimated), (row.attempts[0].usage, row.usage_estimated));
    let (input, output) = (bill.usage.input_total(), bill.usage.output_total);
    let nano = i64::try_from(input.unwrap() * 1_000_000 + output.unwrap() * 2_000_000).unwrap();
    assert_eq!(bill.amount_nano, Some(nano));
    (input, output, bill.estimated)
}

async fn hangs_up(world: &World, dialect: &'static dyn Dialect, body: &str, frames: usize) {
    let mut body = world.respond(dialect, body, &[]).await.into_body();
    for _ in 0..frames {
        assert!(body.frame().await.is_some());
    }
}

#[tokio::test(start_paused = true)]
async fn what_came_is_billed_when_the_client_hangs_up() {
    let clients: [(&'static dyn Dialect, &str); 2] = [(&Anthropic, CLAUDE), (&OpenAi, CHAT)];
    for (dialect, body) in clients {
        let world = world();
        world.transport.answer(half(40).hang());
        hangs_up(&world, dialect, body, 1).await;
        assert_eq!(world.row().status, 499);
        assert_eq!(billed(&world), (Some(40), Some(20), true), "{}", dialect.id().as_str());
    }
}

#[tokio::test(start_paused = true)]
async fn what_came_is_billed_when_the_stream_breaks_or_falls_silent() {
    let error = r#""error":{"type":"overloaded_error","message":"busy"}"#;
    for bad in [half(40).abort(), half(40), half(40).send(event("error", error)), half(40).hang()] {
        let world = world();
        world.transport.answer(bad);
        let got = world.messages(CLAUDE).await;
        assert!(got.body.contains("event: error") && !got.body.contains("message_stop"), "{}", got.body);
        assert_eq!(billed(&world), (Some(40), Some(20), true));
    }
}

#[tokio::test(start_paused = true)]
async fn what_came_is_billed_when_an_operator_ends_it() {
    let world = world();
    world.transport.answer(half(40).hang());
    let telemetry = &world.engine.telemetry;
    let ends = async {
        tokio::time::sleep(Duration::from_secs(3)).await;
        telemetry.active().iter().map(|request| telemetry.cancel(&request.id)).sum::<usize>()
    };
    let (_, ended) = tokio::join!(world.messages(CLAUDE), ends);
    assert_eq!((ended, world.row().status), (1, 499));
    assert_eq!(billed(&world), (Some(40), Some(20), true));
}

#[tokio::test(start_paused = true)]
async fn a_count_of_the_upstream_that_is_higher_holds() {
    let world = world();
    world.transport.answer(stream().send(begun(40)).send(says("a")).hang());
    hangs_up(&world, &Anthropic, CLAUDE, 1).await;
    assert_eq!(billed(&world), (Some(40), Some(1), false), "there is nothing to guess");

    world.transport.answer(half(40).send(ended(7)));
    assert!(world.messages(CLAUDE).await.body.contains("message_stop"));
    assert_eq!(billed(&world), (Some(40), Some(7), false), "what is told at the end is the truth");
}

#[tokio::test(start_paused = true)]
async fn a_prompt_that_is_told_at_the_end_only_is_estimated() {
    let world = world();
    world.transport.answer(half(0).hang());
    hangs_up(&world, &Anthropic, CLAUDE, 1).await;
    assert_eq!(billed(&world), (Some(CLAUDE.len() as u64 / 4), Some(20), true));
}

#[tokio::test(start_paused = true)]
async fn dialects_that_count_as_they_go_are_believed_until_more_has_come() {
    let piece = |text: &str, tokens: u64| {
        format!(
            "data: {{\"candidates\":[{{\"content\":{{\"parts\":[{{\"text\":\"{text}\"}}],\"role\":\"model\"}},\"index\":0}}],\"usageMetadata\":{{\"promptTokenCount\":30,\"candidatesTokenCount\":{tokens},\"totalTokenCount\":{}}},\"modelVersion\":\"m\"}}\n\n",
            30 + tokens
        )
    };
    for (tokens, expected) in [(3, (Some(30), Some(20), true)), (23, (Some(30), Some(23), false))] {
        let world = world();
        world.transport.answer(stream().send(piece(TEXT, 1)).send(piece(TEXT, tokens)).hang());
        hangs_up(&world, &OpenAi, &CHAT.replace("anth/", "gem/"), 1).await;
        assert_eq!(billed(&world), expected);
    }
}
