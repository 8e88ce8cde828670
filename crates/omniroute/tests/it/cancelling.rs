//! Requests that an operator ends over HTTP: the client hears it, the upstream call ends, and the log says who it was.

use std::time::{Duration, Instant};

use omniroute_testkit::Answer;
use serde_json::{Value, json};

use crate::client::Call;
use crate::gateway::Gateway;
use crate::world::{COMPLETION, EVENTS, World, add_key, chat, messages, stream};

const LIMIT: Duration = Duration::from_secs(1);

/// The only request that is running.
async fn running(gateway: &Gateway) -> Value {
    let view = gateway.set("GET", "/api/logs/active", &Value::Null).await;
    assert_eq!(view["count"], 1, "{view}");
    view["activeRequests"][0].clone()
}

#[tokio::test]
async fn an_operator_ends_a_request_that_has_no_answer_yet() {
    let world = World::start().await;
    for (number, call, place, word) in [
        (1, chat("up/m"), "/error/code", "request_cancelled"),
        (2, messages("up/m"), "/error/type", "invalid_request_error"),
    ] {
        world.upstream.answer(Answer::json(200, COMPLETION).after(Duration::from_secs(60)));
        let mut line = world.gateway.line().await;
        line.write(&call.bytes()).await;
        world.upstream.request(number).await;
        let request = running(&world.gateway).await;
        assert_eq!((&request["stream"], &request["tokensSoFar"]), (&json!(false), &Value::Null));
        let (began, path) = (Instant::now(), format!("/api/logs/active/{}", request["id"].as_str().unwrap()));
        let done = world.gateway.set("DELETE", &path, &Value::Null).await;
        assert_eq!((&done["success"], &done["cancelled"]), (&json!(true), &json!(1)));
        let response = line.answer(false).await;
        assert_eq!((response.status, response.header("x-should-retry")), (499, Some("false")));
        assert_eq!(response.at(place), word, "{}", response.text());
        world.upstream.hung_up(number).await;
        assert!(began.elapsed() < LIMIT, "{:?}", began.elapsed());
        let row = &world.gateway.logged(number).await[0];
        assert_eq!((&row["status"], &row["provider"]), (&json!(499), &json!(world.node)), "{row}");
        let again = world.gateway.manage("DELETE", &path, &Value::Null).await;
        assert_eq!(again.status, 404, "{}", again.text());
        assert!(again.at("/error/message").contains("in this process"), "{}", again.text());
        // The connection is good for more.
        assert_eq!(line.call(&Call::get("/v1/models")).await.status, 200);
    }
    assert_eq!(world.chat("up/m").await.status, 200, "the account is not to blame");
}

#[tokio::test]
async fn an_operator_ends_a_stream_and_its_place_is_free() {
    let world = World::start().await;
    let key = add_key(&world.gateway, json!({"maxConcurrent": 1})).await;
    world.upstream.answer(Answer::sse(&EVENTS[..2]).hang());
    let mut line = world.gateway.line().await;
    line.write(&stream("up/m").bearer(&key).header("x-request-id", "a-stream").bytes()).await;
    line.head().await;
    line.read_until("two").await;
    let request = running(&world.gateway).await;
    assert_eq!((&request["id"], &request["tokensSoFar"]), (&json!("a-stream"), &json!(2)));
    world.gateway.set("DELETE", "/api/logs/active/a-stream", &Value::Null).await;
    let rest = line.rest().await;
    assert!(rest.contains("data: {\"error\":{") && rest.contains("request_cancelled"), "{rest}");
    assert!(!rest.contains("[DONE]"), "{rest}");
    world.upstream.hung_up(1).await;
    let row = &world.gateway.logged(1).await[0];
    assert_eq!((&row["status"], &row["estimated"]), (&json!(499), &json!(true)), "{row}");
    let shown = world
        .gateway
        .set("GET", &format!("/api/usage/call-logs/{}", row["id"].as_str().unwrap()), &Value::Null)
        .await;
    assert!(shown.to_string().contains("an operator of the gateway cancelled this request"), "{shown}");
    assert!(shown.to_string().contains("operator_abort"), "{shown}");
    assert_eq!(world.gateway.call(&chat("up/m").bearer(&key)).await.status, 200);
    let health = world.gateway.set("GET", "/api/logs/active", &Value::Null).await;
    assert_eq!(health["count"], 0);
}
