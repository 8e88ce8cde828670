//! Whole answers.

use std::borrow::Cow;

use bytes::{Bytes, BytesMut};
use omniroute_wire::json_out::Object;

use super::{
    ID, OpenAi,
    annotations::{self, Annotations},
    stream,
    wire::{self, Answer, Call, CallOut, Message, ThinkingIn, text_of},
};
use crate::{
    DecodeError, Echo, Encoded, arguments, error_text, ids,
    ir::{
        self, Block, BlockKind, ChatResponse, FinishReason, Image, Loss, LossAction, MediaSource, Signature,
        Tier, ToolCall,
    },
    json_in::last_wins,
    logprobs, media, service_tier,
    stream::StreamCollector,
};

/// Reads a whole upstream answer; also one that was sent as a stream.
pub(super) fn decode(body: &Bytes) -> Result<ChatResponse, DecodeError> {
    if is_stream(body) {
        return collect(body);
    }
    let text = text(body)?;
    let repaired;
    let answer: Answer<'_> = match serde_json::from_str(text) {
        Ok(answer) => answer,
        Err(_) => {
            repaired = last_wins(text);
            serde_json::from_str(&repaired).map_err(|error| unreadable(&error.to_string()))?
        }
    };
    let Some(choice) = answer.choices.and_then(|choices| choices.first) else {
        let error = error_text::error_in_success(body);
        return Err(unreadable(error.as_ref().map_or("it has no choices", |error| &error.message)));
    };
    let word = choice.finish_reason.and_then(text_of).unwrap_or_default();
    if let Some(error) = wire::failed_end(&word) {
        return Err(failed(error));
    }
    let mut response = ChatResponse {
        id: answer.id.and_then(text_of).unwrap_or_default().into_owned(),
        model: answer.model.and_then(text_of).unwrap_or_default().into_owned(),
        service_tier: answer
            .service_tier
            .and_then(text_of)
            .filter(|word| service_tier::is_word(word))
            .map(Cow::into_owned),
        usage: answer.usage.or(choice.usage).map(wire::usage).unwrap_or_default(),
        ..ChatResponse::default()
    };
    response.usage.tier = response.service_tier.as_deref().and_then(Tier::of_answer);
    let tokens = choice.logprobs();
    if let Some(message) = choice.message.or(choice.delta) {
        let cut_off = wire::finish_reason(&word, true) == FinishReason::Length;
        response.blocks = blocks(&message, &response.id, cut_off)?;
    }
    let is_text = |block: &&mut Block| matches!(block.kind, BlockKind::Text(_));
    if let Some(block) = response.blocks.iter_mut().find(is_text) {
        block.logprobs = tokens;
    }
    let called = response.blocks.iter().any(|block| matches!(block.kind, BlockKind::ToolCall(_)));
    let refused = response.blocks.iter().any(|block| matches!(block.kind, BlockKind::Refusal(_)));
    let reason = wire::finish_reason(&word, called);
    response.finish = Some(if refused { wire::with_refusal(reason) } else { reason });
    Ok(response)
}

/// Writes a whole answer for a client.
pub(super) fn encode(response: &ChatResponse, echo: &Echo) -> Encoded {
    let mut losses = Vec::new();
    let mut out = BytesMut::with_capacity(512);
    let mut whole = Object::begin(&mut out);
    whole.str("id", &ids::answer_id("chatcmpl-", &response.id, &echo.request_id));
    whole.str("object", "chat.completion").i64("created", echo.created).str("model", &echo.model);
    let mut choices = whole.array("choices");
    let mut choice = choices.object();
    choice.u64("index", 0);
    write_message(choice.object("message"), response, echo, &mut losses);
    let called = response.blocks.iter().any(|block| matches!(block.kind, BlockKind::ToolCall(_)));
    let usual = if called { FinishReason::ToolUse } else { FinishReason::Stop };
    choice.str("finish_reason", wire::finish_word(response.finish.unwrap_or(usual), echo.legacy));
    let mut tokens =
        response.blocks.iter().map(|block| block.logprobs.as_slice()).filter(|list| !list.is_empty());
    match tokens.next() {
        None => {
            choice.raw("logprobs", "null");
        }
        Some(first) => {
            let mut whole = BytesMut::new();
            logprobs::write_elements(&mut whole, first);
            tokens.for_each(|more| logprobs::write_elements(&mut whole, more));
            wire::write_logprobs(choice.key("logprobs"), &whole);
        }
    }
    choice.end();
    choices.end();
    let usage = wire::known_or_estimated(response.usage, echo, response.output_bytes());
    wire::write_usage(whole.key("usage"), &usage);
    whole.opt_str("service_tier", response.service_tier.as_deref());
    whole.end();
    Encoded { body: out.freeze(), losses }
}

