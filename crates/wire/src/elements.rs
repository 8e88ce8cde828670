//! The elements of a JSON list, one after the other, without building any.

use crate::skip::{self, Walk};

/// Shows the text of each element. What is no list has none, and what follows a mistake is not shown.
pub fn elements(list: &str) -> Elements<'_> {
    let bytes = list.as_bytes();
    let begin = skip::space(bytes, 0);
    let at = (bytes.get(begin) == Some(&b'[')).then(|| skip::space(bytes, begin + 1));
    Elements { list, at: at.filter(|at| bytes.get(*at) != Some(&b']')) }
}

/// Iterator of [`elements`].
#[derive(Debug, Clone)]
pub struct Elements<'a> {
    list: &'a str,
    /// Where the next element begins, if there is one.
    at: Option<usize>,
}

impl<'a> Iterator for Elements<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let begin = self.at.take()?;
        let bytes = self.list.as_bytes();
        let end = Walk::over(bytes, &[]).value(begin)?;
        let behind = skip::space(bytes, end);
        if bytes.get(behind) == Some(&b',') {
            self.at = Some(skip::space(bytes, behind + 1));
        }
        self.list.get(begin..end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_shown_as_they_stand() {
        for (list, expected) in [
            ("[]", &[][..]),
            (" [ ] ", &[]),
            (r#"[1, "a,]" ,{"b":[2]},null]"#, &["1", r#""a,]""#, r#"{"b":[2]}"#, "null"]),
            ("[[1,2],[ ]]", &["[1,2]", "[ ]"]),
            ("{}", &[]),
            ("", &[]),
            ("[1,", &["1"]),
            ("[1,}", &["1"]),
        ] {
            assert_eq!(elements(list).collect::<Vec<_>>(), expected, "{list}");
        }
    }
}
