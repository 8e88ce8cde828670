//! Patterns over model names: `*` is any run of characters, `?` any one. Anchored, case-insensitive.

/// A compiled pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(Box<[u8]>);

impl Pattern {
    /// Compiles a pattern; every text is one.
    pub fn new(text: &str) -> Self {
        Self(text.to_ascii_lowercase().into_bytes().into())
    }

    /// What the first `*` stands for in a text that matches; nothing where there is no `*`. Of several ways the shortest.
    pub fn first_run<'t>(&self, text: &'t str) -> Option<&'t str> {
        let Some(star) = self.0.iter().position(|byte| *byte == b'*') else {
            return self.matches(text).then_some("");
        };
        let (head, tail) = (Self(self.0[..star].into()), Self(self.0[star + 1..].into()));
        // Before the `*` every byte of the pattern stands for one of the text.
        let after = text.get(star..)?;
        if !head.matches(&text[..star]) {
            return None;
        }
        let ends = after.char_indices().map(|(at, _)| at).chain([after.len()]);
        ends.into_iter().find(|end| tail.matches(&after[*end..])).map(|end| &after[..end])
    }

    /// Whether the whole of `text` matches. Linear in the product of the lengths at worst, without recursion.
    pub fn matches(&self, text: &str) -> bool {
        let (pattern, text) = (&*self.0, text.as_bytes());
        let (mut p, mut t) = (0, 0);
        let mut star: Option<(usize, usize)> = None;
        while t < text.len() {
            match pattern.get(p) {
                Some(b'*') => {
                    star = Some((p, t));
                    p += 1;
                }
                Some(&byte) if byte == b'?' || byte == text[t].to_ascii_lowercase() => {
                    p += 1;
                    t += 1;
                }
                _ => match star {
                    Some((at, taken)) => {
                        p = at + 1;
                        t = taken + 1;
                        star = Some((at, taken + 1));
                    }
                    None => return false,
                },
            }
        }
        pattern[p..].iter().all(|byte| *byte == b'*')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, text, expected) in [
            ("openai/*", "openai/gpt-4o", true),
            ("openai/*", "azure/gpt-4o", false),
            ("gpt-4o", "GPT-4o", true),
            ("gpt-4o", "gpt-4o-mini", false),
            ("*-mini", "openai/gpt-4o-mini", true),
            ("a*b*c", "a/x/b/y/c", true),
            ("a*b*c", "a/x/b/y", false),
            ("gpt-?", "gpt-5", true),
            ("gpt-?", "gpt-", false),
            ("*", "", true),
            ("", "", true),
            ("", "x", false),
            ("**a", "bba", true),
        ] {
            assert_eq!(Pattern::new(pattern).matches(text), expected, "{pattern} on {text}");
        }
    }
}
