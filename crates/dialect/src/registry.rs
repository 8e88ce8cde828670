//! Which dialects there are.

use serde_json::value::RawValue;

use crate::{Dialect, DialectId};

/// Every dialect, in the order in which they are listed to people.
pub static DIALECTS: &[&dyn Dialect] = &[
    &crate::openai::OpenAi,
    &crate::responses::Responses,
    &crate::anthropic::Anthropic,
    &crate::gemini::Gemini,
    &crate::ollama::Ollama,
];

/// The dialect with this id.
pub fn by_id(id: DialectId) -> &'static dyn Dialect {
    DIALECTS.iter().copied().find(|dialect| dialect.id() == id).expect("ids are only made by dialects")
}

/// A text for a block that only its own dialect has.
pub(crate) fn opaque_as_text(origin: DialectId, raw: &RawValue) -> Option<String> {
    DIALECTS.iter().find(|dialect| dialect.id() == origin)?.opaque_as_text(raw)
}

/// The dialect with this id or long name, as data files and settings write it.
pub fn by_name(name: &str) -> Option<&'static dyn Dialect> {
    DIALECTS.iter().copied().find(|dialect| dialect.id().as_str() == name || dialect.long_name() == name)
}
