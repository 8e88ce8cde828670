//! The loop: take an account, call it, and either commit to its answer or learn from its failure and go on.
//!
//! The commit point is the first meaningful event. Until then nothing has reached the client, and every failure is
//! ours to repair.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode};
use http_body_util::BodyExt as _;
use omniroute_dialect::ir::UpstreamError;
use omniroute_dialect::shape::Shape;
use omniroute_dialect::stream::{StreamCollector, StreamPipe, Transcoder};
use omniroute_dialect::{Dialect, Echo, error_in_success};
use omniroute_domain::health::InFlight;
use omniroute_domain::resolve::Target;
use omniroute_domain::snapshot::ConnectionState;
use omniroute_provider::{Failure, FailureKind, Retry};
use omniroute_wire::splice::Pieces;
use smallvec::SmallVec;
use tokio::time::timeout;

use crate::ctx::RequestCtx;
use crate::error::GatewayError;
use crate::explain;
use crate::heal;
use crate::ports::{AttemptRow, TransportError, UpstreamBody};
use crate::prepare::{self, Prepared};
use crate::reasoning;
use crate::resolve;
use crate::time::millis;

/// Most upstream calls for one request.
const MAX_ATTEMPTS: usize = 8;
/// How long an endpoint that is not there is not asked for again.
const MISSING_DIALECT_MS: i64 = 24 * 3_600 * 1_000;
/// Most bytes read of an upstream's error.
const MAX_ERROR_BYTES: usize = 64 * 1024;
/// Most bytes a stream may hold back before its first meaningful event.
const MAX_UNCOMMITTED_BYTES: usize = 4 * 1024 * 1024;

/// An answer that the client will get.
#[allow(
    clippy::large_enum_variant,
    reason = "most answers are complete; a box would cost each of them an allocation"
)]
pub(crate) enum Attempted {
    /// Complete.
    Whole(Pieces),
    /// Begun.
    Stream(Box<StreamStart>),
}

/// A stream past its commit point.
pub(crate) struct StreamStart {
    pub(crate) body: UpstreamBody,
    pub(crate) pipe: Box<dyn StreamPipe>,
    /// What the client gets first.
    pub(crate) out: BytesMut,
    /// Whether the upstream is already at its end.
    pub(crate) is_ended: bool,
    pub(crate) connection: Arc<ConnectionState>,
    pub(crate) target: Target,
    #[allow(dead_code, reason = "held for its Drop")]
    pub(crate) place: InFlight,
    /// When the call was sent.
    pub(crate) sent: Instant,
}

/// Why one attempt came to nothing.
enum Fault {
    /// The upstream's doing.
    Upstream(Box<Failure>, Option<StatusCode>),
    /// The request cannot be sent at all.
    Request(GatewayError),
}

impl From<Failure> for Fault {
    fn from(failure: Failure) -> Self {
        Self::Upstream(Box::new(failure), None)
    }
}

impl From<GatewayError> for Fault {
    fn from(error: GatewayError) -> Self {
        Self::Request(error)
    }
}

/// Tries accounts until one answers or none is left.
pub(crate) async fn run(ctx: &mut RequestCtx, target: &Target) -> Result<Attempted, GatewayError> {
    let settings = &ctx.snapshot.settings;
    let mut waits_left = settings.request_retry;
    let mut wait_budget = Duration::from_secs(u64::from(settings.max_retry_interval_sec));
    let mut tried: SmallVec<[Arc<ConnectionState>; 4]> = SmallVec::new();
    let mut last: Option<Failure> = None;
    loop {
        let (candidates, _) = resolve::candidates(ctx, target, &tried, ctx.engine.clock.now_ms());
        let mut is_busy = false;
        for connection in candidates {
            if ctx.attempts.len() >= MAX_ATTEMPTS {
                break;
            }
            let Some(place) = connection.health.enter(connection.max_concurrent) else {
                is_busy = true;
                continue;
            };
            let sent = ctx.engine.clock.instant();
            match once(ctx, target, &connection, place, sent).await {
                Ok(done) => return Ok(done),
                Err(Fault::Request(error)) => return Err(error),
                Err(Fault::Upstream(mut failure, status)) => {
                    connection.conceal(&mut failure.upstream);
                    note_failure(ctx, target, &connection, &failure, status, sent);
                    tried.push(connection);
                    if failure.retry != Retry::Elsewhere {
                        return Err(explain::failure(ctx, target, &failure));
                    }
                    last = Some(*failure);
                }
            }
        }
        let wait = explain::earliest(ctx, target);
        let Some(pause) = wait.filter(|pause| {
            waits_left > 0
                && *pause <= wait_budget
                && ctx.attempts.len() < MAX_ATTEMPTS
                && may_wait(last.as_ref())
        }) else {
            return Err(explain::exhausted(ctx, target, last.as_ref(), wait, is_busy));
        };
        waits_left -= 1;
        wait_budget -= pause;
        tokio::time::sleep(pause + Duration::from_millis(ctx.engine.random() % 50)).await;
        tried.clear();
    }
}

