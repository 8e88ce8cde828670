//! One round over the accounts of a target: in which order they are asked, and that each has a place for the request.

use std::sync::Arc;
use std::time::Duration;

use omniroute_domain::health::InFlight;
use omniroute_domain::limiter::Ask;
use omniroute_domain::resolve::Target;
use omniroute_domain::rotation::Occasion;
use omniroute_domain::snapshot::ConnectionState;
use smallvec::SmallVec;

use super::accounts::Stuck;
use super::queue;
use crate::ctx::RequestCtx;
use crate::prefix;
use crate::resolve::{self, Candidates};
use crate::session;

/// For so long a conversation waits for its account rather than go to another, which would cost it the vendor's cache.
const SHORT_HOLD: Duration = Duration::from_secs(1);
/// When to come back where only other requests know.
const SHORTLY: Duration = Duration::from_secs(1);

/// The accounts that may serve a target now.
pub(super) struct Round<'t> {
    /// When it began, in epoch milliseconds.
    began_ms: i64,
    /// In the order in which they are tried.
    order: Candidates<'t>,
    /// How many of them had their chance.
    past: usize,
    /// A place at the account that had its chance last, until it is handed out.
    place: Option<(Arc<ConnectionState>, InFlight)>,
    /// Whether an account had no place.
    is_busy: bool,
    /// Whether the account that is held is worth a short wait before others are asked.
    is_patient: bool,
    /// Those that are held to their limits, and until when if that is known.
    held: Held,
}

/// Accounts that are held to their limits, and until when if that is known.
pub(super) type Held = SmallVec<[(Arc<ConnectionState>, Option<i64>); 2]>;

/// Why an account gives no place.
pub(crate) enum NoPlace {
    /// As many requests run as may.
    Busy,
    /// It is held to its limits.
    Held(Option<i64>),
}

impl<'t> Round<'t> {
    /// Puts the accounts in order and takes a place at the first that has one. `tried` are left out. Takes a turn.
    pub(super) fn begin(ctx: &RequestCtx, target: &'t Target, tried: &[Arc<ConnectionState>]) -> Self {
        let now_ms = ctx.engine.clock.now_ms();
        let (mut eligible, _) = resolve::standing(ctx, target, now_ms);
        eligible.retain(|connection| has_more(connection, target, tried, now_ms));
        let mut round = Self {
            began_ms: now_ms,
            order: eligible,
            past: 0,
            place: None,
            is_busy: false,
            is_patient: false,
            held: SmallVec::new(),
        };
        if round.order.len() < 2 {
            return round;
        }
        round.stay(ctx, target, tried, now_ms);
        if round.past > 0 {
            return round;
        }
        let eligible = std::mem::take(&mut round.order);
        let provider = &target.provider;
        let (occasion, ask) = (occasion(ctx, target, now_ms), ask(ctx, target));
        let chosen = provider.rotation.choose(provider.rule, &eligible, occasion, |connection| {
            round.enter(connection, ask, tried, now_ms)
        });
        round.order = arranged(&eligible, &chosen.order);
        round.past = match chosen.first {
            None => round.order.len(),
            Some((first, place)) => {
                round.place = Some(place);
                chosen.order.iter().position(|at| usize::from(*at) == first).unwrap_or(0) + 1
            }
        };
        round
    }

    /// Puts the account first that the conversation stays with, and takes a place there. Nobody's turn is taken.
    fn stay(&mut self, ctx: &RequestCtx, target: &Target, tried: &[Arc<ConnectionState>], now_ms: i64) {
        let Some(pinned) = session::pinned(ctx, target, now_ms) else { return };
        let Some(at) = self.order.iter().position(|connection| connection.id == pinned) else { return };
        let connection = self.order[at];
        self.place = self.enter(connection, ask(ctx, target), tried, now_ms);
        self.is_patient = self.place.is_none()
            && matches!(self.held.first(), Some((_, Some(until))) if time_to(*until, now_ms) <= SHORT_HOLD);
        if self.place.is_none() && !self.is_patient {
            // It is one among the others now.
            self.held.clear();
            self.is_busy = false;
            return;
        }
        // The others follow as they would without it.
        self.order.remove(at);
        let provider = &target.provider;
        let order = provider.rotation.preview(provider.rule, &self.order, occasion(ctx, target, now_ms));
        self.order = arranged(&self.order, &order);
        self.order.insert(0, connection);
        self.past = 1;
    }

    /// When it began, in epoch milliseconds.
    pub(super) fn began_ms(&self) -> i64 {
        self.began_ms
    }

    /// The accounts in the order in which they are tried.
    pub(super) fn order(&self) -> &[&'t Arc<ConnectionState>] {
        &self.order
    }

