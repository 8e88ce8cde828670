//! Why a request could not be served, in words: from the failures of its attempts to the one error the client gets.

use std::borrow::Cow;
use std::time::Duration;

use omniroute_dialect::ir::ErrorKind;
use omniroute_domain::resolve::Target;
use omniroute_provider::{Failure, FailureKind, scrub};

use crate::attempt;
use crate::circuit;
use crate::ctx::RequestCtx;
use crate::error::{GatewayError, Told};
use crate::resolve;

/// The error for a failure that trying elsewhere cannot repair, or the last one of all.
pub(crate) fn failure(ctx: &RequestCtx, target: &Target, failure: &Failure) -> GatewayError {
    let (kind, code) = public_kind(failure);
    let said = scrub::scrub(&failure.upstream.message);
    let text = if said.is_empty() { failure.kind.as_str().to_owned() } else { said };
    GatewayError::from(Told {
        kind,
        code,
        message: format!("[{}] {text}", target.full_name()),
        param: failure.upstream.param.clone(),
        retry_after: failure.retry_after.filter(|_| tells_when(kind)),
        recovers_in: None,
        attempts: attempt::notes(ctx),
        is_final: kind.status() < 500 && !matches!(kind, ErrorKind::RateLimited | ErrorKind::RequestTimeout),
    })
}

/// The error when no account is left: the last failure if there was one, else why none could be tried.
pub(crate) fn exhausted(
    ctx: &RequestCtx,
    target: &Target,
    last: Option<&Failure>,
    wait: Option<Duration>,
    is_busy: bool,
) -> GatewayError {
    if let Some(last) = last {
        let mut error = failure(ctx, target, last);
        if tells_when(error.kind) {
            error.retry_after = wait.or(error.retry_after);
        }
        error.recovers_in = wait;
        return error;
    }
    let name = target.full_name();
    if is_busy {
        let message =
            format!("every account for `{name}` is at its limit of requests at once; try again shortly");
        return GatewayError::new(ErrorKind::RateLimited, "rate_limit_exceeded", message)
            .retry_after(Some(Duration::from_secs(1)));
    }
    let (_, blocked) = resolve::standing(ctx, target, ctx.engine.clock.now_ms());
    if blocked.is_empty() {
        let message = format!(
            "no connection of `{}` may serve `{name}` for this key; see /api/providers",
            target.provider.called()
        );
        return GatewayError::new(ErrorKind::InvalidRequest, "no_credentials", message);
    }
    if blocked.iter().all(|blocked| blocked.until.is_none()) {
        let message = format!(
            "every account of `{}` is out of service; test or renew them under /api/providers",
            target.provider.called()
        );
        return GatewayError::new(ErrorKind::Unavailable, "all_accounts_inactive", message);
    }
    if circuit::is_open(ctx, target) {
        return circuit::open(target, wait);
    }
    if blocked.iter().all(|blocked| blocked.reason == FailureKind::ModelMissing) {
        // Clients try a 503 again, which would not help.
        let message = format!("the provider did not know `{name}` a moment ago; check the name of the model");
        let mut error = GatewayError::new(ErrorKind::NotFound, "model_not_found", message);
        error.recovers_in = wait;
        return error;
    }
    let limited = blocked
        .iter()
        .any(|blocked| matches!(blocked.reason, FailureKind::RateLimited | FailureKind::QuotaSpent));
    let (kind, code) = if limited {
        (ErrorKind::RateLimited, "rate_limit_exceeded")
    } else {
        (ErrorKind::Unavailable, "service_unavailable")
    };
    let cause = blocked.first().map_or("unknown", |blocked| blocked.reason.as_str());
    let message = format!("every account for `{name}` is cooling down ({cause}); try again later");
    GatewayError::new(kind, code, message).retry_after(wait)
}

/// The error when the accounts that are left are held to their limits, and there is no room or no time to wait for them.
pub(crate) fn held(target: &Target, wait: Duration) -> GatewayError {
    let name = target.full_name();
    let message = format!(
        "every account for `{name}` is held to its rate limit, and more requests wait, or longer, than may; try again in \
         {} s, or raise requestQueue.maxWaitMs or maxQueueDepth in /api/resilience",
        wait.as_millis().div_ceil(1_000).max(1)
    );
    GatewayError::new(ErrorKind::RateLimited, "rate_limit_queue_full", message).retry_after(Some(wait))
}

