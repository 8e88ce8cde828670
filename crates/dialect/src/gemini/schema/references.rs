//! What references within a schema point to.

use std::collections::HashMap;

use serde_json::value::RawValue;

use crate::json_in::Members;

/// Most text that is read for the references of one schema; so much comes of no honest request.
const MAX_READ: usize = 128 << 20;

/// The references of a schema, as far as they were followed.
pub(super) struct References<'a> {
    root: &'a str,
    known: HashMap<String, Option<&'a str>>,
    /// How much more text is read for them.
    left: usize,
}

impl<'a> References<'a> {
    pub(super) fn of(root: &'a str) -> Self {
        Self { root, known: HashMap::new(), left: MAX_READ }
    }

    /// What one points to, which the caller reads in full; `None` if there is no such thing, or no end of them.
    pub(super) fn resolve(&mut self, reference: &str) -> Option<&'a str> {
        let target = match self.known.get(reference) {
            Some(target) => *target,
            None => {
                self.left = self.left.checked_sub(self.root.len())?;
                let target = resolve(self.root, reference);
                self.known.insert(reference.to_owned(), target);
                target
            }
        }?;
        self.left = self.left.checked_sub(target.len())?;
        Some(target)
    }
}

fn resolve<'a>(root: &'a str, reference: &str) -> Option<&'a str> {
    let mut found = root;
    for step in reference.strip_prefix('#')?.split('/').skip(1) {
        let step = step.replace("~1", "/").replace("~0", "~").replace("%24", "$");
        if found.starts_with('[') {
            let items: Vec<&RawValue> = serde_json::from_str(found).ok()?;
            found = items.get(step.parse::<usize>().ok()?)?.get();
        } else {
            let Members(members) = serde_json::from_str::<Members<'a>>(found).ok()?;
            found = members.iter().find(|(key, _)| *key == step).map(|(_, raw)| raw.get())?;
        }
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_followed_as_long_as_there_is_an_end_of_them() {
        let mut references = References::of(r#"{"$defs":{"a/b":{"items":[1,{"x":2}]}}}"#);
        for (reference, expected) in [
            ("#/%24defs/a~1b/items/1", Some(r#"{"x":2}"#)),
            ("#/$defs/a~1b/items/0", Some("1")),
            ("#/$defs/c", None),
            ("https://a.example/schema", None),
        ] {
            assert_eq!(references.resolve(reference), expected, "{reference}");
        }
        let long = format!(r#"{{"a":"{}"}}"#, "x".repeat(MAX_READ / 4));
        let mut references = References::of(&long);
        let followed = (0..10).filter(|_| references.resolve("#").is_some()).count();
        assert_eq!(followed, 2, "once to find it, and once for each time that it is read");
    }
}
