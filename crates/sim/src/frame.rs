//! Events on the wire.

use bytes::{Bytes, BytesMut};
use omniroute_wire::ndjson::escape_line_ends;

use crate::script::Script;

/// One event of a stream.
#[derive(Debug, Clone)]
pub(crate) struct Event {
    /// Its name, where the dialect writes names.
    pub(crate) name: Option<&'static str>,
    pub(crate) data: Bytes,
    /// Whether it carries a piece of the answer; scripts count these.
    pub(crate) content: bool,
}

/// How events follow each other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(crate) enum Frames {
    /// Server-sent events.
    #[default]
    Sse,
    /// The elements of one JSON array.
    Array,
    /// A line of JSON each.
    Lines,
}

impl Frames {
    /// The content type of such a stream.
    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Self::Sse => "text/event-stream; charset=utf-8",
            Self::Array => "application/json; charset=UTF-8",
            Self::Lines => "application/x-ndjson",
        }
    }
}

/// Writes events as the script wants them.
#[derive(Debug, Clone)]
pub(crate) struct Framer {
    frames: Frames,
    crlf: bool,
    comments: bool,
    multiline: bool,
    tight: bool,
    /// Nothing was written yet.
    first: bool,
}

impl Framer {
    /// A framer that has not written anything yet.
    pub(crate) fn new(frames: Frames, script: &Script) -> Self {
        Self {
            frames,
            crlf: script.crlf,
            comments: script.comments,
            multiline: script.multiline,
            tight: script.tight,
            first: true,
        }
    }

    /// One event with all that stands around it.
    pub(crate) fn frame(&mut self, event: &Event) -> Bytes {
        let mut out = BytesMut::with_capacity(event.data.len() + 64);
        match self.frames {
            Frames::Sse => self.sse(event, &mut out),
            Frames::Lines => {
                out.extend_from_slice(&event.data);
                // Ollama is written in Go, which does so by itself.
                escape_line_ends(&mut out, 0);
                self.end_line(&mut out);
            }
            Frames::Array => {
                out.extend_from_slice(if self.first { b"[" } else { b"," });
                out.extend_from_slice(&event.data);
                self.end_line(&mut out);
            }
        }
        self.first = false;
        out.freeze()
    }

    /// What stands behind the last event.
    pub(crate) fn end(&mut self) -> Option<Bytes> {
        match self.frames {
            Frames::Sse | Frames::Lines => None,
            Frames::Array if self.first => Some(Bytes::from_static(b"[]")),
            Frames::Array => Some(Bytes::from_static(b"]")),
        }
    }

    fn sse(&self, event: &Event, out: &mut BytesMut) {
        if self.comments {
            out.extend_from_slice(b": a comment, also with data: {}");
            self.end_line(out);
            self.end_line(out);
        }
        if let Some(name) = event.name {
            self.line("event", name.as_bytes(), out);
        }
        if self.multiline {
            lines(&event.data).for_each(|part| self.line("data", part, out));
        } else {
            self.line("data", &event.data, out);
        }
        self.end_line(out);
    }

    fn line(&self, field: &str, value: &[u8], out: &mut BytesMut) {
        out.extend_from_slice(field.as_bytes());
        out.extend_from_slice(if self.tight { b":" } else { b": " });
        out.extend_from_slice(value);
        self.end_line(out);
    }

    fn end_line(&self, out: &mut BytesMut) {
        out.extend_from_slice(if self.crlf { b"\r\n" } else { b"\n" });
    }
}

/// JSON in several parts: one ends behind each comma between two members or elements.
fn lines(json: &[u8]) -> impl Iterator<Item = &[u8]> {
    let (mut inside, mut escaped) = (false, false);
    json.split_inclusive(move |byte| {
        let ends = !inside && *byte == b',';
        match byte {
            _ if escaped => escaped = false,
            b'\\' if inside => escaped = true,
            b'"' => inside = !inside,
            _ => {}
        }
        ends
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(frames: Frames, model: &str, data: &[&'static str]) -> String {
        let script = Script::parse(model).unwrap();
        let mut framer = Framer::new(frames, &script);
        let mut out = String::new();
        for data in data {
            let event = Event { name: Some("x"), data: Bytes::from_static(data.as_bytes()), content: true };
            out.push_str(std::str::from_utf8(&framer.frame(&event)).unwrap());
        }
        out.push_str(std::str::from_utf8(&framer.end().unwrap_or_default()).unwrap());
        out
    }

    #[test]
    fn frames_are_written_as_the_script_wants_them() {
        let one = r#"{"a":"\",\"","b":[1,2]}"#;
        for (frames, model, data, expected) in [
            (Frames::Sse, "echo", vec!["{}"], "event: x\ndata: {}\n\n"),
            (Frames::Sse, "echo-crlf", vec!["{}"], "event: x\r\ndata: {}\r\n\r\n"),
            (Frames::Sse, "echo-tight", vec!["{}"], "event:x\ndata:{}\n\n"),
            (
                Frames::Sse,
                "echo-comments",
                vec!["{}"],
                ": a comment, also with data: {}\n\nevent: x\ndata: {}\n\n",
            ),
            (
                Frames::Sse,
                "echo-multiline",
                vec![one],
                "event: x\ndata: {\"a\":\"\\\",\\\"\",\ndata: \"b\":[1,\ndata: 2]}\n\n",
            ),
            (Frames::Array, "echo", vec![], "[]"),
            (Frames::Array, "echo", vec!["{}", "{}"], "[{}\n,{}\n]"),
            (Frames::Array, "echo-crlf-comments", vec!["{}"], "[{}\r\n]"),
            (Frames::Lines, "echo", vec!["{}", "{}"], "{}\n{}\n"),
            (Frames::Lines, "echo", vec!["\u{2028}"], "\\u2028\n"),
            (Frames::Lines, "echo-crlf-comments-multiline-tight", vec!["{}"], "{}\r\n"),
        ] {
            assert_eq!(framed(frames, model, &data), expected, "{model}");
        }
    }
}
