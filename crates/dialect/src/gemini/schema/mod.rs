//! Schemas. The vendor has a kind of its own, a narrow selection of OpenAPI, and takes JSON Schema as far as it heeds
//! it: <https://ai.google.dev/gemini-api/docs/structured-output>. Walks go by the place of a schema, not by names: a
//! property may be called `properties`.

mod filter;
mod from_own;
mod node;
mod reduce;
mod references;
mod text;

use std::borrow::Cow;

use serde_json::value::RawValue;

pub(super) use from_own::from_own;

use crate::json_in::{Fields, str_of};

/// How deep schemas are followed.
const MAX_DEPTH: usize = 48;

/// What became of a schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Change {
    /// Nothing.
    None,
    /// It says the same in other words, or less in ways that guide nobody.
    Form,
    /// It says something else.
    Meaning,
}

/// A schema as it is written.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Written<'a> {
    pub(super) text: Cow<'a, str>,
    pub(super) change: Change,
}

/// The schema as far as the vendor heeds JSON Schema.
pub(super) fn as_json_schema(raw: &RawValue) -> Written<'_> {
    filter::filter(raw)
}

/// The schema as one of the vendor's own kind.
pub(super) fn as_own(raw: &RawValue) -> Written<'_> {
    let (node, change) = reduce::reduce(raw);
    Written { text: Cow::Owned(node.to_text()), change }
}

/// The schema of a function's arguments in JSON Schema. `None` when it does not describe an object.
pub(super) fn arguments_as_json_schema(raw: &RawValue) -> Option<Written<'_>> {
    let mut written = as_json_schema(raw);
    let kind = Fields::lenient(&written.text, "")
        .ok()?
        .raw("type")
        .map(|kind| str_of(kind) == Some("object".into()));
    match kind {
        Some(true) => Some(written),
        Some(false) => None,
        None => {
            let rest = written.text.trim_start().strip_prefix('{')?;
            let comma = if rest.trim_start().starts_with('}') { "" } else { "," };
            let text = format!("{{\"type\":\"object\"{comma}{rest}");
            written.text = Cow::Owned(text);
            Some(written)
        }
    }
}

/// The schema of a function's arguments in the vendor's own kind, `Some(None)` for no arguments, `None` when it does
/// not describe an object.
pub(super) fn arguments_as_own(raw: &RawValue) -> Option<Option<Written<'_>>> {
    if !raw.get().starts_with('{') {
        return None;
    }
    let (mut node, mut change) = reduce::reduce(raw);
    if node.as_arguments(&mut change) {
        let text = (!node.is_empty_object()).then(|| node.to_text());
        return Some(text.map(|text| Written { text: Cow::Owned(text), change }));
    }
    None
}

#[cfg(test)]
mod tests;
