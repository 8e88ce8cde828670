//! From data to behaviour: the provider for a spec, the few providers that need code, nodes, the simulator.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::{HeaderMap, StatusCode, Uri};
use omniroute_dialect::ir::UpstreamError;

use crate::{
    Capability, Failure, Provider, ProviderId, ProviderSpec, address, classify,
    dialects::{ANTHROPIC, GEMINI, OLLAMA, OPENAI_CHAT, OPENAI_RESPONSES},
    endpoint,
    provider::{ConnectionInput, Endpoint, EndpointError},
    spec::{Auth, AuthKind, Category, Confidence, RateLimitHeaders, ResilienceProfile},
};

/// Id of the built-in simulator, and the scheme of its URLs, which never reach a network.
pub const SIM: &str = "sim";

/// A provider that is more than its data.
type Constructor = fn(Arc<ProviderSpec>) -> Arc<dyn Provider>;

/// Providers with code of their own, by id.
static WITH_CODE: &[(&str, Constructor)] = &[];

/// The behaviour of a provider.
pub fn provider_for(spec: Arc<ProviderSpec>) -> Arc<dyn Provider> {
    match WITH_CODE.iter().find(|(id, _)| *id == spec.id.as_str()) {
        Some((_, construct)) => construct(spec),
        None => Arc::new(DataProvider { spec }),
    }
}

/// A provider that is only data.
#[derive(Debug)]
pub struct DataProvider {
    spec: Arc<ProviderSpec>,
}

impl Provider for DataProvider {
    fn spec(&self) -> &ProviderSpec {
        &self.spec
    }

    fn endpoints(&self, input: &ConnectionInput<'_>) -> Result<Vec<Endpoint>, EndpointError> {
        endpoint::build(&self.spec, input)
    }

    fn classify(
        &self,
        error: UpstreamError,
        status: StatusCode,
        headers: &HeaderMap,
        now_ms: i64,
    ) -> Failure {
        classify::classify(&self.spec, error, status, headers, now_ms)
    }
}

/// The shape of a user-defined node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NodeKind {
    /// OpenAI's Chat Completions.
    OpenAiChat,
    /// OpenAI's Responses.
    OpenAiResponses,
    /// Anthropic's Messages.
    Anthropic,
    /// Google's generateContent.
    Gemini,
    /// Ollama's own.
    Ollama,
}

impl NodeKind {
    /// Every kind.
    pub const ALL: [Self; 5] =
        [Self::OpenAiChat, Self::OpenAiResponses, Self::Anthropic, Self::Gemini, Self::Ollama];

    /// From the API's `type` and `apiType`; `chat` where the latter is absent.
    pub fn parse(kind: &str, api_type: Option<&str>) -> Option<Self> {
        let api_type = api_type.unwrap_or("chat");
        Self::ALL
            .into_iter()
            .find(|it| it.type_name() == kind && it.api_type().is_none_or(|own| own == api_type))
    }

    /// The API's `type`.
    pub const fn type_name(self) -> &'static str {
        match self {
            Self::OpenAiChat | Self::OpenAiResponses => "openai-compatible",
            Self::Anthropic => "anthropic-compatible",
            Self::Gemini => "gemini-compatible",
            Self::Ollama => "ollama-compatible",
        }
    }

    /// The API's `apiType`.
    pub const fn api_type(self) -> Option<&'static str> {
        match self {
            Self::OpenAiChat => Some("chat"),
            Self::OpenAiResponses => Some("responses"),
            Self::Anthropic | Self::Gemini | Self::Ollama => None,
        }
    }

    /// What ids of such nodes begin with; a UUID follows.
    pub const fn id_prefix(self) -> &'static str {
        match self {
            Self::OpenAiChat => "openai-compatible-chat-",
            Self::OpenAiResponses => "openai-compatible-responses-",
            Self::Anthropic => "anthropic-compatible-",
            Self::Gemini => "gemini-compatible-",
            Self::Ollama => "ollama-compatible-",
        }
    }

    const fn dialect(self) -> &'static str {
        match self {
            Self::OpenAiChat => OPENAI_CHAT,
            Self::OpenAiResponses => OPENAI_RESPONSES,
            Self::Anthropic => ANTHROPIC,
            Self::Gemini => GEMINI,
            Self::Ollama => OLLAMA,
        }
    }
}

