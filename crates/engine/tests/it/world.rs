//! An engine, two accounts at one upstream, and everything it recorded.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderMap, Method, Response};
use http_body_util::BodyExt as _;
use omniroute_dialect::shape::Seal;
use omniroute_dialect::{Dialect, anthropic::Anthropic, openai::OpenAi};
use omniroute_domain::entity::{
    ApiKey, ApiKeyId, Combo, ComboConfig, Connection, ConnectionId, ConnectionStatus, Entities, KeyHash,
    Node, NodeType, RuntimeSettings, Step,
};
use omniroute_domain::health::HealthMap;
use omniroute_domain::snapshot::{BuildOptions, Snapshot};
use omniroute_engine::bodies::RequestBodies;
use omniroute_engine::memory::{MemoryCache, MemoryCounters};
use omniroute_engine::ports::{AnswerRow, Clock, Memory, Recorder, RequestRow, Shelf, Unreadable};
use omniroute_engine::preview::Preview;
use omniroute_engine::serve::Ports;
use omniroute_engine::telemetry::Telemetry;
use omniroute_engine::{Answer, Arrival, Engine, EngineOptions, Live};
use omniroute_provider::{ProviderId, catalog::catalog};
use omniroute_testkit::ScriptedTransport;

pub(crate) const NOW_MS: i64 = 1_795_392_000_000;
pub(crate) const KEY: &str = "sk-omni-test";

/// Time that moves with tokio's, which in these tests moves only when everybody waits.
struct PausedClock {
    began: tokio::time::Instant,
}

impl Clock for PausedClock {
    fn now_ms(&self) -> i64 {
        NOW_MS + i64::try_from(self.began.elapsed().as_millis()).unwrap()
    }

    fn instant(&self) -> Instant {
        tokio::time::Instant::now().into_std()
    }
}

#[derive(Default)]
pub(crate) struct Recorded {
    /// How long the shelf takes.
    pub(crate) shelf_delay: Mutex<Duration>,
    /// Whether the shelf cannot be read.
    pub(crate) shelf_fails: Mutex<bool>,
    pub(crate) rows: Mutex<Vec<RequestRow>>,
    pub(crate) statuses: Mutex<Vec<(ConnectionId, ConnectionStatus)>>,
    pub(crate) memories: Mutex<Vec<Memory>>,
    pub(crate) events: Mutex<Vec<omniroute_domain::budget::Event>>,
    pub(crate) bodies: Mutex<Vec<RequestBodies>>,
    /// Whether there is no room for bodies.
    pub(crate) has_no_room: Mutex<bool>,
}

impl Recorder for Recorded {
    fn record(&self, row: RequestRow) {
        self.rows.lock().unwrap().push(row);
    }

    fn connection_status(&self, connection: &ConnectionId, status: ConnectionStatus) {
        self.statuses.lock().unwrap().push((connection.clone(), status));
    }

    fn keep_bodies(&self, bodies: Box<RequestBodies>) -> Option<Arc<str>> {
        if *self.has_no_room.lock().unwrap() {
            return None;
        }
        self.bodies.lock().unwrap().push(*bodies);
        Some("here".into())
    }

    fn remember(&self, memory: Memory) {
        self.memories.lock().unwrap().push(memory);
    }

    fn budget(&self, event: omniroute_domain::budget::Event) {
        self.events.lock().unwrap().push(event);
    }
}

/// What was handed over is found again, as in a database.
impl Shelf for Recorded {
    fn find<'a>(
        &'a self,
        signature: &'a str,
        now_ms: i64,
    ) -> BoxFuture<'a, Result<Option<AnswerRow>, Unreadable>> {
        let delay = *self.shelf_delay.lock().unwrap();
        Box::pin(async move {
            tokio::time::sleep(delay).await;
            if *self.shelf_fails.lock().unwrap() {
                return Err(Unreadable("the disk is full".to_owned()));
            }
            let memories = self.memories.lock().unwrap();
            Ok(memories.iter().rev().find_map(|memory| match memory {
                Memory::Answer(row) if row.signature == signature && row.expires_at > now_ms => {
                    Some(row.clone())
                }
                _ => None,
            }))
        })
    }
}

pub(crate) struct World {
    pub(crate) engine: Arc<Engine>,
    pub(crate) transport: Arc<ScriptedTransport>,
    pub(crate) recorded: Arc<Recorded>,
    began: tokio::time::Instant,
}

/// What the client got.
pub(crate) struct Got {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Got {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with(|_| {}, |_| {})
    }

    pub(crate) fn with(change: impl FnOnce(&mut Entities), tune: impl FnOnce(&mut EngineOptions)) -> Self {
        let mut entities = entities();
        change(&mut entities);
        let mut options = EngineOptions::default();
        tune(&mut options);
        let recorded = Arc::new(Recorded::default());
        let began = tokio::time::Instant::now();
        Self::over(&entities, options, Arc::new(ScriptedTransport::new()), recorded, began)
    }

