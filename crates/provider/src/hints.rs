//! How long an upstream asks to wait: in headers, in its body, in its words.

use std::time::Duration;

use http::HeaderMap;
use omniroute_dialect::ir::UpstreamError;

use crate::spec::RateLimitHeaders;

/// No upstream is believed beyond this.
const LONGEST: Duration = Duration::from_secs(400 * 24 * 3600);
/// Numbers of `reset` headers above these are times, not durations.
const EPOCH_SECONDS: f64 = 1.0e9;
const EPOCH_MILLIS: f64 = 1.0e12;
/// What stands before a duration in words.
const PHRASES: &[&str] = &[
    "try again in",
    "retry in",
    "retry after",
    "reset after",
    "resets in",
    "reset in",
    "wait",
    "available in",
    "again after",
    "retrydelay",
    "retry_after",
];

/// The wait an upstream asks for, the most explicit source first: in words of its own, or because a limit is used up.
pub fn retry_hint(
    headers: &HeaderMap,
    error: &UpstreamError,
    set: RateLimitHeaders,
    now_ms: i64,
) -> Option<Duration> {
    retry_after(headers, now_ms)
        .or(error.retry_after)
        .or_else(|| in_words(&error.message))
        .or_else(|| reset(headers, set, now_ms).spent)
        .map(|wait| wait.min(LONGEST))
}

/// When the first of the limits is counted anew that headers tell of, whether or not it is used up. For who was refused for a
/// limit and not told which: others are in the headers of every answer.
pub fn first_reset(headers: &HeaderMap, set: RateLimitHeaders, now_ms: i64) -> Option<Duration> {
    reset(headers, set, now_ms).any.map(|wait| wait.min(LONGEST))
}

/// `retry-after-ms` or `retry-after`.
pub fn retry_after(headers: &HeaderMap, now_ms: i64) -> Option<Duration> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    if let Some(wait) =
        text("retry-after-ms").and_then(|value| value.parse().ok()).and_then(|ms| millis(ms, 1.0))
    {
        return Some(wait);
    }
    let value = text("retry-after")?;
    match value.parse::<f64>() {
        Ok(seconds) => from_number(seconds, now_ms),
        Err(_) => http_date(value).map(|at| until(at, now_ms)).or_else(|| duration(value)),
    }
}

/// A compound duration: `1h2m`, `6m0s`, `1m30.5s`, `500ms`, `20 seconds`, `2 minutes`; a bare number is seconds.
pub fn duration(text: &str) -> Option<Duration> {
    leading_duration(text.trim()).filter(|(_, rest)| rest.trim().is_empty()).map(|(wait, _)| wait)
}

/// The duration after "try again in", "reset after" and the like.
pub fn in_words(text: &str) -> Option<Duration> {
    let lower = text.to_ascii_lowercase();
    for phrase in PHRASES {
        for (at, _) in lower.match_indices(phrase) {
            let rest = lower[at + phrase.len()..].trim_start_matches([' ', ':', '"', '=', '~']);
            let rest = rest.strip_prefix("about ").unwrap_or(rest);
            if let Some((wait, _)) = leading_duration(rest) {
                return Some(wait);
            }
        }
    }
    None
}

/// When windows open again.
#[derive(Default)]
struct Resets {
    /// The last of those that are used up.
    spent: Option<Duration>,
    /// The first of all.
    any: Option<Duration>,
}

