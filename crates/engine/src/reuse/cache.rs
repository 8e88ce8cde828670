//! The exact cache: a request that asks for the same answer again, by every member that may change it, gets it without an
//! upstream.
//!
//! Only requests with a temperature of zero say that they want the same answer; others are not even looked at. Memory is
//! asked first, then the shelf (the database), which is the only thing of a request that waits for it, and not for long.
//! While one request brings an answer, others that ask for the same wait for it.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::pin::pin;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::header::HeaderName;
use http::{HeaderMap, Response};
use omniroute_dialect::ir::ChatRequest;
use omniroute_dialect::{Question, fingerprint, question};
use omniroute_domain::resolve::{self, Route};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::replay;
use super::similar::{self, Asked, Close, Likeness, SimilarTier, SimilarityReport};
use super::tier::MemoryTier;
use super::wish::{Wish, wish};
use crate::admit;
use crate::answer::Answer;
use crate::cancel::Unless;
use crate::ctx::RequestCtx;
use crate::policy;
use crate::ports::{AnswerRow, BillRow, KeptAnswer, Memory, Recorder, Unreadable};
use crate::serve::Engine;
use crate::time::millis;
use crate::transform;

/// Says whether an answer came from the cache.
pub(crate) const HEADER: HeaderName = HeaderName::from_static("x-omniroute-cache");
/// How long the shelf may take to say what it has.
pub(super) const SHELF_PATIENCE: Duration = Duration::from_millis(250);
/// A shelf that cannot be read is told of no more often: it may be so with every request.
const WARN_MS: i64 = 60_000;
/// How long a request waits for others that bring what it asks for.
const FLIGHT_PATIENCE: Duration = Duration::from_secs(60);
/// The same for streams, whose clients hear nothing meanwhile.
const STREAM_PATIENCE: Duration = Duration::from_secs(10);
/// Most answers that are waited for; beyond it everybody asks for themselves.
const MAX_FLIGHTS: usize = 10_000;
/// In signatures, those without a key.
const NOBODY: &str = "_";

/// Answers that are kept, and what became of the requests for them.
#[derive(Default)]
pub(crate) struct AnswerCache {
    pub(super) memory: MemoryTier,
    pub(super) similar: SimilarTier,
    flights: Mutex<HashMap<String, watch::Receiver<Landing>>>,
    hits: AtomicU64,
    misses: AtomicU64,
    tokens_saved: AtomicU64,
    nano_saved: AtomicU64,
    shelf_failures: AtomicU64,
    shelf_late: AtomicU64,
    warned: AtomicI64,
}

/// What the cache did since the process started, or since it was cleared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CacheCounts {
    /// Answers in memory.
    pub in_memory: u64,
    /// Requests that were answered.
    pub hits: u64,
    /// Requests that could have been.
    pub misses: u64,
    /// Tokens that did not have to be made or read.
    pub tokens_saved: u64,
    /// What they would have cost, in billionths of a US dollar, where that is known.
    pub nano_saved: u64,
    /// Times that the shelf (the database) could not say what it has.
    pub shelf_failures: u64,
    /// Times that it did not say so in time.
    pub shelf_late: u64,
}

impl AnswerCache {
    /// What it did so far.
    pub(crate) fn counts(&self) -> CacheCounts {
        CacheCounts {
            in_memory: self.memory.len() as u64,
            hits: self.hits.load(Ordering::Relaxed),
            misses: self.misses.load(Ordering::Relaxed),
            tokens_saved: self.tokens_saved.load(Ordering::Relaxed),
            nano_saved: self.nano_saved.load(Ordering::Relaxed),
            shelf_failures: self.shelf_failures.load(Ordering::Relaxed),
            shelf_late: self.shelf_late.load(Ordering::Relaxed),
        }
    }

