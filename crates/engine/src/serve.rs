//! The seven stages of a request, in order.
//!
//! | stage | where | may wait for |
//! |---|---|---|
//! | accept | the binary's `http` folder | the client's body |
//! | admit | [`crate::admit`] | shared counters |
//! | resolve | `resolve.rs` | – |
//! | prepare | `prepare.rs` | – |
//! | attempt | `attempt/`, loops over prepare | upstreams |
//! | relay | `relay.rs` | upstream, client |
//! | record | `record.rs`, when the request is dropped | – |

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{HeaderMap, Response, StatusCode};
use omniroute_dialect::ir::ErrorKind;
use omniroute_dialect::shape::Seal;
use omniroute_dialect::{KeepAlive, KeptCall};
use omniroute_domain::resolve::Route;
use tokio::time::timeout;

use crate::admit;
use crate::answer::Answer;
use crate::answer_head::{RETRY_AFTER_MS, SHOULD_RETRY, StreamHead, USAGE, diagnostics, stream_headers};
use crate::attempt::{self, Attempted, Stored};
use crate::bodies::Room;
use crate::cancel;
use crate::chronicle;
use crate::circuit;
use crate::ctx::{Arrival, RequestCtx};
use crate::error::GatewayError;
use crate::gate::Gates;
use crate::handoff::{self, Asides};
use crate::kept::{self, awaited::Awaited};
use crate::limits;
use crate::live::Live;
use crate::ports::{Cache, Clock, Counters, Memory, Recorder, RowId, Shelf, Transport};
use crate::progress;
use crate::reasoning;
use crate::relay::Relay;
use crate::resolve;
use crate::reuse::{self, AnswerCache, CacheCounts, Found, Idempotency, Joined, SimilarityReport};
use crate::session;
use crate::telemetry::{Phase, Telemetry};

/// Everything a request needs. Built once, shared by all.
pub struct Engine {
    /// The configuration in force.
    pub live: Arc<Live>,
    /// Calls upstreams.
    pub transport: Arc<dyn Transport>,
    /// Counts against limits.
    pub counters: Arc<dyn Counters>,
    /// Takes what happened.
    pub recorder: Arc<dyn Recorder>,
    /// Sums up what happened.
    pub telemetry: Arc<Telemetry>,
    /// Keeps reasoning between the turns of a conversation.
    pub reasoning: Arc<dyn Cache>,
    /// Knows which account made what vendors keep.
    pub owners: Arc<dyn Cache>,
    /// Keeps what was fetched for clients.
    pub media: Arc<dyn Cache>,
    /// Keeps answers for whoever asks for the same.
    pub shelf: Arc<dyn Shelf>,
    /// Authenticates the signatures that clients carry for other dialects.
    pub seal: Seal,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// What the process start decided.
    pub options: EngineOptions,
    pub(crate) idempotency: Idempotency,
    pub(crate) answers: AnswerCache,
    chance: Chance,
    /// Places of the steps of combos that go round.
    pub(crate) gates: Arc<Gates>,
    pub(crate) asides: Asides,
    pub(crate) awaited: Awaited,
    /// For copies of streams.
    pub(crate) copy_room: Room,
}

/// What the process start decided about serving.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// Who needs a key.
    pub key_policy: KeyPolicy,
    /// Origins of web pages that may call without a key.
    pub cors_origins: Vec<String>,
    /// Limit for an answer's head.
    pub first_byte_timeout: Duration,
    /// Limit for silence within an answer.
    pub stream_idle_timeout: Duration,
    /// Silence after which a streaming client hears that we are still here.
    pub keep_alive_interval: Duration,
    /// Most bytes of a whole answer.
    pub max_answer_bytes: usize,
    /// Whether images and documents that clients name by their address are fetched for upstreams that do not.
    pub fetch_media: bool,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            key_policy: KeyPolicy::OptionalOnLoopback,
            cors_origins: Vec::new(),
            first_byte_timeout: Duration::from_secs(600),
            stream_idle_timeout: Duration::from_secs(600),
            keep_alive_interval: Duration::from_secs(15),
            max_answer_bytes: 64 * 1024 * 1024,
            fetch_media: true,
        }
    }
}

