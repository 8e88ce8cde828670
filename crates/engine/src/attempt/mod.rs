//! Call somebody, and either commit to the answer or learn from the failure and go on.
//!
//! Two loops around one call: [`targets`] goes through the targets of a combo, [`accounts`] through the accounts of a target. The
//! commit point is the first meaningful event. Until then nothing has reached the client, and every failure is ours to
//! repair.

mod accounts;
mod aside;
mod ask;
mod facts;
mod failures;
mod foresight;
mod fusion;
mod in_vain;
mod inner;
mod pause;
mod pipeline;
mod played;
mod queue;
mod round;
mod rows;
mod stored;
mod tally;
mod targets;
mod together;
mod trying;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode};
use http_body_util::BodyExt as _;
use omniroute_dialect::ir::{Block, UpstreamError};
use omniroute_dialect::shape::Shape;
use omniroute_dialect::stream::{Noted, StreamCollector, StreamPipe, StreamWatch, Transcoder};
use omniroute_dialect::{Dialect, Echo, error_in_success};
use omniroute_domain::health::InFlight;
use omniroute_domain::resolve::Target;
use omniroute_domain::snapshot::ConnectionState;
use omniroute_provider::Failure;
use omniroute_wire::splice::Pieces;
use tokio::time::timeout;

use crate::ctx::RequestCtx;
use crate::error::GatewayError;
use crate::heal;
use crate::kept;
use crate::limits;
use crate::money;
use crate::ports::{Departure, TransportError, UpstreamBody};
use crate::prepare::{self, Prepared};
use crate::progress;
use crate::reasoning;
use crate::task;
use crate::time::seconds;

/// How long an endpoint that is not there is not asked for again.
const MISSING_DIALECT_MS: i64 = 24 * 3_600 * 1_000;
/// Most bytes read of an upstream's error.
const MAX_ERROR_BYTES: usize = 64 * 1024;
/// Most bytes a stream may hold back before its first meaningful event.
const MAX_UNCOMMITTED_BYTES: usize = 4 * 1024 * 1024;

/// An answer that the client will get. Small, because every loop around a call hands it on.
pub(crate) enum Attempted {
    /// Complete.
    Whole(Box<Pieces>),
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
    pub(crate) target: Arc<Target>,
    /// What has to be sent back to the upstream, where it paused already.
    pub(crate) paused: Option<Vec<Block>>,
    #[allow(dead_code, reason = "held for its Drop")]
    pub(crate) place: InFlight,
    /// When the call was sent.
    pub(crate) sent: Instant,
}

pub(crate) use accounts::{Failed, passes_by_itself};
pub(crate) use aside::aside;
pub(crate) use facts::facts;
pub(crate) use foresight::{of_chain, of_plan};
pub(crate) use in_vain::no_targets;
pub(crate) use inner::{Rewrite, text_of};
pub(crate) use pause::go_on;
pub use played::Row;
pub(crate) use played::{Rows, play};
pub(crate) use round::{NoPlace, foreseen, no_place};
pub(crate) use rows::open_row;
use rows::push_row;
pub(crate) use rows::{note_abort, note_failure, note_success, notes, with_bearer};
pub(crate) use stored::{Look, Stored, call_about, look_again, preview_about};
pub(crate) use tally::Tally;
pub(crate) use targets::{Layout, lay_out, run};
pub(crate) use trying::Trying;

