//! The engine against a scripted upstream, with time standing still until somebody waits.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod admission;
mod auto;
mod bodies;
mod breaker;
mod cache;
mod cancelled;
mod combo_limits;
mod combos;
mod crowd;
mod decisions;
mod defects;
mod edits;
mod embeddings;
mod fallback;
mod foresight;
mod handoffs;
mod idempotency;
mod images;
mod joint;
mod kept;
mod limits;
mod live_pictures;
mod media;
mod money;
mod notices;
mod outages;
mod painters;
mod pauses;
mod phases;
mod policies;
mod pools;
mod quota;
mod quota_look;
mod race;
mod repairs;
mod sessions;
mod similar;
mod spending;
mod streams;
mod thrift;
mod transcription;
mod translation;
mod uploads;
mod world;