/// Who needs a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyPolicy {
    /// Everybody.
    Required,
    /// Everybody but programs on this machine.
    OptionalOnLoopback,
    /// Nobody.
    Optional,
}

/// The ports of an engine.
pub struct Ports {
    /// Calls upstreams.
    pub transport: Arc<dyn Transport>,
    /// Counts against limits.
    pub counters: Arc<dyn Counters>,
    /// Takes what happened.
    pub recorder: Arc<dyn Recorder>,
    /// Keeps reasoning between the turns of a conversation.
    pub reasoning: Arc<dyn Cache>,
    /// Knows which account made what vendors keep.
    pub owners: Arc<dyn Cache>,
    /// Keeps what was fetched for clients.
    pub media: Arc<dyn Cache>,
    /// Keeps answers for whoever asks for the same.
    pub shelf: Arc<dyn Shelf>,
    /// Authenticates the signatures that clients carry for other dialects.
    pub seal: Seal,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
}

impl Engine {
    /// An engine over its ports. `seed` feeds ids, jitter and random choices.
    pub fn new(
        live: Arc<Live>,
        ports: Ports,
        telemetry: Arc<Telemetry>,
        options: EngineOptions,
        seed: u64,
    ) -> Self {
        let Ports { transport, counters, recorder, reasoning, owners, media, shelf, seal, clock } = ports;
        let chance = Chance(AtomicU64::new(seed));
        Self {
            live,
            transport,
            counters,
            recorder,
            telemetry,
            reasoning,
            owners,
            media,
            shelf,
            seal,
            clock,
            options,
            idempotency: Idempotency::default(),
            answers: AnswerCache::default(),
            chance,
            gates: Arc::default(),
            asides: Asides::default(),
            awaited: Awaited::default(),
            copy_room: Room::default(),
        }
    }

    /// Takes over what an earlier process remembered.
    pub fn restore(&self, memory: Memory) {
        match memory {
            Memory::Reasoning(row) => reasoning::restore(self, row),
            Memory::Owner(row) => kept::restore(self, &row),
            Memory::Limits(row) => limits::restore(self, row),
            Memory::Pinned(row) => session::restore(self, row),
            Memory::Handoff(row) => handoff::restore(self, *row),
            Memory::HandoffGone(key) => self.live.handoffs.end(&key),
            Memory::Unpinned(key) => drop(self.live.sessions.forget(key.id())),
            // For people; the limits themselves are restored.
            Memory::Quota(_) => {}
            Memory::Breaker(_) | Memory::Lock(_) | Memory::Unlock { .. } => chronicle::restore(self, memory),
            Memory::Question(row) => reuse::restore(self, row),
            // The shelf is asked for them when somebody wants them.
            Memory::Answer(_) | Memory::AnswerUsed { .. } | Memory::AnswersCleared { .. } => {}
        }
    }

    /// Forgets answers that nobody can have any more. Meant to be called every few seconds.
    pub fn sweep(&self) {
        self.answers.sweep(&*self.recorder, self.clock.now_ms());
        let window = i64::from(self.live.load().settings.idempotency_window_ms);
        self.idempotency.sweep(self.clock.now_ms(), window);
    }

    /// What the cache of answers did.
    pub fn cache_counts(&self) -> CacheCounts {
        self.answers.counts()
    }

    /// What its tier of similar questions did.
    pub fn similarity(&self) -> SimilarityReport {
        self.answers.similarity()
    }

    /// Forgets the answers in memory of a model (as it was asked for), under a signature, or all; how many they were.
    pub fn clear_cache(&self, model: Option<&str>, signature: Option<&str>) -> usize {
        self.answers.clear(model, signature)
    }

    /// How many answers are under way that a repeated request would get, or can still be repeated.
    pub fn repeatable_answers(&self) -> usize {
        let window = i64::from(self.live.load().settings.idempotency_window_ms);
        self.idempotency.active(self.clock.now_ms(), window)
    }