    /// The next account, and a place there. One with several keys comes again while there are keys that were not tried.
    pub(super) fn next(
        &mut self,
        ctx: &RequestCtx,
        target: &Target,
        tried: &[Arc<ConnectionState>],
    ) -> Option<(Arc<ConnectionState>, InFlight)> {
        if let Some(place) = self.place.take() {
            return Some(place);
        }
        let now_ms = ctx.engine.clock.now_ms();
        let last = self.past.checked_sub(1).and_then(|at| self.order.get(at)).copied();
        if let Some(last) = last.filter(|last| !last.pool.is_empty())
            && let Some(place) = self.enter(last, ask(ctx, target), tried, now_ms)
        {
            return Some(place);
        }
        while let Some(connection) = self.order.get(self.past).copied() {
            self.past += 1;
            if let Some(place) = self.enter(connection, ask(ctx, target), tried, now_ms) {
                return Some(place);
            }
        }
        None
    }

    /// Waits for one of those that are held to their limits, the one that is free first.
    pub(super) async fn queue_up(
        &mut self,
        ctx: &mut RequestCtx,
        target: &Target,
    ) -> Option<(Arc<ConnectionState>, InFlight)> {
        self.held.sort_by_key(|(_, until)| until.unwrap_or(0));
        let engine = ctx.engine.clone();
        let clock = &*engine.clock;
        for at in 0..self.held.len() {
            let (connection, until) = &self.held[at];
            let Some(rules) = connection.limits else { continue };
            let most = Duration::from_millis(u64::from(rules.max_wait_ms)).saturating_sub(ctx.waited);
            let (left, began) = (ctx.within(most), clock.instant());
            let soonest = until.map_or(Duration::ZERO, |until| time_to(until, clock.now_ms()));
            if left.is_zero() || soonest > left {
                continue;
            }
            let place = queue::wait(connection, &rules, ask(ctx, target), left, clock).await;
            ctx.has_waited_since(began);
            let Some(place) = place else { continue };
            if resolve::obstacle(ctx, target, connection, clock.now_ms()).is_none() {
                let (connection, _) = self.held.remove(at);
                return Some((connection, place));
            }
        }
        None
    }

    /// Whether the account that is held is to be waited for now. Says so once.
    pub(super) fn is_patient(&mut self) -> bool {
        std::mem::take(&mut self.is_patient)
    }

    /// Why none of those that are left can be called.
    pub(super) fn stuck(&self, ctx: &RequestCtx) -> Stuck {
        Stuck { held: first_free(&self.held, ctx.engine.clock.now_ms()), is_busy: self.is_busy }
    }

    /// A place at the account: with its key, or with the one of several whose turn it is.
    fn enter(
        &mut self,
        connection: &Arc<ConnectionState>,
        ask: Ask<'_>,
        tried: &[Arc<ConnectionState>],
        now_ms: i64,
    ) -> Option<(Arc<ConnectionState>, InFlight)> {
        if connection.pool.is_empty() {
            return self.enter_one(connection, ask, now_ms);
        }
        let keys = connection.keys(ask.model, now_ms);
        let mut untried = keys.iter().filter(|key| !is_among(key, tried));
        untried.find_map(|key| self.enter_one(key, ask, now_ms))
    }

    fn enter_one(
        &mut self,
        connection: &Arc<ConnectionState>,
        ask: Ask<'_>,
        now_ms: i64,
    ) -> Option<(Arc<ConnectionState>, InFlight)> {
        match enter(connection, ask, now_ms) {
            Ok(place) => return Some((connection.clone(), place)),
            Err(NoPlace::Busy) => self.is_busy = true,
            Err(NoPlace::Held(until)) => self.held.push((connection.clone(), until)),
        }
        None
    }
}

/// Whether an account was not tried, or has a key that was not and may be.
fn has_more(
    connection: &Arc<ConnectionState>,
    target: &Target,
    tried: &[Arc<ConnectionState>],
    now_ms: i64,
) -> bool {
    if connection.pool.is_empty() {
        return !is_among(connection, tried);
    }
    let mut usable = connection.pool.iter().filter(|key| key.health.check(&target.model, now_ms).is_ok());
    usable.any(|key| !is_among(key, tried))
}

fn is_among(connection: &Arc<ConnectionState>, tried: &[Arc<ConnectionState>]) -> bool {
    tried.iter().any(|other| Arc::ptr_eq(other, connection))
}

/// The accounts in the order in which the next request would try them.
pub(crate) fn foreseen<'t>(ctx: &RequestCtx, target: &'t Target, now_ms: i64) -> Candidates<'t> {
    let (eligible, _) = resolve::standing(ctx, target, now_ms);
    let provider = &target.provider;
    let order = provider.rotation.preview(provider.rule, &eligible, occasion(ctx, target, now_ms));
    let mut order = arranged(&eligible, &order);
    let pinned = session::pinned(ctx, target, now_ms);
    if let Some(at) = pinned.and_then(|pinned| order.iter().position(|connection| connection.id == pinned)) {
        order[..=at].rotate_right(1);
    }
    order
}

