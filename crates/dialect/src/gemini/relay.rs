//! Answers that stay in the dialect: passed on as they are, but for the name of the model and, for clients that asked
//! for a list, what stands between the pieces.

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use memchr::memmem::Finder;
use omniroute_wire::{envelope, splice::Splice, sse::RawFrame};

use super::{
    error, response,
    stream::{Candidate, Encoder, Feedback, Frames, bad_call, read_chunk},
    unreadable,
    wire::{self, End},
};
use crate::{
    DecodeError, Echo, Framing, Relayed, error_text, estimate,
    ir::{FinishReason, PublicError, UpstreamError, Usage},
    stream::{self, StreamEncoder, StreamWatch, truncated},
};

/// Bytes of a piece's candidates around its text.
const AROUND_TEXT: usize = 80;
/// Longer pieces may have a picture in them.
const LONG: usize = 4 * 1024;

/// Prepares a whole answer: puts the asked model name in and reads what it used.
pub(super) fn response(body: &Bytes, echo: &Echo) -> Result<Relayed, DecodeError> {
    if body.trim_ascii_start().first() != Some(&b'{') && !body.starts_with(b"\xef\xbb\xbf") {
        // Pieces, where a whole was asked for.
        let answer = response::decode(body)?;
        let meaningful = answer.is_meaningful();
        return Ok(Relayed {
            body: Splice::new(response::encode(&answer, echo).body),
            usage: answer.usage,
            finish: answer.finish,
            meaningful,
            error: None,
        });
    }
    let asked = wire::quoted(&echo.model);
    let mut splice = Splice::new(body.clone());
    let mut disguise = error_text::Disguise::default();
    let mut named = false;
    let extent = envelope::scan(body, &mut |member| {
        disguise.note(&member);
        if member.key == "modelVersion" {
            named = true;
            if member.raw.as_bytes() != asked {
                splice.replace(member.span, asked.clone());
            }
        }
    })
    .map_err(|error| unreadable(&error))?;
    if disguise.error(body).is_some() {
        let error = Some(error::decode_value(&String::from_utf8_lossy(body)));
        return Ok(Relayed { body: splice, usage: Usage::default(), finish: None, meaningful: false, error });
    }
    if !named {
        splice.replace(extent.end..extent.end, name_member(&asked, extent.has_members));
    }
    let seen = read_chunk(body, |chunk| {
        let usage = chunk.usage_metadata.map(|raw| wire::usage(raw.get())).unwrap_or_default();
        let blocked = chunk.prompt_feedback.as_ref().and_then(Feedback::blocked).is_some();
        let noted = chunk.candidate().map(note).unwrap_or_default();
        (usage, blocked, noted)
    });
    let (usage, blocked, noted) =
        seen.ok_or_else(|| response::unreadable("it has members of wrong types"))?;
    let finish = if blocked { Some(FinishReason::ContentFilter) } else { noted.finish };
    Ok(Relayed {
        body: splice,
        usage,
        finish,
        meaningful: noted.meaningful
            || finish == Some(FinishReason::ContentFilter)
            || usage.output_total.is_some_and(|tokens| tokens > 0),
        error: noted.error,
    })
}

/// What a candidate shows.
#[derive(Default)]
struct Noted {
    meaningful: bool,
    called: bool,
    finish: Option<FinishReason>,
    error: Option<UpstreamError>,
}

fn note(candidate: &Candidate<'_>) -> Noted {
    let mut noted = Noted::default();
    for part in candidate.parts() {
        noted.called |= part.function_call.is_some();
        noted.meaningful |= part.function_call.is_some()
            || part.inline_data.is_some()
            || part.executable_code.is_some()
            || part.text().is_some_and(|text| !text.is_empty());
    }
    match wire::end_of(candidate.finish_reason()) {
        None => {}
        Some(End::Reason(FinishReason::Stop)) if noted.called => noted.finish = Some(FinishReason::ToolUse),
        Some(End::Reason(reason)) => noted.finish = Some(reason),
        Some(End::Failed) => {
            noted.error = Some(bad_call(candidate.finish_reason(), candidate.finish_message()));
        }
    }
    noted
}

/// The member that a piece without a name of the model gets.
fn name_member(asked: &[u8], comma: bool) -> Bytes {
    let lead: &[u8] = if comma { b",\"modelVersion\":" } else { b"\"modelVersion\":" };
    [lead, asked].concat().into()
}

/// Looks on while the pieces of a stream are passed on.
#[derive(Debug)]
pub(super) struct Tap {
    echo: Echo,
    /// The asked model's name as JSON.
    asked: Bytes,
    frames: Frames,
    finish_reason: Finder<'static>,
    function_call: Finder<'static>,
    watch: StreamWatch,
    called: bool,
}

