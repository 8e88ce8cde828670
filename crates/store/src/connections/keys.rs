//! The keys of a connection, encrypted each for its account.

use omniroute_domain::entity::{Connection, KeyPool};
use secrecy::ExposeSecret as _;

use super::TABLE;
use crate::error::StoreError;
use crate::pool::{bump_revision, with_write};
use crate::store::Store;
use crate::text::{from_json, to_json};
use crate::vault::Vault;

/// The key of a connection with its fingerprint, its further keys and its options, as they are stored.
pub(super) type StoredKeys = (Option<String>, Option<String>, Option<String>, String);

/// Credentials ready to be stored.
pub(super) struct Sealed {
    pub(super) api_key: Option<String>,
    pub(super) fingerprint: Option<String>,
    /// The further keys.
    pub(super) api_keys: Option<String>,
}

impl Sealed {
    pub(super) fn new(vault: &Vault, connection: &Connection) -> Result<Self, StoreError> {
        let pool = &connection.options.api_keys;
        let api_keys = match pool.is_empty() {
            true => None,
            false => Some(seal_pool(vault, connection.id.as_str(), pool)?),
        };
        let Some(secret) = &connection.api_key else {
            return Ok(Self { api_key: None, fingerprint: None, api_keys });
        };
        Ok(Self {
            api_keys,
            api_key: Some(vault.seal(&place(connection.id.as_str()), secret.expose_secret())?),
            fingerprint: Some(vault.fingerprint(secret.expose_secret())?),
        })
    }
}

/// The further keys of a connection as one encrypted text.
fn seal_pool(vault: &Vault, id: &str, pool: &KeyPool) -> Result<String, StoreError> {
    let keys: Vec<&str> = pool.0.iter().map(|key| key.expose_secret()).collect();
    vault.seal(&pool_place(id), &to_json(&keys)?)
}

pub(super) fn open_pool(vault: &Vault, id: &str, stored: &str) -> Result<KeyPool, String> {
    let text = vault.open(&pool_place(id), stored).map_err(|error| error.to_string())?;
    let keys: Vec<String> = from_json("api_keys", text.expose_secret())?;
    Ok(KeyPool(keys.into_iter().map(Into::into).collect()))
}

pub(super) fn pool_place(id: &str) -> String {
    format!("{TABLE}.api_keys.{id}")
}

pub(super) fn place(id: &str) -> String {
    format!("{TABLE}.api_key.{id}")
}

/// Encrypts every credential with the current key and makes its fingerprint anew.
pub(crate) async fn reseal(store: &Store, vault: &Vault) -> Result<u64, StoreError> {
    let mut changed = 0;
    with_write!(store.pool(), |db| {
        bump_revision!(db);
        let rows: Vec<(String, String)> = sqlx::query_as(
            "SELECT id, api_key FROM provider_connections WHERE api_key IS NOT NULL ORDER BY id",
        )
        .fetch_all(&mut *db)
        .await?;
        for (id, stored) in rows {
            let secret = match vault.open(&place(&id), &stored) {
                Ok(secret) if !vault.is_current(&stored) => secret,
                Ok(_) => continue,
                Err(error) => {
                    tracing::warn!(connection = id, %error, "credential left as it is");
                    continue;
                }
            };
            sqlx::query("UPDATE provider_connections SET api_key = $2, key_hmac = $3 WHERE id = $1")
                .bind(&id)
                .bind(vault.seal(&place(&id), secret.expose_secret())?)
                .bind(vault.fingerprint(secret.expose_secret())?)
                .execute(&mut *db)
                .await?;
            changed += 1;
        }
        let rows: Vec<(String, String)> = sqlx::query_as(
            "SELECT id, api_keys FROM provider_connections WHERE api_keys IS NOT NULL ORDER BY id",
        )
        .fetch_all(&mut *db)
        .await?;
        for (id, stored) in rows {
            let place = pool_place(&id);
            let keys = match vault.open(&place, &stored) {
                Ok(keys) if !vault.is_current(&stored) => keys,
                Ok(_) => continue,
                Err(error) => {
                    tracing::warn!(connection = id, %error, "further keys left as they are");
                    continue;
                }
            };
            sqlx::query("UPDATE provider_connections SET api_keys = $2 WHERE id = $1")
                .bind(&id)
                .bind(vault.seal(&place, keys.expose_secret())?)
                .execute(&mut *db)
                .await?;
            changed += 1;
        }
    });
    Ok(changed)
}