/// Whether a cooldown of this cause is worth waiting for.
fn may_wait(last: Option<&Failure>) -> bool {
    !last.is_some_and(|failure| {
        matches!(
            failure.kind,
            FailureKind::QuotaSpent
                | FailureKind::AuthRejected
                | FailureKind::Forbidden
                | FailureKind::Banned
                | FailureKind::ModelMissing
                | FailureKind::AddressBlocked
        )
    })
}

/// One call.
async fn once(
    ctx: &mut RequestCtx,
    target: &Target,
    connection: &Arc<ConnectionState>,
    place: InFlight,
    sent: Instant,
) -> Result<Attempted, Fault> {
    let engine = ctx.engine.clone();
    let limit = engine.options.first_byte_timeout;
    let (dialect, mut echo, shape, head, body) = loop {
        let Prepared { call, dialect, echo, shape } = prepare::call(ctx, target, connection).await?;
        if let Some(running) = &ctx.running {
            running.routed(target.provider.id.as_str(), connection.id.as_str());
        }
        open_row(ctx, target, connection, sent);
        ctx.outcome.sent.get_or_insert(sent);
        let response = match timeout(limit, engine.transport.send(call)).await {
            Err(_) => {
                return Err(Failure::timeout(&format!("no answer within {} s", limit.as_secs_f32())).into());
            }
            Ok(Err(error)) => return Err(transport_failure(&error).into()),
            Ok(Ok(response)) => response,
        };
        let (head, body) = response.into_parts();
        if head.status.is_success() {
            break (dialect, echo, shape, head, body);
        }
        let bytes = read_error(&engine.options.stream_idle_timeout, body).await;
        let error = dialect.decode_error(head.status, &bytes);
        let is_repaired = heal::repair(ctx, target, head.status, &error);
        let is_missing = is_no_such_path(head.status, &error, &target.model)
            && connection.endpoints.first().is_some_and(|preferred| preferred.dialect != dialect.id())
            && target.provider.only_dialect(&target.model).is_none();
        let fault = judged(ctx, target, error, head.status, &head.headers);
        if !is_missing && !is_repaired {
            return Err(fault);
        }
        if is_missing {
            // The provider does not serve this dialect after all; the next round takes the one that it surely serves.
            let until = engine.clock.now_ms().saturating_add(MISSING_DIALECT_MS);
            connection.health.dialect_is_missing(dialect.id(), until);
        }
        if let Fault::Upstream(mut failure, status) = fault {
            connection.conceal(&mut failure.upstream);
            push_row(ctx, target, connection, status, Some(&failure), sent);
        }
    };
    if ctx.envelope()?.stream {
        let pipe = pipe(ctx.dialect(), dialect, echo, shape);
        let start = begin_stream(ctx, target, connection, place, &head.headers, body, pipe, sent).await?;
        return Ok(Attempted::Stream(Box::new(start)));
    }
    let bytes = read_whole(ctx, body).await?;
    echo.answered_after = Some(ctx.since_arrival());
    let pieces = whole(ctx, target, dialect, (&echo, shape), &head.headers, &bytes)?;
    note_success(ctx, target, connection, Some(head.status), sent);
    drop(place);
    Ok(Attempted::Whole(pieces))
}

