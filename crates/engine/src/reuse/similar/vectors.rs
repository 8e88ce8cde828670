//! Vectors of texts that were asked for a moment ago: who asks the same again and again is not billed for it each time.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lru::LruCache;
use sha2::{Digest as _, Sha256};

/// Most bytes of all of them.
const MAX_BYTES: usize = 16 * 1024 * 1024;
/// What a vector takes beside its numbers.
const OVERHEAD: usize = 128;
/// How long one is used. Who runs a model may put another one behind its name.
const LIFE_MS: i64 = 30 * 60 * 1_000;

/// Whose text it is, for which model.
pub(super) type Key = [u8; 32];

/// The vectors, the least recently used of them first to go.
pub(super) struct Vectors(Mutex<Inner>);

struct Inner {
    held: LruCache<Key, (i64, Arc<[f32]>)>,
    bytes: usize,
}

impl Default for Vectors {
    fn default() -> Self {
        Self(Mutex::new(Inner { held: LruCache::unbounded(), bytes: 0 }))
    }
}

/// By what a vector is known: no tenant has those of another one.
pub(super) fn key(tenant: &str, model: &str, text: &str) -> Key {
    let mut digest = Sha256::new();
    for part in [tenant, model, text] {
        digest.update((part.len() as u64).to_le_bytes());
        digest.update(part);
    }
    digest.finalize().into()
}

impl Vectors {
    /// The vector, if there is one that is not too old.
    pub(super) fn find(&self, key: &Key, now_ms: i64) -> Option<Arc<[f32]>> {
        let mut inner = self.inner();
        let (since, vector) = inner.held.get(key)?;
        if now_ms.saturating_sub(*since) < LIFE_MS {
            return Some(vector.clone());
        }
        inner.remove(key);
        None
    }

    /// Takes a vector, and forgets others where there is no room.
    pub(super) fn hold(&self, key: Key, vector: Arc<[f32]>, now_ms: i64) {
        let mut inner = self.inner();
        inner.remove(&key);
        inner.bytes += size(&vector);
        inner.held.put(key, (now_ms, vector));
        while inner.bytes > MAX_BYTES {
            let Some((_, (_, gone))) = inner.held.pop_lru() else { break };
            inner.bytes -= size(&gone);
        }
    }

    /// Forgets all.
    pub(super) fn clear(&self) {
        let mut inner = self.inner();
        inner.held.clear();
        inner.bytes = 0;
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn remove(&mut self, key: &Key) {
        if let Some((_, gone)) = self.held.pop(key) {
            self.bytes -= size(&gone);
        }
    }
}

fn size(vector: &[f32]) -> usize {
    size_of_val(vector) + OVERHEAD
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_are_found_for_a_while_and_by_nobody_else() {
        let vectors = Vectors::default();
        vectors.hold(key("a", "m", "text"), Arc::from([1.0]), 0);
        assert!(vectors.find(&key("a", "m", "text"), LIFE_MS - 1).is_some());
        for other in [key("b", "m", "text"), key("a", "n", "text"), key("a", "mt", "ext")] {
            assert!(vectors.find(&other, 0).is_none());
        }
        assert!(vectors.find(&key("a", "m", "text"), LIFE_MS).is_none());
        let inner = vectors.inner();
        assert_eq!((inner.bytes, inner.held.len()), (0, 0));
    }

    #[test]
    fn bytes_are_bounded() {
        let vectors = Vectors::default();
        for number in 0..40 {
            vectors.hold(key("a", "m", &number.to_string()), vec![0.0; 256 * 1024].into(), 0);
        }
        {
            let inner = vectors.inner();
            let (bytes, count) = (inner.bytes, inner.held.len());
            assert!(bytes <= MAX_BYTES && count == 15, "{bytes} {count}");
        }
        assert!(vectors.find(&key("a", "m", "39"), 0).is_some());
        vectors.clear();
        let inner = vectors.inner();
        assert_eq!((inner.bytes, inner.held.len()), (0, 0));
    }
}
