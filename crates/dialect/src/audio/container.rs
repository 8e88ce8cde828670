//! What kind of file a recording is in, by its first bytes.

/// Bytes from the beginning of a file that are enough for everything here.
pub const HEAD: usize = 4096;

/// A file format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Container {
    /// MPEG audio.
    Mp3,
    /// RIFF WAVE.
    Wav,
    /// MPEG-4, also M4A and QuickTime.
    Mp4,
    /// FLAC.
    Flac,
    /// Ogg, also Opus.
    Ogg,
    /// WebM, Matroska.
    WebM,
    /// AAC without a container.
    Aac,
    /// AIFF.
    Aiff,
    /// AMR.
    Amr,
    /// Core Audio.
    Caf,
    /// MPEG transport or program stream.
    Mpeg,
    /// AVI.
    Avi,
    /// Advanced Systems Format: WMA.
    Asf,
    /// Something that is surely neither sound nor film.
    NotAudio,
}

impl Container {
    /// The format of a file that begins so; `None` if these bytes do not tell.
    pub fn of(head: &[u8]) -> Option<Self> {
        let four = |at: usize| head.get(at..at + 4).unwrap_or_default();
        let starts = |mark: &[u8]| head.starts_with(mark);
        Some(match () {
            () if starts(b"RIFF") || starts(b"RF64") || starts(b"RIFX") => match four(8) {
                b"WAVE" => Self::Wav,
                b"AVI " => Self::Avi,
                b"WEBP" => Self::NotAudio,
                _ => return None,
            },
            () if starts(b"fLaC") => Self::Flac,
            () if starts(b"OggS") => Self::Ogg,
            () if starts(b"\x1a\x45\xdf\xa3") => Self::WebM,
            // Pictures are in such files, too.
            () if four(4) == b"ftyp" => match four(8) {
                b"heic" | b"heix" | b"mif1" | b"msf1" | b"avif" | b"avis" | b"crx " => Self::NotAudio,
                _ => Self::Mp4,
            },
            () if matches!(four(4), b"moov" | b"mdat" | b"wide" | b"free" | b"skip") => Self::Mp4,
            () if starts(b"FORM") && matches!(four(8), b"AIFF" | b"AIFC") => Self::Aiff,
            () if starts(b"#!AMR") => Self::Amr,
            () if starts(b"caff") => Self::Caf,
            () if starts(b"\x30\x26\xb2\x75\x8e\x66\xcf\x11") => Self::Asf,
            () if starts(b"\x00\x00\x01\xba") => Self::Mpeg,
            () if head.first() == Some(&0x47) && head.get(188) == Some(&0x47) => Self::Mpeg,
            () if starts(b"ADIF") => Self::Aac,
            () if starts(b"ID3") => Self::Mp3,
            () => match *head {
                // Twelve bits of one; then the layer, which is nothing in AAC.
                [0xff, second, third, ..] if second & 0xf6 == 0xf0 && third & 0x3c != 0x3c => Self::Aac,
                [0xff, second, third, ..]
                    if second & 0xe0 == 0xe0
                        // Layers 2 and 3; a mark of byte order would be layer 1.
                        && matches!(second & 0x06, 2 | 4)
                        && second & 0x18 != 0x08
                        && third & 0xf0 != 0xf0
                        && third & 0x0c != 0x0c =>
                {
                    Self::Mp3
                }
                _ if is_something_else(head) => Self::NotAudio,
                _ => return None,
            },
        })
    }

    /// The media type that everybody knows it by.
    pub const fn media_type(self) -> Option<&'static str> {
        Some(match self {
            Self::Mp3 => "audio/mpeg",
            Self::Wav => "audio/wav",
            Self::Mp4 => "audio/mp4",
            Self::Flac => "audio/flac",
            Self::Ogg => "audio/ogg",
            Self::WebM => "audio/webm",
            Self::Aac => "audio/aac",
            Self::Aiff => "audio/aiff",
            Self::Amr => "audio/amr",
            Self::Caf => "audio/x-caf",
            Self::Asf => "audio/x-ms-wma",
            Self::Mpeg | Self::Avi | Self::NotAudio => return None,
        })
    }
}

