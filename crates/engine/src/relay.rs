//! Bytes of the upstream to the client until the end, in the task of the client's connection. When that goes away
//! this is dropped, and with it the upstream call.

use std::future::Future as _;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::StatusCode;
use http_body::Body as _;
use omniroute_dialect::ir::{ErrorKind, PublicError, UpstreamError, Usage};
use omniroute_domain::price::Units;
use omniroute_provider::Failure;
use tokio::time::Sleep;

use crate::attempt::{self, Attempted, Fault, StreamStart};
use crate::cancel::{self, Unless};
use crate::ctx::RequestCtx;
use crate::error::GatewayError;
use crate::progress::{self, Reports};
use crate::reuse::{self, Keeping};

/// What a pending attempt will come to.
pub(crate) type Pending = BoxFuture<'static, (Box<RequestCtx>, Result<Attempted, GatewayError>)>;

/// A stream on its way to the client.
pub struct Relay {
    state: State,
    /// Sent while nothing else is; empty = nothing.
    keep_alive: Bytes,
    keep_alive_after: Duration,
    idle_limit: Duration,
    /// Fires at the earlier of the two limits, counted from `active`.
    timer: Pin<Box<Sleep>>,
    /// When the upstream last said something.
    active: Instant,
    /// When the client last got something.
    spoke: Instant,
    /// For a client that wants to know how far its answer has come.
    reports: Option<Reports>,
    /// What it gets before anything else.
    next: Option<Bytes>,
    /// Whether the answer came to its proper end.
    has_succeeded: bool,
    /// The answer has said why it ended; its proper end is not waited for as long as more of it would be.
    is_ending: bool,
}

impl std::fmt::Debug for Relay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Relay").field("is_done", &self.is_done()).finish_non_exhaustive()
    }
}

enum State {
    /// The head is sent, but no upstream has begun yet.
    Waiting(Pending),
    /// Bytes flow.
    Running(Box<Running>),
    /// The answer is there in full.
    Told(Box<Told>),
    /// The upstream paused and is asked to go on.
    Resuming(BoxFuture<'static, Result<Box<Running>, Bytes>>),
    /// Nothing more will come.
    Done,
}

struct Running {
    ctx: Box<RequestCtx>,
    start: StreamStart,
    /// The client has everything; what is left is to read the upstream's end, so that its connection can be reused.
    is_complete: bool,
    /// The upstream has said why its answer ended, and then nothing for long enough.
    is_overdue: bool,
    /// Puts the answer together for whoever asks for the same.
    keeping: Option<Box<Keeping>>,
}

impl Running {
    fn new(mut ctx: Box<RequestCtx>, start: StreamStart) -> Self {
        let keeping = Keeping::of(&mut ctx);
        Self { ctx, start, is_complete: false, is_overdue: false, keeping }
    }
}

/// An answer that came whole, written as the stream that it would have been.
struct Told {
    ctx: Box<RequestCtx>,
    pieces: smallvec::IntoIter<[Bytes; 8]>,
}

/// Bytes after which the client is written to although more may follow at once.
const BATCH: usize = 16 * 1024;

/// How long an upstream may be silent between saying why its answer ended and its proper end.
const END_LIMIT: Duration = Duration::from_secs(2);

/// How long an upstream may take to close after the proper end.
const DRAIN_LIMIT: Duration = Duration::from_millis(250);

impl Relay {
    /// An answer that the client will get.
    pub(crate) fn begun(ctx: Box<RequestCtx>, attempted: Attempted) -> Self {
        let relay = Self::new(&ctx);
        Self { state: State::of(ctx, attempted), ..relay }
    }

    /// A stream whose head is sent early, so that keep-alives can flow.
    pub(crate) fn waiting(settings: Self, pending: Pending) -> Self {
        Self {
            state: State::Waiting(pending),
            keep_alive: settings.keep_alive,
            keep_alive_after: settings.keep_alive_after,
            idle_limit: settings.idle_limit,
            timer: Box::pin(tokio::time::sleep(Duration::ZERO)),
            active: settings.active,
            spoke: settings.spoke,
            reports: settings.reports,
            next: None,
            has_succeeded: false,
            is_ending: false,
        }
    }

