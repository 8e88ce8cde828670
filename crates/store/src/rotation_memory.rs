//! Whose turn it is among the accounts of each provider, for the time after a restart: rows of `rrAccounts` in `key_value`.

use std::collections::HashMap;

use omniroute_domain::rotation::RotationMark;
use omniroute_domain::snapshot::{ProviderState, Snapshot};
use omniroute_provider::ProviderId;

use crate::error::StoreError;
use crate::pool::{with_read, with_write};
use crate::store::Store;
use crate::text::to_json;

const SELECT: &str = "SELECT key, value FROM key_value WHERE namespace = 'rrAccounts'";
const UPSERT: &str = "INSERT INTO key_value (namespace, key, value) VALUES ('rrAccounts', $1, $2)
     ON CONFLICT (namespace, key) DO UPDATE SET value = excluded.value";
const DELETE: &str = "DELETE FROM key_value WHERE namespace = 'rrAccounts' AND key = $1";

/// Access to what is kept of the turns of accounts.
#[derive(Debug, Clone, Copy)]
pub struct RotationMemories<'a>(pub(crate) &'a Store);

impl RotationMemories<'_> {
    /// Gives the providers of a snapshot back what earlier processes knew. Rows of providers that are gone are deleted.
    pub async fn recall(&self, snapshot: &Snapshot) -> Result<(), StoreError> {
        let rows: Vec<(String, String)> =
            with_read!(self.0.pool(), |db| sqlx::query_as(SELECT).fetch_all(&mut *db).await?);
        let mut gone = Vec::new();
        for (key, value) in rows {
            match snapshot.provider(&ProviderId::from(key.as_str())) {
                None => gone.push(key),
                // A row that cannot be read costs a turn, not the start.
                Some(provider) => {
                    let mark: RotationMark = serde_json::from_str(&value).unwrap_or_default();
                    provider.rotation.restore(&mark, &provider.connections);
                }
            }
        }
        if !gone.is_empty() {
            with_write!(self.0.pool(), |db| {
                for key in &gone {
                    sqlx::query(DELETE).bind(key.as_str()).execute(&mut *db).await?;
                }
            });
        }
        Ok(())
    }

    /// Writes what differs from `known`, and what is known then. Providers whose order depends on nothing before have no row.
    pub async fn keep(
        &self,
        snapshot: &Snapshot,
        known: &mut HashMap<ProviderId, RotationMark>,
    ) -> Result<(), StoreError> {
        let remembers =
            |provider: &&ProviderState| provider.connections.len() > 1 && provider.rule.strategy.remembers();
        let mut changed = Vec::new();
        // In the order of their ids, so that writers cannot lock each other out.
        for provider in snapshot.providers().into_iter().map(|provider| &**provider).filter(remembers) {
            let mark = provider.rotation.mark(&provider.connections);
            if known.get(&provider.id).map_or(mark != RotationMark::default(), |before| *before != mark) {
                changed.push((provider.id.clone(), to_json(&mark)?, mark));
            }
        }
        if changed.is_empty() {
            return Ok(());
        }
        with_write!(self.0.pool(), |db| {
            for (id, value, _) in &changed {
                sqlx::query(UPSERT).bind(id.as_str()).bind(value.as_str()).execute(&mut *db).await?;
            }
        });
        known.extend(changed.into_iter().map(|(id, _, mark)| (id, mark)));
        Ok(())
    }
}
