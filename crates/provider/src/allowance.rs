//! What an upstream says is left of an account's limits, in the headers of any answer.

use std::time::Duration;

use http::{HeaderMap, HeaderName};

use crate::hints::reset_value;
use crate::spec::RateLimitHeaders;

/// What is left of one limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowance {
    /// How much there is in all, where it is said.
    pub limit: Option<u64>,
    /// What is left of it.
    pub remaining: u64,
    /// Until there is as much again, where it is said.
    pub reset: Option<Duration>,
}

/// What is left of each of the limits that an upstream told of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Allowances {
    /// Requests.
    pub requests: Option<Allowance>,
    /// Tokens of prompts, or of prompts and answers where the vendor counts them together.
    pub tokens: Option<Allowance>,
    /// Tokens of answers, where they are counted on their own.
    pub output: Option<Allowance>,
    /// The vendor serves beyond the limit, and asks for less.
    pub is_over: bool,
}

impl Allowances {
    /// Whether nothing was said.
    pub fn is_empty(&self) -> bool {
        self.requests.is_none() && self.tokens.is_none() && self.output.is_none() && !self.is_over
    }
}

/// The three headers of one limit.
struct Names {
    limit: HeaderName,
    remaining: HeaderName,
    reset: HeaderName,
}

macro_rules! names {
    ($limit:literal, $remaining:literal, $reset:literal) => {
        Names {
            limit: HeaderName::from_static($limit),
            remaining: HeaderName::from_static($remaining),
            reset: HeaderName::from_static($reset),
        }
    };
}

static REQUESTS: [Names; 3] = [
    names!("x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"),
    names!("x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"),
    names!("ratelimit-limit", "ratelimit-remaining", "ratelimit-reset"),
];
static TOKENS: [Names; 2] = [
    names!("x-ratelimit-limit-tokens", "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"),
    names!(
        "x-ratelimit-limit-tokens-prompt",
        "x-ratelimit-remaining-tokens-prompt",
        "x-ratelimit-reset-tokens-prompt"
    ),
];
static OUTPUT: [Names; 1] = [names!(
    "x-ratelimit-limit-tokens-generated",
    "x-ratelimit-remaining-tokens-generated",
    "x-ratelimit-reset-tokens-generated"
)];
static ANTHROPIC_REQUESTS: [Names; 1] = [names!(
    "anthropic-ratelimit-requests-limit",
    "anthropic-ratelimit-requests-remaining",
    "anthropic-ratelimit-requests-reset"
)];
static ANTHROPIC_TOKENS: [Names; 2] = [
    names!(
        "anthropic-ratelimit-input-tokens-limit",
        "anthropic-ratelimit-input-tokens-remaining",
        "anthropic-ratelimit-input-tokens-reset"
    ),
    names!(
        "anthropic-ratelimit-tokens-limit",
        "anthropic-ratelimit-tokens-remaining",
        "anthropic-ratelimit-tokens-reset"
    ),
];
static ANTHROPIC_OUTPUT: [Names; 1] = [names!(
    "anthropic-ratelimit-output-tokens-limit",
    "anthropic-ratelimit-output-tokens-remaining",
    "anthropic-ratelimit-output-tokens-reset"
)];

/// Reads what a provider with this set of headers says. `now_ms` is for those that name a time.
pub fn allowances(headers: &HeaderMap, set: RateLimitHeaders, now_ms: i64) -> Allowances {
    // Most say nothing, and are not asked for each of the names.
    let is_about_limits = |name: &HeaderName| {
        let name = name.as_str();
        ["x-ratelimit", "ratelimit", "anthropic-ratelimit"].iter().any(|begin| name.starts_with(begin))
    };
    if !headers.keys().any(is_about_limits) {
        return Allowances::default();
    }
    let first = |names: &[Names]| names.iter().find_map(|names| allowance(headers, names, now_ms));
    match set {
        RateLimitHeaders::Google | RateLimitHeaders::None => Allowances::default(),
        RateLimitHeaders::Anthropic => Allowances {
            requests: first(&ANTHROPIC_REQUESTS),
            tokens: first(&ANTHROPIC_TOKENS),
            output: first(&ANTHROPIC_OUTPUT),
            is_over: false,
        },
        RateLimitHeaders::Openai | RateLimitHeaders::Generic => {
            Allowances { requests: first(&REQUESTS), tokens: first(&TOKENS), output: None, is_over: false }
        }
        RateLimitHeaders::Fireworks => Allowances {
            requests: first(&REQUESTS),
            tokens: first(&TOKENS),
            output: first(&OUTPUT),
            is_over: headers
                .get("x-ratelimit-over-limit")
                .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"yes")),
        },
    }
}

