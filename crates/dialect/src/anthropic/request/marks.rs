//! Cache marks: a request may have a few.

use super::{conversation::Conversation, encode::ToolOut};
use crate::{
    anthropic::wire::BlockOut,
    ir::{Block, BlockKind, CacheMark, ChatRequest, Loss, LossAction, quiet},
};

/// Most cache marks that a request may have.
const MAX_MARKS: usize = 4;

/// The cache marks that a request came with.
#[derive(Debug)]
pub(super) struct Marks {
    any: bool,
}

impl Marks {
    /// Counts the marks of a request.
    pub(super) fn of(request: &ChatRequest, losses: &mut Vec<Loss>) -> Self {
        fn marks(blocks: &[Block]) -> usize {
            let inner = |block: &Block| match &block.kind {
                BlockKind::ToolResult(result) => marks(&result.blocks),
                _ => 0,
            };
            blocks.iter().map(|block| usize::from(block.cache_mark.is_some()) + inner(block)).sum()
        }
        let tools = request.tools.iter().filter(|tool| tool.cache_mark.is_some()).count();
        let turns: usize = request.turns.iter().map(|turn| marks(&turn.blocks)).sum();
        let all = tools + marks(&request.system) + turns;
        if all > MAX_MARKS {
            losses.push(quiet("cache_control", LossAction::Dropped));
        }
        Self { any: all > 0 }
    }

    /// Whether the request has any.
    pub(super) fn any(&self) -> bool {
        self.any
    }
}

/// Leaves the last of too many marks. Those that are not written do not count.
pub(super) fn limit(tools: &mut [ToolOut<'_>], conversation: &mut Conversation<'_>) {
    fn find<'m>(blocks: &'m mut [BlockOut<'_>], found: &mut Vec<&'m mut Option<CacheMark>>) {
        for block in blocks {
            match block {
                BlockOut::ToolResult { content, cache, .. } => {
                    find(content, found);
                    found.push(cache);
                }
                BlockOut::Text { cache, .. }
                | BlockOut::Image { cache, .. }
                | BlockOut::Document { cache, .. }
                | BlockOut::ToolUse { cache, .. }
                | BlockOut::Cited { cache, .. } => found.push(cache),
                BlockOut::Thinking { .. }
                | BlockOut::RedactedThinking { .. }
                | BlockOut::Raw(_)
                | BlockOut::Raws(_) => {}
            }
        }
    }
    let functions = tools.iter_mut().filter(|tool| tool.schema.is_some());
    let mut found: Vec<_> = functions.map(|tool| &mut tool.cache).collect();
    find(&mut conversation.system, &mut found);
    for message in &mut conversation.messages {
        find(&mut message.content, &mut found);
    }
    found.retain(|cache| cache.is_some());
    let too_many = found.len().saturating_sub(MAX_MARKS);
    for cache in found.into_iter().take(too_many) {
        *cache = None;
    }
}
