//! What keys, or everybody together, may spend: `/api/usage/budget`.

use omniroute_domain::budget::{Budgets, Standing, Window, dollars};
use omniroute_domain::entity::{ApiKey, ApiKeyId, Budget, Interval, OnExceeded};
use omniroute_domain::snapshot::Snapshot;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{Done, present};
use crate::auth::Management;
use crate::endpoint::{Body, Filter, Json};
use crate::error::{AdminResult, invalid_field, not_found};
use crate::state::Admin;
use crate::text::{iso, usd};
use crate::validation::Problems;

/// The id of the budget of everybody together.
const EVERYBODY: &str = "*";
/// Most keys of a list.
const MAX_KEYS: u32 = 10_000;
/// No limit is higher, in USD.
const MOST: f64 = 1_000_000_000.0;

/// A budget. A limit that is null is none.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct BudgetView {
    /// Id of a key; `*` is everybody together.
    api_key_id: String,
    daily_limit_usd: Option<f64>,
    weekly_limit_usd: Option<f64>,
    monthly_limit_usd: Option<f64>,
    total_limit_usd: Option<f64>,
    warning_threshold: f64,
    reset_interval: &'static str,
    reset_time: String,
    hard_stop: bool,
    block_unpriced: bool,
    /// What becomes of requests over a limit: `block`, `free-only`, or `downgrade:` and the name of a combo.
    on_exceeded: String,
}

/// How a key stands.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct BudgetStatus {
    api_key_id: String,
    key_name: String,
    /// USD since the day began, and so on.
    daily_total: f64,
    weekly_total: f64,
    monthly_total: f64,
    all_time_total: f64,
    total_cost_today: f64,
    total_cost_month: f64,
    /// USD in the window of `resetInterval`.
    total_cost_period: f64,
    /// What running requests hold, in USD.
    held: f64,
    /// Bills so far.
    total_entries: i64,
    budget: Option<BudgetView>,
    /// The limit of the window of `resetInterval`; 0 = none.
    active_limit_usd: f64,
    reset_interval: &'static str,
    reset_time: String,
    /// Epoch milliseconds.
    period_start_at: i64,
    next_reset_at: i64,
    warning_threshold: f64,
    budget_check: BudgetCheck,
}

/// Whether another request would be let in.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct BudgetCheck {
    allowed: bool,
    reason: Option<String>,
    warning_reached: bool,
    /// USD until the first limit; null = there is none.
    remaining: Option<f64>,
    period_used: f64,
}

/// One status, or all.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum BudgetAnswer {
    One(Box<BudgetStatus>),
    #[serde(rename_all = "camelCase")]
    All {
        budgets: Vec<BudgetStatus>,
        generated_at: String,
    },
}

#[derive(Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
pub(crate) struct BudgetQuery {
    /// Only of this key; `*` is everybody together.
    #[serde(alias = "keyId")]
    api_key_id: Option<String>,
}

#[derive(Deserialize, Serialize, ToSchema, Default)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct BudgetDraft {
    /// Id of a key; `*` is everybody together.
    #[serde(alias = "keyId")]
    api_key_id: Option<String>,
    /// Limits in USD. Absent = as before; 0 or null = none.
    #[serde(deserialize_with = "present")]
    #[schema(value_type = Option<f64>)]
    daily_limit_usd: Option<Option<f64>>,
    #[serde(deserialize_with = "present")]
    #[schema(value_type = Option<f64>)]
    weekly_limit_usd: Option<Option<f64>>,
    #[serde(deserialize_with = "present")]
    #[schema(value_type = Option<f64>)]
    monthly_limit_usd: Option<Option<f64>>,
    #[serde(deserialize_with = "present")]
    #[schema(value_type = Option<f64>)]
    total_limit_usd: Option<Option<f64>>,
    /// The same in short: a limit in USD and its window, `daily` (default), `weekly` or `monthly`.
    limit: Option<f64>,
    period: Option<String>,
    /// From which share of a limit on there is a warning, above 0 to 1; 0.8 where nothing is said.
    warning_threshold: Option<f64>,
    /// The window that is shown first. All that have a limit count.
    reset_interval: Option<String>,
    /// When windows begin, `00:00` to `23:59`, in the time zone of the setting `budgets.tz`.
    reset_time: Option<String>,
    /// Whether requests over a limit are refused; else there is only a warning.
    hard_stop: Option<bool>,
    /// Whether models without a price are refused; else they count nothing.
    block_unpriced: Option<bool>,
    /// What becomes of requests over a limit. `block`: they are refused; `downgrade:<combo>`: they go to that combo, as far
    /// as there is room for it; `free-only`: they go to those of their targets that cost nothing.
    on_exceeded: Option<String>,
    /// Several at once, instead of the members above.
    #[schema(no_recursion)]
    budgets: Option<Vec<BudgetDraft>>,
}

