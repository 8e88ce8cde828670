//! The id of a finished request.

use std::fmt;

use uuid::{Builder, Uuid};

/// A UUID of version 7: it contains the time of the arrival, so that ids sort by it and a row is found by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RowId(Uuid);

impl RowId {
    /// The id of a request that arrived at this moment.
    pub fn new(timestamp_ms: i64, random: [u8; 10]) -> Self {
        let timestamp_ms = u64::try_from(timestamp_ms).unwrap_or(0);
        Self(Builder::from_unix_timestamp_millis(timestamp_ms, &random).into_uuid())
    }

    /// From its text; `None` when it cannot be the id of a request.
    pub fn parse(text: &str) -> Option<Self> {
        let id = Uuid::try_parse(text).ok()?;
        (id.get_version_num() == 7).then_some(Self(id))
    }

    /// The arrival, in milliseconds since the epoch.
    pub fn timestamp_ms(self) -> i64 {
        let [a, b, c, d, e, f, ..] = *self.0.as_bytes();
        i64::from_be_bytes([0, 0, a, b, c, d, e, f])
    }
}

/// As it is stored and shown.
impl fmt::Display for RowId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_contains_the_time_and_is_read_back() {
        let now = 1_767_323_045_678;
        let id = RowId::new(now, [0xff; 10]);
        assert_eq!(id.timestamp_ms(), now);
        assert_eq!(id.to_string(), "019b7ca9-8f2e-7fff-bfff-ffffffffffff");
        assert_eq!(RowId::parse(&id.to_string()), Some(id));
        assert!(RowId::new(now - 1, [0xff; 10]) < RowId::new(now, [0; 10]));
        assert_eq!(RowId::new(-1, [0; 10]).timestamp_ms(), 0);
        for text in ["", "row-1", "6fa459ea-ee8a-4ca4-894e-db77e160355e"] {
            assert_eq!(RowId::parse(text), None, "{text}");
        }
    }
}
