//! Every upstream of a scenario behind the transport port. Nothing is sent anywhere.

mod answer;
mod script;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use http::{HeaderMap, Response, StatusCode};
use http_body::{Body, Frame};
use http_body_util::BodyExt as _;
use omniroute_dialect::ir::Usage;
use omniroute_dialect::{Dialect, registry};
use omniroute_domain::price;
use omniroute_domain::snapshot::{ConnectionState, Snapshot};
use omniroute_engine::ports::{OutboundCall, Transport, TransportError, UpstreamBody};
use tokio::time::Sleep;

use crate::clock::VirtualClock;
use script::{Cut, Left, Outcome};
pub(crate) use script::{Habits, Script, Trouble};

/// Tells the upstreams apart; every account of a scenario sends its own number.
pub(crate) const MARK: &str = "x-chaos-account";

/// A token of the prompts of a scenario.
pub(crate) const WORD: &str = "abc ";

const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit-requests");
const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining-requests");
const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset-requests");
const RETRY_AFTER_MS: HeaderName = HeaderName::from_static("retry-after-ms");

/// All upstreams.
pub(crate) struct Upstreams {
    /// In the order of the report.
    accounts: Vec<Arc<Account>>,
    by_mark: HashMap<usize, Arc<Account>>,
    clock: Arc<VirtualClock>,
}

/// One upstream account.
pub(crate) struct Account {
    connection: Arc<ConnectionState>,
    state: Mutex<State>,
}

struct State {
    script: Script,
    seen: Seen,
}

/// What an upstream has seen.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    /// Calls under way.
    pub(crate) running: u32,
    /// Most at once.
    pub(crate) peak: u32,
    /// All calls.
    pub(crate) calls: u64,
    /// Answers that were given to their end.
    pub(crate) complete: u64,
    /// What those cost, in billionths of a US dollar.
    pub(crate) cost_nano: i64,
    /// What all answers that were begun would cost.
    pub(crate) begun_nano: i64,
    /// Calls that had the whole request, and were neither refused nor told what they used.
    pub(crate) untold: u64,
}

impl Account {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What it has seen.
    pub(crate) fn seen(&self) -> Seen {
        self.state().seen.clone()
    }

    /// Since when it would have answered any call; `None` when it would not now.
    pub(crate) fn well_since_ms(&self, now_ms: u64) -> Option<u64> {
        let mut state = self.state();
        let has_place = self.connection.max_concurrent.is_none_or(|most| state.seen.running < most);
        (has_place && state.script.would_answer(now_ms)).then(|| state.script.well_since_ms(now_ms))
    }
}

impl Upstreams {
    /// The upstreams of these accounts, each with the mark of its calls.
    pub(crate) fn new(
        accounts: Vec<(usize, Arc<ConnectionState>, Script)>,
        clock: Arc<VirtualClock>,
    ) -> Self {
        let mut all = Self { accounts: Vec::new(), by_mark: HashMap::new(), clock };
        for (mark, connection, script) in accounts {
            let state = Mutex::new(State { script, seen: Seen::default() });
            let account = Arc::new(Account { connection, state });
            all.by_mark.insert(mark, account.clone());
            all.accounts.push(account);
        }
        all
    }

    /// The upstream at a place of the report.
    pub(crate) fn account(&self, place: usize) -> &Arc<Account> {
        &self.accounts[place]
    }

    /// What becomes of a call.
    async fn answer(
        &self,
        mut call: OutboundCall,
        snapshot: &Snapshot,
    ) -> Result<Response<UpstreamBody>, TransportError> {
        let mark = call.headers.get(MARK).and_then(|mark| mark.to_str().ok()?.parse::<usize>().ok());
        let Some(account) = mark.and_then(|mark| self.by_mark.get(&mark)) else {
            return Err(TransportError::Connect {
                host: call.uri.host().unwrap_or_default().to_owned(),
                reason: "the scenario has no such account".to_owned(),
            });
        };
        let asked = Asked::of(&account.connection, &call);
        let departure = std::mem::take(&mut call.departure);
        drop(call);
        let mut place = Place::take(account);
        let outcome = account.state().script.call(self.clock.since_start_ms());
        if !matches!(outcome, Outcome::Unreachable { .. }) {
            departure.note();
            place.is_untold = true;
        }
        match outcome {
            Outcome::Unreachable { after_ms } => {
                pause(after_ms).await;
                Err(TransportError::Connect { host: asked.host, reason: "nobody listens".to_owned() })
            }
            Outcome::Hang { for_ms } => {
                pause(for_ms).await;
                Err(TransportError::Broken { host: asked.host, reason: "it never answered".to_owned() })
            }
            Outcome::Refusal { after_ms, status, code, retry_after_ms } => {
                pause(after_ms).await;
                place.is_untold = false;
                Ok(refusal(status, code, retry_after_ms))
            }
            Outcome::Answer { first_ms, rest_ms, cut, left } => {
                pause(first_ms).await;
                Ok(asked.answered(account, place, snapshot, rest_ms, cut, left))
            }
        }
    }
}

