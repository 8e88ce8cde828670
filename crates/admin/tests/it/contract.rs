//! What holds for every route: the documented shape, who gets in, errors as JSON, no secrets in answers.

use std::collections::BTreeSet;

use http::Method;
use serde_json::{Value, json};

use crate::app::{PASSWORD, TestApp, remote};

const PUBLIC: &[&str] = &[
    "GET /api/auth/status",
    "GET /api/init",
    "GET /api/monitoring/health",
    "GET /api/openapi.json",
    "GET /api/settings/require-login",
    "GET /api/system/version",
    "GET /healthz",
    "GET /readyz",
    "POST /api/auth/login",
    "POST /api/auth/logout",
];

/// Every route of the document: method, path with an id filled in, and whether it needs a credential.
fn routes() -> Vec<(Method, String, bool)> {
    let document = serde_json::to_value(omniroute_admin::openapi("1.2.3")).expect("document");
    let mut routes = Vec::new();
    for (path, item) in document["paths"].as_object().expect("paths") {
        for (method, operation) in item.as_object().expect("item") {
            let method = Method::from_bytes(method.to_uppercase().as_bytes()).expect("method");
            let is_protected = operation["security"].as_array().is_some_and(|schemes| !schemes.is_empty());
            routes.push((method, path.replace("{id}", "some-id"), is_protected));
        }
    }
    assert!(routes.len() > 50);
    routes
}

/// What changes something takes both words for it. What is set as a whole has one.
#[test]
fn put_and_patch_are_the_same() {
    const SET: [&str; 3] = ["/api/combos/reorder", "/api/models", "/api/models/alias"];
    let document: Value =
        serde_json::from_str(&omniroute_admin::openapi_json().expect("JSON")).expect("JSON");
    let paths = document["paths"].as_object().expect("an object");
    let differing: Vec<_> = paths
        .iter()
        .filter(|(path, methods)| {
            let [put, patch] = ["put", "patch"].map(|method| methods.get(method));
            !SET.contains(&path.as_str())
                && (put.map(|put| &put["requestBody"]) != patch.map(|patch| &patch["requestBody"]))
        })
        .map(|(path, _)| path)
        .collect();
    assert_eq!(differing, [] as [&String; 0]);
}

#[test]
fn the_document_is_as_it_was() {
    insta::assert_json_snapshot!(omniroute_admin::openapi("1.2.3"));
}

#[test]
fn references_of_the_document_lead_somewhere() {
    fn references(value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(members) => {
                found.extend(members.get("$ref").and_then(Value::as_str).map(str::to_owned));
                members.values().for_each(|member| references(member, found));
            }
            Value::Array(items) => items.iter().for_each(|item| references(item, found)),
            _ => {}
        }
    }
    let document = serde_json::to_value(omniroute_admin::openapi("1.2.3")).expect("document");
    let mut found = BTreeSet::new();
    references(&document, &mut found);
    for reference in found {
        let pointer = reference.trim_start_matches('#');
        assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
    }
}

#[test]
fn the_public_routes_are_these() {
    let public: BTreeSet<String> = routes()
        .into_iter()
        .filter(|route| !route.2)
        .map(|(method, path, _)| format!("{method} {path}"))
        .collect();
    assert_eq!(public.iter().map(String::as_str).collect::<Vec<_>>(), PUBLIC);
}

