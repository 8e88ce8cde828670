//! Reasoning of an answer, noted for clients that will not bring it back: how it is kept, found and put back.

use bytes::{Bytes, BytesMut};
use omniroute_wire::json_out::Array;

use super::carrier::Kind;
use crate::{
    DialectId, ids,
    ir::{Block, BlockKind, ChatRequest, Role, Signature, Turn},
    json_in::{self, Fields},
    registry,
};

/// Most bytes of reasoning that are noted of one answer; longer ones are not.
const MAX_NOTE: usize = 512 * 1024;
/// Most turns of a request, counted from its end, whose reasoning is looked for.
const MAX_TURNS: usize = 64;

/// Reasoning of one answer.
#[derive(Debug, Clone, Default)]
pub struct Notes {
    parts: Vec<Part>,
    /// Blocks that are not reasoning, so far.
    others: usize,
    /// The first call's id as the client sees it.
    call: Option<String>,
    said: Said,
    bytes: usize,
}

#[derive(Debug, Clone)]
struct Part {
    /// How many other blocks stand before it.
    before: usize,
    kind: Kind,
    text: String,
    origin: DialectId,
    signature: Signature,
}

/// What an answer said, as a number; the same for the turn that a client makes of it.
#[derive(Debug, Clone, Default)]
struct Said {
    text: ids::Hash,
    calls: ids::Hash,
    any: bool,
}

impl Said {
    fn text(&mut self, text: &str) {
        // Clients trim texts, some at both ends.
        for word in text.split_ascii_whitespace() {
            self.text.add(word.as_bytes());
            self.any = true;
        }
    }

    fn call(&mut self, name: &str) {
        self.calls.add(name.as_bytes());
        self.calls.add(b"\xff");
        self.any = true;
    }

    /// Arguments of the last call, in pieces. Clients write them anew: neither white space nor an empty object says
    /// anything.
    fn arguments(&mut self, json: &str) {
        let says = |byte: &u8| !matches!(byte, b' ' | b'\n' | b'\r' | b'\t' | b'{' | b'}');
        for byte in json.bytes().filter(says) {
            self.calls.add(&[byte]);
        }
    }

    fn key(&self) -> Option<String> {
        self.any.then(|| format!("said:{:016x}{:016x}", self.text.value(), self.calls.value()))
    }
}

impl Notes {
    pub(super) fn thinking(&mut self, origin: DialectId, item: Option<&str>) {
        let signature = Signature { item: item.map(str::to_owned), ..Signature::default() };
        let part = Part { before: self.others, kind: Kind::Text, text: String::new(), origin, signature };
        self.parts.push(part);
    }

    pub(super) fn thinking_text(&mut self, text: &str) {
        self.bytes += text.len();
        if let Some(part) = self.parts.last_mut().filter(|_| self.bytes <= MAX_NOTE) {
            part.text.push_str(text);
        }
    }

    /// The signature of the last thinking block.
    pub(super) fn signature(&mut self, signature: Signature) {
        self.bytes += signature.data.len();
        if let Some(part) = self.parts.last_mut() {
            part.kind = Kind::Signature;
            part.signature = signature;
        }
    }

    pub(super) fn redacted(&mut self, origin: DialectId, signature: Signature) {
        self.bytes += signature.data.len();
        let before = self.others;
        self.parts.push(Part { before, kind: Kind::Redacted, text: String::new(), origin, signature });
    }

    pub(super) fn call(&mut self, id: &str, name: &str) {
        self.others += 1;
        self.said.call(name);
        self.call.get_or_insert_with(|| ids::tool_call_id(id).into_owned());
    }

    pub(super) fn arguments(&mut self, json: &str) {
        self.said.arguments(json);
    }

    pub(super) fn text_block(&mut self) {
        self.others += 1;
    }

    pub(super) fn text(&mut self, text: &str) {
        self.said.text(text);
    }

    /// Whether there is anything worth keeping; `texts` says whether the upstream wants its unsigned texts back.
    pub(super) fn is_worth_keeping(&self, texts: bool) -> bool {
        let counts = |part: &Part| part.kind != Kind::Text || (texts && !part.text.is_empty());
        self.bytes <= MAX_NOTE && self.parts.iter().any(counts)
    }

    /// Under which keys the note is kept. They say nothing about whose it is.
    pub fn keys(&self) -> impl Iterator<Item = String> {
        let by_call = self.call.as_ref().map(|id| format!("call:{id}"));
        by_call.into_iter().chain(self.said.key())
    }

    /// The note as bytes.
    pub fn to_bytes(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(self.bytes + 128);
        let mut list = Array::begin(&mut out);
        for part in &self.parts {
            let mut entry = list.object();
            entry.u64("n", part.before as u64).str("k", part.kind.word()).str("t", &part.text);
            entry.str("o", part.origin.as_str()).str("d", &part.signature.data);
            entry.opt_str("i", part.signature.item.as_deref());
            entry.opt_str("p", part.signature.family.as_deref());
            entry.opt_str("a", part.signature.account.as_deref());
            entry.end();
        }
        list.end();
        out.freeze()
    }
}

/// The turns of a request that came without reasoning, and the keys under which it may be kept, the best first.
pub fn forgotten(request: &ChatRequest) -> Vec<(usize, Vec<String>)> {
    let first = request.turns.len().saturating_sub(MAX_TURNS);
    let turns = request.turns.iter().enumerate().skip(first);
    turns
        .filter(|(_, turn)| turn.role == Role::Assistant && !has_reasoning(turn))
        .map(|(at, turn)| (at, keys_of(turn)))
        .filter(|(_, keys)| !keys.is_empty())
        .collect()
}

