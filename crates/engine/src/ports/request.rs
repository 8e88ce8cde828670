//! A finished request, as it is logged, billed and counted.

use std::sync::Arc;

use omniroute_dialect::{
    DialectId,
    ir::{Loss, Usage},
};
use omniroute_domain::combo::Place;
use omniroute_domain::entity::{ApiKeyId, ConnectionId};
use omniroute_domain::price::Units;
use omniroute_provider::ProviderId;
use smallvec::SmallVec;

use crate::bodies::BodyNote;
use crate::decision::Decision;
use crate::row_id::RowId;

/// [`RequestRow::request_type`] of conversations, and of what belongs to them.
pub const CHAT: &str = "chat";
/// [`RequestRow::request_type`] of the gateway's own calls that sum a conversation up.
pub const HANDOFF: &str = "handoff";
/// [`RequestRow::request_type`] of what is sent to have its tokens counted.
pub const COUNT: &str = "count";
/// [`RequestRow::source`] of answers that were made for a question which is close.
pub const SIMILAR: &str = "similar";

/// One finished request, as it is logged and counted.
#[derive(Debug, Clone)]
pub struct RequestRow {
    /// Row id; contains the time of the arrival.
    pub id: RowId,
    /// The gateway's id of the request.
    pub request_id: Arc<str>,
    /// HTTP method.
    pub method: http::Method,
    /// Path, without the query.
    pub path: Arc<str>,
    /// What was asked for: [`CHAT`], [`COUNT`], [`HANDOFF`], or [`omniroute_provider::Capability::request_type`].
    pub request_type: &'static str,
    /// Status the client got; 499 when it went away.
    pub status: u16,
    /// Model the client asked for; empty when the body could not be read.
    pub requested_model: Arc<str>,
    /// Upstream model of the last attempt.
    pub model: Arc<str>,
    /// Provider of the last attempt.
    pub provider: Option<ProviderId>,
    /// Connection of the last attempt.
    pub connection: Option<ConnectionId>,
    /// Its name at the time.
    pub connection_name: Option<Arc<str>>,
    /// The client's key.
    pub api_key: Option<ApiKeyId>,
    /// Its name at the time.
    pub api_key_name: Option<Arc<str>>,
    /// Dialect of the client.
    pub client_dialect: DialectId,
    /// Dialect of the upstream.
    pub upstream_dialect: Option<DialectId>,
    /// Whether the client asked for a stream.
    pub stream: bool,
    /// From arrival to the last byte.
    pub duration_ms: i64,
    /// From arrival to the first meaningful event.
    pub ttft_ms: Option<i64>,
    /// From arrival to the first upstream call: what the gateway itself took before sending.
    pub overhead_us: i64,
    /// Tokens of all attempts together; absent members were not reported.
    pub usage: Usage,
    /// What all attempts together used beside tokens, if anything.
    pub units: Option<Box<Units>>,
    /// Whether any of the tokens are estimates.
    pub usage_estimated: bool,
    /// Cost of all attempts together in billionths of a US dollar; `None` = unknown.
    pub cost_nano: Option<i64>,
    /// Where the price came from (`catalog`, `user`, `inferred`, …); `None` = unpriced.
    pub price_source: Option<&'static str>,
    /// Short hash of the price row.
    pub price_version: Option<Arc<str>>,
    /// Who answered: `upstream`, `semantic` for the cache, [`SIMILAR`] for its answer to a question that is close, or
    /// `idempotent` for the answer to the same request a moment before.
    pub source: &'static str,
    /// How close that question is; where somebody was asked, one whose answer would have been given.
    pub similarity: Option<f64>,
    /// The combo that was asked for.
    pub combo: Option<Arc<str>>,
    /// The id of its step that was asked last.
    pub combo_step: Option<Arc<str>>,
    /// Whether the answer, if there is one, is not what the combo's first choice brought at once: another target gave it, or it
    /// took more than one call.
    pub is_fallback: bool,
    /// What is paid for it, by attempt; together they are the cost.
    pub bills: Vec<BillRow>,
    /// Every upstream attempt, oldest first.
    pub attempts: Vec<AttemptRow>,
    /// What went wrong in the end, scrubbed.
    pub error: Option<String>,
    /// Its code.
    pub error_code: Option<String>,
    /// What translation changed, at most 50.
    pub losses: Vec<Loss>,
    /// How it was routed, where that is to be written down.
    pub decision: Option<Box<Decision>>,
    /// What became of what was said in it.
    pub bodies: BodyNote,
}

impl RequestRow {
    /// What it would have cost where nobody had to be asked; `None` where somebody was, or that is not known.
    pub fn saved_nano(&self) -> Option<i64> {
        self.bills.iter().find(|bill| bill.is_saved).and_then(|bill| bill.amount_nano)
    }
}

/// What one attempt is billed: a row of the ledger.
#[derive(Debug, Clone, PartialEq)]
pub struct BillRow {
    /// Which of the attempts, from 1.
    pub attempt: u32,
    /// Provider.
    pub provider: ProviderId,
    /// Upstream model.
    pub model: Arc<str>,
    /// What was used.
    pub usage: Usage,
    /// What was used beside tokens, if anything.
    pub units: Option<Box<Units>>,
    /// Whether that is an estimate.
    pub estimated: bool,
    /// In billionths of a US dollar; `None` = unknown.
    pub amount_nano: Option<i64>,
    /// Where the price came from; `None` = unpriced.
    pub price_source: Option<&'static str>,
    /// Short hash of the price row.
    pub price_version: Option<Arc<str>>,
    /// When it was counted, in epoch milliseconds.
    pub settled_ms: i64,
    /// Whether nobody is billed: the answer was there already, and this is what it would have cost.
    pub is_saved: bool,
}

/// One upstream attempt.
#[derive(Debug, Clone)]
pub struct AttemptRow {
    /// Provider.
    pub provider: ProviderId,
    /// Upstream model.
    pub model: Arc<str>,
    /// Connection.
    pub connection: ConnectionId,
    /// Connection's name at the time.
    pub connection_name: Arc<str>,
    /// The steps of combos that led to it, the outermost combo's first; empty where there is no combo.
    pub path: SmallVec<[Place; 1]>,
    /// Upstream status, if there was an answer.
    pub status: Option<u16>,
    /// Class of the failure; `None` for the one that answered.
    pub failure: Option<&'static str>,
    /// In words, scrubbed.
    pub message: Option<String>,
    /// How long it took.
    pub duration_ms: i64,
    /// Tokens that it used, as far as they were seen.
    pub usage: Usage,
    /// Whether the call came to nothing when its upstream had the request and had told nothing of what it used: the prompt among
    /// the tokens is an estimate, and where there are none, what was used is unknown.
    pub is_unheard: bool,
    /// What it used beside tokens, if anything.
    pub units: Option<Box<Units>>,
    /// What they cost in billionths of a US dollar; `None` = unknown.
    pub cost_nano: Option<i64>,
}

impl AttemptRow {
    /// Whether what it used is an estimate, because nobody told.
    pub fn is_estimated(&self) -> bool {
        self.is_unheard && self.usage.is_known()
    }
}
