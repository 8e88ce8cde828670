//! What is to be heard in a file.

/// What was heard.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Heard {
    pub(super) text: String,
    /// In seconds.
    pub(super) duration: f64,
}

/// A word and when it is said, in seconds.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Spoken<'a> {
    pub(super) word: &'a str,
    pub(super) start: f64,
    pub(super) end: f64,
}

/// Listens to a file.
pub(super) fn listen(file: &[u8], is_silent: bool) -> Heard {
    let wav = Wav::of(file);
    let duration = wav.as_ref().map_or(file.len() as f64 / 16_000.0, Wav::duration);
    let is_silent = is_silent || wav.is_some_and(|wav| wav.is_silent());
    let text = if is_silent {
        String::new()
    } else {
        format!("I heard {} bytes of {} with the sum {:08x}.", file.len(), kind(file), sum(file))
    };
    Heard { text, duration: (duration * 1000.0).round() / 1000.0 }
}

impl Heard {
    /// Each word has its share of the time.
    pub(super) fn words(&self) -> Vec<Spoken<'_>> {
        let words: Vec<&str> = self.text.split_whitespace().collect();
        let share = self.duration / words.len().max(1) as f64;
        let at = |index: usize| (share * index as f64 * 1000.0).round() / 1000.0;
        words
            .iter()
            .enumerate()
            .map(|(index, word)| Spoken { word, start: at(index), end: at(index + 1) })
            .collect()
    }
}

/// What kind of file it is, by its first bytes.
pub(super) fn kind(file: &[u8]) -> &'static str {
    match file {
        [b'R', b'I', b'F', b'F', ..] => "wav",
        [b'f', b'L', b'a', b'C', ..] => "flac",
        [b'O', b'g', b'g', b'S', ..] => "ogg",
        [0x1a, 0x45, 0xdf, 0xa3, ..] => "webm",
        [_, _, _, _, b'f', b't', b'y', b'p', ..] => "mp4",
        [b'I', b'D', b'3', ..] => "mp3",
        // The layer is nothing in AAC.
        [0xff, second, ..] if second & 0xf6 == 0xf0 => "aac",
        [0xff, second, ..] if second & 0xe0 == 0xe0 => "mp3",
        _ => "noise",
    }
}

/// FNV-1a: enough to see that every byte is the one that was sent.
pub(super) fn sum(file: &[u8]) -> u32 {
    file.iter().fold(0x811c_9dc5, |sum, byte| (sum ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

/// A WAV file of 16-bit samples.
struct Wav<'a> {
    bytes_a_second: u32,
    samples: &'a [u8],
}

impl<'a> Wav<'a> {
    fn of(file: &'a [u8]) -> Option<Self> {
        if !file.starts_with(b"RIFF") || file.get(8..12)? != b"WAVE" {
            return None;
        }
        let number = |at: usize| Some(u32::from_le_bytes(file.get(at..at + 4)?.try_into().ok()?));
        let (mut at, mut bytes_a_second) = (12, 0);
        loop {
            let size = number(at + 4)? as usize;
            match file.get(at..at + 4)? {
                b"fmt " => bytes_a_second = number(at + 16)?,
                b"data" => {
                    let samples = &file[at + 8..];
                    let samples = &samples[..size.min(samples.len())];
                    return (bytes_a_second > 0).then_some(Self { bytes_a_second, samples });
                }
                _ => {}
            }
            at = at.checked_add(8 + size + size % 2)?;
        }
    }

    fn duration(&self) -> f64 {
        self.samples.len() as f64 / f64::from(self.bytes_a_second)
    }

    fn is_silent(&self) -> bool {
        self.samples.chunks_exact(2).all(|pair| i16::from_le_bytes([pair[0], pair[1]]).unsigned_abs() < 64)
    }
}

/// A WAV file of so many samples, 16000 a second; a tone, or nothing.
pub(super) fn wav(samples: u32, is_silent: bool) -> Vec<u8> {
    let size = samples * 2;
    let mut file = Vec::with_capacity(44 + size as usize);
    file.extend(b"RIFF");
    file.extend((36 + size).to_le_bytes());
    file.extend(b"WAVEfmt \x10\0\0\0\x01\0\x01\0");
    file.extend(16_000u32.to_le_bytes());
    file.extend(32_000u32.to_le_bytes());
    file.extend(b"\x02\0\x10\0data");
    file.extend(size.to_le_bytes());
    for at in 0..samples {
        // A square wave of 400 Hz.
        let sample: i16 = if is_silent {
            0
        } else if at / 20 % 2 == 0 {
            8000
        } else {
            -8000
        };
        file.extend(sample.to_le_bytes());
    }
    file
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tones_are_heard_and_silence_is_not() {
        let tone = listen(&wav(8000, false), false);
        assert!(tone.text.starts_with("I heard 16044 bytes of wav with the sum "), "{}", tone.text);
        assert_eq!((tone.duration, tone.words().len()), (0.5, 10));
        assert_eq!(tone.words()[9].end, 0.5);
        let silence = listen(&wav(8000, true), false);
        assert_eq!((silence.text.as_str(), silence.words().len()), ("", 0));
        assert_eq!(listen(b"OggS....", true).text, "");
        assert!(listen(b"OggS", false).text.contains(" ogg "));
    }
}
