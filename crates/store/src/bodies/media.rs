//! Takes pictures, recordings and other bytes that are written as base64 out of a text. What is left says what was there. A note
//! has no character that JSON would escape, so a document stays one, and so does one within a string of another.

use std::borrow::Cow;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use sha2::{Digest as _, Sha256};

use crate::text::to_hex;

/// Shorter ones stay as they are.
const SHORTEST: usize = 1_024;
/// How far from the bytes the words stand that say what they are.
const NEAR: usize = 200;
/// Members that say it, in any dialect.
const KINDS: [&str; 5] = ["media_type", "mime_type", "mimeType", "mediaType", "format"];
const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
    .with_decode_padding_mode(DecodePaddingMode::Indifferent)
    .with_decode_allow_trailing_bits(true);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);

/// The text with a note in the place of each such run.
pub(super) fn without_media(text: &str) -> Cow<'_, str> {
    let bytes = text.as_bytes();
    let mut out = String::new();
    let (mut done, mut at) = (0, 0);
    while at + SHORTEST <= bytes.len() {
        // A run that begins here reaches to its last byte.
        if !is_part(bytes[at + SHORTEST - 1]) {
            at += SHORTEST;
            continue;
        }
        let middle = at + SHORTEST - 1;
        let start = bytes[at..middle].iter().rposition(|byte| !is_part(*byte)).map_or(at, |gap| at + gap + 1);
        let end =
            bytes[middle..].iter().position(|byte| !is_part(*byte)).map_or(bytes.len(), |gap| middle + gap);
        // Every byte of it is ASCII, so these are borders of characters.
        if let Some(run) = Run::within(text, start, end) {
            let (begin, note) = run.note(text);
            out.push_str(&text[done..begin.max(done)]);
            out.push_str(&note);
            done = run.end;
        }
        at = end;
    }
    if done == 0 {
        return Cow::Borrowed(text);
    }
    out.push_str(&text[done..]);
    Cow::Owned(out)
}

/// What a run consists of: base64 of either alphabet, and what JSON and mail put between.
const fn is_part(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'-' | b'_' | b'=' | b'\\' | b'\n' | b'\r')
}

struct Run {
    start: usize,
    end: usize,
}

impl Run {
    /// The base64 among these bytes, if that is what they are.
    fn within(text: &str, mut start: usize, mut end: usize) -> Option<Self> {
        let bytes = text.as_bytes();
        (start, end) = longest(bytes, start, end);
        // An escape before it, or the beginning of one behind it, belongs to the text around.
        while bytes[start..end].starts_with(b"\\") {
            start = (start + escape_length(bytes, start)).min(end);
        }
        if start > 0 && bytes[start - 1] == b'\\' {
            // Of an escape in a document within a string the first half is gone already.
            let rest = escape_length(bytes, start - 1) - 1;
            let is_one = matches!(bytes.get(start), Some(b'n' | b'r' | b't' | b'b' | b'f' | b'u'));
            start = (start + if is_one { rest } else { 0 }).min(end);
        }
        while bytes[start..end].last().is_some_and(|last| matches!(last, b'\\' | b'\n' | b'\r')) {
            end -= 1;
        }
        while bytes[start..end].ends_with(b"\\n") || bytes[start..end].ends_with(b"\\r") {
            end -= 2;
        }
        // Padding is at the end only; `name=` before it is none.
        let padding = bytes[start..end].iter().rev().take_while(|byte| **byte == b'=').count();
        if let Some(sign) = bytes[start..end - padding].iter().rposition(|byte| *byte == b'=') {
            start += sign + 1;
        }
        let run = &bytes[start..end];
        let has = |kind: fn(&u8) -> bool| run.iter().take(4 * SHORTEST).any(kind);
        let is_base64 = run.len() >= SHORTEST
            && has(u8::is_ascii_uppercase)
            && has(u8::is_ascii_lowercase)
            && has(u8::is_ascii_digit);
        is_base64.then_some(Self { start, end })
    }

    /// Where the note begins, and what it says.
    fn note(&self, text: &str) -> (usize, String) {
        let mut plain = text[self.start..self.end].replace("\\/", "/");
        if plain.contains(['\\', '\n', '\r']) {
            plain = plain.replace("\\n", "").replace("\\r", "").replace(['\n', '\r'], "");
        }
        // One that was cut off may end within four characters.
        let is_cut = plain.trim_end_matches('=').len() % 4 == 1;
        plain.truncate(plain.len() - usize::from(is_cut));
        let decoded = match plain.contains(['-', '_']) {
            true => URL_SAFE.decode(&plain),
            false => STANDARD.decode(&plain),
        };
        let (begin, told) = told(text, self.start, self.end);
        let kind = told.or_else(|| decoded.as_deref().ok().and_then(sniffed).map(str::to_owned));
        let kind = kind.unwrap_or_else(|| "data".to_owned());
        let (length, digest) = match &decoded {
            Ok(bytes) => (bytes.len(), Sha256::digest(bytes)),
            // Not quite base64.
            Err(_) => (plain.len() / 4 * 3, Sha256::digest(plain.as_bytes())),
        };
        (begin, format!("[{kind}: {length} bytes, sha256 {}]", &to_hex(&digest)[..16]))
    }
}

