//! Answers that stay in the dialect: passed on as they are, but for the name of the model.

use bytes::{Bytes, BytesMut};
use omniroute_wire::{
    envelope, json_out,
    splice::Splice,
    sse::{DEFAULT_FRAME_LIMIT, RawFrame},
};
use serde_json::value::RawValue;

use super::{
    error,
    object::ResponseObject,
    response,
    stream::{Encoder, Event},
    wire,
};
use crate::{
    DecodeError, Echo, Relayed, error_text,
    ir::{FinishReason, PublicError, Tier, Usage},
    json_in::{Fields, list_of},
    stream::{self, StreamEncoder, StreamWatch, truncated},
};

/// Prepares a whole answer: puts the asked model name in and reads what it used.
pub(super) fn whole(body: &Bytes, echo: &Echo) -> Result<Relayed, DecodeError> {
    if response::is_stream(body) {
        let answer = response::collect(body)?;
        let meaningful = answer.is_meaningful();
        let encoded = response::encode(&answer, echo).body;
        return Ok(Relayed {
            body: Splice::new(encoded),
            usage: answer.usage,
            finish: answer.finish,
            meaningful,
            error: None,
        });
    }
    let asked = quoted(&echo.model);
    let mut splice = Splice::new(body.clone());
    let (mut failure, mut has_output) = (None, false);
    let scanned = envelope::scan(body, &mut |member| match &*member.key {
        "model" if !echo.model.is_empty() && member.raw.as_bytes() != asked => {
            splice.replace(member.span, asked.clone());
        }
        "error" if matches!(member.raw.as_bytes().first(), Some(b'{' | b'"')) => failure = Some(member.raw),
        "output" => {
            has_output = member.raw.strip_prefix('[').is_some_and(|rest| !rest.trim_start().starts_with(']'));
        }
        _ => {}
    });
    if scanned.is_err() {
        // Says in words what it is.
        response::decode(body)?;
        return Err(response::unreadable("it is not a JSON object"));
    }
    let text = String::from_utf8_lossy(body);
    let fields = Fields::lenient(text.trim_start_matches('\u{feff}'), "")?;
    let judged = judge(&fields);
    Ok(Relayed {
        body: splice,
        usage: judged.usage,
        finish: judged.finish,
        meaningful: has_output
            || has_just_begun(&fields)
            || judged.finish == Some(FinishReason::ContentFilter)
            || judged.usage.output_total.is_some_and(|tokens| tokens > 0),
        error: failure.map(wire::error),
    })
}

/// Whether a whole answer is being made in the background and has nothing to say yet.
pub(super) fn is_pending(body: &Bytes) -> bool {
    let text = String::from_utf8_lossy(body);
    Fields::lenient(text.trim_start_matches('\u{feff}'), "").is_ok_and(|fields| has_just_begun(&fields))
}

fn has_just_begun(response: &Fields<'_>) -> bool {
    matches!(wire::text(response, "status").as_deref(), Some("queued" | "in_progress"))
}

/// Most ids of one answer that are remembered.
const MAX_KEPT: usize = 64;

/// The ids of an answer, of its conversation and of its items, unless it says that it is not kept.
pub(super) fn kept_ids(body: &Bytes) -> Vec<String> {
    let text = String::from_utf8_lossy(body);
    Fields::lenient(text.trim_start_matches('\u{feff}'), "")
        .map_or_else(|_| Vec::new(), |fields| ids(&fields))
}

fn ids(response: &Fields<'_>) -> Vec<String> {
    if response.raw("store").is_some_and(|store| store.get() == "false") {
        return Vec::new();
    }
    let mut ids: Vec<String> = wire::text(response, "id").into_iter().collect();
    let within =
        |raw: &RawValue| Fields::lenient(raw.get(), "").ok().and_then(|fields| wire::text(&fields, "id"));
    ids.extend(response.raw("conversation").and_then(within));
    let items = response.raw("output").and_then(list_of).unwrap_or_default();
    ids.extend(items.into_iter().filter_map(within).take(MAX_KEPT));
    ids.retain(|id| !id.is_empty());
    ids
}