/// What was set.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct BudgetSet {
    success: bool,
    api_key_id: String,
    budget: BudgetView,
    /// Every one, where several were set.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    budgets: Vec<BudgetView>,
}

pub(crate) async fn show(
    access: Management,
    Filter(query): Filter<BudgetQuery>,
) -> AdminResult<Json<BudgetAnswer>> {
    let admin = &access.admin;
    if let Some(id) = &query.api_key_id {
        let (key, name) = find(admin, id).await?;
        let status = status(admin, key.as_ref(), name, access.now_ms);
        return Ok(Json(BudgetAnswer::One(Box::new(status))));
    }
    let (keys, _) = admin.store.api_keys().list(false, MAX_KEYS, 0).await?;
    let everybody = admin.live.load().budgets.of(None).is_some();
    let everybody = everybody.then(|| status(admin, None, EVERYBODY.to_owned(), access.now_ms));
    let keys = keys.into_iter().map(|ApiKey { id, name, .. }| status(admin, Some(&id), name, access.now_ms));
    let budgets = everybody.into_iter().chain(keys).collect();
    Ok(Json(BudgetAnswer::All { budgets, generated_at: iso(access.now_ms) }))
}

pub(crate) async fn set(access: Management, Body(draft): Body<BudgetDraft>) -> AdminResult<Json<BudgetSet>> {
    let admin = &access.admin;
    let is_bulk = draft.budgets.is_some();
    let drafts = match draft.budgets {
        Some(drafts) if drafts.is_empty() || drafts.len() > MAX_KEYS as usize => {
            return Err(invalid_field("budgets", format!("must have 1 to {MAX_KEYS} entries")));
        }
        Some(drafts) => drafts,
        None => vec![draft],
    };
    let mut problems = Problems::default();
    let mut of_keys: Vec<Option<ApiKeyId>> = Vec::with_capacity(drafts.len());
    let place = |at: usize| if is_bulk { format!("budgets[{at}].") } else { String::new() };
    for (at, draft) in drafts.iter().enumerate() {
        match &draft.api_key_id {
            Some(id) => of_keys.push(find(admin, id).await?.0),
            None => {
                let message = "is required: the id of a key, or `*` for all together";
                problems.add(&format!("{}apiKeyId", place(at)), message);
                of_keys.push(None);
            }
        }
    }
    let snapshot = std::sync::Arc::clone(&admin.live.load());
    let change = |stored: &[Budget]| {
        let mut budgets: Vec<Budget> = Vec::with_capacity(drafts.len());
        for (at, (draft, key)) in drafts.iter().zip(of_keys).enumerate() {
            let earlier = budgets.iter().chain(stored).find(|budget| budget.key == key);
            let mut budget = earlier.cloned().unwrap_or_else(|| Budget::unlimited(key));
            merge(&mut budget, draft, &snapshot, &place(at), &mut problems);
            budgets.retain(|other| other.key != budget.key);
            budgets.push(budget);
        }
        problems.done().map(|()| budgets)
    };
    let budgets = admin.store.budgets().change(change).await??;
    access.reload().await?;
    for budget in &budgets {
        access.audit("budget.set", "budget", id_of(budget.key.as_ref()), &summary(budget)).await;
    }
    let Some(first) = budgets.first() else { return Err(invalid_field("budgets", "must not be empty")) };
    Ok(Json(BudgetSet {
        success: true,
        api_key_id: id_of(first.key.as_ref()).to_owned(),
        budget: first.into(),
        budgets: if is_bulk { budgets.iter().map(BudgetView::from).collect() } else { Vec::new() },
    }))
}

pub(crate) async fn delete(
    access: Management,
    Filter(query): Filter<BudgetQuery>,
) -> AdminResult<Json<Done>> {
    let admin = &access.admin;
    let id = query.api_key_id.ok_or_else(|| invalid_field("apiKeyId", "is required"))?;
    // Also of a key that is gone.
    let key = (id != EVERYBODY).then(|| ApiKeyId::from(id.as_str()));
    if !admin.store.budgets().delete(key.as_ref()).await? {
        return Err(not_found("Budget"));
    }
    access.reload().await?;
    access.audit("budget.deleted", "budget", &id, "").await;
    Ok(Json(Done::new()))
}

/// The budget of a key, if it has one.
pub(super) fn of_key(admin: &Admin, key: &ApiKeyId) -> Option<BudgetView> {
    admin.live.load().budgets.of(Some(key)).map(|state| BudgetView::from(&state.budget))
}

