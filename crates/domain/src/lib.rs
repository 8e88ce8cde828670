//! What the operator configures, and decisions over it. Pure: time and chance are arguments.
//!
//! - [`alias`]: other names for models and combos.
//! - [`breaker`]: whether a provider is asked at all, a state machine over (now, outcome).
//! - [`budget`]: what may be spent within a window of time, and what has been.
//! - [`combo`]: one name for several targets; the plan of a request.
//! - [`fallback`]: the same model elsewhere, when its provider is out.
//! - [`handoff`]: what a conversation takes with it to its next account.
//! - [`hours`]: times of day and days of the week.
//! - [`mapping`]: names of models that mean a combo.
//! - [`policy`]: what the operator forbids, limits or prefers.
//! - [`thinking`]: how much a request shall reason, after the operator's word.
//! - [`transform`]: what the operator adds to and takes from requests.
//! - [`entity`]: rows as the operator wrote them.
//! - [`snapshot`]: what a request needs of them, indexed for it; built whole, swapped whole.
//! - [`resolve`]: from a model string to a provider and an upstream model.
//! - [`routing`]: in which order accounts, or the steps of a combo, are tried.
//! - [`rotation`]: which account leads, and that it is taken at once.
//! - [`health`]: cooldowns and locks, a state machine over (now, outcome).
//! - [`profile`]: how long a failure keeps something out of use.
//! - [`timeline`]: what changed in all of that, the latest last.
//! - [`learned`]: what upstreams have refused.
//! - [`likeness`]: whether two questions that sound alike may have the same answer.
//! - [`limit`]: windows of a key's limits, arithmetic only.
//! - [`limiter`]: requests held back before the upstream has to refuse them.
//! - [`vendor_quota`]: what vendors say is left when they are asked, and what follows.
//! - [`session`]: conversations and the accounts they stay with.
//! - [`price`]: what a model costs, and what an answer did.

pub mod alias;
pub mod breaker;
pub mod budget;
mod clock;
pub mod combo;
pub mod entity;
pub mod fallback;
pub mod handoff;
pub mod health;
pub mod hours;
pub mod learned;
pub mod likeness;
pub mod limit;
pub mod limiter;
pub mod mapping;
pub mod pattern;
pub mod plan;
pub mod policy;
pub mod price;
pub mod profile;
pub mod resolve;
pub mod rotation;
pub mod routing;
pub mod session;
pub mod snapshot;
pub mod thinking;
pub mod timeline;
pub mod transform;
pub mod vendor_quota;
