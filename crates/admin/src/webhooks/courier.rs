//! The task that tells: takes notices, finds who wants to know, and sends, several at once and each a few times.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Limited};
use omniroute_engine::Live;
use omniroute_engine::ports::{Clock, Departure, OutboundCall, Transport};
use omniroute_store::{Store, StoreError, Webhook};
use omniroute_wire::splice::Splice;
use secrecy::SecretString;
use tokio::sync::Semaphore;

use super::occurrence::{Accounts, Occurrence};
use super::{EVERYTHING, sign};

/// Pauses between the tries of a message; the last of four is within ten minutes.
const PAUSES: [Duration; 3] = [Duration::from_secs(10), Duration::from_secs(60), Duration::from_secs(420)];
/// Most messages on their way; what comes when there are more is counted and lost.
const MOST_WAITING: usize = 1_000;
/// Most that are sent at once.
const MOST_AT_ONCE: usize = 8;
/// How long an answer may take.
const LIMIT: Duration = Duration::from_secs(10);
/// Most bytes of an answer that are read, so that the connection can be used again. Nobody looks at them.
const MAX_ANSWER: usize = 16 * 1024;
/// How often it is looked whether accounts are back.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// What it takes to tell.
#[derive(Clone)]
pub struct Courier {
    /// Who wants to know, and their secrets.
    pub store: Store,
    /// Where notices come from.
    pub live: Arc<Live>,
    /// Sends them. Addresses are checked when their names are resolved, as those of upstreams are; nothing is redirected.
    pub transport: Arc<dyn Transport>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// `ALLOW_PRIVATE_PROVIDER_URLS`.
    pub allow_private: bool,
    pauses: [Duration; 3],
    look_every: Duration,
}

impl std::fmt::Debug for Courier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Courier").finish_non_exhaustive()
    }
}

/// What the courier waits for.
enum Step {
    /// Who wants to know of something.
    Wanted(Occurrence, Result<Vec<String>, StoreError>),
    /// The last try of a message is over.
    Ended { is_delivered: bool },
}

/// What came of one try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// What was answered, if anything was.
    pub(crate) status: Option<u16>,
    /// What was wrong with that.
    pub(crate) error: Option<String>,
}

impl Courier {
    /// A courier over these.
    pub fn new(
        store: Store,
        live: Arc<Live>,
        transport: Arc<dyn Transport>,
        clock: Arc<dyn Clock>,
        allow_private: bool,
    ) -> Self {
        Self { store, live, transport, clock, allow_private, pauses: PAUSES, look_every: LOOK_EVERY }
    }

    /// The same with other pauses between tries, and between looks at accounts; for tests.
    pub fn in_haste(self, pauses: [Duration; 3], look_every: Duration) -> Self {
        Self { pauses, look_every, ..self }
    }

    /// Tells for as long as it is let. Ends at once when notices are taken elsewhere already.
    pub async fn run(self) {
        let Some(mut notices) = self.live.notices.take() else { return };
        let mut accounts = Accounts::at_start(&self.live, self.clock.now_ms());
        let places = Semaphore::new(MOST_AT_ONCE);
        // All that waits for something is among these: one that is not polled may hold what another waits for.
        let mut at_work: FuturesUnordered<BoxFuture<'_, Step>> = FuturesUnordered::new();
        let mut look = tokio::time::interval(self.look_every);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let counts = &self.live.notices;
        loop {
            let mut told: Vec<Occurrence> = Vec::new();
            tokio::select! {
                Some(step) = at_work.next() => match step {
                    Step::Wanted(occurrence, Ok(wanted)) => {
                        let body = occurrence.body();
                        for webhook in wanted {
                            if at_work.len() >= MOST_WAITING {
                                counts.dropped.fetch_add(1, Ordering::Relaxed);
                                continue;
                            }
                            at_work.push(Box::pin(self.deliver(webhook, occurrence.clone(), body.clone(), &places)));
                        }
                    }
                    Step::Wanted(occurrence, Err(error)) => {
                        tracing::warn!(%error, event = occurrence.kind, "who is to be told cannot be read; nobody is");
                        counts.dropped.fetch_add(1, Ordering::Relaxed);
                    }
                    Step::Ended { is_delivered } => {
                        let counter = if is_delivered { &counts.delivered } else { &counts.failed };
                        counter.fetch_add(1, Ordering::Relaxed);
                    }
                },
                notice = notices.recv() => {
                    let Some(notice) = notice else { return };
                    told.extend(accounts.read(&self.live, notice, self.clock.now_ms()));
                }
                _ = look.tick() => told = accounts.back(&self.live, self.clock.now_ms()),
            }
            for occurrence in told {
                if at_work.len() >= MOST_WAITING {
                    counts.dropped.fetch_add(1, Ordering::Relaxed);
                    continue;
                }
                at_work.push(Box::pin(async {
                    let wanted = self.who_wants(occurrence.kind).await;
                    Step::Wanted(occurrence, wanted)
                }));
            }
            counts.waiting.store(at_work.len() as u64, Ordering::Relaxed);
        }
    }

