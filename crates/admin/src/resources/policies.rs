//! What the operator forbids, limits or prefers: `/api/policies`. Sign-ins that are locked out are listed and unlocked here too.

use std::sync::Arc;

use omniroute_domain::entity::{
    ApiKeyId, MAX_POLICIES, Policy, PolicyActions, PolicyConditions, PolicyKind, PolicyMode,
};
use omniroute_domain::policy::{self, Asked, Verdict};
use omniroute_domain::price;
use omniroute_domain::resolve::{self, Route, Target};
use omniroute_domain::snapshot::Snapshot;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::Done;
use super::key_references::{endpoint_problem, key_problem};
use super::resilience::{BreakerView, breakers};
use super::route_preview::ObservedView;
use crate::auth::Management;
use crate::endpoint::{Body, Filter, Json, WithStatus};
use crate::error::{AdminResult, invalid_field, not_found};
use crate::state::Admin;
use crate::text::iso;
use crate::validation::Problems;

/// Most entries of a list within a policy.
const MAX_ENTRIES: usize = 100;

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PolicyList {
    policies: Vec<PolicyView>,
    /// Addresses that have to wait before they may sign in.
    locked_identifiers: Vec<LockedView>,
    /// The providers' breakers, by name.
    circuit_breakers: Vec<BreakerView>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PolicyView {
    id: String,
    name: String,
    /// `routing`, `access` or `budget`.
    r#type: &'static str,
    enabled: bool,
    /// `enforce`, or `observe`: what it would do is noted beside requests, which go on as if there were no such policy.
    mode: &'static str,
    /// The lower, the earlier.
    priority: i64,
    conditions: ConditionsView,
    actions: ActionsView,
    created_at: String,
    updated_at: String,
}

/// Which requests it is for: all that is given must hold. A member that is not known is refused: a policy with a typing error
/// in it would be for every request.
#[derive(Serialize, Deserialize, ToSchema, Default)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ConditionsView {
    /// A pattern over the requested name and `provider/model`.
    #[serde(skip_serializing_if = "Option::is_none")]
    model_pattern: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    api_key_id: Option<String>,
    /// Id or prefix of the provider that would be asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    provider: Option<String>,
    /// `chat`, `messages`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    endpoint: Option<String>,
    /// Time of day, UTC: `08:00-18:00`.
    #[serde(skip_serializing_if = "Option::is_none")]
    hour_range: Option<String>,
}

/// What it does.
#[derive(Serialize, Deserialize, ToSchema, Default)]
#[serde(default)]
pub(crate) struct ActionsView {
    /// Providers to ask first, where there is a choice.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    prefer_provider: Vec<String>,
    /// Patterns of models that are refused.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    block_model: Vec<String>,
    /// Most tokens of answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    max_tokens: Option<u64>,
    /// Most that a request may cost, by estimate.
    #[serde(skip_serializing_if = "Option::is_none")]
    max_cost_usd: Option<f64>,
    /// The model that is asked for instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    rewrite_model: Option<String>,
    /// Labels that an account must have.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    require_tags: Vec<String>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct LockedView {
    identifier: String,
    /// In epoch milliseconds.
    locked_until: i64,
    remaining_ms: i64,
}

/// A policy, or what is to be done.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PolicyPost {
    /// `unlock`: lets somebody sign in again.
    action: Option<String>,
    /// Whom.
    identifier: Option<String>,
    /// Name for people; clients that are refused are told it.
    name: Option<String>,
    /// `routing`, `access` or `budget`.
    r#type: Option<String>,
    enabled: Option<bool>,
    /// `enforce` (when it is not given) or `observe`.
    mode: Option<String>,
    /// The lower, the earlier; 100 when it is not given.
    priority: Option<i64>,
    conditions: Option<ConditionsView>,
    actions: Option<ActionsView>,
}

#[derive(Deserialize, ToSchema)]
pub(crate) struct PolicyPatch {
    /// Name for people; clients that are refused are told it.
    name: Option<String>,
    /// `routing`, `access` or `budget`.
    r#type: Option<String>,
    enabled: Option<bool>,
    /// `enforce` (when it is not given) or `observe`.
    mode: Option<String>,
    /// The lower, the earlier; 100 when it is not given.
    priority: Option<i64>,
    conditions: Option<ConditionsView>,
    actions: Option<ActionsView>,
}

