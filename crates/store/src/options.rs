//! Where the database is and what its secrets are encrypted with.

use std::path::PathBuf;

use secrecy::SecretString;

/// How to open the store.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// Which database.
    pub location: Location,
    /// Encrypts secrets at rest: 32 random bytes in hexadecimal or base64, or a passphrase. Without it SQLite uses
    /// `secret.key` in the data directory, generated on first start; Postgres, whose processes may run on several
    /// machines, then keeps no secrets.
    pub encryption_key: Option<SecretString>,
    /// The key before the current one, while secrets are still to be encrypted anew.
    pub previous_key: Option<SecretString>,
}

/// Which database.
#[derive(Debug, Clone)]
pub enum Location {
    /// The file `storage.sqlite` in this directory, which is created when it does not exist.
    Sqlite {
        /// The data directory.
        data_dir: PathBuf,
    },
    /// A server.
    Postgres {
        /// `postgres://user:password@host/database`.
        url: SecretString,
    },
}
