//! What vendors leave of their quotas: `/api/usage/quota`.

use std::borrow::Cow;

use omniroute_domain::entity::{Connection, TestStatus};
use omniroute_domain::limiter::GateView;
use omniroute_domain::plan::PlanStanding;
use omniroute_domain::snapshot::ConnectionState;
use omniroute_provider::quota_api::{Amount, ToldQuota};
use omniroute_store::{ConnectionFilter, QuotaSnapshot};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::connection_keys::{KeyName, states};
use super::connections;
use super::resilience::named;
use crate::auth::Management;
use crate::endpoint::{Filter, Json};
use crate::error::{AdminResult, invalid_field};
use crate::text::iso;

/// With this share left or less an account is asked after others.
const LOW: f64 = 0.10;
/// Most snapshots of an answer.
const MAX_HISTORY: u32 = 1_000;

#[derive(Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
pub(crate) struct QuotaQuery {
    /// Only accounts of this provider: id, alias or prefix.
    provider: Option<String>,
    /// Only this account.
    connection_id: Option<String>,
    /// So many of the latest snapshots too, 0 to 1000; 0 where nothing is said.
    history: Option<u32>,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct Quotas {
    /// By account.
    providers: Vec<AccountQuota>,
    /// Newest first.
    #[serde(skip_serializing_if = "Option::is_none")]
    history: Option<Vec<SnapshotView>>,
    meta: QuotaMeta,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct QuotaMeta {
    generated_at: String,
    filters: QuotaFilters,
    total_providers: usize,
}

/// What was asked for.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct QuotaFilters {
    provider: Option<String>,
    connection_id: Option<String>,
}

/// What is left for an account. What the vendor did not say is null.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AccountQuota {
    name: String,
    provider: String,
    connection_id: String,
    /// Of the scarcest limit of which the total is known.
    #[schema(value_type = Option<f64>)]
    quota_used: Option<Figure>,
    #[schema(value_type = Option<f64>)]
    quota_total: Option<Figure>,
    percent_remaining: Option<f64>,
    /// When there is more; where the provider says that nothing is left and not until when, when it is asked again at the latest.
    reset_at: Option<String>,
    /// The state of its credential: `unknown` (not tried), `active`, `error`, `unavailable`, `expired`, `banned`, `credits_exhausted`.
    token_status: &'static str,
    /// Whether nothing is left of a limit, or the vendor refused for that.
    is_exhausted: bool,
    /// Whether it is asked after others for having little left.
    is_low: bool,
    /// Every limit that counts: those that the vendor told, by model, those of the account's plan, and what the vendor said
    /// when it was asked.
    windows: Vec<WindowView>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct WindowView {
    /// `headers` of the vendor's answers, `plan`: what the operator set, counted here, or `provider`: what it said when it was
    /// asked.
    source: &'static str,
    /// Null for what holds for all models of the account.
    model: Option<String>,
    /// Which of the account's keys it is of, where it has several.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<KeyName>,
    /// Of a plan: `5h`, `daily`, …; of the provider: `balance`, `credits`, `key`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    window: Option<String>,
    /// `requests`, `tokens` (of prompts; of a plan all of them) or `output`; of the provider also `usd`, `cny`, `credits`, `points`.
    limit: Cow<'static, str>,
    #[schema(value_type = Option<f64>)]
    total: Option<Figure>,
    /// Null where nothing limits it.
    #[schema(value_type = Option<f64>)]
    remaining: Option<Figure>,
    percent_remaining: Option<f64>,
    /// Null where it begins with the next request, and where nobody knows.
    reset_at: Option<String>,
}

/// What was left at a time.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SnapshotView {
    provider: String,
    connection_id: String,
    /// A model and one of its limits, `plan:` and the name of a window, `provider:` and what the provider calls it, or `account`;
    /// of one of several keys with `#` and what tells it from the others behind that.
    window: String,
    /// Null where nobody knows how much there is in all.
    percent_remaining: Option<f64>,
    /// What is left, where the provider was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<f64>)]
    remaining: Option<Figure>,
    /// In what that is counted: `usd`, `cny`, `credits`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    unit: Option<String>,
    is_exhausted: bool,
    reset_at: Option<String>,
    at: String,
}

