//! Prices that are not of the catalogue: one row per provider in `key_value`, under `pricing` what the operator set and
//! under `pricingSynced` what was taken over from a list.

use std::collections::BTreeMap;

use omniroute_domain::price::{Overrides, PriceBook, PriceRow};

use crate::error::StoreError;
use crate::nodes::check_node;
use crate::pool::{bump_revision, with_read, with_write};
use crate::store::{RowProblem, Store};
use crate::text::{from_json, to_json};

/// Access to the prices.
#[derive(Debug, Clone, Copy)]
pub struct Prices<'a>(pub(crate) &'a Store);

/// Every row of both kinds: its kind, the provider, its models.
pub(crate) const SELECT_ALL: &str = "SELECT namespace, key, value FROM key_value
     WHERE namespace IN ('pricing', 'pricingSynced') ORDER BY namespace, key";

const USER: &str = "pricing";
const SYNCED: &str = "pricingSynced";

impl Prices<'_> {
    /// Every price that is not of the catalogue.
    pub async fn get(&self) -> Result<PriceBook, StoreError> {
        let rows: Vec<(String, String, String)> =
            with_read!(self.0.pool(), |db| sqlx::query_as(SELECT_ALL).fetch_all(&mut *db).await?);
        Ok(parse(rows, &mut Vec::new()))
    }

    /// Changes them in one piece: nobody else's change comes between reading and writing. When `change` refuses, nothing
    /// is written and its reason comes back; and nothing of a node that is gone, which is not found.
    pub async fn change<T, E>(
        &self,
        change: impl FnOnce(&mut PriceBook) -> Result<T, E>,
    ) -> Result<Result<T, E>, StoreError> {
        let done = with_write!(self.0.pool(), |db| {
            bump_revision!(db);
            let rows: Vec<(String, String, String)> = sqlx::query_as(SELECT_ALL).fetch_all(&mut *db).await?;
            let before = parse(rows, &mut Vec::new());
            let mut after = before.clone();
            let done = match change(&mut after) {
                Ok(done) => done,
                Err(refusal) => return Ok(Err(refusal)),
            };
            for (namespace, before, after) in
                [(USER, &before.user, &after.user), (SYNCED, &before.synced, &after.synced)]
            {
                for provider in before.keys().filter(|provider| !after.contains_key(*provider)) {
                    sqlx::query("DELETE FROM key_value WHERE namespace = $1 AND key = $2")
                        .bind(namespace)
                        .bind(provider.as_str())
                        .execute(&mut *db)
                        .await?;
                }
                for (provider, models) in after.iter().filter(|(id, models)| before.get(*id) != Some(*models))
                {
                    if !before.contains_key(provider) {
                        check_node!(db, provider);
                    }
                    sqlx::query(
                        "INSERT INTO key_value (namespace, key, value) VALUES ($1, $2, $3)
                         ON CONFLICT (namespace, key) DO UPDATE SET value = excluded.value",
                    )
                    .bind(namespace)
                    .bind(provider.as_str())
                    .bind(to_json(models)?)
                    .execute(&mut *db)
                    .await?;
                }
            }
            done
        });
        Ok(Ok(done))
    }
}

/// The prices of stored rows. One that cannot be read leaves the provider's prices to the catalogue, and is named.
pub(crate) fn parse(rows: Vec<(String, String, String)>, problems: &mut Vec<RowProblem>) -> PriceBook {
    let mut book = PriceBook::default();
    for (namespace, provider, models) in rows {
        let rows: &mut Overrides = if namespace == USER { &mut book.user } else { &mut book.synced };
        match from_json::<BTreeMap<String, PriceRow>>(&namespace, &models) {
            Ok(models) => {
                rows.insert(provider.as_str().into(), models);
            }
            Err(message) => {
                problems.push(RowProblem {
                    table: "key_value",
                    id: format!("{namespace}.{provider}"),
                    message,
                });
            }
        }
    }
    book
}
