//! Answers that are given again to whoever asks for the same.

#![allow(clippy::disallowed_methods, reason = "clients of a test are tasks of their own")]

mod rates;

use std::sync::Arc;
use std::time::Duration;

use omniroute_dialect::Dialect as _;
use omniroute_dialect::anthropic::Anthropic;
use omniroute_dialect::ir::BlockKind;
use omniroute_dialect::openai::OpenAi;
use omniroute_dialect::stream::StreamCollector;
use omniroute_domain::entity::{ApiKey, ApiKeyId, Budget, Entities, KeyHash};
use omniroute_domain::price::PriceRow;
use omniroute_engine::ports::Memory;

use crate::world::{ASK, END, Got, KEY, NOW_MS, World, answer, chunk, combo, key, refusal, stream};

const COLD: &str = r#"{"model":"up/m","messages":[{"role":"user","content":"hi"}],"temperature":0}"#;
const BEARER: (&str, &str) = ("authorization", "Bearer sk-omni-test");
const HALF_AN_HOUR: Duration = Duration::from_millis(1_800_000);

fn cold(more: &str) -> String {
    COLD.replace(r#""temperature":0"#, &format!(r#""temperature":0,{more}"#))
}

fn cache(got: &Got) -> &str {
    got.header("x-omniroute-cache")
}

/// An answer of the upstream that calls a tool.
fn calling() -> omniroute_testkit::Answer {
    omniroute_testkit::Answer::json(
        200,
        r#"{"id":"x","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":null,"tool_calls":[{"id":"call_first","type":"function","function":{"name":"w","arguments":"{\"c\":\"Rome\"}"}}]},"finish_reason":"tool_calls"}],"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}}"#,
    )
}

fn finished(reason: &str) -> omniroute_testkit::Answer {
    let body = format!(
        r#"{{"id":"x","object":"chat.completion","created":1,"model":"m","choices":[{{"index":0,"message":{{"role":"assistant","content":"half"}},"finish_reason":"{reason}"}}],"usage":{{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}}}}"#
    );
    omniroute_testkit::Answer::json(200, body)
}

fn price(entities: &mut Entities) {
    let row = PriceRow { input: Some(1_000.0), output: Some(2_000.0), ..PriceRow::default() };
    entities.prices.user.entry("openai-compatible-chat-1".into()).or_default().insert("m".into(), row);
}

fn json(got: &Got) -> serde_json::Value {
    serde_json::from_str(&got.body).unwrap_or_else(|error| panic!("{error}: {}", got.body))
}

#[tokio::test(start_paused = true)]
async fn the_same_question_is_answered_once() {
    let world = World::with(price, |_| {});
    world.transport.answer(answer("hello"));
    let first = world.chat(COLD).await;
    assert_eq!((first.status, cache(&first)), (200, "MISS"));
    tokio::time::advance(Duration::from_secs(5)).await;
    let again = world.chat(COLD).await;
    assert_eq!((again.status, cache(&again), world.transport.sent().len()), (200, "HIT", 1));

    let (one, other) = (json(&first), json(&again));
    assert_ne!(one["id"], other["id"]);
    assert!(other["created"].as_i64() >= Some(NOW_MS / 1_000 + 5), "{other}");
    for same in ["/choices/0/message/content", "/choices/0/finish_reason", "/usage", "/model", "/object"] {
        assert_eq!(one.pointer(same), other.pointer(same), "{same}");
    }
    assert_eq!(again.header("x-omniroute-response-cost"), "0");
    assert_eq!((again.header("x-omniroute-attempts"), again.header("x-omniroute-model")), ("", "m"));

    let row = world.row();
    assert_eq!((row.source, row.status, row.cost_nano, row.attempts.len()), ("semantic", 200, Some(0), 0));
    assert_eq!((row.saved_nano(), &*row.model), (Some(7_000_000), "m"));
    assert_eq!((row.bills.len(), row.usage.output_total), (1, None), "nothing is used twice");
    let decision = row.decision.expect("it is written down where it leads");
    assert_eq!((decision.via, decision.strategy), (Some("direct"), Some("fill-first")));
    assert!(decision.candidates(OpenAi.id()).is_empty(), "and nobody is chosen");
    let counts = world.engine.cache_counts();
    assert_eq!((counts.hits, counts.misses, counts.in_memory), (1, 1, 1));
    assert_eq!((counts.tokens_saved, counts.nano_saved), (5, 7_000_000));
}

#[tokio::test(start_paused = true)]
async fn what_may_be_another_answer_is_asked_for() {
    let tools = |name: &str| format!(r#""tools":[{{"type":"function","function":{{"name":"{name}"}}}}]"#);
    let base = cold(&format!(r#"{},"tool_choice":"auto""#, tools("f")));
    for (first, second) in [
        (ASK.to_owned(), ASK.to_owned()),
        (cold(r#""n":2"#), cold(r#""n":2"#)),
        (cold(r#""logprobs":true"#), cold(r#""logprobs":true"#)),
        (base.clone(), cold(&format!(r#"{},"tool_choice":"auto""#, tools("g")))),
        (base, cold(&format!(r#"{},"tool_choice":"required""#, tools("f")))),
        (COLD.to_owned(), cold(r#""response_format":{"type":"json_object"}"#)),
        (COLD.to_owned(), COLD.replace(r#""temperature":0"#, r#""temperature":0.5"#)),
        (COLD.to_owned(), COLD.replace(r#","temperature":0"#, "")),
        (COLD.to_owned(), cold(r#""top_p":0.5"#)),
        (COLD.to_owned(), cold(r#""max_tokens":7"#)),
        (COLD.to_owned(), cold(r#""seed":7"#)),
        (COLD.to_owned(), COLD.replace("hi", "hi ")),
        (COLD.to_owned(), COLD.replace("up/m", "up/other")),
        (COLD.to_owned(), COLD.replace(r#""user""#, r#""system""#)),
    ] {
        let world = World::new();
        world.transport.answer(answer("one")).answer(answer("two"));
        let one = world.chat(&first).await;
        assert_eq!((one.status, cache(&one)), (200, "MISS"), "{first}");
        let other = world.chat(&second).await;
        assert_eq!((cache(&other), other.body.contains("two")), ("MISS", true), "{first} {second}");
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_has_another_key_asks_for_themselves() {
    let world = World::with(
        |entities| {
            let other = ApiKey { id: ApiKeyId::from("k2"), hash: KeyHash::of("sk-omni-other"), ..key() };
            entities.api_keys.push(other);
        },
        |_| {},
    );
    let cases = [vec![BEARER], vec![("authorization", "Bearer sk-omni-other")], vec![]];
    for headers in &cases {
        world.transport.answer(answer("mine"));
        assert_eq!(cache(&world.send(&OpenAi, COLD, headers).await), "MISS", "{headers:?}");
    }
    for headers in &cases {
        assert_eq!(cache(&world.send(&OpenAi, COLD, headers).await), "HIT", "{headers:?}");
    }
    let memories = world.recorded.memories.lock().unwrap();
    let tenants: Vec<_> = memories
        .iter()
        .filter_map(|memory| match memory {
            Memory::Answer(row) => Some((row.tenant.clone(), row.signature.split('.').next()?.to_owned())),
            _ => None,
        })
        .collect();
    assert_eq!(tenants, ["k1", "k2", "_"].map(|id| (id.to_owned(), id.to_owned())));
}

#[tokio::test(start_paused = true)]
async fn a_client_can_do_without() {
    for (name, value, reads) in [
        ("x-omniroute-no-cache", "true", false),
        ("cache-control", "no-cache", false),
        ("cache-control", "no-store", true),
        ("x-omniroute-cache-ttl", "0", true),
    ] {
        let world = World::new();
        world.transport.answer(answer("one")).answer(answer("two")).answer(answer("three"));
        let headers = [(name, value)];
        let got = world.send(&OpenAi, COLD, &headers).await;
        assert_eq!((got.status, cache(&got)), (200, "MISS"), "{name}: {value}");
        assert_eq!(cache(&world.chat(COLD).await), "MISS", "{name}: {value} kept an answer");
        let got = world.send(&OpenAi, COLD, &headers).await;
        assert_eq!(cache(&got), if reads { "HIT" } else { "MISS" }, "{name}: {value}");
    }
    let world = World::new();
    let got = world.send(&OpenAi, COLD, &[("x-omniroute-cache-ttl", "a day")]).await;
    assert_eq!(got.status, 400);
    assert!(got.body.contains("X-OmniRoute-Cache-TTL"), "{}", got.body);
}

#[tokio::test(start_paused = true)]
async fn an_answer_ends_to_the_millisecond() {
    for (headers, ttl) in
        [(vec![], HALF_AN_HOUR), (vec![("x-omniroute-cache-ttl", "7")], Duration::from_secs(7))]
    {
        let world = World::new();
        world.transport.answer(answer("one")).answer(answer("two"));
        world.send(&OpenAi, COLD, &headers).await;
        tokio::time::advance(ttl - Duration::from_millis(1)).await;
        assert_eq!(cache(&world.chat(COLD).await), "HIT");
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(cache(&world.chat(COLD).await), "MISS");
    }
}

#[tokio::test(start_paused = true)]
async fn only_complete_answers_are_kept() {
    let long = "x".repeat(256 * 1024);
    for kept_not in [
        finished("length"),
        finished("content_filter"),
        answer(&long),
        omniroute_testkit::Answer::json(200, r#"{"error":{"message":"no","type":"invalid_request_error"}}"#),
        refusal(400, "invalid_request_error", "no"),
    ] {
        let world = World::with(
            |entities| {
                entities.settings.request_retry = 0;
                entities.connections.retain(|connection| connection.name != "second");
            },
            |_| {},
        );
        world.transport.answer(kept_not);
        let first = world.chat(COLD).await;
        if first.status != 200 {
            assert_eq!(cache(&first), "", "errors say nothing of the cache");
        }
        world.transport.answer(answer("whole")).answer(answer("whole"));
        tokio::time::advance(Duration::from_secs(600)).await;
        let next = world.chat(COLD).await;
        assert_eq!((next.status, cache(&next)), (200, "MISS"));
        assert_eq!(cache(&world.chat(COLD).await), "HIT");
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_found_in_every_dialect() {
    let world = World::new();
    world.transport.answer(answer("bonjour"));
    assert_eq!(cache(&world.chat(&cold(r#""max_tokens":64"#)).await), "MISS");
    let ask =
        r#"{"model":"up/m","max_tokens":64,"temperature":0.0,"messages":[{"role":"user","content":"hi"}]}"#;
    let got = world.messages(ask).await;
    let whole = json(&got);
    assert_eq!((cache(&got), &whole["type"]), ("HIT", &"message".into()), "{whole}");
    assert_eq!(whole["content"][0]["text"], "bonjour");
    assert_eq!((&whole["usage"]["input_tokens"], &whole["usage"]["output_tokens"]), (&3.into(), &2.into()));
    assert!(whole["id"].as_str().is_some_and(|id| id.starts_with("msg_")));
    assert_eq!(got.header("request-id"), got.header("x-request-id"));
}

#[tokio::test(start_paused = true)]
async fn streams_are_kept_and_given() {
    let text = "Grüße, 世界! ".repeat(20);
    let streaming = cold(r#""stream":true"#);
    let world = World::new();
    world.transport.answer(stream().send(chunk(&text)).send(END));
    let first = world.chat(&streaming).await;
    assert!(first.body.ends_with("data: [DONE]\n\n") && cache(&first).is_empty(), "{:?}", first.headers);

    let whole = world.chat(COLD).await;
    assert_eq!(
        (cache(&whole), json(&whole)["choices"][0]["message"]["content"].as_str()),
        ("HIT", Some(&*text))
    );
    assert_eq!(json(&whole)["usage"]["completion_tokens"], 2);

    let usage = cold(r#""stream":true,"stream_options":{"include_usage":true}"#);
    for (body, has_usage) in [(&streaming, false), (&usage, true)] {
        let again = world.chat(body).await;
        assert_eq!((again.status, cache(&again)), (200, "HIT"));
        assert!(again.header("content-type").starts_with("text/event-stream"));
        assert_eq!(again.header("cache-control"), "no-cache, no-transform");
        assert_eq!(again.body.matches("data: [DONE]").count(), 1);
        assert_eq!(again.body.matches(r#""finish_reason":"stop""#).count(), 1);
        assert_eq!(again.body.contains(r#""total_tokens":5"#), has_usage, "{}", again.body);
        let mut collector = StreamCollector::new(&OpenAi);
        collector.push(again.body.as_bytes()).unwrap();
        let BlockKind::Text(told) = &collector.finish().unwrap().blocks[0].kind else { panic!("a text") };
        assert_eq!(*told, text);
        assert!(again.body.matches("\"content\":").count() >= text.chars().count() / 60, "in one piece");
    }
    let ask = r#"{"model":"up/m","max_tokens":64,"temperature":0,"messages":[{"role":"user","content":"ho"}],"stream":true}"#;
    world.transport.answer(stream().send(chunk("ho")).send(END));
    assert!(cache(&world.messages(ask).await).is_empty());
    let again = world.messages(ask).await;
    assert_eq!(cache(&again), "HIT");
    for event in
        ["message_start", "content_block_start", "content_block_delta", "message_delta", "message_stop"]
    {
        assert!(again.body.contains(&format!("event: {event}\n")), "{event}: {}", again.body);
    }
    assert_eq!(world.transport.sent().len(), 2);
    assert_eq!(world.row().source, "semantic");
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_broke_off_is_not_kept() {
    let world = World::new();
    let streaming = cold(r#""stream":true"#);
    world.transport.answer(stream().send(chunk("half")).abort());
    assert!(world.chat(&streaming).await.body.contains("error"));
    world.transport.answer(answer("whole"));
    assert_eq!(cache(&world.chat(COLD).await), "MISS");
}

#[tokio::test(start_paused = true)]
async fn calls_get_new_ids() {
    let world = World::new();
    let ask = cold(r#""tools":[{"type":"function","function":{"name":"w"}}]"#);
    world.transport.answer(calling());
    world.chat(&ask).await;
    let id = |got: &Got| {
        let whole = json(got);
        let call = whole["choices"][0]["message"]["tool_calls"][0].clone();
        assert_eq!(call["function"]["arguments"], r#"{"c":"Rome"}"#);
        call["id"].as_str().unwrap().to_owned()
    };
    let (one, other) = (world.chat(&ask).await, world.chat(&ask).await);
    assert_eq!((cache(&one), cache(&other)), ("HIT", "HIT"));
    assert!(id(&one) != id(&other) && id(&one) != "call_first" && id(&one).starts_with("call_"));
    let streamed = world.chat(&ask.replace("\"temperature\"", "\"stream\":true,\"temperature\"")).await;
    assert_eq!(cache(&streamed), "HIT");
    assert!(streamed.body.contains(r#""finish_reason":"tool_calls""#) && streamed.body.contains("Rome"));
}

async fn at_once(world: &Arc<World>, times: usize) -> Vec<Got> {
    let asked: Vec<_> = (0..times)
        .map(|_| {
            let world = world.clone();
            tokio::spawn(async move { world.chat(COLD).await })
        })
        .collect();
    let mut got = Vec::new();
    for one in asked {
        got.push(one.await.unwrap());
    }
    got
}

#[tokio::test(start_paused = true)]
async fn those_who_ask_at_once_wait_for_one() {
    let world = Arc::new(World::new());
    world.transport.answer(answer("one").after(Duration::from_secs(30)));
    let got = at_once(&world, 4).await;
    let told: Vec<_> = got.iter().map(cache).collect();
    assert_eq!((told, world.transport.sent().len()), (vec!["MISS", "HIT", "HIT", "HIT"], 1));

    // The first fails: the next one asks, the rest wait for that.
    let world = Arc::new(World::with(|entities| entities.settings.request_retry = 0, |_| {}));
    world.transport.answer(refusal(400, "invalid_request_error", "no").after(Duration::from_secs(3)));
    world.transport.answer(answer("two").after(Duration::from_secs(3)));
    let got = at_once(&world, 3).await;
    let statuses: Vec<_> = got.iter().map(|got| got.status).collect();
    let mut told: Vec<_> = got.iter().map(cache).collect();
    // Which of those who wait is the next is not settled.
    told.sort_unstable();
    assert_eq!((statuses, told), (vec![400, 200, 200], vec!["", "HIT", "MISS"]));
    assert_eq!(world.transport.sent().len(), 2);

    // What nobody else gets: everybody asks, at once.
    let world = Arc::new(World::new());
    for _ in 0..3 {
        world.transport.answer(finished("length").after(Duration::from_secs(3)));
    }
    let before = world.elapsed();
    assert!(at_once(&world, 3).await.iter().all(|got| cache(got) == "MISS"));
    assert_eq!(world.elapsed() - before, Duration::from_secs(6));

    // Too slow: who waits goes alone.
    let world = Arc::new(World::new());
    world.transport.answer(answer("slow").after(Duration::from_secs(300)));
    world.transport.answer(answer("fast").after(Duration::from_secs(1)));
    let got = at_once(&world, 2).await;
    assert!(got[0].body.contains("slow") && got[1].body.contains("fast"));
}

#[tokio::test(start_paused = true)]
async fn a_restart_keeps_answers_for_the_rest_of_their_time() {
    let world = World::new();
    world.transport.answer(answer("kept")).answer(answer("new"));
    world.chat(COLD).await;
    tokio::time::advance(HALF_AN_HOUR - Duration::from_secs(1)).await;
    let next = world.restarted(|_| {});
    assert_eq!(cache(&next.chat(COLD).await), "HIT");
    assert_eq!(next.engine.cache_counts().in_memory, 1, "memory has it now");
    tokio::time::advance(Duration::from_millis(999)).await;
    *next.recorded.shelf_delay.lock().unwrap() = Duration::from_secs(3);
    assert_eq!(cache(&next.chat(COLD).await), "HIT", "the shelf is not asked for what is in memory");
    *next.recorded.shelf_delay.lock().unwrap() = Duration::ZERO;
    tokio::time::advance(Duration::from_millis(1)).await;
    assert_eq!(cache(&next.chat(COLD).await), "MISS");
}

#[tokio::test(start_paused = true)]
async fn a_slow_shelf_holds_nobody_up() {
    let world = World::new();
    world.transport.answer(answer("kept"));
    world.chat(COLD).await;
    let next = world.restarted(|_| {});
    *next.recorded.shelf_delay.lock().unwrap() = Duration::from_secs(30);
    next.transport.answer(answer("new"));
    let before = next.elapsed();
    assert_eq!(cache(&next.chat(COLD).await), "MISS");
    assert_eq!(next.elapsed() - before, Duration::from_millis(250));
    assert_eq!((next.engine.cache_counts().shelf_late, next.engine.cache_counts().shelf_failures), (1, 0));
    // One that fails is a miss too, and is counted apart.
    let next = world.restarted(|_| {});
    *next.recorded.shelf_delay.lock().unwrap() = Duration::ZERO;
    *next.recorded.shelf_fails.lock().unwrap() = true;
    next.transport.answer(answer("new"));
    assert_eq!(cache(&next.chat(COLD).await), "MISS");
    assert_eq!((next.engine.cache_counts().shelf_late, next.engine.cache_counts().shelf_failures), (0, 1));
    assert_eq!(cache(&next.chat(COLD).await), "HIT", "from memory");
    // Whoever does not want the same every time does not ask it at all.
    next.transport.answer(answer("warm"));
    let before = next.elapsed();
    next.chat(ASK).await;
    assert_eq!(next.elapsed(), before);
}

#[tokio::test(start_paused = true)]
async fn keys_and_settings_switch_it_off() {
    type Change = fn(&mut Entities);
    let cases: [(Change, bool); 3] = [
        (|entities| entities.api_keys[0].rights.no_cache = true, false),
        (|entities| entities.settings.semantic_cache_enabled = false, false),
        (|entities| entities.settings.semantic_cache_max_size = 0, true),
    ];
    for (change, hits) in cases {
        let world = World::with(change, |_| {});
        world.transport.answer(answer("one")).answer(answer("two"));
        world.send(&OpenAi, COLD, &[BEARER]).await;
        let again = world.send(&OpenAi, COLD, &[BEARER]).await;
        assert_eq!(cache(&again), if hits { "HIT" } else { "MISS" });
    }
    // Of a key whose contents are not stored nothing is written down.
    let world = World::with(|entities| entities.api_keys[0].no_log = true, |_| {});
    world.transport.answer(answer("secret"));
    world.send(&OpenAi, COLD, &[BEARER]).await;
    assert_eq!(cache(&world.send(&OpenAi, COLD, &[BEARER]).await), "HIT");
    assert!(world.recorded.memories.lock().unwrap().is_empty());
    assert_eq!(KEY, "sk-omni-test");
}

#[tokio::test(start_paused = true)]
async fn what_the_gateway_changes_in_requests_counts() {
    type Change = fn(&mut Entities);
    let changes: [Change; 2] = [
        |entities| {
            entities.settings.system_prompt.enabled = true;
            entities.settings.system_prompt.prefix_prompt = "Be brief.".into();
        },
        |entities| entities.settings.thinking_budget.mode = omniroute_domain::entity::ThinkingMode::Auto,
    ];
    for change in changes {
        let world = World::new();
        world.transport.answer(answer("one"));
        world.chat(COLD).await;
        let changed = world.restarted(change);
        changed.transport.answer(answer("two"));
        assert_eq!(cache(&changed.chat(COLD).await), "MISS");
        assert_eq!(cache(&changed.chat(COLD).await), "HIT");
        assert_eq!(cache(&world.restarted(|_| {}).chat(COLD).await), "HIT");
    }
    let world = World::new();
    world.transport.answer(answer("one")).answer(answer("two"));
    world.chat(COLD).await;
    assert_eq!(cache(&world.send(&OpenAi, COLD, &[("x-omniroute-thinking", "high")]).await), "MISS");
}

#[tokio::test(start_paused = true)]
async fn a_combo_answers_by_its_version_and_by_what_a_key_may_use() {
    let ask = COLD.replace("up/m", "mine");
    let world = World::with(|entities| entities.combos.push(combo("mine", &["up/m"])), |_| {});
    world.transport.answer(answer("one"));
    assert_eq!(cache(&world.send(&OpenAi, &ask, &[BEARER]).await), "MISS");
    assert_eq!(cache(&world.send(&OpenAi, &ask, &[BEARER]).await), "HIT");

    let changed = world.restarted(|entities| {
        let mut combo = combo("mine", &["up/m"]);
        combo.updated_at = 1;
        entities.combos.push(combo);
    });
    changed.transport.answer(answer("two"));
    assert_eq!(cache(&changed.send(&OpenAi, &ask, &[BEARER]).await), "MISS");

    let denied = world.restarted(|entities| {
        entities.combos.push(combo("mine", &["up/m"]));
        entities.api_keys[0].denied_models = vec!["up/m".into()];
    });
    let got = denied.send(&OpenAi, &ask, &[BEARER]).await;
    assert!(got.status >= 400, "{}", got.body);
}

#[tokio::test(start_paused = true)]
async fn a_hit_needs_no_account() {
    let world = World::with(|entities| entities.settings.request_retry = 0, |_| {});
    world.transport.answer(answer("kept"));
    world.chat(COLD).await;
    for _ in 0..2 {
        world.transport.answer(refusal(401, "authentication_error", "who are you"));
    }
    assert_ne!(world.chat(ASK).await.status, 200);
    assert_eq!(cache(&world.chat(COLD).await), "HIT");
}

#[tokio::test(start_paused = true)]
async fn a_hit_wins_over_a_repeated_key() {
    let world = World::new();
    world.transport.answer(answer("one"));
    let once = [("idempotency-key", "one")];
    world.send(&OpenAi, COLD, &once).await;
    let again = world.send(&OpenAi, COLD, &once).await;
    assert_eq!((cache(&again), again.header("x-omniroute-idempotent")), ("HIT", ""));
}

#[tokio::test(start_paused = true)]
async fn answers_are_deleted_and_their_use_is_told() {
    let world = World::new();
    world.transport.answer(answer("one")).answer(answer("two")).answer(answer("three"));
    world.chat(COLD).await;
    let other = COLD.replace("up/m", "up/n");
    world.chat(&other).await;
    world.chat(COLD).await;
    world.engine.sweep();
    let used = |memory: &Memory| matches!(memory, Memory::AnswerUsed { times: 1, .. });
    assert_eq!(world.recorded.memories.lock().unwrap().iter().filter(|memory| used(memory)).count(), 1);

    world.recorded.memories.lock().unwrap().clear();
    assert_eq!(world.engine.clear_cache(Some("up/m"), None), 1);
    assert_eq!((cache(&world.chat(&other).await), cache(&world.chat(COLD).await)), ("HIT", "MISS"));
    assert_eq!(world.engine.clear_cache(None, None), 2);
    assert_eq!(world.engine.cache_counts(), omniroute_engine::CacheCounts::default());
}

#[tokio::test(start_paused = true)]
async fn other_answers_say_that_they_are_new() {
    let world = World::new();
    world.transport.answer(answer("one"));
    assert_eq!(cache(&world.chat(ASK).await), "MISS");
    let ask = r#"{"model":"anth/m","max_tokens":9,"messages":[{"role":"user","content":"hi"}]}"#;
    world.transport.answer(omniroute_testkit::Answer::json(
        200,
        r#"{"id":"msg_1","type":"message","role":"assistant","model":"m","content":[{"type":"text","text":"hey"}],"stop_reason":"end_turn","usage":{"input_tokens":1,"output_tokens":1}}"#,
    ));
    assert_eq!(cache(&world.send(&Anthropic, ask, &[]).await), "MISS");
}

#[tokio::test(start_paused = true)]
async fn lists_of_gemini_clients_are_kept_and_given_to_all() {
    let gemini: &dyn omniroute_dialect::Dialect = &omniroute_dialect::gemini::Gemini;
    let ask = async |world: &World, query: Option<&str>| {
        let arrival = omniroute_engine::Arrival {
            peer: std::net::SocketAddr::from(([127, 0, 0, 1], 50_000)),
            method: http::Method::POST,
            path: "/v1beta/models/up/m:streamGenerateContent".into(),
            query: query.map(str::to_owned),
            headers: http::HeaderMap::new(),
            dialect: gemini,
            endpoint: "gemini",
            provider: None,
            is_logged: true,
        };
        let mut ctx = world.engine.begin(arrival);
        world.engine.identify(&mut ctx).unwrap();
        let body =
            r#"{"contents":[{"role":"user","parts":[{"text":"hi"}]}],"generationConfig":{"temperature":0}}"#;
        crate::images::read(world.engine.serve(ctx, body.into()).await).await
    };
    let world = World::new();
    world.transport.answer(stream().send(chunk("one ")).send(chunk("two")).send(END));
    let first = ask(&world, None).await;
    assert_eq!((first.status, cache(&first)), (200, ""), "{}", first.body);
    let texts = |got: &Got| -> String {
        let events = json(got);
        let parts = events.as_array().unwrap().iter();
        parts.filter_map(|event| event["candidates"][0]["content"]["parts"][0]["text"].as_str()).collect()
    };
    assert_eq!(texts(&first), "one two");
    let again = ask(&world, None).await;
    assert_eq!((cache(&again), texts(&again)), ("HIT", "one two".to_owned()), "{}", again.body);
    let events = ask(&world, Some("alt=sse")).await;
    assert_eq!(cache(&events), "HIT");
    assert!(events.body.starts_with("data: ") && events.body.contains("two"), "{}", events.body);
    assert_eq!(world.transport.sent().len(), 1);

    // A list that broke off is no answer.
    let world = World::new();
    for _ in 0..2 {
        world.transport.answer(stream().send(chunk("one ")).abort());
        assert!(ask(&world, None).await.body.contains("\"error\""));
    }
    assert_eq!(world.transport.sent().len(), 2);
}
