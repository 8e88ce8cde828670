//! What operators end before its time.

use omniroute_provider::ProviderId;
use serde::{Deserialize, Serialize};

use super::ConnectionId;

/// What an operator ends in every process on the database. `None` is all of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Reset {
    /// Breakers: they close.
    Breakers {
        /// Those of this provider.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        provider: Option<ProviderId>,
    },
    /// Cooldowns of accounts and of their keys.
    Cooldowns {
        /// Those at this provider.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        provider: Option<ProviderId>,
    },
    /// Locks of models.
    Locks {
        /// Those at this provider.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        provider: Option<ProviderId>,
        /// Those of this account and of its keys.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        connection: Option<ConnectionId>,
        /// Those of this model, as the provider knows it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        model: Option<String>,
    },
}
