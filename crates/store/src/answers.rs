//! Answers that are kept for whoever asks for the same, beyond what fits into memory and over a restart.
//!
//! They are parts of conversations, so they are encrypted like credentials and bound to their rows.

use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use omniroute_dialect::registry;
use omniroute_engine::ports::{AnswerRow, KeptAnswer, Shelf, Unreadable};
use omniroute_provider::ProviderId;
use secrecy::ExposeSecret as _;

use crate::error::StoreError;
use crate::kept_for_a_time;
use crate::pool::{with_read, with_write};
use crate::store::Store;
use crate::text::signed;
use crate::vault::Vault;

/// Most bytes that the table keeps; those that end first go first.
const MAX_BYTES: u64 = 256 * 1024 * 1024;
/// What a row counts beside its answer.
const ROW_BYTES: u64 = 256;

pub(crate) const UPSERT: &str =
    "INSERT INTO semantic_cache (signature, api_key_scope, prompt_hash, model, provider, upstream_model, dialect, response,
     tokens_saved, cost_saved_nano, hit_count, created_at, expires_at)
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, 0, $11, $12)
     ON CONFLICT (signature) DO UPDATE SET model = excluded.model, provider = excluded.provider,
     upstream_model = excluded.upstream_model, dialect = excluded.dialect, response = excluded.response,
     tokens_saved = excluded.tokens_saved, cost_saved_nano = excluded.cost_saved_nano, hit_count = 0,
     created_at = excluded.created_at, expires_at = excluded.expires_at";
pub(crate) const USED: &str = "UPDATE semantic_cache SET hit_count = hit_count + $2 WHERE signature = $1";
pub(crate) const CLEAR: &str = kept_for_a_time::clear_sql!("semantic_cache");
pub(crate) const FORGET_TENANT: &str = kept_for_a_time::forget_tenant_sql!("semantic_cache");

/// Access to the kept answers.
#[derive(Debug, Clone, Copy)]
pub struct Answers<'a>(pub(crate) &'a Store);

impl Answers<'_> {
    /// The answer under a signature, unless it has expired or cannot be read.
    pub async fn find(&self, signature: &str, now_ms: i64) -> Result<Option<AnswerRow>, StoreError> {
        const SELECT: &str =
            "SELECT signature, api_key_scope, model, provider, upstream_model, dialect, response, tokens_saved,
             cost_saved_nano, created_at, expires_at FROM semantic_cache WHERE signature = $1 AND expires_at > $2";
        let row: Option<Row> = with_read!(self.0.pool(), |db| {
            sqlx::query_as(SELECT).bind(signature).bind(now_ms).fetch_optional(&mut *db).await?
        });
        Ok(row.and_then(|row| row.open(&self.0.vault())))
    }

    /// How many there are that can still be given.
    pub async fn count(&self, now_ms: i64) -> Result<u64, StoreError> {
        kept_for_a_time::count(self.0, kept_for_a_time::count_sql!("semantic_cache"), now_ms).await
    }

    /// Deletes those of a model (as it was asked for), under a signature, or all, that were made until then; how many
    /// they were.
    pub async fn clear(
        &self,
        model: Option<&str>,
        signature: Option<&str>,
        until: i64,
    ) -> Result<u64, StoreError> {
        kept_for_a_time::clear(self.0, CLEAR, (model, signature, until)).await
    }

    /// Deletes those that end first while there are too many bytes.
    pub(crate) async fn trim(&self) -> Result<u64, StoreError> {
        Ok(with_write!(self.0.pool(), |db| {
            sqlx::query(
                "DELETE FROM semantic_cache WHERE signature IN (SELECT signature FROM
                 (SELECT signature, SUM(OCTET_LENGTH(response) + $2) OVER
                  (ORDER BY expires_at DESC, signature ROWS UNBOUNDED PRECEDING) AS held FROM semantic_cache)
                 AS newest WHERE held > $1)",
            )
            .bind(signed(MAX_BYTES))
            .bind(signed(ROW_BYTES))
            .execute(&mut *db)
            .await?
            .rows_affected()
        }))
    }
}

impl Shelf for Store {
    fn find<'a>(
        &'a self,
        signature: &'a str,
        now_ms: i64,
    ) -> BoxFuture<'a, Result<Option<AnswerRow>, Unreadable>> {
        async move {
            let found = self.answers().find(signature, now_ms).await;
            found.map_err(|error| Unreadable(error.to_string()))
        }
        .boxed()
    }
}

/// Where an answer stands, for its encryption.
pub(crate) fn place(signature: &str) -> String {
    format!("semantic_cache.response.{signature}")
}

#[derive(sqlx::FromRow)]
struct Row {
    signature: String,
    api_key_scope: String,
    model: String,
    provider: String,
    upstream_model: String,
    dialect: String,
    response: String,
    tokens_saved: i64,
    cost_saved_nano: Option<i64>,
    created_at: i64,
    expires_at: i64,
}

impl Row {
    /// `None` for what this process cannot read: it is another's key, or a dialect it does not know.
    fn open(self, vault: &Vault) -> Option<AnswerRow> {
        let body = vault.open(&place(&self.signature), &self.response).ok()?;
        let answer = KeptAnswer {
            asked: self.model,
            provider: ProviderId::from(self.provider.as_str()),
            model: self.upstream_model.into(),
            dialect: registry::by_name(&self.dialect)?.id(),
            tokens: self.tokens_saved.unsigned_abs(),
            cost_nano: self.cost_saved_nano,
            body: body.expose_secret().as_bytes().to_vec().into(),
        };
        Some(AnswerRow {
            answer: Arc::new(answer),
            signature: self.signature,
            tenant: self.api_key_scope,
            created_at: self.created_at,
            expires_at: self.expires_at,
        })
    }
}

/// What was asked, within a signature.
pub(crate) fn prompt_hash(signature: &str) -> &str {
    signature.rsplit_once('.').map_or(signature, |(_, digest)| digest)
}
