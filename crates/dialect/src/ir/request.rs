//! A conversation to be continued.

use serde_json::value::RawValue;

use super::Loss;
use crate::DialectId;

/// A request in canonical form.
#[derive(Debug, Clone, Default)]
pub struct ChatRequest {
    /// The model; the client's name after decoding, the upstream's before encoding.
    pub model: String,
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
    /// Members that have no place in the form; written back only to the dialect they came from.
    pub extras: Extras,
    /// What decoding already had to give up or change.
    pub losses: Vec<Loss>,
}

/// Members of one dialect that others do not have.
#[derive(Debug, Clone, Default)]
pub struct Extras {
    /// Where they came from.
    pub origin: Option<DialectId>,
    /// Top-level members in the client's order: name and raw value.
    pub members: Vec<(String, Box<RawValue>)>,
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
}

impl From<BlockKind> for Block {
    fn from(kind: BlockKind) -> Self {
        Self { kind, cache_mark: None }
    }
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
    /// Reasoning of an earlier answer.
    Thinking {
        /// The text; may be empty beside a signature.
        text: String,
        /// The origin's proof that the text is its own.
        signature: Option<String>,
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
    /// Something only one dialect has, kept as it came.
    Opaque {
        /// Whose it is.
        origin: DialectId,
        /// The block as JSON.
        raw: Box<RawValue>,
    },
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
    /// A tool that only one dialect has (server tools, free-form tools), kept as it came.
    Opaque {
        /// Whose it is.
        origin: DialectId,
        /// Its name, if it has one.
        name: Option<String>,
        /// The entry as JSON.
        raw: Box<RawValue>,
    },
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
