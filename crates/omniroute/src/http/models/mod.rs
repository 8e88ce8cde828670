//! Lists of models for clients, in the shape of the asking SDK.

use std::collections::BTreeSet;

use bytes::Bytes;
use http::header::IF_NONE_MATCH;
use http::{HeaderMap, HeaderValue};
use omniroute_dialect::ir::ErrorKind;
use omniroute_dialect::registry as dialects;
use omniroute_domain::routing::auto::is_virtual;
use omniroute_domain::snapshot::{ListedModel, ProviderState, Snapshot};
use omniroute_engine::error::rfc3339;
use omniroute_engine::{GatewayError, RequestCtx};
use omniroute_provider::capability::mode_by_name;
use omniroute_provider::catalog::Catalog;
use omniroute_provider::model::{ModelSpec, RESPONSES};
use omniroute_provider::registry::SIM;
use omniroute_provider::{Capability, ProviderSpec};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::routes::Lists;

mod google;
pub(super) mod ollama;
mod rights;

/// When models were "created" as far as clients are concerned: one fixed second, so that lists are stable.
const CREATED: i64 = 1_767_225_600;
/// Entries of an Anthropic-shaped page unless the client says otherwise, and at most.
const PAGE: usize = 20;
const MAX_PAGE: usize = 1_000;

/// Who owns `auto` and its variants.
const AUTO: &str = "auto";

/// Mode of models that are served in the Responses dialect alone.
const RESPONSES_MODE: &str = "responses";
/// Whose combos are.
const COMBO: &str = "combo";

/// One model as the OpenAI SDKs read it.
#[derive(Debug, Clone, Serialize)]
struct Entry {
    id: String,
    object: &'static str,
    created: i64,
    owned_by: String,
    root: String,
    parent: Option<String>,
    permission: [(); 0],
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    custom: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    context_length: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_output_tokens: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dimensions: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    supported_sizes: Option<Vec<String>>,
    #[serde(skip)]
    display_name: String,
    #[serde(skip)]
    reasoning: bool,
}

#[derive(Serialize)]
struct List<'a> {
    object: &'static str,
    data: &'a [Entry],
}

#[derive(Serialize)]
struct Page<'a> {
    data: Vec<Card<'a>>,
    has_more: bool,
    first_id: Option<&'a str>,
    last_id: Option<&'a str>,
}

/// One model as the Anthropic SDKs read it.
#[derive(Serialize)]
struct Card<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    id: &'a str,
    display_name: &'a str,
    created_at: String,
}

/// The list in the shape that the client reads; for some a page of it. Only those for one operation, or of one provider,
/// where the path or the query says so.
pub(super) fn list(
    ctx: &RequestCtx,
    shape: Lists,
    capability: Option<Capability>,
) -> Result<Bytes, GatewayError> {
    let mut entries = entries(ctx);
    if let Some(capability) = capability {
        let wanted = kind(capability.mode());
        entries.retain(|entry| entry.kind == wanted);
    } else if let Some(wanted) = query(ctx, "type") {
        let wanted = wanted_kind(&wanted)?;
        entries.retain(|entry| entry.kind == wanted);
    }
    let named = ctx.arrival.provider.clone().or_else(|| query(ctx, "provider"));
    if let Some(name) = named {
        let owner = ctx.snapshot.by_prefix(&name).ok_or_else(|| unknown_provider(&name))?;
        entries.retain(|entry| entry.owned_by == owner.as_str());
    }
    match shape {
        Lists::OpenAi => json(&List { object: "list", data: &entries }),
        Lists::Anthropic => page(ctx, &entries),
        Lists::Google => google::list(ctx, &entries),
        Lists::Ollama => ollama::list(&entries),
    }
}

fn unknown_provider(name: &str) -> GatewayError {
    let message = format!("there is no provider `{name}`; use an id, an alias or a node's prefix");
    GatewayError::new(ErrorKind::InvalidRequest, "unknown_provider", message).param("provider")
}

/// The kind that a client asks for by `?type=`.
fn wanted_kind(word: &str) -> Result<Option<&'static str>, GatewayError> {
    const WORDS: [(&str, Option<&str>); 8] = [
        ("chat", None),
        ("embedding", Some("embedding")),
        ("image", Some("image")),
        ("audio", Some("audio")),
        ("audio-stt", Some("audio")),
        ("audio-tts", Some("audio")),
        ("rerank", Some("rerank")),
        ("moderation", Some("moderation")),
    ];
    let known = WORDS.iter().find(|(known, _)| *known == word).map(|(_, kind)| *kind);
    known.ok_or_else(|| {
        let message = "`type` must be one of chat, embedding, image, audio, rerank, moderation";
        GatewayError::new(ErrorKind::InvalidRequest, "invalid_value", message).param("type")
    })
}

