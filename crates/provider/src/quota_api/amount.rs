//! Amounts of money, requests or points, read exactly as they are written: vendors send them as numbers and as texts.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Deserializer, de::Error as _};
use serde_json::value::RawValue;

/// Decimal places that are kept; what is smaller is cut off.
const PLACES: u32 = 18;
const ONE: i128 = 10_i128.pow(PLACES);
/// Longest text of an amount.
const MAX_TEXT: usize = 64;

/// An amount, in 10⁻¹⁸ of whatever is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Amount(i128);

impl Amount {
    /// Reads `110.00`, `-3`, `1.5e-7`; `None` for what is no number, or one too large to be an amount.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        if text.len() > MAX_TEXT {
            return None;
        }
        let (mantissa, exponent) = match text.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
            None => (text, 0),
        };
        let (is_negative, digits) = match mantissa.strip_prefix('-') {
            Some(digits) => (true, digits),
            None => (false, mantissa.strip_prefix('+').unwrap_or(mantissa)),
        };
        let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
        if whole.len() + part.len() == 0 {
            return None;
        }
        // How many places the digit at hand stands left of the last that is kept.
        let first = i64::try_from(whole.len()).ok()? - 1 + i64::from(PLACES) + i64::from(exponent);
        let mut value: i128 = 0;
        for (at, digit) in whole.chars().chain(part.chars()).enumerate() {
            let digit = i128::from(digit.to_digit(10)?);
            let place = first - i64::try_from(at).ok()?;
            if digit == 0 || place < 0 {
                continue;
            }
            let unit = 10_i128.checked_pow(u32::try_from(place).ok()?)?;
            value = value.checked_add(digit.checked_mul(unit)?)?;
        }
        Some(Self(if is_negative { -value } else { value }))
    }

    /// Whether it is zero or less.
    pub const fn is_nothing(self) -> bool {
        self.0 <= 0
    }

    /// Whether it is less than zero.
    pub const fn is_debt(self) -> bool {
        self.0 < 0
    }

    /// What is left when another is taken away.
    pub const fn less(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// So many parts of it.
    pub(super) const fn divided_by(self, parts: i128) -> Self {
        Self(self.0 / parts)
    }

    /// The whole number that it is, if it is one and not negative.
    pub fn to_whole(self) -> Option<u64> {
        if self.0 % ONE == 0 { u64::try_from(self.0 / ONE).ok() } else { None }
    }

    /// The nearest floating-point number, for shares and for people.
    pub fn to_f64(self) -> f64 {
        self.to_string().parse().unwrap_or_default()
    }
}

/// All digits that there are.
impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let (whole, part) =
            (self.0.unsigned_abs() / ONE.unsigned_abs(), self.0.unsigned_abs() % ONE.unsigned_abs());
        if part == 0 {
            return write!(f, "{sign}{whole}");
        }
        let part = format!("{part:018}");
        write!(f, "{sign}{whole}.{}", part.trim_end_matches('0'))
    }
}

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let raw = <&RawValue>::deserialize(from)?.get();
        let text: Cow<'_, str> = if raw.starts_with('"') {
            serde_json::from_str(raw).map_err(D::Error::custom)?
        } else {
            Cow::Borrowed(raw)
        };
        Self::parse(&text).ok_or_else(|| D::Error::custom("a member that should be an amount is none"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_and_written_exactly() {
        for (text, written) in [
            ("110.00", Some("110")),
            ("49.58894", Some("49.58894")),
            ("-0.000001", Some("-0.000001")),
            ("0.6336833840314097", Some("0.6336833840314097")),
            ("0.1015644762", Some("0.1015644762")),
            ("1.5e-7", Some("0.00000015")),
            ("2E3", Some("2000")),
            (".5", Some("0.5")),
            ("1e-30", Some("0")),
            ("0", Some("0")),
            ("0e999", Some("0")),
            ("-0.0", Some("0")),
            (" 7 ", Some("7")),
            ("1e40", None),
            ("99999999999999999999999999999999999999999", None),
            ("", None),
            (".", None),
            ("-", None),
            ("1.2.3", None),
            ("1,5", None),
            ("NaN", None),
            ("1e", None),
            ("true", None),
        ] {
            let read = Amount::parse(text).map(|amount| amount.to_string());
            assert_eq!(read.as_deref(), written, "{text}");
        }
        assert!(Amount::parse(&"0".repeat(65)).is_none());
        let less = |a: &str, b: &str| Amount::parse(a).unwrap().less(Amount::parse(b).unwrap());
        assert_eq!(less("0.3", "0.1").to_string(), "0.2", "no floating point");
        assert!(
            less("1", "1").is_nothing() && less("1", "2").is_nothing() && !less("1", "0.999").is_nothing()
        );
        assert_eq!(Amount::parse("110.00").unwrap().to_whole(), Some(110));
        assert_eq!(Amount::parse("-1").unwrap().to_whole(), None);
        assert_eq!(Amount::parse("0.5").unwrap().to_whole(), None);
        assert!((Amount::parse("49.58894").unwrap().to_f64() - 49.58894).abs() < f64::EPSILON);
    }

    #[test]
    fn they_stand_in_json_as_numbers_and_as_texts() {
        for (json, expected) in
            [("1.10", Some("1.1")), (r#""1.10""#, Some("1.1")), (r#""\u0031""#, Some("1"))]
        {
            let read = serde_json::from_str::<Amount>(json).ok().map(|amount| amount.to_string());
            assert_eq!(read.as_deref(), expected, "{json}");
        }
        for json in ["true", r#""much""#, "[]", "{}", "null"] {
            assert!(serde_json::from_str::<Amount>(json).is_err(), "{json}");
        }
        assert_eq!(serde_json::from_str::<Option<Amount>>("null").unwrap(), None);
    }
}
