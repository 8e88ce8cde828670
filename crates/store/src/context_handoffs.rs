//! What conversations take with them to another account. Written behind the requests' backs; only ever read when a process
//! starts.
//!
//! The texts sum conversations up, so they are encrypted like credentials and bound to their rows.

use futures_util::TryStreamExt as _;
use omniroute_domain::handoff::{Brief, Handoff, HandoffKey, MAX_HANDOFFS};
use omniroute_domain::session::SessionKey;
use omniroute_engine::ports::HandoffRow;
use secrecy::ExposeSecret as _;

use crate::error::StoreError;
use crate::pool::{with_read, with_write};
use crate::reasoning_memory::Recalled;
use crate::store::Store;
use crate::text::to_json;
use crate::vault::Vault;

pub(crate) const UPSERT: &str = "INSERT INTO context_handoffs
     (api_key_id, session_id, combo_name, from_account, content, message_count, opening, model, warning_threshold_pct,
      generated_at, expires_at)
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
     ON CONFLICT (api_key_id, session_id, combo_name) DO UPDATE SET from_account = excluded.from_account,
     content = excluded.content, message_count = excluded.message_count, opening = excluded.opening, model = excluded.model,
     warning_threshold_pct = excluded.warning_threshold_pct, generated_at = excluded.generated_at,
     expires_at = excluded.expires_at";
pub(crate) const FORGET: &str =
    "DELETE FROM context_handoffs WHERE api_key_id = $1 AND session_id = $2 AND combo_name = $3";
pub(crate) const FORGET_TENANT: &str = "DELETE FROM context_handoffs WHERE api_key_id = $1";
const SELECT: &str =
    "SELECT api_key_id, session_id, combo_name, from_account, content, message_count, opening, model,
     warning_threshold_pct, generated_at, expires_at FROM context_handoffs";

/// Access to the summaries.
#[derive(Debug, Clone, Copy)]
pub struct ContextHandoffs<'a>(pub(crate) &'a Store);

impl ContextHandoffs<'_> {
    /// Hands over what may still be told, the newest first.
    pub async fn recall(
        &self,
        now_ms: i64,
        mut take: impl FnMut(HandoffRow),
    ) -> Result<Recalled, StoreError> {
        const NEWEST: &str = " WHERE expires_at > $1 ORDER BY generated_at DESC LIMIT $2";
        let (vault, sql) = (self.0.vault(), format!("{SELECT}{NEWEST}"));
        let mut recalled = Recalled::default();
        with_read!(self.0.pool(), |db| {
            let mut rows = sqlx::query_as::<_, Row>(sqlx::AssertSqlSafe(&*sql))
                .bind(now_ms)
                .bind(MAX_HANDOFFS as i64)
                .fetch(&mut *db);
            while let Some(row) = rows.try_next().await? {
                match row.open(&vault) {
                    Some(row) => {
                        recalled.rows += 1;
                        take(row);
                    }
                    None => recalled.unreadable += 1,
                }
            }
        });
        Ok(recalled)
    }

    /// Deletes those that are over, and the oldest where there are too many.
    pub(crate) async fn trim(&self, now_ms: i64) -> Result<u64, StoreError> {
        Ok(with_write!(self.0.pool(), |db| {
            sqlx::query(
                "DELETE FROM context_handoffs WHERE expires_at <= $1 OR (api_key_id, session_id, combo_name) IN
                 (SELECT api_key_id, session_id, combo_name FROM
                  (SELECT api_key_id, session_id, combo_name, ROW_NUMBER() OVER
                   (ORDER BY generated_at DESC, api_key_id, session_id, combo_name) AS place FROM context_handoffs)
                  AS newest WHERE place > $2)",
            )
            .bind(now_ms)
            .bind(MAX_HANDOFFS as i64)
            .execute(&mut *db)
            .await?
            .rows_affected()
        }))
    }
}

/// A summary as it is stored.
#[derive(Debug)]
pub(crate) struct Sealed {
    pub(crate) row: Box<HandoffRow>,
    pub(crate) content: String,
}

impl Sealed {
    pub(crate) fn of(row: Box<HandoffRow>, vault: &Vault) -> Result<Self, StoreError> {
        // Postgres takes no NUL; texts have none left.
        let content = vault.seal(&place(&row.key), &to_json(&row.handoff.brief)?)?;
        Ok(Self { row, content })
    }
}

/// Where a text stands, for its encryption.
fn place(key: &HandoffKey) -> String {
    let HandoffKey { session, combo } = key;
    format!("context_handoffs.content.{}/{}/{combo}", session.tenant(), session.id())
}

/// Encrypts every text with the current key; those that cannot be read are left as they are, to expire.
pub(crate) async fn reseal(store: &Store, vault: &Vault) -> Result<u64, StoreError> {
    let mut changed = 0;
    with_write!(store.pool(), |db| {
        let rows: Vec<Row> = sqlx::query_as(SELECT).fetch_all(&mut *db).await?;
        for row in rows.iter().filter(|row| !vault.is_current(&row.content)) {
            let place = place(&row.key());
            let Ok(content) = vault.open(&place, &row.content) else { continue };
            sqlx::query(
                "UPDATE context_handoffs SET content = $4 WHERE api_key_id = $1 AND session_id = $2 AND combo_name = $3",
            )
            .bind(&row.api_key_id)
            .bind(&row.session_id)
            .bind(&row.combo_name)
            .bind(vault.seal(&place, content.expose_secret())?)
            .execute(&mut *db)
            .await?;
            changed += 1;
        }
    });
    Ok(changed)
}

/// As stored.
#[derive(sqlx::FromRow)]
struct Row {
    api_key_id: String,
    session_id: String,
    combo_name: String,
    from_account: String,
    content: String,
    message_count: i64,
    opening: String,
    model: String,
    warning_threshold_pct: i64,
    generated_at: i64,
    expires_at: i64,
}

impl Row {
    fn key(&self) -> HandoffKey {
        let session = SessionKey::new(&self.api_key_id, &self.session_id);
        HandoffKey { session, combo: self.combo_name.as_str().into() }
    }

    fn open(self, vault: &Vault) -> Option<HandoffRow> {
        let key = self.key();
        let content = vault.open(&place(&key), &self.content).ok()?;
        let brief: Brief = serde_json::from_str(content.expose_secret()).ok()?;
        Some(HandoffRow {
            key,
            handoff: Handoff {
                from: self.from_account.into(),
                brief,
                turns: u32::try_from(self.message_count).ok()?,
                opening: u64::from_str_radix(&self.opening, 16).ok()?,
                model: self.model,
                threshold_percent: u32::try_from(self.warning_threshold_pct).ok()?,
                made_at: self.generated_at,
                expires_at: self.expires_at,
            },
        })
    }
}
