//! Pictures from words: requests of clients, the formats of those who are asked, and what is told the client.
//!
//! Clients speak OpenAI's format alone. Most upstreams have the same with [`Quirks`]; Gemini answers a conversation with
//! pictures.

pub mod gemini;
pub mod openai;
pub mod request;

mod answer;
mod size;

pub use answer::{ImageAnswer, Picture, Source};
pub use request::{ImageRequest, Quirks, Wanted};
