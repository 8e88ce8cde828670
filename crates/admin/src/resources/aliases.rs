//! Other names for models and combos: `/api/models/alias`.

use std::collections::BTreeMap;

use omniroute_domain::alias::{MAX_ALIAS_LENGTH, MAX_ALIASES, is_pattern};
use omniroute_domain::resolve::{self, MAX_MODEL_LENGTH};
use omniroute_domain::routing::auto::variant_names;
use omniroute_store::Surroundings;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Done;
use super::combos::{Nesting, aliases_of, usual_depth};
use crate::auth::Management;
use crate::endpoint::{Body, Filter, Json};
use crate::error::{AdminResult, conflict, not_found, unprocessable};
use crate::validation::Problems;

#[derive(Serialize, ToSchema)]
pub(crate) struct AliasList {
    /// What each stands for, by name.
    aliases: BTreeMap<String, String>,
}

#[derive(Deserialize, ToSchema)]
pub(crate) struct AliasDraft {
    /// `[A-Za-z0-9._:@/-]{1,128}`; `*` and `?` make a pattern of it.
    alias: String,
    /// A model as a client would ask for it, or a combo; its `*` is replaced by what that of the pattern matched.
    model: String,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct AliasAnswer {
    success: bool,
    alias: String,
    model: String,
}

#[derive(Deserialize, IntoParams)]
pub(crate) struct AliasQuery {
    /// Which.
    alias: String,
}

pub(crate) async fn list(access: Management) -> AdminResult<Json<AliasList>> {
    let aliases = access.admin.store.aliases().list().await?;
    Ok(Json(AliasList { aliases: aliases.into_iter().collect() }))
}

pub(crate) async fn put(access: Management, Body(draft): Body<AliasDraft>) -> AdminResult<Json<AliasAnswer>> {
    let AliasDraft { alias, model } = draft;
    let mut problems = Problems::default();
    let is_plain = |byte: u8| {
        byte.is_ascii_alphanumeric()
            || matches!(byte, b'.' | b'_' | b':' | b'@' | b'/' | b'-' | b'*' | b'?' | b'[' | b']')
    };
    if !(1..=MAX_ALIAS_LENGTH).contains(&alias.len()) || !alias.bytes().all(is_plain) {
        problems.add("alias", "must have 1 to 128 characters of A-Z, a-z, 0-9 and . _ : @ / - * ?");
    }
    if model.trim() != model || model.is_empty() || model.len() > MAX_MODEL_LENGTH {
        problems.add("model", "must have 1 to 256 bytes without spaces around them");
    } else if model.contains('*') && !alias.contains('*') {
        problems.add("model", "has a `*`, but there is none in the alias that it could stand for");
    } else if model.matches('*').count() > 1 {
        problems.add("model", "may have one `*`");
    }
    problems.done()?;
    if variant_names().contains(&alias) {
        let message = format!("`{alias}` is a combo that every gateway has; choose another");
        return Err(conflict(message));
    }
    let check = |around: &Surroundings| {
        let others = &around.aliases;
        if around.combos.iter().any(|combo| combo.name.eq_ignore_ascii_case(&alias)) {
            return Err(conflict(format!("`{alias}` is the name of a combo; choose another")));
        }
        let is_new = others.iter().all(|(other, _)| *other != alias);
        if is_new && others.len() >= MAX_ALIASES {
            return Err(conflict(format!("there may be {MAX_ALIASES} aliases; delete one first")));
        }
        check_chain(&alias, &model, others)?;
        check_nesting("model", &alias, Some(&model), around)
    };
    access.admin.store.aliases().put((&alias, &model), access.now_ms, check).await??;
    access.reload().await?;
    access.audit("alias.set", "alias", &alias, &model).await;
    Ok(Json(AliasAnswer { success: true, alias, model }))
}

pub(crate) async fn delete(access: Management, Filter(query): Filter<AliasQuery>) -> AdminResult<Json<Done>> {
    let AliasQuery { alias } = query;
    let check = |around: &Surroundings| check_nesting("alias", &alias, None, around);
    if !access.admin.store.aliases().delete(&alias, check).await?? {
        return Err(not_found("Alias"));
    }
    access.reload().await?;
    access.audit("alias.deleted", "alias", &alias, "").await;
    Ok(Json(Done::new()))
}

/// An alias may lead to another one, but not further and not back. What stands behind a name (`(high)`, `[1m]`) is no part of it,
/// and with that an alias may stand for its own name.
fn check_chain(alias: &str, model: &str, others: &[(String, String)]) -> AdminResult<()> {
    if is_pattern(alias) {
        return Ok(());
    }
    if alias == model {
        return Err(unprocessable("model", format!("`{alias}` would stand for itself")));
    }
    let next = |name: &str| {
        let own = (name == alias).then_some(model);
        let found =
            own.or_else(|| others.iter().find(|(other, _)| other == name).map(|(_, target)| target.as_str()));
        found.map(resolve::bare_name).filter(|target| *target != name)
    };
    let starts = others.iter().map(|(other, _)| other.as_str()).chain([alias]);
    for start in starts.filter(|start| !is_pattern(start)) {
        let Some(second) = next(start).and_then(next) else { continue };
        if second == start || next(second).is_some() {
            let message = format!("`{start}` would lead over two aliases or back to itself; one is followed");
            return Err(unprocessable("model", message));
        }
    }
    Ok(())
}

/// Combos whose entries name an alias lead to the combo that it stands for: none within itself, none too deep. Without a `model`
/// the alias is gone, and a pattern may be what the name means then.
fn check_nesting(field: &str, alias: &str, model: Option<&str>, around: &Surroundings) -> AdminResult<()> {
    let mut pairs = around.aliases.clone();
    match (pairs.iter().position(|(other, _)| other == alias), model) {
        (Some(at), Some(model)) => model.clone_into(&mut pairs[at].1),
        (Some(at), None) => drop(pairs.remove(at)),
        (None, Some(model)) => pairs.push((alias.to_owned(), model.to_owned())),
        (None, None) => {}
    }
    let (before, after) = (aliases_of(&around.aliases), aliases_of(&pairs));
    let nesting = Nesting::by_aliases(&around.combos, &before, &after);
    let usual = usual_depth(&around.combo_defaults);
    nesting.check(usual).map_err(|message| unprocessable(field, format!("`{alias}` is in combos: {message}")))
}