/// When the windows of the provider's rate-limit headers open again.
fn reset(headers: &HeaderMap, set: RateLimitHeaders, now_ms: i64) -> Resets {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let names: &[(&str, &str)] = match set {
        RateLimitHeaders::Anthropic => &[
            ("anthropic-ratelimit-requests-remaining", "anthropic-ratelimit-requests-reset"),
            ("anthropic-ratelimit-tokens-remaining", "anthropic-ratelimit-tokens-reset"),
            ("anthropic-ratelimit-input-tokens-remaining", "anthropic-ratelimit-input-tokens-reset"),
            ("anthropic-ratelimit-output-tokens-remaining", "anthropic-ratelimit-output-tokens-reset"),
            ("anthropic-ratelimit-unified-remaining", "anthropic-ratelimit-unified-reset"),
        ],
        RateLimitHeaders::Openai
        | RateLimitHeaders::Generic
        | RateLimitHeaders::Fireworks
        | RateLimitHeaders::Google
        | RateLimitHeaders::None => &[
            ("x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"),
            ("x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"),
            ("x-ratelimit-remaining", "x-ratelimit-reset"),
            ("ratelimit-remaining", "ratelimit-reset"),
        ],
    };
    let mut resets = Resets::default();
    for (remaining, reset) in names {
        let Some(wait) = text(reset).and_then(|value| reset_value(value, now_ms)) else { continue };
        if text(remaining).and_then(|value| value.parse::<f64>().ok()).is_some_and(|left| left <= 0.0) {
            resets.spent = Some(resets.spent.map_or(wait, |other| other.max(wait)));
        }
        resets.any = Some(resets.any.map_or(wait, |other| other.min(wait)));
    }
    resets
}

pub(crate) fn reset_value(value: &str, now_ms: i64) -> Option<Duration> {
    if let Ok(number) = value.parse::<f64>() {
        return from_number(number, now_ms);
    }
    duration(value).or_else(|| iso_time(value).or_else(|| http_date(value)).map(|at| until(at, now_ms)))
}

/// Seconds from now, or seconds or milliseconds since the epoch.
fn from_number(number: f64, now_ms: i64) -> Option<Duration> {
    if number >= EPOCH_MILLIS {
        Some(until(number as i64, now_ms))
    } else if number >= EPOCH_SECONDS {
        Some(until((number * 1000.0) as i64, now_ms))
    } else {
        millis(number, 1000.0)
    }
}

fn until(at_ms: i64, now_ms: i64) -> Duration {
    Duration::from_millis(u64::try_from(at_ms.saturating_sub(now_ms)).unwrap_or(0))
}

fn millis(number: f64, factor: f64) -> Option<Duration> {
    let ms = number * factor;
    (ms.is_finite() && ms >= 0.0)
        .then(|| Duration::from_millis(ms.min(LONGEST.as_millis() as f64).ceil() as u64))
}

/// A duration at the beginning of a lower-case or header text, and what follows it.
fn leading_duration(text: &str) -> Option<(Duration, &str)> {
    let mut rest = text;
    let mut total_ms = 0.0;
    let mut found = false;
    loop {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let number = rest[..digits].trim_end_matches('.');
        let Ok(value) = number.parse::<f64>() else { break };
        let after = &rest[number.len()..];
        let spaced = after.trim_start_matches(' ');
        let letters = spaced.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(spaced.len());
        let unit = spaced[..letters].to_ascii_lowercase();
        let factor = match unit.as_str() {
            "ms" | "millisecond" | "milliseconds" => 1.0,
            "s" | "sec" | "secs" | "second" | "seconds" => 1000.0,
            "m" | "min" | "mins" | "minute" | "minutes" => 60_000.0,
            "h" | "hr" | "hrs" | "hour" | "hours" => 3_600_000.0,
            "d" | "day" | "days" => 86_400_000.0,
            // A bare number is seconds, but only as the whole of it.
            "" if !found && (after.is_empty() || !after.starts_with([':', '-', '/'])) => {
                return millis(value, 1000.0).map(|wait| (wait, after));
            }
            _ => break,
        };
        found = true;
        total_ms += value * factor;
        rest = &spaced[letters..];
        let next = rest.trim_start_matches([' ', ',']);
        let next = next.strip_prefix("and ").unwrap_or(next);
        if next.starts_with(|c: char| c.is_ascii_digit()) {
            rest = next;
        }
    }
    if found { millis(total_ms, 1.0).map(|wait| (wait, rest)) } else { None }
}

/// `Wed, 21 Oct 2026 07:28:00 GMT` as milliseconds since the epoch.
fn http_date(text: &str) -> Option<i64> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (_, rest) = text.split_once(", ")?;
    let mut parts = rest.split_ascii_whitespace();
    let (day, month, year, time, zone) =
        (parts.next()?, parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    if !matches!(zone, "GMT" | "UTC") || parts.next().is_some() {
        return None;
    }
    let month = MONTHS.iter().position(|name| *name == month)? as i64 + 1;
    let days = days_from_civil(year.parse().ok()?, month, day.parse().ok()?)?;
    Some(days * 86_400_000 + clock(time)?)
}

