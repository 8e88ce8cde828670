//! The request as one account's provider wants it: edited bytes where the dialects are equal, else written anew from
//! the canonical form.

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, Method, Uri};
use omniroute_dialect::ir::{
    BlockKind, ChatRequest, ErrorKind, Loss, LossAction, Reader, ReasoningAmount, Tier,
};
use omniroute_dialect::shape::{self, Shape};
use omniroute_dialect::{Caps, Dialect, Echo, Mend, Rewrite, registry, service_tier};
use omniroute_domain::learned::Fact;
use omniroute_domain::resolve::Target;
use omniroute_domain::snapshot::ConnectionState;
use omniroute_provider::{Capability, Endpoint, model_family};
use omniroute_wire::members;
use omniroute_wire::splice::{Pieces, Splice};
use sha2::{Digest as _, Sha256};

use crate::ctx::{MAX_LOSSES, RequestCtx};
use crate::error::GatewayError;
use crate::handoff;
use crate::media;
use crate::ports::{Departure, OutboundCall};
use crate::reasoning;
use crate::transform;

/// Headers that are set beside the provider's own, here and by the transport.
const ADDED_HEADERS: usize = 6;

/// A call that is ready to be sent.
pub(crate) struct Prepared {
    pub(crate) call: OutboundCall,
    pub(crate) dialect: &'static dyn Dialect,
    pub(crate) echo: Echo,
    /// What has to be done to the answer; `None` when it stays in its dialect.
    pub(crate) shape: Option<Shape>,
}

/// Prepares the call of `connection`.
pub(crate) async fn call(
    ctx: &mut RequestCtx,
    target: &Target,
    connection: &ConnectionState,
) -> Result<Prepared, GatewayError> {
    let client = ctx.dialect();
    let only = target.provider.only_dialect(&target.model);
    let endpoint = connection
        .endpoint_for(client.id(), only, ctx.started_ms)
        .ok_or_else(|| not_spoken(target, only.unwrap_or_default()))?;
    let stream = ctx.envelope()?.stream;
    let mut headers = HeaderMap::with_capacity(endpoint.headers.len() + ADDED_HEADERS);
    headers.extend(endpoint.headers.iter().map(|(name, value)| (name.clone(), value.clone())));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let dialect = registry::by_id(endpoint.dialect);
    if stream {
        headers.insert(ACCEPT, HeaderValue::from_static(dialect.framing().media_type()));
    }
    dialect.forward_headers(client.id(), &ctx.arrival.headers, &mut headers);
    let facts = ctx.engine.live.learned.facts(&target.provider.id, &target.model, ctx.started_ms);
    let mut caps = ctx.snapshot.caps(&target.provider, &target.model);
    adapt(&mut caps, &facts);
    transform::ask_for_long_context(ctx, target, &caps, dialect, &mut headers);
    ctx.taken = None;
    if handoff::relays(ctx) {
        // Boxed because few combos hand conversations over.
        Box::pin(handoff::take_over(ctx, connection, &caps)).await?;
    }
    let is_own = endpoint.dialect == client.id() && !ctx.envelope()?.spans.is_foreign;
    let stays = is_own && !ctx.without_reasoning && ctx.rewrite.is_none();
    if transform::needs_content(ctx, &caps) {
        Box::pin(ctx.canonical()).await?;
    }
    let rewrite = transform::of(ctx, target, &caps, stays)?;
    let (body, shape) = if stays {
        (relayed(ctx, target, &caps, rewrite.as_ref(), facts.as_slice()).await?, None)
    } else {
        let account = dialect.binds_signatures_to_accounts().then(|| account_name(connection));
        // Boxed so that requests that stay in their dialect do not carry the room that this needs.
        let translation = translated(ctx, target, &caps, rewrite.as_ref(), account, dialect, &facts);
        let (body, shape) = Box::pin(translation).await?;
        dialect.ask_for(ctx.canonical().await?, &caps, &mut headers);
        (body, Some(shape))
    };
    ctx.outcome.tier = match ctx.asked_tier() {
        // As for most requests, whose bodies need no look.
        Tier::Standard => Tier::Standard,
        asked if stays && facts.as_slice().is_empty() => asked,
        _ => service_tier::asked_in(&body.concat()),
    };
    ctx.upstream_dialect = Some(endpoint.dialect);
    let mut uri = uri(endpoint, &target.model, stream)?;
    if stays && let Some(path) = client.path_as_asked(uri.path(), ctx.envelope()?) {
        uri = at_path(uri, &path, target)?;
    }
    let call = OutboundCall {
        method: Method::POST,
        uri,
        headers,
        body,
        attachment: None,
        allow_private: connection.allow_private,
        departure: Departure::default(),
    };
    Ok(Prepared { call, dialect, echo: ctx.echo(), shape })
}

