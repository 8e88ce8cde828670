//! Whether answers that would have been given, or are, are right: the kept one is compared with a fresh one.
//!
//! That takes a call of the embedding model, which nobody is to wait for. So pairs of answers wait in a short queue, for a
//! task of the process.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt as _;
use omniroute_dialect::ir::BlockKind;
use omniroute_domain::likeness;
use omniroute_domain::snapshot::Caller;
use tokio::sync::Notify;

use super::index::normalised;
use crate::ports::KeptAnswer;
use crate::reuse::replay;
use crate::serve::Engine;

/// Most pairs that wait; more are not compared.
const MAX_WAITING: usize = 64;
/// How close the vectors of answers must be that say the same in other words.
const AGREEMENT: f64 = 0.85;
/// Answers up to this length, in characters, must have the same numbers and denials too.
const SHORT: usize = 300;
/// So many characters of an answer are compared: models of sentences read no more.
const COMPARED: usize = 1_000;

/// Pairs of answers that wait to be compared.
#[derive(Default)]
pub(super) struct Samples {
    waiting: Mutex<VecDeque<Sample>>,
    arrived: Notify,
}

/// A kept answer and a fresh one.
pub(super) struct Sample {
    pub(super) kept: Arc<KeptAnswer>,
    pub(super) fresh: Arc<KeptAnswer>,
    /// The request that brought the fresh one.
    pub(super) request_id: Arc<str>,
    /// Who asked, and pays for the comparison.
    pub(super) peer: SocketAddr,
    pub(super) caller: Option<Arc<Caller>>,
    /// The number of the pair.
    pub(super) pair: u64,
}

impl Samples {
    /// Takes a pair; gives it back where too many wait.
    pub(super) fn push(&self, sample: Sample) -> Result<(), Sample> {
        let mut waiting = self.waiting();
        if waiting.len() >= MAX_WAITING {
            return Err(sample);
        }
        waiting.push_back(sample);
        self.arrived.notify_one();
        Ok(())
    }

    async fn next(&self) -> Sample {
        loop {
            let next = self.waiting().pop_front();
            match next {
                Some(sample) => return sample,
                None => self.arrived.notified().await,
            }
        }
    }

    fn waiting(&self) -> MutexGuard<'_, VecDeque<Sample>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Engine {
    /// Waits for a pair of answers and compares them. Meant to be called again and again by a task of its own.
    pub async fn compare_answers(self: &Arc<Self>) {
        let sample = self.answers.similar.samples.next().await;
        let pair = sample.pair;
        // Answers are what models say; none of them may end the comparison of all.
        let agrees = AssertUnwindSafe(agree(self, sample)).catch_unwind().await.unwrap_or(None);
        self.answers.similar.counts.compared(pair, agrees);
    }
}

/// Whether two answers say the same; `None` where that cannot be told.
async fn agree(engine: &Arc<Engine>, sample: Sample) -> Option<bool> {
    let (kept, fresh) = (text_of(&sample.kept)?, text_of(&sample.fresh)?);
    if kept == fresh {
        return Some(true);
    }
    let is_short = kept.chars().count() <= SHORT && fresh.chars().count() <= SHORT;
    if is_short && !likeness::states_the_same(&kept, &fresh) {
        return Some(false);
    }
    let model = engine.live.load().settings.semantic_cache_similarity.model.clone()?;
    let texts = [kept, fresh].map(|text| text.chars().take(COMPARED).collect::<String>());
    let vectors = engine.embed_for(sample.peer, sample.caller, &model, &texts).await;
    let vectors = vectors.inspect_err(|error| {
        if engine.answers.similar.may_warn_of(engine, Some(error)) {
            let (kind, code) = (&error.kind, error.code.as_deref());
            tracing::warn!(request_id = %sample.request_id, ?kind, code, "answers cannot be compared");
        }
    });
    let mut vectors = vectors.ok()?.into_iter().filter_map(normalised);
    let (kept, fresh) = (vectors.next()?, vectors.next()?);
    let similarity = <f32 as simsimd::SpatialSimilarity>::dot(&kept, &fresh)?;
    Some(similarity >= AGREEMENT)
}

/// What an answer says, without regard to capitals and spaces; `None` where it is not only text.
fn text_of(answer: &KeptAnswer) -> Option<String> {
    let response = replay::read(answer)?;
    let mut text = String::new();
    for block in &response.blocks {
        match &block.kind {
            BlockKind::Text(part) => text.push_str(part),
            BlockKind::Thinking { .. } | BlockKind::RedactedThinking { .. } => {}
            _ => return None,
        }
    }
    Some(text.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase())
}
