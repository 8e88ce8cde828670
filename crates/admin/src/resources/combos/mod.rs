//! Combos, one name for several targets: `/api/combos`.

mod auto;
mod config;
mod defaults;
mod draft;
mod entries;
mod metrics;
mod nesting;
mod simulate;
mod steps;
mod test;
mod view;

use std::sync::Arc;

use omniroute_domain::combo::ComboState;
use omniroute_domain::entity::{Combo, ComboId};
use omniroute_domain::snapshot::Snapshot;
use omniroute_store::Surroundings;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

pub(crate) use defaults::{show as show_defaults, update as update_defaults};
use draft::{ComboPatch, apply};
pub(crate) use draft::{aliases_of, usual_depth};
pub(crate) use entries::{Entry, entries};
use metrics::begin_where_tracked;
pub(crate) use metrics::{clear as clear_metrics, show as metrics};
pub(crate) use nesting::Nesting;
pub(crate) use simulate::simulate;
pub(crate) use test::test;
use view::{ComboView, view};

use super::Done;
use crate::auth::Management;
use crate::endpoint::{Answer, Body, Created, Id, IfMatch, Json, Version, Versioned};
use crate::error::{AdminResult, conflict, not_found};
use crate::state::Admin;
use crate::validation::Problems;

#[derive(Serialize, ToSchema)]
pub(crate) struct ComboList {
    combos: Vec<ComboView>,
}

#[derive(Deserialize, ToSchema)]
pub(crate) struct ComboOrder {
    /// Ids in the order that is wanted; the others follow.
    ids: Vec<String>,
}

pub(crate) async fn list(access: Management) -> AdminResult<Json<ComboList>> {
    all(&access.admin).await
}

pub(crate) async fn show(access: Management, Id(id): Id) -> AdminResult<Versioned<Json<ComboView>>> {
    shown(find(&access.admin, &id).await?, Json)
}

pub(crate) async fn create(
    access: Management,
    Body(draft): Body<ComboPatch>,
) -> AdminResult<Versioned<Created<ComboView>>> {
    let admin = &access.admin;
    let mut problems = Problems::default();
    if draft.name.is_none() {
        problems.add("name", "is required");
    }
    if draft.models.is_none() {
        problems.add("models", "is required: a list of models or names of combos");
    }
    problems.done()?;
    let strategy = defaults::strategy_in_force(&admin.live.load().settings);
    let combo = Combo::new(Uuid::now_v7().to_string(), "", strategy, Vec::new(), access.now_ms);
    let make = |combo: &mut Combo, around: &Surroundings| apply(admin, combo, around, draft);
    let combo = admin.store.combos().insert(combo, make).await??;
    access.reload().await?;
    access.audit("combo.created", "combo", combo.id.as_str(), &combo.name).await;
    shown(combo, Created)
}

pub(crate) async fn update(
    access: Management,
    Id(id): Id,
    versions: IfMatch,
    Body(patch): Body<ComboPatch>,
) -> AdminResult<Versioned<Json<ComboView>>> {
    let admin = &access.admin;
    let before = admin.live.load().clone();
    let change = |combo: &mut Combo, around: &Surroundings| {
        versions.check("combo", &version(combo)?)?;
        combo.updated_at = access.now_ms;
        apply(admin, combo, around, patch)
    };
    let combo = admin.store.combos().change(&ComboId::from(id.as_str()), change).await??;
    access.reload().await?;
    begin_where_tracked(&access, &before).await?;
    access.audit("combo.updated", "combo", &id, &combo.name).await;
    shown(combo, Json)
}

pub(crate) async fn delete(access: Management, Id(id): Id, versions: IfMatch) -> AdminResult<Json<Done>> {
    let combo = find(&access.admin, &id).await?;
    let check = |combo: &Combo| versions.check("combo", &version(combo)?);
    if !access.admin.store.combos().delete(&combo.id, check).await?? {
        return Err(not_found("Combo"));
    }
    access.reload().await?;
    access.audit("combo.deleted", "combo", &id, &combo.name).await;
    Ok(Json(Done::new()))
}

pub(crate) async fn reorder(
    access: Management,
    Body(order): Body<ComboOrder>,
) -> AdminResult<Json<ComboList>> {
    let admin = &access.admin;
    let known = admin.store.combos().list().await?;
    let mut problems = Problems::default();
    for (at, id) in order.ids.iter().enumerate() {
        if known.iter().all(|combo| combo.id.as_str() != id) {
            problems.add(&format!("ids[{at}]"), format!("`{id}` is no combo's id"));
        } else if let Some(first) = order.ids[..at].iter().position(|earlier| earlier == id) {
            problems
                .add(&format!("ids[{at}]"), format!("`{id}` is ids[{first}] already; a combo has one place"));
        }
    }
    problems.done()?;
    let ids: Vec<ComboId> = order.ids.into_iter().map(ComboId::from).collect();
    admin.store.combos().reorder(&ids, access.now_ms).await?;
    access.reload().await?;
    access.audit("combo.updated", "combo", "*", "order").await;
    all(admin).await
}

/// One combo as an answer, with its version.
fn shown<A: Answer>(combo: Combo, answer: impl FnOnce(ComboView) -> A) -> AdminResult<Versioned<A>> {
    let shown = view(combo);
    Ok(Versioned(Version::of(&shown)?, answer(shown)))
}

/// The version of a combo.
fn version(combo: &Combo) -> AdminResult<Version> {
    Version::of(&view(combo.clone()))
}

async fn all(admin: &Admin) -> AdminResult<Json<ComboList>> {
    let combos = admin.store.combos().list().await?;
    Ok(Json(ComboList { combos: combos.into_iter().map(view).collect() }))
}

/// The combo of this name that requests are served by; `to` is what it is wanted for.
async fn in_force<'s>(
    admin: &Admin,
    snapshot: &'s Snapshot,
    name: &str,
    to: &str,
) -> AdminResult<&'s Arc<ComboState>> {
    let name = name.strip_prefix("combo/").unwrap_or(name);
    if let Some(combo) = snapshot.combo(name) {
        return Ok(combo);
    }
    let known = admin.store.combos().list().await?;
    Err(match known.iter().any(|combo| combo.name == name) {
        true => conflict(format!("the combo is switched off (`isActive`); switch it on to {to} it")),
        false => not_found("Combo"),
    })
}

async fn find(admin: &Admin, id: &str) -> AdminResult<Combo> {
    let combos = admin.store.combos().list().await?;
    combos.into_iter().find(|combo| combo.id.as_str() == id).ok_or_else(|| not_found("Combo"))
}
