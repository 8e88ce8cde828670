//! Answers that a vendor keeps: who names one is led to the account that made it, and nobody else.

mod late;

use http::Method;
use http_body_util::BodyExt as _;
use omniroute_dialect::responses::Responses;
use omniroute_dialect::{Dialect as _, KeptCall};
use omniroute_domain::entity::{ApiKeyId, Entities, KeyHash, NodeType};
use omniroute_engine::Arrival;
use omniroute_engine::ports::{Memory, OwnerRow};
use omniroute_testkit::Answer;

use crate::world::{Got, KEY, NOW_MS, World, combo, connection, key, node};

const OTHER_KEY: &str = "sk-omni-other";

/// Two accounts at an upstream that speaks Responses, taken in turn.
pub(crate) fn world() -> World {
    world_with(|_| {})
}

fn world_with(change: impl FnOnce(&mut Entities)) -> World {
    World::with(
        |entities| {
            let mut vendor = node("openai-compatible-responses-1", NodeType::OpenaiCompatible, "r");
            vendor.api_type = Some("responses".into());
            entities.connections.push(connection("r1", &vendor.id, "one", 1));
            entities.connections.push(connection("r2", &vendor.id, "two", 2));
            entities.nodes.push(vendor);
            let mut other = key();
            (other.id, other.hash) = (ApiKeyId::from("k2"), KeyHash::of(OTHER_KEY));
            entities.api_keys.push(other);
            entities.settings.fallback_strategy = "round-robin".into();
            entities.settings.sticky_round_robin_limit = 1;
            change(entities);
        },
        |_| {},
    )
}

/// What a kept answer looks like.
fn object(id: &str, store: bool) -> String {
    format!(
        r#"{{"id":"{id}","object":"response","status":"completed","model":"m","store":{store},"conversation":{{"id":"conv_of_{id}"}},"output":[{{"type":"message","id":"msg_of_{id}","role":"assistant","content":[{{"type":"output_text","text":"hi","annotations":[]}}]}}],"usage":{{"input_tokens":1,"output_tokens":1,"total_tokens":2}}}}"#
    )
}

