//! Rings of slots: three resolutions, so that five minutes are exact to the minute and a day to the hour. What comes is
//! counted in the running minute alone, and goes from there into the rings when the minute is over.

use super::histogram::{Histogram, Quantiles};
use crate::ports::RequestRow;
use crate::record::CLIENT_CLOSED_REQUEST;

const MINUTE_MS: i64 = 60_000;

/// A span of time that ends now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Window {
    /// Five minutes, to the minute.
    FiveMinutes,
    /// An hour, to five minutes.
    Hour,
    /// A day, to the hour.
    Day,
}

impl Window {
    /// Reads `5m`, `1h` or `24h`.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "5m" => Some(Self::FiveMinutes),
            "1h" => Some(Self::Hour),
            "24h" => Some(Self::Day),
            _ => None,
        }
    }

    /// The word [`Window::parse`] reads.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::FiveMinutes => "5m",
            Self::Hour => "1h",
            Self::Day => "24h",
        }
    }

    /// Its resolution.
    const fn slot_ms(self) -> i64 {
        match self {
            Self::FiveMinutes => 60_000,
            Self::Hour => 5 * 60_000,
            Self::Day => 60 * 60_000,
        }
    }

    /// The slot that a minute belongs to.
    const fn slot_of(self, minute: i64) -> i64 {
        minute.div_euclid(self.slot_ms() / MINUTE_MS)
    }

    /// How many slots it has, the running one included.
    const fn slots(self) -> i64 {
        match self {
            Self::FiveMinutes => 5,
            Self::Hour => 12,
            Self::Day => 24,
        }
    }
}

/// Percentiles of one series.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct SeriesSummary {
    /// Requests.
    pub count: u64,
    /// Those that ended with an error; clients that went away do not count.
    pub errors: u64,
    /// From arrival to the last byte, in milliseconds.
    pub duration_ms: Quantiles,
    /// From arrival to the first meaningful event, in milliseconds.
    pub ttft_ms: Quantiles,
    /// Output tokens per second after the first event.
    pub tokens_per_second: Quantiles,
}

impl SeriesSummary {
    /// Errors among requests, from 0 to 1.
    #[allow(clippy::cast_precision_loss)]
    pub fn error_rate(&self) -> f64 {
        if self.count == 0 { 0.0 } else { self.errors as f64 / self.count as f64 }
    }
}

/// The measures of a series: what its slots have a histogram of.
const MEASURES: usize = 4;
const DURATION: usize = 0;
const TTFT: usize = 1;
const SPEED: usize = 2;
const OVERHEAD: usize = 3;

/// What one request adds to a series.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sample<const N: usize = MEASURES> {
    pub(super) is_error: bool,
    /// By measure; `None` where there is nothing to measure.
    pub(super) values: [Option<u64>; N],
}

impl Sample {
    pub(super) fn of(row: &RequestRow) -> Self {
        let positive = |value: i64| u64::try_from(value).unwrap_or(0);
        let duration_ms = positive(row.duration_ms);
        let ttft_ms = row.ttft_ms.map(positive);
        let streaming_ms = duration_ms.saturating_sub(ttft_ms.unwrap_or(0));
        let tokens_per_second = row
            .usage
            .output_total
            .filter(|tokens| *tokens > 0 && streaming_ms > 0 && row.status < 400)
            .map(|tokens| tokens.saturating_mul(1_000) / streaming_ms);
        let mut values = [None; MEASURES];
        values[DURATION] = Some(duration_ms);
        values[TTFT] = ttft_ms;
        values[SPEED] = tokens_per_second;
        values[OVERHEAD] = Some(positive(row.overhead_us));
        Self { is_error: row.status >= 400 && row.status != CLIENT_CLOSED_REQUEST, values }
    }
}

/// One series over all windows.
#[derive(Debug)]
pub(super) struct Series<const N: usize = MEASURES> {
    /// The running minute, which is in none of the rings yet.
    minute: Slot<N>,
    rings: [Ring<N>; 3],
}

impl<const N: usize> Default for Series<N> {
    fn default() -> Self {
        let rings = [Window::FiveMinutes, Window::Hour, Window::Day].map(Ring::new);
        Self { minute: Slot::new(i64::MIN), rings }
    }
}

