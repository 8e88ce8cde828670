//! Client keys. Only their hashes are stored.

use omniroute_domain::entity::{ApiKey, ApiKeyId, KeyHash, KeyRights, Scope};

use crate::answers;
use crate::budgets;
use crate::context_handoffs;
use crate::error::StoreError;
use crate::policies;
use crate::pool::{bump_revision, with_read, with_write};
use crate::reasoning_memory;
use crate::response_owners;
use crate::session_affinity;
use crate::similar_questions;
use crate::store::{RowProblem, Store};
use crate::text::{from_json, signed, to_json};

/// Access to the keys.
#[derive(Debug, Clone, Copy)]
pub struct ApiKeys<'a>(pub(crate) &'a Store);

macro_rules! columns {
    () => {
        "id, name, key_hash, key_prefix, is_active, no_log, allowed_models, denied_models, allowed_connections, \
         allowed_endpoints, scopes, ip_allowlist, max_requests_per_minute, max_requests_per_day, \
         max_tokens_per_minute, max_concurrent, max_sessions, strict, expires_at, revoked_at, last_used_at, created_at, \
         rights"
    };
}

/// Every key. Revoked ones as well, so that they are known and refused where unknown ones are let in.
pub(crate) const SELECT_ALL: &str = concat!("SELECT ", columns!(), " FROM api_keys ORDER BY created_at, id");

const SELECT_ONE: &str = concat!("SELECT ", columns!(), " FROM api_keys WHERE id = $1");
const INSERT: &str = "INSERT INTO api_keys (id, name, key_hash, key_prefix, is_active, no_log, allowed_models,
     denied_models, allowed_connections, allowed_endpoints, scopes, ip_allowlist, max_requests_per_minute,
     max_requests_per_day, max_tokens_per_minute, max_concurrent, strict, expires_at, max_sessions, revoked_at,
     last_used_at, created_at, rights)
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23)";
/// Never of a key that is revoked, which nothing may bring back.
const UPDATE: &str = "UPDATE api_keys SET name = $2, key_hash = $3, key_prefix = $4, is_active = $5, no_log = $6,
     allowed_models = $7, denied_models = $8, allowed_connections = $9, allowed_endpoints = $10, scopes = $11,
     ip_allowlist = $12, max_requests_per_minute = $13, max_requests_per_day = $14, max_tokens_per_minute = $15,
     max_concurrent = $16, strict = $17, expires_at = $18, max_sessions = $19, rights = $20
     WHERE id = $1 AND revoked_at IS NULL";
const REVOKE: &str =
    "UPDATE api_keys SET is_active = FALSE, revoked_at = $2 WHERE id = $1 AND revoked_at IS NULL";
/// What is kept for a key only as long as it can be used.
const FORGET: [&str; 6] = [
    reasoning_memory::FORGET_TENANT,
    response_owners::FORGET_TENANT,
    session_affinity::FORGET_TENANT,
    context_handoffs::FORGET_TENANT,
    answers::FORGET_TENANT,
    similar_questions::FORGET_TENANT,
];

/// What a key that takes another's place does not have from it.
#[derive(Debug)]
pub struct Successor {
    /// Its id.
    pub id: ApiKeyId,
    /// The hash of its text.
    pub hash: KeyHash,
    /// Its text as it may be shown.
    pub masked: String,
}

/// Binds what insert and update have in common, `$1` to `$19`.
macro_rules! bind_key {
    ($sql:expr, $key:expr, $lists:expr) => {
        sqlx::query($sql)
            .bind($key.id.as_str())
            .bind(&$key.name)
            .bind($key.hash.to_hex())
            .bind(&$key.masked)
            .bind($key.is_active)
            .bind($key.no_log)
            .bind(&$lists[0])
            .bind(&$lists[1])
            .bind(&$lists[2])
            .bind(&$lists[3])
            .bind(&$lists[4])
            .bind(&$lists[5])
            .bind($key.max_requests_per_minute.map(i64::from))
            .bind($key.max_requests_per_day.map(i64::from))
            .bind($key.max_tokens_per_minute.map(signed))
            .bind($key.max_concurrent.map(i64::from))
            .bind($key.strict)
            .bind($key.expires_at)
            .bind(i64::from($key.max_sessions))
    };
}