/// `2026-11-23T10:00:00.5Z` or with an offset, as milliseconds since the epoch.
fn iso_time(text: &str) -> Option<i64> {
    let (date, rest) = text.split_once(['T', ' '])?;
    let mut parts = date.splitn(3, '-').map(|part| part.parse::<i64>().ok());
    let days = days_from_civil(parts.next()??, parts.next()??, parts.next()??)?;
    let (time, offset_ms) = match rest.find(['Z', '+', '-']) {
        None => (rest, 0),
        Some(at) if rest[at..].starts_with('Z') => (&rest[..at], 0),
        Some(at) => {
            let sign = if rest[at..].starts_with('-') { -1 } else { 1 };
            let (hours, minutes) = rest[at + 1..].split_once(':').unwrap_or((&rest[at + 1..], "0"));
            (&rest[..at], sign * (hours.parse::<i64>().ok()? * 60 + minutes.parse::<i64>().ok()?) * 60_000)
        }
    };
    Some(days * 86_400_000 + clock(time)? - offset_ms)
}

/// `07:28:00.25` as milliseconds.
fn clock(text: &str) -> Option<i64> {
    let mut parts = text.splitn(3, ':');
    let hours: i64 = parts.next()?.parse().ok()?;
    let minutes: i64 = parts.next()?.parse().ok()?;
    let seconds: f64 = parts.next().unwrap_or("0").parse().ok()?;
    let sound = (0..24).contains(&hours) && (0..60).contains(&minutes) && (0.0..61.0).contains(&seconds);
    sound.then(|| (hours * 60 + minutes) * 60_000 + (seconds * 1000.0) as i64)
}

/// Days since 1970-01-01 (Howard Hinnant's algorithm for the proleptic Gregorian calendar).
fn days_from_civil(year: i64, month: i64, day: i64) -> Option<i64> {
    if !(1970..=9999).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let shifted = if month <= 2 { year - 1 } else { year };
    let era = shifted.div_euclid(400);
    let year_of_era = shifted.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    Some(era * 146_097 + day_of_era - 719_468)
}

/// When a limit that is counted anew `daily`, `weekly` (on Mondays) or `monthly`, at midnight in UTC, is so next, in epoch
/// milliseconds; `None` for other words.
pub(crate) fn next_reset(word: &str, now_ms: i64) -> Option<i64> {
    const DAY_MS: i64 = 86_400_000;
    let today = now_ms.div_euclid(DAY_MS);
    let day = match word {
        "daily" => today + 1,
        // 1970-01-01 was a Thursday.
        "weekly" => today + 7 - (today + 3).rem_euclid(7),
        "monthly" => {
            let year = year_of(today);
            let firsts = (2..=12).map(|month| (year, month)).chain([(year + 1, 1)]);
            firsts.filter_map(|(year, month)| days_from_civil(year, month, 1)).find(|first| *first > today)?
        }
        _ => return None,
    };
    Some(day * DAY_MS)
}

/// Year and days since 1970-01-01 of its beginning, for the day with this number.
fn year_of(days: i64) -> i64 {
    let mut year = 1970 + days.div_euclid(366);
    while days_from_civil(year + 1, 1, 1).is_some_and(|next| next <= days) {
        year += 1;
    }
    year
}

/// How long until the next midnight in UTC, or in Pacific time with its summer time.
pub fn until_midnight(now_ms: i64, pacific: bool) -> Duration {
    const DAY_MS: i64 = 86_400_000;
    let offset_ms = if pacific { pacific_offset_hours(now_ms) * 3_600_000 } else { 0 };
    let into_day = (now_ms + offset_ms).rem_euclid(DAY_MS);
    Duration::from_millis((DAY_MS - into_day).unsigned_abs())
}

