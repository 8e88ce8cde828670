//! Which conversation a request belongs to, and the account it stays with.
//!
//! A name that the client gives is taken as it is. Where it gives none, a conversation is recognised by how it begins; that is
//! only looked at where something depends on it: several accounts at the provider, or a limit of conversations.

use http::HeaderMap;
use omniroute_dialect::ir::ErrorKind;
use omniroute_dialect::opening::opening;
use omniroute_domain::entity::ConnectionId;
use omniroute_domain::resolve::Target;
use omniroute_domain::session::{Affinity, SessionKey, TooMany};
use omniroute_domain::snapshot::ConnectionState;
use omniroute_provider::ProviderId;
use sha2::{Digest as _, Sha256};
use twox_hash::XxHash3_64;

use crate::ctx::RequestCtx;
use crate::error::GatewayError;
use crate::ports::Memory;
use crate::serve::Engine;

/// Headers that name a conversation, in the order in which they are believed.
const HEADERS: [&str; 9] = [
    "x-omniroute-session",
    "x-session-id",
    "x_session_id",
    "x-claude-code-session-id",
    "session-id",
    "session_id",
    "thread-id",
    "conversation_id",
    "x-session-affinity",
];
/// After so long a silence a conversation is over where the setting does not say.
const USUAL_TTL_MS: i64 = 30 * 60 * 1_000;
/// Digits of an id that is made here.
const DIGITS: usize = 16;
/// Longer names are taken by their hash.
const MAX_NAME: usize = 128;
/// Of long texts the beginning and the end are looked at, and the length.
const MAX_HASHED: usize = 4 * 1_024;
const MOST_HASHED: usize = 2 * MAX_HASHED;

/// Notes the conversation of a request that names one, or whose key may have a number of them only.
pub(crate) fn enter(ctx: &mut RequestCtx) -> Result<(), GatewayError> {
    let is_limited = ctx.caller.as_ref().is_some_and(|caller| caller.max_sessions > 0);
    match named(ctx) {
        Some(id) => note(ctx, &id),
        None if is_limited => find(ctx),
        None => Ok(()),
    }
}

/// Notes the conversation of a request for which it matters.
pub(crate) fn find(ctx: &mut RequestCtx) -> Result<(), GatewayError> {
    if ctx.session.is_some() {
        return Ok(());
    }
    let id = fingerprint(ctx)?;
    note(ctx, str::from_utf8(&id).unwrap_or_default())
}

/// The conversation of a request that is only looked at: nothing is noted.
pub(crate) fn peek(ctx: &RequestCtx) -> Option<SessionKey> {
    if ttl_ms(ctx) == 0 {
        return None;
    }
    looked_at(ctx).ok()
}

/// Whether the conversation of a request that is only looked at would be let in, as [`enter`] would.
pub(crate) fn would_enter(ctx: &RequestCtx) -> Result<(), GatewayError> {
    let most = most(ctx);
    if most == 0 {
        return Ok(());
    }
    let (key, ttl, now_ms) = (looked_at(ctx)?, counted_ttl_ms(ctx), ctx.engine.clock.now_ms());
    let entered = ctx.engine.live.sessions.would_enter(&key, most, ttl, now_ms);
    entered.map_err(|why| too_many(why, most, ttl, now_ms))
}

fn looked_at(ctx: &RequestCtx) -> Result<SessionKey, GatewayError> {
    let id = match named(ctx) {
        Some(id) => id,
        None => str::from_utf8(&fingerprint(ctx)?).unwrap_or_default().to_owned(),
    };
    Ok(SessionKey::new(ctx.tenant(), &id))
}

/// The conversation of a request whose header names it, and after how long a silence it is over. Only such a name means one
/// conversation: an application may send one `prompt_cache_key` for all its users, and many conversations begin alike. Nor
/// does anybody know whose the conversations without a key are.
pub(crate) fn in_header(ctx: &RequestCtx) -> Option<(&SessionKey, i64)> {
    let ttl = ttl_ms(ctx);
    if ttl == 0 || ctx.caller.is_none() {
        return None;
    }
    in_headers(&ctx.arrival.headers)?;
    // Headers are believed first: it is theirs.
    Some((ctx.session.as_ref()?, ttl))
}

/// The provider that answered the conversation last.
pub(crate) fn served_by(ctx: &RequestCtx) -> Option<ProviderId> {
    let sessions = &ctx.engine.live.sessions;
    sessions.served_by(ctx.session.as_ref()?, ttl_ms(ctx), ctx.engine.clock.now_ms())
}

/// The account that the conversation stays with at a provider.
pub(crate) fn pinned(ctx: &RequestCtx, target: &Target, now_ms: i64) -> Option<ConnectionId> {
    let sessions = &ctx.engine.live.sessions;
    sessions.pinned(ctx.session.as_ref()?, &target.provider.id, ttl_ms(ctx), now_ms)
}

/// The conversation stays with the account that answered it.
pub(crate) fn pin(ctx: &RequestCtx, target: &Target, connection: &ConnectionState) {
    let Some(session) = ctx.session.as_ref().filter(|_| ttl_ms(ctx) > 0) else { return };
    let now_ms = ctx.engine.clock.now_ms();
    let sessions = &ctx.engine.live.sessions;
    if let Some(row) = sessions.pin(session, &target.provider.id, &connection.id, now_ms) {
        ctx.engine.recorder.remember(Memory::Pinned(row));
    }
}

