//! What an account's plan allows within windows of time, counted here because vendors of plans seldom say what is left.
//!
//! A window of hours begins with the first request after the one before it has ended, as vendors' own do; days, weeks and
//! months begin by the calendar. Where the operator knows a time at which the vendor counts anew, all of them go by that.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::{Timestamp, ToSpan as _};
use smallvec::SmallVec;

use crate::budget::{Calendar, Span, Window};
use crate::entity::QuotaWindow;

const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;
/// Longest window of hours.
const MAX_HOURS: i64 = 24;
/// With this share left or less it is told that little is left.
const ALERT: f64 = 0.20;
/// With this share left or less an account is asked after those that have more.
pub const LOW: f64 = 0.10;
/// How often what is left is written down.
const NOTE_EVERY_MS: i64 = 70 * 60 * 1_000;
/// The usual session: what is lost of a window is told as if it were one.
const SESSION_MS: f64 = 5.0 * 3_600_000.0;
/// How much short and long windows say of what is lost.
const WEIGHTS: (f64, f64) = (0.35, 0.65);

/// A window of a plan, checked and compiled.
#[derive(Debug, Clone, PartialEq)]
pub struct PlanWindow {
    name: Arc<str>,
    length: Length,
    requests: Option<u64>,
    tokens: Option<u64>,
}

#[derive(Debug, Clone, PartialEq)]
enum Length {
    /// Begins with the first request.
    Opening(i64),
    /// One after the other, from a time that is known.
    Fixed { length_ms: i64, anchor_ms: i64 },
    /// Months from a time that is known.
    Months { anchor_ms: i64 },
    /// As the calendar has it.
    Calendar(Window, Calendar),
}

/// Why a window makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// No length.
    #[error("window: `{0}` is none of `1h` to `24h`, `daily`, `weekly` and `monthly`")]
    Length(String),
    /// Nothing is limited, or to nothing.
    #[error("needs `requests` or `tokens`, of at least 1")]
    Nothing,
    /// No time.
    #[error("resetsAt: `{0}` is no time like 2030-01-31T08:00:00Z")]
    Reset(String),
}

impl PlanWindow {
    /// Compiles a window; days, weeks and months are those of the calendar.
    pub fn new(row: &QuotaWindow, calendar: &Calendar) -> Result<Self, PlanError> {
        if [row.requests, row.tokens].iter().all(Option::is_none)
            || [row.requests, row.tokens].contains(&Some(0))
        {
            return Err(PlanError::Nothing);
        }
        let anchor = row.resets_at.as_deref().map(|text| {
            let time = text.parse::<Timestamp>().map_err(|_| PlanError::Reset(text.to_owned()))?;
            Ok(time.as_millisecond())
        });
        let anchor = anchor.transpose()?;
        let by_calendar = |window| Length::Calendar(window, calendar.clone());
        let fixed = |length_ms| anchor.map(|anchor_ms| Length::Fixed { length_ms, anchor_ms });
        let length = match row.window.as_str() {
            "daily" => fixed(DAY_MS).unwrap_or_else(|| by_calendar(Window::Daily)),
            "weekly" => fixed(7 * DAY_MS).unwrap_or_else(|| by_calendar(Window::Weekly)),
            "monthly" => {
                anchor.map_or_else(|| by_calendar(Window::Monthly), |anchor_ms| Length::Months { anchor_ms })
            }
            text => {
                let hours = text.strip_suffix('h').filter(|hours| hours.bytes().all(|b| b.is_ascii_digit()));
                let hours = hours.and_then(|hours| hours.parse::<i64>().ok());
                let hours = hours.filter(|hours| (1..=MAX_HOURS).contains(hours));
                let length_ms = hours.ok_or_else(|| PlanError::Length(text.to_owned()))? * HOUR_MS;
                fixed(length_ms).unwrap_or(Length::Opening(length_ms))
            }
        };
        let name = row.window.as_str().into();
        Ok(Self { name, length, requests: row.requests, tokens: row.tokens })
    }

    /// How the operator calls it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// For so long it runs from its first request on; `None` where time alone says when it begins.
    pub const fn opens_for_ms(&self) -> Option<i64> {
        match self.length {
            Length::Opening(length_ms) => Some(length_ms),
            Length::Fixed { .. } | Length::Months { .. } | Length::Calendar(..) => None,
        }
    }

