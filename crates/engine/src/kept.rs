//! What a vendor keeps for a client: answers that later requests name instead of bringing them. Only the account that
//! made one can go on with it, and only who asked for it may name it.
//!
//! As with reasoning, memory alone is asked; what is handed to the recorder fills it when the process starts.

use std::time::Duration;

use omniroute_dialect::KeptName;
use omniroute_dialect::ir::ErrorKind;
use omniroute_domain::entity::ConnectionId;
use omniroute_domain::resolve::{Route, Target};
use omniroute_domain::snapshot::ConnectionState;

use crate::ctx::RequestCtx;
use crate::error::GatewayError;
use crate::ports::{Memory, OwnerRow};
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
pub(crate) fn remember(ctx: &RequestCtx, connection: &ConnectionId, ids: &[String]) {
    if !ctx.envelope.as_ref().and_then(|envelope| envelope.kept.as_ref()).is_some_and(|kept| kept.answer) {
        return;
    }
    let (engine, now_ms) = (&ctx.engine, ctx.engine.clock.now_ms());
    for id in ids.iter().filter(|id| id.len() <= MAX_ID) {
        let row = OwnerRow {
            response_id: id.clone(),
            tenant: ctx.tenant().to_owned(),
            connection: connection.clone(),
            asked: ctx.envelope.as_ref().map(|envelope| envelope.model.to_string()).unwrap_or_default(),
            model: ctx.target.as_ref().map(|target| target.model.to_string()).unwrap_or_default(),
            expires_at: now_ms.saturating_add(millis(KNOWN_FOR)),
        };
        restore(engine, &row);
        engine.recorder.remember(Memory::Owner(row));
    }
}

/// Takes over what an earlier process knew.
pub(crate) fn restore(engine: &Engine, row: &OwnerRow) {
    let now_ms = engine.clock.now_ms();
    if let Ok(left @ 1..) = u64::try_from(row.expires_at.saturating_sub(now_ms)) {
        let value = [row.connection.as_str(), &row.asked, &row.model].join("\n");
        let left = Duration::from_millis(left).min(KNOWN_FOR);
        engine.owners.put(&place(&row.tenant, &row.response_id), value.into(), now_ms, left);
    }
}

/// What is known of an answer that a vendor keeps.
pub(crate) struct Known {
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
    Some(Known { connection: next(), asked: next(), model: next() })
}

/// The vendor does not keep it any more.
pub(crate) fn forget(ctx: &RequestCtx, id: &str) {
    ctx.engine.owners.forget(&place(ctx.tenant(), id));
}

fn place(tenant: &str, id: &str) -> String {
    format!("kept:{tenant}:{id}")
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
