//! `cache-optimized`: the same beginning of a prompt goes to the same place, where the vendor has it in its cache.

use super::{Choice, Order, Strategy, Wants, sorted_by};

/// The strategy.
pub(super) struct CacheOptimized;

impl Strategy for CacheOptimized {
    fn name(&self) -> &'static str {
        "cache-optimized"
    }

    fn describe(&self) -> &'static str {
        "the same system text and tools to the same one, for the vendor's prompt cache"
    }

    fn wants(&self) -> Wants {
        Wants { affinity: true, ..Wants::default() }
    }

    fn order(&self, choice: &Choice<'_>) -> Order {
        sorted_by(choice, |candidate| -candidate.affinity)
    }
}

/// Where one stands for this beginning of a prompt, between 0 and 1: the same beginning prefers the same one, and one that goes
/// takes no other's beginnings along.
pub(crate) fn rendezvous(prefix: u64, id: &str) -> f64 {
    let mut hash = prefix ^ 0xcbf2_9ce4_8422_2325;
    for byte in id.bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    hash = (hash ^ (hash >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    #[allow(clippy::cast_precision_loss, reason = "53 bits are what an `f64` holds")]
    let share = ((hash ^ (hash >> 32)) >> 11) as f64 / (1_u64 << 53) as f64;
    share
}
