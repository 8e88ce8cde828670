//! Models the operator added: one list per provider, under `customModels` in `key_value`.

use omniroute_domain::entity::CustomModel;
use omniroute_provider::ProviderId;

use crate::error::StoreError;
use crate::nodes::check_node;
use crate::pool::{bump_revision, with_read, with_write};
use crate::store::{RowProblem, Store};
use crate::text::{from_json, to_json};

/// Access to the added models.
#[derive(Debug, Clone, Copy)]
pub struct CustomModels<'a>(pub(crate) &'a Store);

/// Every list.
pub(crate) const SELECT_ALL: &str =
    "SELECT key, value FROM key_value WHERE namespace = 'customModels' ORDER BY key";

/// The list of one provider.
macro_rules! stored_list {
    ($db:ident, $provider:expr) => {{
        let text: Option<String> =
            sqlx::query_scalar("SELECT value FROM key_value WHERE namespace = 'customModels' AND key = $1")
                .bind($provider.as_str())
                .fetch_optional(&mut *$db)
                .await?;
        match text {
            Some(text) => {
                from_json::<Vec<CustomModel>>("customModels", &text).map_err(StoreError::Damaged)?
            }
            None => Vec::new(),
        }
    }};
}

/// Replaces the list of one provider.
macro_rules! write_list {
    ($db:ident, $provider:expr, $list:expr) => {
        sqlx::query(
            "INSERT INTO key_value (namespace, key, value) VALUES ('customModels', $1, $2)
             ON CONFLICT (namespace, key) DO UPDATE SET value = excluded.value",
        )
        .bind($provider.as_str())
        .bind(to_json($list)?)
        .execute(&mut *$db)
        .await?
    };
}

impl CustomModels<'_> {
    /// Those of one provider, or all.
    pub async fn list(&self, provider: Option<&ProviderId>) -> Result<Vec<CustomModel>, StoreError> {
        let lists: Vec<(String, String)> =
            with_read!(self.0.pool(), |db| sqlx::query_as(SELECT_ALL).fetch_all(&mut *db).await?);
        let mut problems = Vec::new();
        Ok(lists
            .iter()
            .filter(|(key, _)| provider.is_none_or(|provider| provider.as_str() == key))
            .flat_map(|(key, list)| parse(key, list, &mut problems))
            .collect())
    }

    /// Makes of what is known of a model, if it is known, what is to be known, in one piece: nobody else's change comes
    /// between reading and writing. When `change` refuses, nothing is written and its reason comes back. A
    /// node that is gone gets none.
    pub async fn change<E>(
        &self,
        provider: &ProviderId,
        id: &str,
        change: impl FnOnce(Option<CustomModel>) -> Result<CustomModel, E>,
    ) -> Result<Result<CustomModel, E>, StoreError> {
        let changed = with_write!(self.0.pool(), |db| {
            bump_revision!(db);
            check_node!(db, provider);
            let mut list = stored_list!(db, provider);
            let known = list.iter().position(|other| other.id == id);
            let before = known.map(|at| CustomModel { provider: provider.clone(), ..list[at].clone() });
            let model = match change(before) {
                Ok(model) => model,
                Err(refusal) => return Ok(Err(refusal)),
            };
            match known {
                Some(at) => list[at] = model.clone(),
                None => list.push(model.clone()),
            }
            write_list!(db, provider, &list);
            model
        });
        Ok(Ok(changed))
    }

    /// Whether there was one.
    pub async fn delete(&self, provider: &ProviderId, model: &str) -> Result<bool, StoreError> {
        with_write!(self.0.pool(), |db| {
            bump_revision!(db);
            let mut list = stored_list!(db, provider);
            let before = list.len();
            list.retain(|other| other.id != model);
            if list.len() == before {
                return Ok(false);
            }
            write_list!(db, provider, &list);
        });
        Ok(true)
    }
}

/// The models of a stored list.
pub(crate) fn parse(provider: &str, list: &str, problems: &mut Vec<RowProblem>) -> Vec<CustomModel> {
    match from_json::<Vec<CustomModel>>("customModels", list) {
        Ok(mut models) => {
            for model in &mut models {
                model.provider = provider.into();
            }
            models
        }
        Err(message) => {
            problems.push(RowProblem { table: "key_value", id: format!("customModels.{provider}"), message });
            Vec::new()
        }
    }
}
