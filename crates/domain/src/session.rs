//! Conversations, and the account that each stays with at a provider, so that the vendor's prompt caches, signatures and
//! encrypted reasoning remain valid. A conversation belongs to one client key.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use foldhash::fast::RandomState;
use omniroute_provider::ProviderId;
use smallvec::SmallVec;

use crate::entity::ConnectionId;

/// Most conversations that are known; those silent for longest make room.
pub const MAX_SESSIONS: usize = 10_000;
/// How many make room at once, so that this is seldom done.
const ROOM: usize = MAX_SESSIONS / 100;
/// Most providers of one conversation.
const MAX_PINS: usize = 16;
/// How often the database hears that a conversation goes on.
const STORE_EVERY_MS: i64 = 60_000;

/// A conversation's key: whose it is, and its id.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SessionKey {
    text: Box<str>,
    /// Where the id begins.
    at: usize,
}

impl SessionKey {
    /// The conversation `id` of a client key.
    pub fn new(tenant: &str, id: &str) -> Self {
        // One piece of memory: this is made for every request of a conversation.
        let mut text = String::with_capacity(tenant.len() + 1 + id.len());
        text.push_str(tenant);
        text.push('\u{1f}');
        text.push_str(id);
        Self { text: text.into(), at: tenant.len() + 1 }
    }

    /// The id that is shown.
    pub fn id(&self) -> &str {
        &self.text[self.at..]
    }

    /// Whose it is: the id of a client key, or `-`.
    pub fn tenant(&self) -> &str {
        &self.text[..self.at - 1]
    }
}

/// That a conversation stays with an account at a provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Affinity {
    /// Whose conversation: the id of a client key, or `-`.
    pub tenant: String,
    /// Its id.
    pub session: String,
    /// Where.
    pub provider: ProviderId,
    /// With whom.
    pub connection: ConnectionId,
    /// When it began, in epoch milliseconds.
    pub created_at: i64,
    /// When it spoke last.
    pub last_seen_at: i64,
}

/// A conversation, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionView {
    /// Its key.
    pub key: SessionKey,
    /// When it began, in epoch milliseconds.
    pub created_at: i64,
    /// When it spoke last.
    pub last_active: i64,
    /// Its requests.
    pub requests: u64,
    /// The account it stays with, of several the latest.
    pub connection: Option<ConnectionId>,
}

/// A client key has as many conversations as it may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooMany {
    /// When the first of them has been silent for long enough, in epoch milliseconds.
    pub until: i64,
}

/// All conversations. They survive configuration changes.
#[derive(Debug, Default)]
pub struct Sessions {
    known: Mutex<HashMap<SessionKey, Session, RandomState>>,
}

#[derive(Debug)]
struct Session {
    created_at: i64,
    last_active: i64,
    requests: u64,
    pins: SmallVec<[Pin; 1]>,
}

#[derive(Debug)]
struct Pin {
    provider: ProviderId,
    connection: ConnectionId,
    stored_at: i64,
}

impl Sessions {
    /// A request of a conversation; of a new one only if its key may have one more.
    pub fn enter(&self, key: &SessionKey, most: u32, ttl_ms: i64, now_ms: i64) -> Result<(), TooMany> {
        let mut known = self.known();
        if let Some(session) = known.get_mut(key) {
            if !session.is_silent(ttl_ms, now_ms) {
                session.last_active = now_ms;
                session.requests += 1;
                return Ok(());
            }
            known.remove(key);
        }
        check_count(&known, key, most, ttl_ms, now_ms)?;
        make_room(&mut known, ttl_ms, now_ms);
        known.insert(key.clone(), Session::begun(now_ms, 1));
        Ok(())
    }

    /// Whether a request of the conversation would be let in; nothing is noted.
    pub fn would_enter(&self, key: &SessionKey, most: u32, ttl_ms: i64, now_ms: i64) -> Result<(), TooMany> {
        let known = self.known();
        match known.get(key) {
            Some(session) if !session.is_silent(ttl_ms, now_ms) => Ok(()),
            _ => check_count(&known, key, most, ttl_ms, now_ms),
        }
    }

    /// The account that a conversation stays with.
    pub fn pinned(
        &self,
        key: &SessionKey,
        provider: &ProviderId,
        ttl_ms: i64,
        now_ms: i64,
    ) -> Option<ConnectionId> {
        let known = self.known();
        let session = known.get(key).filter(|session| !session.is_silent(ttl_ms, now_ms))?;
        session.pins.iter().find(|pin| pin.provider == *provider).map(|pin| pin.connection.clone())
    }

