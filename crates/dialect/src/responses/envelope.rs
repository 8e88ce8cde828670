//! What routing needs of a request, and the edits that a pass-through makes.

use std::borrow::Cow;

use bytes::Bytes;
use memchr::memmem;
use omniroute_wire::{
    envelope::{self, Member, as_str, as_u64},
    splice::Splice,
    text::kind_of,
};

use super::wire::ENCRYPTED;
use crate::{
    DecodeError, Envelope, Framing, Head, Kept, KeptName,
    client_body::{Basics, Edits, not_json},
    dialect::EnvelopeSpans,
    fingerprint::is_zero,
    json_in::{Fields, list_of, missing, str_of, wrong_type, wrong_value},
    service_tier::tier_of,
    shape,
};

/// Reads the envelope and makes the checks that need no decoding.
pub(super) fn read(head: Head<'_>, body: &Bytes) -> Result<Envelope, DecodeError> {
    let mut seen = Seen::default();
    let mut spans = EnvelopeSpans::default();
    let extent = envelope::scan_for(body, shape::MARKS, &mut |member| seen.take(member, &mut spans))
        .map_err(|error| not_json(&error))?;
    let spans = spans.within(&extent);

    let model = seen.basics.model()?;
    let stream = seen.basics.stream(head)?;
    seen.check_input()?;
    let session_key = seen.cache_key.and_then(as_str).filter(|key| !key.is_empty());
    Ok(Envelope {
        model,
        stream,
        include_usage: true,
        session_key: session_key.map(|key| key.into_owned()),
        max_output_tokens: seen.max_output_tokens.and_then(as_u64),
        legacy: false,
        framing: Framing::Sse,
        kept: seen.kept(),
        spans,
    })
}

/// The edits that make a client's request one for an upstream.
pub(super) fn edit(body: &Bytes, envelope: &Envelope, upstream_model: &str) -> Splice {
    let spans = &envelope.spans;
    let mut edits = Edits::of(body);
    edits.model(envelope, upstream_model);
    if envelope.stream {
        match spans.stream.clone() {
            None => edits.insert(spans.end, ",\"stream\":true"),
            Some(span) if body[span.clone()] == b"null"[..] => edits.replace(span, "true"),
            Some(_) => {}
        }
    }
    let says_store = spans.store.clone().map(|span| &body[span]);
    if !matches!(says_store, Some(b"true" | b"false")) {
        keep_nothing(body, spans, &mut edits);
    }
    edits.finish(spans)
}

/// Asks for an answer that is not kept, in the words of a client that did not care. The reasoning must come with it
/// then: what is not kept cannot be named in the next request.
fn keep_nothing(body: &Bytes, spans: &EnvelopeSpans, edits: &mut Edits<'_>) {
    let mut background = false;
    let mut reasons = false;
    let mut include = None;
    let scanned = envelope::scan(body, &mut |member| match &*member.key {
        "background" => background = member.raw == "true",
        "reasoning" => reasons = member.raw.starts_with('{'),
        "include" => include = Some((member.raw, member.span)),
        _ => {}
    });
    // An answer in the background is kept in any case: it is asked for later.
    if scanned.is_err() || background {
        return;
    }
    match spans.store.clone() {
        Some(span) => edits.replace(span, "false"),
        None => edits.insert(spans.end, ",\"store\":false"),
    }
    if !reasons {
        return;
    }
    match include {
        None => edits.insert(spans.end, format!(",\"include\":[\"{ENCRYPTED}\"]")),
        Some((raw, span)) => {
            let listed = serde_json::from_str(raw).ok().and_then(list_of).unwrap_or_default();
            if raw == "null" || (raw.starts_with('[') && listed.is_empty()) {
                edits.replace(span, format!("[\"{ENCRYPTED}\"]"));
            } else if !listed.is_empty()
                && !listed.iter().any(|one| str_of(one).as_deref() == Some(ENCRYPTED))
            {
                edits.insert(span.end - 1, format!(",\"{ENCRYPTED}\""));
            }
        }
    }
}

/// A name that stands alone or in an object.
fn id_of(raw: &str) -> Option<String> {
    if raw.starts_with('"') {
        return as_str(raw).map(Cow::into_owned);
    }
    Fields::lenient(raw, "").ok()?.raw("id").and_then(str_of).map(Cow::into_owned)
}

/// The raw values of the members that matter.
#[derive(Default)]
struct Seen<'a> {
    basics: Basics<'a>,
    input: Option<&'a str>,
    messages: bool,
    /// Members that name what is kept at the vendor, with their values.
    named: Vec<(&'static str, &'a str)>,
    /// Whether the client asked for an answer that is kept.
    keeps: bool,
    /// Whether it asked for one that is made in the background, which is kept too.
    background: bool,
    cache_key: Option<&'a str>,
    max_output_tokens: Option<&'a str>,
}

