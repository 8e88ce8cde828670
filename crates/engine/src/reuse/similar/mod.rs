//! The tier that goes by similarity: a question that is close enough to one that was answered before gets its answer.
//!
//! It is off until an operator names a model for it. Then a request that the exact cache knows nothing of, and that is one
//! question without tools, is turned into a vector by that model and compared with those of the same tenant whose requests
//! are the same in everything but the question. What the vectors find close, [`likeness`] must let pass. Whatever goes
//! wrong is a miss, never an error.

mod index;
mod report;
mod samples;
mod vectors;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use http::header::HeaderName;
use http::{HeaderMap, HeaderValue};
use omniroute_dialect::ir::{ChatResponse, Usage};
use omniroute_dialect::{Question, estimate};
use omniroute_domain::entity::SimilarityMode;
use omniroute_domain::likeness;
use omniroute_domain::resolve::{self, Route};
use sha2::{Digest as _, Sha256};
use tokio::time::{Instant, timeout};

use super::cache::{SHELF_PATIENCE, held, is_allowed, route_text, tenant};
use super::replay;
use crate::admit;
use crate::ctx::{AnswerSource, RequestCtx};
use crate::error::GatewayError;
use crate::ports::{KeptAnswer, Memory, QuestionRow};
use crate::serve::Engine;
pub(super) use index::Close;
use index::{Bucket, Entry, Index, normalised, to_bytes};
use report::{Counts, add};
pub use report::{Pair, PairOutcome, SimilarityReport};
use samples::{Sample, Samples};
use vectors::Vectors;

/// How close the question is that an answer was made for.
const SIMILARITY: HeaderName = HeaderName::from_static("x-omniroute-cache-similarity");
/// What the cache would have done.
const SHADOW: HeaderName = HeaderName::from_static("x-omniroute-cache-shadow");
/// How often expired questions are looked for.
const SWEEP_MS: i64 = 60_000;
/// Vectors that are not to be had are told of no more often: it may be so with every question.
const WARN_MS: i64 = 60_000;

/// Questions that were answered, and what became of those that are close to them.
#[derive(Default)]
pub(crate) struct SimilarTier {
    index: Index,
    counts: Counts,
    samples: Samples,
    vectors: Vectors,
    swept: AtomicI64,
    warned: AtomicI64,
}

/// What is asked for a request of this caller.
struct Terms {
    mode: SimilarityMode,
    threshold: f64,
}

/// A question that nobody has answered for its likeness.
pub(super) struct Asked {
    bucket: Bucket,
    vector: Arc<[f32]>,
    text: String,
    /// The answer that it would have got.
    would: Option<Would>,
}

struct Would {
    answer: Arc<KeptAnswer>,
    pair: u64,
}

/// What the tier says to a request.
#[allow(clippy::large_enum_variant, reason = "it is looked at once, where it is made")]
pub(super) enum Likeness {
    /// It has the answer to this question.
    Given(Close, Arc<KeptAnswer>, ChatResponse),
    /// Somebody has to be asked.
    Ask(Option<Box<Asked>>),
}

/// Whether the tier has anything to do with the requests of this caller.
pub(super) fn is_on(ctx: &RequestCtx) -> bool {
    terms(ctx).is_some()
}

/// Whether the key may use the model of the vectors, and its budgets have room for a vector of this text. Asking for what is
/// refused would be a row in the log each time.
fn may_use(ctx: &RequestCtx, model: &str, text: &str) -> bool {
    let usage = Usage {
        input_uncached: Some(estimate::text(text).max(1)),
        output_total: Some(0),
        ..Usage::default()
    };
    match resolve::resolve(&ctx.snapshot, model) {
        Ok(Route::Target(target)) => admit::may_use(ctx, model, &target) && ctx.could_pay(&target, &usage),
        Ok(Route::Combo(combo)) => {
            let mut targets = combo.targets(&ctx.snapshot).into_iter();
            admit::check_combo(ctx, &combo).is_ok()
                && targets
                    .any(|target| admit::may_use_in(ctx, &combo, &target) && ctx.could_pay(&target, &usage))
        }
        // Somebody may stand in for it.
        Err(_) => true,
    }
}

fn terms(ctx: &RequestCtx) -> Option<Terms> {
    let settings = &ctx.snapshot.settings.semantic_cache_similarity;
    let own = ctx.caller.as_ref().map(|caller| caller.similarity).unwrap_or_default();
    let mode = own.mode.unwrap_or(settings.mode);
    let threshold = own.threshold.unwrap_or(settings.threshold).get();
    (mode != SimilarityMode::Off && settings.model.is_some()).then_some(Terms { mode, threshold })
}

