//! The entries of a combo as they are sent.

use std::collections::BTreeSet;

use omniroute_domain::combo::{Condition, check_template};
use omniroute_domain::entity::{Combo, Goal, MAX_STEPS, Step, When};
use omniroute_domain::resolve::{self, MAX_MODEL_LENGTH, ResolveError, Route};
use omniroute_domain::routing;
use omniroute_domain::snapshot::Snapshot;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::endpoint::TextOr;
use crate::validation::Problems;

/// Largest weight.
const MAX_WEIGHT: u32 = 1_000_000;
/// Longest template of an entry.
const MAX_TEMPLATE: usize = 32 * 1024;

/// An entry of a combo with more to it than a name. A member that is not known is refused: an entry with a typing error in
/// `when`, or in one of its conditions, would be for every request.
#[derive(Deserialize, ToSchema, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct EntryDraft {
    /// Kept when it is given; its counts go by it.
    id: Option<String>,
    /// `model` or `combo-ref`; follows from the other members.
    kind: Option<String>,
    /// As a client would ask for it.
    model: Option<String>,
    /// The name of another combo.
    combo_name: Option<String>,
    /// Its share, for strategies that weigh.
    weight: Option<u32>,
    /// The only account to be used.
    connection_id: Option<String>,
    /// Name for people.
    label: Option<String>,
    /// Which requests it is for; absent = all.
    when: Option<WhenView>,
    /// What a later entry of a `pipeline` is asked, with `{{output}}` of the one before and `{{input}}` of the client.
    template: Option<String>,
}

/// Which requests an entry is for: all that is given must hold.
#[derive(Deserialize, Serialize, ToSchema, Default)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct WhenView {
    /// At least this many tokens of prompt, by estimate.
    #[serde(skip_serializing_if = "Option::is_none")]
    min_tokens: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_tokens: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    has_tools: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    has_images: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream: Option<bool>,
    /// Time of day: `08:00-18:00`.
    #[serde(skip_serializing_if = "Option::is_none")]
    hours: Option<String>,
    /// Its time zone; UTC where nothing is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    tz: Option<String>,
}

/// What names may mean in the entries of a combo.
#[derive(Clone, Copy)]
pub(super) struct Names<'a> {
    pub(super) snapshot: &'a Snapshot,
    /// The combo's name until now, and from now on.
    pub(super) own: [&'a str; 2],
    pub(super) others: &'a [Combo],
}

impl Names<'_> {
    /// Whether a combo has this name.
    fn has(&self, name: &str) -> bool {
        self.own.contains(&name)
            || self.others.iter().any(|other| other.name == name)
            || self.snapshot.auto_variants().iter().any(|variant| *variant.name == *name)
    }

    /// Where a `model` leads. What an alias stands for is found out anew whenever it changes, so its name stays; what stands
    /// behind a combo's name is read with it.
    fn goal(
        &self,
        model: String,
        connection_id: Option<String>,
        field: &str,
        problems: &mut Problems,
    ) -> Goal {
        let is_somebodys = |name: &str| {
            matches!(
                resolve::model(self.snapshot, name),
                Ok(_) | Err(ResolveError::NoCredentials { .. } | ResolveError::Ambiguous { .. })
            )
        };
        let own = |name: &str| self.own.contains(&name) && is_somebodys(name);
        let behind_prefix = model.strip_prefix("combo/").map(str::to_owned);
        let bare = resolve::bare_name(&model).strip_prefix("combo/");
        if let Some(combo) = &behind_prefix
            && !self.has(combo)
            && !bare.is_some_and(|bare| self.has(bare))
        {
            problems.add(&format!("{field}.model"), format!("`{combo}` is no combo's name"));
        } else if behind_prefix.is_some() && connection_id.is_some() {
            problems.add(&format!("{field}.connectionId"), "belongs to a model, not to a combo");
        } else if let Some(combo_name) = behind_prefix.filter(|name| self.has(name)) {
            return Goal::ComboRef { combo_name };
        } else if connection_id.is_none() && self.has(&model) && !own(&model) {
            // A combo comes before a model of its name, unless it is the combo itself that the entry belongs to.
            return Goal::ComboRef { combo_name: model };
        } else if !is_somebodys(&model)
            && let Ok(Route::Combo(combo)) = resolve::resolve(self.snapshot, &model)
        {
            let name = &combo.name;
            if connection_id.is_some() {
                let message = format!("belongs to a model, and `{model}` is the combo `{name}`");
                problems.add(&format!("{field}.connectionId"), message);
            } else if resolve::combo_meant(&self.snapshot.aliases, &model, |name| self.has(name)).is_none() {
                let message =
                    format!("`{model}` is no model but leads to the combo `{name}`; write `{name}`");
                problems.add(&format!("{field}.model"), message);
            }
        }
        Goal::Model { model, connection_id }
    }
}