/// Takes over what an earlier process knew.
pub(crate) fn restore(engine: &Engine, row: Affinity) {
    let ttl = engine.live.load().settings.session_affinity_ttl_ms;
    let now_ms = engine.clock.now_ms();
    let ttl = i64::try_from(ttl).unwrap_or(i64::MAX);
    if row.last_seen_at.saturating_add(ttl) > now_ms {
        engine.live.sessions.restore(row, ttl, now_ms);
    }
}

fn note(ctx: &mut RequestCtx, id: &str) -> Result<(), GatewayError> {
    let most = most(ctx);
    if most == 0 && ttl_ms(ctx) == 0 {
        return Ok(());
    }
    let ttl = counted_ttl_ms(ctx);
    let key = SessionKey::new(ctx.tenant(), id);
    let now_ms = ctx.engine.clock.now_ms();
    match ctx.engine.live.sessions.enter(&key, most, ttl, now_ms) {
        Ok(()) => {
            ctx.session = Some(key);
            Ok(())
        }
        Err(why) => Err(too_many(why, most, ttl, now_ms)),
    }
}

fn too_many(TooMany { until }: TooMany, most: u32, ttl: i64, now_ms: i64) -> GatewayError {
    let wait = u64::try_from(until.saturating_sub(now_ms)).unwrap_or(0).max(1);
    let message = format!(
        "This API key is limited to {most} conversations at once (maxSessions), and as many are open; go on with one of \
         them, or come back when one has been silent for {} minutes",
        ttl / 60_000
    );
    GatewayError::new(ErrorKind::RateLimited, "rate_limit_exceeded", message)
        .retry_after(Some(std::time::Duration::from_millis(wait)))
}

/// Most conversations of the key at once; 0 = as many as it likes.
fn most(ctx: &RequestCtx) -> u32 {
    ctx.caller.as_ref().map_or(0, |caller| caller.max_sessions)
}

/// After how long a silence a conversation is not counted any more. A limit of them holds also where they do not stay with an
/// account.
fn counted_ttl_ms(ctx: &RequestCtx) -> i64 {
    match ttl_ms(ctx) {
        0 => USUAL_TTL_MS,
        ttl => ttl,
    }
}

fn ttl_ms(ctx: &RequestCtx) -> i64 {
    i64::try_from(ctx.snapshot.settings.session_affinity_ttl_ms).unwrap_or(i64::MAX)
}

/// The name that the client gives its conversation.
fn named(ctx: &RequestCtx) -> Option<String> {
    let name = in_headers(&ctx.arrival.headers).or(ctx.envelope.as_ref()?.session_key.as_deref())?;
    let is_plain = name.len() <= MAX_NAME && name.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ');
    if is_plain {
        return Some(format!("ext:{name}"));
    }
    let digest: [u8; 32] = Sha256::digest(name).into();
    let digits = digits(digest.first_chunk().map_or(0, |first| u64::from_be_bytes(*first)));
    Some(format!("ext:{}", str::from_utf8(&digits).unwrap_or_default()))
}

/// The name in the header that is believed first. Asked of each header once: most requests have none of them.
fn in_headers(headers: &HeaderMap) -> Option<&str> {
    let mut best: Option<(usize, &str)> = None;
    for (name, value) in headers {
        let name = name.as_str();
        let Some(rank) = HEADERS.iter().position(|header| *header == name) else { continue };
        let text = value.to_str().map(str::trim).unwrap_or_default();
        if !text.is_empty() && best.is_none_or(|(other, _)| rank < other) {
            best = Some((rank, text));
        }
    }
    best.map(|(_, text)| text)
}

/// By what a conversation without a name is recognised: its key, model, and how it begins. Whoever looks for texts of the
/// same hash finds conversations of their own key alone, so a fast hash will do. It is one with a standard, since
/// conversations are recognised after an update too.
fn fingerprint(ctx: &RequestCtx) -> Result<[u8; DIGITS], GatewayError> {
    let envelope = ctx.envelope()?;
    let opening = opening(&ctx.body, envelope);
    let mut hash = 0;
    // Each part is hashed with what came of those before it.
    let mut part = |label: Part, text: &str| {
        hash ^= (text.len() as u64) << 8 | label as u64;
        let bytes = text.as_bytes();
        let (head, tail) = match bytes.len() {
            0..=MOST_HASHED => (bytes, &[][..]),
            length => (&bytes[..MAX_HASHED], &bytes[length - MAX_HASHED..]),
        };
        hash = XxHash3_64::oneshot_with_seed(hash, head);
        if !tail.is_empty() {
            hash = XxHash3_64::oneshot_with_seed(hash, tail);
        }
    };
    part(Part::Key, ctx.tenant());
    part(Part::Model, &envelope.model);
    for text in opening.system {
        part(Part::System, text);
    }
    part(Part::User, opening.first_user.unwrap_or_default());
    for name in &opening.tools {
        part(Part::Tool, name);
    }
    part(Part::Who, opening.user.as_deref().unwrap_or_default());
    Ok(digits(hash))
}

/// What a part of a fingerprint is.
#[derive(Clone, Copy)]
enum Part {
    Key,
    Model,
    System,
    User,
    Tool,
    Who,
}

/// A hash in hexadecimal digits.
fn digits(hash: u64) -> [u8; DIGITS] {
    const ALPHABET: &[u8; 16] = b"0123456789abcdef";
    std::array::from_fn(|at| ALPHABET[(hash >> (4 * (DIGITS - 1 - at)) & 0xf) as usize])
}
