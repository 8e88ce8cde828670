//! The application under test: real router, real store, scripted upstream, a clock that stands still.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::body::Body;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use omniroute_admin::{
    AdminSettings, AdminState, AskContent, Console, Lifecycle, NotRehearsed, Peer, Ports, PreviewAnswer,
    PreviewAsk, Previews, RehearsedAsk, Reuse, WrongAsk,
};
use omniroute_domain::entity::ConnectionId;
use omniroute_domain::entity::ConnectionStatus;
use omniroute_domain::health::HealthMap;
use omniroute_domain::snapshot::{BuildOptions, Snapshot};
use omniroute_engine::ports::{
    Clock, Memory, OutboundCall, Recorder, RequestRow, Transport, TransportError, UpstreamBody,
};
use omniroute_engine::preview::{Preview, PreviewedCandidate, Skip};
use omniroute_engine::rehearsal::Rehearsal;
use omniroute_engine::telemetry::Telemetry;
use omniroute_engine::{CacheCounts, Live, SimilarityReport};
use omniroute_provider::catalog::catalog;
use omniroute_store::{Location, RecorderStats, Store, StoreOptions};
use secrecy::SecretString;
use serde_json::Value;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;

pub(crate) const START: i64 = 1_800_000_000_000;
pub(crate) const TOKEN: &str = "management-token-of-the-tests";
pub(crate) const PASSWORD: &str = "correct horse battery";

pub(crate) struct TestApp {
    pub(crate) router: axum::Router,
    pub(crate) store: Store,
    pub(crate) live: Arc<Live>,
    pub(crate) clock: Arc<TestClock>,
    pub(crate) upstream: Arc<Upstream>,
    pub(crate) rows: Arc<Rows>,
    pub(crate) telemetry: Arc<Telemetry>,
    pub(crate) console: Arc<Console>,
    pub(crate) lifecycle: Arc<Ends>,
    pub(crate) answers: Arc<Answers>,
    _dir: tempfile::TempDir,
}

/// Answers that are given again, as an engine would have them.
#[derive(Default)]
pub(crate) struct Answers {
    pub(crate) counts: Mutex<CacheCounts>,
    pub(crate) similarity: Mutex<SimilarityReport>,
    /// What was to be forgotten.
    pub(crate) cleared: Mutex<Vec<(Option<String>, Option<String>)>>,
}

impl Reuse for Answers {
    fn cache_counts(&self) -> CacheCounts {
        *self.counts.lock().expect("lock")
    }

    fn similarity(&self) -> SimilarityReport {
        self.similarity.lock().expect("lock").clone()
    }

    fn clear_cache(&self, model: Option<&str>, signature: Option<&str>) -> usize {
        let which = (model.map(str::to_owned), signature.map(str::to_owned));
        self.cleared.lock().expect("lock").push(which);
        2
    }

    fn repeatable_answers(&self) -> usize {
        3
    }

    fn shared_answers(&self) -> usize {
        0
    }

    fn forget_answers(&self) -> usize {
        3
    }
}

/// How the application is set up.
pub(crate) fn settings() -> AdminSettings {
    AdminSettings {
        version: "1.2.3".into(),
        document: omniroute_admin::openapi_json().expect("JSON").into(),
        commit: Some("abc".into()),
        initial_password: Some(SecretString::from(PASSWORD)),
        management_token: Some(SecretString::from(TOKEN)),
        jwt_secret: None,
        cookie_secure: false,
        trusted_proxies: vec!["10.9.9.9/32".parse().expect("network")],
        cors_origins: vec!["https://ui.example".into()],
        public_bind: false,
        open_to_all: false,
        allow_private: false,
        allow_remote_lifecycle: false,
        supervised: false,
        first_run_token: None,
        ports: Ports { main: 20128, api: None, dashboard: None },
        environment: Arc::new([]),
        endpoints: vec!["chat", "embeddings", "models"],
    }
}

impl TestApp {
    pub(crate) async fn new() -> Self {
        Self::with(settings()).await
    }

