//! What operators ended before its time, told to every process on the database: rows of `statesCleared` in `key_value`, each under
//! the revision of the configuration that it came with. A process hears of those between the revision that it had and the one
//! that it takes over, each once; one that starts later has nothing to end, since it knows what was stored by then.

use omniroute_domain::entity::{ConnectionId, Reset};
use serde::{Deserialize, Serialize};

use crate::error::StoreError;
use crate::pool::{bump_revision, with_read, with_write};
use crate::store::Store;

/// Most rows that are kept; the oldest go. Processes are seldom behind by more than a few.
pub(crate) const MAX_KEPT: i64 = 1_000;

pub(crate) const INSERT: &str =
    "INSERT INTO key_value (namespace, key, value) VALUES ('statesCleared', $1, $2)";
pub(crate) const TRIM: &str = "DELETE FROM key_value WHERE namespace = 'statesCleared' AND key <=
     (SELECT key FROM key_value WHERE namespace = 'statesCleared' ORDER BY key DESC LIMIT 1 OFFSET $1)";
const SELECT: &str = "SELECT key, value FROM key_value
     WHERE namespace = 'statesCleared' AND key > $1 AND key <= $2 ORDER BY key";

/// What all processes end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Cleared {
    /// Whatever keeps this account or any of its keys back.
    Errors(ConnectionId),
    /// A part of what is known.
    Reset(Reset),
}

/// Announces something in a transaction that began with [`bump_revision`].
macro_rules! announce {
    ($db:ident, $cleared:expr) => {
        let revision: String = sqlx::query_scalar($crate::store::REVISION).fetch_one(&mut *$db).await?;
        let key = $crate::cleared::key($crate::store::revision_of(&revision)?);
        let text = $crate::text::to_json(&$cleared)?;
        sqlx::query($crate::cleared::INSERT).bind(key).bind(text).execute(&mut *$db).await?;
        sqlx::query($crate::cleared::TRIM).bind($crate::cleared::MAX_KEPT).execute(&mut *$db).await?;
    };
}
pub(crate) use announce;

/// Text that sorts as the revisions do.
pub(crate) fn key(revision: u64) -> String {
    format!("{revision:020}")
}

/// Access to what was ended.
#[derive(Debug, Clone, Copy)]
pub struct StatesCleared<'a>(pub(crate) &'a Store);

impl StatesCleared<'_> {
    /// Has every process end this when it reloads. What they wrote of it for the time after a restart, each takes back itself.
    pub async fn announce(&self, resets: &[Reset]) -> Result<(), StoreError> {
        let cleared: Vec<_> = resets.iter().cloned().map(Cleared::Reset).collect();
        with_write!(self.0.pool(), |db| {
            bump_revision!(db);
            announce!(db, cleared);
        });
        Ok(())
    }

    /// What was ended after one revision and until another, in order. A row that cannot be read ends nothing and is told to the log.
    pub(crate) async fn between(&self, after: u64, until: u64) -> Result<Vec<Cleared>, StoreError> {
        let rows: Vec<(String, String)> = with_read!(self.0.pool(), |db| {
            sqlx::query_as(SELECT).bind(key(after)).bind(key(until)).fetch_all(&mut *db).await?
        });
        let mut all = Vec::new();
        for (revision, text) in rows {
            match serde_json::from_str::<Vec<Cleared>>(&text) {
                Ok(cleared) => all.extend(cleared),
                Err(error) => {
                    tracing::warn!(revision, %error, "what an operator ended cannot be read; it goes on here");
                }
            }
        }
        Ok(all)
    }
}
