//! Which account made what vendors keep, for the time after a restart. Only ever read when a process starts.

use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, TryStreamExt as _};
use omniroute_engine::ports::{Claims, OwnerRow, Unfinished, Unreadable};

use crate::error::StoreError;
use crate::pool::{with_read, with_write};
use crate::store::Store;

/// Most rows that are kept; those that end first go first.
const MAX_ROWS: i64 = 100_000;

pub(crate) const UPSERT: &str =
    "INSERT INTO response_owners (response_id, api_key_id, connection_id, asked_model, model, expires_at,
         billed_input, billed_output)
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
     ON CONFLICT (api_key_id, response_id) DO UPDATE SET connection_id = excluded.connection_id,
     asked_model = excluded.asked_model, model = excluded.model, expires_at = excluded.expires_at,
     billed_input = excluded.billed_input, billed_output = excluded.billed_output";
pub(crate) const FORGET_TENANT: &str = "DELETE FROM response_owners WHERE api_key_id = $1";
pub(crate) const FORGET_CONNECTION: &str = "DELETE FROM response_owners WHERE connection_id = $1";

/// In the order of the columns that are read.
type Row = (String, String, String, String, String, i64, Option<i64>, Option<i64>);

/// Access to the owners of answers.
#[derive(Debug, Clone, Copy)]
pub struct ResponseOwners<'a>(pub(crate) &'a Store);

impl ResponseOwners<'_> {
    /// Hands over what is still of use; how many that were.
    pub async fn recall(&self, now_ms: i64, mut take: impl FnMut(OwnerRow)) -> Result<u64, StoreError> {
        const SELECT: &str =
            "SELECT response_id, api_key_id, connection_id, asked_model, model, expires_at, billed_input, billed_output
             FROM response_owners WHERE expires_at > $1 ORDER BY expires_at DESC LIMIT $2";
        let mut recalled = 0;
        with_read!(self.0.pool(), |db| {
            let mut rows = sqlx::query_as::<_, Row>(SELECT).bind(now_ms).bind(MAX_ROWS).fetch(&mut *db);
            while let Some((response_id, tenant, connection, asked, model, expires_at, input, output)) =
                rows.try_next().await?
            {
                recalled += 1;
                let connection = connection.into();
                let unfinished = input.zip(output).map(|(input, output)| Unfinished {
                    input: input.unsigned_abs(),
                    output: output.unsigned_abs(),
                });
                take(OwnerRow { response_id, tenant, connection, asked, model, unfinished, expires_at });
            }
        });
        Ok(recalled)
    }

    /// Notes that an answer is billed whole; whether it was not.
    pub async fn claim(&self, tenant: &str, response_id: &str) -> Result<bool, StoreError> {
        let claimed = with_write!(self.0.pool(), |db| {
            sqlx::query(
                "UPDATE response_owners SET billed_input = NULL, billed_output = NULL
                 WHERE api_key_id = $1 AND response_id = $2 AND billed_input IS NOT NULL",
            )
            .bind(tenant)
            .bind(response_id)
            .execute(&mut *db)
            .await?
            .rows_affected()
        });
        Ok(claimed > 0)
    }

    /// Deletes what there is too much of.
    pub(crate) async fn trim(&self) -> Result<u64, StoreError> {
        Ok(with_write!(self.0.pool(), |db| {
            sqlx::query(
                "DELETE FROM response_owners WHERE (api_key_id, response_id) IN
                 (SELECT api_key_id, response_id FROM
                  (SELECT api_key_id, response_id, ROW_NUMBER() OVER
                   (ORDER BY expires_at DESC, api_key_id, response_id) AS place FROM response_owners)
                  AS newest WHERE place > $1)",
            )
            .bind(MAX_ROWS)
            .execute(&mut *db)
            .await?
            .rows_affected()
        }))
    }
}

impl Claims for Store {
    fn claim<'a>(&'a self, tenant: &'a str, id: &'a str) -> BoxFuture<'a, Result<bool, Unreadable>> {
        async move {
            let claimed = self.response_owners().claim(tenant, id).await;
            claimed.map_err(|error| Unreadable(error.to_string()))
        }
        .boxed()
    }
}
