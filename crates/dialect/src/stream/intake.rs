//! What an upstream sends on a stream, cut into frames; also when it is no stream at all.

use omniroute_wire::{
    ndjson::LineFramer,
    sse::{DEFAULT_FRAME_LIMIT, Frame, RawFrame, SseFramer},
};
use serde::de::IgnoredAny;

use super::StreamError;
use crate::Framing;

/// The byte-order mark.
const MARK: &[u8] = b"\xef\xbb\xbf";

/// A framer that notices a plain JSON document or a web page in place of a stream.
#[derive(Debug)]
pub(crate) struct Intake {
    framing: Framing,
    kind: Kind,
    html: bool,
    begun: bool,
    ended: bool,
}

#[derive(Debug)]
enum Kind {
    /// Nothing so far that tells.
    Unknown(Vec<u8>),
    Sse(SseFramer),
    Lines(LineFramer),
    /// One JSON document.
    Body(Vec<u8>),
}

impl Intake {
    pub(crate) fn new(framing: Framing) -> Self {
        let kind = match framing {
            Framing::Sse | Framing::JsonList => Kind::Unknown(Vec::new()),
            Framing::Ndjson => Kind::Lines(LineFramer::new(DEFAULT_FRAME_LIMIT)),
        };
        Self { framing, kind, html: false, begun: false, ended: false }
    }

    /// Takes bytes, cut anywhere. Take all frames before the next push.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<(), StreamError> {
        match &mut self.kind {
            Kind::Sse(framer) => framer.push(bytes),
            Kind::Lines(framer) => framer.push(bytes),
            Kind::Body(body) => append(body, bytes)?,
            Kind::Unknown(held) => {
                append(held, bytes)?;
                let rest = without_lead(held);
                match rest.first() {
                    None => held.clear(),
                    // It may still become a byte-order mark.
                    Some(_) if rest.len() < MARK.len() && MARK.starts_with(rest) => {}
                    Some(b'{' | b'[') => self.kind = Kind::Body(rest.to_vec()),
                    first => {
                        self.html = first == Some(&b'<');
                        let mut framer = SseFramer::default();
                        framer.push(rest);
                        self.kind = Kind::Sse(framer);
                    }
                }
            }
        }
        Ok(())
    }

    /// The next frame with data.
    pub(crate) fn next_frame(&mut self) -> Option<Result<RawFrame<'_>, StreamError>> {
        match &mut self.kind {
            Kind::Sse(framer) => {
                let found = framer.next_frame()?;
                match found {
                    // The stream broke off within the frame: it counts only if it happens to be whole.
                    Ok(found) if !found.terminated && !is_whole(found.frame.data) => None,
                    other => Some(other.map_err(StreamError::from)),
                }
            }
            Kind::Lines(framer) => match framer.next_line()? {
                // The stream broke off within the line.
                Ok(data) if self.ended && !is_whole(data) => None,
                line => Some(line.map_err(StreamError::from).map(|data| {
                    if !std::mem::replace(&mut self.begun, true) {
                        self.html = data.first() == Some(&b'<');
                    }
                    RawFrame {
                        frame: Frame { event: None, data },
                        raw: data,
                        verbatim: false,
                        terminated: true,
                    }
                })),
            },
            Kind::Unknown(_) | Kind::Body(_) => None,
        }
    }

    /// Nothing follows.
    pub(crate) fn finish(&mut self) {
        self.ended = true;
        match &mut self.kind {
            Kind::Sse(framer) => framer.finish(),
            Kind::Lines(framer) => framer.finish(),
            Kind::Unknown(_) | Kind::Body(_) => {}
        }
    }

    /// The document that came in place of a stream; only of use after the end.
    pub(crate) fn take_body(&mut self) -> Option<Vec<u8>> {
        match &mut self.kind {
            Kind::Body(body) if self.framing != Framing::Ndjson => Some(std::mem::take(body)),
            _ => None,
        }
    }

    /// Whether it began like a web page.
    pub(crate) fn is_html(&self) -> bool {
        self.html
    }
}

/// What follows white space and byte-order marks, which mean nothing at the beginning.
fn without_lead(bytes: &[u8]) -> &[u8] {
    let mut rest = bytes.trim_ascii_start();
    while let Some(after) = rest.strip_prefix(MARK) {
        rest = after.trim_ascii_start();
    }
    rest
}

fn append(held: &mut Vec<u8>, bytes: &[u8]) -> Result<(), StreamError> {
    if held.len() + bytes.len() > DEFAULT_FRAME_LIMIT {
        return Err(StreamError::FrameTooLarge { limit: DEFAULT_FRAME_LIMIT });
    }
    held.extend_from_slice(bytes);
    Ok(())
}

fn is_whole(data: &[u8]) -> bool {
    data.starts_with(b"[DONE]") || serde_json::from_slice::<IgnoredAny>(data).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn intake(pieces: &[&[u8]]) -> (Vec<Vec<u8>>, Option<Vec<u8>>, bool) {
        let mut intake = Intake::new(Framing::Sse);
        let mut frames = Vec::new();
        for piece in pieces {
            intake.push(piece).unwrap();
            while let Some(frame) = intake.next_frame() {
                frames.push(frame.unwrap().frame.data.to_vec());
            }
        }
        intake.finish();
        while let Some(frame) = intake.next_frame() {
            frames.push(frame.unwrap().frame.data.to_vec());
        }
        let html = intake.is_html();
        (frames, intake.take_body(), html)
    }

    #[test]
    fn the_kind_is_told_by_the_first_byte() {
        assert_eq!(intake(&[b"\n", b"data: 1\n\n"]), (vec![b"1".to_vec()], None, false));
        assert_eq!(intake(&[b" ", b"{\n\"a\"", b":1}"]), (vec![], Some(b"{\n\"a\":1}".to_vec()), false));
        assert_eq!(intake(&[b"<htm", b"l>\n\n"]), (vec![], None, true));
        assert_eq!(intake(&[]), (vec![], None, false));
        let blank = [b' '; 200];
        assert_eq!(intake(&[&blank, b"\xef\xbb", b"\xbf", b"{}"]).1, Some(b"{}".to_vec()));
        assert_eq!(intake(&[b"\n\xef", b"\xbf\n\ndata: 1\n\n"]).0, [b"1".to_vec()]);
    }

    #[test]
    fn a_frame_that_broke_off_is_left_out() {
        assert_eq!(intake(&[b"data: {\"a\":1}\n\ndata: {\"b\""]).0, [b"{\"a\":1}".to_vec()]);
        assert_eq!(intake(&[b"data: {\"a\":1}"]).0, [b"{\"a\":1}".to_vec()]);
    }
}