    pub(crate) async fn with(settings: AdminSettings) -> Self {
        let dir = tempfile::tempdir().expect("directory");
        let location = Location::Sqlite { data_dir: dir.path().to_owned() };
        let options = StoreOptions { location, encryption_key: None, previous_key: None };
        let store = Store::open(options).await.expect("opens");
        let options =
            Arc::new(BuildOptions { connections: settings.environment.to_vec(), ..BuildOptions::default() });
        let build = |entities| {
            let health = HealthMap::default();
            let snapshot = Snapshot::build(&entities, catalog(), &health, &options);
            Live::new(snapshot, health)
        };
        let live = Arc::new(build(store.entities().await.expect("entities")));
        let clock = Arc::new(TestClock(AtomicI64::new(START)));
        let (upstream, rows, lifecycle) =
            (Arc::<Upstream>::default(), Arc::<Rows>::default(), Arc::<Ends>::default());
        let telemetry = Arc::new(Telemetry::new(START));
        let console = Arc::new(Console::new(START));
        let answers = Arc::<Answers>::default();
        let reload = {
            let (store, live, options, rows, clock) =
                (store.clone(), live.clone(), options.clone(), rows.clone(), clock.clone());
            move || -> BoxFuture<'static, Result<(), String>> {
                let (store, live, options, rows, clock) =
                    (store.clone(), live.clone(), options.clone(), rows.clone(), clock.clone());
                Box::pin(async move {
                    let reloaded =
                        omniroute_store::reload(&store, &live, catalog(), &options, &*rows, clock.now_ms())
                            .await;
                    reloaded.map(drop).map_err(|error| error.to_string())
                })
            }
        };
        let router = omniroute_admin::router(AdminState {
            store: store.clone(),
            live: live.clone(),
            catalog: catalog(),
            transport: upstream.clone(),
            clock: clock.clone(),
            cache: Arc::new(omniroute_engine::memory::MemoryCache::new(1 << 20)),
            telemetry: telemetry.clone(),
            console: console.clone(),
            previews: Arc::new(Foretold),
            reuse: answers.clone(),
            recorder: rows.clone(),
            recorder_stats: Arc::new(RecorderStats::default),
            settings,
            lifecycle: lifecycle.clone(),
            reload: Arc::new(reload),
            tasks: TaskTracker::new(),
        });
        Self { router, store, live, clock, upstream, rows, telemetry, console, lifecycle, answers, _dir: dir }
    }

    /// Another process that has just begun on the same database.
    pub(crate) async fn another(&self) -> Live {
        let health = HealthMap::default();
        let entities = self.store.entities().await.expect("entities");
        Live::new(Snapshot::build(&entities, catalog(), &health, &BuildOptions::default()), health)
    }

    /// It takes over what was changed.
    pub(crate) async fn catch_up(&self, other: &Live) {
        let (options, now_ms) = (BuildOptions::default(), self.clock.now_ms());
        omniroute_store::reload(&self.store, other, catalog(), &options, &*self.rows, now_ms)
            .await
            .expect("it reloads");
    }

    /// A request from this machine, without a credential.
    pub(crate) fn request(&self, method: Method, path: &str) -> Call<'_> {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, "localhost:20128".parse().expect("value"));
        Call { app: self, method, path: path.to_owned(), headers, body: Body::empty(), peer: local() }
    }

    /// A request with the management token.
    pub(crate) fn as_manager(&self, method: Method, path: &str) -> Call<'_> {
        self.request(method, path).bearer(TOKEN)
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.as_manager(Method::GET, path).send().await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        self.as_manager(Method::POST, path).json(&body).send().await
    }

    pub(crate) async fn put(&self, path: &str, body: Value) -> Answer {
        self.as_manager(Method::PUT, path).json(&body).send().await
    }

    pub(crate) async fn patch(&self, path: &str, body: Value) -> Answer {
        self.as_manager(Method::PATCH, path).json(&body).send().await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.as_manager(Method::DELETE, path).send().await
    }

    /// Signs in and gives the cookie.
    pub(crate) async fn sign_in(&self, password: &str) -> String {
        let answer = self.login(password).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.cookie()
    }

    pub(crate) async fn login(&self, password: &str) -> Answer {
        let body = serde_json::json!({ "password": password });
        self.request(Method::POST, "/api/auth/login").json(&body).send().await
    }

    pub(crate) fn pass(&self, time: Duration) {
        let ms = i64::try_from(time.as_millis()).expect("short");
        self.clock.0.fetch_add(ms, Ordering::SeqCst);
    }
}

/// What would become of any request: nothing but what was asked, and one account that is limited.
struct Foretold;