/// Adds a key that is not there yet.
macro_rules! insert_key {
    ($db:ident, $key:expr) => {{
        let key: &ApiKey = $key;
        let lists = lists(key)?;
        bind_key!(INSERT, key, lists)
            .bind(key.revoked_at)
            .bind(key.last_used_at)
            .bind(key.created_at)
            .bind(to_json(&key.rights)?)
            .execute(&mut *$db)
            .await?;
    }};
}

impl ApiKeys<'_> {
    /// Newest first, with the number of all.
    pub async fn list(
        &self,
        include_revoked: bool,
        limit: u32,
        offset: u32,
    ) -> Result<(Vec<ApiKey>, u64), StoreError> {
        let (rows, total): (Vec<Row>, i64) = with_read!(self.0.pool(), |db| {
            let total = sqlx::query_scalar("SELECT COUNT(*) FROM api_keys WHERE ($1 OR revoked_at IS NULL)")
                .bind(include_revoked)
                .fetch_one(&mut *db)
                .await?;
            let rows = sqlx::query_as(concat!(
                "SELECT ",
                columns!(),
                " FROM api_keys WHERE ($1 OR revoked_at IS NULL) ORDER BY created_at DESC, id DESC LIMIT $2 OFFSET $3"
            ))
            .bind(include_revoked)
            .bind(i64::from(limit))
            .bind(i64::from(offset))
            .fetch_all(&mut *db)
            .await?;
            (rows, total)
        });
        let mut problems = Vec::new();
        let keys = rows.into_iter().filter_map(|row| row.into_key(&mut problems)).collect();
        Ok((keys, total.unsigned_abs()))
    }

    /// One of them, revoked or not.
    pub async fn get(&self, id: &ApiKeyId) -> Result<Option<ApiKey>, StoreError> {
        let row: Option<Row> = with_read!(self.0.pool(), |db| {
            sqlx::query_as(SELECT_ONE).bind(id.as_str()).fetch_optional(&mut *db).await?
        });
        row.map(|row| row.read().map_err(StoreError::Damaged)).transpose()
    }

    /// Adds one.
    pub async fn insert(&self, key: &ApiKey) -> Result<(), StoreError> {
        with_write!(self.0.pool(), |db| {
            bump_revision!(db);
            let taken: Option<String> = sqlx::query_scalar("SELECT name FROM api_keys WHERE key_hash = $1")
                .bind(key.hash.to_hex())
                .fetch_optional(&mut *db)
                .await?;
            if let Some(other) = taken {
                return Err(StoreError::Conflict {
                    field: "key",
                    message: format!("`{other}` has this key already"),
                });
            }
            insert_key!(db, key);
        });
        Ok(())
    }

    /// Changes a key in one piece: nobody else's change comes between reading and writing, and a key that is revoked stays
    /// so, which is a conflict. A new hash replaces the key; its times of creation, use and revocation are not touched. When
    /// `change` refuses, nothing is written and its reason comes back.
    pub async fn change<E>(
        &self,
        id: &ApiKeyId,
        change: impl FnOnce(&mut ApiKey) -> Result<(), E>,
    ) -> Result<Result<ApiKey, E>, StoreError> {
        let changed = with_write!(self.0.pool(), |db| {
            bump_revision!(db);
            let mut key =
                usable(sqlx::query_as(SELECT_ONE).bind(id.as_str()).fetch_optional(&mut *db).await?, id)?;
            if let Err(refusal) = change(&mut key) {
                return Ok(Err(refusal));
            }
            let lists = lists(&key)?;
            bind_key!(UPDATE, &key, lists).bind(to_json(&key.rights)?).execute(&mut *db).await?;
            key
        });
        Ok(Ok(changed))
    }

    /// Puts another key in the place of one, with all that holds for the old one by its id: its budget, and the policies that
    /// name it. All of it or nothing, and nothing of a key that is revoked. The old key ends now, or with `keeps_until` then at
    /// the latest; as long as both can be used, what holds by the id holds for both, in policies with ids from `policy_id`, of which
    /// there may be `most_policies` with all others.
    pub async fn replace(
        &self,
        old: &ApiKeyId,
        new: Successor,
        keeps_until: Option<i64>,
        now_ms: i64,
        mut policy_id: impl FnMut() -> String,
        most_policies: usize,
    ) -> Result<ApiKey, StoreError> {
        let made = with_write!(self.0.pool(), |db| {
            bump_revision!(db);
            let mut old =
                usable(sqlx::query_as(SELECT_ONE).bind(old.as_str()).fetch_optional(&mut *db).await?, old)?;
            let Successor { id, hash, masked } = new;
            let key = ApiKey { id, hash, masked, last_used_at: None, created_at: now_ms, ..old.clone() };
            insert_key!(db, &key);
            sqlx::query(budgets::COPY).bind(old.id.as_str()).bind(key.id.as_str()).execute(&mut *db).await?;
            let rows: Vec<policies::Row> = sqlx::query_as(policies::SELECT_ALL).fetch_all(&mut *db).await?;
            let there = rows.len();
            let own = policies::of_another_key(rows, &old.id, &key.id)?;
            if keeps_until.is_some() && !own.is_empty() && there + own.len() > most_policies {
                return Err(StoreError::NoRoom { what: "policies", most: most_policies });
            }
            for (id, conditions) in own {
                let statement = if keeps_until.is_some() { policies::COPY } else { policies::MOVE };
                let statement = sqlx::query(statement).bind(id).bind(conditions).bind(now_ms);
                let statement = if keeps_until.is_some() { statement.bind(policy_id()) } else { statement };
                statement.execute(&mut *db).await?;
            }
            match keeps_until {
                Some(end) => {
                    old.expires_at = Some(old.expires_at.map_or(end, |expires| expires.min(end)));
                    let lists = lists(&old)?;
                    bind_key!(UPDATE, &old, lists).bind(to_json(&old.rights)?).execute(&mut *db).await?;
                }
                None => {
                    sqlx::query(REVOKE).bind(old.id.as_str()).bind(now_ms).execute(&mut *db).await?;
                    for forget in FORGET {
                        sqlx::query(forget).bind(old.id.as_str()).execute(&mut *db).await?;
                    }
                }
            }
            key
        });
        Ok(made)
    }

    /// Ends a key for good; what it used stays counted. Whether there was one that was not revoked yet.
    pub async fn revoke(&self, id: &ApiKeyId, now_ms: i64) -> Result<bool, StoreError> {
        with_write!(self.0.pool(), |db| {
            bump_revision!(db);
            let revoked = sqlx::query(REVOKE).bind(id.as_str()).bind(now_ms).execute(&mut *db).await?;
            if revoked.rows_affected() == 0 {
                return Ok(false);
            }
            for forget in FORGET {
                sqlx::query(forget).bind(id.as_str()).execute(&mut *db).await?;
            }
        });
        Ok(true)
    }
}

