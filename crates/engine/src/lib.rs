//! One request from bytes to bytes. Start with `serve.rs`: the seven stages in order.

pub mod ports;
