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
    ir::{PublicError, UpstreamError},
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
        "model" if member.raw.as_bytes() != asked => splice.replace(member.span, asked.clone()),
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
        meaningful: has_output || judged.usage.output_total.is_some_and(|tokens| tokens > 0),
        error: failure.map(wire::error),
    })
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
                refused |= item.raw("content").is_some_and(|raw| raw.get().contains("\"refusal\""))
            }
            _ => {}
        }
    }
    StreamWatch {
        usage: wire::usage(response.raw("usage").map_or("{}", RawValue::get)),
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
        if let Some(number) = event.sequence {
            self.sequence = number.saturating_add(1);
        }
        if let Some(response) = event.response {
            self.response(&event, response, found, out);
        } else {
            self.note(&event);
            pass_on(&event.kind, found, out);
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
        self.watch.meaningful |= is("_call\"") || is("\"encrypted_content\":\"");
        if event.kind == "response.output_item.done" && self.done.len() + item.len() < DEFAULT_FRAME_LIMIT {
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
                self.watch.error = Some(failure(&fields));
                return;
            }
            Some("completed" | "incomplete" | "done") => {
                let judged = judge(&fields);
                self.watch.usage = judged.usage;
                self.watch.finish = judged.finish;
                self.watch.meaningful = true;
                self.watch.complete = true;
            }
            _ => {
                let created = fields.raw("created_at").and_then(|raw| raw.get().parse::<f64>().ok());
                let id = wire::text(&fields, "id").unwrap_or_default();
                self.begun = Some((id, created.map_or(self.echo.created, |seconds| seconds as i64)));
            }
        }
        let data = found.frame.data;
        match fields.raw("model").map(RawValue::get) {
            Some(model) if model.as_bytes() != self.asked => {
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

fn failure(response: &Fields<'_>) -> UpstreamError {
    match response.raw("error") {
        Some(error) => wire::error(error.get()),
        None => UpstreamError {
            status: Some(502),
            message: "the answer failed at the upstream, which does not say why".to_owned(),
            ..UpstreamError::default()
        },
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
