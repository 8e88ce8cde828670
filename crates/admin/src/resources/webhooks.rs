//! Addresses that are told of what happens: `/api/webhooks`.

use std::sync::atomic::Ordering;

use omniroute_store::Webhook;
use secrecy::ExposeSecret as _;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{Done, present};
use crate::address::check_url;
use crate::auth::Management;
use crate::endpoint::{Body, Created, Id, Json};
use crate::error::{AdminResult, MAX_ROUNDS, Refusal, not_found, overtaken};
use crate::state::Admin;
use crate::text::iso;
use crate::validation::Problems;
use crate::webhooks::{Courier, EVENTS, EVERYTHING, Occurrence, Outcome, TEST, new_secret, send};

/// Most webhooks.
const MOST: usize = 50;
/// How long a secret is good beside the one that took its place.
const OVERLAP_MS: i64 = 24 * 3_600 * 1_000;

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct WebhookList {
    webhooks: Vec<WebhookView>,
    /// What a webhook may be told of; `*` stands for all of it.
    available_events: [&'static str; 6],
    delivery: DeliveryCounts,
}

/// Messages of this process, since it started.
#[derive(Serialize, ToSchema)]
struct DeliveryCounts {
    /// On their way, or waiting for another try.
    waiting: u64,
    delivered: u64,
    /// Given up: after four tries, or because the webhook was deleted or switched off.
    failed: u64,
    /// Lost, because too many were waiting.
    dropped: u64,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct WebhookAnswer {
    webhook: WebhookView,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct WebhookWithSecret {
    webhook: WebhookView,
    /// What messages are signed with. It is shown this once.
    secret: String,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct WebhookView {
    id: String,
    url: String,
    events: Vec<String>,
    description: Option<String>,
    allow_private: bool,
    enabled: bool,
    /// What it answered last; null when there was no answer, or nothing was sent yet.
    last_status: Option<i64>,
    /// Why it could not be told the last time; null when it was.
    last_error: Option<String>,
    last_attempt_at: Option<String>,
    last_delivered_at: Option<String>,
    created_at: String,
    updated_at: String,
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct WebhookPatch {
    url: Option<String>,
    /// Among `availableEvents`, or `*`; all of them where none is named.
    events: Option<Vec<String>>,
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>)]
    description: Option<Option<String>>,
    /// Whether private and loopback addresses may be called.
    allow_private: Option<bool>,
    enabled: Option<bool>,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct TestAnswer {
    /// Whether it was taken.
    success: bool,
    /// What was answered; null when nothing was.
    status: Option<u16>,
    error: Option<String>,
}

pub(crate) async fn list(access: Management) -> AdminResult<Json<WebhookList>> {
    let webhooks = access.admin.store.webhooks().list().await?;
    let counts = &access.admin.live.notices;
    let delivery = DeliveryCounts {
        waiting: counts.waiting.load(Ordering::Relaxed),
        delivered: counts.delivered.load(Ordering::Relaxed),
        failed: counts.failed.load(Ordering::Relaxed),
        dropped: counts.dropped.load(Ordering::Relaxed),
    };
    let webhooks = webhooks.into_iter().map(view).collect();
    Ok(Json(WebhookList { webhooks, available_events: EVENTS, delivery }))
}

pub(crate) async fn show(access: Management, Id(id): Id) -> AdminResult<Json<WebhookAnswer>> {
    Ok(Json(WebhookAnswer { webhook: view(find(&access.admin, &id).await?) }))
}

pub(crate) async fn create(
    access: Management,
    Body(draft): Body<WebhookPatch>,
) -> AdminResult<Created<WebhookWithSecret>> {
    if draft.url.is_none() {
        let mut problems = Problems::default();
        problems.add("url", "is required");
        problems.done()?;
    }
    let mut webhook = Webhook {
        id: Uuid::now_v7().to_string(),
        events: vec![EVERYTHING.to_owned()],
        enabled: true,
        created_at: access.now_ms,
        updated_at: access.now_ms,
        ..Webhook::default()
    };
    merge(&mut webhook, &draft)?;
    check_address(&access.admin, &webhook).await?;
    let secret = new_secret();
    access.admin.store.webhooks().insert(&webhook, &secret, MOST).await?;
    access.audit("webhook.created", "webhook", &webhook.id, &webhook.events.join(", ")).await;
    Ok(Created(WebhookWithSecret { webhook: view(webhook), secret: secret.expose_secret().to_owned() }))
}

pub(crate) async fn update(
    access: Management,
    Id(id): Id,
    Body(patch): Body<WebhookPatch>,
) -> AdminResult<Json<WebhookAnswer>> {
    let webhook = change(&access, &id, &patch).await?;
    access.audit("webhook.updated", "webhook", &id, &webhook.events.join(", ")).await;
    Ok(Json(WebhookAnswer { webhook: view(webhook) }))
}

pub(crate) async fn delete(access: Management, Id(id): Id) -> AdminResult<Json<Done>> {
    if !access.admin.store.webhooks().delete(&id).await? {
        return Err(not_found("Webhook"));
    }
    access.audit("webhook.deleted", "webhook", &id, "").await;
    Ok(Json(Done::new()))
}

/// Another secret. For a day messages are signed with both, so that receivers can change over.
pub(crate) async fn rotate(access: Management, Id(id): Id) -> AdminResult<Json<WebhookWithSecret>> {
    let secret = new_secret();
    let until = access.now_ms.saturating_add(OVERLAP_MS);
    access.admin.store.webhooks().rotate(&id, &secret, until, access.now_ms).await?;
    access.audit("webhook.secret.rotated", "webhook", &id, "").await;
    let webhook = view(find(&access.admin, &id).await?);
    Ok(Json(WebhookWithSecret { webhook, secret: secret.expose_secret().to_owned() }))
}

/// One message at once, also to one that is switched off. It is not tried again.
pub(crate) async fn test(access: Management, Id(id): Id) -> AdminResult<Json<TestAnswer>> {
    let admin = &access.admin;
    let webhook = find(admin, &id).await?;
    let courier = Courier::new(
        admin.store.clone(),
        admin.live.clone(),
        admin.transport.clone(),
        admin.clock.clone(),
        admin.settings.allow_private,
    );
    let data = json!({"webhookId": id, "message": "a test; nothing happened"});
    let occurrence = Occurrence::new(TEST, access.now_ms, data);
    let Outcome { status, error } = send(&courier, &webhook, &occurrence.id, occurrence.body()).await;
    access.audit("webhook.test", "webhook", &id, error.as_deref().unwrap_or("")).await;
    Ok(Json(TestAnswer { success: error.is_none(), status, error }))
}

/// Changes one in one piece. Its address is looked at before, since that takes time; when somebody else changes that meanwhile,
/// again.
async fn change(access: &Management, id: &str, patch: &WebhookPatch) -> AdminResult<Webhook> {
    let admin = &access.admin;
    let is_moved = patch.url.is_some() || patch.allow_private.is_some();
    for _ in 0..MAX_ROUNDS {
        let mut draft = find(admin, id).await?;
        merge(&mut draft, patch)?;
        if is_moved {
            check_address(admin, &draft).await?;
        }
        let make = |webhook: &mut Webhook| {
            merge(webhook, patch)?;
            if is_moved && (&webhook.url, webhook.allow_private) != (&draft.url, draft.allow_private) {
                return Err(Refusal::Overtaken);
            }
            webhook.updated_at = access.now_ms;
            Ok(())
        };
        match admin.store.webhooks().change(id, make).await? {
            Ok(webhook) => return Ok(webhook),
            Err(Refusal::Wrong(error)) => return Err(error),
            Err(Refusal::Overtaken) => {}
        }
    }
    Err(overtaken("webhook"))
}

/// Takes what was sent into a webhook; everything wrong is told, but for its address.
fn merge(webhook: &mut Webhook, patch: &WebhookPatch) -> AdminResult<()> {
    let mut problems = Problems::default();
    if let Some(events) = &patch.events {
        if events.is_empty() {
            problems.add("events", "must name at least one event, or `*` for all");
        }
        problems.list("events", events, EVENTS.len() + 1);
        let is_unknown = |event: &&String| *event != EVERYTHING && !EVENTS.contains(&event.as_str());
        for unknown in events.iter().filter(is_unknown) {
            problems.add("events", format!("`{unknown}` is no event; there are {}", EVENTS.join(", ")));
        }
        webhook.events.clone_from(events);
        webhook.events.sort_unstable();
        webhook.events.dedup();
    }
    if let Some(description) = &patch.description {
        if let Some(description) = description {
            problems.length("description", description, 0..=500);
        }
        webhook.description.clone_from(description);
    }
    webhook.enabled = patch.enabled.unwrap_or(webhook.enabled);
    webhook.allow_private = patch.allow_private.unwrap_or(webhook.allow_private);
    if let Some(url) = &patch.url {
        problems.length("url", url, 1..=2_000);
        webhook.url.clone_from(url);
    }
    problems.done()
}

async fn check_address(admin: &Admin, webhook: &Webhook) -> AdminResult<()> {
    check_url("url", &webhook.url, webhook.allow_private || admin.settings.allow_private).await
}

async fn find(admin: &Admin, id: &str) -> AdminResult<Webhook> {
    admin.store.webhooks().get(id).await?.ok_or_else(|| not_found("Webhook"))
}

fn view(webhook: Webhook) -> WebhookView {
    WebhookView {
        id: webhook.id,
        url: webhook.url,
        events: webhook.events,
        description: webhook.description,
        allow_private: webhook.allow_private,
        enabled: webhook.enabled,
        last_status: webhook.last_status,
        last_error: webhook.last_error,
        last_attempt_at: webhook.last_attempt_at.map(iso),
        last_delivered_at: webhook.last_delivered_at.map(iso),
        created_at: iso(webhook.created_at),
        updated_at: iso(webhook.updated_at),
    }
}