impl Previews for Foretold {
    fn preview(&self, ask: PreviewAsk) -> BoxFuture<'_, Result<Preview, WrongAsk>> {
        let asked = match &ask.content {
            AskContent::Body(body) => String::from_utf8_lossy(body).into_owned(),
            AskContent::Form(fields) => format!("{fields:?}"),
            AskContent::Nothing => String::new(),
        };
        let skip = Skip { rule: "cooldown", reason: "rate_limit".into(), until: Some(START + 1_000) };
        let candidate = PreviewedCandidate {
            provider: Some("openai".into()),
            model: "gpt-5.6".into(),
            connection: Some(("c1".into(), "work".into())),
            dialect: Some("openai"),
            skip: Some(skip),
            cost_nano: Some(1_500_000),
            score: None,
            wave: None,
        };
        let preview = Preview {
            requested_model: asked,
            via: Some("direct"),
            budget: None,
            combo: None,
            strategy: Some("fill-first"),
            policies: vec!["eu only".into()],
            observed: Vec::new(),
            candidates: vec![candidate],
            seed: 7,
            task: None,
            estimated_tokens: None,
            error: None,
            decided_at: START,
        };
        let is_path = ask.path.starts_with("/v1");
        let wrong = WrongAsk { field: "path".into(), message: "is no path".into() };
        Box::pin(std::future::ready(if is_path { Ok(preview) } else { Err(wrong) }))
    }

    /// A model that is called `good` answers, all others are not there.
    fn ask(&self, ask: PreviewAsk) -> BoxFuture<'_, Result<PreviewAnswer, WrongAsk>> {
        let AskContent::Body(body) = &ask.content else { panic!("a conversation is no form") };
        let is_good = body.windows(6).any(|part| part == b"\"good\"");
        let answer = match is_good {
            true => {
                PreviewAnswer { status: 200, body: r#"{"choices":[{"message":{"content":"OK"}}]}"#.into() }
            }
            false => PreviewAnswer { status: 404, body: r#"{"error":{"message":"no such model"}}"#.into() },
        };
        Box::pin(std::future::ready(Ok(answer)))
    }

    /// Whatever is played is as many requests, none of which is answered. A path that says why comes to nothing.
    fn rehearse(&self, played: RehearsedAsk) -> BoxFuture<'_, Result<(Preview, Rehearsal), NotRehearsed>> {
        let RehearsedAsk { ask, combo, requests, .. } = played;
        Box::pin(async move {
            match ask.path.as_str() {
                "/busy" => return Err(NotRehearsed::Busy),
                "/elsewhere" => return Err(NotRehearsed::Elsewhere("openai/gpt-5.6".into())),
                "/broken" => return Err(NotRehearsed::Failed("no database".into())),
                _ => {}
            }
            let preview = self.preview(ask).await.map_err(NotRehearsed::Wrong)?;
            let rehearsal = Rehearsal {
                combo: combo.into(),
                strategy: "priority",
                manner: "one-by-one",
                budget: None,
                requests,
                refused: 0,
                error: None,
                answered: 0.0,
                targets: Vec::new(),
                judge: None,
                input_tokens: 3,
                decided_at: START,
            };
            Ok((preview, rehearsal))
        })
    }
}

pub(crate) fn local() -> SocketAddr {
    "127.0.0.1:40000".parse().expect("address")
}

pub(crate) fn remote() -> SocketAddr {
    "198.51.100.7:40000".parse().expect("address")
}

pub(crate) struct Call<'a> {
    app: &'a TestApp,
    method: Method,
    path: String,
    headers: HeaderMap,
    body: Body,
    peer: SocketAddr,
}