/// As stored.
#[derive(sqlx::FromRow)]
pub(crate) struct Row {
    id: String,
    name: String,
    key_hash: String,
    key_prefix: String,
    is_active: bool,
    no_log: bool,
    allowed_models: String,
    denied_models: String,
    allowed_connections: String,
    allowed_endpoints: String,
    scopes: String,
    ip_allowlist: String,
    max_requests_per_minute: Option<i64>,
    max_requests_per_day: Option<i64>,
    max_tokens_per_minute: Option<i64>,
    max_concurrent: Option<i64>,
    max_sessions: i64,
    strict: bool,
    expires_at: Option<i64>,
    revoked_at: Option<i64>,
    last_used_at: Option<i64>,
    created_at: i64,
    rights: String,
}

impl Row {
    /// The key; `None` when the row cannot be used. A key is never made wider by a row that cannot be read.
    pub(crate) fn into_key(self, problems: &mut Vec<RowProblem>) -> Option<ApiKey> {
        match self.read() {
            Ok(key) => Some(key),
            Err(message) => {
                problems.push(RowProblem { table: "api_keys", id: self.id, message });
                None
            }
        }
    }

    fn read(&self) -> Result<ApiKey, String> {
        let limit = |column: &str, value: Option<i64>| match value.map(u32::try_from) {
            None => Ok(None),
            Some(Ok(limit)) => Ok(Some(limit)),
            Some(Err(_)) => Err(format!("{column} is out of range")),
        };
        Ok(ApiKey {
            id: self.id.as_str().into(),
            name: self.name.clone(),
            hash: KeyHash::from_hex(&self.key_hash).ok_or("key_hash is not a hash")?,
            masked: self.key_prefix.clone(),
            is_active: self.is_active,
            no_log: self.no_log,
            allowed_models: from_json("allowed_models", &self.allowed_models)?,
            denied_models: from_json("denied_models", &self.denied_models)?,
            allowed_connections: from_json("allowed_connections", &self.allowed_connections)?,
            allowed_endpoints: from_json("allowed_endpoints", &self.allowed_endpoints)?,
            scopes: from_json::<Vec<Scope>>("scopes", &self.scopes)?,
            ip_allowlist: from_json("ip_allowlist", &self.ip_allowlist)?,
            max_requests_per_minute: limit("max_requests_per_minute", self.max_requests_per_minute)?,
            max_requests_per_day: limit("max_requests_per_day", self.max_requests_per_day)?,
            max_tokens_per_minute: self
                .max_tokens_per_minute
                .map(|value| u64::try_from(value).map_err(|_| "max_tokens_per_minute is out of range"))
                .transpose()?,
            max_concurrent: limit("max_concurrent", self.max_concurrent)?,
            max_sessions: u32::try_from(self.max_sessions).map_err(|_| "max_sessions is out of range")?,
            strict: self.strict,
            rights: from_json("rights", &self.rights)?,
            expires_at: self.expires_at,
            revoked_at: self.revoked_at,
            last_used_at: self.last_used_at,
            created_at: self.created_at,
        })
    }
}

