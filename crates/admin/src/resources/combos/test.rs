//! A tiny question to every entry of a combo: `/api/combos/test`. It asks the upstreams directly, so no cooldown, lock or
//! count changes.

use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use omniroute_domain::combo::{self, LeftOut, Planned, RequestFacts};
use serde::{Deserialize, Serialize};
use tokio::time::timeout;
use utoipa::ToSchema;

use crate::auth::Management;
use crate::endpoint::{Body, Json};
use crate::error::{AdminResult, not_found};
use crate::probe::{Subject, Verdict, probe_chat};
use crate::state::Admin;
use crate::text::iso;

/// Entries asked at once.
const AT_ONCE: usize = 3;
/// How long each may take.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ComboTest {
    combo_name: String,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ComboTestResult {
    combo_name: String,
    strategy: &'static str,
    /// The first that answered, in the order of the strategy.
    resolved_by: Option<String>,
    resolved_by_target: Option<Box<TargetResult>>,
    results: Vec<TargetResult>,
    tested_at: String,
}

#[derive(Serialize, ToSchema, Clone)]
#[serde(rename_all = "camelCase")]
struct TargetResult {
    model: String,
    provider: Option<String>,
    step_id: String,
    connection_id: Option<String>,
    /// `ok`, `error` or `skipped`.
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    status_code: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    latency_ms: i64,
}

pub(crate) async fn test(
    access: Management,
    Body(body): Body<ComboTest>,
) -> AdminResult<Json<ComboTestResult>> {
    let admin = &access.admin;
    let snapshot = admin.live.load().clone();
    let combo = snapshot.combo(&body.combo_name).ok_or_else(|| not_found("Combo"))?;
    let plan = combo::plan(&snapshot, combo, &RequestFacts::default(), access.now_ms, 0, false);
    let mut results: Vec<TargetResult> =
        stream::iter(plan.targets).map(|planned| ask(admin, planned)).buffered(AT_ONCE).collect().await;
    let first = results.iter().find(|result| result.status == "ok").cloned();
    results.extend(plan.left_out.into_iter().map(skipped));
    access.audit("combo.tested", "combo", combo.id.as_str(), &combo.name).await;
    Ok(Json(ComboTestResult {
        combo_name: combo.name.to_string(),
        strategy: combo.strategy.name(),
        resolved_by: first.as_ref().map(|first| first.model.clone()),
        resolved_by_target: first.map(Box::new),
        results,
        tested_at: iso(access.now_ms),
    }))
}

async fn ask(admin: &Admin, planned: Planned) -> TargetResult {
    let target = &planned.target;
    let pinned = target.connection_name.as_deref();
    let connection =
        target.provider.connections.iter().find(|own| pinned.is_none_or(|name| *own.name == *name));
    let mut result = TargetResult {
        model: target.full_name(),
        provider: Some(target.provider.id.to_string()),
        step_id: planned.path.last().map(|place| place.step().id.to_string()).unwrap_or_default(),
        connection_id: connection.map(|connection| connection.id.to_string()),
        status: "error",
        status_code: None,
        error: None,
        latency_ms: 0,
    };
    let Some(connection) = connection else {
        result.error = Some("the provider has no active account".to_owned());
        return result;
    };
    let subject = Subject {
        provider: &*target.provider.provider,
        endpoints: &connection.endpoints,
        services: &connection.services,
        allow_private: connection.allow_private,
    };
    match timeout(PATIENCE, probe_chat(admin, &subject, &target.model)).await {
        Ok(verdict) => fill(&mut result, &verdict),
        Err(_) => result.error = Some(format!("no answer within {} s", PATIENCE.as_secs())),
    }
    result
}

fn fill(result: &mut TargetResult, verdict: &Verdict) {
    result.status_code = verdict.status;
    result.latency_ms = verdict.latency_ms;
    if verdict.failure.is_none() && verdict.unsupported.is_none() {
        result.status = "ok";
    } else {
        result.error = verdict.message().or_else(|| verdict.unsupported.clone());
    }
}

fn skipped(left: LeftOut) -> TargetResult {
    TargetResult {
        model: left.goal,
        provider: None,
        step_id: left.step.to_string(),
        connection_id: None,
        status: "skipped",
        status_code: None,
        error: Some(left.reason),
        latency_ms: 0,
    }
}
