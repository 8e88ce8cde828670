//! Frames of server-sent events.
//!
//! Lines end with LF, CRLF or CR and nothing else; a frame ends with a blank line. A CR at the end of a chunk waits
//! for the next byte. Fields other than `event` and `data` are read over; frames without data do not show up.

use std::ops::Range;

/// Largest frame that is accepted unless told otherwise: 16 MiB.
pub const DEFAULT_FRAME_LIMIT: usize = 16 << 20;

/// One frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The event name, if the frame has one.
    pub event: Option<&'a str>,
    /// The data, lines joined by LF.
    pub data: &'a [u8],
}

/// A frame together with the bytes it was cut from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RawFrame<'a> {
    /// What it says.
    pub frame: Frame<'a>,
    /// Its bytes, the blank line at its end included.
    pub raw: &'a [u8],
    /// Whether `raw` is nothing but `event` and `data` lines and a blank line, so that it can be sent on as it is.
    pub verbatim: bool,
    /// Whether the frame was closed by a blank line; the end of the stream closes it otherwise.
    pub terminated: bool,
}

/// Why there are no more frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A frame is larger than the limit.
    #[error("stream event exceeds {limit} bytes")]
    TooLarge {
        /// The limit in bytes.
        limit: usize,
    },
}

/// Cuts a byte stream into frames, whatever the chunking.
#[derive(Debug)]
pub struct SseFramer {
    buffer: Vec<u8>,
    /// Where the frame under construction begins.
    frame: usize,
    /// Where the line under construction begins.
    line: usize,
    /// There is no line end between `line` and here.
    scanned: usize,
    event: Option<Range<usize>>,
    data: Data,
    /// Data of frames with several data lines.
    joined: Vec<u8>,
    verbatim: bool,
    limit: usize,
    started: bool,
    ended: bool,
    failed: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Data {
    Absent,
    Line(Range<usize>),
    Joined,
}

/// A frame as places in the buffer.
struct Cut {
    raw: Range<usize>,
    event: Option<Range<usize>>,
    data: Data,
    verbatim: bool,
    terminated: bool,
}

impl SseFramer {
    /// A framer that refuses frames of more than `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self {
            buffer: Vec::new(),
            frame: 0,
            line: 0,
            scanned: 0,
            event: None,
            data: Data::Absent,
            joined: Vec::new(),
            verbatim: true,
            limit,
            started: false,
            ended: false,
            failed: false,
        }
    }

    /// Takes bytes, cut anywhere. Take all frames before the next push.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.failed || self.ended {
            return;
        }
        self.compact();
        self.buffer.extend_from_slice(bytes);
    }

    /// Nothing follows; what is left counts as a frame.
    pub fn finish(&mut self) {
        self.ended = true;
    }

    /// The next complete frame that has data. After an error there are no more.
    pub fn next_frame(&mut self) -> Option<Result<RawFrame<'_>, FrameError>> {
        let cut = match self.cut()? {
            Ok(cut) => cut,
            Err(error) => return Some(Err(error)),
        };
        let event = cut.event.and_then(|span| std::str::from_utf8(&self.buffer[span]).ok());
        let data = match cut.data {
            Data::Line(span) => &self.buffer[span],
            Data::Joined => &self.joined,
            Data::Absent => &[],
        };
        let frame = Frame { event, data };
        let raw = &self.buffer[cut.raw];
        Some(Ok(RawFrame { frame, raw, verbatim: cut.verbatim, terminated: cut.terminated }))
    }

    fn cut(&mut self) -> Option<Result<Cut, FrameError>> {
        if self.failed || !self.start() {
            return None;
        }
        loop {
            let Some((end, next)) = self.line_end() else {
                if self.buffer.len() - self.frame > self.limit {
                    return Some(Err(self.fail()));
                }
                if self.ended && self.data != Data::Absent {
                    return Some(Ok(self.close(self.buffer.len(), false)));
                }
                return None;
            };
            let line = self.line..end;
            self.line = next;
            self.scanned = next;
            if next - self.frame > self.limit {
                return Some(Err(self.fail()));
            }
            if !line.is_empty() {
                self.field(line);
            } else if self.data == Data::Absent {
                self.close(next, true);
            } else {
                return Some(Ok(self.close(next, true)));
            }
        }
    }

    /// Skips a byte-order mark; false while it cannot be told.
    fn start(&mut self) -> bool {
        const MARK: &[u8] = b"\xef\xbb\xbf";
        if self.started {
            return true;
        }
        if self.buffer.len() < MARK.len() && MARK.starts_with(&self.buffer) && !self.ended {
            return false;
        }
        self.started = true;
        if self.buffer.starts_with(MARK) {
            (self.frame, self.line, self.scanned) = (MARK.len(), MARK.len(), MARK.len());
        }
        true
    }

    /// Where the line under construction ends and the next one begins.
    fn line_end(&mut self) -> Option<(usize, usize)> {
        let Some(found) = memchr::memchr2(b'\n', b'\r', &self.buffer[self.scanned..]) else {
            self.scanned = self.buffer.len();
            let rest = self.ended && self.line < self.buffer.len();
            return rest.then_some((self.buffer.len(), self.buffer.len()));
        };
        let at = self.scanned + found;
        if self.buffer[at] == b'\n' {
            return Some((at, at + 1));
        }
        match self.buffer.get(at + 1) {
            Some(b'\n') => Some((at, at + 2)),
            Some(_) => Some((at, at + 1)),
            None if self.ended => Some((at, at + 1)),
            None => {
                self.scanned = at;
                None
            }
        }
    }

    fn field(&mut self, line: Range<usize>) {
        let bytes = &self.buffer[line.clone()];
        let colon = memchr::memchr(b':', &bytes[..bytes.len().min(6)]);
        let (name, value) = match colon {
            Some(colon) => {
                let space = usize::from(bytes.get(colon + 1) == Some(&b' '));
                (&bytes[..colon], line.start + colon + 1 + space..line.end)
            }
            None => (bytes, line.end..line.end),
        };
        match name {
            b"data" => self.add_data(value),
            b"event" => self.event = Some(value),
            _ => {
                self.verbatim = false;
                // Some upstreams write a bare JSON document, mostly an error, between the frames.
                if bytes[0] == b'{' {
                    self.add_data(line);
                }
            }
        }
    }

    fn add_data(&mut self, value: Range<usize>) {
        self.data = match std::mem::replace(&mut self.data, Data::Joined) {
            Data::Absent => Data::Line(value),
            Data::Line(first) => {
                self.joined.clear();
                self.joined.extend_from_slice(&self.buffer[first]);
                self.joined.push(b'\n');
                self.joined.extend_from_slice(&self.buffer[value]);
                Data::Joined
            }
            Data::Joined => {
                self.joined.push(b'\n');
                self.joined.extend_from_slice(&self.buffer[value]);
                Data::Joined
            }
        };
    }

    fn close(&mut self, end: usize, terminated: bool) -> Cut {
        let cut = Cut {
            raw: self.frame..end,
            event: self.event.take(),
            data: std::mem::replace(&mut self.data, Data::Absent),
            verbatim: self.verbatim && terminated,
            terminated,
        };
        self.frame = end;
        self.line = end;
        self.scanned = end;
        self.verbatim = true;
        cut
    }

    /// Gives up the bytes of frames that were taken, moving the rest only when it is the smaller part.
    fn compact(&mut self) {
        let used = self.frame;
        let left = self.buffer.len() - used;
        if used == 0 || left > used {
            return;
        }
        self.buffer.copy_within(used.., 0);
        self.buffer.truncate(left);
        self.frame = 0;
        self.line -= used;
        self.scanned -= used;
        let data = if let Data::Line(span) = &mut self.data { Some(span) } else { None };
        for span in self.event.as_mut().into_iter().chain(data) {
            *span = span.start - used..span.end - used;
        }
    }

    fn fail(&mut self) -> FrameError {
        self.failed = true;
        self.buffer = Vec::new();
        self.joined = Vec::new();
        FrameError::TooLarge { limit: self.limit }
    }
}

