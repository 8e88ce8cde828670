//! What traffic says of a candidate: totals, and counts of the last hour. Written and read without a lock.

use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering};

use super::latencies::{Latencies, Spread};

/// Pieces of the hour.
const SLICES: usize = 12;
const SLICE_MS: i64 = 5 * 60 * 1_000;
/// Failures in a row after which a candidate is left alone.
const TOO_MANY_FAILURES: u32 = 3;
/// For how long.
const EXCLUDED_MS: i64 = 5 * 60 * 1_000;
/// How much a new value moves an average.
const NEW_SHARE: f64 = 0.2;

/// Counts of one candidate. Plans look at those of all steps, of which most were last seen by another request: what they read, and
/// what every answer changes, stands together, in the lines of memory that a processor fetches.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct Stats {
    in_flight: AtomicU32,
    last_failed: AtomicU32,
    /// The requests of all slices but the running one, once somebody wanted to know: they stay the same until the next one.
    earlier: Slice,
    /// Bits of an `f64`, of the tokens of answers; 0 before the first one.
    output: AtomicU64,
    /// The same of how long they took.
    latency: AtomicU64,
    total_requests: AtomicU64,
    total_successes: AtomicU64,
    total_latency_ms: AtomicU64,
    last_used_at: AtomicI64,
    slices: [Counts; SLICES],
    failures_in_row: AtomicU32,
    queued: AtomicU32,
    excluded_until: AtomicI64,
    turned_away: AtomicU64,
    latencies: Latencies,
}

/// What was counted in five minutes.
#[derive(Debug, Default)]
struct Counts {
    requests: Slice,
    successes: Slice,
}

/// What was counted since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// All that ended.
    pub requests: u64,
    /// Those that went well.
    pub successes: u64,
    /// How long those took together, in milliseconds.
    pub latency_ms: u64,
    /// When the last one ended; `None` when there was none.
    pub last_used_at: Option<i64>,
    /// Whether the last one failed.
    pub last_failed: bool,
}

/// How often a candidate was asked, and answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Measured {
    /// Requests that ended; at least one.
    pub requests: u64,
    /// Those that went well.
    pub successes: u64,
    /// Whether they are those of the last hour; else all that are counted, none of which is as new.
    pub is_recent: bool,
}

impl Measured {
    /// Share of them that went well.
    #[allow(clippy::cast_precision_loss, reason = "a rate")]
    pub fn rate(&self) -> f64 {
        self.successes as f64 / self.requests.max(1) as f64
    }
}

/// A count that belongs to one five minutes: their number in the upper half, the count in the lower. Old ones are
/// recognised by their number, so nothing has to tidy up.
#[derive(Debug, Default)]
struct Slice(AtomicU64);

impl Slice {
    fn apart(&self) -> Self {
        Self(AtomicU64::new(self.0.load(Ordering::Relaxed)))
    }

    fn add(&self, number: u32) {
        let next = |word: u64| {
            let (before, count) = ((word >> 32) as u32, word & 0xffff_ffff);
            let count = if before == number { (count + 1).min(0xffff_ffff) } else { 1 };
            Some(u64::from(number) << 32 | count)
        };
        // `next` never gives up, so this cannot fail.
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
    }

    fn number(&self) -> u32 {
        (self.0.load(Ordering::Relaxed) >> 32) as u32
    }

    fn set(&self, number: u32, count: u64) {
        self.0.store(u64::from(number) << 32 | count.min(0xffff_ffff), Ordering::Relaxed);
    }

    fn count(&self, now: u32) -> u64 {
        let word = self.0.load(Ordering::Relaxed);
        let age = now.wrapping_sub((word >> 32) as u32);
        if (age as usize) < SLICES { word & 0xffff_ffff } else { 0 }
    }
}

/// Moves an average, kept as the bits of an `f64`, towards a new value.
fn move_average(average: &AtomicU64, value: u64) {
    #[allow(clippy::cast_precision_loss, reason = "an average")]
    let new = (value as f64).max(f64::MIN_POSITIVE);
    let moved = |bits: u64| {
        let before = f64::from_bits(bits);
        let moved = if bits == 0 { new } else { (new - before).mul_add(NEW_SHARE, before) };
        Some(moved.to_bits())
    };
    let _ = average.fetch_update(Ordering::Relaxed, Ordering::Relaxed, moved);
}

