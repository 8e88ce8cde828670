//! Combos: one name for several targets.

use omniroute_domain::entity::{Combo, ComboConfig, ComboId, ComboTransforms, Goal, OnExceeded, Step};
use omniroute_domain::resolve;
use serde::{Deserialize, Serialize};

use crate::api_keys;
use crate::error::StoreError;
use crate::policies;
use crate::pool::{bump_revision, with_read, with_write};
use crate::settings;
use crate::store::{RowProblem, Store};
use crate::text::{from_json, to_json};

/// Access to the combos.
#[derive(Debug, Clone, Copy)]
pub struct Combos<'a>(pub(crate) &'a Store);

/// Every row, in the operator's order.
pub(crate) const SELECT_ALL: &str =
    "SELECT id, name, data, sort_order, created_at, updated_at FROM combos ORDER BY sort_order, name_key";

const SELECT_ONE: &str =
    "SELECT id, name, data, sort_order, created_at, updated_at FROM combos WHERE id = $1";

/// What a combo may be called by besides its name.
const COMBO: &str = "combo/";

/// A row of the table.
pub(crate) type Row = (String, String, String, i64, i64, i64);

/// What a combo, an alias or a default of combos is checked against: what is there while it is written.
#[derive(Debug)]
pub struct Surroundings {
    /// The combos that can be read, in the operator's order, without the one that is written.
    pub combos: Vec<Combo>,
    /// Every alias with what it stands for, the oldest first.
    pub aliases: Vec<(String, String)>,
    /// How combos are carried out that say nothing else.
    pub combo_defaults: ComboConfig,
}

/// What is kept as JSON.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Data {
    strategy: String,
    models: Vec<Step>,
    #[serde(default)]
    config: ComboConfig,
    #[serde(flatten)]
    transforms: ComboTransforms,
    #[serde(default)]
    is_hidden: bool,
    #[serde(default = "yes")]
    is_active: bool,
}

const fn yes() -> bool {
    true
}

/// What is there now.
macro_rules! surroundings {
    ($db:ident) => {{
        let rows: Vec<$crate::combos::Row> =
            sqlx::query_as($crate::combos::SELECT_ALL).fetch_all(&mut *$db).await?;
        let combos = rows.into_iter().filter_map(|row| $crate::combos::parse(row, &mut Vec::new())).collect();
        let rows: Vec<(String, String)> =
            sqlx::query_as($crate::aliases::SELECT_ALL).fetch_all(&mut *$db).await?;
        let aliases =
            rows.into_iter().filter_map(|row| $crate::aliases::parse(row, &mut Vec::new())).collect();
        let settings: Option<String> =
            sqlx::query_scalar($crate::settings::SELECT_RUNTIME).fetch_optional(&mut *$db).await?;
        let combo_defaults = $crate::settings::parse(settings.as_deref(), &mut Vec::new()).combo_defaults;
        $crate::combos::Surroundings { combos, aliases, combo_defaults }
    }};
}
pub(crate) use surroundings;

/// Writes the row of a combo, new or not.
macro_rules! write_row {
    ($db:ident, $combo:expr) => {{
        let other: Option<String> =
            sqlx::query_scalar("SELECT name FROM combos WHERE name_key = $1 AND id <> $2")
                .bind($combo.name.to_lowercase())
                .bind($combo.id.as_str())
                .fetch_optional(&mut *$db)
                .await?;
        if other.is_some() {
            return Err(StoreError::Conflict {
                field: "name",
                message: "Combo name already exists".to_owned(),
            });
        }
        sqlx::query(
            "INSERT INTO combos (id, name, name_key, data, sort_order, created_at, updated_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (id) DO UPDATE
             SET name = excluded.name, name_key = excluded.name_key, data = excluded.data,
             sort_order = excluded.sort_order, updated_at = excluded.updated_at",
        )
        .bind($combo.id.as_str())
        .bind(&$combo.name)
        .bind($combo.name.to_lowercase())
        .bind(data_of($combo)?)
        .bind($combo.sort_order)
        .bind($combo.created_at)
        .bind($combo.updated_at)
        .execute(&mut *$db)
        .await?;
    }};
}