/// The key that an id means, and its name.
async fn find(admin: &Admin, id: &str) -> AdminResult<(Option<ApiKeyId>, String)> {
    if id == EVERYBODY {
        return Ok((None, EVERYBODY.to_owned()));
    }
    let key = admin.store.api_keys().get(&ApiKeyId::from(id)).await?;
    let key = key.filter(|key| key.revoked_at.is_none()).ok_or_else(|| not_found("API key"))?;
    Ok((Some(key.id), key.name))
}

fn merge(budget: &mut Budget, draft: &BudgetDraft, combos: &Snapshot, place: &str, problems: &mut Problems) {
    let limits = [
        ("dailyLimitUsd", &draft.daily_limit_usd, &mut budget.daily_nano),
        ("weeklyLimitUsd", &draft.weekly_limit_usd, &mut budget.weekly_nano),
        ("monthlyLimitUsd", &draft.monthly_limit_usd, &mut budget.monthly_nano),
        ("totalLimitUsd", &draft.total_limit_usd, &mut budget.total_nano),
    ];
    for (name, sent, limit) in limits {
        match sent {
            None => {}
            Some(None) => *limit = None,
            Some(Some(usd)) => put_limit(limit, *usd, &format!("{place}{name}"), problems),
        }
    }
    let mut interval = |name: &str, text: &Option<String>| {
        let interval = text.as_deref().map(Interval::parse);
        if interval == Some(None) {
            problems.add(&format!("{place}{name}"), "must be `daily`, `weekly` or `monthly`");
        }
        interval.flatten()
    };
    let period = interval("period", &draft.period);
    let shown = interval("resetInterval", &draft.reset_interval);
    if let Some(usd) = draft.limit {
        let period = period.unwrap_or(Interval::Daily);
        let limit = match period {
            Interval::Daily => &mut budget.daily_nano,
            Interval::Weekly => &mut budget.weekly_nano,
            Interval::Monthly => &mut budget.monthly_nano,
        };
        put_limit(limit, usd, &format!("{place}limit"), problems);
        budget.reset_interval = period;
    } else if draft.period.is_some() {
        problems.add(&format!("{place}limit"), "is required with `period`");
    }
    budget.reset_interval = shown.unwrap_or(budget.reset_interval);
    match draft.warning_threshold {
        None => {}
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be 0 to 1")]
        Some(share) if share > 0.0 && share <= 1.0 => {
            budget.warning_permille = (share * 1_000.0).round().max(1.0) as u16;
        }
        Some(_) => problems.add(&format!("{place}warningThreshold"), "must be above 0, at most 1"),
    }
    if let Some(text) = &draft.reset_time {
        match minute_of(text) {
            Some(minute) => budget.reset_minute = minute,
            None => problems.add(&format!("{place}resetTime"), "must be like 06:30"),
        }
    }
    if let Some(what) = &draft.on_exceeded {
        match way_out(what, combos) {
            Ok(way) => budget.on_exceeded = way,
            Err(message) => problems.add(&format!("{place}onExceeded"), message),
        }
    }
    budget.hard_stop = draft.hard_stop.unwrap_or(budget.hard_stop);
    budget.block_unpriced = draft.block_unpriced.unwrap_or(budget.block_unpriced);
}

/// What becomes of requests over a limit; `Err` says what is wrong with the word.
fn way_out(what: &str, combos: &Snapshot) -> Result<OnExceeded, String> {
    match OnExceeded::parse(what.trim()) {
        Some(OnExceeded::Downgrade(combo)) if combos.combo(&combo).is_none() => {
            Err(format!("there is no combo `{}`; see /api/combos", clipped(&combo)))
        }
        Some(way) => Ok(way),
        None => Err(format!(
            "`{}` is none of `block`, `free-only` and `downgrade:<combo>`; to be warned only, set `hardStop` to false",
            clipped(what)
        )),
    }
}

fn clipped(text: &str) -> String {
    text.chars().take(80).collect()
}

fn put_limit(limit: &mut Option<i64>, usd: f64, field: &str, problems: &mut Problems) {
    if !(0.0..=MOST).contains(&usd) {
        problems.add(field, format!("must be 0 to {MOST}"));
        return;
    }
    #[allow(clippy::cast_possible_truncation, reason = "at most 10^18")]
    let nano = (usd * 1e9).round() as i64;
    // However little is said, none is said by nothing else than 0.
    *limit = (usd > 0.0).then_some(nano.max(1));
}

/// Minutes after midnight of `HH:MM`.
fn minute_of(text: &str) -> Option<u16> {
    let (hour, minute) = text.split_once(':')?;
    let number = |text: &str, most: u16| {
        let is_plain = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<u16>().ok().filter(|number| is_plain && *number <= most)
    };
    Some(number(hour, 23)? * 60 + number(minute, 59)?)
}

fn id_of(key: Option<&ApiKeyId>) -> &str {
    key.map_or(EVERYBODY, |key| key.as_str())
}

