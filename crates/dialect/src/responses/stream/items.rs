//! Items of an upstream's output while they are being written.

use std::borrow::Cow;

use smallvec::SmallVec;

use super::super::wire::{flat_name, text};
use crate::{
    arguments::Shape,
    ids::Hash,
    ir::{Citation, Logprob},
    json_in::Fields,
    stream::BlockHead,
};

/// More items than this in one answer are taken for a fault.
pub(super) const MAX_ITEMS: usize = 1024;

/// The kinds of items that say something.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Kind {
    #[default]
    Message,
    Reasoning,
    Function,
    /// A call whose arguments are free text.
    Custom,
    WebSearch,
    Image,
    Other,
}

/// An item of the output.
#[derive(Debug, Default)]
pub(super) struct Item {
    pub(super) index: u64,
    pub(super) kind: Kind,
    pub(super) id: String,
    pub(super) call_id: String,
    pub(super) name: String,
    pub(super) parts: SmallVec<[Progress; 1]>,
    /// Which of its two texts a reasoning item shows: the summary, or else the reasoning itself.
    pub(super) summary: Option<bool>,
    /// The part of that text that was passed on last.
    pub(super) last_part: Option<u64>,
    pub(super) shape: Shape,
    /// Whether the block of a call was opened.
    pub(super) begun: bool,
    pub(super) signed: bool,
    pub(super) done: bool,
}

/// How much of a part was passed on.
#[derive(Debug, Default)]
pub(super) struct Progress {
    pub(super) part: u64,
    pub(super) bytes: usize,
    pub(super) hash: Hash,
    pub(super) citations: usize,
    pub(super) tokens: usize,
}

/// What an item says next.
#[derive(Debug)]
pub(super) enum Piece<'a> {
    Text {
        part: u64,
        refusal: bool,
        text: Cow<'a, str>,
    },
    Citation {
        part: u64,
        citation: Box<Citation>,
    },
    /// How probable the tokens of the text were that comes next.
    Tokens {
        part: u64,
        tokens: Vec<Logprob>,
    },
    Thinking(Cow<'a, str>),
    Signature(Cow<'a, str>),
    Arguments(Cow<'a, str>),
    Whole(Box<BlockHead<'static>>),
    End,
}

impl Kind {
    /// The kind of the item that an event of this name is about.
    pub(super) fn of_event(name: &str) -> Self {
        match name.strip_prefix("response.").unwrap_or(name) {
            "function_call_arguments.delta" | "function_call_arguments.done" => Self::Function,
            "custom_tool_call_input.delta" | "custom_tool_call_input.done" => Self::Custom,
            "reasoning_summary_text.delta" | "reasoning_text.delta" => Self::Reasoning,
            _ => Self::Message,
        }
    }
}

impl Item {
    /// Takes over what the item itself says about itself.
    pub(super) fn learn(&mut self, fields: &Fields<'_>) {
        self.kind = kind_of(fields);
        let take = |mine: &mut String, new: Option<String>| {
            if mine.is_empty() {
                *mine = new.unwrap_or_default();
            }
        };
        take(&mut self.id, text(fields, "id"));
        take(&mut self.call_id, text(fields, "call_id"));
        let name = text(fields, "name").filter(|name| !name.trim().is_empty());
        take(&mut self.name, name.map(|name| flat_name(text(fields, "namespace").as_deref(), &name)));
    }

    pub(super) fn is_call(&self) -> bool {
        matches!(self.kind, Kind::Function | Kind::Custom)
    }

    /// Whether nothing more of a call is to come.
    pub(super) fn is_whole(&self) -> bool {
        self.done || self.shape.is_closed()
    }

    pub(super) fn progress(&mut self, part: u64) -> &mut Progress {
        let at = self.parts.iter().position(|known| known.part == part).unwrap_or_else(|| {
            // More parts than a text can have share the last place: their wholes are compared in vain, nothing else.
            if self.parts.len() < MAX_ITEMS {
                self.parts.push(Progress { part, ..Progress::default() });
            }
            self.parts.len() - 1
        });
        &mut self.parts[at]
    }
}

impl Progress {
    pub(super) fn note(&mut self, text: &str) {
        self.bytes += text.len();
        self.hash.add(text.as_bytes());
    }

    /// What the whole has beyond what was passed on; nothing when it begins otherwise.
    pub(super) fn missing<'t>(&self, whole: &'t str) -> Option<&'t str> {
        let (head, rest) = whole.split_at_checked(self.bytes).filter(|(_, rest)| !rest.is_empty())?;
        let mut hash = Hash::default();
        hash.add(head.as_bytes());
        (hash.value() == self.hash.value()).then_some(rest)
    }
}

impl Piece<'_> {
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Text { text, .. }
            | Self::Thinking(text)
            | Self::Signature(text)
            | Self::Arguments(text) => text.len(),
            Self::Whole(block) => match &**block {
                BlockHead::Image { data, .. } => data.len(),
                _ => 0,
            },
            Self::Tokens { tokens, .. } => tokens.len() * size_of::<Logprob>(),
            Self::Citation { .. } | Self::End => 0,
        }
    }

    pub(super) fn into_owned(self) -> Piece<'static> {
        let own = |text: Cow<'_, str>| Cow::Owned(text.into_owned());
        match self {
            Self::Text { part, refusal, text } => Piece::Text { part, refusal, text: own(text) },
            Self::Thinking(text) => Piece::Thinking(own(text)),
            Self::Signature(text) => Piece::Signature(own(text)),
            Self::Arguments(text) => Piece::Arguments(own(text)),
            Self::Citation { part, citation } => Piece::Citation { part, citation },
            Self::Tokens { part, tokens } => Piece::Tokens { part, tokens },
            Self::Whole(block) => Piece::Whole(block),
            Self::End => Piece::End,
        }
    }
}

/// The kind of an item.
pub(super) fn kind_of(fields: &Fields<'_>) -> Kind {
    match text(fields, "type").as_deref() {
        Some("message") => Kind::Message,
        Some("reasoning") => Kind::Reasoning,
        Some("function_call") => Kind::Function,
        Some("custom_tool_call") => Kind::Custom,
        Some("web_search_call") => Kind::WebSearch,
        Some("image_generation_call") => Kind::Image,
        _ => Kind::Other,
    }
}
