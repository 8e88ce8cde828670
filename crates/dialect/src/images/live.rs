//! Pictures while they are painted: a stream of OpenAI's events, passed on as they come
//! (<https://platform.openai.com/docs/api-reference/images-streaming>).

use std::fmt;

use bytes::BytesMut;
use omniroute_wire::envelope;
use omniroute_wire::sse::{DEFAULT_FRAME_LIMIT, RawFrame, SseFramer};
use serde::de::IgnoredAny;

use super::openai;
use crate::ir::PublicError;
use crate::openai::OpenAi;
use crate::stream::{StreamError, StreamPipe, StreamWatch, truncated};
use crate::{Dialect as _, Framing, error_text};

/// An event that is longer than this has a picture in it, although it is not whole yet.
const SURELY_A_PICTURE: usize = 64 * 1024;

/// The pipe between an upstream and a client that both speak OpenAI's events.
pub struct LivePictures {
    framer: SseFramer,
    /// How many pictures the client wants.
    wanted: u32,
    /// How many are finished.
    finished: u32,
    /// Bytes of the event that is not whole yet.
    open: usize,
    watch: StreamWatch,
}

impl LivePictures {
    /// For a request for so many pictures.
    pub fn new(wanted: u32) -> Self {
        let framer = SseFramer::new(DEFAULT_FRAME_LIMIT);
        Self { framer, wanted, finished: 0, open: 0, watch: StreamWatch::default() }
    }

    fn frames(&mut self, out: &mut BytesMut) -> Result<(), StreamError> {
        while !self.watch.is_over() {
            let Some(found) = self.framer.next_frame() else { break };
            self.open = 0;
            let before = out.len();
            let told = Told::of(&found?, out);
            if let Some(error) = told.error {
                self.watch.error = Some(error);
                break;
            }
            self.watch.meaningful |= told.is_picture;
            if let Some(usage) = told.usage {
                self.watch.usage.add(&usage);
            }
            self.finished += u32::from(told.is_finished);
            if told.is_end {
                self.end();
                if self.watch.error.is_some() {
                    out.truncate(before);
                }
                break;
            }
            self.watch.complete = self.finished >= self.wanted;
        }
        Ok(())
    }

    /// Fewer pictures than were asked for are an answer too, none is not.
    fn end(&mut self) {
        match self.finished {
            0 => self.watch.error = Some(truncated()),
            _ => self.watch.complete = true,
        }
    }
}

/// What an event says.
#[derive(Default)]
struct Told {
    is_picture: bool,
    is_finished: bool,
    is_end: bool,
    usage: Option<crate::ir::Usage>,
    error: Option<crate::ir::UpstreamError>,
}

impl Told {
    /// Reads an event and passes it on, unless it is an error.
    fn of(found: &RawFrame<'_>, out: &mut BytesMut) -> Self {
        let data = found.frame.data;
        let mut told = Self::default();
        if !found.terminated && serde_json::from_slice::<IgnoredAny>(data).is_err() {
            // The stream broke off within it.
            return told;
        }
        let (mut kind, mut error) = (None, None);
        let scanned = envelope::scan(data, &mut |member| match &*member.key {
            "type" => kind = envelope::as_str(member.raw).map(|kind| kind.to_string()),
            "usage" => told.usage = Some(openai::usage(member.raw).0),
            "error" if member.raw != "null" => error = Some(member.raw),
            "b64_json" | "url" => told.is_picture |= member.raw.len() > 2,
            _ => {}
        });
        let kind = kind.as_deref().or(found.frame.event).unwrap_or_default();
        if error.is_some() || kind == "error" {
            told.error = Some(error_text::read_value(&String::from_utf8_lossy(data)));
            return told;
        }
        told.is_finished = scanned.is_ok() && told.is_picture && kind.ends_with(".completed");
        told.is_end = data.starts_with(b"[DONE]");
        out.extend_from_slice(found.raw);
        if !found.terminated {
            out.extend_from_slice(b"\n\n");
        }
        told
    }
}

impl StreamPipe for LivePictures {
    fn push(&mut self, bytes: &[u8], out: &mut BytesMut) -> Result<(), StreamError> {
        if self.watch.is_over() {
            return Ok(());
        }
        self.open += bytes.len();
        self.framer.push(bytes);
        self.frames(out)?;
        self.watch.meaningful |= self.open > SURELY_A_PICTURE;
        Ok(())
    }

    fn finish(&mut self, out: &mut BytesMut) -> Result<(), StreamError> {
        self.framer.finish();
        self.frames(out)?;
        if !self.watch.is_over() {
            self.end();
        }
        Ok(())
    }

