//! What a file of bodies holds: JSON of at most [`MAX_BYTES`]. Bodies that are JSON are members of it as they are; others,
//! and those that had to be cut, are strings.

use std::collections::BTreeMap;

use bytes::Bytes;
use omniroute_engine::bodies::{BodySummary, Copied, RequestBodies};
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::redact::Redaction;
use crate::text::to_hex;

/// Most bytes of a file before it is compressed.
pub(super) const MAX_BYTES: usize = 512 * 1024;
const SCHEMA_VERSION: u32 = 1;
/// What a body takes at least, however many there are: a note that it was cut.
const LEAST: usize = 1_024;
/// What the note around a cut text takes.
const CUT_NOTE: usize = 96;
/// What may be behind the last whole word of a body of which the end is missing: half of a secret.
const RAGGED: usize = 4_096;

/// A file of bodies.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Document {
    /// The form of the file.
    pub schema_version: u32,
    /// What the row says, in short.
    pub summary: Box<RawValue>,
    /// What the client sent.
    pub request_body: Option<Box<RawValue>>,
    /// What it got.
    pub response_body: Option<Box<RawValue>>,
    /// What went wrong in the end.
    pub error: Option<Box<RawValue>>,
    /// What was around the bodies, and the last upstream's.
    pub pipeline: Pipeline,
}

/// What was around the bodies, and the last upstream's.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Pipeline {
    /// The client's request, without its body.
    pub client_request: Message,
    /// What was sent to the last upstream.
    pub provider_request: Option<Message>,
    /// What that answered.
    pub provider_response: Option<Message>,
    /// The client's answer, without its body.
    pub client_response: Message,
}

/// One message: what it has of these.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Message {
    /// HTTP method.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// Of a client's request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Of a client's request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
    /// Where a request to an upstream was sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Of an answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// By name; a credential shows only that it was there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub headers: Option<BTreeMap<String, String>>,
    /// Bytes of files behind the body.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attached_bytes: Option<u64>,
    /// Its body.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<Box<RawValue>>,
}

/// Writes the file of a request.
pub(super) fn write(bodies: &RequestBodies, redaction: &Redaction<'_>) -> serde_json::Result<Vec<u8>> {
    let call = bodies.call.as_deref();
    let mut document = Document {
        schema_version: SCHEMA_VERSION,
        summary: to_raw_value(&summary(bodies, redaction))?,
        request_body: None,
        response_body: None,
        error: error(&bodies.summary, redaction)?,
        pipeline: Pipeline {
            client_request: Message {
                method: Some(bodies.summary.method.to_string()),
                path: Some(redaction.text(&bodies.summary.path).into_owned()),
                query: bodies.query.as_deref().map(|query| redaction.query(query)),
                headers: Some(redaction.headers(&bodies.headers)),
                ..Message::default()
            },
            provider_request: call.map(|call| Message {
                method: Some(call.method.to_string()),
                url: Some(redaction.uri(&call.uri)),
                headers: Some(redaction.headers(&call.headers)),
                attached_bytes: (call.attached > 0).then_some(call.attached),
                ..Message::default()
            }),
            provider_response: call.and_then(|call| call.head.as_ref()).map(|(status, headers)| Message {
                status: Some(status.as_u16()),
                headers: Some(redaction.headers(headers)),
                ..Message::default()
            }),
            client_response: Message { status: Some(bodies.summary.status), ..Message::default() },
        },
    };
    let texts = [
        Some(&bodies.request),
        Some(&bodies.response),
        call.map(|call| &call.request),
        call.filter(|call| call.head.is_some()).map(|call| &call.response),
    ]
    .map(|body| body.and_then(|body| Written::of(body, redaction)));
    let room =
        MAX_BYTES.saturating_sub(serde_json::to_vec(&document)?.len() + 4 * "\"responseBody\":,".len());
    let rooms = share(room, &texts.each_ref().map(|text| text.as_ref().map_or(0, Written::length)));
    let [request, response, sent, heard] = texts;
    let fitted = |body: Option<Written>, room: usize| body.map(|body| body.fit(room)).transpose();
    document.request_body = fitted(request, rooms[0])?;
    document.response_body = fitted(response, rooms[1])?;
    if let Some(message) = &mut document.pipeline.provider_request {
        message.body = fitted(sent, rooms[2])?;
    }
    if let Some(message) = &mut document.pipeline.provider_response {
        message.body = fitted(heard, rooms[3])?;
    }
    serde_json::to_vec(&document)
}