    /// The limits of a request, without a stream yet.
    pub(crate) fn new(ctx: &RequestCtx) -> Self {
        let options = &ctx.engine.options;
        let now = ctx.engine.clock.instant();
        Self {
            state: State::Done,
            keep_alive: ctx.keep_alive(),
            keep_alive_after: options.keep_alive_interval,
            idle_limit: options.stream_idle_timeout,
            timer: Box::pin(tokio::time::sleep(options.keep_alive_interval.min(options.stream_idle_timeout))),
            active: now,
            spoke: now,
            reports: Reports::wanted(ctx),
            next: None,
            has_succeeded: false,
            is_ending: false,
        }
    }

    /// Whether the client is told how far its answer has come.
    pub(crate) const fn tells_progress(&self) -> bool {
        self.reports.is_some()
    }

    /// Whether the answer came to its proper end.
    pub(crate) const fn has_succeeded(&self) -> bool {
        self.has_succeeded
    }

    pub(crate) fn is_done(&self) -> bool {
        matches!(self.state, State::Done) && self.next.is_none()
    }

    /// The next bytes for the client.
    pub(crate) fn poll_bytes(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if let Some(bytes) = self.next.take() {
            return Poll::Ready(Some(bytes));
        }
        loop {
            match &mut self.state {
                State::Done => return Poll::Ready(None),
                State::Waiting(pending) => match pending.as_mut().poll(cx) {
                    Poll::Pending => return self.poll_keep_alive(cx),
                    Poll::Ready((ctx, Ok(attempted))) => {
                        self.state = State::of(ctx, attempted);
                        let first = self.keep_alive_after.min(self.idle_limit);
                        self.timer.as_mut().reset(tokio::time::Instant::now() + first);
                    }
                    Poll::Ready((mut ctx, Err(error))) => {
                        self.state = State::Done;
                        return Poll::Ready(Some(fail(&mut ctx, &error)));
                    }
                },
                State::Told(told) => {
                    let piece = told.pieces.next();
                    if told.pieces.len() == 0 {
                        told.ctx.outcome.status = Some(200);
                        self.has_succeeded = true;
                    }
                    if piece.is_none() {
                        self.state = State::Done;
                    }
                    return Poll::Ready(piece);
                }
                State::Resuming(pending) => match pending.as_mut().poll(cx) {
                    Poll::Pending => return self.poll_keep_alive(cx),
                    Poll::Ready(Ok(running)) => {
                        self.active = running.ctx.engine.clock.instant();
                        self.state = State::Running(running);
                    }
                    Poll::Ready(Err(last_words)) => {
                        self.state = State::Done;
                        return Poll::Ready(Some(last_words));
                    }
                },
                State::Running(running) if !running.is_complete && running.ctx.is_cancelled() => {
                    let last_words = running.cancel();
                    self.state = State::Done;
                    return Poll::Ready(Some(last_words));
                }
                State::Running(running) if running.start.out.is_empty() && running.start.paused.is_some() => {
                    if let State::Running(running) = std::mem::replace(&mut self.state, State::Done) {
                        self.state = State::Resuming(Box::pin(running.go_on()));
                    }
                }
                State::Running(running) => match running.poll(cx) {
                    Poll::Ready(Step::Bytes(bytes)) => {
                        let now = running.ctx.engine.clock.instant();
                        (self.active, self.spoke) = (now, now);
                        let mut bytes = bytes;
                        self.has_succeeded |= running.is_complete;
                        if let Some(reports) = &mut self.reports {
                            let watch = running.start.pipe.watch();
                            if reports.begin(now) {
                                let first =
                                    progress::INTERVAL.min(self.keep_alive_after).min(self.idle_limit);
                                self.timer.as_mut().reset(tokio::time::Instant::now() + first);
                            }
                            if running.is_complete {
                                bytes = reports.complete(bytes, watch, now);
                            } else if reports.due_in(now) == Some(Duration::ZERO) {
                                self.next = Some(reports.report(watch, now));
                            }
                        }
                        if running.is_complete {
                            self.timer.as_mut().reset(tokio::time::Instant::now() + DRAIN_LIMIT);
                        }
                        return Poll::Ready(Some(bytes));
                    }
                    Poll::Ready(Step::Quiet) => self.active = running.ctx.engine.clock.instant(),
                    Poll::Ready(Step::Last(bytes)) => {
                        let mut bytes = bytes;
                        let watch = running.start.pipe.watch();
                        self.has_succeeded |= watch.complete && watch.error.is_none();
                        if let Some(reports) = self.reports.as_mut().filter(|_| self.has_succeeded) {
                            let now = running.ctx.engine.clock.instant();
                            bytes = reports.complete(bytes, running.start.pipe.watch(), now);
                        }
                        self.state = State::Done;
                        return Poll::Ready((!bytes.is_empty()).then_some(bytes));
                    }
                    Poll::Pending => {
                        if !running.is_complete && running.ctx.is_cancelled_or_wake(cx) {
                            continue;
                        }
                        if running.start.pipe.is_ending() && !std::mem::replace(&mut self.is_ending, true) {
                            let soon = END_LIMIT.min(self.keep_alive_after).min(self.idle_limit);
                            self.timer.as_mut().reset(tokio::time::Instant::now() + soon);
                        }
                        return self.poll_keep_alive(cx);
                    }
                },
            }
        }
    }