fn summary(budget: &Budget) -> String {
    let limits = [
        ("daily", budget.daily_nano),
        ("weekly", budget.weekly_nano),
        ("monthly", budget.monthly_nano),
        ("total", budget.total_nano),
    ];
    let limits: Vec<_> = limits
        .into_iter()
        .filter_map(|(name, limit)| limit.map(|limit| format!("{name} {}", dollars(limit))))
        .collect();
    let limits = if limits.is_empty() { "no limit".to_owned() } else { limits.join(", ") };
    match &budget.on_exceeded {
        OnExceeded::Block => limits,
        way => format!("{limits}; {way}"),
    }
}

fn status(admin: &Admin, key: Option<&ApiKeyId>, name: String, now_ms: i64) -> BudgetStatus {
    let snapshot = admin.live.load();
    let budgets = &snapshot.budgets;
    let standing = admin.live.spending.standing(budgets, key, now_ms);
    let unlimited = Budget::unlimited(key.cloned());
    let budget = budgets.of(key).map(|state| &state.budget);
    let shown = budget.unwrap_or(&unlimited);
    let window = match shown.reset_interval {
        Interval::Daily => Window::Daily,
        Interval::Weekly => Window::Weekly,
        Interval::Monthly => Window::Monthly,
    };
    let span = standing.span(window);
    let view = BudgetView::from(shown);
    BudgetStatus {
        api_key_id: id_of(key).to_owned(),
        key_name: name,
        daily_total: usd(standing.spent(Window::Daily)),
        weekly_total: usd(standing.spent(Window::Weekly)),
        monthly_total: usd(standing.spent(Window::Monthly)),
        all_time_total: usd(standing.total_nano),
        total_cost_today: usd(standing.spent(Window::Daily)),
        total_cost_month: usd(standing.spent(Window::Monthly)),
        total_cost_period: usd(standing.spent(window)),
        held: usd(standing.held_nano),
        total_entries: standing.entries,
        active_limit_usd: budgets.of(key).and_then(|state| state.limit(window)).map_or(0.0, usd),
        reset_interval: view.reset_interval,
        reset_time: view.reset_time.clone(),
        period_start_at: span.start_ms,
        next_reset_at: span.end_ms,
        warning_threshold: view.warning_threshold,
        budget_check: check(admin, budgets, key, &standing, window, now_ms),
        budget: budget.map(BudgetView::from),
    }
}

/// What a request that costs nothing would be told.
fn check(
    admin: &Admin,
    budgets: &Budgets,
    key: Option<&ApiKeyId>,
    standing: &Standing,
    window: Window,
    now_ms: i64,
) -> BudgetCheck {
    let everybody = admin.live.spending.standing(budgets, None, now_ms);
    let mut check = BudgetCheck {
        allowed: true,
        reason: None,
        warning_reached: false,
        remaining: None,
        period_used: usd(standing.spent(window)),
    };
    let own = key.and_then(|key| budgets.of(Some(key))).map(|state| (state, standing, ""));
    let all = budgets.of(None).map(|state| (state, &everybody, " of all keys together"));
    let mut remaining: Option<i64> = None;
    for (state, standing, whose) in own.into_iter().chain(all) {
        for window in Window::ALL {
            let Some(limit) = state.limit(window) else { continue };
            let (spent, held) = (standing.spent(window), standing.held_nano);
            let left = limit.saturating_sub(spent).saturating_sub(held);
            remaining = Some(remaining.map_or(left, |least| least.min(left)));
            let threshold = i128::from(limit) * i128::from(state.budget.warning_permille) / 1_000;
            check.warning_reached |= i128::from(spent) >= threshold;
            if left < 0 && state.budget.hard_stop && check.allowed {
                check.allowed = false;
                let (name, spent, limit) = (window.as_str(), dollars(spent), dollars(limit));
                check.reason = Some(format!("{name} budget{whose} used: {spent} of {limit}"));
            }
        }
    }
    check.remaining = remaining.map(|least| usd(least.max(0)));
    check
}

impl From<&Budget> for BudgetView {
    fn from(budget: &Budget) -> Self {
        Self {
            api_key_id: id_of(budget.key.as_ref()).to_owned(),
            daily_limit_usd: budget.daily_nano.map(usd),
            weekly_limit_usd: budget.weekly_nano.map(usd),
            monthly_limit_usd: budget.monthly_nano.map(usd),
            total_limit_usd: budget.total_nano.map(usd),
            warning_threshold: f64::from(budget.warning_permille) / 1_000.0,
            reset_interval: budget.reset_interval.as_str(),
            reset_time: format!("{:02}:{:02}", budget.reset_minute / 60, budget.reset_minute % 60),
            hard_stop: budget.hard_stop,
            block_unpriced: budget.block_unpriced,
            on_exceeded: budget.on_exceeded.to_string(),
        }
    }
}