/// The transport of the engine; the snapshot, which knows prices, comes after it.
pub(crate) struct ScriptedTransport {
    pub(crate) upstreams: Arc<Upstreams>,
    pub(crate) snapshot: OnceLock<Arc<Snapshot>>,
}

impl Transport for ScriptedTransport {
    fn send(&self, call: OutboundCall) -> BoxFuture<'_, Result<Response<UpstreamBody>, TransportError>> {
        Box::pin(async move {
            let Some(snapshot) = self.snapshot.get() else {
                return Err(TransportError::Connect {
                    host: String::new(),
                    reason: "nothing may be sent before the run begins".to_owned(),
                });
            };
            self.upstreams.answer(call, snapshot).await
        })
    }
}

/// What was asked of an upstream.
struct Asked {
    host: String,
    model: String,
    dialect: &'static dyn Dialect,
    is_stream: bool,
    input_tokens: u64,
    max_tokens: Option<u64>,
}

impl Asked {
    fn of(connection: &ConnectionState, call: &OutboundCall) -> Self {
        let body: Vec<u8> = call.body.iter().flat_map(|piece| piece.iter().copied()).collect();
        let path = call.uri.path();
        let is_here = |uri: &http::Uri| uri.path() == path;
        let endpoint = connection.endpoints.iter().find(|endpoint| {
            endpoint.chat.as_ref().is_some_and(is_here) || endpoint.chat_stream.as_ref().is_some_and(is_here)
        });
        // The one whose address depends on the model, if it is none of the others.
        let templated = || connection.endpoints.iter().find(|endpoint| endpoint.template.is_some());
        let endpoint = endpoint.or_else(templated).or(connection.endpoints.first());
        let dialect = endpoint.map_or(registry::DIALECTS[0], |endpoint| registry::by_id(endpoint.dialect));
        let number = |name: &str| {
            let at = memchr::memmem::find(&body, name.as_bytes())? + name.len();
            let digits = body[at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
            std::str::from_utf8(&body[at..at + digits]).ok()?.parse().ok()
        };
        Self {
            host: call.uri.host().unwrap_or_default().to_owned(),
            model: model_in_body(&body).or_else(|| model_in_path(path)).unwrap_or_default(),
            dialect,
            is_stream: path.contains(":stream") || memchr::memmem::find(&body, br#""stream":true"#).is_some(),
            // As many as a client of a scenario wrote; of others four bytes are one.
            input_tokens: match memchr::memmem::find_iter(&body, WORD).count() as u64 {
                0 => (body.len() as u64 / 4).max(1),
                words => words,
            },
            max_tokens: number(r#""max_tokens":"#).or_else(|| number(r#""max_completion_tokens":"#)),
        }
    }

    fn answered(
        &self,
        account: &Arc<Account>,
        mut place: Place,
        snapshot: &Snapshot,
        rest_ms: u64,
        cut: Option<Cut>,
        left: Option<Left>,
    ) -> Response<UpstreamBody> {
        let output_tokens = account.state().script.output_tokens();
        let usage = Usage {
            input_uncached: Some(self.input_tokens),
            output_total: Some(self.max_tokens.map_or(output_tokens, |most| output_tokens.min(most))),
            ..Usage::default()
        };
        let quote = snapshot.quote(&account.connection.provider, &self.model);
        let cost_nano = quote.and_then(|quote| price::cost_nano(&quote.price, &usage)).unwrap_or(0);
        let broken = || Err(io::Error::other("the scenario cuts it off"));
        let mut pieces = VecDeque::with_capacity(2);
        match (cut, self.is_stream) {
            (Some(Cut::BeforeFirst), _) => pieces.push_back((0, broken())),
            (Some(Cut::Empty), false) => pieces.push_back((0, Ok(answer::empty(self.dialect, &self.model)))),
            // A stream without any event has no content.
            (Some(Cut::Empty), true) => {}
            (None | Some(Cut::AfterFirst), false) => {
                place.worth(cost_nano);
                pieces.push_back((0, Ok(answer::whole(self.dialect, &self.model, usage))));
            }
            (None | Some(Cut::AfterFirst), true) => {
                place.worth(cost_nano);
                match answer::stream(self.dialect, &self.model, usage) {
                    Ok((first, rest)) => {
                        pieces.push_back((0, Ok(first)));
                        pieces.push_back((rest_ms, if cut.is_some() { broken() } else { Ok(rest) }));
                    }
                    Err(error) => pieces.push_back((0, Err(io::Error::other(error.to_string())))),
                }
            }
        }
        let body = Playing { pieces, pause: None, place };
        let mut response = Response::new(UpstreamBody::Local(body.boxed_unsync()));
        let content_type = match self.is_stream {
            true => self.dialect.framing().media_type(),
            false => "application/json",
        };
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        if let Some(left) = left {
            tell(left, response.headers_mut());
        }
        response
    }
}

/// What is left of a limit, as OpenAI's headers say it.
fn tell(left: Left, headers: &mut HeaderMap) {
    headers.insert(LIMIT, HeaderValue::from(left.limit));
    headers.insert(REMAINING, HeaderValue::from(left.remaining));
    if let Ok(reset) = HeaderValue::from_str(&format!("{}ms", left.reset_ms)) {
        headers.insert(RESET, reset);
    }
}

fn model_in_body(body: &[u8]) -> Option<String> {
    const NAME: &[u8] = br#""model":""#;
    let at = memchr::memmem::find(body, NAME)? + NAME.len();
    let length = memchr::memchr(b'"', &body[at..])?;
    std::str::from_utf8(&body[at..at + length]).ok().map(str::to_owned)
}

/// `…/models/name:generateContent`.
fn model_in_path(path: &str) -> Option<String> {
    let (_, rest) = path.rsplit_once("/models/").or_else(|| path.rsplit_once("/model/"))?;
    Some(rest.split([':', '/']).next().unwrap_or(rest).to_owned())
}

fn refusal(status: u16, code: &'static str, retry_after_ms: Option<u64>) -> Response<UpstreamBody> {
    let kind = match code {
        "rate_limit_exceeded" => "rate_limit_error",
        "insufficient_quota" => "insufficient_quota",
        "invalid_api_key" => "authentication_error",
        _ => "server_error",
    };
    let body = answer::error(status, kind, code, "the scenario refuses this call");
    let body = http_body_util::Full::new(body).map_err(|never| match never {});
    let mut response = Response::new(UpstreamBody::Local(body.boxed_unsync()));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some(wait) = retry_after_ms {
        headers.insert(RETRY_AFTER, HeaderValue::from(wait.div_ceil(1_000)));
        headers.insert(RETRY_AFTER_MS, HeaderValue::from(wait));
    }
    response
}

async fn pause(ms: u64) {
    tokio::time::sleep(Duration::from_millis(ms)).await;
}

/// A call under way; gives its place back when dropped.
struct Place {
    account: Arc<Account>,
    cost_nano: i64,
    /// Whether the answer says what it used.
    tells_usage: bool,
    /// Whether the upstream has the request, and nobody knows yet what it will use.
    is_untold: bool,
}

impl Place {
    fn take(account: &Arc<Account>) -> Self {
        let mut state = account.state();
        state.seen.calls += 1;
        state.seen.running += 1;
        state.seen.peak = state.seen.peak.max(state.seen.running);
        drop(state);
        Self { account: account.clone(), cost_nano: 0, tells_usage: false, is_untold: false }
    }

    /// The answer costs this much, if it comes to its end.
    fn worth(&mut self, cost_nano: i64) {
        self.cost_nano = cost_nano;
        self.tells_usage = true;
        self.account.state().seen.begun_nano += cost_nano;
    }

    fn complete(&mut self) {
        let cost_nano = std::mem::take(&mut self.cost_nano);
        self.is_untold &= !self.tells_usage;
        let mut state = self.account.state();
        state.seen.complete += 1;
        state.seen.cost_nano += cost_nano;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.account.state();
        state.seen.running -= 1;
        state.seen.untold += u64::from(self.is_untold);
    }
}

/// An answer's body: pieces, each after a pause.
struct Playing {
    pieces: VecDeque<(u64, Result<Bytes, io::Error>)>,
    pause: Option<Pin<Box<Sleep>>>,
    place: Place,
}

impl Body for Playing {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let this = &mut *self;
        if let Some((ms, _)) = this.pieces.front().filter(|(ms, _)| *ms > 0) {
            let pause = Duration::from_millis(*ms);
            let waiting = this.pause.get_or_insert_with(|| Box::pin(tokio::time::sleep(pause)));
            if waiting.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            this.pause = None;
        }
        let Some((_, piece)) = this.pieces.pop_front() else { return Poll::Ready(None) };
        if this.pieces.is_empty() && piece.is_ok() {
            this.place.complete();
        }
        Poll::Ready(Some(piece.map(Frame::data)))
    }
}
