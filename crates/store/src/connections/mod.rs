//! Accounts at providers.

mod keys;
mod order;
mod row;

use omniroute_domain::entity::{Connection, ConnectionId, ConnectionStatus};
use omniroute_provider::ProviderId;

pub(crate) use keys::reseal;
use keys::{Sealed, StoredKeys, place, pool_place};
pub(crate) use order::lock_rows;
use order::renumber;
use row::auth_type_text;
pub(crate) use row::{Row, parse_test_status};

use crate::cleared::{Cleared, announce};
use crate::connection_headers;
use crate::error::StoreError;
use crate::key_states::{self, follow_keys};
use crate::learned_limits;
use crate::nodes::check_node;
use crate::pool::{bump_revision, with_read, with_write};
use crate::quota_snapshots;
use crate::resilience;
use crate::response_owners::FORGET_CONNECTION;
use crate::session_affinity;
use crate::store::{Store, usable};
use crate::text::{clip, to_json};

/// How the problem begins of a connection without its credential.
pub(crate) const UNREADABLE: &str = "cannot decrypt the credential";
pub(crate) const TABLE: &str = "provider_connections";
/// Longest stored error text.
const MAX_ERROR: usize = 2000;

/// Access to the connections.
#[derive(Debug, Clone, Copy)]
pub struct Connections<'a>(pub(crate) &'a Store);

/// Which connections to list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConnectionFilter {
    /// Only those of this provider.
    pub provider: Option<ProviderId>,
    /// Only those that are on, or off.
    pub active: Option<bool>,
}

macro_rules! columns {
    () => {
        "id, provider, auth_type, name, display_name, email, priority, global_priority, is_active, api_key, \
         expires_at, provider_specific_data, default_model, rate_limit_protection, max_concurrent, \
         health_check_interval, \"group\", tags, test_status, last_tested, last_used_at, last_error, last_error_at, \
         last_error_type, last_error_source, error_code, backoff_level, rate_limited_until, consecutive_use_count, \
         created_at, updated_at, api_keys"
    };
}

/// Every row, in order.
pub(crate) const SELECT_ALL: &str =
    concat!("SELECT ", columns!(), " FROM provider_connections ORDER BY provider, priority, created_at, id");

const SELECT_ONE: &str = concat!("SELECT ", columns!(), " FROM provider_connections WHERE id = $1");

const SELECT_PROVIDER: &str = "SELECT provider FROM provider_connections WHERE id = $1";

/// What tests and traffic found out, in the order in which the statements name it.
macro_rules! bind_status {
    ($query:expr, $status:expr) => {
        $query
            .bind($status.test_status.as_str())
            .bind($status.last_tested)
            .bind($status.last_used_at)
            .bind($status.last_error.as_deref().map($crate::connections::clip_error))
            .bind($status.last_error_at)
            .bind($status.last_error_type.as_deref())
            .bind($status.last_error_source.as_deref())
            .bind($status.error_code)
            .bind($status.backoff_level)
            .bind($status.rate_limited_until)
    };
}
pub(crate) use bind_status;

/// Writes what tests and traffic found out.
macro_rules! write_status {
    ($db:ident, $id:expr, $status:expr) => {{
        let status: &omniroute_domain::entity::ConnectionStatus = $status;
        let query = sqlx::query(
            "UPDATE provider_connections SET test_status = $2, last_tested = COALESCE($3, last_tested),
             last_used_at = COALESCE($4, last_used_at), last_error = $5, last_error_at = $6, last_error_type = $7,
             last_error_source = $8, error_code = $9, backoff_level = $10, rate_limited_until = $11,
             consecutive_use_count = $12 WHERE id = $1",
        );
        let query = $crate::connections::bind_status!(query.bind($id), status);
        query.bind(status.consecutive_use_count).execute(&mut *$db).await?.rows_affected()
    }};
}
pub(crate) use write_status;

/// Refuses a name or a key that another connection of the provider has.
macro_rules! refuse_duplicates {
    ($db:ident, $connection:expr, $fingerprint:expr) => {
        let others: Vec<(String, bool)> = sqlx::query_as(
            "SELECT name, name = $2 FROM provider_connections
             WHERE provider = $1 AND id <> $4 AND (name = $2 OR key_hmac = $3)",
        )
        .bind($connection.provider.as_str())
        .bind(&$connection.name)
        .bind($fingerprint.as_deref())
        .bind($connection.id.as_str())
        .fetch_all(&mut *$db)
        .await?;
        if let Some(error) = duplicate(&others, &$connection.name) {
            return Err(error);
        }
    };
}

