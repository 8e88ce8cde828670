//! Changes of which models can be asked, as they come: `/api/models/availability/stream`.
//!
//! What there is is looked at once a second, for all readers together and only while there are any: a cooldown that ends tells
//! nobody. There is no queue per reader. Each compares what there is with what it was told, so that a slow one is told the latest.

use std::collections::HashMap;
use std::convert::Infallible;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use omniroute_provider::{ProviderId, registry};
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until};
use utoipa::IntoParams;

use super::{ModelAvailability, check_status, idle, named, served};
use crate::auth::Management;
use crate::endpoint::{Events, Filter};
use crate::error::{AdminResult, unavailable};
use crate::state::Admin;
use crate::text::iso;

/// Most readers at once.
const MAX_READERS: usize = 16;
/// When whoever finds no place may ask for one again.
const FULL_SECS: u64 = 10;
/// How often it is looked what there is.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Silence after which a reader hears that the stream still is there.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// After so long a reader has to come again, so that who may no longer read does not for ever.
const LONGEST: Duration = Duration::from_secs(3_600);

#[derive(Deserialize, IntoParams)]
pub(crate) struct AvailabilityStreamQuery {
    /// Only those of this provider: id, alias or prefix.
    provider: Option<String>,
    /// Only those in this state, and those that come to it or leave it.
    status: Option<String>,
    /// Only this model.
    model: Option<String>,
}

/// What all readers look at.
pub(crate) struct Watch {
    readers: Arc<Semaphore>,
    seen: Mutex<Option<Seen>>,
}

impl Default for Watch {
    fn default() -> Self {
        Self { readers: Arc::new(Semaphore::new(MAX_READERS)), seen: Mutex::new(None) }
    }
}

/// What there was at a moment.
#[derive(Clone)]
struct Seen {
    at: Instant,
    at_ms: i64,
    /// Of the configuration that the others are of.
    revision: u64,
    served: Arc<Vec<ModelAvailability>>,
    /// Those of providers without an account that is on: they change with the configuration alone, and the database has them.
    idle: Arc<Vec<ModelAvailability>>,
}

impl Watch {
    /// What there is now, or was a moment ago.
    async fn look(&self, admin: &Admin) -> AdminResult<Seen> {
        let mut seen = self.seen.lock().await;
        let now = Instant::now();
        if let Some(seen) = seen.as_ref().filter(|seen| now < seen.at + LOOK_EVERY / 2) {
            return Ok(seen.clone());
        }
        let revision = admin.live.load().revision;
        let idle = match seen.as_ref().filter(|seen| seen.revision == revision) {
            Some(seen) => seen.idle.clone(),
            None => Arc::new(idle(admin, |_, _| true).await?),
        };
        let at_ms = admin.now_ms();
        let served = Arc::new(served(admin, at_ms, |_| true));
        let news = Seen { at: now, at_ms, revision, served, idle };
        *seen = Some(news.clone());
        Ok(news)
    }
}

/// A model at a provider.
type Name = (String, String);

/// A model whose state is another one than before.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Change<'a> {
    /// Null = it was not there.
    previous_status: Option<&'static str>,
    #[serde(flatten)]
    entry: &'a ModelAvailability,
}

/// A model that is not there any more.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Gone<'a> {
    provider: &'a str,
    model: &'a str,
    previous_status: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Present<'a> {
    models: Vec<&'a ModelAvailability>,
    total: usize,
    unavailable_count: usize,
    generated_at: String,
}

/// Somebody who is told of changes, as server-sent events.
struct Follower {
    admin: Arc<Admin>,
    wanted: Option<ProviderId>,
    query: AvailabilityStreamQuery,
    /// What it was told of each; `None` before it was told anything.
    told: Option<HashMap<Name, &'static str>>,
    look_at: Instant,
    keep_alive_at: Instant,
    ends_at: Instant,
    _place: OwnedSemaphorePermit,
}