/// Bytes of the escape that begins here.
fn escape_length(bytes: &[u8], at: usize) -> usize {
    let is_code =
        |rest: &[u8]| rest.len() >= 5 && rest[0] == b'u' && rest[1..5].iter().all(u8::is_ascii_hexdigit);
    if bytes.get(at + 1..).is_some_and(is_code) { 6 } else { 2 }
}

/// The longest part without a backslash that base64 cannot have.
fn longest(bytes: &[u8], start: usize, end: usize) -> (usize, usize) {
    let (mut best, mut from, mut at) = ((start, start), start, start);
    while at < end {
        let is_foreign = bytes[at] == b'\\' && !matches!(bytes.get(at + 1), Some(b'/' | b'n' | b'r'));
        if is_foreign {
            if at - from > best.1 - best.0 {
                best = (from, at);
            }
            from = (at + escape_length(bytes, at)).min(end);
        }
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    if end - from > best.1 - best.0 { (from, end) } else { best }
}

/// What the text says of the bytes: in a `data:` URL, or in a member beside them. And where that URL begins.
fn told(text: &str, start: usize, end: usize) -> (usize, Option<String>) {
    let before = &text[text.ceil_char_boundary(start.saturating_sub(NEAR))..start];
    if let Some(head) = before.strip_suffix(";base64,")
        && let Some(at) = head.rfind("data:")
    {
        let kind = head[at + 5..].replace("\\/", "/");
        return (start - before.len() + at, plain_kind(&kind));
    }
    let behind = &text[end..text.floor_char_boundary((end + NEAR).min(text.len()))];
    let before = &before[before.rfind(['{', '}']).map_or(0, |at| at + 1)..];
    let behind = &behind[..behind.find(['{', '}']).unwrap_or(behind.len())];
    let kind = KINDS.iter().find_map(|name| member(before, name).or_else(|| member(behind, name)));
    (start, kind.and_then(|kind| plain_kind(&kind.replace("\\/", "/"))))
}

/// The string that this member has in a piece of a document.
fn member<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let at = text.find(&format!("\"{name}"))? + 1 + name.len();
    let rest = text[at..].trim_start_matches(['\\', '"']).trim_start().strip_prefix(':')?;
    let rest = rest.trim_start().trim_start_matches('\\').strip_prefix('"')?;
    Some(&rest[..rest.find(['"', '\\'])?])
}

/// A media type, or a short word; nothing else gets into a note.
fn plain_kind(kind: &str) -> Option<String> {
    let kind = kind.split(';').next().unwrap_or_default();
    let is_plain = (1..=80).contains(&kind.len())
        && kind.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/+-._".contains(&byte));
    is_plain.then(|| kind.to_ascii_lowercase())
}

