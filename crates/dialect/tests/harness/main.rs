//! What every dialect is held to: fixtures times dialects, the laws of streams, vectors, and faults seen elsewhere.

mod faults;
mod laws;
mod matrix;
mod support;
mod vectors;