/// What a response object says of the answer.
fn judge(response: &Fields<'_>) -> StreamWatch {
    let output = response.raw("output").and_then(list_of).unwrap_or_default();
    let (mut called, mut refused) = (false, false);
    for item in output {
        let Ok(item) = Fields::lenient(item.get(), "") else { continue };
        match wire::text(&item, "type").as_deref() {
            Some("function_call" | "custom_tool_call") => called = true,
            Some("message") => {
                refused |= item.raw("content").is_some_and(|raw| raw.get().contains("\"refusal\""));
            }
            _ => {}
        }
    }
    StreamWatch {
        usage: Usage {
            tier: wire::text(response, "service_tier").and_then(|word| Tier::of_answer(&word)),
            ..wire::usage(response.raw("usage").map_or("{}", RawValue::get))
        },
        finish: Some(wire::finish_reason(response, called, refused)),
        ..StreamWatch::default()
    }
}

/// Looks on while the events of a stream are passed on.
pub(super) struct Tap {
    echo: Echo,
    /// The asked model's name as JSON.
    asked: Bytes,
    watch: StreamWatch,
    /// The number of the next event.
    sequence: u64,
    /// The answer's id and the time of its making, once it has begun.
    begun: Option<(String, i64)>,
    /// The items that are done, without the brackets of their list, in case the answer fails.
    done: BytesMut,
    kept_ids: Vec<String>,
}

impl Tap {
    /// For an answer to this request.
    pub(super) fn new(echo: Echo) -> Self {
        Self {
            asked: quoted(&echo.model),
            echo,
            watch: StreamWatch::default(),
            sequence: 0,
            begun: None,
            done: BytesMut::new(),
            kept_ids: Vec::new(),
        }
    }
}

impl stream::Tap for Tap {
    fn frame(&mut self, found: &RawFrame<'_>, out: &mut BytesMut) {
        let data = found.frame.data;
        if data.trim_ascii_start().first() != Some(&b'{') {
            return;
        }
        let Ok(event) = Event::read(data, found.frame.event) else {
            self.watch.error = Some(error_text::malformed("a stream event is not valid JSON"));
            return;
        };
        if event.is_error() {
            self.watch.error = Some(wire::error(&String::from_utf8_lossy(data)));
            return;
        }
        if let Some(response) = event.response {
            self.response(&event, response, found, out);
        } else {
            self.note(&event);
            pass_on(&event.kind, found, out);
        }
        // What is withheld leaves its number to what is written in its place.
        if let (Some(number), None) = (event.sequence, &self.watch.error) {
            self.sequence = number.saturating_add(1);
        }
    }

    fn cut(&mut self, _: &mut BytesMut) {
        self.watch.error = Some(truncated());
    }

    fn fail(&mut self, error: &PublicError, out: &mut BytesMut) {
        match &self.begun {
            Some((id, created)) => {
                let mut object = ResponseObject::new(&self.echo, "");
                object.id.clone_from(id);
                object.created = *created;
                error::write_failed(error, &object, &self.done, self.sequence, out);
            }
            None => out.extend_from_slice(&error::encode_stream(error)),
        }
    }

    fn encoder(&self) -> Box<dyn StreamEncoder> {
        Box::new(Encoder::new(self.echo.clone()))
    }

    fn watch(&self) -> &StreamWatch {
        &self.watch
    }

    fn kept_ids(&self) -> &[String] {
        &self.kept_ids
    }

    fn watch_mut(&mut self) -> &mut StreamWatch {
        &mut self.watch
    }
}

impl Tap {
    /// Takes note of an event that is about a part of the answer.
    fn note(&mut self, event: &Event<'_>) {
        if let Some(delta) = event.delta {
            let bytes = delta.len().saturating_sub(2) as u64;
            self.watch.meaningful |= bytes > 0;
            self.watch.output_bytes += bytes;
        }
        let Some(item) = event.item else { return };
        let is = |word: &str| memchr::memmem::find(item.as_bytes(), word.as_bytes()).is_some();
        let is_done = event.kind == "response.output_item.done";
        self.watch.meaningful |= is("_call\"") || (is_done && is("\"encrypted_content\":\""));
        if is_done && self.done.len() + item.len() < DEFAULT_FRAME_LIMIT {
            if !self.done.is_empty() {
                self.done.extend_from_slice(b",");
            }
            self.done.extend_from_slice(item.as_bytes());
        }
    }