impl<const N: usize> Series<N> {
    pub(super) fn record(&mut self, now_ms: i64, sample: &Sample<N>) {
        let number = now_ms.div_euclid(MINUTE_MS);
        if self.minute.number != number {
            self.close();
            self.minute.number = number;
        }
        self.minute.record(sample);
    }

    /// The running minute is over.
    fn close(&mut self) {
        if self.minute.count == 0 {
            return;
        }
        for ring in &mut self.rings {
            ring.slot(ring.window.slot_of(self.minute.number)).merge(&self.minute);
        }
        self.minute.clear();
    }

    /// How the values of a measure are distributed.
    pub(super) fn quantiles(&self, measure: usize, window: Window, now_ms: i64) -> Quantiles {
        let mut all = Histogram::default();
        for slot in self.slots(window, now_ms) {
            all.merge(&slot.measures[measure]);
        }
        all.quantiles()
    }

    fn slots(&self, window: Window, now_ms: i64) -> impl Iterator<Item = &Slot<N>> {
        let now = now_ms.div_euclid(window.slot_ms());
        let is_current = move |number: i64| number > now - window.slots() && number <= now;
        let minute = (self.minute.count > 0).then_some(&self.minute);
        let minute = minute.filter(|minute| is_current(window.slot_of(minute.number)));
        let ring = self.rings.iter().filter(move |ring| ring.window == window);
        ring.flat_map(|ring| &ring.slots).filter(move |slot| is_current(slot.number)).chain(minute)
    }
}

impl Series {
    pub(super) fn summary(&self, window: Window, now_ms: i64) -> SeriesSummary {
        let counts = self
            .slots(window, now_ms)
            .fold((0, 0), |(count, errors), slot| (count + slot.count, errors + slot.errors));
        SeriesSummary {
            count: counts.0,
            errors: counts.1,
            duration_ms: self.quantiles(DURATION, window, now_ms),
            ttft_ms: self.quantiles(TTFT, window, now_ms),
            tokens_per_second: self.quantiles(SPEED, window, now_ms),
        }
    }

    pub(super) fn overhead(&self, window: Window, now_ms: i64) -> Quantiles {
        self.quantiles(OVERHEAD, window, now_ms)
    }
}

#[derive(Debug)]
struct Ring<const N: usize> {
    window: Window,
    /// Grows to the window's number of slots as time goes by.
    slots: Vec<Slot<N>>,
}

#[derive(Debug)]
struct Slot<const N: usize> {
    /// Which slot since the epoch this is.
    number: i64,
    count: u64,
    errors: u64,
    measures: [Histogram; N],
}

impl<const N: usize> Slot<N> {
    fn new(number: i64) -> Self {
        Self { number, count: 0, errors: 0, measures: std::array::from_fn(|_| Histogram::default()) }
    }

    fn record(&mut self, sample: &Sample<N>) {
        self.count += 1;
        self.errors += u64::from(sample.is_error);
        for (measure, value) in self.measures.iter_mut().zip(sample.values) {
            if let Some(value) = value {
                measure.record(value);
            }
        }
    }

    fn merge(&mut self, other: &Self) {
        self.count += other.count;
        self.errors += other.errors;
        for (measure, theirs) in self.measures.iter_mut().zip(&other.measures) {
            measure.merge(theirs);
        }
    }

    /// Forgets the values and keeps the memory.
    fn clear(&mut self) {
        (self.count, self.errors) = (0, 0);
        self.measures.iter_mut().for_each(Histogram::clear);
    }
}

impl<const N: usize> Ring<N> {
    const fn new(window: Window) -> Self {
        Self { window, slots: Vec::new() }
    }

    /// The slot of this number; the oldest one is used again when the ring is full.
    fn slot(&mut self, number: i64) -> &mut Slot<N> {
        let known = self.slots.iter().position(|slot| slot.number == number);
        let at = known.unwrap_or_else(|| {
            let limit = usize::try_from(self.window.slots()).unwrap_or(1);
            if self.slots.len() < limit {
                self.slots.push(Slot::new(number));
                return self.slots.len() - 1;
            }
            let oldest =
                self.slots.iter().enumerate().min_by_key(|(_, slot)| slot.number).map_or(0, |(at, _)| at);
            self.slots[oldest].clear();
            self.slots[oldest].number = number;
            oldest
        });
        &mut self.slots[at]
    }
}
