//! What the tests of several crates share: the other end of the wire, time that stands still, and fixtures.
//!
//! - [`ScriptedUpstream`]: a server on a real socket that sends exactly the bytes it is told to, when it is told to.
//! - [`ScriptedTransport`]: the same without a socket, for the engine with paused time.
//! - [`TestClock`]: time that moves when the test says so.
//! - [`sse`]: reading a stream the way a client would.
//! - [`fixtures`]: recorded exchanges from a folder.
//!
//! Everything here panics when a test is wrong; nothing of it is part of the product.

pub mod clock;
pub mod fixtures;
pub mod sse;
pub mod transport;
pub mod upstream;

pub use clock::TestClock;
pub use sse::SseReader;
pub use transport::{ScriptedTransport, Sent};
pub use upstream::{Answer, Captured, ScriptedUpstream, Step};
