//! Asking vendors what is left of an account, where they have an API for it: now and then in the background, after a refusal for
//! want of quota, and when a person wants to know. Never for a request.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use omniroute_dialect::{ir::UpstreamError, registry};
use omniroute_domain::snapshot::ConnectionState;
use omniroute_domain::vendor_quota::{Known, Taking};
use omniroute_provider::quota_api::{QuotaCall, Reading};
use omniroute_provider::scrub::scrub;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::chronicle;
use crate::live::Live;
use crate::ports::{Clock, Departure, OutboundCall, Recorder, Transport, TransportError};
use crate::serve::Engine;

/// Most bytes of an answer that are read.
const MAX_ANSWER: usize = 64 * 1024;
/// Limit for one call.
const PATIENCE: Duration = Duration::from_secs(10);
/// Vendors that are asked at once in the background.
const AT_ONCE: usize = 2;
/// How often it is looked who is to be asked.
const TICK: Duration = Duration::from_secs(5);

/// What a look needs.
#[derive(Clone, Copy)]
pub struct Looker<'a> {
    /// The configuration, and where what is found out is told.
    pub live: &'a Live,
    /// Calls vendors; checks addresses after they are resolved, and follows no redirect.
    pub transport: &'a dyn Transport,
    /// Takes rows for the history.
    pub recorder: &'a dyn Recorder,
    /// Tells the time.
    pub clock: &'a dyn Clock,
}

impl Looker<'_> {
    /// What is known of an account's quotas, after its vendor was asked, unless that was a moment ago. `None` where the vendor
    /// cannot be asked. `jitter`, in -1.0..=1.0, moves the next time.
    pub async fn look(&self, connection: &ConnectionState, jitter: f64) -> Option<Known> {
        let api = connection.quota_api.as_ref()?;
        let place = &connection.health.vendor;
        let Some(asking) = place.begin(self.clock.now_ms(), api) else { return Some(place.view()) };
        let mut told: Option<Reading> = None;
        let mut error: Option<Arc<str>> = None;
        for call in &api.calls {
            match self.ask(connection, call, &api.headers).await {
                Ok(reading) => match &mut told {
                    Some(told) => told.add(reading),
                    None => told = Some(reading),
                },
                Err(Refusal { status, .. }) if call.is_for_some && is_no_right(status) => {}
                Err(Refusal { message, .. }) => {
                    error = Some(message.into());
                    break;
                }
            }
        }
        let (now_ms, settings) = (self.clock.now_ms(), self.live.load().settings.quota_checks);
        let next_ms = now_ms.saturating_add(settings.pause_ms(jitter));
        let taking = Taking { now_ms, next_ms, is_binding: connection.pool.is_empty() };
        match (told, error) {
            (Some(reading), error) => {
                if let Some(turn) = place.told(asking, reading.clone(), error, taking) {
                    chronicle::vendor_told(self, connection, &reading, &turn, now_ms);
                }
            }
            (None, error) => {
                let error = error.unwrap_or_else(|| "the vendor was not asked anything".into());
                tracing::warn!(provider = %connection.provider, connection = %connection.id, %error,
                    "the provider does not say what is left");
                place.failed(asking, error, taking);
            }
        }
        Some(place.view())
    }

    async fn ask(
        &self,
        connection: &ConnectionState,
        call: &QuotaCall,
        headers: &HeaderMap,
    ) -> Result<Reading, Refusal> {
        let mut headers = headers.clone();
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        headers.remove(header::CONTENT_TYPE);
        let outbound = OutboundCall {
            method: Method::GET,
            uri: call.uri.clone(),
            headers,
            body: smallvec::SmallVec::new(),
            attachment: None,
            allow_private: connection.allow_private,
            departure: Departure::default(),
        };
        let exchange = async {
            let response = self.transport.send(outbound).await.map_err(|error| Refusal::of(&error))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
            let body = body.map_err(|_| {
                Refusal::plain(format!("the answer broke off, or has more than {} KiB", MAX_ANSWER >> 10))
            })?;
            Ok((status, body.to_bytes()))
        };
        let late = |_| Refusal::plain(format!("no answer within {} s", PATIENCE.as_secs()));
        let (status, body) = timeout(PATIENCE, exchange).await.map_err(late)??;
        if !status.is_success() {
            let dialect = connection.endpoints.first().map(|endpoint| endpoint.dialect);
            let dialect = dialect.unwrap_or_else(|| registry::DIALECTS[0].id());
            let mut error: UpstreamError = registry::by_id(dialect).decode_error(status, &body);
            connection.conceal(&mut error);
            let message = format!("status {}: {}", status.as_u16(), scrub(&error.message));
            return Err(Refusal { status: Some(status), message });
        }
        call.read(&body, self.clock.now_ms()).map_err(|error| Refusal::plain(scrub(&error.to_string())))
    }
}

/// Why a call told nothing.
struct Refusal {
    status: Option<StatusCode>,
    message: String,
}

impl Refusal {
    fn plain(message: String) -> Self {
        Self { status: None, message }
    }

    fn of(error: &TransportError) -> Self {
        Self::plain(error.to_string())
    }
}

/// Whether this key may not ask.
fn is_no_right(status: Option<StatusCode>) -> bool {
    matches!(status, Some(StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN))
}

impl Engine {
    /// Asks vendors what is left as often as the settings say, and after refusals for want of quota; until dropped.
    pub async fn watch_quotas(&self) {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.look_at_due().await;
        }
    }

    async fn look_at_due(&self) {
        let (snapshot, now_ms) = (Arc::clone(&self.live.load()), self.clock.now_ms());
        if !snapshot.settings.quota_checks.enabled {
            return;
        }
        let is_due = |connection: &&Arc<ConnectionState>| {
            connection.quota_api.is_some() && connection.health.vendor.is_due(now_ms)
        };
        let due: Vec<_> = snapshot.connections().filter(is_due).cloned().collect();
        let looker = Looker {
            live: &self.live,
            transport: &*self.transport,
            recorder: &*self.recorder,
            clock: &*self.clock,
        };
        let looks = stream::iter(due).for_each_concurrent(AT_ONCE, |connection| async move {
            looker.look(&connection, self.jitter()).await;
        });
        looks.await;
    }
}