/// Whether the path is what the upstream does not have, and not the model.
fn is_no_such_path(status: StatusCode, error: &UpstreamError, model: &str) -> bool {
    let names_model = |text: &str| text.contains(model) || text.to_ascii_lowercase().contains("model");
    match status {
        StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED => true,
        StatusCode::NOT_FOUND => {
            !names_model(&error.message) && !error.code.as_deref().is_some_and(names_model)
        }
        _ => false,
    }
}

/// Upstream bytes to client bytes: relayed where the dialects are equal, else through the canonical events.
fn pipe(
    client: &'static dyn Dialect,
    upstream: &'static dyn Dialect,
    echo: Echo,
    shape: Option<Shape>,
) -> Box<dyn StreamPipe> {
    match shape.filter(|_| client.id() != upstream.id()) {
        None => client.stream_relay(echo),
        Some(shape) => Box::new(Transcoder::new(upstream, client, echo, shape)),
    }
}

/// Reads until the first meaningful event, an error, or the end.
#[allow(
    clippy::too_many_arguments,
    reason = "the parts of one call; a struct would only be taken apart again"
)]
async fn begin_stream(
    ctx: &mut RequestCtx,
    target: &Target,
    connection: &Arc<ConnectionState>,
    place: InFlight,
    headers: &HeaderMap,
    mut body: UpstreamBody,
    mut pipe: Box<dyn StreamPipe>,
    sent: Instant,
) -> Result<StreamStart, Fault> {
    let idle = ctx.engine.options.stream_idle_timeout;
    let mut out = BytesMut::with_capacity(4 * 1024);
    let mut held = 0;
    let is_ended = loop {
        let frame = match timeout(idle, body.frame()).await {
            Err(_) => return Err(silent(idle).into()),
            Ok(Some(Err(error))) => {
                return Err(Failure::protocol(&format!("the stream broke: {error}")).into());
            }
            Ok(Some(Ok(frame))) => frame.into_data().ok(),
            Ok(None) => None,
        };
        let is_ended = frame.is_none();
        pipe.time_passed(ctx.since_arrival());
        let fed = match &frame {
            Some(bytes) => {
                held += bytes.len();
                pipe.push(bytes, &mut out)
            }
            None => pipe.finish(&mut out),
        };
        fed.map_err(|error| Failure::protocol(&error.to_string()))?;
        if let Some(error) = pipe.watch().error.clone() {
            let status = error.status.and_then(|status| StatusCode::from_u16(status).ok());
            return Err(judged(ctx, target, error, status.unwrap_or(StatusCode::BAD_GATEWAY), headers));
        }
        if pipe.watch().meaningful {
            break is_ended;
        }
        if is_ended || pipe.watch().complete {
            return Err(Failure::empty().into());
        }
        if held > MAX_UNCOMMITTED_BYTES {
            return Err(Failure::protocol(&format!("{held} bytes without any content")).into());
        }
    };
    ctx.outcome.first_event = Some(ctx.engine.clock.instant());
    Ok(StreamStart {
        body,
        pipe,
        out,
        is_ended,
        connection: connection.clone(),
        target: target.clone(),
        place,
        sent,
    })
}