/// Files that somebody took for a recording: pictures, documents, archives, programs, text.
fn is_something_else(head: &[u8]) -> bool {
    const MARKS: &[&[u8]] = &[
        b"\x89PNG",
        b"\xff\xd8\xff",
        b"GIF8",
        b"BM",
        b"II*\0",
        b"MM\0*",
        b"%PDF",
        b"PK\x03\x04",
        b"PK\x05\x06",
        b"\x1f\x8b",
        b"7z\xbc\xaf",
        b"Rar!",
        b"\xfd7zXZ",
        b"BZh",
        b"\x28\xb5\x2f\xfd",
        b"\x7fELF",
        b"MZ",
        b"\xd0\xcf\x11\xe0",
        b"SQLite format",
    ];
    MARKS.iter().any(|mark| head.starts_with(mark)) || is_text(head)
}

/// Whether the bytes are text, as far as they go. The last character may be cut off.
fn is_text(head: &[u8]) -> bool {
    let text = match std::str::from_utf8(head) {
        Ok(text) => text,
        Err(error) if error.error_len().is_none() => {
            std::str::from_utf8(&head[..error.valid_up_to()]).unwrap_or_default()
        }
        Err(_) => return false,
    };
    !text.is_empty() && !text.contains(|c: char| c.is_control() && !matches!(c, '\n' | '\r' | '\t' | '\u{c}'))
}

/// What a recording is sent as: what the client says if that is a type of sound, with the type of the sound in a film;
/// else what the file is by its first bytes or its name. `None` if it is surely no recording.
pub fn media_type(declared: Option<&str>, filename: &str, head: &[u8]) -> Option<&'static str> {
    const UNKNOWN: &str = "application/octet-stream";
    let found = Container::of(head);
    if found == Some(Container::NotAudio) {
        return None;
    }
    let declared =
        declared.map(|declared| declared.split(';').next().unwrap_or_default().trim().to_ascii_lowercase());
    let declared = declared.as_deref().unwrap_or_default();
    if let Some(sound) = sound_of(declared) {
        return Some(sound);
    }
    let by_content = found.and_then(Container::media_type);
    if by_content.is_some() {
        return by_content;
    }
    let kind = declared.split('/').next().unwrap_or_default();
    if found.is_none()
        && (matches!(kind, "image" | "text" | "font" | "model") || declared == "application/pdf")
    {
        return None;
    }
    let extension = filename.rsplit_once('.').map(|(_, extension)| extension.to_ascii_lowercase());
    Some(extension.as_deref().and_then(by_extension).unwrap_or(UNKNOWN))
}

/// The known spellings of types of sound and film.
fn sound_of(declared: &str) -> Option<&'static str> {
    Some(match declared {
        "audio/mpeg" | "audio/mp3" | "audio/mpeg3" | "audio/x-mpeg" | "audio/mpga" => "audio/mpeg",
        "audio/wav" | "audio/x-wav" | "audio/wave" | "audio/vnd.wave" | "audio/x-pn-wav" => "audio/wav",
        "audio/mp4" | "audio/m4a" | "audio/x-m4a" | "video/mp4" | "video/x-m4v" | "video/quicktime" => {
            "audio/mp4"
        }
        "audio/flac" | "audio/x-flac" => "audio/flac",
        "audio/ogg" | "audio/opus" | "audio/vorbis" | "video/ogg" | "application/ogg" => "audio/ogg",
        "audio/webm" | "video/webm" | "video/x-matroska" => "audio/webm",
        "audio/aac" | "audio/aacp" | "audio/x-aac" => "audio/aac",
        "audio/aiff" | "audio/x-aiff" => "audio/aiff",
        "audio/amr" | "audio/3gpp" => "audio/amr",
        "audio/x-ms-wma" => "audio/x-ms-wma",
        "audio/x-caf" => "audio/x-caf",
        _ => return None,
    })
}