    /// Forgets answers of a model (as it was asked for), under a signature, or all, and what was counted when it is all.
    /// How many they were.
    pub(crate) fn clear(&self, model: Option<&str>, signature: Option<&str>) -> usize {
        let gone = self.memory.clear(|key, answer| {
            signature.is_none_or(|wanted| wanted == key) && model.is_none_or(|wanted| wanted == answer.asked)
        });
        self.similar.clear(model, signature);
        if model.is_none() && signature.is_none() {
            let counters = [
                &self.hits,
                &self.misses,
                &self.tokens_saved,
                &self.nano_saved,
                &self.shelf_failures,
                &self.shelf_late,
            ];
            for counter in counters {
                counter.store(0, Ordering::Relaxed);
            }
        }
        gone
    }

    /// Forgets what has expired, and tells how often the rest was used.
    pub(crate) fn sweep(&self, recorder: &dyn Recorder, now_ms: i64) {
        self.similar.sweep(now_ms);
        for (signature, times) in self.memory.sweep(now_ms) {
            recorder.remember(Memory::AnswerUsed { signature, times });
        }
    }

    /// What the tier of similar questions did.
    pub(crate) fn similarity(&self) -> SimilarityReport {
        self.similar.report()
    }

    fn count_hit(&self, answer: &KeptAnswer) {
        self.hits.fetch_add(1, Ordering::Relaxed);
        self.tokens_saved.fetch_add(answer.tokens, Ordering::Relaxed);
        let saved = answer.cost_nano.and_then(|nano| u64::try_from(nano).ok()).unwrap_or(0);
        self.nano_saved.fetch_add(saved, Ordering::Relaxed);
    }

    /// The shelf has failed: it is counted, and told now and then.
    fn note_unreadable(&self, error: &Unreadable, now_ms: i64) {
        let count = self.shelf_failures.fetch_add(1, Ordering::Relaxed) + 1;
        let last = self.warned.load(Ordering::Relaxed);
        let is_due = now_ms.saturating_sub(last) >= WARN_MS;
        if is_due && self.warned.compare_exchange(last, now_ms, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        {
            tracing::warn!(%error, count, "kept answers cannot be read; upstreams are asked");
        }
    }

    fn flights(&self) -> MutexGuard<'_, HashMap<String, watch::Receiver<Landing>>> {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the cache has to do with a request.
pub(crate) enum Reuse {
    /// It takes the answer when it comes.
    Keep(Ticket),
    /// It gave the answer; what that would have cost.
    Given(BillRow),
}

/// What the cache says to a request.
#[allow(
    clippy::large_enum_variant,
    reason = "it is looked at once, where it is made; a box would be allocated"
)]
pub(crate) enum Found {
    /// It has the answer, or the request is refused.
    Answered(Response<Answer>),
    /// Somebody has to be asked.
    Ask(Box<RequestCtx>),
}

/// Where an answer is to be kept.
pub(crate) struct Ticket {
    signature: String,
    ttl: Duration,
    most: u32,
    /// Whether it may be written down beyond the process.
    outlives: bool,
    /// Held while others may wait for the answer.
    flight: Option<Flight>,
    /// The question that it answers, where others that are close to it may get it too.
    asked: Option<Box<Asked>>,
    /// The question whose answer somebody who asked the same got.
    close: Option<Close>,
}

/// How a flight ended.
#[derive(Debug, Clone)]
enum Landing {
    /// It has not.
    Awaited,
    /// With an answer that is kept.
    Kept,
    /// With the kept answer to a question that is close.
    Close(Close),
    /// With an answer that nobody else gets.
    Unfit,
}

struct Flight {
    engine: Arc<Engine>,
    signature: String,
    /// Dropped while the answer is awaited where it did not come.
    landing: watch::Sender<Landing>,
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.engine.answers.flights().remove(&self.signature);
    }
}

/// Whether a request is one that the cache has anything to do with. Costs the others nothing.
pub(crate) fn is_repeatable(ctx: &RequestCtx) -> bool {
    ctx.envelope.as_ref().is_some_and(|envelope| envelope.spans.is_cold)
        && ctx.snapshot.settings.semantic_cache_enabled
        && ctx.caller.as_ref().is_none_or(|caller| !caller.no_cache)
}

