//! What is known of a request before anybody is asked, as far as a combo asks for it.

use omniroute_dialect::ir::{BlockKind, ChatRequest, OutputFormat, ReasoningAmount, Role, ToolKind};
use omniroute_domain::combo::{self, ComboState, RequestFacts};

use crate::ctx::RequestCtx;
use crate::error::GatewayError;
use crate::session;

/// What begins a piece of a program in a text for people.
const FENCE: &str = "```";

/// What is known of the request, as far as the combo asks for it.
pub(crate) async fn facts(ctx: &mut RequestCtx, combo: &ComboState) -> Result<RequestFacts, GatewayError> {
    let mut facts = RequestFacts {
        input_tokens: ctx.estimated_input_tokens(),
        max_output: ctx.envelope()?.max_output_tokens,
        stream: ctx.envelope()?.stream,
        is_bound: ctx.envelope()?.kept.as_ref().is_some_and(|kept| !kept.names.is_empty()),
        ..RequestFacts::default()
    };
    if combo.auto.is_some() {
        facts.served_by = session::served_by(ctx).as_ref().map_or(0, combo::provider_mark);
    }
    if combo::needs_prefix(&ctx.snapshot, combo) {
        facts.prefix = crate::prefix::of(ctx);
    }
    if ctx.task.is_none() && combo::needs_content(&ctx.snapshot, combo) {
        let request = ctx.canonical().await?;
        facts.max_output = request.max_output_tokens;
        facts.has_tools = !request.tools.is_empty();
        facts.has_images = has_images(request);
        facts.wants_json_schema = matches!(request.output_format, OutputFormat::JsonSchema { .. });
        facts.has_code = has_code(request);
        facts.wants_reasoning =
            !matches!(request.reasoning.amount, ReasoningAmount::Default | ReasoningAmount::Off);
        if facts.prefix == 0 {
            facts.prefix = prefix(request);
        }
    }
    Ok(facts)
}

fn has_images(request: &ChatRequest) -> bool {
    request.turns.iter().flat_map(|turn| &turn.blocks).any(|block| match &block.kind {
        BlockKind::Image(_) => true,
        BlockKind::ToolResult(result) => {
            result.blocks.iter().any(|block| matches!(block.kind, BlockKind::Image(_)))
        }
        _ => false,
    })
}

/// Whether the last that the user said has a piece of a program in it.
fn has_code(request: &ChatRequest) -> bool {
    let last = request.turns.iter().rev().find(|turn| turn.role == Role::User);
    last.is_some_and(|turn| {
        turn.blocks.iter().any(|block| matches!(&block.kind, BlockKind::Text(text) if text.contains(FENCE)))
    })
}

/// Stands for what the conversations of an application begin with: the system text and the names of the tools.
fn prefix(request: &ChatRequest) -> u64 {
    let texts = request.system.iter().filter_map(|block| match &block.kind {
        BlockKind::Text(text) => Some(text.as_str()),
        _ => None,
    });
    let tools = request.tools.iter().filter_map(|tool| match &tool.kind {
        ToolKind::Function { name, .. } | ToolKind::Custom { name, .. } => Some(name.as_str()),
        ToolKind::WebSearch(_) | ToolKind::Opaque { .. } => None,
    });
    let mut hash: u64 = 0;
    for text in texts.chain(tools) {
        hash ^= 0xcbf2_9ce4_8422_2325;
        for byte in text.bytes() {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    hash
}

#[cfg(test)]
mod tests {
    use omniroute_dialect::{Dialect as _, Head, openai::OpenAi};

    use super::*;

    fn request(json: &str) -> ChatRequest {
        let head = Head { headers: &http::HeaderMap::new(), path: "/", query: None };
        OpenAi.decode_request(head, &bytes::Bytes::copy_from_slice(json.as_bytes())).unwrap()
    }

    #[test]
    fn the_outside_of_a_request_is_seen() {
        let plain = request(r#"{"model":"m","messages":[{"role":"user","content":"hi"}]}"#);
        assert!(!has_code(&plain) && !has_images(&plain));
        assert_eq!(prefix(&plain), 0, "there is nothing that would be in a cache");
        let code = request(
            r#"{"model":"m","messages":[{"role":"system","content":"be brief"},
                {"role":"user","content":"what is wrong with ```x = ```?"},{"role":"assistant","content":"all"}]}"#,
        );
        assert!(has_code(&code));
        let other = request(
            r#"{"model":"m","messages":[{"role":"system","content":"be brief"},{"role":"user","content":"hi"}]}"#,
        );
        assert_eq!(prefix(&code), prefix(&other), "the user's words are no part of it");
        let tools = request(
            r#"{"model":"m","messages":[{"role":"system","content":"be brief"},{"role":"user","content":"hi"}],
                "tools":[{"type":"function","function":{"name":"look"}}]}"#,
        );
        assert!(prefix(&tools) != prefix(&other) && prefix(&other) != 0);
        let image = request(
            r#"{"model":"m","messages":[{"role":"user","content":[
                {"type":"image_url","image_url":{"url":"https://example.com/a.png"}}]}]}"#,
        );
        assert!(has_images(&image));
    }
}
