//! Counts of tokens before and after: who would be asked for them and why nobody else, and the record of who was.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, header::AUTHORIZATION};
use http_body_util::BodyExt as _;
use omniroute_dialect::responses::Responses;
use omniroute_dialect::{Dialect, anthropic::Anthropic};
use omniroute_domain::entity::{
    ApiKeyId, Combo, ComboConfig, Entities, Number, PolicyActions, PolicyConditions,
};
use omniroute_engine::ports::TransportError;
use omniroute_engine::preview::Preview;
use omniroute_engine::{Arrival, RequestCtx};
use omniroute_testkit::Answer;

use crate::policies::policy;
use crate::world::{Got, KEY, World, combo, connection, refusal};

/// Account, rule and reason; no reason for the one that is asked.
type Told = Vec<(Option<String>, Option<(&'static str, String)>)>;

const RESPONSES: &str = "/v1/responses/input_tokens";
const MESSAGES: &str = "/v1/messages/count_tokens";

fn begin(world: &World, dialect: &'static dyn Dialect, path: &str, is_logged: bool) -> Box<RequestCtx> {
    let mut headers = HeaderMap::new();
    headers.insert(AUTHORIZATION, format!("Bearer {KEY}").parse().unwrap());
    world.engine.begin(Arrival {
        peer: SocketAddr::from(([127, 0, 0, 1], 50_000)),
        method: Method::POST,
        path: path.into(),
        query: None,
        headers,
        dialect,
        endpoint: "messages",
        provider: None,
        is_logged,
    })
}

async fn preview(world: &World, dialect: &'static dyn Dialect, path: &str, body: &str) -> Preview {
    let mut ctx = begin(world, dialect, path, false);
    ctx.caller = ctx.snapshot.caller_by_id(&ApiKeyId::from("k1")).cloned();
    world.engine.preview_count(ctx, Bytes::copy_from_slice(body.as_bytes())).await.unwrap()
}

async fn count(world: &World, dialect: &'static dyn Dialect, path: &str, body: &str) -> Got {
    let mut ctx = begin(world, dialect, path, true);
    world.engine.identify(&mut ctx).unwrap();
    let response = world.engine.count(ctx, Bytes::copy_from_slice(body.as_bytes())).await;
    let (head, body) = response.into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    let body = String::from_utf8(bytes.to_vec()).unwrap();
    Got { status: head.status.as_u16(), headers: head.headers, body }
}

fn body(model: &str) -> String {
    format!(r#"{{"model":"{model}","messages":[{{"role":"user","content":"hello there"}}]}}"#)
}

/// Both, which say the same. The upstream counts where it is asked.
async fn both(world: &World, model: &str) -> (Preview, Told, Got) {
    let preview = preview(world, &Anthropic, MESSAGES, &body(model)).await;
    let told = preview.candidates.iter().map(|it| {
        let skip = it.skip.as_ref().map(|skip| (skip.rule, skip.reason.clone()));
        (it.connection.as_ref().map(|(id, _)| id.to_string()), skip, it.wave, it.cost_nano, it.score)
    });
    let told: Vec<_> = told.collect();
    world.transport.answer(Answer::json(200, r#"{"input_tokens":4242}"#));
    let got = count(world, &Anthropic, MESSAGES, &body(model)).await;
    let row = world.row();
    let decision = row.decision.expect("it is written down");
    assert_eq!(decision.task.map(|task| task.as_str()), preview.task, "{model}");
    let recorded = decision.candidates(Anthropic.id()).into_iter().map(|it| {
        let skip = it.skip.map(|skip| (skip.rule, skip.reason.to_owned()));
        (it.connection.map(|(id, _)| id.to_owned()), skip, it.wave, it.cost_nano, it.score.copied())
    });
    assert_eq!(recorded.collect::<Vec<_>>(), told, "{model}");
    assert_eq!((decision.via, decision.strategy), (preview.via, preview.strategy), "{model}");
    assert_eq!(decision.policies, preview.policies, "{model}");
    let told = told.into_iter().map(|(account, skip, ..)| (account, skip)).collect();
    (preview, told, got)
}

fn skipped(
    account: &str,
    rule: &'static str,
    reason: &str,
) -> (Option<String>, Option<(&'static str, String)>) {
    (Some(account.to_owned()), Some((rule, reason.to_owned())))
}

fn asked(account: &str) -> (Option<String>, Option<(&'static str, String)>) {
    (Some(account.to_owned()), None)
}

const ONE: &str = "one account is asked to count";
const FIRST: &str = "tokens are counted for the first target that can serve the request";
const CANNOT: &str = "it does not count tokens in the client's dialect; the gateway estimates them";

fn world(change: impl FnOnce(&mut Entities)) -> World {
    let second = |entities: &mut Entities| {
        let anthropic = entities.nodes[1].id.clone();
        entities.connections.push(connection("c5", &anthropic, "another", 2));
        change(entities);
    };
    World::with(second, |_| {})
}

#[tokio::test(start_paused = true)]
async fn one_account_of_the_first_target_is_asked() {
    let world = world(|entities| {
        entities.combos.push(combo("best", &["anth/m", "up/m"]));
        entities.combos.push(combo("other", &["up/m", "anth/m"]));
        entities.connections.push(connection("c6", &entities.nodes[1].id.clone(), "old", 3));
        entities.connections.last_mut().unwrap().is_active = false;
    });
    let off = skipped("c6", "inactive", "the account is switched off");
    let (preview, told, got) = both(&world, "anth/m").await;
    assert_eq!(told, [asked("c3"), skipped("c5", "width", ONE), off.clone()]);
    assert_eq!((preview.via, preview.estimated_tokens), (Some("direct"), Some(7)));
    assert_eq!(
        (preview.candidates[0].dialect, preview.candidates[0].cost_nano),
        (Some("anthropic"), Some(0))
    );
    assert!(preview.error.is_none());
    assert_eq!(got.body, r#"{"input_tokens":4242}"#);
    assert_eq!(got.header("x-omniroute-attempts"), "1");
    assert_eq!(
        (got.header("x-omniroute-provider"), got.header("x-omniroute-model")),
        ("anthropic-compatible-1", "m")
    );
    let row = world.row();
    assert_eq!((row.attempts.len(), row.attempts[0].status, row.attempts[0].failure), (1, Some(200), None));
    assert_eq!((row.cost_nano, row.bills.len()), (Some(0), 0), "vendors count for nothing");
    assert_eq!(row.request_type, "count");

    let (preview, told, _) = both(&world, "best").await;
    let up = [skipped("c1", "width", FIRST), skipped("c2", "width", FIRST)];
    assert_eq!(told, [&[asked("c3"), skipped("c5", "width", ONE), off.clone()][..], &up].concat());
    assert_eq!((preview.combo.as_deref(), preview.candidates[0].wave), (Some("best"), Some(1)));
    // Who would serve the request does not count, and who would not would count by another model.
    let (preview, told, got) = both(&world, "other").await;
    let up = [skipped("c1", "capability", CANNOT), skipped("c2", "capability", CANNOT)];
    let anth = [skipped("c3", "width", FIRST), skipped("c5", "width", FIRST), off];
    assert_eq!(told, [&up[..], &anth].concat());
    assert!(preview.error.is_none() && got.body == r#"{"input_tokens":7}"#);
    assert!(world.row().attempts.is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_speaks_for_a_target_is_told_of_counts_too() {
    let world = world(|entities| {
        let config = ComboConfig { exploration_rate: Number::new(0.0), ..ComboConfig::default() };
        entities.combos.push(Combo { strategy: "auto".into(), config, ..combo("picky", &["anth/m"]) });
    });
    let (preview, told, _) = both(&world, "picky").await;
    assert_eq!(told, [asked("c3"), skipped("c5", "width", ONE)]);
    assert_eq!(preview.task, Some("simple"));
    assert!(preview.candidates.iter().all(|it| it.score.is_some()), "{preview:?}");
}

#[tokio::test(start_paused = true)]
async fn a_count_that_nobody_waits_for_costs_nothing() {
    let world = world(|entities| entities.combos.push(combo("best", &["anth/m"])));
    let body = body("best");
    let late = Duration::from_secs(5);
    for answer in [
        Answer::json(200, r#"{"input_tokens":1}"#).after(late),
        Answer::new(200, "application/json").pause(late).send(r#"{"input_tokens":1}"#),
    ] {
        world.transport.answer(answer);
        let counting = count(&world, &Anthropic, MESSAGES, &body);
        assert!(tokio::time::timeout(Duration::from_secs(2), counting).await.is_err());
        let row = world.row();
        let attempt = &row.attempts[0];
        assert_eq!((row.status, row.attempts.len(), row.cost_nano), (499, 1, Some(0)));
        assert_eq!((attempt.failure, attempt.duration_ms), (Some("client_abort"), 2_000));
        assert!(row.bills.is_empty() && !row.usage.is_known() && !attempt.is_unheard, "{row:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_keeps_an_account_from_conversations_keeps_it_from_counts() {
    let no = PolicyActions { block_model: vec!["m".into()], ..Default::default() };
    let at = PolicyConditions { provider: Some("up".into()), ..Default::default() };
    let world = world(|entities| {
        entities.policies.push(policy("not there", at, no));
        entities.api_keys[0].allowed_connections = vec!["c1".into(), "c2".into(), "c5".into()];
        entities.combos.push(combo("best", &["up/m", "anth/m"]));
        entities.combos.push(combo("closed", &["gem/m"]));
        entities.api_keys[0].denied_models = vec!["gem/*".into()];
    });
    let of_policy = |account| skipped(account, "policy", r#"Model "m" blocked by policy "not there""#);
    let denied = skipped("c3", "key", "the key may not use this account");
    let (preview, told, _) = both(&world, "best").await;
    assert_eq!(told, [asked("c5"), of_policy("c1"), of_policy("c2"), denied]);
    assert_eq!(preview.policies, ["not there".into()]);
    let (preview, told, got) = both(&world, "up/m").await;
    assert_eq!((told, got.status), (vec![of_policy("c1"), of_policy("c2")], 403));
    assert_eq!(preview.error.unwrap().kind.status(), 403);
    let (preview, told, got) = both(&world, "gem/m").await;
    assert_eq!((told[0].1.as_ref().unwrap().0, got.status), ("key", 403));
    assert_eq!(preview.error.unwrap().kind.status(), 403);
    let (preview, told, got) = both(&world, "closed").await;
    assert_eq!((told[0].1.as_ref().unwrap().0, got.status), ("key", 403));
    assert!(preview.candidates.iter().all(|it| it.cost_nano == Some(0)), "a count costs nothing");
    assert_eq!((preview.via, preview.combo.as_deref()), (Some("combo"), Some("closed")));
    assert_eq!(preview.error.unwrap().kind.status(), 403);
    // An estimate needs nobody.
    let (preview, told, got) = both(&world, "nobody/knows").await;
    assert_eq!((told, got.status), (Vec::new(), 200));
    assert!(preview.error.is_none() && preview.via.is_none() && preview.estimated_tokens == Some(7));
}

#[tokio::test(start_paused = true)]
async fn limits_of_the_key_are_told_beforehand_and_not_used_up() {
    let world = world(|entities| {
        entities.api_keys[0].max_requests_per_minute = Some(1);
        entities.api_keys[0].max_tokens_per_minute = Some(1);
        entities.api_keys[0].denied_models = vec!["gem/*".into()];
        entities.combos.push(combo("closed", &["gem/m"]));
    });
    for _ in 0..3 {
        let told = preview(&world, &Anthropic, MESSAGES, &body("anth/m")).await;
        assert!(told.error.is_none() && told.candidates[0].skip.is_none());
    }
    let (.., got) = both(&world, "anth/m").await;
    assert_eq!(got.status, 200);
    let (preview, told, got) = both(&world, "anth/m").await;
    assert_eq!((got.status, preview.error.unwrap().kind.status()), (429, 429));
    let limited = "This API key is limited to 1 requests per minute";
    assert_eq!(told, [skipped("c3", "key", limited), skipped("c5", "width", ONE)]);
    // The same where the key leads to nobody.
    let (preview, told, got) = both(&world, "closed").await;
    assert_eq!((got.status, preview.error.unwrap().kind.status()), (429, 429));
    assert_eq!(told, [skipped("c4", "key", limited)]);
    assert_eq!(world.transport.sent().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_count_that_fails_says_so_in_the_log_alone() {
    let world = world(|_| {});
    for (answer, status, failure) in [
        (Some(refusal(500, "api_error", "no")), Some(500), "transient"),
        (Some(Answer::json(200, "{}")), Some(200), "protocol"),
        (Some(Answer::json(200, r#"{"input_tokens":"x"}"#)), Some(200), "protocol"),
        (Some(Answer::json(200, r#"{"input_tokens":-1}"#)), Some(200), "protocol"),
        (None, None, "network_error"),
    ] {
        let refused = TransportError::Connect { host: "upstream.example".into(), reason: "refused".into() };
        match answer {
            Some(answer) => world.transport.answer(answer),
            None => world.transport.fail(Duration::ZERO, refused),
        };
        let got = count(&world, &Anthropic, MESSAGES, &body("anth/m")).await;
        assert_eq!((got.status, &*got.body), (200, r#"{"input_tokens":7}"#));
        let row = world.row();
        let attempt = &row.attempts[0];
        assert_eq!((row.attempts.len(), attempt.status, attempt.failure), (1, status, Some(failure)));
        assert!(attempt.message.is_some() && row.bills.is_empty() && row.error.is_none());
    }
    assert!(world.recorded.statuses.lock().unwrap().is_empty(), "chat is what the account is there for");
    assert!(preview(&world, &Anthropic, MESSAGES, &body("anth/m")).await.candidates[0].skip.is_none());
}

#[tokio::test(start_paused = true)]
async fn who_names_an_answer_is_counted_where_that_is_kept() {
    let world = crate::kept::world();
    let maker = crate::kept::kept(&world, "resp_1").await;
    let ask = r#"{"model":"r/m","previous_response_id":"resp_1","input":"on"}"#;
    for _ in 0..3 {
        let told = preview(&world, &Responses, RESPONSES, ask).await;
        let tried = told.candidates.iter().filter(|it| it.skip.is_none());
        let tried: Vec<_> = tried.map(|it| it.connection.as_ref().unwrap().1.to_string()).collect();
        assert_eq!(tried, [maker.as_str()], "{told:?}");
        world.transport.answer(Answer::json(200, r#"{"object":"response.input_tokens","input_tokens":99}"#));
        let got = count(&world, &Responses, RESPONSES, ask).await;
        assert!(got.status == 200 && got.body.contains("99"), "{}", got.body);
        assert_eq!(crate::kept::last_account(&world), maker);
    }
    let unknown = ask.replace("resp_1", "resp_9");
    let told = preview(&world, &Responses, RESPONSES, &unknown).await;
    assert_eq!(told.error.unwrap().kind.status(), 400);
    let got = count(&world, &Responses, RESPONSES, &unknown).await;
    assert!(got.status == 400 && got.body.contains("previous_response_id"), "{}", got.body);
}
