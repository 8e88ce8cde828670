//! Questions and their vectors, for those that are close to them: over a restart, and for other processes.
//!
//! Only ever read behind the requests' backs: at the start, and every few seconds for what others have written. A vector
//! tells much of its text, so both are encrypted together and bound to their rows.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use futures_util::TryStreamExt as _;
use omniroute_domain::entity::{RuntimeSettings, SimilarityMode};
use omniroute_engine::Live;
use omniroute_engine::ports::{Clock, QuestionRow};
use secrecy::ExposeSecret as _;
use tokio_util::sync::CancellationToken;

use crate::error::StoreError;
use crate::kept_for_a_time;
use crate::pool::{with_read, with_write};
use crate::store::Store;
use crate::text::{from_hex, signed};
use crate::vault::Vault;

/// Most bytes that the table keeps; the oldest go first.
pub(crate) const MAX_BYTES: u64 = 512 * 1024 * 1024;
/// What a row counts beside its content.
const ROW_BYTES: u64 = 256;
/// How often what others have written is read.
const EVERY: Duration = Duration::from_secs(5);
/// How far clocks may be apart, and rows wait to be written.
const SLACK_MS: i64 = 30_000;

pub(crate) const UPSERT: &str =
    "INSERT INTO similar_questions (signature, api_key_scope, bucket, model, content, created_at, expires_at)
     VALUES ($1, $2, $3, $4, $5, $6, $7)
     ON CONFLICT (signature) DO UPDATE SET bucket = excluded.bucket, model = excluded.model, content = excluded.content,
     created_at = excluded.created_at, expires_at = excluded.expires_at";
pub(crate) const CLEAR: &str = kept_for_a_time::clear_sql!("similar_questions");
pub(crate) const FORGET_TENANT: &str = kept_for_a_time::forget_tenant_sql!("similar_questions");

/// Access to the questions.
#[derive(Debug, Clone, Copy)]
pub struct SimilarQuestions<'a>(pub(crate) &'a Store);

/// Where whoever reads the questions again and again stands.
#[derive(Debug, Default)]
pub struct QuestionMark {
    /// The newest row so far.
    newest: i64,
    /// Rows that are new enough to be read again.
    seen: HashSet<(String, i64)>,
}

impl SimilarQuestions<'_> {
    /// Hands over what was written since the last time and can still be of use, the oldest first; how many that were.
    pub async fn since(
        &self,
        mark: &mut QuestionMark,
        now_ms: i64,
        mut take: impl FnMut(QuestionRow),
    ) -> Result<u64, StoreError> {
        const SELECT: &str = "SELECT signature, api_key_scope, bucket, model, content, created_at, expires_at
             FROM similar_questions WHERE created_at > $1 AND expires_at > $2 ORDER BY created_at, signature";
        let vault = self.0.vault();
        let from = mark.newest.saturating_sub(SLACK_MS);
        let mut taken = 0;
        with_read!(self.0.pool(), |db| {
            let mut rows = sqlx::query_as::<_, Row>(SELECT).bind(from).bind(now_ms).fetch(&mut *db);
            while let Some(row) = rows.try_next().await? {
                let known = (row.signature.clone(), row.created_at);
                mark.newest = mark.newest.max(row.created_at);
                if !mark.seen.insert(known) {
                    continue;
                }
                if let Some(row) = row.open(&vault) {
                    take(row);
                    taken += 1;
                }
            }
        });
        let oldest = mark.newest.saturating_sub(SLACK_MS);
        mark.seen.retain(|(_, created_at)| *created_at > oldest);
        Ok(taken)
    }

    /// How many there are that can still be of use.
    pub async fn count(&self, now_ms: i64) -> Result<u64, StoreError> {
        kept_for_a_time::count(self.0, kept_for_a_time::count_sql!("similar_questions"), now_ms).await
    }

    /// Deletes those of a model (as it was asked for), under a signature, or all, that were made until then.
    pub async fn clear(
        &self,
        model: Option<&str>,
        signature: Option<&str>,
        until: i64,
    ) -> Result<u64, StoreError> {
        kept_for_a_time::clear(self.0, CLEAR, (model, signature, until)).await
    }

    /// Deletes the oldest of each key beyond so many, and of all while there are too many bytes.
    pub(crate) async fn trim(&self, most_per_key: u32, max_bytes: u64) -> Result<u64, StoreError> {
        Ok(with_write!(self.0.pool(), |db| {
            sqlx::query(
                "DELETE FROM similar_questions WHERE signature IN (SELECT signature FROM
                 (SELECT signature, SUM(OCTET_LENGTH(content) + $2) OVER
                  (ORDER BY created_at DESC, signature ROWS UNBOUNDED PRECEDING) AS held,
                  ROW_NUMBER() OVER (PARTITION BY api_key_scope ORDER BY created_at DESC, signature) AS place
                  FROM similar_questions) AS newest WHERE held > $1 OR place > $3)",
            )
            .bind(signed(max_bytes))
            .bind(signed(ROW_BYTES))
            .bind(i64::from(most_per_key))
            .execute(&mut *db)
            .await?
            .rows_affected()
        }))
    }
}

