//! What a request asks for, whatever its dialect.

use serde_json::{Map, Value};

use crate::frame::Frames;

/// The parts of a request that decide its answer.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ask {
    pub(crate) model: String,
    pub(crate) stream: bool,
    /// How a stream is written.
    pub(crate) frames: Frames,
    /// OpenAI only: the stream ends with a chunk of usage.
    pub(crate) include_usage: bool,
    /// Text of the last message of the user.
    pub(crate) last_text: String,
    /// Text of the results that the conversation ends with.
    pub(crate) tool_result: Option<String>,
    pub(crate) images: usize,
    /// Characters that count as prompt.
    pub(crate) characters: usize,
    pub(crate) messages: usize,
    pub(crate) tools: Vec<Tool>,
    pub(crate) choice: Choice,
    /// At most one call.
    pub(crate) one_call: bool,
    pub(crate) max_tokens: Option<u64>,
    pub(crate) stops: Vec<String>,
    /// Number of answers.
    pub(crate) answers: usize,
    pub(crate) format: Format,
    pub(crate) wish: Wish,
    /// Ollama only: nothing is asked but to have the model ready, or not any more.
    pub(crate) loads: Option<&'static str>,
    /// Ollama only: a text is to be completed.
    pub(crate) completes: bool,
    /// Messages only: at the higher speed that the vendor sells.
    pub(crate) fast: bool,
    /// Responses only: thoughts come with what the vendor reads them from.
    pub(crate) encrypted: bool,
    /// Responses only: the vendor is to keep nothing.
    pub(crate) forgets: bool,
    /// Responses only: what the answer repeats of the request.
    pub(crate) echo: Map<String, Value>,
}

/// A function the model may call.
#[derive(Debug, Clone)]
pub(crate) struct Tool {
    pub(crate) name: String,
    pub(crate) schema: Value,
    /// Takes free text instead of an object.
    pub(crate) free_text: bool,
}

/// Whether tools must be called.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Choice {
    #[default]
    Auto,
    Never,
    Any,
    Named(String),
}

/// What the request says about thoughts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Wish {
    #[default]
    Unsaid,
    /// There are to be none.
    Off,
    /// They need not be shown.
    Hidden,
    /// They are to be shown.
    Shown,
}

/// What the text must look like.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) enum Format {
    #[default]
    Text,
    /// Any JSON object.
    Object,
    /// JSON after a schema.
    Schema(Value),
}

impl Ask {
    /// Tokens of the prompt: four characters each, a few for every message, 85 for an image.
    pub(crate) fn prompt_tokens(&self) -> u64 {
        let tools: usize =
            self.tools.iter().map(|tool| tool.name.len() + tool.schema.to_string().len()).sum();
        let text = (self.characters + tools).div_ceil(4);
        (text + 3 * self.messages + 85 * self.images) as u64
    }
}
