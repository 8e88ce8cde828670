//! The tier of the answer cache that goes by similarity: what it did, its setting, and what a key does otherwise.

use std::collections::BTreeMap;

use omniroute_domain::entity::{KeySimilarity, Number, SimilarityMode, SimilaritySettings};
use omniroute_domain::resolve::{self, Route};
use omniroute_domain::snapshot::Snapshot;
use omniroute_engine::{Pair, PairOutcome, SimilarityReport};
use omniroute_provider::Capability;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::present;
use crate::text::iso;
use crate::validation::Problems;

/// Below it, vectors say nothing of whether two questions are the same.
const THRESHOLDS: std::ops::RangeInclusive<f64> = 0.5..=1.0;

/// What the tier did since the process started, or since the cache was cleared.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SimilarityView {
    mode: SimilarityModeView,
    model: Option<String>,
    threshold: f64,
    /// Questions in the memory of this process that others may be close to.
    entries: u64,
    /// In the database.
    db_entries: u64,
    /// Questions that were looked for.
    lookups: u64,
    /// Those that got the answer of another one.
    hits: u64,
    /// Those that would have, but somebody was asked: in the mode `shadow`, or as a sample.
    would_have_served: u64,
    /// The samples among them.
    sampled: u64,
    /// Close questions that were kept apart, by the rule.
    guarded: BTreeMap<String, u64>,
    /// Questions whose vector was not to be had, or not in time.
    failures: u64,
    /// Questions that are longer than `maxChars`.
    too_long: u64,
    /// Fresh answers that say the same as the kept ones.
    agreed: u64,
    /// Those that say something else.
    disagreed: u64,
    /// Those that could not be compared.
    undecided: u64,
    /// Disagreed by all that were compared; null before there were any.
    false_hit_rate: Option<f64>,
    /// The latest questions that were close to another one, the newest first.
    recent: Vec<PairView>,
}

/// Two questions that are close.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PairView {
    at: String,
    api_key_id: Option<String>,
    similarity: f64,
    /// `served`, `shadow`, `sampled` or `guarded`.
    outcome: &'static str,
    /// The rule that kept them apart.
    guard: Option<&'static str>,
    /// Null for keys of which nothing is logged.
    question: Option<String>,
    kept_question: Option<String>,
    /// Whether a fresh answer says the same; null where there is none, or it is not compared yet.
    agrees: Option<bool>,
}

/// What is done with questions that are close to others.
#[derive(Serialize, Deserialize, ToSchema, Clone, Copy)]
#[serde(rename_all = "lowercase")]
pub(crate) enum SimilarityModeView {
    /// Nothing.
    Off,
    /// Somebody is asked; what would have been given is told, and compared with the answer.
    Shadow,
    /// They get the kept answer.
    Enabled,
}

/// The setting.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SimilaritySettingsView {
    mode: SimilarityModeView,
    model: Option<String>,
    threshold: f64,
    sample_rate: f64,
    timeout_ms: u32,
    max_entries_per_key: u32,
    max_chars: u32,
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SimilarityPatch {
    mode: Option<SimilarityModeView>,
    /// The embedding model, as clients would ask for it.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>)]
    model: Option<Option<String>>,
    /// Least similarity, 0.5 to 1.
    threshold: Option<f64>,
    /// Share of the answers it would give for which somebody is asked all the same, 0 to 1.
    sample_rate: Option<f64>,
    /// How long a request waits for its vector, 10 to 60000 milliseconds.
    timeout_ms: Option<u32>,
    /// Most questions of one key that are remembered, 1 to 100000.
    max_entries_per_key: Option<u32>,
    /// Longest question, 1 to 32000 characters.
    max_chars: Option<u32>,
}

/// What a key does otherwise.
#[derive(Serialize, Deserialize, ToSchema, Clone, Copy, Default)]
#[serde(rename_all = "camelCase")]
pub(crate) struct KeySimilarityView {
    /// Absent = as the setting says.
    #[serde(default)]
    mode: Option<SimilarityModeView>,
    /// Least similarity, 0.5 to 1; absent = as the setting says.
    #[serde(default)]
    threshold: Option<f64>,
}

impl KeySimilarityView {
    /// The same with another threshold; `None` where it says nothing then.
    pub(crate) fn with_threshold(self, threshold: Option<f64>) -> Option<Self> {
        Some(Self { threshold, ..self }).filter(|view| view.mode.is_some() || view.threshold.is_some())
    }

    pub(crate) const fn threshold(&self) -> Option<f64> {
        self.threshold
    }
}

impl SimilarityView {
    pub(crate) fn new(report: SimilarityReport, db_entries: u64, settings: &SimilaritySettings) -> Self {
        let compared = report.agreed + report.disagreed;
        #[allow(clippy::cast_precision_loss, reason = "a rate needs no precision")]
        let false_hit_rate = (compared > 0).then(|| report.disagreed as f64 / compared as f64);
        let guarded = report.guarded.iter().map(|(guard, count)| (guard.as_str().to_owned(), *count));
        Self {
            mode: settings.mode.into(),
            model: settings.model.clone(),
            threshold: settings.threshold.get(),
            entries: report.entries,
            db_entries,
            lookups: report.lookups,
            hits: report.hits,
            would_have_served: report.would_have_served,
            sampled: report.sampled,
            guarded: guarded.collect(),
            failures: report.failures,
            too_long: report.too_long,
            agreed: report.agreed,
            disagreed: report.disagreed,
            undecided: report.undecided,
            false_hit_rate,
            recent: report.recent.into_iter().map(PairView::from).collect(),
        }
    }
}