/// The error when a request would cost more than it may at every target of a combo.
pub(crate) fn too_dear(combo: &str, cap_nano: i64) -> GatewayError {
    #[allow(clippy::cast_precision_loss, reason = "for people")]
    let cap = cap_nano as f64 / 1e9;
    let message = format!(
        "the request would cost more than {cap} USD at every target of combo `{combo}`; make it shorter, ask for fewer \
         tokens, or raise budgetCap under /api/combos"
    );
    GatewayError::new(ErrorKind::Billing, "cost_cap_exceeded", message)
}

/// Whether such an error says when to come back.
fn tells_when(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::RateLimited | ErrorKind::Unavailable | ErrorKind::Overloaded)
}

/// How long until the first account may be tried again; `None` when nobody knows.
pub(crate) fn earliest(ctx: &RequestCtx, target: &Target) -> Option<Duration> {
    first_free(ctx, target, |_| true)
}

/// The same of those that are worth waiting for: what a spent quota or a refused credential keeps out is not.
pub(crate) fn coming(ctx: &RequestCtx, target: &Target) -> Option<Duration> {
    first_free(ctx, target, attempt::passes_by_itself)
}

/// How long until the first of those is free that are kept out for one of these reasons.
fn first_free(ctx: &RequestCtx, target: &Target, counts: impl Fn(FailureKind) -> bool) -> Option<Duration> {
    let now_ms = ctx.engine.clock.now_ms();
    let (eligible, blocked) = resolve::standing(ctx, target, now_ms);
    if !eligible.is_empty() {
        return None;
    }
    let until =
        blocked.iter().filter(|blocked| counts(blocked.reason)).filter_map(|blocked| blocked.until).min()?;
    Some(Duration::from_millis(u64::try_from(until - now_ms).unwrap_or(0)))
}

/// What the client is told about a class of failure. A refused credential of ours is not the client's fault: a client
/// that sees 401 logs its user out.
fn public_kind(failure: &Failure) -> (ErrorKind, Option<Cow<'static, str>>) {
    let own = |kind, code: &'static str| (kind, Some(Cow::Borrowed(code)));
    let upstream_code = || failure.upstream.code.clone().map(Cow::Owned);
    let status = failure.upstream.status;
    match failure.kind {
        FailureKind::AuthRejected | FailureKind::Forbidden | FailureKind::Banned => {
            own(ErrorKind::BadGateway, "upstream_auth_failed")
        }
        FailureKind::RateLimited => (ErrorKind::RateLimited, upstream_code()),
        FailureKind::QuotaSpent => {
            (if status == Some(402) { ErrorKind::Billing } else { ErrorKind::RateLimited }, upstream_code())
        }
        FailureKind::ModelMissing => own(ErrorKind::NotFound, "model_not_found"),
        // Not the model's limit, but that of a body in bytes.
        FailureKind::ContextTooLong
            if matches!(status, Some(413 | 414))
                && failure.upstream.code.as_deref() != Some("context_length_exceeded") =>
        {
            own(ErrorKind::TooLarge, "request_too_large")
        }
        FailureKind::ContextTooLong => own(ErrorKind::InvalidRequest, "context_length_exceeded"),
        FailureKind::Refused => {
            (ErrorKind::InvalidRequest, upstream_code().or(Some(Cow::Borrowed("content_filter"))))
        }
        FailureKind::BadRequest => (
            ErrorKind::from_status(status.unwrap_or(400)),
            upstream_code().or(Some(Cow::Borrowed("bad_request"))),
        ),
        FailureKind::Overloaded => match status {
            Some(529) => (ErrorKind::Overloaded, None),
            _ => own(ErrorKind::Unavailable, "service_unavailable"),
        },
        FailureKind::Timeout => own(ErrorKind::GatewayTimeout, "gateway_timeout"),
        FailureKind::Connect => own(ErrorKind::BadGateway, "network_error"),
        FailureKind::AddressBlocked => own(ErrorKind::BadGateway, "url_blocked"),
        FailureKind::Empty => own(ErrorKind::BadGateway, "empty_response"),
        FailureKind::InvalidResponse => own(ErrorKind::BadGateway, "invalid_response"),
        FailureKind::Protocol => own(ErrorKind::BadGateway, "bad_gateway"),
        FailureKind::Unavailable
        | FailureKind::NotAllowed
        | FailureKind::Unknown
        | FailureKind::ClientAbort => match status {
            Some(status) if status >= 400 => (ErrorKind::from_status(status), upstream_code()),
            _ => own(ErrorKind::BadGateway, "bad_gateway"),
        },
    }
}