/// What became of it.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum PolicyPosted {
    Made { policy: Box<PolicyView> },
    Unlocked { success: bool, action: &'static str, identifier: String },
}

#[derive(Serialize, ToSchema)]
pub(crate) struct PolicyAnswer {
    policy: PolicyView,
}

#[derive(Deserialize, IntoParams)]
pub(crate) struct PolicyQuery {
    /// Which.
    id: String,
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Evaluation {
    /// As a client would ask for it.
    model: String,
    /// The client's key, by its id.
    api_key_id: Option<String>,
    /// `chat` when it is not given.
    endpoint: Option<String>,
    /// Tokens of the prompt, and most tokens of the answer, for limits of cost; without both no such limit is judged.
    input_tokens: Option<u64>,
    output_tokens: Option<u64>,
}

/// What the policies say of a model; of a combo, of its name.
#[derive(Serialize, ToSchema)]
pub(crate) struct EvaluationView {
    #[serde(flatten)]
    verdict: VerdictView,
    /// Of a combo: what they say of each of its targets, in the combo's own order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    targets: Vec<TargetVerdict>,
}

#[derive(Serialize, ToSchema)]
struct TargetVerdict {
    model: String,
    #[serde(flatten)]
    verdict: VerdictView,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct VerdictView {
    allowed: bool,
    reason: Option<String>,
    preferred_providers: Vec<String>,
    applied_policies: Vec<String>,
    max_tokens: Option<u64>,
    rewrite_model: Option<String>,
    require_tags: Vec<String>,
    /// `access` or `budget` for what was refused there, else `passed`.
    phase: &'static str,
    /// What policies that only observe would have done.
    observed: Vec<ObservedView>,
}

pub(crate) async fn list(access: Management) -> AdminResult<Json<PolicyList>> {
    let store = &access.admin.store;
    let policies = store.policies().list().await?.into_iter().map(view).collect();
    let locked = access.admin.lockouts.locked(store, access.now_ms).await?;
    let locked_identifiers = locked.into_iter().map(|(identifier, locked_until)| LockedView {
        identifier,
        locked_until,
        remaining_ms: locked_until - access.now_ms,
    });
    Ok(Json(PolicyList {
        policies,
        locked_identifiers: locked_identifiers.collect(),
        circuit_breakers: breakers(&access.admin, access.now_ms),
    }))
}

pub(crate) async fn create(
    access: Management,
    Body(post): Body<PolicyPost>,
) -> AdminResult<WithStatus<PolicyPosted, 201>> {
    let store = &access.admin.store;
    let PolicyPost { action, identifier, name, r#type, enabled, mode, priority, conditions, actions } = post;
    match (action.as_deref(), identifier) {
        (Some("unlock"), Some(identifier)) => {
            access.admin.lockouts.unlock(store, &identifier).await?;
            access.audit("auth.unlocked", "lockout", &identifier, "").await;
            let unlocked = PolicyPosted::Unlocked { success: true, action: "unlocked", identifier };
            return Ok(WithStatus::ok(unlocked));
        }
        (Some("unlock"), None) => return Err(invalid_field("identifier", "is required")),
        (Some(_), _) => {
            return Err(invalid_field("action", "must be `unlock`; leave it out to make a policy"));
        }
        (None, _) => {}
    }
    let mut problems = Problems::default();
    for (field, is_there) in [("name", name.is_some()), ("type", r#type.is_some())] {
        if !is_there {
            problems.add(field, "is required");
        }
    }
    problems.done()?;
    let mut policy = Policy {
        id: Uuid::now_v7().to_string(),
        name: String::new(),
        kind: PolicyKind::Routing,
        enabled: true,
        mode: PolicyMode::Enforce,
        priority: 100,
        conditions: PolicyConditions::default(),
        actions: PolicyActions::default(),
        created_at: access.now_ms,
        updated_at: access.now_ms,
    };
    let patch = PolicyPatch { name, r#type, enabled, mode, priority, conditions, actions };
    let unknown = Unknown::of(&access.admin, &patch).await?;
    merge(&mut policy, patch, unknown)?;
    store.policies().insert(&policy, MAX_POLICIES).await?;
    access.reload().await?;
    access.audit("policy.created", "policy", &policy.id, &policy.name).await;
    Ok(WithStatus::other(PolicyPosted::Made { policy: Box::new(view(policy)) }))
}

pub(crate) async fn update(
    access: Management,
    Filter(query): Filter<PolicyQuery>,
    Body(patch): Body<PolicyPatch>,
) -> AdminResult<Json<PolicyAnswer>> {
    let unknown = Unknown::of(&access.admin, &patch).await?;
    let change = |policy: &mut Policy| {
        policy.updated_at = access.now_ms;
        merge(policy, patch, unknown)
    };
    let policy = access.admin.store.policies().change(&query.id, change).await??;
    access.reload().await?;
    access.audit("policy.updated", "policy", &policy.id, &policy.name).await;
    Ok(Json(PolicyAnswer { policy: view(policy) }))
}

pub(crate) async fn delete(
    access: Management,
    Filter(query): Filter<PolicyQuery>,
) -> AdminResult<Json<Done>> {
    if !access.admin.store.policies().delete(&query.id).await? {
        return Err(not_found("Policy"));
    }
    access.reload().await?;
    access.audit("policy.deleted", "policy", &query.id, "").await;
    Ok(Json(Done::new()))
}

pub(crate) async fn evaluate(
    access: Management,
    Body(question): Body<Evaluation>,
) -> AdminResult<Json<EvaluationView>> {
    let snapshot = access.admin.live.load();
    if let Some(id) = &question.api_key_id
        && snapshot.caller_by_id(&ApiKeyId::from(id.as_str())).is_none()
    {
        return Err(invalid_field("apiKeyId", "is the id of no key; see GET /api/keys"));
    }
    if let Some(problem) = question.endpoint.as_deref().and_then(|name| endpoint_problem(&access.admin, name))
    {
        return Err(invalid_field("endpoint", problem));
    }
    let judge = |names: &[&str], target: Option<&Target>| {
        let Some(target) = target else {
            return judged(&snapshot, &question, names, &[], None, access.now_ms);
        };
        let (by_alias, by_id) = (target.full_name(), format!("{}/{}", target.provider.id, target.model));
        let names = [names, &[&by_alias, &by_id, &target.model]].concat();
        let providers = [target.provider.id.as_str(), &target.provider.alias];
        let cost_nano = question.cost_at(&snapshot, target);
        judged(&snapshot, &question, &names, &providers, cost_nano, access.now_ms)
    };
    let asked = question.model.as_str();
    let (verdict, targets) = match resolve::resolve(&snapshot, asked) {
        Ok(Route::Target(target)) => (judge(&[asked], Some(&target)), Vec::new()),
        Ok(Route::Combo(combo)) => {
            let names = [asked, &combo.name];
            let of_target = |target: Arc<Target>| TargetVerdict {
                model: target.full_name(),
                verdict: judge(&names, Some(&target)),
            };
            (judge(&names, None), combo.targets(&snapshot).into_iter().map(of_target).collect())
        }
        Err(_) => (judge(&[asked], None), Vec::new()),
    };
    Ok(Json(EvaluationView { verdict, targets }))
}

fn judged(
    snapshot: &Snapshot,
    question: &Evaluation,
    names: &[&str],
    providers: &[&str],
    cost_nano: Option<i64>,
    now_ms: i64,
) -> VerdictView {
    verdict_view(snapshot.policies.judge(&Asked {
        names,
        providers,
        api_key: question.api_key_id.as_deref(),
        endpoint: question.endpoint.as_deref().unwrap_or("chat"),
        cost_nano,
        now_ms,
    }))
}

impl Evaluation {
    fn cost_at(&self, snapshot: &Snapshot, target: &Target) -> Option<i64> {
        let (input, output) = self.input_tokens.zip(self.output_tokens)?;
        price::text_nano(&target.quote(snapshot)?.price, input, output)
    }
}

/// What is wrong with names in the conditions that are sent.
struct Unknown {
    endpoint: Option<String>,
    key: Option<String>,
}

impl Unknown {
    async fn of(admin: &Admin, patch: &PolicyPatch) -> AdminResult<Self> {
        let sent = patch.conditions.as_ref();
        let endpoint = sent.and_then(|it| it.endpoint.as_deref());
        let endpoint = endpoint.and_then(|name| endpoint_problem(admin, name));
        let key = match sent.and_then(|it| it.api_key_id.as_deref()) {
            Some(id) => key_problem(admin, id).await?,
            None => None,
        };
        Ok(Self { endpoint, key })
    }
}

fn merge(policy: &mut Policy, patch: PolicyPatch, unknown: Unknown) -> AdminResult<()> {
    let mut problems = Problems::default();
    if let Some(name) = patch.name {
        problems.name("name", &name);
        policy.name = name;
    }
    if let Some(kind) = patch.r#type {
        match PolicyKind::of_word(&kind) {
            Some(kind) => policy.kind = kind,
            None => problems.add("type", "must be one of routing, access, budget"),
        }
    }
    policy.enabled = patch.enabled.unwrap_or(policy.enabled);
    if let Some(mode) = patch.mode {
        match PolicyMode::of_word(&mode) {
            Some(mode) => policy.mode = mode,
            None => problems.add("mode", "must be `enforce` or `observe`"),
        }
    }
    policy.priority = patch.priority.unwrap_or(policy.priority);
    problems.range("priority", Some(policy.priority), &(-1_000_000..=1_000_000));
    if let Some(conditions) = patch.conditions {
        for (field, text) in [
            ("model_pattern", &conditions.model_pattern),
            ("api_key_id", &conditions.api_key_id),
            ("provider", &conditions.provider),
            ("endpoint", &conditions.endpoint),
        ] {
            if let Some(text) = text {
                problems.length(&format!("conditions.{field}"), text, 1..=256);
            }
        }
        // What the policy had before may stay: a key that is gone keeps nobody from changing the rest.
        let before = &policy.conditions;
        for (field, is_new, problem) in [
            ("endpoint", conditions.endpoint != before.endpoint, unknown.endpoint),
            ("api_key_id", conditions.api_key_id != before.api_key_id, unknown.key),
        ] {
            if let Some(problem) = problem.filter(|_| is_new) {
                problems.add(&format!("conditions.{field}"), problem);
            }
        }
        policy.conditions = conditions.into();
    }
    if let Some(actions) = patch.actions {
        problems.list("actions.prefer_provider", &actions.prefer_provider, MAX_ENTRIES);
        problems.list("actions.block_model", &actions.block_model, MAX_ENTRIES);
        problems.list("actions.require_tags", &actions.require_tags, MAX_ENTRIES);
        problems.range("actions.max_tokens", actions.max_tokens, &(1..=1_000_000_000));
        if let Some(model) = &actions.rewrite_model {
            problems.length("actions.rewrite_model", model, 1..=resolve::MAX_MODEL_LENGTH);
        }
        policy.actions = actions.into();
    }
    if let Err(error) = policy::check(policy) {
        let field = match error {
            policy::PolicyError::Hours(_) => "conditions.hour_range",
            policy::PolicyError::Cost => "actions.max_cost_usd",
            policy::PolicyError::NoAction(..) => "actions",
        };
        problems.add(field, error.to_string());
    }
    problems.done()
}

fn view(policy: Policy) -> PolicyView {
    PolicyView {
        id: policy.id,
        name: policy.name,
        r#type: policy.kind.as_str(),
        enabled: policy.enabled,
        mode: policy.mode.as_str(),
        priority: policy.priority,
        conditions: policy.conditions.into(),
        actions: policy.actions.into(),
        created_at: iso(policy.created_at),
        updated_at: iso(policy.updated_at),
    }
}

fn verdict_view(verdict: Verdict) -> VerdictView {
    VerdictView {
        allowed: verdict.is_allowed(),
        phase: verdict.phase(),
        reason: verdict.denial.map(|denial| denial.reason),
        preferred_providers: verdict.preferred_providers,
        applied_policies: verdict.applied.iter().map(ToString::to_string).collect(),
        max_tokens: verdict.max_tokens,
        rewrite_model: verdict.rewrite_model,
        require_tags: verdict.required_tags,
        observed: verdict.observed.into_iter().map(ObservedView::from).collect(),
    }
}

macro_rules! alike {
    ($view:ident, $entity:ident, $($name:ident),+) => {
        impl From<$entity> for $view {
            fn from(entity: $entity) -> Self {
                let $entity { $($name),+ } = entity;
                Self { $($name),+ }
            }
        }

        impl From<$view> for $entity {
            fn from(view: $view) -> Self {
                let $view { $($name),+ } = view;
                Self { $($name),+ }
            }
        }
    };
}

alike!(ConditionsView, PolicyConditions, model_pattern, api_key_id, provider, endpoint, hour_range);
alike!(
    ActionsView,
    PolicyActions,
    prefer_provider,
    block_model,
    max_tokens,
    max_cost_usd,
    rewrite_model,
    require_tags
);