    /// Nothing came: say that we are still here, or give up.
    fn poll_keep_alive(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        loop {
            if self.timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            let State::Running(running) = &mut self.state else {
                // While no upstream has begun the attempts' own limits apply.
                let next = tokio::time::Instant::now() + self.keep_alive_after;
                self.timer.as_mut().reset(next);
                if self.keep_alive.is_empty() {
                    continue;
                }
                return Poll::Ready(Some(self.keep_alive.clone()));
            };
            let now = running.ctx.engine.clock.instant();
            if running.is_complete {
                self.state = State::Done;
                return Poll::Ready(None);
            }
            if now.saturating_duration_since(self.active) >= self.idle_limit {
                let bytes = running.time_out(self.idle_limit);
                self.state = State::Done;
                return Poll::Ready(Some(bytes));
            }
            let until_end = match running.start.pipe.is_ending() {
                true => END_LIMIT.saturating_sub(now.saturating_duration_since(self.active)),
                false => self.idle_limit,
            };
            if until_end.is_zero() {
                running.is_overdue = true;
                return self.poll_bytes(cx);
            }
            let spoke = now.saturating_duration_since(self.spoke);
            let due = spoke >= self.keep_alive_after && !self.keep_alive.is_empty();
            if due {
                self.spoke = now;
            }
            let until_spoke = if self.keep_alive.is_empty() {
                self.idle_limit
            } else {
                self.keep_alive_after.saturating_sub(now.saturating_duration_since(self.spoke))
            };
            let until_idle = self.idle_limit.saturating_sub(now.saturating_duration_since(self.active));
            let mut report = None;
            let mut wait = until_spoke.min(until_idle).min(until_end);
            if let Some(reports) = &mut self.reports {
                if reports.due_in(now) == Some(Duration::ZERO) {
                    report = Some(reports.report(running.start.pipe.watch(), now));
                }
                wait = reports.due_in(now).map_or(wait, |next| wait.min(next));
            }
            self.timer.as_mut().reset(tokio::time::Instant::now() + wait.max(Duration::from_millis(1)));
            if report.is_some() {
                return Poll::Ready(report);
            }
            if due {
                return Poll::Ready(Some(self.keep_alive.clone()));
            }
        }
    }
}

impl State {
    fn of(ctx: Box<RequestCtx>, attempted: Attempted) -> Self {
        match attempted {
            Attempted::Stream(start) => Self::Running(Box::new(Running::new(ctx, *start))),
            Attempted::Whole(pieces) => {
                let mut ctx = ctx;
                ctx.copy_whole(&pieces);
                reuse::keep_told(&mut ctx, &pieces);
                Self::Told(Box::new(Told { ctx, pieces: pieces.into_iter() }))
            }
        }
    }
}

enum Step {
    /// For the client.
    Bytes(Bytes),
    /// The upstream said something that the client does not get.
    Quiet,
    /// The end; perhaps with last words.
    Last(Bytes),
}

impl Running {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Step> {
        if self.is_complete {
            return self.drain(cx);
        }
        if std::mem::take(&mut self.is_overdue) {
            self.start.is_ended = true;
            if let Err(error) = self.start.pipe.finish(&mut self.start.out) {
                return Poll::Ready(Step::Last(self.fail_protocol(&error.to_string())));
            }
            self.start.paused = self.start.pipe.take_paused();
            self.start.is_ended &= self.start.paused.is_none();
        }
        while self.wants_more() {
            let frame = match Pin::new(&mut self.start.body).poll_frame(cx) {
                Poll::Ready(frame) => frame,
                Poll::Pending if self.start.out.is_empty() => return Poll::Pending,
                // Everything that came in one burst is in `out` now and costs the client one write.
                Poll::Pending => break,
            };
            self.start.pipe.time_passed(self.ctx.since_arrival());
            let fed = match frame {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(bytes) => self.start.pipe.push(&bytes, &mut self.start.out),
                    Err(_) => Ok(()),
                },
                Some(Err(error)) => {
                    let message = format!("the upstream's connection broke: {error}");
                    return Poll::Ready(Step::Last(self.fail_protocol(&message)));
                }
                None => {
                    self.start.is_ended = true;
                    self.start.pipe.finish(&mut self.start.out)
                }
            };
            if let Err(error) = fed {
                return Poll::Ready(Step::Last(self.fail_protocol(&error.to_string())));
            }
            self.start.paused = self.start.pipe.take_paused();
            self.start.is_ended &= self.start.paused.is_none();
            if self.start.out.is_empty() && !self.start.is_ended && !self.start.pipe.watch().is_over() {
                return Poll::Ready(Step::Quiet);
            }
        }
        if let Some(error) = self.start.pipe.watch().error.clone() {
            return Poll::Ready(Step::Last(self.fail_upstream(error)));
        }
        if let Some(pulse) = self.ctx.pulse() {
            pulse.note_tokens(progress::tokens(self.start.pipe.watch()));
        }
        let bytes = self.start.out.split().freeze();
        self.ctx.copy_part(&bytes);
        self.keeping = self.keeping.take().and_then(|keeping| keeping.push(&bytes));
        if self.start.is_ended {
            self.complete();
            return Poll::Ready(Step::Last(bytes));
        }
        if self.start.pipe.watch().complete {
            self.complete();
            self.is_complete = true;
        }
        Poll::Ready(if bytes.is_empty() { Step::Quiet } else { Step::Bytes(bytes) })
    }

