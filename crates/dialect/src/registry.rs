//! Which dialects there are.

use crate::{Dialect, DialectId};

/// Every dialect, in the order in which they are listed to people.
pub static DIALECTS: &[&dyn Dialect] = &[&crate::openai::OpenAi, &crate::anthropic::Anthropic];

/// The dialect with this id.
pub fn by_id(id: DialectId) -> &'static dyn Dialect {
    DIALECTS.iter().copied().find(|dialect| dialect.id() == id).expect("ids are only made by dialects")
}

/// The dialect with this id or long name, as data files and settings write it.
pub fn by_name(name: &str) -> Option<&'static dyn Dialect> {
    DIALECTS.iter().copied().find(|dialect| dialect.id().as_str() == name || dialect.long_name() == name)
}
