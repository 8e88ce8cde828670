//! Whole answers: from an upstream of this dialect, and for a client of it.

use std::borrow::Cow;

use bytes::{Bytes, BytesMut};
use omniroute_wire::{json_out::Object, sse::Frame};
use serde_json::value::RawValue;

use super::{
    Gemini, ID,
    grounding::Told,
    logprobs,
    stream::Decoder,
    wire::{self, CallOut, PartOut, finish_word},
};
use crate::{
    DecodeError, Echo, Encoded, arguments, error_text,
    ids::answer_id,
    ir::{
        Block, BlockKind, ChatResponse, Citation, FinishReason, Logprob, Loss, LossAction, MediaSource,
        UpstreamError, loss, quiet,
    },
    json_in::{self, Fields, list_of},
    stream::{Collector, StreamCollector, StreamDecoder as _},
};

/// Reads an answer. A whole answer is a piece of a stream that is the only one; a list of pieces is an answer too, and
/// so is a stream of events.
pub(super) fn decode(body: &Bytes) -> Result<ChatResponse, DecodeError> {
    let text = json_in::text(body)?;
    let trimmed = text.trim_start();
    if ["data:", "event:", ":"].iter().any(|lead| trimmed.starts_with(lead)) {
        let mut collector = StreamCollector::new(&Gemini);
        collector.push(trimmed.as_bytes()).map_err(|error| unreadable(&error.to_string()))?;
        return collector.finish().map_err(failed);
    }
    let pieces: Vec<&str> = if trimmed.starts_with('[') {
        let raw: &RawValue = serde_json::from_str(trimmed).map_err(|_| unreadable("it is not valid JSON"))?;
        list_of(raw).unwrap_or_default().into_iter().map(RawValue::get).collect()
    } else {
        vec![trimmed.trim_end()]
    };
    if !pieces.iter().any(|piece| has_answer(piece)) {
        let error = error_text::error_in_success(pieces.first().unwrap_or(&"").as_bytes());
        return Err(unreadable(error.as_ref().map_or("it has no candidates", |error| &error.message)));
    }
    let mut decoder = Decoder::default();
    let mut collector = Collector::new(ID);
    for piece in pieces {
        let frame = Frame { event: None, data: piece.as_bytes() };
        decoder.frame(frame, &mut collector).map_err(|error| unreadable(&error.to_string()))?;
    }
    // What came whole is complete, also when it does not say why it ended.
    decoder.complete_unless_told();
    decoder.finish(&mut collector).map_err(|error| unreadable(&error.to_string()))?;
    collector.into_response().map_err(failed)
}

/// Whether a document is an answer of this dialect at all.
fn has_answer(json: &str) -> bool {
    let names = ["candidates", "promptFeedback", "usageMetadata"];
    Fields::lenient(json, "").is_ok_and(|fields| names.iter().any(|name| fields.raw(name).is_some()))
}

fn failed(error: UpstreamError) -> DecodeError {
    let code = match error.code.as_deref() {
        Some("malformed_tool_call") => "malformed_tool_call",
        Some("invalid_tool_call") => "invalid_tool_call",
        _ => "bad_gateway",
    };
    DecodeError { code, param: None, message: error.message }
}

pub(super) fn unreadable(why: &str) -> DecodeError {
    DecodeError { code: "bad_gateway", param: None, message: error_text::malformed(why).message }
}

/// Writes an answer.
pub(super) fn encode(response: &ChatResponse, echo: &Echo) -> Encoded {
    let mut losses = Vec::new();
    let mut parts = Parts { bare: wire::wants_bare_word(&echo.request), ..Parts::default() };
    let mut refused = false;
    for (at, block) in response.blocks.iter().enumerate() {
        refused |= matches!(block.kind, BlockKind::Refusal(_));
        parts.block(block, at, response, &mut losses);
    }
    parts.flush_signature();
    let finish = if refused { Some(FinishReason::ContentFilter) } else { response.finish };

    let mut out = BytesMut::with_capacity(1024);
    let mut document = Object::begin(&mut out);
    let mut candidates = document.array("candidates");
    let mut candidate = candidates.object();
    let mut content = candidate.object("content");
    wire::write_parts(content.array("parts"), &parts.out);
    content.str("role", "model");
    content.end();
    candidate.str("finishReason", finish_word(finish.unwrap_or(FinishReason::Stop))).u64("index", 0);
    parts.told.write(&mut candidate);
    logprobs::write(&mut candidate, &parts.tokens);
    candidate.end();
    candidates.end();
    let (input, output) = (echo.estimated_input_tokens, parts.bytes.div_ceil(4));
    wire::write_usage(document.key("usageMetadata"), &response.usage, input, output);
    document.str("modelVersion", &echo.model);
    document.str("responseId", &answer_id("", &response.id, &echo.request_id));
    document.end();
    Encoded { body: out.freeze(), losses }
}

