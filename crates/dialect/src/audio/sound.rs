//! How long a sound is that an upstream made: by its frames where they tell, else by how long such a text usually takes.

use super::container::{self, Container, HEAD};

/// Tokens of a second of sound that a model heard, where a vendor sells it by tokens and does not count them. Gemini's
/// (<https://ai.google.dev/gemini-api/docs/tokens>); others count fewer.
pub const HEARD_A_SECOND: f64 = 32.0;
/// The same of sound that a model made (<https://ai.google.dev/gemini-api/docs/speech-generation>); OpenAI's is a little less.
pub const SPOKEN_A_SECOND: f64 = 25.0;

/// Raw samples, as OpenAI sends them where `pcm` was asked for: 24 kHz, 16 bits, one channel.
const PCM_BYTES_A_SECOND: f64 = 48_000.0;
/// What Opus counts in, whatever it was made of.
const OPUS_RATE: f64 = 48_000.0;
/// So many characters of a script with letters are spoken in a second, and so many of one with signs for words.
const LETTERS_A_SECOND: f64 = 15.0;
const SIGNS_A_SECOND: f64 = 5.0;

/// The length of a sound in seconds, where its bytes tell; `format` is what was asked for.
pub fn length(format: Option<&str>, bytes: &[u8]) -> Option<f64> {
    let head = &bytes[..bytes.len().min(HEAD)];
    let seconds = match Container::of(head) {
        Some(Container::Wav | Container::Flac) => container::duration(head, bytes.len() as u64),
        Some(Container::Ogg) => opus_length(bytes),
        // Samples have no mark, and may begin as a frame does.
        _ if format == Some("pcm") => Some(bytes.len() as f64 / PCM_BYTES_A_SECOND),
        Some(Container::Mp3) => frames(bytes, mp3_frame),
        Some(Container::Aac) => frames(bytes, aac_frame),
        _ => None,
    };
    seconds.filter(|seconds| seconds.is_finite() && *seconds > 0.0)
}

/// How many seconds a text usually takes to be spoken.
pub fn usual_length(text: &str, speed: f64) -> f64 {
    let (mut letters, mut signs) = (0_u32, 0_u32);
    for letter in text.chars() {
        // From the first scripts of East Asia on, a sign is a syllable or a word.
        *(if letter < '\u{2e80}' { &mut letters } else { &mut signs }) += 1;
    }
    (f64::from(letters) / LETTERS_A_SECOND + f64::from(signs) / SIGNS_A_SECOND) / speed
}

/// A frame: how many bytes it has, and how many seconds.
type Frame = (usize, f64);

/// The sum of all frames; what is none is skipped.
fn frames(bytes: &[u8], frame: impl Fn(&[u8]) -> Option<Frame>) -> Option<f64> {
    let (mut at, mut sum) = (behind_tag(bytes), 0.0);
    while let Some(rest) = bytes.get(at..).filter(|rest| rest.len() >= 4) {
        match frame(rest) {
            Some((length, seconds)) => {
                sum += seconds;
                at += length;
            }
            None => at += memchr::memchr(0xff, &rest[1..]).map_or(rest.len(), |next| next + 1),
        }
    }
    (sum > 0.0).then_some(sum)
}

/// Where the sound begins behind a tag that stands before it.
fn behind_tag(bytes: &[u8]) -> usize {
    match bytes {
        [b'I', b'D', b'3', _, _, _, a, b, c, d, ..] => {
            let seven = |byte: &u8| usize::from(*byte & 0x7f);
            10 + (seven(a) << 21 | seven(b) << 14 | seven(c) << 7 | seven(d))
        }
        _ => 0,
    }
}

fn mp3_frame(bytes: &[u8]) -> Option<Frame> {
    /// Thousands of bits a second in layer 3, of version 1 and of the later ones.
    const RATES: [[usize; 15]; 2] = [
        [0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320],
        [0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160],
    ];
    let [0xff, second, third, ..] = *bytes else { return None };
    // Layer 3, as everybody calls it.
    if second & 0xe6 != 0xe2 {
        return None;
    }
    let (samples, divisor, rates) = match second >> 3 & 3 {
        3 => (1_152, 1, RATES[0]),
        2 => (576, 2, RATES[1]),
        0 => (576, 4, RATES[1]),
        _ => return None,
    };
    let rate = [44_100, 48_000, 32_000].get(usize::from(third >> 2 & 3))? / divisor;
    let bits = *rates.get(usize::from(third >> 4)).filter(|kilobits| **kilobits > 0)? * 1_000;
    let length = samples / 8 * bits / rate + usize::from(third >> 1 & 1);
    Some((length, samples as f64 / rate as f64))
}

