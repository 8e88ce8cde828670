//! The request as one account's provider wants it: edited bytes where the dialects are equal, else written anew from
//! the canonical form.

use http::header::{ACCEPT, CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, Method, Uri};
use omniroute_dialect::ir::ErrorKind;
use omniroute_dialect::{Echo, registry};
use omniroute_domain::resolve::Target;
use omniroute_domain::snapshot::ConnectionState;
use omniroute_provider::Endpoint;

use crate::ctx::RequestCtx;
use crate::error::GatewayError;
use crate::ports::OutboundCall;

/// Headers that are set beside the provider's own, here and by the transport.
const ADDED_HEADERS: usize = 6;
/// Most losses kept for the log.
const MAX_LOSSES: usize = 50;

/// A call that is ready to be sent.
pub(crate) struct Prepared {
    pub(crate) call: OutboundCall,
    pub(crate) dialect: &'static dyn omniroute_dialect::Dialect,
    pub(crate) echo: Echo,
}

/// Prepares the call of `connection`.
pub(crate) fn call(
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
    let body = if endpoint.dialect == client.id() {
        client.edit_request(&ctx.body, ctx.envelope()?, &target.model).into_pieces()
    } else {
        translated(ctx, target, dialect)?
    };
    ctx.upstream_dialect = Some(endpoint.dialect);
    let call = OutboundCall {
        method: Method::POST,
        uri: uri(endpoint, &target.model, stream)?,
        headers,
        body,
        allow_private: connection.allow_private,
    };
    Ok(Prepared { call, dialect, echo: ctx.echo() })
}

fn translated(
    ctx: &mut RequestCtx,
    target: &Target,
    dialect: &'static dyn omniroute_dialect::Dialect,
) -> Result<omniroute_wire::splice::Pieces, GatewayError> {
    ctx.canonical()?;
    let Some(mut request) = ctx.canonical.take() else {
        return Err(GatewayError::new(
            ErrorKind::Internal,
            "internal_server_error",
            "the request was not decoded",
        ));
    };
    let asked = std::mem::replace(&mut request.model, target.model.clone());
    let encoded = dialect.encode_request(&request, &ctx.snapshot.caps(&target.provider, &target.model));
    request.model = asked;
    ctx.canonical = Some(request);
    let encoded = encoded?;
    ctx.losses.retain(|loss| !encoded.losses.contains(loss));
    ctx.losses.extend(encoded.losses);
    ctx.losses.truncate(MAX_LOSSES);
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
    Ok(smallvec::smallvec![encoded.body])
}

fn not_spoken(target: &Target, dialect: &str) -> GatewayError {
    let message = format!(
        "`{}` is served in the dialect `{dialect}` only, which the gateway cannot use for it yet; choose another model",
        target.full_name()
    );
    GatewayError::new(ErrorKind::InvalidRequest, "invalid_model", message).param("model")
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