/// Asks the cache.
pub(crate) async fn look_up(engine: &Arc<Engine>, mut ctx: Box<RequestCtx>, route: &Route) -> Found {
    let wish = match wish(&ctx.arrival.headers) {
        Ok(Some(wish)) => wish,
        Ok(None) => return Found::Ask(ctx),
        Err(error) => return Found::Answered(engine.refuse(ctx, &error)),
    };
    let Some(Identity { signature, request, question }) = identity(&ctx, route) else {
        return Found::Ask(ctx);
    };
    let mut ticket = match find(engine, &ctx, wish, signature).await {
        Ok((signature, answer)) => {
            let is_allowed = is_allowed(&ctx, route, &answer);
            if let Some(response) = is_allowed.then(|| replay::read(&answer)).flatten() {
                if let Err(error) = admit::reserve(&mut ctx).await {
                    ctx.bar(route.clone(), "key", &error);
                    return Found::Answered(engine.refuse(ctx, &error));
                }
                engine.answers.count_hit(&answer);
                engine.answers.memory.used(&signature);
                ctx.canonical = Some(request);
                ctx.led_to(route);
                return Found::Answered(engine.reply_from_cache(ctx, &answer, response));
            }
            if is_allowed {
                engine.answers.memory.forget(&signature);
            }
            Ticket::new(&ctx, wish, signature)
        }
        Err(ticket) => ticket,
    };
    // Nothing is bought for who is about to be told that it is over.
    if let Some(question) = question.filter(|_| !ctx.is_cancelled()) {
        // A vector is paid for: none is made for who may not ask now.
        if let Err(error) = admit::reserve(&mut ctx).await {
            ctx.bar(route.clone(), "key", &error);
            return Found::Answered(engine.refuse(ctx, &error));
        }
        let known = ticket.close.take();
        match Box::pin(similar::look_up(engine, &mut ctx, route, question, known)).await {
            Likeness::Ask(asked) => ticket.asked = asked,
            Likeness::Given(close, answer, response) => {
                engine.answers.count_hit(&answer);
                engine.answers.memory.used(close.signature());
                ticket.land(Landing::Close(close));
                ctx.canonical = Some(request);
                ctx.led_to(route);
                return Found::Answered(engine.reply_from_cache(ctx, &answer, response));
            }
        }
    }
    engine.answers.misses.fetch_add(1, Ordering::Relaxed);
    if wish.keeps {
        ctx.reuse = Some(Box::new(Reuse::Keep(ticket)));
    }
    Found::Ask(ctx)
}

/// The answer with its signature, or the place where one is to be left.
async fn find(
    engine: &Arc<Engine>,
    ctx: &RequestCtx,
    wish: Wish,
    signature: String,
) -> Result<(String, Arc<KeptAnswer>), Ticket> {
    let is_stream = ctx.envelope.as_ref().is_some_and(|envelope| envelope.stream);
    let patience = if is_stream { STREAM_PATIENCE } else { FLIGHT_PATIENCE };
    let most = ctx.snapshot.settings.semantic_cache_max_size;
    let end = Instant::now() + patience;
    loop {
        let kept = held(engine, &signature, most, Instant::now() + SHELF_PATIENCE).await;
        if let Ok(Some(answer)) = kept {
            return Ok((signature, answer));
        }
        let claim = if wish.keeps { claim(engine, &signature) } else { Claim::NoRoom };
        match claim {
            Claim::NoRoom => return Err(Ticket::new(ctx, wish, signature)),
            Claim::Mine(flight) => {
                // Somebody else's may have landed since the look.
                if let Some(answer) = engine.answers.memory.find(&signature, engine.clock.now_ms()) {
                    return Ok((signature, answer));
                }
                return Err(Ticket { flight: Some(flight), ..Ticket::new(ctx, wish, signature) });
            }
            Claim::Theirs(mut landing) => {
                let has_landed = |it: &Landing| !matches!(it, Landing::Awaited);
                let landed = {
                    let landed = pin!(timeout_at(end, landing.wait_for(has_landed)));
                    Unless { pulse: ctx.pulse().map(|pulse| &**pulse), future: landed }.await
                };
                // Who is cancelled goes on, and is told so before it asks anybody.
                let Some(landed) = landed else { return Err(Ticket::new(ctx, wish, signature)) };
                let close = match landed.as_ref().map(|landing| landing.as_deref()) {
                    // It takes too long, or is for nobody else.
                    Err(_) | Ok(Ok(Landing::Unfit)) => None,
                    Ok(Ok(Landing::Close(close))) => Some(close.clone()),
                    // It is kept; or it failed, or its client left, and one of those who wait goes next.
                    Ok(Ok(Landing::Kept | Landing::Awaited) | Err(_)) => continue,
                };
                return Err(Ticket { close, ..Ticket::new(ctx, wish, signature) });
            }
        }
    }
}

