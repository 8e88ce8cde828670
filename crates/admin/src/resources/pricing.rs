//! Prices: `/api/pricing`. USD per million tokens, or per unit where the name says so.

use std::collections::BTreeMap;

use omniroute_domain::price::PriceRow;
use omniroute_provider::ProviderSpec;
use omniroute_provider::registry;
use omniroute_provider::spec::AuthKind;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::model_catalog::known_models;
use crate::auth::Management;
use crate::endpoint::{Filter, Json};
use crate::error::{AdminResult, invalid_field};
use crate::state::Admin;

#[derive(Deserialize, IntoParams)]
pub(crate) struct PricingQuery {
    /// `user`: only what the operator set; `default`: only what is built in.
    source: Option<String>,
    /// `list`: an array instead of a map.
    format: Option<String>,
}

/// Prices by alias of the provider and model, or as a list.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum Pricing {
    Map(BTreeMap<String, BTreeMap<String, Price>>),
    List { prices: Vec<ListedPrice> },
}

#[derive(Serialize, ToSchema)]
pub(crate) struct Price {
    #[serde(flatten)]
    #[schema(value_type = Object)]
    row: PriceRow,
    /// `default` or `user`.
    source: &'static str,
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
    let map = match query.source.as_deref() {
        None | Some("default") => built_in(&access.admin),
        // Nothing can be set yet, so nothing is.
        Some("user") => BTreeMap::new(),
        Some(_) => return Err(invalid_field("source", "must be `user` or `default`")),
    };
    match query.format.as_deref() {
        None | Some("map") => Ok(Json(Pricing::Map(map))),
        Some("list") => {
            let id_of = |alias: &str| access.admin.catalog.provider(alias).map(|spec| spec.id.to_string());
            let mut prices = Vec::new();
            for (alias, models) in map {
                let provider = id_of(&alias).unwrap_or_else(|| alias.clone());
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

pub(crate) async fn defaults(
    access: Management,
) -> AdminResult<Json<BTreeMap<String, BTreeMap<String, Price>>>> {
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

fn built_in(admin: &Admin) -> BTreeMap<String, BTreeMap<String, Price>> {
    let rows = |spec: &ProviderSpec| -> BTreeMap<String, Price> {
        let rows = admin.catalog.models_of(&spec.id).iter();
        rows.map(|row| (row.model.clone(), Price { row: PriceRow::from(row), source: "default" })).collect()
    };
    specs(admin).map(|spec| (spec.alias.clone(), rows(spec))).filter(|(_, rows)| !rows.is_empty()).collect()
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
