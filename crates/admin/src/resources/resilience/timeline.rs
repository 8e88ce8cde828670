//! What changed of late: `/api/resilience/timeline`.

use omniroute_domain::timeline::HealthEvent;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::named;
use crate::auth::Management;
use crate::endpoint::{Filter, Json};
use crate::error::{AdminResult, invalid_field};
use crate::text::{iso, parse_iso};
use crate::validation::Problems;

/// Kinds of events.
const KINDS: [&str; 4] = ["breaker", "cooldown", "lock", "quota"];

#[derive(Deserialize, IntoParams)]
pub(crate) struct TimelineQuery {
    /// Most events, 1 to 2000; 200 where nothing is said. The latest are told.
    limit: Option<u32>,
    /// Only those of this provider: id, alias or prefix.
    provider: Option<String>,
    /// `breaker`, `cooldown`, `lock` or `quota`.
    kind: Option<String>,
    /// Only those from then on (RFC 3339).
    since: Option<String>,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct Timeline {
    /// Oldest first.
    events: Vec<EventView>,
}

/// A change of the state of a provider, an account, or a model on one.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct EventView {
    at: String,
    kind: &'static str,
    provider: String,
    breaker: Option<String>,
    connection_id: Option<String>,
    /// The id of the key, where the account has several (`keys` of the connection).
    #[serde(skip_serializing_if = "Option::is_none")]
    key_id: Option<String>,
    model: Option<String>,
    from: &'static str,
    to: &'static str,
    /// A class of failure, `probe`, `answered`, `operator` or `headers`.
    cause: &'static str,
    /// When it ends by itself.
    until: Option<String>,
}

pub(crate) async fn timeline(
    access: Management,
    Filter(query): Filter<TimelineQuery>,
) -> AdminResult<Json<Timeline>> {
    let mut problems = Problems::default();
    problems.range("limit", query.limit, &(1..=2_000));
    if query.kind.as_deref().is_some_and(|kind| !KINDS.contains(&kind)) {
        problems.add("kind", format!("must be one of {}", KINDS.join(", ")));
    }
    problems.done()?;
    let since = match query.since.as_deref() {
        Some(text) => parse_iso(text).ok_or_else(|| invalid_field("since", "must be RFC 3339"))?,
        None => i64::MIN,
    };
    let provider = named(&access.admin, query.provider.as_deref()).await?;
    let is_wanted = |event: &HealthEvent| {
        event.at >= since
            && provider.as_ref().is_none_or(|provider| event.provider == *provider)
            && query.kind.as_ref().is_none_or(|kind| *kind == event.kind.as_str())
    };
    let most = usize::try_from(query.limit.unwrap_or(200)).unwrap_or(usize::MAX);
    let events = access.admin.live.health.timeline.latest(most, is_wanted);
    Ok(Json(Timeline { events: events.into_iter().map(view).collect() }))
}

fn view(event: HealthEvent) -> EventView {
    EventView {
        at: iso(event.at),
        kind: event.kind.as_str(),
        provider: event.provider.to_string(),
        breaker: event.breaker.map(|name| name.to_string()),
        connection_id: event.connection.map(|id| id.to_string()),
        key_id: event.key.map(|id| id.to_string()),
        model: event.model,
        from: event.from,
        to: event.to,
        cause: event.cause,
        until: event.until.map(iso),
    }
}
