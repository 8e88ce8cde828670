//! Prices: `/api/pricing`. USD per million tokens, or per unit where the name says so.

mod change;
mod estimate;
mod sync;

use std::collections::BTreeMap;

use omniroute_domain::price::{Overrides, PriceBook, PriceRow};
use omniroute_provider::registry;
use omniroute_provider::spec::AuthKind;
use omniroute_provider::{ProviderId, ProviderSpec};
use serde::ser::Error as _;
use serde::{Deserialize, Serialize, Serializer};
use utoipa::{IntoParams, ToSchema};

use super::model_catalog::known_models;
use crate::auth::Management;
use crate::endpoint::{Filter, Json};
use crate::error::{AdminResult, invalid_field};
use crate::state::Admin;

pub(crate) use change::{change, reset};
pub(crate) use estimate::estimate;
pub(crate) use sync::sync;

/// Prices by alias of the provider and model.
type Table = BTreeMap<String, BTreeMap<String, Price>>;

#[derive(Deserialize, IntoParams)]
pub(crate) struct PricingQuery {
    /// `user`: only what the operator set; `synced`: only what was taken over from a list; `default`: only what is built
    /// in. Else what is in force.
    source: Option<String>,
    /// `list`: an array instead of a map.
    format: Option<String>,
}

/// Prices by alias of the provider and model, or as a list.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum Pricing {
    Map(Table),
    List { prices: Vec<ListedPrice> },
}

#[derive(Serialize, ToSchema)]
pub(crate) struct Price {
    /// Every member, null where there is no price of its own.
    #[serde(flatten, serialize_with = "whole")]
    #[schema(value_type = Object)]
    row: PriceRow,
    /// `default`, `synced` or `user`.
    source: &'static str,
}

/// A row with all its members.
fn whole<S: Serializer>(row: &PriceRow, serializer: S) -> Result<S::Ok, S::Error> {
    let row = serde_json::to_value(row).map_err(S::Error::custom)?;
    serializer.collect_map(PriceRow::MEMBERS.iter().map(|name| (name, &row[name])))
}

