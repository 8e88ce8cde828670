//! What OpenAI's models take, by their names, whoever sells them:
//! <https://developers.openai.com/api/docs/guides/reasoning>.

use omniroute_dialect::{Caps, ReasoningOff, ir::Effort};

const LOW_TO_HIGH: &[Effort] = &[Effort::Low, Effort::Medium, Effort::High];
const FROM_MINIMAL: &[Effort] = &[Effort::Minimal, Effort::Low, Effort::Medium, Effort::High];
const UP_TO_XHIGH: &[Effort] = &[Effort::Low, Effort::Medium, Effort::High, Effort::XHigh];
const FROM_MEDIUM: &[Effort] = &[Effort::Medium, Effort::High, Effort::XHigh];
const UP_TO_MAX: &[Effort] = &[Effort::Low, Effort::Medium, Effort::High, Effort::XHigh, Effort::Max];

/// Applies what the name of a model that reasons tells.
pub(super) fn apply(caps: &mut Caps, model: &str) {
    let name = model.rsplit('/').next().unwrap_or(model);
    if name.contains("gpt-oss") {
        caps.efforts = LOW_TO_HIGH;
    }
    if !is_reasoning(name) {
        return;
    }
    caps.sampling = false;
    caps.reasoning = true;
    let Some(version) = gpt_version(name) else {
        // The series of `o1` and `o3`.
        caps.efforts = LOW_TO_HIGH;
        caps.reasoning_off = ReasoningOff::Least;
        return;
    };
    let since = |first: (u32, u32)| version >= first;
    if name.contains("-pro") {
        caps.efforts = if since((5, 2)) { FROM_MEDIUM } else { &[Effort::High] };
        caps.reasoning_off = ReasoningOff::Least;
    } else if name.contains("-codex") {
        caps.efforts = if since((5, 2)) || name.contains("-max") { UP_TO_XHIGH } else { LOW_TO_HIGH };
        caps.reasoning_off = ReasoningOff::Least;
    } else if since((5, 1)) {
        caps.efforts = match version {
            (5, 1) => LOW_TO_HIGH,
            (5, 2..=5) => UP_TO_XHIGH,
            _ => UP_TO_MAX,
        };
        // While it does not reason it takes what older models took.
        caps.sampling_at_rest = true;
        caps.rests_by_default = matches!(version, (5, 1 | 2));
    } else {
        caps.efforts = FROM_MINIMAL;
        caps.reasoning_off = ReasoningOff::Least;
    }
}

/// The version in the name of a GPT model: `gpt-5.6-terra`, `openai/gpt-5`, `gpt-4o`.
pub(super) fn gpt_version(model: &str) -> Option<(u32, u32)> {
    fn number(text: &str) -> Option<(u32, &str)> {
        let (digits, rest) = text.split_at(text.bytes().take_while(u8::is_ascii_digit).count());
        Some((digits.parse().ok()?, rest))
    }
    let rest = model.rsplit('/').next()?.strip_prefix("gpt-")?;
    let (major, rest) = number(rest)?;
    let minor = rest.strip_prefix('.').and_then(number).map_or(0, |(minor, _)| minor);
    Some((major, minor))
}

/// Whether it is a model that reasons. These take no sampling parameters while they do.
fn is_reasoning(name: &str) -> bool {
    if name.starts_with("gpt-") {
        let chats = name.contains("-chat") || name.contains("-search");
        return gpt_version(name).is_some_and(|version| version >= (5, 0)) && !chats;
    }
    let mut bytes = name.bytes();
    bytes.next() == Some(b'o')
        && bytes.next().is_some_and(|byte| byte.is_ascii_digit())
        && bytes.next().is_none_or(|byte| byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_have_the_levels_of_their_generation() {
        use ReasoningOff::{Least, Word};
        for (model, efforts, off, at_rest) in [
            ("o3", LOW_TO_HIGH, Least, false),
            ("o4-mini", LOW_TO_HIGH, Least, false),
            ("gpt-5", FROM_MINIMAL, Least, false),
            ("gpt-5-mini", FROM_MINIMAL, Least, false),
            ("gpt-5-pro", &[Effort::High], Least, false),
            ("gpt-5-codex", LOW_TO_HIGH, Least, false),
            ("openai/gpt-5.1", LOW_TO_HIGH, Word, true),
            ("gpt-5.1-codex", LOW_TO_HIGH, Least, false),
            ("gpt-5.1-codex-max", UP_TO_XHIGH, Least, false),
            ("gpt-5.2", UP_TO_XHIGH, Word, true),
            ("gpt-5.2-pro", FROM_MEDIUM, Least, false),
            ("gpt-5.3-codex", UP_TO_XHIGH, Least, false),
            ("gpt-5.5", UP_TO_XHIGH, Word, true),
            ("gpt-5.6-terra", UP_TO_MAX, Word, true),
            ("gpt-6-astra", UP_TO_MAX, Word, true),
            ("gpt-6.1-sol", UP_TO_MAX, Word, true),
            ("gpt-oss-120b", LOW_TO_HIGH, Word, false),
            ("gpt-4o", Caps::permissive().efforts, Word, false),
            ("olmo2", Caps::permissive().efforts, Word, false),
        ] {
            let mut caps = Caps::permissive();
            apply(&mut caps, model);
            let found = (caps.efforts, caps.reasoning_off, caps.sampling_at_rest);
            assert_eq!(found, (efforts, off, at_rest), "{model}");
            let rests = matches!(model, "openai/gpt-5.1" | "gpt-5.2");
            assert_eq!(caps.rests_by_default, rests, "{model}");
        }
    }
}
