//! An engine whose upstream answers at once out of memory, for counting what a request costs. Keys, limits, a budget and
//! the log are on; there are no sockets, no waiting, and nothing that grows from one request to the next.

pub mod large;

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt as _};
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue, USER_AGENT};
use http::{HeaderMap, Method, Response};
use http_body::{Body, Frame};
use http_body_util::BodyExt as _;
use omniroute_dialect::Dialect;
use omniroute_dialect::shape::Seal;
use omniroute_domain::entity::{
    ApiKey, ApiKeyId, Budget, Connection, ConnectionId, ConnectionStatus, Entities, KeyHash, Node, NodeType,
};
use omniroute_domain::health::HealthMap;
use omniroute_domain::price::PriceRow;
use omniroute_domain::snapshot::{BuildOptions, Snapshot};
use omniroute_engine::memory::{MemoryCache, MemoryCounters, NoShelf};
use omniroute_engine::ports::{
    Memory, OutboundCall, Recorder, RequestRow, Transport, TransportError, UpstreamBody,
};
use omniroute_engine::serve::Ports;
use omniroute_engine::telemetry::Telemetry;
use omniroute_engine::{Answer, Arrival, Engine, EngineOptions, Live, RequestCtx};
use omniroute_provider::{ProviderId, catalog::catalog};
use omniroute_testkit::TestClock;

/// Runs what is not the engine's own work; a test leaves it out of its count.
pub type Aside = fn(&mut dyn FnMut());

/// An engine and the thread's runtime, which it needs for its time limits.
pub struct Rig {
    pub engine: Arc<Engine>,
    runtime: tokio::runtime::Runtime,
    aside: Aside,
}

impl Rig {
    /// An engine whose upstreams always answer with these pieces, one at a time.
    pub fn new(answer: Script, aside: Aside) -> Self {
        Self::over(&entities(), answer, aside)
    }

    /// The same over other rows.
    pub fn over(entities: &Entities, answer: Script, aside: Aside) -> Self {
        let health = HealthMap::default();
        let snapshot = Snapshot::build(entities, catalog(), &health, &BuildOptions::default());
        assert_eq!(snapshot.problems, [], "the configuration has problems");
        let ports = Ports {
            transport: Arc::new(Instantly { script: Arc::new(answer), aside }),
            counters: Arc::new(MemoryCounters::default()),
            recorder: Arc::new(Forgotten),
            reasoning: Arc::new(MemoryCache::new(1 << 20)),
            owners: Arc::new(MemoryCache::new(1 << 20)),
            media: Arc::new(MemoryCache::new(1 << 20)),
            shelf: Arc::new(NoShelf),
            seal: Seal::new([7; 32]),
            clock: Arc::new(TestClock::default()),
        };
        let live = Arc::new(Live::new(snapshot, health));
        let telemetry = Arc::new(Telemetry::new(0));
        let engine = Arc::new(Engine::new(live, ports, telemetry, EngineOptions::default(), 7));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        Self { engine, runtime: runtime.expect("a runtime"), aside }
    }

    /// A request as the server hands it over, its key checked.
    pub fn identified(&self, dialect: &'static dyn Dialect) -> Box<RequestCtx> {
        let mut made = None;
        (self.aside)(&mut || made = Some(arrival(dialect)));
        let mut ctx = self.engine.begin(made.expect("it was just made"));
        assert!(self.engine.identify(&mut ctx).is_ok(), "the key is known");
        ctx
    }

    /// The answer's head; its body is still to be read.
    pub fn ask(&self, dialect: &'static dyn Dialect, body: &Bytes) -> Response<Answer> {
        let _guard = self.runtime.enter();
        let ctx = self.identified(dialect);
        let response = self.engine.serve(ctx, body.clone()).now_or_never().expect("nothing is waited for");
        assert_eq!(response.status(), 200);
        response
    }

    /// The next piece of an answer, whatever pauses there are before it.
    pub fn next(&self, body: &mut Answer) -> Option<Bytes> {
        let _guard = self.runtime.enter();
        let mut context = Context::from_waker(std::task::Waker::noop());
        loop {
            match Pin::new(&mut *body).poll_frame(&mut context) {
                Poll::Ready(frame) => return frame.and_then(|frame| frame.ok()?.into_data().ok()),
                Poll::Pending => {}
            }
        }
    }