    async fn who_wants(&self, kind: &str) -> Result<Vec<String>, StoreError> {
        let webhooks = self.store.webhooks().list().await?;
        let wants = |webhook: &Webhook| {
            webhook.enabled && webhook.events.iter().any(|event| event == kind || event == EVERYTHING)
        };
        Ok(webhooks.into_iter().filter(wants).map(|webhook| webhook.id).collect())
    }

    /// All tries of one message; whether one of them went well. The row is read anew each time: what the operator changed
    /// meanwhile counts.
    async fn deliver(&self, id: String, occurrence: Occurrence, body: Bytes, places: &Semaphore) -> Step {
        Step::Ended { is_delivered: self.tell(&id, &occurrence, body, places).await }
    }

    async fn tell(&self, id: &str, occurrence: &Occurrence, body: Bytes, places: &Semaphore) -> bool {
        let mut pauses = self.pauses.iter();
        loop {
            let outcome = {
                // Never closed.
                let _place = places.acquire().await;
                let webhook = match self.store.webhooks().get(id).await {
                    Ok(Some(webhook)) if webhook.enabled => Ok(webhook),
                    // It is gone, or wants no more.
                    Ok(_) => return false,
                    Err(error) => Err(error),
                };
                match webhook {
                    Ok(webhook) => send(self, &webhook, &occurrence.id, body.clone()).await,
                    Err(error) => Outcome { status: None, error: Some(error.to_string()) },
                }
            };
            let Some(error) = outcome.error else { return true };
            if outcome.status == Some(StatusCode::GONE.as_u16()) {
                tracing::warn!(webhook = id, "a webhook answered 410: it is switched off");
                if let Err(error) = self.store.webhooks().switch_off(id, self.clock.now_ms()).await {
                    tracing::warn!(webhook = id, %error, "it cannot be switched off");
                }
                return false;
            }
            let Some(pause) = pauses.next() else {
                tracing::warn!(
                    webhook = id,
                    event = occurrence.kind,
                    error,
                    "a webhook was not told; given up"
                );
                return false;
            };
            tracing::debug!(
                webhook = id,
                event = occurrence.kind,
                error,
                ?pause,
                "a webhook was not told yet"
            );
            tokio::time::sleep(*pause).await;
        }
    }
}

/// One try. What came of it is written down.
pub(crate) async fn send(courier: &Courier, webhook: &Webhook, message_id: &str, body: Bytes) -> Outcome {
    let now_ms = courier.clock.now_ms();
    let webhooks = courier.store.webhooks();
    let outcome = match webhooks.secrets(&webhook.id, now_ms).await {
        Err(error) => Outcome { status: None, error: Some(error.to_string()) },
        Ok(secrets) => match call(courier, webhook, &secrets, (message_id, body)) {
            Err(error) => Outcome { status: None, error: Some(error) },
            Ok(call) => exchange(&*courier.transport, call).await,
        },
    };
    let noted =
        webhooks.note(&webhook.id, outcome.status, outcome.error.as_deref(), courier.clock.now_ms()).await;
    if let Err(error) = noted {
        tracing::warn!(webhook = webhook.id, %error, "what became of telling it is not written down");
    }
    outcome
}

fn call(
    courier: &Courier,
    webhook: &Webhook,
    secrets: &[SecretString],
    (message_id, body): (&str, Bytes),
) -> Result<OutboundCall, String> {
    let uri: Uri = webhook.url.parse().map_err(|_| "its `url` is no URL".to_owned())?;
    let timestamp = courier.clock.now_ms() / 1_000;
    let signature = sign::signature(secrets, message_id, timestamp, &body);
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::USER_AGENT, HeaderValue::from_static("OmniRoute-Webhooks"));
    for (name, value) in [
        ("webhook-id", message_id.to_owned()),
        ("webhook-timestamp", timestamp.to_string()),
        ("webhook-signature", signature),
    ] {
        let value = HeaderValue::try_from(value).map_err(|error| error.to_string())?;
        headers.insert(name, value);
    }
    Ok(OutboundCall {
        method: Method::POST,
        uri,
        headers,
        body: Splice::new(body).into_pieces(),
        attachment: None,
        allow_private: webhook.allow_private || courier.allow_private,
        departure: Departure::default(),
    })
}

async fn exchange(transport: &dyn Transport, call: OutboundCall) -> Outcome {
    let answer = async {
        let response = transport.send(call).await.map_err(|error| error.to_string())?;
        let (parts, body) = response.into_parts();
        // One that is too long is let go; its status was said before.
        drop(Limited::new(body, MAX_ANSWER).collect().await);
        Ok(parts.status)
    };
    match tokio::time::timeout(LIMIT, answer).await {
        Err(_) => Outcome { status: None, error: Some(format!("no answer within {} s", LIMIT.as_secs())) },
        Ok(Err(error)) => Outcome { status: None, error: Some(error) },
        Ok(Ok(status)) if status.is_success() => Outcome { status: Some(status.as_u16()), error: None },
        Ok(Ok(status)) => {
            let advice = if status.is_redirection() {
                "; it is not followed, give the address it leads to"
            } else {
                ""
            };
            let error = format!("it answered {}{advice}", status.as_u16());
            Outcome { status: Some(status.as_u16()), error: Some(error) }
        }
    }
}
