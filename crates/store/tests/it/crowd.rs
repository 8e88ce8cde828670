//! 256 requests at once through the whole engine and into a real database: what was paid for is in the ledger, in the purses,
//! in the log and in the answers, to the last billionth; no budget is overdrawn; nothing stays held; whose turn it is comes out
//! even.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderMap, Method, Response};
use http_body_util::{BodyExt as _, Full};
use omniroute_dialect::openai::OpenAi;
use omniroute_dialect::shape::Seal;
use omniroute_domain::budget::{Calendar, Standing, Window};
use omniroute_domain::entity::{
    ApiKeyId, Budget, Combo, ComboConfig, Connection, ConnectionOptions, Entities, RuntimeSettings, Step,
};
use omniroute_domain::health::HealthMap;
use omniroute_domain::limit::Meter;
use omniroute_domain::price::PriceRow;
use omniroute_domain::snapshot::{BuildOptions, Snapshot};
use omniroute_engine::memory::{MemoryCache, MemoryCounters};
use omniroute_engine::ports::{
    AnswerRow, Charge, Clock, Counters as _, OutboundCall, Reserving, Shelf, Transport, TransportError,
    Unreadable, UpstreamBody, Verdict,
};
use omniroute_engine::serve::Ports;
use omniroute_engine::telemetry::Telemetry;
use omniroute_engine::{Arrival, Engine, EngineOptions, Live};
use omniroute_provider::catalog::catalog;
use omniroute_store::WriterOptions;

use crate::fixture::{Fixture, NOW, api_key, connection, node, stories, writer};

stories!(a_crowd_is_counted_to_the_last_billionth, turns_come_out_even_in_a_crowd);

/// Requests at once.
const CROWD: u64 = 256;
/// So often.
const WAVES: u64 = 8;
const PROMPT: i64 = 3;
/// In billionths of a US dollar, of a token of prompt and of answer.
const PRICE: (i64, i64) = (1_000_000, 2_000_000);

/// What an answer of so many tokens costs.
fn worth(output: i64) -> i64 {
    PROMPT * PRICE.0 + output * PRICE.1
}

struct WallClock(Instant);

impl Clock for WallClock {
    fn now_ms(&self) -> i64 {
        NOW + i64::try_from(self.0.elapsed().as_millis()).unwrap()
    }

    fn instant(&self) -> Instant {
        self.0 + self.0.elapsed()
    }
}

struct NoShelf;

impl Shelf for NoShelf {
    fn find<'a>(&'a self, _: &'a str, _: i64) -> BoxFuture<'a, Result<Option<AnswerRow>, Unreadable>> {
        Box::pin(async { Ok(None) })
    }
}

/// Answers after a moment with as many tokens as it likes, up to what was asked for; now and then it refuses.
#[derive(Default)]
struct Upstream {
    calls: AtomicU64,
    /// Calls that run, by account, and the most that ever did.
    running: [AtomicI64; 3],
    peak: [AtomicI64; 3],
    refuses: bool,
}

impl Transport for Upstream {
    fn send(&self, call: OutboundCall) -> BoxFuture<'_, Result<Response<UpstreamBody>, TransportError>> {
        let number = self.calls.fetch_add(1, Ordering::Relaxed);
        let host = call.uri.host().unwrap_or_default().to_owned();
        let account = ["a.example", "b.example", "c.example"].iter().position(|name| *name == host).unwrap();
        let body: Vec<u8> = call.body.iter().flat_map(|piece| piece.iter().copied()).collect();
        let is_stream = String::from_utf8_lossy(&body).contains("\"stream\":true");
        Box::pin(async move {
            let place = Running::enter(&self.running[account], &self.peak[account]);
            tokio::time::sleep(Duration::from_micros(200 + number % 7 * 300)).await;
            drop(place);
            let answer = |status: u16, kind: &str, body: String| {
                let body = Full::new(Bytes::from(body)).map_err(|never| match never {});
                Response::builder()
                    .status(status)
                    .header("content-type", kind)
                    .body(UpstreamBody::Local(body.boxed_unsync()))
                    .unwrap()
            };
            if self.refuses && number.is_multiple_of(11) {
                let body = r#"{"error":{"message":"the request is odd","type":"invalid_request_error","param":"x","code":null}}"#;
                return Ok(answer(400, "application/json", body.to_owned()));
            }
            let output = 1 + number % 5;
            let usage = format!(
                r#""usage":{{"prompt_tokens":{PROMPT},"completion_tokens":{output},"total_tokens":{}}}"#,
                PROMPT + i64::try_from(output).unwrap()
            );
            if is_stream {
                let head = r#""id":"x","object":"chat.completion.chunk","created":1,"model":"m""#;
                let body = format!(
                    "data: {{{head},\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"hi\"}},\"finish_reason\":null}}]}}\n\n\
                     data: {{{head},\"choices\":[{{\"index\":0,\"delta\":{{}},\"finish_reason\":\"stop\"}}]}}\n\n\
                     data: {{{head},\"choices\":[],{usage}}}\n\ndata: [DONE]\n\n"
                );
                return Ok(answer(200, "text/event-stream", body));
            }
            let body = format!(
                r#"{{"id":"x","object":"chat.completion","created":1,"model":"m","choices":[{{"index":0,"message":{{"role":"assistant","content":"hi"}},"finish_reason":"stop"}}],{usage}}}"#
            );
            Ok(answer(200, "application/json", body))
        })
    }
}

