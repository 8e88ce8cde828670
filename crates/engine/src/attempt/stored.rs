//! Calls about an answer that a vendor keeps: to read it, to delete it, to end it, to list what it answers. They go to the
//! account that made it, for whoever asked for it.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::header::{ACCEPT, CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, Method, Uri};
use omniroute_dialect::ir::ErrorKind;
use omniroute_dialect::{Dialect, Echo, KeptCall};
use omniroute_domain::entity::ConnectionId;
use omniroute_domain::resolve::{KnownPrice, Route, Suffixes, Target, Via};
use omniroute_domain::snapshot::ConnectionState;
use omniroute_provider::{Endpoint, Failure, FailureKind};
use omniroute_wire::splice::Pieces;
use tokio::time::timeout;

use super::{Fault, StreamStart, judged, open_row, push_row, read_refusal, read_whole, transport_failure};
use crate::admit;
use crate::barred::Unserved;
use crate::ctx::RequestCtx;
use crate::error::GatewayError;
use crate::explain;
use crate::kept::{self, Known};
use crate::ports::{Departure, OutboundCall};
use crate::preview::{Preview, Skip};
use crate::time::seconds;
use crate::turn::Turn;

/// What came of it.
pub(crate) enum Stored {
    /// A document.
    Whole(Bytes),
    /// The answer as a stream.
    Stream(Box<StreamStart>),
}

/// Makes such a call.
pub(crate) async fn call_about(
    ctx: &mut RequestCtx,
    id: &str,
    call: KeptCall,
) -> Result<Stored, GatewayError> {
    let Found { known, mut turn, connection } = find(ctx, id).await?;
    let (target, now_ms) = (turn.target.clone(), ctx.engine.clock.now_ms());
    let reserved = admit::reserve(ctx).await;
    if let Err(error) = &reserved {
        turn.refuse(error, ctx.started_ms);
    }
    ctx.decided(&target, now_ms);
    ctx.stood(&turn, now_ms);
    reserved?;
    ctx.target = Some(target.clone());
    if call == KeptCall::Delete && kept::is_unfinished(ctx, id).await {
        // Afterwards nobody can say what it came to.
        drop(ask(ctx, (&target, &connection), &known, (KeptCall::Read, None)).await);
    }
    let sent = ctx.engine.clock.instant();
    let query = ctx.arrival.query.clone();
    match ask(ctx, (&target, &connection), &known, (call, query.as_deref())).await {
        Ok(answer) => {
            if call == KeptCall::Delete {
                kept::forget(ctx, id);
            }
            Ok(answer)
        }
        Err(Fault::Request(error)) => Err(error),
        Err(Fault::Upstream(mut failure, status)) => {
            connection.conceal(&mut failure.upstream);
            push_row(ctx, &target, &connection, status, Some(&failure), sent);
            Err(said(explain::failure(ctx, &target, &failure), &failure))
        }
    }
}

/// What a look at an answer showed that nobody waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    /// It is finished, and there was something to bill.
    Finished,
    /// There will be another.
    Again,
    /// There is nothing to look for.
    InVain,
}

/// Reads an answer to bill what it came to. Asks for no rights and counts against no limit: it was ordered.
pub(crate) async fn look_again(ctx: &mut RequestCtx, id: &str) -> Look {
    if !kept::is_unfinished(ctx, id).await {
        return Look::InVain;
    }
    let Some(known) = kept::known(ctx, id).await else { return Look::InVain };
    let known = Arc::new(Known { by_gateway: true, ..known });
    ctx.about = Some(known.clone());
    let Ok((target, connection)) = maker(ctx, &known, id) else { return Look::InVain };
    ctx.target = Some(target.clone());
    match ask(ctx, (&target, &connection), &known, (KeptCall::Read, None)).await {
        Ok(_) if ctx.is_billed_late() => Look::Finished,
        Ok(_) if kept::is_unfinished(ctx, id).await => Look::Again,
        Ok(_) => Look::InVain,
        Err(Fault::Upstream(failure, _)) if failure.upstream.status == Some(404) => Look::InVain,
        Err(_) => Look::Again,
    }
}

/// Says what would become of such a call.
pub(crate) async fn preview_about(ctx: &mut RequestCtx, id: &str) -> Preview {
    let identified = admit::would_identify(ctx);
    let found = find(ctx, id).await;
    let asked = ctx.about.as_ref().map(|known| known.asked.clone()).unwrap_or_default();
    let mut preview = Preview::of(ctx, asked);
    let entered = match found {
        Ok(Found { turn, .. }) => {
            preview.of_turns(ctx, vec![turn], None);
            admit::would_reserve(ctx).await
        }
        Err(error) => {
            preview.of_barred(ctx);
            Err(error)
        }
    };
    preview.finish(ctx, identified.and(entered));
    preview
}

