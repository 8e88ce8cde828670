//! User-defined compatible endpoints: `/api/provider-nodes`.

use std::collections::BTreeMap;
use std::sync::Arc;

use omniroute_domain::entity::{ConnectionOptions, Node, NodeType};
use omniroute_provider::provider::ConnectionInput;
use omniroute_provider::registry::{is_node_prefix, provider_for, spec_from_node};
use omniroute_provider::{Endpoint, EndpointError, Provider, ProviderId, registry::NodeKind, trim_base_url};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{Done, present};
use crate::address::check_url;
use crate::auth::Management;
use crate::endpoint::{Body, Created, Id, Json};
use crate::error::{AdminResult, MAX_ROUNDS, Refusal, conflict, invalid_field, not_found, overtaken};
use crate::probe::{DiagnosisType, Subject, Verdict, probe, probe_chat};
use crate::provider_lookup::Vendor;
use crate::state::Admin;
use crate::text::{iso, mask, unmasked};
use crate::validation::Problems;

/// Prefixes that mean something else.
const RESERVED: &[&str] = &["combo", "auto", "sim"];

/// A user-defined endpoint. Values of headers are masked.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NodeView {
    id: String,
    r#type: &'static str,
    name: String,
    prefix: String,
    api_type: Option<String>,
    base_url: String,
    chat_path: Option<String>,
    models_path: Option<String>,
    headers: BTreeMap<String, String>,
    allow_private: bool,
    created_at: String,
    updated_at: String,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct NodeList {
    nodes: Vec<NodeView>,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct NodeAnswer {
    node: NodeView,
}

#[derive(Clone, Deserialize, ToSchema, Default)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct NodePatch {
    name: Option<String>,
    /// What stands before the slash of its models' names: `[a-z0-9][a-z0-9._-]{0,31}`.
    prefix: Option<String>,
    /// Up to and including the version: `http://host:8080/v1`.
    base_url: Option<String>,
    /// `openai-compatible` (default), `anthropic-compatible`, `gemini-compatible` or `ollama-compatible`; only when it is
    /// made.
    r#type: Option<String>,
    /// `chat` (default) or `responses`, for `openai-compatible`; only when it is made.
    api_type: Option<String>,
    #[serde(deserialize_with = "present")]
    #[schema(value_type = Option<String>)]
    chat_path: Option<Option<String>>,
    #[serde(deserialize_with = "present")]
    #[schema(value_type = Option<String>)]
    models_path: Option<Option<String>>,
    /// Headers to add or replace.
    headers: Option<BTreeMap<String, String>>,
    /// Whether private and loopback addresses may be called.
    allow_private: Option<bool>,
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NodeValidation {
    base_url: String,
    api_key: Option<String>,
    r#type: Option<String>,
    api_type: Option<String>,
    models_path: Option<String>,
    chat_path: Option<String>,
    headers: Option<BTreeMap<String, String>>,
    /// Whether private and loopback addresses may be called.
    #[serde(default)]
    allow_private: bool,
    /// Ask this model instead of the list of models.
    model: Option<String>,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct NodeValidationResult {
    valid: bool,
    error: Option<String>,
    /// `models_endpoint`, `chat_probe` or null.
    method: Option<&'static str>,
    /// How many models were listed.
    models: Option<usize>,
}

pub(crate) async fn list(access: Management) -> AdminResult<Json<NodeList>> {
    let nodes = access.admin.store.nodes().list().await?;
    Ok(Json(NodeList { nodes: nodes.into_iter().map(view).collect() }))
}

pub(crate) async fn show(access: Management, Id(id): Id) -> AdminResult<Json<NodeAnswer>> {
    Ok(Json(NodeAnswer { node: view(find(&access.admin, &id).await?) }))
}

pub(crate) async fn create(
    access: Management,
    Body(draft): Body<NodePatch>,
) -> AdminResult<Created<NodeAnswer>> {
    let admin = &access.admin;
    let mut problems = Problems::default();
    for (field, value) in [("name", &draft.name), ("prefix", &draft.prefix), ("baseUrl", &draft.base_url)] {
        if value.is_none() {
            problems.add(field, "is required");
        }
    }
    problems.done()?;
    let (kind, node_type) = kind_of(draft.r#type.as_deref(), draft.api_type.as_deref())?;
    let mut node = Node {
        id: ProviderId::from(format!("{}{}", kind.id_prefix(), Uuid::now_v7())),
        node_type,
        name: String::new(),
        prefix: String::new(),
        api_type: kind.api_type().map(str::to_owned),
        base_url: String::new(),
        chat_path: None,
        models_path: None,
        headers: BTreeMap::new(),
        allow_private: false,
        created_at: access.now_ms,
        updated_at: access.now_ms,
    };
    merge(admin, &mut node, draft)?;
    check_base_url(admin, &node).await?;
    admin.store.nodes().insert(&node).await?;
    access.reload().await?;
    access.audit("provider.node.create", "provider_node", node.id.as_str(), &node.prefix).await;
    Ok(Created(NodeAnswer { node: view(node) }))
}

pub(crate) async fn update(
    access: Management,
    Id(id): Id,
    Body(patch): Body<NodePatch>,
) -> AdminResult<Json<NodeAnswer>> {
    let admin = &access.admin;
    let node = find(admin, &id).await?;
    let same_type = patch.r#type.as_deref().is_none_or(|given| given == node.node_type.as_str());
    if !same_type || patch.api_type.as_ref().is_some_and(|given| node.api_type.as_ref() != Some(given)) {
        return Err(invalid_field("type", "cannot be changed; add another endpoint"));
    }
    let node = change(&access, &node.id, &patch).await?;
    access.reload().await?;
    for connection in admin.live.load().provider(&node.id).iter().flat_map(|state| &state.connections) {
        admin.forget_models(&connection.id);
    }
    access.audit("provider.node.update", "provider_node", &id, &node.prefix).await;
    Ok(Json(NodeAnswer { node: view(node) }))
}

pub(crate) async fn delete(access: Management, Id(id): Id) -> AdminResult<Json<Done>> {
    let node = find(&access.admin, &id).await?;
    if !access.admin.store.nodes().delete(&node.id).await? {
        return Err(not_found("Provider node"));
    }
    access.reload().await?;
    access.audit("provider.node.delete", "provider_node", &id, &node.prefix).await;
    Ok(Json(Done::new()))
}

pub(crate) async fn validate(
    access: Management,
    Body(body): Body<NodeValidation>,
) -> AdminResult<Json<NodeValidationResult>> {
    let admin = &access.admin;
    let (kind, node_type) = kind_of(body.r#type.as_deref(), body.api_type.as_deref())?;
    let allow_private = body.allow_private || admin.settings.allow_private;
    let mut node = Node {
        id: ProviderId::from(format!("{}draft", kind.id_prefix())),
        node_type,
        name: "draft".to_owned(),
        prefix: "draft".to_owned(),
        api_type: kind.api_type().map(str::to_owned),
        base_url: trim_base_url(&body.base_url).to_owned(),
        chat_path: body.chat_path.clone(),
        models_path: body.models_path.clone(),
        headers: body.headers.clone().unwrap_or_default(),
        allow_private,
        created_at: access.now_ms,
        updated_at: access.now_ms,
    };
    check_url("baseUrl", &node.base_url, allow_private).await?;
    let verdict = ask(admin, &node, &body).await?;
    let (valid, models, method) =
        (verdict.is_valid(), verdict.models, verdict.method.map(|method| method.as_str()));
    let mut error = verdict.message().or_else(|| verdict.unsupported.clone()).filter(|_| !valid);
    if matches!(verdict.diagnosis().r#type, DiagnosisType::UpstreamAuthError) {
        error = Some("Invalid API key".to_owned());
    }
    let has_version = node.base_url.rsplit('/').next().is_some_and(|last| {
        last.strip_prefix('v').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    });
    if verdict.status == Some(404) && !has_version && node_type != NodeType::OllamaCompatible {
        node.base_url = format!("{}/v1", node.base_url);
        if ask(admin, &node, &body).await?.is_valid() {
            error = Some(format!("nothing was found at this URL, but at {}; use that", node.base_url));
        }
    }
    Ok(Json(NodeValidationResult { valid, error, method, models }))
}

async fn ask(admin: &Admin, node: &Node, body: &NodeValidation) -> AdminResult<Verdict> {
    let vendor = Vendor::of_node(node.clone())?;
    let endpoints = endpoints(vendor.provider.as_ref(), body.api_key.as_deref())?;
    let allow_private = vendor.allows_private(admin, &ConnectionOptions::default());
    let subject =
        Subject { provider: vendor.provider.as_ref(), endpoints: &endpoints, services: &[], allow_private };
    Ok(match &body.model {
        Some(model) => probe_chat(admin, &subject, model).await,
        None => probe(admin, &subject, None).await,
    })
}

/// Changes one in one piece. Its URL is looked at before, since that takes time; when somebody else changes that meanwhile,
/// again.
async fn change(access: &Management, id: &ProviderId, patch: &NodePatch) -> AdminResult<Node> {
    let admin = &access.admin;
    let is_moved = patch.base_url.is_some() || patch.allow_private.is_some();
    for _ in 0..MAX_ROUNDS {
        let mut draft = find(admin, id.as_str()).await?;
        merge(admin, &mut draft, patch.clone())?;
        if is_moved {
            check_base_url(admin, &draft).await?;
        }
        let make = |node: &mut Node| {
            merge(admin, node, patch.clone())?;
            if is_moved && (&node.base_url, node.allow_private) != (&draft.base_url, draft.allow_private) {
                return Err(Refusal::Overtaken);
            }
            node.updated_at = access.now_ms;
            Ok(())
        };
        match admin.store.nodes().change(id, make).await? {
            Ok(node) => return Ok(node),
            Err(Refusal::Wrong(error)) => return Err(error),
            Err(Refusal::Overtaken) => {}
        }
    }
    Err(overtaken("node"))
}

/// Takes what was sent into a node; everything wrong is told, but for where its URL leads.
fn merge(admin: &Admin, node: &mut Node, patch: NodePatch) -> AdminResult<()> {
    let mut problems = Problems::default();
    if let Some(name) = patch.name {
        problems.name("name", &name);
        node.name = name;
    }
    let mut taken = None;
    if let Some(prefix) = patch.prefix.filter(|prefix| *prefix != node.prefix) {
        if !is_node_prefix(&prefix) {
            problems.add("prefix", "must match [a-z0-9][a-z0-9._-]{0,31}");
        } else if RESERVED.contains(&prefix.as_str()) || admin.catalog.provider(&prefix).is_some() {
            taken = Some(prefix.clone());
        }
        node.prefix = prefix;
    }
    for (field, value, target) in [
        ("chatPath", patch.chat_path, &mut node.chat_path),
        ("modelsPath", patch.models_path, &mut node.models_path),
    ] {
        let Some(value) = value else { continue };
        if value
            .as_deref()
            .is_some_and(|path| path.is_empty() || path.len() > 512 || path.contains(char::is_whitespace))
        {
            problems.add(field, "must be a path of at most 512 bytes");
        }
        *target = value;
    }
    if let Some(headers) = patch.headers {
        if headers.len() > 50 {
            problems.add("headers", "must have at most 50 entries");
        }
        node.headers = unmasked(headers, &node.headers);
    }
    node.allow_private = patch.allow_private.unwrap_or(node.allow_private);
    if let Some(url) = patch.base_url {
        problems.length("baseUrl", &url, 1..=2_048);
        node.base_url = trim_base_url(&url).to_owned();
    }
    problems.done()?;
    if let Some(prefix) = taken {
        return Err(conflict(format!("the prefix `{prefix}` is a provider's; choose another")));
    }
    let spec = node.to_spec().ok_or_else(|| invalid_field("type", "does not fit `apiType`"))?;
    endpoints(provider_for(Arc::new(spec_from_node(&spec))).as_ref(), None)?;
    Ok(())
}

async fn check_base_url(admin: &Admin, node: &Node) -> AdminResult<()> {
    check_url("baseUrl", &node.base_url, node.allow_private || admin.settings.allow_private).await
}

fn endpoints(provider: &dyn Provider, api_key: Option<&str>) -> AdminResult<Vec<Endpoint>> {
    let input = ConnectionInput { api_key, ..ConnectionInput::default() };
    provider.endpoints(&input).map_err(|error| {
        let field = match &error {
            EndpointError::BadHeader(name) => format!("headers.{name}"),
            EndpointError::Unsupported(_) => "type".to_owned(),
            EndpointError::MissingKey => "apiKey".to_owned(),
            EndpointError::MissingVariable(_) | EndpointError::BadUrl { .. } => "baseUrl".to_owned(),
        };
        invalid_field(&field, error.to_string())
    })
}

fn kind_of(r#type: Option<&str>, api_type: Option<&str>) -> AdminResult<(NodeKind, NodeType)> {
    let name = r#type.unwrap_or(NodeType::OpenaiCompatible.as_str());
    let node_type = [
        NodeType::OpenaiCompatible,
        NodeType::AnthropicCompatible,
        NodeType::GeminiCompatible,
        NodeType::OllamaCompatible,
    ]
    .into_iter()
    .find(|known| known.as_str() == name)
    .ok_or_else(|| {
        invalid_field(
            "type",
            "must be openai-compatible, anthropic-compatible, gemini-compatible or ollama-compatible",
        )
    })?;
    let kind = NodeKind::parse(name, api_type);
    Ok((kind.ok_or_else(|| invalid_field("apiType", "must be `chat` or `responses`"))?, node_type))
}

async fn find(admin: &Admin, id: &str) -> AdminResult<Node> {
    admin.store.nodes().get(&ProviderId::from(id)).await?.ok_or_else(|| not_found("Provider node"))
}

fn view(node: Node) -> NodeView {
    NodeView {
        id: node.id.to_string(),
        r#type: node.node_type.as_str(),
        name: node.name,
        prefix: node.prefix,
        api_type: node.api_type,
        base_url: node.base_url,
        chat_path: node.chat_path,
        models_path: node.models_path,
        headers: node.headers.into_iter().map(|(name, value)| (name, mask(&value))).collect(),
        allow_private: node.allow_private,
        created_at: iso(node.created_at),
        updated_at: iso(node.updated_at),
    }
}
