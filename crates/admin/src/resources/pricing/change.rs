//! Setting prices, and going back to the built-in ones.

use std::collections::BTreeMap;

use omniroute_domain::price::{MAX_ROWS, Overrides, PriceRow, TierRow};
use omniroute_domain::resolve::MAX_MODEL_LENGTH;
use omniroute_provider::ProviderId;
use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};

use super::{Names, Table, in_force, named};
use crate::auth::Management;
use crate::endpoint::{Body, Filter, Ignored, Json};
use crate::error::{AdminResult, invalid_field};
use crate::provider_lookup::not_kept;
use crate::validation::Problems;

/// Prices to be set, in USD per million tokens or per unit. What is absent stays as it was set before; null goes back to
/// what is built in.
#[derive(Deserialize, ToSchema, Clone)]
#[serde(transparent)]
#[schema(value_type = Object)]
pub(crate) struct PricePatch(Map<String, Value>);

#[derive(Deserialize, IntoParams)]
pub(crate) struct ResetQuery {
    /// Only of this provider: its id, an alias, or the prefix of a node.
    provider: Option<String>,
    /// Only of this model of it.
    model: Option<String>,
}

/// Other spellings of members.
const SPELLINGS: [(&str, &str); 6] = [
    ("cached_read", "cached"),
    ("cache_read", "cached"),
    ("cache_write", "cache_creation"),
    ("cache_write_1h", "cache_creation_1h"),
    ("per_image", "image"),
    ("per_character", "per_character_in"),
];

pub(crate) async fn change(
    access: Management,
    ignored: Ignored,
    Body(patch): Body<BTreeMap<String, BTreeMap<String, PricePatch>>>,
) -> AdminResult<Json<Table>> {
    let admin = &access.admin;
    let names = Names::of(admin).await?;
    let mut problems = Problems::default();
    let mut rows = Vec::new();
    for (provider, models) in patch {
        let Some(id) = names.id_of(&provider) else {
            problems.add(&provider, "is neither a provider, nor an alias of one, nor the prefix of a node");
            continue;
        };
        for (model, PricePatch(members)) in models {
            let field = format!("{provider}.{model}");
            if model.trim() != model || model.is_empty() || model.len() > MAX_MODEL_LENGTH {
                problems.add(&field, "the model's name must have 1 to 256 bytes without spaces around them");
            }
            let members = spelt(members, &field, &ignored);
            rows.push(Sent { field, provider: id.clone(), model, members });
        }
    }
    problems.done()?;
    let count = rows.len();
    let prices = admin.store.prices();
    let changed = prices.change(|book| {
        let mut problems = Problems::default();
        for Sent { field, provider, model, members } in rows {
            let models = book.user.entry(provider).or_default();
            match merged(models.get(&model), members) {
                Ok(row) => {
                    for problem in row.problems() {
                        problems.add(&field, problem);
                    }
                    models.insert(model, row);
                }
                Err((member, message)) => problems.add(&format!("{field}.{member}"), message),
            }
        }
        clear_empty(&mut book.user);
        if book.user.values().map(BTreeMap::len).sum::<usize>() > MAX_ROWS {
            problems.add("body", format!("there may be {MAX_ROWS} prices; reset some first"));
        }
        problems.done().map(|()| book.user.clone())
    });
    let user = changed.await.map_err(not_kept)??;
    access.reload().await?;
    access.audit("pricing.updated", "pricing", "prices", &format!("{count} rows")).await;
    Ok(Json(named(&names, &user, "user")))
}

pub(crate) async fn reset(access: Management, Filter(query): Filter<ResetQuery>) -> AdminResult<Json<Table>> {
    let admin = &access.admin;
    let names = Names::of(admin).await?;
    let provider = match (&query.provider, &query.model) {
        (None, Some(_)) => return Err(invalid_field("provider", "is required where a model is named")),
        (None, None) => None,
        (Some(name), _) => {
            let unknown =
                || invalid_field("provider", "is neither a provider, nor an alias, nor the prefix of a node");
            // Prices of a node that is gone can still be taken away, by its id.
            let stored = || admin.live.load().prices.user.contains_key(&ProviderId::from(name.as_str()));
            let known = names.id_of(name).cloned();
            Some(known.or_else(|| stored().then(|| ProviderId::from(name.as_str()))).ok_or_else(unknown)?)
        }
    };
    let prices = admin.store.prices();
    let changed = prices.change(|book| {
        for rows in [&mut book.user, &mut book.synced] {
            match (&provider, &query.model) {
                (None, _) => rows.clear(),
                (Some(provider), None) => drop(rows.remove(provider)),
                (Some(provider), Some(model)) => {
                    if let Some(models) = rows.get_mut(provider) {
                        models.remove(model);
                    }
                }
            }
            clear_empty(rows);
        }
        AdminResult::Ok(book.clone())
    });
    let book = changed.await??;
    access.reload().await?;
    let what = match (&query.provider, &query.model) {
        (Some(provider), Some(model)) => format!("{provider}/{model}"),
        (Some(provider), None) => provider.clone(),
        (None, _) => "everything".to_owned(),
    };
    access.audit("pricing.reset", "pricing", "prices", &what).await;
    Ok(Json(in_force(admin, &names, &book)))
}

/// A row as it was sent, and where it stands.
struct Sent {
    field: String,
    provider: ProviderId,
    model: String,
    members: Map<String, Value>,
}

/// Members by the names that rows have; those that are none are told. Where a price comes from is shown with it, and may come
/// back with it.
fn spelt(members: Map<String, Value>, field: &str, ignored: &Ignored) -> Map<String, Value> {
    let name_of = |name: String| {
        let own = SPELLINGS.iter().find(|(other, _)| *other == name).map(|(_, own)| (*own).to_owned());
        own.unwrap_or(name)
    };
    let mut spelt = Map::new();
    for (sent, mut value) in members {
        let name = name_of(sent.clone());
        if !PriceRow::MEMBERS.contains(&name.as_str()) {
            ignored.add(format!("{field}.{sent}"));
            continue;
        }
        for (at, tier) in value.as_array_mut().into_iter().flatten().enumerate() {
            let Some(members) = tier.as_object_mut() else { continue };
            members.retain(|member, _| {
                let is_known = TierRow::MEMBERS.contains(&member.as_str());
                if !is_known {
                    ignored.add(format!("{field}.{sent}[{at}].{member}"));
                }
                is_known
            });
        }
        spelt.insert(name, value);
    }
    spelt
}

/// A stored row with what was sent laid over it; else the member that cannot be, and why.
fn merged(stored: Option<&PriceRow>, patch: Map<String, Value>) -> Result<PriceRow, (String, String)> {
    let stored = stored.map(serde_json::to_value).transpose();
    let stored = stored.map_err(|error| ("row".to_owned(), error.to_string()))?;
    let mut members = match stored {
        Some(Value::Object(members)) => members,
        _ => Map::new(),
    };
    for (name, value) in patch {
        if value.is_null() {
            members.remove(&name);
        } else {
            members.insert(name, value);
        }
    }
    serde_path_to_error::deserialize(Value::Object(members))
        .map_err(|error| (error.path().to_string(), error.into_inner().to_string()))
}

/// A row that says nothing is no row.
fn clear_empty(rows: &mut Overrides) {
    for models in rows.values_mut() {
        models.retain(|_, row| *row != PriceRow::default());
    }
    rows.retain(|_, models| !models.is_empty());
}
