//! Writing JSON into a text.

/// Writes the members of an object into a text.
pub(super) struct Object<'o> {
    out: &'o mut String,
    first: bool,
}

impl<'o> Object<'o> {
    /// Opens an object; nothing is written before its first member or its end.
    pub(super) fn begin(out: &'o mut String) -> Self {
        Self { out, first: true }
    }

    /// Writes a member's name; the caller appends its value.
    pub(super) fn key(&mut self, name: &str) -> &mut String {
        self.out.push(if std::mem::replace(&mut self.first, false) { '{' } else { ',' });
        self.out.push_str(&quoted(name));
        self.out.push(':');
        self.out
    }

    /// A member that is JSON already.
    pub(super) fn raw(&mut self, name: &str, json: &str) {
        self.key(name).push_str(json);
    }

    /// Closes the object.
    pub(super) fn end(self) {
        self.out.push_str(if self.first { "{}" } else { "}" });
    }
}

/// A JSON string.
pub(super) fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("a string is always written")
}