impl Tap {
    /// For an answer to this request.
    pub(super) fn new(echo: Echo) -> Self {
        Self {
            asked: wire::quoted(&echo.model),
            frames: Frames::new(echo.framing.unwrap_or(Framing::Sse)),
            echo,
            finish_reason: Finder::new("\"finishReason\""),
            function_call: Finder::new("\"functionCall\""),
            watch: StreamWatch::default(),
            called: false,
        }
    }
}

impl stream::Tap for Tap {
    fn frame(&mut self, found: &RawFrame<'_>, out: &mut BytesMut) {
        let data = found.frame.data.trim_ascii();
        if data.first() != Some(&b'{') {
            return;
        }
        let mut name: Option<Range<usize>> = None;
        let (mut candidates, mut feedback, mut failed) = (None, false, false);
        let scanned = envelope::scan(data, &mut |member| match &*member.key {
            "candidates" => candidates = Some(member.raw.as_bytes()),
            "modelVersion" => name = Some(member.span),
            "promptFeedback" => feedback = true,
            "usageMetadata" => self.watch.usage.update(&wire::usage(member.raw)),
            "error" => failed = matches!(member.raw.as_bytes().first(), Some(b'{' | b'"')),
            _ => {}
        });
        let Ok(extent) = scanned else {
            self.watch.error = Some(error_text::malformed("a stream event is not valid JSON"));
            return;
        };
        if failed && candidates.is_none() {
            // Nothing can fail any more once the answer is complete.
            if self.watch.finish.is_none() {
                self.watch.error = Some(error::decode_value(&String::from_utf8_lossy(data)));
            }
            return;
        }
        if (feedback || candidates.is_some()) && !self.take_note(data, candidates) {
            return;
        }
        let (name, value) = match name {
            Some(span) if data[span.clone()] == *self.asked => (extent.end..extent.end, Bytes::new()),
            Some(span) => (span, self.asked.clone()),
            None => (extent.end..extent.end, name_member(&self.asked, extent.has_members)),
        };
        self.frames.begin(out);
        let start = out.len();
        out.extend_from_slice(&data[..name.start]);
        out.extend_from_slice(&value);
        out.extend_from_slice(&data[name.end..]);
        // Line ends within the data are white space of its JSON.
        for byte in &mut out[start..] {
            if matches!(byte, b'\n' | b'\r') {
                *byte = b' ';
            }
        }
        self.frames.end(out);
    }

    fn cut(&mut self, out: &mut BytesMut) {
        if self.watch.finish.is_some() {
            self.frames.close(out);
            self.watch.meaningful = true;
            self.watch.complete = true;
        } else {
            self.watch.error = Some(truncated());
        }
    }

    fn fail(&mut self, error: &PublicError, out: &mut BytesMut) {
        self.frames.error(out, error);
    }

    fn encoder(&self) -> Box<dyn StreamEncoder> {
        Box::new(Encoder::new(self.echo.clone()))
    }

    fn watch(&self) -> &StreamWatch {
        &self.watch
    }

    fn watch_mut(&mut self) -> &mut StreamWatch {
        &mut self.watch
    }

    fn is_ending(&self) -> bool {
        // `candidateCount`: of several answers one may be at its end long before the others.
        self.watch.finish.is_some() && memchr::memmem::find(&self.echo.request, b"\"candidate").is_none()
    }
}

/// How many bytes of an answer a piece is. By its base64 a picture would be far too many.
fn said(candidates: &[u8]) -> u64 {
    match candidates.len() {
        LONG.. => estimate::weight(candidates),
        length => length.saturating_sub(AROUND_TEXT) as u64,
    }
}

