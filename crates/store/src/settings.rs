//! Settings that change while the gateway runs, and the administrator's password.

use omniroute_domain::entity::RuntimeSettings;
use serde::{Deserialize, Serialize};

use crate::combos::{Surroundings, renamed, surroundings};
use crate::error::StoreError;
use crate::pool::{bump_revision, with_read, with_write};
use crate::store::{RowProblem, Store};
use crate::text::{from_json, to_json};

/// Access to the settings.
#[derive(Debug, Clone, Copy)]
pub struct Settings<'a>(pub(crate) &'a Store);

/// What a change of the settings did.
#[derive(Debug)]
pub struct SettingsChange {
    /// As they were.
    pub before: RuntimeSettings,
    /// As they are.
    pub after: RuntimeSettings,
}

impl SettingsChange {
    /// Whether anything is different.
    pub fn is_any(&self) -> bool {
        self.before != self.after
    }
}

/// The administrator's password as stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PasswordHash {
    /// In PHC form.
    pub hash: String,
    /// Increases with every change, so that older sessions end.
    pub version: i64,
}

/// The settings' row.
pub(crate) const SELECT_RUNTIME: &str =
    "SELECT value FROM key_value WHERE namespace = 'settings' AND key = 'runtime'";
const SELECT_PASSWORD: &str = "SELECT value FROM key_value WHERE namespace = 'settings' AND key = 'password'";
pub(crate) const UPSERT: &str = "INSERT INTO key_value (namespace, key, value) VALUES ('settings', $1, $2)
     ON CONFLICT (namespace, key) DO UPDATE SET value = excluded.value";

impl Settings<'_> {
    /// As stored, or the defaults.
    pub async fn get(&self) -> Result<RuntimeSettings, StoreError> {
        let text: Option<String> = with_read!(self.0.pool(), |db| {
            sqlx::query_scalar(SELECT_RUNTIME).fetch_optional(&mut *db).await?
        });
        read(text.as_deref())
    }

    /// Changes them in one piece: nobody else's change comes between reading and writing, so that none is lost. When `change`
    /// refuses, nothing is written and its reason comes back; when it changes nothing, nothing is written either.
    pub async fn change<E>(
        &self,
        change: impl FnOnce(&mut RuntimeSettings) -> Result<(), E>,
    ) -> Result<Result<SettingsChange, E>, StoreError> {
        self.change_among(|settings, _| change(settings)).await
    }

    /// The same among the combos and aliases that they are for.
    pub async fn change_among<E>(
        &self,
        change: impl FnOnce(&mut RuntimeSettings, &Surroundings) -> Result<(), E>,
    ) -> Result<Result<SettingsChange, E>, StoreError> {
        let done = with_write!(self.0.pool(), |db| {
            bump_revision!(db);
            let text: Option<String> = sqlx::query_scalar(SELECT_RUNTIME).fetch_optional(&mut *db).await?;
            let before = read(text.as_deref())?;
            let around = surroundings!(db);
            let mut after = before.clone();
            if let Err(refusal) = change(&mut after, &around) {
                return Ok(Err(refusal));
            }
            if after == before {
                return Ok(Ok(SettingsChange { before, after }));
            }
            sqlx::query(UPSERT).bind("runtime").bind(to_json(&after)?).execute(&mut *db).await?;
            SettingsChange { before, after }
        });
        Ok(Ok(done))
    }

    /// The administrator's password; `None` before the first one is set.
    pub async fn password_hash(&self) -> Result<Option<PasswordHash>, StoreError> {
        let text: Option<String> = with_read!(self.0.pool(), |db| {
            sqlx::query_scalar(SELECT_PASSWORD).fetch_optional(&mut *db).await?
        });
        text.map(|text| from_json("settings.password", &text).map_err(StoreError::Damaged)).transpose()
    }

    /// Sets the password from its hash and gives the new version.
    pub async fn set_password_hash(&self, hash: &str) -> Result<i64, StoreError> {
        let version = with_write!(self.0.pool(), |db| {
            bump_revision!(db);
            let text: Option<String> = sqlx::query_scalar(SELECT_PASSWORD).fetch_optional(&mut *db).await?;
            // A row that cannot be read must not keep the operator out.
            let before = text.and_then(|text| from_json::<PasswordHash>("settings.password", &text).ok());
            let version = before.map_or(1, |before| before.version + 1);
            let stored = to_json(&PasswordHash { hash: hash.to_owned(), version })?;
            sqlx::query(UPSERT).bind("password").bind(&stored).execute(&mut *db).await?;
            version
        });
        Ok(version)
    }

    /// Replaces the hash of the same password (after a change of its parameters); sessions stay.
    pub async fn rehash_password(&self, from: &str, to: &str) -> Result<bool, StoreError> {
        with_write!(self.0.pool(), |db| {
            bump_revision!(db);
            let text: Option<String> = sqlx::query_scalar(SELECT_PASSWORD).fetch_optional(&mut *db).await?;
            let Some(before) =
                text.and_then(|text| from_json::<PasswordHash>("settings.password", &text).ok())
            else {
                return Ok(false);
            };
            if before.hash != from {
                return Ok(false);
            }
            let stored = to_json(&PasswordHash { hash: to.to_owned(), version: before.version })?;
            sqlx::query(UPSERT).bind("password").bind(&stored).execute(&mut *db).await?;
        });
        Ok(true)
    }
}

/// The settings of a stored text that can be read, or the defaults where there is none.
fn read(text: Option<&str>) -> Result<RuntimeSettings, StoreError> {
    let mut problems = Vec::new();
    let settings = parse(text, &mut problems);
    match problems.pop() {
        None => Ok(settings),
        Some(problem) => Err(StoreError::Damaged(problem.message)),
    }
}

/// The settings after a combo got another name; `None` when they do not name it, or cannot be read.
pub(crate) fn rename_combo(text: &str, before: &str, after: &str) -> Result<Option<String>, StoreError> {
    let Ok(mut settings) = from_json::<RuntimeSettings>("settings.runtime", text) else { return Ok(None) };
    let model = settings.semantic_cache_similarity.model.as_deref();
    let Some(new) = model.and_then(|name| renamed(name, before, after)) else { return Ok(None) };
    settings.semantic_cache_similarity.model = Some(new);
    to_json(&settings).map(Some)
}

/// The settings of a stored text; the defaults when it cannot be read.
pub(crate) fn parse(text: Option<&str>, problems: &mut Vec<RowProblem>) -> RuntimeSettings {
    let Some(text) = text else { return RuntimeSettings::default() };
    match from_json("settings.runtime", text) {
        Ok(settings) => settings,
        Err(message) => {
            problems.push(RowProblem { table: "key_value", id: "settings.runtime".into(), message });
            RuntimeSettings::default()
        }
    }
}
