//! Where JSON strings end. Bodies are mostly long strings, so this is what reading a request costs.
//!
//! 64 bytes are looked at at once, and without a branch for each escape in them: a processor foresees at most the
//! last few, and guessing wrong is dearer than looking at all bytes.

use fearless_simd::{Level, dispatch, prelude::*, u8x16};

use crate::special::{self, STRETCH, Stretch};

/// What a string turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Checked {
    /// Just behind its closing quote.
    pub(crate) end: usize,
    /// Whether it has escapes of surrogates, in pairs or not.
    pub(crate) has_surrogates: bool,
}

/// Reads the string whose opening quote is at `at`; `None` if it is not one.
#[inline]
pub(crate) fn check(level: Level, bytes: &[u8], at: usize) -> Option<Checked> {
    let start = at + 1;
    if let Some(length) = bytes.get(start..).and_then(|rest| rest.first_chunk()).and_then(length_of_short) {
        return Some(Checked { end: start + length + 1, has_surrogates: false });
    }
    dispatch!(level, simd => check_long(simd, bytes, start))
}

/// Names and most values end within the first few bytes, and have nothing but a quote that needs a look.
#[inline]
fn length_of_short(block: &[u8; 16]) -> Option<usize> {
    let special = dispatch!(Level::baseline(), simd => {
        let text = u8x16::from_slice(simd, block);
        (text.simd_eq(b'"') | text.simd_eq(b'\\') | text.simd_le(0x1f)).to_bitmask()
    });
    let place = special.trailing_zeros() as usize;
    (block.get(place) == Some(&b'"')).then_some(place)
}

/// The same for any string; `at` is behind its opening quote.
#[inline(always)]
fn check_long<S: Simd>(simd: S, bytes: &[u8], mut at: usize) -> Option<Checked> {
    let (mut has_surrogates, mut first) = (false, 0);
    loop {
        let (stretches, last) = bytes.get(at..)?.as_chunks();
        let mut found = None;
        // Nothing is called in here, so what is compared with stays in registers.
        for stretch in stretches {
            let seen = Seen::in_stretch(simd, stretch, &mut first);
            if seen.is_something() {
                found = Some((seen, stretch));
                break;
            }
            at += STRETCH;
        }
        let filled;
        let (seen, stretch) = match found {
            Some(found) => found,
            None => {
                filled = filled_up(last);
                (Seen::in_stretch(simd, &filled, &mut first), &filled)
            }
        };
        let inside = seen.inside();
        if seen.has_controls && special::controls(stretch) & inside != 0 {
            return None;
        }
        has_surrogates |= check_escapes(bytes, at, seen.unusual & inside)?;
        if seen.ends != 0 {
            return Some(Checked { end: at + seen.ends.trailing_zeros() as usize + 1, has_surrogates });
        }
        at += STRETCH;
    }
}

/// What is in a stretch of a string besides usual text and frequent escapes.
struct Seen {
    /// Quotes that end the string, if they are in it.
    ends: u64,
    /// What is behind a backslash and has to be looked at.
    unusual: u64,
    has_controls: bool,
}

impl Seen {
    /// `first` is whether the first byte is escaped, and then whether the one behind the last is.
    #[inline(always)]
    fn in_stretch<S: Simd>(simd: S, bytes: &[u8; STRETCH], first: &mut u64) -> Self {
        let stretch = Stretch::of(simd, bytes);
        let (escaped, next) = stretch.escaped(*first);
        *first = next;
        Self {
            ends: stretch.quotes & !escaped,
            unusual: escaped & !stretch.simple,
            has_controls: stretch.has_controls,
        }
    }

    #[inline(always)]
    const fn is_something(&self) -> bool {
        self.ends | self.unusual != 0 || self.has_controls
    }

    /// The bytes before the end.
    const fn inside(&self) -> u64 {
        if self.ends == 0 { u64::MAX } else { !(u64::MAX << self.ends.trailing_zeros()) }
    }
}

/// The last bytes of a text, and behind them what may not be in a string.
fn filled_up(rest: &[u8]) -> [u8; STRETCH] {
    let mut stretch = [0; STRETCH];
    for (place, byte) in stretch.iter_mut().zip(rest) {
        *place = *byte;
    }
    stretch
}

