//! Embeddings: an operation that is not chat goes the way of a chat request.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Method};
use http_body_util::BodyExt as _;
use omniroute_dialect::embeddings::Form;
use omniroute_dialect::{Dialect, gemini::Gemini, ollama::Ollama, openai::OpenAi};
use omniroute_domain::entity::{ApiKeyId, Budget, CustomModel, Entities, NodeType};
use omniroute_domain::price::PriceRow;
use omniroute_engine::Arrival;
use omniroute_provider::ProviderId;
use omniroute_testkit::Answer;

use crate::world::{Got, KEY, World, combo, connection, node, refusal};

const ASK: &str = r#"{"model":"up/m","input":["a","b"]}"#;
const NODE: &str = "openai-compatible-chat-1";

async fn send(
    world: &World,
    (dialect, form, model): (&'static dyn Dialect, Form, Option<&str>),
    body: &str,
    headers: &[(&str, &str)],
) -> Got {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.insert(HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
    }
    let provider = map.remove("x-test-provider").map(|value| value.to_str().unwrap().to_owned());
    let arrival = Arrival {
        peer: SocketAddr::from(([127, 0, 0, 1], 50_000)),
        method: Method::POST,
        path: "/v1/embeddings".into(),
        query: None,
        headers: map,
        dialect,
        endpoint: "embeddings",
        provider,
        is_logged: true,
    };
    let mut ctx = world.engine.begin(arrival);
    let response = match world.engine.identify(&mut ctx) {
        Ok(()) => {
            let body = Bytes::copy_from_slice(body.as_bytes());
            world.engine.embeddings(ctx, body, form, model.map(str::to_owned)).await
        }
        Err(error) => world.engine.refuse(ctx, &error),
    };
    let (head, body) = response.into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    let body = String::from_utf8(bytes.to_vec()).unwrap();
    Got { status: head.status.as_u16(), headers: head.headers, body }
}

pub(crate) async fn ask(world: &World, body: &str, headers: &[(&str, &str)]) -> Got {
    send(world, (&OpenAi, Form::OpenAi, None), body, headers).await
}

/// An upstream's answer with these vectors.
fn vectors(vectors: &[&str]) -> Answer {
    let data: Vec<String> = vectors
        .iter()
        .enumerate()
        .map(|(at, vector)| format!(r#"{{"object":"embedding","index":{at},"embedding":{vector}}}"#))
        .collect();
    Answer::json(
        200,
        format!(
            r#"{{"object":"list","data":[{}],"model":"m","usage":{{"prompt_tokens":4,"total_tokens":4}}}}"#,
            data.join(",")
        ),
    )
}

fn price(entities: &mut Entities) {
    let row = PriceRow { input: Some(1_000.0), ..PriceRow::default() };
    entities.prices.user.entry(NODE.into()).or_default().insert("m".into(), row);
}

/// With an Ollama node `oll`.
fn with_ollama(entities: &mut Entities) {
    let ollama = node("ollama-compatible-1", NodeType::OllamaCompatible, "oll");
    entities.connections.push(connection("c5", &ollama.id, "own", 1));
    entities.nodes.push(ollama);
}

fn custom(provider: &str, id: &str, api_format: &str) -> CustomModel {
    CustomModel {
        provider: ProviderId::from(provider),
        id: id.into(),
        name: id.into(),
        source: "manual".into(),
        api_format: api_format.into(),
        supported_endpoints: Vec::new(),
        is_hidden: false,
        context_window: None,
        max_output: None,
        caps: Default::default(),
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_passed_on_billed_and_logged() {
    let world = World::with(price, |_| {});
    world.transport.answer(vectors(&["[1.0]", "[2.0]"]));
    let got = ask(&world, ASK, &[]).await;
    assert_eq!(got.status, 200, "{}", got.body);
    assert!(got.body.contains(r#""model":"up/m""#) && got.body.contains("[2.0]"), "{}", got.body);
    assert_eq!((got.header("x-omniroute-model"), got.header("x-omniroute-attempts")), ("m", "1"));
    assert_eq!(got.header("x-omniroute-response-cost"), "0.004");
    assert_eq!(got.header("content-type"), "application/json");
    let sent = &world.transport.sent()[0];
    assert_eq!(sent.uri.to_string(), "https://upstream.example/v1/embeddings");
    assert_eq!(sent.body, r#"{"model":"m","input":["a","b"]}"#);
    assert_eq!(sent.headers["authorization"], "Bearer upstream-key-of-first");
    let row = world.row();
    assert_eq!((row.request_type, row.status, row.cost_nano), ("embedding", 200, Some(4_000_000)));
    assert_eq!((row.usage.input_total(), row.usage_estimated), (Some(4), false));
    assert_eq!((row.bills.len(), row.attempts.len(), row.stream), (1, 1, false));
    assert_eq!(row.upstream_dialect.map(|dialect| dialect.as_str()), Some("openai"));
}

#[tokio::test(start_paused = true)]
async fn a_failure_of_one_account_is_the_next_ones_chance() {
    let world = World::new();
    world.transport.answer(refusal(429, "rate_limit", "slow down")).answer(vectors(&["[1]", "[2]"]));
    let got = ask(&world, ASK, &[]).await;
    assert_eq!((got.status, got.header("x-omniroute-attempts")), (200, "2"));
    let row = world.row();
    assert_eq!(row.attempts[0].failure, Some("rate_limit"));
    assert_eq!(&*row.attempts[1].connection_name, "second");
    // The model is locked on the first account, for chat as for this.
    world.transport.answer(vectors(&["[1]", "[2]"]));
    ask(&world, ASK, &[]).await;
    assert_eq!(world.transport.sent()[2].headers["authorization"], "Bearer upstream-key-of-second");
}

#[tokio::test(start_paused = true)]
async fn what_is_no_answer_is_tried_elsewhere() {
    for bad in [
        vectors(&["[1]"]),
        Answer::json(200, r#"{"error":{"message":"out of memory","code":500}}"#.to_owned()),
        Answer::json(200, "<html>".to_owned()),
        Answer::json(200, String::new()),
    ] {
        let world = World::new();
        world.transport.answer(bad).answer(vectors(&["[1]", "[2]"]));
        let got = ask(&world, ASK, &[]).await;
        assert_eq!((got.status, got.header("x-omniroute-attempts")), (200, "2"), "{}", got.body);
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_of_the_request_is_the_clients() {
    let world = World::new();
    world.transport.answer(refusal(400, "invalid_request_error", "too long"));
    let got = ask(&world, ASK, &[]).await;
    assert_eq!((got.status, world.transport.sent().len()), (400, 1));
    assert!(got.body.contains("[up/m] too long"), "{}", got.body);
}

#[tokio::test(start_paused = true)]
async fn a_mistake_is_told_before_anybody_is_asked() {
    let world = World::with(
        |entities| {
            entities.custom_models.push(custom(NODE, "talker", "chat-completions"));
            entities.custom_models[0].supported_endpoints.push("chat".into());
        },
        |_| {},
    );
    for (body, code, words) in [
        (r#"{"model":"up/m","input":""}"#, "invalid_value", "`input`"),
        (r#"{"model":"up/talker","input":"a"}"#, "invalid_model", "not an embedding model"),
        (r#"{"model":"anth/m","input":"a"}"#, "unsupported_operation", "use a model of `gem`, `up`"),
        (r#"{"model":"nothing-known","input":"a"}"#, "invalid_model", "not found"),
        (r#"{"model":"nobody/m","input":"a"}"#, "unknown_provider", "`nobody`"),
        (r#"{"model":"gem/m","input":[1,2]}"#, "unsupported_content", "lists of tokens"),
    ] {
        let got = ask(&world, body, &[]).await;
        assert_eq!(got.status, 400, "{body}");
        assert!(
            got.body.contains(&format!("\"code\":\"{code}\"")) && got.body.contains(words),
            "{}",
            got.body
        );
        assert_eq!(got.header("x-should-retry"), "false");
    }
    assert!(world.transport.sent().is_empty());
    assert_eq!(world.row().request_type, "embedding");
}

#[tokio::test(start_paused = true)]
async fn every_client_reaches_every_upstream() {
    let one = r#"{"content":{"parts":[{"text":"a"}]}}"#;
    let gemini = || Answer::json(200, r#"{"embedding":{"values":[1.5]},"embeddings":[]}"#.to_owned());
    let batch = || Answer::json(200, r#"{"embeddings":[{"values":[1.5]}]}"#.to_owned());
    let ollama = || Answer::json(200, r#"{"embeddings":[[1.5]],"prompt_eval_count":2}"#.to_owned());
    let openai = || vectors(&["[1.5]"]);
    let base = "https://upstream.example/v1";
    let openai_client: (&'static dyn Dialect, Form) = (&OpenAi, Form::OpenAi);
    for (client, prefix, body, answer, path, expected) in [
        (
            openai_client,
            "gem",
            r#"{"model":"$","input":"a"}"#,
            batch(),
            "/models/m:batchEmbedContents",
            r#""embedding":[1.5]}],"model":"gem/m","usage":{"prompt_tokens":1"#,
        ),
        (
            openai_client,
            "oll",
            r#"{"model":"$","input":"a"}"#,
            ollama(),
            "/api/embed",
            r#""usage":{"prompt_tokens":2,"total_tokens":2}"#,
        ),
        ((&Gemini, Form::GeminiOne), "up", one, openai(), "/embeddings", r#"{"embedding":{"values":[1.5]}}"#),
        (
            (&Gemini, Form::GeminiOne),
            "gem",
            one,
            gemini(),
            "/models/m:embedContent",
            r#"{"embedding":{"values":[1.5]},"embeddings":[]}"#,
        ),
        (
            (&Gemini, Form::GeminiBatch),
            "oll",
            r#"{"requests":[{"content":{"parts":[{"text":"a"}]}}]}"#,
            ollama(),
            "/api/embed",
            r#"{"embeddings":[{"values":[1.5]}]}"#,
        ),
        (
            (&Ollama, Form::Ollama),
            "up",
            r#"{"model":"$","input":"a"}"#,
            openai(),
            "/embeddings",
            r#"{"model":"up/m","embeddings":[[1.5]],"prompt_eval_count":4}"#,
        ),
        (
            (&Ollama, Form::Ollama),
            "oll",
            r#"{"model":"$","input":"a"}"#,
            ollama(),
            "/api/embed",
            r#"{"embeddings":[[1.5]],"prompt_eval_count":2}"#,
        ),
        (
            (&Ollama, Form::OllamaOne),
            "gem",
            r#"{"model":"$","prompt":"a"}"#,
            batch(),
            "/models/m:batchEmbedContents",
            r#"{"embedding":[1.5]}"#,
        ),
    ] {
        let world = World::with(with_ollama, |_| {});
        world.transport.answer(answer);
        let model = format!("{prefix}/m");
        let in_path = Some(&*model).filter(|_| !body.contains('$'));
        let got = send(&world, (client.0, client.1, in_path), &body.replace('$', &model), &[]).await;
        assert_eq!(got.status, 200, "{body}: {}", got.body);
        assert!(got.body.contains(expected), "{}", got.body);
        assert_eq!(world.transport.sent()[0].uri.to_string(), format!("{base}{path}"));
        let estimated = got.header("x-omniroute-usage") == "estimated";
        assert_eq!(estimated, prefix == "gem", "Google does not count");
    }
}

#[tokio::test(start_paused = true)]
async fn bedrocks_models_are_asked_in_the_form_of_their_maker() {
    let add = |entities: &mut Entities| {
        entities.connections.push(connection("b1", &ProviderId::from("bedrock"), "aws", 1));
    };
    let world = World::with(add, |_| {});
    for (value, tokens) in [("1.5", 3), ("2.5", 4)] {
        let body = format!(r#"{{"embedding":[{value}],"inputTextTokenCount":{tokens}}}"#);
        world.transport.answer(Answer::json(200, body));
    }
    let body = r#"{"model":"bedrock/amazon.titan-embed-text-v2:0","input":["a","b"],"dimensions":256}"#;
    let got = ask(&world, body, &[]).await;
    assert_eq!(got.status, 200, "{}", got.body);
    for part in [r#""index":0,"embedding":[1.5]"#, r#""index":1,"embedding":[2.5]"#, r#""prompt_tokens":7"#] {
        assert!(got.body.contains(part), "{part}: {}", got.body);
    }
    let call = &world.transport.sent()[1];
    assert_eq!(
        call.uri.to_string(),
        "https://bedrock-runtime.us-east-1.amazonaws.com/model/amazon.titan-embed-text-v2:0/invoke"
    );
    assert_eq!(call.headers["authorization"], "Bearer upstream-key-of-aws");
    assert_eq!(&call.body[..], br#"{"inputText":"b","dimensions":256}"#);

    world.transport.answer(Answer::json(200, r#"{"id":"x","embeddings":[[1],[2]],"texts":["a","b"]}"#));
    let body = r#"{"model":"bedrock/cohere.embed-v4:0","input":["a","b"],"input_type":"query"}"#;
    let got = ask(&world, body, &[]).await;
    assert_eq!((got.status, got.header("x-omniroute-usage")), (200, "estimated"), "{}", got.body);
    assert_eq!(&world.transport.sent()[2].body[..], br#"{"texts":["a","b"],"input_type":"search_query"}"#);

    let got = ask(&world, r#"{"model":"bedrock/amazon.nova-embed","input":"a"}"#, &[]).await;
    assert!(got.status == 400 && got.body.contains("amazon.titan-embed-text"), "{}", got.body);
    assert_eq!(world.transport.sent().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn errors_are_told_in_the_clients_words() {
    let one = r#"{"content":{"parts":[{"text":"a"}]}}"#;
    for (client, model, body, expected) in [
        ((&Gemini as &'static dyn Dialect, Form::GeminiOne), Some("up/m"), one, r#"{"error":{"code":400"#),
        ((&Ollama, Form::Ollama), None, r#"{"model":"up/m","input":"a"}"#, r#"{"error":"[up/m] no"#),
    ] {
        let world = World::new();
        world.transport.answer(refusal(400, "invalid_request_error", "no"));
        let got = send(&world, (client.0, client.1, model), body, &[]).await;
        assert!(got.status == 400 && got.body.starts_with(expected), "{}", got.body);
    }
}

#[tokio::test(start_paused = true)]
async fn many_texts_are_sent_in_pieces_and_counted_together() {
    let world = World::with(price, |_| {});
    let texts = vec!["\"a\""; 150].join(",");
    let hundred = vec![r#"{"values":[1]}"#; 100].join(",");
    let fifty = vec![r#"{"values":[2]}"#; 50].join(",");
    for values in [hundred, fifty] {
        let body = format!(r#"{{"embeddings":[{values}],"usageMetadata":{{"promptTokenCount":3}}}}"#);
        world.transport.answer(Answer::json(200, body));
    }
    let got = ask(&world, &format!(r#"{{"model":"gem/m","input":[{texts}]}}"#), &[]).await;
    assert_eq!(got.status, 200, "{}", got.body);
    assert_eq!(got.body.matches("\"embedding\":[1]").count(), 100);
    assert!(
        got.body.contains(r#""index":149,"embedding":[2]}"#) && got.body.contains(r#""prompt_tokens":6"#)
    );
    assert_eq!(got.header("x-omniroute-attempts"), "1", "one attempt, two calls");
    assert_eq!(world.transport.sent().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_repetition_costs_one_call() {
    let world = World::with(price, |_| {});
    world.transport.answer(vectors(&["[1]", "[2]"]));
    let once = [("idempotency-key", "one")];
    let first = ask(&world, ASK, &once).await;
    let second = ask(&world, ASK, &once).await;
    assert_eq!((first.body, second.header("x-omniroute-idempotent")), (second.body.clone(), "true"));
    assert_eq!((world.transport.sent().len(), world.row().cost_nano), (1, Some(0)));
}

#[tokio::test(start_paused = true)]
async fn limits_and_budgets_of_the_key_hold() {
    let bearer = format!("Bearer {KEY}");
    let headers = [("authorization", bearer.as_str())];
    let world = World::with(|entities| entities.api_keys[0].max_requests_per_minute = Some(1), |_| {});
    world.transport.answer(vectors(&["[1]", "[2]"]));
    assert_eq!(ask(&world, ASK, &headers).await.status, 200);
    let got = ask(&world, ASK, &headers).await;
    assert!(got.status == 429 && got.body.contains("rate_limit_exceeded"), "{}", got.body);

    let world = World::with(
        |entities| {
            price(entities);
            let mut budget = Budget::unlimited(Some(ApiKeyId::from("k1")));
            budget.daily_nano = Some(5_000_000);
            budget.block_unpriced = true;
            entities.budgets.push(budget);
        },
        |_| {},
    );
    world.transport.answer(vectors(&["[1]", "[2]"]));
    assert_eq!(ask(&world, ASK, &headers).await.status, 200);
    let got = ask(&world, ASK, &headers).await;
    assert!(got.status == 429 && got.body.contains("budget_exceeded"), "{}", got.body);
    let got = ask(&world, &ASK.replace("up/m", "up/other"), &headers).await;
    assert!(got.status == 403 && got.body.contains("unpriced_model"), "{}", got.body);

    let world = World::with(|entities| entities.api_keys[0].allowed_endpoints = vec!["chat".into()], |_| {});
    assert_eq!(ask(&world, ASK, &headers).await.status, 403);
}

#[tokio::test(start_paused = true)]
async fn combos_go_on_among_those_that_are_one_model() {
    let world = World::with(
        |entities| {
            entities.settings.request_retry = 0;
            entities.combos.push(combo("vec", &["anth/m", "up/m", "gem/m"]));
            entities.combos.push(combo("mixed", &["up/m", "gem/other"]));
            entities.combos.push(combo("chatty", &["anth/m"]));
        },
        |_| {},
    );
    for _ in 0..2 {
        world.transport.answer(refusal(500, "server_error", "no"));
    }
    world.transport.answer(Answer::json(200, r#"{"embeddings":[{"values":[1]},{"values":[2]}]}"#.to_owned()));
    let got = ask(&world, &ASK.replace("up/m", "vec"), &[]).await;
    assert_eq!(got.status, 200, "{}", got.body);
    assert!(got.body.contains(r#""model":"vec""#), "{}", got.body);
    assert_eq!((got.header("x-omniroute-combo"), got.header("x-omniroute-attempts")), ("vec", "3"));
    for (name, words) in [("mixed", "holds different models"), ("chatty", "has no embeddings")] {
        let got = ask(&world, &ASK.replace("up/m", name), &[]).await;
        assert!(got.status == 400 && got.body.contains(words), "{}", got.body);
    }
}

#[tokio::test(start_paused = true)]
async fn a_route_that_names_the_provider_holds_to_it() {
    let world = World::with(with_ollama, |_| {});
    for (provider, model, status) in [
        ("up", "m", 200),
        ("up", "up/m", 200),
        ("up", "Qwen/Qwen3-Embedding-8B", 200),
        ("up", "gem/m", 400),
        ("nobody", "m", 400),
        ("anth", "m", 400),
    ] {
        if status == 200 {
            world.transport.answer(vectors(&["[1]", "[2]"]));
        }
        let got = ask(&world, &ASK.replace("up/m", model), &[("x-test-provider", provider)]).await;
        assert_eq!(got.status, status, "{provider} {model}: {}", got.body);
    }
    let sent = world.transport.sent();
    assert!(sent[2].body.starts_with(br#"{"model":"Qwen/Qwen3-Embedding-8B""#));
}

#[tokio::test(start_paused = true)]
async fn a_bare_name_goes_to_who_has_it_for_this() {
    let world = World::with(
        |entities| {
            entities.custom_models.push(custom(NODE, "vectors-1", "embeddings"));
            let mut other = custom("gemini-compatible-1", "vectors-1", "chat-completions");
            other.supported_endpoints.push("chat".into());
            entities.custom_models.push(other);
        },
        |_| {},
    );
    world.transport.answer(vectors(&["[1]", "[2]"]));
    let got = ask(&world, &ASK.replace("up/m", "vectors-1"), &[]).await;
    assert_eq!((got.status, got.header("x-omniroute-provider")), (200, NODE), "{}", got.body);
}

#[tokio::test(start_paused = true)]
async fn what_is_lost_is_told_and_refused_where_it_may_not_be() {
    let world = World::new();
    world.transport.answer(Answer::json(200, r#"{"embeddings":[{"values":[1]}]}"#.to_owned()));
    let body = r#"{"model":"gem/m","input":"a","pooling":"mean"}"#;
    let got = ask(&world, body, &[]).await;
    assert_eq!((got.status, got.header("x-omniroute-dropped")), (200, "pooling"));
    let got = ask(&world, body, &[("x-omniroute-strict", "true")]).await;
    assert!(got.status == 400 && got.body.contains("pooling"), "{}", got.body);
}

#[tokio::test(start_paused = true)]
async fn a_silent_upstream_is_left_and_a_client_that_leaves_ends_the_call() {
    let world = World::with(
        |entities| entities.settings.request_retry = 0,
        |options| options.first_byte_timeout = Duration::from_secs(5),
    );
    world.transport.answer(vectors(&["[1]", "[2]"]).after(Duration::from_secs(60)));
    world.transport.answer(vectors(&["[1]", "[2]"]));
    let got = ask(&world, ASK, &[]).await;
    assert_eq!((got.status, got.header("x-omniroute-attempts")), (200, "2"));
    assert_eq!(world.row().attempts[0].failure, Some("timeout"));

    let world = World::new();
    world.transport.answer(vectors(&["[1]", "[2]"]).after(Duration::from_secs(60)));
    let left = tokio::time::timeout(Duration::from_secs(1), ask(&world, ASK, &[])).await;
    assert!(left.is_err());
    assert_eq!((world.transport.cancelled(), world.row().status), (1, 499));
}

#[tokio::test(start_paused = true)]
async fn the_gateway_asks_for_vectors_itself() {
    let world = World::with(price, |_| {});
    world.transport.answer(vectors(&["[1.5]", "\"AACAPw==\""]));
    let arrival = Arrival {
        peer: SocketAddr::from(([127, 0, 0, 1], 50_000)),
        method: Method::POST,
        path: "/v1/chat/completions".into(),
        query: None,
        headers: HeaderMap::from_iter([(
            http::header::AUTHORIZATION,
            format!("Bearer {KEY}").parse().unwrap(),
        )]),
        dialect: &OpenAi,
        endpoint: "chat",
        provider: None,
        is_logged: false,
    };
    let mut asker = world.engine.begin(arrival);
    world.engine.identify(&mut asker).unwrap();
    let texts = ["a".to_owned(), "b".to_owned()];
    let found = world.engine.embed(&asker, "up/m", &texts).await.unwrap();
    assert_eq!(found, [vec![1.5], vec![1.0]]);
    let row = world.row();
    assert_eq!((row.request_type, row.cost_nano), ("embedding", Some(4_000_000)));
    assert_eq!(row.api_key, Some(ApiKeyId::from("k1")), "billed to who asked");
    let error = world.engine.embed(&asker, "anth/m", &texts).await.unwrap_err();
    assert_eq!((error.kind.status(), world.row().status), (400, 400));
}
