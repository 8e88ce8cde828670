//! Patterns over model names: `*` is any run of characters, `?` any one. Anchored, case-insensitive.

/// A compiled pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(Box<[u8]>);

impl Pattern {
    /// Compiles a pattern; every text is one.
    pub fn new(text: &str) -> Self {
        Self(text.to_ascii_lowercase().into_bytes().into())
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
