//! From a task to its answer: the stages of a request, with a task in the place of a conversation.

use std::sync::Arc;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use omniroute_dialect::Envelope;
use omniroute_dialect::ir::ErrorKind;
use omniroute_domain::resolve::Route;
use omniroute_wire::splice::Pieces;

use super::{Job, Task, check};
use crate::admit;
use crate::answer::Answer;
use crate::answer_head::{USAGE, diagnostics};
use crate::attempt::Attempted;
use crate::cancel;
use crate::ctx::RequestCtx;
use crate::error::GatewayError;
use crate::resolve;
use crate::reuse::{self, Joined};
use crate::serve::{Engine, clip};

impl Engine {
    /// Carries out a task whose caller is known. `body` is what the client sent, as far as it tells one request from
    /// another; `model` is what it asked for.
    pub(crate) async fn perform(
        self: &Arc<Self>,
        mut ctx: Box<RequestCtx>,
        body: Bytes,
        model: String,
        task: Box<dyn Task>,
    ) -> Response<Answer> {
        let route = match open(&mut ctx, body, model, task) {
            Ok(route) => route,
            Err(error) => return self.refuse(ctx, &error),
        };
        if let Some(body) = ctx.task.as_ref().and_then(|job| job.task.in_place()) {
            ctx.led_to(&route);
            return self.reply(ctx, StatusCode::OK, body);
        }
        match reuse::join(self, ctx, &route).await {
            Joined::Answered(response) => response,
            Joined::Alone(ctx) => Box::pin(self.answer_task(ctx, route)).await,
            Joined::First(ctx, lead) => lead.leave(Box::pin(self.answer_task(ctx, route)).await),
        }
    }

    async fn answer_task(self: &Arc<Self>, mut ctx: Box<RequestCtx>, route: Route) -> Response<Answer> {
        if ctx.task.as_ref().is_some_and(|job| job.task.streams()) {
            return match admit::reserve(&mut ctx).await {
                Ok(()) => self.serve_stream(ctx, route).await,
                Err(error) => {
                    ctx.bar(route, "key", &error);
                    self.refuse(ctx, &error)
                }
            };
        }
        let pieces = match carry_out(&mut ctx, &route).await {
            Ok(pieces) => pieces,
            Err(error) => return self.refuse(ctx, &error),
        };
        ctx.outcome.status = Some(200);
        ctx.settle_money();
        ctx.copy_whole(&pieces);
        let mut response = Response::new(Answer::whole(pieces));
        let headers = response.headers_mut();
        *headers = HeaderMap::with_capacity(16);
        let (content_type, others) = ctx.task.as_mut().and_then(|job| job.head.take()).unwrap_or_default();
        headers.extend(others);
        headers.insert(CONTENT_TYPE, content_type.unwrap_or(HeaderValue::from_static("application/json")));
        if ctx.outcome.usage_estimated {
            headers.insert(USAGE, HeaderValue::from_static("estimated"));
        }
        diagnostics(&ctx, true, headers);
        response
    }
}

/// Everything up to the first upstream call.
pub(super) fn open(
    ctx: &mut RequestCtx,
    body: Bytes,
    model: String,
    task: Box<dyn Task>,
) -> Result<Route, GatewayError> {
    take_up(ctx, body, model, task);
    let telemetry = &ctx.engine.telemetry;
    let model = ctx.envelope.as_ref().map_or("", |envelope| &envelope.model);
    ctx.running = Some(telemetry.begin(&ctx.request_id, model, false, ctx.started_ms));
    route(ctx)
}

/// The request is for this task.
pub(super) fn take_up(ctx: &mut RequestCtx, body: Bytes, model: String, task: Box<dyn Task>) {
    ctx.set_body(body);
    ctx.task = Some(Job::new(task));
    let framing = ctx.dialect().framing();
    clip(&mut ctx.envelope.insert(Envelope::of_model(model, framing)).model);
}

/// Where a task leads; checked against the key, and against what a direct target can do.
pub(crate) fn route(ctx: &mut RequestCtx) -> Result<Route, GatewayError> {
    let route = resolve::route(ctx).map_err(as_refusal)?;
    match check::check(ctx, &route) {
        Ok(()) => Ok(route),
        Err(error) => {
            ctx.bar(route, "capability", &error);
            Err(error)
        }
    }
}

/// Limits of the key, then the attempts.
pub(super) async fn carry_out(ctx: &mut RequestCtx, route: &Route) -> Result<Pieces, GatewayError> {
    if let Err(error) = admit::reserve(ctx).await {
        ctx.bar(route.clone(), "key", &error);
        return Err(error);
    }
    attempts(ctx, route).await
}

/// The attempts alone.
pub(super) async fn attempts(ctx: &mut RequestCtx, route: &Route) -> Result<Pieces, GatewayError> {
    match cancel::attempts(ctx, route).await? {
        Attempted::Whole(pieces) => Ok(*pieces),
        Attempted::Stream(_) => unreachable!("a stream is only begun for a client that asked for one"),
    }
}

/// A model that is not there is a mistake in the request here: these routes know their models.
fn as_refusal(mut error: GatewayError) -> GatewayError {
    if error.kind == ErrorKind::NotFound && error.code.as_deref() == Some("model_not_found") {
        error.kind = ErrorKind::InvalidRequest;
        error.code = Some("invalid_model".into());
    }
    error
}
