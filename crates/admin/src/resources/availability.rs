//! Which models can be asked now, and what keeps the others back: `/api/models/availability`.

mod stream;

use omniroute_domain::breaker::BreakerState;
use omniroute_domain::budget::Window;
use omniroute_domain::combo::{LeftOut, Rule};
use omniroute_domain::entity::{OnExceeded, Reset};
use omniroute_domain::health::{Blocked, Hold};
use omniroute_domain::resolve::{self, Preference, ResolveError, Route, TrailStep, Via};
use omniroute_domain::snapshot::{ConnectionState, ProviderState, Snapshot};
use omniroute_provider::{ProviderId, registry};
use omniroute_store::ConnectionFilter;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

pub(crate) use stream::{Watch, follow};

use super::combos::{self, Entry};
use super::connection_keys::{KeyName, states};
use super::connections;
use super::model_catalog;
use super::resilience::{end, named};
use crate::auth::Management;
use crate::endpoint::{Body, Filter, Json};
use crate::error::{AdminResult, Detail, invalid_field, not_there};
use crate::state::Admin;
use crate::text::iso;

/// States of a model.
const STATUSES: [&str; 8] =
    ["available", "degraded", "cooldown", "locked", "circuit_open", "no_connection", "disabled", OVER_BUDGET];
const OVER_BUDGET: &str = "over_budget";
/// Said of a model that the operator hides.
const HIDDEN: &str = "hidden: in no list and no combo; who asks for it by name is answered";

/// A model at a provider.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ModelAvailability {
    /// Empty for an entry of a combo that leads to none.
    provider: String,
    model: String,
    /// `available`; `degraded` (some accounts are held back, or the provider fails often); `cooldown`, `locked` or
    /// `circuit_open` (none is left); `no_connection` (its provider has no account for it); `disabled` (only the operator can bring
    /// it back: the accounts are switched off, or the model is hidden); `over_budget` (the budget of all keys together has nothing
    /// left for it).
    status: &'static str,
    /// Accounts that may serve the model.
    connections: usize,
    /// Those of them that could now.
    available_connections: usize,
    /// Class of the failure behind what ends first; of what nothing but the operator ends why, in words.
    reason: Option<String>,
    /// When the first account is back.
    until: Option<String>,
    retry_after_ms: Option<i64>,
    /// Why requests of which nothing is known leave out this entry of a combo.
    #[serde(skip_serializing_if = "Option::is_none")]
    left_out: Option<String>,
    /// Accounts, and of those that have several keys also each key that is held back.
    blocked: Vec<BlockedView>,
}

/// An account that is held back, or one of its keys.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct BlockedView {
    connection_id: String,
    connection_name: String,
    /// Which of the account's keys it is; absent for the account, which with several keys is held back when all of them are.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<KeyName>,
    /// `cooldown`, `lock`, `breaker` or `inactive`.
    kind: &'static str,
    reason: &'static str,
    /// Null = when the operator acts.
    until: Option<String>,
    remaining_ms: Option<i64>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Availabilities {
    models: Vec<ModelAvailability>,
    /// All that there are, on whatever page.
    total: u64,
    /// The `offset` of the next page.
    next_cursor: Option<String>,
    /// Those that nobody can serve now, on whatever page.
    unavailable_count: usize,
    generated_at: String,
}

#[derive(Deserialize, IntoParams)]
pub(crate) struct AvailabilityQuery {
    /// Only those of this provider: id, alias or prefix.
    provider: Option<String>,
    /// Only those in this state.
    status: Option<String>,
    /// Only this model.
    model: Option<String>,
    /// Rows, at most 500; all where neither this nor `offset` is given.
    limit: Option<u32>,
    /// Rows to leave out before.
    offset: Option<u32>,
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AvailabilityDraft {
    /// `clearCooldown` ends cooldowns and locks; absent = only look.
    action: Option<AvailabilityAction>,
    /// Where something is cleared: id, alias or prefix.
    provider: Option<String>,
    /// As a client would ask for it; where something is cleared, as the provider knows it.
    model: String,
    /// Whether the steps from the name to where it leads are told.
    #[serde(default)]
    explain: bool,
}

/// A step from a name to where it leads.
#[derive(Serialize, ToSchema)]
pub(crate) struct ResolutionStep {
    /// `suffix` (what the name says beside the model is taken off), `alias`, `pattern` (an alias with `*`), `mapping` (a pattern
    /// that means a combo), `combo`, `prefix` (a provider's), `bare` (a name without one), `account` (`model@account`) or
    /// `renamed` (the provider has another name for it now).
    rule: &'static str,
    /// The name before.
    from: String,
    /// What it became; null = nothing came of it.
    to: Option<String>,
    /// Why, in words, where there is more to be said.
    why: Option<String>,
}

#[derive(Deserialize, ToSchema, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub(crate) enum AvailabilityAction {
    /// Ends cooldowns and locks.
    ClearCooldown,
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ClearDraft {
    /// May be said, as in POST.
    #[serde(rename = "action")]
    _action: Option<AvailabilityAction>,
    /// Id, alias or prefix.
    provider: String,
    /// As the provider knows it.
    model: String,
}

#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum AvailabilityAnswer {
    Model(Box<Found>),
    Combo(FoundCombo),
    Cleared(BlocksCleared),
}

