//! The blocks of an answer put together again, as they have to go back to an upstream that paused.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use omniroute_wire::{envelope, json_out, splice::Splice, sse::DEFAULT_FRAME_LIMIT};
use serde_json::value::RawValue;

use super::decoder::DeltaIn;
use crate::{
    anthropic::ID,
    ir::{Block, BlockKind},
    json_in::{self, Fields},
};

/// Most blocks of an answer that are kept.
const MAX_BLOCKS: usize = 1024;

/// What was read of an answer so far.
#[derive(Debug, Default)]
pub(super) struct Content {
    blocks: BTreeMap<u32, Kept>,
    bytes: usize,
    /// There is more of it than is kept.
    overflown: bool,
}

/// A block: how it began, and what was added to its members.
#[derive(Debug)]
struct Kept {
    start: String,
    text: String,
    thinking: String,
    signature: String,
    input: String,
    citations: String,
}

impl Content {
    /// A block begins.
    pub(super) fn begin(&mut self, index: u32, block: &RawValue) {
        if !self.has_room(block.get().len()) || self.blocks.len() >= MAX_BLOCKS {
            self.overflown = true;
            return;
        }
        let [text, thinking, signature, input, citations] = std::array::from_fn(|_| String::new());
        let start = json_in::compact(block.get());
        self.blocks.insert(index, Kept { start, text, thinking, signature, input, citations });
    }

    /// More of a block.
    pub(super) fn add(&mut self, index: u32, delta: &DeltaIn<'_>) {
        let citation = delta.citation.map_or("", RawValue::get);
        let all = [&*delta.text, &delta.thinking, &delta.signature, &delta.partial_json, citation];
        if !self.has_room(all.iter().map(|text| text.len()).sum()) {
            return;
        }
        let Some(kept) = self.blocks.get_mut(&index) else { return };
        let Kept { text, thinking, signature, input, citations, .. } = kept;
        for (member, more) in [text, thinking, signature, input].into_iter().zip(all) {
            member.push_str(more);
        }
        if !citation.is_empty() {
            citations.push_str(if citations.is_empty() { "" } else { "," });
            citations.push_str(&json_in::compact(citation));
        }
    }

    /// The blocks in their order; `None` where not all of them were kept.
    pub(super) fn take(&mut self) -> Option<Vec<Block>> {
        let blocks = std::mem::take(&mut self.blocks);
        if self.overflown || blocks.is_empty() {
            return None;
        }
        let whole = blocks.values().map(Kept::whole).filter(|block| !is_blank(block.as_deref()));
        whole.map(|raw| Some(BlockKind::Opaque { origin: ID, raw: raw? }.into())).collect()
    }

    fn has_room(&mut self, more: usize) -> bool {
        self.bytes += more;
        self.overflown |= self.bytes > DEFAULT_FRAME_LIMIT;
        !self.overflown
    }
}

/// Whether a block is a text without any, which the vendor takes from nobody.
fn is_blank(block: Option<&RawValue>) -> bool {
    let Some(fields) = block.and_then(|block| Fields::lenient(block.get(), "").ok()) else { return false };
    let text = |name| fields.raw(name).and_then(json_in::str_of);
    text("type").is_some_and(|kind| kind == "text") && text("text").is_none_or(|text| text.trim().is_empty())
}

impl Kept {
    fn whole(&self) -> Option<Box<RawValue>> {
        let mut edits: Vec<(&str, BytesMut)> = Vec::new();
        let fields = Fields::lenient(&self.start, "").ok()?;
        for (name, more) in
            [("text", &self.text), ("thinking", &self.thinking), ("signature", &self.signature)]
        {
            if !more.is_empty() {
                let before = fields.raw(name).and_then(json_in::str_of).unwrap_or_default();
                let mut out = BytesMut::new();
                json_out::string(&mut out, &format!("{before}{more}"));
                edits.push((name, out));
            }
        }
        if !self.input.trim().is_empty() {
            edits.push(("input", BytesMut::from(&*self.input)));
        }
        if !self.citations.is_empty() {
            edits.push(("citations", BytesMut::from(format!("[{}]", self.citations).as_str())));
        }
        let start = Bytes::copy_from_slice(self.start.as_bytes());
        let mut splice = Splice::new(start.clone());
        let extent = envelope::scan(&start, &mut |member| {
            if let Some(at) = edits.iter().position(|(name, _)| *name == member.key) {
                splice.replace(member.span, edits.swap_remove(at).1.freeze());
            }
        })
        .ok()?;
        let mut rest = BytesMut::new();
        for (name, value) in edits {
            rest.extend_from_slice(if extent.has_members || !rest.is_empty() { b"," } else { b"" });
            json_out::string(&mut rest, name);
            rest.extend_from_slice(b":");
            rest.extend_from_slice(&value);
        }
        splice.replace(extent.end..extent.end, rest.freeze());
        RawValue::from_string(String::from_utf8(splice.to_bytes().to_vec()).ok()?).ok()
    }
}