    /// How many answers are under way that whoever sends the same again waits for.
    pub fn shared_answers(&self) -> usize {
        self.idempotency.in_flight()
    }

    /// Repeats none of the answers so far; says how many they were.
    pub fn forget_answers(&self) -> usize {
        self.idempotency.clear()
    }

    /// Begins a request. From here on it is recorded whatever becomes of it.
    pub fn begin(self: &Arc<Self>, arrival: Arrival) -> Box<RequestCtx> {
        RequestCtx::new(self.clone(), arrival)
    }

    /// Finds out who is asking and whether they may. Call it before the body is read.
    pub fn identify(&self, ctx: &mut RequestCtx) -> Result<(), GatewayError> {
        let identified = admit::identify(ctx);
        ctx.begin_copies(identified.is_ok());
        ctx.reached(Phase::Validate);
        identified
    }

    /// Serves a chat request whose caller is known.
    pub async fn serve(self: &Arc<Self>, mut ctx: Box<RequestCtx>, body: Bytes) -> Response<Answer> {
        let route = match open(&mut ctx, body).await {
            Ok(route) => route,
            Err(error) => return self.refuse(ctx, &error),
        };
        if let Some(answer) = ctx.immediate_answer().or_else(|| ctx.empty_answer(&route)) {
            ctx.led_to(&route);
            return self.reply_in_place(ctx, answer);
        }
        if reuse::is_repeatable(&ctx) {
            match Box::pin(reuse::look_up(self, ctx, &route)).await {
                Found::Answered(response) => return response,
                Found::Ask(asking) => ctx = asking,
            }
            ctx.reached(Phase::Cache);
        }
        match reuse::join(self, ctx, &route).await {
            Joined::Answered(response) => response,
            // Boxed because it is large, and would be moved about with whoever serves the request.
            Joined::Alone(ctx) => Box::pin(self.answer(ctx, route)).await,
            Joined::First(ctx, lead) => lead.leave(Box::pin(self.answer(ctx, route)).await),
        }
    }

    /// Answers a request that nobody has answered yet.
    async fn answer(self: &Arc<Self>, mut ctx: Box<RequestCtx>, route: Route) -> Response<Answer> {
        if let Err(error) = admit::reserve(&mut ctx).await {
            ctx.bar(route, "key", &error);
            return self.refuse(ctx, &error);
        }
        ctx.reached(Phase::Policy);
        if ctx.envelope.as_ref().is_some_and(|envelope| envelope.stream) {
            return self.serve_stream(ctx, route).await;
        }
        match cancel::attempts(&mut ctx, &route).await {
            Ok(Attempted::Whole(pieces)) => {
                ctx.outcome.status = Some(200);
                ctx.settle_money();
                ctx.copy_whole(&pieces);
                reuse::keep_whole(&mut ctx, &pieces);
                let mut response = Response::new(Answer::whole(*pieces));
                let headers = response.headers_mut();
                // Room at once; growing costs more.
                *headers = HeaderMap::with_capacity(16);
                headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
                headers.insert(reuse::HEADER, HeaderValue::from_static("MISS"));
                if ctx.outcome.usage_estimated {
                    headers.insert(USAGE, HeaderValue::from_static("estimated"));
                }
                diagnostics(&ctx, true, headers);
                response
            }
            Ok(Attempted::Stream(_)) => {
                unreachable!("a stream is only begun for a client that asked for one")
            }
            Err(error) => self.refuse(ctx, &error),
        }
    }

