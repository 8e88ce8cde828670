//! What every dialect must hold to, whatever bytes it is given.
//!
//! One function for each kind of bytes from outside: [`request`], [`answer`], [`stream`]. They panic where a promise is
//! broken. The targets in `fuzz/` and the tests over its corpus call them.

use std::iter::once;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode};
use omniroute_wire::splice::Splice;

use crate::{
    Caps, Dialect, Echo, GeminiCaps, Head,
    ir::{BlockKind, ChatRequest, Native, Tool, ToolKind, Usage, WebSearchTool},
    registry::DIALECTS,
    shape::Shape,
    stream::{
        EventSink, GrammarCheck, Intake, MAX_PAUSES, StreamCollector, StreamError, StreamEvent, StreamPipe,
        Transcoder,
    },
};

/// A body from a client: what can be read can be written for every upstream or is refused, what was written can be
/// read, and what is relayed stays a request for the model that it is sent to.
pub fn request(dialect: &'static dyn Dialect, data: &[u8]) {
    let body = Bytes::copy_from_slice(data);
    let headers = HeaderMap::new();
    // Some dialects name the model in the path.
    let head = Head { headers: &headers, path: "/v1beta/models/m:generateContent", query: None };
    relayed_request(dialect, head, &body);
    let _ = dialect.decode_count(head, &body);
    // Ollama has an older form, at a path of its own.
    let older = dialect.decode_request(Head { path: "/api/generate", ..head }, &body);
    if let Ok(older) = older {
        for target in DIALECTS {
            let _ = target.encode_request(&older, &Caps::permissive());
        }
    }
    let Ok(mut request) = dialect.decode_request(head, &body) else { return };
    let read = |body| dialect.decode_request(head, body).expect("what was written can be read");
    if let Some(first) = written(dialect, &request) {
        // Superseded forms are written in the current one, which then stays as it is.
        let second = written(dialect, &read(&first)).expect("what was read can be written");
        let third = written(dialect, &read(&second)).expect("what was read can be written");
        assert_eq!(second, third, "it says the same when it is read again");
    }
    for target in DIALECTS.iter().copied() {
        for_target(target, head, &request);
    }
    // As if it came from elsewhere: nothing may be taken over unread.
    request.extras.origin = None;
    for_target(dialect, head, &request);
}

/// An upstream's whole answer: what can be read can be written for every client, and read there.
pub fn answer(dialect: &'static dyn Dialect, data: &[u8]) {
    let body = Bytes::copy_from_slice(data);
    for legacy in [false, true] {
        if let Ok(relayed) = dialect.relay_response(&body, &Echo { legacy, ..echo() }) {
            whole(&relayed.body);
            whole(&dialect.supply_usage(&relayed.body.to_bytes(), &Usage::default()));
        }
    }
    for status in [StatusCode::BAD_REQUEST, StatusCode::TOO_MANY_REQUESTS, StatusCode::BAD_GATEWAY] {
        let error = dialect.decode_error(status, data);
        assert!(error.message.len() <= data.len() + 1_000, "an error has no more text than it came with");
    }
    let Ok(response) = dialect.decode_response(&body) else { return };
    for client in DIALECTS {
        let written = client.encode_response(&response, &echo()).body;
        if let Err(error) = client.decode_response(&written) {
            panic!("{} cannot read its own answer: {error}: {}", client.id(), written.escape_ascii());
        }
    }
}

/// An upstream's stream: events are well-nested and end once, the cuts do not matter, and what any client is written
/// is a stream of its dialect.
pub fn stream(dialect: &'static dyn Dialect, data: &[u8]) {
    let whole = events(dialect, &mut once(data));
    let piped = through(dialect.stream_relay(echo()), &mut once(data));
    for size in [1, 7] {
        assert_eq!(events(dialect, &mut data.chunks(size)), whole, "in pieces of {size}");
        let cut = through(dialect.stream_relay(echo()), &mut data.chunks(size));
        assert_eq!(cut, piped, "relayed in pieces of {size}");
    }
    let _ = through(dialect.stream_relay(Echo { legacy: true, ..echo() }), &mut once(data));
    for client in DIALECTS.iter().copied().filter(|client| client.id() != dialect.id()) {
        let transcoder = Transcoder::new(dialect, client, echo(), Shape::none(dialect));
        let (result, out, complete, _) = through(Box::new(transcoder), &mut once(data));
        if result.is_ok() && complete {
            let read = events(client, &mut once(&out[..]));
            let ended =
                read.as_ref().is_ok_and(|events| events.iter().any(|event| event.starts_with("Finish")));
            assert!(ended, "{} cannot read its own stream: {read:?}", client.id());
        }
        resumed(dialect, client, data);
    }
    let mut collector = StreamCollector::new(dialect);
    if collector.push(data).is_ok() {
        let _ = collector.finish();
    }
}