    /// The length of a whole answer.
    pub fn read(&self, mut body: Answer) -> usize {
        let mut length = 0;
        while let Some(bytes) = self.next(&mut body) {
            length += bytes.len();
        }
        length
    }
}

/// What every upstream answers.
pub struct Script {
    content_type: &'static str,
    pieces: Vec<Bytes>,
    /// Whether each piece comes alone, as from a model that takes its time, or all in one burst.
    is_paced: bool,
}

impl Script {
    /// A complete answer of about a kilobyte.
    pub fn whole() -> Self {
        let text = "lorem ipsum dolor sit amet, ".repeat(27);
        let body = format!(
            r#"{{"id":"chatcmpl-0123456789abcdef","object":"chat.completion","created":1762000000,"model":"m","choices":[{{"index":0,"message":{{"role":"assistant","content":"{text}"}},"logprobs":null,"finish_reason":"stop"}}],"usage":{{"prompt_tokens":30,"completion_tokens":200,"total_tokens":230}}}}"#
        );
        Self { content_type: "application/json", pieces: vec![body.into()], is_paced: false }
    }

    /// A stream of so many pieces of text under the upstream's own name for the model.
    pub fn stream(chunks: usize, is_paced: bool) -> Self {
        let mut pieces: Vec<Bytes> = (0..chunks).map(|n| chunk(n).into()).collect();
        pieces.push(Bytes::from_static(END.as_bytes()));
        Self { content_type: "text/event-stream", pieces, is_paced }
    }
}

/// One piece of text as the upstream streams it.
pub fn chunk(n: usize) -> String {
    format!(
        "data: {{\"id\":\"chatcmpl-0123456789abcdef\",\"object\":\"chat.completion.chunk\",\"created\":1762000000,\"model\":\"m\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\" word{n:04}\"}},\"logprobs\":null,\"finish_reason\":null}}]}}\n\n"
    )
}

/// The proper end of a stream.
pub const END: &str = "data: {\"id\":\"chatcmpl-0123456789abcdef\",\"object\":\"chat.completion.chunk\",\"created\":1762000000,\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: {\"id\":\"chatcmpl-0123456789abcdef\",\"object\":\"chat.completion.chunk\",\"created\":1762000000,\"model\":\"m\",\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":2,\"total_tokens\":5}}\n\ndata: [DONE]\n\n";

/// A chat request of about `length` bytes.
pub fn chat_body(length: usize, stream: bool) -> Bytes {
    chat_body_for("up/m", length, stream)
}

/// The same for a model.
pub fn chat_body_for(model: &str, length: usize, stream: bool) -> Bytes {
    let text = "Lorem ipsum dolor sit amet, \\\"consectetur\\\" adipiscing elit.\\n".repeat(length / 62);
    format!(
        r#"{{"model":"{model}","temperature":0.7,"messages":[{{"role":"system","content":"You are brief."}},{{"role":"user","content":"{text}"}}],"stream":{stream}}}"#
    )
    .into()
}

/// An Anthropic request of about `length` bytes, for an upstream that speaks OpenAI's dialect.
pub fn messages_body(length: usize, stream: bool) -> Bytes {
    let text = "Lorem ipsum dolor sit amet, \\\"consectetur\\\" adipiscing elit.\\n".repeat(length / 62);
    format!(
        r#"{{"model":"up/m","max_tokens":500,"system":"You are brief.","messages":[{{"role":"user","content":"{text}"}}],"stream":{stream}}}"#
    )
    .into()
}

const KEY: &str = "sk-omni-0123456789abcdef0123456789abcdef";

