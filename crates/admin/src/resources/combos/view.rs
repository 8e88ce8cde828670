//! How a combo is shown.

use omniroute_domain::entity::{Combo, Goal, Step};
use serde::Serialize;
use utoipa::ToSchema;

use super::config::ConfigView;
use super::steps::WhenView;
use crate::resources::transforms::ThinkingView;
use crate::text::iso;

/// Of the form of combos; raised when members change their meaning.
const VERSION: u32 = 2;

/// One name for several targets.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ComboView {
    id: String,
    name: String,
    /// In which order its entries are tried: `priority`, `weighted`, `round-robin`, …
    strategy: String,
    models: Vec<StepView>,
    config: ConfigView,
    /// Takes the place of the client's system text.
    system_message: Option<String>,
    /// Only tools whose names match are passed on.
    tool_filter_regex: Option<String>,
    /// Labels that an account must have to serve it.
    required_tags: Vec<String>,
    /// How much its requests reason; null = as the setting says.
    thinking_budget: Option<ThinkingView>,
    is_hidden: bool,
    is_active: bool,
    sort_order: i64,
    /// Of the form in which combos are shown. `ETag` has the version of the combo.
    version: u32,
    created_at: String,
    updated_at: String,
}

/// An entry of a combo.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct StepView {
    id: String,
    /// `model` or `combo-ref`.
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    combo_name: Option<String>,
    weight: u32,
    connection_id: Option<String>,
    label: Option<String>,
    when: Option<WhenView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    template: Option<String>,
}

pub(super) fn view(combo: Combo) -> ComboView {
    ComboView {
        id: combo.id.to_string(),
        name: combo.name,
        strategy: combo.strategy,
        models: combo.steps.into_iter().map(step).collect(),
        config: combo.config.into(),
        system_message: combo.transforms.system_message,
        tool_filter_regex: combo.transforms.tool_filter_regex,
        required_tags: combo.transforms.required_tags,
        thinking_budget: combo.transforms.thinking_budget.map(Into::into),
        is_hidden: combo.is_hidden,
        is_active: combo.is_active,
        sort_order: combo.sort_order,
        version: VERSION,
        created_at: iso(combo.created_at),
        updated_at: iso(combo.updated_at),
    }
}

fn step(step: Step) -> StepView {
    let (kind, model, combo_name, connection_id) = match step.goal {
        Goal::Model { model, connection_id } => ("model", Some(model), None, connection_id),
        Goal::ComboRef { combo_name } => ("combo-ref", None, Some(combo_name), None),
    };
    StepView {
        id: step.id,
        kind,
        model,
        combo_name,
        weight: step.weight,
        connection_id,
        label: step.label,
        when: step.when.map(Into::into),
        template: step.template,
    }
}
