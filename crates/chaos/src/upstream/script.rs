//! How one account's upstream behaves at any moment. Pure: times and chance come in.

use crate::random::Random;
use crate::scenario::{FaultKind, Latency, Quota, Rate};

/// How long an upstream takes to refuse.
const REFUSAL: Latency = Latency { p50: 25, p99: 80 };
/// How long a connection that nobody answers is tried.
const UNREACHABLE_MS: u64 = 50;
/// How long a request hangs that is never answered.
const HANG_MS: u64 = 24 * 3_600 * 1_000;

/// What an upstream does while nothing is wrong.
#[derive(Debug, Clone)]
pub(crate) struct Habits {
    pub(crate) latency: Latency,
    pub(crate) rest: Latency,
    pub(crate) output_tokens: [u64; 2],
    pub(crate) rate: Option<Rate>,
    pub(crate) quota: Option<Quota>,
}

/// A fault of one account, in milliseconds of the round.
#[derive(Debug, Clone)]
pub(crate) struct Trouble {
    pub(crate) kind: FaultKind,
    pub(crate) from_ms: u64,
    pub(crate) to_ms: u64,
    pub(crate) share: f64,
    pub(crate) status: u16,
    pub(crate) retry_after_ms: Option<u64>,
    pub(crate) factor: f64,
}

impl Trouble {
    /// Whether it can make a request fail.
    fn is_harmful(&self) -> bool {
        self.kind != FaultKind::Slow && self.share > 0.0
    }
}

/// What becomes of one call.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Outcome {
    /// An answer: after so long, the rest of a stream so much later.
    Answer { first_ms: u64, rest_ms: u64, cut: Option<Cut>, left: Option<Left> },
    /// An error.
    Refusal { after_ms: u64, status: u16, code: &'static str, retry_after_ms: Option<u64> },
    /// Nobody there.
    Unreachable { after_ms: u64 },
    /// A head, after which nothing comes.
    Hang { for_ms: u64 },
}

/// How an answer is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// It ends before its first piece.
    BeforeFirst,
    /// It ends after its first piece.
    AfterFirst,
    /// It has no content.
    Empty,
}

/// What is left of a vendor's limit, as its headers tell it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Left {
    pub(crate) limit: u32,
    pub(crate) remaining: u32,
    /// Until the bucket is full again.
    pub(crate) reset_ms: u64,
}

/// The state of one upstream account.
#[derive(Debug)]
pub(crate) struct Script {
    habits: Habits,
    troubles: Vec<Trouble>,
    /// Length of a round, after which the phases begin anew.
    round_ms: u64,
    random: Random,
    bucket: f64,
    bucket_at_ms: u64,
    quota_window: u64,
    quota_used: u64,
    /// When the vendor's own limits refused a call last.
    limited_at_ms: Option<u64>,
}

impl Script {
    pub(crate) fn new(habits: Habits, troubles: Vec<Trouble>, round_ms: u64, random: Random) -> Self {
        let bucket = habits.rate.map_or(0.0, burst);
        Self {
            habits,
            troubles,
            round_ms,
            random,
            bucket,
            bucket_at_ms: 0,
            quota_window: 0,
            quota_used: 0,
            limited_at_ms: None,
        }
    }

    /// Tokens of an answer.
    pub(crate) fn output_tokens(&mut self) -> u64 {
        self.random.between(self.habits.output_tokens)
    }