    /// The window of a moment, where one begins with it or runs anyway.
    pub fn span(&self, now_ms: i64) -> Span {
        match &self.length {
            Length::Opening(length_ms) => {
                Span { start_ms: now_ms, end_ms: now_ms.saturating_add(*length_ms) }
            }
            Length::Fixed { length_ms, anchor_ms } => {
                let start_ms = now_ms - now_ms.saturating_sub(*anchor_ms).rem_euclid(*length_ms);
                Span { start_ms, end_ms: start_ms.saturating_add(*length_ms) }
            }
            Length::Months { anchor_ms } => months(*anchor_ms, now_ms).unwrap_or(Span::ALWAYS),
            Length::Calendar(window, calendar) => calendar.span(*window, now_ms),
        }
    }

    /// The share that is left of its scarcest limit.
    #[allow(clippy::cast_precision_loss, reason = "a share")]
    fn share(&self, requests: u64, tokens: u64) -> f64 {
        let left = |limit: Option<u64>, used: u64| {
            limit.map_or(1.0, |limit| limit.saturating_sub(used) as f64 / limit as f64)
        };
        left(self.requests, requests).min(left(self.tokens, tokens))
    }
}

/// From one reset to the next, month by month from a time that is known.
fn months(anchor_ms: i64, now_ms: i64) -> Option<Span> {
    let zoned = |ms: i64| Some(Timestamp::from_millisecond(ms).ok()?.to_zoned(jiff::tz::TimeZone::UTC));
    let (anchor, now) = (zoned(anchor_ms)?, zoned(now_ms)?);
    let at = |count: i64| Some(anchor.checked_add(count.months()).ok()?.timestamp().as_millisecond());
    let years = i64::from(now.year()) - i64::from(anchor.year());
    let mut count = years * 12 + i64::from(now.month()) - i64::from(anchor.month());
    if at(count)? > now_ms {
        count -= 1;
    }
    Some(Span { start_ms: at(count)?, end_ms: at(count + 1)? })
}

/// What was used of an account's windows. Survives configuration changes, as it does what is left out of the plan for a while;
/// there are no more windows than names of them.
#[derive(Debug, Default)]
pub struct PlanUse(Mutex<Vec<Count>>);

#[derive(Debug, Clone)]
struct Count {
    name: Arc<str>,
    span: Span,
    requests: u64,
    tokens: u64,
    is_low: bool,
    is_out: bool,
    noted_at: i64,
}

/// What is left of a plan.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PlanLeft {
    /// Share of the scarcest window, between 0 and 1.
    pub share: f64,
    /// When that one ends.
    pub until: i64,
    /// How much of it is lost with each millisecond in which nothing is asked: of a session as far as the windows are long.
    pub loss_per_ms: f64,
}

/// What is used of one limit of a window, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanStanding {
    /// The window.
    pub name: Arc<str>,
    /// `requests` or `tokens`.
    pub limit: &'static str,
    /// How much there is.
    pub total: u64,
    /// What is used of it.
    pub used: u64,
    /// When it ends; `None` = it begins with the next request.
    pub until: Option<i64>,
}

/// A window that ran low or out, or that is to be written down.
#[derive(Debug, Clone, PartialEq)]
pub struct PlanTurn {
    /// The window.
    pub name: Arc<str>,
    /// What is left of it.
    pub share: f64,
    /// When it ends.
    pub until: i64,
    /// Whether it is to be told.
    pub is_told: bool,
}

impl PlanUse {
    /// A copy that goes its own way.
    pub(crate) fn apart(&self) -> Self {
        Self(Mutex::new(self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()))
    }

    /// A request that came at that time was answered. Gives the windows of which something is to be told or written down, among
    /// them those that begin with it. Other windows stay: a request that began before a change knows the plan of then.
    pub fn add(&self, windows: &[PlanWindow], tokens: u64, came_ms: i64) -> SmallVec<[PlanTurn; 1]> {
        let mut turns = SmallVec::new();
        let mut counts = self.counts();
        for window in windows {
            let count = Count::running(&mut counts, window, came_ms);
            count.requests = count.requests.saturating_add(1);
            count.tokens = count.tokens.saturating_add(tokens);
            let share = window.share(count.requests, count.tokens);
            let is_low = share <= ALERT && !std::mem::replace(&mut count.is_low, share <= ALERT);
            let is_out = share <= 0.0 && !std::mem::replace(&mut count.is_out, share <= 0.0);
            let is_told = is_low || is_out;
            if is_told || came_ms.saturating_sub(count.noted_at) >= NOTE_EVERY_MS {
                count.noted_at = came_ms;
                turns.push(PlanTurn { name: window.name.clone(), share, until: count.span.end_ms, is_told });
            }
        }
        turns
    }

