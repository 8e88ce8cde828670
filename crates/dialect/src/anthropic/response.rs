//! Whole answers: from an upstream of this dialect, and for a client of it.

use bytes::{Bytes, BytesMut};
use omniroute_wire::json_out::Object;
use serde_json::value::RawValue;

use super::{
    ID,
    search::{self, Searches},
    stream::Encoder,
    wire::{self, BlockOut, finish_reason, stop_reason, write_input_usage, write_list, write_output_details},
};
use crate::{
    DecodeError, Echo, Encoded, arguments,
    ids::{answer_id, tool_call_id},
    ir::{
        Block, BlockKind, ChatResponse, FinishReason, Loss, LossAction, MediaSource, Signature, ToolCall,
        Usage, loss, quiet,
    },
    json_in::{self, Fields},
    shape,
    stream::{EventSink, StreamEncoder as _, StreamError, StreamEvent, replay},
};

/// Reads an answer. Blocks of unknown types are kept as they are.
pub(super) fn decode(body: &Bytes) -> Result<ChatResponse, DecodeError> {
    let text = json_in::text(body)?;
    let fields = Fields::lenient(&text, "")?;
    if fields.raw("content").is_none() && fields.raw("stop_reason").is_none() {
        return Err(fields.missing("content"));
    }
    let usage = fields.object_or_none("usage");
    let mut response = ChatResponse {
        id: lenient_str(&fields, "id").unwrap_or_default(),
        model: lenient_str(&fields, "model").unwrap_or_default(),
        stop_sequence: lenient_str(&fields, "stop_sequence"),
        service_tier: usage.as_ref().and_then(wire::service_tier).map(Into::into),
        usage: usage.as_ref().map(wire::usage).unwrap_or_default(),
        ..ChatResponse::default()
    };
    let content = fields.list("content")?.unwrap_or_default();
    let mut searches = Searches::of(&content, true);
    for (at, raw) in content.into_iter().enumerate() {
        if let Some(search) = searches.at(at) {
            response.blocks.extend(search.map(|search| BlockKind::WebSearch(search).into()));
            continue;
        }
        let path = format!("content[{at}]");
        let block = Fields::lenient(raw.get(), path)?;
        if let Some(kind) = block_kind(&block)? {
            let sources = block.raw("citations").and_then(json_in::list_of).unwrap_or_default();
            let citations = sources.into_iter().map(search::citation).collect();
            response.blocks.push(Block { citations, ..Block::from(kind) });
        } else {
            let raw = raw.to_owned();
            response.blocks.push(BlockKind::Opaque { origin: ID, raw }.into());
        }
    }
    response.finish = lenient_str(&fields, "stop_reason").map(|word| finish_reason(&word));
    let calls = response.blocks.iter().any(|block| matches!(block.kind, BlockKind::ToolCall(_)));
    if calls && matches!(response.finish, None | Some(FinishReason::Stop)) {
        response.finish = Some(FinishReason::ToolUse);
    }
    if response.finish == Some(FinishReason::ContentFilter)
        && let Some(explanation) = explanation(&fields)
    {
        response.blocks.push(BlockKind::Refusal(explanation).into());
    }
    Ok(response)
}

/// The blocks of an answer that was paused.
pub(super) fn paused_content(body: &Bytes) -> Option<Vec<Block>> {
    let text = json_in::text(body).ok()?;
    let fields = Fields::lenient(&text, "").ok()?;
    let is_paused =
        lenient_str(&fields, "stop_reason").is_some_and(|word| finish_reason(&word) == FinishReason::Pause);
    let content = fields.raw("content").filter(|_| is_paused).and_then(json_in::list_of)?;
    let opaque = |raw: &RawValue| BlockKind::Opaque { origin: ID, raw: raw.to_owned() }.into();
    Some(content.into_iter().map(opaque).collect())
}

/// Whether the model was asked and wrote nothing: then a refusal is the vendor's word, and no part of the answer.
pub(super) fn says_nothing(usage: &Usage) -> bool {
    usage.input_total().is_some_and(|tokens| tokens > 0) && usage.output_total.unwrap_or(0) == 0
}

