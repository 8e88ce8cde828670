//! Counters of one process.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use foldhash::fast::RandomState;
use omniroute_domain::entity::ApiKeyId;
use omniroute_domain::limit::{Meter, Window};

use crate::ports::{Charge, Counters, Exceeded, Reserving};

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

impl Counters for MemoryCounters {
    fn reserve(&self, charges: &[Charge], now_ms: i64) -> Reserving<'_> {
        let Some(first) = charges.first() else { return Reserving::Ready(Ok(())) };
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
        for (index, charge) in charges.iter().enumerate() {
            let taken =
                window(windows, charge.meter).reserve(charge.meter, charge.limit, charge.amount, now_ms);
            if let Err(retry_after) = taken {
                for earlier in &charges[..index] {
                    window(windows, earlier.meter).settle(earlier.meter, -earlier.amount, now_ms);
                }
                return Reserving::Ready(Err(Exceeded {
                    meter: charge.meter,
                    limit: charge.limit,
                    retry_after,
                }));
            }
        }
        Reserving::Ready(Ok(()))
    }

    fn settle(&self, charges: &[Charge], now_ms: i64) {
        for charge in charges {
            let mut shard = self.shard(&charge.key);
            if let Some(windows) = shard.get_mut(&charge.key) {
                window(windows, charge.meter).settle(charge.meter, charge.amount, now_ms);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn charge(meter: Meter, limit: u64) -> Charge {
        Charge { key: ApiKeyId::from("k"), meter, limit, amount: 1 }
    }

    fn taken(reserving: &Reserving<'_>) -> bool {
        matches!(reserving, Reserving::Ready(Ok(())))
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
