//! What tools answered: each answer at its call, and what no call claims.

use std::borrow::Cow;

use super::conversation::{Builder, USER, is_blank, value_of};
use crate::{
    EncodeError,
    gemini::wire::{PartOut, ResultOut, ValueOut},
    ir::{BlockKind, LossAction, ToolResult, loss, quiet},
    pairing::nameless,
};

impl<'a> Builder<'a, '_> {
    /// Writes the results of the open calls, in the order of the calls, and gives back what of them must stand in
    /// the content behind. Results without an id answer calls without a result as long as they stand before the next
    /// turn of the model, which is `until`.
    pub(super) fn answer_calls(&mut self, until: usize) -> Result<Vec<PartOut<'a>>, EncodeError> {
        let calls = std::mem::take(&mut self.open_calls);
        let mut behind = Vec::new();
        let asked: Vec<_> = calls.iter().map(|open| (open.call.id.as_str(), open.turn)).collect();
        let found = self.answers.claim_all(&asked, until);
        let mut parts = Vec::with_capacity(calls.len());
        for (open, found) in calls.into_iter().zip(found) {
            let mut written = ResultOut {
                id: open.id,
                name: &open.call.name,
                is_error: true,
                value: ValueOut::Text(Cow::Borrowed("tool call was not executed")),
                media: Vec::new(),
            };
            if let Some(answer) = found {
                written.is_error = answer.result.is_error;
                self.fill(&mut written, answer.result, &open.call.id, &answer.path(), &mut behind)?;
            } else {
                self.losses.push(loss(open.path, LossAction::Invented));
            }
            parts.push(PartOut::Result(written));
        }
        self.append(USER, parts, true);
        Ok(behind)
    }

    /// What a tool said. Pictures stand in the result itself where the model takes them there.
    fn fill(
        &mut self,
        written: &mut ResultOut<'a>,
        result: &'a ToolResult,
        call_id: &str,
        path: &str,
        behind: &mut Vec<PartOut<'a>>,
    ) -> Result<(), EncodeError> {
        let mut texts: Vec<Cow<'a, str>> = Vec::new();
        let mut shown = 0;
        for (place, block) in result.blocks.iter().enumerate() {
            let path = format!("{path}.content[{place}]");
            match &block.kind {
                BlockKind::Text(text) => {
                    self.mark(block.cache_mark, || path.clone());
                    texts.push(Cow::Borrowed(text));
                }
                BlockKind::Image(_) | BlockKind::File(_) | BlockKind::Audio { .. } => {
                    let parts = self.part(block, &path)?;
                    let is_text = matches!(parts.first(), Some(PartOut::Text { .. }));
                    if is_text {
                        texts.extend(parts.into_iter().filter_map(|part| match part {
                            PartOut::Text { text, .. } => Some(text),
                            _ => None,
                        }));
                    } else if self.caps.gemini.multimodal_results {
                        written.media.extend(parts);
                    } else {
                        shown += 1;
                        self.losses.push(quiet(path, LossAction::Mapped));
                        let label = format!("{call_id}#{shown}");
                        texts.push(Cow::Owned(format!("[attached below: {label}]")));
                        behind.push(PartOut::text(format!("{label}:")));
                        behind.extend(parts);
                    }
                }
                _ => {
                    let parts = self.part(block, &path)?;
                    texts.extend(parts.into_iter().filter_map(|part| match part {
                        PartOut::Text { text, .. } => Some(text),
                        _ => None,
                    }));
                }
            }
        }
        written.value = match texts.len() {
            1 => texts.pop().map_or(ValueOut::Text(Cow::Borrowed("")), value_of),
            _ => ValueOut::Text(Cow::Owned(texts.join("\n"))),
        };
        Ok(())
    }

    /// A result that no call claimed becomes text.
    pub(super) fn orphan(
        &mut self,
        result: &'a ToolResult,
        path: &str,
        parts: &mut Vec<PartOut<'a>>,
    ) -> Result<(), EncodeError> {
        if result.call_id.is_empty() {
            return Err(nameless(path.to_owned()));
        }
        self.losses.push(loss(path.to_owned(), LossAction::Mapped));
        let mut label = format!("[tool result {}]", result.call_id);
        let mut rest = Vec::new();
        for (place, block) in result.blocks.iter().enumerate() {
            match &block.kind {
                BlockKind::Text(text) => {
                    self.mark(block.cache_mark, || format!("{path}.content[{place}]"));
                    if !is_blank(text) {
                        label.push(' ');
                        label.push_str(text);
                    }
                }
                _ => rest.extend(self.part(block, &format!("{path}.content[{place}]"))?),
            }
        }
        parts.push(PartOut::text(label));
        parts.extend(rest);
        Ok(())
    }
}