/// Why one attempt came to nothing.
pub(crate) enum Fault {
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

/// One call.
async fn once(
    ctx: &mut RequestCtx,
    target: &Arc<Target>,
    connection: &Arc<ConnectionState>,
    place: InFlight,
    sent: Instant,
) -> Result<Attempted, Fault> {
    if ctx.task.is_some() {
        // Boxed so that conversations do not carry the room that this needs.
        return Box::pin(task::once(ctx, target, connection, place, sent)).await;
    }
    if !ctx.holds_money() {
        return Err(money::nothing_held().into());
    }
    let engine = ctx.engine.clone();
    let (dialect, mut echo, shape, head, body) = loop {
        let Prepared { mut call, dialect, mut echo, shape } = prepare::call(ctx, target, connection).await?;
        if let Some(running) = &ctx.running {
            running.routed(target.provider.id.as_str(), connection.id.as_str());
        }
        open_row(ctx, target, connection, sent);
        call.departure = ctx.outcome.departure.clone();
        ctx.outcome.sent.get_or_insert(sent);
        let limit = ctx.within(engine.options.first_byte_timeout);
        ctx.copy_call(&call);
        let response = match timeout(limit, engine.transport.send(call)).await {
            Err(_) => {
                return Err(Failure::timeout(&format!("no answer within {}", seconds(limit))).into());
            }
            Ok(Err(error)) => return Err(transport_failure(&error).into()),
            Ok(Ok(response)) => ctx.copy_answer(response),
        };
        let (head, body) = response.into_parts();
        limits::learn(ctx, target, connection, &head.headers);
        echo.begun_after = Some(ctx.since_arrival());
        if head.status.is_success() {
            ctx.outcome.head = Some(engine.clock.instant());
            // However much of the request was sent: it was enough.
            ctx.outcome.departure.note();
            break (dialect, echo, shape, head, body);
        }
        let bytes = read_refusal(ctx, body).await;
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
        let mut pipe = pipe(ctx.dialect(), dialect, echo, shape);
        if ctx.returns_reasoning && ctx.dialect().id() == dialect.id() {
            pipe = Box::new(Noted::new(pipe, dialect));
        }
        let start = begin_stream(ctx, target, connection, place, &head.headers, body, pipe, sent).await?;
        return Ok(Attempted::Stream(Box::new(start)));
    }
    let bytes = read_whole(ctx, body).await?;
    echo.answered_after = Some(ctx.since_arrival());
    let pieces =
        whole(ctx, (target, connection), dialect, (&echo, shape), &head.headers, (&bytes, sent)).await?;
    if ctx.dialect().id() == dialect.id() && ctx.envelope()?.kept.is_some() {
        kept::remember(ctx, &connection.id, &dialect.kept_ids(&bytes));
    }
    note_success(ctx, target, connection, Some(head.status), sent);
    drop(place);
    Ok(Attempted::Whole(Box::new(pieces)))
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
        Some(shape) => Box::new(Transcoder::new(upstream, client, echo, shape).resumable()),
    }
}

/// Reads until the first meaningful event, an error, or the end.
#[allow(
    clippy::too_many_arguments,
    reason = "the parts of one call; a struct would only be taken apart again"
)]
pub(crate) async fn begin_stream(
    ctx: &mut RequestCtx,
    target: &Arc<Target>,
    connection: &Arc<ConnectionState>,
    place: InFlight,
    headers: &HeaderMap,
    mut body: UpstreamBody,
    mut pipe: Box<dyn StreamPipe>,
    sent: Instant,
) -> Result<StreamStart, Fault> {
    let mut out = BytesMut::with_capacity(4 * 1024);
    let mut held = 0;
    let (is_ended, paused) = loop {
        let idle = ctx.within(ctx.engine.options.stream_idle_timeout);
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
        ctx.note_heard();
        // What is given up now will have used this: nothing has been said yet that would have to be guessed.
        ctx.outcome.usage = pipe.watch().usage;
        if let Some(error) = pipe.watch().error.clone() {
            let status = error.status.and_then(|status| StatusCode::from_u16(status).ok());
            return Err(judged(ctx, target, error, status.unwrap_or(StatusCode::BAD_GATEWAY), headers));
        }
        let paused = pipe.take_paused();
        let is_enough = pipe.watch().meaningful || (pipe.watch().complete && ctx.wants_nothing());
        if is_enough || paused.is_some() {
            break (is_ended && paused.is_none(), paused);
        }
        if is_ended || pipe.watch().complete {
            ctx.outcome.usage = pipe.watch().usage;
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
        paused,
        place,
        sent,
    })
}