/// The rows of an account: its own, and what is known of its keys.
macro_rules! rows_of {
    ($db:ident, $id:expr) => {{
        let row: Option<Row> = sqlx::query_as(SELECT_ONE).bind($id).fetch_optional(&mut *$db).await?;
        let states: Vec<key_states::Row> =
            sqlx::query_as(key_states::SELECT).bind(Some($id)).fetch_all(&mut *$db).await?;
        (row, states)
    }};
}

/// Deletes what is known of an account that is gone.
macro_rules! forget {
    ($db:ident, $id:expr) => {
        for statement in $crate::connections::FORGET {
            sqlx::query(statement).bind($id).execute(&mut *$db).await?;
        }
    };
}
pub(crate) use forget;

/// What is known of an account, apart from its row, table by table as the writer goes through them; what it used stays counted.
pub(crate) const FORGET: [&str; 6] = [
    key_states::FORGET_CONNECTION,
    FORGET_CONNECTION,
    learned_limits::FORGET_CONNECTION,
    session_affinity::FORGET_CONNECTION,
    resilience::FORGET_CONNECTION,
    quota_snapshots::FORGET_CONNECTION,
];

/// What is known of an account by its key.
const FORGET_KEY: [&str; 3] =
    [key_states::FORGET_CONNECTION, learned_limits::FORGET_CONNECTION, resilience::FORGET_CONNECTION];

