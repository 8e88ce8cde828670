//! Names of models that mean a combo. A mapping goes with its combo.

use omniroute_domain::entity::ModelComboMapping;

use crate::error::StoreError;
use crate::pool::{bump_revision, check_room, with_read, with_write};
use crate::store::Store;

/// Access to the mappings.
#[derive(Debug, Clone, Copy)]
pub struct ComboMappings<'a>(pub(crate) &'a Store);

/// Every row, those that come first first.
pub(crate) const SELECT_ALL: &str =
    "SELECT id, pattern, combo_id, priority, enabled, description, created_at, updated_at
     FROM model_combo_mappings ORDER BY priority, created_at, id";

/// A row of the table.
pub(crate) type Row = (String, String, String, i64, bool, Option<String>, i64, i64);

/// Writes the row of a mapping, new or not.
macro_rules! write_row {
    ($db:ident, $mapping:expr) => {{
            let other: Option<String> =
                sqlx::query_scalar("SELECT id FROM model_combo_mappings WHERE pattern = $1 AND id <> $2")
                    .bind(&$mapping.pattern)
                    .bind(&$mapping.id)
                    .fetch_optional(&mut *$db)
                    .await?;
            if let Some(other) = other {
                let message = format!("the mapping `{other}` has this pattern already");
                return Err(StoreError::Conflict { field: "pattern", message });
            }
            let combo: Option<String> = sqlx::query_scalar("SELECT id FROM combos WHERE id = $1")
                .bind($mapping.combo_id.as_str())
                .fetch_optional(&mut *$db)
                .await?;
            if combo.is_none() {
                return Err(StoreError::NotFound { what: "combo", id: $mapping.combo_id.to_string() });
            }
            sqlx::query(
                "INSERT INTO model_combo_mappings
                 (id, pattern, combo_id, priority, enabled, description, created_at, updated_at)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (id) DO UPDATE
                 SET pattern = excluded.pattern, combo_id = excluded.combo_id, priority = excluded.priority,
                 enabled = excluded.enabled, description = excluded.description, updated_at = excluded.updated_at",
            )
            .bind(&$mapping.id)
            .bind(&$mapping.pattern)
            .bind($mapping.combo_id.as_str())
            .bind($mapping.priority)
            .bind($mapping.enabled)
            .bind(&$mapping.description)
            .bind($mapping.created_at)
            .bind($mapping.updated_at)
            .execute(&mut *$db)
            .await?;
    }};
}

impl ComboMappings<'_> {
    /// Those that come first first.
    pub async fn list(&self) -> Result<Vec<ModelComboMapping>, StoreError> {
        let rows: Vec<Row> =
            with_read!(self.0.pool(), |db| sqlx::query_as(SELECT_ALL).fetch_all(&mut *db).await?);
        Ok(rows.into_iter().map(parse).collect())
    }

    /// Adds one, where there are fewer than `most`. A pattern has one mapping.
    pub async fn insert(&self, mapping: &ModelComboMapping, most: usize) -> Result<(), StoreError> {
        with_write!(self.0.pool(), |db| {
            bump_revision!(db);
            check_room!(db, "model_combo_mappings", "mappings", most);
            write_row!(db, mapping);
        });
        Ok(())
    }

    /// Changes one in one piece: nobody else's change comes between reading and writing. When `change` refuses, nothing is
    /// written and its reason comes back.
    pub async fn change<E>(
        &self,
        id: &str,
        change: impl FnOnce(&mut ModelComboMapping) -> Result<(), E>,
    ) -> Result<Result<ModelComboMapping, E>, StoreError> {
        let changed = with_write!(self.0.pool(), |db| {
            bump_revision!(db);
            let rows: Vec<Row> = sqlx::query_as(SELECT_ALL).fetch_all(&mut *db).await?;
            let row = rows.into_iter().find(|row| row.0 == id);
            let row = row.ok_or_else(|| StoreError::NotFound { what: "mapping", id: id.to_owned() })?;
            let mut mapping = parse(row);
            if let Err(refusal) = change(&mut mapping) {
                return Ok(Err(refusal));
            }
            write_row!(db, &mapping);
            mapping
        });
        Ok(Ok(changed))
    }

    /// Whether there was one.
    pub async fn delete(&self, id: &str) -> Result<bool, StoreError> {
        let changed = with_write!(self.0.pool(), |db| {
            bump_revision!(db);
            sqlx::query("DELETE FROM model_combo_mappings WHERE id = $1")
                .bind(id)
                .execute(&mut *db)
                .await?
                .rows_affected()
        });
        Ok(changed > 0)
    }
}

/// The mapping of a row.
pub(crate) fn parse(row: Row) -> ModelComboMapping {
    let (id, pattern, combo_id, priority, enabled, description, created_at, updated_at) = row;
    ModelComboMapping {
        id,
        pattern,
        combo_id: combo_id.into(),
        priority,
        enabled,
        description,
        created_at,
        updated_at,
    }
}