/// An answer that is kept, and the account that made it.
struct Found {
    known: Arc<Known>,
    /// All of its provider's accounts.
    turn: Turn,
    connection: Arc<ConnectionState>,
}

/// Who made the answer, if the caller may ask for it there.
async fn find(ctx: &mut RequestCtx, id: &str) -> Result<Found, GatewayError> {
    let Some(known) = kept::known(ctx, id).await.map(Arc::new) else {
        ctx.lose(Vec::new());
        return Err(unknown(id));
    };
    ctx.about = Some(known.clone());
    let (target, connection) = match maker(ctx, &known, id) {
        Ok(maker) => maker,
        Err(error) => {
            let idle = ctx.snapshot.idle_account(&ConnectionId::from(known.connection.as_str()));
            let unserved = idle.map(|account| Unserved::one(account, &known.model));
            ctx.lose(unserved.into_iter().collect());
            return Err(error);
        }
    };
    let may_ask = match &ctx.caller {
        Some(caller) if !caller.allows_connection(&connection.id) => {
            let message = format!("This API key may not use the account that made `{id}`");
            Err(GatewayError::new(ErrorKind::Permission, "forbidden", message))
        }
        _ if known.asked.is_empty() => Ok(()),
        _ => admit::check_model(ctx, &known.asked, &target),
    };
    if let Err(error) = may_ask {
        ctx.bar(Route::Target(target), "key", &error);
        return Err(error);
    }
    let is_other = |account: &Arc<ConnectionState>| account.id != connection.id;
    let turn = Turn::with(&target, |account| {
        is_other(account).then(|| Skip::plain("excluded", "another account made the answer"))
    });
    Ok(Found { known, turn, connection })
}

/// The account that made the answer.
fn maker(
    ctx: &RequestCtx,
    known: &Known,
    id: &str,
) -> Result<(Arc<Target>, Arc<ConnectionState>), GatewayError> {
    let connection = ctx.snapshot.connection(&ConnectionId::from(known.connection.as_str()));
    let provider = connection.and_then(|connection| ctx.snapshot.provider(&connection.provider));
    let (Some(connection), Some(provider)) = (connection, provider) else {
        let message = format!("the account that made `{id}` is not active any more; see /api/providers");
        return Err(GatewayError::new(ErrorKind::NotFound, "not_found", message));
    };
    let target = Target {
        provider: provider.clone(),
        model: known.model.as_str().into(),
        connection_name: None,
        via: Via::Direct,
        suffixes: Suffixes::default(),
        price: KnownPrice::default(),
    };
    Ok((Arc::new(target), connection.clone()))
}

/// The call; `None` where the account is not asked in the client's dialect, or has no answer of such an id.
fn outbound(
    ctx: &RequestCtx,
    connection: &ConnectionState,
    id: &str,
    (call, query): (KeptCall, Option<&str>),
) -> Option<OutboundCall> {
    let client = ctx.dialect();
    let endpoint = connection.endpoints.iter().find(|endpoint| endpoint.dialect == client.id())?;
    let mut headers = HeaderMap::with_capacity(endpoint.headers.len() + 2);
    headers.extend(endpoint.headers.iter().map(|(name, value)| (name.clone(), value.clone())));
    headers.insert(ACCEPT, ctx.arrival.headers.get(ACCEPT).cloned().unwrap_or(ANYTHING));
    client.forward_headers(client.id(), &ctx.arrival.headers, &mut headers);
    Some(OutboundCall {
        method: match call {
            KeptCall::Read | KeptCall::Inputs => Method::GET,
            KeptCall::Delete => Method::DELETE,
            KeptCall::Cancel => Method::POST,
        },
        uri: uri(client, endpoint, query, (id, call))?,
        headers,
        body: Pieces::new(),
        attachment: None,
        allow_private: connection.allow_private,
        departure: Departure::default(),
    })
}

const ANYTHING: HeaderValue = HeaderValue::from_static("*/*");

