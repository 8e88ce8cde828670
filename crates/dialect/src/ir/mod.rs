//! The canonical form: a superset of the dialects, shaped after meaning.
//!
//! The types here do not implement `Serialize`: nobody can send them by accident, and they may change freely.

mod content;
mod error;
mod loss;
mod request;
mod response;
mod tools;
mod usage;
mod words;

pub use content::{
    Block, BlockKind, CacheMark, Citation, File, Image, MediaSource, Native, SearchResult, Signature,
    ToolCall, ToolResult, WebSearch,
};
pub use error::{AttemptNote, ErrorKind, PublicError, UpstreamError};
pub use loss::{Loss, LossAction};
pub(crate) use loss::{loss, quiet};
pub use request::{
    ChatRequest, Effort, Extras, OutputFormat, Reader, Reasoning, ReasoningAmount, Role, Sampling, Turn,
};
pub use response::{ChatResponse, FinishReason, Logprob};
pub(crate) use tools::Function;
pub use tools::{Place, Tool, ToolChoice, ToolKind, WebSearchTool};
pub use usage::{Tier, Usage};
pub(crate) use words::Word;
