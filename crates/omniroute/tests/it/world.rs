//! A gateway with one scripted upstream, and the bodies that go to and fro.

use omniroute_testkit::{Answer, ScriptedUpstream};
use serde_json::{Value, json};

use crate::client::{Call, Response};
use crate::gateway::{Gateway, Start};

/// Nobody may ever see this but the upstream.
pub(crate) const UPSTREAM_KEY: &str = "sk-upstream-sentinel-5c1e0f";

pub(crate) const COMPLETION: &str = r#"{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"hello"},"finish_reason":"stop"}],"usage":{"prompt_tokens":5,"completion_tokens":2,"total_tokens":7}}"#;

pub(crate) const EVENTS: [&str; 4] = [
    "data: {\"id\":\"c1\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"one\"},\"finish_reason\":null}]}\n\n",
    "data: {\"id\":\"c1\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"two\"},\"finish_reason\":null}]}\n\n",
    "data: {\"id\":\"c1\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n",
    "data: [DONE]\n\n",
];

/// A gateway whose models `up/…` are at `upstream`.
pub(crate) struct World {
    pub(crate) gateway: Gateway,
    pub(crate) upstream: ScriptedUpstream,
    pub(crate) node: String,
    pub(crate) connection: String,
}

impl World {
    pub(crate) async fn start() -> Self {
        Self::of(Start::new()).await
    }

    pub(crate) async fn of(start: Start) -> Self {
        let gateway = start.run().await;
        let upstream = ScriptedUpstream::start().await;
        upstream.always(Answer::json(200, COMPLETION));
        let node = add_node(&gateway, "up", &upstream.url("/v1")).await;
        let connection = add_connection(&gateway, &node, "first", UPSTREAM_KEY).await;
        // Waiting for an account to recover is another test's subject.
        gateway.set("PATCH", "/api/settings", &json!({"requestRetry": 0})).await;
        Self { gateway, upstream, node, connection }
    }

    /// One chat request.
    pub(crate) async fn chat(&self, model: &str) -> Response {
        self.gateway.call(&chat(model)).await
    }

    /// Takes account states back to the beginning.
    pub(crate) async fn recover(&self) {
        let path = format!("/api/providers/{}", self.connection);
        self.gateway.set("PATCH", &path, &json!({"clearError": true})).await;
    }
}

pub(crate) async fn add_node(gateway: &Gateway, prefix: &str, base_url: &str) -> String {
    let body = json!({"name": prefix, "prefix": prefix, "baseUrl": base_url, "allowPrivate": true});
    let made = gateway.set("POST", "/api/provider-nodes", &body).await;
    made["node"]["id"].as_str().unwrap().to_owned()
}

pub(crate) async fn add_connection(gateway: &Gateway, provider: &str, name: &str, key: &str) -> String {
    let body = json!({"provider": provider, "name": name, "apiKey": key});
    let made = gateway.set("POST", "/api/providers", &body).await;
    made["connection"]["id"].as_str().unwrap().to_owned()
}

/// A new client key.
pub(crate) async fn add_key(gateway: &Gateway, mut limits: Value) -> String {
    limits["name"] = json!("tests");
    let made = gateway.set("POST", "/api/keys", &limits).await;
    made["key"].as_str().unwrap().to_owned()
}

/// The smallest request.
pub(crate) fn chat(model: &str) -> Call {
    let body = json!({"model": model, "messages": [{"role": "user", "content": "hello"}]});
    Call::post("/v1/chat/completions", body.to_string())
}

/// The same, streamed.
pub(crate) fn stream(model: &str) -> Call {
    let body = json!({"model": model, "stream": true, "messages": [{"role": "user", "content": "hello"}]});
    Call::post("/v1/chat/completions", body.to_string())
}

/// The smallest request in Anthropic's words.
pub(crate) fn messages(model: &str) -> Call {
    let body = json!({"model": model, "max_tokens": 50, "messages": [{"role": "user", "content": "hello"}]});
    Call::post("/v1/messages", body.to_string())
}
