//! The resources, one file each: their types, then their handlers.

pub(crate) mod aliases;
pub(crate) mod api_keys;
pub(crate) mod auth;
pub(crate) mod availability;
pub(crate) mod budgets;
pub(crate) mod cache;
pub(crate) mod cache_similarity;
pub(crate) mod call_log_bodies;
pub(crate) mod call_logs;
pub(crate) mod combo_mappings;
pub(crate) mod combos;
mod connection_keys;
mod connection_options;
pub(crate) mod connection_probes;
mod connection_view;
pub(crate) mod connections;
pub(crate) mod console;
pub(crate) mod custom_models;
pub(crate) mod fallback_chains;
pub(crate) mod health;
pub(crate) mod key_references;
mod key_rights;
pub(crate) mod learned;
pub(crate) mod lifecycle;
pub(crate) mod metrics;
pub(crate) mod model_catalog;
pub(crate) mod models;
pub(crate) mod nodes;
pub(crate) mod policies;
pub(crate) mod pricing;
pub(crate) mod quota;
pub(crate) mod rate_limits;
pub(crate) mod resilience;
pub(crate) mod route_preview;
pub(crate) mod running;
pub(crate) mod sessions;
pub(crate) mod settings;
pub(crate) mod system;
pub(crate) mod telemetry;
pub(crate) mod transforms;
pub(crate) mod usage;
pub(crate) mod webhooks;

use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use crate::error::AdminResult;
use crate::validation::Problems;

/// `{"success":true}`.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Done {
    success: bool,
}

impl Done {
    pub(crate) const fn new() -> Self {
        Self { success: true }
    }
}

/// `{"message":"Connection deleted"}`.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Message {
    message: &'static str,
}

/// For members where absent means "leave it" and null means "clear it".
pub(crate) fn present<'de, T, D>(deserializer: D) -> Result<Option<Option<T>>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    Option::deserialize(deserializer).map(Some)
}

/// A page of a list.
pub(crate) struct Page {
    pub(crate) limit: u32,
    pub(crate) offset: u32,
}

/// The page that was asked for; 50 rows where nothing is said.
pub(crate) fn page(limit: Option<u32>, offset: Option<u32>) -> AdminResult<Page> {
    let mut problems = Problems::default();
    problems.range("limit", limit, &(1..=500));
    problems.range("offset", offset, &(0..=100_000_000));
    problems.done()?;
    Ok(Page { limit: limit.unwrap_or(50), offset: offset.unwrap_or(0) })
}

impl Page {
    /// The offset of the next page, if there is one.
    pub(crate) fn next_cursor(&self, total: u64) -> Option<String> {
        let next = u64::from(self.offset) + u64::from(self.limit);
        (next < total).then(|| next.to_string())
    }
}
