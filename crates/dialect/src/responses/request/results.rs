//! What tools answered, as items.

use std::borrow::Cow;

use omniroute_wire::json_out::{Array, Object};

use super::{
    input::{Writer, unsupported},
    message::Message,
};
use crate::{
    EncodeError, ids,
    ir::{self, Block, BlockKind, File, LossAction, MediaSource, ToolCall, ToolResult, Turn},
    media, registry,
};

impl<'a> Writer<'a, '_> {
    /// Writes the results of calls behind them, in their order.
    pub(super) fn results(
        &mut self,
        calls: &[((usize, usize), &'a ToolCall)],
        turn: &Turn,
        is_last: bool,
        items: &mut Array<'_>,
    ) -> Result<(), EncodeError> {
        for (place, call) in calls {
            let custom = self.custom.contains(call.name.as_str());
            match self.pairing.answer(*place) {
                Some((answer, n)) => {
                    let from = &self.request.turns[answer];
                    let block = &from.blocks[n];
                    if let BlockKind::ToolResult(result) = &block.kind {
                        self.result(result, block, &call.id, custom, &from.path, items)?;
                    }
                }
                None if is_last => {
                    return Err(EncodeError {
                        code: "unpaired_tool_call",
                        param: Some(turn.path.clone()),
                        message: format!("`{}` ends with a tool call that has no result", turn.path),
                    });
                }
                None => {
                    self.losses.push(ir::loss(turn.path.clone(), LossAction::Invented));
                    let mut item = begin_result(&call.id, custom, items);
                    item.str("output", "Error: tool call was not executed");
                    item.end();
                }
            }
        }
        Ok(())
    }

    /// Writes a result: as a text, or as parts where there is more in it.
    pub(super) fn result(
        &mut self,
        result: &'a ToolResult,
        block: &Block,
        call_id: &str,
        custom: bool,
        path: &str,
        items: &mut Array<'_>,
    ) -> Result<(), EncodeError> {
        let mut message = Message::new("", "input_text");
        for block in &result.blocks {
            self.part(block, path, &mut message)?;
        }
        self.end_mark(block, path, !message.parts.is_empty(), &mut message);
        let mut item = begin_result(call_id, custom, items);
        if message.is_text {
            let mut text = plain(result);
            if text.is_empty() && !self.native {
                "(no output)".clone_into(&mut text);
            }
            item.str("output", &text);
        } else {
            if result.is_error {
                message.prepend("Error:");
            }
            let list = item.key("output");
            list.extend_from_slice(b"[");
            list.extend_from_slice(&message.parts);
            list.extend_from_slice(b"]");
        }
        item.end();
        Ok(())
    }

    /// Writes a result that no call claims as a text of the user, with what stands in it beside text behind that.
    pub(super) fn orphan(
        &mut self,
        result: &'a ToolResult,
        block: &Block,
        path: &str,
        message: &mut Message,
    ) -> Result<(), EncodeError> {
        self.losses.push(ir::loss(path.to_owned(), LossAction::Mapped));
        for inner in &result.blocks {
            if let BlockKind::Opaque { origin, raw } = &inner.kind
                && registry::opaque_as_text(*origin, raw).is_none()
            {
                return Err(unsupported(path, &format!("content that only the `{origin}` dialect has")));
            }
        }
        message.text(&format!("[tool result {}] {}", result.call_id, plain(result)), block);
        let (shown, texts): (Vec<&Block>, Vec<&Block>) =
            result.blocks.iter().partition(|inner| is_shown(inner));
        let marked: Vec<&Block> = texts.into_iter().filter(|inner| inner.cache_mark.is_some()).collect();
        if let Some((last, earlier)) = marked.split_last() {
            // It is one text here, with one mark at its end.
            earlier.iter().for_each(|inner| self.mark(inner, || path.to_owned()));
            self.end_mark(last, path, true, message);
        }
        for inner in shown {
            self.part(inner, path, message)?;
        }
        self.end_mark(block, path, true, message);
        Ok(())
    }
}

/// Whether a block of a result is more than text.
fn is_shown(block: &Block) -> bool {
    match &block.kind {
        BlockKind::Image(_) | BlockKind::Audio { .. } => true,
        BlockKind::File(file) => text_of(file).is_none(),
        _ => false,
    }
}

/// A file that is nothing but text.
fn text_of(file: &File) -> Option<String> {
    let text = match &file.source {
        MediaSource::Text(text) => Cow::Borrowed(text.as_str()),
        MediaSource::Base64 { media_type, data } if media::is_text(media_type) => {
            Cow::Owned(media::text(data, "").ok()?)
        }
        MediaSource::Base64 { .. } | MediaSource::Url(_) | MediaSource::FileId { .. } => return None,
    };
    Some(media::document_text(file.name.as_deref(), &text))
}

fn begin_result<'o>(call_id: &str, custom: bool, items: &'o mut Array<'_>) -> Object<'o> {
    let mut item = items.object();
    item.str("type", if custom { "custom_tool_call_output" } else { "function_call_output" });
    item.str("call_id", &ids::tool_call_id(call_id));
    item
}

/// The texts of a result in a row.
pub(super) fn plain(result: &ToolResult) -> String {
    let mut text = String::new();
    for block in &result.blocks {
        let piece = match &block.kind {
            BlockKind::Text(text) => Cow::Borrowed(text.as_str()),
            BlockKind::Image(_) => Cow::Borrowed("[image]"),
            BlockKind::Audio { .. } => Cow::Borrowed("[audio]"),
            BlockKind::File(file) => match text_of(file) {
                Some(text) => Cow::Owned(text),
                None => Cow::Borrowed("[document]"),
            },
            BlockKind::Opaque { origin, raw } => {
                Cow::Owned(registry::opaque_as_text(*origin, raw).unwrap_or_default())
            }
            _ => continue,
        };
        if !text.is_empty() && !piece.is_empty() {
            text.push('\n');
        }
        text.push_str(&piece);
    }
    if result.is_error && !text.starts_with("Error: ") {
        text.insert_str(0, "Error: ");
    }
    text
}
