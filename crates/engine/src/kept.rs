//! What a vendor keeps for a client: answers that later requests name instead of bringing them. Only the account that
//! made one can go on with it, and only who asked for it may name it.
//!
//! As with reasoning, memory alone is asked; what is handed to the recorder fills it when the process starts.
//!
//! An answer that is made in the background is billed twice: what is known when its request ends, and the rest when it is
//! first seen to be finished ([`finished`]): see [`awaited`].

pub(crate) mod awaited;

use std::time::Duration;

use omniroute_dialect::KeptName;
use omniroute_dialect::ir::{ErrorKind, Usage};
use omniroute_domain::entity::ConnectionId;
use omniroute_domain::resolve::{Route, Target};
use omniroute_domain::snapshot::ConnectionState;

use crate::ctx::RequestCtx;
use crate::error::GatewayError;
use crate::ports::{Memory, OwnerRow, Unfinished};
use crate::serve::Engine;
use crate::time::millis;

/// How long it is known which account made an answer.
const KNOWN_FOR: Duration = Duration::from_secs(30 * 24 * 3_600);
/// Longer ids are not remembered.
const MAX_ID: usize = 256;

/// Finds the account that must serve a request which names what is kept.
///
/// Of a combo's targets those are passed over that the account is not of.
pub(crate) async fn pin(ctx: &mut RequestCtx, route: &Route) -> Result<(), GatewayError> {
    let Some(kept) = &ctx.envelope()?.kept else { return Ok(()) };
    let mut owner: Option<String> = None;
    let mut unknown = None;
    for name in &kept.names {
        match known(ctx, &name.id).await.map(|known| known.connection) {
            Some(found) if owner.as_ref().is_some_and(|other| *other != found) => {
                return Err(refused(
                    name,
                    "was made by another account than the rest that the request names",
                ));
            }
            Some(found) => owner = Some(found),
            None if name.by_answer => return Err(refused(name, UNKNOWN)),
            None => unknown = Some(name),
        }
    }
    let target = match (route, &owner, unknown) {
        (Route::Target(target), _, _) => target,
        (Route::Combo(_), None, Some(name)) => return Err(refused(name, AMBIGUOUS)),
        (Route::Combo(_), owner, _) => {
            ctx.pinned = owner.as_deref().map(ConnectionId::from);
            return Ok(());
        }
    };
    let mut able = target.provider.connections.iter().filter(|connection| may_serve(ctx, target, connection));
    let pinned = match (&owner, unknown, kept.names.first()) {
        (Some(owner), _, Some(name)) => {
            let found = able.find(|connection| connection.id.as_str() == owner);
            found.ok_or_else(|| refused(name, "was made by an account that cannot serve this model"))?
        }
        // Where it comes from is not known; with one account there is no question.
        (None, Some(name), _) => match (able.next(), able.next()) {
            (Some(only), None) => only,
            (None, _) => return Ok(()),
            (Some(_), Some(_)) => return Err(refused(name, AMBIGUOUS)),
        },
        _ => return Ok(()),
    };
    ctx.pinned = Some(pinned.id.clone());
    Ok(())
}

/// Remembers which account made an answer that will be kept.
pub(crate) fn remember(ctx: &mut RequestCtx, connection: &ConnectionId, ids: &[String]) {
    let Some(envelope) = &ctx.envelope else { return };
    let Some(kept) = envelope.kept.as_ref().filter(|kept| kept.answer) else { return };
    let (engine, now_ms) = (&ctx.engine, ctx.engine.clock.now_ms());
    let usage = &ctx.outcome.usage;
    let is_unfinished = kept.background && (ctx.outcome.usage_estimated || !usage.is_known());
    let later = ids.first().filter(|id| is_unfinished && id.len() <= MAX_ID);
    let mut unfinished = later.map(|_| Unfinished {
        input: usage.input_total().unwrap_or(0),
        output: usage.output_total.unwrap_or(0),
    });
    for id in ids.iter().filter(|id| id.len() <= MAX_ID) {
        let row = OwnerRow {
            response_id: id.clone(),
            tenant: ctx.tenant().to_owned(),
            connection: connection.clone(),
            asked: envelope.model.to_string(),
            model: ctx.target.as_ref().map(|target| target.model.to_string()).unwrap_or_default(),
            // The first id is the answer's own.
            unfinished: unfinished.take(),
            expires_at: now_ms.saturating_add(millis(KNOWN_FOR)),
        };
        restore(engine, &row);
        engine.recorder.remember(Memory::Owner(row));
    }
    if let Some(id) = later {
        ctx.bill_rest_later(id);
    }
}

