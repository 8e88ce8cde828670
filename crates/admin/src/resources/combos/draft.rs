//! A combo as it is sent, and what may be wrong with it.

use omniroute_domain::alias::Aliases;
use omniroute_domain::combo::USUAL_DEPTH;
use omniroute_domain::entity::{Combo, ComboConfig, MAX_STEPS};
use omniroute_domain::routing;
use omniroute_domain::transform::{self, MAX_SYSTEM_CHARS, MAX_TAGS};
use omniroute_store::Surroundings;
use serde::Deserialize;
use utoipa::ToSchema;

use super::config::ConfigView;
use super::nesting::Nesting;
use super::steps::{EntryDraft, Names, check_templates, steps};
use crate::endpoint::TextOr;
use crate::error::{AdminResult, conflict, unprocessable};
use crate::resources::present;
use crate::resources::transforms::{ThinkingView, check_system_text};
use crate::state::Admin;
use crate::validation::Problems;

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ComboPatch {
    /// What clients ask for: `[A-Za-z0-9._/-]{1,100}`.
    pub(super) name: Option<String>,
    /// `priority` (default, unless `comboDefaults` name another), `weighted`, `round-robin`, …
    strategy: Option<String>,
    /// Entries in order; a text is a model or the name of a combo. None at all only for `auto`, which then chooses among
    /// all models.
    pub(super) models: Option<Vec<TextOr<EntryDraft>>>,
    /// Replaces all of it.
    config: Option<ConfigView>,
    /// Takes the place of the client's system text; `{{date}}`, `{{model}}` and `{{key_name}}` are filled in.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>)]
    system_message: Option<Option<String>>,
    /// A regular expression; only tools whose names match are passed on.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>)]
    tool_filter_regex: Option<Option<String>>,
    /// Labels that an account must have to serve it.
    required_tags: Option<Vec<String>>,
    /// How much its requests reason; comes before the setting.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<ThinkingView>)]
    thinking_budget: Option<Option<ThinkingView>>,
    is_hidden: Option<bool>,
    is_active: Option<bool>,
}

/// The name of a strategy under whatever name it was sent, if there is one.
pub(super) fn check_strategy(field: &str, sent: &str, problems: &mut Problems) -> Option<&'static str> {
    let known = routing::by_name(sent).map(|strategy| strategy.name());
    if known.is_none() {
        let all: Vec<_> = routing::STRATEGIES.iter().map(|strategy| strategy.name()).collect();
        problems.add(field, format!("must be one of {}", all.join(", ")));
    }
    known
}

/// Changes a combo by what was sent, and checks it among what is there.
pub(super) fn apply(
    admin: &Admin,
    combo: &mut Combo,
    around: &Surroundings,
    patch: ComboPatch,
) -> AdminResult<()> {
    let others = &around.combos;
    let snapshot = admin.live.load().clone();
    let mut problems = Problems::default();
    let before = combo.name.clone();
    let mut taken = None;
    if let Some(name) = patch.name {
        check_name(&name, &mut problems);
        let is_alias = |(alias, _): &&(String, String)| alias.eq_ignore_ascii_case(&name);
        taken = around.aliases.iter().find(is_alias).filter(|_| name != before);
        combo.name = name;
    }
    // A new one had none.
    let before = if before.is_empty() { combo.name.clone() } else { before };
    if let Some(strategy) = patch.strategy
        && let Some(known) = check_strategy("strategy", &strategy, &mut problems)
    {
        known.clone_into(&mut combo.strategy);
    }
    let has_models = patch.models.is_some();
    if let Some(models) = patch.models {
        let least = usize::from(!chooses_among_all(&combo.strategy));
        if !(least..=MAX_STEPS).contains(&models.len()) {
            problems.add("models", format!("must have {least} to {MAX_STEPS} entries"));
        }
        let names = Names { snapshot: &snapshot, own: [&before, &combo.name], others };
        combo.steps = steps(names, models, &mut problems);
    }
    if let Some(config) = patch.config {
        config.check("config", &mut problems);
        config.check_names("config", admin, &mut problems);
        combo.config = config.into();
    }
    if let Some(text) = patch.system_message {
        let text = text.filter(|text| !text.trim().is_empty());
        if let Some(text) = &text {
            check_system_text("systemMessage", text, MAX_SYSTEM_CHARS, &mut problems);
        }
        combo.transforms.system_message = text;
    }
    if let Some(filter) = patch.tool_filter_regex {
        let filter = filter.filter(|filter| !filter.is_empty());
        if let Some(Err(error)) = filter.as_deref().map(transform::filter) {
            problems.impossible("toolFilterRegex", error.to_string());
        }
        combo.transforms.tool_filter_regex = filter;
    }
    if let Some(tags) = patch.required_tags {
        problems.list("requiredTags", &tags, MAX_TAGS);
        combo.transforms.required_tags = tags;
    }
    if let Some(thinking) = patch.thinking_budget {
        if let Some(thinking) = &thinking {
            thinking.check("thinkingBudget", &mut problems);
        }
        combo.transforms.thinking_budget = thinking.map(Into::into);
    }
    if combo.steps.is_empty() && !has_models && !chooses_among_all(&combo.strategy) {
        problems.add("strategy", "must be `auto` for a combo without entries");
    }
    combo.is_hidden = patch.is_hidden.unwrap_or(combo.is_hidden);
    combo.is_active = patch.is_active.unwrap_or(combo.is_active);
    check_templates(combo, &mut problems);
    problems.done()?;
    if let Some((alias, _)) = taken {
        return Err(conflict(format!("`{alias}` is an alias; choose another name, or delete it first")));
    }
    let nesting = Nesting::new(others, combo, &before, &aliases_of(&around.aliases));
    nesting.check(usual_depth(&around.combo_defaults)).map_err(|message| unprocessable("models", message))
}

/// How deep combos may stand within each other that say nothing of it.
pub(crate) fn usual_depth(defaults: &ComboConfig) -> u32 {
    defaults.max_combo_depth.unwrap_or(USUAL_DEPTH)
}

/// Aliases as they are looked up, of pairs of a name and what it stands for.
pub(crate) fn aliases_of(pairs: &[(String, String)]) -> Aliases {
    Aliases::new(pairs.iter().map(|(name, target)| (name.as_str(), target.as_str())))
}

/// Whether a combo of this strategy needs no entries: without any it chooses among all models.
fn chooses_among_all(strategy: &str) -> bool {
    routing::by_name(strategy).is_some_and(|strategy| strategy.wants().signals)
}

fn check_name(name: &str, problems: &mut Problems) {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'/' | b'-');
    if !(1..=100).contains(&name.len()) || !name.bytes().all(is_plain) {
        problems.add("name", "must have 1 to 100 characters of A-Z, a-z, 0-9 and . _ / -");
    } else if name.split('/').any(|piece| piece.is_empty() || piece == "..") {
        problems.add("name", "must not have an empty piece or `..` between its slashes");
    } else if name == "auto" || name.starts_with("auto/") || name.starts_with("combo/") {
        problems.add("name", "must not begin with `auto` or `combo/`, which mean something else");
    }
}
