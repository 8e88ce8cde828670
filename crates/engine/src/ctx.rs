//! What is known about a request while it is served. Owned by its future; recorded when dropped.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, Method};
use omniroute_dialect::ir::{ChatRequest, ChatResponse, Loss, Tier, ToolKind, Usage};
use omniroute_dialect::{Dialect, DialectId, Echo, Envelope, Framing, Head, estimate, shape};
use omniroute_domain::combo::Validation;
use omniroute_domain::entity::ConnectionId;
use omniroute_domain::limit::Standing;
use omniroute_domain::price::Units;
use omniroute_domain::resolve::{Route, Target};
use omniroute_domain::session::SessionKey;
use omniroute_domain::snapshot::{Caller, ConnectionState, Snapshot};
use omniroute_provider::Capability;
use smallvec::SmallVec;

use crate::attempt::{Rewrite, Tally, Trying};
use crate::barred::{Barred, Unserved};
use crate::bodies::Copies;
use crate::branch::Kinship;
use crate::decision::Decision;
use crate::error::GatewayError;
use crate::handoff::Taken;
use crate::kept::Known;
use crate::money::Money;
use crate::policy::Steering;
use crate::ports::{AttemptRow, Charge, Departure};
use crate::reasoning;
use crate::reuse::Reuse;
use crate::serve::Engine;
use crate::task::Job;
use crate::telemetry::{Phase, Phases, Running};

/// Most losses kept for the log.
pub(crate) const MAX_LOSSES: usize = 50;

/// A request as it came in, before its body was read.
#[derive(Clone)]
pub struct Arrival {
    /// Who connected.
    pub peer: SocketAddr,
    /// GET, POST, …
    pub method: Method,
    /// The path, for the log.
    pub path: Arc<str>,
    /// The query, as it came.
    pub query: Option<String>,
    /// The client's headers.
    pub headers: HeaderMap,
    /// The dialect of the route.
    pub dialect: &'static dyn Dialect,
    /// What the route is for (`chat`, `messages`, `models`); keys may be restricted to some.
    pub endpoint: &'static str,
    /// The provider that the path names (`/v1/providers/{provider}/…`), as the client wrote it.
    pub provider: Option<String>,
    /// Whether it is worth a row in the request log (calls of models are, lists are not).
    pub is_logged: bool,
}

/// The tenant of those without a key.
pub(crate) const NOBODY: &str = "-";

