//! Signing in, sessions, lockout, and requests made by other sites.

use std::time::Duration;

use http::Method;
use secrecy::SecretString;
use serde_json::json;

use crate::app::{PASSWORD, TestApp, remote, settings};

const DAY: Duration = Duration::from_secs(24 * 3_600);

async fn signed_in(app: &TestApp, cookie: &str) -> bool {
    app.request(Method::GET, "/api/auth/status").cookie(cookie).send().await.json()["authenticated"] == true
}

#[tokio::test]
async fn the_initial_password_is_stored_on_its_first_use() {
    let app = TestApp::new().await;
    assert!(app.store.settings().password_hash().await.expect("reads").is_none());
    let answer = app.login(PASSWORD).await.expect(200);
    let cookie = answer.header("set-cookie").expect("cookie");
    for part in ["auth_token=", "Path=/", "HttpOnly", "SameSite=Lax", "Max-Age=2592000"] {
        assert!(cookie.contains(part), "{cookie}");
    }
    assert!(!cookie.contains("Secure"), "plain http");
    let stored = app.store.settings().password_hash().await.expect("reads").expect("stored");
    assert!(stored.hash.starts_with("$argon2id$"));
    assert!(signed_in(&app, &app.sign_in(PASSWORD).await).await, "and again, against the hash");
    assert_eq!(app.login("wrong password").await.expect(401).code(), "AUTH_INVALID");
}

#[tokio::test]
async fn sessions_behind_a_tls_proxy_are_secure() {
    let app = TestApp::new().await;
    let call = app.request(Method::POST, "/api/auth/login").json(&json!({"password": PASSWORD}));
    let call = call.from("10.9.9.9:1".parse().expect("address")).header("x-forwarded-proto", "https");
    let answer = call.header("x-forwarded-for", "203.0.113.1").send().await.expect(200);
    assert!(answer.header("set-cookie").expect("cookie").ends_with("; Secure"));
}

#[tokio::test]
async fn without_any_password_the_printed_token_opens_once() {
    let token = || Some(SecretString::from("printed-at-the-start"));
    let app = TestApp::with(settings_without_password(token())).await;
    assert_eq!(app.login("anything").await.expect(409).code(), "SETUP_REQUIRED");
    let init = app.request(Method::GET, "/api/init").send().await.json();
    assert_eq!(init, json!({"initialized": true, "setupComplete": false}));
    let with =
        |token: &str| app.request(Method::POST, "/api/auth/login").json(&json!({"token": token})).send();
    with("wrong").await.expect(401);
    let cookie = with("printed-at-the-start").await.expect(200).cookie();
    with("printed-at-the-start").await.expect(401);

    let set = |body: serde_json::Value| {
        app.request(Method::PUT, "/api/settings/require-login").cookie(&cookie).json(&body).send()
    };
    assert_eq!(set(json!({"password": "short"})).await.expect(400).fields(), ["password"]);
    assert_eq!(set(json!({"requireLogin": false})).await.expect(400).fields(), ["requireLogin"]);
    let answer = set(json!({"password": "a good long one"})).await.expect(200);
    assert!(signed_in(&app, &answer.cookie()).await, "the wizard goes on");
    assert!(!signed_in(&app, &cookie).await, "older sessions do not");
    app.sign_in("a good long one").await;
    let again = json!({"password": "another good one"});
    app.request(Method::POST, "/api/settings/require-login")
        .cookie(&answer.cookie())
        .json(&again)
        .send()
        .await
        .expect(409);
}

fn settings_without_password(first_run_token: Option<SecretString>) -> omniroute_admin::AdminSettings {
    omniroute_admin::AdminSettings { initial_password: None, first_run_token, ..settings() }
}

#[tokio::test]
async fn the_printed_token_dies_when_a_password_is_set() {
    let app = TestApp::with(settings_without_password(Some(SecretString::from("printed")))).await;
    app.post("/api/settings/require-login", json!({"password": "a good long one"})).await.expect(200);
    let body = json!({"token": "printed"});
    app.request(Method::POST, "/api/auth/login").json(&body).send().await.expect(401);
}

#[tokio::test]
async fn five_failures_lock_out_even_the_right_password() {
    let app = TestApp::new().await;
    for _ in 0..5 {
        app.login("wrong password").await.expect(401);
    }
    let locked = app.login(PASSWORD).await.expect(429);
    assert_eq!(locked.code(), "LOCKED_OUT");
    assert_eq!(locked.header("retry-after").as_deref(), Some("900"));
    let elsewhere =
        app.request(Method::POST, "/api/auth/login").json(&json!({"password": PASSWORD})).from(remote());
    elsewhere.send().await.expect(200);
    // The header is believed from trusted proxies only.
    let claims = app.request(Method::POST, "/api/auth/login").json(&json!({"password": PASSWORD}));
    claims.header("x-forwarded-for", "203.0.113.5").send().await.expect(429);
    app.pass(Duration::from_secs(15 * 60));
    app.login(PASSWORD).await.expect(200);
}

#[tokio::test]
async fn success_forgets_earlier_failures() {
    let app = TestApp::new().await;
    for _ in 0..3 {
        for _ in 0..4 {
            app.login("wrong password").await.expect(401);
        }
        app.login(PASSWORD).await.expect(200);
    }
}