/// Whether a body that should be JSON is a stream of events.
pub(super) fn is_stream(body: &[u8]) -> bool {
    let start = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body).trim_ascii_start();
    [&b"data:"[..], b"event:", b":"].iter().any(|lead| start.starts_with(lead))
}

/// The answer that a whole stream amounts to.
pub(super) fn collect(body: &[u8]) -> Result<ChatResponse, DecodeError> {
    let mut collector = StreamCollector::new(&OpenAi);
    collector.push(body).map_err(|error| unreadable(&error.to_string()))?;
    collector.finish().map_err(|error| unreadable(&error.message))
}

/// That an answer is none.
fn failed(error: ir::UpstreamError) -> DecodeError {
    let code = match error.code.as_deref() {
        Some("malformed_tool_call") => "malformed_tool_call",
        _ => "bad_gateway",
    };
    DecodeError { code, param: None, message: error.message }
}

/// That an answer cannot be read, and why.
pub(super) fn unreadable(why: &str) -> DecodeError {
    DecodeError { code: "bad_gateway", param: None, message: error_text::malformed(why).message }
}

fn text(body: &[u8]) -> Result<&str, DecodeError> {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    let text = std::str::from_utf8(body).map_err(|_| unreadable("it is not UTF-8"))?;
    if error_text::is_html(text) {
        return Err(DecodeError { code: "bad_gateway", param: None, message: error_text::html(200).message });
    }
    if text.trim().is_empty() { Err(unreadable("it is empty")) } else { Ok(text) }
}

fn blocks(message: &Message<'_>, answer_id: &str, cut_off: bool) -> Result<Vec<Block>, DecodeError> {
    let mut blocks = Vec::new();
    thinking(message, &mut blocks);
    if let Some(text) = message.text() {
        let citations = message.annotations.map(|raw| annotations::read(raw, 0)).unwrap_or_default();
        blocks.push(Block { citations, ..Block::from(BlockKind::Text(text.into_owned())) });
    }
    if let Some(text) = message.refused() {
        blocks.push(Block::from(BlockKind::Refusal(text.into_owned())));
    }
    let calls = message.tool_calls.iter().flat_map(|calls| calls.0.iter());
    let none = Call::default();
    let legacy = message.function_call.iter().map(|function| (&none, Some(function)));
    for (n, (call, function)) in calls.map(|call| (call, call.function.as_ref())).chain(legacy).enumerate() {
        let name = function.and_then(|function| function.name);
        let name = name.or(call.custom.as_ref().and_then(|custom| custom.name));
        let name = name.and_then(text_of).unwrap_or_default();
        if name.trim().is_empty() {
            let message = "the upstream sent a tool call without a name".to_owned();
            return Err(DecodeError { code: "invalid_tool_call", param: None, message });
        }
        let text = match &call.custom {
            Some(custom) => {
                let input = custom.input.and_then(text_of).unwrap_or_default();
                Cow::Owned(arguments::of_free_text(&input))
            }
            None => function.map(wire::Function::arguments).unwrap_or_default(),
        };
        // One without any arguments has got none so far: whole ones have an empty object.
        if cut_off && (text.trim().is_empty() || !arguments::is_complete(&text)) {
            continue;
        }
        let arguments = if text.trim().is_empty() { "{}".to_owned() } else { text.into_owned() };
        let id = match call.id.and_then(text_of).filter(|id| !id.is_empty()) {
            Some(id) => id.into_owned(),
            None => ids::invented_call_id(answer_id, n, &name),
        };
        // Some say it twice.
        let given = |data: &String| blocks.iter().any(|block| is_signed(block, data));
        if let Some(signature) = call.signature().filter(|data| !given(data)).map(Into::into) {
            let text = String::new();
            blocks.push(BlockKind::Thinking { text, signature: Some(signature), origin: ID }.into());
        }
        let call = ToolCall { id, name: name.into_owned(), arguments };
        blocks.push(Block::from(BlockKind::ToolCall(call)));
    }
    Ok(blocks)
}

/// Reads the reasoning: under the name that has its text, with the signatures where there are any.
fn thinking(message: &Message<'_>, blocks: &mut Vec<Block>) {
    let mut rest = message.thinking().map(Cow::into_owned);
    let list = message.thinking_blocks();
    let has_text = |one: &ThinkingIn| matches!(one, ThinkingIn::Text { text, .. } if !text.is_empty());
    if list.iter().any(has_text) {
        rest = None;
    }
    for one in list {
        blocks.push(Block::from(match one {
            ThinkingIn::Redacted(data) => BlockKind::RedactedThinking { data, origin: ID },
            ThinkingIn::Text { text, signature } => {
                let text = rest.take().unwrap_or(text);
                let signature = (!signature.is_empty()).then(|| signature.into());
                BlockKind::Thinking { text, signature, origin: ID }
            }
        }));
    }
    if let Some(text) = rest {
        blocks.insert(0, BlockKind::Thinking { text, signature: None, origin: ID }.into());
    }
}