#[derive(Serialize, ToSchema)]
pub(crate) struct ListedPrice {
    /// Id of the provider.
    provider: String,
    alias: String,
    model: String,
    #[serde(flatten)]
    #[schema(inline)]
    price: Price,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PricedProvider {
    id: String,
    alias: String,
    name: String,
    auth_type: AuthKindName,
    /// The dialect it is spoken to in.
    format: String,
    models: Vec<PricedModel>,
}

/// How a provider is authenticated to.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum AuthKindName {
    ApiKey,
    ApiKeyOptional,
    None,
    AwsSigv4,
    Gcp,
    ClientCredentials,
    IbmIam,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct PricedModel {
    id: String,
    name: String,
    custom: bool,
}

pub(crate) async fn show(
    access: Management,
    Filter(query): Filter<PricingQuery>,
) -> AdminResult<Json<Pricing>> {
    let admin = &access.admin;
    let book = || async { admin.store.prices().get().await };
    let names = Names::of(admin).await?;
    let map = match query.source.as_deref() {
        None => in_force(admin, &names, &book().await?),
        Some("default") => built_in(admin),
        Some("user") => named(&names, &book().await?.user, "user"),
        Some("synced") => named(&names, &book().await?.synced, "synced"),
        Some(_) => return Err(invalid_field("source", "must be `user`, `synced` or `default`")),
    };
    match query.format.as_deref() {
        None | Some("map") => Ok(Json(Pricing::Map(map))),
        Some("list") => {
            let mut prices = Vec::new();
            for (alias, models) in map {
                let provider = names.id_of(&alias).map_or_else(|| alias.clone(), |id| id.to_string());
                prices.extend(models.into_iter().map(|(model, price)| ListedPrice {
                    provider: provider.clone(),
                    alias: alias.clone(),
                    model,
                    price,
                }));
            }
            Ok(Json(Pricing::List { prices }))
        }
        Some(_) => Err(invalid_field("format", "must be `map` or `list`")),
    }
}

pub(crate) async fn defaults(access: Management) -> AdminResult<Json<Table>> {
    Ok(Json(built_in(&access.admin)))
}

pub(crate) async fn models(access: Management) -> AdminResult<Json<BTreeMap<String, PricedProvider>>> {
    let admin = &access.admin;
    let snapshot = admin.live.load();
    let mut providers = BTreeMap::new();
    for spec in specs(admin) {
        let listed = snapshot
            .provider(&spec.id)
            .map_or_else(|| known_models(admin, spec), |state| state.models.clone());
        let models = listed.into_iter().map(|model| PricedModel {
            name: model.name.unwrap_or_else(|| model.id.clone()),
            id: model.id,
            custom: model.custom,
        });
        providers.insert(spec.alias.clone(), priced(spec, models.collect()));
    }
    for state in snapshot.providers().into_iter().filter(|state| state.is_node) {
        let models = state.models.iter().map(|model| PricedModel {
            id: model.id.clone(),
            name: model.name.clone().unwrap_or_else(|| model.id.clone()),
            custom: model.custom,
        });
        providers.insert(state.alias.clone(), priced(state.provider.spec(), models.collect()));
    }
    Ok(Json(providers))
}

fn specs(admin: &Admin) -> impl Iterator<Item = &ProviderSpec> {
    let specs = admin.catalog.providers().iter().map(AsRef::as_ref);
    specs.filter(|spec: &&ProviderSpec| spec.id.as_str() != registry::SIM)
}

fn built_in(admin: &Admin) -> Table {
    let rows = |spec: &ProviderSpec| -> BTreeMap<String, Price> {
        let rows = admin.catalog.models_of(&spec.id).iter();
        rows.map(|row| (row.model.clone(), Price { row: PriceRow::from(row), source: "default" })).collect()
    };
    specs(admin).map(|spec| (spec.alias.clone(), rows(spec))).filter(|(_, rows)| !rows.is_empty()).collect()
}

/// Everything, each row completed by what is below it.
fn in_force(admin: &Admin, names: &Names, book: &PriceBook) -> Table {
    let mut table = built_in(admin);
    for (rows, source) in [(&book.synced, "synced"), (&book.user, "user")] {
        for (id, models) in rows {
            let shown = table.entry(names.alias_of(id)).or_default();
            for (model, row) in models {
                let below = shown.get(model).map(|price| price.row.clone());
                let below = below.or_else(|| admin.catalog.model(id, model).map(PriceRow::from));
                let row = row.over(&below.unwrap_or_default());
                shown.insert(model.clone(), Price { row, source });
            }
        }
    }
    table
}

/// Rows as they were set.
fn named(names: &Names, rows: &Overrides, source: &'static str) -> Table {
    let shown = |models: &BTreeMap<String, PriceRow>| {
        models.iter().map(|(model, row)| (model.clone(), Price { row: row.clone(), source })).collect()
    };
    rows.iter().map(|(id, models)| (names.alias_of(id), shown(models))).collect()
}

/// The names of providers and nodes, whether they are in use or not.
struct Names {
    /// Every accepted name.
    ids: BTreeMap<String, ProviderId>,
    /// The one that is shown.
    aliases: BTreeMap<ProviderId, String>,
}

impl Names {
    async fn of(admin: &Admin) -> AdminResult<Self> {
        let (mut ids, mut aliases) = (BTreeMap::new(), BTreeMap::new());
        for spec in admin.catalog.providers() {
            let names =
                [spec.id.as_str(), &spec.alias].into_iter().chain(spec.aliases.iter().map(String::as_str));
            ids.extend(names.map(|name| (name.to_owned(), spec.id.clone())));
            aliases.insert(spec.id.clone(), spec.alias.clone());
        }
        for node in admin.store.nodes().list().await? {
            ids.entry(node.prefix.clone()).or_insert_with(|| node.id.clone());
            ids.entry(node.id.to_string()).or_insert_with(|| node.id.clone());
            aliases.insert(node.id, node.prefix);
        }
        Ok(Self { ids, aliases })
    }

    fn id_of(&self, name: &str) -> Option<&ProviderId> {
        self.ids.get(name)
    }

    /// The prefix of models; the id of a provider that is gone.
    fn alias_of(&self, id: &ProviderId) -> String {
        self.aliases.get(id).cloned().unwrap_or_else(|| id.to_string())
    }
}

fn priced(spec: &ProviderSpec, models: Vec<PricedModel>) -> PricedProvider {
    PricedProvider {
        id: spec.id.to_string(),
        alias: spec.alias.clone(),
        name: spec.name.clone(),
        auth_type: match spec.auth.kind {
            AuthKind::ApiKey => AuthKindName::ApiKey,
            AuthKind::ApiKeyOptional => AuthKindName::ApiKeyOptional,
            AuthKind::None => AuthKindName::None,
            AuthKind::AwsSigv4 => AuthKindName::AwsSigv4,
            AuthKind::Gcp => AuthKindName::Gcp,
            AuthKind::ClientCredentials => AuthKindName::ClientCredentials,
            AuthKind::IbmIam => AuthKindName::IbmIam,
        },
        format: spec.dialect.clone(),
        models,
    }
}
