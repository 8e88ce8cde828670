//! Pictures from words, and from other pictures: requests of clients, the formats of those who are asked, and what is told
//! the client.
//!
//! Clients speak OpenAI's format alone. Most upstreams have the same with [`Quirks`]; Gemini answers a conversation with
//! pictures, and each [`Painter`] has a format of its own.

pub mod edit;
pub mod gemini;
pub mod openai;
pub mod painters;
pub mod request;

mod answer;
mod live;
mod size;

pub use answer::{ImageAnswer, Painting, Picture, Source};
pub use edit::{EditFields, Given};
pub use live::LivePictures;
pub use painters::Painter;
pub use request::{Edits, ImageRequest, Quirks, Wanted};
