//! Rings of slots: three resolutions, so that five minutes are exact to the minute and a day to the hour.

use super::histogram::{Histogram, Quantiles};
use crate::ports::RequestRow;

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

/// What one request adds to a series.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sample {
    is_error: bool,
    duration_ms: u64,
    ttft_ms: Option<u64>,
    tokens_per_second: Option<u64>,
    overhead_us: u64,
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
        Self {
            is_error: row.status >= 400 && row.status != 499,
            duration_ms,
            ttft_ms,
            tokens_per_second,
            overhead_us: positive(row.overhead_us),
        }
    }
}

/// One series over all windows.
#[derive(Debug)]
pub(super) struct Series {
    rings: [Ring; 3],
}

impl Default for Series {
    fn default() -> Self {
        Self { rings: [Window::FiveMinutes, Window::Hour, Window::Day].map(Ring::new) }
    }
}

impl Series {
    pub(super) fn record(&mut self, now_ms: i64, sample: &Sample) {
        for ring in &mut self.rings {
            ring.record(now_ms, sample);
        }
    }

    pub(super) fn summary(&self, window: Window, now_ms: i64) -> SeriesSummary {
        let mut summary = SeriesSummary::default();
        let (mut duration, mut ttft, mut speed) =
            (Histogram::default(), Histogram::default(), Histogram::default());
        for slot in self.slots(window, now_ms) {
            summary.count += slot.count;
            summary.errors += slot.errors;
            duration.merge(&slot.duration);
            ttft.merge(&slot.ttft);
            speed.merge(&slot.speed);
        }
        summary.duration_ms = duration.quantiles();
        summary.ttft_ms = ttft.quantiles();
        summary.tokens_per_second = speed.quantiles();
        summary
    }

    pub(super) fn overhead(&self, window: Window, now_ms: i64) -> Quantiles {
        let mut overhead = Histogram::default();
        for slot in self.slots(window, now_ms) {
            overhead.merge(&slot.overhead);
        }
        overhead.quantiles()
    }

    fn slots(&self, window: Window, now_ms: i64) -> impl Iterator<Item = &Slot> {
        self.rings.iter().filter(move |ring| ring.window == window).flat_map(move |ring| ring.current(now_ms))
    }
}

#[derive(Debug)]
struct Ring {
    window: Window,
    /// Grows to the window's number of slots as time goes by.
    slots: Vec<Slot>,
}

#[derive(Debug, Default)]
struct Slot {
    /// Which slot since the epoch this is.
    number: i64,
    count: u64,
    errors: u64,
    duration: Histogram,
    ttft: Histogram,
    speed: Histogram,
    overhead: Histogram,
}

impl Ring {
    const fn new(window: Window) -> Self {
        Self { window, slots: Vec::new() }
    }

    fn record(&mut self, now_ms: i64, sample: &Sample) {
        let slot = self.slot(now_ms.div_euclid(self.window.slot_ms()));
        slot.count += 1;
        slot.errors += u64::from(sample.is_error);
        slot.duration.record(sample.duration_ms);
        slot.overhead.record(sample.overhead_us);
        if let Some(ttft) = sample.ttft_ms {
            slot.ttft.record(ttft);
        }
        if let Some(speed) = sample.tokens_per_second {
            slot.speed.record(speed);
        }
    }

    /// The slot of this number; the oldest one is used again when the ring is full.
    fn slot(&mut self, number: i64) -> &mut Slot {
        let known = self.slots.iter().position(|slot| slot.number == number);
        let at = known.unwrap_or_else(|| {
            let limit = usize::try_from(self.window.slots()).unwrap_or(1);
            if self.slots.len() < limit {
                self.slots.push(Slot { number, ..Slot::default() });
                return self.slots.len() - 1;
            }
            let oldest =
                self.slots.iter().enumerate().min_by_key(|(_, slot)| slot.number).map_or(0, |(at, _)| at);
            let slot = &mut self.slots[oldest];
            (slot.number, slot.count, slot.errors) = (number, 0, 0);
            for histogram in [&mut slot.duration, &mut slot.ttft, &mut slot.speed, &mut slot.overhead] {
                histogram.clear();
            }
            oldest
        });
        &mut self.slots[at]
    }

    fn current(&self, now_ms: i64) -> impl Iterator<Item = &Slot> {
        let now = now_ms.div_euclid(self.window.slot_ms());
        let oldest = now - self.window.slots();
        self.slots.iter().filter(move |slot| slot.number > oldest && slot.number <= now)
    }
}
