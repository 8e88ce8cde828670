//! A conversation to be continued.

use std::{borrow::Cow, sync::LazyLock};

use serde_json::value::RawValue;

use super::{Logprob, Loss, LossAction, quiet};
use crate::{DialectId, EncodeError};

/// A request in canonical form.
#[derive(Debug, Clone, Default)]
pub struct ChatRequest {
    /// The model; the client's name after decoding, the upstream's before encoding.
    pub model: String,
    /// For whom it is encoded; decides which signatures go with it.
    pub reader: Reader,
    /// Whether a stream is wanted.
    pub stream: bool,
    /// Whether the client wants usage within the stream.
    pub include_usage: bool,
    /// The leading system text, one entry per message or block, in order.
    pub system: Vec<Block>,
    /// The conversation, oldest first.
    pub turns: Vec<Turn>,
    /// Tools the model may call, in the client's order.
    pub tools: Vec<Tool>,
    /// Which of them it should call.
    pub tool_choice: Option<ToolChoice>,
    /// Whether several calls per answer are allowed; `None` for the target's default.
    pub parallel_tool_calls: Option<bool>,
    /// How to pick tokens.
    pub sampling: Sampling,
    /// Most tokens to produce, as the client set it.
    pub max_output_tokens: Option<u64>,
    /// Sequences that end the answer.
    pub stop: Vec<String>,
    /// The form of the answer.
    pub output_format: OutputFormat,
    /// How much to reason, and whether to show it.
    pub reasoning: Reasoning,
    /// A stable id of the end user, for the vendor's abuse detection.
    pub user: Option<String>,
    /// Whether the client called that id a safety identifier, where its dialect has two names for it.
    pub user_is_safety_id: bool,
    /// The client's key for prompt caches.
    pub prompt_cache_key: Option<String>,
    /// The service tier the client asked for, in the client dialect's words.
    pub service_tier: Option<String>,
    /// The client's own notes on the request, an object of strings.
    pub metadata: Option<Box<RawValue>>,
    /// Whether the vendor may keep the answer.
    pub store: Option<bool>,
    /// How wordy the answer should be: `low`, `medium`, `high`.
    pub verbosity: Option<String>,
    /// Members that have no place in the form; written back only to the dialect they came from.
    pub extras: Extras,
    /// What decoding already had to give up or change.
    pub losses: Vec<Loss>,
}

/// Who will read signatures: a model at an account. Members are `None` where it does not matter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reader {
    /// The kind of models.
    pub family: Option<String>,
    /// The account.
    pub account: Option<String>,
}

impl Reader {
    /// Whether reasoning with this signature may be sent there, given that the dialects agree.
    pub fn can_read(&self, signature: &Signature) -> bool {
        fn agree(mine: Option<&String>, theirs: Option<&String>) -> bool {
            mine.is_none() || theirs.is_none() || mine == theirs
        }
        agree(self.family.as_ref(), signature.family.as_ref())
            && agree(self.account.as_ref(), signature.account.as_ref())
    }
}

/// Members of one dialect that others do not have.
#[derive(Debug, Clone, Default)]
pub struct Extras {
    /// Where they came from.
    pub origin: Option<DialectId>,
    /// Top-level members in the client's order: name and raw value.
    pub members: Vec<(String, Box<RawValue>)>,
}

impl Extras {
    /// Whether nobody has to be told that another dialect's target does not get this member: it is about the
    /// vendor's bookkeeping, caches or machines and not about the answer.
    fn is_harmless(name: &str) -> bool {
        const NAMES: &[&str] = &[
            "include",
            "metadata",
            "user",
            "store",
            "stream_options",
            "prompt_cache_options",
            "prompt_cache_retention",
            "keep_alive",
            "truncate",
            "shift",
        ];
        NAMES.contains(&name) || name.starts_with(Self::RUNNER)
    }