impl Default for SseFramer {
    fn default() -> Self {
        Self::new(DEFAULT_FRAME_LIMIT)
    }
}

/// Checks the framer on arbitrary bytes: the cuts do not matter, and memory is bounded by the input.
#[doc(hidden)]
pub fn fuzz_sse(data: &[u8]) {
    type Seen = Result<(Option<String>, Vec<u8>, Vec<u8>, bool, bool), FrameError>;
    fn take(framer: &mut SseFramer, seen: &mut Vec<Seen>) {
        while let Some(frame) = framer.next_frame() {
            seen.push(frame.map(|found| {
                let Frame { event, data } = found.frame;
                let raw = found.raw.to_vec();
                (event.map(str::to_owned), data.to_vec(), raw, found.verbatim, found.terminated)
            }));
        }
    }
    let frames = |pieces: &mut dyn Iterator<Item = &[u8]>| {
        let mut framer = SseFramer::new(96);
        let mut seen: Vec<Seen> = Vec::new();
        for piece in pieces {
            framer.push(piece);
            take(&mut framer, &mut seen);
        }
        framer.finish();
        take(&mut framer, &mut seen);
        seen
    };
    let whole = frames(&mut std::iter::once(data));
    for size in [1, 2, 3, 7, 31] {
        assert_eq!(frames(&mut data.chunks(size)), whole, "in pieces of {size}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(input: &[u8]) -> Vec<(Option<String>, String, bool)> {
        let mut framer = SseFramer::default();
        framer.push(input);
        framer.finish();
        let mut seen = Vec::new();
        while let Some(found) = framer.next_frame() {
            let found = found.unwrap();
            let data = String::from_utf8(found.frame.data.to_vec()).unwrap();
            seen.push((found.frame.event.map(str::to_owned), data, found.verbatim));
        }
        seen
    }

    fn frame(event: Option<&str>, data: &str, verbatim: bool) -> (Option<String>, String, bool) {
        (event.map(str::to_owned), data.to_owned(), verbatim)
    }

    #[test]
    fn all_line_ends_are_understood() {
        for input in [
            &b"event: a\ndata: 1\n\ndata:2\n\n"[..],
            b"event: a\r\ndata: 1\r\n\r\ndata:2\r\n\r\n",
            b"event: a\rdata: 1\r\rdata:2\r\r",
            b"\xef\xbb\xbfevent: a\ndata: 1\n\ndata:2\n\n",
        ] {
            assert_eq!(frames(input), [frame(Some("a"), "1", true), frame(None, "2", true)]);
        }
    }

    #[test]
    fn other_fields_do_not_pass_as_verbatim() {
        assert_eq!(frames(b": hi\n\nid: 7\ndata: x\n\nretry: 5\n\n"), [frame(None, "x", false)]);
        assert_eq!(frames(b": hi\ndata: x\n\n"), [frame(None, "x", false)]);
    }

    #[test]
    fn several_data_lines_are_joined() {
        assert_eq!(frames(b"data: a\ndata\ndata:  b\n\n"), [frame(None, "a\n\n b", true)]);
    }

    #[test]
    fn only_real_line_ends_split() {
        let input = "data: a\u{2028}b\u{85}c\n\n";
        assert_eq!(frames(input.as_bytes()), [frame(None, "a\u{2028}b\u{85}c", true)]);
    }

    #[test]
    fn the_end_of_the_stream_closes_a_frame() {
        assert_eq!(frames(b"data: a\n\ndata: b"), [frame(None, "a", true), frame(None, "b", false)]);
        assert_eq!(frames(b"event: a\n"), []);
    }

    #[test]
    fn html_is_read_over_and_bare_json_is_data() {
        let input = b"<html>\n<body>no</body>\n\n{\"error\":{}}\n\n";
        assert_eq!(frames(input), [frame(None, "{\"error\":{}}", false)]);
    }

    #[test]
    fn a_trailing_cr_waits_for_the_next_byte() {
        let mut framer = SseFramer::default();
        framer.push(b"data: a\r\n\r");
        assert!(framer.next_frame().is_none());
        framer.push(b"\ndata: b\r\n\r\n");
        assert_eq!(framer.next_frame().unwrap().unwrap().raw, b"data: a\r\n\r\n");
        assert_eq!(framer.next_frame().unwrap().unwrap().raw, b"data: b\r\n\r\n");
        assert!(framer.next_frame().is_none());
    }

    #[test]
    fn a_frame_above_the_limit_ends_the_stream() {
        for input in [&b"data: 0123456789\n\n"[..], b"data: 0123456789", b": 0123456789abc\n"] {
            let mut framer = SseFramer::new(12);
            framer.push(input);
            assert_eq!(framer.next_frame(), Some(Err(FrameError::TooLarge { limit: 12 })));
            framer.push(b"data: x\n\n");
            assert_eq!(framer.next_frame(), None);
        }
    }

    #[test]
    fn the_buffer_does_not_grow_with_the_stream() {
        let mut framer = SseFramer::default();
        for _ in 0..10_000 {
            framer.push(b"data: 0123456789\n\ndata: 01");
            framer.push(b"23\n\n");
            while framer.next_frame().is_some() {}
        }
        assert!(framer.buffer.capacity() < 1024, "{}", framer.buffer.capacity());
    }

    proptest::proptest! {
        #[test]
        fn cuts_do_not_matter(data in "(data: ?|event:|:|id|a|\\{|é|\r|\n|\r\n|\n\n){0,60}") {
            fuzz_sse(data.as_bytes());
        }

        #[test]
        fn any_bytes_are_survived(data in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300)) {
            fuzz_sse(&data);
        }
    }
}
