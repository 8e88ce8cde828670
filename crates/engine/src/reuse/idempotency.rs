//! A request that is sent again: whoever repeats a key with the same body gets the answer of the first one.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, PoisonError};

use http::header::HeaderName;
use http::{HeaderValue, Response, StatusCode};
use omniroute_dialect::ir::ErrorKind;
use omniroute_domain::resolve::Route;
use sha2::{Digest as _, Sha256};

use super::recording::{Head, Recording, Shared};
use crate::answer::Answer;
use crate::answer_head::REQUEST_ID;
use crate::cancel::{self, Unless};
use crate::ctx::{AnswerSource, RequestCtx, is_request_id};
use crate::error::GatewayError;
use crate::record::CLIENT_CLOSED_REQUEST;
use crate::serve::Engine;

const KEY: HeaderName = HeaderName::from_static("idempotency-key");
const REPEATED: HeaderName = HeaderName::from_static("x-omniroute-idempotent");
/// Longest key.
const MAX_KEY: usize = 255;
/// Most answers that are known; a request beyond it is served as if it had no key.
const MAX_ANSWERS: usize = 10_000;

type Digest = [u8; 32];

/// The answers that may be repeated, by whose they are and what was asked.
#[derive(Default)]
pub(crate) struct Idempotency {
    answers: Mutex<HashMap<Digest, Arc<Recording>>>,
    bytes: Arc<AtomicUsize>,
}

impl Idempotency {
    /// How many answers are under way or can be repeated.
    pub(crate) fn active(&self, now_ms: i64, window_ms: i64) -> usize {
        self.answers().values().filter(|answer| answer.is_of_use(now_ms, window_ms)).count()
    }

    /// How many are under way: whoever asks the same again waits for them.
    pub(crate) fn in_flight(&self) -> usize {
        self.answers().values().filter(|answer| !answer.is_over()).count()
    }

    /// Forgets what nobody can have any more.
    pub(crate) fn sweep(&self, now_ms: i64, window_ms: i64) {
        self.answers().retain(|_, answer| answer.is_of_use(now_ms, window_ms));
    }

    /// Forgets all; answers under way go on. Says how many they were.
    pub(crate) fn clear(&self) -> usize {
        std::mem::take(&mut *self.answers()).len()
    }

    fn answers(&self) -> std::sync::MutexGuard<'_, HashMap<Digest, Arc<Recording>>> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The answer to the same request, or the place where the caller is to leave its own.
    fn claim(&self, digest: Digest, now_ms: i64, window_ms: i64) -> Claim {
        let mut answers = self.answers();
        if let Some(answer) = answers.get(&digest).filter(|answer| answer.is_of_use(now_ms, window_ms)) {
            return Claim::Theirs(answer.clone());
        }
        if answers.len() >= MAX_ANSWERS {
            answers.retain(|_, answer| answer.is_of_use(now_ms, window_ms));
            if answers.len() >= MAX_ANSWERS {
                return Claim::NoRoom;
            }
        }
        let recording = Recording::new(self.bytes.clone());
        answers.insert(digest, recording.clone());
        Claim::Mine(recording)
    }
}

enum Claim {
    Theirs(Arc<Recording>),
    Mine(Arc<Recording>),
    NoRoom,
}

/// What becomes of a request that may be a repetition.
#[allow(
    clippy::large_enum_variant,
    reason = "it is looked at once, where it is made; a box would be allocated"
)]
pub(crate) enum Joined {
    /// It has no key, or there is no room: it is served like any other.
    Alone(Box<RequestCtx>),
    /// It is the first of its kind.
    First(Box<RequestCtx>, Lead),
    /// It is answered.
    Answered(Response<Answer>),
}

/// Looks for the answer to the same request; waits for it while it is on its way.
pub(crate) async fn join(engine: &Arc<Engine>, mut ctx: Box<RequestCtx>, route: &Route) -> Joined {
    let digest = match digest(&ctx) {
        Ok(Some(digest)) => digest,
        Ok(None) => return Joined::Alone(ctx),
        Err(error) => return Joined::Answered(engine.refuse(ctx, &error)),
    };
    let window_ms = i64::from(ctx.snapshot.settings.idempotency_window_ms);
    loop {
        match engine.idempotency.claim(digest, engine.clock.now_ms(), window_ms) {
            Claim::NoRoom => return Joined::Alone(ctx),
            Claim::Mine(recording) => {
                let lead = Lead { engine: engine.clone(), recording: Some(recording) };
                return Joined::First(ctx, lead);
            }
            Claim::Theirs(recording) => {
                // Where the first one came to nothing, one of those who waited for it is the first now.
                let read = {
                    let read = pin!(recording.read());
                    Unless { pulse: ctx.pulse().map(|pulse| &**pulse), future: read }.await
                };
                match read {
                    Some(Some((head, reader))) => {
                        ctx.led_to(route);
                        return Joined::Answered(repeat(engine, ctx, head, reader));
                    }
                    Some(None) => {}
                    None => {
                        let error = cancel::end(&mut ctx);
                        return Joined::Answered(engine.refuse(ctx, &error));
                    }
                }
            }
        }
    }
}

