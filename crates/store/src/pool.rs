//! Connections to either engine, and the macros that let one piece of SQL serve both.
//!
//! `with_read!`, `with_snapshot!` and `with_write!` expand their body once per engine. Inside it, `db` is a
//! `&mut` connection: pass `&mut *db` to sqlx. A `?` in a body of `with_write!` leaves the function and rolls back.

use std::path::Path;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions as _, Connection as _, PgPool, SqlitePool};

use crate::error::StoreError;

const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);

/// Either engine.
#[derive(Debug, Clone)]
pub(crate) enum Pool {
    /// One connection that writes, a few that read.
    Sqlite {
        /// Readers, opened when needed.
        read: SqlitePool,
        /// The writer.
        write: SqlitePool,
    },
    /// A server.
    Postgres(PgPool),
}

/// Runs statements that only read.
macro_rules! with_read {
    ($pool:expr, |$db:ident| $body:expr) => {
        match $pool {
            $crate::pool::Pool::Sqlite { read, .. } => {
                let mut connection = read.acquire().await?;
                let $db = &mut *connection;
                $body
            }
            $crate::pool::Pool::Postgres(pool) => {
                let mut connection = pool.acquire().await?;
                let $db = &mut *connection;
                $body
            }
        }
    };
}

/// Runs statements that only read and must agree with each other.
macro_rules! with_snapshot {
    ($pool:expr, |$db:ident| $body:expr) => {
        match $pool {
            $crate::pool::Pool::Sqlite { read, .. } => {
                let mut transaction = read.begin().await?;
                let $db = &mut *transaction;
                $body
            }
            $crate::pool::Pool::Postgres(pool) => {
                let mut transaction =
                    pool.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
                let $db = &mut *transaction;
                $body
            }
        }
    };
}

/// Runs statements in one transaction that is committed at the end. Whoever waits for another's lock reads what that one wrote,
/// whatever isolation the server is set to.
macro_rules! with_write {
    ($pool:expr, |$db:ident| $body:expr) => {
        match $pool {
            $crate::pool::Pool::Sqlite { write, .. } => {
                let mut transaction = write.begin_with("BEGIN IMMEDIATE").await?;
                let value = {
                    let $db = &mut *transaction;
                    $body
                };
                transaction.commit().await?;
                value
            }
            $crate::pool::Pool::Postgres(pool) => {
                let mut transaction = pool.begin_with("BEGIN ISOLATION LEVEL READ COMMITTED").await?;
                let value = {
                    let $db = &mut *transaction;
                    $body
                };
                transaction.commit().await?;
                value
            }
        }
    };
}

/// Counts a change of the configuration. The first statement of every such transaction: the row's lock keeps
/// writers of the configuration one after the other on Postgres, as the engine does on SQLite.
macro_rules! bump_revision {
    ($db:ident) => {
        sqlx::query(
            "UPDATE db_meta SET value = CAST(CAST(value AS BIGINT) + 1 AS TEXT) WHERE key = 'revision'",
        )
        .execute(&mut *$db)
        .await?
    };
}

/// Leaves the function where a table has as many rows as it may have. Behind [`bump_revision`], so that no other process adds one
/// between counting and writing.
macro_rules! check_room {
    ($db:ident, $table:literal, $what:literal, $most:expr) => {
        let count: i64 =
            sqlx::query_scalar(concat!("SELECT COUNT(*) FROM ", $table)).fetch_one(&mut *$db).await?;
        if usize::try_from(count).unwrap_or(usize::MAX) >= $most {
            return Err($crate::error::StoreError::NoRoom { what: $what, most: $most });
        }
    };
}

pub(crate) use {bump_revision, check_room, with_read, with_snapshot, with_write};

/// The one connection that writes. While another process is just creating the same database, switching it to a
/// write-ahead log is refused at once, whatever the busy timeout says; that passes.
async fn connect(options: &SqliteConnectOptions) -> Result<SqlitePool, sqlx::Error> {
    let mut pause = Duration::from_millis(5);
    loop {
        let pool = SqlitePoolOptions::new()
            .max_connections(1)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .idle_timeout(None)
            .max_lifetime(None)
            .test_before_acquire(false)
            // A full disk ends a transaction behind sqlx's back; its connection would refuse to begin another for ever.
            .after_release(|connection, _| Box::pin(async { Ok(!connection.is_in_transaction()) }));
        match pool.connect_with(options.clone()).await {
            Err(sqlx::Error::Database(error)) if is_busy(&*error) && pause < BUSY_TIMEOUT => {
                tokio::time::sleep(pause).await;
                pause *= 2;
            }
            done => return done,
        }
    }
}

/// SQLITE_BUSY and its kin; the low byte is the primary code (<https://sqlite.org/rescode.html>).
fn is_busy(error: &dyn sqlx::error::DatabaseError) -> bool {
    error.code().and_then(|code| code.parse::<i32>().ok()).is_some_and(|code| code & 0xff == 5)
}

impl Pool {
    /// Opens or creates the file.
    pub(crate) async fn sqlite(file: &Path) -> Result<Self, StoreError> {
        let options = SqliteConnectOptions::new()
            .filename(file)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Normal)
            .busy_timeout(BUSY_TIMEOUT)
            .foreign_keys(true)
            .pragma("journal_size_limit", "67108864")
            .optimize_on_close(false, None)
            .disable_statement_logging();
        // Kibibytes of pages in memory: those of a whole batch, which would be written and read again where there is no room.
        let write = connect(&options.clone().pragma("cache_size", "-4096")).await?;
        let read = SqlitePoolOptions::new()
            .max_connections(3)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .idle_timeout(Duration::from_secs(60))
            .max_lifetime(None)
            .test_before_acquire(false)
            .after_release(|connection, _| Box::pin(async { Ok(!connection.is_in_transaction()) }))
            .connect_lazy_with(options.pragma("cache_size", "-1024").pragma("query_only", "ON"));
        Ok(Self::Sqlite { read, write })
    }

    /// Opens a file that is there, for reading only.
    pub(crate) async fn sqlite_to_read(file: &Path) -> Result<Self, StoreError> {
        let options = SqliteConnectOptions::new()
            .filename(file)
            .read_only(true)
            .busy_timeout(BUSY_TIMEOUT)
            .optimize_on_close(false, None)
            .disable_statement_logging();
        let read = connect(&options).await?;
        Ok(Self::Sqlite { write: read.clone(), read })
    }

    /// Connects to the server.
    pub(crate) async fn postgres(url: &str) -> Result<Self, StoreError> {
        let options: PgConnectOptions = url.parse().map_err(|_| {
            StoreError::Unreachable("the URL is not postgres://user:password@host/database".into())
        })?;
        let pool = PgPoolOptions::new()
            .max_connections(6)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .connect_with(options.application_name("omniroute").disable_statement_logging())
            .await
            .map_err(|error| match StoreError::from(error) {
                StoreError::Busy { .. } => StoreError::Unreachable("no connection within 10 s".into()),
                other => other,
            })?;
        Ok(Self::Postgres(pool))
    }

    /// Closes every connection.
    pub(crate) async fn close(&self) {
        match self {
            Self::Sqlite { read, write } => {
                read.close().await;
                write.close().await;
            }
            Self::Postgres(pool) => pool.close().await,
        }
    }
}