enum Claim {
    Mine(Flight),
    Theirs(watch::Receiver<Landing>),
    NoRoom,
}

fn claim(engine: &Arc<Engine>, signature: &str) -> Claim {
    let mut flights = engine.answers.flights();
    let is_full = flights.len() >= MAX_FLIGHTS;
    match flights.entry(signature.to_owned()) {
        Entry::Occupied(theirs) => Claim::Theirs(theirs.get().clone()),
        Entry::Vacant(_) if is_full => Claim::NoRoom,
        Entry::Vacant(place) => {
            let (landing, waiting) = watch::channel(Landing::Awaited);
            place.insert(waiting);
            Claim::Mine(Flight { engine: engine.clone(), signature: signature.to_owned(), landing })
        }
    }
}

/// The shelf did not say what it has: it was too slow, or failed.
pub(super) struct Unknown;

/// The answer under a signature, if there is one; the shelf may take until `end` to say so.
pub(super) async fn held(
    engine: &Arc<Engine>,
    signature: &str,
    most: u32,
    end: Instant,
) -> Result<Option<Arc<KeptAnswer>>, Unknown> {
    let now_ms = engine.clock.now_ms();
    if let Some(answer) = engine.answers.memory.find(signature, now_ms) {
        return Ok(Some(answer));
    }
    if Instant::now() >= end {
        return Err(Unknown);
    }
    let found = match timeout_at(end, engine.shelf.find(signature, now_ms)).await {
        Ok(Ok(found)) => found,
        Ok(Err(error)) => {
            engine.answers.note_unreadable(&error, now_ms);
            return Err(Unknown);
        }
        Err(_) => {
            engine.answers.shelf_late.fetch_add(1, Ordering::Relaxed);
            return Err(Unknown);
        }
    };
    let Some(row) = found.filter(|row| row.expires_at > engine.clock.now_ms()) else { return Ok(None) };
    engine.answers.memory.hold(signature, row.answer.clone(), row.expires_at, most);
    Ok(Some(row.answer))
}

/// Whether whoever made the answer may still be asked for it: keys and policies may have changed since.
pub(super) fn is_allowed(ctx: &RequestCtx, route: &Route, answer: &KeptAnswer) -> bool {
    let Route::Combo(combo) = route else { return true };
    let name = format!("{}/{}", answer.provider, answer.model);
    let found = resolve::resolve_at(&ctx.snapshot, answer.provider.as_str(), &name);
    found.is_ok_and(|target| {
        admit::may_use_in(ctx, combo, &target)
            && policy::of_target(ctx, ctx.requested(), &target).denial.is_none()
    })
}

impl Ticket {
    fn new(ctx: &RequestCtx, wish: Wish, signature: String) -> Self {
        let settings = &ctx.snapshot.settings;
        Self {
            signature,
            ttl: wish.ttl.unwrap_or(Duration::from_millis(u64::from(settings.semantic_cache_ttl_ms))),
            most: settings.semantic_cache_max_size,
            outlives: !ctx.caller.as_ref().is_some_and(|caller| caller.no_log),
            flight: None,
            asked: None,
            close: None,
        }
    }

