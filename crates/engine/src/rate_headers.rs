//! What is left of a key's limits, in the headers that SDKs read.

use std::fmt;
use std::time::Duration;

use http::header::HeaderName;
use http::{HeaderMap, HeaderValue};
use omniroute_domain::limit::{Meter, Standing};

use crate::ctx::RequestCtx;
use crate::error::rfc3339;
use crate::ports::{Charge, Reserving};
use crate::texts::Texts;

const OPENAI: [[HeaderName; 3]; 2] = [
    [
        HeaderName::from_static("x-ratelimit-limit-requests"),
        HeaderName::from_static("x-ratelimit-remaining-requests"),
        HeaderName::from_static("x-ratelimit-reset-requests"),
    ],
    [
        HeaderName::from_static("x-ratelimit-limit-tokens"),
        HeaderName::from_static("x-ratelimit-remaining-tokens"),
        HeaderName::from_static("x-ratelimit-reset-tokens"),
    ],
];

impl RequestCtx {
    /// Every answer to a limited key says what is left. Where the request was refused before it counted, it is looked up.
    pub(crate) fn write_limits(&self, headers: &mut HeaderMap, texts: &mut Texts) {
        let Some(caller) = self.caller.as_ref().filter(|caller| !caller.limits.is_empty()) else { return };
        let now_ms = self.engine.clock.now_ms();
        let looked_up;
        let standings = if self.standings.is_empty() {
            let charge = |&(meter, limit)| Charge { key: caller.id.clone(), meter, limit, amount: 0 };
            let charges: smallvec::SmallVec<[Charge; 4]> = caller.limits.iter().map(charge).collect();
            match self.engine.counters.reserve(&charges, now_ms) {
                Reserving::Ready(verdict) => looked_up = verdict.standings,
                // A shared store is not asked a second time for the sake of a header.
                Reserving::Waiting(_) => return,
            }
            &looked_up
        } else {
            &self.standings
        };
        let is_requests =
            |standing: &&Standing| matches!(standing.meter, Meter::RequestsPerMinute | Meter::RequestsPerDay);
        // Of two limits the one that ends first.
        let requests = standings.iter().filter(is_requests).min_by_key(|standing| standing.remaining);
        let tokens = standings.iter().find(|standing| standing.meter == Meter::TokensPerMinute);
        let own = self.dialect().rate_limit_headers();
        headers.reserve(if own.is_some() { 12 } else { 6 });
        for (at, standing) in [requests, tokens].into_iter().enumerate() {
            let Some(standing) = standing else { continue };
            let mut insert = |name: HeaderName, value: Option<HeaderValue>| {
                if let Some(value) = value {
                    headers.insert(name, value);
                }
            };
            let [limit, remaining, reset] = &OPENAI[at];
            let (most, left) = (texts.shown(standing.limit), texts.shown(standing.remaining));
            insert(limit.clone(), most.clone());
            insert(remaining.clone(), left.clone());
            insert(reset.clone(), texts.shown(Pause(standing.reset_after)));
            let Some([limit, remaining, reset]) = own.map(|own| own[at]) else { continue };
            let until = now_ms.saturating_add(crate::time::millis(standing.reset_after));
            insert(HeaderName::from_static(limit), most);
            insert(HeaderName::from_static(remaining), left);
            insert(HeaderName::from_static(reset), texts.text(&rfc3339(until)));
        }
    }
}

/// A span of time as OpenAI writes it: `120ms`, `1s`, `6m0s`, `1h2m3s`.
struct Pause(Duration);

impl fmt::Display for Pause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(time) = self;
        if *time < Duration::from_secs(1) {
            return write!(f, "{}ms", time.as_millis());
        }
        let seconds = time.as_millis().div_ceil(1_000);
        let (hours, minutes, seconds) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
        match (hours, minutes) {
            (0, 0) => write!(f, "{seconds}s"),
            (0, _) => write!(f, "{minutes}m{seconds}s"),
            _ => write!(f, "{hours}h{minutes}m{seconds}s"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_as_openai_does() {
        for (ms, text) in [
            (0, "0ms"),
            (120, "120ms"),
            (1_000, "1s"),
            (1_001, "2s"),
            (360_000, "6m0s"),
            (3_723_000, "1h2m3s"),
        ] {
            assert_eq!(Pause(Duration::from_millis(ms)).to_string(), text);
        }
    }
}