/// The key of a row that may still be changed.
fn usable(row: Option<Row>, id: &ApiKeyId) -> Result<ApiKey, StoreError> {
    let row = row.ok_or_else(|| StoreError::NotFound { what: "API key", id: id.to_string() })?;
    let key = row.read().map_err(StoreError::Damaged)?;
    if key.revoked_at.is_some() {
        let message = "the key is revoked; make a new one".to_owned();
        return Err(StoreError::Conflict { field: "id", message });
    }
    Ok(key)
}

/// The rights of a key after a combo got another name; `None` when they do not name it, or cannot be read.
pub(crate) fn rename_combo(rights: &str, before: &str, after: &str) -> Result<Option<String>, StoreError> {
    let Ok(mut rights) = from_json::<KeyRights>("rights", rights) else { return Ok(None) };
    let named = rights.allowed_combos.iter_mut().filter(|name| name.eq_ignore_ascii_case(before));
    let mut is_changed = false;
    for name in named {
        after.clone_into(name);
        is_changed = true;
    }
    is_changed.then(|| to_json(&rights)).transpose()
}

fn lists(key: &ApiKey) -> Result<[String; 6], StoreError> {
    Ok([
        to_json(&key.allowed_models)?,
        to_json(&key.denied_models)?,
        to_json(&key.allowed_connections)?,
        to_json(&key.allowed_endpoints)?,
        to_json(&key.scopes)?,
        to_json(&key.ip_allowlist)?,
    ])
}
