//! The engine against a scripted upstream, with time standing still until somebody waits.

mod admission;
mod fallback;
mod streams;
mod translation;
mod world;