fn summary(bodies: &RequestBodies, redaction: &Redaction<'_>) -> Value {
    let BodySummary { request_id, request_type, status, stream, duration_ms, attempts, .. } = &bodies.summary;
    let row = &bodies.summary;
    json!({
        "id": bodies.id.to_string(),
        "timestamp": bodies.id.timestamp_ms(),
        "requestId": redaction.text(request_id),
        "method": row.method.as_str(),
        "path": redaction.text(&row.path),
        "requestType": request_type,
        "status": status,
        "stream": stream,
        "requestedModel": redaction.text(&row.requested_model),
        "model": redaction.text(&row.model),
        "provider": row.provider.as_ref().map(|id| id.as_str()),
        "connectionId": row.connection.as_ref().map(|id| id.as_str()),
        "apiKeyId": row.api_key.as_ref().map(|id| id.as_str()),
        "sourceFormat": row.client_dialect.as_str(),
        "targetFormat": row.upstream_dialect.map(|dialect| dialect.as_str()),
        "durationMs": duration_ms,
        "attempts": attempts,
    })
}

fn error(summary: &BodySummary, redaction: &Redaction<'_>) -> serde_json::Result<Option<Box<RawValue>>> {
    let Some(message) = &summary.error else { return Ok(None) };
    let message = &message[..message.floor_char_boundary(2_000)];
    let code = summary.error_code.as_deref().map(|code| redaction.text(code));
    to_raw_value(&json!({"message": redaction.text(message), "code": code})).map(Some)
}

/// A body as it will be written, unless it is too long.
enum Written {
    /// A JSON document; `whole` are the bytes of the body as it came.
    Json { json: Box<RawValue>, whole: u64 },
    /// A text, the whole or a part.
    Text { text: String, whole: u64, is_part: bool },
    /// What is said instead of bytes that are no text.
    Note(Box<RawValue>),
}

impl Written {
    /// `None` where there was no body.
    fn of(body: &Copied, redaction: &Redaction<'_>) -> Option<Self> {
        if body.is_empty() {
            return None;
        }
        let whole = body.length();
        let note = |value: Value| to_raw_value(&value).ok().map(Self::Note);
        let bytes = body.to_bytes();
        if bytes.is_empty() {
            return note(
                json!({"omitted": "a form with files; of its bytes nothing is kept", "bytes": whole}),
            );
        }
        let is_part = (bytes.len() as u64) < whole;
        let Some(text) = text_of(&bytes, is_part) else {
            let digest = Sha256::digest(&bytes);
            let digest = (!is_part).then(|| to_hex(&digest)[..16].to_owned());
            return note(json!({"omitted": "bytes that are no text", "bytes": whole, "sha256": digest}));
        };
        let text = redaction.text(text);
        if !is_part && let Ok(json) = serde_json::from_str::<Box<RawValue>>(&text) {
            return Some(Self::Json { json, whole });
        }
        Some(Self::Text { text: text.into_owned(), whole, is_part })
    }

    /// Bytes that it takes in the file.
    fn length(&self) -> usize {
        match self {
            Self::Json { json, .. } | Self::Note(json) => json.get().len(),
            Self::Text { text, is_part, .. } => quoted_length(text) + if *is_part { CUT_NOTE } else { 0 },
        }
    }

    /// Within so many bytes.
    fn fit(self, room: usize) -> serde_json::Result<Box<RawValue>> {
        let fits = self.length() <= room;
        let (text, whole) = match self {
            Self::Note(json) => return Ok(json),
            Self::Json { json, .. } if fits => return Ok(json),
            Self::Text { text, is_part: false, .. } if fits => return to_raw_value(&text),
            Self::Json { json, whole } => (json.get().to_owned(), whole),
            Self::Text { text, whole, .. } => (text, whole),
        };
        let kept = prefix(&text, room.saturating_sub(CUT_NOTE));
        to_raw_value(&json!({"truncated": true, "bytes": whole, "text": kept}))
    }
}