fn number(now_ms: i64) -> u32 {
    u32::try_from(now_ms.div_euclid(SLICE_MS).rem_euclid(1 << 32)).unwrap_or(0)
}

impl Stats {
    /// A copy that goes its own way.
    pub(crate) fn apart(&self) -> Self {
        let small = |it: &AtomicU32| AtomicU32::new(it.load(Ordering::Relaxed));
        let large = |it: &AtomicU64| AtomicU64::new(it.load(Ordering::Relaxed));
        let time = |it: &AtomicI64| AtomicI64::new(it.load(Ordering::Relaxed));
        Self {
            in_flight: small(&self.in_flight),
            last_failed: small(&self.last_failed),
            earlier: self.earlier.apart(),
            output: large(&self.output),
            latency: large(&self.latency),
            total_requests: large(&self.total_requests),
            total_successes: large(&self.total_successes),
            total_latency_ms: large(&self.total_latency_ms),
            last_used_at: time(&self.last_used_at),
            slices: self.slices.each_ref().map(|counts| Counts {
                requests: counts.requests.apart(),
                successes: counts.successes.apart(),
            }),
            failures_in_row: small(&self.failures_in_row),
            queued: small(&self.queued),
            excluded_until: time(&self.excluded_until),
            turned_away: large(&self.turned_away),
            latencies: self.latencies.apart(),
        }
    }

    /// A request that is only played: it is one more, and changes the rate of those that go well. How long it took nobody knows,
    /// and a row of failures that nobody saw excludes nobody.
    pub fn play(&self, is_good: bool, now_ms: i64) {
        let number = number(now_ms);
        let counts = &self.slices[number as usize % SLICES];
        counts.requests.add(number);
        if is_good {
            counts.successes.add(number);
        }
    }

    /// What was counted within the last hour; where that is nothing, what was counted at all. `None` = never asked.
    pub fn measured(&self, now_ms: i64) -> Option<Measured> {
        let now = number(now_ms);
        let sum = |slice: fn(&Counts) -> &Slice| {
            self.slices.iter().map(|counts| slice(counts).count(now)).sum::<u64>()
        };
        let (requests, successes) = (sum(|counts| &counts.requests), sum(|counts| &counts.successes));
        let recent = Measured { requests, successes: successes.min(requests), is_recent: true };
        if requests > 0 {
            return Some(recent);
        }
        let Totals { requests, successes, .. } = self.totals();
        let all = Measured { requests, successes: successes.min(requests), is_recent: false };
        (requests > 0).then_some(all)
    }

    /// A request begins.
    pub fn begin(&self) {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
    }

    /// A request that began is over; `latency_ms` is the time to its first content, `None` when it failed.
    pub fn end(&self, latency_ms: Option<u64>, now_ms: i64) {
        self.cancel();
        let number = number(now_ms);
        let counts = &self.slices[number as usize % SLICES];
        counts.requests.add(number);
        if self.earlier.number() != number {
            // Whoever was late belongs to a slice that may have been added up.
            self.earlier.set(0, 0);
        }
        self.total_requests.fetch_add(1, Ordering::Relaxed);
        self.last_used_at.store(now_ms, Ordering::Relaxed);
        self.last_failed.store(u32::from(latency_ms.is_none()), Ordering::Relaxed);
        let Some(latency_ms) = latency_ms else {
            let failures = self.failures_in_row.fetch_add(1, Ordering::Relaxed).saturating_add(1);
            if failures >= TOO_MANY_FAILURES {
                self.excluded_until.store(now_ms.saturating_add(EXCLUDED_MS), Ordering::Relaxed);
            }
            return;
        };
        self.failures_in_row.store(0, Ordering::Relaxed);
        self.excluded_until.store(0, Ordering::Relaxed);
        self.latencies.note(latency_ms);
        counts.successes.add(number);
        self.total_successes.fetch_add(1, Ordering::Relaxed);
        self.total_latency_ms.fetch_add(latency_ms, Ordering::Relaxed);
        move_average(&self.latency, latency_ms);
    }

    /// An answer had so many tokens.
    pub fn note_output(&self, tokens: u64) {
        move_average(&self.output, tokens);
    }

