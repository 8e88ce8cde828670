//! Addresses that are told of what happens, and what became of telling them. Only the task that tells them reads their
//! secrets, which are encrypted like credentials and bound to their rows.

use secrecy::{ExposeSecret as _, SecretString};

use crate::connections::clip_error;
use crate::error::StoreError;
use crate::pool::{bump_revision, check_room, with_read, with_write};
use crate::store::Store;
use crate::text::{from_json, to_json};
use crate::vault::Vault;

/// Access to the webhooks.
#[derive(Debug, Clone, Copy)]
pub struct Webhooks<'a>(pub(crate) &'a Store);

/// An address that is told of what happens.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Webhook {
    /// Its id.
    pub id: String,
    /// Where it is told.
    pub url: String,
    /// Of what.
    pub events: Vec<String>,
    /// What it is for.
    pub description: Option<String>,
    /// Whether private and loopback addresses may be called.
    pub allow_private: bool,
    /// Whether it is told.
    pub enabled: bool,
    /// What it answered last; `None` when there was no answer, or nothing was sent yet.
    pub last_status: Option<i64>,
    /// Why it could not be told the last time; `None` when it was.
    pub last_error: Option<String>,
    /// When it was tried last.
    pub last_attempt_at: Option<i64>,
    /// When it took something last.
    pub last_delivered_at: Option<i64>,
    /// When it was made.
    pub created_at: i64,
    /// When it was changed by somebody.
    pub updated_at: i64,
}

macro_rules! columns {
    () => {
        "id, url, events, description, allow_private, enabled, last_status, last_error, last_attempt_at, \
         last_delivered_at, created_at, updated_at"
    };
}

const SELECT_ONE: &str = concat!("SELECT ", columns!(), " FROM webhooks WHERE id = $1");
const SELECT_SECRETS: &str = "SELECT secret, previous_secret, previous_until FROM webhooks WHERE id = $1";

const LOCK_ROW: &str = "UPDATE webhooks SET updated_at = updated_at WHERE id = $1";

/// The first statement of a change that reads before it writes: the row's lock keeps others away on Postgres, as the engine
/// does on SQLite.
macro_rules! lock_row {
    ($db:ident, $id:expr) => {
        let locked = sqlx::query(LOCK_ROW).bind($id).execute(&mut *$db).await?;
        if locked.rows_affected() == 0 {
            return Err(StoreError::NotFound { what: "webhook", id: $id.to_owned() });
        }
    };
}