impl Combos<'_> {
    /// In the operator's order; rows that cannot be read are left out.
    pub async fn list(&self) -> Result<Vec<Combo>, StoreError> {
        let rows: Vec<Row> =
            with_read!(self.0.pool(), |db| sqlx::query_as(SELECT_ALL).fetch_all(&mut *db).await?);
        Ok(rows.into_iter().filter_map(|row| parse(row, &mut Vec::new())).collect())
    }

    /// Adds one behind the others, after `make` finished it among them. When that refuses, nothing is written and its reason
    /// comes back.
    pub async fn insert<E>(
        &self,
        mut combo: Combo,
        make: impl FnOnce(&mut Combo, &Surroundings) -> Result<(), E>,
    ) -> Result<Result<Combo, E>, StoreError> {
        let made = with_write!(self.0.pool(), |db| {
            bump_revision!(db);
            let around = surroundings!(db);
            if let Err(refusal) = make(&mut combo, &around) {
                return Ok(Err(refusal));
            }
            let last: Option<i64> =
                sqlx::query_scalar("SELECT MAX(sort_order) FROM combos").fetch_one(&mut *db).await?;
            combo.sort_order = last.unwrap_or(0) + 1;
            write_row!(db, &combo);
            combo
        });
        Ok(Ok(made))
    }

    /// Changes one among the others, in one piece: nobody else's change comes between reading and writing. When `change`
    /// refuses, nothing is written and its reason comes back. When it has a new name, so do the steps of other combos, the
    /// aliases that lead to it, the keys that may use it, the budgets and policies that send requests to it, the conditions
    /// of policies that name it, and the settings. Lists of models, which may mean models of the old name too, get the new
    /// one besides.
    pub async fn change<E>(
        &self,
        id: &ComboId,
        change: impl FnOnce(&mut Combo, &Surroundings) -> Result<(), E>,
    ) -> Result<Result<Combo, E>, StoreError> {
        let changed = with_write!(self.0.pool(), |db| {
            bump_revision!(db);
            let mut around = surroundings!(db);
            let at = around.combos.iter().position(|combo| combo.id == *id);
            let at = at.ok_or_else(|| StoreError::NotFound { what: "combo", id: id.to_string() })?;
            let mut combo = around.combos.remove(at);
            let before = combo.name.clone();
            if let Err(refusal) = change(&mut combo, &around) {
                return Ok(Err(refusal));
            }
            write_row!(db, &combo);
            if before != combo.name {
                for other in &mut around.combos {
                    if rename_references(other, &before, &combo.name) {
                        write_row!(db, &*other);
                    }
                }
                for (alias, model) in &around.aliases {
                    if let Some(new) = renamed(model, &before, &combo.name) {
                        sqlx::query(
                            "UPDATE key_value SET value = $2 WHERE namespace = 'modelAliases' AND key = $1",
                        )
                        .bind(alias)
                        .bind(to_json(&new)?)
                        .execute(&mut *db)
                        .await?;
                    }
                }
                for (from, to) in [
                    (before.clone(), combo.name.clone()),
                    (format!("combo/{before}"), format!("combo/{}", combo.name)),
                ] {
                    sqlx::query("UPDATE domain_budgets SET on_exceeded = $1 WHERE on_exceeded = $2")
                        .bind(OnExceeded::Downgrade(to).to_string())
                        .bind(OnExceeded::Downgrade(from).to_string())
                        .execute(&mut *db)
                        .await?;
                }
                let keys: Vec<(String, String, String, String)> = sqlx::query_as(
                    "SELECT id, rights, allowed_models, denied_models FROM api_keys ORDER BY id",
                )
                .fetch_all(&mut *db)
                .await?;
                for (id, rights, allowed, denied) in keys {
                    let new_rights = api_keys::rename_combo(&rights, &before, &combo.name)?;
                    let new_allowed = add_to_list(&allowed, &before, &combo.name)?;
                    let new_denied = add_to_list(&denied, &before, &combo.name)?;
                    if new_rights.is_some() || new_allowed.is_some() || new_denied.is_some() {
                        sqlx::query(
                            "UPDATE api_keys SET rights = $2, allowed_models = $3, denied_models = $4 WHERE id = $1",
                        )
                        .bind(&id)
                        .bind(new_rights.unwrap_or(rights))
                        .bind(new_allowed.unwrap_or(allowed))
                        .bind(new_denied.unwrap_or(denied))
                        .execute(&mut *db)
                        .await?;
                    }
                }
                let policies: Vec<(String, String, String)> =
                    sqlx::query_as("SELECT id, conditions, actions FROM policies")
                        .fetch_all(&mut *db)
                        .await?;
                for (id, conditions, actions) in policies {
                    let new_conditions = policies::rename_asked(&conditions, &before, &combo.name)?;
                    let new_actions = policies::rename_combo(&actions, &before, &combo.name)?;
                    if new_conditions.is_some() || new_actions.is_some() {
                        sqlx::query("UPDATE policies SET conditions = $2, actions = $3 WHERE id = $1")
                            .bind(&id)
                            .bind(new_conditions.unwrap_or(conditions))
                            .bind(new_actions.unwrap_or(actions))
                            .execute(&mut *db)
                            .await?;
                    }
                }
                let settings: Option<String> =
                    sqlx::query_scalar(settings::SELECT_RUNTIME).fetch_optional(&mut *db).await?;
                if let Some(text) = settings
                    && let Some(text) = settings::rename_combo(&text, &before, &combo.name)?
                {
                    sqlx::query(settings::UPSERT).bind("runtime").bind(&text).execute(&mut *db).await?;
                }
            }
            combo
        });
        Ok(Ok(changed))
    }

    /// Takes one away, if `check` agrees; whether there was one. What is kept of it goes with it.
    pub async fn delete<E>(
        &self,
        id: &ComboId,
        check: impl FnOnce(&Combo) -> Result<(), E>,
    ) -> Result<Result<bool, E>, StoreError> {
        let changed = with_write!(self.0.pool(), |db| {
            bump_revision!(db);
            let row: Option<Row> =
                sqlx::query_as(SELECT_ONE).bind(id.as_str()).fetch_optional(&mut *db).await?;
            // Of one that cannot be read there is nothing to check.
            let combo = row.and_then(|row| parse(row, &mut Vec::new()));
            if let Some(Err(refusal)) = combo.as_ref().map(check) {
                return Ok(Err(refusal));
            }
            sqlx::query(
                "DELETE FROM key_value
                 WHERE namespace IN ('rrCounters', 'lkgp', 'comboCountsCleared') AND key = $1",
            )
            .bind(id.as_str())
            .execute(&mut *db)
            .await?;
            sqlx::query("DELETE FROM combos WHERE id = $1")
                .bind(id.as_str())
                .execute(&mut *db)
                .await?
                .rows_affected()
        });
        Ok(Ok(changed > 0))
    }

    /// Puts the combos into this order; those that are not named follow in theirs.
    pub async fn reorder(&self, ids: &[ComboId], now_ms: i64) -> Result<(), StoreError> {
        with_write!(self.0.pool(), |db| {
            bump_revision!(db);
            let all: Vec<(String,)> = sqlx::query_as("SELECT id FROM combos ORDER BY sort_order, name_key")
                .fetch_all(&mut *db)
                .await?;
            let named = |id: &str| ids.iter().position(|named| named.as_str() == id);
            let mut order: Vec<String> = all.into_iter().map(|(id,)| id).collect();
            order.sort_by_key(|id| named(id).unwrap_or(usize::MAX));
            for (place, id) in (1_i64..).zip(&order) {
                sqlx::query(
                    "UPDATE combos SET sort_order = $2, updated_at = $3 WHERE id = $1 AND sort_order <> $2",
                )
                .bind(id)
                .bind(place)
                .bind(now_ms)
                .execute(&mut *db)
                .await?;
            }
        });
        Ok(())
    }
}