/// A stream that goes on with the same bytes each time its upstream pauses: one stream for the client.
fn resumed(dialect: &'static dyn Dialect, client: &'static dyn Dialect, data: &[u8]) {
    let search = WebSearchTool {
        native: Native { origin: client.id(), raw: Vec::new() },
        allowed_domains: Vec::new(),
        blocked_domains: Vec::new(),
        max_uses: None,
        context_size: None,
        place: None,
    };
    let tool = Tool::at("", ToolKind::WebSearch(Box::new(search)));
    let request = ChatRequest { tools: vec![tool], ..ChatRequest::default() };
    let (_, shape) = Shape::of(&request, client, dialect, &Caps::permissive(), None);
    let mut pipe = Transcoder::new(dialect, client, echo(), shape).resumable();
    let mut out = BytesMut::new();
    for _ in 0..=MAX_PAUSES {
        if pipe.push(data, &mut out).is_err() || pipe.finish(&mut out).is_err() {
            return;
        }
        let Some(content) = pipe.take_paused() else { break };
        for block in content {
            let BlockKind::Opaque { origin, raw } = &block.kind else { panic!("{block:?}") };
            assert!(*origin == dialect.id() && raw.get().starts_with('{'), "{block:?}");
        }
        pipe.resume();
    }
    assert!(pipe.watch().is_over(), "it ends after so many pauses");
    if pipe.watch().complete {
        let read = events(client, &mut once(&out[..]));
        let ends = read.iter().flatten().filter(|event| event.starts_with("Finish")).count();
        assert_eq!(ends, 1, "{} cannot read its own stream: {read:?}", client.id());
    }
}

/// The parts that stand for a request on its way to an upstream of the client's own dialect.
fn relayed_request(dialect: &dyn Dialect, head: Head<'_>, body: &Bytes) {
    let Ok(envelope) = dialect.envelope(head, body) else { return };
    let edited = whole(&dialect.edit_request(body, &envelope, "up\"stream"));
    let again = dialect.envelope(head, &edited).expect("an edited request is still a request");
    assert_eq!(again.stream, envelope.stream);
    // Where the path names the model, the member goes.
    if again.spans.model.is_some() {
        assert_eq!(&*again.model, "up\"stream");
    }
    whole(&dialect.edit_count(body, "up\"stream"));
}

fn written(dialect: &dyn Dialect, request: &ChatRequest) -> Option<Bytes> {
    let encoded = dialect.encode_request(request, &Caps::permissive()).ok()?;
    Some(encoded.body)
}

fn for_target(target: &dyn Dialect, head: Head<'_>, request: &ChatRequest) {
    let able = Caps {
        prefill: true,
        adaptive_thinking: true,
        mid_conversation_system: true,
        custom_tools: true,
        max_completion_tokens: true,
        developer_role: true,
        web_search: true,
        ..Caps::permissive()
    };
    let old = Caps {
        max_output_tokens: Some(4_096),
        sampling: false,
        json_schema: false,
        gemini: GeminiCaps {
            json_schema: false,
            multimodal_results: false,
            system: false,
            schema_with_tools: false,
            ..GeminiCaps::permissive()
        },
        ..Caps::permissive()
    };
    for caps in [Caps::permissive(), able, old] {
        let Ok(encoded) = target.encode_request(request, &caps) else { continue };
        if let Err(error) = target.decode_request(head, &encoded.body) {
            panic!("{} cannot read its own request: {error}: {}", target.id(), encoded.body.escape_ascii());
        }
    }
}

/// A body that was edited; its pieces say the same.
fn whole(splice: &Splice) -> Bytes {
    let whole = splice.to_bytes();
    assert_eq!(whole.len(), splice.len());
    assert_eq!(splice.clone().into_pieces().concat(), whole);
    whole
}

fn echo() -> Echo {
    Echo { model: "asked".into(), request_id: "r".into(), include_usage: true, ..Echo::default() }
}

/// Events as text.
#[derive(Debug, Default)]
struct Log(Vec<String>);

impl EventSink for Log {
    fn event(&mut self, event: StreamEvent<'_>) -> Result<(), StreamError> {
        self.0.push(format!("{event:?}"));
        Ok(())
    }
}

/// Panics at the first event that is out of place.
struct Strict(GrammarCheck<Log>);

impl EventSink for Strict {
    fn event(&mut self, event: StreamEvent<'_>) -> Result<(), StreamError> {
        if let Err(error) = self.0.event(event) {
            panic!("{error}");
        }
        Ok(())
    }
}

fn events(
    dialect: &'static dyn Dialect,
    pieces: &mut dyn Iterator<Item = &[u8]>,
) -> Result<Vec<String>, StreamError> {
    let mut decoder = dialect.stream_decoder();
    let mut intake = Intake::new(dialect.framing());
    let mut check = Strict(GrammarCheck::new(Log::default()));
    for piece in pieces {
        intake.push(piece)?;
        while let Some(found) = intake.next_frame() {
            decoder.frame(found?.frame, &mut check)?;
        }
    }
    intake.finish();
    while let Some(found) = intake.next_frame() {
        decoder.frame(found?.frame, &mut check)?;
    }
    decoder.finish(&mut check)?;
    match check.0.finish() {
        Ok(log) => Ok(log.0),
        Err(error) => panic!("{error}"),
    }
}

/// What a client gets of a stream: how it went, the bytes, whether the upstream's stream was complete, and what else was
/// seen of it.
fn through(
    mut pipe: Box<dyn StreamPipe>,
    pieces: &mut dyn Iterator<Item = &[u8]>,
) -> (Result<(), StreamError>, Vec<u8>, bool, String) {
    let mut out = BytesMut::new();
    let mut result = Ok(());
    for piece in pieces {
        result = pipe.push(piece, &mut out);
        if result.is_err() {
            break;
        }
    }
    if result.is_ok() {
        result = pipe.finish(&mut out);
        if result.is_ok() {
            assert!(pipe.watch().is_over());
        }
    }
    (result, out.to_vec(), pipe.watch().complete, format!("{:?}", pipe.watch()))
}