/// A whole answer for the client, or the failure that it really is.
fn whole(
    ctx: &mut RequestCtx,
    target: &Target,
    upstream: &'static dyn Dialect,
    (echo, shape): (&Echo, Option<Shape>),
    headers: &HeaderMap,
    bytes: &Bytes,
) -> Result<Pieces, Fault> {
    let client = ctx.dialect();
    let is_stream = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|kind| kind.starts_with("text/event-stream"));
    ctx.outcome.first_event = Some(ctx.engine.clock.instant());
    if client.id() == upstream.id() && !is_stream {
        let relayed =
            client.relay_response(bytes, echo).map_err(|error| Failure::protocol(&error.message))?;
        if let Some(error) = relayed.error {
            let status = error.status.and_then(|status| StatusCode::from_u16(status).ok());
            return Err(judged(ctx, target, error, status.unwrap_or(StatusCode::BAD_GATEWAY), headers));
        }
        if !relayed.meaningful {
            return Err(Failure::empty().into());
        }
        ctx.outcome.usage = relayed.usage;
        if !relayed.usage.is_known() {
            estimate_usage(ctx, bytes.len() as u64);
        }
        return Ok(relayed.body.into_pieces());
    }
    if !is_stream && let Some(error) = error_in_success(bytes) {
        let status = error.status.and_then(|status| StatusCode::from_u16(status).ok());
        return Err(judged(ctx, target, error, status.unwrap_or(StatusCode::BAD_GATEWAY), headers));
    }
    let answer = if is_stream {
        let mut collector = StreamCollector::new(upstream);
        collector.push(bytes).map_err(|error| Failure::protocol(&error.to_string()))?;
        collector.finish()
    } else {
        Ok(upstream.decode_response(bytes).map_err(|error| Failure::protocol(&error.message))?)
    };
    let mut answer = match answer {
        Ok(answer) => answer,
        Err(error) => {
            let status = error.status.and_then(|status| StatusCode::from_u16(status).ok());
            return Err(judged(ctx, target, error, status.unwrap_or(StatusCode::BAD_GATEWAY), headers));
        }
    };
    if !answer.is_meaningful() {
        return Err(Failure::empty().into());
    }
    ctx.outcome.usage = answer.usage;
    if !answer.usage.is_known() {
        estimate_usage(ctx, bytes.len() as u64);
    }
    if let Some(mut shape) = shape.filter(|_| client.id() != upstream.id()) {
        shape.response(&mut answer);
        if let Some(notes) = shape.notes() {
            reasoning::keep(ctx, notes);
        }
    }
    let encoded = client.encode_response(&answer, echo);
    ctx.losses.extend(encoded.losses);
    let mut pieces = Pieces::new();
    pieces.push(encoded.body);
    Ok(pieces)
}

/// Four bytes are a token, when the upstream did not count.
pub(crate) fn estimate_usage(ctx: &mut RequestCtx, output_bytes: u64) {
    ctx.outcome.usage.input_uncached = Some(ctx.estimated_input_tokens());
    ctx.outcome.usage.output_total = Some(output_bytes.div_ceil(4));
    ctx.outcome.usage_estimated = true;
}

fn judged(
    ctx: &RequestCtx,
    target: &Target,
    error: UpstreamError,
    status: StatusCode,
    headers: &HeaderMap,
) -> Fault {
    let now_ms = ctx.engine.clock.now_ms();
    Fault::Upstream(Box::new(target.provider.provider.classify(error, status, headers, now_ms)), Some(status))
}

/// An upstream's error body, as far as it comes and is of use.
async fn read_error(idle: &Duration, mut body: UpstreamBody) -> BytesMut {
    let mut bytes = BytesMut::new();
    while let Ok(Some(Ok(frame))) = timeout((*idle).min(Duration::from_secs(10)), body.frame()).await {
        if let Ok(data) = frame.into_data() {
            bytes.extend_from_slice(&data[..data.len().min(MAX_ERROR_BYTES - bytes.len())]);
        }
        if bytes.len() >= MAX_ERROR_BYTES {
            break;
        }
    }
    bytes
}

/// A whole answer; one piece stays the buffer it came in.
async fn read_whole(ctx: &RequestCtx, mut body: UpstreamBody) -> Result<Bytes, Fault> {
    let (limit, idle) = (ctx.engine.options.max_answer_bytes, ctx.engine.options.stream_idle_timeout);
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    loop {
        let frame = match timeout(idle, body.frame()).await {
            Err(_) => return Err(silent(idle).into()),
            Ok(None) => break,
            Ok(Some(Err(error))) => {
                return Err(Failure::protocol(&format!("the answer broke off: {error}")).into());
            }
            Ok(Some(Ok(frame))) => frame,
        };
        let Ok(data) = frame.into_data() else { continue };
        if first.len() + rest.len() + data.len() > limit {
            return Err(Failure::protocol(&format!("the answer is larger than {limit} bytes")).into());
        }
        if first.is_empty() && rest.is_empty() {
            first = data;
        } else {
            if rest.is_empty() {
                rest.reserve(first.len() + data.len());
                rest.extend_from_slice(&first);
                first = Bytes::new();
            }
            rest.extend_from_slice(&data);
        }
    }
    Ok(if rest.is_empty() { first } else { rest.freeze() })
}

