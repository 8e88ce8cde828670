//! Facts about this installation: one value per key of `db_meta`.

use secrecy::{ExposeSecret as _, SecretString};

use crate::error::StoreError;
use crate::pool::{Pool, with_read, with_write};
use crate::store::Store;
use crate::text::{from_hex, random, to_hex};
use crate::vault::{Cryptography, Vault};

/// Name of the value that recognises the encryption key.
pub(crate) const KEY_CHECK: &str = "key_check";
const MACHINE_ID: &str = "machine_id";
const SALT: &str = "kdf_salt";
const JWT_SECRET: &str = "jwt_secret";
const JWT_PLACE: &str = "db_meta.value.jwt_secret";

/// Writes what is there already. Whoever begins with it waits on Postgres for all others that do, and then sees what they did;
/// unlike the revision, it is watched by nobody.
pub(crate) const TAKE_TURN: &str = "UPDATE db_meta SET value = value WHERE key = 'kdf_salt'";

/// Access to the facts.
#[derive(Debug, Clone, Copy)]
pub struct Meta<'a>(pub(crate) &'a Store);

/// What is needed at start.
pub(crate) struct Stored {
    /// Salt of the key derivation.
    pub(crate) salt: Vec<u8>,
    /// Encrypted known text.
    pub(crate) key_check: Option<String>,
}

impl Meta<'_> {
    /// A random id of this installation, 16 hexadecimal digits.
    pub async fn machine_id(&self) -> Result<String, StoreError> {
        read(self.0.pool(), MACHINE_ID)
            .await?
            .ok_or_else(|| StoreError::Damaged("db_meta has no machine_id".into()))
    }

    /// What session cookies are signed with, generated at first use. While stored secrets cannot be decrypted, each
    /// call gives a new one: sessions then end with the process, but signing in works.
    pub async fn jwt_secret(&self) -> Result<SecretString, StoreError> {
        let vault = self.0.vault();
        if let Cryptography::MissingOrInvalid { .. } = vault.status() {
            return Ok(to_hex(&random::<32>()).into());
        }
        if let Some(stored) = read(self.0.pool(), JWT_SECRET).await? {
            match vault.open(JWT_PLACE, &stored) {
                Ok(secret) => return Ok(secret),
                Err(error) => {
                    tracing::warn!(%error, "the session secret cannot be decrypted; sessions start anew");
                    remove(self.0.pool(), JWT_SECRET, &stored).await?;
                }
            }
        }
        insert(self.0.pool(), JWT_SECRET, &vault.seal(JWT_PLACE, &to_hex(&random::<32>()))?).await?;
        let stored = read(self.0.pool(), JWT_SECRET)
            .await?
            .ok_or_else(|| StoreError::Damaged("db_meta has no jwt_secret".into()))?;
        vault.open(JWT_PLACE, &stored).map_err(|error| StoreError::Damaged(format!("jwt_secret: {error}")))
    }
}

/// Makes what every installation has.
pub(crate) async fn prepare(pool: &Pool) -> Result<(), StoreError> {
    let found: i64 = with_read!(pool, |db| {
        sqlx::query_scalar("SELECT COUNT(*) FROM db_meta WHERE key IN ('machine_id', 'kdf_salt')")
            .fetch_one(&mut *db)
            .await?
    });
    if found < 2 {
        insert(pool, MACHINE_ID, &to_hex(&random::<8>())).await?;
        insert(pool, SALT, &to_hex(&random::<16>())).await?;
    }
    Ok(())
}

/// A database that cannot be written is to be known at the start, not at the first change.
pub(crate) async fn touch(pool: &Pool) -> Result<(), StoreError> {
    with_write!(pool, |db| {
        sqlx::query(TAKE_TURN).execute(&mut *db).await?;
    });
    Ok(())
}

/// Reads what is needed at start.
pub(crate) async fn load(pool: &Pool) -> Result<Stored, StoreError> {
    let rows: Vec<(String, String)> = with_read!(pool, |db| {
        sqlx::query_as("SELECT key, value FROM db_meta WHERE key IN ('kdf_salt', 'key_check')")
            .fetch_all(&mut *db)
            .await?
    });
    let value = |key: &str| rows.iter().find(|(name, _)| name == key).map(|(_, value)| value.clone());
    let salt = value(SALT)
        .and_then(|text| from_hex(&text))
        .filter(|salt| salt.len() >= 16)
        .ok_or_else(|| StoreError::Damaged("db_meta has no usable kdf_salt".into()))?;
    Ok(Stored { salt, key_check: value(KEY_CHECK) })
}

/// Keeps a value unless there is one.
pub(crate) async fn insert(pool: &Pool, key: &str, value: &str) -> Result<(), StoreError> {
    with_write!(pool, |db| {
        sqlx::query("INSERT INTO db_meta (key, value) VALUES ($1, $2) ON CONFLICT (key) DO NOTHING")
            .bind(key)
            .bind(value)
            .execute(&mut *db)
            .await?;
    });
    Ok(())
}

/// Encrypts the installation's own secrets with the current key.
pub(crate) async fn reseal(store: &Store, vault: &Vault) -> Result<u64, StoreError> {
    let mut changed = 0;
    let check = vault.key_check()?;
    let jwt = match read(store.pool(), JWT_SECRET).await? {
        Some(stored) if !vault.is_current(&stored) => vault.open(JWT_PLACE, &stored).ok(),
        Some(_) | None => None,
    };
    let jwt = jwt.map(|secret| vault.seal(JWT_PLACE, secret.expose_secret())).transpose()?;
    with_write!(store.pool(), |db| {
        for (key, value) in [(KEY_CHECK, Some(check)), (JWT_SECRET, jwt)] {
            let Some(value) = value else { continue };
            sqlx::query("UPDATE db_meta SET value = $2 WHERE key = $1")
                .bind(key)
                .bind(value)
                .execute(&mut *db)
                .await?;
            changed += u64::from(key == JWT_SECRET);
        }
    });
    Ok(changed)
}

async fn read(pool: &Pool, key: &str) -> Result<Option<String>, StoreError> {
    Ok(with_read!(pool, |db| {
        sqlx::query_scalar("SELECT value FROM db_meta WHERE key = $1")
            .bind(key)
            .fetch_optional(&mut *db)
            .await?
    }))
}

async fn remove(pool: &Pool, key: &str, value: &str) -> Result<(), StoreError> {
    with_write!(pool, |db| {
        sqlx::query("DELETE FROM db_meta WHERE key = $1 AND value = $2")
            .bind(key)
            .bind(value)
            .execute(&mut *db)
            .await?;
    });
    Ok(())
}