    /// What becomes of a member that a target of another dialect does not get: it is left out, or refused where the
    /// answer would be another one without it.
    pub(crate) fn leave_out(name: &str, raw: &RawValue) -> Result<Loss, EncodeError> {
        const BOUND: &[&str] =
            &["container", "previous_response_id", "conversation", "prompt", "cachedContent"];
        let refused = |code, message| Err(EncodeError { code, param: Some(name.to_owned()), message });
        let has = |word: &str| raw.get().contains(word);
        let more_than_text = match name {
            "modalities" => has("\"audio\""),
            "generationConfig.responseModalities" => {
                ["\"AUDIO\"", "\"IMAGE\"", "\"audio\"", "\"image\""].into_iter().any(has)
            }
            _ => false,
        };
        if more_than_text {
            let message = "the target answers with text alone; ask for text, or use a model that makes more";
            return refused("unsupported_content", message.to_owned());
        }
        if name == "tool_choice" {
            let message = "the target has no such tool; choose another, or use a provider that has it";
            return refused("unsupported_tool", message.to_owned());
        }
        // What upstreams that know it do with it is to show it in another way.
        if name.starts_with("input[") && name.ends_with(".phase") {
            return Ok(quiet(name.to_owned(), LossAction::Dropped));
        }
        // Items that only their provider can read or find have the name of their place.
        if BOUND.contains(&name) || name.starts_with("input[") {
            let message = format!("`{name}` belongs to another provider; leave it out or use that provider");
            return refused("unsupported_parameter", message);
        }
        if name == "background" && raw.get() == "true" {
            let message = "the target does not answer in the background; leave `background` out";
            return refused("unsupported_parameter", message.to_owned());
        }
        let silent = Self::is_harmless(name) || raw.get() == "null";
        Ok(Loss { path: name.to_owned().into(), action: LossAction::Dropped, silent })
    }

    /// How the names of members begin that set up the machine which runs the model.
    pub(crate) const RUNNER: &str = "options.";
}

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The end user. Results of tools are blocks of user turns.
    User,
    /// The model.
    Assistant,
    /// An instruction within the conversation.
    System,
}

/// One contribution to the conversation.
#[derive(Debug, Clone)]
pub struct Turn {
    /// Who speaks.
    pub role: Role,
    /// What is said, in order.
    pub blocks: Vec<Block>,
    /// The speaker's name, where the dialect has one.
    pub name: Option<String>,
    /// Where the turn stood in the client's request (`messages[2]`), for errors and losses.
    pub path: String,
}

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

/// A tool the model may call.
#[derive(Debug, Clone)]
pub struct Tool {
    /// What it is.
    pub kind: ToolKind,
    /// A mark that the prompt may be cached up to here.
    pub cache_mark: Option<CacheMark>,
    /// Members of the tool's entry that only the client's dialect has, as (name, raw value).
    pub extras: Vec<(String, Box<RawValue>)>,
}

/// The kinds of tools.
#[derive(Debug, Clone)]
pub enum ToolKind {
    /// A function that the client runs.
    Function {
        /// Its name.
        name: String,
        /// What it does.
        description: Option<String>,
        /// JSON schema of its arguments, exactly as the client wrote it.
        schema: Option<Box<RawValue>>,
        /// Whether the arguments must obey the schema.
        strict: Option<bool>,
    },
    /// A tool that the client runs and whose input is free text. Calls of it have the arguments
    /// `{"input": "…"}` in the form; dialects that know such tools unwrap them.
    Custom {
        /// Its name.
        name: String,
        /// What it does.
        description: Option<String>,
        /// What its input must look like (`{"type":"grammar",…}`), exactly as the client wrote it.
        format: Option<Box<RawValue>>,
    },
    /// The vendor's search of the web.
    WebSearch(Box<WebSearchTool>),
    /// A tool that only one dialect has (other server tools), kept as it came.
    Opaque {
        /// Whose it is.
        origin: DialectId,
        /// Its name, if it has one.
        name: Option<String>,
        /// The entry as JSON.
        raw: Box<RawValue>,
    },
}

/// How the vendor may search the web.
#[derive(Debug, Clone)]
pub struct WebSearchTool {
    /// The entry as the client's dialect writes it; for a dialect that has no entry, the switch's value.
    pub native: Native,
    /// The only domains to search; empty for all.
    pub allowed_domains: Vec<String>,
    /// Domains to leave out.
    pub blocked_domains: Vec<String>,
    /// Most searches per answer.
    pub max_uses: Option<u64>,
    /// How much of what is found the model reads: `low`, `medium`, `high`.
    pub context_size: Option<String>,
    /// Roughly where the user is.
    pub place: Option<Place>,
}

/// Roughly where a user is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Place {
    /// City.
    pub city: Option<String>,
    /// Two letters.
    pub country: Option<String>,
    /// Region or state.
    pub region: Option<String>,
    /// IANA name.
    pub timezone: Option<String>,
}

/// Which tool the model should call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToolChoice {
    /// As it likes.
    Auto,
    /// None.
    None,
    /// At least one.
    Required,
    /// This one.
    Named(String),
    /// The vendor's search of the web.
    WebSearch,
    /// One of these.
    Allowed {
        /// Whether it must call one.
        required: bool,
        /// Their names.
        names: Vec<String>,
    },
}

