//! What a vendor's headers say of its limits for one model, and what follows for the next request.
//!
//! With less than a tenth left no more are started than are left, until the vendor counts anew. With more than half left
//! nothing is held back. In between they are spaced out.

use omniroute_provider::allowance::{Allowance, Allowances};
use serde::{Deserialize, Serialize};

use super::after_pause;
use crate::clock;

/// How long numbers count when the vendor does not say until when.
const UNSAID_MS: i64 = 60_000;
/// No vendor is believed for longer.
const BELIEVED_MS: i64 = 24 * 3_600 * 1_000;
/// With this share left or less it is told that little is left,
const ALERT: f64 = 0.20;
/// once in this time.
const ALERT_EVERY_MS: i64 = 3_600 * 1_000;
/// How often what is left is written down.
const NOTE_EVERY_MS: i64 = 70 * 60 * 1_000;
/// For a vendor that asks for less without numbers.
const OVER_SPACING_MS: i64 = 200;

/// One limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LearnedWindow {
    /// How much there is in all, where it was said.
    pub limit: Option<u64>,
    /// What is left of it: what was said, less what was started since.
    pub remaining: u64,
    /// When the vendor counts anew, in epoch milliseconds.
    pub until: i64,
    /// Least milliseconds between two starts; 0 = none.
    pub spacing_ms: i64,
}

/// The limits of one model on one account.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LearnedLimits {
    /// Requests.
    pub requests: Option<LearnedWindow>,
    /// Tokens of prompts.
    pub tokens: Option<LearnedWindow>,
    /// Tokens of answers.
    pub output: Option<LearnedWindow>,
    /// Until when requests are spaced out because the vendor asked for less.
    pub over_until: i64,
    /// When the last request was started, in epoch milliseconds.
    pub last_start: i64,
    /// When the vendor was heard last, in epoch milliseconds.
    pub heard_at: i64,
    /// When it was told last that little is left.
    pub alerted_at: i64,
    /// When what is left was written down last.
    pub noted_at: i64,
}

impl LearnedWindow {
    /// What is left of it, between 0 and 1; `None` where it was not said of how much.
    pub fn share(&self) -> Option<f64> {
        #[allow(clippy::cast_precision_loss, reason = "a share")]
        self.limit.map(|limit| (self.remaining as f64 / limit.max(1) as f64).min(1.0))
    }
}

impl LearnedLimits {
    /// Until when any of it counts.
    pub fn until(&self) -> i64 {
        let ends = [self.requests, self.tokens, self.output].into_iter().flatten().map(|window| window.until);
        ends.fold(self.over_until, i64::max)
    }

    /// What is left of the scarcest, between 0 and 1, and when the vendor counts anew.
    pub fn left(&self, now_ms: i64) -> Option<(f64, i64)> {
        let counting = self.windows(now_ms);
        let left = counting.filter_map(|(_, window)| Some((window.share()?, window.until)));
        left.min_by(|a, b| a.0.total_cmp(&b.0))
    }

    /// The limits that count, by name.
    pub fn windows(&self, now_ms: i64) -> impl Iterator<Item = (&'static str, LearnedWindow)> {
        let named = [("requests", self.requests), ("tokens", self.tokens), ("output", self.output)];
        named.into_iter().filter_map(move |(name, window)| Some((name, self.counting(window, now_ms)?)))
    }

    /// A limit, if it counts.
    fn counting(&self, window: Option<LearnedWindow>, now_ms: i64) -> Option<LearnedWindow> {
        window.filter(|window| window.until > now_ms && !self.is_from_later(now_ms))
    }

    /// Whether the vendor was heard at a time that is still to come: the clock was set back, and its limits would count for
    /// longer by that.
    fn is_from_later(&self, now_ms: i64) -> bool {
        clock::is_from_later(self.heard_at, now_ms)
    }

    /// Takes note of when what is left is to be told and written down: once in a while, and when it runs out.
    fn mark(&mut self, was_out: bool, now_ms: i64) {
        let Some((left, _)) = self.left(now_ms) else { return };
        if left <= ALERT && now_ms - self.alerted_at >= ALERT_EVERY_MS {
            self.alerted_at = now_ms;
        }
        if now_ms - self.noted_at >= NOTE_EVERY_MS || (left <= 0.0 && !was_out) {
            self.noted_at = now_ms;
        }
    }