/// The client's bytes, edited.
async fn relayed(
    ctx: &mut RequestCtx,
    target: &Target,
    caps: &Caps,
    rewrite: Option<&Rewrite>,
    facts: &[Fact],
) -> Result<Pieces, GatewayError> {
    let client = ctx.dialect();
    ctx.returns_reasoning = caps.reasoning_in_history;
    let has_carriers = ctx.envelope()?.spans.has_carriers;
    let edited = if has_carriers || rewrite.is_some() {
        let mut body = ctx.body.clone();
        if has_carriers {
            // What other dialects' models signed would be refused here.
            body = shape::strip_carriers(&body);
        }
        if let Some(rewrite) = rewrite {
            body = client.rewrite(&body, rewrite, caps);
        }
        let envelope = client.envelope(ctx.head(), &body)?;
        client.edit_request(&body, &envelope, &target.model)
    } else {
        client.edit_request(&ctx.body, ctx.envelope()?, &target.model)
    };
    let has_vendors_roles = !caps.developer_role && ctx.envelope()?.spans.has_own_roles;
    if facts.is_empty() && !ctx.returns_reasoning && !has_vendors_roles {
        if rewrite.is_some() {
            refuse_if_strict(ctx, target)?;
        }
        return Ok(edited.into_pieces());
    }
    let mut edited = edited.to_bytes();
    if has_vendors_roles {
        edited = client.plain_roles(&edited).to_bytes();
    }
    if ctx.returns_reasoning {
        edited = reasoning::returned(ctx, edited).await;
    }
    let lost = facts.iter().filter(|fact| takes_something(fact, client, &edited)).filter_map(lost);
    ctx.losses.extend(lost);
    refuse_if_strict(ctx, target)?;
    Ok(without_refused(client, edited, facts).into_pieces())
}

/// Whether a body has what the model does not take.
fn takes_something(fact: &Fact, dialect: &'static dyn Dialect, body: &Bytes) -> bool {
    match fact {
        Fact::Without(path) => !members::removal(body, path).is_empty(),
        Fact::Mend(mend) => !dialect.mend(body, *mend).is_untouched(),
        Fact::Renamed { .. } | Fact::AdaptiveThinking | Fact::NoPrefill | Fact::ReasoningInHistory => false,
    }
}

/// A request written anew from the canonical form.
async fn translated(
    ctx: &mut RequestCtx,
    target: &Target,
    caps: &Caps,
    rewrite: Option<&Rewrite>,
    account: Option<String>,
    dialect: &'static dyn Dialect,
    facts: &[Fact],
) -> Result<(Pieces, Shape), GatewayError> {
    let (client, leave_out) = (ctx.dialect(), ctx.without_reasoning);
    let engine = ctx.engine.clone();
    let request = ctx.canonical().await?;
    media::inline(&engine, request, dialect, caps).await?;
    if leave_out {
        forget_reasoning(request, dialect.id() == client.id());
    }
    // The next target may get it with other changes.
    let mut changed = rewrite.map(|rewrite| {
        let mut changed = request.clone();
        rewrite.apply(&mut changed);
        changed
    });
    let request = changed.as_mut().unwrap_or(request);
    let asked = std::mem::replace(&mut request.model, target.model.to_string());
    request.reader = Reader { family: Some(model_family(&target.model)), account };
    let (shaped, shape) = Shape::of(request, client, dialect, caps, Some(&engine.seal));
    let encoded = dialect.encode_request(&shaped, caps);
    drop(shaped);
    request.model = asked;
    let encoded = encoded?;
    ctx.losses.retain(|loss| !encoded.losses.contains(loss));
    ctx.losses.extend(encoded.losses);
    let lost = facts.iter().filter(|fact| takes_something(fact, dialect, &encoded.body)).filter_map(lost);
    ctx.losses.extend(lost);
    refuse_if_strict(ctx, target)?;
    ctx.losses.truncate(MAX_LOSSES);
    if facts.is_empty() {
        return Ok((smallvec::smallvec![encoded.body], shape));
    }
    Ok((without_refused(dialect, encoded.body, facts).into_pieces(), shape))
}

/// Whoever asked for strictness gets no request that says less than theirs.
pub(crate) fn refuse_if_strict(ctx: &RequestCtx, target: &Target) -> Result<(), GatewayError> {
    if ctx.is_strict()
        && let Some(loss) = ctx.losses.iter().find(|loss| !loss.silent)
    {
        let message = format!(
            "`{}` cannot be carried to `{}` unchanged (it would be {}), and strict translation was asked for",
            loss.path,
            target.full_name(),
            loss.action.as_str()
        );
        return Err(GatewayError::new(ErrorKind::InvalidRequest, "unsupported_parameter", message)
            .param(loss.path.to_string()));
    }
    Ok(())
}

