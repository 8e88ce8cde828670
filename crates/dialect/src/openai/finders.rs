//! What a chunk is, found in its bytes without parsing it.

use std::ops::Range;

use memchr::memmem::Finder;
use omniroute_wire::envelope;

/// Finds members of a chunk. Made once for a stream.
#[derive(Debug)]
pub(super) struct Finders {
    model: Finder<'static>,
    delta: Finder<'static>,
    usage: Finder<'static>,
    finish: Finder<'static>,
    error: Finder<'static>,
}

impl Default for Finders {
    fn default() -> Self {
        Self {
            model: Finder::new("\"model\""),
            delta: Finder::new("\"delta\":"),
            usage: Finder::new("\"usage\":"),
            finish: Finder::new("\"finish_reason\":"),
            error: Finder::new("\"error\""),
        }
    }
}

/// What was found in a chunk that is nothing but text.
pub(super) struct PlainText {
    /// Bytes of text, still escaped.
    pub(super) bytes: u64,
    /// The place of the text, the inside of its string, if there is one text alone.
    pub(super) only_text: Option<Range<usize>>,
}

impl Finders {
    /// The text of a chunk that is nothing but text, found without parsing; `None` when it may be more.
    pub(super) fn plain_text(&self, data: &[u8]) -> Option<PlainText> {
        if data.last() != Some(&b'}') || self.error.find(data).is_some() {
            return None;
        }
        for finder in [&self.usage, &self.finish] {
            if let Some(at) = finder.find(data) {
                let value = data[at + finder.needle().len()..].trim_ascii_start();
                if !value.starts_with(b"null") {
                    return None;
                }
            }
        }
        let at = self.delta.find(data)? + self.delta.needle().len();
        let mut rest = data[at..].trim_ascii_start().strip_prefix(b"{")?.trim_ascii_start();
        let mut plain = PlainText { bytes: 0, only_text: None };
        while let Some(member) = rest.strip_prefix(b"\"") {
            let (name, after) = member.split_at(memchr::memchr(b'"', member)?);
            let value = after[1..].trim_ascii_start().strip_prefix(b":")?.trim_ascii_start();
            let after = if value.first() == Some(&b'"') {
                let end = string_end(value)?;
                if end > 2 && matches!(name, b"content" | b"reasoning_content" | b"reasoning" | b"refusal") {
                    let start = value.as_ptr() as usize - data.as_ptr() as usize;
                    plain.only_text = (plain.bytes == 0).then_some(start + 1..start + end - 1);
                    plain.bytes += end as u64 - 2;
                }
                &value[end..]
            } else {
                value.strip_prefix(b"null")?
            };
            let after = after.trim_ascii_start();
            rest = after.strip_prefix(b",").unwrap_or(after).trim_ascii_start();
        }
        rest.starts_with(b"}").then_some(plain)
    }

    /// The value of the chunk's own model member.
    pub(super) fn model_span(&self, data: &[u8]) -> Option<Range<usize>> {
        let at = self.model.find(data)?;
        let skip =
            |from: usize| from + data[from..].iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        let colon = skip(at + self.model.needle().len());
        let start = if data.get(colon) == Some(&b':') { skip(colon + 1) } else { data.len() };
        if data.get(start) == Some(&b'"') {
            let end = start + string_end(&data[start..])?;
            let rest = data[end..].trim_ascii_end();
            let first = data[1..at].iter().all(|byte| !matches!(byte, b'{' | b'['));
            let last = || rest.iter().filter(|byte| matches!(byte, b'{' | b'[' | b'}' | b']')).count() == 1;
            if first || (rest.ends_with(b"}") && last()) {
                return Some(start..end);
            }
        }
        let mut span = None;
        let scanned = envelope::scan(data, &mut |member| {
            if member.key == "model" {
                span = Some(member.span);
            }
        });
        scanned.ok().and(span)
    }
}

/// Just behind the closing quote of a JSON string that begins here.
fn string_end(value: &[u8]) -> Option<usize> {
    let mut at = 1;
    loop {
        at += memchr::memchr2(b'"', b'\\', value.get(at..)?)?;
        if value[at] == b'"' {
            return Some(at + 1);
        }
        at += 2;
    }
}