    /// Least milliseconds between two requests now.
    pub fn spacing_ms(&self, now_ms: i64) -> i64 {
        let is_asked = self.over_until > now_ms && !self.is_from_later(now_ms);
        let asked = if is_asked { OVER_SPACING_MS } else { 0 };
        self.counting(self.requests, now_ms).map_or(0, |window| window.spacing_ms).max(asked)
    }

    pub(super) fn counts(&self, now_ms: i64) -> bool {
        self.until() > now_ms && !self.is_from_later(now_ms)
    }

    pub(super) fn learn(&mut self, said: &Allowances, now_ms: i64) {
        if self.is_from_later(now_ms) {
            *self = Self::default();
        }
        let was_out = self.left(now_ms).is_some_and(|(left, _)| left <= 0.0);
        self.heard_at = now_ms;
        for (window, said) in [
            (&mut self.requests, said.requests),
            (&mut self.tokens, said.tokens),
            (&mut self.output, said.output),
        ] {
            if let Some(said) = said {
                *window = Some(learned(*window, said, now_ms));
            }
        }
        if said.is_over {
            self.over_until = now_ms + UNSAID_MS;
        }
        self.mark(was_out, now_ms);
    }

    /// Until when a request is held back; `None` = it may go.
    pub(super) fn hold(&self, tokens: u64, now_ms: i64) -> Option<i64> {
        let spent = |window: Option<LearnedWindow>, needed: u64| {
            let short = |window: &LearnedWindow| window.remaining < plausible(needed, window.limit);
            self.counting(window, now_ms).filter(short).map(|window| window.until)
        };
        let spaced = after_pause(self.last_start, self.spacing_ms(now_ms), now_ms);
        spent(self.requests, 1).max(spent(self.tokens, tokens)).max(spent(self.output, 1)).max(spaced)
    }

    pub(super) fn started(&mut self, tokens: u64, now_ms: i64) {
        self.last_start = now_ms;
        for (window, needed) in [(&mut self.requests, 1), (&mut self.tokens, tokens)] {
            if let Some(window) = window {
                window.remaining = window.remaining.saturating_sub(plausible(needed, window.limit));
            }
        }
    }
}

/// Bytes are a bad measure of images: an estimate above all that there is says little, and half of it is taken for it.
fn plausible(needed: u64, limit: Option<u64>) -> u64 {
    match limit {
        Some(limit) if needed > limit => limit / 2,
        _ => needed,
    }
}

/// What a limit is after an answer. Answers overtake each other, so an older and larger number does not raise a count that
/// is low already, until the vendor counts anew.
fn learned(before: Option<LearnedWindow>, said: Allowance, now_ms: i64) -> LearnedWindow {
    let reset_ms =
        said.reset.map_or(UNSAID_MS, |reset| i64::try_from(reset.as_millis()).unwrap_or(BELIEVED_MS));
    let until = now_ms.saturating_add(reset_ms.min(BELIEVED_MS));
    let window = LearnedWindow { limit: said.limit, remaining: said.remaining, until, spacing_ms: 0 };
    let Some(limit) = said.limit else {
        return counted_down(before, window, now_ms);
    };
    if said.remaining.saturating_mul(2) > limit {
        return window;
    }
    if said.remaining.saturating_mul(10) < limit {
        return counted_down(before, window, now_ms);
    }
    // As the limit allows in a minute; but not slower than what is left allows until the vendor counts anew.
    let by_limit = 60_000 / i64::try_from(limit).unwrap_or(i64::MAX).max(1) - 10;
    let by_rest = (until - now_ms) / i64::try_from(said.remaining).unwrap_or(i64::MAX).max(1);
    LearnedWindow { spacing_ms: by_limit.min(by_rest).max(0), ..counted_down(before, window, now_ms) }
}

fn counted_down(before: Option<LearnedWindow>, window: LearnedWindow, now_ms: i64) -> LearnedWindow {
    match before.filter(|before| before.until > now_ms) {
        Some(before) => LearnedWindow { remaining: window.remaining.min(before.remaining), ..window },
        None => window,
    }
}
