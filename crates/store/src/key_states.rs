//! What tests and traffic found out about the single keys of accounts that have several. There is a row for a key of which there
//! is something to tell; it goes when that is over, when the key leaves the account, and with the account.

use std::collections::{BTreeMap, BTreeSet};

use omniroute_domain::entity::{Connection, ConnectionId, ConnectionStatus, TestStatus};
use secrecy::ExposeSecret as _;

use crate::connections::parse_test_status;
use crate::error::StoreError;
use crate::pool::{with_read, with_write};
use crate::store::Store;

pub(crate) const UPSERT: &str = "INSERT INTO connection_key_states
     (connection_id, key_hash, test_status, last_tested, last_used_at, last_error, last_error_at, last_error_type,
      last_error_source, error_code, backoff_level, rate_limited_until)
     SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12
     WHERE EXISTS (SELECT 1 FROM provider_connections WHERE id = $1)
     ON CONFLICT (connection_id, key_hash) DO UPDATE SET test_status = excluded.test_status,
     last_tested = excluded.last_tested, last_used_at = excluded.last_used_at, last_error = excluded.last_error,
     last_error_at = excluded.last_error_at, last_error_type = excluded.last_error_type,
     last_error_source = excluded.last_error_source, error_code = excluded.error_code,
     backoff_level = excluded.backoff_level, rate_limited_until = excluded.rate_limited_until";
pub(crate) const FORGET: &str =
    "DELETE FROM connection_key_states WHERE connection_id = $1 AND key_hash = $2";
pub(crate) const FORGET_CONNECTION: &str = "DELETE FROM connection_key_states WHERE connection_id = $1";
/// What was known of an account with one key is known of that key.
pub(crate) const TAKE_FROM_ACCOUNT: &str = "INSERT INTO connection_key_states
     (connection_id, key_hash, test_status, last_tested, last_used_at, last_error, last_error_at, last_error_type,
      last_error_source, error_code, backoff_level, rate_limited_until)
     SELECT id, $2, test_status, last_tested, last_used_at, last_error, last_error_at, last_error_type,
      last_error_source, error_code, backoff_level, rate_limited_until FROM provider_connections
     WHERE id = $1 AND (test_status NOT IN ('unknown', 'active') OR last_error IS NOT NULL OR backoff_level > 0
      OR rate_limited_until IS NOT NULL)
     ON CONFLICT (connection_id, key_hash) DO NOTHING";

macro_rules! columns {
    () => {
        "connection_id, key_hash, test_status, last_tested, last_used_at, last_error, last_error_at, last_error_type, \
         last_error_source, error_code, backoff_level, rate_limited_until"
    };
}

/// Every row, or those of one account.
pub(crate) const SELECT: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM connection_key_states WHERE $1 IS NULL OR connection_id = $1 ORDER BY connection_id, key_hash"
);

pub(crate) const SELECT_ONE: &str =
    concat!("SELECT ", columns!(), " FROM connection_key_states WHERE connection_id = $1 AND key_hash = $2");
pub(crate) const SELECT_KEYS: &str = "SELECT key_hash FROM connection_key_states WHERE connection_id = $1";

/// Writes what is known of a key; nothing where that is nothing.
macro_rules! write_key_state {
    ($db:ident, $connection:expr, $key:expr, $status:expr) => {{
        let status: &omniroute_domain::entity::ConnectionStatus = $status;
        let query = if $crate::key_states::says_nothing(status) {
            sqlx::query($crate::key_states::FORGET).bind($connection).bind($key)
        } else {
            let query = sqlx::query($crate::key_states::UPSERT).bind($connection).bind($key);
            $crate::connections::bind_status!(query, status)
        };
        query.execute(&mut *$db).await?;
    }};
}
pub(crate) use write_key_state;

/// What is known of models on an account, or on one of its keys, is known on another one of these instead: locks, and the limits
/// that the vendor told.
macro_rules! move_models {
    ($db:ident, $from:expr, $to:expr) => {{
        sqlx::query($crate::learned_limits::FORGET).bind($to).execute(&mut *$db).await?;
        sqlx::query($crate::learned_limits::MOVE).bind($from).bind($to).execute(&mut *$db).await?;
        sqlx::query($crate::resilience::FORGET_LOCKS).bind($to).execute(&mut *$db).await?;
        sqlx::query($crate::resilience::MOVE_LOCKS).bind($from).bind($to).execute(&mut *$db).await?;
    }};
}
pub(crate) use move_models;

