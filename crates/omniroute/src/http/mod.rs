//! The rim: connections in, requests to where they belong. The stage *accept* of a request is here.
//!
//! Client routes go straight to the engine; everything else goes to the management router.

mod arriving;
mod body;
mod cors;
mod explainer;
mod form;
mod listen;
mod models;
mod page;
mod refusal;
mod routes;
mod socket;
mod upload;

use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, ETAG, FORWARDED};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use ipnet::IpNet;
use omniroute_admin::Client;
use omniroute_dialect::ir::ErrorKind;
use omniroute_engine::{Answer, Arrival, Engine, GatewayError, RequestCtx};
use tower::ServiceExt as _;

pub(crate) use explainer::{Built, Explainer};
pub(crate) use listen::serve;
pub(crate) use routes::{document, endpoints};

use self::arriving::Arriving;
use self::cors::Cors;
use self::form::{PicturesForm, RecordingForm};
use self::routes::{Found, Operation, Route};
use crate::settings::DEFAULT_MAX_BODY;

/// Most bytes of a request for embeddings where no limit is set.
const MAX_EMBED_BYTES: usize = 10 * 1024 * 1024;

/// Everything a connection needs.
pub(crate) struct Gateway {
    pub(crate) engine: Arc<Engine>,
    pub(crate) admin: axum::Router,
    pub(crate) max_body_bytes: usize,
    trusted_proxies: Vec<IpNet>,
    cors: Cors,
}

/// What a listener serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// Everything.
    Both,
    /// Client routes.
    Clients,
    /// Everything else.
    Management,
}

/// The body of any answer.
#[allow(
    clippy::large_enum_variant,
    reason = "clients' answers are what it is for; a box would cost each an allocation"
)]
pub(crate) enum RimBody {
    /// Of a client route.
    Client(Answer),
    /// Of a management route.
    Admin(axum::body::Body),
}

impl Gateway {
    /// `trusted_proxies` may name the client they forward for.
    pub(crate) fn new(
        engine: Arc<Engine>,
        admin: axum::Router,
        max_body_bytes: usize,
        trusted_proxies: Vec<IpNet>,
    ) -> Self {
        let cors = Cors::new(&engine.options.cors_origins);
        Self { engine, admin, max_body_bytes, trusted_proxies, cors }
    }

    /// Answers one request.
    pub(crate) async fn handle(
        &self,
        request: Request<Incoming>,
        peer: SocketAddr,
        side: Side,
    ) -> Response<RimBody> {
        let (request, fate) = Arriving::watch(request);
        let decoded = percent_encoding::percent_decode_str(request.uri().path()).decode_utf8_lossy();
        let path = routes::normal_form(&decoded);
        let mut response = match find(&path, request.method(), side) {
            Found::Elsewhere => self.manage(request, peer).await,
            Found::Route(route) => {
                let path = Arc::<str>::from(&*path);
                let route = route.for_client(request.headers());
                let origin = request.headers().get(http::header::ORIGIN).cloned();
                let mut response = self.client(request, peer, route, path).await;
                self.cors.allow(origin.as_ref(), response.headers_mut());
                response.map(RimBody::Client)
            }
        };
        fate.tell(response.headers_mut());
        response
    }

