//! What the operator forbids, limits or prefers.

use omniroute_domain::entity::{ApiKeyId, Policy, PolicyActions, PolicyConditions, PolicyKind, PolicyMode};

use crate::combos::{add_renamed, renamed, renamed_pattern};
use crate::error::StoreError;
use crate::pool::{bump_revision, check_room, with_read, with_write};
use crate::store::{RowProblem, Store, usable};
use crate::text::{from_json, to_json};

/// Access to the policies.
#[derive(Debug, Clone, Copy)]
pub struct Policies<'a>(pub(crate) &'a Store);

/// Every row, those that come first first.
pub(crate) const SELECT_ALL: &str =
    "SELECT id, name, type, enabled, mode, priority, conditions, actions, created_at, updated_at
     FROM policies ORDER BY priority, created_at, id";

/// The policy `$1` with the conditions `$2` instead of its own, at `$3`.
pub(crate) const MOVE: &str = "UPDATE policies SET conditions = $2, updated_at = $3 WHERE id = $1";
/// The same as a policy of its own with the id `$4`.
pub(crate) const COPY: &str =
    "INSERT INTO policies (id, name, type, enabled, mode, priority, conditions, actions, created_at, updated_at)
     SELECT $4, name, type, enabled, mode, priority, $2, actions, $3, $3 FROM policies WHERE id = $1";

/// A row of the table.
pub(crate) type Row = (String, String, String, bool, String, i64, String, String, i64, i64);

/// Writes the row of a policy, new or not.
macro_rules! write_row {
    ($db:ident, $policy:expr) => {
            sqlx::query(
                "INSERT INTO policies (id, name, type, enabled, priority, conditions, actions, created_at, updated_at, mode)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT (id) DO UPDATE
                 SET name = excluded.name, type = excluded.type, enabled = excluded.enabled,
                 priority = excluded.priority, conditions = excluded.conditions, actions = excluded.actions,
                 updated_at = excluded.updated_at, mode = excluded.mode",
            )
            .bind(&$policy.id)
            .bind(&$policy.name)
            .bind($policy.kind.as_str())
            .bind($policy.enabled)
            .bind($policy.priority)
            .bind(to_json(&$policy.conditions)?)
            .bind(to_json(&$policy.actions)?)
            .bind($policy.created_at)
            .bind($policy.updated_at)
            .bind($policy.mode.as_str())
            .execute(&mut *$db)
            .await?
    };
}

impl Policies<'_> {
    /// Those that come first first; rows that cannot be read are left out.
    pub async fn list(&self) -> Result<Vec<Policy>, StoreError> {
        let rows: Vec<Row> =
            with_read!(self.0.pool(), |db| sqlx::query_as(SELECT_ALL).fetch_all(&mut *db).await?);
        let mut problems = Vec::new();
        Ok(rows.into_iter().filter_map(|row| parse(row, &mut problems)).collect())
    }

    /// Adds one, where there are fewer than `most`.
    pub async fn insert(&self, policy: &Policy, most: usize) -> Result<(), StoreError> {
        with_write!(self.0.pool(), |db| {
            bump_revision!(db);
            check_room!(db, "policies", "policies", most);
            write_row!(db, policy);
        });
        Ok(())
    }

    /// Changes one in one piece: nobody else's change comes between reading and writing. When `change` refuses, nothing is
    /// written and its reason comes back.
    pub async fn change<E>(
        &self,
        id: &str,
        change: impl FnOnce(&mut Policy) -> Result<(), E>,
    ) -> Result<Result<Policy, E>, StoreError> {
        let changed = with_write!(self.0.pool(), |db| {
            bump_revision!(db);
            let rows: Vec<Row> = sqlx::query_as(SELECT_ALL).fetch_all(&mut *db).await?;
            let row = rows.into_iter().find(|row| row.0 == id);
            let row = row.ok_or_else(|| StoreError::NotFound { what: "policy", id: id.to_owned() })?;
            let mut policy = usable(|problems| parse(row, problems))?;
            if let Err(refusal) = change(&mut policy) {
                return Ok(Err(refusal));
            }
            write_row!(db, &policy);
            policy
        });
        Ok(Ok(changed))
    }

    /// Whether there was one.
    pub async fn delete(&self, id: &str) -> Result<bool, StoreError> {
        let changed = with_write!(self.0.pool(), |db| {
            bump_revision!(db);
            sqlx::query("DELETE FROM policies WHERE id = $1")
                .bind(id)
                .execute(&mut *db)
                .await?
                .rows_affected()
        });
        Ok(changed > 0)
    }
}

/// The policies that name a key, with what their conditions are for the one that takes its place. Rows that cannot be read
/// hold for nobody.
pub(crate) fn of_another_key(
    rows: Vec<Row>,
    old: &ApiKeyId,
    new: &ApiKeyId,
) -> Result<Vec<(String, String)>, StoreError> {
    let policies = rows.into_iter().filter_map(|row| parse(row, &mut Vec::new()));
    let named = policies.filter(|policy| policy.conditions.api_key_id.as_deref() == Some(old.as_str()));
    named
        .map(|mut policy| {
            policy.conditions.api_key_id = Some(new.to_string());
            Ok((policy.id, to_json(&policy.conditions)?))
        })
        .collect()
}

/// The actions of a policy after a combo got another name; `None` when they do not name it, or cannot be read.
pub(crate) fn rename_combo(actions: &str, before: &str, after: &str) -> Result<Option<String>, StoreError> {
    let Ok(mut actions) = from_json::<PolicyActions>("actions", actions) else { return Ok(None) };
    let mut is_changed = add_renamed(&mut actions.block_model, before, after);
    if let Some(new) = actions.rewrite_model.as_deref().and_then(|name| renamed(name, before, after)) {
        actions.rewrite_model = Some(new);
        is_changed = true;
    }
    is_changed.then(|| to_json(&actions)).transpose()
}

/// The conditions of a policy after that; there is room for one name only.
pub(crate) fn rename_asked(
    conditions: &str,
    before: &str,
    after: &str,
) -> Result<Option<String>, StoreError> {
    let Ok(mut conditions) = from_json::<PolicyConditions>("conditions", conditions) else { return Ok(None) };
    let pattern = conditions.model_pattern.as_deref();
    let Some(new) = pattern.and_then(|pattern| renamed_pattern(pattern, before, after)) else {
        return Ok(None);
    };
    conditions.model_pattern = Some(new);
    to_json(&conditions).map(Some)
}

/// The policy of a row.
pub(crate) fn parse(row: Row, problems: &mut Vec<RowProblem>) -> Option<Policy> {
    let (id, name, kind, enabled, mode, priority, conditions, actions, created_at, updated_at) = row;
    let read = || {
        Ok(Policy {
            id: id.clone(),
            name,
            kind: PolicyKind::of_word(&kind).ok_or_else(|| format!("type `{kind}` is unknown"))?,
            enabled,
            mode: PolicyMode::of_word(&mode).ok_or_else(|| format!("mode `{mode}` is unknown"))?,
            priority,
            conditions: from_json("conditions", &conditions)?,
            actions: from_json("actions", &actions)?,
            created_at,
            updated_at,
        })
    };
    match read() {
        Ok(policy) => Some(policy),
        Err(message) => {
            problems.push(RowProblem { table: "policies", id, message });
            None
        }
    }
}