/// The entries that were sent, and what is wrong with them.
pub(super) fn steps(names: Names<'_>, drafts: Vec<TextOr<EntryDraft>>, problems: &mut Problems) -> Vec<Step> {
    let [_, combo] = names.own;
    let mut ids = BTreeSet::new();
    let mut steps = Vec::new();
    for (at, draft) in drafts.into_iter().enumerate().take(MAX_STEPS) {
        let field = format!("models[{at}]");
        let entry = match draft {
            TextOr::Text(name) if names.has(&name) => {
                EntryDraft { combo_name: Some(name), ..EntryDraft::default() }
            }
            TextOr::Text(model) => EntryDraft { model: Some(model), ..EntryDraft::default() },
            TextOr::More(entry) => *entry,
        };
        let EntryDraft { id, kind, model, combo_name, weight, connection_id, label, when, template } = entry;
        let own_kind = if model.is_some() { "model" } else { "combo-ref" };
        let goal = match (model, combo_name) {
            (Some(model), None) => {
                if model.trim().is_empty() || model.len() > MAX_MODEL_LENGTH {
                    problems.add(&format!("{field}.model"), "must have 1 to 256 bytes");
                } else if model.contains(char::is_control) {
                    problems.add(&format!("{field}.model"), "must not contain control characters");
                }
                names.goal(model, connection_id, &field, problems)
            }
            (None, Some(combo_name)) => {
                if !names.has(&combo_name) {
                    problems.add(&format!("{field}.comboName"), "is no combo's name");
                }
                if connection_id.is_some() {
                    problems.add(&format!("{field}.connectionId"), "belongs to a model, not to a combo");
                }
                Goal::ComboRef { combo_name }
            }
            _ => {
                problems.add(&field, "needs either `model` or `comboName`");
                continue;
            }
        };
        let (goal_kind, slug) = match &goal {
            Goal::Model { model, .. } => ("model", model),
            Goal::ComboRef { combo_name } => ("combo-ref", combo_name),
        };
        if kind.is_some_and(|kind| kind != own_kind && kind != goal_kind) {
            problems.add(&format!("{field}.kind"), format!("must be `{own_kind}`, as the other members are"));
        }
        let slug: String = slug.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        let id = id.unwrap_or_else(|| format!("{combo}-{goal_kind}-{}-{slug}", at + 1));
        problems.length(&format!("{field}.id"), &id, 1..=500);
        if !ids.insert(id.clone()) {
            problems.add(&format!("{field}.id"), "is that of another entry");
        }
        problems.range(&format!("{field}.weight"), weight, &(0..=MAX_WEIGHT));
        if let Some(label) = &label {
            problems.name(&format!("{field}.label"), label);
        }
        let when = when.map(When::from);
        if let Some(Err(error)) = when.as_ref().map(Condition::new) {
            problems.add(&format!("{field}.when"), error.to_string());
        }
        if let Some(template) = &template {
            problems.length(&format!("{field}.template"), template, 1..=MAX_TEMPLATE);
            if let Err(error) = check_template(template) {
                problems.add(&format!("{field}.template"), error.to_string());
            }
        }
        steps.push(Step { id, goal, weight: weight.unwrap_or(0), label, when, template });
    }
    steps
}

/// Only a later entry of a pipeline has something to fill into its template.
pub(super) fn check_templates(combo: &Combo, problems: &mut Problems) {
    let is_pipeline = routing::by_name(&combo.strategy)
        .is_some_and(|strategy| strategy.manner() == routing::Manner::Pipeline);
    for (at, step) in combo.steps.iter().enumerate().filter(|(_, step)| step.template.is_some()) {
        let field = format!("models[{at}].template");
        if !is_pipeline {
            problems
                .add(&field, format!("belongs to a `pipeline`; the strategy of `{}` is another", step.id));
        } else if at == 0 {
            problems.add(&field, "has no answer before it: the first entry gets what the client sent");
        }
    }
}

impl From<WhenView> for When {
    fn from(when: WhenView) -> Self {
        let WhenView { min_tokens, max_tokens, has_tools, has_images, stream, hours, tz } = when;
        Self { min_tokens, max_tokens, has_tools, has_images, stream, hours, tz }
    }
}

impl From<When> for WhenView {
    fn from(when: When) -> Self {
        let When { min_tokens, max_tokens, has_tools, has_images, stream, hours, tz } = when;
        Self { min_tokens, max_tokens, has_tools, has_images, stream, hours, tz }
    }
}
