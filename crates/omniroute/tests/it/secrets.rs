//! Secrets: how one signs in the first time, and what is never said or written anywhere.

use serde_json::{Value, json};

use crate::client::Call;
use crate::gateway::{Gateway, MANAGEMENT_TOKEN, Start};
use crate::world::{UPSTREAM_KEY, World, add_key, chat, stream};

const PASSWORD: &str = "correct horse battery staple";
/// A header of an account.
const HEADER: &str = "gate-sentinel-2f7ab1c94e";
/// What nobody reads but who is asked, and who asked.
const PROMPT: &str = "a-prompt-that-is-nobodys-business";
/// What the scripted upstream answers.
const ANSWER: &str = "\"hello\"";

async fn login(gateway: &Gateway, body: Value) -> crate::client::Response {
    gateway.call(&Call::post("/api/auth/login", body.to_string())).await
}

/// The token in the greeting.
fn printed_token(out: &str) -> Option<String> {
    let at = out.find("\"token\":\"")? + "\"token\":\"".len();
    Some(out[at..].split('"').next()?.to_owned())
}

fn cookie(response: &crate::client::Response) -> String {
    response.header("set-cookie").unwrap().split(';').next().unwrap().to_owned()
}

#[tokio::test]
async fn the_first_token_works_once_and_dies_with_the_first_password() {
    let folder = tempfile::tempdir().unwrap();
    let start = || Start::new().without("MANAGEMENT_TOKEN").data_dir(folder.path());
    let gateway = start().run().await;
    gateway.says("a token", |text| text.contains("<your password>")).await;
    let token = printed_token(&gateway.out()).unwrap();
    assert_eq!(gateway.call(&Call::get("/api/keys")).await.status, 401);
    let response = login(&gateway, json!({"password": "anything at all"})).await;
    assert_eq!((response.status, response.at("/error/code")), (409, "SETUP_REQUIRED".to_owned()));
    let signed_in = login(&gateway, json!({"token": token})).await;
    assert_eq!(signed_in.status, 200, "{}", signed_in.text());
    let attributes = signed_in.header("set-cookie").unwrap();
    assert!(attributes.contains("HttpOnly") && attributes.contains("SameSite=Lax"), "{attributes}");
    assert_eq!(login(&gateway, json!({"token": token})).await.status, 401);
    let set = Call::post("/api/settings/require-login", json!({"password": PASSWORD}).to_string())
        .header("cookie", &cookie(&signed_in));
    assert_eq!(gateway.call(&set).await.status, 200);
    let signed_in = login(&gateway, json!({"password": PASSWORD})).await;
    assert_eq!(signed_in.status, 200, "{}", signed_in.text());
    let keys = Call::get("/api/keys").header("cookie", &cookie(&signed_in));
    assert_eq!(gateway.call(&keys).await.status, 200);
    assert!(!gateway.log().contains(&token));
    gateway.kill().await;
    // With a password there is no token any more, and the old session goes on.
    let gateway = start().run().await;
    assert_eq!(printed_token(&gateway.out()), None);
    assert_eq!(gateway.call(&keys).await.status, 200);
    assert_eq!(login(&gateway, json!({"token": token})).await.status, 401);
}

#[tokio::test]
async fn every_start_without_a_password_has_a_new_token() {
    let folder = tempfile::tempdir().unwrap();
    let mut tokens = Vec::new();
    for _ in 0..2 {
        let gateway = Start::new().data_dir(folder.path()).run().await;
        gateway.says("a token", |text| text.contains("<your password>")).await;
        tokens.push(printed_token(&gateway.out()).unwrap());
        gateway.kill().await;
    }
    assert_ne!(tokens[0], tokens[1]);
    assert!(tokens[0].len() >= 43);
}

#[tokio::test]
async fn the_initial_password_is_good_until_another_is_set() {
    let folder = tempfile::tempdir().unwrap();
    let start = || Start::new().env("INITIAL_PASSWORD", PASSWORD).data_dir(folder.path());
    let gateway = start().run().await;
    assert_eq!(printed_token(&gateway.out()), None);
    assert_eq!(login(&gateway, json!({"password": "wrong"})).await.status, 401);
    assert_eq!(login(&gateway, json!({"password": PASSWORD})).await.status, 200);
    gateway.kill().await;
    // It was stored, hashed, by its first use.
    let gateway = start().without("INITIAL_PASSWORD").run().await;
    assert_eq!(login(&gateway, json!({"password": PASSWORD})).await.status, 200);
    let mut stored = Vec::new();
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        stored.extend(std::fs::read(entry.unwrap().path()).unwrap_or_default());
    }
    assert!(!stored.windows(PASSWORD.len()).any(|window| window == PASSWORD.as_bytes()));
}