/// The address, with what the client asks for in its query behind what the provider wants there.
fn uri(
    client: &dyn Dialect,
    endpoint: &Endpoint,
    query: Option<&str>,
    (id, call): (&str, KeptCall),
) -> Option<Uri> {
    let chat = endpoint.chat_uri("", false).ok()?;
    let path = client.kept_path(chat.path(), id, call)?;
    let queries: Vec<&str> =
        chat.query().into_iter().chain(query.filter(|query| !query.is_empty())).collect();
    let question = if queries.is_empty() { "" } else { "?" };
    let place = format!("{path}{question}{}", queries.join("&"));
    let mut parts = chat.into_parts();
    parts.path_and_query = Some(place.parse().ok()?);
    Uri::from_parts(parts).ok()
}

async fn ask(
    ctx: &mut RequestCtx,
    (target, connection): (&Arc<Target>, &Arc<ConnectionState>),
    known: &Known,
    (call, query): (KeptCall, Option<&str>),
) -> Result<Stored, Fault> {
    let engine = ctx.engine.clone();
    let dialect = ctx.dialect();
    let outbound = outbound(ctx, connection, &known.id, (call, query)).ok_or_else(|| unknown(&known.id))?;
    let sent = engine.clock.instant();
    let Some(place) = connection.health.enter(connection.max_concurrent) else {
        let message =
            "the account that made the answer is at its limit of requests at once; try again shortly";
        return Err(GatewayError::new(ErrorKind::RateLimited, "rate_limit_exceeded", message)
            .retry_after(Some(std::time::Duration::from_secs(1)))
            .into());
    };
    ctx.upstream_dialect = Some(dialect.id());
    open_row(ctx, target, connection, sent);
    ctx.outcome.sent.get_or_insert(sent);
    let limit = engine.options.first_byte_timeout;
    ctx.copy_call(&outbound);
    let response = match timeout(limit, engine.transport.send(outbound)).await {
        Err(_) => return Err(Failure::timeout(&format!("no answer within {}", seconds(limit))).into()),
        Ok(Err(error)) => return Err(transport_failure(&error).into()),
        Ok(Ok(response)) => ctx.copy_answer(response),
    };
    let (head, body) = response.into_parts();
    ctx.outcome.head = Some(engine.clock.instant());
    if !head.status.is_success() {
        let bytes = read_refusal(ctx, body).await;
        let error = dialect.decode_error(head.status, &bytes);
        return Err(judged(ctx, target, error, head.status, &head.headers));
    }
    let echo = Echo {
        model: known.asked.as_str().into(),
        request_id: ctx.request_id.clone(),
        ..Echo::arrived_at(ctx.started_ms)
    };
    let is_stream = head
        .headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|kind| kind.starts_with(dialect.framing().media_type()));
    if is_stream && call == KeptCall::Read {
        return Ok(Stored::Stream(Box::new(StreamStart {
            body,
            pipe: dialect.stream_relay(echo),
            out: BytesMut::new(),
            is_ended: false,
            connection: connection.clone(),
            target: target.clone(),
            paused: None,
            place,
            sent,
        })));
    }
    let bytes = read_whole(ctx, body).await?;
    let body = match call {
        // The answer itself: it names the model, and says so where it failed, which is no failure of this call.
        KeptCall::Read | KeptCall::Cancel => {
            let relayed = dialect.relay_response(&bytes, &echo);
            let relayed = relayed.map_err(|error| Failure::protocol(&error.message))?;
            if !dialect.is_pending(&bytes) {
                kept::finished(ctx, &relayed.usage);
            }
            relayed.body.to_bytes()
        }
        KeptCall::Delete | KeptCall::Inputs => bytes,
    };
    push_row(ctx, target, connection, Some(head.status), None, sent);
    Ok(Stored::Whole(body))
}

/// What the vendor says of its own, in its words: it is not about the model.
fn said(mut error: GatewayError, failure: &Failure) -> GatewayError {
    let status = failure.upstream.status.unwrap_or_default();
    match failure.kind {
        FailureKind::ModelMissing
        | FailureKind::BadRequest
        | FailureKind::Unknown
        | FailureKind::NotAllowed
            if (400..500).contains(&status) =>
        {
            let kind = ErrorKind::from_status(status);
            let code = failure.upstream.code.clone().map(Into::into);
            (error.kind, error.code, error.is_final) = (kind, code, true);
        }
        _ => {}
    }
    error
}

fn unknown(id: &str) -> GatewayError {
    let id: String = id.chars().filter(|c| !c.is_control()).take(64).collect();
    let message = format!(
        "`{id}` is not known here: an answer is for 30 days, if it was asked for with the same key and with `store` \
         true, and made by an upstream that speaks this dialect; the gateway keeps no answers itself"
    );
    GatewayError::new(ErrorKind::NotFound, "not_found", message)
}