/// Takes over what an earlier process knew.
pub(crate) fn restore(engine: &Engine, row: &OwnerRow) {
    let now_ms = engine.clock.now_ms();
    if let Ok(left @ 1..) = u64::try_from(row.expires_at.saturating_sub(now_ms)) {
        let value = [row.connection.as_str(), &row.asked, &row.model].join("\n");
        let left = Duration::from_millis(left).min(KNOWN_FOR);
        engine.owners.put(&place(&row.tenant, &row.response_id), value.into(), now_ms, left);
        if let Some(Unfinished { input, output }) = row.unfinished {
            let value = format!("{input} {output} {}", row.expires_at);
            engine.owners.put(&mark(&row.tenant, &row.response_id), value.into(), now_ms, left);
            engine.awaited.expect(&row.tenant, &row.response_id, now_ms);
        }
    }
}

/// An answer was read that is finished, and used so much: bills what of it was not billed, once. Of one that tells nothing
/// it stays with what was billed.
pub(crate) fn finished(ctx: &mut RequestCtx, usage: &Usage) {
    let Some(known) = ctx.about.as_deref() else { return };
    let (engine, tenant) = (&ctx.engine, ctx.tenant().to_owned());
    let Some(value) = engine.owners.take(&mark(&tenant, &known.id), engine.clock.now_ms()) else { return };
    let mut numbers = str::from_utf8(&value).unwrap_or_default().split(' ');
    let mut next = || numbers.next()?.parse::<i64>().ok();
    let (Some(input), Some(output), Some(expires_at)) = (next(), next(), next()) else { return };
    if !known.by_gateway {
        engine.recorder.remember(Memory::Owner(OwnerRow {
            response_id: known.id.clone(),
            tenant,
            connection: ConnectionId::from(known.connection.as_str()),
            asked: known.asked.clone(),
            model: known.model.clone(),
            unfinished: None,
            expires_at,
        }));
    }
    engine.awaited.end(ctx.tenant(), &known.id);
    if usage.is_known() {
        ctx.outcome.usage = usage.less(input.unsigned_abs(), output.unsigned_abs());
        ctx.bill_late();
    }
}

/// What is known of an answer that a vendor keeps.
pub(crate) struct Known {
    /// The vendor's id of it.
    pub(crate) id: String,
    /// Whether the gateway asks for itself, which claims the bill from the other processes.
    pub(crate) by_gateway: bool,
    /// The account that made it.
    pub(crate) connection: String,
    /// The model that was asked for, and the account's name of it; empty where that was not noted.
    pub(crate) asked: String,
    pub(crate) model: String,
}

/// What is known of an answer; only to whoever asked for it.
pub(crate) async fn known(ctx: &RequestCtx, id: &str) -> Option<Known> {
    let place = place(ctx.tenant(), id);
    let found = ctx.engine.owners.get(&place, ctx.engine.clock.now_ms()).await?;
    let text = String::from_utf8(found.to_vec()).ok()?;
    // Names of models have no line ends; ids of connections are our own.
    let mut parts = text.splitn(3, '\n').map(str::to_owned);
    let mut next = || parts.next().unwrap_or_default();
    Some(Known { id: id.to_owned(), by_gateway: false, connection: next(), asked: next(), model: next() })
}

/// Whether an answer was not finished when it was last heard of.
pub(crate) async fn is_unfinished(ctx: &RequestCtx, id: &str) -> bool {
    ctx.engine.owners.get(&mark(ctx.tenant(), id), ctx.engine.clock.now_ms()).await.is_some()
}

/// The vendor does not keep it any more.
pub(crate) fn forget(ctx: &RequestCtx, id: &str) {
    for key in [place(ctx.tenant(), id), mark(ctx.tenant(), id)] {
        ctx.engine.owners.forget(&key);
    }
    ctx.engine.awaited.end(ctx.tenant(), id);
}

fn place(tenant: &str, id: &str) -> String {
    format!("kept:{tenant}:{id}")
}

/// Where it is noted that an answer was not finished.
fn mark(tenant: &str, id: &str) -> String {
    format!("unfinished:{tenant}:{id}")
}

/// Whether an account speaks the client's dialect for this model, and is one that the request may use.
fn may_serve(ctx: &RequestCtx, target: &Target, connection: &ConnectionState) -> bool {
    let client = ctx.dialect().id();
    let only = target.provider.only_dialect(&target.model);
    let is_other = target.connection_name.as_ref().is_some_and(|name| **name != *connection.name);
    let is_denied = ctx.caller.as_ref().is_some_and(|caller| !caller.allows_connection(&connection.id));
    let speaks = |dialect| dialect == client;
    !is_other
        && !is_denied
        && !connection.excludes(&target.model)
        && connection.endpoint_for(client, only, ctx.started_ms).is_some_and(|found| speaks(found.dialect))
}

const UNKNOWN: &str =
    "is not known here: it is for 30 days, if it was asked for with the same key and with `store` true";
const AMBIGUOUS: &str =
    "is kept at one account, and several can serve this model: use a key that is restricted to the right one";

fn refused(name: &KeptName, why: &str) -> GatewayError {
    let message = format!("what `{}` names {why}; or send the full input instead", name.path);
    GatewayError::new(ErrorKind::InvalidRequest, "unsupported_parameter", message).param(name.path.clone())
}