impl<'a> Seen<'a> {
    fn take(&mut self, member: Member<'a>, spans: &mut EnvelopeSpans) {
        if self.basics.take(&member, spans) {
            return;
        }
        match &*member.key {
            "input" => self.input = Some(member.raw).filter(|raw| *raw != "null"),
            "messages" => self.messages = true,
            "previous_response_id" => self.name("previous_response_id", member.raw),
            "conversation" => self.name("conversation", member.raw),
            "prompt" => self.name("prompt", member.raw),
            "background" => self.background = member.raw == "true",
            "prompt_cache_key" => self.cache_key = Some(member.raw),
            "max_output_tokens" => self.max_output_tokens = Some(member.raw),
            "reasoning" => spans.asks_to_reason = member.raw != "null",
            "temperature" => spans.is_cold = is_zero(member.raw),
            "service_tier" => spans.tier = tier_of(member.raw),
            "store" => {
                self.keeps |= member.raw == "true";
                spans.store = Some(member.span);
            }
            _ => {}
        }
    }

    fn name(&mut self, member: &'static str, raw: &'a str) {
        if raw != "null" {
            self.named.push((member, raw));
        }
    }

    /// Whether the conversation, or its beginning, is kept at the vendor.
    fn is_stored(&self) -> bool {
        !self.named.is_empty()
    }

    /// What the vendor keeps; names that cannot be read are left for it to refuse.
    fn kept(&self) -> Option<Box<Kept>> {
        let mut names: Vec<_> = self
            .named
            .iter()
            .filter_map(|(member, raw)| {
                let by_answer = *member == "previous_response_id";
                Some(KeptName { path: (*member).to_owned(), id: id_of(raw)?, by_answer })
            })
            .collect();
        let input = self.input.filter(|raw| memmem::find(raw.as_bytes(), b"\"item_reference\"").is_some());
        let items =
            input.and_then(|raw| serde_json::from_str(raw).ok()).and_then(list_of).unwrap_or_default();
        names.extend(items.iter().enumerate().filter_map(|(at, item)| {
            let item = Fields::lenient(item.get(), "").ok()?;
            let is_reference = item.raw("type").and_then(str_of).is_some_and(|kind| kind == "item_reference");
            let id = item.raw("id").and_then(str_of).filter(|_| is_reference)?;
            Some(KeptName { path: format!("input[{at}].id"), id: id.into_owned(), by_answer: true })
        }));
        let (answer, background) = (self.keeps || self.background, self.background);
        (answer || !names.is_empty()).then(|| Box::new(Kept { names, answer, background }))
    }

