//! The canonical form: a superset of the dialects, shaped after meaning.
//!
//! The types here do not implement `Serialize`: nobody can send them by accident, and they may change freely.

mod error;
mod loss;
mod request;
mod response;
mod usage;
mod words;

pub use error::{AttemptNote, ErrorKind, PublicError, UpstreamError};
pub use loss::{Loss, LossAction};
pub(crate) use loss::{loss, quiet};
pub(crate) use request::Function;
pub use request::{
    Block, BlockKind, CacheMark, ChatRequest, Citation, Effort, Extras, File, Image, MediaSource, Native,
    OutputFormat, Place, Reader, Reasoning, ReasoningAmount, Role, Sampling, SearchResult, Signature, Tool,
    ToolCall, ToolChoice, ToolKind, ToolResult, Turn, WebSearch, WebSearchTool,
};
pub use response::{ChatResponse, FinishReason, Logprob};
pub use usage::Usage;
pub(crate) use words::Word;
