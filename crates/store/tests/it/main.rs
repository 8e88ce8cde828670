//! Stories over the whole store. Each runs on SQLite, and on Postgres where `OMNIROUTE_TEST_PG` names a server.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod accounts;
mod answers;
mod bodies;
mod changes;
mod combo_counts;
mod configuration;
mod crowd;
mod decisions;
mod fixture;
mod key_states;
mod ledger;
mod looking;
mod lost_commits;
mod memory;
mod opening;
mod policies;
mod put;
mod quota;
mod recording;
mod resilience;
mod secrets;
mod side_by_side;
mod similar_questions;
mod turns;
mod usage;
mod webhooks;