    /// What becomes of a call that arrives now.
    pub(crate) fn call(&mut self, now_ms: u64) -> Outcome {
        let at = now_ms % self.round_ms;
        let (mut factor, mut cut) = (1.0_f64, None);
        for place in 0..self.troubles.len() {
            let trouble = &self.troubles[place];
            if !(trouble.from_ms..trouble.to_ms).contains(&at) || !self.random.hits(trouble.share) {
                continue;
            }
            let (status, hint) = (trouble.status, trouble.retry_after_ms);
            let code = match trouble.kind {
                FaultKind::Slow => {
                    factor = factor.max(trouble.factor);
                    continue;
                }
                FaultKind::Empty => {
                    cut = Some(Cut::Empty);
                    continue;
                }
                FaultKind::CutBefore => {
                    cut = Some(Cut::BeforeFirst);
                    continue;
                }
                FaultKind::CutAfter => {
                    cut = Some(Cut::AfterFirst);
                    continue;
                }
                FaultKind::Unreachable => return Outcome::Unreachable { after_ms: UNREACHABLE_MS },
                FaultKind::Hang => return Outcome::Hang { for_ms: HANG_MS },
                FaultKind::Outage => "server_error",
                FaultKind::RateLimit => "rate_limit_exceeded",
                FaultKind::Quota => "insufficient_quota",
                FaultKind::WrongKey => "invalid_api_key",
            };
            return self.refusal(status, code, hint);
        }
        if let Some(refusal) = self.over_limit(now_ms) {
            return refusal;
        }
        Outcome::Answer {
            first_ms: self.random.latency(self.habits.latency, factor),
            rest_ms: self.random.latency(self.habits.rest, factor),
            cut,
            left: self.left(),
        }
    }

    /// Whether a call that arrives now would be answered, as far as anybody can tell.
    pub(crate) fn would_answer(&mut self, now_ms: u64) -> bool {
        let at = now_ms % self.round_ms;
        self.fill(now_ms);
        self.troubles.iter().all(|it| !it.is_harmful() || !(it.from_ms..it.to_ms).contains(&at))
            && (self.habits.rate.is_none() || self.bucket >= 1.0)
            && self.habits.quota.is_none_or(|quota| self.quota_used < quota.requests)
    }

    /// Since when nothing has been wrong, given that nothing is now.
    pub(crate) fn well_since_ms(&self, now_ms: u64) -> u64 {
        let at = now_ms % self.round_ms;
        let ended = self.troubles.iter().filter(|trouble| trouble.is_harmful()).map(|trouble| {
            let ago =
                if trouble.to_ms <= at { at - trouble.to_ms } else { at + self.round_ms - trouble.to_ms };
            now_ms.saturating_sub(ago)
        });
        ended.chain(self.limited_at_ms).max().unwrap_or(0)
    }

    /// The refusal of the vendor's own limits; takes a place of theirs if there is none.
    fn over_limit(&mut self, now_ms: u64) -> Option<Outcome> {
        self.fill(now_ms);
        if let Some(quota) = self.habits.quota.filter(|quota| self.quota_used >= quota.requests) {
            let every_ms = quota.every_s * 1_000;
            self.limited_at_ms = Some(now_ms);
            let wait = every_ms - now_ms % every_ms;
            return Some(self.refusal(429, "insufficient_quota", quota.hint.then_some(wait)));
        }
        if let Some(rate) = self.habits.rate {
            if self.bucket < 1.0 {
                self.limited_at_ms = Some(now_ms);
                let wait = ms_until(1.0 - self.bucket, rate);
                return Some(self.refusal(429, "rate_limit_exceeded", rate.hint.then_some(wait)));
            }
            self.bucket -= 1.0;
        }
        self.quota_used += 1;
        None
    }

    fn fill(&mut self, now_ms: u64) {
        if let Some(rate) = self.habits.rate {
            let passed = now_ms.saturating_sub(self.bucket_at_ms);
            #[allow(clippy::cast_precision_loss, reason = "milliseconds of a run")]
            let filled = passed as f64 * f64::from(rate.per_minute) / 60_000.0;
            self.bucket = (self.bucket + filled).min(burst(rate));
            self.bucket_at_ms = now_ms;
        }
        if let Some(quota) = self.habits.quota {
            let window = now_ms / (quota.every_s * 1_000);
            if window != self.quota_window {
                (self.quota_window, self.quota_used) = (window, 0);
            }
        }
    }

