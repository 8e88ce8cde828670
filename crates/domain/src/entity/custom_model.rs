//! A model the operator added to a provider.

use std::collections::BTreeMap;

use omniroute_provider::ProviderId;
use serde::{Deserialize, Serialize};

/// A model beside those of the catalogue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CustomModel {
    /// Whose it is; the key of the stored list, not part of the value.
    #[serde(skip, default = "nobody")]
    pub provider: ProviderId,
    /// The id the provider knows.
    pub id: String,
    /// Name for people.
    pub name: String,
    /// `manual`, `imported` or `api-sync`.
    pub source: String,
    /// `chat-completions`, `responses`, `embeddings`, …
    pub api_format: String,
    /// What it can be called for.
    pub supported_endpoints: Vec<String>,
    /// Left out of lists.
    #[serde(default)]
    pub is_hidden: bool,
    /// Tokens of context.
    #[serde(default)]
    pub context_window: Option<u64>,
    /// Most tokens of output.
    #[serde(default)]
    pub max_output: Option<u64>,
    /// What it can do.
    #[serde(default)]
    pub caps: BTreeMap<String, bool>,
}

impl CustomModel {
    /// Long name of the only dialect it is served in, if the operator said so.
    pub fn only_dialect(&self) -> Option<&'static str> {
        (self.api_format == "responses").then_some(omniroute_provider::model::RESPONSES)
    }
}

fn nobody() -> ProviderId {
    ProviderId::from("")
}
