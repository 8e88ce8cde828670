//! What tables have in common whose rows are kept until a time, under a signature, for a model and a key: answers, and the
//! questions that others may be close to.

use crate::error::StoreError;
use crate::pool::{with_read, with_write};
use crate::store::Store;

/// Deletes the rows that were made until `$3`; `$1` and `$2` are the model and the signature, or null for any.
macro_rules! clear_sql {
    ($table:literal) => {
        concat!(
            "DELETE FROM ",
            $table,
            " WHERE (CAST($1 AS TEXT) IS NULL OR model = $1)
             AND (CAST($2 AS TEXT) IS NULL OR signature = $2) AND created_at <= $3"
        )
    };
}

/// Deletes the rows of a key.
macro_rules! forget_tenant_sql {
    ($table:literal) => {
        concat!("DELETE FROM ", $table, " WHERE api_key_scope = $1")
    };
}

/// Counts the rows that have not expired.
macro_rules! count_sql {
    ($table:literal) => {
        concat!("SELECT COUNT(*) FROM ", $table, " WHERE expires_at > $1")
    };
}

pub(crate) use {clear_sql, count_sql, forget_tenant_sql};

/// How many rows have not expired; `sql` is made by [`count_sql!`].
pub(crate) async fn count(store: &Store, sql: &'static str, now_ms: i64) -> Result<u64, StoreError> {
    let count: i64 =
        with_read!(store.pool(), |db| sqlx::query_scalar(sql).bind(now_ms).fetch_one(&mut *db).await?);
    Ok(count.unsigned_abs())
}

/// Deletes rows of a model (as it was asked for), under a signature, or all, that were made until then; how many they
/// were. `sql` is made by [`clear_sql!`].
pub(crate) async fn clear(
    store: &Store,
    sql: &'static str,
    (model, signature, until): (Option<&str>, Option<&str>, i64),
) -> Result<u64, StoreError> {
    Ok(with_write!(store.pool(), |db| {
        sqlx::query(sql).bind(model).bind(signature).bind(until).execute(&mut *db).await?.rows_affected()
    }))
}