    fn fail(&mut self, error: &PublicError, out: &mut BytesMut) {
        out.extend_from_slice(&OpenAi.encode_stream_error(error, Framing::Sse));
    }

    fn watch(&self) -> &StreamWatch {
        &self.watch
    }

    fn pictures(&self) -> Option<u64> {
        Some(u64::from(self.finished))
    }
}

impl fmt::Debug for LivePictures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LivePictures")
            .field("wanted", &self.wanted)
            .field("finished", &self.finished)
            .field("watch", &self.watch)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SKETCH: &str = "event: image_generation.partial_image\ndata: {\"type\":\"image_generation.partial_image\",\"b64_json\":\"QQ==\",\"partial_image_index\":0}\n\n";
    const DONE: &str = "event: image_generation.completed\ndata: {\"type\":\"image_generation.completed\",\"b64_json\":\"QUI=\",\"usage\":{\"input_tokens\":5,\"output_tokens\":7,\"input_tokens_details\":{\"image_tokens\":1}}}\n\n";

    /// What a client gets of it, however it is cut.
    fn relayed(stream: &str, wanted: u32, piece: usize) -> (String, LivePictures) {
        let (mut pipe, mut out) = (LivePictures::new(wanted), BytesMut::new());
        for piece in stream.as_bytes().chunks(piece) {
            pipe.push(piece, &mut out).unwrap();
        }
        pipe.finish(&mut out).unwrap();
        (String::from_utf8(out.to_vec()).unwrap(), pipe)
    }

    #[test]
    fn events_are_passed_on_as_they_come() {
        let stream = format!("{SKETCH}{SKETCH}{DONE}");
        for piece in [1, 2, 7, 64, 4096] {
            let (out, pipe) = relayed(&stream, 1, piece);
            assert_eq!(out, stream, "{piece}");
            let watch = pipe.watch();
            assert!(watch.complete && watch.meaningful && watch.error.is_none());
            assert_eq!((watch.usage.input_uncached, watch.usage.output_total), (Some(5), Some(7)));
            assert_eq!(pipe.pictures(), Some(1));
        }
        // The second of two may be missing; a stream without any was cut off.
        let (_, pipe) = relayed(&stream, 2, 50);
        assert!(pipe.watch().complete && pipe.pictures() == Some(1));
        let (out, pipe) = relayed(SKETCH, 1, 50);
        assert_eq!(out, SKETCH);
        assert_eq!(
            pipe.watch().error.as_ref().and_then(|error| error.code.as_deref()),
            Some("upstream_stream_truncated")
        );
        // Some say that they are done, which some are that made nothing.
        const END: &str = "data: [DONE]\n\n";
        let (out, pipe) = relayed(&format!("{SKETCH}{DONE}{END}"), 2, 50);
        assert!(pipe.watch().complete && pipe.watch().error.is_none(), "{out}");
        for nothing in ["", SKETCH] {
            let (_, pipe) = relayed(&format!("{nothing}{END}"), 1, 50);
            assert!(!pipe.watch().complete && pipe.watch().error.is_some(), "{nothing}");
        }
        // The blank line at the end may be missing, half an event is none.
        let (out, pipe) = relayed(DONE.trim_end(), 1, 9);
        assert!(out.ends_with("}\n\n") && pipe.watch().complete, "{out}");
        let (out, pipe) = relayed(&DONE[..90], 1, 9);
        assert!(out.is_empty() && pipe.watch().error.is_some(), "{out}");
    }

    #[test]
    fn errors_are_noted_and_not_passed_on() {
        for error in [
            "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"image_generation_user_error\",\"code\":\"moderation_blocked\",\"message\":\"no\"}}\n\n",
            "data: {\"error\":{\"code\":\"moderation_blocked\",\"message\":\"no\"}}\n\n",
        ] {
            let (out, pipe) = relayed(&format!("{SKETCH}{error}{DONE}"), 1, 11);
            assert_eq!(out, SKETCH);
            let found = pipe.watch().error.clone().unwrap();
            assert_eq!(
                (found.message.as_str(), found.code.as_deref()),
                ("no", Some("moderation_blocked")),
                "{error}"
            );
        }
    }

    #[test]
    fn a_long_event_is_known_for_a_picture_before_it_ends() {
        let (mut pipe, mut out) = (LivePictures::new(1), BytesMut::new());
        pipe.push(format!("data: {{\"b64_json\":\"{}", "A".repeat(1000)).as_bytes(), &mut out).unwrap();
        assert!(!pipe.watch().meaningful);
        pipe.push("A".repeat(SURELY_A_PICTURE).as_bytes(), &mut out).unwrap();
        assert!(pipe.watch().meaningful && out.is_empty());
    }
}
