//! Answers that stay in the dialect: passed on as they are, but for the name of the model.

use bytes::{Bytes, BytesMut};
use omniroute_wire::{envelope, json_out, splice::Splice, sse::RawFrame};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    error, quoted, response,
    stream::{Encoder, MESSAGE_STOP, read_error},
    unreadable,
    wire::{self, finish_reason},
};
use crate::{
    DecodeError, Echo, Relayed, error_text,
    ir::{FinishReason, PublicError},
    json_in::{Fields, str_of},
    stream::{self, StreamEncoder, StreamWatch, truncated},
};

/// Bytes of a delta event around its text.
const DELTA_FRAME: usize = 80;

/// Prepares a whole answer: puts the asked model name in and reads what it used.
pub(super) fn response(body: &Bytes, echo: &Echo) -> Result<Relayed, DecodeError> {
    let mut model = None;
    let mut usage = None;
    let mut stop_reason = None;
    let mut has_content = false;
    let mut disguise = error_text::Disguise::default();
    let extent = envelope::scan(body, &mut |member| {
        disguise.note(&member);
        match &*member.key {
            "model" => model = Some((member.raw, member.span)),
            "usage" => usage = Some(member.raw),
            "stop_reason" => stop_reason = envelope::as_str(member.raw),
            "content" => {
                has_content =
                    member.raw.strip_prefix('[').is_some_and(|rest| !rest.trim_start().starts_with(']'));
            }
            _ => {}
        }
    })
    .map_err(|error| unreadable(&error))?;

    let usage = usage.and_then(|raw| Fields::lenient(raw, "usage").ok());
    let usage = usage.as_ref().map(wire::usage).unwrap_or_default();
    let finish = stop_reason.as_deref().map(finish_reason);
    let mut splice = Splice::new(body.clone());
    match model {
        Some((raw, span)) => {
            if envelope::as_str(raw).is_none_or(|model| *model != *echo.model) {
                splice.replace(span, quoted(&echo.model));
            }
        }
        None => {
            let mut member = BytesMut::new();
            member.extend_from_slice(if extent.has_members { b",\"model\":" } else { b"\"model\":" });
            json_out::string(&mut member, &echo.model);
            splice.replace(extent.end..extent.end, member.freeze());
        }
    }
    Ok(Relayed {
        body: splice,
        usage,
        finish,
        meaningful: has_content
            || usage.output_total.is_some_and(|tokens| tokens > 0)
            || finish == Some(FinishReason::ContentFilter),
        error: disguise.error(body),
    })
}

/// Looks on while the events of a stream are passed on.
pub(super) struct Tap {
    echo: Echo,
    watch: StreamWatch,
    finish: Option<FinishReason>,
}

#[derive(Deserialize)]
struct Tag<'a> {
    #[serde(rename = "type", borrow)]
    kind: Option<&'a RawValue>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
}

impl Tap {
    /// For an answer to this request.
    pub(super) fn new(echo: Echo) -> Self {
        Self { echo, watch: StreamWatch::default(), finish: None }
    }
}

impl stream::Tap for Tap {
    fn frame(&mut self, found: &RawFrame<'_>, out: &mut BytesMut) {
        let data = found.frame.data;
        if data.first() != Some(&b'{') {
            return;
        }
        match found.frame.event {
            Some(name) => self.event(name, found, out),
            // Clients of the dialect lose events without a name, so they get one.
            None => match serde_json::from_slice::<Tag<'_>>(data) {
                Ok(tag) => {
                    let name = tag.kind.and_then(str_of);
                    let is_error = tag.error.is_some_and(|error| error.get() != "null");
                    let name = name.as_deref().unwrap_or(if is_error { "error" } else { "message" });
                    self.event(name, found, out);
                }
                Err(_) => self.malformed(),
            },
        }
    }

    fn cut(&mut self, out: &mut BytesMut) {
        if self.finish.is_some() {
            out.extend_from_slice(MESSAGE_STOP);
            self.complete();
        } else {
            self.watch.error = Some(truncated());
        }
    }

    fn fail(&mut self, error: &PublicError, out: &mut BytesMut) {
        out.extend_from_slice(&error::encode_in_stream(error));
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
        self.finish.is_some()
    }
}

impl Tap {
    fn event(&mut self, name: &str, found: &RawFrame<'_>, out: &mut BytesMut) {
        let data = found.frame.data;
        // The many small deltas are only looked at from behind: one that was cut short does not end like this.
        let is_whole_delta = name == "content_block_delta" && data.ends_with(b"}}");
        if !is_whole_delta && name != "error" && envelope::scan(data, &mut |_| {}).is_err() {
            self.malformed();
            return;
        }
        match name {
            "content_block_delta" => {
                self.watch.meaningful |= !data.ends_with(b":\"\"}}");
                self.watch.output_bytes += data.len().saturating_sub(DELTA_FRAME) as u64;
            }
            "message_start" => {
                self.message_start(found, out);
                return;
            }
            "content_block_start" => {
                let has = |word: &str| memchr::memmem::find(data, word.as_bytes()).is_some();
                self.watch.meaningful |= has("\"tool_use\"") || has("\"redacted_thinking\"");
            }
            "message_delta" => self.message_delta(data),
            "message_stop" => self.complete(),
            "error" => {
                let text = String::from_utf8_lossy(data);
                let fields = Fields::lenient(&text, "").ok();
                let error = fields.as_ref().and_then(|fields| fields.raw("error")).map(RawValue::get);
                self.watch.error = Some(read_error(error.unwrap_or(&text)));
                return;
            }
            _ => {}
        }
        pass_on(name, found, out);
    }