/// The parts of an answer.
#[derive(Debug, Default)]
struct Parts<'a> {
    out: Vec<PartOut<'a>>,
    /// A signature that waits for the part it belongs to.
    signature: Option<&'a str>,
    /// Whether the client wants a word instead of a JSON string.
    bare: bool,
    told: Told,
    tokens: Vec<Logprob>,
    said: usize,
    bytes: u64,
}

impl<'a> Parts<'a> {
    fn block(&mut self, block: &'a Block, at: usize, response: &ChatResponse, losses: &mut Vec<Loss>) {
        let path = || format!("content[{at}]");
        self.tokens.extend_from_slice(&block.logprobs);
        match &block.kind {
            BlockKind::Text(text) | BlockKind::Refusal(text) if text.is_empty() => {}
            BlockKind::Text(text) | BlockKind::Refusal(text) => {
                self.bytes += text.len() as u64;
                let signature = self.signature.take().map(Cow::Borrowed);
                let written = if self.bare { wire::bare_word(text) } else { Cow::Borrowed(text.as_str()) };
                self.out.push(PartOut::Text { text: written, signature });
                let told = |citation: &&Citation| !self.told.citation(citation, self.said, text);
                if block.citations.iter().filter(told).count() > 0 {
                    losses.push(loss(format!("{}.citations", path()), LossAction::Dropped));
                }
                self.said += text.len();
            }
            BlockKind::Thinking { text, signature, .. } => {
                if !text.is_empty() {
                    self.bytes += text.len() as u64;
                    self.out.push(PartOut::Thought { text });
                }
                if let Some(signature) = signature {
                    self.sign(&signature.data);
                }
            }
            BlockKind::RedactedThinking { data, .. } => self.sign(data),
            BlockKind::ToolCall(call) => {
                let cut_off = response.finish.is_some_and(FinishReason::is_cut_off);
                if cut_off && !arguments::is_complete(&call.arguments) {
                    losses.push(loss(path(), LossAction::Dropped));
                    return;
                }
                self.bytes += (call.name.len() + call.arguments.len()) as u64;
                let args = arguments::object(&call.arguments);
                if args.changed {
                    losses.push(quiet(format!("{}.args", path()), LossAction::Mapped));
                }
                self.out.push(PartOut::Call(CallOut {
                    id: (!call.id.is_empty()).then_some(Cow::Borrowed(call.id.as_str())),
                    name: &call.name,
                    args: args.object,
                    signature: self.signature.take().map(Cow::Borrowed),
                }));
            }
            BlockKind::Image(image) => {
                self.flush_signature();
                match &image.source {
                    MediaSource::Base64 { media_type, data } => self.out.push(PartOut::Blob {
                        media_type: Cow::Borrowed(media_type),
                        data,
                        resolution: None,
                    }),
                    MediaSource::Url(url) => {
                        losses.push(loss(path(), LossAction::Mapped));
                        self.out.push(PartOut::text(format!("[image: {url}]")));
                    }
                    MediaSource::FileId { .. } | MediaSource::Text(_) => {
                        losses.push(loss(path(), LossAction::Dropped));
                    }
                }
            }
            BlockKind::WebSearch(search) => self.told.search(search),
            BlockKind::Opaque { origin, raw } if *origin == ID => {
                self.flush_signature();
                self.out.push(PartOut::Raw(raw));
            }
            BlockKind::File(_)
            | BlockKind::Audio { .. }
            | BlockKind::ToolResult(_)
            | BlockKind::Opaque { .. } => losses.push(loss(path(), LossAction::Dropped)),
        }
    }

    fn sign(&mut self, signature: &'a str) {
        if !signature.is_empty() {
            self.flush_signature();
            self.signature = Some(signature);
        }
    }

    fn flush_signature(&mut self) {
        if let Some(signature) = self.signature.take() {
            self.out.push(PartOut::bare_signature(Cow::Borrowed(signature)));
        }
    }
}

/// A text that says what a part says that only this dialect has.
pub(super) fn opaque_as_text(raw: &RawValue) -> Option<String> {
    let fields = Fields::strict_camel(raw.get(), "").ok()?;
    code_text(fields.raw("executableCode"), fields.raw("codeExecutionResult"))
}