/// Puts a kept note back into the turn it was made of. What cannot be read changes nothing.
pub fn recall(request: &mut ChatRequest, turn: usize, note: &[u8]) {
    let Some(turn) = request.turns.get_mut(turn) else { return };
    let Some(parts) = std::str::from_utf8(note).ok().and_then(read) else { return };
    let mut blocks = std::mem::take(&mut turn.blocks).into_iter();
    let mut given = 0;
    for part in parts {
        while given < part.before {
            let Some(block) = blocks.next() else { break };
            turn.blocks.push(block);
            given += 1;
        }
        turn.blocks.push(part.into_block());
    }
    turn.blocks.extend(blocks);
}

fn has_reasoning(turn: &Turn) -> bool {
    turn.blocks.iter().any(|block| match &block.kind {
        BlockKind::Thinking { signature, .. } => signature.is_some(),
        BlockKind::RedactedThinking { .. } => true,
        _ => false,
    })
}

fn keys_of(turn: &Turn) -> Vec<String> {
    let mut said = Said::default();
    let mut keys = Vec::new();
    for block in &turn.blocks {
        match &block.kind {
            BlockKind::ToolCall(call) => {
                if keys.is_empty() && !call.id.is_empty() {
                    keys.push(format!("call:{}", ids::tool_call_id(&call.id)));
                }
                said.call(&call.name);
                said.arguments(&call.arguments);
            }
            BlockKind::Text(text) | BlockKind::Refusal(text) => said.text(text),
            _ => {}
        }
    }
    keys.extend(said.key());
    keys
}

fn read(text: &str) -> Option<Vec<Part>> {
    let list: Vec<&serde_json::value::RawValue> = serde_json::from_str(text).ok()?;
    list.into_iter()
        .map(|raw| {
            let fields = Fields::lenient(raw.get(), "").ok()?;
            let text = |name: &str| fields.raw(name).and_then(json_in::str_of).map(|text| text.into_owned());
            let kind = match text("k")?.as_str() {
                "sig" => Kind::Signature,
                "redacted" => Kind::Redacted,
                _ => Kind::Text,
            };
            Some(Part {
                before: usize::try_from(fields.count("n").ok()??).ok()?,
                kind,
                text: text("t")?,
                origin: registry::by_name(&text("o")?)?.id(),
                signature: Signature {
                    data: text("d")?,
                    item: text("i"),
                    family: text("p"),
                    account: text("a"),
                },
            })
        })
        .collect()
}

impl Part {
    fn into_block(self) -> Block {
        let Self { kind, text, origin, signature, .. } = self;
        Block::from(match kind {
            Kind::Signature => BlockKind::Thinking { text, signature: Some(signature), origin },
            Kind::Text => BlockKind::Thinking { text, signature: None, origin },
            Kind::Redacted => BlockKind::RedactedThinking { data: signature.data, origin },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{anthropic, ir::ToolCall};

    fn call(id: &str) -> Block {
        BlockKind::ToolCall(ToolCall { id: id.to_owned(), name: "f".to_owned(), arguments: "{}".to_owned() })
            .into()
    }

    fn with(block: Block, json: &str) -> Block {
        let BlockKind::ToolCall(call) = block.kind else { panic!("no call") };
        BlockKind::ToolCall(ToolCall { arguments: json.to_owned(), ..call }).into()
    }

    fn noted() -> Notes {
        let mut notes = Notes::default();
        notes.thinking(anthropic::ID, None);
        notes.thinking_text("plan");
        notes.signature(Signature { data: "S".to_owned(), ..Signature::default() });
        notes.text_block();
        notes.text(" Hi  there");
        notes.redacted(anthropic::ID, Signature { data: "R".to_owned(), ..Signature::default() });
        notes.call("toolu_1", "f");
        notes
    }

    #[test]
    fn a_note_goes_back_to_its_places() {
        let notes = noted();
        assert!(notes.is_worth_keeping(false));
        let text = |text: &str| Block::from(BlockKind::Text(text.to_owned()));
        for (blocks, matches) in [
            (vec![text("Hi there"), call("toolu_1")], true),
            (vec![text("Hi there "), call("")], true),
            (vec![text("Hi there"), with(call(""), "{\"city\":1}")], false),
            (vec![text("Hi there"), with(call("other"), " { } ")], true),
            (vec![text("changed"), call("toolu_1")], true),
            (vec![text("changed"), call("other")], false),
        ] {
            let turn = Turn { role: Role::Assistant, blocks, name: None, path: String::new() };
            let mut request = ChatRequest { turns: vec![turn], ..ChatRequest::default() };
            let wanted = forgotten(&request);
            let keys: Vec<String> = notes.keys().collect();
            assert_eq!(wanted[0].1.iter().any(|key| keys.contains(key)), matches);
            recall(&mut request, 0, &notes.to_bytes());
            let kinds: Vec<_> = request.turns[0].blocks.iter().map(|block| &block.kind).collect();
            assert!(
                matches!(
                    kinds.as_slice(),
                    [
                        BlockKind::Thinking { text, signature: Some(signature), .. },
                        BlockKind::Text(_),
                        BlockKind::RedactedThinking { data, .. },
                        BlockKind::ToolCall(_)
                    ] if text == "plan" && signature.data == "S" && data == "R"
                ),
                "{kinds:?}"
            );
            assert!(forgotten(&request).is_empty(), "what is there is not looked for");
        }
    }

    #[test]
    fn unsigned_text_is_only_kept_for_those_who_want_it() {
        let mut notes = Notes::default();
        notes.thinking(crate::openai::ID, None);
        notes.thinking_text("because");
        assert!(notes.is_worth_keeping(true) && !notes.is_worth_keeping(false));
        notes.thinking_text(&"x".repeat(MAX_NOTE));
        assert!(!notes.is_worth_keeping(true), "too long");
    }
}
