//! Failed sign-ins by client address, so that a restart does not forgive them.

use crate::error::StoreError;
use crate::pool::{with_read, with_write};
use crate::store::Store;
use crate::text::{from_json, to_json};

/// Most attempts kept per identifier.
const MAX_ATTEMPTS: usize = 64;

/// Access to the failed sign-ins.
#[derive(Debug, Clone, Copy)]
pub struct Lockouts<'a>(pub(crate) &'a Store);

/// Failed sign-ins of one client.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lockout {
    /// Who.
    pub identifier: String,
    /// When, oldest first.
    pub attempts: Vec<i64>,
    /// End of the lock.
    pub locked_until: Option<i64>,
}

impl Lockouts<'_> {
    /// What is known of a client.
    pub async fn load(&self, identifier: &str) -> Result<Option<Lockout>, StoreError> {
        let row: Option<(String, Option<i64>)> = with_read!(self.0.pool(), |db| {
            sqlx::query_as("SELECT attempts, locked_until FROM domain_lockout_state WHERE identifier = $1")
                .bind(identifier)
                .fetch_optional(&mut *db)
                .await?
        });
        let Some((attempts, locked_until)) = row else { return Ok(None) };
        let attempts = from_json("attempts", &attempts).map_err(StoreError::Damaged)?;
        Ok(Some(Lockout { identifier: identifier.to_owned(), attempts, locked_until }))
    }

    /// Keeps what is known of a client; of the attempts, the last ones.
    pub async fn save(&self, lockout: &Lockout) -> Result<(), StoreError> {
        let recent = &lockout.attempts[lockout.attempts.len().saturating_sub(MAX_ATTEMPTS)..];
        let attempts = to_json(&recent)?;
        let updated_at = lockout.locked_until.max(recent.last().copied()).unwrap_or(0);
        with_write!(self.0.pool(), |db| {
            sqlx::query(
                "INSERT INTO domain_lockout_state (identifier, attempts, locked_until, updated_at)
                 VALUES ($1, $2, $3, $4) ON CONFLICT (identifier) DO UPDATE
                 SET attempts = excluded.attempts, locked_until = excluded.locked_until,
                 updated_at = excluded.updated_at",
            )
            .bind(&lockout.identifier)
            .bind(&attempts)
            .bind(lockout.locked_until)
            .bind(updated_at)
            .execute(&mut *db)
            .await?;
        });
        Ok(())
    }

    /// Who is locked out, and until when; at most a thousand.
    pub async fn locked(&self, now_ms: i64) -> Result<Vec<(String, i64)>, StoreError> {
        Ok(with_read!(self.0.pool(), |db| {
            sqlx::query_as(
                "SELECT identifier, locked_until FROM domain_lockout_state WHERE locked_until > $1
                 ORDER BY identifier LIMIT 1000",
            )
            .bind(now_ms)
            .fetch_all(&mut *db)
            .await?
        }))
    }

    /// Forgets a client's failures.
    pub async fn clear(&self, identifier: &str) -> Result<(), StoreError> {
        with_write!(self.0.pool(), |db| {
            sqlx::query("DELETE FROM domain_lockout_state WHERE identifier = $1")
                .bind(identifier)
                .execute(&mut *db)
                .await?;
        });
        Ok(())
    }
}
