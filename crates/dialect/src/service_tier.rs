//! The tier in which an answer was served. The form has OpenAI's words for it (`default`, `priority`, `flex`, …); a word
//! that nobody knows goes from one dialect to the other as it is.

use std::borrow::Cow;

use omniroute_wire::envelope::{self, as_str};

use crate::ir::Tier;
use crate::stream::{EventSink, StreamError, StreamEvent};

/// Longest word. Writers may repeat it with every event.
const MAX: usize = 64;

/// Whether it is a word for a tier.
pub(crate) fn is_word(word: &str) -> bool {
    !word.is_empty() && word.len() <= MAX
}

/// The tier that a member of a request names, by its JSON.
pub(crate) fn tier_of(raw: &str) -> Tier {
    as_str(raw).map_or(Tier::Standard, |word| Tier::of_word(&word))
}

/// The tier that a body asks for that was written for an upstream.
pub fn asked_in(body: &[u8]) -> Tier {
    let mut tier = Tier::Standard;
    let scanned = envelope::scan(body, &mut |member| {
        if matches!(&*member.key, "service_tier" | "serviceTier" | "speed") {
            tier = Some(tier_of(member.raw)).filter(|tier| *tier != Tier::Standard).unwrap_or(tier);
        }
    });
    scanned.map_or(Tier::Standard, |_| tier)
}

/// What was told of the tier so far.
#[derive(Debug, Default)]
pub(crate) struct Told(String);

impl Told {
    /// Tells it if it is news.
    pub(crate) fn tell(&mut self, word: &str, sink: &mut dyn EventSink) -> Result<(), StreamError> {
        if !is_word(word) || self.0 == word {
            return Ok(());
        }
        word.clone_into(&mut self.0);
        sink.event(StreamEvent::ServiceTier(Cow::Borrowed(word)))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{Head, registry};

    #[test]
    fn words_of_all_dialects_are_known() {
        for (word, expected) in [
            ("default", Tier::Standard),
            ("auto", Tier::Standard),
            ("STANDARD", Tier::Standard),
            ("on_demand", Tier::Standard),
            ("flex", Tier::Flex),
            ("ON_DEMAND_FLEX", Tier::Flex),
            ("priority", Tier::Priority),
            ("fast", Tier::Fast),
            ("scale", Tier::Other),
            ("PROVISIONED_THROUGHPUT", Tier::Other),
        ] {
            assert_eq!(Tier::of_word(word), expected, "{word}");
        }
    }

    #[test]
    fn bodies_for_upstreams_say_which_tier_they_ask_for() {
        for (body, tier) in [
            (r#"{"model":"m","service_tier":"flex"}"#, Tier::Flex),
            (r#"{"contents":[],"serviceTier":"priority"}"#, Tier::Priority),
            (r#"{"service_tier":"auto","speed":"fast"}"#, Tier::Fast),
            (r#"{"speed":"fast","service_tier":"auto"}"#, Tier::Fast),
            (r#"{"model":"m","metadata":{"service_tier":"flex"}}"#, Tier::Standard),
            (r#"{"service_tier":"flex""#, Tier::Standard),
        ] {
            assert_eq!(asked_in(body.as_bytes()), tier, "{body}");
        }
    }

    #[test]
    fn envelopes_say_which_tier_is_wanted() {
        let messages = r#""model":"m","max_tokens":1,"messages":[{"role":"user","content":"a"}]"#;
        for (dialect, body, expected) in [
            ("openai", format!(r#"{{{messages}}}"#), Tier::Standard),
            ("openai", format!(r#"{{"service_tier":"priority",{messages}}}"#), Tier::Priority),
            ("openai", format!(r#"{{"service_tier":"auto",{messages}}}"#), Tier::Standard),
            ("openai", format!(r#"{{"service_tier":null,{messages}}}"#), Tier::Standard),
            ("responses", r#"{"model":"m","input":"a","service_tier":"flex"}"#.to_owned(), Tier::Flex),
            (
                "anthropic",
                format!(r#"{{"service_tier":"standard_only","speed":"fast",{messages}}}"#),
                Tier::Fast,
            ),
            ("gemini", r#"{"contents":[{"parts":[]}],"serviceTier":"FLEX"}"#.to_owned(), Tier::Flex),
        ] {
            let found = registry::DIALECTS.iter().find(|known| known.id().as_str() == dialect);
            let headers = http::HeaderMap::new();
            let head = Head { headers: &headers, path: "/v1beta/models/m:generateContent", query: None };
            let envelope = found.expect("a dialect").envelope(head, &Bytes::from(body.clone())).expect(&body);
            assert_eq!(envelope.spans.tier, expected, "{dialect} {body}");
        }
    }
}