/// A model that was asked for.
#[derive(Serialize, ToSchema)]
pub(crate) struct Found {
    /// As it was asked for.
    requested: String,
    resolved: Resolved,
    available: bool,
    /// How the name was resolved, in order; where `explain` was sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    steps: Option<Vec<ResolutionStep>>,
    #[serde(flatten)]
    entry: ModelAvailability,
}

/// A combo that was asked for.
#[derive(Serialize, ToSchema)]
pub(crate) struct FoundCombo {
    model: String,
    combo: bool,
    resolved: ResolvedCombo,
    /// Whether any of its targets can be asked.
    available: bool,
    /// How the name was resolved, in order; where `explain` was sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    steps: Option<Vec<ResolutionStep>>,
    /// In the order of the strategy, then those that requests of which nothing is known leave out, then those that lead nowhere.
    targets: Vec<ModelAvailability>,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct Resolved {
    provider: String,
    model: String,
    /// `alias`, `direct` or `infer`.
    via: &'static str,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct ResolvedCombo {
    /// The combo's name.
    combo: String,
    /// Always `combo`.
    via: &'static str,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct BlocksCleared {
    ok: bool,
    /// Cooldowns and locks that were in force.
    cleared: usize,
}

/// Every model that is listed, hidden or locked. Those of providers without any account, which are most of the catalogue, only
/// where a provider, a model or a status is asked for.
pub(crate) async fn list(
    access: Management,
    Filter(query): Filter<AvailabilityQuery>,
) -> AdminResult<Json<Availabilities>> {
    let admin = &access.admin;
    check_status(query.status.as_deref())?;
    let page = match (query.limit, query.offset) {
        (None, None) => None,
        (limit, offset) => Some(super::page(limit, offset)?),
    };
    let wanted = named(admin, query.provider.as_deref()).await?;
    let is_wanted = |id: &ProviderId| wanted.as_ref().is_none_or(|wanted| wanted == id);
    let is_listed = |id: &ProviderId| is_wanted(id) && (wanted.is_some() || id.as_str() != registry::SIM);
    let idle = idle(admin, |id, count| is_wanted(id) && (count > 0 || query.is_narrow())).await?;
    let mut models = served(admin, access.now_ms, is_listed);
    models.extend(idle);
    models.retain(|entry| {
        query.model.as_ref().is_none_or(|model| *model == entry.model)
            && query.status.as_ref().is_none_or(|status| *status == entry.status)
    });
    let unavailable_count = models.iter().filter(|entry| entry.available_connections == 0).count();
    let total = models.len() as u64;
    let mut next_cursor = None;
    if let Some(page) = page {
        next_cursor = page.next_cursor(total);
        models = models.into_iter().skip(page.offset as usize).take(page.limit as usize).collect();
    }
    Ok(Json(Availabilities {
        models,
        total,
        next_cursor,
        unavailable_count,
        generated_at: iso(access.now_ms),
    }))
}

fn check_status(status: Option<&str>) -> AdminResult<()> {
    match status {
        Some(status) if !STATUSES.contains(&status) => {
            Err(invalid_field("status", format!("must be one of {}", STATUSES.join(", "))))
        }
        _ => Ok(()),
    }
}

/// The models of these providers, of those that have accounts. Memory knows all of it.
fn served(admin: &Admin, now_ms: i64, is_wanted: impl Fn(&ProviderId) -> bool) -> Vec<ModelAvailability> {
    let snapshot = admin.live.load();
    let mut models = Vec::new();
    for provider in snapshot.providers().into_iter().filter(|provider| is_wanted(&provider.id)) {
        let names = names(provider, now_ms);
        models.extend(names.iter().map(|name| entry(provider, name, now_ms)));
    }
    if let Some(spent) = Spent::of(admin, now_ms) {
        models.iter_mut().for_each(|entry| spent.mark(&snapshot, entry, now_ms));
    }
    models
}

/// Those of the other providers, as far as they are wanted by how many accounts they have that are switched off.
async fn idle(
    admin: &Admin,
    is_wanted: impl Fn(&ProviderId, usize) -> bool,
) -> AdminResult<Vec<ModelAvailability>> {
    let rows = connections::all(admin, &ConnectionFilter::default()).await?;
    let all = model_catalog::all_providers(admin).await?;
    let snapshot = admin.live.load();
    let mut models = Vec::new();
    for (spec, own) in all.iter().filter(|(spec, _)| snapshot.provider(&spec.id).is_none()) {
        let count = rows.iter().filter(|row| row.provider == spec.id).count();
        if is_wanted(&spec.id, count) {
            let names = model_catalog::names(admin, spec, own);
            models.extend(names.map(|name| unserved(&spec.id, &name, count)));
        }
    }
    Ok(models)
}

impl AvailabilityQuery {
    fn is_narrow(&self) -> bool {
        self.provider.is_some() || self.model.is_some() || self.status.is_some()
    }
}

/// One model or combo; or ends what keeps a model back.
pub(crate) async fn ask(
    access: Management,
    Body(draft): Body<AvailabilityDraft>,
) -> AdminResult<Json<AvailabilityAnswer>> {
    let AvailabilityDraft { action, provider, model, explain } = draft;
    if action == Some(AvailabilityAction::ClearCooldown) {
        let provider = provider.ok_or_else(|| invalid_field("provider", "is required"))?;
        return clear(&access, &provider, &model).await.map(AvailabilityAnswer::Cleared).map(Json);
    }
    let snapshot = access.admin.live.load();
    let now_ms = access.now_ms;
    let spent = Spent::of(&access.admin, now_ms);
    let marked = |mut entry: ModelAvailability| {
        if let Some(spent) = &spent {
            spent.mark(&snapshot, &mut entry, now_ms);
        }
        entry
    };
    let mut trail: Vec<TrailStep> = Vec::new();
    let preference = Preference::default();
    let route = match explain {
        true => resolve::resolve_along(&snapshot, &model, preference, &mut trail).map(|(route, _)| route),
        false => resolve::resolve(&snapshot, &model),
    };
    let told = |trail: Vec<TrailStep>| explain.then(|| trail.into_iter().map(step_view).collect());
    let answer = match route {
        Ok(Route::Target(target)) => {
            let via = match target.via {
                Via::Bare => "infer",
                via @ (Via::Direct | Via::Alias | Via::Fallback) => via.as_str(),
            };
            found(model, via, marked(entry(&target.provider, &target.model, now_ms)), told(trail))
        }
        Ok(Route::Combo(combo)) => {
            let (entries, dead) = combos::entries(&snapshot, &combo, now_ms);
            let mut targets: Vec<_> =
                entries.iter().map(|entry| marked(entry_of_combo(entry, now_ms))).collect();
            targets.extend(dead.into_iter().map(|left| leads_nowhere(&snapshot, left)));
            AvailabilityAnswer::Combo(FoundCombo {
                model,
                combo: true,
                resolved: ResolvedCombo { combo: combo.name.to_string(), via: "combo" },
                available: targets.iter().any(|target| target.available_connections > 0),
                steps: told(trail),
                targets,
            })
        }
        Err(ResolveError::NoCredentials { provider, .. }) => {
            let name = model.split_once('/').map_or(&*model, |(_, name)| name).to_owned();
            let filter = ConnectionFilter { provider: Some(provider.clone()), active: None };
            let count = connections::all(&access.admin, &filter).await?.len();
            found(model, "direct", unserved(&provider, &name, count), told(trail))
        }
        Err(error) => {
            let steps = trail.iter().enumerate();
            let steps =
                steps.map(|(at, step)| Detail { field: format!("steps[{at}]"), message: step.to_string() });
            return Err(not_there(error.to_string()).with_details(steps.collect()));
        }
    };
    Ok(Json(answer))
}

/// Ends what keeps a model back on the accounts of a provider.
pub(crate) async fn forget(
    access: Management,
    Body(draft): Body<ClearDraft>,
) -> AdminResult<Json<BlocksCleared>> {
    clear(&access, &draft.provider, &draft.model).await.map(Json)
}

async fn clear(access: &Management, provider: &str, model: &str) -> AdminResult<BlocksCleared> {
    let admin = &access.admin;
    let provider = named(admin, Some(provider)).await?;
    let resets = [
        Reset::Locks { provider: provider.clone(), connection: None, model: Some(model.to_owned()) },
        Reset::Cooldowns { provider: provider.clone() },
    ];
    let cleared: usize = end(access, &resets).await?.into_iter().sum();
    let target = provider.as_ref().map_or("", |provider| provider.as_str());
    access.audit("resilience.reset", "model", &format!("{target}/{model}"), &cleared.to_string()).await;
    Ok(BlocksCleared { ok: true, cleared })
}

fn step_view(step: TrailStep) -> ResolutionStep {
    let TrailStep { rule, from, to, why } = step;
    ResolutionStep { rule, from, to, why }
}

fn found(
    requested: String,
    via: &'static str,
    entry: ModelAvailability,
    steps: Option<Vec<ResolutionStep>>,
) -> AvailabilityAnswer {
    let resolved = Resolved { provider: entry.provider.clone(), model: entry.model.clone(), via };
    let available = entry.available_connections > 0;
    AvailabilityAnswer::Model(Box::new(Found { requested, resolved, available, steps, entry }))
}

/// The models of a provider that are listed or hidden, or locked under another name.
fn names(provider: &ProviderState, now_ms: i64) -> Vec<String> {
    let mut names: Vec<String> = provider.models.iter().map(|model| model.id.clone()).collect();
    names.extend(provider.hidden_models().map(str::to_owned));
    for connection in &provider.connections {
        for lock in states(connection).flat_map(|state| state.health.locks(now_ms)) {
            if !names.contains(&lock.model) {
                names.push(lock.model);
            }
        }
    }
    names
}

fn nobody(provider: &ProviderId, model: &str, status: &'static str, connections: usize) -> ModelAvailability {
    ModelAvailability {
        provider: provider.to_string(),
        model: model.to_owned(),
        status,
        connections,
        available_connections: 0,
        reason: None,
        until: None,
        retry_after_ms: None,
        left_out: None,
        blocked: Vec::new(),
    }
}

/// A model of a provider whose accounts, as many as there are, are all switched off.
fn unserved(provider: &ProviderId, model: &str, count: usize) -> ModelAvailability {
    match count {
        0 => nobody(provider, model, "no_connection", 0),
        count => {
            let reason = Some("the accounts of its provider are switched off".to_owned());
            ModelAvailability { reason, ..nobody(provider, model, "disabled", count) }
        }
    }
}

fn entry(provider: &ProviderState, model: &str, now_ms: i64) -> ModelAvailability {
    entry_with(provider, model, now_ms, |connection| !connection.excludes(model))
}

/// By the accounts that the combo leaves it.
fn entry_of_combo(entry: &Entry, now_ms: i64) -> ModelAvailability {
    let Entry { target, left_out, .. } = entry;
    let may_serve = |connection: &ConnectionState| entry.may_be_served_by(connection);
    let found = entry_with(&target.provider, &target.model, now_ms, may_serve);
    ModelAvailability { left_out: left_out.clone(), ..found }
}

fn leads_nowhere(snapshot: &Snapshot, left: LeftOut) -> ModelAvailability {
    let prefixed = left.goal.split_once('/');
    let known = prefixed.and_then(|(prefix, model)| Some((snapshot.by_prefix(prefix)?, model)));
    let is_hidden = known.is_some_and(|(id, model)| snapshot.provider(id).is_some_and(|it| it.hides(model)));
    let status = if is_hidden || left.rule == Rule::Nesting { "disabled" } else { "no_connection" };
    let none = ProviderId::from("");
    let (provider, model) = known.unwrap_or((&none, &left.goal));
    ModelAvailability { reason: Some(left.reason), ..nobody(provider, model, status, 0) }
}

fn entry_with(
    provider: &ProviderState,
    model: &str,
    now_ms: i64,
    may_serve: impl Fn(&ConnectionState) -> bool,
) -> ModelAvailability {
    let serving: Vec<_> = provider.connections.iter().filter(|connection| may_serve(connection)).collect();
    let mut held: Vec<(&ConnectionState, Blocked)> = Vec::new();
    let mut shown: Vec<BlockedView> = Vec::new();
    for connection in &serving {
        if let Err(blocked) = connection.check(model, now_ms) {
            held.push((connection, blocked));
            shown.push(blocked_view(connection, blocked, now_ms));
        }
        for key in &connection.pool {
            if let Err(blocked) = key.health.check(model, now_ms) {
                shown.push(blocked_view(key, blocked, now_ms));
            }
        }
    }
    let available = serving.len() - held.len();
    let first = held.iter().map(|(_, blocked)| blocked).min_by_key(|it| it.until.unwrap_or(i64::MAX));
    let is_shaky = serving.iter().any(|connection| {
        let state = connection.breaker.state(model, now_ms);
        connection.breaker_policy.is_some() && state != BreakerState::Closed
    });
    let is_hidden = provider.hides(model);
    let status = match first {
        _ if is_hidden => "disabled",
        _ if serving.is_empty() => "no_connection",
        None if is_shaky => "degraded",
        None => "available",
        Some(_) if available > 0 => "degraded",
        Some(Blocked { until: None, .. }) => "disabled",
        Some(Blocked { hold: Hold::Provider, .. }) => "circuit_open",
        Some(Blocked { hold: Hold::Model, .. }) => "locked",
        Some(Blocked { hold: Hold::Connection, .. }) => "cooldown",
    };
    let until = first.filter(|_| available == 0).and_then(|blocked| blocked.until);
    ModelAvailability {
        connections: serving.len(),
        available_connections: available,
        reason: match first.filter(|_| available == 0) {
            _ if is_hidden => Some(HIDDEN.to_owned()),
            first => first.map(|blocked| blocked.reason.as_str().to_owned()),
        },
        until: until.map(iso),
        retry_after_ms: until.map(|until| (until - now_ms).max(0)),
        blocked: shown,
        ..nobody(&provider.id, model, status, 0)
    }
}

/// The budget of all keys together has nothing left.
struct Spent {
    /// When it begins anew.
    until: Option<i64>,
    /// Whether what costs nothing is served all the same.
    spares_free: bool,
}

impl Spent {
    fn of(admin: &Admin, now_ms: i64) -> Option<Self> {
        let snapshot = admin.live.load();
        let state = snapshot.budgets.of(None).filter(|state| state.budget.hard_stop)?;
        let standing = admin.live.spending.standing(&snapshot.budgets, None, now_ms);
        let is_used_up = |window: &Window| {
            let used = standing.spent(*window).saturating_add(standing.held_nano);
            state.limit(*window).is_some_and(|limit| used >= limit)
        };
        // Until all that are used up begin anew; a limit for ever never does.
        let mut ends = Window::ALL.into_iter().filter(is_used_up).map(|window| match window {
            Window::Total => None,
            window => Some(standing.span(window).end_ms),
        });
        let first = ends.next()?;
        let until = ends.fold(first, |last, end| Some(last?.max(end?)));
        Some(Self { until, spares_free: state.budget.on_exceeded != OnExceeded::Block })
    }

