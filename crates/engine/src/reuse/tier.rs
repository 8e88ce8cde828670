//! Kept answers in memory: the least recently used go first when they are too many or too long.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lru::LruCache;

use crate::ports::KeptAnswer;

/// Most bytes of all together.
const MAX_BYTES: usize = 64 * 1024 * 1024;
/// What an answer takes beside its body.
const OVERHEAD: usize = 512;

/// Kept answers by their signatures. The lock is held for a look-up, never for more.
pub(super) struct MemoryTier(Mutex<Tier>);

struct Tier {
    answers: LruCache<String, Held>,
    bytes: usize,
}

struct Held {
    until: i64,
    /// How often it was given since that was last told.
    times: u32,
    answer: Arc<KeptAnswer>,
}

impl Held {
    fn bytes(&self) -> usize {
        self.answer.body.len() + OVERHEAD
    }
}

impl Default for MemoryTier {
    fn default() -> Self {
        Self(Mutex::new(Tier { answers: LruCache::unbounded(), bytes: 0 }))
    }
}

impl MemoryTier {
    /// The answer, if it is there and has not expired.
    pub(super) fn find(&self, signature: &str, now_ms: i64) -> Option<Arc<KeptAnswer>> {
        let mut tier = self.tier();
        let held = tier.answers.get(signature)?;
        if held.until > now_ms {
            return Some(held.answer.clone());
        }
        tier.remove(signature);
        None
    }

    /// The answer was given again.
    pub(super) fn used(&self, signature: &str) {
        if let Some(held) = self.tier().answers.peek_mut(signature) {
            held.times = held.times.saturating_add(1);
        }
    }

    /// Takes an answer, and forgets others where there is no room.
    pub(super) fn hold(&self, signature: &str, answer: Arc<KeptAnswer>, until: i64, most: u32) {
        let mut tier = self.tier();
        tier.remove(signature);
        let held = Held { until, times: 0, answer };
        tier.bytes += held.bytes();
        tier.answers.put(signature.to_owned(), held);
        while tier.bytes > MAX_BYTES || tier.answers.len() > most as usize {
            let Some((_, gone)) = tier.answers.pop_lru() else { break };
            tier.bytes -= gone.bytes();
        }
    }

    /// Drops an answer that is of no use.
    pub(super) fn forget(&self, signature: &str) {
        self.tier().remove(signature);
    }

    /// Drops those that are meant; how many they were.
    pub(super) fn clear(&self, is_meant: impl Fn(&str, &KeptAnswer) -> bool) -> usize {
        let mut tier = self.tier();
        let meant: Vec<String> = tier
            .answers
            .iter()
            .filter(|(signature, held)| is_meant(signature, &held.answer))
            .map(|(signature, _)| signature.clone())
            .collect();
        for signature in &meant {
            tier.remove(signature);
        }
        meant.len()
    }

    /// Drops what has expired; gives how often the others were used since the last time.
    pub(super) fn sweep(&self, now_ms: i64) -> Vec<(String, u32)> {
        let mut tier = self.tier();
        let mut expired = Vec::new();
        let mut used = Vec::new();
        for (signature, held) in tier.answers.iter_mut() {
            if held.until <= now_ms {
                expired.push(signature.clone());
            } else if held.times > 0 {
                used.push((signature.clone(), std::mem::take(&mut held.times)));
            }
        }
        for signature in expired {
            tier.remove(&signature);
        }
        used
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.tier().answers.len()
    }

    fn tier(&self) -> MutexGuard<'_, Tier> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tier {
    fn remove(&mut self, signature: &str) {
        if let Some(gone) = self.answers.pop(signature) {
            self.bytes -= gone.bytes();
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use omniroute_dialect::Dialect as _;
    use omniroute_dialect::openai::OpenAi;
    use omniroute_provider::ProviderId;

    use super::*;

    fn answer(bytes: usize) -> Arc<KeptAnswer> {
        Arc::new(KeptAnswer {
            asked: "m".into(),
            provider: ProviderId::from("p"),
            model: "m".into(),
            dialect: OpenAi.id(),
            tokens: 1,
            cost_nano: None,
            body: Bytes::from(vec![b'x'; bytes]),
        })
    }

    #[test]
    fn the_least_recently_used_goes_first() {
        let tier = MemoryTier::default();
        for name in ["a", "b", "c"] {
            tier.hold(name, answer(10), 100, 3);
        }
        assert!(tier.find("a", 0).is_some());
        tier.hold("d", answer(10), 100, 3);
        assert!(tier.find("b", 0).is_none() && tier.find("a", 0).is_some());
        assert_eq!(tier.len(), 3);
        tier.hold("e", answer(10), 100, 1);
        assert_eq!((tier.len(), tier.find("e", 0).is_some()), (1, true));
        tier.hold("f", answer(10), 100, 0);
        assert_eq!(tier.len(), 0);
    }

    #[test]
    fn bytes_are_bounded_too() {
        let tier = MemoryTier::default();
        for number in 0..300 {
            tier.hold(&number.to_string(), answer(256 * 1024), 100, 500);
        }
        assert!((200..256).contains(&tier.len()), "{}", tier.len());
        assert!(tier.find("299", 0).is_some() && tier.find("0", 0).is_none());
        for number in 0..300 {
            tier.forget(&number.to_string());
        }
        assert_eq!((tier.len(), tier.tier().bytes), (0, 0));
    }

    #[test]
    fn an_answer_ends_to_the_millisecond() {
        let tier = MemoryTier::default();
        tier.hold("a", answer(1), 100, 5);
        assert!(tier.find("a", 99).is_some() && tier.find("a", 100).is_none());
        assert_eq!(tier.len(), 0, "what has expired is not kept");
        tier.hold("b", answer(1), 100, 5);
        tier.used("b");
        tier.used("b");
        assert_eq!(tier.sweep(50), [("b".to_owned(), 2)]);
        assert!(tier.sweep(99).is_empty() && tier.len() == 1);
        assert!(tier.sweep(100).is_empty() && tier.len() == 0);
    }
}