#[tokio::test]
async fn five_wrong_passwords_lock_the_right_one_out() {
    let gateway = Start::new().env("INITIAL_PASSWORD", PASSWORD).run().await;
    for _ in 0..5 {
        assert_eq!(login(&gateway, json!({"password": "wrong"})).await.status, 401);
    }
    let response = login(&gateway, json!({"password": PASSWORD})).await;
    assert_eq!((response.status, response.at("/error/code")), (429, "LOCKED_OUT".to_owned()));
    assert!(response.header("retry-after").is_some());
}

#[tokio::test]
async fn secrets_stay_out_of_answers_logs_and_files() {
    let folder = tempfile::tempdir().unwrap();
    let start =
        Start::new().data_dir(folder.path()).env("LOG_LEVEL", "trace").env("INITIAL_PASSWORD", PASSWORD);
    let world = World::of(start).await;
    let key = add_key(&world.gateway, json!({})).await;
    let path = format!("/api/providers/{}", world.connection);
    let headers = json!({"providerSpecificData": {"extraHeaders": {"x-gate": HEADER}}});
    world.gateway.set("PATCH", &path, &headers).await;
    login(&world.gateway, json!({"password": PASSWORD})).await;
    // Upstreams that repeat the key in their errors, clients that send it everywhere.
    let telltale = format!(r#"{{"error":{{"message":"Incorrect API key provided: {UPSTREAM_KEY}"}}}}"#);
    world.upstream.answer(omniroute_testkit::Answer::json(401, telltale));
    let mut answers = vec![world.gateway.call(&chat("up/m").bearer(&key)).await.text()];
    world.recover().await;
    answers.push(world.gateway.call(&stream("up/m").header("x-api-key", &key)).await.text());
    answers.push(world.gateway.call(&Call::get(&format!("/v1beta/models?key={key}"))).await.text());
    answers.push(
        world
            .gateway
            .call(&Call::post("/v1/chat/completions", format!("{{\"{key}\":")).bearer(&key))
            .await
            .text(),
    );
    world.gateway.manage("POST", &format!("/api/providers/{}/test", world.connection), &json!({})).await;
    for path in [
        "/api/providers",
        "/api/provider-nodes",
        "/api/keys",
        "/api/settings",
        "/api/usage/call-logs",
        "/api/usage/logs",
        "/api/usage/history",
        "/api/monitoring/health",
        "/api/telemetry/summary",
        "/metrics",
        "/api/logs/console?limit=2000",
        "/api/models/catalog",
        "/api/openapi.json",
    ] {
        answers.push(world.gateway.manage("GET", path, &Value::Null).await.text());
    }
    for row in world.gateway.logged(2).await {
        let path = format!("/api/usage/call-logs/{}", row["id"].as_str().unwrap());
        answers.push(world.gateway.manage("GET", &path, &Value::Null).await.text());
    }
    let ask = format!(r#"{{"model":"up/m","messages":[{{"role":"user","content":"{PROMPT}"}}]}}"#);
    let said = world.gateway.call(&Call::post("/v1/chat/completions", ask).bearer(&key)).await;
    assert!(said.text().contains(ANSWER), "{}", said.text());
    let console = world.gateway.manage("GET", "/api/logs/console?limit=2000", &Value::Null).await.text();
    answers.push(console.clone());
    assert_eq!(world.upstream.requests()[0].header("x-gate"), Some(HEADER));
    let mut gateway = world.gateway;
    gateway.signal("TERM");
    gateway.ended().await;
    let mut files = String::new();
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        files.push_str(&String::from_utf8_lossy(&std::fs::read(entry.unwrap().path()).unwrap_or_default()));
    }
    for said in [PROMPT, ANSWER] {
        assert!(!gateway.log().contains(said), "the log tells what was said");
    }
    assert!(
        console.contains("\"message\":\"request\"") && !console.contains(PROMPT) && !console.contains(ANSWER)
    );
    for secret in [UPSTREAM_KEY, HEADER, &key, MANAGEMENT_TOKEN, PASSWORD] {
        for (place, text) in [
            ("answers", answers.concat()),
            ("log", gateway.log()),
            ("output", gateway.out()),
            ("files", files.clone()),
        ] {
            let found = text.find(secret).map(|at| text[..at].chars().rev().take(150).collect::<String>());
            let before = found.map(|text| text.chars().rev().collect::<String>());
            assert_eq!(before, None, "{place} hold a secret");
        }
    }
}

#[tokio::test]
async fn files_of_the_data_directory_are_for_their_owner_only() {
    use std::os::unix::fs::PermissionsExt as _;
    let world = World::start().await;
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&world.gateway.data_dir), 0o700);
    for entry in std::fs::read_dir(&world.gateway.data_dir).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(mode(&path) & 0o077, 0, "{}", path.display());
    }
}
