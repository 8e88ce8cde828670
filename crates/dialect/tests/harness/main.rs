//! What every dialect is held to: fixtures times dialects, the laws of streams, vectors, and faults seen elsewhere.

// Helpers of tests fail by panicking, like tests.
#![allow(clippy::unwrap_used)]

mod cache_marks;
mod carried;
mod citations;
mod completions;
mod custom_tools;
mod endings;
mod faults;
mod fidelity;
mod laws;
mod logprobs;
mod matrix;
mod refusals;
mod requests;
mod responses;
mod shapes;
mod signatures;
mod support;
mod tiers;
mod unknown;
mod vectors;
mod web_search;
