//! A small question to every entry of a combo: `/api/combos/test`. It asks the upstreams directly, so no cooldown, lock or
//! count changes; nor does an entry's condition keep it from being asked.

use std::slice;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use omniroute_dialect::registry;
use omniroute_domain::combo::LeftOut;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;
use utoipa::ToSchema;

use super::entries::{Entry, entries};
use crate::auth::Management;
use crate::endpoint::{Body, Json};
use crate::error::{AdminResult, invalid_field};
use crate::probe::{Question, Subject, Verdict, ask_chat};
use crate::state::Admin;
use crate::text::iso;

/// Entries asked at once.
const AT_ONCE: usize = 3;
/// How long each may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// What is asked where the operator says nothing else, and how long the answer may be.
const QUESTION: &str = "Reply with the one word: ready";
const MAX_TOKENS: u64 = 64;
/// Longest question, and how much is shown of an answer, in characters.
const MAX_MESSAGE: usize = 2_000;
const MAX_TEXT: usize = 1_000;

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ComboTest {
    combo_name: String,
    /// What to ask, 1 to 2,000 characters; absent = for one word.
    message: Option<String>,
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
    /// Why requests like this one leave the entry out; it is asked all the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    left_out: Option<String>,
    latency_ms: i64,
    /// The beginning of the answer, up to 1,000 characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    response_text: Option<String>,
}

pub(crate) async fn test(
    access: Management,
    Body(body): Body<ComboTest>,
) -> AdminResult<Json<ComboTestResult>> {
    let admin = &access.admin;
    let snapshot = admin.live.load().clone();
    let message = body.message.as_deref().map_or(QUESTION, str::trim);
    if message.is_empty() || message.chars().count() > MAX_MESSAGE {
        return Err(invalid_field(
            "message",
            "must have 1 to 2,000 characters; leave it out for a question of ours",
        ));
    }
    let combo = super::in_force(admin, &snapshot, &body.combo_name, "test").await?;
    let (entries, dead) = entries(&snapshot, combo, access.now_ms);
    let mut results: Vec<TargetResult> =
        stream::iter(entries).map(|entry| ask(admin, entry, message)).buffered(AT_ONCE).collect().await;
    let first = results.iter().find(|result| result.status == "ok" && result.left_out.is_none()).cloned();
    results.extend(dead.into_iter().map(skipped));
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

async fn ask(admin: &Admin, entry: Entry, message: &str) -> TargetResult {
    let (target, now_ms) = (&entry.target, admin.now_ms());
    let account = entry.account(now_ms);
    let mut result = TargetResult {
        model: target.full_name(),
        provider: Some(target.provider.id.to_string()),
        step_id: entry.step.to_string(),
        connection_id: account.ok().map(|connection| connection.id.to_string()),
        status: "error",
        status_code: None,
        error: None,
        left_out: entry.left_out.clone(),
        latency_ms: 0,
        response_text: None,
    };
    let connection = match account {
        Ok(connection) => connection,
        Err(reason) => {
            result.error = Some(reason.to_owned());
            return result;
        }
    };
    // As a client of chat completions would ask.
    let only = target.provider.only_dialect(&target.model);
    let endpoint = connection.endpoint_for(registry::DIALECTS[0].id(), only, now_ms);
    if let (Some(only), None) = (only, endpoint) {
        result.error =
            Some(format!("the model is served in `{only}` alone, which the account does not have"));
        return result;
    }
    let subject = Subject {
        provider: &*target.provider.provider,
        endpoints: endpoint.map_or(&[], slice::from_ref),
        services: &connection.services,
        allow_private: connection.allow_private,
    };
    let question = Question { text: message, max_tokens: MAX_TOKENS };
    match timeout(PATIENCE, ask_chat(admin, &subject, &target.model, question)).await {
        Ok(verdict) => fill(&mut result, verdict),
        Err(_) => result.error = Some(format!("no answer within {} s", PATIENCE.as_secs())),
    }
    result
}

fn fill(result: &mut TargetResult, verdict: Verdict) {
    result.status_code = verdict.status;
    result.latency_ms = verdict.latency_ms;
    if verdict.failure.is_none() && verdict.unsupported.is_none() {
        result.status = "ok";
        result.response_text = verdict.text.map(|text| text.chars().take(MAX_TEXT).collect());
    } else {
        result.error = verdict.message().or(verdict.unsupported);
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
        left_out: None,
        latency_ms: 0,
        response_text: None,
    }
}
