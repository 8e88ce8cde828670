//! A model the operator added to a provider.

use std::collections::BTreeMap;

use omniroute_dialect::Caps;
use omniroute_provider::{Capability, ProviderId};
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
    /// What the operator says comes before what the catalogue says.
    pub fn adjust(&self, caps: &mut Caps) {
        let says = |name: &str, cap: &mut bool| {
            if let Some(can) = self.caps.get(name) {
                *cap = *can;
            }
        };
        says("vision", &mut caps.vision);
        says("pdf", &mut caps.pdf);
        says("audio_in", &mut caps.audio_input);
        says("tools", &mut caps.tools);
        says("json_schema", &mut caps.json_schema);
        says("reasoning", &mut caps.reasoning);
        says("web_search", &mut caps.web_search);
        caps.context_window = self.context_window.or(caps.context_window);
        caps.max_output_tokens = self.max_output.or(caps.max_output_tokens);
    }

    /// What it is for, in the words of the catalogue.
    pub fn mode(&self) -> &'static str {
        let by_format = match self.api_format.as_str() {
            "responses" => Some("responses"),
            "rerank" => Some("rerank"),
            "moderations" => Some("moderation"),
            other => Capability::ALL.into_iter().find(|it| it.as_str() == other).map(Capability::mode),
        };
        let is_chat = || self.supported_endpoints.iter().any(|endpoint| endpoint == "chat");
        let named = |it: &Capability| self.supported_endpoints.iter().any(|endpoint| endpoint == it.as_str());
        by_format
            .or_else(|| is_chat().then_some("chat"))
            .or_else(|| Capability::ALL.into_iter().find(named).map(Capability::mode))
            .unwrap_or("other")
    }

    /// Long name of the only dialect it is served in, if the operator said so.
    pub fn only_dialect(&self) -> Option<&'static str> {
        (self.api_format == "responses").then_some(omniroute_provider::model::RESPONSES)
    }
}

fn nobody() -> ProviderId {
    ProviderId::from("")
}
