//! What would become of a client's request, without sending it: `/api/route/explain`.

use std::collections::BTreeMap;

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use omniroute_domain::entity::ApiKeyId;
use omniroute_domain::policy::Observed;
use omniroute_engine::GatewayError;
use omniroute_engine::preview::{Preview, PreviewedCandidate};
use omniroute_store::{CallLog, LoggedDecision, LoggedObserved};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::auth::Management;
use crate::endpoint::{Json, Quoted};
use crate::error::{AdminResult, invalid_field};
use crate::state::{AskContent, AskField, PreviewAsk};
use crate::text::{iso, usd};

/// Longest recording that is asked about: a week.
const MAX_SECONDS: f64 = 604_800.0;

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RouteQuestion {
    /// The method that it would use; absent = `POST`. `GET` and `DELETE` are for what a vendor keeps: `/v1/responses/{id}`.
    method: Option<String>,
    /// The path that the client would call, with its query: `/v1/chat/completions`, `/v1/embeddings`, …
    path: String,
    /// The body that it would send; absent where that is a form, or nothing.
    #[schema(value_type = Option<Object>)]
    body: Option<Box<RawValue>>,
    /// The fields of the form that it would send, in order, instead of a body.
    form: Option<Vec<FormField>>,
    /// Headers that it would send.
    #[serde(default)]
    headers: BTreeMap<String, String>,
    /// The key that it would use, by its id; absent = one without restrictions and limits.
    api_key_id: Option<String>,
    /// The random bits to decide with, as an earlier answer or a record has them; absent = others each time.
    seed: Option<String>,
}

/// A field of a form: a text has a `value`, a file has its length in `bytes`. What is in the file is not asked for.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct FormField {
    /// `model`, `file`, …
    name: String,
    /// A text.
    value: Option<String>,
    /// Length of a file.
    bytes: Option<u64>,
    /// Name of a file.
    filename: Option<String>,
    /// Type of a file: `audio/mpeg`, `image/png`, …
    content_type: Option<String>,
    /// How long a recording plays; absent = as by its length, at 16,000 bytes a second.
    seconds: Option<f64>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RouteAnswer {
    requested_model: String,
    /// `combo`, `auto`, `alias`, `direct` or `bare`; null when the name leads nowhere.
    via: Option<String>,
    combo: Option<String>,
    /// Of the combo's targets, or of the accounts where there is one target.
    strategy: Option<String>,
    /// The names of the policies that apply, in order.
    policies: Vec<String>,
    /// What policies that only observe would have done.
    observed: Vec<ObservedView>,
    /// What becomes of the request because a budget has no room for it (`daily free-only`); null where nothing does.
    budget: Option<String>,
    /// The account whose conversation was taken over with a summary (`context-relay`). Known of requests that were made.
    handoff_from: Option<String>,
    /// The random bits of the decision, as a text because JavaScript's numbers have 53 of them.
    seed: String,
    /// `code`, `reasoning`, `simple`, `medium` or `vision`, where `auto` had to know.
    task: Option<String>,
    /// The tokens of the prompt by the gateway's estimate, where they are to be counted: the answer where nobody is asked for it, and
    /// where whoever is does not count. Null for other requests, and in records.
    estimated_tokens: Option<u64>,
    candidates: Vec<CandidateView>,
    error: Option<RouteError>,
    decided_at: String,
}

/// What a policy with the mode `observe` would have done.
#[derive(Serialize, ToSchema)]
pub(crate) struct ObservedView {
    /// Its name.
    policy: String,
    /// In words: `would have been denied: …`.
    effect: String,
}

impl From<Observed> for ObservedView {
    fn from(observed: Observed) -> Self {
        Self { policy: observed.policy.to_string(), effect: observed.effect }
    }
}

