//! What tells the keys of one account apart wherever their states are kept. It is not their place, which changes when others are
//! added or taken out, but the key itself, in a hash that says nothing of it.

use secrecy::{ExposeSecret as _, SecretString};

use super::{Connection, ConnectionId, KeyHash};

/// Between an account's id and what tells its keys apart, in the ids of their states.
const MARK: char = '#';
/// So many digits of the hash are enough among a hundred keys.
const DIGITS: usize = 16;

/// One of several keys of an account.
#[derive(Debug, Clone)]
pub struct PoolKey {
    /// Under which its state is kept.
    pub state_id: ConnectionId,
    /// Its place among the keys of the account, 1 first.
    pub place: usize,
    /// What is sent.
    pub secret: SecretString,
}

/// The account and what tells the key from its others, where this is the id of a key's state.
pub fn key_parts(id: &str) -> Option<(&str, &str)> {
    id.split_once(MARK)
}

impl ConnectionId {
    /// Under which the state of a key is kept.
    pub fn of_key(account: &Self, key: &str) -> Self {
        Self::from_parts(account.as_str(), &KeyHash::of(key).to_hex()[..DIGITS])
    }

    /// The same of an account and of what tells the key from its others.
    pub fn from_parts(account: &str, key: &str) -> Self {
        Self::from(format!("{account}{MARK}{key}"))
    }

    /// The account and what tells the key from its others, where this is the id of a key's state.
    pub fn key_parts(&self) -> Option<(&str, &str)> {
        key_parts(self.as_str())
    }
}

impl Connection {
    /// Its keys in their order, each once, where it has several; of an account with one key nothing has to be told apart.
    pub fn pool_keys(&self) -> Vec<PoolKey> {
        let keys = self.options.api_keys.with(self.api_key.as_ref());
        if keys.len() < 2 {
            return Vec::new();
        }
        let key = |(secret, place): (SecretString, usize)| PoolKey {
            state_id: ConnectionId::of_key(&self.id, secret.expose_secret()),
            place,
            secret,
        };
        keys.into_iter().zip(1..).map(key).collect()
    }
}
