//! Who is upstream. Builds requests and judges answers; sends nothing.
//!
//! - [`spec`]: what a provider is, as data. The data files are in `catalog/`, read by [`catalog`].
//! - [`provider`]: the behaviour over that data, and [`registry`] for the few providers that need code.
//! - [`failure`] and [`classify`]: what went wrong, and how that is found out.
//! - [`address`]: which network addresses may be called.

pub mod address;
pub mod catalog;
pub mod classify;
pub mod failure;
pub mod model;
pub mod provider;
pub mod registry;
pub mod spec;

pub use failure::{Failure, FailureKind, Retry, Scope};
pub use provider::{Endpoint, EndpointError, Provider};
pub use spec::{ProviderId, ProviderSpec};