    /// What a new process is over the database of this one, with another configuration.
    pub(crate) fn restarted(&self, change: impl FnOnce(&mut Entities)) -> Self {
        let mut entities = entities();
        change(&mut entities);
        let options = self.engine.options.clone();
        Self::over(&entities, options, self.transport.clone(), self.recorded.clone(), self.began)
    }

    /// The operator changes the configuration while the process runs.
    pub(crate) fn reconfigure(&self, change: impl FnOnce(&mut Entities)) {
        let mut entities = entities();
        change(&mut entities);
        let live = &self.engine.live;
        let snapshot = Snapshot::build(&entities, catalog(), &live.health, &BuildOptions::default());
        live.swap(snapshot, &*self.engine.recorder);
    }

    fn over(
        entities: &Entities,
        options: EngineOptions,
        transport: Arc<ScriptedTransport>,
        recorded: Arc<Recorded>,
        began: tokio::time::Instant,
    ) -> Self {
        let health = HealthMap::default();
        let snapshot = Snapshot::build(entities, catalog(), &health, &BuildOptions::default());
        assert_eq!(snapshot.problems, [], "the test's configuration has problems");
        let ports = Ports {
            transport: transport.clone(),
            counters: Arc::new(MemoryCounters::default()),
            recorder: recorded.clone(),
            reasoning: Arc::new(MemoryCache::new(1 << 20)),
            owners: Arc::new(MemoryCache::new(1 << 20)),
            media: Arc::new(MemoryCache::new(1 << 20)),
            shelf: recorded.clone(),
            seal: Seal::new([7; 32]),
            clock: Arc::new(PausedClock { began }),
        };
        let live = Arc::new(Live::new(snapshot, health));
        let engine = Arc::new(Engine::new(live, ports, Arc::new(Telemetry::new(NOW_MS)), options, 7));
        Self { engine, transport, recorded, began }
    }

    /// The rows of a world with this change.
    pub(crate) fn entities(change: impl FnOnce(&mut Entities)) -> Entities {
        let mut entities = entities();
        change(&mut entities);
        entities
    }

    pub(crate) async fn chat(&self, body: &str) -> Got {
        self.send(&OpenAi, body, &[]).await
    }

    pub(crate) async fn messages(&self, body: &str) -> Got {
        self.send(&Anthropic, body, &[]).await
    }

    pub(crate) async fn send(
        &self,
        dialect: &'static dyn Dialect,
        body: &str,
        headers: &[(&str, &str)],
    ) -> Got {
        got(self.respond(dialect, body, headers).await).await
    }

    /// The same at a path that means something to the dialect.
    pub(crate) async fn send_to(&self, dialect: &'static dyn Dialect, path: &str, body: &str) -> Got {
        got(self.respond_at(dialect, path, body, &[]).await).await
    }

    pub(crate) async fn respond(
        &self,
        dialect: &'static dyn Dialect,
        body: &str,
        headers: &[(&str, &str)],
    ) -> Response<Answer> {
        self.respond_at(dialect, "/v1/test", body, headers).await
    }

    async fn respond_at(
        &self,
        dialect: &'static dyn Dialect,
        path: &str,
        body: &str,
        headers: &[(&str, &str)],
    ) -> Response<Answer> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(http::HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
        }
        let arrival = Arrival {
            peer: SocketAddr::from(([127, 0, 0, 1], 50_000)),
            method: Method::POST,
            path: path.into(),
            query: None,
            headers: map,
            dialect,
            endpoint: "chat",
            provider: None,
            is_logged: true,
        };
        let mut ctx = self.engine.begin(arrival);
        match self.engine.identify(&mut ctx) {
            Ok(()) => self.engine.serve(ctx, Bytes::copy_from_slice(body.as_bytes())).await,
            Err(error) => self.engine.refuse(ctx, &error),
        }
    }

    /// What would become of a request.
    pub(crate) async fn preview(&self, body: &str) -> Preview {
        self.foresee(body, &[], false).await
    }

    /// The same with headers, and with [`KEY`] or without one.
    pub(crate) async fn foresee(&self, body: &str, headers: &[(&str, &str)], with_key: bool) -> Preview {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(http::HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
        }
        let arrival = Arrival {
            peer: SocketAddr::from(([127, 0, 0, 1], 50_000)),
            method: Method::POST,
            path: "/v1/test".into(),
            query: None,
            headers: map,
            dialect: &OpenAi,
            endpoint: "chat",
            provider: None,
            is_logged: false,
        };
        let mut ctx = self.engine.begin(arrival);
        if with_key {
            ctx.caller = ctx.snapshot.caller_by_id(&ApiKeyId::from("k1")).cloned();
        }
        self.engine.preview(ctx, Bytes::copy_from_slice(body.as_bytes())).await.unwrap()
    }

    pub(crate) fn row(&self) -> RequestRow {
        self.recorded.rows.lock().unwrap().last().cloned().expect("nothing was recorded")
    }

    /// Seconds since the test began.
    pub(crate) fn elapsed(&self) -> Duration {
        Duration::from_millis(u64::try_from(self.engine.clock.now_ms() - NOW_MS).unwrap())
    }
}

