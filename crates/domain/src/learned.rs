//! What upstreams have refused: facts about a model that no table knows, learned from its errors and believed for a
//! day.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{PoisonError, RwLock};

use omniroute_dialect::{Mend, ir::UpstreamError};
use omniroute_provider::ProviderId;
use smallvec::SmallVec;

/// Most facts kept; the oldest makes room.
const MAX_FACTS: usize = 1024;
/// How long a fact is believed.
const BELIEVED_MS: i64 = 24 * 3_600 * 1_000;
/// Members without which there is no request; they are never left out.
const NEEDED: &[&str] = &[
    "model",
    "messages",
    "input",
    "contents",
    "stream",
    "system",
    "systemInstruction",
    "instructions",
    "tools",
];

/// What a model at a provider does not take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact {
    /// A member of the request, by its path in the upstream's dialect.
    Without(String),
    /// A member that has another name there.
    Renamed {
        /// The refused name.
        from: String,
        /// The accepted one.
        to: String,
    },
    /// A budget for thinking: it decides by itself, steered by an effort.
    AdaptiveThinking,
    /// A trailing assistant message.
    NoPrefill,
    /// Calls in the history without the reasoning that led to them.
    ReasoningInHistory,
    /// A form of the request that it does not take.
    Mend(Mend),
}

impl Fact {
    /// The kind of it, for machines.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Without(_) => "without",
            Self::Renamed { .. } => "renamed",
            Self::AdaptiveThinking => "adaptive_thinking",
            Self::NoPrefill => "no_prefill",
            Self::ReasoningInHistory => "reasoning_in_history",
            Self::Mend(Mend::ShortDescriptions(_)) => "short_descriptions",
            Self::Mend(Mend::OneSystemMessage) => "one_system_message",
        }
    }

    /// The refused member, where it is one.
    pub fn parameter(&self) -> Option<&str> {
        match self {
            Self::Without(path) | Self::Renamed { from: path, .. } => Some(path),
            Self::AdaptiveThinking | Self::NoPrefill | Self::ReasoningInHistory | Self::Mend(_) => None,
        }
    }

    /// In words, for lists.
    pub fn describe(&self) -> String {
        match self {
            Self::Without(path) => format!("does not take `{path}`"),
            Self::Renamed { from, to } => format!("takes `{to}` instead of `{from}`"),
            Self::AdaptiveThinking => "takes an effort instead of a thinking budget".to_owned(),
            Self::NoPrefill => "does not continue a trailing assistant message".to_owned(),
            Self::ReasoningInHistory => "wants its `reasoning_content` back with its calls".to_owned(),
            Self::Mend(Mend::ShortDescriptions(most)) => {
                format!("takes descriptions of tools of {most} characters at most")
            }
            Self::Mend(Mend::OneSystemMessage) => "takes one system message, the first".to_owned(),
        }
    }
}

/// A fact with what it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lesson {
    /// Whose model.
    pub provider: ProviderId,
    /// The upstream's name of the model.
    pub model: String,
    /// What was learned.
    pub fact: Fact,
    /// Until when it is believed, in epoch milliseconds.
    pub until_ms: i64,
}

/// Everything that was learned. Asking costs one atomic read while nothing was.
#[derive(Debug, Default)]
pub struct Learned {
    count: AtomicUsize,
    lessons: RwLock<Vec<Lesson>>,
}

impl Learned {
    /// What is known of a model.
    pub fn facts(&self, provider: &ProviderId, model: &str, now_ms: i64) -> SmallVec<[Fact; 2]> {
        if self.count.load(Ordering::Relaxed) == 0 {
            return SmallVec::new();
        }
        let lessons = self.lessons.read().unwrap_or_else(PoisonError::into_inner);
        lessons
            .iter()
            .filter(|one| one.until_ms > now_ms && one.provider == *provider && one.model == model)
            .map(|one| one.fact.clone())
            .collect()
    }

    /// Remembers a fact; false if it was known, so that it cannot explain another refusal.
    pub fn learn(&self, provider: &ProviderId, model: &str, fact: Fact, now_ms: i64) -> bool {
        let mut lessons = self.lessons.write().unwrap_or_else(PoisonError::into_inner);
        lessons.retain(|one| one.until_ms > now_ms);
        let is_known =
            lessons.iter().any(|one| one.provider == *provider && one.model == model && one.fact == fact);
        if !is_known {
            if lessons.len() == MAX_FACTS {
                lessons.remove(0);
            }
            let until_ms = now_ms.saturating_add(BELIEVED_MS);
            lessons.push(Lesson { provider: provider.clone(), model: model.to_owned(), fact, until_ms });
        }
        self.count.store(lessons.len(), Ordering::Relaxed);
        !is_known
    }

