//! What Anthropic's models take, by their names. The vendor changes it with its models, not with its API:
//! <https://platform.claude.com/docs/en/build-with-claude/effort>,
//! <https://platform.claude.com/docs/en/models/opus-5-5/migration-guide>,
//! <https://platform.claude.com/docs/en/models/sonnet-5-5/migration-guide>,
//! <https://platform.claude.com/docs/en/models/fable-5-1/migration-guide>.

use omniroute_dialect::{Caps, ReasoningOff, ir::Effort};

const UP_TO_HIGH: &[Effort] = &[Effort::Low, Effort::Medium, Effort::High];
const WITHOUT_XHIGH: &[Effort] = &[Effort::Low, Effort::Medium, Effort::High, Effort::Max];
const ALL: &[Effort] = &[Effort::Low, Effort::Medium, Effort::High, Effort::XHigh, Effort::Max];

/// Family and version in the name of a Claude model, in the spellings of all who sell it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Claude<'a> {
    pub(super) family: &'a str,
    pub(super) version: (u32, u32),
}

impl<'a> Claude<'a> {
    /// `claude-opus-4-5-20251101`, `anthropic/claude-opus-4.5`, `claude-3-5-sonnet@20241022`, `…claude-opus-5-v1:0`.
    pub(super) fn parse(model: &'a str) -> Option<Self> {
        let name = &model[model.find("claude-")? + "claude-".len()..];
        if name.starts_with("mythos-preview") {
            // It has no number; what it takes came with 4.7.
            return Some(Self { family: "mythos", version: (4, 7) });
        }
        let mut family = "";
        let mut numbers = Vec::new();
        let mut adjacent = false;
        for part in name.split(['-', '.', '@', ':', '/', '_']) {
            match part.parse::<u32>() {
                Ok(number) if part.len() <= 2 && (numbers.is_empty() || (adjacent && numbers.len() < 2)) => {
                    numbers.push(number);
                    adjacent = true;
                }
                Ok(_) => adjacent = false,
                Err(_) => {
                    adjacent = false;
                    if family.is_empty() {
                        family = part;
                    }
                }
            }
        }
        let major = *numbers.first()?;
        Some(Self { family, version: (major, numbers.get(1).copied().unwrap_or(0)) })
    }

    /// Applies what the name tells.
    pub(super) fn apply(&self, caps: &mut Caps) {
        let since = |version| self.version >= version;
        let is_of = |families: &[&str]| families.contains(&self.family);
        caps.adaptive_thinking = since((4, 6));
        caps.prefill = !since((4, 6));
        caps.sampling = !since((4, 7));
        caps.one_sampler = since((4, 1));
        caps.reasoning = since((3, 7));
        caps.efforts = match self.version {
            version if version >= (4, 7) => ALL,
            (4, 6) => WITHOUT_XHIGH,
            _ => UP_TO_HIGH,
        };
        // It came with Opus 4.8 and the first Fable; of the others only with 5.5.
        caps.mid_conversation_system = match self.family {
            "opus" => since((4, 8)),
            "fable" | "mythos" => since((5, 0)),
            _ => since((5, 5)),
        };
        let always_thinks = is_of(&["fable", "mythos"]) || (is_of(&["opus"]) && since((5, 5)));
        caps.reasoning_off = if always_thinks {
            ReasoningOff::Least
        } else if is_of(&["sonnet"]) && since((5, 5)) {
            ReasoningOff::BetweenTools
        } else {
            ReasoningOff::Word
        };
        caps.forced_calls =
            !(is_of(&["fable", "mythos"]) && since((5, 1))) && !(is_of(&["opus", "sonnet"]) && since((5, 5)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{caps::caps_of, catalog::catalog};

    fn caps(provider: &str, model: &str) -> Caps {
        let spec = catalog().provider(provider).expect("in the catalogue");
        caps_of(spec, model, catalog().model(&spec.id, model))
    }

    #[test]
    fn names_of_claude_models() {
        let cases = [
            ("claude-opus-4-5-20251101", Some(("opus", (4, 5)))),
            ("claude-sonnet-4-20250514", Some(("sonnet", (4, 0)))),
            ("anthropic/claude-opus-4.6", Some(("opus", (4, 6)))),
            ("claude-3-5-sonnet@20241022", Some(("sonnet", (3, 5)))),
            ("us.anthropic.claude-opus-5-v1:0", Some(("opus", (5, 0)))),
            ("claude-fable-5-1", Some(("fable", (5, 1)))),
            ("anthropic.claude-mythos-preview", Some(("mythos", (4, 7)))),
            ("claude-latest", None),
            ("gpt-5", None),
        ];
        for (model, want) in cases {
            let found = Claude::parse(model).map(|claude| (claude.family, claude.version));
            assert_eq!(found, want, "{model}");
        }
    }

    #[test]
    fn claude_models_differ_by_version() {
        // adaptive, prefill, sampling, one sampler, system in the middle, forced calls
        let cases = [
            ("claude-3-5-haiku-20241022", [false, true, true, false, false, true]),
            ("claude-opus-4-20250514", [false, true, true, false, false, true]),
            ("claude-opus-4-1", [false, true, true, true, false, true]),
            ("claude-haiku-4-5", [false, true, true, true, false, true]),
            ("claude-opus-4-6", [true, false, true, true, false, true]),
            ("claude-opus-4-7", [true, false, false, true, false, true]),
            ("claude-opus-4-8", [true, false, false, true, true, true]),
            ("claude-opus-5", [true, false, false, true, true, true]),
            ("claude-opus-5-5", [true, false, false, true, true, false]),
            ("claude-sonnet-5", [true, false, false, true, false, true]),
            ("claude-sonnet-5-5", [true, false, false, true, true, false]),
            ("claude-haiku-5-5", [true, false, false, true, true, true]),
            ("claude-fable-5", [true, false, false, true, true, true]),
            ("claude-fable-5-1", [true, false, false, true, true, false]),
            ("claude-mythos-5-1", [true, false, false, true, true, false]),
            ("claude-mythos-preview", [true, false, false, true, false, true]),
        ];
        for (model, want) in cases {
            let caps = caps("anthropic", model);
            let found = [
                caps.adaptive_thinking,
                caps.prefill,
                caps.sampling,
                caps.one_sampler,
                caps.mid_conversation_system,
                caps.forced_calls,
            ];
            assert_eq!(found, want, "{model}");
        }
    }

    #[test]
    fn claude_models_think_as_much_as_they_are_told_or_cannot_help_it() {
        for (model, efforts, off) in [
            ("claude-opus-4-6", WITHOUT_XHIGH, ReasoningOff::Word),
            ("claude-opus-4-7", ALL, ReasoningOff::Word),
            ("claude-opus-5", ALL, ReasoningOff::Word),
            ("claude-opus-5-5", ALL, ReasoningOff::Least),
            ("claude-sonnet-5", ALL, ReasoningOff::Word),
            ("claude-sonnet-5-5", ALL, ReasoningOff::BetweenTools),
            ("claude-haiku-5-5", ALL, ReasoningOff::Word),
            ("claude-fable-5", ALL, ReasoningOff::Least),
            ("claude-mythos-5-1", ALL, ReasoningOff::Least),
            ("claude-mythos-preview", ALL, ReasoningOff::Least),
        ] {
            let caps = caps("anthropic", model);
            assert_eq!((caps.efforts, caps.reasoning_off), (efforts, off), "{model}");
        }
    }
}