fn by_extension(extension: &str) -> Option<&'static str> {
    Some(match extension {
        "mp3" | "mpga" | "mpeg" => "audio/mpeg",
        "m4a" | "mp4" | "m4b" | "mov" => "audio/mp4",
        "wav" => "audio/wav",
        "ogg" | "oga" | "opus" => "audio/ogg",
        "flac" => "audio/flac",
        "webm" | "mkv" => "audio/webm",
        "aac" => "audio/aac",
        _ => return None,
    })
}

/// A file's name with an ending: some tell what a file is by that alone.
pub fn with_extension(filename: &str, media_type: &str) -> String {
    const ENDINGS: [(&str, &str); 7] = [
        ("audio/mpeg", "mp3"),
        ("audio/mp4", "m4a"),
        ("audio/wav", "wav"),
        ("audio/ogg", "ogg"),
        ("audio/flac", "flac"),
        ("audio/webm", "webm"),
        ("audio/aac", "aac"),
    ];
    let has_ending = filename.rsplit_once('.').is_some_and(|(_, ending)| (2..=5).contains(&ending.len()));
    match ENDINGS.iter().find(|(known, _)| *known == media_type) {
        Some((_, ending)) if !has_ending => {
            let name = if filename.is_empty() { "audio" } else { filename };
            format!("{name}.{ending}")
        }
        _ => filename.to_owned(),
    }
}

/// The length of a recording in seconds, where its first bytes tell: WAV and FLAC.
pub fn duration(head: &[u8], file_size: u64) -> Option<f64> {
    match Container::of(head)? {
        Container::Wav => wav_duration(head, file_size),
        Container::Flac => flac_duration(head),
        _ => None,
    }
}

fn wav_duration(head: &[u8], file_size: u64) -> Option<f64> {
    let mut at = 12;
    let mut bytes_a_second = None;
    loop {
        let chunk = head.get(at..)?;
        let number = |at: usize| Some(u32::from_le_bytes(chunk.get(at..at + 4)?.try_into().ok()?));
        let (name, size) = (chunk.get(..4)?, number(4)?);
        match name {
            b"fmt " => bytes_a_second = number(16).filter(|rate| *rate > 0),
            b"data" => {
                // Who writes while recording does not know the size yet.
                let there = file_size.saturating_sub(at as u64 + 8);
                let size = if size == 0 { there } else { u64::from(size).min(there) };
                return Some(size as f64 / f64::from(bytes_a_second?));
            }
            _ => {}
        }
        // Chunks begin at even places.
        at = at.checked_add(8)?.checked_add(size as usize)?.checked_add(size as usize & 1)?;
    }
}

