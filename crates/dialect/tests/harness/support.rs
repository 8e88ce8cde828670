//! Fixtures, and the ways through a dialect that tests take.

use std::{fs, path::PathBuf};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use omniroute_dialect::{
    Caps, DecodeError, Dialect, Echo, EncodeError, Head,
    ir::{ChatRequest, Effort, Loss},
    registry::DIALECTS,
    shape::Shape,
    stream::{StreamPipe, StreamWatch, Transcoder},
};
use serde_json::Value;

/// One file of a fixture.
pub(crate) struct Fixture {
    pub(crate) dialect: &'static dyn Dialect,
    pub(crate) case: String,
    pub(crate) body: Bytes,
}

impl Fixture {
    /// `openai/plain`.
    pub(crate) fn name(&self) -> String {
        format!("{}/{}", self.dialect.id(), self.case)
    }
}

/// All files of this name, for every dialect; there must be some.
pub(crate) fn fixtures(file: &str) -> Vec<Fixture> {
    let found = all(file);
    assert!(!found.is_empty());
    found
}

fn all(file: &str) -> Vec<Fixture> {
    let mut found = Vec::new();
    for dialect in DIALECTS.iter().copied() {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(dialect.id().as_str());
        let mut cases: Vec<_> = fs::read_dir(&folder)
            .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
            .map(|entry| entry.unwrap().path())
            .collect();
        cases.sort();
        for case in cases {
            assert!(case.join("origin.txt").is_file(), "{} does not say where it comes from", case.display());
            if let Ok(body) = fs::read(case.join(file)) {
                let case = case.file_name().unwrap().to_string_lossy().into_owned();
                found.push(Fixture { dialect, case, body: body.into() });
            }
        }
    }
    found
}

/// All recorded streams, in the framing of their dialects.
pub(crate) fn recorded() -> Vec<Fixture> {
    let mut found = fixtures("stream.sse");
    found.extend(all("stream.ndjson"));
    found
}

/// Whether a client's stream has its dialect's proper end.
pub(crate) fn has_end(client: &dyn Dialect, stream: &str) -> bool {
    let marks: &[&str] = match client.id().as_str() {
        "openai" => &["data: [DONE]"],
        "anthropic" => &["\"message_stop\""],
        "responses" => &["event: response.completed", "event: response.incomplete"],
        "gemini" => &["\"finishReason\""],
        "ollama" => &["\"done\":true"],
        other => panic!("how does a stream of {other} end?"),
    };
    marks.iter().any(|mark| stream.contains(mark))
}

/// Whether streams of a dialect say that nothing follows. Where they do not, an answer is complete when it said why it
/// ended and the upstream closed.
pub(crate) fn has_mark_of_the_end(dialect: &dyn Dialect) -> bool {
    dialect.id().as_str() != "gemini"
}

/// One file of one case.
pub(crate) fn fixture(dialect: &str, case: &str, file: &str) -> Bytes {
    let name = format!("{dialect}/{case}");
    fixtures(file).into_iter().find(|fixture| fixture.name() == name).unwrap().body
}

/// The dialect with this id.
pub(crate) fn dialect(id: &str) -> &'static dyn Dialect {
    omniroute_dialect::registry::by_name(id).unwrap()
}

/// A model that can do all that its dialect can say.
pub(crate) fn full_caps() -> Caps {
    use Effort::{High, Low, Max, Medium, Minimal, XHigh};
    Caps {
        prefill: true,
        web_search: true,
        fast: true,
        custom_tools: true,
        developer_role: true,
        mid_conversation_system: true,
        max_completion_tokens: true,
        efforts: &[Minimal, Low, Medium, High, XHigh, Max],
        ..Caps::permissive()
    }
}

/// Compares with what was seen before.
pub(crate) fn snapshot(name: String, text: &str) {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("../snapshots");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!(name, text));
}

/// What answers repeat in tests.
pub(crate) fn echo() -> Echo {
    Echo {
        model: "asked/model".into(),
        request_id: "request-1".into(),
        created: 1_700_000_000,
        include_usage: true,
        estimated_input_tokens: 42,
        ..Echo::default()
    }
}