    /// Lets the upstream go on with an answer that it paused. Where it does not, these are the last words for the client.
    async fn go_on(mut self: Box<Self>) -> Result<Box<Self>, Bytes> {
        let content = self.start.paused.take().unwrap_or_default();
        let StreamStart { target, connection, sent, .. } = &self.start;
        let (target, connection, sent) = (target.clone(), connection.clone(), *sent);
        let pulse = self.ctx.pulse().cloned();
        self.ctx.outcome.usage = self.start.pipe.watch().usage;
        let resumed = {
            let call = pin!(attempt::go_on(&mut self.ctx, &target, &connection, content, sent));
            Unless { pulse: pulse.as_deref(), future: call }.await
        };
        let Some(resumed) = resumed else { return Err(self.cancel()) };
        match resumed {
            Ok(resumed) => {
                (self.start.body, self.start.sent) = (resumed.body, resumed.sent);
                self.start.pipe.resume();
                Ok(self)
            }
            Err(Fault::Upstream(mut failure, _)) => {
                connection.conceal(&mut failure.upstream);
                Err(self.fail(&failure))
            }
            Err(Fault::Request(error)) => {
                self.take_results();
                // The part before has its row, and all that was used is there.
                self.ctx.outcome.usage = Usage::default();
                let public = note(&mut self.ctx, &error);
                self.start.pipe.fail(&public, &mut self.start.out);
                Err(self.last_words())
            }
        }
    }

    /// Whether there may be more worth sending in one piece with what is there.
    fn wants_more(&self) -> bool {
        let watch = self.start.pipe.watch();
        !self.start.is_ended
            && self.start.paused.is_none()
            && watch.error.is_none()
            && !watch.complete
            && self.start.out.len() < BATCH
    }