/// Looks for a question that is close. `known` is the one that was found for somebody else who asks the same.
pub(super) async fn look_up(
    engine: &Arc<Engine>,
    ctx: &mut RequestCtx,
    route: &Route,
    question: Question,
    known: Option<Close>,
) -> Likeness {
    let snapshot = ctx.snapshot.clone();
    let settings = &snapshot.settings.semantic_cache_similarity;
    let (Some(Terms { mode, threshold }), Some(model)) = (terms(ctx), &settings.model) else {
        return Likeness::Ask(None);
    };
    let tier = &engine.answers.similar;
    let made_by = made_by(ctx, model);
    let key = vectors::key(tenant(ctx), &made_by, &question.text);
    // What is there costs nothing more.
    let at_hand = tier.vectors.find(&key, engine.clock.now_ms());
    if at_hand.is_none() && !may_use(ctx, model, &question.text) {
        return Likeness::Ask(None);
    }
    add(&tier.counts.lookups);
    if question.text.chars().count() > settings.max_chars as usize {
        add(&tier.counts.too_long);
        return Likeness::Ask(None);
    }
    if let Some(close) = known.filter(|_| mode == SimilarityMode::Enabled) {
        let end = Instant::now() + SHELF_PATIENCE;
        if let Some((answer, response)) = answer_to(engine, ctx, route, &close.entry, end).await {
            let texts = (&*close.entry.text, &*question.text);
            tier.counts.note(ctx, texts, close.similarity, PairOutcome::Served);
            ctx.similarity = Some(close.similarity);
            return Likeness::Given(close, answer, response);
        }
    }
    let vector: Arc<[f32]> = match at_hand {
        Some(vector) => vector,
        None => {
            let Some(vector) = vector(engine, ctx, model, &question.text).await else {
                add(&tier.counts.failures);
                return Likeness::Ask(None);
            };
            let vector = Arc::from(vector);
            tier.vectors.hold(key, Arc::clone(&vector), engine.clock.now_ms());
            vector
        }
    };
    let bucket = bucket(ctx, &made_by, &question, vector.len());
    let now_ms = engine.clock.now_ms();
    let mut apart = None;
    let found = tier.index.search(&bucket, &vector, threshold, now_ms).await;
    // For all of them: a shelf that is slow is so for each.
    let end = Instant::now() + SHELF_PATIENCE;
    for Close { similarity, entry } in found {
        if let Some(guard) = likeness::guard(&entry.text, &question.text) {
            apart.get_or_insert((guard, similarity, entry));
            continue;
        }
        let Some((answer, response)) = answer_to(engine, ctx, route, &entry, end).await else { continue };
        let is_given = mode.serves(settings.sample_rate, chance(engine));
        let outcome = match mode {
            _ if is_given => PairOutcome::Served,
            SimilarityMode::Enabled => PairOutcome::Sampled,
            SimilarityMode::Shadow | SimilarityMode::Off => PairOutcome::Shadow,
        };
        let pair = tier.counts.note(ctx, (&entry.text, &question.text), similarity, outcome);
        ctx.similarity = Some(similarity);
        if is_given {
            return Likeness::Given(Close { similarity, entry }, answer, response);
        }
        let would = Some(Would { answer, pair });
        return Likeness::Ask(Some(Box::new(Asked { bucket, vector, text: question.text, would })));
    }
    if let Some((guard, similarity, entry)) = apart {
        let outcome = PairOutcome::Guarded(guard);
        tier.counts.note(ctx, (&entry.text, &question.text), similarity, outcome);
    }
    Likeness::Ask(Some(Box::new(Asked { bucket, vector, text: question.text, would: None })))
}

/// The answer to a question, where it is there in time and may be given.
async fn answer_to(
    engine: &Arc<Engine>,
    ctx: &RequestCtx,
    route: &Route,
    entry: &Entry,
    end: Instant,
) -> Option<(Arc<KeptAnswer>, ChatResponse)> {
    let most = ctx.snapshot.settings.semantic_cache_max_size;
    match held(engine, &entry.signature, most, end).await {
        Ok(Some(answer)) if is_allowed(ctx, route, &answer) => {
            replay::read(&answer).map(|response| (answer, response))
        }
        // What cannot be read now may be there nevertheless.
        Ok(Some(_)) | Err(_) => None,
        Ok(None) => {
            engine.answers.similar.index.forget(&entry.signature);
            None
        }
    }
}

/// The question as a vector; `None` where that is not to be had, or not in time.
async fn vector(engine: &Arc<Engine>, ctx: &RequestCtx, model: &str, text: &str) -> Option<Vec<f32>> {
    let patience =
        Duration::from_millis(u64::from(ctx.snapshot.settings.semantic_cache_similarity.timeout_ms));
    let texts = [text.to_owned()];
    let vectors = Box::pin(engine.embed_for(ctx.arrival.peer, ctx.caller.clone(), model, &texts));
    match timeout(patience, vectors).await {
        Ok(Ok(vectors)) => vectors.into_iter().next().and_then(normalised),
        Ok(Err(error)) => {
            if engine.answers.similar.may_warn_of(engine, Some(&error)) {
                // Not what it says: an upstream may quote the question.
                tracing::warn!(
                    model,
                    request_id = %ctx.request_id,
                    kind = ?error.kind,
                    code = error.code.as_deref(),
                    "a question has no vector; similar ones are not looked for"
                );
            }
            None
        }
        Err(_) => {
            if engine.answers.similar.may_warn_of(engine, None) {
                tracing::warn!(
                    model,
                    request_id = %ctx.request_id,
                    ?patience,
                    "the vector of a question takes too long; similar ones are not looked for"
                );
            }
            None
        }
    }
}

