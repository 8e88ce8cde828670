//! Requests that an operator ends. The one who serves a request looks whether it is to end, at the places where it may wait
//! for long: for upstreams and before them ([`attempts`]), for the answer to the same request, and within a stream. So
//! the call to an upstream ends by being dropped, as with a client that hangs up, and the request is settled in the same way.
//!
//! A request that nobody cancels pays for it with one look at a flag each time that it is woken.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use omniroute_dialect::ir::ErrorKind;
use omniroute_domain::resolve::Route;
use omniroute_provider::FailureKind;

use crate::attempt::{self, Attempted};
use crate::ctx::RequestCtx;
use crate::error::GatewayError;
use crate::record::CLIENT_CLOSED_REQUEST;
use crate::telemetry::{Pulse, Running};

/// The code of the error.
const CODE: &str = "request_cancelled";
/// Class of an attempt that an operator ended.
const OPERATOR_ABORT: &str = "operator_abort";

/// Asks upstreams until one of them answers, or the request is cancelled.
pub(crate) async fn attempts(ctx: &mut RequestCtx, route: &Route) -> Result<Attempted, GatewayError> {
    let pulse = ctx.pulse().cloned();
    let attempted = {
        let run = pin!(attempt::run(ctx, route));
        Unless { pulse: pulse.as_deref(), future: run }.await
    };
    attempted.unwrap_or_else(|| Err(end(ctx)))
}

/// A future that is given up, with `None`, when its request is cancelled.
pub(crate) struct Unless<'a, F> {
    pub(crate) pulse: Option<&'a Pulse>,
    pub(crate) future: Pin<&'a mut F>,
}

impl<F: Future> Future for Unless<'_, F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if self.pulse.is_some_and(Pulse::is_cancelled) {
            return Poll::Ready(None);
        }
        match self.future.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending => match self.pulse {
                Some(pulse) if pulse.is_cancelled_or_wake(cx.waker()) => Poll::Ready(None),
                _ => Poll::Pending,
            },
        }
    }
}

/// Ends a request whose calls have been dropped. SDKs do not repeat its status (they do 408, 409, 429 and 5xx), so what an
/// operator ends does not come back at once.
pub(crate) fn end(ctx: &mut RequestCtx) -> GatewayError {
    ctx.gather();
    let aborted = Some(FailureKind::ClientAbort.as_str());
    for attempt in &mut ctx.attempts {
        // A status of that kind is an upstream's own word.
        if attempt.failure == aborted && attempt.status != Some(CLIENT_CLOSED_REQUEST) {
            attempt.failure = Some(OPERATOR_ABORT);
        }
    }
    GatewayError::new(ErrorKind::Cancelled, CODE, "an operator of the gateway cancelled this request")
}

impl RequestCtx {
    /// What is told of the request while it runs; `None` of those that the gateway makes for itself.
    pub(crate) fn pulse(&self) -> Option<&Arc<Pulse>> {
        self.running.as_ref().map(Running::pulse)
    }

    /// Whether the request is to end.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.pulse().is_some_and(|pulse| pulse.is_cancelled())
    }

    /// The same, for who is about to wait.
    pub(crate) fn is_cancelled_or_wake(&self, cx: &Context<'_>) -> bool {
        self.pulse().is_some_and(|pulse| pulse.is_cancelled_or_wake(cx.waker()))
    }
}
