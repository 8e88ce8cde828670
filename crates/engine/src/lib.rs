//! One request from bytes to bytes.
//!
//! Start with [`serve`]: the seven stages in order. Each has a file: `admit`, `resolve`, `prepare`, `attempt`,
//! `relay`, `record` (the first, *accept*, is at the HTTP rim of the binary). What the engine needs of the outside
//! stands in [`ports`].

pub mod admit;
pub mod answer;
mod barred;
pub mod bodies;
pub mod chronicle;
pub mod ctx;
pub mod decision;
pub mod error;
pub mod live;
pub mod memory;
pub mod notices;
pub mod ports;
pub mod preview;
pub mod quota_look;
pub mod rehearsal;
pub mod serve;
pub mod spool;
pub mod task;
pub mod telemetry;
pub mod time;
pub mod transport;

mod answer_head;
mod attempt;
mod branch;
mod cancel;
mod circuit;
mod count;
mod explain;
mod fallback;
mod gate;
mod handoff;
mod heal;
mod kept;
mod limits;
mod media;
mod money;
mod plan;
mod policy;
mod prefix;
mod prepare;
mod progress;
mod rate_headers;
mod reasoning;
mod record;
mod relay;
mod resolve;
mod reuse;
mod row_id;
mod session;
mod texts;
mod thrift;
mod transform;
mod turn;

pub use answer::Answer;
pub use ctx::{Arrival, RequestCtx};
pub use error::GatewayError;
pub use live::Live;
pub use reuse::{CacheCounts, Pair, PairOutcome, SimilarityReport};
pub use serve::{Engine, EngineOptions, KeyPolicy};
