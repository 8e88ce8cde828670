//! Other names for models and combos: one row each, under `modelAliases` in `key_value`.

use crate::combos::{Surroundings, surroundings};
use crate::error::StoreError;
use crate::pool::{bump_revision, with_read, with_write};
use crate::store::{RowProblem, Store};
use crate::text::{from_json, to_json};

/// Access to the aliases.
#[derive(Debug, Clone, Copy)]
pub struct Aliases<'a>(pub(crate) &'a Store);

/// Every alias with what it stands for, the oldest first.
pub(crate) const SELECT_ALL: &str =
    "SELECT key, value FROM key_value WHERE namespace = 'modelAliases' ORDER BY COALESCE(created_at, 0), key";

impl Aliases<'_> {
    /// Every alias with what it stands for, by name.
    pub async fn list(&self) -> Result<Vec<(String, String)>, StoreError> {
        let mut rows: Vec<(String, String)> =
            with_read!(self.0.pool(), |db| sqlx::query_as(SELECT_ALL).fetch_all(&mut *db).await?);
        rows.sort_unstable();
        Ok(rows.into_iter().filter_map(|row| parse(row, &mut Vec::new())).collect())
    }

    /// Sets one, if `check` agrees, who is given what is there; nobody changes that between its word and writing. What it stands
    /// for may change later; it is as old as it was then. When `check` refuses, nothing is written and its reason comes back.
    pub async fn put<E>(
        &self,
        (alias, model): (&str, &str),
        now_ms: i64,
        check: impl FnOnce(&Surroundings) -> Result<(), E>,
    ) -> Result<Result<(), E>, StoreError> {
        let value = to_json(&model)?;
        with_write!(self.0.pool(), |db| {
            bump_revision!(db);
            let around = surroundings!(db);
            if let Err(refusal) = check(&around) {
                return Ok(Err(refusal));
            }
            sqlx::query(
                "INSERT INTO key_value (namespace, key, value, created_at) VALUES ('modelAliases', $1, $2, $3)
                 ON CONFLICT (namespace, key) DO UPDATE SET value = excluded.value",
            )
            .bind(alias)
            .bind(&value)
            .bind(now_ms)
            .execute(&mut *db)
            .await?;
        });
        Ok(Ok(()))
    }

    /// Takes one away, if `check` agrees, as it is asked for setting one; whether there was one.
    pub async fn delete<E>(
        &self,
        alias: &str,
        check: impl FnOnce(&Surroundings) -> Result<(), E>,
    ) -> Result<Result<bool, E>, StoreError> {
        let changed = with_write!(self.0.pool(), |db| {
            bump_revision!(db);
            let around = surroundings!(db);
            if let Err(refusal) = check(&around) {
                return Ok(Err(refusal));
            }
            sqlx::query("DELETE FROM key_value WHERE namespace = 'modelAliases' AND key = $1")
                .bind(alias)
                .execute(&mut *db)
                .await?
                .rows_affected()
        });
        Ok(Ok(changed > 0))
    }
}

/// The alias of a row.
pub(crate) fn parse(
    (alias, value): (String, String),
    problems: &mut Vec<RowProblem>,
) -> Option<(String, String)> {
    match from_json::<String>("modelAliases", &value) {
        Ok(model) => Some((alias, model)),
        Err(message) => {
            problems.push(RowProblem { table: "key_value", id: format!("modelAliases.{alias}"), message });
            None
        }
    }
}
