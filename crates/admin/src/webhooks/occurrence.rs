//! What is told: notices in the words of the events.

use std::collections::HashSet;

use bytes::Bytes;
use omniroute_domain::budget::{Event, EventKind as BudgetKind};
use omniroute_domain::entity::ConnectionId;
use omniroute_domain::health::Hold;
use omniroute_domain::snapshot::ConnectionState;
use omniroute_domain::timeline::{EventKind, HealthEvent};
use omniroute_engine::Live;
use omniroute_engine::notices::Notice;
use omniroute_provider::FailureKind;
use serde::Serialize;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::text::{iso, usd};

/// The type of the message that an operator sends to see whether it arrives.
pub(crate) const TEST: &str = "webhook.test";

/// What an account is out for, and does not just pause.
const LASTING: [FailureKind; 3] = [FailureKind::QuotaSpent, FailureKind::AuthRejected, FailureKind::Banned];

/// Something to tell, with an id by which who gets it twice knows it again.
#[derive(Debug, Clone)]
pub(crate) struct Occurrence {
    pub(crate) id: String,
    pub(crate) kind: &'static str,
    pub(crate) at_ms: i64,
    pub(crate) data: Value,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Message<'a> {
    id: &'a str,
    r#type: &'a str,
    created_at: String,
    data: &'a Value,
}

impl Occurrence {
    pub(crate) fn new(kind: &'static str, at_ms: i64, data: Value) -> Self {
        Self { id: format!("evt_{}", Uuid::now_v7().simple()), kind, at_ms, data }
    }

    /// The body of the message.
    pub(crate) fn body(&self) -> Bytes {
        let message =
            Message { id: &self.id, r#type: self.kind, created_at: iso(self.at_ms), data: &self.data };
        // Texts and numbers only: nothing in it can fail to be written.
        serde_json::to_vec(&message).unwrap_or_default().into()
    }
}

/// What is known of accounts, so that each change is told once.
#[derive(Debug, Default)]
pub(super) struct Accounts {
    /// Those that are out; at most as many as there are accounts.
    out: HashSet<ConnectionId>,
}

impl Accounts {
    /// Those that are out when the process starts were told of by an earlier one.
    pub(super) fn at_start(live: &Live, now_ms: i64) -> Self {
        let snapshot = live.load();
        let ids = snapshot.connections().map(|connection| connection.id.clone());
        Self { out: ids.filter(|id| is_out(live, id, now_ms)).collect() }
    }

    /// What a notice says, if anybody is to be told.
    pub(super) fn read(&mut self, live: &Live, notice: Notice, now_ms: i64) -> Option<Occurrence> {
        match notice {
            Notice::Budget(event) => budget(live, &event),
            Notice::Health(event) if event.kind == EventKind::Breaker => breaker(&event),
            Notice::Health(event) => {
                let id = event.connection.clone()?;
                let is_lasting = LASTING.iter().any(|kind| kind.as_str() == event.cause);
                if event.kind == EventKind::Cooldown && !is_lasting {
                    return None;
                }
                // Of several keys one may be rejected: then the account is not out.
                if !is_out(live, &id, now_ms) || !self.out.insert(id.clone()) {
                    return None;
                }
                let data = account(live, &id, event.to, event.cause, event.until);
                Some(Occurrence::new("account.out", event.at, data))
            }
        }
    }

    /// Accounts that are back, whoever or whatever brought them back: a window that began anew, an answer, the operator.
    pub(super) fn back(&mut self, live: &Live, now_ms: i64) -> Vec<Occurrence> {
        let snapshot = live.load().clone();
        let is_back = |id: &&ConnectionId| !is_out(live, id, now_ms) && !is_unproven(live, id, now_ms);
        let back: Vec<_> = self.out.iter().filter(is_back).cloned().collect();
        for id in &back {
            self.out.remove(id);
        }
        // Of one that was deleted or switched off there is nothing to tell.
        let there = back.iter().filter(|id| snapshot.connection(id).is_some());
        there
            .map(|id| {
                Occurrence::new("account.back", now_ms, account(live, id, "available", "recovered", None))
            })
            .collect()
    }
}

/// Whether the key of an account, or each of its keys, was rejected the last time: the pause after that says nothing about the
/// key, only an answer does, or the operator.
fn is_unproven(live: &Live, id: &ConnectionId, now_ms: i64) -> bool {
    let snapshot = live.load();
    let Some(account) = snapshot.connection(id) else { return false };
    let is_rejected = |one: &ConnectionState| {
        one.health.status(now_ms).last_error_type.as_deref() == Some(FailureKind::AuthRejected.as_str())
    };
    is_rejected(account) || (!account.pool.is_empty() && account.pool.iter().all(|key| is_rejected(key)))
}

/// Whether an account as a whole gives nothing because its quota or its credits are used up or its key is rejected. A pause
/// after too many requests is none of these.
fn is_out(live: &Live, id: &ConnectionId, now_ms: i64) -> bool {
    let snapshot = live.load();
    let Some(connection) = snapshot.connection(id) else { return false };
    let Err(blocked) = connection.check_account("", now_ms) else { return false };
    blocked.hold == Hold::Connection && LASTING.contains(&blocked.reason)
}

fn account(live: &Live, id: &ConnectionId, state: &str, cause: &str, until: Option<i64>) -> Value {
    let snapshot = live.load();
    let connection = snapshot.connection(id);
    json!({
        "connectionId": id.as_str(),
        "connectionName": connection.map(|connection| connection.name.to_string()),
        "provider": connection.map(|connection| connection.provider.to_string()),
        "state": state,
        "cause": cause,
        "until": until.map(iso),
    })
}

fn breaker(event: &HealthEvent) -> Option<Occurrence> {
    let kind = match (event.from, event.to) {
        (_, "OPEN") => "breaker.opened",
        ("OPEN" | "HALF_OPEN", "CLOSED") => "breaker.closed",
        _ => return None,
    };
    let data = json!({
        "breaker": event.breaker.as_deref(),
        "provider": event.provider.as_str(),
        "from": event.from,
        "to": event.to,
        "cause": event.cause,
        "until": event.until.map(iso),
    });
    Some(Occurrence::new(kind, event.at, data))
}

fn budget(live: &Live, event: &Event) -> Option<Occurrence> {
    let (kind, spent, limit) = match event.kind {
        BudgetKind::Warning { spent_nano, limit_nano } => ("budget.warning", spent_nano, limit_nano),
        BudgetKind::Exceeded { spent_nano, limit_nano } => ("budget.exceeded", spent_nano, limit_nano),
        BudgetKind::Reset { .. } => return None,
    };
    let snapshot = live.load();
    let caller = event.key.as_ref().and_then(|key| snapshot.caller_by_id(key));
    let data = json!({
        "scope": if event.key.is_some() { "key" } else { "all" },
        "apiKeyId": event.key.as_ref().map(|key| key.as_str()),
        "apiKeyName": caller.map(|caller| caller.name.to_string()),
        "window": event.window.as_str(),
        "spentUsd": usd(spent),
        "limitUsd": usd(limit),
    });
    Some(Occurrence::new(kind, event.at_ms, data))
}
