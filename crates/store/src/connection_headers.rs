//! The headers that operators add to an account's requests (`extraHeaders`). Their values may be credentials: they are
//! encrypted where they stand among the account's options, each for its account and its name, which stays readable.
//!
//! Databases of older versions have them in the clear. Such values are read as they are, and encrypted when the store is
//! opened ([`seal_plain`]), one row at a time and only if the row still is what was read: so it may be interrupted, done by
//! several processes at once, or met by a change.

use std::collections::BTreeMap;

use omniroute_domain::entity::ConnectionOptions;
use secrecy::ExposeSecret as _;
use serde_json::{Map, Value};

use crate::connections::{TABLE, UNREADABLE};
use crate::error::StoreError;
use crate::pool::{Pool, bump_revision, with_read, with_write};
use crate::store::Store;
use crate::text::{from_json, to_json};
use crate::vault::{Cryptography, Vault};

const COLUMN: &str = "provider_specific_data";
const MEMBER: &str = "extraHeaders";
/// Rows that may have such headers. In one order, whoever asks.
const SELECT: &str = "SELECT id, provider_specific_data FROM provider_connections
     WHERE provider_specific_data LIKE '%\"extraHeaders\"%' ORDER BY id";

type Headers = BTreeMap<String, String>;

/// An account's options as they are stored; `stored` is how they were until now. A value that is the same keeps its
/// ciphertext. One that cannot be decrypted stays, until another is given under its name.
pub(crate) fn to_store(
    vault: &Vault,
    id: &str,
    options: &ConnectionOptions,
    stored: Option<&str>,
) -> Result<String, StoreError> {
    let stored = stored.and_then(|text| from_json::<ConnectionOptions>(COLUMN, text).ok());
    let stored = stored.map(|options| options.extra_headers).unwrap_or_default();
    if stored.is_empty() && options.extra_headers.is_empty() {
        return to_json(options);
    }
    let extra_headers = sealed(vault, id, &options.extra_headers, stored)?;
    to_json(&ConnectionOptions { extra_headers, ..options.clone() })
}

fn sealed(vault: &Vault, id: &str, given: &Headers, stored: Headers) -> Result<Headers, StoreError> {
    let can_seal = !matches!(vault.status(), Cryptography::MissingOrInvalid { .. });
    let mut all = Headers::new();
    for (name, text) in stored {
        let opened = match Vault::is_sealed(&text) {
            true => vault.open(&place(id, &name), &text).ok(),
            // What was in the clear stays so where nothing can be encrypted.
            false => Some(text.as_str().into()).filter(|_| !can_seal),
        };
        let is_kept = match (&opened, given.get(&name)) {
            (Some(opened), Some(value)) => opened.expose_secret() == value,
            (None, None) => Vault::is_sealed(&text),
            (Some(_), None) | (None, Some(_)) => false,
        };
        if is_kept {
            all.insert(name, text);
        }
    }
    for (name, value) in given {
        if !all.contains_key(name) {
            all.insert(name.clone(), vault.seal(&place(id, name), value)?);
        }
    }
    Ok(all)
}

/// Decrypts an account's headers. Those that cannot be are left out; gives why.
pub(crate) fn open(vault: &Vault, id: &str, headers: &mut Headers) -> Option<String> {
    let mut problem = None;
    headers.retain(|name, value| {
        if !Vault::is_sealed(value) {
            return true;
        }
        match vault.open(&place(id, name), value) {
            Ok(opened) => {
                opened.expose_secret().clone_into(value);
                true
            }
            Err(error) => {
                problem.get_or_insert_with(|| format!("{UNREADABLE} in the header `{name}`: {error}"));
                false
            }
        }
    });
    problem
}