#[tokio::test]
async fn a_new_password_ends_every_session_but_the_one_that_set_it() {
    let app = TestApp::new().await;
    let (mine, other) = (app.sign_in(PASSWORD).await, app.sign_in(PASSWORD).await);
    let change = |body: serde_json::Value| {
        app.request(Method::PATCH, "/api/settings").cookie(&mine).json(&body).send()
    };
    assert_eq!(
        change(json!({"newPassword": "a new long one"})).await.expect(400).fields(),
        ["currentPassword"]
    );
    let wrong = json!({"currentPassword": "wrong password", "newPassword": "a new long one"});
    assert_eq!(change(wrong).await.expect(401).code(), "AUTH_INVALID");
    let right = json!({"currentPassword": PASSWORD, "newPassword": "a new long one"});
    let answer = change(right).await.expect(200);
    assert!(signed_in(&app, &answer.cookie()).await);
    assert!(!signed_in(&app, &mine).await);
    assert!(!signed_in(&app, &other).await);
    app.login(PASSWORD).await.expect(401);
    app.sign_in("a new long one").await;
}

#[tokio::test]
async fn sessions_end_are_renewed_and_are_revoked() {
    let app = TestApp::new().await;
    let cookie = app.sign_in(PASSWORD).await;
    app.pass(DAY * 22);
    let get = |cookie: String| app.request(Method::GET, "/api/settings").cookie(&cookie).send();
    assert_eq!(get(cookie.clone()).await.expect(200).header("set-cookie"), None, "8 days are left");
    app.pass(DAY * 2);
    let renewed = get(cookie.clone()).await.expect(200).cookie();
    app.pass(DAY * 7);
    get(cookie).await.expect(401);
    get(renewed.clone()).await.expect(200);
    let out = app.request(Method::POST, "/api/auth/logout").cookie(&renewed).send().await.expect(200);
    assert!(out.header("set-cookie").expect("cookie").contains("Expires=Thu, 01 Jan 1970"));
    assert_eq!(get(renewed).await.expect(401).code(), "AUTH_INVALID");
}

#[tokio::test]
async fn other_sites_cannot_use_the_cookie() {
    let app = TestApp::new().await;
    let cookie = app.sign_in(PASSWORD).await;
    for (header, value, allowed) in [
        ("origin", "http://localhost:20128", true),
        ("origin", "https://evil.test", false),
        ("origin", "null", false),
        ("referer", "http://localhost:20128/dashboard", true),
        ("referer", "https://evil.test/page", false),
        ("sec-fetch-site", "same-origin", true),
        ("sec-fetch-site", "cross-site", false),
        ("host", "evil.test:20128", false),
    ] {
        let body = json!({"requestRetry": 1});
        let call =
            app.request(Method::PATCH, "/api/settings").cookie(&cookie).json(&body).header(header, value);
        let answer = call.send().await;
        if allowed {
            answer.expect(200);
        } else {
            assert_eq!(answer.expect(403).code(), "CSRF", "{header}: {value}");
        }
        // A program with a key of its own is not a browser.
        app.as_manager(Method::PATCH, "/api/settings")
            .json(&body)
            .header(header, value)
            .send()
            .await
            .expect(200);
    }
    let login = app.request(Method::POST, "/api/auth/login").json(&json!({"password": PASSWORD}));
    assert_eq!(login.header("origin", "https://evil.test").send().await.expect(403).code(), "CSRF");
}

#[tokio::test]
async fn sign_in_can_be_switched_off_for_this_machine_only() {
    let app = TestApp::new().await;
    app.sign_in(PASSWORD).await;
    app.patch("/api/settings", json!({"requireLogin": false})).await.expect(200);
    app.request(Method::GET, "/api/settings").send().await.expect(200);
    app.request(Method::GET, "/api/settings").from(remote()).send().await.expect(401);
    // A proxy on this machine forwards for others.
    app.request(Method::GET, "/api/settings").header("x-forwarded-for", "127.0.0.1").send().await.expect(401);
    // A name that was made to point here.
    let rebound = app.request(Method::GET, "/api/settings").header("host", "evil.test");
    assert_eq!(rebound.send().await.expect(403).code(), "CSRF");
    let cross =
        app.request(Method::PATCH, "/api/settings").header("origin", "https://evil.test").json(&json!({}));
    assert_eq!(cross.send().await.expect(403).code(), "CSRF");
}

#[tokio::test]
async fn keys_with_the_scope_manage() {
    let app = TestApp::new().await;
    let key = app.post("/api/keys", json!({"name":"m","scopes":["manage"]})).await.expect(201).json();
    let text = key["key"].as_str().expect("key").to_owned();
    let get = || app.request(Method::GET, "/api/settings").bearer(&text).from(remote()).send();
    get().await.expect(200);
    let path = format!("/api/keys/{}", key["id"].as_str().expect("id"));
    app.patch(&path, json!({"isActive": false})).await.expect(200);
    assert_eq!(get().await.expect(401).code(), "AUTH_INVALID");
}

#[tokio::test]
async fn sign_ins_are_in_the_audit_log() {
    let app = TestApp::new().await;
    app.login("wrong password").await.expect(401);
    app.login(PASSWORD).await.expect(200);
    let query = omniroute_store::AuditQuery { limit: 10, ..Default::default() };
    let (events, _) = app.store.audit().list(&query).await.expect("lists");
    let actions: Vec<_> = events.iter().map(|record| record.event.action.as_str()).collect();
    assert_eq!(actions, ["auth.login.success", "auth.login.failed"]);
    assert_eq!(events[0].event.ip_address.as_deref(), Some("127.0.0.1"));
}