/// How tokens are picked. Numbers are kept as the client wrote them.
#[derive(Debug, Clone, Default)]
pub struct Sampling {
    /// 0 to 2.
    pub temperature: Option<Box<RawValue>>,
    /// 0 to 1.
    pub top_p: Option<Box<RawValue>>,
    /// A count.
    pub top_k: Option<Box<RawValue>>,
    /// -2 to 2.
    pub frequency_penalty: Option<Box<RawValue>>,
    /// -2 to 2.
    pub presence_penalty: Option<Box<RawValue>>,
    /// Best-effort determinism.
    pub seed: Option<Box<RawValue>>,
    /// Token id to bias, as JSON.
    pub logit_bias: Option<Box<RawValue>>,
    /// Whether log probabilities are wanted.
    pub logprobs: bool,
    /// How many alternatives per token.
    pub top_logprobs: Option<u64>,
    /// How many answers.
    pub n: Option<u64>,
}

/// The form of the answer.
#[derive(Debug, Clone, Default)]
pub enum OutputFormat {
    /// Free text.
    #[default]
    Text,
    /// Any JSON object.
    JsonObject,
    /// JSON that obeys a schema.
    JsonSchema {
        /// The schema's name.
        name: Option<String>,
        /// What it is for.
        description: Option<String>,
        /// The schema, exactly as the client wrote it.
        schema: Box<RawValue>,
        /// Whether it must be obeyed.
        strict: Option<bool>,
    },
}

/// How much to reason.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reasoning {
    /// The amount.
    pub amount: ReasoningAmount,
    /// Whether the client wants to see reasoning text; `None` for the target's default.
    pub show: Option<bool>,
}

/// An amount of reasoning.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum ReasoningAmount {
    /// What the model does by itself.
    #[default]
    Default,
    /// None.
    Off,
    /// A level.
    Effort(Effort),
    /// At most this many tokens.
    Budget(u64),
    /// As the model sees fit, optionally steered by a level.
    Adaptive(Option<Effort>),
}

/// Levels of effort, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effort {
    /// As little as possible.
    Minimal,
    /// Little.
    Low,
    /// Some.
    Medium,
    /// Much.
    High,
    /// Very much.
    XHigh,
    /// All the model can.
    Max,
}

impl ChatRequest {
    /// Whether the tool of this name takes free text.
    pub fn is_custom_tool(&self, name: &str) -> bool {
        self.tools
            .iter()
            .any(|tool| matches!(&tool.kind, ToolKind::Custom { name: known, .. } if known == name))
    }
}

impl Tool {
    /// The name by which the model calls it; `None` for tools that have none.
    pub fn name(&self) -> Option<&str> {
        match &self.kind {
            ToolKind::Function { name, .. } | ToolKind::Custom { name, .. } => Some(name),
            ToolKind::Opaque { name, .. } => name.as_deref(),
            ToolKind::WebSearch(_) => None,
        }
    }

    /// The tool as a function, for dialects that have no other tools which the client runs.
    pub(crate) fn as_function(&self) -> Option<Function<'_>> {
        match &self.kind {
            ToolKind::Function { name, description, schema, strict } => Some(Function {
                name,
                description: description.as_deref().map(Cow::Borrowed),
                schema: schema.as_deref(),
                strict: *strict,
            }),
            ToolKind::Custom { name, description, format } => {
                let mut text = description.clone().unwrap_or_default();
                if let Some(format) = format {
                    text.push_str("\n\nThe input must have this format: ");
                    text.push_str(format.get());
                }
                Some(Function {
                    name,
                    description: Some(Cow::Owned(text)),
                    schema: Some(&FREE_TEXT),
                    strict: None,
                })
            }
            ToolKind::WebSearch(_) | ToolKind::Opaque { .. } => None,
        }
    }
}

/// The schema of a function that takes free text.
static FREE_TEXT: LazyLock<Box<RawValue>> = LazyLock::new(|| {
    let schema = r#"{"type":"object","properties":{"input":{"type":"string"}},"required":["input"],"additionalProperties":false}"#;
    RawValue::from_string(schema.to_owned()).expect("a schema that is written here")
});

/// A function as it is offered to the model.
#[derive(Debug)]
pub(crate) struct Function<'a> {
    pub(crate) name: &'a str,
    pub(crate) description: Option<Cow<'a, str>>,
    pub(crate) schema: Option<&'a RawValue>,
    pub(crate) strict: Option<bool>,
}
