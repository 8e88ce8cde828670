//! Which bytes of a JSON string need a look: quotes, backslashes and control characters, as a bit for each.

use wide::u8x16;

/// A part of a text that is looked at at once: there is a bit for each of its bytes in a word.
pub(crate) const STRETCH: usize = 64;
/// What the processor compares at once.
pub(crate) const BLOCK: usize = 16;

/// A bit for each byte of the stretch that is special, the first byte in the lowest one.
#[inline]
pub(crate) fn in_stretch(stretch: &[u8; STRETCH]) -> u64 {
    let (blocks, _) = stretch.as_chunks::<BLOCK>();
    blocks.iter().rev().fold(0, |bits, block| bits << BLOCK | in_block(block))
}

/// The same for one block.
#[inline]
pub(crate) fn in_block(block: &[u8; BLOCK]) -> u64 {
    let text = u8x16::new(*block);
    let quote = text.simd_eq(u8x16::splat(b'"'));
    let backslash = text.simd_eq(u8x16::splat(b'\\'));
    let control = text.simd_eq(text.min(u8x16::splat(0x1f)));
    u64::from((quote | backslash | control).to_bitmask())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one_by_one(bytes: &[u8]) -> u64 {
        let is_special = |byte: &u8| *byte < 0x20 || matches!(byte, b'"' | b'\\');
        bytes.iter().rev().fold(0, |bits, byte| bits << 1 | u64::from(is_special(byte)))
    }

    #[test]
    fn every_byte_is_known_at_every_place() {
        for byte in 0..=u8::MAX {
            for place in 0..STRETCH {
                for filling in [b'x', 0xff, 0] {
                    let mut stretch = [filling; STRETCH];
                    stretch[place] = byte;
                    assert_eq!(in_stretch(&stretch), one_by_one(&stretch), "{byte} at {place}");
                }
            }
        }
    }
}
