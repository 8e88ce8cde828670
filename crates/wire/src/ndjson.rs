//! Lines of newline-delimited JSON.

use bytes::BytesMut;

use crate::sse::FrameError;

/// Cuts a byte stream into lines, whatever the chunking. Blank lines are skipped.
#[derive(Debug)]
pub struct LineFramer {
    buffer: Vec<u8>,
    line: usize,
    scanned: usize,
    limit: usize,
    ended: bool,
    failed: bool,
}

impl LineFramer {
    /// A framer that refuses lines of more than `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self { buffer: Vec::new(), line: 0, scanned: 0, limit, ended: false, failed: false }
    }

    /// Takes bytes, cut anywhere. Take all lines before the next push.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.failed || self.ended {
            return;
        }
        if self.line > 0 {
            self.buffer.drain(..self.line);
            self.scanned -= self.line;
            self.line = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// Nothing follows; what is left counts as a line.
    pub fn finish(&mut self) {
        self.ended = true;
    }

    /// The next complete line without its end.
    pub fn next_line(&mut self) -> Option<Result<&[u8], FrameError>> {
        if self.failed {
            return None;
        }
        loop {
            let (end, next) = match memchr::memchr(b'\n', &self.buffer[self.scanned..]) {
                Some(found) => (self.scanned + found, self.scanned + found + 1),
                None if self.ended && self.line < self.buffer.len() => (self.buffer.len(), self.buffer.len()),
                None => {
                    self.scanned = self.buffer.len();
                    if self.buffer.len() - self.line > self.limit {
                        return Some(Err(self.fail()));
                    }
                    return None;
                }
            };
            let start = self.line;
            if end - start > self.limit {
                return Some(Err(self.fail()));
            }
            self.line = next;
            self.scanned = next;
            if !self.buffer[start..end].trim_ascii().is_empty() {
                return Some(Ok(self.buffer[start..end].trim_ascii()));
            }
        }
    }

    fn fail(&mut self) -> FrameError {
        self.failed = true;
        self.buffer = Vec::new();
        FrameError::TooLarge { limit: self.limit }
    }
}

/// Escapes the ends of lines that JSON allows within its strings, from `start` on: readers that split text as Unicode
/// wants it would cut the line there. Ollama itself escapes two of them, its client for Python needs all three.
pub fn escape_line_ends(out: &mut BytesMut, start: usize) {
    let Some((first, ..)) = line_end(&out[start..]) else { return };
    let tail = out.split_off(start + first);
    let mut rest = &tail[..];
    while let Some((at, length, escape)) = line_end(rest) {
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(escape);
        rest = &rest[at + length..];
    }
    out.extend_from_slice(rest);
}

/// Where the next one is, its length, and what stands for it.
fn line_end(json: &[u8]) -> Option<(usize, usize, &'static [u8])> {
    memchr::memchr2_iter(0xc2, 0xe2, json).find_map(|at| match &json[at..] {
        [0xc2, 0x85, ..] => Some((at, 2, &b"\\u0085"[..])),
        [0xe2, 0x80, 0xa8, ..] => Some((at, 3, &b"\\u2028"[..])),
        [0xe2, 0x80, 0xa9, ..] => Some((at, 3, &b"\\u2029"[..])),
        _ => None,
    })
}

/// Checks the framer on arbitrary bytes: the cuts do not matter.
#[doc(hidden)]
pub fn fuzz_ndjson(data: &[u8]) {
    let lines = |pieces: &mut dyn Iterator<Item = &[u8]>| {
        let mut framer = LineFramer::new(64);
        let mut lines = Vec::new();
        for piece in pieces {
            framer.push(piece);
            while let Some(line) = framer.next_line() {
                lines.push(line.map(<[u8]>::to_vec));
            }
        }
        framer.finish();
        while let Some(line) = framer.next_line() {
            lines.push(line.map(<[u8]>::to_vec));
        }
        lines
    };
    let whole = lines(&mut std::iter::once(data));
    for size in [1, 3, 7] {
        assert_eq!(lines(&mut data.chunks(size)), whole);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_cut_and_blank_ones_skipped() {
        let mut framer = LineFramer::new(100);
        framer.push(b"{\"a\":1}\r\n\n  \n{\"b\"");
        assert_eq!(framer.next_line(), Some(Ok(&b"{\"a\":1}"[..])));
        assert_eq!(framer.next_line(), None);
        framer.push(b":2}");
        assert_eq!(framer.next_line(), None);
        framer.finish();
        assert_eq!(framer.next_line(), Some(Ok(&b"{\"b\":2}"[..])));
        assert_eq!(framer.next_line(), None);
    }

    #[test]
    fn a_long_line_ends_the_stream() {
        let mut framer = LineFramer::new(8);
        framer.push(b"123456789");
        assert_eq!(framer.next_line(), Some(Err(FrameError::TooLarge { limit: 8 })));
        framer.push(b"\nx\n");
        assert_eq!(framer.next_line(), None);
    }

    proptest::proptest! {
        #[test]
        fn cuts_do_not_matter(data in "[ab\r\n ]{0,200}") {
            fuzz_ndjson(data.as_bytes());
        }
    }

    #[test]
    fn nothing_within_a_line_ends_it() {
        for (text, expected) in [
            ("", ""),
            ("{\"a\":\"é’ \u{2027}\"}", "{\"a\":\"é’ \u{2027}\"}"),
            ("\u{85}\u{2028}x\u{2029}", "\\u0085\\u2028x\\u2029"),
            ("x\u{2028}y’", "x\\u2028y’"),
        ] {
            let mut out = BytesMut::from("kept\u{2028}");
            let start = out.len();
            out.extend_from_slice(text.as_bytes());
            escape_line_ends(&mut out, start);
            assert_eq!(std::str::from_utf8(&out).unwrap(), format!("kept\u{2028}{expected}"));
        }
    }
}