fn aac_frame(bytes: &[u8]) -> Option<Frame> {
    const RATES: [f64; 13] = [
        96_000.0, 88_200.0, 64_000.0, 48_000.0, 44_100.0, 32_000.0, 24_000.0, 22_050.0, 16_000.0, 12_000.0,
        11_025.0, 8_000.0, 7_350.0,
    ];
    let [0xff, second, third, fourth, fifth, sixth, ..] = *bytes else { return None };
    if second & 0xf6 != 0xf0 {
        return None;
    }
    let rate = RATES.get(usize::from(third >> 2 & 15))?;
    let length = usize::from(fourth & 3) << 11 | usize::from(fifth) << 3 | usize::from(sixth >> 5);
    (length > 7).then_some((length, 1_024.0 / rate))
}

/// The last page says how many samples there were until its end.
fn opus_length(bytes: &[u8]) -> Option<f64> {
    memchr::memmem::find(&bytes[..bytes.len().min(HEAD)], b"OpusHead")?;
    let page = memchr::memmem::rfind(bytes, b"OggS")?;
    let samples = u64::from_le_bytes(bytes.get(page + 6..page + 14)?.try_into().ok()?);
    // All ones: no packet ends on that page.
    (samples < u64::MAX / 2).then_some(samples as f64 / OPUS_RATE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repeated(frame: &[u8], length: usize, times: usize) -> Vec<u8> {
        let mut one = frame.to_vec();
        one.resize(length, 0);
        one.repeat(times)
    }

    fn close(found: Option<f64>, expected: f64) -> bool {
        found.is_some_and(|found| (found - expected).abs() < 0.001)
    }

    #[test]
    fn frames_tell_how_long_a_sound_is() {
        // 128 kbit/s, 44.1 kHz: 417 bytes, 1,152 samples.
        let mp3 = repeated(b"\xff\xfb\x90\x64", 417, 50);
        assert!(close(length(None, &mp3), 50.0 * 1152.0 / 44_100.0));
        let tagged = [&b"ID3\x04\0\0\0\0\x01\x00"[..], &[0xff; 128], &mp3].concat();
        assert!(close(length(Some("mp3"), &tagged), 50.0 * 1152.0 / 44_100.0));
        // 160 kbit/s, 24 kHz, version 2: 480 bytes, 576 samples.
        let mp3 = repeated(b"\xff\xf3\xe4\xc4", 480, 100);
        assert!(close(length(None, &mp3), 2.4));
        let aac = repeated(b"\xff\xf1\x50\x80\x20\x1f\xfc", 256, 43);
        assert!(close(length(None, &aac), 43.0 * 1024.0 / 44_100.0), "{:?}", length(None, &aac));
        let mut opus = b"OggS\0\x02\0\0\0\0\0\0\0\0abcdefgh\0\0\0\0\x01\x13OpusHead".to_vec();
        opus.extend(b"OggS\0\x04");
        opus.extend(96_000u64.to_le_bytes());
        opus.extend([0; 20]);
        assert!(close(length(Some("opus"), &opus), 2.0));
        assert!(close(length(Some("pcm"), &[0; 96_000]), 2.0));
    }

    #[test]
    fn what_does_not_tell_has_no_length() {
        for bytes in [&b""[..], b"\xff", b"ID3\x04\0\0\x7f\x7f\x7f\x7f", b"OggS", b"{\"a\":1}", b"RIFF"] {
            assert_eq!(length(None, bytes), None, "{bytes:?}");
        }
        assert_eq!(length(Some("pcm"), b""), None);
    }

    #[test]
    fn texts_take_their_time() {
        assert!(close(Some(usual_length(&"a".repeat(150), 1.0)), 10.0));
        assert!(close(Some(usual_length("今日は五つ", 2.0)), 0.5));
    }
}
