//! Who else has a model, for when its provider is out.

use omniroute_domain::entity::FallbackChain;

use crate::error::StoreError;
use crate::pool::{bump_revision, check_room, with_read, with_write};
use crate::store::{RowProblem, Store};
use crate::text::{from_json, to_json};

/// Access to the chains.
#[derive(Debug, Clone, Copy)]
pub struct FallbackChains<'a>(pub(crate) &'a Store);

/// Every row.
pub(crate) const SELECT_ALL: &str = "SELECT model, chain FROM domain_fallback_chains ORDER BY model";

impl FallbackChains<'_> {
    /// By model; rows that cannot be read are left out.
    pub async fn list(&self) -> Result<Vec<FallbackChain>, StoreError> {
        let rows: Vec<(String, String)> =
            with_read!(self.0.pool(), |db| sqlx::query_as(SELECT_ALL).fetch_all(&mut *db).await?);
        let mut problems = Vec::new();
        Ok(rows.into_iter().filter_map(|row| parse(row, &mut problems)).collect())
    }

    /// Sets the chain of a model. One that has none yet gets it where there are fewer than `most`.
    pub async fn put(&self, chain: &FallbackChain, most: usize) -> Result<(), StoreError> {
        let links = to_json(&chain.links)?;
        with_write!(self.0.pool(), |db| {
            bump_revision!(db);
            let known = sqlx::query("UPDATE domain_fallback_chains SET chain = $2 WHERE model = $1")
                .bind(&chain.model)
                .bind(&links)
                .execute(&mut *db)
                .await?;
            if known.rows_affected() == 0 {
                check_room!(db, "domain_fallback_chains", "chains", most);
                sqlx::query("INSERT INTO domain_fallback_chains (model, chain) VALUES ($1, $2)")
                    .bind(&chain.model)
                    .bind(&links)
                    .execute(&mut *db)
                    .await?;
            }
        });
        Ok(())
    }

    /// Whether there was one.
    pub async fn delete(&self, model: &str) -> Result<bool, StoreError> {
        let changed = with_write!(self.0.pool(), |db| {
            bump_revision!(db);
            sqlx::query("DELETE FROM domain_fallback_chains WHERE model = $1")
                .bind(model)
                .execute(&mut *db)
                .await?
                .rows_affected()
        });
        Ok(changed > 0)
    }
}

/// The chain of a row.
pub(crate) fn parse(
    (model, chain): (String, String),
    problems: &mut Vec<RowProblem>,
) -> Option<FallbackChain> {
    match from_json("chain", &chain) {
        Ok(links) => Some(FallbackChain { model, links }),
        Err(message) => {
            problems.push(RowProblem { table: "domain_fallback_chains", id: model, message });
            None
        }
    }
}
