//! Where the master key comes from: the setting, or `secret.key` in the data directory.

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;

use secrecy::{ExposeSecret as _, SecretString};
use zeroize::Zeroizing;

use crate::error::StoreError;
use crate::text::{random, to_hex};
use crate::vault::MasterKey;

const FILE: &str = "secret.key";

/// The master key, or why there is none.
pub(crate) enum Found {
    /// There is one.
    Key(MasterKey),
    /// There is none.
    None(String),
}

/// A key from a setting.
pub(crate) async fn from_setting(setting: &SecretString, salt: &[u8]) -> Result<MasterKey, StoreError> {
    if let Some(key) = MasterKey::from_random(setting.expose_secret()) {
        return Ok(key);
    }
    let (text, salt) = (setting.clone(), salt.to_vec());
    tokio::task::spawn_blocking(move || MasterKey::from_passphrase(text.expose_secret(), &salt))
        .await
        .map_err(|error| StoreError::EncryptionKey(error.to_string()))?
}

/// The key in the data directory. A new one is made only while nothing was encrypted yet: a lost key must be
/// noticed, not replaced.
pub(crate) fn from_data_dir(data_dir: &Path, may_generate: bool) -> Result<Found, StoreError> {
    let file = data_dir.join(FILE);
    let failed = |error: io::Error| StoreError::DataDir {
        path: data_dir.display().to_string(),
        reason: format!("{FILE}: {error}"),
    };
    for _ in 0..2 {
        match fs::read_to_string(&file) {
            Ok(text) => {
                let text = Zeroizing::new(text);
                return Ok(match MasterKey::from_random(&text) {
                    Some(key) => Found::Key(key),
                    None => Found::None(format!(
                        "{} does not hold a key; restore it from a backup",
                        file.display()
                    )),
                });
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound && may_generate => {
                create(data_dir, &file).map_err(failed)?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => break,
            Err(error) => return Err(failed(error)),
        }
    }
    Ok(Found::None(format!(
        "the database holds encrypted secrets, but {} is missing; restore it, or set STORAGE_ENCRYPTION_KEY",
        file.display()
    )))
}

/// Creates the data directory, for this user only.
pub(crate) fn create_data_dir(data_dir: &Path) -> Result<(), StoreError> {
    if data_dir.is_dir() {
        return Ok(());
    }
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(data_dir).map_err(|error| StoreError::DataDir {
        path: data_dir.display().to_string(),
        reason: error.to_string(),
    })
}

/// Makes an empty file for this user only, unless there is one. SQLite gives its companions the same permissions; what
/// is wrong with the file it says itself.
pub(crate) fn create_private(file: &Path) {
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let _ = options.open(file);
}

/// Appears whole or not at all, and never replaces one that another process has just made.
fn create(data_dir: &Path, file: &Path) -> io::Result<()> {
    let draft = data_dir.join(format!(".{FILE}.{}", to_hex(&random::<8>())));
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let written = options.open(&draft).and_then(|mut handle| {
        handle.write_all(MasterKey::generate().to_text().as_bytes())?;
        handle.write_all(b"\n")?;
        handle.sync_all()
    });
    let linked = written.and_then(|()| match fs::hard_link(&draft, file) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => fs::rename(&draft, file),
        Ok(()) | Err(_) => Ok(()),
    });
    let _ = fs::remove_file(&draft);
    linked
}