/// The accounts that have a place for a request that is only played.
pub(crate) fn open<'t>(ctx: &RequestCtx, target: &'t Target, now_ms: i64) -> Candidates<'t> {
    let (mut eligible, _) = resolve::standing(ctx, target, now_ms);
    eligible.retain(|connection| no_place(ctx, target, connection, now_ms).is_none());
    eligible
}

/// Which of them leads it. Its turn is taken.
pub(crate) fn lead<'t>(
    ctx: &RequestCtx,
    target: &Target,
    accounts: &[&'t Arc<ConnectionState>],
    now_ms: i64,
) -> Option<&'t Arc<ConnectionState>> {
    if let [] | [_] = accounts {
        return accounts.first().copied();
    }
    let provider = &target.provider;
    let chosen =
        provider.rotation.choose(provider.rule, accounts, occasion(ctx, target, now_ms), |_| Some(()));
    chosen.first.and_then(|(place, ())| accounts.get(place)).copied()
}

fn occasion<'a>(ctx: &RequestCtx, target: &'a Target, now_ms: i64) -> Occasion<'a> {
    let wants_prefix = target.provider.rule.strategy.wants().affinity;
    let prefix = if wants_prefix { prefix::of(ctx) } else { 0 };
    Occasion { now_ms, random: ctx.draw(), model: &target.model, prefix }
}

fn ask<'a>(ctx: &RequestCtx, target: &'a Target) -> Ask<'a> {
    Ask { model: &target.model, tokens: ctx.estimated_input_tokens() }
}

fn enter(connection: &Arc<ConnectionState>, ask: Ask<'_>, now_ms: i64) -> Result<InFlight, NoPlace> {
    let place = connection.account().enter(connection.max_concurrent).ok_or(NoPlace::Busy)?;
    let Some(rules) = &connection.limits else { return Ok(place) };
    match connection.health.gate.start(rules, ask, now_ms) {
        Ok(true) => Ok(place.held_by(&connection.health)),
        Ok(false) => Ok(place),
        Err(held) => Err(NoPlace::Held(held.until)),
    }
}

/// Whether an account has no place for a request that is only looked at: with none of its keys.
pub(crate) fn no_place(
    ctx: &RequestCtx,
    target: &Target,
    connection: &ConnectionState,
    now_ms: i64,
) -> Option<NoPlace> {
    if connection.max_concurrent.is_some_and(|most| connection.account().in_flight() >= most) {
        return Some(NoPlace::Busy);
    }
    let held = |one: &ConnectionState| one.health.gate.held(one.limits.as_ref()?, ask(ctx, target), now_ms);
    if connection.pool.is_empty() {
        return held(connection).map(|held| NoPlace::Held(held.until));
    }
    let usable = connection.pool.iter().filter(|key| key.health.check(&target.model, now_ms).is_ok());
    let mut until = None;
    for key in usable {
        match held(key) {
            None => return None,
            Some(held) => until = [until, held.until].into_iter().flatten().min(),
        }
    }
    Some(NoPlace::Held(until))
}

/// Whether a request that is only looked at would wait for an account that is held to its limits.
pub(super) fn would_queue((connection, until): &(Arc<ConnectionState>, Option<i64>), now_ms: i64) -> bool {
    let Some(rules) = connection.limits else { return false };
    let most = Duration::from_millis(u64::from(rules.max_wait_ms));
    let soonest = until.map_or(Duration::ZERO, |until| time_to(until, now_ms));
    let has_room = |one: &ConnectionState| one.health.gate.has_room(&rules);
    let has_room = has_room(connection)
        && (connection.pool.is_empty() || connection.pool.iter().any(|key| has_room(key)));
    !most.is_zero() && soonest <= most && has_room
}

/// How long the first of those that are held is held.
pub(super) fn first_free(held: &Held, now_ms: i64) -> Option<Duration> {
    if held.is_empty() {
        return None;
    }
    let waits = held.iter().filter_map(|(_, until)| *until).map(|until| time_to(until, now_ms));
    Some(waits.min().unwrap_or(SHORTLY).max(Duration::from_millis(1)))
}

fn arranged<'t>(accounts: &[&'t Arc<ConnectionState>], order: &[u16]) -> Candidates<'t> {
    order.iter().filter_map(|place| accounts.get(usize::from(*place)).copied()).collect()
}

fn time_to(at_ms: i64, now_ms: i64) -> Duration {
    Duration::from_millis(u64::try_from(at_ms.saturating_sub(now_ms)).unwrap_or(0))
}