/// Writes an answer.
pub(super) fn encode(response: &ChatResponse, echo: &Echo) -> Encoded {
    let mut losses = Vec::new();
    let mut content = Vec::new();
    let mut refusal = None;
    for (at, block) in response.blocks.iter().enumerate() {
        if let BlockKind::Refusal(text) = &block.kind {
            refusal = Some(text.as_str());
            if says_nothing(&response.usage) {
                continue;
            }
        }
        content.extend(block_out(block, at, response, echo, &mut losses));
    }
    let finish = match response.finish {
        _ if refusal.is_some() => FinishReason::ContentFilter,
        Some(finish) => finish,
        None if content.iter().any(|block| matches!(block, BlockOut::ToolUse { .. })) => {
            FinishReason::ToolUse
        }
        None => FinishReason::Stop,
    };

    let mut out = BytesMut::with_capacity(1024);
    let mut object = Object::begin(&mut out);
    object.str("id", &answer_id("msg_", &response.id, &echo.request_id));
    object.str("type", "message").str("role", "assistant").str("model", &echo.model);
    write_list(object.key("content"), content.iter(), |out, block| block.write(out));
    object.str("stop_reason", stop_reason(finish));
    object.str_or_null("stop_sequence", response.stop_sequence.as_deref());
    if finish == FinishReason::ContentFilter {
        write_stop_details(&mut object, refusal.filter(|text| !text.is_empty()));
    }
    write_usage(object.object("usage"), response, echo);
    object.end();
    if response.service_tier.as_deref() == Some(wire::FLEX) {
        losses.push(quiet("service_tier", LossAction::Mapped));
    }
    Encoded { body: out.freeze(), losses }
}

/// The answer to a request that only warms a cache: it has read its prompt and says nothing.
pub(super) fn empty(stream: bool, echo: &Echo) -> Bytes {
    let usage = Usage {
        input_uncached: Some(echo.estimated_input_tokens),
        output_total: Some(0),
        ..Usage::default()
    };
    let answer = ChatResponse { finish: Some(FinishReason::Length), usage, ..ChatResponse::default() };
    if !stream {
        return encode(&answer, echo).body;
    }
    let mut out = BytesMut::new();
    let mut encoder = Encoder::new(echo.clone());
    // What this writer cannot write is text, and there is none.
    let _ = replay(&answer, &mut Written { encoder: &mut encoder, out: &mut out });
    out.freeze()
}

struct Written<'a> {
    encoder: &'a mut Encoder,
    out: &'a mut BytesMut,
}

impl EventSink for Written<'_> {
    fn event(&mut self, event: StreamEvent<'_>) -> Result<(), StreamError> {
        self.encoder.event(event, self.out)
    }
}

/// Says of a refusal what is known.
pub(super) fn write_stop_details(object: &mut Object<'_>, explanation: Option<&str>) {
    let mut details = object.object("stop_details");
    details.str("type", "refusal").raw("category", "null").str_or_null("explanation", explanation);
    details.end();
}

/// The vendor's words about a refusal.
pub(super) fn explanation(fields: &Fields<'_>) -> Option<String> {
    let details = fields.object_or_none("stop_details")?;
    lenient_str(&details, "explanation").filter(|text| !text.trim().is_empty())
}

/// Tokens that a text of so many bytes has, roughly.
pub(super) fn estimated_tokens(bytes: u64) -> u64 {
    bytes.div_ceil(4)
}

/// A string; whatever else stands there counts as absent.
pub(super) fn lenient_str(fields: &Fields<'_>, name: &str) -> Option<String> {
    fields.raw(name).and_then(json_in::str_of).map(Into::into)
}

fn block_kind(block: &Fields<'_>) -> Result<Option<BlockKind>, DecodeError> {
    let text = |name: &str| lenient_str(block, name).unwrap_or_default();
    Ok(Some(match &*block.need_str("type")? {
        "text" => BlockKind::Text(text("text")),
        "thinking" => BlockKind::Thinking {
            text: text("thinking"),
            signature: lenient_str(block, "signature")
                .filter(|signature| !signature.is_empty())
                .map(Into::into),
            origin: ID,
        },
        "redacted_thinking" => BlockKind::RedactedThinking { data: text("data"), origin: ID },
        "tool_use" => {
            let arguments = match block.raw("input") {
                None => "{}".to_owned(),
                Some(raw) => json_in::str_of(raw).map_or_else(|| json_in::compact(raw.get()), Into::into),
            };
            let name = text("name");
            if name.trim().is_empty() {
                let message = "the upstream sent a tool call without a name".to_owned();
                return Err(DecodeError { code: "invalid_tool_call", param: None, message });
            }
            BlockKind::ToolCall(ToolCall { id: text("id"), name, arguments })
        }
        _ => return Ok(None),
    }))
}