/// Looks at the less frequent escapes, whose bytes behind the backslash these bits are. Says whether there is a
/// surrogate among them; `None` if one is not an escape.
fn check_escapes(bytes: &[u8], from: usize, mut places: u64) -> Option<bool> {
    let mut has_surrogates = false;
    while places != 0 {
        let at = from + places.trailing_zeros() as usize;
        match *bytes.get(at)? {
            b'/' | b'b' | b'f' | b'r' => {}
            b'u' => {
                let digits: &[u8; 4] = bytes.get(at + 1..)?.first_chunk()?;
                if !digits.iter().all(u8::is_ascii_hexdigit) {
                    return None;
                }
                has_surrogates |= matches!(digits, [b'd' | b'D', b'8'..=b'f', ..]);
            }
            _ => return None,
        }
        places &= places - 1;
    }
    Some(has_surrogates)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::text::lone_surrogates;

    /// What is found with all that the processor has, which must be what any processor finds.
    fn found(text: &str) -> Option<Checked> {
        let bytes = text.as_bytes();
        let checked = check(Level::new(), bytes, 0);
        assert_eq!(checked, dispatch!(Level::baseline(), simd => check_long(simd, bytes, 1)), "{text}");
        checked
    }

    #[test]
    fn what_stands_behind_a_string_does_not_matter() {
        for length in 0..200 {
            let string = format!("\"{}\"", "x".repeat(length));
            for behind in ["", "\n", "\u{0}", "\"", "\\", "\\q", "\\ud83d"] {
                let expected = Some(Checked { end: length + 2, has_surrogates: false });
                assert_eq!(
                    found(&format!("{string}{behind}{}", "y".repeat(70))),
                    expected,
                    "{string}{behind}"
                );
                assert_eq!(found(&format!("{string}{behind}")), expected, "{string}{behind}");
            }
        }
    }

    #[test]
    fn backslashes_pair_up_across_stretches() {
        for before in 0..=130 {
            for backslashes in 0..=130 {
                let text = format!("\"{}{}\"", "x".repeat(before), "\\".repeat(backslashes));
                let end = (backslashes % 2 == 0).then_some(text.len());
                assert_eq!(found(&text).map(|checked| checked.end), end, "{before}, {backslashes}");
                for (letter, is_escape) in
                    [("n", true), ("/", true), ("q", false), ("u00e9", true), ("u00g9", false)]
                {
                    let text = format!(
                        "\"{}{}{letter}{}\"",
                        "x".repeat(before),
                        "\\".repeat(backslashes),
                        "y".repeat(before)
                    );
                    let end = (is_escape || backslashes % 2 == 0).then_some(text.len());
                    assert_eq!(
                        found(&text).map(|checked| checked.end),
                        end,
                        "{before}, {backslashes}, {letter}"
                    );
                }
            }
        }
    }

    #[test]
    fn surrogates_are_noticed() {
        for (escape, expected) in [
            (r"\ud83d", true),
            (r"\uDFFF", true),
            (r"\uD8aB\udc00", true),
            (r"\ud7ff", false),
            (r"\ue000", false),
            (r"\\ud83d", false),
            (r"\u00d8", false),
        ] {
            for length in 0..130 {
                let text = format!("\"{}{escape}\"", "x".repeat(length));
                assert_eq!(found(&text).map(|checked| checked.has_surrogates), Some(expected), "{text}");
            }
        }
    }

    proptest! {
        #[test]
        fn no_lone_surrogate_goes_unnoticed(
            parts in proptest::collection::vec(r#"[a-z]{0,40}|\\[\\n"]|\\u[dD][0-9a-fA-F]{3}"#, 0..20),
        ) {
            let text = format!("\"{}\"", parts.concat());
            let mut is_there = false;
            lone_surrogates(text.as_bytes(), &mut |_| is_there = true);
            let checked = found(&text).expect("a string");
            prop_assert_eq!(checked.end, text.len());
            prop_assert!(checked.has_surrogates || !is_there);
        }
    }
}
