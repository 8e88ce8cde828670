//! Runs over the rows of an operator.

use omniroute_chaos::{Base, Overrides, simulate};
use omniroute_domain::entity::{
    ApiKey, ApiKeyId, Connection, ConnectionId, ConnectionStatus, Entities, KeyHash, TestStatus,
};
use omniroute_provider::{ProviderId, catalog::catalog};

fn connection(id: &str, provider: &str, name: &str) -> Connection {
    Connection {
        priority: 1,
        max_concurrent: Some(50),
        status: ConnectionStatus { rate_limited_until: Some(i64::MAX), ..ConnectionStatus::default() },
        ..Connection::new(ConnectionId::from(id), ProviderId::from(provider), name, 0)
    }
}

fn key(name: &str) -> ApiKey {
    ApiKey {
        id: ApiKeyId::from("k1"),
        name: name.to_owned(),
        hash: KeyHash::of("nobody knows it"),
        masked: String::new(),
        is_active: true,
        no_log: false,
        allowed_models: Vec::new(),
        denied_models: Vec::new(),
        allowed_connections: vec!["c1".to_owned()],
        allowed_endpoints: Vec::new(),
        scopes: Vec::new(),
        ip_allowlist: vec!["203.0.113.9".to_owned()],
        max_requests_per_minute: None,
        max_requests_per_day: Some(40),
        max_tokens_per_minute: None,
        max_concurrent: None,
        max_sessions: 0,
        strict: false,
        rights: Default::default(),
        expires_at: None,
        revoked_at: None,
        last_used_at: None,
        created_at: 0,
    }
}

fn rows() -> Base {
    let mut banned = connection("c3", "openai", "closed");
    banned.status.test_status = TestStatus::Banned;
    let entities = Entities {
        revision: 1,
        connections: vec![
            connection("c1", "openai", "main"),
            connection("c2", "anthropic", "main"),
            banned,
            connection("c4", "gemini", "studio"),
        ],
        api_keys: vec![key("app")],
        ..Entities::default()
    };
    Base { entities, catalog: catalog() }
}

const SCENARIO: &str = r#"
title = "Their own"
requests = 300
[[account]]
name = "openai/main"
upstream = { latency = { p50 = 5, p99 = 9 } }
[[traffic]]
model = "openai/gpt-5.4-mini"
key = "app"
[[traffic]]
model = "anthropic/claude-haiku-5-5"
stream = 0.5
[[traffic]]
model = "gemini/gemini-3.8-flash"
stream = 0.5
[[phase]]
name = "calm"
seconds = 60
rate = 5
expect = { availability = 1.0 }
"#;

#[test]
fn accounts_and_keys_take_part_as_they_are_configured() {
    let report =
        simulate(SCENARIO, Some(rows()), Overrides::default()).unwrap_or_else(|error| panic!("{error}"));
    assert!(report.violated().is_empty(), "{}", report.text());
    let line = |start: &str| {
        let found = report.text().lines().find(|line| line.starts_with(&format!("| {start}")));
        found.unwrap_or_else(|| panic!("no `{start}` in\n{}", report.text())).to_owned()
    };
    // The key's own limit: forty a day, all of them at the account that it may use.
    assert!(line("openai/main ").contains(" 40 |"), "{}", report.text());
    assert!(line("requests in a day, app").contains("holds"));
    assert!(line("closed ").contains(" 0 |"), "a banned account stays out\n{}", report.text());
}

#[test]
fn names_that_several_accounts_have_are_not_guessed() {
    let error = simulate(&SCENARIO.replace("openai/main", "main"), Some(rows()), Overrides::default());
    let error = error.expect_err("two accounts are called `main`").to_string();
    assert!(error.contains("line 5") && error.contains("provider/name"), "{error}");
    let made = SCENARIO.replace("name = \"openai/main\"", "name = \"openai/main\"\npriority = 2");
    let error = simulate(&made, Some(rows()), Overrides::default()).expect_err("accounts are not made here");
    assert!(error.to_string().contains("over a configuration"), "{error}");
}
