//! The administrator's password: Argon2id, hashed and checked off the request threads.

use argon2::Argon2;
use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _, phc::PasswordHash};
use secrecy::ExposeSecret as _;
use subtle::ConstantTimeEq as _;

use crate::error::{AdminResult, conflict, internal, setup_required};
use crate::state::Admin;
use crate::validation::Problems;

/// Where a password would be checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HasPassword {
    /// In the database.
    Stored,
    /// In the environment, until it is used for the first time.
    Initial,
    /// Nowhere yet.
    No,
}

/// Where the password is.
pub(crate) async fn has_password(admin: &Admin) -> AdminResult<HasPassword> {
    if admin.store.settings().password_hash().await?.is_some() {
        return Ok(HasPassword::Stored);
    }
    let is_initial = admin.settings.initial_password.is_some();
    Ok(if is_initial { HasPassword::Initial } else { HasPassword::No })
}

/// Whether this is the password. The initial one is stored on its first use.
pub(crate) async fn check_password(admin: &Admin, password: &str) -> AdminResult<bool> {
    if let Some(stored) = admin.store.settings().password_hash().await? {
        return verify(admin, password, stored.hash).await;
    }
    let Some(initial) = &admin.settings.initial_password else { return Err(setup_required()) };
    if !is_same(password, initial.expose_secret()) {
        return Ok(false);
    }
    let _change = admin.password_change.lock().await;
    if admin.store.settings().password_hash().await?.is_none() {
        store(admin, password).await?;
    }
    Ok(true)
}

/// Sets the first password. A conflict when there is one already.
pub(crate) async fn set_password(admin: &Admin, password: &str) -> AdminResult<()> {
    let _change = admin.password_change.lock().await;
    if has_password(admin).await? != HasPassword::No {
        return Err(conflict(
            "a password is set; change it with PUT /api/settings {currentPassword, newPassword}",
        ));
    }
    store(admin, password).await
}

/// Replaces the password.
pub(crate) async fn change_password(admin: &Admin, password: &str) -> AdminResult<()> {
    let _change = admin.password_change.lock().await;
    store(admin, password).await
}

/// Notes what is wrong with a new password.
pub(crate) fn judge_password(problems: &mut Problems, field: &str, password: &str) {
    problems.length(field, password, 8..=128);
    if ["CHANGEME", "123456", "password", "12345678"].iter().any(|known| known.eq_ignore_ascii_case(password))
    {
        problems.add(field, "is one of the first that would be tried");
    }
}

/// Whether two secrets are the same, in a time that does not depend on where they differ.
pub(crate) fn is_same(a: &str, b: &str) -> bool {
    use sha2::{Digest as _, Sha256};
    Sha256::digest(a).ct_eq(&Sha256::digest(b)).into()
}

async fn store(admin: &Admin, password: &str) -> AdminResult<()> {
    let _permit = admin.hashing.acquire().await.map_err(internal)?;
    let password = password.to_owned();
    let hash = tokio::task::spawn_blocking(move || {
        Argon2::default().hash_password(password.as_bytes()).map(|hash| hash.to_string())
    })
    .await
    .map_err(internal)?
    .map_err(internal)?;
    admin.store.settings().set_password_hash(&hash).await?;
    Ok(())
}

async fn verify(admin: &Admin, password: &str, hash: String) -> AdminResult<bool> {
    let _permit = admin.hashing.acquire().await.map_err(internal)?;
    let password = password.to_owned();
    tokio::task::spawn_blocking(move || {
        let hash = PasswordHash::new(&hash)
            .map_err(|error| format!("the stored password hash is broken: {error}"))?;
        Ok(Argon2::default().verify_password(password.as_bytes(), &hash).is_ok())
    })
    .await
    .map_err(internal)?
    .map_err(|error: String| internal(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comparing_takes_the_whole_text() {
        for (a, b, same) in
            [("", "", true), ("abc", "abc", true), ("abc", "abd", false), ("abc", "abcd", false)]
        {
            assert_eq!(is_same(a, b), same);
        }
    }
}
