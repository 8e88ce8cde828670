//! A connection as it is shown.

use omniroute_domain::entity::{AuthType, Connection, ConnectionOptions, ConnectionStatus};
use secrecy::ExposeSecret;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::connection_keys::{self, KeyView};
use crate::state::Admin;
use crate::text::{iso, mask};

/// A connection as it is shown; credentials never are.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ConnectionView {
    id: String,
    provider: String,
    auth_type: &'static str,
    name: String,
    display_name: Option<String>,
    email: Option<String>,
    priority: i64,
    global_priority: Option<i64>,
    is_active: bool,
    default_model: Option<String>,
    group: Option<String>,
    tags: Vec<String>,
    /// `unknown`, `active`, `error`, `unavailable`, `expired`, `banned` or `credits_exhausted`.
    test_status: &'static str,
    last_tested: Option<String>,
    last_used_at: Option<String>,
    last_error: Option<String>,
    last_error_at: Option<String>,
    last_error_type: Option<String>,
    last_error_source: Option<String>,
    error_code: Option<i64>,
    backoff_level: i64,
    rate_limited_until: Option<String>,
    rate_limit_protection: bool,
    max_concurrent: Option<u32>,
    consecutive_use_count: i64,
    health_check_interval: Option<i64>,
    expires_at: Option<String>,
    #[schema(value_type = Object)]
    provider_specific_data: Value,
    has_api_key: bool,
    /// How many keys it has; several are used in turn.
    api_key_count: usize,
    /// Of several keys each with its own state; where none is left, the members of the connection tell of the one that is back
    /// first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    keys: Vec<KeyView>,
    has_access_token: bool,
    has_refresh_token: bool,
    masked_key: Option<String>,
    created_at: String,
    updated_at: String,
}

/// The connection as it is shown, with what traffic found out since it was stored.
pub(super) fn view(admin: &Admin, row: &Connection) -> ConnectionView {
    let now = admin.now_ms();
    let own = current_status(admin, row, now);
    let status = match connection_keys::none_is_left(admin, row, now) {
        Some(status) => ConnectionStatus {
            last_tested: own.last_tested,
            last_used_at: own.last_used_at.max(status.last_used_at),
            ..status
        },
        None => own,
    };
    let key = row.api_key.as_ref().map(ExposeSecret::expose_secret);
    ConnectionView {
        id: row.id.to_string(),
        provider: row.provider.to_string(),
        auth_type: match row.auth_type {
            AuthType::Apikey => "apikey",
            AuthType::Oauth => "oauth",
            AuthType::None => "none",
            AuthType::Aws => "aws",
            AuthType::Gcp => "gcp",
        },
        name: row.name.clone(),
        display_name: row.display_name.clone(),
        email: row.email.clone(),
        priority: row.priority,
        global_priority: row.global_priority,
        is_active: row.is_active,
        default_model: row.default_model.clone(),
        group: row.group.clone(),
        tags: row.tags.clone(),
        test_status: status.test_status.as_str(),
        last_tested: status.last_tested.map(iso),
        last_used_at: status.last_used_at.map(iso),
        last_error: status.last_error,
        last_error_at: status.last_error_at.map(iso),
        last_error_type: status.last_error_type,
        last_error_source: status.last_error_source,
        error_code: status.error_code,
        backoff_level: status.backoff_level,
        rate_limited_until: status.rate_limited_until.filter(|until| *until > now).map(iso),
        rate_limit_protection: row.rate_limit_protection,
        max_concurrent: row.max_concurrent,
        consecutive_use_count: in_row(admin, row),
        health_check_interval: row.health_check_interval,
        expires_at: row.expires_at.map(iso),
        provider_specific_data: shown_options(&row.options),
        has_api_key: key.is_some(),
        api_key_count: row.options.api_keys.with(row.api_key.as_ref()).len(),
        keys: connection_keys::views(admin, row, now),
        has_access_token: false,
        has_refresh_token: false,
        masked_key: key.map(mask),
        created_at: iso(row.created_at),
        updated_at: iso(row.updated_at),
    }
}

/// What is known of a connection now: the stored row, or memory where that is newer.
pub(super) fn current_status(admin: &Admin, row: &Connection, now_ms: i64) -> ConnectionStatus {
    let stored = row.status.clone();
    let snapshot = admin.live.load();
    let Some(state) = snapshot.connection(&row.id) else { return stored };
    let live = state.health.status(now_ms);
    let is_stored_newer = stored.last_tested > live.last_tested;
    let last_used_at = live.last_used_at.max(stored.last_used_at);
    ConnectionStatus { last_used_at, ..if is_stored_newer { stored } else { live } }
}

/// For how many requests in a row the account led those of its provider.
fn in_row(admin: &Admin, row: &Connection) -> i64 {
    let snapshot = admin.live.load();
    snapshot.provider(&row.provider).map_or(0, |provider| i64::from(provider.rotation.in_row(&row.id)))
}

/// Values of headers may be credentials: they are masked.
fn shown_options(options: &ConnectionOptions) -> Value {
    let mut shown = options.clone();
    for value in shown.extra_headers.values_mut() {
        *value = mask(value);
    }
    serde_json::to_value(&shown).unwrap_or_default()
}