impl Call<'_> {
    pub(crate) fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.insert(name, value.parse().expect("value"));
        self
    }

    pub(crate) fn bearer(self, token: &str) -> Self {
        self.header("authorization", &format!("Bearer {token}"))
    }

    pub(crate) fn cookie(self, token: &str) -> Self {
        self.header("cookie", &format!("auth_token={token}"))
    }

    pub(crate) fn from(mut self, peer: SocketAddr) -> Self {
        self.peer = peer;
        self
    }

    pub(crate) fn json(self, body: &Value) -> Self {
        self.text(body.to_string()).header("content-type", "application/json")
    }

    pub(crate) fn text(mut self, body: impl Into<Body>) -> Self {
        self.body = body.into();
        self
    }

    pub(crate) async fn send(self) -> Answer {
        let mut request =
            Request::builder().method(self.method).uri(&self.path).body(self.body).expect("request");
        *request.headers_mut() = self.headers;
        request.extensions_mut().insert(Peer(self.peer));
        let response = self.app.router.clone().oneshot(request).await.expect("infallible");
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.expect("body").to_bytes();
        let body = String::from_utf8(bytes.to_vec()).expect("text");
        Answer { status: parts.status, headers: parts.headers, body }
    }
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    /// The code of an error, after a look at the envelope.
    pub(crate) fn code(&self) -> String {
        let json = self.json();
        assert!(json["error"]["message"].as_str().is_some_and(|text| !text.is_empty()), "{}", self.body);
        assert_eq!(json["requestId"].as_str(), self.header("x-request-id").as_deref(), "{}", self.body);
        json["error"]["code"].as_str().expect("code").to_owned()
    }

    /// The members that an error names.
    pub(crate) fn fields(&self) -> Vec<String> {
        let json = self.json();
        let details = json["error"]["details"].as_array().cloned().unwrap_or_default();
        details.iter().map(|detail| detail["field"].as_str().expect("field").to_owned()).collect()
    }

    pub(crate) fn header(&self, name: &str) -> Option<String> {
        self.headers.get(name).map(|value| value.to_str().expect("text").to_owned())
    }

    pub(crate) fn cookie(&self) -> String {
        let cookie = self.header("set-cookie").expect("cookie");
        cookie.split(';').next().expect("pair").trim_start_matches("auth_token=").to_owned()
    }

    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status.as_u16(), status, "{}", self.body);
        self
    }
}

pub(crate) struct TestClock(pub(crate) AtomicI64);

impl Clock for TestClock {
    fn now_ms(&self) -> i64 {
        self.0.load(Ordering::SeqCst)
    }

    #[allow(clippy::disallowed_methods, reason = "durations of tests are not looked at")]
    fn instant(&self) -> Instant {
        Instant::now()
    }
}

/// Answers as scripted, and remembers what was asked.
#[derive(Default)]
pub(crate) struct Upstream {
    answers: Mutex<VecDeque<(u16, Bytes)>>,
    pub(crate) asked: Mutex<Vec<(String, HeaderMap)>>,
    /// What was sent with each.
    pub(crate) bodies: Mutex<Vec<Vec<u8>>>,
}

impl Upstream {
    pub(crate) fn answer(&self, status: u16, body: &str) {
        self.answers.lock().expect("lock").push_back((status, Bytes::copy_from_slice(body.as_bytes())));
    }

    pub(crate) fn urls(&self) -> Vec<String> {
        self.asked.lock().expect("lock").iter().map(|(url, _)| url.clone()).collect()
    }
}

impl Transport for Upstream {
    fn send(&self, call: OutboundCall) -> BoxFuture<'_, Result<Response<UpstreamBody>, TransportError>> {
        let url = format!("{} {}", call.method, call.uri);
        self.asked.lock().expect("lock").push((url, call.headers));
        self.bodies.lock().expect("lock").push(call.body.concat());
        let answer = self.answers.lock().expect("lock").pop_front();
        Box::pin(async move {
            let broken =
                || TransportError::Connect { host: "upstream.test".into(), reason: "refused".into() };
            let (status, body) = answer.ok_or_else(broken)?;
            let body = Full::new(body).map_err(|never| match never {}).boxed_unsync();
            Ok(Response::builder().status(status).body(UpstreamBody::Local(body)).expect("response"))
        })
    }
}

#[derive(Default)]
pub(crate) struct Rows(pub(crate) Mutex<Vec<RequestRow>>, Mutex<Vec<Memory>>);

impl Rows {
    /// What was to be remembered.
    pub(crate) fn memories(&self) -> Vec<Memory> {
        self.1.lock().expect("lock").clone()
    }
}

impl Recorder for Rows {
    fn record(&self, row: RequestRow) {
        self.0.lock().expect("lock").push(row);
    }

    fn connection_status(&self, _: &ConnectionId, _: ConnectionStatus) {}

    fn remember(&self, memory: Memory) {
        self.1.lock().expect("lock").push(memory);
    }

    fn budget(&self, _: omniroute_domain::budget::Event) {}
}

#[derive(Default)]
pub(crate) struct Ends {
    pub(crate) restarts: AtomicUsize,
    pub(crate) shutdowns: AtomicUsize,
}

impl Lifecycle for Ends {
    fn restart(&self) {
        self.restarts.fetch_add(1, Ordering::SeqCst);
    }

    fn shutdown(&self) {
        self.shutdowns.fetch_add(1, Ordering::SeqCst);
    }
}
