//! How many tokens a request would have: asked of the upstream where it counts in the client's dialect, else estimated.
//!
//! The prompt goes to the upstream for it, so it is routed as a conversation is: keys, policies and labels keep it from whom
//! they would keep that from. It counts as a request of its key, and costs nothing.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Limited};
use omniroute_dialect::ir::ErrorKind;
use omniroute_dialect::{Envelope, estimate};
use omniroute_domain::combo::{self, Bar, ComboState, Special, Targets};
use omniroute_domain::resolve::{Route, Target};
use omniroute_domain::snapshot::ConnectionState;
use tokio::time::timeout;

use crate::admit;
use crate::answer::Answer;
use crate::attempt::{self, Trying};
use crate::ctx::RequestCtx;
use crate::error::GatewayError;
use crate::policy;
use crate::ports::{Departure, OutboundCall};
use crate::resolve;
use crate::serve::{Engine, clip};
use crate::transform;

/// How long an upstream may count; an estimate is at once.
const PATIENCE: Duration = Duration::from_secs(10);
/// Most bytes of an upstream's count.
const MAX_COUNT_BYTES: usize = 64 * 1024;

impl Engine {
    /// Counts the tokens of a request whose caller is known.
    pub async fn count(self: &Arc<Self>, mut ctx: Box<RequestCtx>, body: Bytes) -> Response<Answer> {
        ctx.set_body(body);
        match count(&mut ctx).await {
            Ok(body) => self.reply(ctx, StatusCode::OK, body),
            Err(error) => self.refuse(ctx, &error),
        }
    }
}

async fn count(ctx: &mut RequestCtx) -> Result<Bytes, GatewayError> {
    let client = ctx.dialect();
    let request = client.decode_count(ctx.head(), &ctx.body)?;
    let estimated = estimate::tokens(&request);
    let mut envelope = Envelope::of_model(request.model.clone(), client.framing());
    clip(&mut envelope.model);
    // Whoever asks for the prompt alone is not refused for the price of an answer.
    envelope.max_output_tokens = request.max_output_tokens.or(Some(0));
    ctx.envelope = Some(envelope);
    ctx.canonical = Some(Box::new(request));
    transform::check(ctx)?;
    let route = match resolve::route(ctx) {
        Ok(route) => Some(route),
        Err(error) if error.kind == ErrorKind::Permission => return Err(error),
        // Nobody has the model: an estimate needs nobody.
        Err(_) => None,
    };
    admit::reserve_uncounted(ctx).await?;
    let asked = match route {
        Some(route) => first(ctx, &route).await?,
        None => None,
    };
    if let Some((target, accounts)) = asked
        && let Some(counted) = counted(ctx, &target, &accounts).await
    {
        return Ok(counted);
    }
    Ok(client.encode_count(estimated))
}

/// Those that may serve a request.
type Accounts = Vec<Arc<ConnectionState>>;

/// Who would be asked first, and the accounts that may be; `None` where nobody can be now. An error where nobody may be.
async fn first(ctx: &mut RequestCtx, route: &Route) -> Result<Option<(Arc<Target>, Accounts)>, GatewayError> {
    let combo = match route {
        Route::Target(target) => return Ok(allowed(ctx, target)?.map(|accounts| (target.clone(), accounts))),
        Route::Combo(combo) => combo,
    };
    let (mut denial, mut may_any) = (None, false);
    for planned in planned(ctx, combo).await? {
        ctx.trying = Some(Trying::previewed(&planned, ctx.started));
        match allowed(ctx, &planned.target) {
            Ok(Some(accounts)) => return Ok(Some((planned.target, accounts))),
            Ok(None) => may_any = true,
            Err(error) => denial = denial.or(Some(error)),
        }
    }
    match denial {
        Some(error) if !may_any => Err(error),
        _ => Ok(None),
    }
}

/// The targets of a combo that the key may use, in order. Nobody's turn is taken.
async fn planned(ctx: &mut RequestCtx, combo: &Arc<ComboState>) -> Result<Targets, GatewayError> {
    let facts = attempt::facts(ctx, combo).await?;
    let bars = |target: &Target| (!admit::may_use_in(ctx, combo, target)).then_some(Bar::Key);
    let special = Special { bars: Some(&bars), cost: None };
    let now_ms = ctx.engine.clock.now_ms();
    let mut plan = combo::plan_for(&ctx.snapshot, combo, &facts, special, now_ms, ctx.seed, false);
    if plan.targets.is_empty() && !plan.denied.is_empty() && plan.left_out.is_empty() {
        return Err(attempt::no_targets(combo, plan.over_cap, &plan.left_out));
    }
    policy::prefer_planned(ctx, &mut plan.targets);
    Ok(plan.targets)
}

/// The accounts of a target that may serve the request now, if there are any; an error where a policy refuses the target.
fn allowed(ctx: &mut RequestCtx, target: &Target) -> Result<Option<Accounts>, GatewayError> {
    policy::steer(ctx, target)?;
    let (accounts, _) = resolve::standing(ctx, target, ctx.engine.clock.now_ms());
    let accounts: Accounts = accounts.into_iter().cloned().collect();
    Ok(Some(accounts).filter(|accounts| !accounts.is_empty()))
}

/// The upstream's own count, if it gives one in the client's dialect. Whatever goes wrong says nothing about the account:
/// chat is what it is there for.
async fn counted(ctx: &RequestCtx, target: &Target, accounts: &[Arc<ConnectionState>]) -> Option<Bytes> {
    let call = accounts.iter().find_map(|connection| call(ctx, target, connection))?;
    let response = timeout(PATIENCE, ctx.engine.transport.send(call)).await.ok()?.ok()?;
    if !response.status().is_success() {
        return None;
    }
    let body = Limited::new(response.into_body(), MAX_COUNT_BYTES);
    let bytes = timeout(PATIENCE, body.collect()).await.ok()?.ok()?.to_bytes();
    ctx.dialect().is_count(&bytes).then_some(bytes)
}

fn call(ctx: &RequestCtx, target: &Target, connection: &ConnectionState) -> Option<OutboundCall> {
    let client = ctx.dialect();
    let only = target.provider.only_dialect(&target.model);
    let endpoint = connection.endpoint_for(client.id(), only, ctx.started_ms)?;
    if endpoint.dialect != client.id() {
        return None;
    }
    let chat = endpoint.chat_uri(&target.model, false).ok()?;
    let path = client.count_path(chat.path())?;
    let mut parts = chat.into_parts();
    parts.path_and_query = Some(path.parse().ok()?);
    let mut headers = HeaderMap::with_capacity(endpoint.headers.len() + 2);
    headers.extend(endpoint.headers.iter().map(|(name, value)| (name.clone(), value.clone())));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    client.forward_headers(client.id(), &ctx.arrival.headers, &mut headers);
    Some(OutboundCall {
        method: Method::POST,
        uri: Uri::from_parts(parts).ok()?,
        headers,
        body: client.edit_count(&ctx.body, &target.model).into_pieces(),
        attachment: None,
        allow_private: connection.allow_private,
        departure: Departure::default(),
    })
}
