//! What is added to and taken from requests: `/api/settings/thinking-budget`, `/api/settings/system-prompt`.

use omniroute_domain::entity::{SystemPromptSettings, ThinkingLevel, ThinkingMode, ThinkingSettings};
use omniroute_domain::transform::{MAX_SYSTEM_CHARS, Template};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::auth::Management;
use crate::endpoint::{Body, Json};
use crate::error::AdminResult;
use crate::validation::Problems;

/// Largest budget of tokens.
const MAX_BUDGET: u32 = 131_072;

/// How much requests reason.
#[derive(Serialize, Deserialize, ToSchema, Clone, Copy)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ThinkingView {
    mode: ModeView,
    /// Tokens, for the mode `custom`, 0 to 131072; 0 = no thinking.
    #[serde(default = "usual_budget")]
    custom_budget: u32,
    /// Where the mode `adaptive` begins.
    #[serde(default)]
    effort_level: LevelView,
}

fn usual_budget() -> u32 {
    ThinkingSettings::default().custom_budget
}

/// What is done about thinking.
#[derive(Serialize, Deserialize, ToSchema, Clone, Copy)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ModeView {
    /// As the client says.
    Passthrough,
    /// As the model does by itself.
    Auto,
    /// So many tokens.
    Custom,
    /// More for longer conversations.
    Adaptive,
}

/// Where `adaptive` begins.
#[derive(Serialize, Deserialize, ToSchema, Clone, Copy, Default)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LevelView {
    None,
    Low,
    #[default]
    Medium,
    High,
    XHigh,
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ThinkingPatch {
    mode: Option<String>,
    /// Tokens, for the mode `custom`, 0 to 131072; 0 = no thinking.
    custom_budget: Option<i64>,
    /// `none`, `low`, `medium`, `high` or `xhigh`: where the mode `adaptive` begins.
    effort_level: Option<String>,
}

/// System text around that of clients. `{{date}}`, `{{model}}` and `{{key_name}}` are filled in.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SystemPromptView {
    enabled: bool,
    /// The same as `suffixPrompt`, under its older name.
    prompt: String,
    prefix_prompt: String,
    suffix_prompt: String,
    max_chars: u32,
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SystemPromptPatch {
    enabled: Option<bool>,
    /// An older name of `suffixPrompt`, which comes before it.
    prompt: Option<String>,
    /// Before the client's system text.
    prefix_prompt: Option<String>,
    /// Behind it.
    suffix_prompt: Option<String>,
    /// Most characters of each, 1 to 200000.
    max_chars: Option<u32>,
}

pub(crate) async fn show_thinking(access: Management) -> AdminResult<Json<ThinkingView>> {
    Ok(Json(access.admin.store.settings().get().await?.thinking_budget.into()))
}

pub(crate) async fn update_thinking(
    access: Management,
    Body(patch): Body<ThinkingPatch>,
) -> AdminResult<Json<ThinkingView>> {
    let change =
        access.change_settings(|settings| merge_thinking(&mut settings.thinking_budget, &patch)).await?;
    access.audit("settings.updated", "settings", "thinkingBudget", "").await;
    Ok(Json(change.after.thinking_budget.into()))
}

fn merge_thinking(thinking: &mut ThinkingSettings, patch: &ThinkingPatch) -> AdminResult<()> {
    let mut problems = Problems::default();
    if let Some(mode) = &patch.mode {
        match word(mode) {
            Some(mode) => thinking.mode = ModeView::into(mode),
            None => problems.add("mode", "must be one of passthrough, auto, custom, adaptive"),
        }
    }
    if let Some(level) = &patch.effort_level {
        match word(level) {
            Some(level) => thinking.effort_level = LevelView::into(level),
            None => problems.add("effortLevel", "must be one of none, low, medium, high, xhigh"),
        }
    }
    problems.range("customBudget", patch.custom_budget, &(0..=i64::from(MAX_BUDGET)));
    if let Some(budget) = patch.custom_budget.and_then(|budget| u32::try_from(budget).ok()) {
        thinking.custom_budget = budget;
    }
    problems.done()
}

pub(crate) async fn show_system_prompt(access: Management) -> AdminResult<Json<SystemPromptView>> {
    Ok(Json(access.admin.store.settings().get().await?.system_prompt.into()))
}

