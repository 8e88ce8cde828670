//! Which bytes of a JSON string need a look, as a bit for each of 64 bytes that are looked at at once.

use fearless_simd::{Level, dispatch, prelude::*, u8x64};

/// What is looked at at once: there is a bit for each of its bytes in a word, the first byte's in the lowest.
pub(crate) const STRETCH: usize = 64;

/// The bytes of a stretch by what they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stretch {
    pub(crate) quotes: u64,
    pub(crate) backslashes: u64,
    /// What completes an escape when it stands behind a backslash, as far as that is frequent: `"`, `\`, `n`, `t`.
    pub(crate) simple: u64,
    /// Whether there are control characters.
    pub(crate) has_controls: bool,
}

impl Stretch {
    #[inline(always)]
    pub(crate) fn of<S: Simd>(simd: S, bytes: &[u8; STRETCH]) -> Self {
        let text = u8x64::from_slice(simd, bytes);
        let (quotes, backslashes) = (text.simd_eq(b'"').to_bitmask(), text.simd_eq(b'\\').to_bitmask());
        let letters = (text.simd_eq(b'n') | text.simd_eq(b't')).to_bitmask();
        let has_controls = text.simd_le(LAST_CONTROL).any_true();
        Self { quotes, backslashes, simple: quotes | backslashes | letters, has_controls }
    }

    /// The bytes behind backslashes that are not themselves escaped, and whether the first one of the next stretch is
    /// such a byte, as the lowest bit; `first` says so of this one. Within a run of backslashes none are reported.
    ///
    /// A run takes up its backslashes in pairs; if one is left it escapes what is behind. That is so when the run
    /// begins at an even place and ends before an odd one, or the other way round. And adding the first bits of the
    /// runs that begin at even places carries to the places behind these, for all of them at once.
    #[inline(always)]
    pub(crate) const fn escaped(&self, first: u64) -> (u64, u64) {
        const EVEN: u64 = 0x5555_5555_5555_5555;
        let runs = self.backslashes & !first;
        let starts = runs & !(runs << 1);
        let (behind_even, goes_on) = runs.overflowing_add(starts & EVEN);
        let escaped = (runs << 1) & !runs & (behind_even ^ EVEN);
        (escaped | first, (runs >> 63) & !(goes_on as u64))
    }
}

/// Where the control characters of a stretch are.
#[inline]
pub(crate) fn controls(bytes: &[u8; STRETCH]) -> u64 {
    dispatch!(Level::baseline(), simd => u8x64::from_slice(simd, bytes).simd_le(LAST_CONTROL).to_bitmask())
}

const LAST_CONTROL: u8 = 0x1f;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn look(bytes: &[u8; STRETCH]) -> Stretch {
        dispatch!(Level::new(), simd => Stretch::of(simd, bytes))
    }

    fn bits(bytes: &[u8], wanted: impl Fn(u8) -> bool) -> u64 {
        bytes.iter().rev().fold(0, |bits, byte| bits << 1 | u64::from(wanted(*byte)))
    }

    #[test]
    fn every_byte_is_known_at_every_place() {
        for byte in 0..=u8::MAX {
            for place in 0..STRETCH {
                for filling in [b'x', 0xff, 0] {
                    let mut stretch = [filling; STRETCH];
                    stretch[place] = byte;
                    let expected = Stretch {
                        quotes: bits(&stretch, |byte| byte == b'"'),
                        backslashes: bits(&stretch, |byte| byte == b'\\'),
                        simple: bits(&stretch, |byte| matches!(byte, b'"' | b'\\' | b'n' | b't')),
                        has_controls: stretch.iter().any(|byte| *byte < 0x20),
                    };
                    assert_eq!(controls(&stretch), bits(&stretch, |byte| byte < 0x20), "{byte} at {place}");
                    assert_eq!(look(&stretch), expected, "{byte} at {place}");
                    let baseline = dispatch!(Level::baseline(), simd => Stretch::of(simd, &stretch));
                    assert_eq!(baseline, expected, "{byte} at {place}, on any processor");
                }
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_escaped_is_found_as_if_one_by_one(
            runs in proptest::collection::vec((0..70_usize, 1..4_usize), 100),
            first: bool,
        ) {
            let text: Vec<u8> = runs
                .iter()
                .flat_map(|(backslashes, others)| [vec![b'\\'; backslashes / 10], vec![b'x'; *others]].concat())
                .collect();
            let (mut is_escaped, mut carried) = (first, first);
            for stretch in text.as_chunks::<STRETCH>().0 {
                let mut expected = 0;
                for (place, byte) in stretch.iter().enumerate() {
                    // An escaped backslash is of no interest unless it is the first byte.
                    let is_reported = is_escaped && (*byte != b'\\' || place == 0);
                    expected |= u64::from(is_reported) << place;
                    is_escaped = *byte == b'\\' && !is_escaped;
                }
                let (escaped, next) = look(stretch).escaped(u64::from(carried));
                prop_assert_eq!(escaped, expected);
                prop_assert_eq!(next, u64::from(is_escaped));
                carried = is_escaped;
            }
        }
    }
}