/// What was learned of a model changes what it is believed to take.
fn adapt(caps: &mut Caps, facts: &[Fact]) {
    for fact in facts {
        match fact {
            Fact::Without(_) | Fact::Mend(_) => {}
            Fact::Renamed { to, .. } => caps.max_completion_tokens = to == "max_completion_tokens",
            Fact::AdaptiveThinking => caps.adaptive_thinking = true,
            Fact::NoPrefill => caps.prefill = false,
            Fact::ReasoningInHistory => caps.reasoning_in_history = true,
        }
    }
}

/// A body without the members that the model refuses, with its names for others and in the form that it takes.
fn without_refused(dialect: &'static dyn Dialect, body: Bytes, facts: &[Fact]) -> Splice {
    let mut body = body;
    for fact in facts {
        let mut splice = Splice::new(body.clone());
        match fact {
            Fact::Without(path) => {
                for span in members::removal(&body, path) {
                    splice.replace(span, Bytes::new());
                }
            }
            Fact::Renamed { from, to } if members::name_of(&body, to).is_none() => {
                if let Some(span) = members::name_of(&body, from) {
                    splice.replace(span, format!("\"{to}\""));
                }
            }
            Fact::Mend(mend) => splice = dialect.mend(&body, *mend),
            Fact::Renamed { .. } | Fact::AdaptiveThinking | Fact::NoPrefill | Fact::ReasoningInHistory => {}
        }
        body = splice.to_bytes();
    }
    Splice::new(body)
}

fn lost(fact: &Fact) -> Option<Loss> {
    let loss = |path: &str, action| Some(Loss { path: path.to_owned().into(), action, silent: false });
    match fact {
        Fact::Without(path) => loss(path, LossAction::Dropped),
        Fact::Mend(Mend::ShortDescriptions(_)) => loss("tools.description", LossAction::Clamped),
        Fact::Mend(Mend::OneSystemMessage) => loss("messages.system", LossAction::Mapped),
        Fact::Renamed { .. } | Fact::AdaptiveThinking | Fact::NoPrefill | Fact::ReasoningInHistory => None,
    }
}

/// Leaves all reasoning of earlier answers out. Within one dialect it is not asked for again either, since the vendor
/// wants it to begin where it was left.
fn forget_reasoning(request: &mut ChatRequest, within_dialect: bool) {
    for turn in &mut request.turns {
        turn.blocks.retain(|block| {
            !matches!(block.kind, BlockKind::Thinking { .. } | BlockKind::RedactedThinking { .. })
        });
    }
    if within_dialect && matches!(request.reasoning.amount, ReasoningAmount::Budget(_)) {
        request.reasoning.amount = ReasoningAmount::Off;
    }
}

/// The account as signatures name it; its id stays with us.
fn account_name(connection: &ConnectionState) -> String {
    let digest = Sha256::digest(connection.id.as_str().as_bytes());
    digest[..6].iter().map(|byte| format!("{byte:02x}")).collect()
}

fn not_spoken(target: &Target, dialect: &str) -> GatewayError {
    if dialect.is_empty() {
        let offered = Capability::ALL.into_iter().filter(|it| target.provider.offers(*it));
        let names: Vec<_> = offered.map(Capability::as_str).collect();
        let message =
            format!("provider `{}` has no chat; it is there for {}", target.provider.alias, names.join(", "));
        return GatewayError::new(ErrorKind::InvalidRequest, "unsupported_operation", message).param("model");
    }
    let message = format!(
        "`{}` is served in the dialect `{dialect}` only, which the gateway cannot use for it yet; choose another model",
        target.full_name()
    );
    GatewayError::new(ErrorKind::InvalidRequest, "invalid_model", message).param("model")
}

/// The same server at another path.
fn at_path(uri: Uri, path: &str, target: &Target) -> Result<Uri, GatewayError> {
    let mut parts = uri.into_parts();
    parts.path_and_query = path.parse().ok();
    Uri::from_parts(parts).map_err(|error| {
        let message = format!("`{path}` does not fit the URL of `{}`: {error}", target.full_name());
        GatewayError::new(ErrorKind::InvalidRequest, "invalid_model", message)
    })
}

fn uri(endpoint: &Endpoint, model: &str, stream: bool) -> Result<Uri, GatewayError> {
    endpoint.chat_uri(model, stream).map_err(|error| {
        GatewayError::new(
            ErrorKind::InvalidRequest,
            "invalid_model",
            format!("`{model}` does not fit the URL: {error}"),
        )
    })
}