pub(crate) async fn follow(
    access: Management,
    Filter(query): Filter<AvailabilityStreamQuery>,
) -> AdminResult<Events> {
    let admin = &access.admin;
    check_status(query.status.as_deref())?;
    let wanted = named(admin, query.provider.as_deref()).await?;
    let place = admin.availability.readers.clone().try_acquire_owned().map_err(|_| {
        unavailable(format!(
            "{MAX_READERS} readers follow the availability of models already; end one, or ask for \
             /api/models/availability"
        ))
        .again_in(FULL_SECS)
    })?;
    // Whoever cannot be told what there is is told so now.
    admin.availability.look(admin).await?;
    let now = Instant::now();
    let follower = Follower {
        admin: admin.clone(),
        wanted,
        query,
        told: None,
        look_at: now,
        keep_alive_at: now + KEEP_ALIVE,
        ends_at: now + LONGEST,
        _place: place,
    };
    Ok(Events::new(stream::unfold(follower, |mut follower| async move {
        let piece = follower.read().await?;
        Some((Ok::<_, Infallible>(piece), follower))
    })))
}

impl Follower {
    /// The next events; `None` at the end.
    async fn read(&mut self) -> Option<Bytes> {
        let admin = self.admin.clone();
        loop {
            tokio::select! {
                biased;
                () = admin.console.closed() => return None,
                () = sleep_until(self.look_at.min(self.ends_at)) => {}
            }
            let now = Instant::now();
            if now >= self.ends_at {
                return None;
            }
            self.look_at = now + LOOK_EVERY;
            let text = match admin.availability.look(&admin).await {
                Ok(seen) => self.news(&seen),
                // The database is away: the next look may find it again.
                Err(error) => {
                    tracing::warn!(error = error.message(), "which models can be asked cannot be told now");
                    String::new()
                }
            };
            if !text.is_empty() {
                self.keep_alive_at = now + KEEP_ALIVE;
                return Some(text.into());
            }
            if now >= self.keep_alive_at {
                self.keep_alive_at = now + KEEP_ALIVE;
                return Some(Bytes::from_static(b": keep-alive\n\n"));
            }
        }
    }

    /// What is new to this reader.
    fn news(&mut self, seen: &Seen) -> String {
        let entries: Vec<_> =
            seen.served.iter().chain(&*seen.idle).filter(|entry| self.follows(entry)).collect();
        let name = |entry: &ModelAvailability| (entry.provider.clone(), entry.model.clone());
        let now: HashMap<Name, &'static str> =
            entries.iter().map(|entry| (name(entry), entry.status)).collect();
        let is_meant = |status: &str| self.query.status.as_ref().is_none_or(|wanted| wanted == status);
        let mut text = String::new();
        match &self.told {
            None => {
                let models: Vec<_> = entries.into_iter().filter(|entry| is_meant(entry.status)).collect();
                let unavailable_count =
                    models.iter().filter(|entry| entry.available_connections == 0).count();
                let (total, generated_at) = (models.len(), iso(seen.at_ms));
                text.push_str("retry: 3000\n\n");
                event(&mut text, "snapshot", &Present { models, total, unavailable_count, generated_at });
            }
            Some(told) => {
                for entry in entries {
                    let before = told.get(&name(entry)).copied();
                    let is_news = before != Some(entry.status)
                        && (is_meant(entry.status) || before.is_some_and(is_meant));
                    if is_news {
                        event(&mut text, "change", &Change { previous_status: before, entry });
                    }
                }
                let gone = told.iter().filter(|(name, status)| !now.contains_key(*name) && is_meant(status));
                for ((provider, model), status) in gone {
                    event(&mut text, "gone", &Gone { provider, model, previous_status: status });
                }
            }
        }
        self.told = Some(now);
        text
    }

    /// Whether a model is one of those that are followed, in whatever state.
    fn follows(&self, entry: &ModelAvailability) -> bool {
        let AvailabilityStreamQuery { provider: _, status, model } = &self.query;
        let is_narrow = self.wanted.is_some() || status.is_some() || model.is_some();
        // As in the list: the rest of the catalogue is for who asks for it.
        let is_listed = match entry.provider.as_str() {
            registry::SIM => self.wanted.is_some(),
            _ => is_narrow || entry.connections > 0 || entry.status != "no_connection",
        };
        is_listed
            && self.wanted.as_ref().is_none_or(|wanted| wanted.as_str() == entry.provider)
            && model.as_ref().is_none_or(|model| *model == entry.model)
    }
}

fn event(text: &mut String, name: &str, data: &impl Serialize) {
    // Strings and numbers only: nothing in it can fail to be written.
    let json = serde_json::to_string(data).unwrap_or_default();
    let _ = write!(text, "event: {name}\ndata: {json}\n\n");
}
