//! Gives memory back to the system when the load that needed it has gone.

use std::hint::black_box;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

const EVERY: Duration = Duration::from_secs(2);
/// Larger than what the allocator keeps for the next time.
const BLOCK: usize = 1 << 20;

/// The allocator lets freed memory lie for a second in case it is needed again, and gives it back when afterwards
/// some large block is freed. Without traffic nothing frees one. So one is asked for and freed every now and then;
/// it is not written to, and costs no memory.
pub(crate) async fn give_back(cancel: CancellationToken) {
    while cancel.run_until_cancelled(tokio::time::sleep(EVERY)).await.is_some() {
        drop(black_box(Vec::<u8>::with_capacity(BLOCK)));
    }
}