    fn drain(&mut self, cx: &mut Context<'_>) -> Poll<Step> {
        loop {
            match Pin::new(&mut self.start.body).poll_frame(cx) {
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(_) => return Poll::Ready(Step::Last(Bytes::new())),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// The proper end.
    fn complete(&mut self) {
        self.take_results();
        if let Some(notes) = self.start.pipe.notes() {
            crate::reasoning::keep(&self.ctx, notes);
        }
        let StreamStart { connection, target, sent, .. } = &self.start;
        attempt::note_success(&mut self.ctx, target, connection, Some(StatusCode::OK), *sent);
        self.ctx.step_answered();
        self.ctx.combo_answered();
        self.ctx.outcome.status = Some(200);
        if let Some(keeping) = self.keeping.take() {
            keeping.finish(&mut self.ctx);
        }
    }

    /// What was used and lost so far, and what of the answer will be asked for later.
    fn take_results(&mut self) {
        let losses = self.start.pipe.take_losses();
        self.ctx.note_losses(losses);
        let watch = self.start.pipe.watch();
        if self.ctx.about.is_some() {
            let usage = watch.usage;
            if usage.is_known() {
                crate::kept::finished(&mut self.ctx, &usage);
            }
            return;
        }
        if let Some(images) = self.start.pipe.pictures() {
            self.ctx.outcome.usage = watch.usage;
            self.ctx.outcome.units = Some(Box::new(Units { images, ..Units::REQUEST }));
        } else {
            attempt::note_usage(&mut self.ctx, watch);
        }
        let ids = self.start.pipe.kept_ids();
        crate::kept::remember(&mut self.ctx, &self.start.connection.id, ids);
    }

    fn fail_upstream(&mut self, error: UpstreamError) -> Bytes {
        let status = error.status.and_then(|status| StatusCode::from_u16(status).ok());
        let now_ms = self.ctx.engine.clock.now_ms();
        let provider = &self.start.target.provider.provider;
        let status = status.unwrap_or(StatusCode::BAD_GATEWAY);
        let mut failure = provider.classify(error, status, &http::HeaderMap::new(), now_ms);
        self.start.connection.conceal(&mut failure.upstream);
        self.fail(&failure)
    }

    fn fail_protocol(&mut self, message: &str) -> Bytes {
        self.fail(&Failure::protocol(message))
    }

    fn time_out(&mut self, limit: Duration) -> Bytes {
        self.fail(&attempt::silent(limit))
    }

    /// An operator ends it. What was used is told as of a client that hangs up.
    fn cancel(&mut self) -> Bytes {
        self.take_results();
        let StreamStart { connection, target, sent, .. } = &self.start;
        attempt::note_abort(&mut self.ctx, target, connection, *sent);
        let error = cancel::end(&mut self.ctx);
        let public = note(&mut self.ctx, &error);
        self.start.pipe.fail(&public, &mut self.start.out);
        self.last_words()
    }

    /// What the client has got so far stays; then the dialect's error, and no fabricated end.
    fn fail(&mut self, failure: &Failure) -> Bytes {
        self.take_results();
        let StreamStart { connection, target, sent, .. } = &self.start;
        crate::circuit::broke_off(&self.ctx, connection, &target.model, failure);
        attempt::note_failure(&mut self.ctx, target, connection, failure, None, *sent);
        self.ctx.step_failed();
        self.ctx.combo_failed();
        let mut error = crate::explain::failure(&self.ctx, target, failure);
        if failure.kind == omniroute_provider::FailureKind::Protocol {
            error.code = Some("upstream_stream_truncated".into());
            error.kind = ErrorKind::BadGateway;
        }
        let public = note(&mut self.ctx, &error);
        self.start.pipe.fail(&public, &mut self.start.out);
        self.last_words()
    }

    fn last_words(&mut self) -> Bytes {
        let bytes = self.start.out.split().freeze();
        self.ctx.copy_part(&bytes);
        bytes
    }
}

/// Writes the failure down and renders it for a client whose stream has begun, but for keep-alives with nothing.
pub(crate) fn fail(ctx: &mut RequestCtx, error: &GatewayError) -> Bytes {
    let public = note(ctx, error);
    let bytes = ctx.dialect().encode_stream_error(&public, ctx.framing());
    ctx.copy_part(&bytes);
    bytes
}

/// Writes the failure down; gives it in the words for the client.
fn note(ctx: &mut RequestCtx, error: &GatewayError) -> PublicError {
    ctx.note_error(error);
    error.public(&ctx.request_id, ctx.engine.clock.now_ms())
}

impl Drop for Running {
    fn drop(&mut self) {
        // The client went away: what was used so far is still told.
        if self.ctx.outcome.status.is_none() {
            self.take_results();
            let StreamStart { connection, target, sent, .. } = &self.start;
            attempt::note_abort(&mut self.ctx, target, connection, *sent);
        }
    }
}
