//! Counters and cache of one process.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use foldhash::fast::RandomState;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use omniroute_domain::entity::ApiKeyId;
use omniroute_domain::limit::{Meter, Window};

use crate::ports::{AnswerRow, Cache, Charge, Counters, Exceeded, Reserving, Shelf, Unreadable, Verdict};

const SHARDS: usize = 16;
/// Keys per shard after which idle entries are forgotten.
const SWEEP_ABOVE: usize = 4_096;

type Windows = HashMap<ApiKeyId, Vec<(Meter, Window)>, RandomState>;

/// Counts in memory; one short lock per request and key.
#[derive(Debug, Default)]
pub struct MemoryCounters {
    shards: [Mutex<Windows>; SHARDS],
}

impl MemoryCounters {
    fn shard(&self, key: &ApiKeyId) -> std::sync::MutexGuard<'_, Windows> {
        let hash = key
            .as_str()
            .bytes()
            .fold(0_usize, |hash, byte| hash.wrapping_mul(31).wrapping_add(usize::from(byte)));
        self.shards[hash % SHARDS].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn window(windows: &mut Vec<(Meter, Window)>, meter: Meter) -> &mut Window {
    let place = windows.iter().position(|(other, _)| *other == meter).unwrap_or_else(|| {
        windows.push((meter, Window::default()));
        windows.len() - 1
    });
    &mut windows[place].1
}

/// Takes all charges or none.
fn take(windows: &mut Vec<(Meter, Window)>, charges: &[Charge], now_ms: i64) -> Verdict {
    let mut exceeded = None;
    for (index, charge) in charges.iter().enumerate() {
        let taken = window(windows, charge.meter).reserve(charge.meter, charge.limit, charge.amount, now_ms);
        if let Err(retry_after) = taken {
            for earlier in &charges[..index] {
                window(windows, earlier.meter).settle(earlier.meter, -earlier.amount, now_ms);
            }
            exceeded = Some(Exceeded { meter: charge.meter, limit: charge.limit, retry_after });
            break;
        }
    }
    let standing =
        |charge: &Charge| window(windows, charge.meter).standing(charge.meter, charge.limit, now_ms);
    Verdict { exceeded, standings: charges.iter().map(standing).collect() }
}

impl Counters for MemoryCounters {
    fn reserve(&self, charges: &[Charge], now_ms: i64) -> Reserving<'_> {
        let Some(first) = charges.first() else { return Reserving::Ready(Verdict::default()) };
        // All charges of a request belong to one key, so that one lock covers them all.
        debug_assert!(charges.iter().all(|charge| charge.key == first.key));
        let mut shard = self.shard(&first.key);
        if shard.len() > SWEEP_ABOVE {
            shard.retain(|_, windows| windows.iter().any(|(meter, window)| !window.is_idle(*meter, now_ms)));
        }
        let windows = match shard.get_mut(&first.key) {
            Some(windows) => windows,
            None => shard.entry(first.key.clone()).or_default(),
        };
        Reserving::Ready(take(windows, charges, now_ms))
    }

    fn foresee(&self, charges: &[Charge], now_ms: i64) -> Reserving<'_> {
        let Some(first) = charges.first() else { return Reserving::Ready(Verdict::default()) };
        let mut windows = self.shard(&first.key).get(&first.key).cloned().unwrap_or_default();
        Reserving::Ready(take(&mut windows, charges, now_ms))
    }

    fn settle(&self, charges: &[Charge], now_ms: i64) {
        for of_key in charges.chunk_by(|one, next| one.key == next.key) {
            let Some(first) = of_key.first() else { continue };
            let mut shard = self.shard(&first.key);
            let Some(windows) = shard.get_mut(&first.key) else { continue };
            for charge in of_key {
                window(windows, charge.meter).settle(charge.meter, charge.amount, now_ms);
            }
        }
    }

    fn restore(&self, charges: &[Charge], now_ms: i64) {
        for charge in charges {
            let mut shard = self.shard(&charge.key);
            let windows = shard.entry(charge.key.clone()).or_default();
            window(windows, charge.meter).settle(charge.meter, charge.amount, now_ms);
        }
    }
}

/// Keeps values in memory, up to a number of bytes; those not asked for lately go first.
pub struct MemoryCache {
    values: quick_cache::sync::Cache<String, (i64, Bytes), ByLength>,
}

/// Entries weigh their bytes and a little for the bookkeeping.
#[derive(Clone)]
struct ByLength;

impl quick_cache::Weighter<String, (i64, Bytes)> for ByLength {
    fn weight(&self, key: &String, value: &(i64, Bytes)) -> u64 {
        (key.len() + value.1.len() + 64) as u64
    }
}

