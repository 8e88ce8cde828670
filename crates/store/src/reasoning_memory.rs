//! Reasoning that clients do not bring back, for the time after a restart. Only ever read when a process starts.
//!
//! The texts are parts of conversations, so they are encrypted like credentials and bound to their rows.

use futures_util::TryStreamExt as _;
use omniroute_engine::ports::ReasoningRow;
use secrecy::ExposeSecret as _;

use crate::error::StoreError;
use crate::pool::{with_read, with_write};
use crate::store::Store;
use crate::text::signed;
use crate::vault::Vault;

/// Most bytes that the table keeps; the oldest rows go first.
pub(crate) const MAX_BYTES: u64 = 64 * 1024 * 1024;
/// What a row counts beside its text. It bounds the number of rows too: a quarter of a million.
pub(crate) const ROW_BYTES: usize = 256;
/// Rows that are encrypted anew in one transaction.
const RESEALED_ROWS: i64 = 500;

pub(crate) const UPSERT: &str = "INSERT INTO reasoning_memory (tenant, key, parts, created_at, expires_at)
     VALUES ($1, $2, $3, $4, $5)
     ON CONFLICT (tenant, key) DO UPDATE SET parts = excluded.parts, created_at = excluded.created_at,
     expires_at = excluded.expires_at";
pub(crate) const FORGET_TENANT: &str = "DELETE FROM reasoning_memory WHERE tenant = $1";

/// Access to the kept reasoning.
#[derive(Debug, Clone, Copy)]
pub struct ReasoningMemory<'a>(pub(crate) &'a Store);

/// What became of the rows that were looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Recalled {
    /// Handed over.
    pub rows: u64,
    /// Encrypted with a key that is not there, or damaged.
    pub unreadable: u64,
}

impl ReasoningMemory<'_> {
    /// Hands over what is still of use, the newest first, up to a number of bytes.
    pub async fn recall(
        &self,
        now_ms: i64,
        max_bytes: usize,
        mut take: impl FnMut(ReasoningRow),
    ) -> Result<Recalled, StoreError> {
        const SELECT: &str = "SELECT tenant, key, parts, created_at, expires_at FROM reasoning_memory
             WHERE expires_at > $1 ORDER BY expires_at DESC";
        let vault = self.0.vault();
        let (mut recalled, mut bytes) = (Recalled::default(), 0);
        with_read!(self.0.pool(), |db| {
            let mut rows = sqlx::query_as::<_, Row>(SELECT).bind(now_ms).fetch(&mut *db);
            while let Some(row) = rows.try_next().await? {
                let Some(row) = row.open(&vault) else {
                    recalled.unreadable += 1;
                    continue;
                };
                bytes += row.parts.len() + ROW_BYTES;
                if bytes > max_bytes {
                    break;
                }
                recalled.rows += 1;
                take(row);
            }
        });
        Ok(recalled)
    }

    /// Deletes the oldest rows while there are too many bytes.
    pub(crate) async fn trim(&self, max_bytes: u64) -> Result<u64, StoreError> {
        Ok(with_write!(self.0.pool(), |db| {
            sqlx::query(
                "DELETE FROM reasoning_memory WHERE (tenant, key) IN (SELECT tenant, key FROM
                 (SELECT tenant, key, SUM(OCTET_LENGTH(parts) + $2) OVER
                  (ORDER BY expires_at DESC, tenant, key ROWS UNBOUNDED PRECEDING) AS held FROM reasoning_memory)
                 AS newest WHERE held > $1)",
            )
            .bind(signed(max_bytes))
            .bind(signed(ROW_BYTES as u64))
            .execute(&mut *db)
            .await?
            .rows_affected()
        }))
    }
}

/// Where a text stands, for its encryption.
pub(crate) fn place(tenant: &str, key: &str) -> String {
    format!("reasoning_memory.parts.{tenant}/{key}")
}

/// Encrypts every text with the current key; those that cannot be read are left as they are, to expire.
pub(crate) async fn reseal(store: &Store, vault: &Vault) -> Result<u64, StoreError> {
    const NEXT: &str = "SELECT tenant, key, parts, created_at, expires_at FROM reasoning_memory
         WHERE (tenant, key) > ($1, $2) ORDER BY tenant, key LIMIT $3";
    let (mut changed, mut after) = (0, (String::new(), String::new()));
    loop {
        let rows: Vec<Row> = with_write!(store.pool(), |db| {
            let rows: Vec<Row> = sqlx::query_as(NEXT)
                .bind(&after.0)
                .bind(&after.1)
                .bind(RESEALED_ROWS)
                .fetch_all(&mut *db)
                .await?;
            for row in rows.iter().filter(|row| !vault.is_current(&row.parts)) {
                let place = place(&row.tenant, &row.key);
                let Ok(parts) = vault.open(&place, &row.parts) else { continue };
                sqlx::query("UPDATE reasoning_memory SET parts = $3 WHERE tenant = $1 AND key = $2")
                    .bind(&row.tenant)
                    .bind(&row.key)
                    .bind(vault.seal(&place, parts.expose_secret())?)
                    .execute(&mut *db)
                    .await?;
                changed += 1;
            }
            rows
        });
        let Some(last) = rows.into_iter().next_back() else { return Ok(changed) };
        after = (last.tenant, last.key);
    }
}

/// As stored.
#[derive(sqlx::FromRow)]
struct Row {
    tenant: String,
    key: String,
    parts: String,
    created_at: i64,
    expires_at: i64,
}

impl Row {
    fn open(self, vault: &Vault) -> Option<ReasoningRow> {
        let parts = vault.open(&place(&self.tenant, &self.key), &self.parts).ok()?;
        Some(ReasoningRow {
            parts: parts.expose_secret().as_bytes().to_vec().into(),
            tenant: self.tenant,
            key: self.key,
            created_at: self.created_at,
            expires_at: self.expires_at,
        })
    }
}