async fn got(response: Response<Answer>) -> Got {
    let (head, body) = response.into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    Got {
        status: head.status.as_u16(),
        headers: head.headers,
        body: String::from_utf8(bytes.to_vec()).unwrap(),
    }
}

/// Two accounts at an OpenAI-dialect node `up`, one at an Anthropic-dialect node `anth`, one at a Gemini-dialect node `gem`.
fn entities() -> Entities {
    let openai = node("openai-compatible-chat-1", NodeType::OpenaiCompatible, "up");
    let anthropic = node("anthropic-compatible-1", NodeType::AnthropicCompatible, "anth");
    let gemini = node("gemini-compatible-1", NodeType::GeminiCompatible, "gem");
    // The tests ask the same again and again, and mean another conversation each time.
    let settings = RuntimeSettings { session_affinity_ttl_ms: 0, ..RuntimeSettings::default() };
    Entities {
        revision: 1,
        connections: vec![
            connection("c1", &openai.id, "first", 1),
            connection("c2", &openai.id, "second", 2),
            connection("c3", &anthropic.id, "only", 1),
            connection("c4", &gemini.id, "google", 1),
        ],
        nodes: vec![openai, anthropic, gemini],
        api_keys: vec![key()],
        settings,
        ..Entities::default()
    }
}

pub(crate) fn node(id: &str, node_type: NodeType, prefix: &str) -> Node {
    Node {
        id: ProviderId::from(id),
        node_type,
        name: prefix.into(),
        prefix: prefix.into(),
        api_type: (node_type == NodeType::OpenaiCompatible).then(|| "chat".into()),
        base_url: "https://upstream.example/v1".into(),
        chat_path: None,
        models_path: None,
        headers: Default::default(),
        allow_private: false,
        created_at: 0,
        updated_at: 0,
    }
}

pub(crate) fn connection(id: &str, provider: &ProviderId, name: &str, priority: i64) -> Connection {
    Connection {
        priority,
        api_key: Some(format!("upstream-key-of-{name}").into()),
        ..Connection::new(ConnectionId::from(id), provider.clone(), name, 0)
    }
}

/// A combo of these models, tried in this order, each once.
pub(crate) fn combo(name: &str, models: &[&str]) -> Combo {
    let step = |model: &&str| Step::to_model(model.replace("/m", ""), *model);
    Combo {
        config: ComboConfig { max_retries: Some(0), ..ComboConfig::default() },
        ..Combo::new("1", name, "priority", models.iter().map(step).collect(), 0)
    }
}

pub(crate) fn key() -> ApiKey {
    ApiKey {
        id: ApiKeyId::from("k1"),
        name: "dev".into(),
        hash: KeyHash::of(KEY),
        masked: "sk-omni-****".into(),
        is_active: true,
        no_log: false,
        allowed_models: Vec::new(),
        denied_models: Vec::new(),
        allowed_connections: Vec::new(),
        allowed_endpoints: Vec::new(),
        scopes: Vec::new(),
        ip_allowlist: Vec::new(),
        max_requests_per_minute: None,
        max_requests_per_day: None,
        max_tokens_per_minute: None,
        max_concurrent: None,
        max_sessions: 0,
        strict: false,
        rights: Default::default(),
        expires_at: None,
        revoked_at: None,
        last_used_at: None,
        created_at: 0,
    }
}

pub(crate) const ASK: &str = r#"{"model":"up/m","messages":[{"role":"user","content":"hi"}]}"#;
pub(crate) const ASK_STREAM: &str =
    r#"{"model":"up/m","messages":[{"role":"user","content":"hi"}],"stream":true}"#;

/// A whole answer of the upstream.
pub(crate) fn answer(text: &str) -> omniroute_testkit::Answer {
    omniroute_testkit::Answer::json(
        200,
        format!(
            r#"{{"id":"x","object":"chat.completion","created":1,"model":"m","choices":[{{"index":0,"message":{{"role":"assistant","content":"{text}"}},"finish_reason":"stop"}}],"usage":{{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}}}}"#
        ),
    )
}

/// One chunk of a stream of the upstream.
pub(crate) fn chunk(text: &str) -> String {
    format!(
        "data: {{\"id\":\"x\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{text}\"}},\"finish_reason\":null}}]}}\n\n"
    )
}

/// The proper end of a stream.
pub(crate) const END: &str = "data: {\"id\":\"x\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: {\"id\":\"x\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\",\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":2,\"total_tokens\":5}}\n\ndata: [DONE]\n\n";

/// The head of a stream.
pub(crate) fn stream() -> omniroute_testkit::Answer {
    omniroute_testkit::Answer::new(200, "text/event-stream")
}

/// An error of the upstream.
pub(crate) fn refusal(status: u16, kind: &str, message: &str) -> omniroute_testkit::Answer {
    omniroute_testkit::Answer::json(
        status,
        format!(r#"{{"error":{{"message":"{message}","type":"{kind}","param":null,"code":null}}}}"#),
    )
}