    /// Passes on an event that has the whole answer in it.
    fn response(&mut self, event: &Event<'_>, response: &str, found: &RawFrame<'_>, out: &mut BytesMut) {
        let Ok(fields) = Fields::lenient(response, "") else {
            self.watch.error = Some(error_text::malformed("a response is not an object"));
            return;
        };
        match event.kind.strip_prefix("response.") {
            Some("failed" | "cancelled") => {
                self.watch.error = Some(wire::failure(&fields));
                return;
            }
            Some("completed" | "incomplete" | "done") => {
                let judged = judge(&fields);
                self.watch.usage = judged.usage;
                self.watch.finish = judged.finish;
                self.kept_ids = ids(&fields);
                self.watch.meaningful = true;
                self.watch.complete = true;
            }
            _ => {
                self.kept_ids = ids(&fields);
                let created = fields.raw("created_at").and_then(|raw| raw.get().parse::<f64>().ok());
                let id = wire::text(&fields, "id").unwrap_or_default();
                self.begun = Some((id, created.map_or(self.echo.created, |seconds| seconds as i64)));
            }
        }
        let data = found.frame.data;
        match fields.raw("model").map(RawValue::get) {
            Some(model) if !self.echo.model.is_empty() && model.as_bytes() != self.asked => {
                let start = model.as_ptr() as usize - data.as_ptr() as usize;
                let mut edited = BytesMut::with_capacity(data.len() + self.asked.len());
                edited.extend_from_slice(&data[..start]);
                edited.extend_from_slice(&self.asked);
                edited.extend_from_slice(&data[start + model.len()..]);
                write_frame(&event.kind, &edited, out);
            }
            _ => pass_on(&event.kind, found, out),
        }
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

fn quoted(text: &str) -> Bytes {
    let mut out = BytesMut::with_capacity(text.len() + 2);
    json_out::string(&mut out, text);
    out.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ir::ErrorKind,
        responses::Responses,
        stream::{Relay, StreamPipe as _},
    };

    fn echo(model: &str) -> Echo {
        Echo { model: model.into(), created: 1, ..Echo::default() }
    }

    fn relay(stream: &str, model: &str) -> (Relay<Tap>, String) {
        let mut relay = Relay::new(&Responses, Tap::new(echo(model)));
        let mut out = BytesMut::new();
        for piece in stream.as_bytes().chunks(7) {
            relay.push(piece, &mut out).unwrap();
        }
        relay.finish(&mut out).unwrap();
        (relay, String::from_utf8(out.to_vec()).unwrap())
    }

    fn frame(name: &str, rest: &str) -> String {
        format!("event: {name}\ndata: {{\"type\":\"{name}\",{rest}}}\n\n")
    }

    fn stream() -> Vec<String> {
        vec![
            frame(
                "response.created",
                r#""sequence_number":4,"response":{"id":"resp_9","created_at":7,"model":"up","output":[]}"#,
            ),
            frame(
                "response.output_text.delta",
                r#""sequence_number":5,"output_index":0,"delta":"\"model\":\"up\"""#,
            ),
            frame(
                "response.output_item.done",
                r#""sequence_number":6,"item":{"type":"message","content":[{"type":"output_text","text":"x"}]}"#,
            ),
            frame(
                "response.completed",
                r#""sequence_number":7,"response":{"status":"completed", "model":"up","output":[{"type":"function_call"}],"usage":{"input_tokens":3,"output_tokens":2}}"#,
            ),
        ]
    }

    #[test]
    fn a_stream_is_passed_on_with_the_asked_model() {
        let given = stream().concat();
        let (relay, out) = relay(&given, "a/b");
        assert_eq!(out, given.replace("\"model\":\"up\",\"output", "\"model\":\"a/b\",\"output"));
        let watch = relay.watch();
        assert!(watch.complete && watch.meaningful && watch.error.is_none());
        assert_eq!((watch.finish, watch.usage.input_uncached), (Some(FinishReason::ToolUse), Some(3)));
        assert_eq!(watch.output_bytes, 16);
        assert_eq!(super::tests::relay(&given, "up").1, given, "exact bytes");
        assert_eq!(super::tests::relay(&format!("{given}{given}"), "up").1, given, "nothing behind the end");
    }

    #[test]
    fn nameless_events_get_names_and_other_fields_go() {
        let (_, out) = relay(
            ": hi\nid: 1\ndata: {\"type\":\"response.output_text.delta\",\"delta\":\"x\"}\n\ndata: [DONE]\n\n",
            "m",
        );
        assert_eq!(
            out,
            "event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"delta\":\"x\"}\n\n"
        );
    }

    #[test]
    fn errors_are_withheld_and_an_end_is_never_made_up() {
        for (event, message) in [
            (frame("error", r#""code":"x","message":"busy""#), "busy"),
            (
                frame("response.failed", r#""response":{"error":{"code":"server_error","message":"broke"}}"#),
                "broke",
            ),
            ("data: {\"error\":{\"message\":\"no\"}}\n\n".to_owned(), "no"),
            (
                frame("response.failed", r#""response":{}"#),
                "the answer failed at the upstream, which does not say why",
            ),
        ] {
            let (relay, out) = relay(&event, "m");
            assert_eq!((out.as_str(), relay.watch().meaningful), ("", false));
            assert_eq!(relay.watch().error.as_ref().unwrap().message, message);
        }
        let begun = stream()[..2].concat();
        let (relay, out) = relay(&begun, "up");
        assert_eq!(out, begun);
        let error = relay.watch().error.as_ref().unwrap();
        assert_eq!(error.code.as_deref(), Some("upstream_stream_truncated"));
        let (relay, out) = super::tests::relay(&format!("{begun}event: x\ndata: {{\"type\":\n\n"), "up");
        assert_eq!(out, begun, "half an event is withheld");
        assert!(relay.watch().error.is_some());
    }

    #[test]
    fn an_error_goes_on_with_the_answer_that_began() {
        let error = PublicError {
            kind: ErrorKind::RateLimited,
            code: None,
            message: "slow".to_owned(),
            param: None,
            request_id: "r".to_owned(),
            attempts: Vec::new(),
            retry_at: None,
        };
        let mut out = BytesMut::new();
        let failed =
            frame("response.failed", r#""sequence_number":7,"response":{"error":{"message":"broke"}}"#);
        for last in ["", &failed] {
            let (mut begun, _) = relay(&(stream()[..3].concat() + last), "asked");
            out.clear();
            begun.fail(&error, &mut out);
            let text = std::str::from_utf8(&out).unwrap();
            assert!(text.starts_with(
                "event: response.failed\ndata: {\"type\":\"response.failed\",\"sequence_number\":7,\"response\":{\"id\":\"resp_9\",\"object\":\"response\",\"created_at\":7,\"status\":\"failed\",\"error\":{\"code\":\"rate_limit_exceeded\",\"message\":\"slow\"}"
            ), "{text}");
            assert!(
                text.contains(
                    r#""output":[{"type":"message","content":[{"type":"output_text","text":"x"}]}]"#
                )
            );
        }
        let (mut silent, _) = relay("", "asked");
        out.clear();
        silent.fail(&error, &mut out);
        assert!(out.starts_with(b"event: error\n"));
    }

    #[test]
    fn a_document_in_place_of_a_stream_becomes_one() {
        let body = "{\n \"id\":\"resp_1\",\"status\":\"completed\",\"output\":[{\"type\":\"message\",\"content\":[{\"type\":\"output_text\",\"text\":\"Hi\"}]}]}";
        let (relay, out) = relay(body, "asked");
        assert!(
            relay.watch().complete
                && out.contains("\"delta\":\"Hi\"")
                && out.contains("event: response.completed")
        );
        let failed = "{\"status\":\"failed\",\"error\":{\"message\":\"no\"},\"output\":[]}";
        assert_eq!(super::tests::relay(failed, "m").0.watch().error.as_ref().unwrap().message, "no");
        assert!(super::tests::relay("<html><body>Bad gateway</body></html>", "m").0.watch().error.is_some());
    }

    #[test]
    fn whole_answers_keep_their_bytes() {
        let body = Bytes::from_static(
            br#"{"id":"resp_1", "error":null,"model":"up","status":"completed","output":[{"type":"message","content":[{"type":"output_text","text":"\u00e9"}]}],"usage":{"input_tokens":3,"output_tokens":1}}"#,
        );
        let same = whole(&body, &echo("up")).unwrap();
        assert!(same.body.is_untouched() && same.meaningful && same.error.is_none());
        assert_eq!((same.usage.output_total, same.finish), (Some(1), Some(FinishReason::Stop)));
        let edited = whole(&body, &echo("a/b")).unwrap().body.to_bytes();
        assert_eq!(edited, String::from_utf8_lossy(&body).replace("\"up\"", "\"a/b\""));

        let empty = Bytes::from_static(br#"{"status":"completed","output":[ ],"usage":{"output_tokens":0}}"#);
        assert!(!whole(&empty, &echo("m")).unwrap().meaningful);
        let failed = Bytes::from_static(
            br#"{"status":"failed","output":[{}],"error":{"code":"server_error","message":"no"}}"#,
        );
        assert_eq!(whole(&failed, &echo("m")).unwrap().error.unwrap().status, Some(500));
        for body in ["", "<html></html>", "[1]"] {
            assert!(whole(&Bytes::from_static(body.as_bytes()), &echo("m")).is_err());
        }
    }
}
