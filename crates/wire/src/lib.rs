//! Bytes: frames, spans and splices. No IO, no async, no HTTP.
//!
//! - [`sse`], [`ndjson`]: cut a byte stream into frames, whatever the chunking.
//! - [`envelope`]: find the top-level members of a JSON object as spans, in one pass, without a tree.
//! - [`elements`]: the elements of a JSON list, one after the other.
//! - [`members`]: spans of members to cut out or rename.
//! - [`splice`]: change spans of a body without copying or parsing the rest.
//! - [`text`]: read JSON strings as they appear in practice.
//! - [`json_out`]: append JSON to a buffer.

pub mod elements;
pub mod envelope;
pub mod json_out;
pub mod members;
pub mod ndjson;
mod skip;
mod special;
pub mod splice;
pub mod sse;
mod string;
pub mod text;
