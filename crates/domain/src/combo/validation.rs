//! What an answer must be like so that it counts as one. For whole answers: of a stream the client has the beginning before
//! anybody has seen the end.

use std::fmt;

use boon::{Compiler, SchemaIndex, Schemas, UrlLoader};
use regex_lite::{Regex, RegexBuilder};
use serde_json::Value;

use crate::entity::ResponseValidation;

/// Most bytes that a pattern may take when it is compiled.
const MAX_PATTERN_BYTES: usize = 1 << 20;
/// Under which a schema is known to its compiler; nothing is fetched.
const SCHEMA_URL: &str = "urn:omniroute:response-validation";

/// Rules, ready to be applied.
pub struct Validation {
    rules: ResponseValidation,
    must_match: Option<Regex>,
    must_not_match: Option<Regex>,
    schema: Option<(Schemas, SchemaIndex)>,
}

/// Why rules cannot be applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{member}: {reason}")]
pub struct ValidationError {
    /// Which of them: `mustMatch`, `mustNotMatch`, `jsonSchema`.
    pub member: &'static str,
    /// In words.
    pub reason: String,
}

impl Validation {
    /// Compiles rules.
    pub fn new(rules: ResponseValidation) -> Result<Self, ValidationError> {
        let must_match = pattern("mustMatch", rules.must_match.as_deref())?;
        let must_not_match = pattern("mustNotMatch", rules.must_not_match.as_deref())?;
        let schema = rules.json_schema.clone().map(compiled).transpose()?;
        Ok(Self { rules, must_match, must_not_match, schema })
    }

    /// What is wrong with an answer of this text.
    pub fn objection(&self, text: &str) -> Option<String> {
        if let Some(least) = self.rules.min_chars {
            let count = text.chars().take(least as usize).count();
            if count < least as usize {
                return Some(format!("the answer has {count} characters, and must have {least}"));
            }
        }
        if self.must_match.as_ref().is_some_and(|pattern| !pattern.is_match(text)) {
            return Some("the answer does not match `mustMatch`".to_owned());
        }
        if self.must_not_match.as_ref().is_some_and(|pattern| pattern.is_match(text)) {
            return Some("the answer matches `mustNotMatch`".to_owned());
        }
        let (schemas, index) = self.schema.as_ref()?;
        let value: Value = match serde_json::from_str(text) {
            Ok(value) => value,
            Err(error) => return Some(format!("the answer is no JSON: {error}")),
        };
        let error = schemas.validate(&value, *index).err()?;
        let place =
            error.causes.first().map_or_else(String::new, |cause| cause.instance_location.to_string());
        Some(format!("the answer does not follow `jsonSchema` at `{place}`"))
    }
}

impl fmt::Debug for Validation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.rules.fmt(f)
    }
}

impl PartialEq for Validation {
    fn eq(&self, other: &Self) -> bool {
        self.rules == other.rules
    }
}

impl Eq for Validation {}

fn pattern(member: &'static str, text: Option<&str>) -> Result<Option<Regex>, ValidationError> {
    let Some(text) = text else { return Ok(None) };
    let compiled = RegexBuilder::new(text).size_limit(MAX_PATTERN_BYTES).build();
    compiled.map(Some).map_err(|error| ValidationError { member, reason: error.to_string() })
}

fn compiled(schema: Value) -> Result<(Schemas, SchemaIndex), ValidationError> {
    let wrong = |reason: String| ValidationError { member: "jsonSchema", reason };
    let mut compiler = Compiler::new();
    compiler.use_loader(Box::new(Nothing));
    compiler.add_resource(SCHEMA_URL, schema).map_err(|error| wrong(error.to_string()))?;
    let mut schemas = Schemas::new();
    let index = compiler.compile(SCHEMA_URL, &mut schemas).map_err(|error| wrong(error.to_string()))?;
    Ok((schemas, index))
}

/// Schemas that are not within the rules are not fetched from anywhere.
struct Nothing;

impl UrlLoader for Nothing {
    fn load(&self, url: &str) -> Result<Value, Box<dyn std::error::Error>> {
        Err(format!("`{url}` is outside of the schema; put what it needs into `$defs`").into())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn objection(rules: Value, text: &str) -> Option<String> {
        let rules = serde_json::from_value(rules).expect("rules");
        Validation::new(rules).expect("rules that compile").objection(text)
    }

    #[test]
    fn answers_are_held_to_every_rule() {
        let schema = json!({"type": "object", "required": ["a"], "properties": {"a": {"type": "integer", "minimum": 1}}});
        for (rules, text, expected) in [
            (json!({}), "", None),
            (json!({"minChars": 3}), "äöü", None),
            (json!({"minChars": 4}), "äöü", Some("the answer has 3 characters, and must have 4")),
            (json!({"mustMatch": "(?i)^yes"}), "Yes, sir", None),
            (json!({"mustMatch": "^yes"}), "no", Some("the answer does not match `mustMatch`")),
            (
                json!({"mustNotMatch": "as an ai"}),
                "as an ai model",
                Some("the answer matches `mustNotMatch`"),
            ),
            (json!({"jsonSchema": schema}), " {\"a\": 1} ", None),
            (
                json!({"jsonSchema": schema}),
                "{\"a\": 0}",
                Some("the answer does not follow `jsonSchema` at `/a`"),
            ),
            (json!({"jsonSchema": schema}), "{}", Some("the answer does not follow `jsonSchema` at ``")),
        ] {
            assert_eq!(objection(rules.clone(), text).as_deref(), expected, "{rules} {text}");
        }
        assert!(objection(json!({"jsonSchema": schema}), "```").is_some_and(|why| why.contains("no JSON")));
    }

    #[test]
    fn rules_that_cannot_be_applied_say_why() {
        for (rules, member) in [
            (json!({"mustMatch": "("}), "mustMatch"),
            (json!({"mustNotMatch": "a{99999999}"}), "mustNotMatch"),
            (json!({"jsonSchema": {"type": 7}}), "jsonSchema"),
            (json!({"jsonSchema": {"$ref": "https://example.org/x.json"}}), "jsonSchema"),
            (json!({"jsonSchema": {"$ref": "file:///etc/passwd"}}), "jsonSchema"),
        ] {
            let parsed = serde_json::from_value(rules.clone()).expect("rules");
            assert_eq!(Validation::new(parsed).err().map(|error| error.member), Some(member), "{rules}");
        }
    }

    #[test]
    fn a_hostile_pattern_takes_linear_time() {
        let text = "a".repeat(20_000) + "!";
        assert!(objection(json!({"mustMatch": "^(a+)+$"}), &text).is_some());
    }
}