impl Tap {
    /// Looks into a piece; false when it is not for the client.
    fn take_note(&mut self, data: &[u8], candidates: Option<&[u8]>) -> bool {
        if let Some(candidates) = candidates {
            self.watch.output_bytes += said(candidates);
            // The many small pieces of text are not looked into.
            let plain = self.watch.meaningful
                && self.finish_reason.find(candidates).is_none()
                && self.function_call.find(candidates).is_none();
            if plain {
                return true;
            }
        }
        let seen = read_chunk(data, |chunk| {
            let blocked = chunk.prompt_feedback.as_ref().and_then(Feedback::blocked).is_some();
            (blocked, chunk.candidate().map(note).unwrap_or_default())
        });
        let Some((blocked, noted)) = seen else {
            self.watch.error = Some(error_text::malformed("a stream event has members of wrong types"));
            return false;
        };
        self.called |= noted.called;
        if blocked {
            self.watch.meaningful = true;
            self.watch.finish.get_or_insert(FinishReason::ContentFilter);
        }
        if let Some(error) = noted.error {
            // Before anything was said it can be tried again; later on the client knows the word.
            if !self.watch.meaningful {
                self.watch.error = Some(error);
                return false;
            }
            self.watch.finish = Some(FinishReason::Stop);
        }
        self.watch.meaningful |= noted.meaningful;
        match noted.finish {
            Some(FinishReason::Stop) if self.called => self.watch.finish = Some(FinishReason::ToolUse),
            Some(reason) => self.watch.finish = Some(reason),
            None => {}
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        gemini::Gemini,
        ir::ErrorKind,
        stream::{Relay, StreamPipe as _},
    };

    fn echo(model: &str, framing: Framing) -> Echo {
        Echo { model: model.into(), framing: Some(framing), ..Echo::default() }
    }

    fn relayed_as(stream: &str, model: &str, framing: Framing) -> (String, StreamWatch) {
        let mut relay = Relay::new(&Gemini, Tap::new(echo(model, framing)));
        let mut out = BytesMut::new();
        for piece in stream.as_bytes().chunks(7) {
            relay.push(piece, &mut out).expect("readable");
        }
        relay.finish(&mut out).expect("readable");
        (String::from_utf8(out.to_vec()).expect("UTF-8"), relay.watch().clone())
    }

    fn relayed(stream: &str, model: &str) -> (String, StreamWatch) {
        relayed_as(stream, model, Framing::Sse)
    }

    const STREAM: &str = concat!(
        "data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"Hä\"}],\"role\":\"model\"},\"index\":0}],\"usageMetadata\":{\"promptTokenCount\":3,\"totalTokenCount\":3},\"modelVersion\":\"gemini-x\",\"responseId\":\"r\"}\n\n",
        "data: {\"candidates\":[{\"content\":{\"parts\":[{\"functionCall\":{\"name\":\"f\",\"args\":{}}}],\"role\":\"model\"},\"index\":0}],\"modelVersion\":\"gemini-x\"}\n\n",
        "data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"\"}],\"role\":\"model\"},\"finishReason\":\"STOP\",\"index\":0}],\"usageMetadata\":{\"promptTokenCount\":3,\"candidatesTokenCount\":5,\"totalTokenCount\":8},\"modelVersion\":\"gemini-x\"}\n\n",
    );

    #[test]
    fn a_stream_is_passed_on_with_the_asked_model() {
        let (out, watch) = relayed(STREAM, "gc/x");
        assert_eq!(out, STREAM.replace("gemini-x", "gc/x"));
        assert!(watch.complete && watch.meaningful && watch.error.is_none());
        assert_eq!(watch.finish, Some(FinishReason::ToolUse));
        assert_eq!((watch.usage.input_uncached, watch.usage.output_total), (Some(3), Some(5)));
        assert_eq!(relayed(STREAM, "gemini-x").0, STREAM);
    }

    #[test]
    fn a_stream_becomes_a_list_for_those_who_asked_for_one() {
        let (out, watch) = relayed_as(STREAM, "gemini-x", Framing::JsonList);
        let pieces: Vec<_> = STREAM.split("\n\n").filter_map(|piece| piece.strip_prefix("data: ")).collect();
        assert_eq!(out, format!("[{}\n]", pieces.join("\n,")));
        assert!(watch.complete);

        let (cut, _) = STREAM
            .split_once("data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"\"")
            .expect("there");
        let mut relay = Relay::new(&Gemini, Tap::new(echo("gemini-x", Framing::JsonList)));
        let mut out = BytesMut::new();
        relay.push(cut.as_bytes(), &mut out).expect("readable");
        relay.finish(&mut out).expect("readable");
        assert!(relay.watch().error.is_some());
        let error = PublicError {
            kind: ErrorKind::BadGateway,
            code: None,
            message: "cut".into(),
            param: None,
            request_id: String::new(),
            attempts: Vec::new(),
            retry_at: None,
        };
        relay.fail(&error, &mut out);
        let list: Vec<serde_json::Value> = serde_json::from_slice(&out).expect("a list");
        assert_eq!((list.len(), &list[2]["error"]["code"]), (3, &serde_json::json!(502)));
    }

    #[test]
    fn only_data_goes_on_and_each_piece_is_one_line() {
        let stream = ": hi\nevent: x\nid: 1\ndata:{\"modelVersion\":\"m\",\ndata: \"responseId\":\"\"}\n\ndata: [DONE]\n\n<p>\n\n";
        assert_eq!(relayed(stream, "m").0, "data: {\"modelVersion\":\"m\", \"responseId\":\"\"}\n\n");
        assert_eq!(relayed("data: {}\n\n", "m").0, "data: {\"modelVersion\":\"m\"}\n\n");
    }

    #[test]
    fn ends_are_told_apart() {
        let (body, _) = STREAM.rsplit_once("data: ").expect("there");
        let (out, watch) = relayed(body, "gemini-x");
        assert_eq!(out, body);
        assert_eq!(watch.error.and_then(|error| error.code).as_deref(), Some("upstream_stream_truncated"));

        let blocked = "data: {\"promptFeedback\":{\"blockReason\":\"SAFETY\"},\"modelVersion\":\"m\"}\n\n";
        let (out, watch) = relayed(blocked, "m");
        assert_eq!((out.as_str(), watch.finish), (blocked, Some(FinishReason::ContentFilter)));
        assert!(watch.complete && watch.meaningful);
    }

    #[test]
    fn a_picture_does_not_count_by_its_base64() {
        let told = |member: &str| {
            let stream =
                format!("data: {{\"candidates\":[{{\"content\":{{\"parts\":[{{{member}}}]}}}}]}}\n\n");
            relayed(&stream, "m").1.output_bytes
        };
        let picture = "iVBO/+9x".repeat(100_000);
        let data = format!("\"inlineData\":{{\"mimeType\":\"image/png\",\"data\":\"{picture}\"}}");
        assert!((4_000..10_000).contains(&told(&data)), "{}", told(&data));
        let words = "word ".repeat(20_000);
        assert!((100_000..100_200).contains(&told(&format!("\"text\":\"{words}\""))));
    }

    #[test]
    fn errors_are_withheld() {
        for stream in [
            "data: {\"error\":{\"code\":503,\"message\":\"busy\",\"status\":\"UNAVAILABLE\"}}\n\n",
            "[{\"error\":{\"code\":503,\"message\":\"busy\",\"status\":\"UNAVAILABLE\"}}]",
        ] {
            let (out, watch) = relayed(stream, "m");
            let error = watch.error.expect("an error");
            assert_eq!(
                (out.as_str(), error.status, error.message.as_str()),
                ("", Some(503), "busy"),
                "{stream}"
            );
        }
        let call = "data: {\"candidates\":[{\"finishReason\":\"MALFORMED_FUNCTION_CALL\"}]}\n\n";
        let (out, watch) = relayed(call, "m");
        assert_eq!((out.as_str(), watch.error.and_then(|error| error.status)), ("", Some(502)));
        let late = format!("{}{call}", STREAM.split_inclusive("\n\n").next().expect("there"));
        let (out, watch) = relayed(&late, "gemini-x");
        assert!(out.contains("MALFORMED_FUNCTION_CALL") && watch.complete);
    }

    #[test]
    fn documents_in_place_of_a_stream_become_one() {
        let piece =
            STREAM.split("\n\n").next().and_then(|piece| piece.strip_prefix("data: ")).expect("there");
        let last = "{\"candidates\":[{\"finishReason\":\"STOP\"}]}";
        let (out, watch) = relayed(&format!("[{piece},\n{last}]"), "asked");
        assert!(watch.complete && out.contains("\"text\":\"Hä\"") && out.contains("\"asked\""), "{out}");
        assert!(relayed("<html><body>Bad gateway</body></html>", "m").1.error.is_some());
    }

    #[test]
    fn whole_answers_keep_their_bytes() {
        let body = Bytes::from_static(
            br#"{"candidates":[{"content":{"parts":[{"text":"\u00e9"}]}, "finishReason":"STOP"}],"usageMetadata":{"promptTokenCount":3,"candidatesTokenCount":1,"totalTokenCount":4}, "modelVersion":"gemini-x"}"#,
        );
        let sse = |model| echo(model, Framing::Sse);
        let found = response(&body, &sse("gemini-x")).expect("readable");
        assert!(found.body.is_untouched() && found.meaningful && found.error.is_none());
        assert_eq!((found.usage.output_total, found.finish), (Some(1), Some(FinishReason::Stop)));
        let edited = response(&body, &sse("a/b")).expect("readable").body.to_bytes();
        assert_eq!(edited, String::from_utf8_lossy(&body).replace("gemini-x", "a/b"));

        let empty = Bytes::from_static(br#"{"candidates":[{"finishReason":"STOP"}]}"#);
        let found = response(&empty, &sse("m")).expect("readable");
        assert!(!found.meaningful);
        assert_eq!(found.body.to_bytes(), r#"{"candidates":[{"finishReason":"STOP"}],"modelVersion":"m"}"#);

        let bad = Bytes::from_static(br#"{"candidates":[{"finishReason":"MALFORMED_FUNCTION_CALL"}]}"#);
        assert!(response(&bad, &sse("m")).expect("readable").error.is_some());
        let blocked = Bytes::from_static(br#"{"promptFeedback":{"blockReason":"SAFETY"}}"#);
        assert!(response(&blocked, &sse("m")).expect("readable").meaningful);
        let error =
            Bytes::from_static(br#"{"error":{"code":429,"message":"slow","status":"RESOURCE_EXHAUSTED"}}"#);
        assert_eq!(response(&error, &sse("m")).expect("readable").error.expect("set").status, Some(429));
        assert!(response(&Bytes::from_static(b"<html>"), &sse("m")).is_err());
    }
}
