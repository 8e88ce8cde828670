//! Lists as Google's SDKs read them: <https://ai.google.dev/api/models>.

use bytes::Bytes;
use omniroute_engine::{GatewayError, RequestCtx};
use serde::Serialize;

use super::{Entry, json, query};

/// Entries of a page unless the client says otherwise, and at most.
const PAGE: usize = 50;
const MAX_PAGE: usize = 1_000;
/// Limits of models whose own are not known.
const INPUT_LIMIT: u64 = 128_000;
const OUTPUT_LIMIT: u64 = 8_192;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct List<'a> {
    models: Vec<Model<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_page_token: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Model<'a> {
    name: String,
    base_model_id: &'a str,
    version: &'static str,
    display_name: &'a str,
    description: String,
    input_token_limit: u64,
    output_token_limit: u64,
    supported_generation_methods: &'static [&'static str],
    temperature: f32,
    max_temperature: f32,
    top_p: f32,
    top_k: u32,
    thinking: bool,
}

/// A page of the list.
pub(super) fn list(ctx: &RequestCtx, entries: &[Entry]) -> Result<Bytes, GatewayError> {
    let number = |name: &str| query(ctx, name).and_then(|text| text.parse::<usize>().ok());
    let size = number("pageSize").unwrap_or(PAGE).clamp(1, MAX_PAGE);
    let from = number("pageToken").unwrap_or(0).min(entries.len());
    let to = (from + size).min(entries.len());
    json(&List {
        models: entries[from..to].iter().map(model).collect(),
        next_page_token: (to < entries.len()).then(|| to.to_string()),
    })
}

/// One model.
pub(super) fn one(entry: &Entry) -> Result<Bytes, GatewayError> {
    json(&model(entry))
}

fn model(entry: &Entry) -> Model<'_> {
    Model {
        name: format!("models/{}", entry.id),
        base_model_id: &entry.root,
        version: "001",
        display_name: &entry.display_name,
        description: format!("{} at {}", entry.display_name, entry.owned_by),
        input_token_limit: entry.context_length.unwrap_or(INPUT_LIMIT),
        output_token_limit: entry.max_output_tokens.unwrap_or(OUTPUT_LIMIT),
        supported_generation_methods: match entry.kind {
            None => &["generateContent", "streamGenerateContent", "countTokens"],
            Some("embedding") => &["embedContent", "batchEmbedContents"],
            Some(_) => &[],
        },
        temperature: 1.0,
        max_temperature: 2.0,
        top_p: 0.95,
        top_k: 64,
        thinking: entry.reasoning,
    }
}