fn block_out<'a>(
    block: &'a Block,
    at: usize,
    response: &ChatResponse,
    echo: &Echo,
    losses: &mut Vec<Loss>,
) -> Option<BlockOut<'a>> {
    let path = || format!("content[{at}]");
    Some(match &block.kind {
        BlockKind::Text(text) | BlockKind::Refusal(text) if text.is_empty() => return None,
        BlockKind::Text(text) if !block.citations.is_empty() => {
            let citations: Vec<_> = block.citations.iter().filter_map(search::citation_out).collect();
            if citations.len() < block.citations.len() {
                losses.push(loss(format!("{}.citations", path()), LossAction::Dropped));
            }
            BlockOut::Cited { text, citations, cache: None }
        }
        BlockKind::Text(text) | BlockKind::Refusal(text) => BlockOut::Text { text: text.into(), cache: None },
        // Nobody but us can read it: the dialect has a block for that.
        BlockKind::Thinking { text, signature: Some(Signature { data, .. }), .. }
            if text.is_empty() && shape::is_carrier(data) =>
        {
            BlockOut::RedactedThinking { data }
        }
        // Clients of the dialect count on the member, empty as it may be.
        BlockKind::Thinking { text, signature, .. } => {
            let data = signature.as_ref().map_or("", |signature| &signature.data);
            BlockOut::Thinking { text, signature: Some(data) }
        }
        BlockKind::RedactedThinking { data, .. } => BlockOut::RedactedThinking { data },
        BlockKind::ToolCall(call) => {
            let cut_off = response.finish.is_some_and(FinishReason::is_cut_off);
            if cut_off && !arguments::is_complete(&call.arguments) {
                losses.push(loss(path(), LossAction::Dropped));
                return None;
            }
            let input = arguments::object(&call.arguments);
            if input.changed {
                losses.push(quiet(format!("{}.input", path()), LossAction::Mapped));
            }
            BlockOut::ToolUse {
                id: tool_call_id(&call.id),
                name: &call.name,
                input: input.object,
                cache: None,
            }
        }
        BlockKind::Opaque { origin, raw } if *origin == ID => BlockOut::Raw(raw),
        BlockKind::Image(image) => {
            let (action, text) = match &image.source {
                MediaSource::Url(url) => (LossAction::Mapped, format!("[image: {url}]")),
                MediaSource::Base64 { .. } | MediaSource::FileId { .. } | MediaSource::Text(_) => {
                    (LossAction::Dropped, "[image omitted]".to_owned())
                }
            };
            losses.push(loss(path(), action));
            BlockOut::text(text)
        }
        BlockKind::WebSearch(search) => {
            let blocks = search::client_blocks(search, &echo.request_id, at);
            BlockOut::Raws(blocks.into_iter().map(Into::into).collect())
        }
        BlockKind::File(_)
        | BlockKind::Audio { .. }
        | BlockKind::ToolResult(_)
        | BlockKind::Opaque { .. } => {
            losses.push(loss(path(), LossAction::Dropped));
            return None;
        }
    })
}