/// A compatible endpoint that a user defined.
#[derive(Debug, Clone)]
pub struct NodeSpec {
    /// `openai-compatible-chat-<uuid>`, …
    pub id: ProviderId,
    /// What it speaks.
    pub kind: NodeKind,
    /// Name for people.
    pub name: String,
    /// What stands before the slash of its models' names.
    pub prefix: String,
    /// Up to and including the version: `http://host:8080/v1`.
    pub base_url: String,
    /// Replaces the dialect's usual path.
    pub chat_path: Option<String>,
    /// Replaces the usual path of the model list.
    pub models_path: Option<String>,
    /// Headers to add or replace.
    pub headers: BTreeMap<String, String>,
}

/// Whether `id` is a node's. No provider of the catalogue has such an id.
pub fn is_node_id(id: &str) -> bool {
    NodeKind::ALL.iter().any(|kind| id.starts_with(kind.id_prefix()))
}

/// Whether `prefix` can be a node's: `[a-z0-9][a-z0-9._-]{0,31}`. That nobody else has it is checked elsewhere.
pub fn is_node_prefix(prefix: &str) -> bool {
    prefix.len() <= 32 && crate::catalog::is_prefix(prefix)
}

/// What a node is as a provider.
pub fn spec_from_node(node: &NodeSpec) -> ProviderSpec {
    let (header, prefix) = match node.kind {
        NodeKind::OpenAiChat | NodeKind::OpenAiResponses | NodeKind::Ollama => ("Authorization", "Bearer "),
        NodeKind::Anthropic => ("x-api-key", ""),
        NodeKind::Gemini => ("x-goog-api-key", ""),
    };
    let path =
        |given: &Option<String>| given.as_deref().map(str::trim).filter(|path| !path.is_empty()).map(rooted);
    let mut paths = BTreeMap::new();
    if let Some(chat) = path(&node.chat_path) {
        if node.kind == NodeKind::Gemini {
            let streaming = chat.replace(":generateContent", ":streamGenerateContent?alt=sse");
            paths.insert("chat_stream".to_owned(), streaming);
        }
        paths.insert("chat".to_owned(), chat);
    }
    let usual = if node.kind == NodeKind::Ollama { "/api/tags" } else { "/models" };
    paths.insert("models".to_owned(), path(&node.models_path).unwrap_or_else(|| usual.to_owned()));

    let base_url = endpoint::trim_base_url(&node.base_url);
    let is_local = base_url.parse::<Uri>().is_ok_and(|uri| address::is_local_host(&uri));
    ProviderSpec {
        id: node.id.clone(),
        name: node.name.clone(),
        alias: node.prefix.clone(),
        aliases: Vec::new(),
        category: Category::Custom,
        base_url: base_url.to_owned(),
        dialect: node.kind.dialect().to_owned(),
        alt_dialects: Vec::new(),
        auth: Auth {
            kind: AuthKind::ApiKeyOptional,
            header: Some(header.to_owned()),
            prefix: Some(prefix.to_owned()),
            env: None,
            oauth: None,
        },
        headers: node.headers.clone(),
        vars: BTreeMap::new(),
        paths,
        capabilities: capabilities(node.kind),
        rate_limit_headers: match node.kind {
            NodeKind::OpenAiChat | NodeKind::OpenAiResponses => RateLimitHeaders::Openai,
            NodeKind::Anthropic => RateLimitHeaders::Anthropic,
            NodeKind::Gemini => RateLimitHeaders::Google,
            NodeKind::Ollama => RateLimitHeaders::None,
        },
        resilience_profile: if is_local { ResilienceProfile::Local } else { ResilienceProfile::Apikey },
        models: Vec::new(),
        reports_cost: false,
        legacy_models: Default::default(),
        notes: None,
        confidence: Confidence::High,
    }
}

