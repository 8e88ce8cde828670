//! Who is upstream. Builds requests and judges answers; sends nothing.

pub mod catalog;
pub mod failure;
pub mod provider;
pub mod spec;
