//! How the next requests of a combo would be spread, what they would cost and who stands in for whom: `/api/combos/simulate`.
//! Nothing is sent, and whose turn it is stays as it is.

use std::collections::BTreeMap;
use std::time::Duration;

use http::{HeaderMap, Method};
use omniroute_domain::entity::ApiKeyId;
use omniroute_engine::preview::Preview;
use omniroute_engine::rehearsal::{Judge, Rehearsal, Row};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::in_force;
use crate::auth::Management;
use crate::endpoint::{Json, Quoted};
use crate::error::{AdminError, AdminResult, internal, invalid_field, not_found, unavailable, unprocessable};
use crate::resources::route_preview::{CandidateView, RouteError, candidate_view, error_view, rounded};
use crate::state::{AskContent, NotRehearsed, PreviewAsk, RehearsedAsk};
use crate::text::{iso, usd};

/// Requests where nobody says how many, and the most.
const USUAL: u32 = 1_000;
const MOST: u32 = 10_000;
/// Most targets, candidates and accounts of a target that are shown.
const MAX_TARGETS: usize = 256;
const MAX_CANDIDATES: usize = 256;
const MAX_ACCOUNTS: usize = 32;
/// The largest integer that JavaScript tells from its neighbours.
const MAX_SEED: u64 = (1 << 53) - 1;
/// For so long a simulation lasts at most.
const LASTS: Duration = Duration::from_secs(3);
const PATH: &str = "/v1/chat/completions";

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SimulationDraft {
    /// The combo's name; `auto` and its variants are combos too.
    combo: String,
    /// How many requests, 1 to 10,000; 1,000 where it is missing.
    requests: Option<u32>,
    /// What each of them would be; a short question in chat completions where it is missing.
    request: Option<SimulatedRequest>,
    /// The random bits of the first request, up to 2^53 - 1; the others count on from there. Others each time where it is missing.
    seed: Option<u64>,
    /// The key that they would use, by its id; absent = one without restrictions and limits.
    api_key_id: Option<String>,
}

