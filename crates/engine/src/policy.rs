//! What the operator's policies say of a request, and what they make of its targets.

use std::mem;
use std::sync::Arc;

use omniroute_dialect::ir::{ErrorKind, Usage};
use omniroute_domain::combo::Targets;
use omniroute_domain::policy::{Asked, Observed, Verdict};
use omniroute_domain::price;
use omniroute_domain::resolve::{Suffixes, Target};
use smallvec::SmallVec;

use crate::ctx::RequestCtx;
use crate::error::GatewayError;

/// Tokens of answer that a price is estimated for when the client sets no limit.
const USUAL_OUTPUT: u64 = 1_024;

/// Where the operator steers a request. Made where anything is to be steered.
#[derive(Debug, Clone, Default)]
pub(crate) struct Steering {
    /// What the policies say of the target that is asked.
    pub(crate) verdict: Verdict,
    /// What the asked name, and those that it leads over, say beside the model or combo.
    pub(crate) suffixes: Suffixes,
    /// Policies that applied to the name before a target was known, and to the targets before the one that is asked.
    pub(crate) applied: Vec<Arc<str>>,
    /// What those would have done that only observe, of the name and of every target that was looked at.
    pub(crate) observed: Vec<Observed>,
}

/// What the policies say of the name that was asked for, before it is known where it leads.
pub(crate) fn of_name(ctx: &RequestCtx, requested: &str) -> Verdict {
    of_names(ctx, &[requested])
}

/// The same where it leads to a combo, by whatever name that was asked for.
pub(crate) fn of_combo(ctx: &RequestCtx, requested: &str, combo: &str) -> Verdict {
    of_names(ctx, &[requested, combo])
}

fn of_names(ctx: &RequestCtx, names: &[&str]) -> Verdict {
    if ctx.snapshot.policies.is_empty() {
        return Verdict::default();
    }
    ctx.snapshot.policies.judge(&ctx.about(names, &[], ctx.arrival.endpoint))
}

/// What the policies say of a target of the request.
pub(crate) fn of_target(ctx: &RequestCtx, requested: &str, target: &Target) -> Verdict {
    let policies = &ctx.snapshot.policies;
    if policies.is_empty() {
        return Verdict::default();
    }
    let by_alias = target.full_name();
    let by_id = format!("{}/{}", target.provider.id, target.model);
    let combo = ctx.combo.as_deref().unwrap_or(requested);
    let names = [requested, combo, &by_alias, &by_id, &target.model];
    let providers = [target.provider.id.as_str(), &target.provider.alias];
    policies.judge(&Asked {
        cost_nano: policies.ask_for_cost().then(|| cost_nano(ctx, target)).flatten(),
        ..ctx.about(&names, &providers, ctx.arrival.endpoint)
    })
}

impl RequestCtx {
    /// Whether the policies refuse this client a model by whatever way it is asked for: those that are for one endpoint, and
    /// limits of cost, do not count. For lists of models.
    pub fn is_blocked(&self, names: &[&str], providers: &[&str]) -> bool {
        let policies = &self.snapshot.policies;
        !policies.is_empty() && !policies.judge(&self.about(names, providers, "")).is_allowed()
    }

    fn about<'a>(&'a self, names: &'a [&'a str], providers: &'a [&'a str], endpoint: &'a str) -> Asked<'a> {
        Asked {
            names,
            providers,
            api_key: self.caller.as_ref().map(|caller| caller.id.as_str()),
            endpoint,
            cost_nano: None,
            now_ms: self.started_ms,
        }
    }
}

/// Takes up what is to be done to the request for the target that is about to be asked.
pub(crate) fn steer(ctx: &mut RequestCtx, target: &Target) -> Result<(), GatewayError> {
    if ctx.snapshot.policies.is_empty() {
        return Ok(());
    }
    let verdict = of_target(ctx, ctx.requested(), target);
    let refused = refuse_if_denied(&verdict);
    let steering = ctx.steering.get_or_insert_default();
    Observed::add_new(&mut steering.observed, &verdict.observed);
    match refused {
        Ok(()) => {
            let before = mem::replace(&mut steering.verdict, verdict);
            add_new(&mut steering.applied, before.applied);
        }
        // The target is not asked, so it does not steer either.
        Err(_) => add_new(&mut steering.applied, verdict.applied),
    }
    refused
}

/// Takes note of the names of policies that applied, each once.
pub(crate) fn add_new(known: &mut Vec<Arc<str>>, applied: impl IntoIterator<Item = Arc<str>>) {
    for name in applied {
        if !known.contains(&name) {
            known.push(name);
        }
    }
}

/// A refusal becomes an error for the client.
pub(crate) fn refuse_if_denied(verdict: &Verdict) -> Result<(), GatewayError> {
    match &verdict.denial {
        None => Ok(()),
        Some(denial) => {
            let reason = denial.reason.clone();
            Err(GatewayError::new(ErrorKind::Permission, "policy_denied", reason).param("model"))
        }
    }
}

/// The labels that an account must have to serve the request: the request's own, and those of policies and combos.
pub(crate) fn wanted_tags(ctx: &RequestCtx) -> SmallVec<[&str; 2]> {
    let own = ctx.required_tags.iter().map(|tag| &**tag);
    let of_policies = ctx.steering.iter().flat_map(|steering| &steering.verdict.required_tags);
    let of_combos = ctx.combos().flat_map(|combo| &combo.rules.tags);
    own.chain(of_policies.chain(of_combos).map(String::as_str)).collect()
}

/// Those that are preferred first, in the order of their preference; the others stay in theirs.
pub(crate) fn prefer<T>(ctx: &RequestCtx, targets: &mut [T], target: impl Fn(&T) -> &Target) {
    let Some(steering) = &ctx.steering else { return };
    let preferred: SmallVec<[_; 4]> =
        steering.verdict.preferred_providers.iter().filter_map(|name| ctx.snapshot.by_prefix(name)).collect();
    if !preferred.is_empty() {
        targets.sort_by_key(|entry| {
            let id = &target(entry).provider.id;
            preferred.iter().position(|wanted| *wanted == id).unwrap_or(preferred.len())
        });
    }
}

/// The same for the targets of a plan.
pub(crate) fn prefer_planned(ctx: &RequestCtx, targets: &mut Targets) {
    if ctx.steering.as_ref().is_some_and(|steering| !steering.verdict.preferred_providers.is_empty()) {
        targets.edit(|list| prefer(ctx, list, |planned| &planned.target));
    }
}

/// What the request would cost at a target, in billionths of a US dollar; `None` = unknown.
pub(crate) fn cost_nano(ctx: &RequestCtx, target: &Target) -> Option<i64> {
    let quote = target.quote(&ctx.snapshot)?;
    if let Some((usage, units)) = ctx.task_estimate() {
        return price::cost_nano_with(&quote.price, &usage, &units);
    }
    let asked = ctx.envelope.as_ref().and_then(|envelope| envelope.max_output_tokens);
    let usage = Usage {
        input_uncached: Some(ctx.estimated_input_tokens()),
        output_total: Some(asked.unwrap_or(USUAL_OUTPUT).min(USUAL_OUTPUT)),
        tier: Some(ctx.asked_tier()),
        ..Usage::default()
    };
    price::cost_nano(&quote.price, &usage)
}
