//! A gateway of many: two hundred accounts, a thousand keys and prices; with fifty combos and budgets, or without either.
//! The simulator answers under every name, so that the same requests can be compared with those through a gateway of one
//! account, and what combos and budgets cost with a gateway that differs in nothing else.

use std::net::SocketAddr;

use anyhow::{Context as _, Result};
use serde_json::{Map, Value, json};

use super::gateway::{Gateway, PLENTY};

const ENDPOINTS: usize = 20;
const ACCOUNTS: usize = 10;
const COMBOS: usize = 50;
const STEPS: usize = 8;
const KEYS: usize = 1_000;
/// What the scenarios ask for; here they are combos.
const ASKED: [&str; 2] = ["bench-size-1k", "bench-chunks-100"];
const STRATEGIES: [&str; 5] = ["priority", "weighted", "round-robin", "p2c", "random"];

/// The prefixes of the endpoints that the combos which are asked for lead to.
pub(super) fn asked_endpoints() -> impl Iterator<Item = String> {
    (0..STEPS).map(prefix)
}

/// Fills an empty gateway over its management API, with combos and budgets where it is `steered`; the key to ask with.
pub(super) async fn set_up(gateway: &Gateway, simulator: SocketAddr, steered: bool) -> Result<String> {
    let mut prices = Map::new();
    for endpoint in 0..ENDPOINTS {
        let prefix = prefix(endpoint);
        let node = gateway.add_node(&prefix, simulator).await?;
        for account in 0..ACCOUNTS {
            gateway.add_account(&node, &format!("account-{endpoint}-{account}")).await?;
        }
        prices.insert(prefix, json!({"*": {"input": 0.5, "output": 1.5}}));
    }
    gateway.manage("PATCH", "/api/pricing", &Value::Object(prices)).await?;
    for place in 0..if steered { COMBOS } else { 0 } {
        gateway.manage("POST", "/api/combos", &combo(place)).await?;
    }
    let mut last = None;
    for place in 0..KEYS {
        last = Some(gateway.add_key(&format!("bench-{place}")).await?);
    }
    let (id, key) = last.context("a gateway of many has keys")?;
    for whose in [&*id, "*"].into_iter().filter(|_| steered) {
        let budget = json!({"apiKeyId": whose, "dailyLimitUsd": PLENTY, "monthlyLimitUsd": PLENTY});
        gateway.manage("POST", "/api/usage/budget", &budget).await?;
    }
    Ok(key)
}

fn prefix(endpoint: usize) -> String {
    format!("bench{endpoint}")
}

/// The combos that are asked for look at what each of their steps has done, and lead to the [asked endpoints](asked_endpoints);
/// the others are there to be many.
fn combo(place: usize) -> Value {
    let (name, model, strategy, first) = match ASKED.get(place) {
        Some(asked) => ((*asked).to_owned(), *asked, "least-used", 0),
        None => (format!("combo-{place}"), ASKED[0], STRATEGIES[place % STRATEGIES.len()], place),
    };
    let models = (first..first + STEPS).map(|step| format!("{}/{model}", prefix(step % ENDPOINTS)));
    json!({"name": name, "strategy": strategy, "models": models.collect::<Vec<_>>()})
}
