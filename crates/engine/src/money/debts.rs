//! Calls that came to nothing and are paid for nevertheless: what they cost is held beside what the next one may cost, when that is
//! about to be made.

use omniroute_domain::budget::Hold;
use omniroute_domain::budget::spending::Events;

use super::Money;
use crate::branch::Estate;
use crate::ctx::RequestCtx;
use crate::error::GatewayError;

impl Money {
    /// Hands over what is owed.
    pub(crate) fn take_owed(&mut self) -> i64 {
        std::mem::take(&mut self.owed_nano)
    }
}

impl RequestCtx {
    /// The last call came to nothing. Where it is paid for nevertheless, what it cost is owed to the next one.
    pub(crate) fn owe(&mut self) {
        let is_limited = self.money.hold.as_ref().is_some_and(Hold::is_limited);
        let Some(last) = self.attempts.last().filter(|last| is_limited && last.usage.is_known()) else {
            return;
        };
        let used = (&last.usage, last.units.as_deref());
        let cost = self.priced(&last.provider, &last.model, used).amount_nano.unwrap_or(0);
        self.money.owed_nano = self.money.owed_nano.saturating_add(cost.max(0));
    }

    /// Holds what is owed, so that it is held beside what the next call may cost. To be asked right before a call is made: where
    /// there is none, nothing more is needed.
    pub(crate) fn hold_again(&mut self) -> Result<(), GatewayError> {
        let estate = self.estate();
        let mut shared = estate.as_deref().map(Estate::owed);
        let owed = shared.as_deref().map_or(0, |shared| *shared).saturating_add(self.money.owed_nano);
        let Some(hold) = self.money.hold.as_mut().filter(|_| owed > 0) else { return Ok(()) };
        let (now_ms, mut events) = (self.engine.clock.now_ms(), Events::new());
        let held = hold.raise(owed, now_ms, &mut events);
        if held.is_ok() {
            self.money.owed_nano = 0;
            if let Some(shared) = &mut shared {
                **shared = 0;
            }
        }
        drop(shared);
        self.tell(events);
        held.map_err(|exceeded| self.too_dear(exceeded, owed, now_ms))
    }

    /// What the calls so far came to is within what is held for each of them.
    pub(crate) fn owe_nothing(&mut self) {
        self.money.owed_nano = 0;
        if let Some(estate) = self.estate() {
            *estate.owed() = 0;
        }
    }
}
