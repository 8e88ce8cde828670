//! One request from bytes to bytes.

pub mod live;
pub mod ports;
pub mod telemetry;
pub mod time;

pub use live::Live;