/// Who makes the vectors.
fn made_by(ctx: &RequestCtx, model: &str) -> String {
    let route = resolve::resolve(&ctx.snapshot, model);
    route.map_or_else(|_| model.to_owned(), |route| route_text(ctx, &route))
}

/// By what questions are grouped that may be compared.
fn bucket(ctx: &RequestCtx, model: &str, question: &Question, dimensions: usize) -> Bucket {
    let mut digest = Sha256::new();
    for part in [tenant(ctx).as_bytes(), model.as_bytes(), &question.rest, &dimensions.to_le_bytes()] {
        digest.update((part.len() as u64).to_le_bytes());
        digest.update(part);
    }
    digest.finalize().into()
}

/// Between 0 and 1.
fn chance(engine: &Engine) -> f64 {
    #[allow(clippy::cast_precision_loss, reason = "a chance needs no precision")]
    let chance = (engine.random() >> 11) as f64 / (1_u64 << 53) as f64;
    chance
}

/// The answer to a question is there, and kept under this signature.
pub(super) fn keep(
    ctx: &RequestCtx,
    asked: Asked,
    signature: &str,
    answer: &Arc<KeptAnswer>,
    (now_ms, until, outlives): (i64, i64, bool),
) {
    let Asked { bucket, vector, text, would } = asked;
    let tier = &ctx.engine.answers.similar;
    if let Some(Would { answer: kept, pair }) = would {
        let (request_id, peer, caller) = (ctx.request_id.clone(), ctx.arrival.peer, ctx.caller.clone());
        let sample = Sample { kept, fresh: answer.clone(), request_id, peer, caller, pair };
        if let Err(sample) = tier.samples.push(sample) {
            tier.counts.compared(sample.pair, None);
        }
        // The question that it is close to stays the one that is found.
        return;
    }
    let row = QuestionRow {
        signature: signature.to_owned(),
        tenant: tenant(ctx).to_owned(),
        bucket,
        asked: answer.asked.clone(),
        text,
        vector: to_bytes(&vector),
        created_at: now_ms,
        expires_at: until,
    };
    if outlives {
        ctx.engine.recorder.remember(Memory::Question(row.clone()));
    }
    tier.index.insert(row, ctx.snapshot.settings.semantic_cache_similarity.max_entries_per_key);
}

/// A question that this process or another one kept.
pub(crate) fn restore(engine: &Engine, row: QuestionRow) {
    let most = engine.live.load().settings.semantic_cache_similarity.max_entries_per_key;
    engine.answers.similar.index.insert(row, most);
}

impl SimilarTier {
    /// Forgets questions of a model (as it was asked for), under a signature, or all, and what was counted then.
    pub(super) fn clear(&self, model: Option<&str>, signature: Option<&str>) {
        self.index.clear(model, signature);
        if model.is_none() && signature.is_none() {
            self.counts.clear();
            self.vectors.clear();
        }
    }

    /// Forgets what has expired, now and then.
    pub(super) fn sweep(&self, now_ms: i64) {
        if now_ms.saturating_sub(self.swept.load(Ordering::Relaxed)) >= SWEEP_MS {
            self.swept.store(now_ms, Ordering::Relaxed);
            self.index.sweep(now_ms);
        }
    }

    /// Whether people are told now that vectors are not to be had. Not of a budget that is used up: that is what it is for.
    fn may_warn_of(&self, engine: &Engine, error: Option<&GatewayError>) -> bool {
        if error.is_some_and(|error| error.code.as_deref() == Some("budget_exceeded")) {
            return false;
        }
        let (last, now_ms) = (self.warned.load(Ordering::Relaxed), engine.clock.now_ms());
        let is_due = now_ms.saturating_sub(last) >= WARN_MS;
        is_due && self.warned.compare_exchange(last, now_ms, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// What it did.
    pub(super) fn report(&self) -> SimilarityReport {
        self.counts.report(self.index.len())
    }
}

/// What the head of an answer says of a similarity. It is cut, not rounded: what is shown is never below the threshold.
pub(crate) fn tell(source: AnswerSource, similarity: f64, headers: &mut HeaderMap) {
    let shown = format!("{:.3}", (similarity * 1_000.0).floor() / 1_000.0);
    let (name, text) = match source {
        AnswerSource::Cache => (SIMILARITY, shown),
        AnswerSource::Upstream | AnswerSource::Repeated => {
            (SHADOW, format!("would-have-served; similarity={shown}"))
        }
    };
    if let Ok(value) = HeaderValue::from_str(&text) {
        headers.insert(name, value);
    }
}