fn arrival(dialect: &'static dyn Dialect) -> Arrival {
    let mut headers = HeaderMap::new();
    headers.insert(HOST, HeaderValue::from_static("localhost:20128"));
    headers.insert(USER_AGENT, HeaderValue::from_static("OpenAI/Python 2.8.0"));
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let authorization = HeaderValue::from_static("Bearer sk-omni-0123456789abcdef0123456789abcdef");
    headers.insert(AUTHORIZATION, authorization);
    Arrival {
        peer: SocketAddr::from(([127, 0, 0, 1], 50_000)),
        method: Method::POST,
        path: "/v1/chat/completions".into(),
        query: None,
        headers,
        dialect,
        endpoint: "chat",
        provider: None,
        is_logged: true,
    }
}

/// A transport without a network.
struct Instantly {
    script: Arc<Script>,
    aside: Aside,
}

impl Transport for Instantly {
    fn send(&self, call: OutboundCall) -> BoxFuture<'_, Result<Response<UpstreamBody>, TransportError>> {
        let (mut call, mut future) = (Some(call), None);
        (self.aside)(&mut || {
            drop(call.take());
            let playing = Playing { script: self.script.clone(), next: 0, is_due: true };
            let mut response = Response::new(UpstreamBody::Local(playing.boxed_unsync()));
            let content_type = HeaderValue::from_static(self.script.content_type);
            response.headers_mut().insert(CONTENT_TYPE, content_type);
            future = Some(std::future::ready(Ok(response)).boxed());
        });
        future.expect("it was just made")
    }
}

struct Playing {
    script: Arc<Script>,
    next: usize,
    is_due: bool,
}

impl Body for Playing {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        if self.script.is_paced && !std::mem::replace(&mut self.is_due, false) {
            self.is_due = true;
            return Poll::Pending;
        }
        let piece = self.script.pieces.get(self.next).cloned();
        self.next += 1;
        Poll::Ready(piece.map(|piece| Ok(Frame::data(piece))))
    }
}

/// Takes rows and drops them; the real one hands them to a queue.
struct Forgotten;

impl Recorder for Forgotten {
    fn record(&self, row: RequestRow) {
        std::hint::black_box(row);
    }

    fn connection_status(&self, _: &ConnectionId, _: ConnectionStatus) {}

    fn remember(&self, memory: Memory) {
        std::hint::black_box(memory);
    }

    fn budget(&self, event: omniroute_domain::budget::Event) {
        std::hint::black_box(event);
    }
}

/// Two accounts at one OpenAI-like node, and a key with every limit and a budget, none of which is ever reached.
fn entities() -> Entities {
    let node = node();
    let connections = ["first", "second"].map(|name| connection(&node.id, name)).to_vec();
    let mut rows = Entities { revision: 1, connections, api_keys: vec![key()], ..Entities::default() };
    limit_money(&mut rows, &node.id);
    rows.nodes.push(node);
    rows
}

/// The model `m` has a price there, and the key a budget for each day and month.
fn limit_money(rows: &mut Entities, provider: &ProviderId) {
    let price = PriceRow { input: Some(1.0), output: Some(2.0), ..PriceRow::default() };
    rows.prices.user.entry(provider.clone()).or_default().insert("m".into(), price);
    let most = Some(i64::MAX / 4);
    let budget = Budget { daily_nano: most, monthly_nano: most, ..Budget::unlimited(Some(key().id)) };
    rows.budgets = vec![budget];
}

fn node() -> Node {
    Node {
        id: ProviderId::from("openai-compatible-chat-1"),
        node_type: NodeType::OpenaiCompatible,
        name: "Upstream".into(),
        prefix: "up".into(),
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

fn connection(provider: &ProviderId, name: &str) -> Connection {
    Connection {
        priority: 1,
        api_key: Some(format!("upstream-key-of-{name}").into()),
        ..Connection::new(ConnectionId::from(name), provider.clone(), name, 0)
    }
}

fn key() -> ApiKey {
    ApiKey {
        id: ApiKeyId::from("0199f0a0-0000-7000-8000-000000000001"),
        name: "bench".into(),
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
        max_requests_per_minute: Some(1_000_000_000),
        max_requests_per_day: Some(1_000_000_000),
        max_tokens_per_minute: Some(1_000_000_000_000),
        max_concurrent: Some(1_000_000),
        max_sessions: 0,
        strict: false,
        rights: Default::default(),
        expires_at: None,
        revoked_at: None,
        last_used_at: None,
        created_at: 0,
    }
}