/// One request. Made in a box, since it is handed from stage to stage.
pub struct RequestCtx {
    pub(crate) engine: Arc<Engine>,
    /// What came in.
    pub arrival: Arrival,
    /// The gateway's id of the request.
    pub request_id: Arc<str>,
    pub(crate) started: Instant,
    pub(crate) started_ms: i64,
    /// The configuration it is served with, from beginning to end.
    pub snapshot: Arc<Snapshot>,
    /// The client, if it identified itself.
    pub caller: Option<Arc<Caller>>,
    pub(crate) body: Bytes,
    /// The bytes that its prompt is estimated by, once somebody wants to know.
    pub(crate) weight: OnceLock<u64>,
    pub(crate) envelope: Option<Envelope>,
    /// Boxed because most requests stay in their dialect and have none, and a request is moved a few times.
    pub(crate) canonical: Option<Box<ChatRequest>>,
    /// The one account that can serve the request, where it names what that account keeps.
    pub(crate) pinned: Option<ConnectionId>,
    /// The conversation, where it matters.
    pub(crate) session: Option<SessionKey>,
    /// Tags that an account must have to serve the request.
    pub(crate) required_tags: SmallVec<[Arc<str>; 1]>,
    /// Reasoning of the history was refused: it is left out.
    pub(crate) without_reasoning: bool,
    /// The request stays in its dialect, and its upstream wants the reasoning behind calls back.
    pub(crate) returns_reasoning: bool,
    /// Refusals that led to another try at the same account.
    pub(crate) repairs: u8,
    /// The answer to an earlier request that this one is about: it says nothing about the account as it is now, and was paid
    /// for, but for what nobody could know yet.
    pub(crate) about: Option<Arc<Known>>,
    /// Its tokens are to be counted, and that is all.
    pub(crate) is_count: bool,
    /// Where it would have led, had those not been idle whom another target stands in for.
    pub(crate) instead_of: Vec<Unserved>,
    pub(crate) charges: SmallVec<[Charge; 4]>,
    /// What is left of the key's limits.
    pub(crate) standings: SmallVec<[Standing; 4]>,
    /// What it may cost, and what it did.
    pub(crate) money: Money,
    pub(crate) attempts: Vec<AttemptRow>,
    pub(crate) upstream_dialect: Option<DialectId>,
    pub(crate) losses: Vec<Loss>,
    pub(crate) outcome: Outcome,
    /// When the phases before the first call were over.
    pub(crate) phases: Phases,
    /// Who answered.
    pub(crate) source: AnswerSource,
    /// What the cache of answers has to do with it; mostly nothing.
    pub(crate) reuse: Option<Box<Reuse>>,
    /// How close the question is that the cache has an answer to, where that was given, or would have been.
    pub(crate) similarity: Option<f64>,
    /// The target that is asked, or was asked last.
    pub(crate) target: Option<Arc<Target>>,
    /// The combo that was asked for.
    pub(crate) combo: Option<Arc<str>>,
    /// The id of its step that was asked last.
    pub(crate) step: Option<Arc<str>>,
    /// The random bits that the request's decisions are made with.
    pub(crate) seed: u64,
    /// How it was routed, for the record.
    pub(crate) decision: Option<Box<Decision>>,
    /// Where it would have led, where it is refused for that.
    pub(crate) barred: Option<Box<Barred>>,
    /// The step of a combo whose target is being asked.
    pub(crate) trying: Option<Trying>,
    /// The counts of the combo that is asked; its branches are in them too.
    pub(crate) tally: Option<Arc<Tally>>,
    /// Where the operator steers it; `None` when nowhere in particular.
    pub(crate) steering: Option<Box<Steering>>,
    /// How long it has waited so far: in queues, for places, for cooldowns to end, and between tries.
    pub(crate) waited: Duration,
    /// Until when there must be a first content, while a target of a combo is asked.
    pub(crate) deadline: Option<Instant>,
    /// Keeps the request in the list of running ones.
    pub(crate) running: Option<Running>,
    /// Whether it is one of several calls at once.
    pub(crate) kinship: Kinship,
    /// Whether something else is sent than what the client sent.
    pub(crate) rewrite: Option<Rewrite>,
    /// By how many bytes that is longer.
    pub(crate) added_bytes: usize,
    /// What a whole answer must be like so that it counts as one.
    pub(crate) validation: Option<Arc<Validation>>,
    /// The answer of a call that was made for the gateway itself.
    pub(crate) material: Option<Box<ChatResponse>>,
    /// The summary of what another account answered; boxed because there seldom is one.
    pub(crate) taken: Option<Box<Taken>>,
    /// What is asked for, where that is not chat.
    pub(crate) task: Option<Box<Job>>,
    /// What it is while a call has the task.
    pub(crate) performing: Option<Capability>,
    /// Copies of what is said, for the log; `None` where it keeps none.
    pub(crate) copies: Option<Box<Copies>>,
}

/// Who answers a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AnswerSource {
    /// Somebody who was asked for it.
    Upstream,
    /// The answer to the same request, sent a moment before.
    Repeated,
    /// The cache.
    Cache,
}

impl AnswerSource {
    /// The word in rows and API fields.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Upstream => "upstream",
            Self::Repeated => "idempotent",
            Self::Cache => "semantic",
        }
    }
}

/// How it ended, as far as it has.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// Status the client got; `None` while it has none (then a drop means that the client went away).
    pub(crate) status: Option<u16>,
    pub(crate) error: Option<String>,
    pub(crate) error_code: Option<String>,
    /// Tokens of the call that is under way; those of others are in the rows of their attempts.
    pub(crate) usage: Usage,
    pub(crate) usage_estimated: bool,
    /// What that call used beside tokens.
    pub(crate) units: Option<Box<Units>>,
    pub(crate) first_event: Option<Instant>,
    pub(crate) sent: Option<Instant>,
    /// When the head of a good answer came.
    pub(crate) head: Option<Instant>,
    /// When the call was sent that is still under way; it is the last of the attempts.
    pub(crate) calling: Option<Instant>,
    /// Whether that call has left for its upstream, which has not refused it.
    pub(crate) departure: Departure,
    /// The tier that was asked for of that upstream.
    pub(crate) tier: Tier,
}

