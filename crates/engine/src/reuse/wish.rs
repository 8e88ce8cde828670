//! What a client says of the cache of answers.

use std::time::Duration;

use http::HeaderMap;
use http::header::{CACHE_CONTROL, HeaderName};
use omniroute_dialect::ir::ErrorKind;

use crate::ctx::is_true;
use crate::error::GatewayError;

const NO_CACHE: HeaderName = HeaderName::from_static("x-omniroute-no-cache");
const TTL: HeaderName = HeaderName::from_static("x-omniroute-cache-ttl");
/// Longest time that a client can ask for: 30 days.
const MAX_TTL: u64 = 30 * 24 * 3_600;

/// What the cache may do for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wish {
    /// Whether the answer may be kept.
    pub(super) keeps: bool,
    /// For how long, where the client says so.
    pub(super) ttl: Option<Duration>,
}

/// `None`: the client wants nothing to do with it.
pub(super) fn wish(headers: &HeaderMap) -> Result<Option<Wish>, GatewayError> {
    if is_true(headers.get(NO_CACHE)) || says(headers, "no-cache") {
        return Ok(None);
    }
    let ttl = ttl(headers)?;
    let keeps = !says(headers, "no-store") && ttl != Some(Duration::ZERO);
    Ok(Some(Wish { keeps, ttl }))
}

fn ttl(headers: &HeaderMap) -> Result<Option<Duration>, GatewayError> {
    let Some(value) = headers.get(TTL) else { return Ok(None) };
    let seconds = value.to_str().ok().and_then(|text| text.trim().parse::<u64>().ok());
    match seconds.filter(|seconds| *seconds <= MAX_TTL) {
        Some(seconds) => Ok(Some(Duration::from_secs(seconds))),
        None => {
            let message = format!(
                "`X-OmniRoute-Cache-TTL` must be a whole number of seconds up to {MAX_TTL}; 0 keeps nothing"
            );
            Err(GatewayError::new(ErrorKind::InvalidRequest, "invalid_value", message)
                .param("X-OmniRoute-Cache-TTL"))
        }
    }
}

fn says(headers: &HeaderMap, word: &str) -> bool {
    headers
        .get_all(CACHE_CONTROL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|directive| directive.trim().eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_say_what_may_be_done() {
        let both = Some(Wish { keeps: true, ttl: None });
        let reads = Some(Wish { keeps: false, ttl: None });
        for (name, value, expected) in [
            ("accept", "*/*", both),
            ("x-omniroute-no-cache", "TRUE", None),
            ("x-omniroute-no-cache", "1", None),
            ("x-omniroute-no-cache", "false", both),
            ("cache-control", "max-age=0, No-Cache", None),
            ("cache-control", "no-store", reads),
            ("cache-control", "max-age=0", both),
            ("x-omniroute-cache-ttl", "5", Some(Wish { keeps: true, ttl: Some(Duration::from_secs(5)) })),
            ("x-omniroute-cache-ttl", "0", Some(Wish { keeps: false, ttl: Some(Duration::ZERO) })),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(HeaderName::from_static(name), value.parse().unwrap());
            assert_eq!(wish(&headers).unwrap(), expected, "{name}: {value}");
        }
        for value in ["soon", "-1", "1.5", "2592001"] {
            let headers = HeaderMap::from_iter([(TTL, value.parse().unwrap())]);
            assert!(wish(&headers).unwrap_err().message.contains("whole number"), "{value}");
        }
    }
}