fn write_usage(mut object: Object<'_>, response: &ChatResponse, echo: &Echo) {
    let Usage { input_uncached, output_total, .. } = response.usage;
    let estimate =
        || if says_nothing(&response.usage) { 0 } else { estimated_tokens(response.output_bytes()) };
    object.u64("input_tokens", input_uncached.unwrap_or(echo.estimated_input_tokens));
    write_input_usage(&mut object, &response.usage);
    object.u64("output_tokens", output_total.unwrap_or_else(estimate));
    write_output_details(&mut object, &response.usage);
    wire::write_tier(&mut object, response.service_tier.as_deref());
    object.end();
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

    fn decoded(body: &'static str) -> ChatResponse {
        decode(&Bytes::from_static(body.as_bytes())).expect("readable")
    }

    fn encoded(response: &ChatResponse) -> String {
        String::from_utf8(encode(response, &echo()).body.to_vec()).expect("UTF-8")
    }

    #[test]
    fn an_answer_survives_the_round_trip() {
        let body = concat!(
            r#"{"id":"msg_0123456789abcdef01234567","type":"message","role":"assistant","model":"asked","content":[{"type":"thinking","thinking":"","signature":"S"},"#,
            r#"{"type":"text","text":"Hi"},{"type":"web_search_tool_result","tool_use_id":"srvtoolu_1","content":[]},"#,
            r#"{"type":"tool_use","id":"toolu_1","name":"f","input":{"b":1.0,"a":"é"}}],"#,
            r#""stop_reason":"tool_use","stop_sequence":null,"#,
            r#""usage":{"input_tokens":30,"cache_creation_input_tokens":10,"cache_read_input_tokens":0,"#,
            r#""cache_creation":{"ephemeral_5m_input_tokens":4,"ephemeral_1h_input_tokens":6},"output_tokens":20,"#,
            r#""output_tokens_details":{"thinking_tokens":12}}}"#
        );
        assert_eq!(encoded(&decoded(body)), body);
    }

    #[test]
    fn unknown_usage_is_estimated_and_unknown_caches_are_null() {
        let response = ChatResponse {
            blocks: vec![BlockKind::Text("12345".into()).into()],
            finish: Some(FinishReason::Stop),
            ..ChatResponse::default()
        };
        let text = encoded(&response);
        let usage = r#""usage":{"input_tokens":7,"cache_creation_input_tokens":null,"cache_read_input_tokens":null,"output_tokens":2}"#;
        assert!(text.contains(usage), "{text}");
    }

    #[test]
    fn a_refusal_says_so() {
        let response = decoded(
            r#"{"content":[],"stop_reason":"refusal","stop_details":{"type":"refusal","explanation":"No."}}"#,
        );
        assert!(matches!(&response.blocks[0].kind, BlockKind::Refusal(text) if text == "No."));
        let text = encoded(&response);
        assert!(
            text.contains(r#""stop_reason":"refusal""#) && text.contains(r#""explanation":"No.""#),
            "{text}"
        );
    }

    #[test]
    fn a_wrapped_signature_without_a_text_is_a_redacted_block() {
        let thinking = |text: &str, data: &str| {
            let signature = Some(data.to_owned().into());
            Block::from(BlockKind::Thinking { text: text.into(), signature, origin: ID })
        };
        let response = ChatResponse {
            blocks: vec![thinking("", "omr1.a"), thinking("t", "omr1.b"), thinking("", "NATIVE")],
            ..ChatResponse::default()
        };
        let text = encoded(&response);
        let content = concat!(
            r#"[{"type":"redacted_thinking","data":"omr1.a"},{"type":"thinking","thinking":"t","signature":"omr1.b"},"#,
            r#"{"type":"thinking","thinking":"","signature":"NATIVE"}]"#
        );
        assert!(text.contains(content), "{text}");
    }

    #[test]
    fn an_unfinished_call_of_a_cut_answer_is_dropped() {
        let call =
            |arguments: &str| ToolCall { id: "a".into(), name: "f".into(), arguments: arguments.into() };
        let mut response = ChatResponse {
            blocks: vec![BlockKind::ToolCall(call("{\"x\":")).into(), BlockKind::ToolCall(call("")).into()],
            finish: Some(FinishReason::Length),
            ..ChatResponse::default()
        };
        let written = encode(&response, &echo());
        assert_eq!(written.losses, [loss("content[0]", LossAction::Dropped)]);
        response.finish = Some(FinishReason::ToolUse);
        assert!(encoded(&response).contains(r#""input":{"x":null}"#));
    }

    #[test]
    fn the_last_of_repeated_members_counts() {
        let response = decoded(
            r#"{"content":[],"content":[{"type":"text","text":"a","text":"\ud83d"}],"stop_reason":1}"#,
        );
        assert!(matches!(&response.blocks[0].kind, BlockKind::Text(text) if text == "\u{fffd}"));
        assert_eq!(response.finish, None);
    }
}
