//! Tools, and the choice among them.

use std::{borrow::Cow, sync::LazyLock};

use serde_json::value::RawValue;

use super::{CacheMark, Native};
use crate::DialectId;

/// A tool the model may call.
#[derive(Debug, Clone)]
pub struct Tool {
    /// What it is.
    pub kind: ToolKind,
    /// A mark that the prompt may be cached up to here.
    pub cache_mark: Option<CacheMark>,
    /// Members of the tool's entry that only the client's dialect has, as (name, raw value).
    pub extras: Vec<(String, Box<RawValue>)>,
    /// Where it stood in the client's request (`tools[0].functionDeclarations[1]`), for errors and losses.
    pub path: String,
}

impl Tool {
    /// A tool that stood there.
    pub fn at(path: impl Into<String>, kind: ToolKind) -> Self {
        Self { kind, cache_mark: None, extras: Vec::new(), path: path.into() }
    }
}

/// The kinds of tools.
#[derive(Debug, Clone)]
pub enum ToolKind {
    /// A function that the client runs.
    Function {
        /// Its name.
        name: String,
        /// What it does.
        description: Option<String>,
        /// JSON schema of its arguments, exactly as the client wrote it.
        schema: Option<Box<RawValue>>,
        /// Whether the arguments must obey the schema.
        strict: Option<bool>,
    },
    /// A tool that the client runs and whose input is free text. Calls of it have the arguments
    /// `{"input": "…"}` in the form; dialects that know such tools unwrap them.
    Custom {
        /// Its name.
        name: String,
        /// What it does.
        description: Option<String>,
        /// What its input must look like (`{"type":"grammar",…}`), exactly as the client wrote it.
        format: Option<Box<RawValue>>,
    },
    /// The vendor's search of the web.
    WebSearch(Box<WebSearchTool>),
    /// A tool that only one dialect has (other server tools), kept as it came.
    Opaque {
        /// Whose it is.
        origin: DialectId,
        /// Its name, if it has one.
        name: Option<String>,
        /// The entry as JSON.
        raw: Box<RawValue>,
    },
}

/// How the vendor may search the web.
#[derive(Debug, Clone)]
pub struct WebSearchTool {
    /// The entry as the client's dialect writes it; for a dialect that has no entry, the switch's value.
    pub native: Native,
    /// The only domains to search; empty for all.
    pub allowed_domains: Vec<String>,
    /// Domains to leave out.
    pub blocked_domains: Vec<String>,
    /// Most searches per answer.
    pub max_uses: Option<u64>,
    /// How much of what is found the model reads: `low`, `medium`, `high`.
    pub context_size: Option<String>,
    /// Roughly where the user is.
    pub place: Option<Place>,
}

/// Roughly where a user is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Place {
    /// City.
    pub city: Option<String>,
    /// Two letters.
    pub country: Option<String>,
    /// Region or state.
    pub region: Option<String>,
    /// IANA name.
    pub timezone: Option<String>,
}

/// Which tool the model should call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToolChoice {
    /// As it likes.
    Auto,
    /// None.
    None,
    /// At least one.
    Required,
    /// This one.
    Named(String),
    /// The vendor's search of the web.
    WebSearch,
    /// One of these.
    Allowed {
        /// Whether it must call one.
        required: bool,
        /// Their names.
        names: Vec<String>,
    },
}

impl Tool {
    /// The name by which the model calls it; `None` for tools that have none.
    pub fn name(&self) -> Option<&str> {
        match &self.kind {
            ToolKind::Function { name, .. } | ToolKind::Custom { name, .. } => Some(name),
            ToolKind::Opaque { name, .. } => name.as_deref(),
            ToolKind::WebSearch(_) => None,
        }
    }

    /// The tool as a function, for dialects that have no other tools which the client runs.
    pub(crate) fn as_function(&self) -> Option<Function<'_>> {
        match &self.kind {
            ToolKind::Function { name, description, schema, strict } => Some(Function {
                name,
                description: description.as_deref().map(Cow::Borrowed),
                schema: schema.as_deref(),
                strict: *strict,
            }),
            ToolKind::Custom { name, description, format } => {
                let mut text = description.clone().unwrap_or_default();
                if let Some(format) = format {
                    text.push_str("\n\nThe input must have this format: ");
                    text.push_str(format.get());
                }
                Some(Function {
                    name,
                    description: Some(Cow::Owned(text)),
                    schema: Some(&FREE_TEXT),
                    strict: None,
                })
            }
            ToolKind::WebSearch(_) | ToolKind::Opaque { .. } => None,
        }
    }
}

/// The schema of a function that takes free text.
static FREE_TEXT: LazyLock<Box<RawValue>> = LazyLock::new(|| {
    let schema = r#"{"type":"object","properties":{"input":{"type":"string"}},"required":["input"],"additionalProperties":false}"#;
    RawValue::from_string(schema.to_owned()).expect("a schema that is written here")
});

/// A function as it is offered to the model.
#[derive(Debug)]
pub(crate) struct Function<'a> {
    pub(crate) name: &'a str,
    pub(crate) description: Option<Cow<'a, str>>,
    pub(crate) schema: Option<&'a RawValue>,
    pub(crate) strict: Option<bool>,
}
