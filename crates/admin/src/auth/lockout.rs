//! Guessing passwords stops after five attempts: then even the right one has to wait.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use omniroute_store::{Lockout, Store, StoreError};

/// Attempts within the window.
const MAX_FAILURES: usize = 5;
const WINDOW_MS: i64 = 5 * 60_000;
const LOCKED_MS: i64 = 15 * 60_000;
/// Most addresses that are remembered; the one that failed longest ago makes room.
const MAX_ADDRESSES: usize = 10_000;

/// Failed attempts by address. Memory decides, the database remembers over a restart.
#[derive(Default)]
pub(crate) struct Lockouts(Mutex<HashMap<String, Entry>>);

#[derive(Debug, Clone, Default)]
struct Entry {
    failures: Vec<i64>,
    locked_until: i64,
}

impl Lockouts {
    /// Takes one attempt, or says how long to wait. An attempt counts as failed until [`Lockouts::succeeded`], so that
    /// many at once get no further than one after another.
    pub(crate) async fn attempt(
        &self,
        store: &Store,
        ip: IpAddr,
        now_ms: i64,
    ) -> Result<Result<(), i64>, StoreError> {
        let name = name_of(ip);
        let is_known = self.entries().contains_key(&name);
        let remembered = if is_known { None } else { store.lockouts().load(&name).await? };
        let remembered = remembered
            .map(|row| Entry { failures: row.attempts, locked_until: row.locked_until.unwrap_or(0) });
        let mut entries = self.entries();
        make_room(&mut entries, &name, now_ms);
        Ok(entries.entry(name).or_insert_with(|| remembered.unwrap_or_default()).attempt(now_ms))
    }

    /// The attempt failed.
    pub(crate) async fn failed(&self, store: &Store, ip: IpAddr, now_ms: i64) -> Result<(), StoreError> {
        let name = name_of(ip);
        let lockout = {
            let mut entries = self.entries();
            let entry = entries.entry(name.clone()).or_default();
            entry.failed(now_ms);
            Lockout {
                identifier: name,
                attempts: entry.failures.clone(),
                locked_until: Some(entry.locked_until).filter(|until| *until > now_ms),
            }
        };
        store.lockouts().save(&lockout).await
    }

    /// The attempt was good: everything is forgotten.
    pub(crate) async fn succeeded(&self, store: &Store, ip: IpAddr) -> Result<(), StoreError> {
        let name = name_of(ip);
        let had_failed = self.entries().remove(&name).is_some_and(|entry| entry.failures.len() > 1);
        if had_failed {
            store.lockouts().clear(&name).await?;
        }
        Ok(())
    }

    /// Who is locked out, and until when.
    pub(crate) async fn locked(&self, store: &Store, now_ms: i64) -> Result<Vec<(String, i64)>, StoreError> {
        let mut locked = store.lockouts().locked(now_ms).await?;
        for (name, entry) in self.entries().iter().filter(|(_, entry)| entry.locked_until > now_ms) {
            // What this process knows is newer than what the database does.
            locked.retain(|(known, _)| known != name);
            locked.push((name.clone(), entry.locked_until));
        }
        locked.sort();
        Ok(locked)
    }

    /// Lets somebody try again.
    pub(crate) async fn unlock(&self, store: &Store, name: &str) -> Result<(), StoreError> {
        self.entries().remove(name);
        store.lockouts().clear(name).await
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<String, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn make_room(entries: &mut HashMap<String, Entry>, name: &str, now_ms: i64) {
    if entries.len() < MAX_ADDRESSES || entries.contains_key(name) {
        return;
    }
    entries.retain(|_, entry| entry.is_fresh(now_ms));
    let oldest = entries.iter().min_by_key(|(_, entry)| entry.failures.last().copied());
    if entries.len() >= MAX_ADDRESSES
        && let Some(oldest) = oldest.map(|(name, _)| name.clone())
    {
        entries.remove(&oldest);
    }
}

impl Entry {
    fn attempt(&mut self, now_ms: i64) -> Result<(), i64> {
        if self.locked_until > now_ms {
            return Err(self.locked_until - now_ms);
        }
        self.failures.retain(|at| now_ms - at < WINDOW_MS);
        if self.failures.len() >= MAX_FAILURES {
            // Others are being checked at this moment.
            return Err(1_000);
        }
        self.failures.push(now_ms);
        Ok(())
    }

    fn failed(&mut self, now_ms: i64) {
        if self.failures.len() >= MAX_FAILURES {
            self.locked_until = now_ms + LOCKED_MS;
            self.failures.clear();
        }
    }

    fn is_fresh(&self, now_ms: i64) -> bool {
        self.locked_until > now_ms || self.failures.last().is_some_and(|at| now_ms - at < WINDOW_MS)
    }
}

/// An address; of IPv6 the network, since one customer has 2^64 addresses.
fn name_of(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => {
            let [a, b, c, d, ..] = ip.segments();
            format!("{}/64", std::net::Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_failures_lock_for_a_quarter_of_an_hour() {
        let mut entry = Entry::default();
        for at in 0..5 {
            assert_eq!(entry.attempt(at), Ok(()));
            entry.failed(at);
        }
        assert_eq!(entry.attempt(5), Err(LOCKED_MS - 1));
        assert_eq!(entry.attempt(4 + LOCKED_MS), Ok(()), "and then it starts over");
    }

    #[test]
    fn slow_failures_do_not_lock() {
        let mut entry = Entry::default();
        for attempt in 0..20 {
            let now = attempt * (WINDOW_MS / 4);
            assert_eq!(entry.attempt(now), Ok(()));
            entry.failed(now);
        }
    }

    #[test]
    fn attempts_at_once_count() {
        let mut entry = Entry::default();
        let admitted = (0..100).filter(|_| entry.attempt(0).is_ok()).count();
        assert_eq!(admitted, MAX_FAILURES);
    }

    #[test]
    fn addresses_of_one_network_are_one() {
        let name = |text: &str| name_of(text.parse().expect("address"));
        assert_eq!(name("2001:db8:1:2:3::4"), name("2001:db8:1:2:ffff::"));
        assert_ne!(name("192.0.2.1"), name("192.0.2.2"));
    }
}