    /// A request that was not counted while it ran is over.
    pub fn note(&self, latency_ms: Option<u64>, now_ms: i64) {
        self.begin();
        self.end(latency_ms, now_ms);
    }

    /// A request that began came to nothing that says anything: its client went away.
    pub fn cancel(&self) {
        let fewer = |count: u32| Some(count.saturating_sub(1));
        let _ = self.in_flight.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fewer);
    }

    /// Counts from nothing again; running requests go on.
    pub fn clear(&self) {
        for counts in &self.slices {
            counts.requests.set(0, 0);
            counts.successes.set(0, 0);
        }
        for total in
            [&self.latency, &self.output, &self.total_requests, &self.total_successes, &self.total_latency_ms]
        {
            total.store(0, Ordering::Relaxed);
        }
        self.earlier.set(0, 0);
        self.last_used_at.store(0, Ordering::Relaxed);
        self.last_failed.store(0, Ordering::Relaxed);
        self.failures_in_row.store(0, Ordering::Relaxed);
        self.excluded_until.store(0, Ordering::Relaxed);
        self.latencies.clear();
        self.turned_away.store(0, Ordering::Relaxed);
    }

    /// Requests of the last hour, running ones included.
    pub fn uses(&self, now_ms: i64) -> u64 {
        let now = number(now_ms);
        let running = &self.slices[now as usize % SLICES].requests;
        let earlier = if self.earlier.number() == now {
            self.earlier.count(now)
        } else {
            let requests = self.slices.iter().map(|counts| &counts.requests);
            let others = requests.filter(|slice| !std::ptr::eq(*slice, running));
            let earlier = others.map(|slice| slice.count(now)).sum();
            self.earlier.set(now, earlier);
            earlier
        };
        earlier + running.count(now) + u64::from(self.in_flight())
    }

    /// A request waits for a place.
    pub fn wait(&self) {
        self.queued.fetch_add(1, Ordering::Relaxed);
    }

    /// It waits no more.
    pub fn waited(&self) {
        let fewer = |count: u32| Some(count.saturating_sub(1));
        let _ = self.queued.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fewer);
    }

    /// A request found no place, or none in time.
    pub fn turned_away(&self) {
        self.turned_away.fetch_add(1, Ordering::Relaxed);
    }

    /// Requests that wait for a place now.
    pub fn queued(&self) -> u32 {
        self.queued.load(Ordering::Relaxed)
    }

    /// Requests that found no place since the start.
    pub fn turned_away_total(&self) -> u64 {
        self.turned_away.load(Ordering::Relaxed)
    }

    /// Requests running now.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Share of the last hour's requests that went well, as if one of two before had.
    pub fn success_rate(&self, now_ms: i64) -> f64 {
        let sum = |slice: fn(&Counts) -> &Slice| {
            let now = number(now_ms);
            self.slices.iter().map(|counts| slice(counts).count(now)).sum::<u64>()
        };
        let (all, good) = (sum(|counts| &counts.requests), sum(|counts| &counts.successes));
        #[allow(clippy::cast_precision_loss, reason = "a rate")]
        let rate = (good as f64 + 1.0) / (all as f64 + 2.0);
        rate.min(1.0)
    }

    /// How long answers took of late, in milliseconds.
    pub fn latency_ms(&self) -> Option<f64> {
        let bits = self.latency.load(Ordering::Relaxed);
        (bits != 0).then(|| f64::from_bits(bits))
    }

    /// How many tokens answers had of late.
    pub fn output_tokens(&self) -> Option<u64> {
        let bits = self.output.load(Ordering::Relaxed);
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an average of counts")]
        let tokens = (f64::from_bits(bits) + 0.5) as u64;
        (bits != 0).then_some(tokens)
    }

    /// How the latest latencies are spread.
    pub fn spread(&self) -> Option<Spread> {
        self.latencies.spread()
    }

    /// Until when it is left alone for having failed several times in a row, in epoch milliseconds.
    pub fn excluded_until(&self, now_ms: i64) -> Option<i64> {
        Some(self.excluded_until.load(Ordering::Relaxed)).filter(|until| *until > now_ms)
    }

    /// What was counted since the start.
    pub fn totals(&self) -> Totals {
        let last_used_at = self.last_used_at.load(Ordering::Relaxed);
        Totals {
            requests: self.total_requests.load(Ordering::Relaxed),
            successes: self.total_successes.load(Ordering::Relaxed),
            latency_ms: self.total_latency_ms.load(Ordering::Relaxed),
            last_used_at: (last_used_at != 0).then_some(last_used_at),
            last_failed: self.last_failed.load(Ordering::Relaxed) != 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_is_remembered_and_no_more() {
        let stats = Stats::default();
        let start = 1_700_000_000_000;
        for minute in 0..120 {
            stats.begin();
            stats.end((minute % 2 == 0).then_some(100), start + minute * 60_000);
        }
        let end = start + 119 * 60_000;
        assert!((55..=60).contains(&stats.uses(end)), "{}", stats.uses(end));
        assert!((stats.success_rate(end) - 0.5).abs() < 0.02);
        assert_eq!(stats.uses(end + 3_600_000), 0);
        assert!((stats.success_rate(end + 3_600_000) - 0.5).abs() < f64::EPSILON);
        assert_eq!(stats.totals().requests, 120);
        assert_eq!(stats.totals().successes, 60);
        assert!(stats.totals().last_failed);
    }

    #[test]
    fn what_is_played_in_a_copy_is_of_the_copy_alone() {
        let (stats, now) = (Stats::default(), 1_700_000_000_000);
        assert_eq!(stats.measured(now), None);
        for outcome in [Some(100), Some(300), None, None] {
            stats.note(outcome, now);
        }
        let copy = stats.apart();
        assert_eq!(
            (copy.uses(now), copy.latency_ms(), copy.totals()),
            (4, stats.latency_ms(), stats.totals())
        );
        for _ in 0..4 {
            copy.play(false, now);
        }
        assert_eq!((copy.uses(now), stats.uses(now)), (8, 4));
        assert_eq!(copy.excluded_until(now), None, "nobody is excluded for failures that nobody saw");
        assert!(copy.success_rate(now) < stats.success_rate(now));
        let hour = Measured { requests: 4, successes: 2, is_recent: true };
        assert_eq!(stats.measured(now), Some(hour));
        assert_eq!(stats.measured(now + 3_600_000), Some(Measured { is_recent: false, ..hour }));
    }

    #[test]
    fn running_requests_count_and_cancelled_ones_leave_nothing() {
        let stats = Stats::default();
        stats.begin();
        stats.begin();
        assert_eq!(stats.uses(0), 2);
        stats.cancel();
        stats.end(Some(40), 1);
        assert_eq!((stats.uses(1), stats.in_flight(), stats.totals().requests), (1, 0, 1));
        assert_eq!(stats.latency_ms(), Some(40.0));
    }

    #[test]
    fn three_failures_in_a_row_exclude_for_five_minutes_and_an_answer_ends_it() {
        let stats = Stats::default();
        for outcome in [None, None, Some(5), None, None] {
            stats.note(outcome, 1_000);
        }
        assert_eq!(stats.excluded_until(1_000), None, "an answer stood between them");
        stats.note(None, 1_000);
        assert_eq!(stats.excluded_until(1_000), Some(301_000));
        assert_eq!(stats.excluded_until(301_000), None);
        stats.note(None, 400_000);
        assert_eq!(stats.excluded_until(400_000), Some(700_000), "the next failure excludes again at once");
        stats.note(Some(5), 400_001);
        assert_eq!(stats.excluded_until(400_002), None);
    }

    #[test]
    fn the_length_of_answers_is_known_from_the_first_on() {
        let stats = Stats::default();
        assert_eq!(stats.output_tokens(), None);
        for (tokens, average) in [(100, 100), (200, 120), (0, 96)] {
            stats.note_output(tokens);
            assert_eq!(stats.output_tokens(), Some(average));
        }
        stats.clear();
        assert_eq!(stats.output_tokens(), None);
    }

    #[test]
    fn latency_follows_of_late() {
        let stats = Stats::default();
        for latency in [100, 100, 1_000, 1_000, 1_000, 1_000, 1_000, 1_000, 1_000, 1_000] {
            stats.begin();
            stats.end(Some(latency), 5);
        }
        assert!(stats.latency_ms().is_some_and(|latency| latency > 800.0));
    }
}