    /// Takes over what the log says of a window that runs, where that is more than is known.
    pub fn restore(&self, window: &PlanWindow, span: Span, requests: u64, tokens: u64, now_ms: i64) {
        if now_ms >= span.end_ms {
            return;
        }
        let mut counts = self.counts();
        let count = Count::running(&mut counts, window, now_ms);
        if count.requests == 0 || window.opens_for_ms().is_none() || span.start_ms < count.span.start_ms {
            count.span = span;
        }
        (count.requests, count.tokens) = (count.requests.max(requests), count.tokens.max(tokens));
        let share = window.share(count.requests, count.tokens);
        (count.is_low, count.is_out) = (share <= ALERT, share <= 0.0);
    }

    /// What is left; `None` where there are no windows.
    pub fn left(&self, windows: &[PlanWindow], now_ms: i64) -> Option<PlanLeft> {
        if windows.is_empty() {
            return None;
        }
        let counts = self.counts();
        let mut scarcest: Option<(f64, i64)> = None;
        let (mut short, mut long): (Option<f64>, Option<f64>) = (None, None);
        for window in windows {
            let (span, requests, tokens) = Count::seen(&counts, window, now_ms);
            let share = window.share(requests, tokens);
            if scarcest.is_none_or(|(least, _)| share < least) {
                scarcest = Some((share, span.end_ms));
            }
            // 1 where as much is left of it as of its time.
            #[allow(clippy::cast_precision_loss, reason = "a share")]
            let pace = {
                let (length, rest) = (span.end_ms - span.start_ms, (span.end_ms - now_ms).max(1));
                share * length.max(1) as f64 / rest as f64
            };
            let class = if span.end_ms - span.start_ms <= DAY_MS { &mut short } else { &mut long };
            *class = Some(class.map_or(pace, |known| known.min(pace)));
        }
        let (share, until) = scarcest?;
        let pace = match (short, long) {
            (Some(short), Some(long)) => WEIGHTS.0 * short + WEIGHTS.1 * long,
            (one, other) => one.or(other).unwrap_or(1.0),
        };
        Some(PlanLeft { share, until, loss_per_ms: pace / SESSION_MS })
    }

    /// Until when nothing is left of a window; of several the one that ends last.
    pub fn spent_until(&self, windows: &[PlanWindow], now_ms: i64) -> Option<i64> {
        if windows.is_empty() {
            return None;
        }
        let counts = self.counts();
        let spent = windows.iter().filter_map(|window| {
            let (span, requests, tokens) = Count::seen(&counts, window, now_ms);
            (window.share(requests, tokens) <= 0.0).then_some(span.end_ms)
        });
        spent.max()
    }

    /// What is used of each limit.
    pub fn standings(&self, windows: &[PlanWindow], now_ms: i64) -> Vec<PlanStanding> {
        let counts = self.counts();
        let of_window = |window: &PlanWindow| {
            let (span, requests, tokens) = Count::seen(&counts, window, now_ms);
            let is_open = window.opens_for_ms().is_none() || requests > 0;
            let (name, until) = (window.name.clone(), is_open.then_some(span.end_ms));
            let limits = [("requests", window.requests, requests), ("tokens", window.tokens, tokens)];
            limits.into_iter().filter_map(move |(limit, total, used)| {
                Some(PlanStanding { name: name.clone(), limit, total: total?, used, until })
            })
        };
        windows.iter().flat_map(of_window).collect()
    }

    fn counts(&self) -> MutexGuard<'_, Vec<Count>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Count {
    /// The count of the window that runs, begun if it has to be.
    fn running<'a>(counts: &'a mut Vec<Self>, window: &PlanWindow, now_ms: i64) -> &'a mut Self {
        let at = counts.iter().position(|count| count.name == window.name).unwrap_or_else(|| {
            let span = window.span(now_ms);
            let name = window.name.clone();
            counts.push(Self {
                name,
                span,
                requests: 0,
                tokens: 0,
                is_low: false,
                is_out: false,
                noted_at: 0,
            });
            counts.len() - 1
        });
        let count = &mut counts[at];
        if now_ms >= count.span.end_ms {
            let (name, span) = (count.name.clone(), window.span(now_ms));
            *count = Self { name, span, requests: 0, tokens: 0, is_low: false, is_out: false, noted_at: 0 };
        } else if window.opens_for_ms().is_none() {
            // The operator may have moved it; what was used stays used. A request that came before it does not bring back the
            // one before.
            count.span = window.span(now_ms.max(count.span.start_ms));
        }
        count
    }

    /// The window that runs and what is used of it; nothing is begun.
    fn seen(counts: &[Self], window: &PlanWindow, now_ms: i64) -> (Span, u64, u64) {
        match counts.iter().find(|count| count.name == window.name && now_ms < count.span.end_ms) {
            Some(count) => (count.span, count.requests, count.tokens),
            None => (window.span(now_ms), 0, 0),
        }
    }
}

#[cfg(test)]
mod tests;