fn is_signed(block: &Block, data: &str) -> bool {
    matches!(&block.kind, BlockKind::Thinking { signature: Some(signature), .. } if signature.data == data)
}

fn write_message(mut message: Object<'_>, response: &ChatResponse, echo: &Echo, losses: &mut Vec<Loss>) {
    let legacy = echo.legacy;
    let mut given_with_call = None;
    let mut annotations = Annotations::default();
    let mut text: Option<String> = None;
    let mut refusal: Option<String> = None;
    let mut thinking = String::new();
    let mut signed = Vec::new();
    let mut calls = Vec::new();
    for (at, block) in response.blocks.iter().enumerate() {
        let before_call = !legacy && response.blocks.get(at + 1).is_some_and(is_call);
        match &block.kind {
            BlockKind::Text(more) => {
                if !calls.is_empty() {
                    losses.push(ir::quiet(format!("content[{at}]"), LossAction::Mapped));
                }
                text.get_or_insert_default().push_str(more);
                annotations.begin();
                annotations.text(more);
                if block.citations.iter().filter(|one| !annotations.add(one)).count() > 0 {
                    losses.push(ir::loss(format!("content[{at}].citations"), LossAction::Dropped));
                }
                annotations.end();
            }
            BlockKind::Refusal(more) => refusal.get_or_insert_default().push_str(more),
            BlockKind::Thinking { text, signature, .. } => {
                thinking.push_str(text);
                let Some(Signature { data, .. }) = signature else { continue };
                if before_call && stream::goes_with_call(text, data) {
                    given_with_call = Some(data.as_str());
                }
                if given_with_call.is_none() || !text.is_empty() {
                    signed.push(stream::thinking_block(text, data));
                }
            }
            BlockKind::RedactedThinking { data, .. } => signed.push(stream::redacted_block(data)),
            BlockKind::ToolCall(call) => calls.push(CallOut {
                call,
                custom: echo.custom_tools.contains(&call.name),
                signature: given_with_call.take(),
            }),
            BlockKind::Image(Image { source: MediaSource::Base64 { media_type, data }, .. }) => {
                losses.push(ir::loss(format!("content[{at}]"), LossAction::Mapped));
                let picture = media::as_markdown(media_type, data);
                annotations.text(&picture);
                text.get_or_insert_default().push_str(&picture);
            }
            BlockKind::WebSearch(_) => {
                losses.push(ir::quiet(format!("content[{at}]"), LossAction::Dropped));
            }
            BlockKind::Image(_)
            | BlockKind::File(_)
            | BlockKind::Audio { .. }
            | BlockKind::ToolResult(_)
            | BlockKind::Opaque { .. } => {
                losses.push(ir::quiet(format!("content[{at}]"), LossAction::Dropped));
            }
        }
    }
    message.str("role", "assistant");
    if text.is_none() && calls.is_empty() && refusal.is_none() {
        text = Some(String::new());
    }
    message.str_or_null("content", text.as_deref()).str_or_null("refusal", refusal.as_deref());
    if !annotations.is_empty() {
        annotations.write(message.key("annotations"));
    }
    if !thinking.is_empty() {
        message.str("reasoning_content", &thinking);
    }
    if !signed.is_empty() {
        let mut list = message.array("thinking_blocks");
        for block in &signed {
            list.raw(block);
        }
        list.end();
    }
    if legacy {
        if let Some(CallOut { call, .. }) = calls.first() {
            let mut function = message.object("function_call");
            let nothing = call.arguments.trim().is_empty();
            function.str("name", &call.name);
            function.str("arguments", if nothing { "{}" } else { &call.arguments });
            function.end();
        }
        if calls.len() > 1 {
            losses.push(ir::loss("tool_calls", LossAction::Dropped));
        }
    } else if !calls.is_empty() {
        wire::write_calls(message.key("tool_calls"), calls.iter());
    }
    message.end();
}

