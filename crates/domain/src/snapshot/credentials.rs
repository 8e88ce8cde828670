//! Every credential that the configuration has: what is sent for accounts, and what accounts hold that are not called now.

use omniroute_provider::scrub::credentials;
use secrecy::{ExposeSecret as _, SecretString};

use super::{ConnectionState, Snapshot};
use crate::entity::Connection;

impl Snapshot {
    /// Every text that is a credential of some account, each once; also of accounts that are switched off or cannot be
    /// used, since theirs are secrets no less.
    pub fn credentials(&self) -> Vec<String> {
        let mut all: Vec<String> =
            self.idle_credentials.iter().map(|text| text.expose_secret().to_owned()).collect();
        for connection in self.connections.values() {
            connection.add_credentials(&mut all);
        }
        all.sort_unstable();
        all.dedup();
        all
    }
}

impl ConnectionState {
    /// Adds the texts that are sent as its credentials.
    fn add_credentials(&self, all: &mut Vec<String>) {
        let of_services = self.services.first().map(|service| &*service.headers);
        for headers in self.endpoints.iter().map(|endpoint| &endpoint.headers).chain(of_services) {
            all.extend(credentials(headers).map(str::to_owned));
        }
        for key in &self.pool {
            key.add_credentials(all);
        }
    }
}

/// What an account holds that is not called: its keys, and the headers of its own.
pub(super) fn held(row: &Connection) -> Vec<SecretString> {
    let mut all = row.options.api_keys.with(row.api_key.as_ref());
    for value in row.options.extra_headers.values() {
        let value = value.trim();
        all.push(value.into());
        all.extend(value.rsplit_once(' ').map(|(_, last)| last.into()));
    }
    all
}
