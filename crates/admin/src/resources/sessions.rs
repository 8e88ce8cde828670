//! Conversations, and the accounts they stay with: `/api/sessions`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use omniroute_domain::handoff::{Handoff, HandoffKey};
use omniroute_domain::session::{SessionView, Sessions};
use omniroute_engine::ports::Memory;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::auth::Management;
use crate::endpoint::{Filter, Json};
use crate::error::{AdminResult, invalid_field, not_found};
use crate::state::Admin;

/// A conversation.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Session {
    /// `ext:` and the client's name for it, or by what it is recognised.
    session_id: String,
    /// Milliseconds since the epoch.
    created_at: i64,
    /// Milliseconds since the epoch.
    last_active: i64,
    /// Since the process started.
    request_count: u64,
    /// The account it stays with; null before the first answer.
    connection_id: Option<String>,
    age_ms: i64,
    idle_ms: i64,
    /// Null for clients without a key.
    api_key_id: Option<String>,
    /// The summaries that it takes with it to another account, by combo.
    handoffs: Vec<HandoffView>,
}

/// A summary for the account that answers next. Its text is a part of the conversation and is not shown.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct HandoffView {
    combo: String,
    /// Whose answers were summed up.
    from_connection_id: String,
    /// Who wrote it.
    model: String,
    /// How many messages the conversation had.
    message_count: u32,
    /// Milliseconds since the epoch.
    generated_at: i64,
    /// Milliseconds since the epoch.
    expires_at: i64,
}

/// What became of summaries since the process started.
#[derive(Serialize, ToSchema)]
struct HandoffCounts {
    made: u64,
    /// Were told to an account that then answered.
    told: u64,
    failed: u64,
    /// Were due, but too many were under way or a budget nearly used up.
    skipped: u64,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SessionList {
    count: usize,
    /// The latest first.
    sessions: Vec<Session>,
    /// How many each key has; `-` stands for clients without one.
    by_api_key: BTreeMap<String, usize>,
    /// Of combos whose strategy is `context-relay`.
    handoffs: HandoffCounts,
}

#[derive(Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(rename_all = "camelCase")]
pub(crate) struct SessionQuery {
    /// The id of a conversation.
    session_id: Option<String>,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct Unpinned {
    success: bool,
    /// How many conversations had this id.
    unpinned: usize,
}

pub(crate) async fn list(access: Management) -> AdminResult<Json<SessionList>> {
    let found = known(&access.admin, access.now_ms);
    let by_api_key = Sessions::by_tenant(&found);
    let handoffs = &access.admin.live.handoffs;
    let known = handoffs.list(access.now_ms);
    let sessions: Vec<_> = found.into_iter().map(|session| view(session, &known, access.now_ms)).collect();
    let counts = &handoffs.counts;
    let handoffs = HandoffCounts {
        made: counts.made.load(Ordering::Relaxed),
        told: counts.told.load(Ordering::Relaxed),
        failed: counts.failed.load(Ordering::Relaxed),
        skipped: counts.skipped.load(Ordering::Relaxed),
    };
    Ok(Json(SessionList { count: sessions.len(), sessions, by_api_key, handoffs }))
}

/// Ends a conversation: its next request may go to any account.
pub(crate) async fn unpin(
    access: Management,
    Filter(query): Filter<SessionQuery>,
) -> AdminResult<Json<Unpinned>> {
    let id = query.session_id.ok_or_else(|| invalid_field("sessionId", "is required"))?;
    let mut gone = access.admin.live.sessions.forget(&id);
    // Also of one that is no longer known.
    for handoff in access.admin.live.handoffs.forget(&id) {
        if !gone.contains(&handoff.session) {
            gone.push(handoff.session.clone());
        }
        access.admin.recorder.remember(Memory::HandoffGone(handoff));
    }
    if gone.is_empty() {
        return Err(not_found("Session"));
    }
    let unpinned = gone.len();
    for key in gone {
        access.admin.recorder.remember(Memory::Unpinned(key));
    }
    access.audit("session.unpin", "session", &id, "").await;
    Ok(Json(Unpinned { success: true, unpinned }))
}

/// Those that are not over.
pub(super) fn known(admin: &Admin, now_ms: i64) -> Vec<SessionView> {
    let ttl = admin.live.load().settings.session_affinity_ttl_ms;
    admin.live.sessions.list(i64::try_from(ttl).unwrap_or(i64::MAX), now_ms)
}

fn view(session: SessionView, handoffs: &[(HandoffKey, Arc<Handoff>)], now_ms: i64) -> Session {
    let tenant = session.key.tenant();
    let own = handoffs.iter().filter(|(key, _)| key.session == session.key);
    let handoffs = own.map(|(key, handoff)| HandoffView {
        combo: key.combo.to_string(),
        from_connection_id: handoff.from.to_string(),
        model: handoff.model.clone(),
        message_count: handoff.turns,
        generated_at: handoff.made_at,
        expires_at: handoff.expires_at,
    });
    let handoffs = handoffs.collect();
    Session {
        session_id: session.key.id().to_owned(),
        created_at: session.created_at,
        last_active: session.last_active,
        request_count: session.requests,
        connection_id: session.connection.map(|id| id.to_string()),
        age_ms: now_ms - session.created_at,
        idle_ms: now_ms - session.last_active,
        api_key_id: (tenant != "-").then(|| tenant.to_owned()),
        handoffs,
    }
}