/// The body as a text, if it is one. Of one whose end is missing the last word is left out: it may be half a secret.
fn text_of(bytes: &Bytes, is_part: bool) -> Option<&str> {
    let text = match str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) if is_part && error.error_len().is_none() => {
            str::from_utf8(&bytes[..error.valid_up_to()]).ok()?
        }
        Err(_) => return None,
    };
    if !is_part {
        return Some(text);
    }
    let tail = text.ceil_char_boundary(text.len().saturating_sub(RAGGED));
    let end = text[tail..]
        .rfind(|c: char| c.is_whitespace() || "\",{}[]:".contains(c))
        .map_or(tail, |at| tail + at);
    Some(&text[..end])
}

/// Bytes of the text as a JSON string.
fn quoted_length(text: &str) -> usize {
    2 + text.bytes().map(quoted_byte).sum::<usize>()
}

const fn quoted_byte(byte: u8) -> usize {
    match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 0x08 | 0x0c => 2,
        0..=0x1f => 6,
        _ => 1,
    }
}

/// As much of the text as takes so many bytes in a JSON string.
fn prefix(text: &str, room: usize) -> &str {
    let mut left = room.saturating_sub(2);
    let end = text.bytes().position(|byte| match left.checked_sub(quoted_byte(byte)) {
        Some(rest) => {
            left = rest;
            false
        }
        None => true,
    });
    &text[..text.floor_char_boundary(end.unwrap_or(text.len()))]
}