pub(crate) async fn list(access: Management, Filter(query): Filter<QuotaQuery>) -> AdminResult<Json<Quotas>> {
    let admin = &access.admin;
    if query.history.is_some_and(|most| most > MAX_HISTORY) {
        return Err(invalid_field("history", format!("must be 0 to {MAX_HISTORY}")));
    }
    let wanted = named(admin, query.provider.as_deref()).await?;
    let is_wanted = |row: &Connection| {
        wanted.as_ref().is_none_or(|wanted| *wanted == row.provider)
            && query.connection_id.as_ref().is_none_or(|id| id == row.id.as_str())
    };
    let rows = connections::all(admin, &ConnectionFilter::default()).await?;
    let snapshot = admin.live.load().clone();
    let accounts: Vec<_> = rows
        .iter()
        .filter(|row| is_wanted(row))
        .map(|row| account(row, snapshot.connection(&row.id).map(|state| &**state), access.now_ms))
        .collect();
    let history = match query.history.filter(|most| *most > 0) {
        None => None,
        Some(most) => {
            let rows = admin.store.quota_snapshots().list(query.connection_id.as_deref(), most).await?;
            let of_provider =
                |row: &QuotaSnapshot| wanted.as_ref().is_none_or(|wanted| wanted.as_str() == row.provider);
            Some(rows.into_iter().filter(of_provider).map(snapshot_view).collect())
        }
    };
    let meta = QuotaMeta {
        generated_at: iso(access.now_ms),
        filters: QuotaFilters { provider: query.provider, connection_id: query.connection_id },
        total_providers: accounts.len(),
    };
    Ok(Json(Quotas { providers: accounts, history, meta }))
}

/// A limit of an account, as `/api/usage/{id}` shows it.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Quota {
    /// The model and the limit, the window of the plan and the limit, or what the provider calls it.
    name: String,
    /// Which of the account's keys it is of, where it has several.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<KeyName>,
    #[schema(value_type = Option<f64>)]
    used: Option<Figure>,
    #[schema(value_type = Option<f64>)]
    total: Option<Figure>,
    #[schema(value_type = Option<f64>)]
    remaining: Option<Figure>,
    remaining_pct: Option<f64>,
    /// `requests`, `tokens`, `usd`, `cny`, `credits` or `points`.
    unit: Cow<'static, str>,
    reset_at: Option<String>,
    /// `provider`, `headers` or `local`.
    source: &'static str,
}

/// Every limit of an account that counts, first those that the vendor names when it is asked.
pub(super) fn of_account(state: &ConnectionState, now_ms: i64) -> Vec<Quota> {
    let quota = |window: Window| Quota {
        used: window.used(),
        key: window.key,
        unit: if window.limit == "output" { "tokens".into() } else { window.limit.clone() },
        source: if window.source == "plan" { "local" } else { window.source },
        name: match (window.source, window.model.or(window.name).unwrap_or_default()) {
            (ASKED, name) => name,
            (_, name) => format!("{name}:{}", window.limit),
        },
        total: window.total,
        remaining: window.remaining,
        remaining_pct: window.share.map(percent),
        reset_at: window.until.map(iso),
    };
    let (asked, others): (Vec<_>, Vec<_>) =
        windows(state, now_ms).into_iter().partition(|window| window.source == ASKED);
    asked.into_iter().chain(others).map(quota).collect()
}

/// The limits of an account that count: those that the vendor told, those of its plan, and what the vendor said when asked.
fn windows(state: &ConnectionState, now_ms: i64) -> Vec<Window> {
    let mut told: Vec<Vec<Window>> = states(state).map(|state| told_of(state, now_ms)).collect();
    // The first are those of the account, which has none where it has several keys. Of those the one decides that has most left.
    let share = |windows: &Vec<Window>| {
        windows.iter().filter_map(|window| window.share).min_by(f64::total_cmp).unwrap_or(1.0)
    };
    let most = told.iter().skip(1).map(share).max_by(f64::total_cmp);
    let best = told.iter().skip(1).position(|windows| Some(share(windows)) == most);
    for (place, windows) in told.iter_mut().skip(1).enumerate() {
        windows.iter_mut().for_each(|window| window.decides = Some(place) == best);
    }
    let own = state.health.plan.standings(&state.plan, now_ms);
    let asked = state.health.vendor.view().reading;
    let asked = asked.iter().flat_map(|reading| &reading.quotas).map(Window::of_vendor);
    told.into_iter().flatten().chain(own.into_iter().map(Window::of_plan)).chain(asked).collect()
}

/// What the headers said of an account, or of one of its keys.
fn told_of(state: &ConnectionState, now_ms: i64) -> Vec<Window> {
    let GateView { learned, .. } = state.health.gate.view(now_ms);
    let told = learned.iter().flat_map(|(model, learned)| {
        learned.windows(now_ms).map(move |(limit, window)| Window {
            source: "headers",
            model: Some(model.clone()),
            key: KeyName::of_state(state),
            decides: true,
            name: None,
            limit: limit.into(),
            used: None,
            total: window.limit.map(Figure::Whole),
            remaining: Some(Figure::Whole(window.remaining)),
            share: window.share(),
            until: Some(window.until),
        })
    });
    told.collect()
}