    /// The provider that answered a conversation last.
    pub fn served_by(&self, key: &SessionKey, ttl_ms: i64, now_ms: i64) -> Option<ProviderId> {
        let known = self.known();
        let session = known.get(key).filter(|session| !session.is_silent(ttl_ms, now_ms))?;
        session.pins.last().map(|pin| pin.provider.clone())
    }

    /// The conversation stays with the account that answered. Gives what the database should hear.
    pub fn pin(
        &self,
        key: &SessionKey,
        provider: &ProviderId,
        connection: &ConnectionId,
        now_ms: i64,
    ) -> Option<Affinity> {
        let mut known = self.known();
        let session = known.get_mut(key)?;
        session.last_active = session.last_active.max(now_ms);
        let place = session.pins.iter().position(|pin| pin.provider == *provider);
        if let Some(place) = place
            && session.pins[place].connection == *connection
            && now_ms - session.pins[place].stored_at < STORE_EVERY_MS
        {
            // The last one is who answered last.
            session.pins[place..].rotate_left(1);
            return None;
        }
        if let Some(place) = place {
            session.pins.remove(place);
        } else if session.pins.len() >= MAX_PINS {
            session.pins.remove(0);
        }
        session.pins.push(Pin {
            provider: provider.clone(),
            connection: connection.clone(),
            stored_at: now_ms,
        });
        Some(Affinity {
            tenant: key.tenant().to_owned(),
            session: key.id().to_owned(),
            provider: provider.clone(),
            connection: connection.clone(),
            created_at: session.created_at,
            last_seen_at: now_ms,
        })
    }

    /// Takes over what an earlier process knew; those silent for longest come first.
    pub fn restore(&self, row: Affinity, ttl_ms: i64, now_ms: i64) {
        let mut known = self.known();
        make_room(&mut known, ttl_ms, now_ms);
        let session = known
            .entry(SessionKey::new(&row.tenant, &row.session))
            .or_insert_with(|| Session::begun(row.created_at, 0));
        session.last_active = session.last_active.max(row.last_seen_at);
        session.created_at = session.created_at.min(row.created_at);
        if session.pins.len() < MAX_PINS {
            let stored_at = row.last_seen_at;
            session.pins.push(Pin { provider: row.provider, connection: row.connection, stored_at });
        }
    }

    /// Ends the conversations of this id, whoever has them; their keys.
    pub fn forget(&self, id: &str) -> Vec<SessionKey> {
        let mut known = self.known();
        let gone: Vec<SessionKey> = known.keys().filter(|key| key.id() == id).cloned().collect();
        for key in &gone {
            known.remove(key);
        }
        gone
    }

    /// Those that spoke within the time, the latest first.
    pub fn list(&self, ttl_ms: i64, now_ms: i64) -> Vec<SessionView> {
        let known = self.known();
        let mut all: Vec<SessionView> = known
            .iter()
            .filter(|(_, session)| !session.is_silent(ttl_ms, now_ms))
            .map(|(key, session)| SessionView {
                key: key.clone(),
                created_at: session.created_at,
                last_active: session.last_active,
                requests: session.requests,
                connection: session.pins.last().map(|pin| pin.connection.clone()),
            })
            .collect();
        drop(known);
        all.sort_by(|a, b| (b.last_active, a.key.id()).cmp(&(a.last_active, b.key.id())));
        all
    }

    /// How many there are by key, of those in a list.
    pub fn by_tenant(list: &[SessionView]) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for session in list {
            *counts.entry(session.key.tenant().to_owned()).or_insert(0) += 1;
        }
        counts
    }

    fn known(&self) -> MutexGuard<'_, HashMap<SessionKey, Session, RandomState>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Session {
    fn begun(now_ms: i64, requests: u64) -> Self {
        Self { created_at: now_ms, last_active: now_ms, requests, pins: SmallVec::new() }
    }

    const fn is_silent(&self, ttl_ms: i64, now_ms: i64) -> bool {
        self.last_active.saturating_add(ttl_ms) <= now_ms
    }
}

/// Whether a key may have one conversation more than those that spoke within the time. 0 = as many as it likes.
fn check_count(
    known: &HashMap<SessionKey, Session, RandomState>,
    key: &SessionKey,
    most: u32,
    ttl_ms: i64,
    now_ms: i64,
) -> Result<(), TooMany> {
    if most == 0 {
        return Ok(());
    }
    let own = known
        .iter()
        .filter(|(other, session)| other.tenant() == key.tenant() && !session.is_silent(ttl_ms, now_ms));
    let (count, oldest) = own.fold((0_u32, i64::MAX), |(count, oldest), (_, session)| {
        (count.saturating_add(1), oldest.min(session.last_active))
    });
    if count >= most { Err(TooMany { until: oldest.saturating_add(ttl_ms) }) } else { Ok(()) }
}

