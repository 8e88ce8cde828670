//! Reading the configuration of a database that belongs to somebody else: nothing is created, migrated or written, and no
//! secret is decrypted.

use crate::connections::UNREADABLE;
use crate::error::StoreError;
use crate::migrate;
use crate::options::Location;
use crate::pool::Pool;
use crate::store::{FILE, Loaded, Store};
use crate::vault::Vault;

impl Store {
    /// Everything a snapshot is built from, credentials left out; as of one moment, also while a gateway runs on the database.
    pub async fn look(location: &Location) -> Result<Loaded, StoreError> {
        let (pool, file) = match location {
            Location::Sqlite { data_dir } => {
                let file = data_dir.join(FILE);
                if !file.exists() {
                    return Err(StoreError::DataDir {
                        path: data_dir.display().to_string(),
                        reason: format!("there is no {FILE} in it"),
                    });
                }
                let pool = Pool::sqlite_to_read(&file).await.map_err(|error| error.at_path(&file))?;
                (pool, Some(file))
            }
            Location::Postgres { url } => {
                (Pool::postgres(secrecy::ExposeSecret::expose_secret(url)).await?, None)
            }
        };
        migrate::check(&pool).await?;
        let store = Self::over(pool, Vault::closed("the database is only looked at"), file);
        let loaded = store.load().await;
        store.close().await;
        let mut loaded = loaded?;
        // That credentials were not read is no news.
        loaded.problems.retain(|problem| !problem.message.starts_with(UNREADABLE));
        Ok(loaded)
    }
}
