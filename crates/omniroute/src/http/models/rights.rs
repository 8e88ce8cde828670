//! Which models a client sees: those that its key may ask for and that no policy refuses.

use omniroute_domain::combo::ComboState;
use omniroute_domain::resolve::Target;
use omniroute_domain::snapshot::ConnectionState;
use omniroute_engine::RequestCtx;

use super::{AUTO, COMBO, Entry};

/// Leaves the entries that the client may ask for.
pub(super) fn keep(ctx: &RequestCtx, entries: &mut Vec<Entry>) {
    entries.retain(|entry| {
        if entry.owned_by == AUTO {
            // Whoever may use some models alone is not told of what chooses among all.
            let may_name = ctx.caller.as_ref().is_none_or(|caller| caller.allows_model(&[&entry.id]));
            return may_name && !ctx.is_blocked(&[&entry.id], &[]);
        }
        match ctx.snapshot.combo(&entry.id).filter(|_| entry.owned_by == COMBO) {
            Some(combo) => may_ask(ctx, combo),
            None => may_use(ctx, entry),
        }
    });
}

/// Whether the client may ask for a model of a provider, under any of its names.
fn may_use(ctx: &RequestCtx, entry: &Entry) -> bool {
    let snapshot = &ctx.snapshot;
    let prefix = entry.id.split_once('/').map_or(entry.id.as_str(), |(prefix, _)| prefix);
    let id = snapshot.by_prefix(prefix);
    let by_id = id.map_or_else(|| entry.id.clone(), |id| format!("{id}/{}", entry.root));
    let alias = id.and_then(|id| snapshot.provider(id)).map_or(prefix, |provider| &provider.alias);
    let by_alias = format!("{alias}/{}", entry.root);
    let names = [entry.id.as_str(), &entry.root, &by_id, &by_alias];
    // One whose accounts are all kept from it, or from the key, answers nothing.
    let state = id.and_then(|id| snapshot.provider(id));
    let has_account = state.is_none_or(|provider| {
        let may_use = |account: &ConnectionState| {
            ctx.caller.as_ref().is_none_or(|caller| caller.allows_connection(&account.id))
        };
        provider.connections.iter().any(|account| may_use(account) && !account.excludes(&entry.root))
    });
    has_account
        && ctx.caller.as_ref().is_none_or(|caller| caller.allows_model(&names))
        && !ctx.is_blocked(&names, &[id.map_or(prefix, |id| id.as_str()), alias])
}

/// Whether the client may ask for a combo, and would reach any of its targets.
fn may_ask(ctx: &RequestCtx, combo: &ComboState) -> bool {
    let is_listed = ctx.caller.as_ref().is_some_and(|caller| caller.lists_combo(&combo.name));
    let may_name = ctx.caller.as_ref().is_none_or(|caller| caller.allows_combo(&combo.name));
    let reaches = |target: &Target| {
        let (by_alias, by_id) = (target.full_name(), format!("{}/{}", target.provider.id, target.model));
        let names = [&*combo.name, &target.model, &by_alias, &by_id];
        let is_allowed = ctx.caller.as_ref().is_none_or(|caller| match is_listed {
            true => !caller.denies_model(&names[1..]),
            false => caller.allows_model(&names),
        });
        is_allowed && !ctx.is_blocked(&names, &[target.provider.id.as_str(), &target.provider.alias])
    };
    let targets = combo.targets(&ctx.snapshot);
    let leads_on = match targets.is_empty() {
        true => ctx.caller.is_none() || is_listed,
        false => targets.iter().any(|target| reaches(target)),
    };
    may_name && leads_on && !ctx.is_blocked(&[&combo.name], &[])
}