/// Reads a client's request.
pub(crate) fn decode(dialect: &dyn Dialect, body: &str) -> Result<ChatRequest, DecodeError> {
    let headers = HeaderMap::new();
    dialect.decode_request(
        // Some dialects name the model in the path.
        Head { headers: &headers, path: "/v1beta/models/fixture/model:generateContent", query: None },
        &Bytes::copy_from_slice(body.as_bytes()),
    )
}

/// A request of one dialect as the body for another, and the losses.
pub(crate) fn translate(
    from: &str,
    to: &str,
    body: &Value,
    caps: &Caps,
) -> Result<(Value, Vec<Loss>), EncodeError> {
    let mut request = decode(dialect(from), &body.to_string()).unwrap();
    request.model = "up".to_owned();
    let encoded = dialect(to).encode_request(&request, caps)?;
    Ok((serde_json::from_slice(&encoded.body).unwrap(), encoded.losses))
}

/// The paths of the losses that the client is told of.
pub(crate) fn told(losses: &[Loss]) -> Vec<&str> {
    losses.iter().filter(|loss| !loss.silent).map(|loss| &*loss.path).collect()
}

/// Losses, one per line.
pub(crate) fn list(losses: &[Loss]) -> String {
    let lines = losses.iter().map(|loss| {
        let note = if loss.silent { " (quiet)" } else { "" };
        format!("{} {}{note}\n", loss.action.as_str(), loss.path)
    });
    lines.collect()
}

/// JSON with indentation.
pub(crate) fn pretty(body: &[u8]) -> String {
    let value: Value = serde_json::from_slice(body).unwrap();
    serde_json::to_string_pretty(&value).unwrap()
}

/// The pipe between an upstream and a client.
pub(crate) fn pipe(
    upstream: &'static dyn Dialect,
    client: &'static dyn Dialect,
    echo: Echo,
) -> Box<dyn StreamPipe> {
    if upstream.id() == client.id() {
        client.stream_relay(echo)
    } else {
        Box::new(Transcoder::new(upstream, client, echo, Shape::none(upstream)))
    }
}

/// What a client gets of a stream that comes in these pieces.
pub(crate) fn run<'a>(
    mut pipe: Box<dyn StreamPipe>,
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> (String, StreamWatch) {
    let mut out = BytesMut::new();
    for piece in pieces {
        pipe.push(piece, &mut out).unwrap();
    }
    pipe.finish(&mut out).unwrap();
    (String::from_utf8(out.to_vec()).unwrap(), pipe.watch().clone())
}

/// The stream of one dialect as a client of another gets it.
pub(crate) fn stream(upstream: &str, client: &str, input: &str) -> (String, StreamWatch) {
    run(pipe(dialect(upstream), dialect(client), echo()), [input.as_bytes()])
}

/// The data of the events of a stream as JSON; the closing mark of streams that have one as a string.
pub(crate) fn events(stream: &str) -> Vec<Value> {
    let lines = stream.lines().filter_map(|line| line.strip_prefix("data: "));
    lines.map(|data| serde_json::from_str(data).unwrap_or_else(|_| data.into())).collect()
}

/// A stream of chunks with these deltas.
pub(crate) fn chunks(deltas: &[Value]) -> String {
    let mut stream = String::new();
    for delta in deltas {
        let chunk = if delta.get("choices").is_some() || delta.get("error").is_some() {
            delta.clone()
        } else {
            let finish = delta.get("finish").cloned().unwrap_or(Value::Null);
            let delta = if finish.is_null() { delta.clone() } else { serde_json::json!({}) };
            serde_json::json!({"id": "chatcmpl-1", "model": "up", "choices": [
                {"index": 0, "delta": delta, "finish_reason": finish}]})
        };
        stream.push_str(&format!("data: {chunk}\n\n"));
    }
    stream
}

/// A stream of named events.
pub(crate) fn named(events: &[Value]) -> String {
    events
        .iter()
        .map(|event| format!("event: {}\ndata: {event}\n\n", event["type"].as_str().unwrap()))
        .collect()
}
