//! Times of day and days of the week: when a step, a policy or a key is for use.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::entity::AccessSchedule;

const DAY_MINUTES: u16 = 24 * 60;

/// A part of the day. It may go over midnight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hours {
    /// In minutes of the day.
    from: u16,
    /// The first minute that is not part of it.
    until: u16,
}

impl Hours {
    /// From `08:00-18:00`; `None` for what is no such text, or no time at all.
    pub fn parse(text: &str) -> Option<Self> {
        let (from, until) = text.split_once('-')?;
        Self::between(from, until)
    }

    /// From two times of a day.
    pub fn between(from: &str, until: &str) -> Option<Self> {
        let (from, until) = (minute(from)?, minute(until)?);
        (from != until).then_some(Self { from, until })
    }

    /// Whether a minute of the day is part of it.
    pub const fn covers(self, minute: u16) -> bool {
        if self.from < self.until {
            self.from <= minute && minute < self.until
        } else {
            minute >= self.from || minute < self.until
        }
    }

    /// Whether a moment is part of it, in UTC.
    pub fn covers_utc(self, now_ms: i64) -> bool {
        let minute = now_ms.div_euclid(60_000).rem_euclid(i64::from(DAY_MINUTES));
        self.covers(u16::try_from(minute).unwrap_or(0))
    }
}

/// A part of the day somewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalHours {
    hours: Hours,
    /// `None` = UTC, which needs no calendar.
    zone: Option<TimeZone>,
}

impl LocalHours {
    /// Of the days of a time zone; `None` if there is no such zone.
    pub fn new(hours: Hours, zone: &str) -> Option<Self> {
        let zone = if zone == "UTC" { None } else { Some(TimeZone::get(zone).ok()?) };
        Some(Self { hours, zone })
    }

    /// Whether a moment is part of it.
    pub fn covers(&self, now_ms: i64) -> bool {
        let Some(zone) = &self.zone else { return self.hours.covers_utc(now_ms) };
        let Ok(now) = Timestamp::from_millisecond(now_ms) else { return false };
        let now = now.to_zoned(zone.clone());
        self.hours.covers(u16::from(now.hour().unsigned_abs()) * 60 + u16::from(now.minute().unsigned_abs()))
    }
}

fn minute(text: &str) -> Option<u16> {
    let (hours, minutes) = text.trim().split_once(':')?;
    let is_plain = |text: &str| text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
    if !is_plain(hours) || !is_plain(minutes) {
        return None;
    }
    let (hours, minutes): (u16, u16) = (hours.parse().ok()?, minutes.parse().ok()?);
    let minute = hours * 60 + minutes;
    (minutes < 60 && minute <= DAY_MINUTES).then_some(minute)
}

/// When a key may be used, checked and compiled.
#[derive(Debug, Clone)]
pub struct Schedule {
    hours: Hours,
    /// Bit 0 is Monday.
    days: u8,
    zone: TimeZone,
}

/// Why a schedule makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    /// Not two times of a day.
    #[error("`from` and `until` must be two different times of a day such as `08:00` and `18:00`")]
    Hours,
    /// Not a day of the week.
    #[error("`days` must be numbers from 1 (Monday) to 7 (Sunday)")]
    Days,
    /// Not a time zone.
    #[error("`{0}` is not a time zone such as `Europe/Berlin`")]
    Zone(String),
}

impl Schedule {
    /// Compiles a schedule.
    pub fn new(schedule: &AccessSchedule) -> Result<Self, ScheduleError> {
        let hours = Hours::between(&schedule.from, &schedule.until).ok_or(ScheduleError::Hours)?;
        let mut days = 0;
        for day in &schedule.days {
            // Sunday is 0 for some.
            let day = if *day == 0 { 7 } else { *day };
            if !(1..=7).contains(&day) {
                return Err(ScheduleError::Days);
            }
            days |= 1 << (day - 1);
        }
        let name = schedule.tz.as_deref().unwrap_or("UTC");
        let zone = TimeZone::get(name).map_err(|_| ScheduleError::Zone(name.to_owned()))?;
        Ok(Self { hours, days: if days == 0 { 0x7f } else { days }, zone })
    }

    /// Whether a moment is part of it. What goes over midnight belongs to the day on which it begins.
    pub fn allows(&self, now_ms: i64) -> bool {
        let Ok(now) = Timestamp::from_millisecond(now_ms) else { return false };
        let now = now.to_zoned(self.zone.clone());
        let minute = u16::from(now.hour().unsigned_abs()) * 60 + u16::from(now.minute().unsigned_abs());
        let mut day = now.weekday().to_monday_zero_offset().unsigned_abs();
        let is_after_midnight = self.hours.from > self.hours.until && minute < self.hours.until;
        if is_after_midnight {
            day = (day + 6) % 7;
        }
        self.hours.covers(minute) && self.days & (1 << day) != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> i64 {
        text.parse::<Timestamp>().unwrap().as_millisecond()
    }

    #[test]
    fn hours_are_read_strictly() {
        for text in
            ["", "8-18", "08:00", "08:00-25:00", "08:60-09:00", "08:00-08:00", "ab:cd-ef:gh", "+8:00-09:00"]
        {
            assert_eq!(Hours::parse(text), None, "{text}");
        }
        let night = Hours::parse("22:00-06:00").unwrap();
        assert!(night.covers(23 * 60) && night.covers(0) && !night.covers(6 * 60) && !night.covers(21 * 60));
        assert!(Hours::parse("00:00-24:00").unwrap().covers_utc(at("2026-01-01T23:59:00Z")));
    }

    #[test]
    fn schedules_know_days_zones_and_midnight() {
        let schedule = |from: &str, until: &str, days: &[u8], tz: Option<&str>| {
            Schedule::new(&AccessSchedule {
                enabled: true,
                from: from.into(),
                until: until.into(),
                days: days.to_vec(),
                tz: tz.map(str::to_owned),
            })
        };
        let office = schedule("08:00", "18:00", &[1, 2, 3, 4, 5], Some("Europe/Berlin")).unwrap();
        for (moment, allowed) in [
            // A Thursday in winter: Berlin is an hour ahead.
            ("2026-11-26T07:00:00Z", true),
            ("2026-11-26T06:59:59Z", false),
            ("2026-11-26T17:00:00Z", false),
            // In summer two.
            ("2026-07-02T06:00:00Z", true),
            ("2026-07-02T16:00:00Z", false),
            // A Saturday.
            ("2026-11-28T10:00:00Z", false),
        ] {
            assert_eq!(office.allows(at(moment)), allowed, "{moment}");
        }
        let night = schedule("22:00", "06:00", &[5], None).unwrap();
        for (moment, allowed) in [
            ("2026-11-27T23:00:00Z", true),
            ("2026-11-28T05:00:00Z", true),
            ("2026-11-28T23:00:00Z", false),
            ("2026-11-27T05:00:00Z", false),
        ] {
            assert_eq!(night.allows(at(moment)), allowed, "{moment}");
        }
        assert!(schedule("00:00", "24:00", &[0], None).unwrap().allows(at("2026-11-29T12:00:00Z")));
        assert_eq!(schedule("8", "18:00", &[], None).err(), Some(ScheduleError::Hours));
        assert_eq!(schedule("08:00", "18:00", &[8], None).err(), Some(ScheduleError::Days));
        let nowhere = schedule("08:00", "18:00", &[], Some("Mars/Olympus"));
        assert_eq!(nowhere.err(), Some(ScheduleError::Zone("Mars/Olympus".into())));
    }
}