    async fn client(
        &self,
        request: Request<Arriving>,
        peer: SocketAddr,
        route: Route,
        path: Arc<str>,
    ) -> Response<Answer> {
        if let Operation::Preflight { methods } = route.operation {
            let mut response = self.cors.preflight(methods);
            self.identify(request.headers(), response.headers_mut());
            return response;
        }
        let (mut parts, body) = request.into_parts();
        let peer = self.client_of(peer, &mut parts.headers);
        let arrival = Arrival {
            peer,
            method: parts.method,
            path,
            query: parts.uri.query().map(str::to_owned),
            headers: parts.headers,
            dialect: route.dialect,
            endpoint: route.endpoint,
            provider: route.provider,
            is_logged: matches!(
                route.operation,
                Operation::Chat
                    | Operation::Count
                    | Operation::Embed { .. }
                    | Operation::Images { .. }
                    | Operation::Speech
                    | Operation::Transcribe { .. }
                    | Operation::Kept { .. }
            ),
        };
        let mut ctx = self.engine.begin(arrival);
        match &route.operation {
            Operation::Chat
            | Operation::Count
            | Operation::Show
            | Operation::Embed { .. }
            | Operation::Images { .. }
            | Operation::Speech
            | Operation::Transcribe { .. } => {}
            Operation::NotFound => return self.no_such_path(ctx),
            Operation::Gone { instead } => return self.gone(ctx, instead),
            Operation::MethodNotAllowed { methods } => return self.wrong_method(ctx, methods),
            Operation::Models
            | Operation::ModelsFor(_)
            | Operation::Model { .. }
            | Operation::Loaded
            | Operation::Version => {
                if let Err(error) = self.engine.identify(&mut ctx) {
                    return self.engine.refuse(ctx, &error);
                }
                return self.models(ctx, &route.operation);
            }
            Operation::Kept { id, call } => {
                return match self.engine.identify(&mut ctx) {
                    Ok(()) => self.engine.kept(ctx, id, *call).await,
                    Err(error) => self.engine.refuse(ctx, &error),
                };
            }
            Operation::Preflight { .. } => unreachable!("answered above"),
        }
        if let Err(error) = self.engine.identify(&mut ctx) {
            return self.engine.refuse(ctx, &error);
        }
        if let Operation::Transcribe { translates } = route.operation {
            let form = RecordingForm::new(translates);
            return match upload::read(&ctx.arrival.headers, body, form).await {
                Ok(recording) => self.engine.transcribe(ctx, recording).await,
                Err(error) => self.engine.refuse(ctx, &error),
            };
        }
        if route.operation == (Operation::Images { edits: true }) && upload::is_form(&ctx.arrival.headers) {
            return match upload::read(&ctx.arrival.headers, body, PicturesForm::default()).await {
                Ok(form) => self.engine.edit_form(ctx, form).await,
                Err(error) => self.engine.refuse(ctx, &error),
            };
        }
        let limit = match route.operation {
            // Whoever sets a limit means it.
            Operation::Embed { .. } if self.max_body_bytes == DEFAULT_MAX_BODY => MAX_EMBED_BYTES,
            _ => self.max_body_bytes,
        };
        match body::read(&ctx.arrival.headers, body, limit).await {
            Err(error) => self.engine.refuse(ctx, &error),
            Ok(body) => match route.operation {
                Operation::Count => self.engine.count(ctx, body).await,
                Operation::Show => match models::ollama::show(&ctx, &body) {
                    Ok(shown) => self.engine.reply(ctx, StatusCode::OK, shown),
                    Err(error) => self.engine.refuse(ctx, &error),
                },
                Operation::Images { edits: false } => self.engine.images(ctx, body).await,
                Operation::Images { edits: true } => self.engine.edit_named(ctx, body).await,
                Operation::Speech => self.engine.speech(ctx, body).await,
                Operation::Embed { form, model } => self.engine.embeddings(ctx, body, form, model).await,
                _ => self.engine.serve(ctx, body).await,
            },
        }
    }

    /// Whom a request comes from: the peer, or whom a trusted proxy names. What such a proxy said is used up here; what
    /// anybody else says stays, as a sign that the peer is not the client.
    fn client_of(&self, peer: SocketAddr, headers: &mut HeaderMap) -> SocketAddr {
        let is_trusted = |peer: IpAddr| self.trusted_proxies.iter().any(|network| network.contains(&peer));
        if self.trusted_proxies.is_empty() || !is_trusted(peer.ip().to_canonical()) {
            return peer;
        }
        let client = Client::of(omniroute_admin::Peer(peer), headers, &self.trusted_proxies);
        headers.remove("x-forwarded-for");
        headers.remove(FORWARDED);
        SocketAddr::new(client.ip, peer.port())
    }