/// Encrypts the values that are stored in the clear; gives in how many rows there were some.
pub(crate) async fn seal_plain(pool: &Pool, vault: &Vault) -> Result<u64, StoreError> {
    let rows: Vec<(String, String)> =
        with_read!(pool, |db| sqlx::query_as(SELECT).fetch_all(&mut *db).await?);
    let mut plain = Vec::new();
    for (id, text) in rows {
        let change = |name: &str, value: &str| match Vault::is_sealed(value) {
            true => Ok(None),
            false => vault.seal(&place(&id, name), value).map(Some),
        };
        if let Some((sealed, _)) = rewritten(&text, change)? {
            plain.push((id, text, sealed));
        }
    }
    if plain.is_empty() {
        return Ok(0);
    }
    let changed = replace(pool, &plain).await?;
    if let Err(error) = rewrite(pool).await {
        tracing::warn!(%error, "free room of the database file may still hold headers in the clear; VACUUM it");
    }
    Ok(changed)
}

async fn replace(pool: &Pool, rows: &[(String, String, String)]) -> Result<u64, StoreError> {
    let mut changed = 0;
    for (id, before, after) in rows {
        changed += with_write!(pool, |db| {
            sqlx::query(
                "UPDATE provider_connections SET provider_specific_data = $3
                 WHERE id = $1 AND provider_specific_data = $2",
            )
            .bind(id)
            .bind(before)
            .bind(after)
            .execute(&mut *db)
            .await?
            .rows_affected()
        });
    }
    Ok(changed)
}

/// Writes the file of SQLite anew, which keeps what was replaced in its free room, and empties the log beside it. Once in
/// the life of a database.
async fn rewrite(pool: &Pool) -> Result<(), StoreError> {
    if let Pool::Sqlite { write, .. } = pool {
        for statement in ["VACUUM", "PRAGMA wal_checkpoint(TRUNCATE)"] {
            sqlx::query(statement).fetch_all(write).await?;
        }
    }
    Ok(())
}

/// Encrypts every value with the current key; gives how many.
pub(crate) async fn reseal(store: &Store, vault: &Vault) -> Result<u64, StoreError> {
    let mut changed = 0;
    with_write!(store.pool(), |db| {
        bump_revision!(db);
        let rows: Vec<(String, String)> = sqlx::query_as(SELECT).fetch_all(&mut *db).await?;
        for (id, text) in rows {
            let change = |name: &str, value: &str| {
                let place = place(&id, name);
                if !Vault::is_sealed(value) {
                    return vault.seal(&place, value).map(Some);
                }
                match vault.open(&place, value) {
                    Ok(opened) if !vault.is_current(value) => {
                        vault.seal(&place, opened.expose_secret()).map(Some)
                    }
                    Ok(_) => Ok(None),
                    Err(error) => {
                        tracing::warn!(connection = id, header = name, %error, "header left as it is");
                        Ok(None)
                    }
                }
            };
            let Some((text, count)) = rewritten(&text, change)? else { continue };
            sqlx::query("UPDATE provider_connections SET provider_specific_data = $2 WHERE id = $1")
                .bind(&id)
                .bind(text)
                .execute(&mut *db)
                .await?;
            changed += count;
        }
    });
    Ok(changed)
}

/// Stored options with other values of headers, and how many are others; `None` where none is. What is no options is left
/// alone: it is told when it is read.
fn rewritten(
    text: &str,
    mut change: impl FnMut(&str, &str) -> Result<Option<String>, StoreError>,
) -> Result<Option<(String, u64)>, StoreError> {
    let Ok(mut options) = from_json::<Map<String, Value>>(COLUMN, text) else { return Ok(None) };
    let Some(Value::Object(headers)) = options.get_mut(MEMBER) else { return Ok(None) };
    let mut count = 0;
    for (name, value) in headers {
        let Value::String(stored) = value else { continue };
        if let Some(other) = change(name, stored)? {
            *stored = other;
            count += 1;
        }
    }
    Ok(if count > 0 { Some((to_json(&options)?, count)) } else { None })
}

fn place(id: &str, name: &str) -> String {
    format!("{TABLE}.{COLUMN}.{id}/{MEMBER}/{name}")
}
