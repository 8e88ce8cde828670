//! The canonical form: a superset of the dialects, shaped after meaning.
//!
//! The types here do not implement `Serialize`: nobody can send them by accident, and they may change freely.

mod error;
mod loss;
mod request;
mod response;
mod usage;

pub use error::{AttemptNote, ErrorKind, PublicError, UpstreamError};
pub use loss::{Loss, LossAction};
pub use request::{
    Block, BlockKind, CacheMark, ChatRequest, Effort, Extras, File, Image, MediaSource, OutputFormat,
    Reasoning, ReasoningAmount, Role, Sampling, Tool, ToolCall, ToolChoice, ToolKind, ToolResult, Turn,
};
pub use response::{ChatResponse, FinishReason};
pub use usage::Usage;