/// What the first bytes say.
fn sniffed(bytes: &[u8]) -> Option<&'static str> {
    const KNOWN: [(usize, &[u8], &str); 11] = [
        (0, b"\x89PNG", "image/png"),
        (0, b"\xff\xd8\xff", "image/jpeg"),
        (0, b"GIF8", "image/gif"),
        (8, b"WEBP", "image/webp"),
        (8, b"WAVE", "audio/wav"),
        (0, b"ID3", "audio/mpeg"),
        (0, b"OggS", "audio/ogg"),
        (0, b"fLaC", "audio/flac"),
        (0, b"%PDF", "application/pdf"),
        (4, b"ftyp", "video/mp4"),
        (0, b"PK\x03\x04", "application/zip"),
    ];
    KNOWN
        .iter()
        .find(|(at, mark, _)| bytes.get(*at..).is_some_and(|rest| rest.starts_with(mark)))
        .map(|row| row.2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base64_of(mark: &[u8], length: usize) -> String {
        let mut bytes = mark.to_vec();
        bytes.extend((0..length).map(|at| (at * 7 + at / 251) as u8));
        STANDARD.encode(bytes)
    }

    /// Where the dialects have such bytes.
    #[test]
    fn bytes_of_every_dialect_are_replaced_and_the_rest_stays() {
        let png = base64_of(b"\x89PNG", 3_000);
        let wav = base64_of(b"RIFF0000WAVE", 3_000);
        let raw = base64_of(b"\x00\x01", 3_000);
        let cases = [
            // Chat Completions: pictures, sounds, files
            (r#"{"image_url":{"url":"data:image/png;base64,@PNG"}}"#, "image/png"),
            (r#"{"image_url":{"url":"data:image\/jpeg;base64,@PNG"}}"#, "image/jpeg"),
            (r#"{"input_audio":{"data":"@RAW","format":"pcm16"}}"#, "pcm16"),
            (
                r#"{"file":{"filename":"a.pdf","file_data":"data:application/pdf;base64,@RAW"}}"#,
                "application/pdf",
            ),
            (r#"{"audio":{"id":"x","data":"@WAV"}}"#, "audio/wav"),
            // Responses
            (r#"{"type":"input_image","image_url":"data:image/webp;base64,@RAW"}"#, "image/webp"),
            (r#"{"type":"image_generation_call","result":"@PNG","output_format":"png"}"#, "image/png"),
            // Anthropic: both orders
            (r#"{"source":{"type":"base64","media_type":"image/gif","data":"@RAW"}}"#, "image/gif"),
            (r#"{"source":{"data":"@RAW","media_type":"application/pdf"}}"#, "application/pdf"),
            // Gemini: both spellings
            (r#"{"inlineData":{"mimeType":"audio/mp3","data":"@RAW"}}"#, "audio/mp3"),
            (r#"{"inline_data":{"mime_type":"video/mp4","data":"@RAW"}}"#, "video/mp4"),
            // Ollama
            (r#"{"role":"user","images":["@PNG"]}"#, "image/png"),
            // Answers that paint
            (r#"{"data":[{"b64_json":"@PNG"}]}"#, "image/png"),
            // A document within a string
            (r#"{"arguments":"{\"source\":{\"media_type\":\"image/png\",\"data\":\"@RAW\"}}"}"#, "image/png"),
            // Nobody says what it is
            (r#"{"encrypted":"@RAW"}"#, "data"),
        ];
        for (form, kind) in cases {
            let text = form.replace("@PNG", &png).replace("@WAV", &wav).replace("@RAW", &raw);
            let out = without_media(&text);
            let (before, rest) = out.split_once('[').filter(|_| !form.contains('[')).unwrap_or_else(|| {
                let at = out.find(&format!("[{kind}:")).unwrap_or_else(|| panic!("{form}: {out}"));
                (&out[..at], &out[at + 1..])
            });
            assert!(rest.starts_with(&format!("{kind}: 30")), "{form}: {out}");
            assert!(form.starts_with(before.trim_end_matches("data:")), "{form}: {out}");
            assert!(out.len() < 260, "{form}: {out}");
            serde_json::from_str::<serde_json::Value>(&out).unwrap_or_else(|error| panic!("{error}: {out}"));
        }
    }

    #[test]
    fn what_is_no_base64_stays() {
        let words = "the quick brown fox jumps over 13 lazy Dogs ".repeat(100);
        let cases = [
            words,
            "a".repeat(5_000),
            "-".repeat(5_000),
            "0123456789".repeat(400),
            format!("{{\"data\":\"{}\"}}", &base64_of(b"\x89PNG", 3_000)[..1_000]),
            "é漢字".repeat(2_000),
            String::new(),
        ];
        for text in cases {
            assert!(matches!(without_media(&text), Cow::Borrowed(_)), "{}", &text[..text.len().min(60)]);
        }
    }

    #[test]
    fn what_surrounds_a_run_stays_whatever_it_is() {
        let run = base64_of(b"\x89PNG", 3_000);
        let lines: Vec<&str> = run.as_bytes().chunks(76).map(|line| str::from_utf8(line).unwrap()).collect();
        for (text, before, behind) in [
            (format!("{{\"a\":\"look:\\n{run}\\n\"}}"), "{\"a\":\"look:\\n[image/png: ", "\"}"),
            (format!("x?sig={run}&b=1"), "x?sig=[image/png: ", "]&b=1"),
            (format!("ü {}", lines.join("\n")), "ü [image/png: 3004 bytes", "]"),
            (format!("\"{}\"", lines.join("\\r\\n")), "\"[image/png: 3004 bytes", "]\""),
            (format!("{run} and {run}"), "[image/png: ", "]"),
            // Escapes of other characters are no part of it, nor are those of a document within a string.
            (format!("\"caf\\u00e9{run}\""), "\"caf\\u00e9[image/png: 3004 bytes", "]\""),
            (format!("\"\\\\u00e9{run}\""), "\"\\\\u00e9[image/png: 3004 bytes", "]\""),
            (format!("\"\\\\n{run}\""), "\"\\\\n[image/png: 3004 bytes", "]\""),
        ] {
            let out = without_media(&text);
            assert!(out.starts_with(before) && out.ends_with(behind), "{out}");
            assert!(out.len() < 130, "{out}");
        }
        // One that was cut off is one all the same.
        assert!(
            without_media(&run[..2_049]).starts_with("[image/png: 15"),
            "{}",
            without_media(&run[..2_049])
        );
    }

    #[test]
    fn the_same_bytes_have_the_same_mark() {
        let run = base64_of(b"\x89PNG", 3_000);
        let escaped = run.replace('/', "\\/");
        assert!(escaped.len() > run.len());
        assert_eq!(without_media(&run), without_media(&escaped));
        let web = run.replace('+', "-").replace('/', "_");
        assert_eq!(without_media(&run), without_media(&web));
    }
}