impl MemoryCache {
    /// A cache of at most this many bytes.
    pub fn new(max_bytes: u64) -> Self {
        Self { values: quick_cache::sync::Cache::with_weighter(1_024, max_bytes, ByLength) }
    }
}

impl Cache for MemoryCache {
    fn get<'a>(&'a self, key: &'a str, now_ms: i64) -> BoxFuture<'a, Option<Bytes>> {
        let found = self.values.get(key).filter(|(until, _)| *until > now_ms).map(|(_, value)| value);
        std::future::ready(found).boxed()
    }

    fn put(&self, key: &str, value: Bytes, now_ms: i64, ttl: Duration) {
        let until = now_ms.saturating_add(crate::time::millis(ttl));
        self.values.insert(key.to_owned(), (until, value));
    }

    fn take(&self, key: &str, now_ms: i64) -> Option<Bytes> {
        let (_, (until, value)) = self.values.remove(key)?;
        (until > now_ms).then_some(value)
    }
}

/// Keeps nothing beyond the process.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoShelf;

impl Shelf for NoShelf {
    fn find<'a>(&'a self, _: &'a str, _: i64) -> BoxFuture<'a, Result<Option<AnswerRow>, Unreadable>> {
        std::future::ready(Ok(None)).boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn charge(meter: Meter, limit: u64) -> Charge {
        Charge { key: ApiKeyId::from("k"), meter, limit, amount: 1 }
    }

    fn taken(reserving: &Reserving<'_>) -> bool {
        matches!(reserving, Reserving::Ready(Verdict { exceeded: None, .. }))
    }

    #[test]
    fn a_refused_request_holds_nothing() {
        let counters = MemoryCounters::default();
        let both = [charge(Meter::RequestsPerMinute, 5), charge(Meter::Concurrency, 1)];
        assert!(taken(&counters.reserve(&both, 0)));
        assert!(!taken(&counters.reserve(&both, 0)));
        counters.settle(&[Charge { amount: -1, ..charge(Meter::Concurrency, 1) }], 0);
        for _ in 0..4 {
            assert!(taken(&counters.reserve(&both[..1], 0)), "the refused request must not have counted");
        }
        assert!(!taken(&counters.reserve(&both[..1], 0)));
    }

    #[test]
    fn what_is_only_foreseen_is_not_taken() {
        let counters = MemoryCounters::default();
        let one = [charge(Meter::RequestsPerDay, 1)];
        for _ in 0..3 {
            assert!(taken(&counters.foresee(&one, 0)));
        }
        assert!(taken(&counters.reserve(&one, 0)));
        assert!(!taken(&counters.foresee(&one, 0)) && !taken(&counters.reserve(&one, 0)));
    }

    #[test]
    fn what_an_earlier_process_let_in_counts() {
        const DAY: i64 = 86_400_000;
        let counters = MemoryCounters::default();
        let one = [charge(Meter::RequestsPerDay, 3)];
        counters.restore(&[Charge { amount: 2, ..charge(Meter::RequestsPerDay, 3) }], DAY + 5);
        assert!(taken(&counters.reserve(&one, DAY + 6)) && !taken(&counters.reserve(&one, DAY + 7)));
        assert!(taken(&counters.reserve(&one, 2 * DAY)), "another day");
    }

    #[test]
    fn cached_values_end_and_are_bounded() {
        let cache = MemoryCache::new(10_000);
        let value = |key: &str, now| cache.get(key, now).now_or_never().flatten();
        cache.put("a", Bytes::from_static(b"1"), 0, Duration::from_millis(10));
        assert_eq!(value("a", 9).as_deref(), Some(b"1".as_slice()));
        assert_eq!(value("a", 10), None);
        cache.put("b", Bytes::from_static(b"2"), 0, Duration::from_secs(1));
        assert_eq!(cache.take("b", 0).as_deref(), Some(b"2".as_slice()));
        assert_eq!((cache.take("b", 0), value("b", 0)), (None, None));
        assert_eq!(cache.take("a", 10), None, "it has expired");
        for index in 0..100 {
            cache.put(&format!("k{index}"), vec![0; 1_000].into(), 0, Duration::from_secs(1));
        }
        let kept = (0..100).filter(|index| value(&format!("k{index}"), 0).is_some()).count();
        assert!((1..10).contains(&kept), "{kept} kilobytes kept of ten");
    }

    #[test]
    fn sixteen_threads_never_exceed_the_limit() {
        let counters = MemoryCounters::default();
        let total: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..16)
                .map(|_| {
                    scope.spawn(|| {
                        (0..100)
                            .filter(|_| taken(&counters.reserve(&[charge(Meter::RequestsPerDay, 777)], 1)))
                            .count()
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(total, 777);
    }
}
