//! Which requests a step is for.

use super::RequestFacts;
use crate::entity::When;
use crate::hours::{Hours, LocalHours};

/// A condition, checked and compiled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    min_tokens: u64,
    max_tokens: u64,
    has_tools: Option<bool>,
    has_images: Option<bool>,
    stream: Option<bool>,
    hours: Option<LocalHours>,
}

/// Why a condition makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConditionError {
    /// Not two times of a day.
    #[error("`{0}` is not a time of day such as `08:00-18:00`")]
    Hours(String),
    /// Not a time zone.
    #[error("`{0}` is not a time zone such as `Europe/Berlin`")]
    Zone(String),
    /// A time zone of nothing.
    #[error("tz is the time zone of hours, and there are none")]
    ZoneAlone,
    /// No number lies between.
    #[error("minTokens is larger than maxTokens, so the step would never be tried")]
    Empty,
}

impl Condition {
    /// Compiles a condition.
    pub fn new(when: &When) -> Result<Self, ConditionError> {
        let (min_tokens, max_tokens) = (when.min_tokens.unwrap_or(0), when.max_tokens.unwrap_or(u64::MAX));
        if min_tokens > max_tokens {
            return Err(ConditionError::Empty);
        }
        let hours = match (&when.hours, &when.tz) {
            (None, None) => None,
            (None, Some(_)) => return Err(ConditionError::ZoneAlone),
            (Some(text), zone) => {
                let hours = Hours::parse(text).ok_or_else(|| ConditionError::Hours(text.clone()))?;
                let zone = zone.as_deref().unwrap_or("UTC");
                let local = LocalHours::new(hours, zone);
                Some(local.ok_or_else(|| ConditionError::Zone(zone.to_owned()))?)
            }
        };
        Ok(Self {
            min_tokens,
            max_tokens,
            has_tools: when.has_tools,
            has_images: when.has_images,
            stream: when.stream,
            hours,
        })
    }

    /// Whether the body has to be understood for it.
    pub(super) const fn needs_content(&self) -> bool {
        self.has_tools.is_some() || self.has_images.is_some()
    }

    /// Why it does not hold, in words.
    pub fn refuses(&self, facts: &RequestFacts, now_ms: i64) -> Option<&'static str> {
        let is_other = |wanted: Option<bool>, found: bool| wanted.is_some_and(|wanted| wanted != found);
        if facts.input_tokens < self.min_tokens {
            Some("the prompt is shorter than minTokens")
        } else if facts.input_tokens > self.max_tokens {
            Some("the prompt is longer than maxTokens")
        } else if is_other(self.stream, facts.stream) {
            Some("`stream` is not as wanted")
        } else if is_other(self.has_tools, facts.has_tools) {
            Some("`hasTools` is not as wanted")
        } else if is_other(self.has_images, facts.has_images) {
            Some("`hasImages` is not as wanted")
        } else if self.hours.as_ref().is_some_and(|hours| !hours.covers(now_ms)) {
            Some("it is not its time of day")
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(hour: i64, minute: i64) -> i64 {
        20_000 * 86_400_000 + hour * 3_600_000 + minute * 60_000
    }

    fn hours(text: &str) -> Condition {
        Condition::new(&When { hours: Some(text.into()), ..When::default() }).unwrap()
    }

    #[test]
    fn hours_may_go_over_midnight() {
        let facts = RequestFacts::default();
        let is_on = |text: &str, now| hours(text).refuses(&facts, now).is_none();
        assert!(is_on("08:00-18:00", at(8, 0)) && is_on("08:00-18:00", at(17, 59)));
        assert!(!is_on("08:00-18:00", at(18, 0)) && !is_on("08:00-18:00", at(7, 59)));
        assert!(is_on("22:00-06:00", at(23, 0)) && is_on("22:00-06:00", at(5, 59)));
        assert!(!is_on("22:00-06:00", at(6, 0)));
        assert!(is_on("00:00-24:00", at(23, 59)));
    }

    #[test]
    fn hours_are_those_of_a_time_zone() {
        let when =
            When { hours: Some("08:00-18:00".into()), tz: Some("Asia/Kolkata".into()), ..When::default() };
        let condition = Condition::new(&when).unwrap();
        let is_on = |now| condition.refuses(&RequestFacts::default(), now).is_none();
        // Five and a half hours ahead.
        assert!(!is_on(at(2, 29)) && is_on(at(2, 30)) && is_on(at(12, 29)) && !is_on(at(12, 30)));
    }

    #[test]
    fn what_makes_no_sense_is_said() {
        for text in
            ["", "8-18", "08:00", "08:00-25:00", "08:60-09:00", "08:00-08:00", "ab:cd-ef:gh", "+8:00-09:00"]
        {
            let when = When { hours: Some(text.into()), ..When::default() };
            assert_eq!(Condition::new(&when), Err(ConditionError::Hours(text.into())), "{text}");
        }
        let zone = |hours: Option<&str>, tz: &str| {
            let when = When { hours: hours.map(str::to_owned), tz: Some(tz.into()), ..When::default() };
            Condition::new(&when)
        };
        assert_eq!(zone(Some("08:00-18:00"), "Mars/Base"), Err(ConditionError::Zone("Mars/Base".into())));
        assert_eq!(zone(None, "Europe/Berlin"), Err(ConditionError::ZoneAlone));
        let when = When { min_tokens: Some(5), max_tokens: Some(4), ..When::default() };
        assert_eq!(Condition::new(&when), Err(ConditionError::Empty));
    }

    #[test]
    fn all_that_is_given_must_hold() {
        let when = When {
            min_tokens: Some(10),
            max_tokens: Some(20),
            has_tools: Some(true),
            has_images: Some(false),
            stream: Some(true),
            hours: None,
            tz: None,
        };
        let condition = Condition::new(&when).unwrap();
        let good =
            RequestFacts { input_tokens: 15, has_tools: true, stream: true, ..RequestFacts::default() };
        assert_eq!(condition.refuses(&good, 0), None);
        for bad in [
            RequestFacts { input_tokens: 9, ..good },
            RequestFacts { input_tokens: 21, ..good },
            RequestFacts { has_tools: false, ..good },
            RequestFacts { has_images: true, ..good },
            RequestFacts { stream: false, ..good },
        ] {
            assert!(condition.refuses(&bad, 0).is_some(), "{bad:?}");
        }
    }
}
