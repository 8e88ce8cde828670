//! Models as they are listed.

use crate::entity::CustomModel;

/// A model of a provider.
#[derive(Debug, Clone)]
pub struct ListedModel {
    /// The id the provider knows.
    pub id: String,
    /// Name for people.
    pub name: Option<String>,
    /// Whether the operator added it.
    pub custom: bool,
    /// `chat`, `embedding`, …
    pub mode: String,
    /// Tokens of context.
    pub context_window: Option<u64>,
    /// Most tokens of output.
    pub max_output: Option<u64>,
}

impl ListedModel {
    /// One that the operator added.
    pub fn of(model: &CustomModel) -> Self {
        Self {
            id: model.id.clone(),
            name: Some(model.name.clone()),
            custom: true,
            mode: model.mode().to_owned(),
            context_window: model.context_window,
            max_output: model.max_output,
        }
    }
}