    fn check_input(&self) -> Result<(), DecodeError> {
        match self.input {
            None if self.is_stored() => Ok(()),
            None if self.messages => Err(DecodeError {
                message: "`input` is required; a body with `messages` belongs to /v1/chat/completions"
                    .to_owned(),
                ..missing("input")
            }),
            None => Err(missing("input")),
            Some(raw) if raw.starts_with('"') => {
                if raw.len() > 2 {
                    Ok(())
                } else {
                    Err(wrong_value("input", "a text or a list of items, not empty"))
                }
            }
            Some(raw) if !raw.starts_with('[') => Err(DecodeError {
                message: format!("`input` must be a text or a list, found {}", kind_of(raw)),
                ..wrong_type("input", "a text or a list of items")
            }),
            Some(raw) if raw[1..].trim_start().starts_with(']') && !self.is_stored() => {
                Err(wrong_value("input", "a list with at least one item"))
            }
            Some(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;

    fn envelope_of(body: &str) -> Result<Envelope, DecodeError> {
        let headers = HeaderMap::new();
        read(Head { headers: &headers, path: "", query: None }, &Bytes::copy_from_slice(body.as_bytes()))
    }

    fn edited(body: &str) -> String {
        let envelope = envelope_of(body).unwrap();
        let bytes = edit(&Bytes::copy_from_slice(body.as_bytes()), &envelope, "up").to_bytes();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    #[test]
    fn bodies_that_are_no_request_are_named() {
        for (body, code, param) in [
            ("{", "invalid_json", None),
            ("[]", "invalid_json", None),
            ("{}", "missing_required_parameter", Some("model")),
            (r#"{"model":"a"}"#, "missing_required_parameter", Some("input")),
            (r#"{"model":"a","model":"b","input":"x"}"#, "invalid_json", Some("model")),
            (r#"{"model":"a","stream":"yes","input":"x"}"#, "invalid_type", Some("stream")),
            (r#"{"model":"a","input":""}"#, "invalid_value", Some("input")),
            (r#"{"model":"a","input":[ ]}"#, "invalid_value", Some("input")),
            (r#"{"model":"a","input":7}"#, "invalid_type", Some("input")),
        ] {
            let error = envelope_of(body).unwrap_err();
            assert_eq!((error.code, error.param.as_deref()), (code, param), "{body}");
        }
        let chat = envelope_of(r#"{"model":"a","messages":[{}]}"#).unwrap_err();
        assert!(chat.message.contains("/v1/chat/completions"), "{}", chat.message);
        for member in
            ["\"previous_response_id\":\"r\"", "\"prompt\":{\"id\":\"p\"}", "\"conversation\":\"c\""]
        {
            assert!(envelope_of(&format!("{{\"model\":\"a\",{member}}}")).is_ok());
        }
    }

    #[test]
    fn the_envelope_tells_what_routing_needs() {
        let envelope = envelope_of(
            r#"{"input":"x","model":"a\u0062","stream":true,"max_output_tokens":7,"prompt_cache_key":"k"}"#,
        )
        .unwrap();
        assert_eq!(&*envelope.model, "ab");
        assert!(envelope.stream && envelope.include_usage && !envelope.legacy);
        assert_eq!((envelope.max_output_tokens, envelope.session_key.as_deref()), (Some(7), Some("k")));
    }

    #[test]
    fn what_the_vendor_keeps_is_named() {
        let name = |path: &str, id: &str, by_answer| KeptName { path: path.into(), id: id.into(), by_answer };
        let kept = |names: Vec<KeptName>, answer| Some(Box::new(Kept { names, answer, background: false }));
        let background = Kept { names: vec![], answer: true, background: true };
        for (members, expected) in [
            (r#""input":"x","store":false,"previous_response_id":null"#, None),
            (r#""input":"about \"item_reference\" and \"id\"""#, None),
            (r#""input":"x","store":true"#, kept(vec![], true)),
            (r#""input":"x","background":true,"store":false"#, Some(Box::new(background))),
            (r#""input":"x","background":false"#, None),
            (
                r#""previous_response_id":"resp_\u0031""#,
                kept(vec![name("previous_response_id", "resp_1", true)], false),
            ),
            (r#""conversation":"conv_1""#, kept(vec![name("conversation", "conv_1", false)], false)),
            (
                r#""conversation":{"id":"conv_1"},"prompt":{"version":"2","id":"pmpt_1"},"store":true"#,
                kept(vec![name("conversation", "conv_1", false), name("prompt", "pmpt_1", false)], true),
            ),
            (
                r#""input":[{"role":"user","content":"a"},{"type":"item_reference","id":"rs_1"},{"id":"msg_2","type":"message"}]"#,
                kept(vec![name("input[1].id", "rs_1", true)], false),
            ),
        ] {
            assert_eq!(
                envelope_of(&format!("{{\"model\":\"a\",{members}}}")).unwrap().kept,
                expected,
                "{members}"
            );
        }
    }

    #[test]
    fn edits_touch_nothing_else() {
        for (body, expected) in [
            (r#"{"model":"a","input":"x","t":1.0}"#, r#"{"model":"up","input":"x","t":1.0,"store":false}"#),
            (
                r#"{"client_metadata":{"a":1},"model":"a", "input":"\ud83d","store":false,"omniroute":1}"#,
                r#"{"model":"up", "input":"\ufffd","store":false}"#,
            ),
            (r#"{"model":"a","input":"x","store":true}"#, r#"{"model":"up","input":"x","store":true}"#),
            (
                r#"{"store":null,"model":"a","input":"x","stream":null}"#,
                r#"{"store":false,"model":"up","input":"x","stream":null}"#,
            ),
            (
                r#"{"model":"a","input":"x","background":true}"#,
                r#"{"model":"up","input":"x","background":true}"#,
            ),
            (
                r#"{"model":"a","input":"x","reasoning":{}}"#,
                r#"{"model":"up","input":"x","reasoning":{},"store":false,"include":["reasoning.encrypted_content"]}"#,
            ),
            (
                r#"{"include":["a"],"model":"a","input":"x","reasoning":{}}"#,
                r#"{"include":["a","reasoning.encrypted_content"],"model":"up","input":"x","reasoning":{},"store":false}"#,
            ),
            (
                r#"{"include":[ ],"model":"a","input":"x","reasoning":{}}"#,
                r#"{"include":["reasoning.encrypted_content"],"model":"up","input":"x","reasoning":{},"store":false}"#,
            ),
            (
                r#"{"include":["reasoning.encrypted_content"],"model":"a","input":"x","reasoning":{}}"#,
                r#"{"include":["reasoning.encrypted_content"],"model":"up","input":"x","reasoning":{},"store":false}"#,
            ),
        ] {
            assert_eq!(edited(body), expected);
        }
    }
}
