//! When windows begin and end.

use std::sync::Arc;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _};

/// A window in which a budget counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Window {
    /// A day.
    Daily,
    /// A week, from Monday.
    Weekly,
    /// A month, from its first day.
    Monthly,
    /// All time.
    Total,
}

impl Window {
    /// All, the shortest first: the order in which limits are checked.
    pub const ALL: [Self; 4] = [Self::Daily, Self::Weekly, Self::Monthly, Self::Total];

    /// The word in messages, headers and rows.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Daily => "daily",
            Self::Weekly => "weekly",
            Self::Monthly => "monthly",
            Self::Total => "total",
        }
    }

    /// Its place among [all](Self::ALL).
    pub(super) const fn place(self) -> usize {
        match self {
            Self::Daily => 0,
            Self::Weekly => 1,
            Self::Monthly => 2,
            Self::Total => 3,
        }
    }
}

/// From `start_ms` until just before `end_ms`, in epoch milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// The first millisecond.
    pub start_ms: i64,
    /// The first one after it.
    pub end_ms: i64,
}

impl Span {
    /// All time.
    pub const ALWAYS: Self = Self { start_ms: i64::MIN, end_ms: i64::MAX };
    /// No time at all: before the first look at a calendar.
    pub(super) const NEVER: Self = Self { start_ms: i64::MAX, end_ms: i64::MIN };

    /// Whether a moment is in it.
    pub(super) const fn contains(self, at_ms: i64) -> bool {
        self.start_ms <= at_ms && at_ms < self.end_ms
    }
}

/// In which time zone, and when in the day, windows begin.
#[derive(Debug, Clone)]
pub struct Calendar {
    zone: TimeZone,
    name: Arc<str>,
    reset_minute: u16,
}

impl Default for Calendar {
    fn default() -> Self {
        Self { zone: TimeZone::UTC, name: "UTC".into(), reset_minute: 0 }
    }
}

impl PartialEq for Calendar {
    fn eq(&self, other: &Self) -> bool {
        // The name is shared by all that were made of one setting.
        let is_same_zone = Arc::ptr_eq(&self.name, &other.name) || self.name == other.name;
        is_same_zone && self.reset_minute == other.reset_minute
    }
}

impl Calendar {
    /// Days that begin at midnight in a time zone; `None` if there is no such zone.
    pub fn in_zone(name: &str) -> Option<Self> {
        let zone = if name == "UTC" { TimeZone::UTC } else { TimeZone::get(name).ok()? };
        Some(Self { zone, name: name.into(), reset_minute: 0 })
    }

    /// The same with days that begin so many minutes after midnight.
    #[must_use]
    pub fn at_minute(&self, reset_minute: u16) -> Self {
        Self { reset_minute, ..self.clone() }
    }

    /// The window of a moment.
    pub fn span(&self, window: Window, now_ms: i64) -> Span {
        self.find(window, now_ms).unwrap_or(Span::ALWAYS)
    }

    /// `None` for all time, and beyond the calendar's reach.
    fn find(&self, window: Window, now_ms: i64) -> Option<Span> {
        let today = Timestamp::from_millisecond(now_ms).ok()?.to_zoned(self.zone.clone()).date();
        let mut first = match window {
            Window::Daily => today,
            Window::Weekly => {
                today.checked_sub(i64::from(today.weekday().to_monday_zero_offset()).days()).ok()?
            }
            Window::Monthly => today.first_of_month(),
            Window::Total => return None,
        };
        let mut start_ms = self.begin(first)?;
        if start_ms > now_ms {
            first = step(window, first, -1)?;
            start_ms = self.begin(first)?;
        }
        Some(Span { start_ms, end_ms: self.begin(step(window, first, 1)?)? })
    }

    fn begin(&self, date: Date) -> Option<i64> {
        let (hour, minute) = (self.reset_minute / 60 % 24, self.reset_minute % 60);
        let time = date.at(i8::try_from(hour).ok()?, i8::try_from(minute).ok()?, 0, 0);
        Some(time.to_zoned(self.zone.clone()).ok()?.timestamp().as_millisecond())
    }
}

fn step(window: Window, date: Date, count: i64) -> Option<Date> {
    let length = match window {
        Window::Daily => count.days(),
        Window::Weekly => count.weeks(),
        Window::Monthly => count.months(),
        Window::Total => return None,
    };
    date.checked_add(length).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_begin_where_people_expect_them() {
        let cases = [
            // A Thursday.
            ("UTC", 0, Window::Daily, "2026-11-26T17:00:00Z", "2026-11-26T00:00:00Z", "2026-11-27T00:00:00Z"),
            ("UTC", 0, Window::Daily, "2026-11-26T00:00:00Z", "2026-11-26T00:00:00Z", "2026-11-27T00:00:00Z"),
            (
                "UTC",
                0,
                Window::Weekly,
                "2026-11-26T17:00:00Z",
                "2026-11-23T00:00:00Z",
                "2026-11-30T00:00:00Z",
            ),
            (
                "UTC",
                0,
                Window::Monthly,
                "2026-11-26T17:00:00Z",
                "2026-11-01T00:00:00Z",
                "2026-12-01T00:00:00Z",
            ),
            (
                "UTC",
                390,
                Window::Daily,
                "2026-11-26T06:29:59Z",
                "2026-11-25T06:30:00Z",
                "2026-11-26T06:30:00Z",
            ),
            (
                "UTC",
                390,
                Window::Weekly,
                "2026-11-23T06:29:59Z",
                "2026-11-16T06:30:00Z",
                "2026-11-23T06:30:00Z",
            ),
            (
                "UTC",
                390,
                Window::Monthly,
                "2026-11-01T00:00:00Z",
                "2026-10-01T06:30:00Z",
                "2026-11-01T06:30:00Z",
            ),
            // The last Sunday of October has 25 hours.
            (
                "Europe/Berlin",
                0,
                Window::Daily,
                "2026-10-25T12:00:00Z",
                "2026-10-24T22:00:00Z",
                "2026-10-25T23:00:00Z",
            ),
            (
                "America/New_York",
                0,
                Window::Monthly,
                "2026-12-01T04:59:59Z",
                "2026-11-01T04:00:00Z",
                "2026-12-01T05:00:00Z",
            ),
        ];
        let ms = |text: &str| text.parse::<Timestamp>().unwrap().as_millisecond();
        for (zone, minute, window, now, start, end) in cases {
            let calendar = Calendar::in_zone(zone).unwrap().at_minute(minute);
            let want = Span { start_ms: ms(start), end_ms: ms(end) };
            assert_eq!(calendar.span(window, ms(now)), want, "{zone} {minute} {window:?} {now}");
        }
        assert_eq!(Calendar::default().span(Window::Total, 0), Span::ALWAYS);
        assert!(Calendar::in_zone("Europe/Nowhere").is_none());
    }
}
