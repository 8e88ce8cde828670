//! The two ways in which a client can get a stream: as events, or as one list that grows.

use bytes::BytesMut;

use crate::{Framing, gemini::error, ir::PublicError};

/// Puts documents one after the other.
#[derive(Debug)]
pub(in crate::gemini) struct Frames {
    list: bool,
    any: bool,
}

impl Frames {
    pub(in crate::gemini) fn new(framing: Framing) -> Self {
        Self { list: framing == Framing::JsonList, any: false }
    }

    /// What stands before a document.
    pub(in crate::gemini) fn begin(&mut self, out: &mut BytesMut) {
        let first = !std::mem::replace(&mut self.any, true);
        out.extend_from_slice(match (self.list, first) {
            (false, _) => b"data: ",
            (true, true) => b"[",
            (true, false) => b",",
        });
    }

    /// What stands behind a document.
    pub(in crate::gemini) fn end(&self, out: &mut BytesMut) {
        out.extend_from_slice(if self.list { b"\n" } else { b"\n\n" });
    }

    /// The end of all. Only a list has one.
    pub(in crate::gemini) fn close(&mut self, out: &mut BytesMut) {
        if self.list {
            out.extend_from_slice(if self.any { b"]" } else { b"[]" });
            self.any = true;
        }
    }

    /// An error as the last document.
    pub(in crate::gemini) fn error(&mut self, out: &mut BytesMut, error: &PublicError) {
        self.begin(out);
        error::write(out, error);
        self.end(out);
        self.close(out);
    }
}
