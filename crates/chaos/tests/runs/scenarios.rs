//! The scenarios that are shipped, and what a run promises of itself.

use std::path::PathBuf;

use omniroute_chaos::{Overrides, Report, simulate};

fn shipped(name: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../scenarios").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn run(text: &str, requests: u64, seed: u64) -> Report {
    let overrides = Overrides { requests: Some(requests), seed: Some(seed) };
    simulate(text, None, overrides).unwrap_or_else(|error| panic!("{error}"))
}

fn check(name: &str, requests: u64) {
    let report = run(&shipped(name), requests, 1);
    let violated = report.violated();
    assert!(violated.is_empty(), "{violated:#?}\n{}", report.text());
}

#[test]
fn storms_outages_and_quotas() {
    check("storm.toml", 20_000);
}

/// As it is told in `docs/resilience.md`: `cargo test --release -p omniroute-chaos --test runs million -- --ignored --nocapture`.
#[test]
#[ignore = "takes minutes, and an optimised build"]
#[allow(clippy::print_stdout, reason = "its table is what it is run for")]
fn a_million_requests() {
    let report = run(&shipped("storm.toml"), 1_000_000, 1);
    println!("{}", report.text());
    assert!(report.violated().is_empty(), "{:#?}", report.violated());
}

#[test]
fn the_smallest_scenario() {
    check("first.toml", 2_000);
}

#[test]
fn keys_with_limits_share_slow_accounts() {
    check("crowd.toml", 10_000);
}

#[test]
fn every_shipped_scenario_has_a_test() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../scenarios");
    let mut names: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["crowd.toml", "first.toml", "storm.toml"]);
}

#[test]
fn the_same_seed_gives_the_same_report_to_the_byte() {
    let text = shipped("storm.toml");
    let first = run(&text, 4_000, 7);
    assert_eq!(first.text(), run(&text, 4_000, 7).text());
    assert_ne!(first.text(), run(&text, 4_000, 8).text());
}

const RELAYED: &str = r#"
title = "Conversations at accounts that are used up now and then"
[[account]]
name = "one"
provider = "groq"
upstream = { rate = { per_minute = 600, headers = true } }
[[account]]
name = "two"
provider = "groq"
upstream = { rate = { per_minute = 600, headers = true } }
[[combo]]
name = "talk"
strategy = "context-relay"
steps = ["groq/openai/gpt-oss-120b"]
[[key]]
name = "team"
[[traffic]]
model = "talk"
key = "team"
conversations = 50
[[phase]]
name = "more than one account takes"
seconds = 600
rate = 12
"#;

/// Summaries are nobody's request, but they are paid for, and leave nothing behind.
#[test]
fn conversations_that_are_handed_over_break_no_promise() {
    let report = run(RELAYED, 5_000, 3);
    assert!(report.violated().is_empty(), "{:#?}", report.violated());
    assert!(report.text().contains(" calls more summed conversations up."), "{}", report.text());
}

const ONE_ACCOUNT: &str = r#"
title = "One account that is down"
[[account]]
name = "only"
provider = "openai"
[[traffic]]
model = "openai/gpt-5.4-mini"
[[phase]]
name = "down"
seconds = 60
rate = 5
fault = [{ accounts = ["only"], kind = "outage" }]
"#;

#[test]
fn what_does_not_hold_is_named() {
    let text = format!("{ONE_ACCOUNT}[expect]\navailability = 0.5\navoidable = 0.0\n");
    let report = run(&text, 100, 1);
    let violated: Vec<&str> = report.violated().iter().map(|verdict| verdict.what.as_str()).collect();
    assert_eq!(violated, ["answered, all"], "{}", report.text());
    assert!(report.text().contains("VIOLATED"));
}

#[test]
fn an_error_is_avoidable_only_while_somebody_would_have_served() {
    // The second account is well all the time, but the first one's model leads nowhere else.
    let text = ONE_ACCOUNT.replace(
        "[[traffic]]",
        "[[account]]\nname = \"spare\"\nprovider = \"openai\"\nexcluded_models = [\"gpt-5.4-mini\"]\n[[traffic]]",
    );
    let report = run(&(text + "[expect]\navoidable = 0.0\n"), 100, 1);
    assert!(report.violated().is_empty(), "{}", report.text());
}
