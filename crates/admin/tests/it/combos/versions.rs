//! Who changes a combo may say which version of it was read.

use http::Method;
use serde_json::{Value, json};

use super::{make, with_provider};
use crate::app::{Answer, TestApp};

async fn send(app: &TestApp, method: Method, path: &str, version: &str, body: &Value) -> Answer {
    app.as_manager(method, path).header("if-match", version).json(body).send().await
}

fn version(answer: &Answer) -> String {
    answer.header("etag").expect("a version")
}

#[tokio::test]
async fn only_the_version_that_was_read_is_changed() {
    let app = with_provider().await;
    let body = json!({"name":"best","models":["openai/gpt-5.6"]});
    let made = app.post("/api/combos", body).await.expect(201);
    let path = format!("/api/combos/{}", made.json()["id"].as_str().expect("id"));
    let first = version(&made);
    assert_eq!(version(&app.get(&path).await), first);
    let hidden = |is_hidden: bool| json!({"isHidden":is_hidden});
    let changed = send(&app, Method::PATCH, &path, &first, &hidden(true)).await.expect(200);
    let second = version(&changed);
    assert_ne!(second, first);
    assert_eq!(version(&app.get(&path).await), second);

    for method in [Method::PUT, Method::PATCH, Method::DELETE] {
        for old in [first.clone(), format!("\"other\", {first}"), format!("W/{second}")] {
            let refused = send(&app, method.clone(), &path, &old, &hidden(false)).await.expect(409);
            assert_eq!(refused.code(), "CONFLICT");
            let message = refused.json()["error"]["message"].as_str().expect("text").to_owned();
            assert!(message.contains(&format!("its version is {second} now")), "{message}");
        }
        let wrong = send(&app, method.clone(), &path, "2", &hidden(false)).await.expect(400);
        assert_eq!((wrong.code().as_str(), wrong.fields()), ("VALIDATION", vec!["If-Match".to_owned()]));
    }
    assert_eq!(version(&app.get(&path).await), second, "nothing was changed");

    let third =
        send(&app, Method::PUT, &path, &format!("{first}, {second}"), &hidden(false)).await.expect(200);
    let other = send(&app, Method::PATCH, &path, "*", &hidden(true)).await.expect(200);
    assert_ne!(version(&third), version(&other));
    // What changes a combo from elsewhere makes another version of it too.
    app.put("/api/combos/reorder", json!({"ids":[]})).await.expect(200);
    make(&app, json!({"name":"inner","models":["openai/gpt-5.6"]})).await;
    app.patch(&path, json!({"models":["inner"]})).await.expect(200);
    let before = version(&app.get(&path).await);
    let list = app.get("/api/combos").await.json();
    let inner = list["combos"].as_array().expect("list").iter().find(|combo| combo["name"] == "inner");
    let inner = format!("/api/combos/{}", inner.expect("there")["id"].as_str().expect("id"));
    app.patch(&inner, json!({"name":"renamed"})).await.expect(200);
    send(&app, Method::PATCH, &path, &before, &hidden(true)).await.expect(409);

    let last = version(&app.get(&path).await);
    send(&app, Method::DELETE, &path, &last, &Value::Null).await.expect(200);
    send(&app, Method::DELETE, &path, "*", &Value::Null).await.expect(404);
    send(&app, Method::PATCH, &path, "*", &hidden(true)).await.expect(404);
}

#[tokio::test]
async fn of_two_that_read_the_same_one_changes_it() {
    let app = with_provider().await;
    let made = app.post("/api/combos", json!({"name":"best","models":["openai/gpt-5.6"]})).await.expect(201);
    let path = format!("/api/combos/{}", made.json()["id"].as_str().expect("id"));
    let read = version(&made);
    let (one, other) = (json!({"isHidden":true}), json!({"isActive":false}));
    let (one, other) = futures_util::join!(
        send(&app, Method::PATCH, &path, &read, &one),
        send(&app, Method::PATCH, &path, &read, &other)
    );
    let mut statuses = [one.status, other.status];
    statuses.sort();
    assert_eq!(statuses, [200, 409]);
}
