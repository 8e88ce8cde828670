//! The single keys of accounts that have several, as listings name them and as their account shows them.

use std::collections::BTreeMap;

use omniroute_domain::entity::{Connection, ConnectionId, ConnectionStatus, PoolKey};
use omniroute_domain::snapshot::ConnectionState;
use secrecy::ExposeSecret as _;
use serde::Serialize;
use utoipa::ToSchema;

use crate::state::Admin;
use crate::text::{iso, mask};

/// One of several keys of an account.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct KeyName {
    /// The account's id, `#`, and what tells the key from the others; stays when others are added or taken out.
    id: String,
    /// Its place among the account's keys, `apiKey` first, from 1 on.
    place: usize,
    masked_key: String,
}

/// One of several keys, and what is known of it.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct KeyView {
    #[serde(flatten)]
    #[schema(inline)]
    name: KeyName,
    /// As that of the connection.
    test_status: &'static str,
    last_used_at: Option<String>,
    last_error: Option<String>,
    last_error_at: Option<String>,
    last_error_type: Option<String>,
    error_code: Option<i64>,
    backoff_level: i64,
    rate_limited_until: Option<String>,
}

impl KeyName {
    pub(super) fn of(key: &PoolKey) -> Self {
        Self { id: key.state_id.to_string(), place: key.place, masked_key: mask(key.secret.expose_secret()) }
    }

    /// Which key a state is of, where it is one of several.
    pub(super) fn of_state(state: &ConnectionState) -> Option<Self> {
        state.key.as_ref().map(Self::of)
    }
}

/// The states of an account: its own, and those of its keys.
pub(super) fn states(account: &ConnectionState) -> impl Iterator<Item = &ConnectionState> {
    std::iter::once(account).chain(account.pool.iter().map(|key| &**key))
}

/// The keys of a connection that has several, with what is known of each now.
pub(super) fn views(admin: &Admin, row: &Connection, now_ms: i64) -> Vec<KeyView> {
    let statuses = statuses(admin, row, now_ms);
    let view = |key: PoolKey| {
        let status = statuses.get(&key.state_id).cloned().unwrap_or_default();
        KeyView {
            name: KeyName::of(&key),
            test_status: status.test_status.as_str(),
            last_used_at: status.last_used_at.map(iso),
            last_error: status.last_error,
            last_error_at: status.last_error_at.map(iso),
            last_error_type: status.last_error_type,
            error_code: status.error_code,
            backoff_level: status.backoff_level,
            rate_limited_until: status.rate_limited_until.filter(|until| *until > now_ms).map(iso),
        }
    };
    row.pool_keys().into_iter().map(view).collect()
}

/// What is known of a connection that gives nothing because none of its keys does: what is known of the key that is back first.
pub(super) fn none_is_left(admin: &Admin, row: &Connection, now_ms: i64) -> Option<ConnectionStatus> {
    let statuses = statuses(admin, row, now_ms);
    let end = |status: &ConnectionStatus| match status.test_status.is_terminal() {
        true => Some(i64::MAX),
        false => status.rate_limited_until.filter(|until| *until > now_ms),
    };
    let mut first: Option<(i64, ConnectionStatus)> = None;
    for key in row.pool_keys() {
        let status = statuses.get(&key.state_id)?;
        let end = end(status)?;
        if first.as_ref().is_none_or(|(earliest, _)| end < *earliest) {
            first = Some((end, status.clone()));
        }
    }
    first.map(|(_, status)| status)
}

/// By the ids of the keys' states: what is stored, or memory where the account is on and that is newer.
pub(super) fn statuses(
    admin: &Admin,
    row: &Connection,
    now_ms: i64,
) -> BTreeMap<ConnectionId, ConnectionStatus> {
    let mut statuses = row.key_statuses.clone();
    if let Some(state) = admin.live.load().connection(&row.id) {
        for key in &state.pool {
            let live = key.health.status(now_ms);
            let stored = statuses.get(key.state_id());
            if stored.is_none_or(|stored| stored.last_tested <= live.last_tested) {
                statuses.insert(key.state_id().clone(), live);
            }
        }
    }
    statuses
}
