//! Who is upstream. Builds requests and judges answers; sends nothing.
//!
//! - [`spec`]: what a provider is, as data. The data files are in `catalog/`, read by [`catalog`].
//! - [`provider`]: the behaviour over that data, and [`registry`] for the few providers that need code.
//! - [`capability`] and [`service`]: what providers do beside chat, and where.
//! - [`sounding`]: calls that show whether the key of an account without conversations works.
//! - [`failure`] and [`classify`]: what went wrong, and how that is found out.
//! - [`media_quirks`]: in what they differ from OpenAI where pictures and sound are concerned.
//! - [`caps`]: what a model can do, for the encoders of dialects.
//! - [`allowance`]: what upstreams say is left of an account's limits.
//! - [`quota_api`]: what vendors tell of money and quotas when they are asked.
//! - [`vendor`]: whose a model is by its name alone.
//! - [`address`]: which network addresses may be called. [`scrub`]: what upstream texts must not tell clients.

pub mod address;
pub mod allowance;
pub mod capability;
pub mod caps;
pub mod catalog;
pub mod classify;
pub mod embed_caps;
pub mod failure;
mod family;
pub mod foreign;
pub mod hints;
pub mod media_quirks;
pub mod model;
pub mod provider;
pub mod quota_api;
pub mod registry;
pub mod scrub;
pub mod service;
pub mod sounding;
pub mod spec;
pub mod vendor;

mod dialects;
mod endpoint;

pub use capability::Capability;
pub use embed_caps::embed_caps;
pub use endpoint::{choose, trim_base_url};
pub use failure::{Failure, FailureKind, Retry, Scope};
pub use family::model_family;
pub use provider::{Endpoint, EndpointError, Provider};
pub use quota_api::QuotaApi;
pub use service::{Service, ServiceDialect};
pub use spec::{ProviderId, ProviderSpec};