fn rename_references(combo: &mut Combo, before: &str, after: &str) -> bool {
    let mut is_changed = false;
    for step in &mut combo.steps {
        match &mut step.goal {
            Goal::ComboRef { combo_name } if combo_name == before => {
                after.clone_into(combo_name);
                is_changed = true;
            }
            Goal::Model { model, connection_id: None } => {
                if let Some(new) = renamed(model, before, after) {
                    *model = new;
                    is_changed = true;
                }
            }
            Goal::ComboRef { .. } | Goal::Model { .. } => {}
        }
    }
    is_changed
}

/// A list of patterns after a combo got another name; `None` when nothing is to be changed, or it cannot be read.
fn add_to_list(list: &str, before: &str, after: &str) -> Result<Option<String>, StoreError> {
    let Ok(mut patterns) = from_json::<Vec<String>>("list", list) else { return Ok(None) };
    add_renamed(&mut patterns, before, after).then(|| to_json(&patterns)).transpose()
}

/// Adds the new name of a combo to patterns of models that have the old one, which may mean a model too. Whether it was missing.
pub(crate) fn add_renamed(patterns: &mut Vec<String>, before: &str, after: &str) -> bool {
    let found: Vec<String> =
        patterns.iter().filter_map(|pattern| renamed_pattern(pattern, before, after)).collect();
    let count = patterns.len();
    for name in found {
        if !patterns.iter().any(|known| known.eq_ignore_ascii_case(&name)) {
            patterns.push(name);
        }
    }
    patterns.len() > count
}

