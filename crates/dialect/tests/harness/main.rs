//! What every dialect is held to: fixtures times dialects, the laws of streams, vectors, and faults seen elsewhere.

// Helpers of tests fail by panicking, like tests.
#![allow(clippy::unwrap_used)]

mod faults;
mod laws;
mod matrix;
mod support;
mod vectors;