fn repeat(
    engine: &Arc<Engine>,
    mut ctx: Box<RequestCtx>,
    head: Head,
    reader: super::recording::Reader,
) -> Response<Answer> {
    ctx.source = AnswerSource::Repeated;
    let request_id = HeaderValue::from_str(&ctx.request_id).ok();
    let own_name = ctx.dialect().request_id_header();
    if !head.status.is_success() {
        ctx.outcome.status = Some(head.status.as_u16());
    }
    let mut response =
        Response::new(Answer::Shared(Box::new(Shared::new(engine.clone(), reader, Some(ctx)))));
    *response.status_mut() = head.status;
    *response.headers_mut() = head.headers;
    if let Some(id) = request_id {
        if let Some(name) = own_name {
            response.headers_mut().insert(HeaderName::from_static(name), id.clone());
        }
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response.headers_mut().insert(REPEATED, HeaderValue::from_static("true"));
    response
}

/// The duty to leave an answer for those who ask the same.
pub(crate) struct Lead {
    engine: Arc<Engine>,
    recording: Option<Arc<Recording>>,
}

impl Lead {
    /// Leaves this answer, and gives it back for the client.
    pub(crate) fn leave(mut self, response: Response<Answer>) -> Response<Answer> {
        let Some(recording) = self.recording.take() else { return response };
        let (parts, body) = response.into_parts();
        let head = Head { status: parts.status, headers: parts.headers.clone() };
        let body = match body {
            Answer::Whole(whole) if may_be_tried_again(parts.status) => {
                recording.abandon();
                Answer::Whole(whole)
            }
            Answer::Whole(whole) => {
                let since = parts.status.is_success().then(|| self.engine.clock.now_ms());
                recording.complete(head, whole.pieces().iter().cloned(), since);
                Answer::Whole(whole)
            }
            Answer::Stream(relay) => {
                let reader = recording.begin(head, relay);
                Answer::Shared(Box::new(Shared::new(self.engine.clone(), reader, None)))
            }
            shared @ Answer::Shared(_) => {
                recording.abandon();
                shared
            }
        };
        Response::from_parts(parts, body)
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        if let Some(recording) = self.recording.take() {
            recording.abandon();
        }
    }
}

/// Whether the same request may go better the next time; then everybody tries for themselves. An operator cancelled one of them,
/// and none of the others.
fn may_be_tried_again(status: StatusCode) -> bool {
    status.is_server_error() || matches!(status.as_u16(), 408 | 409 | 425 | 429 | CLIENT_CLOSED_REQUEST)
}

/// What makes two requests the same: who asks, where, under which key, and every byte of the body. The same key with
/// another body is another request.
fn digest(ctx: &RequestCtx) -> Result<Option<Digest>, GatewayError> {
    if ctx.snapshot.settings.idempotency_window_ms == 0 {
        return Ok(None);
    }
    let Some(key) = key(ctx)? else { return Ok(None) };
    let mut hash = Sha256::new();
    for part in [ctx.tenant(), ctx.dialect().id().as_str(), &ctx.arrival.path, key] {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.update(ctx.arrival.query.as_deref().unwrap_or_default());
    hash.update([0]);
    hash.update(&ctx.body);
    Ok(Some(hash.finalize().into()))
}

fn key(ctx: &RequestCtx) -> Result<Option<&str>, GatewayError> {
    let headers = &ctx.arrival.headers;
    if let Some(value) = headers.get(KEY) {
        let text = value.to_str().ok().map(str::trim).filter(|text| text.len() <= MAX_KEY);
        let Some(text) = text else {
            let message = format!("`Idempotency-Key` must be at most {MAX_KEY} characters of plain ASCII");
            return Err(GatewayError::new(ErrorKind::InvalidRequest, "invalid_value", message)
                .param("Idempotency-Key"));
        };
        if !text.is_empty() {
            return Ok(Some(text));
        }
    }
    if ctx.task.as_ref().is_some_and(|job| !job.task.repeats_by_request_id()) {
        return Ok(None);
    }
    let sent = headers.get(REQUEST_ID).and_then(|value| value.to_str().ok());
    Ok(sent.filter(|id| is_request_id(id)))
}