/// A whole answer for the client, or the failure that it really is.
async fn whole(
    ctx: &mut RequestCtx,
    (target, connection): (&Arc<Target>, &Arc<ConnectionState>),
    upstream: &'static dyn Dialect,
    (echo, shape): (&Echo, Option<Shape>),
    headers: &HeaderMap,
    (bytes, sent): (&Bytes, Instant),
) -> Result<Pieces, Fault> {
    let client = ctx.dialect();
    let is_stream = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|kind| kind.starts_with("text/event-stream"));
    ctx.outcome.first_event = Some(ctx.engine.clock.instant());
    let is_material = ctx.rewrite.is_some_and(Rewrite::is_material);
    if client.id() == upstream.id() && !is_stream && !is_material {
        let mut relayed =
            client.relay_response(bytes, echo).map_err(|error| Failure::protocol(&error.message))?;
        if let Some(error) = relayed.error {
            let status = error.status.and_then(|status| StatusCode::from_u16(status).ok());
            return Err(judged(ctx, target, error, status.unwrap_or(StatusCode::BAD_GATEWAY), headers));
        }
        if !relayed.meaningful && !ctx.wants_nothing() {
            ctx.outcome.usage = relayed.usage;
            return Err(Failure::empty().into());
        }
        ctx.outcome.usage = relayed.usage;
        if !relayed.usage.is_known() {
            let answer = upstream.decode_response(bytes);
            estimate_usage(ctx, answer.map_or(bytes.len() as u64, |answer| answer.output_bytes()));
            relayed.body = client.supply_usage(&relayed.body.to_bytes(), &ctx.outcome.usage);
        }
        if ctx.validation.is_some() {
            let answer =
                upstream.decode_response(bytes).map_err(|error| Failure::protocol(&error.message))?;
            inner::validate(ctx, &answer)?;
        }
        if ctx.returns_reasoning {
            reasoning::keep_whole(ctx, upstream, bytes);
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
    if client.id() != upstream.id()
        && let Some(content) = upstream.paused_content(bytes)
    {
        // Boxed so that others do not carry the room that this needs.
        Box::pin(pause::complete(ctx, target, connection, (&mut answer, content), sent)).await?;
    }
    if !answer.is_meaningful() {
        ctx.outcome.usage = answer.usage;
        return Err(Failure::empty().into());
    }
    ctx.outcome.usage = answer.usage;
    if !answer.usage.is_known() {
        estimate_usage(ctx, answer.output_bytes());
    }
    if let Some(mut shape) = shape.filter(|_| is_material || client.id() != upstream.id()) {
        shape.response(&mut answer);
        inner::validate(ctx, &answer)?;
        if let Some(notes) = shape.notes().filter(|_| !is_material) {
            reasoning::keep(ctx, notes);
        }
    } else {
        inner::validate(ctx, &answer)?;
    }
    if is_material {
        ctx.material = Some(Box::new(answer));
        return Ok(Pieces::new());
    }
    let encoded = client.encode_response(&answer, echo);
    ctx.note_losses(encoded.losses);
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

/// What a stream has used so far. Some dialects tell a usage at the beginning, with the prompt and no more than the first
/// token of the answer: what does not come to its end counts at least as much as its length lets one guess.
pub(crate) fn note_usage(ctx: &mut RequestCtx, watch: &StreamWatch) {
    let mut usage = watch.usage;
    if !watch.complete || !usage.is_known() {
        let told = usage;
        // No prompt is empty: a zero stands for what would have been told at the end.
        if usage.input_total().unwrap_or(0) == 0 {
            usage = ctx.with_prompt(usage);
        }
        usage.output_total = Some(progress::tokens(watch));
        ctx.outcome.usage_estimated |= usage != told;
    }
    ctx.outcome.usage = usage;
}

pub(crate) fn judged(
    ctx: &RequestCtx,
    target: &Target,
    error: UpstreamError,
    status: StatusCode,
    headers: &HeaderMap,
) -> Fault {
    let now_ms = ctx.engine.clock.now_ms();
    Fault::Upstream(Box::new(target.provider.provider.classify(error, status, headers, now_ms)), Some(status))
}

/// The body of an answer that refuses the call, as far as it comes and is of use. Whoever refuses bills nothing.
pub(crate) async fn read_refusal(ctx: &mut RequestCtx, mut body: UpstreamBody) -> BytesMut {
    ctx.outcome.departure = Departure::watched();
    let idle = ctx.engine.options.stream_idle_timeout.min(Duration::from_secs(10));
    let mut bytes = BytesMut::new();
    while let Ok(Some(Ok(frame))) = timeout(idle, body.frame()).await {
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
pub(crate) async fn read_whole(ctx: &RequestCtx, mut body: UpstreamBody) -> Result<Bytes, Fault> {
    let limit = ctx.engine.options.max_answer_bytes;
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    loop {
        let idle = ctx.within(ctx.engine.options.stream_idle_timeout);
        let frame = match timeout(idle, body.frame()).await {
            Err(_) => return Err(silent(idle).into()),
            Ok(None) => break,
            Ok(Some(Err(error))) => {
                return Err(Failure::protocol(&format!("the answer broke off: {error}")).into());
            }
            Ok(Some(Ok(frame))) => frame,
        };
        ctx.note_heard();
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
    Failure::timeout(&format!("the upstream was silent for {}", seconds(limit)))
}

pub(crate) fn transport_failure(error: &TransportError) -> Failure {
    match error {
        TransportError::AddressBlocked(blocked) => Failure::address_blocked(blocked),
        TransportError::ConnectTimeout { .. }
        | TransportError::Connect { .. }
        | TransportError::Broken { .. } => Failure::connect(&error.to_string()),
    }
}