#[tokio::test]
async fn nobody_gets_in_without_the_right_credential() {
    let app = TestApp::new().await;
    let ended = app.sign_in(PASSWORD).await;
    app.request(Method::POST, "/api/auth/logout").cookie(&ended).send().await.expect(200);
    let forged = format!("{}x", app.sign_in(PASSWORD).await);
    let key = |scopes: Value| json!({"name": format!("{scopes}"), "scopes": scopes});
    let plain = app.post("/api/keys", key(json!([]))).await.expect(201).json();
    let sync = app.post("/api/keys", key(json!(["sync"]))).await.expect(201).json();
    let metrics = app.post("/api/keys", key(json!(["metrics"]))).await.expect(201).json();
    let revoked = app.post("/api/keys", key(json!(["manage"]))).await.expect(201).json();
    app.delete(&format!("/api/keys/{}", revoked["id"].as_str().expect("id"))).await.expect(200);
    let elsewhere = json!({"name": "elsewhere", "scopes": ["manage"], "ipAllowlist": ["192.0.2.0/24"]});
    let elsewhere = app.post("/api/keys", elsewhere).await.expect(201).json();
    let text = |key: &Value| key["key"].as_str().expect("key").to_owned();

    for (method, path, is_protected) in routes() {
        for (credential, header, value) in [
            ("none", "", String::new()),
            ("empty bearer", "authorization", "Bearer ".into()),
            ("basic", "authorization", "Basic YWRtaW46YWRtaW4=".into()),
            ("unknown key", "authorization", "Bearer sk-omni-unknown".into()),
            ("almost the token", "authorization", format!("Bearer {}x", crate::app::TOKEN)),
            ("key without scope", "authorization", format!("Bearer {}", text(&plain))),
            ("sync key", "authorization", format!("Bearer {}", text(&sync))),
            ("metrics key", "authorization", format!("Bearer {}", text(&metrics))),
            ("revoked key", "authorization", format!("Bearer {}", text(&revoked))),
            ("key for elsewhere", "authorization", format!("Bearer {}", text(&elsewhere))),
            ("ended session", "cookie", format!("auth_token={ended}")),
            ("forged session", "cookie", format!("auth_token={forged}")),
        ] {
            for peer in [crate::app::local(), remote()] {
                let call = app.request(method.clone(), &path).from(peer);
                let call = if header.is_empty() { call } else { call.header(header, &value) };
                let answer = call.send().await;
                let case = format!("{method} {path} with {credential} from {peer}: {}", answer.body);
                let may_read_metrics = path == "/metrics"
                    && (credential == "metrics key"
                        || (header != "authorization" && peer.ip().is_loopback()));
                if is_protected && !may_read_metrics {
                    assert!(matches!(answer.status.as_u16(), 401 | 403), "{case}");
                    assert!(
                        matches!(answer.code().as_str(), "AUTH_REQUIRED" | "AUTH_INVALID" | "FORBIDDEN"),
                        "{case}"
                    );
                } else {
                    assert!(!matches!(answer.status.as_u16(), 403 | 500), "{case}");
                }
            }
        }
    }
}

#[tokio::test]
async fn every_error_is_json() {
    let app = TestApp::new().await;
    for (method, path, status, code, allow) in [
        (Method::GET, "/api/nothing", 404, "NOT_FOUND", None),
        (Method::POST, "/api/providers/x/y/z", 404, "NOT_FOUND", None),
        (Method::GET, "/api/providers/some-id", 404, "NOT_FOUND", None),
        (Method::DELETE, "/api/providers", 405, "METHOD_NOT_ALLOWED", Some("GET, HEAD, POST")),
        (Method::GET, "/api/auth/login", 405, "METHOD_NOT_ALLOWED", Some("POST")),
        (Method::OPTIONS, "/api/keys", 405, "METHOD_NOT_ALLOWED", Some("GET, HEAD, POST")),
        (Method::GET, "/api/keys/x/reveal", 404, "NOT_FOUND", None),
    ] {
        let answer = app.as_manager(method.clone(), path).send().await.expect(status);
        assert_eq!(answer.code(), code, "{method} {path}");
        assert_eq!(answer.header("allow").as_deref(), allow, "{method} {path}");
    }
}

