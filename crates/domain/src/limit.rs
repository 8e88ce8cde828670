//! Windows of a key's limits. Arithmetic only; who stores the counts is not known here.

use std::time::Duration;

/// What a limit counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Meter {
    /// Requests in a sliding minute.
    RequestsPerMinute,
    /// Requests in a UTC day.
    RequestsPerDay,
    /// Tokens in a sliding minute.
    TokensPerMinute,
    /// Requests running now.
    Concurrency,
}

impl Meter {
    /// The words of error messages.
    pub const fn describe(self) -> &'static str {
        match self {
            Self::RequestsPerMinute => "requests per minute",
            Self::RequestsPerDay => "requests per day",
            Self::TokensPerMinute => "tokens per minute",
            Self::Concurrency => "requests at once",
        }
    }

    /// Length of the window; `None` for what is only held while running.
    pub const fn window_ms(self) -> Option<i64> {
        match self {
            Self::RequestsPerMinute | Self::TokensPerMinute => Some(60_000),
            Self::RequestsPerDay => Some(86_400_000),
            Self::Concurrency => None,
        }
    }
}

/// What is left of a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// What it counts.
    pub meter: Meter,
    /// The limit.
    pub limit: u64,
    /// How much more there may be now.
    pub remaining: u64,
    /// Until all of it is there again, if nothing is used.
    pub reset_after: Duration,
}

/// How much later than they arrived requests are counted at most. A window that lies further in the future is one of a clock that
/// was ahead; one that is nearer may be that of others who arrived later.
const LATE_MS: i64 = 600_000;

/// Counts of the current and the previous window. The sliding estimate weighs the previous one by the share of it
/// that still lies within the last window length; the day counter does not slide.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Window {
    /// Which window `current` counts: time divided by length.
    index: i64,
    current: i64,
    previous: i64,
}

impl Window {
    /// Adds `amount` if the total stays within `limit`.
    pub fn reserve(
        &mut self,
        meter: Meter,
        limit: u64,
        amount: i64,
        now_ms: i64,
    ) -> Result<(), Option<Duration>> {
        let Some(length) = meter.window_ms() else {
            if self.current + amount > saturate(limit) {
                return Err(None);
            }
            self.current += amount;
            return Ok(());
        };
        self.advance(meter, length, now_ms);
        if self.used(meter, length, now_ms) + amount > saturate(limit) {
            return Err(Some(self.room_after(meter, length, limit, amount, now_ms)));
        }
        self.current += amount;
        Ok(())
    }

    /// Adds a correction, which may be negative, whatever the limit.
    pub fn settle(&mut self, meter: Meter, amount: i64, now_ms: i64) {
        if let Some(length) = meter.window_ms() {
            self.advance(meter, length, now_ms);
        }
        self.current = (self.current + amount).max(0);
    }

    /// What counts against the limit now.
    pub fn used_now(&mut self, meter: Meter, now_ms: i64) -> i64 {
        match meter.window_ms() {
            Some(length) => {
                self.advance(meter, length, now_ms);
                self.used(meter, length, now_ms)
            }
            None => self.current,
        }
    }

    /// What is left of a limit.
    pub fn standing(&mut self, meter: Meter, limit: u64, now_ms: i64) -> Standing {
        let used = u64::try_from(self.used_now(meter, now_ms)).unwrap_or(0);
        let left = |length: i64| length - now_ms.rem_euclid(length);
        // Until the window holds nothing any more if nothing is added.
        let reset_ms = match meter.window_ms() {
            Some(length) if self.current > 0 && slides(meter) => left(length) + length,
            Some(length) if self.current > 0 || self.previous > 0 => left(length),
            Some(_) | None => 0,
        };
        Standing {
            meter,
            limit,
            remaining: limit.saturating_sub(used),
            reset_after: Duration::from_millis(reset_ms.unsigned_abs()),
        }
    }

    /// Whether the entry could be forgotten without anyone noticing.
    pub fn is_idle(&self, meter: Meter, now_ms: i64) -> bool {
        match meter.window_ms() {
            Some(length) => {
                now_ms.div_euclid(length) > self.index + 1 || (self.current == 0 && self.previous == 0)
            }
            None => self.current == 0,
        }
    }

    fn advance(&mut self, meter: Meter, length: i64, now_ms: i64) {
        let index = now_ms.div_euclid(length);
        if index <= self.index {
            if index < self.index && now_ms + LATE_MS < self.index * length {
                // The clock is set back. What the window of the future holds was taken lately and counts on: rather too much
                // than too little.
                (self.index, self.previous) = (index, 0);
            }
            return;
        }
        self.previous = if index == self.index + 1 && slides(meter) { self.current } else { 0 };
        self.current = 0;
        self.index = index;
    }

    fn used(&self, meter: Meter, length: i64, now_ms: i64) -> i64 {
        if !slides(meter) {
            return self.current;
        }
        let left = length - now_ms.rem_euclid(length);
        // Rounded up, so that the estimate never lets more through than the limit.
        self.current + (self.previous * left + length - 1) / length
    }

    fn room_after(&self, meter: Meter, length: i64, limit: u64, amount: i64, now_ms: i64) -> Duration {
        let into = now_ms.rem_euclid(length);
        let free = saturate(limit) - self.current - amount;
        let wait = if slides(meter) && free >= 0 && self.previous > 0 {
            // When the weighted share of the previous window has shrunk to what is free.
            (length - into) - free * length / self.previous
        } else {
            length - into
        };
        Duration::from_millis(wait.clamp(1, length).unsigned_abs())
    }
}