impl Webhooks<'_> {
    /// Oldest first. One that cannot be read is told of nothing, and of it the log is told.
    pub async fn list(&self) -> Result<Vec<Webhook>, StoreError> {
        const SELECT: &str = concat!("SELECT ", columns!(), " FROM webhooks ORDER BY created_at, id");
        let rows: Vec<Row> =
            with_read!(self.0.pool(), |db| sqlx::query_as(SELECT).fetch_all(&mut *db).await?);
        Ok(rows.into_iter().map(Row::into_webhook).collect())
    }

    /// One of them.
    pub async fn get(&self, id: &str) -> Result<Option<Webhook>, StoreError> {
        let row: Option<Row> = with_read!(self.0.pool(), |db| {
            sqlx::query_as(SELECT_ONE).bind(id).fetch_optional(&mut *db).await?
        });
        Ok(row.map(Row::into_webhook))
    }

    /// What it is signed with: the secret, and for a while the one before it.
    pub async fn secrets(&self, id: &str, now_ms: i64) -> Result<Vec<SecretString>, StoreError> {
        let row: Option<Secrets> = with_read!(self.0.pool(), |db| {
            sqlx::query_as(SELECT_SECRETS).bind(id).fetch_optional(&mut *db).await?
        });
        opened(&self.0.vault(), id, row, now_ms)
    }

    /// Adds one, where there are fewer than `most`.
    pub async fn insert(
        &self,
        webhook: &Webhook,
        secret: &SecretString,
        most: usize,
    ) -> Result<(), StoreError> {
        let sealed = self.0.vault().seal(&place(&webhook.id), secret.expose_secret())?;
        let events = to_json(&webhook.events)?;
        with_write!(self.0.pool(), |db| {
            // No snapshot has webhooks: this is for the row's lock.
            bump_revision!(db);
            check_room!(db, "webhooks", "webhooks", most);
            sqlx::query(
                "INSERT INTO webhooks (id, url, events, secret, description, allow_private, enabled, created_at,
                 updated_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
            )
            .bind(&webhook.id)
            .bind(&webhook.url)
            .bind(&events)
            .bind(&sealed)
            .bind(webhook.description.as_deref())
            .bind(webhook.allow_private)
            .bind(webhook.enabled)
            .bind(webhook.created_at)
            .bind(webhook.updated_at)
            .execute(&mut *db)
            .await?;
        });
        Ok(())
    }

    /// Changes what the operator decides, in one piece: nobody else's change comes between reading and writing. What became of
    /// telling it stays. When `change` refuses, nothing is written and its reason comes back.
    pub async fn change<E>(
        &self,
        id: &str,
        change: impl FnOnce(&mut Webhook) -> Result<(), E>,
    ) -> Result<Result<Webhook, E>, StoreError> {
        let changed = with_write!(self.0.pool(), |db| {
            lock_row!(db, id);
            let row: Row = sqlx::query_as(SELECT_ONE).bind(id).fetch_one(&mut *db).await?;
            let mut webhook = row.into_webhook();
            if let Err(refusal) = change(&mut webhook) {
                return Ok(Err(refusal));
            }
            sqlx::query(
                "UPDATE webhooks SET url = $2, events = $3, description = $4, allow_private = $5, enabled = $6,
                 updated_at = $7 WHERE id = $1",
            )
            .bind(&webhook.id)
            .bind(&webhook.url)
            .bind(to_json(&webhook.events)?)
            .bind(webhook.description.as_deref())
            .bind(webhook.allow_private)
            .bind(webhook.enabled)
            .bind(webhook.updated_at)
            .execute(&mut *db)
            .await?;
            webhook
        });
        Ok(Ok(changed))
    }

    /// Gives it another secret. The one until now is good until `previous_until`.
    pub async fn rotate(
        &self,
        id: &str,
        secret: &SecretString,
        previous_until: i64,
        now_ms: i64,
    ) -> Result<(), StoreError> {
        let vault = self.0.vault();
        let sealed = vault.seal(&place(id), secret.expose_secret())?;
        with_write!(self.0.pool(), |db| {
            lock_row!(db, id);
            let row = sqlx::query_as(SELECT_SECRETS).bind(id).fetch_optional(&mut *db).await?;
            let current = match opened(&vault, id, row, now_ms) {
                // Nobody can sign with it any more.
                Err(StoreError::Cryptography(_)) => Vec::new(),
                secrets => secrets?,
            };
            let previous = current
                .first()
                .map(|old| vault.seal(&previous_place(id), old.expose_secret()))
                .transpose()?;
            sqlx::query(
                "UPDATE webhooks SET secret = $2, previous_secret = $3, previous_until = $4, updated_at = $5
                 WHERE id = $1",
            )
            .bind(id)
            .bind(&sealed)
            .bind(previous.as_deref())
            .bind(previous_until)
            .bind(now_ms)
            .execute(&mut *db)
            .await?;
        });
        Ok(())
    }

    /// Whether there was one.
    pub async fn delete(&self, id: &str) -> Result<bool, StoreError> {
        let deleted = with_write!(self.0.pool(), |db| {
            sqlx::query("DELETE FROM webhooks WHERE id = $1")
                .bind(id)
                .execute(&mut *db)
                .await?
                .rows_affected()
        });
        Ok(deleted > 0)
    }

    /// It was tried: what it answered, and what was wrong with that.
    pub async fn note(
        &self,
        id: &str,
        status: Option<u16>,
        error: Option<&str>,
        now_ms: i64,
    ) -> Result<(), StoreError> {
        let error = error.map(clip_error);
        with_write!(self.0.pool(), |db| {
            sqlx::query(
                "UPDATE webhooks SET last_status = $2, last_error = $3, last_attempt_at = $4,
                 last_delivered_at = CASE WHEN $5 THEN $4 ELSE last_delivered_at END WHERE id = $1",
            )
            .bind(id)
            .bind(status.map(i64::from))
            .bind(error.as_deref())
            .bind(now_ms)
            .bind(error.is_none())
            .execute(&mut *db)
            .await?;
        });
        Ok(())
    }

    /// It said that it wants nothing more.
    pub async fn switch_off(&self, id: &str, now_ms: i64) -> Result<(), StoreError> {
        with_write!(self.0.pool(), |db| {
            sqlx::query("UPDATE webhooks SET enabled = FALSE, updated_at = $2 WHERE id = $1")
                .bind(id)
                .bind(now_ms)
                .execute(&mut *db)
                .await?;
        });
        Ok(())
    }
}