/// Hands over what other processes write, and what there was at the start, until cancelled; nothing while nobody wants
/// it.
pub async fn keep_questions(
    store: Store,
    live: Arc<Live>,
    clock: Arc<dyn Clock>,
    mut mark: QuestionMark,
    take: impl Fn(QuestionRow) + Send,
    cancel: CancellationToken,
) {
    let mut is_failing = false;
    while tokio::time::timeout(EVERY, cancel.cancelled()).await.is_err() {
        if !is_wanted(&live) {
            continue;
        }
        match store.similar_questions().since(&mut mark, clock.now_ms(), &take).await {
            Ok(_) => is_failing = false,
            Err(error) => {
                if !is_failing {
                    tracing::warn!(%error, "questions that other processes keep cannot be read; they are not found here");
                }
                is_failing = true;
            }
        }
    }
}

/// Whether the settings, or those of a key, ask for similar questions.
pub fn is_wanted(live: &Live) -> bool {
    let snapshot = live.load();
    let RuntimeSettings { semantic_cache_enabled, semantic_cache_similarity: similarity, .. } =
        &snapshot.settings;
    let by_key = || {
        snapshot
            .callers()
            .any(|caller| caller.similarity.mode.is_some_and(|mode| mode != SimilarityMode::Off))
    };
    *semantic_cache_enabled
        && similarity.model.is_some()
        && (similarity.mode != SimilarityMode::Off || by_key())
}

/// Where a question stands, for its encryption.
fn place(signature: &str) -> String {
    format!("similar_questions.content.{signature}")
}

/// Vector and text as one encrypted value.
pub(crate) fn seal(row: &QuestionRow, vault: &Vault) -> Result<String, StoreError> {
    let mut content = STANDARD_NO_PAD.encode(&row.vector);
    content.push('\n');
    content.push_str(&row.text);
    vault.seal(&place(&row.signature), &content)
}

#[derive(sqlx::FromRow)]
struct Row {
    signature: String,
    api_key_scope: String,
    bucket: String,
    model: String,
    content: String,
    created_at: i64,
    expires_at: i64,
}

impl Row {
    /// `None` for what this process cannot read.
    fn open(self, vault: &Vault) -> Option<QuestionRow> {
        let content = vault.open(&place(&self.signature), &self.content).ok()?;
        let (vector, text) = content.expose_secret().split_once('\n')?;
        Some(QuestionRow {
            bucket: from_hex(&self.bucket)?.try_into().ok()?,
            asked: self.model,
            text: text.to_owned(),
            vector: STANDARD_NO_PAD.decode(vector).ok()?.into(),
            signature: self.signature,
            tenant: self.api_key_scope,
            created_at: self.created_at,
            expires_at: self.expires_at,
        })
    }
}