fn allowance(headers: &HeaderMap, names: &Names, now_ms: i64) -> Option<Allowance> {
    let text = |name: &HeaderName| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let remaining = count(text(&names.remaining)?)?;
    let limit = text(&names.limit).and_then(count);
    // Nothing of nothing is how some say that there is no limit.
    (limit != Some(0)).then(|| Allowance {
        limit,
        remaining,
        reset: text(&names.reset).and_then(|value| reset_value(value, now_ms)),
    })
}

/// A count; of a list of windows (`100, 100;w=60`) the first. What is below nothing is nothing.
fn count(text: &str) -> Option<u64> {
    let number: f64 = text.split([',', ';']).next()?.trim().parse().ok()?;
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it lies within the bounds")]
    number.is_finite().then(|| number.clamp(0.0, 1.0e15) as u64)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    /// 2026-11-23T10:00:00Z.
    const NOW: i64 = 1_795_428_000_000;

    fn read(set: RateLimitHeaders, pairs: &[(&str, &str)]) -> Allowances {
        let name = |name: &str| HeaderName::from_bytes(name.as_bytes()).unwrap();
        let headers =
            pairs.iter().map(|(key, value)| (name(key), HeaderValue::from_str(value).unwrap())).collect();
        allowances(&headers, set, NOW)
    }

    fn some(limit: u64, remaining: u64, reset_ms: u64) -> Option<Allowance> {
        Some(Allowance { limit: Some(limit), remaining, reset: Some(Duration::from_millis(reset_ms)) })
    }

    #[test]
    fn each_set_is_read() {
        let openai = [
            ("x-ratelimit-limit-requests", "500"),
            ("x-ratelimit-remaining-requests", "499"),
            ("x-ratelimit-reset-requests", "120ms"),
            ("x-ratelimit-limit-tokens", "30000"),
            ("x-ratelimit-remaining-tokens", "29000"),
            ("x-ratelimit-reset-tokens", "6m0s"),
        ];
        let seen = read(RateLimitHeaders::Openai, &openai);
        assert_eq!((seen.requests, seen.tokens), (some(500, 499, 120), some(30_000, 29_000, 360_000)));
        assert!(read(RateLimitHeaders::None, &openai).is_empty());
        assert!(read(RateLimitHeaders::Anthropic, &openai).is_empty());

        let anthropic = [
            ("anthropic-ratelimit-requests-limit", "50"),
            ("anthropic-ratelimit-requests-remaining", "2"),
            ("anthropic-ratelimit-requests-reset", "2026-11-23T10:00:30Z"),
            ("anthropic-ratelimit-tokens-limit", "9"),
            ("anthropic-ratelimit-tokens-remaining", "9"),
            ("anthropic-ratelimit-input-tokens-limit", "40000"),
            ("anthropic-ratelimit-input-tokens-remaining", "1000"),
            ("anthropic-ratelimit-input-tokens-reset", "2026-11-23T10:00:02Z"),
            ("anthropic-ratelimit-output-tokens-limit", "8000"),
            ("anthropic-ratelimit-output-tokens-remaining", "0"),
            ("anthropic-ratelimit-output-tokens-reset", "2026-11-23T10:01:00Z"),
        ];
        let seen = read(RateLimitHeaders::Anthropic, &anthropic);
        assert_eq!(seen.requests, some(50, 2, 30_000));
        assert_eq!(seen.tokens, some(40_000, 1_000, 2_000));
        assert_eq!(seen.output, some(8_000, 0, 60_000));

        for pairs in [
            [
                ("x-ratelimit-limit", "10"),
                ("x-ratelimit-remaining", "3"),
                ("x-ratelimit-reset", "1795428005"),
            ],
            [("ratelimit-limit", "10, 10;w=60"), ("ratelimit-remaining", "3"), ("ratelimit-reset", "5")],
            [
                ("x-ratelimit-limit", "10"),
                ("x-ratelimit-remaining", "3"),
                ("x-ratelimit-reset", "1795428005000"),
            ],
        ] {
            assert_eq!(read(RateLimitHeaders::Generic, &pairs).requests, some(10, 3, 5_000), "{pairs:?}");
        }
        assert!(read(RateLimitHeaders::Fireworks, &[("x-ratelimit-over-limit", "yes")]).is_over);
        assert!(read(RateLimitHeaders::Fireworks, &[("x-ratelimit-over-limit", "no")]).is_empty());
    }

    #[test]
    fn what_is_no_number_or_no_limit_says_nothing() {
        for (limit, remaining) in [("0", "0"), ("10", "many"), ("10", ""), ("10", "NaN")] {
            let pairs =
                [("x-ratelimit-limit-requests", limit), ("x-ratelimit-remaining-requests", remaining)];
            assert!(read(RateLimitHeaders::Openai, &pairs).is_empty(), "{limit} {remaining}");
        }
        let below = read(RateLimitHeaders::Openai, &[("x-ratelimit-remaining-requests", "-3")]);
        assert_eq!(below.requests, Some(Allowance { limit: None, remaining: 0, reset: None }));
    }
}
