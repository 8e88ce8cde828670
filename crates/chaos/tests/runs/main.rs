//! Whole runs.

mod configuration;
mod mistakes;
mod scenarios;