impl RequestCtx {
    pub(crate) fn new(engine: Arc<Engine>, arrival: Arrival) -> Box<Self> {
        let request_id = request_id(&arrival.headers, &engine);
        let snapshot = arc_swap::Guard::into_inner(engine.live.load());
        let (started, started_ms) = (engine.clock.instant(), engine.clock.now_ms());
        let seed = engine.random();
        Box::new(Self {
            engine,
            arrival,
            request_id,
            started,
            started_ms,
            snapshot,
            caller: None,
            body: Bytes::new(),
            weight: OnceLock::new(),
            envelope: None,
            canonical: None,
            pinned: None,
            session: None,
            required_tags: SmallVec::new(),
            without_reasoning: false,
            returns_reasoning: false,
            repairs: 0,
            about: None,
            is_count: false,
            instead_of: Vec::new(),
            charges: SmallVec::new(),
            standings: SmallVec::new(),
            money: Money::default(),
            attempts: Vec::new(),
            upstream_dialect: None,
            losses: Vec::new(),
            outcome: Outcome::default(),
            phases: Phases::default(),
            source: AnswerSource::Upstream,
            reuse: None,
            similarity: None,
            target: None,
            combo: None,
            step: None,
            seed,
            decision: None,
            trying: None,
            barred: None,
            tally: None,
            steering: None,
            waited: Duration::ZERO,
            deadline: None,
            running: None,
            kinship: Kinship::Alone,
            rewrite: None,
            added_bytes: 0,
            validation: None,
            material: None,
            taken: None,
            task: None,
            performing: None,
            copies: None,
        })
    }

    /// Whose conversations these are, for what is remembered of them.
    pub(crate) fn tenant(&self) -> &str {
        self.caller.as_ref().map_or(NOBODY, |caller| caller.id.as_str())
    }

    /// Decides with these random bits, as an earlier request did.
    pub fn decide_with(&mut self, seed: u64) {
        self.seed = seed;
    }

    /// Waits so long.
    pub(crate) async fn pause(&mut self, pause: Duration) {
        tokio::time::sleep(pause).await;
        self.waited += pause;
    }

    /// Counts what was waited since then.
    pub(crate) fn has_waited_since(&mut self, began: Instant) {
        self.waited += self.engine.clock.instant().saturating_duration_since(began);
    }