/// Makes room for one more: first those that are over go, then the hundredth part that was silent for longest.
fn make_room(known: &mut HashMap<SessionKey, Session, RandomState>, ttl_ms: i64, now_ms: i64) {
    if known.len() < MAX_SESSIONS {
        return;
    }
    known.retain(|_, session| !session.is_silent(ttl_ms, now_ms));
    if known.len() < MAX_SESSIONS {
        return;
    }
    let mut times: Vec<i64> = known.values().map(|session| session.last_active).collect();
    let (_, last, _) = times.select_nth_unstable(ROOM - 1);
    let (last, mut left) = (*last, ROOM);
    known.retain(|_, session| {
        let goes = left > 0 && session.last_active <= last;
        left -= usize::from(goes);
        !goes
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: i64 = 1_800_000;

    fn key(name: &str) -> SessionKey {
        SessionKey::new("k1", name)
    }

    fn stays(sessions: &Sessions, name: &str, now_ms: i64) -> Option<String> {
        let found = sessions.pinned(&key(name), &ProviderId::from("p"), TTL, now_ms);
        found.map(|connection| connection.to_string())
    }

    #[test]
    fn a_conversation_stays_until_it_is_silent_for_too_long() {
        let sessions = Sessions::default();
        let (provider, account) = (ProviderId::from("p"), ConnectionId::from("c1"));
        assert_eq!(sessions.pin(&key("a"), &provider, &account, 0), None, "nobody knows it yet");
        sessions.enter(&key("a"), 0, TTL, 0).expect("no limit");
        let row = sessions.pin(&key("a"), &provider, &account, 10).expect("new");
        assert_eq!((row.tenant.as_str(), row.session.as_str(), row.last_seen_at), ("k1", "a", 10));
        assert_eq!(sessions.pin(&key("a"), &provider, &account, 20), None, "the database knows");
        assert!(
            sessions.pin(&key("a"), &provider, &account, 60_010).is_some(),
            "a minute later it hears again"
        );
        assert!(sessions.pin(&key("a"), &provider, &ConnectionId::from("c2"), 60_020).is_some());
        assert_eq!(stays(&sessions, "a", 60_020 + TTL - 1).as_deref(), Some("c2"));
        assert_eq!(stays(&sessions, "a", 60_020 + TTL), None);
        let other = SessionKey::new("k2", "a");
        assert_eq!(sessions.pinned(&other, &provider, TTL, 60_020), None, "keys share no conversation");
    }

    #[test]
    fn a_key_has_as_many_conversations_as_it_may_have() {
        let sessions = Sessions::default();
        sessions.enter(&key("a"), 2, TTL, 0).expect("the first");
        sessions.enter(&key("b"), 2, TTL, 5).expect("the second");
        assert_eq!(sessions.enter(&key("c"), 2, TTL, 10), Err(TooMany { until: TTL }));
        sessions.enter(&SessionKey::new("k2", "c"), 2, TTL, 10).expect("another key");
        sessions.enter(&key("a"), 2, TTL, 20).expect("one that is known");
        sessions.enter(&key("c"), 2, TTL, 5 + TTL).expect("the second is over");
    }

    #[test]
    fn those_silent_for_longest_make_room() {
        let sessions = Sessions::default();
        for n in 0..MAX_SESSIONS as i64 + 50 {
            sessions.enter(&key(&n.to_string()), 0, i64::MAX / 2, n).expect("no limit");
        }
        let list = sessions.list(i64::MAX / 2, 0);
        assert!((MAX_SESSIONS - ROOM..=MAX_SESSIONS).contains(&list.len()), "{}", list.len());
        assert_eq!(list[0].key.id(), (MAX_SESSIONS + 49).to_string());
        assert_eq!(list.last().expect("many").key.id(), ROOM.to_string(), "the first hundred are gone");
    }

    #[test]
    fn what_is_ended_is_gone_and_what_is_restored_is_back() {
        let sessions = Sessions::default();
        sessions.enter(&key("a"), 0, TTL, 0).expect("no limit");
        let row = sessions.pin(&key("a"), &ProviderId::from("p"), &ConnectionId::from("c1"), 7).expect("new");
        assert_eq!(sessions.forget("a"), [key("a")]);
        assert_eq!((stays(&sessions, "a", 8), sessions.forget("a").len()), (None, 0));
        sessions.restore(row, TTL, 8);
        assert_eq!(stays(&sessions, "a", 8).as_deref(), Some("c1"));
        assert_eq!(Sessions::by_tenant(&sessions.list(TTL, 8)), BTreeMap::from([("k1".to_owned(), 1)]));
    }
}