/// What is known follows the keys when others are added or taken out: what is known of the only key of an account is known of
/// the account. What is known of keys that it has no more is deleted.
macro_rules! follow_keys {
    ($db:ident, $connection:expr, $had_several:expr) => {{
        let connection: &omniroute_domain::entity::Connection = $connection;
        let (id, keys) = (connection.id.as_str(), connection.pool_keys());
        if let Some(first) = $crate::key_states::first_key(connection) {
            let of_key = omniroute_domain::entity::ConnectionId::from_parts(id, &first);
            match ($had_several, keys.is_empty()) {
                (false, false) => {
                    let query = sqlx::query($crate::key_states::TAKE_FROM_ACCOUNT);
                    query.bind(id).bind(&first).execute(&mut *$db).await?;
                    $crate::connections::write_status!($db, id, &ConnectionStatus::default());
                    $crate::key_states::move_models!($db, id, of_key.as_str());
                }
                (true, true) => {
                    let query = sqlx::query_as::<_, $crate::key_states::Row>($crate::key_states::SELECT_ONE);
                    if let Some(row) = query.bind(id).bind(&first).fetch_optional(&mut *$db).await? {
                        $crate::connections::write_status!($db, id, &row.into_status());
                    }
                    $crate::key_states::move_models!($db, of_key.as_str(), id);
                }
                (false, true) | (true, false) => {}
            }
        }
        let known: Vec<String> =
            sqlx::query_scalar($crate::key_states::SELECT_KEYS).bind(id).fetch_all(&mut *$db).await?;
        let is_there =
            |hash: &String| keys.iter().any(|key| key.state_id.key_parts() == Some((id, hash.as_str())));
        for gone in known.iter().filter(|hash| !is_there(hash)) {
            sqlx::query($crate::key_states::FORGET).bind(id).bind(gone).execute(&mut *$db).await?;
        }
    }};
}
pub(crate) use follow_keys;

/// Access to what is known of single keys.
#[derive(Debug, Clone, Copy)]
pub struct KeyStates<'a>(pub(crate) &'a Store);

impl KeyStates<'_> {
    /// Writes what a test found out about a key. Not a change of the configuration.
    pub async fn set(&self, key: &ConnectionId, status: &ConnectionStatus) -> Result<(), StoreError> {
        let Some((connection, key)) = key.key_parts() else { return Ok(()) };
        with_write!(self.0.pool(), |db| write_key_state!(db, connection, key, status));
        Ok(())
    }

    /// Deletes what was written of keys after they left their accounts, and of accounts after they were deleted.
    pub(crate) async fn trim(&self) -> Result<u64, StoreError> {
        let rows: Vec<(String, String)> = with_read!(self.0.pool(), |db| {
            sqlx::query_as("SELECT connection_id, key_hash FROM connection_key_states")
                .fetch_all(&mut *db)
                .await?
        });
        if rows.is_empty() {
            return Ok(0);
        }
        let loaded = self.0.load().await?;
        // Of an account whose keys cannot be read now nobody knows which it has.
        let unreadable: BTreeSet<_> = loaded.problems.iter().map(|problem| problem.id.as_str()).collect();
        let keys = loaded.entities.connections.iter().flat_map(Connection::pool_keys);
        let needed: BTreeSet<ConnectionId> = keys.map(|key| key.state_id).collect();
        let is_needed = |(connection, key): &(String, String)| {
            unreadable.contains(connection.as_str())
                || needed.contains(&ConnectionId::from_parts(connection, key))
        };
        let mut deleted = 0;
        with_write!(self.0.pool(), |db| {
            for (connection, key) in rows.iter().filter(|row| !is_needed(row)) {
                let query = sqlx::query(FORGET).bind(connection).bind(key);
                deleted += query.execute(&mut *db).await?.rows_affected();
            }
        });
        Ok(deleted)
    }
}

/// A row.
#[derive(sqlx::FromRow)]
pub(crate) struct Row {
    connection_id: String,
    key_hash: String,
    test_status: String,
    last_tested: Option<i64>,
    last_used_at: Option<i64>,
    last_error: Option<String>,
    last_error_at: Option<i64>,
    last_error_type: Option<String>,
    last_error_source: Option<String>,
    error_code: Option<i64>,
    backoff_level: i64,
    rate_limited_until: Option<i64>,
}

impl Row {
    pub(crate) fn into_status(self) -> ConnectionStatus {
        ConnectionStatus {
            test_status: parse_test_status(&self.test_status),
            last_tested: self.last_tested,
            last_used_at: self.last_used_at,
            last_error: self.last_error,
            last_error_at: self.last_error_at,
            last_error_type: self.last_error_type,
            last_error_source: self.last_error_source,
            error_code: self.error_code,
            backoff_level: self.backoff_level,
            rate_limited_until: self.rate_limited_until,
            consecutive_use_count: 0,
        }
    }
}

/// Puts what is known of keys to their accounts.
pub(crate) fn assign(rows: Vec<Row>, connections: &mut [Connection]) {
    let mut by_account: BTreeMap<String, BTreeMap<ConnectionId, ConnectionStatus>> = BTreeMap::new();
    for row in rows {
        let id = ConnectionId::from_parts(&row.connection_id, &row.key_hash);
        by_account.entry(row.connection_id.clone()).or_default().insert(id, row.into_status());
    }
    for connection in connections {
        if let Some(statuses) = by_account.remove(connection.id.as_str()) {
            connection.key_statuses = statuses;
        }
    }
}

/// What tells the first key of an account from its others.
pub(crate) fn first_key(connection: &Connection) -> Option<String> {
    let id = ConnectionId::of_key(&connection.id, connection.api_key.as_ref()?.expose_secret());
    id.key_parts().map(|(_, key)| key.to_owned())
}

/// Whether a status has nothing that must outlive the process.
pub(crate) fn says_nothing(status: &ConnectionStatus) -> bool {
    matches!(status.test_status, TestStatus::Unknown | TestStatus::Active)
        && status.last_error.is_none()
        && status.rate_limited_until.is_none()
        && status.backoff_level == 0
}