/// An account for a target, or an entry of a combo that leads to none.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CandidateView {
    /// Its place, counted from 1.
    order: usize,
    /// When its target is asked, counted from 1: targets with the same number start together. Null where there is one
    /// target, and for those that are not asked.
    wave: Option<usize>,
    provider: Option<String>,
    model: String,
    connection_id: Option<String>,
    connection_name: Option<String>,
    /// In which it would be asked.
    dialect: Option<String>,
    /// `try` or `skip`.
    action: &'static str,
    /// `cooldown`, `model_lock`, `breaker`, `inactive`, `concurrency`, `rate_limit`, `key`, `policy`, `width`, `excluded`,
    /// `condition`, `capability`, `nesting` or `budget`.
    rule: Option<String>,
    reason: Option<String>,
    /// When it may be asked again.
    until: Option<String>,
    /// Null = unknown.
    estimated_cost_usd: Option<f64>,
    /// Where `auto` chose: the sum of the factors times their weights.
    score: Option<f64>,
    /// Each between 0 and 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    factors: Option<BTreeMap<String, f64>>,
}

/// What the client would get.
#[derive(Serialize, ToSchema)]
pub(crate) struct RouteError {
    status: u16,
    code: Option<String>,
    message: String,
}

pub(crate) async fn explain(
    access: Management,
    Quoted(question): Quoted<RouteQuestion>,
) -> AdminResult<Json<RouteAnswer>> {
    let mut headers = HeaderMap::new();
    for (name, value) in &question.headers {
        let field = format!("headers.{name}");
        let name = name.parse::<HeaderName>().map_err(|_| invalid_field(&field, "is no header's name"))?;
        let value =
            HeaderValue::from_str(value).map_err(|_| invalid_field(&field, "is no header's value"))?;
        headers.insert(name, value);
    }
    let method =
        question.method.as_deref().map_or(Ok(Method::POST), |name| name.to_ascii_uppercase().parse());
    let ask = PreviewAsk {
        method: method.map_err(|_| invalid_field("method", "is no method of HTTP"))?,
        path: question.path,
        headers,
        content: content(question.body, question.form)?,
        api_key: question.api_key_id.map(ApiKeyId::from),
        seed: question.seed.as_deref().map(seed).transpose()?,
    };
    let preview = access.admin.previews.preview(ask).await;
    let preview = preview.map_err(|wrong| invalid_field(&wrong.field, wrong.message))?;
    Ok(Json(view(preview)))
}

/// Random bits as they are shown.
fn seed(text: &str) -> AdminResult<u64> {
    let bits = text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()));
    bits.ok_or_else(|| invalid_field("seed", "must be a text of digits, as the `seed` of a record is"))
}

/// A body or a form.
fn content(body: Option<Box<RawValue>>, form: Option<Vec<FormField>>) -> AdminResult<AskContent> {
    match (body, form) {
        (Some(body), None) => Ok(AskContent::Body(body.get().to_owned().into())),
        (None, Some(form)) => {
            let fields = form.into_iter().enumerate().map(|(at, field)| {
                let name = field.name.clone();
                Ok((name, field.asked(&format!("form[{at}]"))?))
            });
            Ok(AskContent::Form(fields.collect::<AdminResult<_>>()?))
        }
        (None, None) => Ok(AskContent::Nothing),
        (Some(_), Some(_)) => {
            Err(invalid_field("form", "and `body` exclude each other; send what the client would"))
        }
    }
}

impl FormField {
    /// `path` is where it stands.
    fn asked(self, path: &str) -> AdminResult<AskField> {
        let wrong = |member: &str, message: &str| invalid_field(&format!("{path}.{member}"), message);
        let Self { name: _, value, bytes, filename, content_type, seconds } = self;
        match (value, bytes) {
            (Some(value), None) => {
                let given = [
                    ("filename", filename.is_some()),
                    ("contentType", content_type.is_some()),
                    ("seconds", seconds.is_some()),
                ];
                match given.into_iter().find(|(_, is_given)| *is_given) {
                    Some((member, _)) => Err(wrong(member, "belongs to a file, and this is a text")),
                    None => Ok(AskField::Text(value)),
                }
            }
            (None, Some(bytes)) => match seconds {
                Some(seconds) if !(0.0..=MAX_SECONDS).contains(&seconds) => {
                    Err(wrong("seconds", &format!("must be from 0 to {MAX_SECONDS}")))
                }
                seconds => {
                    let filename = filename.unwrap_or_default();
                    Ok(AskField::File { filename, content_type, bytes, seconds })
                }
            },
            (None, None) => Err(wrong("value", "is required of a text, `bytes` of a file")),
            (Some(_), Some(_)) => {
                Err(wrong("bytes", "is for files, and `value` for texts; give one of them"))
            }
        }
    }
}

