//! The management API: how the gateway is configured, observed and operated over HTTP.
//!
//! - [`router`]: one flat list of every route. The place to look a route up.
//! - `resources`: one file per resource with its types and handlers.
//! - `endpoint`: what a handler may take and answer; the OpenAPI document is made from the same types.
//! - `auth`: who may call what. A handler reaches the application only through an access value, so there is no route
//!   without an access tier.

mod address;
mod auth;
mod console;
mod endpoint;
mod error;
mod probe;
mod provider_lookup;
mod resources;
mod router;
mod state;
mod text;
mod validation;
mod webhooks;

pub use auth::Client;
pub use console::{Console, LogLevel, LogLine};
pub use error::refuse_head;
pub use router::{openapi, openapi_json, router};
pub use state::{
    AdminSettings, AdminState, AskContent, AskField, Lifecycle, NotRehearsed, Peer, Ports, PreviewAnswer,
    PreviewAsk, Previews, RehearsedAsk, Reload, Reuse, WrongAsk,
};
pub use webhooks::Courier;
