//! Answers that a vendor keeps: who names one is led to the account that made it, and nobody else.

use omniroute_dialect::responses::Responses;
use omniroute_domain::entity::{ApiKeyId, KeyHash, NodeType};
use omniroute_engine::ports::{Memory, OwnerRow};
use omniroute_testkit::Answer;

use crate::world::{Got, KEY, NOW_MS, World, connection, key, node};

const OTHER_KEY: &str = "sk-omni-other";

/// Two accounts at an upstream that speaks Responses, taken in turn.
fn world() -> World {
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
fn last_account(world: &World) -> String {
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
