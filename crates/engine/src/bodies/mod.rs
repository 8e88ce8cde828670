//! What was said in a request, for the log. Copies are made where bytes pass by: the client's body and whole answers are
//! shared, streams are copied up to a limit. Who takes them down is behind [`Recorder::keep_bodies`]; whether anything is
//! kept at all is a setting, and where it is off a request carries an empty pointer.
//!
//! [`Recorder::keep_bodies`]: crate::ports::Recorder::keep_bodies

mod copied;

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderName};
use http::{HeaderMap, Method, Response, StatusCode, Uri};
use omniroute_dialect::DialectId;
use omniroute_domain::entity::{ApiKeyId, ConnectionId, KeepBodies};
use omniroute_domain::snapshot::Snapshot;
use omniroute_provider::ProviderId;

use crate::admit;
use crate::ctx::RequestCtx;
use crate::ports::{OutboundCall, RequestRow, RowId, UpstreamBody};

pub(crate) use copied::Room;
use copied::Sink;
pub use copied::{Copied, CopiedBody};

/// What a row of the log says of its bodies.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum BodyNote {
    /// The setting keeps none.
    #[default]
    Off,
    /// The client's key keeps none.
    NoLog,
    /// Only those of failures are kept, and this was none.
    Succeeded,
    /// The client did not say who it is, or it was no client's request.
    Unknown,
    /// There was no room for them.
    Shed,
    /// They are kept.
    Kept {
        /// By which process.
        at: Arc<str>,
        /// Whether the client sent a body.
        request: bool,
        /// Whether it got one.
        response: bool,
        /// Whether the last upstream's are there too.
        pipeline: bool,
    },
}

/// What was said in one request.
#[derive(Debug)]
pub struct RequestBodies {
    /// Its row.
    pub id: RowId,
    /// What the row says, in short.
    pub summary: BodySummary,
    /// What the client asked for beside the path.
    pub query: Option<String>,
    /// The client's headers.
    pub headers: HeaderMap,
    /// What the client sent.
    pub request: Copied,
    /// What it got.
    pub response: Copied,
    /// What was sent to the last upstream and what it answered, where that is kept.
    pub call: Option<Box<CallBodies>>,
    /// Knows the credentials that must not be written down.
    pub snapshot: Arc<Snapshot>,
}

impl RequestBodies {
    /// Bytes that wait with it.
    pub fn held(&self) -> usize {
        let call = self.call.as_ref().map_or(0, |call| call.request.held() + call.response.held());
        self.request.held() + self.response.held() + call
    }
}

/// What a row says, in short.
#[derive(Debug, Clone)]
pub struct BodySummary {
    /// The gateway's id of the request.
    pub request_id: Arc<str>,
    /// HTTP method.
    pub method: Method,
    /// Path, without the query.
    pub path: Arc<str>,
    /// What was asked for: `chat`, `embedding`, …
    pub request_type: &'static str,
    /// Status the client got.
    pub status: u16,
    /// Whether the client asked for a stream.
    pub stream: bool,
    /// Model the client asked for.
    pub requested_model: Arc<str>,
    /// Upstream model.
    pub model: Arc<str>,
    /// Provider of the last attempt.
    pub provider: Option<ProviderId>,
    /// Its account.
    pub connection: Option<ConnectionId>,
    /// The client's key.
    pub api_key: Option<ApiKeyId>,
    /// Dialect of the client.
    pub client_dialect: DialectId,
    /// Dialect of the upstream.
    pub upstream_dialect: Option<DialectId>,
    /// From arrival to the last byte.
    pub duration_ms: i64,
    /// Number of upstream attempts.
    pub attempts: usize,
    /// What went wrong in the end.
    pub error: Option<String>,
    /// Its code.
    pub error_code: Option<String>,
}

impl BodySummary {
    fn of(row: &RequestRow) -> Self {
        Self {
            request_id: row.request_id.clone(),
            method: row.method.clone(),
            path: row.path.clone(),
            request_type: row.request_type,
            status: row.status,
            stream: row.stream,
            requested_model: row.requested_model.clone(),
            model: row.model.clone(),
            provider: row.provider.clone(),
            connection: row.connection.clone(),
            api_key: row.api_key.clone(),
            client_dialect: row.client_dialect,
            upstream_dialect: row.upstream_dialect,
            duration_ms: row.duration_ms,
            attempts: row.attempts.len(),
            error: row.error.clone(),
            error_code: row.error_code.clone(),
        }
    }
}

/// One upstream call.
#[derive(Debug)]
pub struct CallBodies {
    /// HTTP method.
    pub method: Method,
    /// Where it was sent.
    pub uri: Uri,
    /// Its headers, credentials among them.
    pub headers: HeaderMap,
    /// Its body, without files behind it.
    pub request: Copied,
    /// Bytes of the files behind it.
    pub attached: u64,
    /// Status and headers of the answer; `None` where none came.
    pub head: Option<(StatusCode, HeaderMap)>,
    /// Its body, as far as it was read.
    pub response: Copied,
}

/// The copies of a request that is being served.
pub(crate) struct Copies {
    only_failures: bool,
    with_calls: bool,
    response: Copied,
    /// The call that was made last, and where its answer goes.
    call: Option<(Box<CallBodies>, Sink)>,
}

/// The last call of a branch that is gone.
pub(crate) type LeftCall = Option<Box<Copies>>;