impl From<Pair> for PairView {
    fn from(pair: Pair) -> Self {
        Self {
            at: iso(pair.at_ms),
            api_key_id: pair.api_key,
            similarity: pair.similarity,
            outcome: pair.outcome.as_str(),
            guard: match pair.outcome {
                PairOutcome::Guarded(guard) => Some(guard.as_str()),
                PairOutcome::Served | PairOutcome::Shadow | PairOutcome::Sampled => None,
            },
            question: pair.question,
            kept_question: pair.kept_question,
            agrees: pair.agrees,
        }
    }
}

impl SimilarityPatch {
    /// Changes the setting, and notes what is wrong.
    pub(crate) fn merge(
        &self,
        settings: &mut SimilaritySettings,
        snapshot: &Snapshot,
        problems: &mut Problems,
    ) {
        let field = |name: &str| format!("semanticCacheSimilarity.{name}");
        problems.range(&field("threshold"), self.threshold, &THRESHOLDS);
        problems.range(&field("sampleRate"), self.sample_rate, &(0.0..=1.0));
        problems.range(&field("timeoutMs"), self.timeout_ms, &(10..=60_000));
        problems.range(&field("maxEntriesPerKey"), self.max_entries_per_key, &(1..=100_000));
        problems.range(&field("maxChars"), self.max_chars, &(1..=32_000));
        if let Some(Some(model)) = &self.model
            && let Err(reason) = check_model(snapshot, model)
        {
            problems.add(&field("model"), reason);
        }
        settings.mode = self.mode.map_or(settings.mode, Into::into);
        if let Some(model) = &self.model {
            settings.model.clone_from(model);
        }
        if settings.mode != SimilarityMode::Off && settings.model.is_none() {
            problems.add(&field("model"), "is needed for this mode: the name of an embedding model");
        }
        settings.threshold = self.threshold.map_or(settings.threshold, Number::from);
        settings.sample_rate = self.sample_rate.map_or(settings.sample_rate, Number::from);
        settings.timeout_ms = self.timeout_ms.unwrap_or(settings.timeout_ms);
        settings.max_entries_per_key = self.max_entries_per_key.unwrap_or(settings.max_entries_per_key);
        settings.max_chars = self.max_chars.unwrap_or(settings.max_chars);
    }
}

/// Whether a model can turn questions into vectors.
fn check_model(snapshot: &Snapshot, model: &str) -> Result<(), String> {
    let no_embeddings = |name: &str| {
        format!("`{name}` is no model for embeddings; GET /v1/models?type=embedding lists those there are")
    };
    match resolve::resolve(snapshot, model) {
        Err(error) => Err(format!("`{model}` is not known here: {error}")),
        Ok(Route::Target(target)) => {
            let mode = snapshot.mode_of(&target.provider, &target.model);
            let is_other = mode.is_some_and(|mode| mode != Capability::Embeddings.mode());
            match target.provider.offers(Capability::Embeddings) && !is_other {
                true => Ok(()),
                false => Err(no_embeddings(model)),
            }
        }
        Ok(Route::Combo(combo)) => {
            let targets = combo.targets(snapshot);
            match targets.iter().any(|target| target.provider.offers(Capability::Embeddings)) {
                true => Ok(()),
                false => Err(no_embeddings(model)),
            }
        }
    }
}

impl From<&SimilaritySettings> for SimilaritySettingsView {
    fn from(settings: &SimilaritySettings) -> Self {
        Self {
            mode: settings.mode.into(),
            model: settings.model.clone(),
            threshold: settings.threshold.get(),
            sample_rate: settings.sample_rate.get(),
            timeout_ms: settings.timeout_ms,
            max_entries_per_key: settings.max_entries_per_key,
            max_chars: settings.max_chars,
        }
    }
}

impl KeySimilarityView {
    /// Notes what is out of bounds, or would do nothing.
    pub(crate) fn check(&self, problems: &mut Problems, settings: &SimilaritySettings) {
        problems.range("similarity.threshold", self.threshold, &THRESHOLDS);
        let asks = self.mode.is_some_and(|mode| !matches!(mode, SimilarityModeView::Off));
        if asks && settings.model.is_none() {
            let missing =
                "needs a model for vectors; set `semanticCacheSimilarity.model` in /api/settings first";
            problems.add("similarity.mode", missing);
        }
    }
}

impl From<KeySimilarity> for KeySimilarityView {
    fn from(own: KeySimilarity) -> Self {
        Self { mode: own.mode.map(Into::into), threshold: own.threshold.map(Number::get) }
    }
}

impl From<KeySimilarityView> for KeySimilarity {
    fn from(view: KeySimilarityView) -> Self {
        Self { mode: view.mode.map(Into::into), threshold: view.threshold.map(Number::from) }
    }
}

impl From<SimilarityMode> for SimilarityModeView {
    fn from(mode: SimilarityMode) -> Self {
        match mode {
            SimilarityMode::Off => Self::Off,
            SimilarityMode::Shadow => Self::Shadow,
            SimilarityMode::Enabled => Self::Enabled,
        }
    }
}

impl From<SimilarityModeView> for SimilarityMode {
    fn from(mode: SimilarityModeView) -> Self {
        match mode {
            SimilarityModeView::Off => Self::Off,
            SimilarityModeView::Shadow => Self::Shadow,
            SimilarityModeView::Enabled => Self::Enabled,
        }
    }
}
