//! What is known about a model: prices, limits, capabilities. The contents of `catalog/models/*.json`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ProviderId;

/// One model of one provider. Prices are USD per million tokens; `None` means unknown or "as the base price".
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelSpec {
    /// Whose it is.
    pub provider: ProviderId,
    /// The id the provider knows.
    pub model: String,
    /// `chat`, `responses`, `embedding`, `image_generation`, …
    pub mode: String,
    /// Input price.
    pub input: Option<f64>,
    /// Output price.
    pub output: Option<f64>,
    /// Price of cached input; `None` = input price.
    pub cached_read: Option<f64>,
    /// Price of cache writes; `None` = input price.
    pub cache_write: Option<f64>,
    /// Price of cache writes that live an hour; `None` = `cache_write`.
    #[serde(default)]
    pub cache_write_1h: Option<f64>,
    /// Price of reasoning tokens; `None` = output price.
    pub reasoning: Option<f64>,
    /// Price of audio input.
    #[serde(default)]
    pub audio_input: Option<f64>,
    /// Price of audio output.
    #[serde(default)]
    pub audio_output: Option<f64>,
    /// Price of image output tokens.
    #[serde(default)]
    pub image_output: Option<f64>,
    /// Input price in batches.
    #[serde(default)]
    pub batch_input: Option<f64>,
    /// Output price in batches.
    #[serde(default)]
    pub batch_output: Option<f64>,
    /// What token prices are multiplied by where the model answers at a higher speed; `None` = it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fast: Option<f64>,
    /// The same where it answers in the slower tier (`service_tier` `flex`); `None` = it has none, or nobody knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flex: Option<f64>,
    /// The same for cached input there; `None` = as the other tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flex_cached: Option<f64>,
    /// The same where it answers ahead of others (`service_tier` `priority`); `None` = it does not, or nobody knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<f64>,
    /// Prices of the whole request above a prompt size.
    #[serde(default)]
    pub tiers: Vec<PriceTier>,
    /// Prices per image, second, character or query, in USD.
    #[serde(default)]
    pub per_unit: BTreeMap<String, f64>,
    /// Tokens of context.
    pub context_window: Option<u64>,
    /// Most tokens of output.
    pub max_output: Option<u64>,
    /// Length of vectors.
    #[serde(default)]
    pub dimensions: Option<u64>,
    /// Sizes of images that it makes, as `width`x`height`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sizes: Vec<String>,
    /// What it can do.
    #[serde(default)]
    pub caps: BTreeMap<String, bool>,
    /// Other ids of the same model, dated ones mostly.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// When the provider withdraws it.
    #[serde(default)]
    pub deprecation_date: Option<String>,
}

/// Long name of the dialect of models that are served in it alone.
pub const RESPONSES: &str = crate::dialects::OPENAI_RESPONSES;

impl ModelSpec {
    /// Long name of the only dialect the model is served in, if it is not served in all of its provider's.
    pub fn only_dialect(&self) -> Option<&'static str> {
        (self.mode == "responses").then_some(RESPONSES)
    }
}

/// Prices above a prompt size, for the whole request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PriceTier {
    /// Applies when the prompt has more tokens.
    pub above_tokens: u64,
    /// Input price.
    pub input: Option<f64>,
    /// Output price.
    pub output: Option<f64>,
    /// Price of cached input.
    #[serde(default)]
    pub cached_read: Option<f64>,
    /// Price of cache writes.
    #[serde(default)]
    pub cache_write: Option<f64>,
}