fn account(row: &Connection, state: Option<&ConnectionState>, now_ms: i64) -> AccountQuota {
    let windows = state.map(|state| windows(state, now_ms)).unwrap_or_default();
    let deciding = windows.iter().filter(|window| window.decides);
    let scarcest =
        deciding.filter_map(|window| Some((window, window.share?))).min_by(|a, b| a.1.total_cmp(&b.1));
    let held_until = state.and_then(|state| state.health.vendor.spent_until(now_ms));
    AccountQuota {
        name: row.name.clone(),
        provider: row.provider.to_string(),
        connection_id: row.id.to_string(),
        quota_used: scarcest
            .filter(|(window, _)| window.total.is_some())
            .and_then(|(window, _)| window.used()),
        quota_total: scarcest.and_then(|(window, _)| window.total),
        percent_remaining: scarcest.map(|(_, share)| percent(share)),
        reset_at: held_until.or(scarcest.and_then(|(window, _)| window.until)).map(iso),
        token_status: row.status.test_status.as_str(),
        is_exhausted: scarcest.is_some_and(|(_, share)| share <= 0.0)
            || held_until.is_some()
            || row.status.test_status == TestStatus::CreditsExhausted,
        is_low: scarcest.is_some_and(|(_, share)| share <= LOW)
            || held_until.is_some()
            || state.is_some_and(|state| state.health.vendor.is_low(now_ms)),
        windows: windows.into_iter().map(window_view).collect(),
    }
}

/// A count, or an amount of money.
#[derive(Serialize, Clone, Copy, Debug, PartialEq)]
#[serde(untagged)]
pub(crate) enum Figure {
    Whole(u64),
    Decimal(f64),
}

impl Figure {
    fn of(amount: Amount) -> Self {
        amount.to_whole().map_or_else(|| Self::Decimal(amount.to_f64()), Self::Whole)
    }
}

/// Where a window comes from a vendor that was asked.
const ASKED: &str = "provider";

/// A limit, whoever knows of it.
struct Window {
    source: &'static str,
    model: Option<String>,
    /// Of which of several keys.
    key: Option<KeyName>,
    /// Whether it counts for the account: of several keys only those of the one that has most left do.
    decides: bool,
    name: Option<String>,
    limit: Cow<'static, str>,
    /// Where the vendor says so; else what is missing of the total.
    used: Option<Figure>,
    total: Option<Figure>,
    remaining: Option<Figure>,
    share: Option<f64>,
    until: Option<i64>,
}

impl Window {
    fn of_plan(standing: PlanStanding) -> Self {
        let PlanStanding { name, limit, total, used, until } = standing;
        let remaining = total.saturating_sub(used);
        #[allow(clippy::cast_precision_loss, reason = "a share")]
        let share = Some(remaining as f64 / total.max(1) as f64);
        Self {
            source: "plan",
            model: None,
            key: None,
            decides: true,
            name: Some(name.to_string()),
            limit: limit.into(),
            used: None,
            total: Some(Figure::Whole(total)),
            remaining: Some(Figure::Whole(remaining)),
            share,
            until,
        }
    }

    fn of_vendor(told: &ToldQuota) -> Self {
        Self {
            source: ASKED,
            model: None,
            key: None,
            decides: true,
            name: Some(told.name.to_string()),
            limit: told.unit.clone(),
            used: told.used.map(Figure::of),
            total: told.total.map(Figure::of),
            remaining: told.remaining.map(Figure::of),
            share: told.share(),
            until: told.reset_at,
        }
    }

    fn used(&self) -> Option<Figure> {
        match (self.used, self.total, self.remaining) {
            (None, Some(Figure::Whole(total)), Some(Figure::Whole(remaining))) => {
                Some(Figure::Whole(total.saturating_sub(remaining)))
            }
            (used, ..) => used,
        }
    }
}

fn window_view(window: Window) -> WindowView {
    let Window { source, model, key, decides: _, name, limit, used: _, total, remaining, share, until } =
        window;
    let (percent_remaining, reset_at) = (share.map(percent), until.map(iso));
    WindowView { source, model, key, window: name, limit, total, remaining, percent_remaining, reset_at }
}

fn snapshot_view(row: QuotaSnapshot) -> SnapshotView {
    let told = row.told();
    let remaining = told.as_ref().and_then(|told| Amount::parse(told.remaining.as_deref()?));
    SnapshotView {
        provider: row.provider,
        connection_id: row.connection_id,
        window: row.window_key,
        percent_remaining: row.remaining_percentage.map(|percent| (percent * 10.0).round() / 10.0),
        remaining: remaining.map(Figure::of),
        unit: told.map(|told| told.unit),
        is_exhausted: row.is_exhausted,
        reset_at: row.next_reset_at.map(iso),
        at: iso(row.created_at),
    }
}

/// With one decimal.
fn percent(share: f64) -> f64 {
    (share * 1_000.0).round() / 10.0
}
