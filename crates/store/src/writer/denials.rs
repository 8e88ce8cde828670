//! Requests that a policy refused, on their way to the audit log. A client that keeps asking is told of once in a minute.

use std::collections::{BTreeMap, HashSet};

use foldhash::fast::RandomState;
use omniroute_domain::entity::ApiKeyId;
use omniroute_engine::ports::RequestRow;

use crate::audit::AuditEvent;
use crate::text::{clip, to_json};

/// Most refusals of one minute that are told. All of them are in the request log.
const MOST: usize = 256;
const MINUTE_MS: i64 = 60_000;
/// Longest reason.
const MAX_REASON: usize = 500;

/// What was told in the running minute.
#[derive(Debug, Default)]
pub(crate) struct Denials {
    minute: i64,
    told: HashSet<(Option<ApiKeyId>, String), RandomState>,
}

impl Denials {
    /// The event of a row, if a policy refused it and the same was not told in its minute.
    pub(crate) fn event(&mut self, row: &RequestRow) -> Option<AuditEvent> {
        if row.error_code.as_deref() != Some("policy_denied") {
            return None;
        }
        let timestamp = row.id.timestamp_ms();
        let minute = timestamp.div_euclid(MINUTE_MS);
        if minute > self.minute {
            self.minute = minute;
            self.told.clear();
        }
        let reason = clip(row.error.as_deref().unwrap_or_default(), MAX_REASON);
        if self.told.len() >= MOST || !self.told.insert((row.api_key.clone(), reason.clone())) {
            return None;
        }
        let details = BTreeMap::from([("note", reason.as_str()), ("model", &row.requested_model)]);
        Some(AuditEvent {
            timestamp,
            action: "policy.denied".to_owned(),
            actor: row
                .api_key_name
                .as_ref()
                .map_or_else(|| "anonymous".to_owned(), |name| format!("key:{name}")),
            target: row.api_key.as_ref().map(|key| key.as_str().to_owned()),
            resource_type: Some("policy".to_owned()),
            status: "failure".to_owned(),
            details: to_json(&details).ok(),
            ip_address: None,
            request_id: Some(row.request_id.to_string()),
        })
    }
}