    fn models(&self, ctx: Box<RequestCtx>, operation: &Operation) -> Response<Answer> {
        let shape = routes::lists(ctx.dialect());
        let listed = match operation {
            Operation::Model { id } => models::one(&ctx, id, shape),
            Operation::Loaded => Ok(models::ollama::loaded()),
            Operation::Version => Ok(models::ollama::version()),
            Operation::ModelsFor(capability) => models::list(&ctx, shape, Some(*capability)),
            _ => models::list(&ctx, shape, None),
        };
        let body = match listed {
            Ok(body) => body,
            Err(error) => return self.engine.refuse(ctx, &error),
        };
        let etag = models::etag(&body);
        let is_known = models::is_known(&ctx.arrival.headers, &etag);
        let (status, body) =
            if is_known { (StatusCode::NOT_MODIFIED, Bytes::new()) } else { (StatusCode::OK, body) };
        let mut response = self.engine.reply(ctx, status, body);
        response.headers_mut().insert(ETAG, etag);
        response
    }

    fn no_such_path(&self, ctx: Box<RequestCtx>) -> Response<Answer> {
        let error = omniroute_engine::serve::no_such_path(&ctx.arrival.path);
        self.engine.refuse(ctx, &error)
    }

    fn gone(&self, ctx: Box<RequestCtx>, instead: &str) -> Response<Answer> {
        let message = format!("no vendor has `{}` any more; {instead}", ctx.arrival.path);
        self.engine.refuse(ctx, &GatewayError::new(ErrorKind::NotFound, "not_found", message))
    }

    fn wrong_method(&self, ctx: Box<RequestCtx>, methods: &'static str) -> Response<Answer> {
        let message = format!("`{}` takes {methods}, not {}", ctx.arrival.path, ctx.arrival.method);
        let error = GatewayError::new(ErrorKind::MethodNotAllowed, "method_not_allowed", message);
        let mut response = self.engine.refuse(ctx, &error);
        response.headers_mut().insert(ALLOW, HeaderValue::from_static(methods));
        response
    }

    /// Names a request that no stage has seen.
    fn identify(&self, sent: &HeaderMap, answer: &mut HeaderMap) {
        if let Ok(id) = HeaderValue::from_str(&self.engine.request_id(sent)) {
            answer.insert("x-request-id", id);
        }
    }

    async fn manage(&self, request: Request<Arriving>, peer: SocketAddr) -> Response<RimBody> {
        if request.uri().path() == "/" && matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut response = Response::new(RimBody::Client(Answer::full(page::render(&self.engine))));
            self.identify(request.headers(), response.headers_mut());
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
            response.headers_mut().insert(
                "content-security-policy",
                HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'"),
            );
            return response;
        }
        let mut request = request.map(axum::body::Body::new);
        request.extensions_mut().insert(omniroute_admin::Peer(peer));
        let response = match self.admin.clone().oneshot(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        };
        response.map(RimBody::Admin)
    }
}

/// Where a path in normal form belongs on that side.
fn find(path: &str, method: &Method, side: Side) -> Found {
    match (routes::find(path, method), side) {
        (Found::Elsewhere, Side::Clients) if path != "/" => Found::Route(routes::nowhere()),
        (Found::Route(_), Side::Management) => Found::Elsewhere,
        (found, _) => found,
    }
}

impl Body for RimBody {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        match &mut *self {
            Self::Client(body) => Pin::new(body).poll_frame(cx),
            Self::Admin(body) => Pin::new(body)
                .poll_frame(cx)
                .map(|frame| frame.map(|result| result.map_err(std::io::Error::other))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Client(body) => body.is_end_stream(),
            Self::Admin(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Client(body) => body.size_hint(),
            Self::Admin(body) => body.size_hint(),
        }
    }
}
