//! Stop sequences for upstreams that know none, or not so many.

/// Looks for the first stop sequence in a text that comes in pieces. Holds back as much as could be the beginning of
/// one.
#[derive(Debug, Clone, Default)]
pub(crate) struct StopCut {
    sequences: Vec<String>,
    held: String,
}

/// What a piece of text comes to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// So much of the text is safe to pass on.
    Passed(String),
    /// The text ends here, before this sequence.
    Stopped {
        /// What is left of the text.
        text: String,
        /// The sequence that was met.
        sequence: String,
    },
}

impl StopCut {
    /// For these sequences; blank ones match nothing.
    pub(crate) fn new(sequences: &[String]) -> Self {
        let sequences = sequences.iter().filter(|text| !text.is_empty()).cloned().collect();
        Self { sequences, held: String::new() }
    }

    /// Takes the next piece.
    pub(crate) fn push(&mut self, piece: &str) -> Cut {
        self.held.push_str(piece);
        let first = self
            .sequences
            .iter()
            .filter_map(|sequence| Some((self.held.find(sequence.as_str())?, sequence)))
            .min_by_key(|(at, sequence)| (*at, std::cmp::Reverse(sequence.len())));
        if let Some((at, sequence)) = first {
            let sequence = sequence.clone();
            self.held.truncate(at);
            return Cut::Stopped { text: std::mem::take(&mut self.held), sequence };
        }
        let keep = self.sequences.iter().map(|sequence| overlap(&self.held, sequence)).max().unwrap_or(0);
        let rest = self.held.split_off(self.held.len() - keep);
        Cut::Passed(std::mem::replace(&mut self.held, rest))
    }

    /// The text is over: what was held back belongs to it.
    pub(crate) fn rest(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

/// How many bytes at the end of the text are the beginning of the sequence.
fn overlap(text: &str, sequence: &str) -> usize {
    let longest = text.len().min(sequence.len() - 1);
    (1..=longest)
        .rev()
        .find(|length| sequence.is_char_boundary(*length) && text.ends_with(&sequence[..*length]))
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run(sequences: &[&str], pieces: &[&str]) -> (String, Option<String>) {
        let sequences: Vec<String> = sequences.iter().map(|&text| text.to_owned()).collect();
        let mut cut = StopCut::new(&sequences);
        let mut out = String::new();
        for piece in pieces {
            match cut.push(piece) {
                Cut::Passed(text) => out.push_str(&text),
                Cut::Stopped { text, sequence } => return (out + &text, Some(sequence)),
            }
        }
        out.push_str(&cut.rest());
        (out, None)
    }

    #[test]
    fn a_sequence_over_several_pieces_ends_the_text() {
        assert_eq!(run(&["</a>"], &["foo<", "/a", ">bar"]), ("foo".into(), Some("</a>".into())));
        assert_eq!(run(&["</a>"], &["foo<", "/b>"]), ("foo</b>".into(), None));
        assert_eq!(run(&["b", "ab"], &["xa", "b"]), ("x".into(), Some("ab".into())));
        assert_eq!(run(&["", "é!"], &["café", "?"]), ("café?".into(), None));
        assert_eq!(run(&["aab"], &["aa", "ab"]), ("a".into(), Some("aab".into())));
    }

    proptest! {
        #[test]
        fn the_pieces_do_not_matter(text in "[ab<é]{0,30}", sizes in prop::collection::vec(1..4_usize, 1..30)) {
            let sequences = ["ab<", "éé", "<<"];
            let whole = run(&sequences, &[&text]);
            let mut pieces = Vec::new();
            let mut rest = text.as_str();
            for size in sizes.iter().cycle() {
                if rest.is_empty() { break; }
                let at = rest.char_indices().nth(*size).map_or(rest.len(), |(at, _)| at);
                let (head, tail) = rest.split_at(at);
                pieces.push(head);
                rest = tail;
            }
            prop_assert_eq!(run(&sequences, &pieces), whole);
        }
    }
}
