use std::sync::Arc;

use super::*;
use crate::{
    catalog::catalog,
    registry::{NodeKind, NodeSpec, provider_for, spec_from_node},
};

fn text_map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn endpoints(provider: &str, input: &ConnectionInput<'_>) -> Result<Vec<Endpoint>, EndpointError> {
    provider_for(Arc::clone(catalog().provider(provider).unwrap())).endpoints(input)
}

fn key(api_key: &str) -> ConnectionInput<'_> {
    ConnectionInput { api_key: Some(api_key), ..ConnectionInput::default() }
}

fn show(endpoints: &[Endpoint]) -> Vec<String> {
    let one = |endpoint: &Endpoint| {
        let url =
            endpoint.chat_uri("a/b c", true).map_or_else(|error| error.to_string(), |uri| uri.to_string());
        let models = endpoint.models.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string);
        format!("{} {url} {models}", endpoint.dialect)
    };
    endpoints.iter().map(one).collect()
}

#[test]
fn urls() {
    let cases: &[(&str, ConnectionInput<'_>, &[&str])] = &[
        (
            "openai",
            key("k"),
            &["openai https://api.openai.com/v1/chat/completions https://api.openai.com/v1/models"],
        ),
        (
            "anthropic",
            key("k"),
            &["anthropic https://api.anthropic.com/v1/messages https://api.anthropic.com/v1/models"],
        ),
        (
            "deepseek",
            key("k"),
            &[
                "openai https://api.deepseek.com/v1/chat/completions https://api.deepseek.com/v1/models",
                "anthropic https://api.deepseek.com/anthropic/v1/messages https://api.deepseek.com/v1/models",
            ],
        ),
        (
            "openrouter",
            key("k"),
            &[
                "openai https://openrouter.ai/api/v1/chat/completions https://openrouter.ai/api/v1/models",
                "anthropic https://openrouter.ai/api/v1/messages https://openrouter.ai/api/v1/models",
            ],
        ),
        (
            "openai",
            ConnectionInput { base_url: Some("https://eu.api.openai.com/v1/chat/completions/"), ..key("k") },
            &["openai https://eu.api.openai.com/v1/chat/completions https://eu.api.openai.com/v1/models"],
        ),
        // What is not below the base URL does not follow it elsewhere.
        (
            "deepseek",
            ConnectionInput { base_url: Some("http://127.0.0.1:9/v1"), ..key("k") },
            &["openai http://127.0.0.1:9/v1/chat/completions http://127.0.0.1:9/v1/models"],
        ),
        (
            "fireworks",
            ConnectionInput { base_url: Some("http://127.0.0.1:9/v1"), ..key("k") },
            &[
                "openai http://127.0.0.1:9/v1/chat/completions http://127.0.0.1:9/v1/models",
                "anthropic http://127.0.0.1:9/v1/messages http://127.0.0.1:9/v1/models",
            ],
        ),
        (
            "cohere",
            key("k"),
            &[
                "openai https://api.cohere.com/compatibility/v1/chat/completions https://api.cohere.com/v1/models",
            ],
        ),
        (
            "cohere",
            ConnectionInput { base_url: Some("http://127.0.0.1:9/v1"), ..key("k") },
            &["openai http://127.0.0.1:9/v1/chat/completions -"],
        ),
        (
            "azure",
            ConnectionInput { vars: text_map(&[("resource", "mine")]), ..key("k") },
            &["openai https://mine.openai.azure.com/openai/v1/chat/completions -"],
        ),
        // A variable that only the replaced base URL needed may be missing.
        (
            "azure",
            ConnectionInput { base_url: Some("https://gateway.example/openai/v1"), ..key("k") },
            &["openai https://gateway.example/openai/v1/chat/completions -"],
        ),
        (
            "gemini",
            ConnectionInput { dialect: Some("openai-chat"), ..key("k") },
            &[
                "openai https://generativelanguage.googleapis.com/v1beta/openai/chat/completions https://generativelanguage.googleapis.com/v1beta/models",
            ],
        ),
        (
            "deepseek",
            ConnectionInput { dialect: Some("anthropic"), ..key("k") },
            &["anthropic https://api.deepseek.com/anthropic/v1/messages https://api.deepseek.com/v1/models"],
        ),
        (
            "ollama",
            ConnectionInput {
                base_url: Some("http://127.0.0.1:11500/v1"),
                dialect: Some("openai"),
                ..ConnectionInput::default()
            },
            &["openai http://127.0.0.1:11500/v1/chat/completions http://127.0.0.1:11500/api/tags"],
        ),
        ("sim", ConnectionInput::default(), &["openai sim://sim/chat/completions -"]),
    ];
    for (provider, input, want) in cases {
        let built = endpoints(provider, input).unwrap_or_else(|error| panic!("{provider}: {error}"));
        // Dialects that are spoken one day add endpoints; those that are expected stay.
        let shown = show(&built);
        for want in *want {
            assert!(shown.iter().any(|line| line == want), "{provider}: {want} is not in {shown:?}");
        }
        assert_eq!(shown.first().map(String::as_str), want.first().copied(), "{provider}");
    }
}

#[test]
fn what_cannot_be_called_says_why() {
    let cases: &[(&str, ConnectionInput<'_>, &str)] = &[
        ("openai", ConnectionInput::default(), "an API key is needed"),
        ("openai", key("  "), "an API key is needed"),
        ("openai", key("a\nb"), "header `Authorization`"),
        ("azure", key("k"), "`resource` is not set"),
        ("yandex", key("k"), "`folder` is not set"),
        ("vertex", key("k"), "Google service account"),
        ("gigachat", key("k"), "OAuth client credentials"),
        ("watsonx", key("k"), "IBM IAM"),
        ("deepgram", key("k"), "`deepgram` has no chat operation"),
        ("replicate", key("k"), "`replicate` has no chat operation"),
        (
            "bedrock",
            key("k"),
            "`bedrock-converse`, which the gateway does not speak yet; set `dialect` to `openai-chat`",
        ),
        (
            "openai",
            ConnectionInput { dialect: Some("gemini"), ..key("k") },
            "does not offer dialect `gemini`; it offers openai-chat",
        ),
        (
            "openai",
            ConnectionInput { base_url: Some("ftp://x.example"), ..key("k") },
            "it must begin with http",
        ),
        (
            "openai",
            ConnectionInput { base_url: Some("https://x.example/v1?a=b"), ..key("k") },
            "has no query",
        ),
        (
            "openai",
            ConnectionInput { base_url: Some("https://u:p@x.example/v1"), ..key("k") },
            "holds a user name",
        ),
        ("openai", ConnectionInput { base_url: Some("not a url"), ..key("k") }, "is not a valid URL"),
        (
            "openai",
            ConnectionInput { extra_headers: text_map(&[("Host", "x")]), ..key("k") },
            "header `Host`",
        ),
        ("openai", ConnectionInput { extra_headers: text_map(&[("a b", "x")]), ..key("k") }, "header `a b`"),
    ];
    for (provider, input, want) in cases {
        let error = endpoints(provider, input).expect_err(provider).to_string();
        assert!(error.contains(want), "{provider}: {error}");
        assert!(!error.contains("u:p"), "{error}");
    }
}

#[test]
fn headers_carry_the_credential_and_nothing_tells_it() {
    let get = |endpoint: &Endpoint, name: &str| {
        endpoint.headers.get(name).map(|value| value.to_str().unwrap().to_owned())
    };

    let built = endpoints(
        "openai",
        &ConnectionInput { vars: text_map(&[("organization", "org-1")]), ..key(" sk-1 ") },
    )
    .unwrap();
    assert_eq!(get(&built[0], "authorization").as_deref(), Some("Bearer sk-1"));
    assert_eq!(get(&built[0], "openai-organization").as_deref(), Some("org-1"));
    assert_eq!(get(&built[0], "openai-project"), None);
    assert!(built[0].headers["authorization"].is_sensitive());
    assert!(!format!("{built:?}").contains("sk-1"));

    let built = endpoints("anthropic", &key("sk-1")).unwrap();
    assert_eq!(get(&built[0], "x-api-key").as_deref(), Some("sk-1"));
    assert_eq!(get(&built[0], "authorization"), None);
    assert_eq!(get(&built[0], "anthropic-version").as_deref(), Some("2023-06-01"));

    let built = endpoints("deepseek", &key("sk-1")).unwrap();
    assert_eq!(get(&built[0], "x-api-key"), None);
    assert_eq!(get(&built[1], "x-api-key").as_deref(), Some("sk-1"));
    assert_eq!(get(&built[1], "authorization").as_deref(), Some("Bearer sk-1"));
    assert_eq!(get(&built[1], "anthropic-version").as_deref(), Some("2023-06-01"));

    let input = ConnectionInput { dialect: Some("openai"), ..key("g") };
    let built = endpoints("gemini", &input).unwrap();
    assert_eq!(
        get(&built[0], "authorization").as_deref(),
        Some("Bearer g"),
        "Google's compatible endpoint takes no other"
    );

    let built =
        endpoints("azure", &ConnectionInput { vars: text_map(&[("resource", "r")]), ..key("k") }).unwrap();
    assert_eq!((get(&built[0], "api-key").as_deref(), get(&built[0], "authorization")), (Some("k"), None));

    let extra = text_map(&[("User-Agent", "mine/1"), ("X-Title", "t")]);
    let built = endpoints("openrouter", &ConnectionInput { extra_headers: extra, ..key("k") }).unwrap();
    assert_eq!(get(&built[0], "user-agent").as_deref(), Some("mine/1"));
    assert_eq!(get(&built[0], "x-title").as_deref(), Some("t"));
    assert_eq!(get(&built[0], "http-referer"), None);

    assert_eq!(get(&endpoints("llamacpp", &ConnectionInput::default()).unwrap()[0], "authorization"), None);
    assert_eq!(get(&endpoints("sim", &key("k")).unwrap()[0], "authorization").as_deref(), Some("Bearer k"));
}

#[test]
fn a_client_gets_its_own_dialect_where_it_is_spoken() {
    let both = endpoints("deepseek", &key("k")).unwrap();
    let (openai, anthropic) = (both[0].dialect, both[1].dialect);
    assert_eq!(choose(&both, anthropic).unwrap().dialect, anthropic);
    assert_eq!(choose(&both, openai).unwrap().dialect, openai);
    assert_eq!(choose(&both[..1], anthropic).unwrap().dialect, openai);
    assert!(choose(&[], openai).is_none());
}

#[test]
fn nodes() {
    let node = |kind, base_url: &str, chat_path: Option<&str>| NodeSpec {
        id: "n".into(),
        kind,
        name: "N".to_owned(),
        prefix: "n".to_owned(),
        base_url: base_url.to_owned(),
        chat_path: chat_path.map(str::to_owned),
        models_path: None,
        headers: text_map(&[("X-Team", "a")]),
    };
    let built = |node: &NodeSpec| provider_for(Arc::new(spec_from_node(node))).endpoints(&key("k")).unwrap();

    let openai = built(&node(NodeKind::OpenAiChat, "http://h:8080/v1/", None));
    assert_eq!(show(&openai), ["openai http://h:8080/v1/chat/completions http://h:8080/v1/models"]);
    assert_eq!(openai[0].headers["x-team"], "a");
    assert_eq!(openai[0].headers["authorization"], "Bearer k");
    let own = built(&node(NodeKind::OpenAiChat, "http://h:8080/v1", Some("/m/{model}/chat")));
    assert_eq!(show(&own), ["openai http://h:8080/v1/m/a%2Fb%20c/chat http://h:8080/v1/models"]);
    let anthropic = built(&node(NodeKind::Anthropic, "https://h.example/v1", None));
    assert_eq!(show(&anthropic), ["anthropic https://h.example/v1/messages https://h.example/v1/models"]);
    assert_eq!(anthropic[0].headers["x-api-key"], "k");
    assert_eq!(anthropic[0].headers["anthropic-version"], "2023-06-01");
    assert!(!anthropic[0].headers.contains_key("authorization"));
}

#[test]
fn every_provider_that_chats_in_a_spoken_dialect_has_an_endpoint() {
    for spec in catalog().providers() {
        let vars = spec.vars.keys().map(|name| (name.clone(), "value".to_owned())).collect();
        let input = ConnectionInput { vars, ..key("k") };
        let expected = dialects::spoken(&spec.dialect).is_some()
            && matches!(spec.auth.kind, AuthKind::ApiKey | AuthKind::ApiKeyOptional | AuthKind::None);
        match provider_for(Arc::clone(spec)).endpoints(&input) {
            Ok(built) => assert!(!built.is_empty()),
            Err(EndpointError::Unsupported(text)) => assert!(!expected, "{}: {text}", spec.id),
            Err(error) => panic!("{}: {error}", spec.id),
        }
    }
}

#[test]
fn model_names_in_paths() {
    assert_eq!(expand("/m/{model}:go", "gemini-2.5-pro"), "/m/gemini-2.5-pro:go");
    assert_eq!(expand("/m/{model}", "a/b?c#d é"), "/m/a%2Fb%3Fc%23d%20%C3%A9");
    assert_eq!(expand("/{+model}", "fal-ai/flux/schnell"), "/fal-ai/flux/schnell");
}