    /// Says so of a model that could be asked otherwise.
    fn mark(&self, snapshot: &Snapshot, entry: &mut ModelAvailability, now_ms: i64) {
        let quote = || snapshot.quote(&entry.provider.as_str().into(), &entry.model);
        let is_spared = self.spares_free && quote().is_some_and(|quote| quote.price.is_free());
        if entry.available_connections == 0 || entry.status == "disabled" || is_spared {
            return;
        }
        entry.status = OVER_BUDGET;
        entry.available_connections = 0;
        entry.reason = Some("budget_exceeded".to_owned());
        entry.until = self.until.map(iso);
        entry.retry_after_ms = self.until.map(|until| (until - now_ms).max(0));
    }
}

fn blocked_view(connection: &ConnectionState, blocked: Blocked, now_ms: i64) -> BlockedView {
    BlockedView {
        connection_id: connection.id.to_string(),
        connection_name: connection.name.to_string(),
        key: KeyName::of_state(connection),
        kind: match (blocked.until, blocked.hold) {
            (None, _) => "inactive",
            (Some(_), Hold::Connection) => "cooldown",
            (Some(_), Hold::Model) => "lock",
            (Some(_), Hold::Provider) => "breaker",
        },
        reason: blocked.reason.as_str(),
        until: blocked.until.map(iso),
        remaining_ms: blocked.until.map(|until| (until - now_ms).max(0)),
    }
}