fn slides(meter: Meter) -> bool {
    matches!(meter, Meter::RequestsPerMinute | Meter::TokensPerMinute)
}

fn saturate(limit: u64) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: i64 = 1_800_000_000_000 / 60_000 * 60_000;

    #[test]
    fn a_minute_holds_no_more_than_its_limit() {
        let mut window = Window::default();
        for _ in 0..3 {
            assert_eq!(window.reserve(Meter::RequestsPerMinute, 3, 1, T), Ok(()));
        }
        let wait = window.reserve(Meter::RequestsPerMinute, 3, 1, T + 1_000).unwrap_err().unwrap();
        assert_eq!(wait, Duration::from_millis(59_000));
    }

    #[test]
    fn the_previous_minute_fades() {
        let mut window = Window::default();
        for _ in 0..10 {
            window.reserve(Meter::RequestsPerMinute, 10, 1, T + 59_000).unwrap();
        }
        assert!(window.reserve(Meter::RequestsPerMinute, 10, 1, T + 60_000).is_err());
        assert_eq!(window.reserve(Meter::RequestsPerMinute, 10, 1, T + 90_000), Ok(()));
        assert_eq!(window.used_now(Meter::RequestsPerMinute, T + 90_000), 6);
    }

    #[test]
    fn the_wait_it_names_is_long_enough_and_not_a_window_too_long() {
        for fill in 1..20 {
            for limit in 1..=fill {
                let mut window = Window::default();
                for _ in 0..fill {
                    let _ = window.reserve(Meter::RequestsPerMinute, limit, 1, T);
                }
                let now = T + 61_000;
                let mut probe = window;
                if let Err(wait) = probe.reserve(Meter::RequestsPerMinute, limit, 1, now) {
                    let wait = i64::try_from(wait.unwrap().as_millis()).unwrap();
                    assert_eq!(
                        window.clone().reserve(Meter::RequestsPerMinute, limit, 1, now + wait + 1),
                        Ok(())
                    );
                    assert!(wait <= 60_000);
                }
            }
        }
    }

    #[test]
    fn what_is_left_is_told() {
        let mut window = Window::default();
        let told = |window: &mut Window, meter, now| {
            let standing = window.standing(meter, 10, now);
            (standing.remaining, standing.reset_after.as_millis())
        };
        assert_eq!(told(&mut window, Meter::RequestsPerMinute, T), (10, 0));
        window.reserve(Meter::RequestsPerMinute, 10, 4, T).unwrap();
        assert_eq!(told(&mut window, Meter::RequestsPerMinute, T + 15_000), (6, 105_000));
        assert_eq!(told(&mut window, Meter::RequestsPerMinute, T + 90_000), (8, 30_000));
        assert_eq!(told(&mut window, Meter::RequestsPerMinute, T + 120_000), (10, 0));
        let mut day = Window::default();
        day.reserve(Meter::RequestsPerDay, 10, 12, T).unwrap_err();
        day.reserve(Meter::RequestsPerDay, 10, 10, T).unwrap();
        assert_eq!(told(&mut day, Meter::RequestsPerDay, T).0, 0);
    }

    #[test]
    fn a_clock_that_is_set_back_does_not_keep_anybody_out() {
        let day = T / 86_400_000 * 86_400_000;
        for (meter, length) in [(Meter::RequestsPerMinute, 60_000_i64), (Meter::RequestsPerDay, 86_400_000)] {
            let mut window = Window::default();
            let ahead = day + 400 * 86_400_000;
            for _ in 0..3 {
                window.reserve(meter, 3, 1, ahead).unwrap();
            }
            let now = day + 1_000;
            let wait = window.reserve(meter, 3, 1, now).unwrap_err().unwrap();
            assert!(
                wait.as_millis() <= u128::from(length.unsigned_abs()),
                "what was taken counts on, in the true window"
            );
            assert_eq!(window.standing(meter, 3, now).remaining, 0);
            assert_eq!(window.reserve(meter, 3, 1, now + 2 * length), Ok(()), "{meter:?}");
            assert_eq!(window.used_now(meter, now + 2 * length), 1);
        }
    }

    #[test]
    fn who_arrived_before_a_window_began_does_not_move_it() {
        let mut window = Window::default();
        window.reserve(Meter::RequestsPerMinute, 3, 1, T + 240_000).unwrap();
        window.reserve(Meter::RequestsPerMinute, 3, 1, T).unwrap();
        assert_eq!(window.used_now(Meter::RequestsPerMinute, T + 240_000), 2);
    }

    #[test]
    fn concurrency_is_given_back() {
        let mut window = Window::default();
        assert_eq!(window.reserve(Meter::Concurrency, 1, 1, T), Ok(()));
        assert_eq!(window.reserve(Meter::Concurrency, 1, 1, T), Err(None));
        window.settle(Meter::Concurrency, -1, T);
        assert_eq!(window.reserve(Meter::Concurrency, 1, 1, T), Ok(()));
    }

    #[test]
    fn a_day_does_not_slide() {
        let day = T / 86_400_000 * 86_400_000;
        let mut window = Window::default();
        assert_eq!(window.reserve(Meter::RequestsPerDay, 1, 1, day + 86_399_000), Ok(()));
        assert!(window.reserve(Meter::RequestsPerDay, 1, 1, day + 86_399_500).is_err());
        assert_eq!(window.reserve(Meter::RequestsPerDay, 1, 1, day + 86_400_000), Ok(()));
    }
}
