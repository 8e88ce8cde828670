//! The management API through its real router, over a database in a temporary directory.

mod accounts;
mod app;
mod auth;
mod availability_stream;
mod budgets;
mod cache;
mod combo_limits;
mod combos;
mod configuration;
mod console;
mod contract;
mod followed;
mod key_pools;
mod observation;
mod policies;
mod pricing;
mod probes;
mod quota;
mod resilience;
mod webhooks;
