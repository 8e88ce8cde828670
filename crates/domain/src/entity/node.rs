//! An endpoint that the operator defined.

use std::collections::BTreeMap;

use omniroute_provider::ProviderId;
use omniroute_provider::registry::{NodeKind, NodeSpec};
use serde::{Deserialize, Serialize};

/// A user-defined endpoint; the provider of its connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// `openai-compatible-chat-<uuid>` and the like.
    pub id: ProviderId,
    /// Which wire format it speaks.
    pub node_type: NodeType,
    /// Name for people.
    pub name: String,
    /// The model prefix.
    pub prefix: String,
    /// `chat` or `responses`, for the OpenAI family.
    pub api_type: Option<String>,
    /// Base of the paths, version included, without a trailing slash.
    pub base_url: String,
    /// Replaces the usual path of chat.
    pub chat_path: Option<String>,
    /// Replaces the usual path of the model list.
    pub models_path: Option<String>,
    /// Headers to add or replace.
    pub headers: BTreeMap<String, String>,
    /// Whether private and loopback addresses may be called.
    pub allow_private: bool,
    /// Creation.
    pub created_at: i64,
    /// Last change.
    pub updated_at: i64,
}

impl Node {
    /// What the node is as a provider; `None` when `node_type` and `api_type` do not fit together.
    pub fn to_spec(&self) -> Option<NodeSpec> {
        Some(NodeSpec {
            id: self.id.clone(),
            kind: NodeKind::parse(self.node_type.as_str(), self.api_type.as_deref())?,
            name: self.name.clone(),
            prefix: self.prefix.clone(),
            base_url: self.base_url.clone(),
            chat_path: self.chat_path.clone(),
            models_path: self.models_path.clone(),
            headers: self.headers.clone(),
        })
    }
}

/// Wire format families of nodes. They have names outside of the dialects since operators choose among them, in requests and
/// in rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NodeType {
    /// Chat Completions or Responses.
    OpenaiCompatible,
    /// Messages.
    AnthropicCompatible,
    /// generateContent.
    GeminiCompatible,
    /// Ollama chat.
    OllamaCompatible,
}

impl NodeType {
    /// The word stored and shown.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OpenaiCompatible => "openai-compatible",
            Self::AnthropicCompatible => "anthropic-compatible",
            Self::GeminiCompatible => "gemini-compatible",
            Self::OllamaCompatible => "ollama-compatible",
        }
    }
}