    /// The dialect of the client.
    pub fn dialect(&self) -> &'static dyn Dialect {
        self.arrival.dialect
    }

    /// The canonical form of the request; decoded on first use, with the reasoning that the client carried for us or
    /// that was kept for it.
    pub(crate) async fn canonical(&mut self) -> Result<&mut ChatRequest, GatewayError> {
        if self.canonical.is_none() {
            let mut request = self.arrival.dialect.decode_request(self.head(), &self.body)?;
            shape::open_carriers(&mut request, &self.engine.seal);
            reasoning::recall(self, &mut request).await;
            self.losses.append(&mut request.losses);
            self.canonical = Some(Box::new(request));
        }
        self.canonical.as_deref_mut().ok_or_else(|| unreachable_state("canonical form"))
    }

    /// Keeps losses of an answer for the log, as many as there is room for.
    pub(crate) fn note_losses(&mut self, losses: impl IntoIterator<Item = Loss>) {
        let room = MAX_LOSSES.saturating_sub(self.losses.len());
        self.losses.extend(losses.into_iter().take(room));
    }

    /// What stands outside the body.
    pub(crate) fn head(&self) -> Head<'_> {
        Head {
            headers: &self.arrival.headers,
            path: &self.arrival.path,
            query: self.arrival.query.as_deref(),
        }
    }

    pub(crate) fn envelope(&self) -> Result<&Envelope, GatewayError> {
        self.envelope.as_ref().ok_or_else(|| unreachable_state("envelope"))
    }

    /// What answers repeat of the request.
    pub(crate) fn echo(&self) -> Echo {
        let envelope = self.envelope.as_ref();
        Echo {
            model: envelope.map(|envelope| envelope.model.clone()).unwrap_or_default(),
            request_id: self.request_id.clone(),
            asked_after: Some(self.since_arrival()),
            begun_after: None,
            answered_after: None,
            include_usage: envelope.is_some_and(|envelope| envelope.include_usage),
            estimated_input_tokens: self.estimated_input_tokens(),
            legacy: envelope.is_some_and(|envelope| envelope.legacy),
            framing: envelope.map(|envelope| envelope.framing),
            request: self.body.clone(),
            custom_tools: self.custom_tools(),
            ..Echo::arrived_at(self.started_ms)
        }
    }

    /// A limit of time, or what is left of the request's if that is less.
    pub(crate) fn within(&self, limit: Duration) -> Duration {
        match self.deadline {
            Some(deadline) => limit.min(deadline.saturating_duration_since(self.engine.clock.instant())),
            None => limit,
        }
    }

    /// Whether nothing may be begun any more.
    pub(crate) fn is_late(&self) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= self.engine.clock.instant())
    }

    /// How long ago the request arrived.
    pub(crate) fn since_arrival(&self) -> Duration {
        self.engine.clock.instant().saturating_duration_since(self.started)
    }

    /// A phase is over.
    pub(crate) fn reached(&mut self, phase: Phase) {
        self.phases.end(phase, self.since_arrival());
    }

    /// The answer, where the client's dialect has one without an upstream.
    pub(crate) fn immediate_answer(&self) -> Option<Bytes> {
        let envelope = self.envelope.as_ref()?;
        self.dialect().immediate_answer(envelope, &self.body, &|| self.echo())
    }

    /// Whether the client wants nothing said, but its prompt read into a cache.
    pub(crate) fn wants_nothing(&self) -> bool {
        self.envelope.as_ref().is_some_and(|envelope| envelope.max_output_tokens == Some(0))
    }

    /// The answer to a request that wants nothing said, where it would go to an upstream of another dialect.
    pub(crate) fn empty_answer(&self, route: &Route) -> Option<Bytes> {
        let answer = self.dialect().empty_answer(self.envelope.as_ref()?, &|| self.echo())?;
        let target = match route {
            Route::Target(target) => Some(target.clone()),
            Route::Combo(combo) => combo.first_target(&self.snapshot, self.started_ms),
        }?;
        let client = self.dialect().id();
        let only = target.provider.only_dialect(&target.model);
        let speaks = |connection: &Arc<ConnectionState>| {
            let endpoint = connection.endpoint_for(client, only, self.started_ms);
            endpoint.is_some_and(|endpoint| endpoint.dialect == client)
        };
        (!target.provider.connections.iter().any(speaks)).then_some(answer)
    }

    /// How the client's stream is framed.
    pub(crate) fn framing(&self) -> Framing {
        self.envelope.as_ref().map_or(self.dialect().framing(), |envelope| envelope.framing)
    }

    /// The client's tools that take free text. Where nothing is translated nobody has to know them.
    fn custom_tools(&self) -> Arc<[String]> {
        let Some(request) = self.canonical.as_ref().filter(|request| !request.tools.is_empty()) else {
            // Shared; an empty list made anew would be allocated.
            return Arc::default();
        };
        request
            .tools
            .iter()
            .filter_map(|tool| match &tool.kind {
                ToolKind::Custom { name, .. } => Some(name.clone()),
                ToolKind::Function { .. } | ToolKind::WebSearch(_) | ToolKind::Opaque { .. } => None,
            })
            .collect()
    }

    /// What the client sent, or is asked in its place.
    pub(crate) fn set_body(&mut self, body: Bytes) {
        self.body = body;
        self.weight = OnceLock::new();
    }

    /// A rough count for when nobody else counted, for limits, conditions, policies and money alike: four bytes of body are
    /// a token, but for media in it. A request that stays in its dialect is not decoded for the sake of an estimate.
    pub(crate) fn estimated_input_tokens(&self) -> u64 {
        let weight = *self.weight.get_or_init(|| estimate::weight(&self.body));
        ((weight + self.added_bytes as u64) / 4).max(1)
    }

    /// Whether lossy translation is refused.
    pub(crate) fn is_strict(&self) -> bool {
        self.caller.as_ref().is_some_and(|caller| caller.strict)
            || is_true(self.arrival.headers.get("x-omniroute-strict"))
    }
}

impl Engine {
    /// The id of a request that is answered without a context: the client's own where it is fit to be logged.
    pub fn request_id(&self, headers: &HeaderMap) -> Arc<str> {
        request_id(headers, self)
    }
}

/// `true`, `1` or `yes` in any case.
pub(crate) fn is_true(value: Option<&http::HeaderValue>) -> bool {
    value
        .and_then(|value| value.to_str().ok())
        .is_some_and(|text| ["true", "1", "yes"].iter().any(|word| text.trim().eq_ignore_ascii_case(word)))
}

fn unreachable_state(what: &str) -> GatewayError {
    GatewayError::new(
        omniroute_dialect::ir::ErrorKind::Internal,
        "internal_server_error",
        format!("the {what} was asked for too early; this is a bug of the gateway"),
    )
}

/// The client's own id where it is fit to be logged, else a new one.
fn request_id(headers: &HeaderMap, engine: &Engine) -> Arc<str> {
    let sent = headers.get("x-request-id").and_then(|value| value.to_str().ok());
    match sent {
        Some(id) if is_request_id(id) => id.into(),
        _ => engine.new_request_id(),
    }
}

pub(crate) fn is_request_id(text: &str) -> bool {
    (1..=128).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b':' | b'-'))
}