/// A page for Anthropic's clients.
fn page(ctx: &RequestCtx, entries: &[Entry]) -> Result<Bytes, GatewayError> {
    let query = |name: &str| query(ctx, name);
    let limit = query("limit").and_then(|text| text.parse().ok()).unwrap_or(PAGE).clamp(1, MAX_PAGE);
    let place = |id: &str| entries.iter().position(|entry| entry.id == id);
    let (from, to) = match (query("after_id"), query("before_id")) {
        (Some(after), _) => {
            let from = place(&after).map_or(entries.len(), |at| at + 1);
            (from, (from + limit).min(entries.len()))
        }
        (None, Some(before)) => {
            let to = place(&before).unwrap_or(0);
            (to.saturating_sub(limit), to)
        }
        (None, None) => (0, limit.min(entries.len())),
    };
    let has_more = if query("before_id").is_some() { from > 0 } else { to < entries.len() };
    let page = &entries[from..to];
    json(&Page {
        data: page.iter().map(card).collect(),
        has_more,
        first_id: page.first().map(|entry| entry.id.as_str()),
        last_id: page.last().map(|entry| entry.id.as_str()),
    })
}

/// One model by its id.
pub(super) fn one(ctx: &RequestCtx, id: &str, shape: Lists) -> Result<Bytes, GatewayError> {
    let entries = entries(ctx);
    let Some(entry) = entries.iter().find(|entry| entry.id == id) else {
        let message = format!("model `{id}` not found; see /v1/models for the models this gateway has");
        return Err(GatewayError::new(ErrorKind::NotFound, "model_not_found", message).param("model"));
    };
    match shape {
        Lists::OpenAi | Lists::Ollama => json(entry),
        Lists::Anthropic => json(&card(entry)),
        Lists::Google => google::one(entry),
    }
}

/// A strong validator of a list.
pub(super) fn etag(body: &[u8]) -> HeaderValue {
    let digest = Sha256::digest(body);
    let text: String = digest[..12].iter().map(|byte| format!("{byte:02x}")).collect();
    HeaderValue::from_str(&format!("\"{text}\"")).unwrap_or(HeaderValue::from_static("\"\""))
}

/// Whether the client has what the validator stands for.
pub(super) fn is_known(headers: &HeaderMap, etag: &HeaderValue) -> bool {
    headers.get_all(IF_NONE_MATCH).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b',')).any(
        |sent| {
            let sent = sent.trim_ascii();
            sent == b"*" || sent.strip_prefix(b"W/").unwrap_or(sent) == etag.as_bytes()
        },
    )
}

/// Every model the caller may use: chat models first, then the other kinds, then those the operator added, then `auto`. As long as
/// no provider is configured, the whole catalogue and the simulator.
fn entries(ctx: &RequestCtx) -> Vec<Entry> {
    let snapshot = &ctx.snapshot;
    let active: Vec<_> =
        snapshot.providers().into_iter().filter(|provider| provider.id.as_str() != SIM).collect();
    let mut entries = combos(snapshot);
    if active.is_empty() {
        if let Some(simulator) = snapshot.provider(&SIM.into()) {
            of_provider(snapshot.catalog(), simulator, &mut entries);
        }
        for spec in snapshot.catalog().providers().iter().filter(|spec| spec.id.as_str() != SIM) {
            for model in &spec.models {
                let row = snapshot.catalog().model(&spec.id, model);
                let mode = row.map_or_else(|| mode_by_name(model), |row| &row.mode);
                if !is_offered(spec, mode) {
                    continue;
                }
                let listed = ListedModel {
                    id: model.clone(),
                    name: None,
                    custom: false,
                    mode: mode.to_owned(),
                    context_window: row.and_then(|row| row.context_window),
                    max_output: row.and_then(|row| row.max_output),
                };
                push(&mut entries, (&spec.alias, spec.id.as_str()), &listed, row);
            }
        }
    } else {
        for provider in active {
            of_provider(snapshot.catalog(), provider, &mut entries);
        }
    }
    rights::keep(ctx, &mut entries);
    let mut seen = BTreeSet::new();
    entries.retain(|entry| seen.insert(entry.id.clone()));
    entries.sort_by_key(|entry| (entry.owned_by == AUTO, entry.custom, entry.kind.map_or(0, rank)));
    entries
}

