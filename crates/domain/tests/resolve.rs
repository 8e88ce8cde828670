//! From the string in `model` to a target: every way that is found, and every way that is not.

use omniroute_domain::entity::{
    AuthType, Connection, ConnectionId, ConnectionOptions, ConnectionStatus, CustomModel, Entities, Node,
    NodeType,
};
use omniroute_domain::health::HealthMap;
use omniroute_domain::resolve::{Target, resolve, resolve_at};
use omniroute_domain::snapshot::{BuildOptions, Snapshot};
use omniroute_provider::ProviderId;
use omniroute_provider::catalog::catalog;

fn connection(provider: &str, name: &str) -> Connection {
    Connection {
        id: ConnectionId::from(format!("{provider}-{name}")),
        provider: ProviderId::from(provider),
        auth_type: AuthType::Apikey,
        name: name.into(),
        display_name: None,
        email: None,
        priority: 1,
        global_priority: None,
        is_active: true,
        api_key: Some("a-key".to_owned().into()),
        options: ConnectionOptions::default(),
        default_model: None,
        rate_limit_protection: false,
        max_concurrent: None,
        health_check_interval: None,
        group: None,
        tags: Vec::new(),
        expires_at: None,
        status: ConnectionStatus::default(),
        created_at: 0,
        updated_at: 0,
    }
}

fn node(id: &str, prefix: &str) -> Node {
    Node {
        id: ProviderId::from(id),
        node_type: NodeType::OpenaiCompatible,
        name: prefix.into(),
        prefix: prefix.into(),
        api_type: Some("chat".into()),
        base_url: "https://upstream.example/v1".into(),
        chat_path: None,
        models_path: None,
        headers: Default::default(),
        allow_private: false,
        created_at: 0,
        updated_at: 0,
    }
}

fn model(provider: &str, id: &str, api_format: &str) -> CustomModel {
    CustomModel {
        provider: ProviderId::from(provider),
        id: id.into(),
        name: id.into(),
        source: "manual".into(),
        api_format: api_format.into(),
        supported_endpoints: vec!["chat".into()],
        is_hidden: false,
        context_window: None,
        max_output: None,
        caps: Default::default(),
    }
}

/// OpenAI with an account `work`, two nodes that share a model, and OpenAI's DeepSeek that is switched off.
fn snapshot(change: impl FnOnce(&mut Entities)) -> Snapshot {
    let mut entities = Entities {
        revision: 1,
        connections: vec![connection("openai", "work"), connection("n1", "a"), connection("n2", "b")],
        nodes: vec![node("n1", "one"), node("n2", "two")],
        custom_models: vec![
            model("n1", "shared", "chat-completions"),
            model("n2", "shared", "chat-completions"),
            model("n2", "gpt-5.6", "chat-completions"),
            model("n2", "Qwen/Own", "responses"),
        ],
        ..Entities::default()
    };
    entities.connections.push(Connection { is_active: false, ..connection("deepseek", "off") });
    change(&mut entities);
    Snapshot::build(&entities, catalog(), &HealthMap::default(), &BuildOptions::default())
}

fn told(target: &Target) -> String {
    let pin = target.connection_name.as_ref().map(|name| format!(" at {name}")).unwrap_or_default();
    format!("{} {}{pin}", target.provider.id, target.model)
}

#[test]
fn what_is_found() {
    let snapshot = snapshot(|_| {});
    for (asked, found) in [
        ("openai/gpt-5.6", "openai gpt-5.6"),
        (" cx/anything/at:all ", "openai anything/at:all"),
        ("openai/gpt-5.6[1m]", "openai gpt-5.6"),
        ("openai/gpt-5.6@work", "openai gpt-5.6 at work"),
        ("openai/gpt-5.6@nobody", "openai gpt-5.6@nobody"),
        ("one/shared", "n1 shared"),
        ("n1/shared", "n1 shared"),
        ("gpt-5.6", "openai gpt-5.6"),
        ("gpt-99-unheard-of", "openai gpt-99-unheard-of"),
        ("Qwen/Own", "n2 Qwen/Own"),
        ("sim/echo", "sim echo"),
    ] {
        match resolve(&snapshot, asked) {
            Ok(target) => assert_eq!(told(&target), found, "{asked}"),
            Err(error) => panic!("{asked}: {error}"),
        }
    }
}

#[test]
fn what_is_not_found() {
    let snapshot = snapshot(|_| {});
    let long = "m".repeat(257);
    for (asked, code, part) in [
        ("", "invalid_model", "empty"),
        ("  ", "invalid_model", "empty"),
        (long.as_str(), "invalid_model", "256"),
        ("a\nb", "invalid_model", "control"),
        ("openai/../x", "invalid_model", ".."),
        ("openai/", "invalid_model", "no model"),
        ("kr/x", "unknown_provider", "`kr`"),
        ("Nobody/Knows", "unknown_provider", "`Nobody`"),
        ("deepseek/deepseek-chat", "no_credentials", "`deepseek`"),
        ("deepseek-chat", "model_not_found", "`deepseek`"),
        ("shared", "ambiguous_model", "one/shared, two/shared"),
        ("sharet", "model_not_found", "`shared`"),
        ("echo", "model_not_found", "/v1/models"),
    ] {
        match resolve(&snapshot, asked) {
            Ok(target) => panic!("{asked}: {}", told(&target)),
            Err(error) => {
                assert_eq!(error.code(), code, "{asked}");
                assert!(error.to_string().contains(part), "{asked}: {error}");
            }
        }
    }
    let ordered = self::snapshot(|entities| entities.settings.provider_order = vec!["n2".into()]);
    assert_eq!(resolve(&ordered, "shared").ok().as_ref().map(told).as_deref(), Some("n2 shared"));
}

#[test]
fn routes_that_name_the_provider() {
    let snapshot = snapshot(|_| {});
    for (provider, asked, found) in [
        ("openai", "gpt-5.6", "openai gpt-5.6"),
        ("cx", "openai/gpt-5.6", "openai gpt-5.6"),
        ("one", "Qwen/Foreign", "n1 Qwen/Foreign"),
        ("one", "shared[1m]", "n1 shared"),
        ("one", "two/shared", "provider_mismatch"),
        ("nix", "shared", "unknown_provider"),
        ("one", "one/", "invalid_model"),
        ("deepseek", "deepseek-chat", "no_credentials"),
    ] {
        let got = resolve_at(&snapshot, provider, asked);
        let got = got.map_or_else(|error| error.code().to_owned(), |target| told(&target));
        assert_eq!(got, found, "{provider} {asked}");
    }
}

#[test]
fn models_that_are_bound_to_a_dialect_are_known() {
    let snapshot =
        snapshot(|entities| entities.custom_models.push(model("openai", "gpt-5.4-pro", "chat-completions")));
    let only = |name: &str| resolve(&snapshot, name).ok().and_then(|it| it.provider.only_dialect(&it.model));
    let bound = catalog().models_of(&"openai".into()).iter().filter(|row| row.only_dialect().is_some());
    let bound: Vec<_> = bound.map(|row| row.model.as_str()).filter(|name| *name != "gpt-5.4-pro").collect();
    assert!(!bound.is_empty());
    for name in bound {
        assert_eq!(only(&format!("openai/{name}")), Some("openai-responses"), "{name}");
    }
    assert_eq!(only("two/Qwen/Own"), Some("openai-responses"), "the operator said so");
    assert_eq!(only("openai/gpt-5.4-pro"), None, "the operator knows better");
    assert_eq!(only("one/shared"), None);
}
