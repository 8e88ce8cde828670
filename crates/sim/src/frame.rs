//! Events on the wire.

use bytes::{Bytes, BytesMut};

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
}

impl Frames {
    /// The content type of such a stream.
    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Self::Sse => "text/event-stream; charset=utf-8",
        }
    }
}

/// Writes events as the script wants them.
#[derive(Debug, Clone)]
pub(crate) struct Framer {
    frames: Frames,
    crlf: bool,
}

impl Framer {
    /// A framer that has not written anything yet.
    pub(crate) fn new(frames: Frames, script: &Script) -> Self {
        Self { frames, crlf: script.crlf }
    }

    /// One event with all that stands around it.
    pub(crate) fn frame(&mut self, event: &Event) -> Bytes {
        let mut out = BytesMut::with_capacity(event.data.len() + 64);
        match self.frames {
            Frames::Sse => self.sse(event, &mut out),
        }
        out.freeze()
    }

    /// What stands behind the last event.
    pub(crate) fn end(&mut self) -> Option<Bytes> {
        match self.frames {
            Frames::Sse => None,
        }
    }

    fn sse(&self, event: &Event, out: &mut BytesMut) {
        if let Some(name) = event.name {
            self.line(out, b"event: ", name.as_bytes());
        }
        self.line(out, b"data: ", &event.data);
        self.line(out, b"", b"");
    }

    fn line(&self, out: &mut BytesMut, field: &[u8], value: &[u8]) {
        out.extend_from_slice(field);
        out.extend_from_slice(value);
        out.extend_from_slice(if self.crlf { b"\r\n" } else { b"\n" });
    }
}