/// What a name that meant a combo is now: the combo's, alone or behind `combo/`. What stands behind it (`(high)`, `[1m]`) stays
/// there.
pub(crate) fn renamed(name: &str, before: &str, after: &str) -> Option<String> {
    let bare = resolve::bare_name(name);
    let rest = name.trim().strip_prefix(bare).unwrap_or_default();
    let new = renamed_if(bare, after, |name| name == before)?;
    Some(format!("{new}{rest}"))
}

/// The same of a pattern, which goes by no case.
pub(crate) fn renamed_pattern(pattern: &str, before: &str, after: &str) -> Option<String> {
    renamed_if(pattern, after, |name| name.eq_ignore_ascii_case(before))
}

fn renamed_if(name: &str, after: &str, is_it: impl Fn(&str) -> bool) -> Option<String> {
    match name.split_at_checked(COMBO.len()) {
        Some((prefix, rest)) if prefix.eq_ignore_ascii_case(COMBO) => {
            is_it(rest).then(|| format!("{COMBO}{after}"))
        }
        _ => is_it(name).then(|| after.to_owned()),
    }
}

fn data_of(combo: &Combo) -> Result<String, StoreError> {
    to_json(&Data {
        strategy: combo.strategy.clone(),
        models: combo.steps.clone(),
        config: combo.config.clone(),
        transforms: combo.transforms.clone(),
        is_hidden: combo.is_hidden,
        is_active: combo.is_active,
    })
}

/// The combo of a row.
pub(crate) fn parse(row: Row, problems: &mut Vec<RowProblem>) -> Option<Combo> {
    let (id, name, data, sort_order, created_at, updated_at) = row;
    match from_json::<Data>("data", &data) {
        Ok(data) => Some(Combo {
            id: ComboId::from(id),
            name,
            strategy: data.strategy,
            steps: data.models,
            config: data.config,
            transforms: data.transforms,
            is_hidden: data.is_hidden,
            is_active: data.is_active,
            sort_order,
            created_at,
            updated_at,
        }),
        Err(message) => {
            problems.push(RowProblem { table: "combos", id, message });
            None
        }
    }
}
