//! What stands for the beginning of a prompt: the system text and the names of the tools, which the conversations of an
//! application have in common and vendors keep in their caches.

use omniroute_dialect::opening::opening;

use crate::ctx::RequestCtx;

/// Of long texts the beginning and the length are looked at.
const MAX_HASHED: usize = 8 * 1_024;

/// The beginning of the request's prompt; 0 where there is none.
pub(crate) fn of(ctx: &RequestCtx) -> u64 {
    let Some(envelope) = &ctx.envelope else { return 0 };
    let opening = opening(&ctx.body, envelope);
    let texts = opening.system.iter().copied().chain(opening.tools.iter().map(|name| &**name));
    texts.fold(0, |mut hash: u64, text| {
        hash ^= 0xcbf2_9ce4_8422_2325 ^ text.len() as u64;
        for byte in text.bytes().take(MAX_HASHED) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        hash
    })
}