/// The upstream fell silent.
pub(crate) fn silent(limit: Duration) -> Failure {
    Failure::timeout(&format!("the upstream was silent for {} s", limit.as_secs_f32()))
}

fn transport_failure(error: &TransportError) -> Failure {
    match error {
        TransportError::AddressBlocked(blocked) => Failure::address_blocked(blocked),
        TransportError::ConnectTimeout { .. }
        | TransportError::Connect { .. }
        | TransportError::Broken { .. } => Failure::connect(&error.to_string()),
    }
}

/// Writes down an attempt that answered.
pub(crate) fn note_success(
    ctx: &mut RequestCtx,
    target: &Target,
    connection: &ConnectionState,
    status: Option<StatusCode>,
    sent: Instant,
) {
    let now_ms = ctx.engine.clock.now_ms();
    if let Some(status) = connection.health.succeeded(&target.model, now_ms) {
        ctx.engine.recorder.connection_status(&connection.id, status);
    }
    push_row(ctx, target, connection, status, None, sent);
}

/// Writes down an attempt that failed, and what follows for the account.
pub(crate) fn note_failure(
    ctx: &mut RequestCtx,
    target: &Target,
    connection: &ConnectionState,
    failure: &Failure,
    status: Option<StatusCode>,
    sent: Instant,
) {
    let now_ms = ctx.engine.clock.now_ms();
    let jitter = ctx.engine.jitter();
    if let Some(status) =
        connection.health.failed(&target.model, failure, &connection.profile, now_ms, jitter)
    {
        ctx.engine.recorder.connection_status(&connection.id, status);
    }
    let status =
        status.or_else(|| failure.upstream.status.and_then(|status| StatusCode::from_u16(status).ok()));
    push_row(ctx, target, connection, status, Some(failure), sent);
}

/// Completes the row of the call that is under way.
fn push_row(
    ctx: &mut RequestCtx,
    target: &Target,
    connection: &ConnectionState,
    status: Option<StatusCode>,
    failure: Option<&Failure>,
    sent: Instant,
) {
    if ctx.outcome.calling.is_none() {
        open_row(ctx, target, connection, sent);
    }
    ctx.outcome.calling = None;
    let duration = ctx.engine.clock.instant().saturating_duration_since(sent);
    if let Some(row) = ctx.attempts.last_mut() {
        row.status = status.map(|status| status.as_u16());
        row.failure = failure.map(|failure| failure.kind.as_str());
        row.message = failure.map(|failure| omniroute_provider::scrub::scrub(&failure.upstream.message));
        row.duration_ms = millis(duration);
    }
}

/// Begins a row that stays as it is when the client goes away before anything was heard.
fn open_row(ctx: &mut RequestCtx, target: &Target, connection: &ConnectionState, sent: Instant) {
    ctx.outcome.calling = Some(sent);
    ctx.attempts.push(AttemptRow {
        provider: target.provider.id.clone(),
        model: target.model.as_str().into(),
        connection: connection.id.clone(),
        connection_name: connection.name.clone(),
        status: None,
        failure: Some(FailureKind::ClientAbort.as_str()),
        message: None,
        duration_ms: 0,
    });
}

/// Writes down an attempt whose client went away; says nothing about the account.
pub(crate) fn note_abort(ctx: &mut RequestCtx, target: &Target, connection: &ConnectionState, sent: Instant) {
    push_row(ctx, target, connection, Some(StatusCode::OK), None, sent);
    if let Some(row) = ctx.attempts.last_mut() {
        row.failure = Some(FailureKind::ClientAbort.as_str());
    }
}
