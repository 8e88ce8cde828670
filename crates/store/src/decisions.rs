//! How requests were routed: `routing_decisions`, written with the request log and pruned with it.

use omniroute_domain::routing::Score;
use omniroute_engine::decision::Decision;
use omniroute_engine::ports::{RequestRow, RowId};
use omniroute_engine::preview::PreviewedCandidate;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use crate::error::StoreError;
use crate::pool::with_read;
use crate::store::Store;

/// Most candidates of one decision that are kept.
const MAX_CANDIDATES: usize = 160;
/// Most of them that are kept with their factors.
const MAX_SCORED: usize = 24;

pub(crate) const COLUMNS: [&str; 13] = [
    "id",
    "request_id",
    "task_type",
    "combo_id",
    "provider_selected",
    "model_selected",
    "score",
    "factors_json",
    "fallbacks_triggered",
    "success",
    "latency_ms",
    "cost_nano",
    "created_at",
];

/// Access to the decisions.
#[derive(Debug, Clone, Copy)]
pub struct RoutingDecisions<'a>(pub(crate) &'a Store);

/// A decision as it is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LoggedDecision {
    /// How the model was found.
    pub via: String,
    /// The combo's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub combo: Option<String>,
    /// What ordered the targets, or the accounts.
    pub strategy: String,
    /// The random bits of the decision.
    pub seed: u64,
    /// The turn that the combo took.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub turn: Option<u64>,
    /// What the request was about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
    /// The names of the policies that applied, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<String>,
    /// What the request became because a budget had no room for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<String>,
    /// The account whose conversation was taken over with a summary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handoff_from: Option<String>,
    /// Those that were to be asked, in order; then those that were not.
    pub candidates: Vec<LoggedCandidate>,
    /// When it was decided.
    pub decided_at: i64,
}

/// An account for a target, a target whose turn never came, or an entry that leads to none.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LoggedCandidate {
    /// Provider id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// The model as the provider knows it, or what the entry says.
    pub model: String,
    /// The account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection_id: Option<String>,
    /// Its name at the time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection_name: Option<String>,
    /// Dialect in which it would be asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dialect: Option<String>,
    /// Why it was not to be asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// In words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Until when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<i64>,
    /// What the request would cost there, in billionths of a US dollar.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost_nano: Option<i64>,
    /// When it was to be asked, counted from 1: candidates with the same number start together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wave: Option<usize>,
    /// What speaks for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score: Option<f64>,
    /// What that is made of.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub factors: BTreeMap<String, f64>,
}

impl RoutingDecisions<'_> {
    /// The decision of a logged request, by the request's row id.
    pub async fn get(&self, id: &str) -> Result<Option<LoggedDecision>, StoreError> {
        let Some(id) = RowId::parse(id) else { return Ok(None) };
        let text: Option<String> = with_read!(self.0.pool(), |db| {
            sqlx::query_scalar("SELECT factors_json FROM routing_decisions WHERE created_at = $1 AND id = $2")
                .bind(id.timestamp_ms())
                .bind(id.to_string())
                .fetch_optional(&mut *db)
                .await?
        });
        text.map(|text| {
            serde_json::from_str(&text)
                .map_err(|error| StoreError::Damaged(format!("routing_decisions.factors_json: {error}")))
        })
        .transpose()
    }
}

/// What is kept of the decision of a row.
pub(crate) fn logged(row: &RequestRow, decision: &Decision) -> LoggedDecision {
    let candidates = decision.candidates(row.client_dialect).into_iter().take(MAX_CANDIDATES);
    LoggedDecision {
        via: decision.via.to_owned(),
        combo: row.combo.as_deref().map(str::to_owned),
        strategy: decision.strategy.to_owned(),
        seed: decision.seed,
        turn: decision.combo.as_ref().map(|_| decision.turn),
        task: decision.task.map(|task| task.as_str().to_owned()),
        policies: decision.policies.iter().map(ToString::to_string).collect(),
        budget: decision.budget.clone(),
        handoff_from: decision.handoff.clone(),
        candidates: candidates.enumerate().map(|(place, it)| candidate(it, place < MAX_SCORED)).collect(),
        decided_at: decision.decided_at,
    }
}

fn candidate(candidate: PreviewedCandidate, with_factors: bool) -> LoggedCandidate {
    let (connection_id, connection_name) =
        candidate.connection.map(|(id, name)| (id.to_string(), name.to_string())).unzip();
    let (rule, reason, until) = candidate
        .skip
        .map_or((None, None, None), |skip| (Some(skip.rule.to_owned()), Some(skip.reason), skip.until));
    let factors = |score: Score| {
        score.factors().map(|(factor, value)| (factor.name().to_owned(), rounded(value))).collect()
    };
    LoggedCandidate {
        provider: candidate.provider,
        model: candidate.model,
        connection_id,
        connection_name,
        dialect: candidate.dialect.map(str::to_owned),
        rule,
        reason,
        until,
        cost_nano: candidate.cost_nano,
        wave: candidate.wave,
        score: candidate.score.map(|score| rounded(score.total)),
        factors: candidate.score.filter(|_| with_factors).map(factors).unwrap_or_default(),
    }
}

/// To six places behind the point: scores that differ by less are equal.
fn rounded(value: f64) -> f64 {
    (value * 1e6).round() / 1e6
}