/// The secret of a webhook, the one before it, and until when that one is good.
type Secrets = (String, Option<String>, Option<i64>);

/// What a webhook is signed with.
fn opened(
    vault: &Vault,
    id: &str,
    row: Option<Secrets>,
    now_ms: i64,
) -> Result<Vec<SecretString>, StoreError> {
    let Some((secret, previous, until)) = row else {
        return Err(StoreError::NotFound { what: "webhook", id: id.to_owned() });
    };
    let open = |place: String, stored: &str| {
        vault.open(&place, stored).map_err(|error| {
            StoreError::Cryptography(format!("the secret of webhook `{id}` cannot be read: {error}"))
        })
    };
    let mut secrets = vec![open(place(id), &secret)?];
    if let Some(previous) = previous.filter(|_| until.is_some_and(|until| until > now_ms)) {
        secrets.push(open(previous_place(id), &previous)?);
    }
    Ok(secrets)
}

/// Encrypts every secret with the current key; those that cannot be read are left as they are.
pub(crate) async fn reseal(store: &Store, vault: &Vault) -> Result<u64, StoreError> {
    let mut changed = 0;
    with_write!(store.pool(), |db| {
        let ids: Vec<String> =
            sqlx::query_scalar("SELECT id FROM webhooks ORDER BY id").fetch_all(&mut *db).await?;
        for id in ids {
            // Who rotates the secret meanwhile is waited for, and not undone.
            sqlx::query(LOCK_ROW).bind(&id).execute(&mut *db).await?;
            let row: Option<Secrets> =
                sqlx::query_as(SELECT_SECRETS).bind(&id).fetch_optional(&mut *db).await?;
            let Some((secret, previous, _)) = row else { continue };
            let anew = |place: String, stored: &str| match vault.open(&place, stored) {
                Ok(text) if !vault.is_current(stored) => vault.seal(&place, text.expose_secret()).map(Some),
                Ok(_) => Ok(None),
                Err(error) => {
                    tracing::warn!(webhook = id, %error, "secret left as it is");
                    Ok(None)
                }
            };
            let secret = anew(place(&id), &secret)?;
            let previous = match &previous {
                Some(previous) => anew(previous_place(&id), previous)?,
                None => None,
            };
            if secret.is_none() && previous.is_none() {
                continue;
            }
            sqlx::query(
                "UPDATE webhooks SET secret = COALESCE($2, secret), previous_secret = COALESCE($3, previous_secret)
                 WHERE id = $1",
            )
            .bind(&id)
            .bind(secret.as_deref())
            .bind(previous.as_deref())
            .execute(&mut *db)
            .await?;
            changed += 1;
        }
    });
    Ok(changed)
}

fn place(id: &str) -> String {
    format!("webhooks.secret.{id}")
}

fn previous_place(id: &str) -> String {
    format!("webhooks.previous_secret.{id}")
}

/// As stored.
#[derive(sqlx::FromRow)]
struct Row {
    id: String,
    url: String,
    events: String,
    description: Option<String>,
    allow_private: bool,
    enabled: bool,
    last_status: Option<i64>,
    last_error: Option<String>,
    last_attempt_at: Option<i64>,
    last_delivered_at: Option<i64>,
    created_at: i64,
    updated_at: i64,
}

impl Row {
    fn into_webhook(self) -> Webhook {
        let events = from_json("webhooks.events", &self.events).unwrap_or_else(|message: String| {
            tracing::warn!(webhook = self.id, message, "a webhook is told of nothing");
            Vec::new()
        });
        Webhook {
            id: self.id,
            url: self.url,
            events,
            description: self.description,
            allow_private: self.allow_private,
            enabled: self.enabled,
            last_status: self.last_status,
            last_error: self.last_error,
            last_attempt_at: self.last_attempt_at,
            last_delivered_at: self.last_delivered_at,
            created_at: self.created_at,
            updated_at: self.updated_at,
        }
    }
}