/// The combos that are to be seen, in the operator's order.
fn combos(snapshot: &Snapshot) -> Vec<Entry> {
    let listed = snapshot.combos().into_iter().filter(|combo| !combo.is_hidden);
    // Those without a row are of use as soon as there is a model to choose.
    // A wish behind a colon can be asked for, but would make long lists of them.
    let auto = snapshot
        .auto_variants()
        .into_iter()
        .filter(|combo| !combo.steps.is_empty() && !combo.name.contains(':'));
    listed
        .chain(auto)
        .map(|combo| {
            let targets = combo.targets(snapshot);
            let caps = targets.iter().map(|target| snapshot.caps(&target.provider, &target.model));
            let (mut context, mut output, mut reasoning) = (None, None, false);
            for caps in caps {
                context = context.max(caps.context_window);
                output = output.max(caps.max_output_tokens);
                reasoning |= caps.reasoning;
            }
            Entry {
                id: combo.name.to_string(),
                object: "model",
                created: CREATED,
                owned_by: if is_virtual(combo.id.as_str()) { AUTO } else { COMBO }.to_owned(),
                root: combo.name.to_string(),
                parent: None,
                permission: [],
                kind: None,
                custom: false,
                context_length: context,
                max_output_tokens: output,
                dimensions: None,
                supported_sizes: None,
                display_name: combo.name.to_string(),
                reasoning,
            }
        })
        .collect()
}

/// Whether the gateway can ask a provider of the catalogue for models of this kind.
fn is_offered(spec: &ProviderSpec, mode: &str) -> bool {
    let of_this_kind = Capability::ALL.into_iter().find(|capability| capability.mode() == mode);
    of_this_kind.is_none_or(|capability| spec.capabilities.iter().any(|name| name == capability.as_str()))
}

fn of_provider(catalog: &Catalog, provider: &ProviderState, entries: &mut Vec<Entry>) {
    let second = if provider.is_node { &provider.alias } else { provider.id.as_str() };
    for model in &provider.models {
        let kind = Capability::ALL.into_iter().find(|capability| capability.mode() == model.mode);
        if !model.custom && kind.is_some_and(|capability| !provider.offers(capability)) {
            continue;
        }
        let row = catalog.model(&provider.id, &model.id);
        push(entries, (&provider.alias, second), model, row);
    }
}

/// Adds a model under the alias of its provider and, where that is another word, under the provider's id.
fn push(
    entries: &mut Vec<Entry>,
    (alias, provider): (&str, &str),
    model: &ListedModel,
    row: Option<&ModelSpec>,
) {
    if model.mode == RESPONSES_MODE && dialects::by_name(RESPONSES).is_none() {
        return; // Nobody could call it.
    }
    let first = Entry {
        id: format!("{alias}/{}", model.id),
        object: "model",
        created: CREATED,
        owned_by: provider.to_owned(),
        root: model.id.clone(),
        parent: None,
        permission: [],
        kind: kind(&model.mode),
        custom: model.custom,
        context_length: model.context_window,
        max_output_tokens: model.max_output,
        dimensions: row.and_then(|row| row.dimensions),
        supported_sizes: (model.mode == Capability::Images.mode())
            .then(|| row.map(|row| row.sizes.clone()).unwrap_or_default()),
        reasoning: row.is_some_and(|row| row.caps.get("reasoning").copied().unwrap_or(false)),
        display_name: model.name.as_ref().unwrap_or(&model.id).clone(),
    };
    let second = (alias != provider).then(|| Entry {
        id: format!("{provider}/{}", model.id),
        parent: Some(first.id.clone()),
        ..first.clone()
    });
    entries.push(first);
    entries.extend(second);
}

/// The `type` of models that are not for chat.
fn kind(mode: &str) -> Option<&'static str> {
    match mode {
        "chat" | RESPONSES_MODE => None,
        "embedding" => Some("embedding"),
        "image_generation" => Some("image"),
        "audio_transcription" | "audio_speech" => Some("audio"),
        "rerank" => Some("rerank"),
        "moderation" => Some("moderation"),
        _ => Some("other"),
    }
}

/// The place of a kind in the list.
fn rank(kind: &str) -> usize {
    let order = ["embedding", "image", "audio"];
    1 + order.iter().position(|known| *known == kind).unwrap_or(order.len())
}

fn card(entry: &Entry) -> Card<'_> {
    Card {
        kind: "model",
        id: &entry.id,
        display_name: &entry.display_name,
        created_at: rfc3339(entry.created * 1_000),
    }
}

fn query(ctx: &RequestCtx, name: &str) -> Option<String> {
    let query = ctx.arrival.query.as_deref()?;
    let value = query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))?;
    Some(percent_encoding::percent_decode_str(value).decode_utf8_lossy().into_owned())
}

fn json(value: &impl Serialize) -> Result<Bytes, GatewayError> {
    serde_json::to_vec(value)
        .map(Bytes::from)
        .map_err(|error| GatewayError::new(ErrorKind::Internal, "internal_server_error", error.to_string()))
}
