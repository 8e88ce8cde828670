//! The gateway as its users meet it: the real program, started anew for every test, over real sockets.
#![allow(clippy::unwrap_used, reason = "in a test that is the report")]
#![allow(clippy::print_stderr, reason = "a test that cannot run here says why")]
#![allow(
    clippy::disallowed_methods,
    reason = "another process is watched from outside: real time, and tasks that end with the test"
)]

mod accounts;
mod bodies;
mod budgets;
mod cancelling;
mod chaos;
mod client;
mod console;
mod departures;
mod egress;
mod explained;
mod gateway;
mod heads;
mod keys;
mod lifecycle;
mod memory;
mod models;
mod money;
mod names;
mod rim;
mod secrets;
mod simulated;
mod storage;
mod unread;
mod upstreams;
mod world;
