//! Breakers as people see them.

use omniroute_domain::breaker::{Breaker, BreakerState};
use serde::Serialize;
use utoipa::ToSchema;

use crate::state::Admin;
use crate::text::iso;

/// A provider's breaker.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct BreakerView {
    /// The provider's id; with the address behind `@` where a connection has its own.
    name: String,
    pub(crate) provider: String,
    /// `CLOSED`, `DEGRADED`, `OPEN` or `HALF_OPEN`.
    pub(crate) state: &'static str,
    pub(crate) failure_count: u32,
    pub(crate) last_failure_time: Option<String>,
    /// The one model that requests are held back for, where it is shut for that alone.
    pub(crate) model: Option<String>,
    /// Class of the last failure that counted.
    cause: Option<&'static str>,
    /// End of the pause while it is open.
    open_until: Option<String>,
    /// The same from now on; 0 while requests are let through.
    pub(crate) retry_after_ms: i64,
    /// Probes that failed in a row.
    failed_probes: u32,
}

/// The breakers that are asked, by name.
pub(in super::super) fn breakers(admin: &Admin, now_ms: i64) -> Vec<BreakerView> {
    admin.live.load().breakers().into_iter().map(|breaker| view(breaker, now_ms)).collect()
}

fn view(breaker: &Breaker, now_ms: i64) -> BreakerView {
    let record = breaker.record(now_ms);
    let until = record.open_until.filter(|_| record.state == BreakerState::Open);
    BreakerView {
        name: record.name.to_string(),
        provider: breaker.provider.to_string(),
        state: record.state.as_str(),
        failure_count: record.failure_count,
        last_failure_time: record.last_failure.map(iso),
        model: record.model.map(|model| model.to_string()),
        cause: record.cause.map(|cause| cause.as_str()),
        open_until: until.map(iso),
        retry_after_ms: until.map_or(0, |until| (until - now_ms).max(0)),
        failed_probes: record.failed_probes,
    }
}