    /// All that is believed, oldest first.
    pub fn lessons(&self, now_ms: i64) -> Vec<Lesson> {
        let lessons = self.lessons.read().unwrap_or_else(PoisonError::into_inner);
        lessons.iter().filter(|one| one.until_ms > now_ms).cloned().collect()
    }

    /// Forgets what is wanted; how much that was.
    pub fn forget(&self, is_wanted: impl Fn(&Lesson) -> bool) -> usize {
        let mut lessons = self.lessons.write().unwrap_or_else(PoisonError::into_inner);
        let before = lessons.len();
        lessons.retain(|one| !is_wanted(one));
        self.count.store(lessons.len(), Ordering::Relaxed);
        before - lessons.len()
    }
}

/// What a refusal (status 400 or 422) teaches, if it names what was too much.
pub fn fact_of(error: &UpstreamError) -> Option<Fact> {
    let text = error.message.to_ascii_lowercase();
    let has = |words: &str| text.contains(words);
    if let Some(fact) = token_limit(&text) {
        return Some(fact);
    }
    if has("thinking.type.enabled") && (has("not supported") || has("deprecated")) {
        return Some(Fact::AdaptiveThinking);
    }
    if has("prefill") || (has("final assistant") && has("not supported")) {
        return Some(Fact::NoPrefill);
    }
    if has("reasoning_content")
        && ["missing", "must be passed back", "must be provided"].iter().any(|words| has(words))
    {
        return Some(Fact::ReasoningInHistory);
    }
    if let Some(mend) = form(&text, error.param.as_deref().unwrap_or_default()) {
        return Some(Fact::Mend(mend));
    }
    let refuses = [
        "unsupported parameter",
        "unsupported value",
        "unknown parameter",
        "unknown name",
        "unknown field",
        "unrecognized",
        "unexpected keyword",
        "extra inputs are not permitted",
        "extra_forbidden",
        "is not supported",
        "not supported with this model",
        "does not support",
        "is deprecated",
        "are not permitted",
        "not allowed for this model",
    ];
    if !refuses.iter().any(|words| has(words)) {
        return None;
    }
    let named = error.param.as_deref().map(str::to_owned).filter(|param| is_path(param));
    let path = named.or_else(|| named_in(&error.message))?;
    let head = path.split('.').next().unwrap_or_default();
    (!NEEDED.contains(&head)).then_some(Fact::Without(path))
}

/// A form that is refused: OpenAI says `Invalid 'tools[0].function.description': string too long. Expected a string with
/// maximum length 1024`, templates of open models `System message must be at the beginning`.
fn form(text: &str, param: &str) -> Option<Mend> {
    /// Where the vendor does not say: OpenAI's own limit.
    const USUAL: usize = 1024;
    /// Less than this is no limit of descriptions.
    const LEAST: usize = 16;
    let has = |words: &str| text.contains(words);
    let is_description = param.ends_with("description") || (has("description") && has("tools"));
    if is_description && (has("too long") || has("maximum length") || has("max_length") || has("at most")) {
        let told = ["maximum length ", "at most ", "max_length "].iter().find_map(|words| {
            let rest = text.split_once(words)?.1.trim_start_matches("of ");
            let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
            rest[..digits].parse().ok()
        });
        return Some(Mend::ShortDescriptions(told.unwrap_or(USUAL).max(LEAST)));
    }
    let places = ["must be at the beginning", "must be the first", "must be first", "at the start"];
    let numbers = ["only one", "multiple", "more than one", "at most one", "a single"];
    let is_form = places.iter().chain(&numbers).any(|words| has(words));
    let is_system =
        has("system message") || has("system role") || has("role 'system'") || has("system prompt");
    (is_system && is_form).then_some(Mend::OneSystemMessage)
}

/// The two names of the output limit, of which OpenAI's models take one.
fn token_limit(text: &str) -> Option<Fact> {
    const OLD: &str = "max_tokens";
    const NEW: &str = "max_completion_tokens";
    let (old, new) = (text.find(OLD)?, text.find(NEW)?);
    // The refused one is named first.
    let (from, to) = if old < new { (OLD, NEW) } else { (NEW, OLD) };
    Some(Fact::Renamed { from: from.to_owned(), to: to.to_owned() })
}

/// A member that a message names in quotes, or before a colon.
fn named_in(message: &str) -> Option<String> {
    // Gemini: `Unknown name "topK" at 'generation_config': Cannot find field.`
    let mut quoted = message.split(['"', '\'', '`']).skip(1).step_by(2);
    if let Some(name) = quoted.next().filter(|name| is_path(name)) {
        let outer = quoted.next().filter(|_| message.contains(" at '")).filter(|outer| is_path(outer));
        return Some(match outer {
            Some(outer) => format!("{}.{name}", camel(outer)),
            None => name.to_owned(),
        });
    }
    let (head, _) = message.split_once(':')?;
    let name = head.rsplit([' ', '\n']).next()?;
    let last = message.rsplit([' ', ':']).next()?.trim_end_matches('.');
    [name, last].into_iter().find(|word| is_path(word) && word.contains('_')).map(str::to_owned)
}