fn view(preview: Preview) -> RouteAnswer {
    let candidates = preview.candidates.into_iter().enumerate();
    RouteAnswer {
        requested_model: preview.requested_model,
        via: preview.via.map(str::to_owned),
        combo: preview.combo.map(|name| name.to_string()),
        strategy: preview.strategy.map(str::to_owned),
        policies: preview.policies.iter().map(ToString::to_string).collect(),
        observed: preview.observed.into_iter().map(ObservedView::from).collect(),
        budget: preview.budget,
        handoff_from: None,
        seed: preview.seed.to_string(),
        task: preview.task.map(str::to_owned),
        estimated_tokens: preview.estimated_tokens,
        candidates: candidates.map(|(place, candidate)| candidate_view(place + 1, candidate)).collect(),
        error: preview.error.as_ref().map(error_view),
        decided_at: iso(preview.decided_at),
    }
}

pub(crate) fn error_view(error: &GatewayError) -> RouteError {
    let code = Some(error.told_code().to_owned());
    RouteError { status: error.kind.status(), code, message: error.message.clone() }
}

pub(crate) fn candidate_view(order: usize, candidate: PreviewedCandidate) -> CandidateView {
    let (connection_id, connection_name) =
        candidate.connection.map(|(id, name)| (id.to_string(), name.to_string())).unzip();
    let action = if candidate.skip.is_some() { "skip" } else { "try" };
    let (rule, reason, until) = candidate
        .skip
        .map_or((None, None, None), |skip| (Some(skip.rule.to_owned()), Some(skip.reason), skip.until));
    CandidateView {
        order,
        wave: candidate.wave,
        provider: candidate.provider.map(|id| id.to_string()),
        model: candidate.model.to_string(),
        connection_id,
        connection_name,
        dialect: candidate.dialect.map(str::to_owned),
        action,
        rule,
        reason,
        until: until.map(iso),
        estimated_cost_usd: candidate.cost_nano.map(usd),
        score: candidate.score.map(|score| rounded(score.total)),
        factors: candidate.score.map(|score| {
            score.factors().map(|(factor, value)| (factor.name().to_owned(), rounded(value))).collect()
        }),
    }
}

/// What was decided about a request that is in the log.
pub(crate) fn logged(decision: LoggedDecision, row: &CallLog) -> RouteAnswer {
    let candidates = decision.candidates.into_iter().enumerate().map(|(place, candidate)| {
        let action = if candidate.rule.is_some() { "skip" } else { "try" };
        CandidateView {
            order: place + 1,
            wave: candidate.wave,
            provider: candidate.provider,
            model: candidate.model,
            connection_id: candidate.connection_id,
            connection_name: candidate.connection_name,
            dialect: candidate.dialect,
            action,
            rule: candidate.rule,
            reason: candidate.reason,
            until: candidate.until.map(iso),
            estimated_cost_usd: candidate.cost_nano.map(usd),
            score: candidate.score,
            factors: Some(candidate.factors).filter(|factors| !factors.is_empty()),
        }
    });
    RouteAnswer {
        requested_model: row.requested_model.clone(),
        via: decision.via,
        combo: decision.combo,
        strategy: decision.strategy,
        policies: decision.policies,
        observed: decision
            .observed
            .into_iter()
            .map(|LoggedObserved { policy, effect }| ObservedView { policy, effect })
            .collect(),
        budget: decision.budget,
        handoff_from: decision.handoff_from,
        seed: decision.seed.to_string(),
        task: decision.task,
        estimated_tokens: None,
        candidates: candidates.collect(),
        error: row.error.as_ref().map(|message| RouteError {
            status: u16::try_from(row.status).unwrap_or(500),
            code: row.error_code.clone(),
            message: message.clone(),
        }),
        decided_at: iso(decision.decided_at),
    }
}

/// To six places behind the point: scores that differ by less are equal.
pub(crate) fn rounded(value: f64) -> f64 {
    (value * 1e6).round() / 1e6
}