    fn message_start(&mut self, found: &RawFrame<'_>, out: &mut BytesMut) {
        let data = found.frame.data;
        let message = std::str::from_utf8(data)
            .ok()
            .and_then(|text| Fields::lenient(text, "").ok())
            .and_then(|fields| fields.object_or_none("message"));
        let Some(message) = message else {
            self.malformed();
            return;
        };
        self.usage(message.object_or_none("usage").as_ref());
        match message.raw("model") {
            Some(raw) if str_of(raw).is_some_and(|model| *model == *self.echo.model) => {
                pass_on("message_start", found, out);
            }
            Some(raw) => {
                let start = raw.get().as_ptr() as usize - data.as_ptr() as usize;
                let mut edited = BytesMut::with_capacity(data.len() + self.echo.model.len());
                edited.extend_from_slice(&data[..start]);
                json_out::string(&mut edited, &self.echo.model);
                edited.extend_from_slice(&data[start + raw.get().len()..]);
                write_frame("message_start", &edited, out);
            }
            None => pass_on("message_start", found, out),
        }
    }

    fn message_delta(&mut self, data: &[u8]) {
        let fields = std::str::from_utf8(data).ok().and_then(|text| Fields::lenient(text, "").ok());
        let Some(fields) = fields else { return };
        self.usage(fields.object_or_none("usage").as_ref());
        let delta = fields.object_or_none("delta");
        if let Some(reason) = delta.and_then(|delta| response::lenient_str(&delta, "stop_reason")) {
            self.finish = Some(finish_reason(&reason));
        }
    }

    fn usage(&mut self, fields: Option<&Fields<'_>>) {
        if let Some(fields) = fields {
            wire::update(&mut self.watch.usage, fields);
        }
    }

    fn complete(&mut self) {
        self.watch.meaningful = true;
        self.watch.complete = true;
        self.watch.finish = Some(self.finish.unwrap_or(FinishReason::Stop));
    }

    fn malformed(&mut self) {
        self.watch.error = Some(error_text::malformed("a stream event is not valid JSON"));
    }
}

/// Writes an event as it came, if it came in the form in which it may go.
fn pass_on(name: &str, found: &RawFrame<'_>, out: &mut BytesMut) {
    if found.verbatim && found.frame.event.is_some() {
        out.extend_from_slice(found.raw);
    } else {
        write_frame(name, found.frame.data, out);
    }
}