/// -7 from the second Sunday of March, 10:00 UTC, to the first Sunday of November, 09:00 UTC; else -8.
fn pacific_offset_hours(now_ms: i64) -> i64 {
    const HOUR_MS: i64 = 3_600_000;
    let year = year_of(now_ms.div_euclid(24 * HOUR_MS));
    // 1970-01-01 was a Thursday; Sunday is 0.
    let first_sunday = |month| {
        let first = days_from_civil(year, month, 1).unwrap_or(0);
        first + (7 - (first + 4).rem_euclid(7)) % 7
    };
    let begins = (first_sunday(3) + 7) * 24 * HOUR_MS + 10 * HOUR_MS;
    let ends = first_sunday(11) * 24 * HOUR_MS + 9 * HOUR_MS;
    if (begins..ends).contains(&now_ms) { -7 } else { -8 }
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    /// 2026-11-23T10:00:00Z.
    const NOW: i64 = 1_795_428_000_000;

    fn map(pairs: &[(&str, &str)]) -> HeaderMap {
        let name = |name: &str| HeaderName::from_bytes(name.as_bytes()).unwrap();
        pairs.iter().map(|(key, value)| (name(key), HeaderValue::from_str(value).unwrap())).collect()
    }

    #[test]
    fn durations() {
        let cases = [
            ("1s", Some(1_000)),
            ("6m0s", Some(360_000)),
            ("1m30s", Some(90_000)),
            ("500ms", Some(500)),
            ("1h2m", Some(3_720_000)),
            ("2h7m23s", Some(7_643_000)),
            ("6.5s", Some(6_500)),
            ("1.2", Some(1_200)),
            ("2m59.56s", Some(179_560)),
            ("1d", Some(86_400_000)),
            ("20 seconds", Some(20_000)),
            ("2 minutes and 5 seconds", Some(125_000)),
            ("", None),
            ("soon", None),
            ("-5s", None),
            ("5 apples", None),
            ("1s later", None),
        ];
        for (text, want) in cases {
            assert_eq!(duration(text).map(|wait| wait.as_millis()), want, "{text}");
        }
    }

    #[test]
    fn words() {
        let cases = [
            ("Rate limit reached. Please try again in 1.2s. Visit …", Some(1_200)),
            ("Please try again in 6m0s.", Some(360_000)),
            ("quota will reset after 2h7m23s.", Some(7_643_000)),
            ("Please retry in 12.345678s.", Some(12_346)),
            ("Retry after 20 seconds", Some(20_000)),
            ("retry after 20s", Some(20_000)),
            ("Please wait 5 minutes before you go on", Some(300_000)),
            ("please wait for it", None),
            ("nothing of the kind, 5 of them", None),
        ];
        for (text, want) in cases {
            assert_eq!(in_words(text).map(|wait| wait.as_millis()), want, "{text}");
        }
    }

    #[test]
    fn headers() {
        use RateLimitHeaders::{Anthropic, Generic, None as NoSet, Openai};
        type Case = (&'static [(&'static str, &'static str)], RateLimitHeaders, Option<u128>);
        let cases: &[Case] = &[
            (&[("retry-after", "20")], NoSet, Some(20_000)),
            (&[("retry-after", "1.5")], NoSet, Some(1_500)),
            (&[("retry-after", "1.5"), ("retry-after-ms", "250")], NoSet, Some(250)),
            (&[("retry-after", "Mon, 23 Nov 2026 10:00:30 GMT")], NoSet, Some(30_000)),
            (&[("retry-after", "Mon, 23 Nov 2026 09:00:00 GMT")], NoSet, Some(0)),
            (&[("retry-after", "in a while")], NoSet, None),
            (&[("retry-after", "-1")], NoSet, None),
            (
                &[
                    ("x-ratelimit-remaining-requests", "99"),
                    ("x-ratelimit-reset-requests", "10ms"),
                    ("x-ratelimit-remaining-tokens", "0"),
                    ("x-ratelimit-reset-tokens", "6m0s"),
                ],
                Openai,
                Some(360_000),
            ),
            // What is not used up says nothing of this refusal.
            (&[("x-ratelimit-reset-requests", "2s"), ("x-ratelimit-reset-tokens", "1m")], Openai, None),
            (
                &[("x-ratelimit-remaining-requests", "4999"), ("x-ratelimit-reset-requests", "12ms")],
                Openai,
                None,
            ),
            (&[("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "1795428060")], Generic, Some(60_000)),
            (
                &[("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "1795428060000")],
                Generic,
                Some(60_000),
            ),
            (&[("ratelimit-remaining", "0"), ("ratelimit-reset", "7")], Generic, Some(7_000)),
            (
                &[
                    ("anthropic-ratelimit-requests-remaining", "0"),
                    ("anthropic-ratelimit-requests-reset", "2026-11-23T10:00:10Z"),
                    ("anthropic-ratelimit-input-tokens-remaining", "0"),
                    ("anthropic-ratelimit-input-tokens-reset", "2026-11-23T11:01:00+01:00"),
                ],
                Anthropic,
                Some(60_000),
            ),
        ];
        for (pairs, set, want) in cases {
            let hint = retry_hint(&map(pairs), &UpstreamError::default(), *set, NOW);
            assert_eq!(hint.map(|wait| wait.as_millis()), *want, "{pairs:?}");
        }
    }

    #[test]
    fn the_first_reset_of_all() {
        let first = |pairs: &[_]| first_reset(&map(pairs), RateLimitHeaders::Openai, NOW);
        let two = [("x-ratelimit-reset-requests", "2s"), ("x-ratelimit-reset-tokens", "1m")];
        assert_eq!((first(&two), first(&[])), (Some(Duration::from_secs(2)), None));
    }

    #[test]
    fn explicit_headers_win_over_words() {
        let error = UpstreamError {
            message: "try again in 9s".to_owned(),
            retry_after: Some(Duration::from_secs(5)),
            ..UpstreamError::default()
        };
        let hint = |pairs: &[_]| retry_hint(&map(pairs), &error, RateLimitHeaders::Openai, NOW);
        assert_eq!(hint(&[("retry-after", "2")]), Some(Duration::from_secs(2)));
        assert_eq!(hint(&[("x-ratelimit-reset", "1")]), Some(Duration::from_secs(5)));
    }

    #[test]
    fn midnights() {
        let hours = |now_ms, pacific| until_midnight(now_ms, pacific).as_secs() / 3600;
        assert_eq!(hours(NOW, false), 14);
        assert_eq!(hours(NOW, true), 22, "02:00 in winter");
        let summer = iso_time("2026-07-01T10:00:00Z").unwrap();
        assert_eq!(hours(summer, true), 21, "03:00 in summer");
        for (time, offset) in [
            ("2026-03-08T09:59:59Z", -8),
            ("2026-03-08T10:00:00Z", -7),
            ("2026-11-01T08:59:59Z", -7),
            ("2026-11-01T09:00:00Z", -8),
        ] {
            assert_eq!(pacific_offset_hours(iso_time(time).unwrap()), offset, "{time}");
        }
        assert_eq!(iso_time("2026-11-23T10:00:00Z"), Some(NOW));
        assert_eq!(http_date("Mon, 23 Nov 2026 10:00:00 GMT"), Some(NOW));
    }

    #[test]
    fn limits_are_counted_anew_at_midnight() {
        const DAY: i64 = 86_400_000;
        // A Monday; then the last evening of a year, a Thursday; then the end of February in a leap year, a Tuesday.
        let (new_year, leap) = (1_798_750_800_000, 1_835_395_200_000);
        for (word, now, expected) in [
            ("daily", NOW, Some(NOW - 10 * 3_600_000 + DAY)),
            ("weekly", NOW, Some(NOW - 10 * 3_600_000 + 7 * DAY)),
            ("monthly", NOW, Some(NOW - 10 * 3_600_000 + 8 * DAY)),
            ("monthly", new_year, Some(new_year + DAY / 8)),
            ("weekly", new_year, Some(new_year + DAY / 8 + 3 * DAY)),
            ("monthly", leap, Some(leap + DAY)),
            ("yearly", NOW, None),
            ("", NOW, None),
        ] {
            assert_eq!(next_reset(word, now), expected, "{word} {now}");
        }
    }
}