struct Running<'a>(&'a AtomicI64);

impl<'a> Running<'a> {
    fn enter(count: &'a AtomicI64, peak: &AtomicI64) -> Self {
        peak.fetch_max(count.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        Self(count)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

fn combo(name: &str, strategy: &str) -> Combo {
    let steps = ["a", "b", "c"].map(|prefix| Step::to_model(prefix, format!("{prefix}/m")));
    Combo {
        config: ComboConfig {
            max_retries: Some(0),
            concurrency_per_model: Some(10_000),
            ..ComboConfig::default()
        },
        ..Combo::new(name, name, strategy, steps.into(), 0)
    }
}

/// Three nodes with two accounts each, the keys `k0` to `k3`, five combos.
pub(crate) fn entities() -> Entities {
    let mut entities = Entities {
        settings: RuntimeSettings {
            session_affinity_ttl_ms: 0,
            request_retry: 0,
            ..RuntimeSettings::default()
        },
        api_keys: (0..4).map(|n| api_key(&format!("k{n}"), &format!("sk-{n}"))).collect(),
        combos: ["priority", "round-robin", "least-used", "race", "strict-random"]
            .map(|strategy| combo(strategy, strategy))
            .into(),
        ..Entities::default()
    };
    for prefix in ["a", "b", "c"] {
        let id = format!("openai-compatible-chat-{prefix}");
        let mut own = node(&id, prefix);
        own.base_url = format!("https://{prefix}.example/v1");
        own.api_type = Some("chat".into());
        entities.nodes.push(own);
        for n in 0..2 {
            entities.connections.push(Connection {
                max_concurrent: Some(100),
                options: ConnectionOptions::default(),
                ..connection(&format!("{prefix}{n}"), &id, &format!("{prefix}{n}"), Some("sk-x"))
            });
        }
        let row = PriceRow { input: Some(1_000.0), output: Some(2_000.0), ..PriceRow::default() };
        entities.prices.user.entry(id.as_str().into()).or_default().insert("m".into(), row);
    }
    for key in &mut entities.api_keys {
        *key = omniroute_domain::entity::ApiKey {
            max_requests_per_day: None,
            max_requests_per_minute: None,
            max_tokens_per_minute: None,
            max_concurrent: None,
            max_sessions: 0,
            no_log: false,
            allowed_models: Vec::new(),
            denied_models: Vec::new(),
            allowed_connections: Vec::new(),
            allowed_endpoints: Vec::new(),
            ip_allowlist: Vec::new(),
            expires_at: None,
            rights: Default::default(),
            ..key.clone()
        };
    }
    entities
}

pub(crate) struct Crowd {
    pub(crate) engine: Arc<Engine>,
    upstream: Arc<Upstream>,
    counters: Arc<MemoryCounters>,
    pub(crate) recorder: Arc<omniroute_store::StoreRecorder>,
    pub(crate) handle: omniroute_store::WriterHandle,
}

/// What a client got.
pub(crate) struct Got {
    key: usize,
    pub(crate) status: u16,
    code: Option<String>,
    /// Tokens of the answer.
    output: Option<i64>,
    /// What the head said of its cost, in dollars.
    cost: Option<f64>,
}

impl Crowd {
    pub(crate) fn new(fixture: &Fixture, entities: &Entities, refuses: bool) -> Self {
        let health = HealthMap::default();
        let snapshot = Snapshot::build(entities, catalog(), &health, &BuildOptions::default());
        assert_eq!(snapshot.problems, []);
        let (recorder, handle) = writer(&fixture.store, WriterOptions::default());
        let upstream = Arc::new(Upstream { refuses, ..Upstream::default() });
        let counters = Arc::new(MemoryCounters::default());
        let ports = Ports {
            transport: upstream.clone(),
            counters: counters.clone(),
            recorder: recorder.clone(),
            reasoning: Arc::new(MemoryCache::new(1 << 20)),
            owners: Arc::new(MemoryCache::new(1 << 20)),
            media: Arc::new(MemoryCache::new(1 << 20)),
            shelf: Arc::new(NoShelf),
            seal: Seal::new([7; 32]),
            #[expect(clippy::disallowed_methods, reason = "the crowd runs in real time")]
            clock: Arc::new(WallClock(Instant::now())),
        };
        let live = Arc::new(Live::new(snapshot, health));
        let telemetry = Arc::new(Telemetry::new(NOW));
        let engine = Arc::new(Engine::new(live, ports, telemetry, EngineOptions::default(), 7));
        Self { engine, upstream, counters, recorder, handle }
    }

    fn standing(&self, key: Option<&ApiKeyId>) -> Standing {
        self.engine.live.spending.standing(&self.engine.live.load().budgets, key, self.engine.clock.now_ms())
    }

    /// All requests of a wave at once, on several threads; what the clients got.
    async fn wave(&self, ask: impl Fn(u64) -> (usize, String) + Send + Sync + 'static) -> Vec<Got> {
        let engine = self.engine.clone();
        let work = move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build();
            runtime.unwrap().block_on(async move {
                let gate = Arc::new(tokio::sync::Barrier::new(CROWD as usize));
                let asked: Vec<_> = (0..CROWD)
                    .map(|number| {
                        let ((key, body), gate, engine) = (ask(number), gate.clone(), engine.clone());
                        #[allow(clippy::disallowed_methods, reason = "a test")]
                        tokio::spawn(async move {
                            gate.wait().await;
                            one(&engine, key, body).await
                        })
                    })
                    .collect();
                let mut got = Vec::new();
                for one in asked {
                    got.push(one.await.unwrap());
                }
                got
            })
        };
        let got = tokio::task::spawn_blocking(work).await.unwrap();
        // Rows are never shed here: the database is given the time it needs.
        self.handle.flush().await;
        got
    }

    /// Nothing is left of requests that are over.
    fn assert_idle(&self, keys: usize) {
        for connection in self.engine.live.load().connections() {
            assert_eq!(connection.account().in_flight(), 0, "{}", connection.id);
        }
        for key in (0..keys).map(|n| ApiKeyId::from(format!("k{n}").as_str())) {
            assert_eq!(self.standing(Some(&key)).held_nano, 0, "{key}");
            let all = Charge { key, meter: Meter::Concurrency, limit: 40, amount: 40 };
            let taken = self.counters.reserve(std::slice::from_ref(&all), self.engine.clock.now_ms());
            assert!(matches!(taken, Reserving::Ready(Verdict { exceeded: None, .. })), "a place is lost");
            self.counters.settle(&[Charge { amount: -40, ..all }], self.engine.clock.now_ms());
        }
        assert_eq!(self.standing(None).held_nano, 0);
        for running in &self.upstream.running {
            assert_eq!(running.load(Ordering::SeqCst), 0);
        }
        for combo in ["priority", "round-robin", "least-used", "race", "strict-random"] {
            let snapshot = self.engine.live.load().clone();
            let combo = snapshot.combo(combo).unwrap().clone();
            assert!(combo.steps.iter().all(|step| step.stats.in_flight() == 0), "{}", combo.name);
        }
    }
}

pub(crate) async fn one(engine: &Arc<Engine>, key: usize, body: String) -> Got {
    let mut headers = HeaderMap::new();
    headers.insert("authorization", format!("Bearer sk-{key}").parse().unwrap());
    let mut ctx = engine.begin(Arrival {
        peer: SocketAddr::from(([127, 0, 0, 1], 50_000)),
        method: Method::POST,
        path: "/v1/chat/completions".into(),
        query: None,
        headers,
        dialect: &OpenAi,
        endpoint: "chat",
        provider: None,
        is_logged: true,
    });
    let response = match engine.identify(&mut ctx) {
        Ok(()) => engine.serve(ctx, body.into()).await,
        Err(error) => engine.refuse(ctx, &error),
    };
    let (head, body) = response.into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let number = |name: &str| {
        let from = text.rfind(name)? + name.len();
        let digits: String = text[from..].chars().take_while(char::is_ascii_digit).collect();
        digits.parse().ok()
    };
    let code = text.split("\"code\":\"").nth(1).and_then(|rest| rest.split('"').next());
    Got {
        key,
        status: head.status.as_u16(),
        code: code.map(str::to_owned).filter(|_| head.status.as_u16() != 200),
        output: number("\"completion_tokens\":"),
        cost: head.headers.get("x-omniroute-response-cost").and_then(|cost| cost.to_str().ok()?.parse().ok()),
    }
}

pub(crate) fn ask(model: &str, is_stream: bool) -> String {
    let usage = if is_stream { r#","stream_options":{"include_usage":true}"# } else { "" };
    format!(
        r#"{{"model":"{model}","max_tokens":5,"stream":{is_stream}{usage},"messages":[{{"role":"user","content":"hello there"}}]}}"#
    )
}

async fn a_crowd_is_counted_to_the_last_billionth(fixture: Fixture) {
    const DAILY: i64 = 3_000_000_000;
    let mut entities = entities();
    let budget = |key: &str, daily: i64| Budget {
        daily_nano: Some(daily),
        ..Budget::unlimited(Some(ApiKeyId::from(key)))
    };
    // One key is poor, one has a limit of requests at once, and all together have a budget that they do not reach.
    entities.budgets.push(budget("k1", DAILY));
    entities.budgets.push(Budget { daily_nano: Some(1 << 50), ..Budget::unlimited(None) });
    entities.api_keys[2].max_concurrent = Some(40);
    let crowd = Crowd::new(&fixture, &entities, true);
    for key in &entities.api_keys {
        fixture.store.api_keys().insert(key).await.unwrap();
    }
    let mut all: Vec<Got> = Vec::new();
    for wave in 0..WAVES {
        let models = ["priority", "round-robin", "least-used", "strict-random", "a/m"];
        let got = crowd.wave(move |number| {
            let number = number + wave * CROWD;
            (
                usize::try_from(number % 4).unwrap(),
                ask(models[(number / 4 % 5) as usize], number.is_multiple_of(3)),
            )
        });
        all.extend(got.await);
        let poor = crowd.standing(Some(&ApiKeyId::from("k1")));
        assert!(poor.spent(Window::Daily) <= DAILY, "{poor:?}");
        crowd.assert_idle(4);
    }
    let total = CROWD * WAVES;
    assert_eq!(all.len() as u64, total);
    // The budget and the places were reached, and refused as they should.
    let refused = |key: usize, code: &str| {
        all.iter().filter(|got| got.key == key && got.code.as_deref() == Some(code)).count()
    };
    assert!(refused(1, "budget_exceeded") > 0 && refused(0, "budget_exceeded") == 0);
    assert!(refused(2, "rate_limit_exceeded") > 0 && refused(3, "rate_limit_exceeded") == 0);
    // What each client was told is what it got.
    for got in all.iter().filter(|got| got.status == 200) {
        let output = got.output.expect("every answer counts its tokens");
        if let Some(cost) = got.cost {
            assert!((cost - worth(output) as f64 / 1e9).abs() < 1e-12, "{cost}");
        }
    }
    let sums = fixture.store.ledger().sums(&Calendar::default(), NOW).await.unwrap();
    let ledger = |key: Option<&ApiKeyId>| {
        let found = sums.iter().find(|(other, _)| other.as_ref() == key);
        found.map(|(_, sums)| *sums).unwrap_or_default()
    };
    let mut together = 0;
    for number in 0..4 {
        let key = ApiKeyId::from(format!("k{number}").as_str());
        let answers: i64 = all
            .iter()
            .filter(|got| got.key == number && got.status == 200)
            .map(|got| worth(got.output.unwrap()))
            .sum();
        let (standing, written) = (crowd.standing(Some(&key)), ledger(Some(&key)));
        assert!(answers > 0);
        assert_eq!((standing.total_nano, written.total_nano), (answers, answers), "{key}");
        assert_eq!(standing.entries, written.entries, "{key}");
        together += answers;
    }
    assert_eq!((crowd.standing(None).total_nano, ledger(None).total_nano), (together, together));
    // The poor key spent nearly all that it had: what it may not is less than one more request.
    let poor = crowd.standing(Some(&ApiKeyId::from("k1"))).total_nano;
    assert!((DAILY / 2..=DAILY).contains(&poor), "{poor}");
    // Every request is in the log once, and the log comes to the same.
    let stats = crowd.recorder.stats();
    assert_eq!(stats.shed_rows, 0);
    let (_, logged) = fixture.store.call_logs().list(&Default::default()).await.unwrap();
    assert_eq!(logged, total);
    for (account, peak) in crowd.upstream.peak.iter().enumerate() {
        assert!(peak.load(Ordering::SeqCst) <= 200, "two accounts with a hundred places each: {account}");
    }
    crowd.handle.close().await;
}

async fn turns_come_out_even_in_a_crowd(fixture: Fixture) {
    let mut entities = entities();
    entities.settings.fallback_strategy = "round-robin".into();
    entities.settings.sticky_round_robin_limit = 1;
    entities.connections.iter_mut().for_each(|connection| connection.max_concurrent = None);
    let crowd = Crowd::new(&fixture, &entities, false);
    for key in &entities.api_keys {
        fixture.store.api_keys().insert(key).await.unwrap();
    }
    const EVEN: u64 = 6;
    for wave in 0..EVEN {
        let models = ["round-robin", "strict-random", "least-used"];
        let got = crowd.wave(move |number| {
            let model = models[((number + wave * CROWD) % 3) as usize];
            (usize::try_from(number % 4).unwrap(), ask(model, false))
        });
        assert!(got.await.iter().all(|got| got.status == 200));
    }
    let each = CROWD * EVEN / 3;
    let snapshot = crowd.engine.live.load().clone();
    let uses = |name: &str| -> Vec<u64> {
        let now_ms = crowd.engine.clock.now_ms();
        let combo = snapshot.combo(name).unwrap();
        combo.steps.iter().map(|step| step.stats.uses(now_ms)).collect()
    };
    for name in ["round-robin", "strict-random"] {
        let counts = uses(name);
        assert_eq!(counts.iter().sum::<u64>(), each, "{name}");
        assert!(counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 1, "{name}: {counts:?}");
    }
    // Who chooses sees those that are under way, but not those that choose at the same moment.
    let counts = uses("least-used");
    assert_eq!(counts.iter().sum::<u64>(), each);
    assert!(counts.iter().max().unwrap() - counts.iter().min().unwrap() <= each / 4, "{counts:?}");
    // The two accounts of each provider took turns, whichever combo led to it.
    for prefix in ["a", "b", "c"] {
        let uses = |n: u32| {
            let id = format!("{prefix}{n}").as_str().into();
            snapshot.connection(&id).unwrap().account().stats.uses(crowd.engine.clock.now_ms())
        };
        let (first, second) = (uses(0), uses(1));
        assert!(first.abs_diff(second) <= 1, "{prefix}: {first} and {second}");
    }
    // A race books those that lost too, and nothing stays held.
    let raced =
        crowd.wave(|number| (usize::try_from(number % 4).unwrap(), ask("race", number % 2 == 0))).await;
    assert!(raced.iter().all(|got| got.status == 200));
    crowd.assert_idle(4);
    let sums = fixture.store.ledger().sums(&Calendar::default(), NOW).await.unwrap();
    let all = sums.iter().find(|(key, _)| key.is_none()).unwrap().1;
    assert_eq!(all.total_nano, crowd.standing(None).total_nano);
    crowd.handle.close().await;
}
