//! What can go wrong with the database, in words that say what to do.

use std::path::Path;

/// Why the store could not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another row has the value already, or the value cannot change.
    #[error("{message}")]
    Conflict {
        /// Which field.
        field: &'static str,
        /// In words.
        message: String,
    },
    /// No such row.
    #[error("{what} `{id}` does not exist")]
    NotFound {
        /// What was looked for.
        what: &'static str,
        /// Its id.
        id: String,
    },
    /// As many as there may be are there.
    #[error("there may be {most} {what}; delete one first")]
    NoRoom {
        /// Of what, in the plural.
        what: &'static str,
        /// How many there may be.
        most: usize,
    },
    /// Secrets cannot be written.
    #[error("secrets cannot be stored: {0}")]
    Cryptography(String),
    /// The encryption key that was given is unusable.
    #[error("the encryption key is unusable: {0}")]
    EncryptionKey(String),
    /// The data directory cannot be used.
    #[error("the data directory {path} cannot be used: {reason}; create it, or choose another with DATA_DIR")]
    DataDir {
        /// The directory.
        path: String,
        /// Why.
        reason: String,
    },
    /// Somebody else holds the database, or what was to be written. Nothing was.
    #[error("the database{} is busy or locked by another process; stop that, or try again", at(.path))]
    Busy {
        /// The file, when known.
        path: Option<String>,
    },
    /// The database cannot be written.
    #[error(
        "the database{} cannot be written: the file or its directory is read-only or belongs to another user",
        at(.path)
    )]
    ReadOnly {
        /// The file, when known.
        path: Option<String>,
    },
    /// No space left.
    #[error("the database{} cannot grow: the disk is full; make room and try again", at(.path))]
    Full {
        /// The file, when known.
        path: Option<String>,
    },
    /// The file is something else, or damaged.
    #[error(
        "{} is not a usable SQLite database: {reason}; restore a backup, or move it away to start empty",
        .path.as_deref().unwrap_or("the database")
    )]
    NotADatabase {
        /// The file, when known.
        path: Option<String>,
        /// SQLite's words.
        reason: String,
    },
    /// A newer gateway wrote the database.
    #[error(
        "the database has schema {found}, this version knows {known}; start the version that wrote it, or a newer one"
    )]
    TooNew {
        /// Version in the database.
        found: i64,
        /// Newest version known here.
        known: i64,
    },
    /// The schema is not the one the migrations make.
    #[error("the database's schema is not as expected: {0}")]
    Schema(String),
    /// The server cannot be reached or refuses.
    #[error("the database server cannot be used: {0}")]
    Unreachable(String),
    /// A value is not what the table may hold.
    #[error("a stored value cannot be read: {0}")]
    Damaged(String),
    /// Anything else.
    #[error("the database failed: {0}")]
    Database(sqlx::Error),
}

impl StoreError {
    /// Whether trying the same again later can help.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Busy { .. }
            | Self::ReadOnly { .. }
            | Self::Full { .. }
            | Self::NotADatabase { .. }
            | Self::Unreachable(_)
            | Self::DataDir { .. } => true,
            Self::Database(error) => !is_about_the_data(error),
            Self::Conflict { .. }
            | Self::NotFound { .. }
            | Self::NoRoom { .. }
            | Self::Cryptography(_)
            | Self::EncryptionKey(_)
            | Self::TooNew { .. }
            | Self::Schema(_)
            | Self::Damaged(_) => false,
        }
    }

    /// Names the file in errors that are about it.
    pub(crate) fn at_path(self, file: &Path) -> Self {
        let path = Some(file.display().to_string());
        match self {
            Self::Busy { .. } => Self::Busy { path },
            Self::ReadOnly { .. } => Self::ReadOnly { path },
            Self::Full { .. } => Self::Full { path },
            Self::NotADatabase { reason, .. } => Self::NotADatabase { path, reason },
            other => other,
        }
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::Database(database) => {
                let reason = database.message().to_owned();
                match sqlite_code(database.as_ref()) {
                    Some(5 | 6) => return Self::Busy { path: None },
                    Some(8 | 14) => return Self::ReadOnly { path: None },
                    Some(13) => return Self::Full { path: None },
                    Some(11 | 26) => return Self::NotADatabase { path: None, reason },
                    Some(_) | None => {}
                }
                let state = sql_state(database.as_ref()).unwrap_or_default();
                match &*state {
                    "53100" => return Self::Full { path: None },
                    // Another transaction was in the way: serialization_failure, deadlock_detected, lock_not_available.
                    "40001" | "40P01" | "55P03" => return Self::Busy { path: None },
                    _ => {}
                }
                if matches!(state.get(..2), Some("08" | "28" | "3D" | "53" | "57" | "58")) {
                    return Self::Unreachable(reason);
                }
            }
            sqlx::Error::PoolTimedOut => return Self::Busy { path: None },
            sqlx::Error::Io(reason) => return Self::Unreachable(reason.to_string()),
            sqlx::Error::Tls(reason) => return Self::Unreachable(reason.to_string()),
            sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => {
                return Self::Damaged(error.to_string());
            }
            _ => {}
        }
        Self::Database(error)
    }
}

fn at(path: &Option<String>) -> String {
    path.as_deref().map(|path| format!(" {path}")).unwrap_or_default()
}

/// Whether the statement or its values were refused, as opposed to a database that is not working.
fn is_about_the_data(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(database) => match sqlite_code(database.as_ref()) {
            // ERROR, TOOBIG, CONSTRAINT, MISMATCH, RANGE
            Some(code) => matches!(code, 1 | 18 | 19 | 20 | 25),
            // data exceptions, constraints, syntax
            None => sql_state(database.as_ref())
                .is_some_and(|state| matches!(&state[..2], "22" | "23" | "42" | "54")),
        },
        sqlx::Error::Encode(_) => true,
        _ => false,
    }
}

fn sqlite_code(error: &dyn sqlx::error::DatabaseError) -> Option<i64> {
    let sqlite = error.try_downcast_ref::<sqlx::sqlite::SqliteError>()?;
    let code: i64 = sqlx::error::DatabaseError::code(sqlite)?.parse().ok()?;
    Some(code & 0xff)
}

fn sql_state(error: &dyn sqlx::error::DatabaseError) -> Option<String> {
    error.try_downcast_ref::<sqlx::postgres::PgDatabaseError>()?;
    error.code().filter(|code| code.len() == 5 && code.is_ascii()).map(|code| code.into_owned())
}
