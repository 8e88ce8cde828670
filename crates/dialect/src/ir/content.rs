//! What is said in a conversation, by either side.

use serde_json::value::RawValue;

use super::Logprob;
use crate::DialectId;

/// A piece of content.
#[derive(Debug, Clone)]
pub struct Block {
    /// What it is.
    pub kind: BlockKind,
    /// A mark that the prompt may be cached up to here.
    pub cache_mark: Option<CacheMark>,
    /// The sources of a text.
    pub citations: Vec<Citation>,
    /// Whether it leads up to the answer or is it (`commentary`, `final_answer`), where the dialect says so. Members of
    /// [`Extras`] say it too, for what is told of those that others do not have.
    pub phase: Option<Box<str>>,
    /// How probable the tokens of a text were, in its order, where that was asked for.
    pub logprobs: Vec<Logprob>,
}

impl From<BlockKind> for Block {
    fn from(kind: BlockKind) -> Self {
        Self { kind, cache_mark: None, citations: Vec::new(), phase: None, logprobs: Vec::new() }
    }
}

impl Block {
    /// A block that may be marked.
    pub fn marked(kind: BlockKind, cache_mark: Option<CacheMark>) -> Self {
        Self { cache_mark, ..Self::from(kind) }
    }
}

/// A source of a text.
#[derive(Debug, Clone, Default)]
pub struct Citation {
    /// Where it is on the web; `None` for parts of documents in the request.
    pub url: Option<String>,
    /// What it is called.
    pub title: Option<String>,
    /// The words of the source.
    pub cited_text: Option<String>,
    /// The part of the block's text that rests on it, in characters (code points); `None` for all of it.
    pub span: Option<(usize, usize)>,
    /// The citation as its dialect writes it, for that dialect alone.
    pub native: Option<Native>,
}

/// JSON that only the dialect it came from can read.
#[derive(Debug, Clone)]
pub struct Native {
    /// Whose it is.
    pub origin: DialectId,
    /// One value, or several that belong together in this order.
    pub raw: Vec<Box<RawValue>>,
}

/// A cache mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheMark {
    /// Whether it asks for an hour instead of five minutes.
    pub one_hour: bool,
}

/// The kinds of content.
#[derive(Debug, Clone)]
pub enum BlockKind {
    /// Text.
    Text(String),
    /// An image.
    Image(Image),
    /// A document.
    File(File),
    /// A sound.
    Audio {
        /// Base64.
        data: String,
        /// `wav`, `mp3`, …
        format: String,
    },
    /// Reasoning. A signature belongs to what follows the block as well: a dialect that signs texts and calls
    /// (Gemini) finds the signature of a text or call in the thinking block right before it.
    Thinking {
        /// The text; may be empty beside a signature.
        text: String,
        /// The origin's proof that the text is its own, or the text itself, encrypted.
        signature: Option<Signature>,
        /// Who made it; it is only ever sent back there.
        origin: DialectId,
    },
    /// Reasoning that only its origin can read.
    RedactedThinking {
        /// The opaque data.
        data: String,
        /// Who made it.
        origin: DialectId,
    },
    /// The model called a tool.
    ToolCall(ToolCall),
    /// What the tool answered.
    ToolResult(ToolResult),
    /// The model declined.
    Refusal(String),
    /// The vendor searched the web for the model.
    WebSearch(WebSearch),
    /// Something only one dialect has, kept as it came.
    Opaque {
        /// Whose it is.
        origin: DialectId,
        /// The block as JSON.
        raw: Box<RawValue>,
    },
}

/// What the maker of reasoning gave with it, to be given back unchanged.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Signature {
    /// The opaque text.
    pub data: String,
    /// The maker's id of the item, where it has one and the text depends on it.
    pub item: Option<String>,
    /// The kind of models that can read it; `None` where it is not known.
    pub family: Option<String>,
    /// The account that can read it; `None` where others can too, or where it is not known.
    pub account: Option<String>,
}

impl From<String> for Signature {
    fn from(data: String) -> Self {
        Self { data, ..Self::default() }
    }
}

/// An image.
#[derive(Debug, Clone)]
pub struct Image {
    /// Where its bytes are.
    pub source: MediaSource,
    /// How closely the model should look (`low`, `high`, `auto`).
    pub detail: Option<String>,
}

/// A document.
#[derive(Debug, Clone)]
pub struct File {
    /// Where its bytes are.
    pub source: MediaSource,
    /// Its name.
    pub name: Option<String>,
    /// Members of its block that only the client's dialect has, as (name, raw value): whether it is to be cited.
    pub extras: Vec<(String, Box<RawValue>)>,
}

impl From<MediaSource> for File {
    fn from(source: MediaSource) -> Self {
        Self { source, name: None, extras: Vec::new() }
    }
}

/// Where the bytes of an image or document are.
#[derive(Debug, Clone)]
pub enum MediaSource {
    /// In the request, base64.
    Base64 {
        /// The media type the client named.
        media_type: String,
        /// Base64 without a `data:` prefix.
        data: String,
    },
    /// At an address the upstream fetches.
    Url(String),
    /// At a provider, under an id only it knows.
    FileId {
        /// Whose id it is.
        origin: DialectId,
        /// The id.
        id: String,
    },
    /// Plain text in the request.
    Text(String),
}

/// A tool call of an earlier answer.
#[derive(Debug, Clone)]
pub struct ToolCall {
    /// The id that ties call and result together.
    pub id: String,
    /// The tool's name.
    pub name: String,
    /// The arguments as JSON text, exactly as the model wrote them.
    pub arguments: String,
}

/// What a tool answered.
#[derive(Debug, Clone)]
pub struct ToolResult {
    /// The call's id.
    pub call_id: String,
    /// Text, images and documents, in order.
    pub blocks: Vec<Block>,
    /// Whether the tool failed.
    pub is_error: bool,
}

/// A search that the vendor did for the model, and what it found.
#[derive(Debug, Clone, Default)]
pub struct WebSearch {
    /// The upstream's id of the search; may be empty.
    pub id: String,
    /// What was searched for.
    pub queries: Vec<String>,
    /// What was found, as far as the dialect tells.
    pub results: Vec<SearchResult>,
    /// The blocks as their dialect writes them, for that dialect alone.
    pub native: Option<Native>,
}

impl WebSearch {
    /// The search in words, for the history of dialects that have none.
    pub(crate) fn as_text(&self) -> String {
        let mut text = format!("[web search: {}]", self.queries.join("; "));
        for result in &self.results {
            text.push_str(&format!("\n- {} {}", result.title, result.url));
        }
        text
    }
}

/// A page that a search found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SearchResult {
    /// Its address.
    pub url: String,
    /// Its title; may be empty.
    pub title: String,
}