impl Connections<'_> {
    /// Ordered by provider and priority.
    pub async fn list(&self, filter: &ConnectionFilter) -> Result<Vec<Connection>, StoreError> {
        let provider = filter.provider.as_ref().map(ProviderId::as_str);
        let (rows, states): (Vec<Row>, Vec<key_states::Row>) = with_read!(self.0.pool(), |db| {
            let rows = sqlx::query_as(concat!(
                "SELECT ",
                columns!(),
                " FROM provider_connections WHERE ($1 IS NULL OR provider = $1) AND ($2 IS NULL OR is_active = $2) \
                 ORDER BY provider, priority, created_at, id"
            ))
            .bind(provider)
            .bind(filter.active)
            .fetch_all(&mut *db)
            .await?;
            (rows, sqlx::query_as(key_states::SELECT).bind(None::<&str>).fetch_all(&mut *db).await?)
        });
        let (vault, mut problems) = (self.0.vault(), Vec::new());
        let rows = rows.into_iter().filter_map(|row| row.into_connection(&vault, &mut problems));
        let mut connections: Vec<_> = rows.collect();
        key_states::assign(states, &mut connections);
        Ok(connections)
    }

    /// One of them.
    pub async fn get(&self, id: &ConnectionId) -> Result<Option<Connection>, StoreError> {
        let rows = with_read!(self.0.pool(), |db| rows_of!(db, id.as_str()));
        self.stored(rows)
    }

    /// The account of these rows.
    fn stored(
        &self,
        (row, states): (Option<Row>, Vec<key_states::Row>),
    ) -> Result<Option<Connection>, StoreError> {
        let Some(row) = row else { return Ok(None) };
        let vault = self.0.vault();
        let mut connection = usable(|problems| row.into_connection(&vault, problems))?;
        key_states::assign(states, std::slice::from_mut(&mut connection));
        Ok(Some(connection))
    }

    /// Adds one at the place its priority says; 0 or a place beyond the end mean last. Gives it as stored. One at a
    /// node that is gone is refused.
    pub async fn insert(&self, connection: &Connection) -> Result<Connection, StoreError> {
        let (id, vault) = (connection.id.as_str(), self.0.vault());
        let sealed = Sealed::new(&vault, connection)?;
        let options = connection_headers::to_store(&vault, id, &connection.options, None)?;
        let tags = to_json(&connection.tags)?;
        let rows = with_write!(self.0.pool(), |db| {
            bump_revision!(db);
            check_node!(db, &connection.provider);
            lock_rows!(db, connection.provider.as_str());
            refuse_duplicates!(db, connection, sealed.fingerprint);
            sqlx::query(
                "INSERT INTO provider_connections (id, provider, auth_type, name, display_name, email, priority,
                 global_priority, is_active, api_key, key_hmac, expires_at, provider_specific_data, default_model,
                 rate_limit_protection, max_concurrent, health_check_interval, \"group\", tags, created_at, updated_at,
                 api_keys)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20,
                 $21, $22)",
            )
            .bind(connection.id.as_str())
            .bind(connection.provider.as_str())
            .bind(auth_type_text(connection.auth_type))
            .bind(&connection.name)
            .bind(connection.display_name.as_deref())
            .bind(connection.email.as_deref())
            .bind(i64::MAX)
            .bind(connection.global_priority)
            .bind(connection.is_active)
            .bind(sealed.api_key.as_deref())
            .bind(sealed.fingerprint.as_deref())
            .bind(connection.expires_at)
            .bind(&options)
            .bind(connection.default_model.as_deref())
            .bind(connection.rate_limit_protection)
            .bind(connection.max_concurrent.map(i64::from))
            .bind(connection.health_check_interval)
            .bind(connection.group.as_deref())
            .bind(&tags)
            .bind(connection.created_at)
            .bind(connection.updated_at)
            .bind(sealed.api_keys.as_deref())
            .execute(&mut *db)
            .await?;
            write_status!(db, connection.id.as_str(), &connection.status);
            renumber!(db, connection.provider.as_str(), Some((connection.id.as_str(), connection.priority)));
            // Before anybody else can take it away.
            rows_of!(db, id)
        });
        self.stored(rows)?.ok_or_else(|| gone(&connection.id))
    }

    /// Changes what the operator may, in one piece: nobody else's change comes between reading and writing, so that none is
    /// lost. The status stays as tests and traffic left it, unless the credential changed: then it is unknown again. A
    /// credential that cannot be decrypted is kept when none is given. When `change` refuses, nothing is written and its
    /// reason comes back; otherwise the connection as stored.
    pub async fn change<E>(
        &self,
        id: &ConnectionId,
        change: impl FnOnce(&mut Connection) -> Result<(), E>,
    ) -> Result<Result<Connection, E>, StoreError> {
        let (vault, connection_id) = (self.0.vault(), id);
        let id = id.as_str();
        let rows = with_write!(self.0.pool(), |db| {
            bump_revision!(db);
            let provider: Option<String> =
                sqlx::query_scalar(SELECT_PROVIDER).bind(id).fetch_optional(&mut *db).await?;
            lock_rows!(db, provider);
            let row: Option<Row> = sqlx::query_as(SELECT_ONE).bind(id).fetch_optional(&mut *db).await?;
            let stored: Option<StoredKeys> = sqlx::query_as(
                "SELECT api_key, key_hmac, api_keys, provider_specific_data FROM provider_connections WHERE id = $1",
            )
            .bind(id)
            .fetch_optional(&mut *db)
            .await?;
            let (Some(row), Some((stored_key, stored_hmac, stored_pool, stored_options))) = (row, stored)
            else {
                return Err(StoreError::NotFound { what: "connection", id: id.to_owned() });
            };
            let mut connection = usable(|problems| row.into_connection(&vault, problems))?;
            let provider = connection.provider.clone();
            let had_keys = !connection.pool_keys().is_empty();
            if let Err(refusal) = change(&mut connection) {
                return Ok(Err(refusal));
            }
            let connection = &connection;
            let sealed = Sealed::new(&vault, connection)?;
            let tags = to_json(&connection.tags)?;
            if provider != connection.provider {
                return Err(StoreError::Conflict {
                    field: "provider",
                    message: "a connection cannot move to another provider; create a new one".into(),
                });
            }
            refuse_duplicates!(db, connection, sealed.fingerprint);
            let unreadable =
                stored_key.as_deref().is_some_and(|stored| vault.open(&place(id), stored).is_err());
            let (api_key, hmac) = match &sealed.api_key {
                None if unreadable => (stored_key, stored_hmac.clone()),
                // The same credential keeps its ciphertext.
                Some(_) if sealed.fingerprint == stored_hmac && !unreadable => {
                    (stored_key, stored_hmac.clone())
                }
                _ => (sealed.api_key.clone(), sealed.fingerprint.clone()),
            };
            // Further keys that cannot be read are kept as well, until others are given.
            let is_lost =
                stored_pool.as_deref().is_some_and(|stored| vault.open(&pool_place(id), stored).is_err());
            // A list may name no other key than the first.
            let had_several = had_keys || is_lost;
            let pool = sealed.api_keys.clone().or_else(|| stored_pool.filter(|_| is_lost));
            let options =
                connection_headers::to_store(&vault, id, &connection.options, Some(&stored_options))?;
            let credential_changed = hmac != stored_hmac;
            sqlx::query(
                "UPDATE provider_connections SET auth_type = $2, name = $3, display_name = $4, email = $5,
                 global_priority = $6, is_active = $7, api_key = $8, key_hmac = $9, expires_at = $10,
                 provider_specific_data = $11, default_model = $12, rate_limit_protection = $13,
                 max_concurrent = $14, health_check_interval = $15, \"group\" = $16, tags = $17, updated_at = $18,
                 api_keys = $19 WHERE id = $1",
            )
            .bind(id)
            .bind(auth_type_text(connection.auth_type))
            .bind(&connection.name)
            .bind(connection.display_name.as_deref())
            .bind(connection.email.as_deref())
            .bind(connection.global_priority)
            .bind(connection.is_active)
            .bind(api_key)
            .bind(hmac)
            .bind(connection.expires_at)
            .bind(&options)
            .bind(connection.default_model.as_deref())
            .bind(connection.rate_limit_protection)
            .bind(connection.max_concurrent.map(i64::from))
            .bind(connection.health_check_interval)
            .bind(connection.group.as_deref())
            .bind(&tags)
            .bind(connection.updated_at)
            .bind(pool)
            .execute(&mut *db)
            .await?;
            // Accounts before locks, as whoever writes what traffic found out: else each could wait for the other.
            renumber!(db, connection.provider.as_str(), Some((id, connection.priority)));
            if credential_changed {
                write_status!(db, id, &ConnectionStatus::default());
                sqlx::query("UPDATE provider_connections SET last_tested = NULL WHERE id = $1")
                    .bind(id)
                    .execute(&mut *db)
                    .await?;
                for statement in FORGET_KEY {
                    sqlx::query(statement).bind(id).execute(&mut *db).await?;
                }
            } else if !unreadable && (!is_lost || sealed.api_keys.is_some()) {
                follow_keys!(db, connection, had_several);
            }
            rows_of!(db, id)
        });
        self.stored(rows)?.map(Ok).ok_or_else(|| gone(connection_id))
    }

    /// Whether there was one. What it used stays counted.
    pub async fn delete(&self, id: &ConnectionId) -> Result<bool, StoreError> {
        with_write!(self.0.pool(), |db| {
            bump_revision!(db);
            let provider: Option<String> =
                sqlx::query_scalar(SELECT_PROVIDER).bind(id.as_str()).fetch_optional(&mut *db).await?;
            lock_rows!(db, provider);
            let provider: Option<String> =
                sqlx::query_scalar("DELETE FROM provider_connections WHERE id = $1 RETURNING provider")
                    .bind(id.as_str())
                    .fetch_optional(&mut *db)
                    .await?;
            let Some(provider) = provider else { return Ok(false) };
            renumber!(db, provider.as_str(), None);
            forget!(db, id.as_str());
        });
        Ok(true)
    }

    /// Writes what a test found out. Not a change of the configuration.
    pub async fn set_status(&self, id: &ConnectionId, status: &ConnectionStatus) -> Result<bool, StoreError> {
        let changed = with_write!(self.0.pool(), |db| write_status!(db, id.as_str(), status));
        Ok(changed > 0)
    }

    /// Writes that nothing keeps an account or any of its keys back any more: each process hears of it, and forgets what it knew,
    /// when it reloads. Whether there is such an account.
    pub async fn clear_errors(
        &self,
        id: &ConnectionId,
        status: &ConnectionStatus,
    ) -> Result<bool, StoreError> {
        with_write!(self.0.pool(), |db| {
            bump_revision!(db);
            if write_status!(db, id.as_str(), status) == 0 {
                return Ok(false);
            }
            sqlx::query(key_states::FORGET_CONNECTION).bind(id.as_str()).execute(&mut *db).await?;
            announce!(db, [Cleared::Errors(id.clone())]);
        });
        Ok(true)
    }
}

fn gone(id: &ConnectionId) -> StoreError {
    StoreError::NotFound { what: "connection", id: id.to_string() }
}

/// An error text as it is stored.
pub(crate) fn clip_error(text: &str) -> String {
    clip(text, MAX_ERROR)
}

fn duplicate(others: &[(String, bool)], name: &str) -> Option<StoreError> {
    let (other, same_name) = others.iter().max_by_key(|(_, same_name)| *same_name)?;
    Some(if *same_name {
        StoreError::Conflict {
            field: "name",
            message: format!("the provider already has a connection named `{name}`"),
        }
    } else {
        StoreError::Conflict {
            field: "apiKey",
            message: format!("the provider's connection `{other}` already has this key"),
        }
    })
}