/// Divides the room: who needs less than an equal share leaves the rest to the others.
fn share(room: usize, wanted: &[usize; 4]) -> [usize; 4] {
    let mut given = [0; 4];
    let mut order = [0, 1, 2, 3];
    order.sort_unstable_by_key(|place| wanted[*place]);
    let mut left = room;
    for (at, place) in order.into_iter().enumerate() {
        let equal = left / (4 - at);
        given[place] = wanted[place].min(equal.max(LEAST));
        left = left.saturating_sub(given[place]);
    }
    given
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;

    use http::{HeaderMap, Method, StatusCode};
    use omniroute_domain::entity::Entities;
    use omniroute_domain::health::HealthMap;
    use omniroute_domain::snapshot::{BuildOptions, Snapshot};
    use omniroute_engine::bodies::CallBodies;
    use omniroute_engine::ports::RowId;
    use omniroute_provider::catalog::catalog;

    use super::super::redact::Redactor;
    use super::*;

    pub(in super::super) fn copied(text: &str) -> Copied {
        Copied::whole(&[Bytes::copy_from_slice(text.as_bytes())])
    }

    pub(in super::super) fn bodies(id: RowId, request: &str, response: &str) -> RequestBodies {
        let options = BuildOptions::default();
        let snapshot = Snapshot::build(&Entities::default(), catalog(), &HealthMap::default(), &options);
        RequestBodies {
            id,
            summary: BodySummary {
                request_id: "req_1".into(),
                method: Method::POST,
                path: "/v1/chat/completions".into(),
                request_type: "chat",
                status: 502,
                stream: false,
                requested_model: "a/b".into(),
                model: "b".into(),
                provider: None,
                connection: None,
                api_key: None,
                client_dialect: omniroute_dialect::registry::DIALECTS[0].id(),
                upstream_dialect: None,
                duration_ms: 5,
                attempts: 1,
                error: Some("it \"broke\"".into()),
                error_code: Some("upstream_error".into()),
            },
            query: None,
            headers: HeaderMap::new(),
            request: copied(request),
            response: copied(response),
            call: None,
            snapshot: Arc::new(snapshot),
        }
    }

    fn written(bodies: &RequestBodies) -> Value {
        let mut redactor = Redactor::default();
        let bytes = write(bodies, &redactor.of(bodies).unwrap()).unwrap();
        assert!(bytes.len() <= MAX_BYTES, "{}", bytes.len());
        serde_json::from_slice(&bytes).unwrap()
    }

    fn id() -> RowId {
        RowId::new(1_767_323_045_678, [7; 10])
    }

    #[test]
    fn bodies_are_members_as_they_are_and_streams_are_texts() {
        let file = written(&bodies(id(), r#"{"b": 1, "a": 1.50}"#, "data: {\"x\":1}\n\n"));
        assert_eq!(file["schemaVersion"], 1);
        assert_eq!(file["requestBody"], json!({"b": 1, "a": 1.5}));
        assert_eq!(file["responseBody"], "data: {\"x\":1}\n\n");
        assert_eq!(file["error"], json!({"message": "it \"broke\"", "code": "upstream_error"}));
        assert_eq!(file["summary"]["timestamp"], 1_767_323_045_678_i64);
        assert_eq!(file["pipeline"]["clientResponse"], json!({"status": 502}));
        assert_eq!(file["pipeline"]["providerRequest"], Value::Null);
    }

    #[test]
    fn what_is_too_long_is_cut_and_says_so() {
        let long = format!("{{\"text\":\"{}\"}}", "words \\\" of all kinds ".repeat(40_000));
        let short = r#"{"a":"short"}"#;
        let mut all = bodies(id(), &long, short);
        all.call = Some(Box::new(CallBodies {
            method: Method::POST,
            uri: "https://x.example/v1".parse().unwrap(),
            headers: HeaderMap::new(),
            request: copied(&long),
            attached: 0,
            head: Some((StatusCode::OK, HeaderMap::new())),
            response: copied(short),
        }));
        let file = written(&all);
        let sent = &file["pipeline"]["providerRequest"]["body"];
        for cut in [&file["requestBody"], sent] {
            assert_eq!((&cut["truncated"], &cut["bytes"]), (&json!(true), &json!(long.len())));
            let text = cut["text"].as_str().unwrap();
            assert!(long.starts_with(text) && text.len() > 150_000, "{}", text.len());
        }
        assert_eq!(file["responseBody"], json!({"a": "short"}));
        assert_eq!(file["pipeline"]["providerResponse"]["body"], json!({"a": "short"}));
        // With nobody to share with, one body has nearly all.
        let file = written(&bodies(id(), &long, ""));
        assert!(file["requestBody"]["text"].as_str().unwrap().len() > 450_000);
        assert_eq!(file["responseBody"], Value::Null);
        // Its length is that of what came, not of what was left of it.
        let key = format!("{{\"api_key\":\"{}\",{}", "k".repeat(1_000), &long[1..]);
        let file = written(&bodies(id(), &key, ""));
        assert_eq!(file["requestBody"]["bytes"], key.len());
        // However much has to be escaped.
        let file = written(&bodies(id(), &"\u{1}é".repeat(200_000), &"\\".repeat(600_000)));
        assert_eq!(file["responseBody"]["bytes"], 600_000);
    }

    #[test]
    fn what_came_without_its_end_has_no_half_words() {
        // Half of the secret is within what is copied.
        let text = format!("{}sk-half-a-secret", "a ".repeat(256 * 1024 - 6));
        let length = text.len();
        let whole = Copied::whole(&[Bytes::from(text), Bytes::from(vec![b'x'; 9 * 1024 * 1024])]);
        let mut all = bodies(id(), "", "");
        all.request = whole;
        let file = written(&all);
        assert_eq!(file["requestBody"]["truncated"], true);
        assert!(!file.to_string().contains("sk-"));
        assert_eq!(file["requestBody"]["bytes"], 9 * 1024 * 1024 + length);
    }

    #[test]
    fn bytes_that_are_no_text_are_described() {
        let mut all = bodies(id(), "", "");
        all.response = Copied::whole(&[Bytes::from_static(b"ID3\x04\xff\xfe\x00")]);
        all.request = Copied::omitted(1_234);
        let file = written(&all);
        assert_eq!(
            (&file["responseBody"]["bytes"], &file["requestBody"]["bytes"]),
            (&json!(7), &json!(1_234))
        );
        assert!(file["responseBody"]["sha256"].is_string());
    }

    #[test]
    fn the_room_goes_to_those_who_need_it() {
        assert_eq!(share(100_000, &[10, 20, 30, 40]), [10, 20, 30, 40]);
        assert_eq!(share(100_000, &[90_000, 10_000, 0, 0]), [90_000, 10_000, 0, 0]);
        assert_eq!(share(100_000, &[90_000, 90_000, 0, 10_000]), [45_000, 45_000, 0, 10_000]);
    }
}