    /// Keeps an answer. Those who wait for it find it then.
    pub(crate) fn keep(self, ctx: &RequestCtx, answer: KeptAnswer) {
        let engine = &ctx.engine;
        let now_ms = engine.clock.now_ms();
        let until = now_ms.saturating_add(millis(self.ttl));
        let answer = Arc::new(answer);
        engine.answers.memory.hold(&self.signature, answer.clone(), until, self.most);
        self.land(Landing::Kept);
        if let Some(asked) = self.asked {
            similar::keep(ctx, *asked, &self.signature, &answer, (now_ms, until, self.outlives));
        }
        if self.outlives {
            engine.recorder.remember(Memory::Answer(AnswerRow {
                signature: self.signature,
                tenant: tenant(ctx).to_owned(),
                answer,
                created_at: now_ms,
                expires_at: until,
            }));
        }
    }

    /// The answer is there and is not one to be kept: the others ask for themselves.
    pub(crate) fn decline(self) {
        self.land(Landing::Unfit);
    }

    /// Tells those who wait.
    fn land(&self, landing: Landing) {
        if let Some(flight) = &self.flight {
            flight.landing.send_replace(landing);
        }
    }
}

impl RequestCtx {
    /// Where the answer is to be kept.
    pub(crate) fn take_ticket(&mut self) -> Option<Ticket> {
        match *self.reuse.take()? {
            Reuse::Keep(ticket) => Some(ticket),
            Reuse::Given(_) => None,
        }
    }

    /// What the answer would have cost.
    pub(crate) fn take_saved(&mut self) -> Option<BillRow> {
        match *self.reuse.take()? {
            Reuse::Given(saved) => Some(saved),
            Reuse::Keep(_) => None,
        }
    }
}

pub(super) fn tenant(ctx: &RequestCtx) -> &str {
    ctx.caller.as_ref().map_or(NOBODY, |caller| caller.id.as_str())
}

/// By what a request is known to the cache.
struct Identity {
    /// Whose it is and what it asks for.
    signature: String,
    request: Box<ChatRequest>,
    /// The same as a question, where others that are close to it count.
    question: Option<Question>,
}

/// Where a request goes, as far as that may change its answer.
pub(super) fn route_text(ctx: &RequestCtx, route: &Route) -> String {
    use std::fmt::Write as _;
    match route {
        Route::Target(target) => {
            let account = target.connection_name.as_deref().unwrap_or_default();
            format!("{}/{}@{account}", target.provider.id, target.model)
        }
        Route::Combo(combo) => {
            let mut text = String::from("combo");
            combo.visit(&ctx.snapshot, &mut |combo| {
                let _ = write!(text, " {}@{}", combo.id, combo.updated_at);
            });
            text
        }
    }
}

/// `None` where the answer depends on more than the request.
fn identity(ctx: &RequestCtx, route: &Route) -> Option<Identity> {
    use std::fmt::Write as _;
    let kept = ctx.envelope.as_ref()?.kept.as_ref();
    if ctx.pinned.is_some() || kept.is_some_and(|kept| !kept.names.is_empty()) {
        return None;
    }
    // What cannot be read is refused where it is sent on.
    let request = ctx.dialect().decode_request(ctx.head(), &ctx.body).ok()?;
    let target = route_text(ctx, route);
    let mut sent_on = HeaderMap::new();
    ctx.dialect().forward_headers(ctx.dialect().id(), &ctx.arrival.headers, &mut sent_on);
    // Who accepts no loss gets no answer that another dialect's client was content with.
    let strict = if ctx.is_strict() { ctx.dialect().id().as_str() } else { "" };
    let legacy = if ctx.envelope.as_ref()?.legacy { "legacy" } else { "" };
    let changes = transform::digest_of_changes(ctx);
    let sent_on = format!("{sent_on:?}");
    let context = [strict, legacy, &changes, &sent_on];
    let digest = fingerprint(&request, &target, &context)?;
    let question = similar::is_on(ctx).then(|| question(&request, &target, &context)).flatten();
    let tenant = tenant(ctx);
    let mut signature = String::with_capacity(tenant.len() + 65);
    signature.push_str(tenant);
    signature.push('.');
    for byte in digest {
        let _ = write!(signature, "{byte:02x}");
    }
    Some(Identity { signature, request: Box::new(request), question })
}
