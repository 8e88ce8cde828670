//! One attempt of a task at one account: what it may do, and how its failures are judged.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderMap, Method, Response, StatusCode, Uri};
use omniroute_dialect::ir::{ErrorKind, Loss, UpstreamError};
use omniroute_dialect::{error_in_success, registry};
use omniroute_domain::health::InFlight;
use omniroute_domain::price::Units;
use omniroute_domain::resolve::Target;
use omniroute_domain::snapshot::ConnectionState;
use omniroute_provider::{Failure, Retry, Scope, Service};
use omniroute_wire::splice::Pieces;
use tokio::time::timeout;

use super::{Done, Live, Performed, check};
use crate::attempt::{
    Attempted, Fault, begin_stream, judged, note_success, open_row, read_refusal, read_whole,
    transport_failure,
};
use crate::ctx::{MAX_LOSSES, RequestCtx};
use crate::error::GatewayError;
use crate::limits;
use crate::money;
use crate::ports::{Attachment, OutboundCall, UpstreamBody};
use crate::time::seconds;

/// One attempt at one account.
pub(crate) struct Call<'a> {
    ctx: &'a mut RequestCtx,
    /// Who is asked for which model.
    pub(crate) target: &'a Arc<Target>,
    /// With which account.
    pub(crate) connection: &'a Arc<ConnectionState>,
    /// How.
    pub(crate) service: &'a Service,
    sent: Instant,
}

/// What is sent: bytes, and files behind them if there are any.
#[derive(Clone, Default)]
pub(crate) struct Payload {
    pub(crate) body: Pieces,
    pub(crate) attachment: Option<Box<Attachment>>,
}

impl From<Pieces> for Payload {
    fn from(body: Pieces) -> Self {
        Self { body, attachment: None }
    }
}

impl From<Bytes> for Payload {
    fn from(body: Bytes) -> Self {
        Self::from(std::iter::once(body).collect::<Pieces>())
    }
}

/// A failure that is the request's own: another account of the same vendor would fail at it as well.
pub(crate) fn own_failure(failure: Failure) -> Fault {
    let failure = Failure { scope: Scope::Request, retry: Retry::OtherModel, ..failure };
    let status = failure.upstream.status.and_then(|status| StatusCode::from_u16(status).ok());
    Fault::Upstream(Box::new(failure), status)
}

/// Makes one attempt of the request's task.
pub(crate) async fn once(
    ctx: &mut RequestCtx,
    target: &Arc<Target>,
    connection: &Arc<ConnectionState>,
    place: InFlight,
    sent: Instant,
) -> Result<Attempted, Fault> {
    if !ctx.holds_money() {
        return Err(money::nothing_held().into());
    }
    let Some(mut job) = ctx.task.take() else {
        let message = "a request without a task was carried out as one; this is a bug of the gateway";
        return Err(GatewayError::new(ErrorKind::Internal, "internal_server_error", message).into());
    };
    let capability = job.task.capability();
    ctx.performing = Some(capability);
    let result = match connection.service(capability) {
        None => Err(check::not_able(ctx, target, capability).into()),
        Some(service) => {
            ctx.upstream_dialect = service.dialect.chat_dialect();
            let call = Call { ctx: &mut *ctx, target, connection, service, sent };
            job.task.perform(call).await
        }
    };
    let result = match result {
        Ok(Performed::Whole(done)) => {
            let Done { body, content_type, headers, usage, is_estimated, units } = *done;
            ctx.outcome.usage = usage;
            ctx.outcome.usage_estimated |= is_estimated;
            ctx.outcome.units = Some(Box::new(units)).filter(|units| units.named().next().is_some());
            job.head = Some((content_type, headers));
            note_success(ctx, target, connection, Some(StatusCode::OK), sent);
            drop(place);
            Ok(Attempted::Whole(Box::new(body)))
        }
        Ok(Performed::Live(live)) => {
            let Live { headers, body, pipe } = *live;
            begin_stream(ctx, target, connection, place, &headers, body, pipe, sent)
                .await
                .map(|start| Attempted::Stream(Box::new(start)))
        }
        Err(fault) => Err(fault),
    };
    (ctx.task, ctx.performing) = (Some(job), None);
    result
}

