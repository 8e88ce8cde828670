//! Lists as clients of Ollama read them: <https://github.com/ollama/ollama/blob/main/docs/api.md>.

use std::sync::Arc;

use bytes::Bytes;
use omniroute_dialect::ir::ErrorKind;
use omniroute_domain::resolve::{self, Route, Target};
use omniroute_engine::error::rfc3339;
use omniroute_engine::{GatewayError, RequestCtx};
use omniroute_provider::Capability;
use omniroute_provider::capability::mode_by_name;
use serde::{Deserialize, Serialize};
use serde_json::json as value;
use sha2::{Digest as _, Sha256};

use super::{CREATED, Entry, json};

/// The version whose API is spoken; clients check that theirs is not newer.
const VERSION: &str = "0.12.0";
/// Context of models whose own is not known.
const CONTEXT: u64 = 128_000;

#[derive(Serialize)]
struct List<'a> {
    models: Vec<Tag<'a>>,
}

#[derive(Serialize)]
struct Tag<'a> {
    name: &'a str,
    model: &'a str,
    modified_at: String,
    size: u64,
    digest: String,
    details: Details<'a>,
}

#[derive(Serialize)]
struct Details<'a> {
    parent_model: &'static str,
    format: &'static str,
    family: &'a str,
    families: [&'a str; 1],
    parameter_size: &'static str,
    quantization_level: &'static str,
}

/// The whole list.
pub(super) fn list(entries: &[Entry]) -> Result<Bytes, GatewayError> {
    json(&List { models: entries.iter().map(tag).collect() })
}

/// The models that are loaded: none, they are all somewhere else.
pub(in crate::http) fn loaded() -> Bytes {
    Bytes::from_static(br#"{"models":[]}"#)
}

/// The version that is spoken.
pub(in crate::http) fn version() -> Bytes {
    Bytes::from(value!({ "version": VERSION }).to_string())
}

/// What the model that the body names can do.
pub(in crate::http) fn show(ctx: &RequestCtx, body: &[u8]) -> Result<Bytes, GatewayError> {
    #[derive(Deserialize)]
    struct Asked {
        #[serde(alias = "name")]
        model: String,
    }
    let asked: Asked = serde_json::from_slice(body).map_err(|_| {
        let message = "the body must be a JSON object with the name of a model as `model`";
        GatewayError::new(ErrorKind::InvalidRequest, "invalid_value", message).param("model")
    })?;
    let targets = match resolve::resolve(&ctx.snapshot, &asked.model)? {
        Route::Target(target) => vec![target],
        Route::Combo(combo) => combo.targets(&ctx.snapshot),
    };
    // A combo can what one of its targets can: that one is chosen for it.
    let caps: Vec<_> =
        targets.iter().map(|target| ctx.snapshot.caps(&target.provider, &target.model)).collect();
    let is_for_vectors = |target: &Arc<Target>| {
        let said = ctx.snapshot.mode_of(&target.provider, &target.model);
        said.unwrap_or_else(|| mode_by_name(&target.model)) == Capability::Embeddings.mode()
    };
    let embeds = !targets.is_empty() && targets.iter().all(is_for_vectors);
    let mut capabilities = vec![if embeds { "embedding" } else { "completion" }];
    for (can, word) in [
        (caps.iter().any(|caps| caps.tools), "tools"),
        (caps.iter().any(|caps| caps.vision), "vision"),
        (caps.iter().any(|caps| caps.reasoning), "thinking"),
    ] {
        if can {
            capabilities.push(word);
        }
    }
    let context = caps.iter().filter_map(|caps| caps.context_window).max();
    let family = targets.first().map_or("combo", |target| target.provider.id.as_str());
    json(&value!({
        "license": "",
        "modelfile": "",
        "parameters": "",
        "template": "",
        "details": details(family),
        "model_info": {
            "general.architecture": "gateway",
            "gateway.context_length": context.unwrap_or(CONTEXT),
        },
        "capabilities": capabilities,
        "modified_at": rfc3339(CREATED * 1_000),
    }))
}

fn tag(entry: &Entry) -> Tag<'_> {
    Tag {
        name: &entry.id,
        model: &entry.id,
        modified_at: rfc3339(CREATED * 1_000),
        size: 0,
        digest: Sha256::digest(entry.id.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect(),
        details: details(&entry.owned_by),
    }
}

fn details(family: &str) -> Details<'_> {
    Details {
        parent_model: "",
        format: "gateway",
        family,
        families: [family],
        parameter_size: "",
        quantization_level: "",
    }
}