async fn ask(world: &World, key: &str, members: &str) -> Got {
    let bearer = format!("Bearer {key}");
    let body = format!(r#"{{"model":"r/m",{members}}}"#);
    world.send(&Responses, &body, &[("authorization", &bearer)]).await
}

/// The credential that the last call was made with.
pub(crate) fn last_account(world: &World) -> String {
    let sent = world.transport.sent();
    sent.last().unwrap().headers["authorization"].to_str().unwrap().replace("Bearer upstream-key-of-", "")
}

#[tokio::test(start_paused = true)]
async fn whoever_names_an_answer_is_led_to_the_account_that_made_it() {
    let world = world();
    world.transport.answer(Answer::json(200, object("resp_1", true)));
    assert_eq!(ask(&world, KEY, r#""input":"hi","store":true"#).await.status, 200);
    let maker = last_account(&world);
    for names in [
        r#""input":"on","previous_response_id":"resp_1""#,
        r#""conversation":"conv_of_resp_1","input":"on""#,
        r#""conversation":{"id":"conv_of_resp_1"},"previous_response_id":"resp_1","input":"on""#,
        r#""input":[{"type":"item_reference","id":"msg_of_resp_1"},{"role":"user","content":"on"}]"#,
        // What only the vendor knows goes where the rest is.
        r#""prompt":{"id":"pmpt_1"},"previous_response_id":"resp_1""#,
    ] {
        for _ in 0..3 {
            world.transport.answer(Answer::json(200, object("resp_x", false)));
            let got = ask(&world, KEY, names).await;
            assert_eq!((got.status, last_account(&world)), (200, maker.clone()), "{names}: {}", got.body);
        }
    }
    // The others still take turns.
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..2 {
        world.transport.answer(Answer::json(200, object("resp_x", false)));
        ask(&world, KEY, r#""input":"hi""#).await;
        seen.insert(last_account(&world));
    }
    assert_eq!(seen.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn what_is_not_known_is_refused_with_what_to_do() {
    let world = world();
    let stream = |kind: &str, id: &str| {
        format!(
            "event: response.{kind}\ndata: {{\"type\":\"response.{kind}\",\"response\":{}}}\n\n",
            object(id, true)
        )
    };
    let begun = Answer::new(200, "text/event-stream").send(stream("completed", "resp_s"));
    world.transport.answer(begun).answer(Answer::json(200, object("resp_f", false)));
    assert_eq!(ask(&world, KEY, r#""input":"hi","store":true,"stream":true"#).await.status, 200);
    assert_eq!(ask(&world, KEY, r#""input":"hi""#).await.status, 200);
    let calls = world.transport.sent().len();
    for (key, names, param, words) in [
        (KEY, r#""previous_response_id":"resp_0""#, "previous_response_id", "full input"),
        (KEY, r#""previous_response_id":"resp_f""#, "previous_response_id", "`store` true"),
        (OTHER_KEY, r#""previous_response_id":"resp_s""#, "previous_response_id", "the same key"),
        (
            OTHER_KEY,
            r#""input":[{"type":"item_reference","id":"msg_of_resp_s"}]"#,
            "input[0].id",
            "full input",
        ),
        (KEY, r#""prompt":{"id":"pmpt_1"}"#, "prompt", "several can serve"),
    ] {
        let got = ask(&world, key, names).await;
        assert_eq!(got.status, 400, "{names}: {}", got.body);
        for expected in ["\"unsupported_parameter\"", &format!(r#""param":"{param}""#), words] {
            assert!(got.body.contains(expected), "{names}: {expected} in {}", got.body);
        }
    }
    assert_eq!(world.transport.sent().len(), calls, "nobody was asked");
    world.transport.answer(Answer::json(200, object("resp_x", false)));
    let known = ask(&world, KEY, r#""previous_response_id":"resp_s","input":"on""#).await;
    assert_eq!(known.status, 200, "{}", known.body);
    // The answer of a stream is an answer too, and another provider's account has none of it.
    let elsewhere = r#"{"model":"anth/m","previous_response_id":"resp_s","input":"on"}"#;
    let bearer = format!("Bearer {KEY}");
    let got = world.send(&Responses, elsewhere, &[("authorization", &bearer)]).await;
    assert!(got.status == 400 && got.body.contains("cannot serve this model"), "{}", got.body);
}

#[tokio::test(start_paused = true)]
async fn owners_outlive_the_process_and_end_after_thirty_days() {
    let before = world();
    before.transport.answer(Answer::json(200, object("resp_1", true)));
    ask(&before, KEY, r#""input":"hi","store":true"#).await;
    let maker = last_account(&before);
    let memories = std::mem::take(&mut *before.recorded.memories.lock().unwrap());
    assert_eq!(memories.len(), 3, "the answer, its conversation and its item: {memories:?}");
    let after = world();
    for memory in &memories {
        let Memory::Owner(row) = memory else { panic!("{memory:?}") };
        assert_eq!(row.expires_at, NOW_MS + 30 * 24 * 3_600_000);
        let other =
            OwnerRow { response_id: format!("old_{}", row.response_id), expires_at: NOW_MS, ..row.clone() };
        after.engine.restore(Memory::Owner(other));
        after.engine.restore(memory.clone());
    }
    for _ in 0..2 {
        after.transport.answer(Answer::json(200, object("resp_x", false)));
        let got = ask(&after, KEY, r#""input":"on","previous_response_id":"resp_1""#).await;
        assert_eq!((got.status, last_account(&after)), (200, maker.clone()), "{}", got.body);
    }
    assert_eq!(ask(&after, KEY, r#""input":"on","previous_response_id":"old_resp_1""#).await.status, 400);
}

/// A call about an answer: what is to be done, to which one, and what its query says.
async fn about(world: &World, key: &str, id: &str, call: KeptCall, query: Option<&str>) -> Got {
    let mut headers = http::HeaderMap::new();
    headers.insert("authorization", format!("Bearer {key}").parse().unwrap());
    let mut ctx = world.engine.begin(Arrival {
        peer: ([127, 0, 0, 1], 50_000).into(),
        method: Method::GET,
        path: format!("/v1/responses/{id}").into(),
        query: query.map(str::to_owned),
        headers,
        dialect: &Responses,
        endpoint: "responses",
        provider: None,
        is_logged: true,
    });
    let response = match world.engine.identify(&mut ctx) {
        Ok(()) => world.engine.kept(ctx, id, call).await,
        Err(error) => world.engine.refuse(ctx, &error),
    };
    let (head, body) = response.into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    Got {
        status: head.status.as_u16(),
        headers: head.headers,
        body: String::from_utf8(bytes.to_vec()).unwrap(),
    }
}

/// An answer that is kept at one of the accounts; which one.
pub(crate) async fn kept(world: &World, id: &str) -> String {
    world.transport.answer(Answer::json(200, object(id, true)));
    assert_eq!(ask(world, KEY, r#""input":"hi","store":true"#).await.status, 200);
    last_account(world)
}

/// Which accounts would be asked about an answer, by what rule the others would not, and the status of an error.
async fn foreseen(world: &World, key: &str, id: &str) -> (Vec<(String, Option<&'static str>)>, Option<u16>) {
    let mut ctx = world.engine.begin(Arrival {
        peer: ([127, 0, 0, 1], 50_000).into(),
        method: Method::GET,
        path: format!("/v1/responses/{id}").into(),
        query: None,
        headers: http::HeaderMap::new(),
        dialect: &Responses,
        endpoint: "responses",
        provider: None,
        is_logged: false,
    });
    ctx.caller = ctx.snapshot.caller_by_id(&ApiKeyId::from(key)).cloned();
    let preview = world.engine.preview_kept(ctx, id).await;
    let told = preview
        .candidates
        .into_iter()
        .map(|it| (it.connection.unwrap().1.to_string(), it.skip.map(|it| it.rule)));
    (told.collect(), preview.error.map(|error| error.kind.status()))
}

#[tokio::test(start_paused = true)]
async fn calls_about_an_answer_go_to_the_account_that_made_it() {
    let world = world();
    kept(&world, "resp_0").await;
    let maker = kept(&world, "resp_1").await;
    let deleted = r#"{"id":"resp_1","object":"response","deleted":true}"#;
    let items = r#"{"object":"list","data":[],"first_id":null,"last_id":null,"has_more":false}"#;
    let asked_for = object("resp_1", true).replace(r#""model":"m""#, r#""model":"r/m""#);
    for (call, method, query, place, answer, expected) in [
        (KeptCall::Read, "GET", None, "/v1/responses/resp_1", object("resp_1", true), asked_for.as_str()),
        (
            KeptCall::Inputs,
            "GET",
            Some("limit=2&order=asc"),
            "/v1/responses/resp_1/input_items?limit=2&order=asc",
            items.to_owned(),
            items,
        ),
        (
            KeptCall::Cancel,
            "POST",
            None,
            "/v1/responses/resp_1/cancel",
            object("resp_1", true),
            asked_for.as_str(),
        ),
        (KeptCall::Delete, "DELETE", None, "/v1/responses/resp_1", deleted.to_owned(), deleted),
    ] {
        let (foreseen, error) = foreseen(&world, "k1", "resp_1").await;
        assert_eq!(error, None);
        world.transport.answer(Answer::json(200, answer));
        let got = about(&world, KEY, "resp_1", call, query).await;
        assert_eq!((got.status, got.body.as_str()), (200, expected), "{call:?}");
        let sent = world.transport.sent().pop().unwrap();
        assert_eq!((sent.method.as_str(), sent.uri.path_and_query().unwrap().as_str()), (method, place));
        assert_eq!((last_account(&world), sent.body.len()), (maker.clone(), 0), "{call:?}");
        let row = world.row();
        assert_eq!((row.status, row.attempts.len(), &*row.model), (200, 1, "m"));
        assert_eq!(&*row.requested_model, "r/m");
        let decision = row.decision.expect("it is written down");
        let recorded = decision.candidates(Responses.id()).into_iter();
        let recorded: Vec<_> =
            recorded.map(|it| (it.connection.unwrap().1.to_owned(), it.skip.map(|it| it.rule))).collect();
        let other = if maker == "one" { "two" } else { "one" };
        assert_eq!(recorded, [(maker.clone(), None), (other.to_owned(), Some("excluded"))], "{call:?}");
        assert_eq!(foreseen, recorded, "{call:?}");
        assert!(!row.usage.is_known() && row.cost_nano.is_none(), "it was paid for when it was made");
    }
    // What is deleted is not known any more.
    let calls = world.transport.sent().len();
    assert_eq!(about(&world, KEY, "resp_1", KeptCall::Read, None).await.status, 404);
    assert_eq!(world.transport.sent().len(), calls, "nobody was asked");
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_read_as_a_stream_again() {
    let world = world();
    kept(&world, "resp_1").await;
    let event = |kind: &str, rest: &str| {
        format!(
            "event: response.{kind}\ndata: {{\"type\":\"response.{kind}\",\"sequence_number\":7,{rest}}}\n\n"
        )
    };
    let whole = format!("\"response\":{}", object("resp_1", true));
    let stream = event("output_text.delta", r#""output_index":0,"delta":"hi""#) + &event("completed", &whole);
    world.transport.answer(Answer::new(200, "text/event-stream").send(stream.clone()));
    let got = about(&world, KEY, "resp_1", KeptCall::Read, Some("stream=true&starting_after=6")).await;
    assert_eq!(got.header("content-type"), "text/event-stream; charset=utf-8");
    assert_eq!(got.body, stream.replace(r#""model":"m""#, r#""model":"r/m""#));
    assert!(!world.row().usage.is_known() && world.row().status == 200);
    let sent = world.transport.sent().pop().unwrap();
    assert_eq!(sent.uri.query(), Some("stream=true&starting_after=6"));
    // That an answer of the past failed says nothing about its account.
    let failed =
        r#""response":{"id":"resp_1","status":"failed","error":{"code":"server_error","message":"gone"}}"#;
    world.transport.answer(Answer::new(200, "text/event-stream").send(event("failed", failed)));
    let got = about(&world, KEY, "resp_1", KeptCall::Read, Some("stream=true")).await;
    assert!(got.body.contains("gone"), "{}", got.body);
    world.transport.answer(Answer::json(200, object("resp_1", true)));
    assert_eq!(ask(&world, KEY, r#""input":"on","previous_response_id":"resp_1""#).await.status, 200);
    assert!(world.recorded.statuses.lock().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn answers_that_are_not_there_are_not_found() {
    let world = world();
    kept(&world, "resp_1").await;
    let calls = world.transport.sent().len();
    for (key, id) in
        [(KEY, "resp_0"), (OTHER_KEY, "resp_1"), (KEY, "resp_1/../models"), (KEY, ".."), (KEY, "resp_1?x")]
    {
        for call in [KeptCall::Read, KeptCall::Delete, KeptCall::Cancel, KeptCall::Inputs] {
            let got = about(&world, key, id, call, None).await;
            assert_eq!(got.status, 404, "{id}: {}", got.body);
            for expected in
                ["\"not_found\"", "\"invalid_request_error\"", "the gateway keeps no answers itself"]
            {
                assert!(got.body.contains(expected), "{id}: {expected} in {}", got.body);
            }
            assert_eq!(got.header("x-should-retry"), "false");
        }
        let key = if key == KEY { "k1" } else { "k2" };
        assert_eq!(foreseen(&world, key, id).await, (Vec::new(), Some(404)), "{id}");
        let decision = world.row().decision.expect("it is written down");
        assert!(decision.via.is_none() && decision.candidates(Responses.id()).is_empty());
    }
    assert_eq!(world.transport.sent().len(), calls, "nobody was asked");
    let unknown = |status| {
        Answer::json(
            status,
            r#"{"error":{"message":"Response with id 'resp_1' not found.","type":"invalid_request_error","param":null,"code":null}}"#,
        )
    };
    // The vendor's own word is passed on, and a refused credential is not the client's fault.
    for (upstream, status) in [(404, 404), (400, 400), (401, 502), (500, 500)] {
        world.transport.answer(unknown(upstream));
        let got = about(&world, KEY, "resp_1", KeptCall::Read, None).await;
        assert_eq!(got.status, status, "{}", got.body);
        assert!(got.body.contains("not found"), "{}", got.body);
    }
    assert!(world.recorded.statuses.lock().unwrap().is_empty(), "chat is what the account is there for");
}

#[tokio::test(start_paused = true)]
async fn an_account_that_is_switched_off_is_told_of_where_it_made_the_answer() {
    let before = world();
    let maker = kept(&before, "resp_1").await;
    let memories = std::mem::take(&mut *before.recorded.memories.lock().unwrap());
    let after = world_with(|entities| {
        let maker = entities.connections.iter_mut().find(|it| it.name == maker);
        maker.unwrap().is_active = false;
    });
    memories.into_iter().for_each(|memory| after.engine.restore(memory));
    let (told, error) = foreseen(&after, "k1", "resp_1").await;
    assert_eq!((told, error), (vec![(maker.clone(), Some("inactive"))], Some(404)));
    assert_eq!(about(&after, KEY, "resp_1", KeptCall::Read, None).await.status, 404);
    let decision = after.row().decision.expect("it is written down");
    let recorded = decision.candidates(Responses.id());
    assert_eq!((recorded.len(), recorded[0].connection.unwrap().1), (1, maker.as_str()));
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_made_in_the_background_has_nothing_to_say_yet() {
    let world = world();
    let queued = r#"{"id":"resp_b","object":"response","status":"queued","background":true,"model":"m","store":true,"output":[],"usage":null}"#;
    world.transport.answer(Answer::json(200, queued));
    let got = ask(&world, KEY, r#""input":"hi","store":true,"background":true"#).await;
    assert_eq!((got.status, got.body.contains("\"queued\"")), (200, true), "{}", got.body);
    world.transport.answer(Answer::json(200, queued.replace("queued", "cancelled")));
    let got = about(&world, KEY, "resp_b", KeptCall::Cancel, None).await;
    assert_eq!((got.status, got.body.contains("\"cancelled\"")), (200, true), "{}", got.body);
}

#[tokio::test(start_paused = true)]
async fn a_combo_leads_to_the_account_that_made_the_named_answer() {
    let world = World::with(
        |entities| {
            let mut vendor = node("openai-compatible-responses-1", NodeType::OpenaiCompatible, "r");
            vendor.api_type = Some("responses".into());
            for (id, name) in [("r1", "one"), ("r2", "two")] {
                entities.connections.push(connection(id, &vendor.id, name, 1));
            }
            entities.nodes.push(vendor);
            entities.combos.push(combo("both", &["anth/claude", "r/m"]));
            entities.settings.fallback_strategy = "round-robin".into();
            entities.settings.sticky_round_robin_limit = 1;
        },
        |_| {},
    );
    let bearer = format!("Bearer {KEY}");
    for _ in 0..2 {
        // The account takes turns; whichever made the answer goes on with it.
        world.transport.answer(Answer::json(200, object("resp_1", true)));
        assert_eq!(ask(&world, KEY, r#""input":"hi","store":true"#).await.status, 200);
        let maker = last_account(&world);
        for _ in 0..2 {
            world.transport.answer(Answer::json(200, object("resp_2", true)));
            let body = r#"{"model":"both","input":"on","store":true,"previous_response_id":"resp_1"}"#;
            let got = world.send(&Responses, body, &[("authorization", &bearer)]).await;
            assert_eq!(got.status, 200, "{}", got.body);
            assert_eq!(last_account(&world), maker);
            assert_eq!(got.header("x-omniroute-attempts"), "1", "the other target is not asked");
            assert!(got.body.contains(r#""model":"both""#), "{}", got.body);
        }
        // What was made through the combo is found again, under the name that was asked for.
        world.transport.answer(Answer::json(200, object("resp_2", true)));
        let got = about(&world, KEY, "resp_2", KeptCall::Read, None).await;
        assert!(got.status == 200 && got.body.contains(r#""model":"both""#), "{}", got.body);
        assert_eq!(last_account(&world), maker);
    }
    let body = r#"{"model":"both","input":"on","previous_response_id":"resp_0"}"#;
    let got = world.send(&Responses, body, &[("authorization", &bearer)]).await;
    assert!(got.status == 400 && got.body.contains("previous_response_id"), "{}", got.body);
}