fn write_frame(name: &str, data: &[u8], out: &mut BytesMut) {
    out.extend_from_slice(b"event: ");
    out.extend(name.bytes().filter(|byte| !matches!(byte, b'\r' | b'\n')));
    for line in data.split(|byte| *byte == b'\n') {
        out.extend_from_slice(b"\ndata: ");
        out.extend_from_slice(line);
    }
    out.extend_from_slice(b"\n\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        anthropic::Anthropic,
        stream::{Relay, StreamPipe as _},
    };

    fn echo(model: &str) -> Echo {
        Echo { model: model.into(), ..Echo::default() }
    }

    fn relayed(stream: &str, model: &str) -> (String, StreamWatch) {
        let mut relay = Relay::new(&Anthropic, Tap::new(echo(model)));
        let mut out = BytesMut::new();
        for piece in stream.as_bytes().chunks(7) {
            relay.push(piece, &mut out).expect("readable");
        }
        relay.finish(&mut out).expect("readable");
        (String::from_utf8(out.to_vec()).expect("UTF-8"), relay.watch().clone())
    }

    const STREAM: &str = concat!(
        "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"msg_1\",\"model\":\"claude-x\",\"usage\":{\"input_tokens\":30,\"output_tokens\":1}}}\n\n",
        "event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\n",
        "event: ping\ndata: {\"type\": \"ping\"}\n\n",
        "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"Hällo\"}}\n\n",
        "event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":0}\n\n",
        "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\",\"stop_sequence\":null},\"usage\":{\"output_tokens\":5}}\n\n",
        "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n",
    );

    #[test]
    fn a_stream_is_passed_on_with_the_asked_model() {
        let (out, watch) = relayed(STREAM, "cc/x");
        assert_eq!(out, STREAM.replace("claude-x", "cc/x"));
        assert!(watch.complete && watch.meaningful && watch.error.is_none());
        assert_eq!(watch.finish, Some(FinishReason::Stop));
        assert_eq!((watch.usage.input_uncached, watch.usage.output_total), (Some(30), Some(5)));
        assert_eq!(watch.output_bytes, 6);
        assert_eq!(relayed(STREAM, "claude-x").0, STREAM);
    }

    #[test]
    fn what_was_written_for_an_hour_counts_once() {
        let first = r#""usage":{"input_tokens":30,"cache_creation_input_tokens":9,"cache_creation":{"ephemeral_5m_input_tokens":0,"ephemeral_1h_input_tokens":9},"output_tokens":1}"#;
        let last = r#""usage":{"cache_creation_input_tokens":9,"output_tokens":5}"#;
        let stream = STREAM
            .replace(r#""usage":{"input_tokens":30,"output_tokens":1}"#, first)
            .replace(r#""usage":{"output_tokens":5}"#, last);
        let (out, watch) = relayed(&stream, "claude-x");
        assert_eq!((out, watch.usage.input_total()), (stream, Some(39)));
    }

    #[test]
    fn ends_are_told_apart() {
        let (body, _) = STREAM.rsplit_once("event: message_stop").expect("there");
        let (out, watch) = relayed(body, "claude-x");
        assert_eq!((out.as_str(), watch.complete), (STREAM, true));

        let (body, _) = STREAM.split_once("event: message_delta").expect("there");
        let (out, watch) = relayed(body, "claude-x");
        assert_eq!(out, body);
        assert_eq!(watch.error.and_then(|error| error.code).as_deref(), Some("upstream_stream_truncated"));

        let (out, watch) = relayed(&format!("{STREAM}data: [DONE]\n\nevent: x\ndata: {{}}\n\n"), "claude-x");
        assert_eq!((out.as_str(), watch.complete), (STREAM, true));
    }

    #[test]
    fn errors_are_withheld() {
        let frame = "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"busy\"}}\n\n";
        for stream in [
            frame,
            &frame["event: error\n".len()..],
            "data: {\"error\":{\"type\":\"overloaded_error\",\"message\":\"busy\"}}\n\n",
        ] {
            let (out, watch) = relayed(stream, "m");
            let error = watch.error.expect("an error");
            assert_eq!((out.as_str(), error.status, error.message.as_str()), ("", Some(529), "busy"));
        }
    }

    #[test]
    fn half_an_event_is_withheld() {
        for cut in [
            "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"ty\n\n",
            "event: content_block_start\ndata: {\"type\":\"content_block_start\",\"ind\n\n",
            "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{}\n\n",
        ] {
            let (before, after) = STREAM.split_once("event: content_block_stop").expect("there");
            let (out, watch) = relayed(&format!("{before}{cut}event: content_block_stop{after}"), "claude-x");
            assert_eq!(out, before);
            assert!(watch.error.is_some_and(|error| error.message.contains("not valid JSON")), "{cut}");
        }
    }

    #[test]
    fn nameless_events_get_names_and_comments_go() {
        let (out, _) = relayed(": hi\nid: 1\ndata: {\"type\":\"content_block_stop\",\"index\":0}\n\n", "m");
        assert_eq!(out, "event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":0}\n\n");
    }

    #[test]
    fn a_document_in_place_of_a_stream_becomes_one() {
        let body = "{\n \"id\":\"msg_1\",\"model\":\"x\",\n\n\"content\":[{\"type\":\"text\",\"text\":\"Hi\"}],\"stop_reason\":\"end_turn\",\"usage\":{\"output_tokens\":1}}";
        let (out, watch) = relayed(body, "asked");
        assert!(
            watch.complete && out.contains("\"model\":\"asked\"") && out.contains("\"text\":\"Hi\""),
            "{out}"
        );
        assert_eq!(
            relayed("{\"type\":\"error\",\"error\":{\"message\":\"no\"}}", "m").1.error.expect("set").message,
            "no"
        );
        assert!(relayed("<html><body>Bad gateway</body></html>", "m").1.error.is_some());
    }

    #[test]
    fn whole_answers_keep_their_bytes() {
        let body = Bytes::from_static(
            br#"{"id":"msg_1", "model":"claude-x","content":[{"type":"text","text":"\u00e9"}],"stop_reason":"end_turn","usage":{"input_tokens":3,"output_tokens":1.0}}"#,
        );
        let relayed = response(&body, &echo("claude-x")).expect("readable");
        assert!(relayed.body.is_untouched() && relayed.meaningful && relayed.error.is_none());
        assert_eq!((relayed.usage.output_total, relayed.finish), (Some(1), Some(FinishReason::Stop)));
        let edited = response(&body, &echo("a/b")).expect("readable").body.to_bytes();
        assert_eq!(edited, String::from_utf8_lossy(&body).replace("claude-x", "a/b"));

        let empty = Bytes::from_static(br#"{"content":[ ],"usage":{"output_tokens":0}}"#);
        let relayed = response(&empty, &echo("m")).expect("readable");
        assert!(!relayed.meaningful);
        assert_eq!(relayed.body.to_bytes(), r#"{"content":[ ],"usage":{"output_tokens":0},"model":"m"}"#);
        assert!(response(&Bytes::from_static(b"<html>"), &echo("m")).is_err());
    }
}
