//! The same model at other providers, for when the one that was asked for is out.

use std::sync::Arc;

use omniroute_domain::fallback;
use omniroute_domain::resolve::{self, ResolveError, Target};
use omniroute_provider::Retry;

use crate::admit;
use crate::attempt::Failed;
use crate::ctx::RequestCtx;
use crate::policy;
use crate::task;

/// Who stands in for the target of a direct request, in the operator's order. Nobody does where the request or its route
/// names the provider's account or what it keeps.
pub(crate) fn others(ctx: &RequestCtx, target: &Target) -> Vec<Arc<Target>> {
    let is_bound = target.connection_name.is_some() || ctx.pinned.is_some() || ctx.arrival.provider.is_some();
    if is_bound || ctx.snapshot.chains.is_empty() {
        return Vec::new();
    }
    let by_alias = target.full_name();
    let by_id = format!("{}/{}", target.provider.id, target.model);
    let names = [ctx.requested(), &by_alias, &by_id, &target.model];
    let others = fallback::targets(&ctx.snapshot, &names, &target.model, Some(&target.provider));
    let mut others = allowed(ctx, others);
    task::keep_able_others(ctx, &mut others);
    others
}

/// Who stands in where the provider of the asked model has no account at all.
pub(crate) fn instead(ctx: &RequestCtx, requested: &str, error: &ResolveError) -> Option<Arc<Target>> {
    let is_out = match error {
        ResolveError::NoCredentials { .. } => true,
        ResolveError::NotFound { inactive, .. } => !inactive.is_empty(),
        _ => false,
    };
    if !is_out || ctx.snapshot.chains.is_empty() {
        return None;
    }
    // Another name that the operator gave it, and other prefixes of its provider, lead to the same model.
    let meant = resolve::meaning(&ctx.snapshot, requested);
    let name = meant.as_str();
    let prefixed =
        name.split_once('/').and_then(|(prefix, model)| Some((ctx.snapshot.by_prefix(prefix)?, model)));
    let (by_id, model) = match prefixed {
        Some((id, model)) => (format!("{id}/{model}"), model),
        None => (name.to_owned(), name),
    };
    let others = fallback::targets(&ctx.snapshot, &[requested, name, &by_id, model], model, None);
    let mut others = allowed(ctx, others);
    task::keep_able_others(ctx, &mut others);
    others.into_iter().next()
}

/// Those that the key may use.
fn allowed(ctx: &RequestCtx, targets: Vec<Target>) -> Vec<Arc<Target>> {
    let mut targets: Vec<Arc<Target>> = targets
        .into_iter()
        .filter(|target| admit::may_use(ctx, ctx.requested(), target))
        .map(Arc::new)
        .collect();
    policy::prefer(ctx, &mut targets, |target| target);
    targets
}

/// Whether a target came to nothing for a reason that another provider need not share.
pub(crate) fn is_out(failed: &Failed) -> bool {
    !failed.is_request && failed.last.as_deref().is_none_or(|failure| failure.retry == Retry::Elsewhere)
}
