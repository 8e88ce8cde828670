//! The canonical form of a conversation, and every dialect that is read into it and written from it.
//!
//! Pure: no IO, no clock, no randomness, no tokio. Start with [`Dialect`] (what a wire format must be able
//! to do) and [`registry::DIALECTS`] (which ones there are); the form itself is in [`ir`].

pub mod anthropic;
pub mod audio;
pub mod embeddings;
pub mod estimate;
pub mod form;
#[doc(hidden)]
pub mod fuzz;
pub mod gemini;
pub mod images;
pub mod ir;
pub mod ollama;
pub mod openai;
pub mod opening;
pub mod registry;
pub mod responses;
pub mod rewrite;
pub mod service_tier;
pub mod shape;
pub mod stream;

mod arguments;
mod billed;
mod caps;
mod client_body;
mod custom_format;
mod dialect;
mod effort;
mod error_text;
mod fingerprint;
mod ids;
mod json_body;
mod json_in;
mod logprobs;
mod media;
mod mend;
mod open_calls;
mod pairing;
mod progress;
mod schema_words;
mod strict_schema;
mod tool_list;
mod web_search;

pub use caps::{CacheMarks, Caps, GeminiCaps, ReasoningKnob, ReasoningOff};
pub use dialect::{
    DecodeError, Dialect, DialectId, Echo, EncodeError, Encoded, Envelope, Framing, Head, JsonAnswer,
    KeepAlive, Kept, KeptCall, KeptName, NameRule, Relayed,
};
pub use error_text::error_in_success;
pub use fingerprint::{Question, fingerprint, question};
pub use mend::Mend;
pub use progress::Progress;
pub use rewrite::Rewrite;