impl RequestCtx {
    /// Decides whether copies are made. `is_known` says whether the client is who it says, and may call.
    pub(crate) fn begin_copies(&mut self, is_known: bool) {
        let settings = self.snapshot.settings.call_log_bodies;
        if settings.keep == KeepBodies::Off || !self.arrival.is_logged {
            return;
        }
        // A key that may not be used (any more) is still known, and its owner wants to see why.
        let refused = if is_known { None } else { admit::known_caller(self) };
        let is_silent = self.caller.as_ref().or(refused.as_ref()).is_some_and(|caller| caller.no_log);
        if is_silent || (!is_known && refused.is_none()) {
            return;
        }
        self.copies = Some(Box::new(Copies {
            only_failures: settings.keep == KeepBodies::Failures,
            with_calls: settings.pipeline,
            response: Copied::streamed(self.engine.copy_room.clone()),
            call: None,
        }));
    }

    /// The client gets this next.
    pub(crate) fn copy_part(&mut self, bytes: &Bytes) {
        if let Some(copies) = &mut self.copies {
            copies.response.push(bytes);
        }
    }

    /// The client gets this and nothing else.
    pub(crate) fn copy_whole(&mut self, pieces: &[Bytes]) {
        if let Some(copies) = &mut self.copies {
            copies.response = Copied::whole(pieces);
        }
    }

    /// This is sent to an upstream.
    pub(crate) fn copy_call(&mut self, call: &OutboundCall) {
        let Some(copies) = self.copies.as_mut().filter(|copies| copies.with_calls) else { return };
        let attached = call.attachment.as_ref().map_or(0, |attachment| {
            attachment.files.iter().map(|(file, behind)| file.len() + behind.len() as u64).sum()
        });
        let call = CallBodies {
            method: call.method.clone(),
            uri: call.uri.clone(),
            headers: call.headers.clone(),
            request: Copied::whole(&call.body),
            attached,
            head: None,
            response: Copied::default(),
        };
        copies.call = Some((Box::new(call), Sink::new(self.engine.copy_room.clone())));
    }

    /// And this is its answer, copied as far as it will be read.
    pub(crate) fn copy_answer(&mut self, response: Response<UpstreamBody>) -> Response<UpstreamBody> {
        let Some((call, sink)) = self.copies.as_mut().and_then(|copies| copies.call.as_mut()) else {
            return response;
        };
        call.head = Some((response.status(), response.headers().clone()));
        let sink = sink.clone();
        response.map(|body| UpstreamBody::Copied(Box::new(CopiedBody::new(body, sink))))
    }

    /// Copies for a branch of the request: its calls, since only the request has an answer.
    pub(crate) fn branch_copies(&self) -> Option<Box<Copies>> {
        let copies = self.copies.as_ref().filter(|copies| copies.with_calls)?;
        let &Copies { only_failures, with_calls, .. } = &**copies;
        Some(Box::new(Copies { only_failures, with_calls, response: Copied::default(), call: None }))
    }

    /// Whether there is a call of its own.
    pub(crate) fn has_copied_call(&self) -> bool {
        self.copies.as_ref().is_some_and(|copies| copies.call.is_some())
    }

    /// Takes over the last call of a branch.
    pub(crate) fn inherit_call(&mut self, branch: LeftCall) {
        if let (Some(mine), Some(theirs)) = (&mut self.copies, branch)
            && theirs.call.is_some()
        {
            mine.call = theirs.call;
        }
    }

    /// The request is over: hands its bodies on if they are kept, and says what became of them.
    pub(crate) fn leave_bodies(&mut self, row: &RequestRow) -> BodyNote {
        let Some(copies) = self.copies.take() else { return self.why_not() };
        let Copies { only_failures, with_calls: _, response, call } = *copies;
        if only_failures && row.status < 400 && row.error.is_none() {
            return BodyNote::Succeeded;
        }
        let call = call.map(|(mut call, sink)| {
            call.response = sink.take();
            call
        });
        let bodies = RequestBodies {
            id: row.id,
            summary: BodySummary::of(row),
            query: self.arrival.query.take(),
            request: self.copied_request(),
            headers: std::mem::take(&mut self.arrival.headers),
            response,
            call,
            snapshot: self.snapshot.clone(),
        };
        let (request, response) = (!bodies.request.is_empty(), !bodies.response.is_empty());
        let pipeline = bodies.call.is_some();
        match self.engine.recorder.keep_bodies(Box::new(bodies)) {
            Some(at) => BodyNote::Kept { at, request, response, pipeline },
            None => BodyNote::Shed,
        }
    }

    fn copied_request(&self) -> Copied {
        let headers = &self.arrival.headers;
        let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
        // Of a form with files only a digest is here, and the files may be on disk.
        let is_form = |kind: &str| {
            kind.trim_start().get(..10).is_some_and(|kind| kind.eq_ignore_ascii_case("multipart/"))
        };
        if text(CONTENT_TYPE).is_some_and(is_form) {
            return Copied::omitted(text(CONTENT_LENGTH).and_then(|length| length.parse().ok()).unwrap_or(0));
        }
        Copied::whole(std::slice::from_ref(&self.body))
    }

    fn why_not(&self) -> BodyNote {
        if self.snapshot.settings.call_log_bodies.keep == KeepBodies::Off {
            return BodyNote::Off;
        }
        // One that was refused is no caller, but may have said who it is.
        let refused = if self.caller.is_none() { admit::known_caller(self) } else { None };
        match self.caller.as_ref().or(refused.as_ref()) {
            Some(caller) if caller.no_log => BodyNote::NoLog,
            _ => BodyNote::Unknown,
        }
    }
}
