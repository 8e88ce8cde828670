//! How combos are carried out that say nothing else: `/api/settings/combo-defaults`.

use std::collections::BTreeMap;

use omniroute_domain::combo;
use omniroute_domain::entity::{ComboConfig, RuntimeSettings};
use omniroute_domain::routing;
use omniroute_store::Surroundings;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::config::{ComboDefaultValues, ComboDefaultValuesPatch, ConfigView, choose};
use super::draft::{aliases_of, check_strategy, usual_depth};
use super::metrics::begin_where_tracked;
use super::nesting::too_deep_by;
use crate::auth::Management;
use crate::endpoint::{Body, Json};
use crate::error::{AdminResult, unprocessable};
use crate::resources::present;
use crate::state::Admin;
use crate::validation::Problems;

/// Most providers with a say of their own.
const MAX_OVERRIDES: usize = 500;

/// How combos are carried out that say nothing else.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ComboDefaults {
    /// What is in force: what the operator set, over what is built in.
    combo_defaults: ComboDefaultValues,
    /// What the operator set. Only this is stored; all else is as built in, also where a later version has it otherwise.
    own: OwnComboDefaults,
    /// What is built in, and in force again where null takes back what was set.
    built_in: ComboDefaultValues,
    /// Where targets of one provider differ from that, by the provider's id. What a combo says itself counts more.
    provider_overrides: BTreeMap<String, ConfigView>,
}

/// What the operator set; absent is what is as built in.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct OwnComboDefaults {
    #[serde(skip_serializing_if = "Option::is_none")]
    strategy: Option<String>,
    #[serde(flatten)]
    #[schema(inline)]
    config: ConfigView,
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ComboDefaultsPatch {
    /// What is given here changes, to what is built in where it is null; the rest stays. A value that is in force already is no
    /// choice, so that all that is shown may come back with one change in it. Null: all as it is built in.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<ComboDefaultValuesPatch>)]
    combo_defaults: Option<Option<ComboDefaultValuesPatch>>,
    /// Replaces all that is set for a provider; null takes it away. Null for all takes all of them away.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<BTreeMap<String, ConfigView>>)]
    provider_overrides: Option<Option<BTreeMap<String, Option<ConfigView>>>>,
}

pub(crate) async fn show(access: Management) -> AdminResult<Json<ComboDefaults>> {
    let settings = access.admin.store.settings().get().await?;
    Ok(Json(view(settings)))
}

pub(crate) async fn update(
    access: Management,
    Body(patch): Body<ComboDefaultsPatch>,
) -> AdminResult<Json<ComboDefaults>> {
    let snapshot = access.admin.live.load().clone();
    let merged =
        |settings: &mut RuntimeSettings, around: &Surroundings| merge(settings, patch, around, &access.admin);
    let change = access.change_settings_among(merged).await?;
    begin_where_tracked(&access, &snapshot).await?;
    access.audit("settings.updated", "settings", "comboDefaults", "").await;
    Ok(Json(view(change.after)))
}

fn merge(
    settings: &mut RuntimeSettings,
    patch: ComboDefaultsPatch,
    around: &Surroundings,
    admin: &Admin,
) -> AdminResult<()> {
    let mut problems = Problems::default();
    let depth_before = usual_depth(&settings.combo_defaults);
    if let Some(None) = patch.combo_defaults {
        settings.combo_strategy = None;
        settings.combo_defaults = ComboConfig::default();
    }
    if let Some(Some(config)) = patch.combo_defaults {
        if let Some(strategy) = &config.strategy {
            let known = strategy
                .as_ref()
                .and_then(|sent| check_strategy("comboDefaults.strategy", sent, &mut problems));
            let in_force = Some(strategy_in_force(settings));
            choose(&mut settings.combo_strategy, known.map(str::to_owned), &in_force);
        }
        config.said().check_names("comboDefaults", admin, &mut problems);
        let config = config.over(std::mem::take(&mut settings.combo_defaults));
        // What stays must fit what changes.
        ConfigView::from(config.clone()).check("comboDefaults", &mut problems);
        settings.combo_defaults = config;
    }
    let snapshot = admin.live.load().clone();
    if let Some(None) = patch.provider_overrides {
        settings.provider_overrides.clear();
    }
    for (name, config) in patch.provider_overrides.flatten().unwrap_or_default() {
        let field = format!("providerOverrides.{name}");
        let known = snapshot.by_prefix(&name).cloned();
        let Some(id) = known.or_else(|| admin.catalog.provider(&name).map(|spec| spec.id.clone())) else {
            problems.add(&field, "is neither a provider nor a node");
            continue;
        };
        match config {
            Some(config) => {
                config.check_override(&field, &mut problems);
                settings.provider_overrides.insert(id.to_string(), config.into());
            }
            None => {
                settings.provider_overrides.remove(id.as_str());
            }
        }
    }
    if settings.provider_overrides.len() > MAX_OVERRIDES {
        problems.add("providerOverrides", format!("must have {MAX_OVERRIDES} providers at most"));
    }
    problems.done()?;
    let depth = usual_depth(&settings.combo_defaults);
    if let Some(name) = too_deep_by(&around.combos, &aliases_of(&around.aliases), depth_before, depth) {
        let message = format!(
            "Combo {name} would be too deep: combos stand more than {depth} deep within it; give it a maxComboDepth of its own"
        );
        return Err(unprocessable("comboDefaults.maxComboDepth", message));
    }
    Ok(())
}

/// The strategy of combos that are made without one.
pub(super) fn strategy_in_force(settings: &RuntimeSettings) -> String {
    settings.combo_strategy.clone().unwrap_or_else(|| routing::combo_default().name().to_owned())
}

fn view(settings: RuntimeSettings) -> ComboDefaults {
    let built_in = combo::built_in();
    let in_force = settings.combo_defaults.clone().over(built_in.clone());
    let overrides = settings.provider_overrides.iter();
    ComboDefaults {
        combo_defaults: ComboDefaultValues::new(strategy_in_force(&settings), in_force),
        built_in: ComboDefaultValues::new(routing::combo_default().name().to_owned(), built_in),
        provider_overrides: overrides
            .map(|(provider, config)| (provider.clone(), config.clone().into()))
            .collect(),
        own: OwnComboDefaults { strategy: settings.combo_strategy, config: settings.combo_defaults.into() },
    }
}