    pub(crate) async fn serve_stream(
        self: &Arc<Self>,
        mut ctx: Box<RequestCtx>,
        route: Route,
    ) -> Response<Answer> {
        let (early, limits) = (StreamHead::of(&ctx), Relay::new(&ctx));
        let tells_progress = limits.tells_progress();
        let content_type = ctx.dialect().stream_content_type(ctx.framing());
        let patience = self.options.keep_alive_interval;
        let mut pending = Box::pin(async move {
            let attempted = cancel::attempts(&mut ctx, &route).await;
            (ctx, attempted)
        });
        let (head, relay) = match timeout(patience, &mut pending).await {
            Ok((ctx, Ok(attempted))) => {
                let mut head = HeaderMap::with_capacity(16);
                diagnostics(&ctx, true, &mut head);
                (head, Relay::begun(ctx, attempted))
            }
            Ok((ctx, Err(error))) => return self.refuse(ctx, &error),
            Err(_) => (early.headers(), Relay::waiting(limits, pending)),
        };
        let mut response = streaming(head, relay, content_type);
        if tells_progress {
            response.headers_mut().insert(progress::HEADER, HeaderValue::from_static("enabled"));
        }
        response
    }

    /// Does something with an answer that a vendor keeps, for a caller that is known.
    pub async fn kept(
        self: &Arc<Self>,
        mut ctx: Box<RequestCtx>,
        id: &str,
        call: KeptCall,
    ) -> Response<Answer> {
        match attempt::call_about(&mut ctx, id, call).await {
            Ok(Stored::Whole(body)) => self.reply(ctx, StatusCode::OK, body),
            Ok(Stored::Stream(start)) => {
                let content_type = ctx.dialect().stream_content_type(ctx.framing());
                let mut head = HeaderMap::with_capacity(16);
                diagnostics(&ctx, true, &mut head);
                streaming(head, Relay::begun(ctx, Attempted::Stream(start)), content_type)
            }
            Err(error) => self.refuse(ctx, &error),
        }
    }

    /// Answers with an error in the client's dialect.
    pub fn refuse(&self, mut ctx: Box<RequestCtx>, error: &GatewayError) -> Response<Answer> {
        ctx.note_error(error);
        let public = error.public(&ctx.request_id, self.clock.now_ms());
        let (status, body) = ctx.dialect().encode_error(&public);
        ctx.outcome.status = Some(status.as_u16());
        ctx.copy_whole(std::slice::from_ref(&body));
        let mut response = Response::new(Answer::full(body));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(wait) = error.retry_after {
            headers.insert(
                RETRY_AFTER,
                HeaderValue::from(wait.as_millis().div_ceil(1_000).max(1).min(u128::from(u32::MAX)) as u64),
            );
            headers.insert(
                RETRY_AFTER_MS,
                HeaderValue::from(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).max(1)),
            );
        }
        if error.is_final && status.is_client_error() {
            headers.insert(SHOULD_RETRY, HeaderValue::from_static("false"));
        }
        circuit::tell(error, headers);
        diagnostics(&ctx, false, headers);
        response
    }

    /// Answers a chat request that no upstream has to be asked about.
    fn reply_in_place(&self, ctx: Box<RequestCtx>, body: Bytes) -> Response<Answer> {
        let is_stream = ctx.envelope.as_ref().is_some_and(|envelope| envelope.stream);
        let content_type = match is_stream {
            true => ctx.dialect().stream_content_type(ctx.framing()),
            false => "application/json",
        };
        let mut response = self.reply(ctx, StatusCode::OK, body);
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        if !is_stream {
            headers.insert(reuse::HEADER, HeaderValue::from_static("MISS"));
        }
        response
    }

    /// Answers with a body of our own making (lists of models).
    pub fn reply(&self, mut ctx: Box<RequestCtx>, status: StatusCode, body: Bytes) -> Response<Answer> {
        ctx.outcome.status = Some(status.as_u16());
        ctx.copy_whole(std::slice::from_ref(&body));
        let mut response = Response::new(Answer::full(body));
        *response.status_mut() = status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        diagnostics(&ctx, false, response.headers_mut());
        response
    }

    /// `req_` and 24 letters and digits.
    pub fn new_request_id(&self) -> Arc<str> {
        const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
        let mut id = *b"req_000000000000000000000000";
        for eight in id[4..].chunks_exact_mut(8) {
            let mut bits = self.random();
            for place in eight {
                *place = ALPHABET[(bits % 62) as usize];
                bits /= 62;
            }
        }
        str::from_utf8(&id).unwrap_or_default().into()
    }

    pub(crate) fn new_row_id(&self, now_ms: i64) -> RowId {
        let random = (u128::from(self.random()) << 64 | u128::from(self.random())).to_be_bytes();
        let [random @ .., _, _, _, _, _, _] = random;
        RowId::new(now_ms, random)
    }

    pub(crate) fn random(&self) -> u64 {
        self.chance.next()
    }

    /// In -1.0..=1.0.
    pub(crate) fn jitter(&self) -> f64 {
        #[allow(clippy::cast_precision_loss, reason = "a jitter needs no precision")]
        let unit = (self.random() >> 11) as f64 / (1_u64 << 53) as f64;
        unit.mul_add(2.0, -1.0)
    }
}

