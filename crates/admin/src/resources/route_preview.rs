//! What would become of a client's request, without sending it: `/api/route/explain`.

use std::collections::BTreeMap;

use http::{HeaderMap, HeaderName, HeaderValue};
use omniroute_domain::entity::ApiKeyId;
use omniroute_engine::preview::{Preview, PreviewedCandidate};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::auth::Management;
use crate::endpoint::{Body, Json};
use crate::error::{AdminResult, invalid_field};
use crate::state::PreviewAsk;
use crate::text::{iso, usd};

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RouteQuestion {
    /// The path that the client would call, with its query: `/v1/chat/completions`.
    path: String,
    /// The body that it would send.
    #[schema(value_type = Object)]
    body: Box<serde_json::value::RawValue>,
    /// Headers that it would send.
    #[serde(default)]
    headers: BTreeMap<String, String>,
    /// The key that it would use, by its id; absent = none.
    api_key_id: Option<String>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RouteAnswer {
    requested_model: String,
    /// `combo`, `alias`, `direct` or `bare`; null when the name leads nowhere.
    via: Option<&'static str>,
    combo: Option<String>,
    /// Of the combo's targets, or of the accounts where there is one target.
    strategy: Option<&'static str>,
    /// The names of the policies that apply, in order.
    policies: Vec<String>,
    candidates: Vec<CandidateView>,
    error: Option<RouteError>,
    decided_at: String,
}

/// An account for a target, or an entry of a combo that leads to none.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct CandidateView {
    /// Its place, counted from 1.
    order: usize,
    provider: Option<String>,
    model: String,
    connection_id: Option<String>,
    connection_name: Option<String>,
    /// In which it would be asked.
    dialect: Option<&'static str>,
    /// `try` or `skip`.
    action: &'static str,
    /// `cooldown`, `model_lock`, `inactive`, `concurrency`, `rate_limit`, `key`, `policy`, `excluded`, `condition`, `capability` or
    /// `nesting`.
    rule: Option<&'static str>,
    reason: Option<String>,
    /// When it may be asked again.
    until: Option<String>,
    /// Null = unknown.
    estimated_cost_usd: Option<f64>,
}

/// What the client would get.
#[derive(Serialize, ToSchema)]
struct RouteError {
    status: u16,
    code: Option<String>,
    message: String,
}

pub(crate) async fn explain(
    access: Management,
    Body(question): Body<RouteQuestion>,
) -> AdminResult<Json<RouteAnswer>> {
    let mut headers = HeaderMap::new();
    for (name, value) in &question.headers {
        let field = format!("headers.{name}");
        let name = name.parse::<HeaderName>().map_err(|_| invalid_field(&field, "is no header's name"))?;
        let value =
            HeaderValue::from_str(value).map_err(|_| invalid_field(&field, "is no header's value"))?;
        headers.insert(name, value);
    }
    let ask = PreviewAsk {
        path: question.path,
        headers,
        body: question.body.get().to_owned().into(),
        api_key: question.api_key_id.map(ApiKeyId::from),
    };
    let preview = access.admin.previews.preview(ask).await;
    let preview = preview.map_err(|wrong| invalid_field(wrong.field, wrong.message))?;
    Ok(Json(view(preview)))
}

fn view(preview: Preview) -> RouteAnswer {
    let candidates = preview.candidates.into_iter().enumerate();
    RouteAnswer {
        requested_model: preview.requested_model,
        via: preview.via,
        combo: preview.combo.map(|name| name.to_string()),
        strategy: preview.strategy,
        policies: preview.policies.iter().map(ToString::to_string).collect(),
        candidates: candidates.map(|(place, candidate)| candidate_view(place + 1, candidate)).collect(),
        error: preview.error.map(|error| RouteError {
            status: error.kind.status(),
            code: error.code.map(|code| code.into_owned()),
            message: error.message,
        }),
        decided_at: iso(preview.decided_at),
    }
}

fn candidate_view(order: usize, candidate: PreviewedCandidate) -> CandidateView {
    let (connection_id, connection_name) =
        candidate.connection.map(|(id, name)| (id.to_string(), name.to_string())).unzip();
    let action = if candidate.skip.is_some() { "skip" } else { "try" };
    let (rule, reason, until) =
        candidate.skip.map_or((None, None, None), |skip| (Some(skip.rule), Some(skip.reason), skip.until));
    CandidateView {
        order,
        provider: candidate.provider,
        model: candidate.model,
        connection_id,
        connection_name,
        dialect: candidate.dialect,
        action,
        rule,
        reason,
        until: until.map(iso),
        estimated_cost_usd: candidate.cost_nano.map(usd),
    }
}