fn flac_duration(head: &[u8]) -> Option<f64> {
    // The first block is always that about the stream: 20 bits of rate, 3 of channels, 5 of depth, 36 of samples.
    let packed = u64::from_be_bytes(head.get(18..26)?.try_into().ok()?);
    let (rate, samples) = (packed >> 44, packed & 0xf_ffff_ffff);
    (rate > 0 && samples > 0).then(|| samples as f64 / rate as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wav(data: u32, rate: u32) -> Vec<u8> {
        let mut head = b"RIFF\0\0\0\0WAVELIST\x03\0\0\0abc\0fmt \x10\0\0\0\x01\0\x01\0".to_vec();
        head.extend(16_000u32.to_le_bytes());
        head.extend(rate.to_le_bytes());
        head.extend(b"\x02\0\x10\0data");
        head.extend(data.to_le_bytes());
        head
    }

    #[test]
    fn files_are_known_by_their_first_bytes() {
        for (head, expected) in [
            (&b"ID3\x04\0\0"[..], Some(Container::Mp3)),
            (b"\xff\xfb\x90\x64", Some(Container::Mp3)),
            (b"\xff\xf3\x84\xc4", Some(Container::Mp3)),
            (b"\xff\xf1\x50\x80", Some(Container::Aac)),
            (b"\xff\xf9\x50\x80", Some(Container::Aac)),
            (b"RIFF\x24\0\0\0WAVEfmt ", Some(Container::Wav)),
            (b"RIFF\x24\0\0\0WEBPVP8 ", Some(Container::NotAudio)),
            (b"\0\0\0\x1cftypM4A ", Some(Container::Mp4)),
            (b"\0\0\0\x1cftypheic", Some(Container::NotAudio)),
            (b"fLaC\0\0\0\x22", Some(Container::Flac)),
            (b"OggS\0\x02", Some(Container::Ogg)),
            (b"\x1a\x45\xdf\xa3\x01", Some(Container::WebM)),
            (b"\x89PNG\r\n\x1a\n", Some(Container::NotAudio)),
            (b"\xff\xd8\xff\xe0\0\x10JFIF", Some(Container::NotAudio)),
            (b"%PDF-1.7", Some(Container::NotAudio)),
            (b"just a text", Some(Container::NotAudio)),
            ("今日は".as_bytes(), Some(Container::NotAudio)),
            (b"{\"a\":1}\n", Some(Container::NotAudio)),
            (b"\0\x01\x02\x03noise", None),
            (b"", None),
        ] {
            assert_eq!(Container::of(head), expected, "{head:?}");
        }
    }

    #[test]
    fn the_type_that_is_sent_on() {
        const NOISE: &[u8] = b"\0\x01\x02\x03\x80";
        for (declared, name, head, expected) in [
            (Some("audio/mpeg"), "a.wav", NOISE, Some("audio/mpeg")),
            (Some("Audio/X-M4A; codecs=x"), "a", NOISE, Some("audio/mp4")),
            (Some("video/mp4"), "a.mp4", b"\0\0\0\x1cftypisom", Some("audio/mp4")),
            (Some("video/webm"), "a", NOISE, Some("audio/webm")),
            (Some("application/octet-stream"), "a.mp3", b"OggS\0\x02", Some("audio/ogg")),
            (Some("application/octet-stream"), "a.OPUS", NOISE, Some("audio/ogg")),
            (None, "a.aac", NOISE, Some("audio/aac")),
            (None, "recording", NOISE, Some("application/octet-stream")),
            (Some("image/png"), "a.mp3", NOISE, None),
            (Some("text/plain"), "a.mp3", b"fLaC\0\0\0\x22", Some("audio/flac")),
            (Some("audio/wav"), "a.wav", b"<html>no</html>", None),
        ] {
            assert_eq!(media_type(declared, name, head), expected, "{declared:?} {name}");
        }
    }

    #[test]
    fn names_get_an_ending() {
        for (name, media_type, expected) in [
            ("blob", "audio/webm", "blob.webm"),
            ("", "audio/wav", "audio.wav"),
            ("a.mp3", "audio/wav", "a.mp3"),
            ("v1.0", "audio/mp4", "v1.0.m4a"),
            ("blob", "application/octet-stream", "blob"),
        ] {
            assert_eq!(with_extension(name, media_type), expected);
        }
    }

    #[test]
    fn lengths_in_heads() {
        let head = wav(64_000, 32_000);
        assert_eq!(duration(&head, head.len() as u64 + 64_000), Some(2.0));
        let unknown = wav(u32::MAX, 32_000);
        assert_eq!(duration(&unknown, unknown.len() as u64 + 16_000), Some(0.5));
        assert_eq!(duration(&wav(1, 0), 100), None);
        assert_eq!(duration(&head[..30], 1000), None);
        let mut flac = b"fLaC\0\0\0\x22".to_vec();
        flac.extend([0; 10]);
        flac.extend(((16_000u64 << 44) | (1 << 41) | 24_000).to_be_bytes());
        assert_eq!(duration(&flac, 9999), Some(1.5));
    }
}
