//! Sessions that were signed out before their end.

use crate::error::StoreError;
use crate::pool::{with_read, with_write};
use crate::store::Store;

/// Access to the ended sessions.
#[derive(Debug, Clone, Copy)]
pub struct RevokedTokens<'a>(pub(crate) &'a Store);

/// A session that was signed out.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct RevokedToken {
    /// Its id.
    pub jti: String,
    /// When it would have ended anyway.
    pub expires_at: i64,
}

impl RevokedTokens<'_> {
    /// Ends a session.
    pub async fn insert(&self, jti: &str, expires_at: i64) -> Result<(), StoreError> {
        with_write!(self.0.pool(), |db| {
            sqlx::query(
                "INSERT INTO revoked_tokens (jti, expires_at) VALUES ($1, $2) ON CONFLICT (jti) DO NOTHING",
            )
            .bind(jti)
            .bind(expires_at)
            .execute(&mut *db)
            .await?;
        });
        Ok(())
    }

    /// Whether a session was ended.
    pub async fn contains(&self, jti: &str) -> Result<bool, StoreError> {
        let found: i64 = with_read!(self.0.pool(), |db| {
            sqlx::query_scalar("SELECT COUNT(*) FROM revoked_tokens WHERE jti = $1")
                .bind(jti)
                .fetch_one(&mut *db)
                .await?
        });
        Ok(found > 0)
    }

    /// All that would still be valid.
    pub async fn load(&self, now_ms: i64) -> Result<Vec<RevokedToken>, StoreError> {
        Ok(with_read!(self.0.pool(), |db| {
            sqlx::query_as("SELECT jti, expires_at FROM revoked_tokens WHERE expires_at > $1")
                .bind(now_ms)
                .fetch_all(&mut *db)
                .await?
        }))
    }

    /// Forgets those that have ended by themselves.
    pub async fn purge(&self, now_ms: i64) -> Result<u64, StoreError> {
        Ok(with_write!(self.0.pool(), |db| {
            sqlx::query("DELETE FROM revoked_tokens WHERE expires_at <= $1")
                .bind(now_ms)
                .execute(&mut *db)
                .await?
                .rows_affected()
        }))
    }
}
