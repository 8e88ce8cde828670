//! Answers that are made in the background: nobody knows what they come to when the request that orders one ends. What
//! was held for it stays held, and the rest is billed when it is first seen to be finished: by a client that reads it,
//! or by the gateway, which looks for itself.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use http::{HeaderMap, Method};
use omniroute_dialect::{Dialect, KeptCall, registry};
use omniroute_domain::budget::Hold;
use omniroute_domain::entity::ApiKeyId;
use tokio::time::{MissedTickBehavior, interval};

use super::mark;
use crate::attempt::{self, Look};
use crate::ctx::{Arrival, NOBODY};
use crate::ports::Claims;
use crate::serve::Engine;
use crate::time::millis;

/// Most answers that are looked for. One that is ordered beyond is billed when a client reads it.
const MAX_AWAITED: usize = 10_000;
/// How often it is looked which are due.
const TICK: Duration = Duration::from_secs(10);
/// Vendors that are asked at once.
const AT_ONCE: usize = 4;
/// Most that are asked for at a tick.
const MAX_DUE: usize = 100;
/// The pause before the first look, and the longest one; each is twice the one before it.
const FIRST_PAUSE: Duration = Duration::from_secs(30);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// Looks at one answer: a day of them.
const MAX_LOOKS: u32 = 290;

/// The answers that are looked for.
#[derive(Debug, Default)]
pub(crate) struct Awaited(Mutex<HashMap<String, Order>>);

#[derive(Debug)]
struct Order {
    tenant: String,
    id: String,
    due_ms: i64,
    looks: u32,
    /// Given back when the order is dropped.
    hold: Option<Hold>,
}

impl Awaited {
    /// Looks for an answer from now on.
    pub(super) fn expect(&self, tenant: &str, id: &str, now_ms: i64) {
        let mut orders = self.lock();
        if orders.len() < MAX_AWAITED {
            let due_ms = now_ms.saturating_add(millis(FIRST_PAUSE));
            let order = Order { tenant: tenant.into(), id: id.into(), due_ms, looks: 0, hold: None };
            orders.entry(mark(tenant, id)).or_insert(order);
        }
    }

    /// Keeps money for an answer that is looked for.
    pub(crate) fn hold(&self, tenant: &str, id: &str, hold: Hold) {
        if let Some(order) = self.lock().get_mut(&mark(tenant, id)) {
            order.hold = Some(hold);
        }
    }

    /// Looks for an answer no more, and gives back what was held for it.
    pub(super) fn end(&self, tenant: &str, id: &str) {
        self.lock().remove(&mark(tenant, id));
    }

    /// Whose time to be looked at has come; sets the next.
    fn due(&self, now_ms: i64) -> Vec<(String, String)> {
        let mut orders = self.lock();
        orders.retain(|_, order| order.looks < MAX_LOOKS || order.due_ms > now_ms);
        let due = orders.values_mut().filter(|order| order.due_ms <= now_ms).take(MAX_DUE);
        due.map(|order| {
            order.looks += 1;
            let pause = FIRST_PAUSE.saturating_mul(1 << order.looks.min(8)).min(LONGEST_PAUSE);
            order.due_ms = now_ms.saturating_add(millis(pause));
            (order.tenant.clone(), order.id.clone())
        })
        .collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Order>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Engine {
    /// Looks for answers that are made in the background, to bill them; until dropped.
    pub async fn watch_awaited(self: &Arc<Self>, claims: &dyn Claims) {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let due = self.awaited.due(self.clock.now_ms());
            let looks = stream::iter(due).for_each_concurrent(AT_ONCE, |(tenant, id)| async move {
                if self.look_for(&tenant, &id, claims).await == Look::InVain {
                    self.awaited.end(&tenant, &id);
                }
            });
            looks.await;
        }
    }

    /// Reads an answer as its client would. The request is in the log if there was something to bill.
    async fn look_for(self: &Arc<Self>, tenant: &str, id: &str, claims: &dyn Claims) -> Look {
        let Some(dialect) = keeper(id) else { return Look::InVain };
        let mut ctx = self.begin(Arrival {
            peer: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
            method: Method::GET,
            path: format!("/v1/responses/{id}").into(),
            query: None,
            headers: HeaderMap::new(),
            dialect,
            endpoint: "responses",
            provider: None,
            is_logged: false,
        });
        if tenant != NOBODY {
            let Some(caller) = ctx.snapshot.caller_by_id(&ApiKeyId::from(tenant)) else {
                return Look::InVain;
            };
            ctx.caller = Some(caller.clone());
        }
        let look = attempt::look_again(&mut ctx, id).await;
        if look == Look::Finished {
            ctx.outcome.status = Some(200);
            match claims.claim(tenant, id).await {
                Ok(true) => ctx.arrival.is_logged = true,
                Ok(false) => ctx.bill_nothing_late(),
                // Rather twice than never: what is not billed is beyond every budget.
                Err(error) => {
                    tracing::warn!(%error, id, "cannot see whether another process billed an answer; it is billed");
                    ctx.arrival.is_logged = true;
                }
            }
        }
        look
    }
}

/// The dialect in which vendors keep answers.
fn keeper(id: &str) -> Option<&'static dyn Dialect> {
    let keeps = |dialect: &&&dyn Dialect| dialect.kept_path("/v1/responses", id, KeptCall::Read).is_some();
    registry::DIALECTS.iter().find(keeps).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pauses_grow_and_end() {
        let awaited = Awaited::default();
        awaited.expect("k", "resp_1", 0);
        awaited.expect("k", "resp_1", 10_000);
        let (mut now_ms, mut looks) = (0, Vec::new());
        while !awaited.lock().is_empty() {
            if !awaited.due(now_ms).is_empty() {
                looks.push(now_ms / 1_000);
            }
            now_ms += 10_000;
        }
        assert_eq!(looks[..6], [30, 90, 210, 450, 750, 1_050]);
        assert_eq!(looks.len(), MAX_LOOKS as usize);
    }

    #[test]
    fn there_is_an_end_to_what_is_looked_for() {
        let awaited = Awaited::default();
        for number in 0..MAX_AWAITED + 5 {
            awaited.expect("k", &format!("resp_{number}"), 0);
        }
        assert_eq!(awaited.lock().len(), MAX_AWAITED);
        assert_eq!(awaited.due(i64::MAX).len(), MAX_DUE);
        awaited.end("k", "resp_0");
        assert_eq!(awaited.lock().len(), MAX_AWAITED - 1);
    }
}
