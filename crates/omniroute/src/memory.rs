//! Gives memory back to the system when the load that needed it has gone.

use std::hint::black_box;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

const EVERY: Duration = Duration::from_secs(2);
/// The allocator cleans up after every ten thousand requests for more than a kilobyte (`generic_collect` of mimalloc).
const UNTIL_CLEAN: usize = 10_000;
const SMALL: usize = 2 << 10;
/// Larger than what the allocator keeps for the next time.
const LARGE: usize = 1 << 20;

/// The allocator works when it is asked for something, so without traffic it would keep what the last load left behind
/// for ever. Pages whose blocks were freed by other threads, as log lines and rows are, become free pages when it
/// cleans up. Those lie for a second in case they are needed again, and are given back when afterwards some large block
/// is freed. So every now and then this asks for what it takes to do both; nothing is written to it, so that it costs
/// no memory, and half a millisecond or so.
pub(crate) async fn give_back(cancel: CancellationToken) {
    while cancel.run_until_cancelled(tokio::time::sleep(EVERY)).await.is_some() {
        for _ in 0..UNTIL_CLEAN {
            drop(black_box(Vec::<u8>::with_capacity(SMALL)));
        }
        drop(black_box(Vec::<u8>::with_capacity(LARGE)));
    }
}