/// An answer as it comes.
fn streaming(head: HeaderMap, relay: Relay, content_type: &'static str) -> Response<Answer> {
    let mut response = Response::new(Answer::Stream(Box::new(relay)));
    *response.headers_mut() = head;
    stream_headers(response.headers_mut(), content_type);
    response
}

/// Everything up to the first upstream call: envelope, target, limits.
async fn open(ctx: &mut RequestCtx, body: Bytes) -> Result<Route, GatewayError> {
    ctx.set_body(body);
    let envelope = ctx.dialect().envelope(ctx.head(), &ctx.body)?;
    ctx.reached(Phase::Parse);
    let stream = envelope.stream;
    let envelope = ctx.envelope.insert(envelope);
    clip(&mut envelope.model);
    let telemetry = &ctx.engine.telemetry;
    ctx.running = Some(telemetry.begin(&ctx.request_id, &envelope.model, stream, ctx.started_ms));
    let route = resolve::route(ctx)?;
    if let Err(error) = session::enter(ctx) {
        ctx.bar(route, "key", &error);
        return Err(error);
    }
    if let Err(error) = kept::pin(ctx, &route).await {
        ctx.bar(route, "key", &error);
        return Err(error);
    }
    ctx.reached(Phase::Resolve);
    Ok(route)
}

/// A name that is far too long is refused in a moment; until then it is in the list of running requests.
pub(crate) fn clip(model: &mut Arc<str>) {
    const ENOUGH: usize = 2 * omniroute_domain::resolve::MAX_MODEL_LENGTH;
    if model.len() > ENOUGH {
        *model = model[..model.floor_char_boundary(ENOUGH)].into();
    }
}

impl RequestCtx {
    pub(crate) fn note_error(&mut self, error: &GatewayError) {
        self.outcome.status = Some(error.kind.status());
        self.outcome.error = Some(error.message.clone());
        self.outcome.error_code = Some(error.told_code().to_owned());
    }

    /// What keeps this client's stream alive.
    pub(crate) fn keep_alive(&self) -> Bytes {
        use omniroute_domain::entity::SseKeepalive;
        let style = match self.snapshot.settings.sse_keepalive {
            SseKeepalive::Comment => KeepAlive::Comment,
            SseKeepalive::Chunk => KeepAlive::Chunk,
            SseKeepalive::Off => KeepAlive::Off,
        };
        let (model, legacy) =
            self.envelope.as_ref().map_or(("", false), |envelope| (&*envelope.model, envelope.legacy));
        self.dialect().keep_alive(style, self.framing(), model, self.started_ms, legacy)
    }
}

/// A stream of numbers that are hard enough to guess for ids and good enough for jitter; never for secrets.
struct Chance(AtomicU64);

impl Chance {
    fn next(&self) -> u64 {
        let state = self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

/// Where a client connects from, as the rim tells the management API.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub SocketAddr);

/// The error for a path that is not there, or a method that the path does not have.
pub fn no_such_path(path: &str) -> GatewayError {
    GatewayError::new(ErrorKind::NotFound, "not_found", format!("there is no `{path}` here"))
}