    fn left(&self) -> Option<Left> {
        let rate = self.habits.rate.filter(|rate| rate.headers)?;
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most the burst")]
        let remaining = self.bucket as u32;
        Some(Left { limit: rate.per_minute, remaining, reset_ms: ms_until(burst(rate) - self.bucket, rate) })
    }

    fn refusal(&mut self, status: u16, code: &'static str, retry_after_ms: Option<u64>) -> Outcome {
        Outcome::Refusal { after_ms: self.random.latency(REFUSAL, 1.0), status, code, retry_after_ms }
    }
}

/// How many requests may come at once.
fn burst(rate: Rate) -> f64 {
    f64::from(rate.burst.unwrap_or(rate.per_minute.div_ceil(10)).max(1))
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most some minutes")]
fn ms_until(missing: f64, rate: Rate) -> u64 {
    (missing.max(0.0) * 60_000.0 / f64::from(rate.per_minute.max(1))).ceil() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn habits(rate: Option<Rate>, quota: Option<Quota>) -> Habits {
        let latency = Latency { p50: 100, p99: 200 };
        Habits { latency, rest: latency, output_tokens: [1, 2], rate, quota }
    }

    fn script(habits: Habits, troubles: Vec<Trouble>) -> Script {
        Script::new(habits, troubles, 100_000, Random::new(1, 1))
    }

    fn outage(from_ms: u64, to_ms: u64) -> Trouble {
        Trouble {
            kind: FaultKind::Outage,
            from_ms,
            to_ms,
            share: 1.0,
            status: 503,
            retry_after_ms: None,
            factor: 1.0,
        }
    }

    #[test]
    fn a_fault_lasts_from_its_beginning_to_its_end_in_every_round() {
        let mut script = script(habits(None, None), vec![outage(10_000, 20_000)]);
        for round in 0..3 {
            let round = round * 100_000;
            let mut answers = |at| matches!(script.call(round + at), Outcome::Answer { .. });
            assert_eq!([9_999, 10_000, 19_999, 20_000].map(&mut answers), [true, false, false, true]);
            assert!(script.would_answer(round + 25_000) && !script.would_answer(round + 15_000));
            assert_eq!(script.well_since_ms(round + 25_000), round + 20_000);
        }
        assert_eq!(script.well_since_ms(105_000), 20_000, "the last fault was in the round before");
    }

    #[test]
    fn a_rate_is_a_bucket_and_its_hint_is_true() {
        let rate = Rate { per_minute: 60, burst: Some(2), hint: true, headers: true };
        let mut script = script(habits(Some(rate), None), Vec::new());
        let Outcome::Answer { left: Some(left), .. } = script.call(0) else { panic!("the bucket is full") };
        assert_eq!((left.limit, left.remaining, left.reset_ms), (60, 1, 1_000));
        assert!(matches!(script.call(0), Outcome::Answer { .. }));
        let Outcome::Refusal { status: 429, retry_after_ms: Some(wait), .. } = script.call(400) else {
            panic!("the bucket is empty")
        };
        assert_eq!(wait, 600);
        assert!(script.would_answer(400 + wait));
        assert_eq!(script.well_since_ms(1_000), 400);
    }

    #[test]
    fn a_quota_comes_back_all_at_once() {
        let quota = Quota { requests: 3, every_s: 60, hint: true };
        let mut script = script(habits(None, Some(quota)), Vec::new());
        let answered = (0..10).filter(|at| matches!(script.call(*at), Outcome::Answer { .. })).count();
        assert_eq!(answered, 3);
        let Outcome::Refusal { code: "insufficient_quota", retry_after_ms: Some(wait), .. } =
            script.call(50_000)
        else {
            panic!("the quota is spent")
        };
        assert_eq!(wait, 10_000);
        assert!(matches!(script.call(60_000), Outcome::Answer { .. }));
    }
}