/// As in `/api/route/explain`.
#[derive(Deserialize, ToSchema)]
struct SimulatedRequest {
    /// The path that the client would call, with its query.
    path: String,
    /// The body that it would send. Its `model` may be missing where the path does not have it: it is the combo.
    #[schema(value_type = Object)]
    body: Box<RawValue>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Simulation {
    /// The combo, or the one to which a budget sends its requests.
    combo: String,
    strategy: &'static str,
    /// How its targets are asked: `one-by-one`, `race` (the first ones at once), `fusion` (those, and a judge) or `pipeline`.
    manner: &'static str,
    /// What becomes of requests because a budget has no room for them (`daily free-only`); null where nothing does.
    budget: Option<String>,
    /// Requests that were played.
    requests: u32,
    /// Whether they are fewer than were wanted, because it took too long.
    truncated: bool,
    /// The random bits of the first request; those of the others count on from there.
    seed: u64,
    /// Tokens of each request's prompt, by estimate.
    input_tokens: u64,
    /// Requests that would be answered, as far as is to be expected.
    expected_answers: f64,
    /// Those that would get an error, as far as is to be expected; the refused ones left out.
    expected_failures: f64,
    /// Those for which nobody would be asked; `error` and `failurePath` say why.
    refused: u32,
    cost: SimulatedCost,
    /// By the number of requests that ask them.
    targets: Vec<SimulatedTarget>,
    /// Those that are not shown: the ones that the fewest ask.
    targets_left_out: usize,
    /// Who would make replies of several answers.
    judge: Option<SimulatedJudge>,
    /// Who would be asked for the first request, in order, and then those that would not: by what rule, and until when.
    failure_path: Vec<CandidateView>,
    failure_path_left_out: usize,
    /// What the first request would get where nobody would be asked.
    error: Option<RouteError>,
    /// When all of this would be.
    decided_at: String,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct SimulatedCost {
    /// What all requests cost together, as far as is to be expected; null where any price is unknown.
    expected_total_usd: Option<f64>,
    /// The same by request.
    expected_per_request_usd: Option<f64>,
    /// What those calls cost of which the price is known.
    known_total_usd: f64,
    /// Calls that are to be paid for and of which nobody knows the price.
    unpriced_calls: f64,
}

/// A target of the combo, or of one within it.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct SimulatedTarget {
    /// The ids of the entries that lead to it, the outermost combo's first.
    steps: Vec<String>,
    provider: String,
    model: String,
    /// How often it answered of late. Null = it was never asked, and is taken to answer always.
    measured: Option<SimulatedMeasure>,
    /// Requests that ask it first. In a race and a fusion several are first.
    first_choice: u32,
    /// The same as a share of all requests.
    first_choice_share: f64,
    /// Requests that ask it at all, as far as is to be expected.
    expected_asked: f64,
    /// Those of them that ask it because one before it failed.
    expected_fallbacks: f64,
    /// Its answers, as far as is to be expected.
    expected_answers: f64,
    /// Requests that passed it over because none of its accounts could be asked, and why that was.
    skipped: Option<SimulatedSkip>,
    /// What a request costs there; null = unknown.
    estimated_cost_usd: Option<f64>,
    /// What its answers cost, as far as is to be expected; null = unknown.
    expected_cost_usd: Option<f64>,
    /// The accounts that led the calls as they were drawn.
    connections: Vec<SimulatedAccount>,
    #[serde(skip_serializing_if = "is_zero")]
    connections_left_out: usize,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct SimulatedMeasure {
    requests: u64,
    successes: u64,
    /// From 0 to 100, as in the metrics of combos.
    success_rate: f64,
    /// `hour` (the last one) or `all` that is counted, where the last hour had none.
    over: &'static str,
}

#[derive(Serialize, ToSchema)]
struct SimulatedSkip {
    requests: u32,
    /// As in `/api/route/explain`.
    rule: Option<&'static str>,
    reason: Option<String>,
    until: Option<String>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct SimulatedAccount {
    connection_id: String,
    connection_name: String,
    requests: u32,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct SimulatedJudge {
    provider: String,
    model: String,
    /// Requests that it is asked by: those of which at least two targets answer.
    expected_asked: f64,
    /// What a call costs, the answers that it reads left out; null = unknown.
    estimated_cost_usd: Option<f64>,
    expected_cost_usd: Option<f64>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
const fn is_zero(count: &usize) -> bool {
    *count == 0
}

pub(crate) async fn simulate(
    access: Management,
    Quoted(draft): Quoted<SimulationDraft>,
) -> AdminResult<Json<Simulation>> {
    let admin = &access.admin;
    let requests = draft.requests.unwrap_or(USUAL);
    if !(1..=MOST).contains(&requests) {
        return Err(invalid_field("requests", format!("must be between 1 and {MOST}")));
    }
    let seed = draft.seed.unwrap_or_else(|| rand::random::<u64>() & MAX_SEED);
    if seed > MAX_SEED {
        return Err(invalid_field("seed", format!("must not be above {MAX_SEED}")));
    }
    let snapshot = admin.live.load().clone();
    let combo = in_force(admin, &snapshot, &draft.combo, "simulate").await?.name.to_string();
    let (path, body) = match draft.request {
        Some(SimulatedRequest { path, body }) => {
            let body =
                if path.contains("/models/") { body.get().to_owned() } else { with_model(&body, &combo)? };
            (path, body)
        }
        None => {
            let question =
                serde_json::json!({"model": combo, "messages": [{"role": "user", "content": "Hello"}]});
            (PATH.to_owned(), question.to_string())
        }
    };
    let ask = PreviewAsk {
        method: Method::POST,
        path,
        headers: HeaderMap::new(),
        content: AskContent::Body(body.into()),
        api_key: draft.api_key_id.map(ApiKeyId::from),
        seed: Some(seed),
    };
    let played =
        admin.previews.rehearse(RehearsedAsk { ask, combo: combo.clone(), requests, lasts: LASTS }).await;
    let (preview, rehearsal) = played.map_err(|why| told(why, &combo))?;
    Ok(Json(view(preview, rehearsal, requests, seed)))
}

/// The body with the combo for its model where it names none.
fn with_model(body: &RawValue, combo: &str) -> AdminResult<String> {
    let members = serde_json::from_str::<BTreeMap<String, &RawValue>>(body.get());
    let members =
        members.map_err(|_| invalid_field("request.body", "must be an object, as clients send it"))?;
    if members.contains_key("model") {
        return Ok(body.get().to_owned());
    }
    let model = serde_json::value::to_raw_value(combo).map_err(internal)?;
    let mut members = members;
    members.insert("model".to_owned(), &model);
    serde_json::to_string(&members).map_err(internal)
}

fn told(why: NotRehearsed, combo: &str) -> AdminError {
    match why {
        NotRehearsed::Wrong(wrong) => {
            let of_request = matches!(&*wrong.field, "path" | "body");
            let field =
                if of_request { format!("request.{}", wrong.field) } else { wrong.field.into_owned() };
            invalid_field(&field, wrong.message)
        }
        NotRehearsed::Elsewhere(name) => unprocessable(
            "request.body.model",
            format!("leads to `{name}` and not to the combo `{combo}`; leave it out, or name the combo"),
        ),
        NotRehearsed::NoCombo => not_found("Combo"),
        NotRehearsed::Busy => unavailable(
            "another simulation is running, and one at a time is enough of a load; ask again when it is done",
        )
        .again_in(LASTS.as_secs()),
        NotRehearsed::Failed(error) => internal(error),
    }
}

fn view(preview: Preview, rehearsal: Rehearsal, wanted: u32, seed: u64) -> Simulation {
    let Rehearsal {
        combo,
        strategy,
        manner,
        budget,
        requests,
        refused,
        error,
        answered,
        mut targets,
        judge,
        input_tokens,
        decided_at,
    } = rehearsal;
    let cost = cost(&targets, judge.as_ref(), requests);
    targets.sort_by(|a, b| b.asked.total_cmp(&a.asked));
    let targets_left_out = targets.len().saturating_sub(MAX_TARGETS);
    let failure_path_left_out = preview.candidates.len().saturating_sub(MAX_CANDIDATES);
    let path = preview.candidates.into_iter().take(MAX_CANDIDATES).enumerate();
    Simulation {
        combo: combo.to_string(),
        strategy,
        manner,
        budget,
        requests,
        truncated: requests < wanted,
        seed,
        input_tokens,
        expected_answers: few(answered),
        expected_failures: few((f64::from(requests - refused) - answered).max(0.0)),
        refused,
        cost,
        targets: targets.into_iter().take(MAX_TARGETS).map(|row| target_view(row, requests)).collect(),
        targets_left_out,
        judge: judge.as_ref().map(judge_view),
        failure_path: path.map(|(place, candidate)| candidate_view(place + 1, candidate)).collect(),
        failure_path_left_out,
        error: preview.error.or(error).as_ref().map(error_view),
        decided_at: iso(decided_at),
    }
}

fn cost(targets: &[Row], judge: Option<&Judge>, requests: u32) -> SimulatedCost {
    let mut known: f64 = targets.iter().map(|row| row.spent_nano).sum();
    let mut unpriced: f64 = targets.iter().map(|row| row.unpriced).sum();
    if let Some(judge) = judge.filter(|judge| judge.calls > 0.0) {
        match judge.cost_nano {
            Some(nano) => known += judge.calls * nano_of(nano),
            None => unpriced += judge.calls,
        }
    }
    let total = (unpriced <= 0.0).then_some(known);
    SimulatedCost {
        expected_total_usd: total.map(dollars),
        expected_per_request_usd: total.map(|nano| dollars(nano / f64::from(requests.max(1)))),
        known_total_usd: dollars(known),
        unpriced_calls: few(unpriced),
    }
}

fn target_view(row: Row, requests: u32) -> SimulatedTarget {
    let connections_left_out = row.accounts.len().saturating_sub(MAX_ACCOUNTS);
    let (rule, reason, until) =
        row.skip.map_or((None, None, None), |skip| (Some(skip.rule), Some(skip.reason), skip.until.map(iso)));
    SimulatedTarget {
        steps: row.steps.iter().map(ToString::to_string).collect(),
        provider: row.target.0.to_string(),
        model: row.target.1.to_string(),
        measured: row.measured.map(|measured| SimulatedMeasure {
            requests: measured.requests,
            successes: measured.successes,
            success_rate: few(measured.rate() * 100.0),
            over: if measured.is_recent { "hour" } else { "all" },
        }),
        first_choice: row.first,
        first_choice_share: rounded(f64::from(row.first) / f64::from(requests.max(1))),
        expected_asked: few(row.asked),
        expected_fallbacks: few(row.fallbacks),
        expected_answers: few(row.answers),
        skipped: (row.skipped > 0).then_some(SimulatedSkip { requests: row.skipped, rule, reason, until }),
        estimated_cost_usd: row.cost_nano.map(usd),
        expected_cost_usd: row.cost_nano.filter(|_| row.unpriced <= 0.0).map(|_| dollars(row.spent_nano)),
        connections: row
            .accounts
            .into_iter()
            .take(MAX_ACCOUNTS)
            .map(|(id, name, requests)| SimulatedAccount {
                connection_id: id.to_string(),
                connection_name: name.to_string(),
                requests,
            })
            .collect(),
        connections_left_out,
    }
}

fn judge_view(judge: &Judge) -> SimulatedJudge {
    SimulatedJudge {
        provider: judge.provider.to_string(),
        model: judge.model.to_string(),
        expected_asked: few(judge.calls),
        estimated_cost_usd: judge.cost_nano.map(usd),
        expected_cost_usd: judge.cost_nano.map(|nano| dollars(judge.calls * nano_of(nano))),
    }
}

#[allow(clippy::cast_precision_loss, reason = "money of an estimate")]
const fn nano_of(nano: i64) -> f64 {
    nano as f64
}

/// Billionths of a US dollar in dollars.
#[allow(clippy::cast_possible_truncation, reason = "an `f64` that is too large becomes the largest")]
fn dollars(nano: f64) -> f64 {
    usd(nano.round() as i64)
}

/// To four places behind the point: requests that nobody could tell apart are equal.
fn few(value: f64) -> f64 {
    // Plus nothing: a sum of nothing is -0.
    (value * 1e4).round() / 1e4 + 0.0
}
