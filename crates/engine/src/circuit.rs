//! The providers' breakers while requests are served: who may pass, what their outcome says, and how an open one is
//! told to the client. The decisions are those of [`omniroute_domain::breaker`].

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use omniroute_dialect::ir::ErrorKind;
use omniroute_domain::breaker::Pass;
use omniroute_domain::health::Hold;
use omniroute_domain::resolve::Target;
use omniroute_domain::snapshot::ConnectionState;
use omniroute_provider::Failure;

use crate::chronicle;
use crate::ctx::RequestCtx;
use crate::error::GatewayError;
use crate::resolve;

const BREAKER: HeaderName = HeaderName::from_static("x-omniroute-provider-breaker");
const CIRCUIT_OPEN: &str = "provider_circuit_open";
const ALL_OPEN: &str = "all_circuits_open";

/// Leave to call an account's provider for a model; `None` while nobody may.
pub(crate) fn admit(ctx: &RequestCtx, connection: &ConnectionState, model: &str) -> Option<Pass> {
    let (pass, transition) = connection.admit(model, ctx.engine.clock.now_ms()).ok()?;
    chronicle::turned(&ctx.engine, &connection.breaker, transition);
    Some(pass)
}

/// The provider answered for a model. A stream counts from its first content on: a probe is not to take as long as an answer.
pub(crate) fn answered(ctx: &RequestCtx, connection: &ConnectionState, model: &str, pass: Pass) {
    let transition = pass.answered(model, ctx.engine.clock.now_ms());
    chronicle::turned(&ctx.engine, &connection.breaker, transition);
}

/// The call for a model failed.
pub(crate) fn failed(
    ctx: &RequestCtx,
    connection: &ConnectionState,
    model: &str,
    pass: Pass,
    failure: &Failure,
) {
    let Some(policy) = &connection.breaker_policy else { return };
    let transition = pass.failed(failure, model, &connection.id, policy, ctx.engine.clock.now_ms());
    chronicle::turned(&ctx.engine, &connection.breaker, transition);
}

/// A stream broke off after the client had got the first of it.
pub(crate) fn broke_off(ctx: &RequestCtx, connection: &ConnectionState, model: &str, failure: &Failure) {
    let Some(policy) = connection.breaker_policy.as_ref().filter(|_| ctx.about.is_none()) else { return };
    let now_ms = ctx.engine.clock.now_ms();
    let transition = connection.breaker.broke_off(failure, model, &connection.id, policy, now_ms);
    chronicle::turned(&ctx.engine, &connection.breaker, transition);
}

/// Whether breakers are all that keeps a target from being asked; accounts that only the operator brings back aside.
pub(crate) fn is_open(ctx: &RequestCtx, target: &Target) -> bool {
    let (eligible, blocked) = resolve::standing(ctx, target, ctx.engine.clock.now_ms());
    let mut passing = blocked.iter().filter(|blocked| blocked.until.is_some()).peekable();
    eligible.is_empty() && passing.peek().is_some() && passing.all(|blocked| blocked.hold == Hold::Provider)
}

/// The error for a target whose provider is not asked.
pub(crate) fn open(target: &Target, wait: Option<Duration>) -> GatewayError {
    let provider = target.provider.called();
    let message = format!(
        "`{provider}` has failed too often of late and is not asked for `{}` now. Try again later, or see /api/resilience",
        target.full_name()
    );
    GatewayError::new(ErrorKind::Unavailable, CIRCUIT_OPEN, message).retry_after(wait)
}

/// The error for a combo none of whose targets is asked.
pub(crate) fn all_open(combo: &str, wait: Option<Duration>) -> GatewayError {
    let message = format!(
        "the providers of all targets of combo `{combo}` have failed too often of late and are not asked for now. Try \
         again later, or see /api/resilience"
    );
    GatewayError::new(ErrorKind::Unavailable, ALL_OPEN, message).retry_after(wait)
}

/// Says in a header that a breaker is the reason, where it is.
pub(crate) fn tell(error: &GatewayError, headers: &mut HeaderMap) {
    if matches!(error.code.as_deref(), Some(CIRCUIT_OPEN | ALL_OPEN)) {
        headers.insert(BREAKER, HeaderValue::from_static("open"));
    }
}