impl Call<'_> {
    /// The request that this is an attempt for.
    pub(crate) fn ctx(&self) -> &RequestCtx {
        self.ctx
    }

    /// The headers that every call of the service has.
    pub(crate) fn headers(&self) -> HeaderMap {
        HeaderMap::clone(&self.service.headers)
    }

    /// The service's own address.
    pub(crate) fn uri(&self) -> Result<Uri, GatewayError> {
        self.service.uri(&self.target.model).map_err(|error| self.bad_uri(&error.to_string()))
    }

    /// The service's address for what stands there for a model.
    pub(crate) fn uri_for(&self, place: &str) -> Result<Uri, GatewayError> {
        self.service.uri(place).map_err(|error| self.bad_uri(&error.to_string()))
    }

    /// The address of what the vendor has beside it.
    pub(crate) fn uri_ending(&self, from: &str, to: &str) -> Result<Uri, GatewayError> {
        let uri = self.service.uri_ending(&self.target.model, from, to);
        uri.map_err(|error| self.bad_uri(&error.to_string()))
    }

    fn bad_uri(&self, reason: &str) -> GatewayError {
        let message = format!("`{}` does not fit the URL: {reason}", self.target.model);
        GatewayError::new(ErrorKind::InvalidRequest, "invalid_model", message).param("model")
    }

    /// Sends a JSON document to an address and reads the answer.
    pub(crate) async fn post(&mut self, uri: Uri, body: Pieces) -> Result<Bytes, Fault> {
        let headers = self.headers();
        let response = self.send(Method::POST, uri, headers, body).await?;
        self.read_json(response).await
    }

    /// A JSON document. An error in it is a failure, whatever the status says.
    pub(crate) async fn read_json(&mut self, response: Response<UpstreamBody>) -> Result<Bytes, Fault> {
        let (head, body) = response.into_parts();
        let bytes = self.read(body).await?;
        self.check_json(&bytes, &head.headers)?;
        Ok(bytes)
    }

    /// Whether the document of a good answer is none but an error.
    pub(crate) fn check_json(&self, body: &[u8], headers: &HeaderMap) -> Result<(), Fault> {
        let Some(error) = error_in_success(body) else { return Ok(()) };
        let status = error.status.and_then(|status| StatusCode::from_u16(status).ok());
        Err(self.judge(error, status.unwrap_or(StatusCode::BAD_GATEWAY), headers))
    }

    /// Sends a request and waits for the head of a good answer; everything else is a failure. An attempt may send several.
    pub(crate) async fn send(
        &mut self,
        method: Method,
        uri: Uri,
        headers: HeaderMap,
        body: impl Into<Payload>,
    ) -> Result<Response<UpstreamBody>, Fault> {
        if self.ctx.outcome.calling.is_none() {
            if let Some(running) = &self.ctx.running {
                running.routed(self.target.provider.id.as_str(), self.connection.id.as_str());
            }
            open_row(self.ctx, self.target, self.connection, self.sent);
            self.ctx.outcome.sent.get_or_insert(self.sent);
        }
        let Payload { body, attachment } = body.into();
        let call = OutboundCall {
            method,
            uri,
            headers,
            body,
            attachment,
            allow_private: self.connection.allow_private,
            departure: self.ctx.outcome.departure.clone(),
        };
        let engine = self.ctx.engine.clone();
        let limit = self.ctx.within(engine.options.first_byte_timeout);
        self.ctx.copy_call(&call);
        let response = match timeout(limit, engine.transport.send(call)).await {
            Err(_) => {
                return Err(Failure::timeout(&format!("no answer within {}", seconds(limit))).into());
            }
            Ok(Err(error)) => return Err(transport_failure(&error).into()),
            Ok(Ok(response)) => self.ctx.copy_answer(response),
        };
        limits::learn(self.ctx, self.target, self.connection, response.headers());
        let now = engine.clock.instant();
        self.ctx.outcome.first_event.get_or_insert(now);
        if response.status().is_success() {
            self.ctx.outcome.head.get_or_insert(now);
            self.ctx.outcome.departure.note();
            return Ok(response);
        }
        let (head, body) = response.into_parts();
        let bytes = read_refusal(self.ctx, body).await;
        // Errors are read alike in all dialects.
        let dialect = self.service.dialect.chat_dialect().unwrap_or(registry::DIALECTS[0].id());
        let error = registry::by_id(dialect).decode_error(head.status, &bytes);
        Err(self.judge(error, head.status, &head.headers))
    }

    /// A whole body, within the limits of an answer.
    pub(crate) async fn read(&self, body: UpstreamBody) -> Result<Bytes, Fault> {
        read_whole(self.ctx, body).await
    }

    /// What an error of the upstream means.
    pub(crate) fn judge(&self, error: UpstreamError, status: StatusCode, headers: &HeaderMap) -> Fault {
        judged(self.ctx, self.target, error, status, headers)
    }

    /// Notes that the attempt goes to another model than the one that was resolved, so that it is billed as that.
    pub(crate) fn note_model(&mut self, model: &str) {
        if let Some(row) = self.ctx.attempts.last_mut() {
            row.model = model.into();
        }
    }

    /// Notes what was used so far, for when a later step of the attempt fails or the client goes away.
    pub(crate) fn note_used(&mut self, usage: omniroute_dialect::ir::Usage, units: Units) {
        self.ctx.outcome.usage = usage;
        self.ctx.outcome.units = Some(Box::new(units)).filter(|units| units.named().next().is_some());
    }

    /// Notes what cannot be carried to the upstream as it was asked for, in place of what was noted for an earlier one.
    /// Whoever asked for strictness is refused.
    pub(crate) fn note_losses(&mut self, losses: Vec<Loss>) -> Result<(), GatewayError> {
        self.ctx.losses = losses;
        self.ctx.losses.truncate(MAX_LOSSES);
        crate::prepare::refuse_if_strict(self.ctx, self.target)
    }
}
