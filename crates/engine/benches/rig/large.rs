//! The configuration of a large installation: twenty endpoints with ten accounts each, fifty combos, a thousand keys.

use omniroute_domain::entity::{ApiKeyId, Combo, Entities, KeyHash, Step};
use omniroute_provider::ProviderId;

use super::{connection, key, limit_money, node};

const ENDPOINTS: usize = 20;
const ACCOUNTS: usize = 10;
const COMBOS: usize = 50;
const STEPS: usize = 8;
const KEYS: usize = 1_000;

/// What a client asks for: a combo that has to look at what its steps have done.
pub const MODEL: &str = "combo-25";

/// Its rows. The key of every request of the rig is the last of them.
pub fn entities() -> Entities {
    let mut rows = Entities { revision: 1, ..Entities::default() };
    rows.settings.fallback_strategy = "round-robin".into();
    for endpoint in 0..ENDPOINTS {
        let mut node = node();
        node.id = ProviderId::from(format!("openai-compatible-chat-{endpoint}"));
        node.prefix = format!("up{endpoint}");
        for account in 0..ACCOUNTS {
            rows.connections.push(connection(&node.id, &format!("account-{endpoint}-{account}")));
        }
        limit_money(&mut rows, &node.id);
        rows.nodes.push(node);
    }
    rows.combos = (0..COMBOS).map(combo).collect();
    for place in 1..KEYS {
        let mut key = key();
        key.id = ApiKeyId::from(format!("0199f0a0-0000-7000-8000-{place:012}"));
        key.hash = KeyHash::of(&format!("sk-omni-{place}"));
        rows.api_keys.push(key);
    }
    rows.api_keys.push(key());
    rows
}

fn combo(place: usize) -> Combo {
    const STRATEGIES: [&str; 5] = ["priority", "weighted", "round-robin", "p2c", "random"];
    let strategy = if place == 25 { "least-used" } else { STRATEGIES[place % STRATEGIES.len()] };
    let step = |at: usize| Step {
        weight: 1,
        ..Step::to_model(format!("s{at}"), format!("up{}/m", (place + at) % ENDPOINTS))
    };
    Combo::new(format!("c{place}"), format!("combo-{place}"), strategy, (0..STEPS).map(step).collect(), 0)
}