fn is_call(block: &Block) -> bool {
    matches!(block.kind, BlockKind::ToolCall(_))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<ChatResponse, DecodeError> {
        decode(&Bytes::copy_from_slice(json.as_bytes()))
    }

    #[test]
    fn tool_calls_tell_why_the_answer_ended() {
        let response = read(
            r#"{"id":"chatcmpl-1","choices":[{"message":{"content":null,"tool_calls":[
                {"id":"a","function":{"name":"f","arguments":""}},{"function":{"name":"g","arguments":{"x":1}}}]},
                "finish_reason":"stop"}]}"#,
        )
        .unwrap();
        assert_eq!(response.finish, Some(FinishReason::ToolUse));
        let calls: Vec<_> = response
            .blocks
            .iter()
            .map(|block| match &block.kind {
                BlockKind::ToolCall(call) => (call.id.clone(), call.arguments.clone()),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(calls[0], ("a".to_owned(), "{}".to_owned()));
        assert!(calls[1].0.starts_with("call_1_"));
        assert_eq!(calls[1].1, r#"{"x":1}"#);
    }

    #[test]
    fn a_call_that_was_cut_off_is_left_out() {
        for arguments in [r#"{\"x\":"#, ""] {
            let response = read(&format!(
                r#"{{"choices":[{{"message":{{"content":"x","tool_calls":[
                {{"id":"a","function":{{"name":"f","arguments":"{arguments}"}}}}]}},"finish_reason":"length"}}]}}"#,
            ))
            .unwrap();
            assert_eq!(response.finish, Some(FinishReason::Length));
            assert_eq!(response.blocks.len(), 1, "{arguments}");
        }
    }

    #[test]
    fn an_end_that_is_a_failure_is_told_as_one() {
        for (word, code) in [
            ("error", "bad_gateway"),
            ("malformed_function_call", "malformed_tool_call"),
            ("function_call_filter: MALFORMED_FUNCTION_CALL", "malformed_tool_call"),
        ] {
            let body = format!(r#"{{"choices":[{{"message":{{"content":"x"}},"finish_reason":"{word}"}}]}}"#);
            let error = read(&body).unwrap_err();
            assert_eq!(error.code, code, "{word}");
            assert!(error.message.contains(word), "{}", error.message);
        }
    }

    #[test]
    fn what_nobody_counted_is_estimated() {
        let response =
            read(r#"{"choices":[{"message":{"content":"12345"},"finish_reason":"stop"}]}"#).unwrap();
        let body = encode(&response, &Echo { estimated_input_tokens: 7, ..Echo::default() }).body;
        let usage = r#""usage":{"prompt_tokens":7,"completion_tokens":2,"total_tokens":9}"#;
        assert!(std::str::from_utf8(&body).unwrap().contains(usage), "{body:?}");
    }

    #[test]
    fn the_last_of_repeated_members_counts() {
        let response = read(
            r#"{"choices":[{"message":{"content":"a","content":"b"},"finish_reason":"length","finish_reason":"stop"}]}"#,
        )
        .unwrap();
        assert!(matches!(&response.blocks[0].kind, BlockKind::Text(text) if text == "b"));
        assert_eq!(response.finish, Some(FinishReason::Stop));
    }

    #[test]
    fn what_is_no_answer_is_named() {
        for (body, words) in [
            ("", "it is empty"),
            ("<!doctype html><html></html>", "upstream returned HTML (status 200)"),
            ("{}", "no choices"),
            (r#"{"error":{"message":"busy"}}"#, "busy"),
            ("nonsense", "cannot be read"),
            ("data: {\"choices\":[{\"delta\":{\"content\":\"x\"}}]}\n\n", "closed the stream"),
        ] {
            let message = read(body).unwrap_err().message;
            assert!(message.contains(words), "{body}: {message}");
        }
    }

    #[test]
    fn a_stream_in_place_of_an_answer_is_put_together() {
        let body = "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n\
                    data: {\"choices\":[{\"delta\":{\"content\":\"b\"},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n";
        let response = read(body).unwrap();
        assert!(matches!(&response.blocks[0].kind, BlockKind::Text(text) if text == "ab"));
    }

    #[test]
    fn the_superseded_form_is_answered_in_kind() {
        let call = ToolCall { id: "a".to_owned(), name: "f".to_owned(), arguments: String::new() };
        let response = ChatResponse {
            blocks: vec![BlockKind::ToolCall(call).into()],
            finish: Some(FinishReason::ToolUse),
            ..ChatResponse::default()
        };
        let echo = Echo { legacy: true, ..Echo::default() };
        let body = encode(&response, &echo).body;
        let text = std::str::from_utf8(&body).unwrap();
        assert!(
            text.contains(r#""content":null,"refusal":null,"function_call":{"name":"f","arguments":"{}"}"#)
        );
        assert!(text.contains(r#""finish_reason":"function_call""#));
    }
}