/// What is to be had at such an endpoint, as far as its server has it.
fn capabilities(kind: NodeKind) -> Vec<String> {
    let others: &[Capability] = match kind {
        NodeKind::OpenAiChat | NodeKind::OpenAiResponses => &Capability::ALL,
        NodeKind::Gemini => &[Capability::Embeddings, Capability::Images],
        NodeKind::Ollama => &[Capability::Embeddings],
        NodeKind::Anthropic => &[],
    };
    ["chat", "list_models"]
        .into_iter()
        .chain(others.iter().map(|it| it.as_str()))
        .map(str::to_owned)
        .collect()
}

/// The simulator that is part of the gateway.
pub(crate) fn sim_spec() -> ProviderSpec {
    ProviderSpec {
        id: SIM.into(),
        name: "Simulator (built in)".to_owned(),
        alias: SIM.to_owned(),
        aliases: Vec::new(),
        category: Category::Custom,
        base_url: "sim://sim".to_owned(),
        dialect: OPENAI_CHAT.to_owned(),
        alt_dialects: Vec::new(),
        auth: Auth { kind: AuthKind::None, header: None, prefix: None, env: None, oauth: None },
        headers: BTreeMap::new(),
        vars: BTreeMap::new(),
        paths: BTreeMap::new(),
        capabilities: std::iter::once("chat")
            .chain(Capability::ALL.iter().map(|it| it.as_str()))
            .map(str::to_owned)
            .collect(),
        rate_limit_headers: RateLimitHeaders::None,
        resilience_profile: ResilienceProfile::Local,
        models: vec!["echo".to_owned(), "lorem".to_owned(), "embed".to_owned()],
        reports_cost: false,
        legacy_models: Default::default(),
        notes: None,
        confidence: Confidence::High,
    }
}

fn rooted(path: &str) -> String {
    if path.starts_with(['/']) || path.starts_with("http") { path.to_owned() } else { format!("/{path}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_read_as_the_api_writes_them() {
        for kind in NodeKind::ALL {
            assert_eq!(NodeKind::parse(kind.type_name(), kind.api_type()), Some(kind));
        }
        assert_eq!(NodeKind::parse("openai-compatible", None), Some(NodeKind::OpenAiChat));
        assert_eq!(NodeKind::parse("anthropic-compatible", Some("chat")), Some(NodeKind::Anthropic));
        assert_eq!(NodeKind::parse("openai-compatible", Some("images")), None);
        assert_eq!(NodeKind::parse("smoke-signals", None), None);
    }

    #[test]
    fn a_node_becomes_a_provider() {
        let node = |kind, base_url: &str, chat_path: Option<&str>| {
            spec_from_node(&NodeSpec {
                id: "openai-compatible-chat-1".into(),
                kind,
                name: "Mine".to_owned(),
                prefix: "mine".to_owned(),
                base_url: base_url.to_owned(),
                chat_path: chat_path.map(str::to_owned),
                models_path: None,
                headers: BTreeMap::new(),
            })
        };
        let spec = node(NodeKind::OpenAiChat, "http://localhost:8080/v1/chat/completions/", None);
        assert_eq!(spec.base_url, "http://localhost:8080/v1");
        assert_eq!(spec.resilience_profile, ResilienceProfile::Local);
        assert_eq!((spec.paths.get("chat"), spec.paths["models"].as_str()), (None, "/models"));

        let spec = node(NodeKind::OpenAiChat, "https://llm.example/v1", Some("complete"));
        assert_eq!(spec.resilience_profile, ResilienceProfile::Apikey);
        assert_eq!(spec.paths["chat"], "/complete");

        let spec = node(NodeKind::Gemini, "https://g.example/v1beta", Some("/m/{model}:generateContent"));
        assert_eq!(spec.paths["chat_stream"], "/m/{model}:streamGenerateContent?alt=sse");
        assert_eq!(spec.auth.header.as_deref(), Some("x-goog-api-key"));
        assert_eq!(node(NodeKind::Ollama, "http://10.0.0.7:11434", None).paths["models"], "/api/tags");
    }

    #[test]
    fn prefixes_of_nodes() {
        for (prefix, fine) in
            [("a", true), ("my.node_1-x", true), ("", false), ("-a", false), ("A", false), ("a/b", false)]
        {
            assert_eq!(is_node_prefix(prefix), fine, "{prefix}");
        }
        assert!(!is_node_prefix(&"a".repeat(33)));
    }
}
