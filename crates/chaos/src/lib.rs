//! The whole engine in virtual time, before upstreams that fail as a scenario says.
//!
//! What runs is what serves: admission, resolution, attempts, cooldowns, limits and relays are the engine's own. Only
//! what reaches outside is replaced: time stands still until everybody waits and then jumps to the next thing to happen, the
//! network is a script ([`scenario`]), the database a tally. All chance follows from one seed, so that the same scenario
//! gives the same report, byte for byte, and a million requests take as long as the work they make.
//!
//! - [`simulate`]: from the text of a scenario to a [`Report`].
//! - `setup.rs`, `traffic.rs`: what a scenario means; whatever is wrong with it is found there.
//! - `upstream/`: how accounts behave.
//! - `run.rs`: clients.
//! - `tally.rs`, `verdict.rs`, `report.rs`: what happened, whether it had to, and how it is told.

mod clock;
mod error;
mod money;
mod random;
mod report;
mod run;
pub mod scenario;
mod setup;
mod tally;
mod traffic;
mod upstream;
mod verdict;
mod world;

pub use error::ScenarioError;
pub use report::Report;
pub use run::{Overrides, simulate};
pub use setup::Base;
pub use verdict::Verdict;
