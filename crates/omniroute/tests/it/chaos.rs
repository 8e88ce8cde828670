//! `omniroute chaos` as people run it: over nothing, over the configuration of a running gateway, and with mistakes.

use std::path::Path;
use std::process::{Command, Output};

use crate::gateway::PROGRAM;
use crate::world::{UPSTREAM_KEY, World};

fn chaos(arguments: &[&str]) -> Output {
    Command::new(PROGRAM).arg("chaos").args(arguments).env_clear().output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn scenario(folder: &Path, text: &str) -> String {
    let file = folder.join("scenario.toml");
    std::fs::write(&file, text).unwrap();
    file.to_str().unwrap().to_owned()
}

const OVER_A_CONFIGURATION: &str = r#"
title = "Theirs"
requests = 200
[[account]]
name = "first"
upstream = { latency = { p50 = 10, p99 = 20 } }
[[traffic]]
model = "up/m"
[[phase]]
name = "calm"
seconds = 60
rate = 10
[expect]
availability = 1.0
"#;

#[test]
fn a_scenario_of_its_own_is_played_and_what_does_not_hold_is_its_end() {
    let first = concat!(env!("CARGO_MANIFEST_DIR"), "/../../scenarios/first.toml");
    let played = chaos(&[first, "--requests", "200", "--seed", "3"]);
    let out = text(&played.stdout);
    assert!(played.status.success(), "{out}{}", text(&played.stderr));
    assert!(
        out.contains("200 requests") && out.contains("seed 3") && out.contains("what must hold"),
        "{out}"
    );

    let folder = tempfile::tempdir().unwrap();
    let hard = std::fs::read_to_string(first)
        .unwrap()
        .replace("availability = 1.0", "p99_wait_ms = 0\nattempts = 0.5");
    let played = chaos(&[&scenario(folder.path(), &hard)]);
    assert_eq!(played.status.code(), Some(1));
    let said = text(&played.stderr);
    assert!(said.contains("calls per request, all") && said.contains("at most 0.500"), "{said}");

    let wrong =
        std::fs::read_to_string(first).unwrap().replace("provider = \"openai\"", "provider = \"nobody\"");
    let played = chaos(&[&scenario(folder.path(), &wrong)]);
    assert_eq!(played.status.code(), Some(1));
    let said = text(&played.stderr);
    assert!(said.contains("scenario.toml: line 8: `nobody` is no provider"), "{said}");
    assert!(text(&chaos(&["nowhere.toml"]).stderr).contains("nowhere.toml"));
}

#[tokio::test]
async fn the_configuration_of_a_running_gateway_is_read_and_left_alone() {
    let world = World::start().await;
    let folder = tempfile::tempdir().unwrap();
    let file = scenario(folder.path(), OVER_A_CONFIGURATION);
    let data_dir = world.gateway.data_dir.to_str().unwrap().to_owned();
    let before = world.gateway.manage("GET", "/api/providers", &serde_json::Value::Null).await.json();
    let played = tokio::task::spawn_blocking(move || chaos(&[&file, "--data-dir", &data_dir])).await.unwrap();
    let (out, said) = (text(&played.stdout), text(&played.stderr));
    assert!(played.status.success(), "{out}{said}");
    let account = out.lines().find(|line| line.starts_with("| first ")).unwrap_or_else(|| panic!("{out}"));
    assert!(account.contains(" 200 |"), "{out}");
    assert_eq!(said, "");
    assert!(!out.contains(UPSTREAM_KEY));
    let after = world.gateway.manage("GET", "/api/providers", &serde_json::Value::Null).await.json();
    assert_eq!(after, before);
    assert!(world.upstream.requests().is_empty(), "nothing was sent");

    let empty = folder.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    let refused = chaos(&[
        folder.path().join("scenario.toml").to_str().unwrap(),
        "--data-dir",
        empty.to_str().unwrap(),
    ]);
    assert!(text(&refused.stderr).contains("there is no storage.sqlite in it"), "{}", text(&refused.stderr));
    assert_eq!(std::fs::read_dir(&empty).unwrap().count(), 0);
}
