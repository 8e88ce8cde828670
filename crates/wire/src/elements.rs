//! The elements of a JSON list, one after the other, without building any.

use crate::{
    envelope::{self, Member},
    skip::{self, Walk},
};

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

impl<'a> Elements<'a> {
    /// The next element, and on the same walk its members if it is an object. Members of one that turns out not to be JSON
    /// may have been shown.
    pub fn next_with_members(&mut self, visit: &mut dyn FnMut(Member<'a>)) -> Option<&'a str> {
        let begin = self.at.take()?;
        let bytes = self.list.as_bytes();
        let mut walk = Walk::over(bytes, &[]);
        let end = match bytes.get(begin) {
            Some(b'{') => envelope::object(self.list, begin, &mut walk, visit)?.behind,
            _ => walk.value(begin)?,
        };
        self.step_over(begin, end)
    }

    /// The element from `begin` to `end`; the next one stands behind it.
    fn step_over(&mut self, begin: usize, end: usize) -> Option<&'a str> {
        let bytes = self.list.as_bytes();
        let behind = skip::space(bytes, end);
        if bytes.get(behind) == Some(&b',') {
            self.at = Some(skip::space(bytes, behind + 1));
        }
        self.list.get(begin..end)
    }
}

impl<'a> Iterator for Elements<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let begin = self.at.take()?;
        let end = Walk::over(self.list.as_bytes(), &[]).value(begin)?;
        self.step_over(begin, end)
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

    #[test]
    fn the_members_of_elements_are_shown_on_the_way() {
        let list = r#" [{"a":1, "b" : [{"c":2}]}, "{", {}, [{"d":3}] , {"e":"}"}, {"f":tru}, {"g":4}]"#;
        let mut seen = Vec::new();
        let mut all = elements(list);
        let mut shown = Vec::new();
        while let Some(element) = all.next_with_members(&mut |member| {
            assert_eq!(&list[member.span.clone()], member.raw);
            seen.push((member.key.into_owned(), member.raw));
        }) {
            shown.push(element);
        }
        assert_eq!(shown, elements(list).collect::<Vec<_>>());
        assert_eq!(shown.len(), 5);
        let expected = [("a", "1"), ("b", r#"[{"c":2}]"#), ("e", r#""}""#)];
        assert_eq!(seen, expected.map(|(key, raw)| (key.to_owned(), raw)));
    }
}