/// Code that the vendor ran for the model, or what came of it, as text.
pub(super) fn code_text(code: Option<&RawValue>, result: Option<&RawValue>) -> Option<String> {
    let member = |raw: &RawValue, name: &str| {
        let fields = Fields::strict_camel(raw.get(), "").ok()?;
        fields.raw(name).and_then(json_in::str_of).map(Cow::into_owned)
    };
    if let Some(code) = code {
        let language =
            member(code, "language").filter(|word| word != "LANGUAGE_UNSPECIFIED").unwrap_or_default();
        let text = member(code, "code").unwrap_or_default();
        return Some(format!("\n```{}\n{}\n```\n", language.to_ascii_lowercase(), text.trim_end()));
    }
    let text = member(result?, "output").unwrap_or_default();
    Some(format!("\n```\n{}\n```\n", text.trim_end()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn echo() -> Echo {
        Echo {
            model: "asked".into(),
            request_id: "req_1".into(),
            estimated_input_tokens: 7,
            ..Echo::default()
        }
    }

    fn decoded(body: &str) -> ChatResponse {
        decode(&Bytes::copy_from_slice(body.as_bytes())).expect("readable")
    }

    fn encoded(response: &ChatResponse) -> String {
        String::from_utf8(encode(response, &echo()).body.to_vec()).expect("UTF-8")
    }

    #[test]
    fn an_answer_survives_the_round_trip() {
        let body = concat!(
            r#"{"candidates":[{"content":{"parts":[{"text":"plan","thought":true},{"text":"Hi","thoughtSignature":"U0lH"},"#,
            r#"{"functionCall":{"id":"fc1","name":"f","args":{"b":1.0,"a":"é"}},"thoughtSignature":"VFdP"},"#,
            r#"{"functionCall":{"id":"fc2","name":"g","args":{}}},{"inlineData":{"mimeType":"image/png","data":"AAAA"}},"#,
            r#"{"text":"","thoughtSignature":"RU5E"}],"role":"model"},"finishReason":"STOP","index":0}],"#,
            r#""usageMetadata":{"promptTokenCount":10,"cachedContentTokenCount":0,"candidatesTokenCount":5,"thoughtsTokenCount":7,"totalTokenCount":22},"#,
            r#""modelVersion":"asked","responseId":"0123456789abcdef01234567"}"#
        );
        let response = decoded(body);
        assert_eq!(response.finish, Some(FinishReason::ToolUse));
        assert_eq!(encoded(&response), body);
    }

    #[test]
    fn answers_come_in_several_shapes() {
        let one = r#"{"candidates":[{"content":{"parts":[{"text":"a"}]}}]}"#;
        let two = r#"{"candidates":[{"content":{"parts":[{"text":"b"}]},"finishReason":"MAX_TOKENS"}]}"#;
        for (body, text, finish) in [
            (one.to_owned(), "a", FinishReason::Stop),
            (format!(" [{one}\n,{two}]"), "ab", FinishReason::Length),
            (format!("data: {one}\n\ndata: {two}\n\n"), "ab", FinishReason::Length),
        ] {
            let response = decoded(&body);
            assert!(
                matches!(&response.blocks[0].kind, BlockKind::Text(found) if found == text),
                "{response:?}"
            );
            assert_eq!(response.finish, Some(finish));
        }
        for body in ["", "{}", "[]", "<html>", r#"{"error":{"message":"no"}}"#] {
            assert!(decode(&Bytes::copy_from_slice(body.as_bytes())).is_err(), "{body}");
        }
    }

    #[test]
    fn a_blocked_prompt_is_a_refusal() {
        let response = decoded(
            r#"{"promptFeedback":{"blockReason":"PROHIBITED_CONTENT"},"usageMetadata":{"promptTokenCount":4,"totalTokenCount":4}}"#,
        );
        assert_eq!(response.finish, Some(FinishReason::ContentFilter));
        assert!(
            matches!(&response.blocks[0].kind, BlockKind::Refusal(why) if why.contains("PROHIBITED_CONTENT"))
        );
        assert!(encoded(&response).contains(r#""finishReason":"SAFETY""#));
    }

    #[test]
    fn a_client_that_wants_a_word_gets_it_without_quotes() {
        let request = Bytes::from_static(br#"{"generationConfig":{"responseMimeType":"text/x.enum"}}"#);
        let response = ChatResponse {
            blocks: vec![BlockKind::Text("\"red\"".into()).into()],
            finish: Some(FinishReason::Stop),
            ..ChatResponse::default()
        };
        let body = encode(&response, &Echo { request, ..echo() }).body;
        assert!(String::from_utf8_lossy(&body).contains(r#"[{"text":"red"}]"#));
        assert!(encoded(&response).contains(r#"[{"text":"\"red\""}]"#));
    }

    #[test]
    fn a_malformed_call_is_a_failure() {
        let body = r#"{"candidates":[{"finishReason":"MALFORMED_FUNCTION_CALL","finishMessage":"print("}]}"#;
        let error = decode(&Bytes::from_static(body.as_bytes())).expect_err("no answer");
        assert_eq!(error.code, "malformed_tool_call");
        assert!(error.message.contains("print("));
    }

    #[test]
    fn code_becomes_text() {
        let response = decoded(
            r#"{"candidates":[{"content":{"parts":[{"executableCode":{"language":"PYTHON","code":"print(1)\n"}},
            {"codeExecutionResult":{"outcome":"OUTCOME_OK","output":"1\n"}},{"text":"One."}]},"finishReason":"STOP"}]}"#,
        );
        let texts: Vec<_> = response
            .blocks
            .iter()
            .map(|block| match &block.kind {
                BlockKind::Text(text) => text.as_str(),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(texts, ["\n```python\nprint(1)\n```\n", "\n```\n1\n```\n", "One."]);
    }
}
