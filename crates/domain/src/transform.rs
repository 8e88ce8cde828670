//! What the operator adds to and takes from requests, compiled: system text with variables, a filter of tools.

use jiff::Timestamp;
use regex_lite::{Regex, RegexBuilder};

use crate::entity::{ComboTransforms, SystemPromptSettings, ThinkingSettings};

/// Longest filter of tools, in bytes.
pub const MAX_FILTER_LENGTH: usize = 1_000;
/// Most characters of a system text.
pub const MAX_SYSTEM_CHARS: u32 = 200_000;
/// Most labels that accounts must have.
pub const MAX_TAGS: usize = 20;
/// The variables of templates.
pub const VARIABLES: &str = "`{{date}}`, `{{model}}` and `{{key_name}}`";

/// Most memory of a compiled filter.
const FILTER_MEMORY: usize = 1 << 20;

/// A text with variables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(Vec<Piece>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Date,
    Model,
    KeyName,
}

/// What stands for the variables of a template.
#[derive(Debug, Clone, Copy)]
pub struct Values<'a> {
    /// Now, of which the day is told, in UTC.
    pub now_ms: i64,
    /// The model as the client asked for it.
    pub model: &'a str,
    /// The name of the client's key; empty where there is none.
    pub key_name: &'a str,
}

/// A variable that there is not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{{{{{0}}}}}` is not a variable; there are {VARIABLES}")]
pub struct UnknownVariable(pub String);

impl Template {
    /// Reads a template.
    pub fn parse(text: &str) -> Result<Self, UnknownVariable> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((before, behind)) = rest.split_once("{{") {
            let Some((name, after)) = behind.split_once("}}") else { break };
            if !before.is_empty() {
                pieces.push(Piece::Text(before.to_owned()));
            }
            pieces.push(match name.trim() {
                "date" => Piece::Date,
                "model" => Piece::Model,
                "key_name" => Piece::KeyName,
                other => return Err(UnknownVariable(other.chars().take(50).collect())),
            });
            rest = after;
        }
        if !rest.is_empty() {
            pieces.push(Piece::Text(rest.to_owned()));
        }
        Ok(Self(pieces))
    }

    /// The text for one request.
    pub fn render(&self, values: &Values<'_>) -> String {
        let mut text = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(own) => text.push_str(own),
                Piece::Model => text.push_str(values.model),
                Piece::KeyName => text.push_str(values.key_name),
                Piece::Date => {
                    let now = Timestamp::from_millisecond(values.now_ms).unwrap_or_default();
                    text.push_str(&now.strftime("%Y-%m-%d").to_string());
                }
            }
        }
        text
    }
}

/// System text around that of clients.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SystemText {
    /// Before it.
    pub before: Option<Template>,
    /// Behind it.
    pub after: Option<Template>,
}

impl SystemText {
    /// What the settings say; `None` when nothing is added.
    pub fn new(settings: &SystemPromptSettings) -> Result<Option<Self>, UnknownVariable> {
        if !settings.enabled {
            return Ok(None);
        }
        let template = |text: &str| match text.trim() {
            "" => Ok(None),
            _ => Template::parse(text).map(Some),
        };
        let text =
            Self { before: template(&settings.prefix_prompt)?, after: template(&settings.suffix_prompt)? };
        Ok(Some(text).filter(|text| text.before.is_some() || text.after.is_some()))
    }
}

/// What a combo changes in the requests that it passes on, ready to be done.
#[derive(Debug, Default)]
pub struct ComboRules {
    /// Takes the place of the client's system text.
    pub system: Option<Template>,
    /// Only tools whose names match are passed on.
    pub tools: Option<Regex>,
    /// Labels that an account must have.
    pub tags: Vec<String>,
    /// Comes before the setting.
    pub thinking: Option<ThinkingSettings>,
}

/// Why a combo's changes make no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RulesError {
    /// The system text names what is not there.
    #[error("systemMessage: {0}")]
    System(#[from] UnknownVariable),
    /// The filter is no regular expression.
    #[error("toolFilterRegex: {0}")]
    Filter(String),
}

impl ComboRules {
    /// Compiles what the operator wrote.
    pub fn new(transforms: &ComboTransforms) -> Result<Self, RulesError> {
        let system = transforms.system_message.as_deref().filter(|text| !text.trim().is_empty());
        Ok(Self {
            system: system.map(Template::parse).transpose()?,
            tools: transforms.tool_filter_regex.as_deref().map(filter).transpose()?,
            tags: transforms.required_tags.clone(),
            thinking: transforms.thinking_budget,
        })
    }

    /// Whether nothing is changed, as by most combos.
    pub const fn is_empty(&self) -> bool {
        self.system.is_none() && self.tools.is_none() && self.tags.is_empty() && self.thinking.is_none()
    }
}

/// A filter of tools. Matching takes time in proportion to the name, whatever the expression.
pub fn filter(text: &str) -> Result<Regex, RulesError> {
    if text.len() > MAX_FILTER_LENGTH {
        return Err(RulesError::Filter(format!("is longer than {MAX_FILTER_LENGTH} bytes")));
    }
    RegexBuilder::new(text)
        .size_limit(FILTER_MEMORY)
        .build()
        .map_err(|error| RulesError::Filter(format!("does not compile: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_know_three_variables() {
        let values = Values { now_ms: 1_795_392_000_000, model: "best", key_name: "ci" };
        for (text, expected) in [
            ("plain", "plain"),
            ("{{date}}: {{ model }} for {{key_name}}.", "2026-11-23: best for ci."),
            ("{{date}}{{date}}", "2026-11-232026-11-23"),
            ("{ {date} } and {{", "{ {date} } and {{"),
        ] {
            assert_eq!(Template::parse(text).unwrap().render(&values), expected);
        }
        assert_eq!(Template::parse("a {{secret}}"), Err(UnknownVariable("secret".into())));
        assert_eq!(
            UnknownVariable("x".into()).to_string(),
            "`{{x}}` is not a variable; there are `{{date}}`, `{{model}}` and `{{key_name}}`"
        );
    }

    #[test]
    fn system_text_that_says_nothing_is_none() {
        let settings = |enabled, before: &str, after: &str| SystemPromptSettings {
            enabled,
            prefix_prompt: before.into(),
            suffix_prompt: after.into(),
            ..SystemPromptSettings::default()
        };
        assert_eq!(SystemText::new(&settings(false, "a", "b")), Ok(None));
        assert_eq!(SystemText::new(&settings(true, " \n", "")), Ok(None));
        let text = SystemText::new(&settings(true, "", "b")).unwrap().unwrap();
        assert!(text.before.is_none() && text.after.is_some());
        assert!(SystemText::new(&settings(true, "{{no}}", "")).is_err());
    }

    #[test]
    fn filters_compile_and_stay_fast() {
        assert!(filter("^(read|write)_").unwrap().is_match("read_file"));
        assert!(matches!(filter("("), Err(RulesError::Filter(_))));
        assert!(matches!(filter(&"a".repeat(2_000)), Err(RulesError::Filter(_))));
        // Takes exponential time where an engine goes back and tries again.
        assert!(!filter("^(a+)+$").unwrap().is_match(&format!("{}b", "a".repeat(64))));
    }
}
