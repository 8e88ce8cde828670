//! Speech to text, and text to speech: requests of clients, the formats of those who are asked, and what is told the
//! client.
//!
//! Clients speak OpenAI's format alone. Who is asked may have a format of its own; then its answer is read into a
//! [`Transcript`] and written anew.

pub mod assemblyai;
pub mod container;
pub mod deepgram;
pub mod openai;
pub mod request;
pub mod speech;
pub mod transcript;

mod cues;
mod subtitles;
mod write;

pub use container::Container;
pub use request::{Fields, Format, TranscriptionRequest};
pub use transcript::{Segment, Transcript, Word};
pub use write::{NoTimes, write};
