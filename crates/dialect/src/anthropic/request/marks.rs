//! Cache marks: a request may have a few.

use crate::ir::{Block, BlockKind, CacheMark, ChatRequest, Loss, LossAction, quiet};

/// Most cache marks that a request may have.
const MAX_MARKS: usize = 4;

/// Lets the last of too many cache marks through.
#[derive(Debug)]
pub(super) struct Marks {
    skip: usize,
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
        let skip = all.saturating_sub(MAX_MARKS);
        if skip > 0 {
            losses.push(quiet("cache_control", LossAction::Dropped));
        }
        Self { skip, any: all > 0 }
    }

    /// Whether the request has any.
    pub(super) fn any(&self) -> bool {
        self.any
    }

    /// A mark, unless it is one too many.
    pub(super) fn take(&mut self, mark: Option<CacheMark>) -> Option<CacheMark> {
        if mark.is_some() && self.skip > 0 {
            self.skip -= 1;
            return None;
        }
        mark
    }
}