fn is_path(text: &str) -> bool {
    (2..=64).contains(&text.len())
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.'))
}

/// `generation_config` as it is written in requests.
fn camel(name: &str) -> String {
    let mut parts = name.split('_');
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let mut chars = part.chars();
        out.extend(chars.next().map(|c| c.to_ascii_uppercase()));
        out.push_str(chars.as_str());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_that_name_what_was_too_much() {
        let without = |path: &str| Some(Fact::Without(path.to_owned()));
        let renamed = |from: &str, to: &str| Some(Fact::Renamed { from: from.into(), to: to.into() });
        let cases = [
            (
                "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
                Some("max_tokens"),
                renamed("max_tokens", "max_completion_tokens"),
            ),
            (
                "max_completion_tokens is not supported, use max_tokens",
                None,
                renamed("max_completion_tokens", "max_tokens"),
            ),
            (
                "Unsupported value: 'temperature' does not support 0.2 with this model. Only the default (1) value is supported.",
                Some("temperature"),
                without("temperature"),
            ),
            ("`temperature` is deprecated for this model.", None, without("temperature")),
            (
                "Unknown name \"topK\" at 'generation_config': Cannot find field.",
                None,
                without("generationConfig.topK"),
            ),
            (
                "Invalid JSON payload received. Unknown name \"stream_options\": Cannot find field.",
                None,
                without("stream_options"),
            ),
            (
                "Unrecognized request argument supplied: parallel_tool_calls",
                None,
                without("parallel_tool_calls"),
            ),
            ("stream_options: Extra inputs are not permitted", None, without("stream_options")),
            ("thinking.type.enabled is not supported for this model", None, Some(Fact::AdaptiveThinking)),
            ("This model does not support assistant message prefill.", None, Some(Fact::NoPrefill)),
            (
                "Missing `reasoning_content` field in the assistant message at message index 1",
                None,
                Some(Fact::ReasoningInHistory),
            ),
            (
                "The `reasoning_content` in the thinking mode must be passed back to the API.",
                None,
                Some(Fact::ReasoningInHistory),
            ),
            (
                "Invalid 'tools[0].function.description': string too long. Expected a string with maximum length 1024, but got a string with length 1100 instead.",
                Some("tools[0].function.description"),
                Some(Fact::Mend(Mend::ShortDescriptions(1024))),
            ),
            (
                "tools.0.function.description: String should have at most 512 characters",
                None,
                Some(Fact::Mend(Mend::ShortDescriptions(512))),
            ),
            ("System message must be at the beginning.", None, Some(Fact::Mend(Mend::OneSystemMessage))),
            (
                "Only one system message is allowed per request",
                None,
                Some(Fact::Mend(Mend::OneSystemMessage)),
            ),
            ("the system message is empty", None, None),
            ("Invalid 'messages[0].content': string too long", None, None),
            ("Unknown parameter: 'messages[1].reasoning_content'", None, None),
            ("`tools` is not supported", None, None),
            ("messages: at least one message is required", None, None),
            ("the model is overloaded", None, None),
        ];
        for (message, param, expected) in cases {
            let error = UpstreamError {
                message: message.to_owned(),
                param: param.map(str::to_owned),
                ..UpstreamError::default()
            };
            assert_eq!(fact_of(&error), expected, "{message}");
        }
    }

    #[test]
    fn lessons_are_bounded_and_end() {
        let learned = Learned::default();
        let provider = ProviderId::from("p");
        assert!(learned.facts(&provider, "m", 0).is_empty());
        assert!(learned.learn(&provider, "m", Fact::NoPrefill, 0));
        assert!(!learned.learn(&provider, "m", Fact::NoPrefill, 1), "known");
        assert_eq!(learned.facts(&provider, "m", 2).as_slice(), [Fact::NoPrefill]);
        assert!(learned.facts(&provider, "other", 2).is_empty());
        assert!(learned.facts(&provider, "m", BELIEVED_MS).is_empty());
        for at in 0..2 * MAX_FACTS {
            learned.learn(&provider, &format!("m{at}"), Fact::NoPrefill, 5);
        }
        assert_eq!(learned.lessons(6).len(), MAX_FACTS);
        assert_eq!(learned.forget(|_| true), MAX_FACTS);
        assert!(learned.lessons(6).is_empty());
    }
}