#[tokio::test]
async fn bodies_are_strict_about_types_and_say_what_they_ignore() {
    let app = TestApp::new().await;
    for (body, status, code, fields) in [
        ("{", 400, "BAD_JSON", &[][..]),
        ("", 400, "BAD_JSON", &[]),
        ("{} x", 400, "BAD_JSON", &[]),
        ("[]", 400, "VALIDATION", &["body"]),
        ("7", 400, "VALIDATION", &["body"]),
        ("{}", 400, "VALIDATION", &["name"]),
        (r#"{"name":7}"#, 400, "VALIDATION", &["name"]),
        (r#"{"name":" "}"#, 400, "VALIDATION", &["name"]),
        (
            r#"{"name":"a","maxConcurrent":0,"ipAllowlist":["x"]}"#,
            400,
            "VALIDATION",
            &["ipAllowlist[0]", "maxConcurrent"],
        ),
        (r#"{"name":"a","scopes":["root"]}"#, 400, "VALIDATION", &["scopes[0]"]),
        (r#"{"name":"a","expiresAt":"2001-01-01T00:00:00Z"}"#, 400, "VALIDATION", &["expiresAt"]),
    ] {
        let call = app.as_manager(Method::POST, "/api/keys").header("content-type", "application/json");
        let answer = call.text(body.to_owned()).send().await.expect(status);
        assert_eq!(answer.code(), code, "{body}");
        assert_eq!(answer.fields(), fields, "{body}");
    }
    let plain = app.as_manager(Method::POST, "/api/keys").header("content-type", "text/plain").text("{}");
    assert_eq!(plain.send().await.expect(415).code(), "UNSUPPORTED_MEDIA");
    // As `curl -d` sends it; without a token it might be a form of some page.
    let form = ("content-type", "application/x-www-form-urlencoded");
    let curl = app.as_manager(Method::POST, "/api/keys").header(form.0, form.1).text(r#"{"name":"by curl"}"#);
    curl.send().await.expect(201);
    let page =
        app.request(Method::POST, "/api/auth/login").header(form.0, form.1).text(r#"{"password":"x"}"#);
    assert_eq!(page.send().await.expect(415).code(), "UNSUPPORTED_MEDIA");
    let large = format!(r#"{{"name":"{}"}}"#, "x".repeat(11 << 20));
    assert_eq!(
        app.as_manager(Method::POST, "/api/keys").text(large).send().await.expect(413).code(),
        "TOO_LARGE"
    );

    let key = json!({"name":"a","maxSessions":3,"budget":{"daily":1},"noSuchRight":null,"noLog":true});
    let answer = app.post("/api/keys", key).await.expect(201);
    assert_eq!(answer.header("x-ignored-fields").as_deref(), Some("budget,noSuchRight"));
    let answer = app.patch("/api/settings", json!({"noSuchSetting":true,"requestRetry":2})).await.expect(200);
    assert_eq!(answer.header("x-ignored-fields").as_deref(), Some("noSuchSetting"));
    assert_eq!(answer.json()["requestRetry"], 2);
    let answer = app.get("/api/keys?limit=1&colour=red").await.expect(200);
    assert_eq!(answer.header("x-ignored-fields").as_deref(), Some("colour"));
    assert_eq!(app.get("/api/keys?limit=many").await.expect(400).fields(), ["limit"]);
    assert_eq!(app.get("/api/keys?limit=501").await.expect(400).fields(), ["limit"]);
}

#[tokio::test]
async fn requests_have_ids() {
    let app = TestApp::new().await;
    let own = app.request(Method::GET, "/api/init").header("x-request-id", "trace-1").send().await;
    assert_eq!(own.header("x-request-id").as_deref(), Some("trace-1"));
    let bad = app.request(Method::GET, "/api/init").header("x-request-id", "with space").send().await;
    assert!(bad.header("x-request-id").is_some_and(|id| id.starts_with("req_")));
}

#[tokio::test]
async fn other_origins_are_answered_only_when_named() {
    let app = TestApp::new().await;
    for (origin, allowed) in [("https://ui.example", true), ("https://evil.test", false)] {
        let answer = app.request(Method::OPTIONS, "/api/keys").header("origin", origin).send().await;
        assert_eq!(answer.status == 204, allowed, "{origin}");
        assert_eq!(answer.header("access-control-allow-origin").is_some(), allowed, "{origin}");
    }
}

/// Everything secret that can be put in comes out of no route.
#[tokio::test]
async fn secrets_never_come_back() {
    let app = TestApp::new().await;
    let secret = "sentinel-secret-0123456789";
    let node =
        json!({"name":"n","prefix":"mine","baseUrl":"https://93.184.216.34/v1","headers":{"x-own":secret}});
    let node = app.post("/api/provider-nodes", node).await.expect(201).json();
    let connection = json!({"provider":"mine","name":"c","apiKey":secret,
        "providerSpecificData":{"extraHeaders":{"x-other":secret}}});
    let connection = app.post("/api/providers", connection).await.expect(201).json();
    let catalogued = json!({"provider":"openai","name":"c","apiKey":secret});
    app.post("/api/providers", catalogued).await.expect(201);
    let key = app.post("/api/keys", json!({"name":"k"})).await.expect(201).json();
    app.upstream.answer(401, &format!(r#"{{"error":{{"message":"bad key {secret}"}}}}"#));
    let ids =
        [&node["node"]["id"], &connection["connection"]["id"], &key["id"]].map(|id| id.as_str().expect("id"));
    app.post(&format!("/api/providers/{}/test", ids[1]), json!({})).await.expect(200);
    let gets: Vec<String> =
        routes().into_iter().filter(|(method, ..)| *method == Method::GET).map(|(_, path, _)| path).collect();
    let full_key = key["key"].as_str().expect("key");
    // Whoever reads the log along comes to an end.
    app.console.close();
    for path in gets {
        for id in ids {
            let answer = app.get(&path.replace("some-id", id)).await;
            for forbidden in [secret, full_key, PASSWORD, crate::app::TOKEN, "$argon2"] {
                assert!(!answer.body.contains(forbidden), "{path} tells {forbidden}: {}", answer.body);
            }
        }
    }
}
