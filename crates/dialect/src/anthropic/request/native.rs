//! The conversation of a request that came in this dialect.

use std::borrow::Cow;

use super::{
    conversation::{Conversation, Message, block_path},
    media,
};
use crate::{
    anthropic::{ID, search, wire::BlockOut},
    arguments,
    ir::{Block, BlockKind, ChatRequest, Loss, LossAction, Role, WebSearch, loss},
};

/// Writes the conversation of a request that came in this dialect, as it came.
pub(super) fn native<'a>(request: &'a ChatRequest, losses: &mut Vec<Loss>) -> Conversation<'a> {
    for turn in &request.turns {
        for (place, block) in turn.blocks.iter().enumerate() {
            if matches!(&block.kind, BlockKind::WebSearch(search) if own_search(search).is_none()) {
                losses.push(loss(block_path(turn, place), LossAction::Mapped));
            }
        }
    }
    let content = |blocks: &'a [Block]| blocks.iter().filter_map(native_block).collect();
    Conversation {
        system: content(&request.system),
        messages: request
            .turns
            .iter()
            .map(|turn| Message { role: role_word(turn.role), content: content(&turn.blocks) })
            .collect(),
        prefilled: false,
    }
}

fn role_word(role: Role) -> &'static str {
    match role {
        Role::User => "user",
        Role::Assistant => "assistant",
        Role::System => "system",
    }
}

/// A block of this dialect's own; reasoning of a stranger is left out.
fn native_block(block: &Block) -> Option<BlockOut<'_>> {
    let cache = block.cache_mark;
    Some(match &block.kind {
        BlockKind::Text(text) if !block.citations.is_empty() => {
            // What clients were shown of other vendors' sources is not the vendor's.
            let own = block.citations.iter().filter(|citation| citation.native.is_some());
            BlockOut::Cited { text, citations: own.filter_map(search::citation_out).collect(), cache }
        }
        BlockKind::Text(text) | BlockKind::Refusal(text) => {
            BlockOut::Text { text: Cow::Borrowed(text), cache }
        }
        BlockKind::Image(image) => BlockOut::Image { source: media::native_source(&image.source), cache },
        BlockKind::File(file) => BlockOut::Document {
            source: media::native_source(&file.source),
            title: file.name.as_deref(),
            extras: &file.extras,
            cache,
        },
        BlockKind::Thinking { text, signature, origin, .. } if *origin == ID => {
            BlockOut::Thinking { text, signature: signature.as_ref().map(|signature| &*signature.data) }
        }
        BlockKind::RedactedThinking { data, origin } if *origin == ID => BlockOut::RedactedThinking { data },
        BlockKind::ToolCall(call) => BlockOut::ToolUse {
            id: Cow::Borrowed(&call.id),
            name: &call.name,
            input: arguments::object(&call.arguments).object,
            cache,
        },
        BlockKind::ToolResult(result) => BlockOut::ToolResult {
            id: Cow::Borrowed(&result.call_id),
            content: result.blocks.iter().filter_map(native_block).collect(),
            is_error: result.is_error,
            cache,
        },
        BlockKind::Opaque { origin, raw } if *origin == ID => BlockOut::Raw(raw),
        BlockKind::WebSearch(search) => {
            own_search(search).unwrap_or_else(|| BlockOut::text(search.as_text()))
        }
        BlockKind::Audio { .. }
        | BlockKind::Thinking { .. }
        | BlockKind::RedactedThinking { .. }
        | BlockKind::Opaque { .. } => return None,
    })
}

/// The blocks of a search that the vendor did itself.
pub(super) fn own_search(search: &WebSearch) -> Option<BlockOut<'_>> {
    let native = search.native.as_ref().filter(|native| native.origin == ID)?;
    Some(BlockOut::Raws(native.raw.iter().map(|raw| Cow::Borrowed(raw.get())).collect()))
}
