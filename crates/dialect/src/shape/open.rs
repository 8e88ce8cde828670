//! Carriers that a client brought back.

use super::carrier::{self, Kind, Opened, Seal};
use crate::{
    ir::{Block, BlockKind, ChatRequest, Loss, LossAction, Turn, quiet},
    registry,
};

/// Opens them. What pretends to be one and is not is left out.
pub fn open_carriers(request: &mut ChatRequest, seal: &Seal) {
    let ChatRequest { turns, losses, .. } = request;
    for turn in turns {
        open_turn(turn, seal, losses);
    }
}

fn open_turn(turn: &mut Turn, seal: &Seal, losses: &mut Vec<Loss>) {
    join_pieces(&mut turn.blocks);
    turn.blocks.retain_mut(|block| {
        let carried = match &block.kind {
            BlockKind::Thinking { signature: Some(signature), .. } => &signature.data,
            BlockKind::RedactedThinking { data, .. } => data,
            _ => return true,
        };
        if !carrier::is_carrier(carried) {
            return true;
        }
        let Some(opened) = seal.open(carried) else {
            losses.push(quiet(turn.path.clone(), LossAction::Dropped));
            return false;
        };
        put_back(&mut block.kind, opened);
        true
    });
}

/// Makes one block of reasoning that came in pieces, of which only the last is signed: what is signed is the whole.
fn join_pieces(blocks: &mut Vec<Block>) {
    let is_carried = |block: &Block| match &block.kind {
        BlockKind::Thinking { signature: Some(signature), origin, .. } => {
            carrier::is_carrier(&signature.data) && registry::by_id(*origin).brings_reasoning_in_pieces()
        }
        _ => false,
    };
    if !blocks.iter().any(is_carried) {
        return;
    }
    let mut joined: Vec<Block> = Vec::with_capacity(blocks.len());
    for mut block in blocks.drain(..) {
        if is_carried(&block) {
            let is_piece = |block: &Block| matches!(block.kind, BlockKind::Thinking { signature: None, .. });
            let first = joined.iter().rposition(|block| !is_piece(block)).map_or(0, |at| at + 1);
            let pieces = joined.drain(first..).filter_map(|piece| match piece.kind {
                BlockKind::Thinking { text, .. } => Some(text),
                _ => None,
            });
            let before: String = pieces.collect();
            if let BlockKind::Thinking { text, .. } = &mut block.kind {
                text.insert_str(0, &before);
            }
        }
        joined.push(block);
    }
    *blocks = joined;
}

fn put_back(kind: &mut BlockKind, opened: Opened) {
    let Opened { kind: carried, origin, signature } = opened;
    let text = match kind {
        BlockKind::Thinking { text, .. } => std::mem::take(text),
        _ => String::new(),
    };
    *kind = match carried {
        Kind::Signature => BlockKind::Thinking { text, signature: Some(signature), origin },
        Kind::Text => BlockKind::Thinking { text, signature: None, origin },
        Kind::Redacted => BlockKind::RedactedThinking { data: signature.data, origin },
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        DialectId,
        ir::{Role, Signature},
    };

    fn thinking(text: &str, data: Option<&str>, origin: DialectId) -> Block {
        let signature = data.map(|data| data.to_owned().into());
        BlockKind::Thinking { text: text.to_owned(), signature, origin }.into()
    }

    /// The texts of what is thought, with whether they are signed.
    fn opened(blocks: Vec<Block>, seal: &Seal) -> Vec<(String, bool)> {
        let mut turn = Turn { role: Role::Assistant, blocks, name: None, path: "messages[0]".to_owned() };
        open_turn(&mut turn, seal, &mut Vec::new());
        let texts = turn.blocks.into_iter().filter_map(|block| match block.kind {
            BlockKind::Thinking { text, signature, .. } => Some((text, signature.is_some())),
            _ => None,
        });
        texts.collect()
    }

    #[test]
    fn what_came_in_pieces_is_signed_as_a_whole() {
        let (gemini, anthropic) = (crate::gemini::ID, crate::anthropic::ID);
        let seal = Seal::new([7; 32]);
        let carried = seal.close(Kind::Signature, anthropic, &Signature::from("S".to_owned()));
        let pieces = |client: DialectId| {
            vec![
                thinking("native", Some("U0lH"), client),
                thinking("one ", None, client),
                thinking("two", Some(&carried), client),
                BlockKind::Text("so".to_owned()).into(),
                thinking("three", None, client),
                BlockKind::Text("and".to_owned()).into(),
                thinking("", Some(&carried), client),
            ]
        };
        let texts = |found: &[(&str, bool)]| -> Vec<(String, bool)> {
            found.iter().map(|(text, signed)| ((*text).to_owned(), *signed)).collect()
        };
        assert_eq!(
            opened(pieces(gemini), &seal),
            texts(&[("native", true), ("one two", true), ("three", false), ("", true)])
        );
        assert_eq!(
            opened(pieces(anthropic), &seal).len(),
            5,
            "elsewhere a block is what it was when it was signed"
        );
    }
}