pub(crate) async fn update_system_prompt(
    access: Management,
    Body(patch): Body<SystemPromptPatch>,
) -> AdminResult<Json<SystemPromptView>> {
    let change =
        access.change_settings(|settings| merge_system_prompt(&mut settings.system_prompt, patch)).await?;
    // The text itself stays out of the audit log.
    access.audit("settings.updated", "settings", "systemPrompt", "").await;
    Ok(Json(change.after.system_prompt.into()))
}

fn merge_system_prompt(prompt: &mut SystemPromptSettings, patch: SystemPromptPatch) -> AdminResult<()> {
    let mut problems = Problems::default();
    problems.range("maxChars", patch.max_chars, &(1..=MAX_SYSTEM_CHARS));
    prompt.enabled = patch.enabled.unwrap_or(prompt.enabled);
    prompt.max_chars = patch.max_chars.unwrap_or(prompt.max_chars);
    let suffix = patch.suffix_prompt.or(patch.prompt);
    for (text, target) in
        [(patch.prefix_prompt, &mut prompt.prefix_prompt), (suffix, &mut prompt.suffix_prompt)]
    {
        if let Some(text) = text {
            *target = text;
        }
    }
    check_system_text("prefixPrompt", &prompt.prefix_prompt, prompt.max_chars, &mut problems);
    check_system_text("suffixPrompt", &prompt.suffix_prompt, prompt.max_chars, &mut problems);
    problems.done()
}

/// Notes a text that is too long, or names a variable that there is not.
pub(crate) fn check_system_text(field: &str, text: &str, most: u32, problems: &mut Problems) {
    problems.length(field, text, 0..=usize::try_from(most).unwrap_or(usize::MAX));
    if let Err(error) = Template::parse(text) {
        problems.add(field, error.to_string());
    }
}

fn word<T: serde::de::DeserializeOwned>(word: &str) -> Option<T> {
    serde_json::from_value(serde_json::Value::String(word.to_owned())).ok()
}

impl ThinkingView {
    /// Notes what is out of bounds.
    pub(crate) fn check(&self, field: &str, problems: &mut Problems) {
        problems.range(&format!("{field}.customBudget"), Some(self.custom_budget), &(0..=MAX_BUDGET));
    }
}

impl From<ThinkingSettings> for ThinkingView {
    fn from(settings: ThinkingSettings) -> Self {
        let mode = match settings.mode {
            ThinkingMode::Passthrough => ModeView::Passthrough,
            ThinkingMode::Auto => ModeView::Auto,
            ThinkingMode::Custom => ModeView::Custom,
            ThinkingMode::Adaptive => ModeView::Adaptive,
        };
        let effort_level = match settings.effort_level {
            ThinkingLevel::None => LevelView::None,
            ThinkingLevel::Low => LevelView::Low,
            ThinkingLevel::Medium => LevelView::Medium,
            ThinkingLevel::High => LevelView::High,
            ThinkingLevel::XHigh => LevelView::XHigh,
        };
        Self { mode, custom_budget: settings.custom_budget, effort_level }
    }
}

impl From<ThinkingView> for ThinkingSettings {
    fn from(view: ThinkingView) -> Self {
        Self {
            mode: view.mode.into(),
            custom_budget: view.custom_budget,
            effort_level: view.effort_level.into(),
        }
    }
}

impl From<ModeView> for ThinkingMode {
    fn from(mode: ModeView) -> Self {
        match mode {
            ModeView::Passthrough => Self::Passthrough,
            ModeView::Auto => Self::Auto,
            ModeView::Custom => Self::Custom,
            ModeView::Adaptive => Self::Adaptive,
        }
    }
}

impl From<LevelView> for ThinkingLevel {
    fn from(level: LevelView) -> Self {
        match level {
            LevelView::None => Self::None,
            LevelView::Low => Self::Low,
            LevelView::Medium => Self::Medium,
            LevelView::High => Self::High,
            LevelView::XHigh => Self::XHigh,
        }
    }
}

impl From<SystemPromptSettings> for SystemPromptView {
    fn from(settings: SystemPromptSettings) -> Self {
        let SystemPromptSettings { enabled, prefix_prompt, suffix_prompt, max_chars } = settings;
        Self { enabled, prompt: suffix_prompt.clone(), prefix_prompt, suffix_prompt, max_chars }
    }
}
