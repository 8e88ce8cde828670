//! How requests were routed: `routing_decisions`, written with the request log and pruned with it. What became of a request is
//! in the log's row with the same id.

mod kept;
mod lists;
mod names;

use std::collections::BTreeMap;

use omniroute_engine::ports::RowId;
use serde::Deserialize;

pub(crate) use kept::write;
pub(crate) use names::{COLUMNS as NAME_COLUMNS, NEEDED_MS, Name, Names, bind_name};

use crate::error::StoreError;
use crate::pool::with_read;
use crate::store::Store;

pub(crate) const COLUMNS: [&str; 4] = ["id", "factors_json", "created_at", "names_page"];

/// Access to the decisions.
#[derive(Debug, Clone, Copy)]
pub struct RoutingDecisions<'a>(pub(crate) &'a Store);

/// A decision as it was kept.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LoggedDecision<C = LoggedCandidate> {
    /// How the model was found; `None` if it was not.
    pub via: Option<String>,
    /// The combo's name.
    pub combo: Option<String>,
    /// What ordered the targets, or the accounts; `None` if the model was not found.
    pub strategy: Option<String>,
    /// The random bits of the decision.
    pub seed: u64,
    /// The turn that the combo took.
    pub turn: Option<u64>,
    /// What the request was about.
    pub task: Option<String>,
    /// The names of the policies that applied, in order.
    #[serde(default = "Vec::new")]
    pub policies: Vec<String>,
    /// What policies that only observe would have done.
    #[serde(default = "Vec::new")]
    pub observed: Vec<LoggedObserved>,
    /// What the request became because a budget had no room for it.
    pub budget: Option<String>,
    /// The account whose conversation was taken over with a summary.
    pub handoff_from: Option<String>,
    /// Those that were to be asked, in order; then those that were not.
    pub candidates: Vec<C>,
    /// When it was decided.
    pub decided_at: i64,
}

/// What a policy that only observes would have done.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct LoggedObserved {
    /// Its name.
    pub policy: String,
    /// In words.
    pub effect: String,
}

/// An account for a target, a target whose turn never came, or an entry that leads to none.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LoggedCandidate {
    /// Provider id.
    pub provider: Option<String>,
    /// The model as the provider knows it, or what the entry says.
    pub model: String,
    /// The account.
    pub connection_id: Option<String>,
    /// Its name at the time.
    pub connection_name: Option<String>,
    /// Dialect in which it would be asked.
    pub dialect: Option<String>,
    /// Why it was not to be asked.
    pub rule: Option<String>,
    /// In words.
    pub reason: Option<String>,
    /// Until when.
    pub until: Option<i64>,
    /// What the request would cost there, in billionths of a US dollar.
    pub cost_nano: Option<i64>,
    /// When it was to be asked, counted from 1: candidates with the same number start together.
    pub wave: Option<usize>,
    /// What speaks for it.
    pub score: Option<f64>,
    /// What that is made of.
    #[serde(default)]
    pub factors: BTreeMap<String, f64>,
}

impl RoutingDecisions<'_> {
    /// The decision of a logged request, by the request's row id.
    pub async fn get(&self, id: &str) -> Result<Option<LoggedDecision>, StoreError> {
        let Some(id) = RowId::parse(id) else { return Ok(None) };
        let row: Option<(String, Option<String>)> = with_read!(self.0.pool(), |db| {
            sqlx::query_as(
                "SELECT factors_json, names_page FROM routing_decisions WHERE created_at = $1 AND id = $2",
            )
            .bind(id.timestamp_ms())
            .bind(id.to_string())
            .fetch_optional(&mut *db)
            .await?
        });
        let damaged = |error| StoreError::Damaged(format!("routing_decisions.factors_json: {error}"));
        match row {
            None => Ok(None),
            Some((text, None)) => serde_json::from_str(&text).map(Some).map_err(damaged),
            Some((text, Some(page))) => {
                let page = names::of_page(self.0, &page).await?;
                if let Some(told) = lists::told(&text, &page) {
                    return told.map(Some);
                }
                kept::told(serde_json::from_str(&text).map_err(damaged)?, &page.names).map(Some)
            }
        }
    }
}
