//! Calls over the network: one pool of connections, addresses checked after DNS.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::OnceLock;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::header::HOST;
use http::{Request, Response, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use omniroute_provider::address;
use tower::{BoxError, Service};

use crate::answer::Outgoing;
use crate::ports::{OutboundCall, Transport, TransportError, UpstreamBody};

/// How long an unused connection is kept.
const IDLE: Duration = Duration::from_secs(90);
/// Most unused connections kept per host.
const MAX_IDLE_PER_HOST: usize = 512;

type PlainClient = Client<Limited<HttpConnector<CheckedResolver>>, Outgoing>;
type TlsClient = Client<Limited<HttpsConnector<HttpConnector<CheckedResolver>>>, Outgoing>;

/// The network.
pub struct NetworkTransport {
    /// For public addresses only.
    public: Pools,
    /// For connections that may call private addresses.
    private: Pools,
}

struct Pools {
    allow_private: bool,
    connect_timeout: Duration,
    plain: PlainClient,
    /// Made on the first encrypted call, since reading the system's certificates takes longer than a start should.
    tls: OnceLock<Result<TlsClient, String>>,
}

impl NetworkTransport {
    /// Empty pools. `connect_timeout` limits DNS, TCP and TLS together.
    pub fn new(connect_timeout: Duration) -> Self {
        Self { public: Pools::new(false, connect_timeout), private: Pools::new(true, connect_timeout) }
    }

    /// Reads the system's certificates now, so that the first encrypted call need not.
    pub fn warm_up(&self) {
        self.public.tls().ok();
    }
}

impl Pools {
    fn new(allow_private: bool, connect_timeout: Duration) -> Self {
        let connector = Limited { inner: connector(allow_private, connect_timeout), limit: connect_timeout };
        let plain = builder().build(connector);
        Self { allow_private, connect_timeout, plain, tls: OnceLock::new() }
    }

    fn tls(&self) -> Result<&TlsClient, TransportError> {
        let made = self.tls.get_or_init(|| {
            let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
            let https = HttpsConnectorBuilder::new()
                .with_provider_and_native_roots(provider)
                .map_err(|error| format!("the system's certificates cannot be read: {error}"))?
                .https_only()
                .enable_all_versions()
                .wrap_connector(connector(self.allow_private, self.connect_timeout));
            Ok(builder().build(Limited { inner: https, limit: self.connect_timeout }))
        });
        made.as_ref()
            .map_err(|reason| TransportError::Connect { host: "any host".into(), reason: reason.clone() })
    }
}

fn builder() -> hyper_util::client::legacy::Builder {
    let mut builder = Client::builder(TokioExecutor::new());
    builder
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE)
        .pool_max_idle_per_host(MAX_IDLE_PER_HOST)
        .http1_max_headers(256)
        .http2_adaptive_window(true);
    builder
}

fn connector(allow_private: bool, connect_timeout: Duration) -> HttpConnector<CheckedResolver> {
    let mut connector = HttpConnector::new_with_resolver(CheckedResolver { allow_private });
    connector.set_nodelay(true);
    connector.enforce_http(false);
    connector.set_connect_timeout(Some(connect_timeout));
    connector
}

impl Transport for NetworkTransport {
    fn send(&self, call: OutboundCall) -> BoxFuture<'_, Result<Response<UpstreamBody>, TransportError>> {
        async move {
            let OutboundCall { method, uri, headers, body, allow_private } = call;
            let host = uri.host().unwrap_or_default().to_owned();
            if let Some(ip) = address::host_literal(&uri) {
                address::verdict(ip, allow_private).map_err(TransportError::AddressBlocked)?;
            }
            let is_encrypted = uri.scheme_str() == Some("https");
            let mut request = Request::new(Outgoing::new(body));
            *request.method_mut() = method;
            *request.uri_mut() = uri;
            *request.headers_mut() = headers;
            request.headers_mut().remove(HOST);
            let pools = if allow_private { &self.private } else { &self.public };
            let sent = if is_encrypted {
                pools.tls()?.request(request).await
            } else {
                pools.plain.request(request).await
            };
            match sent {
                Ok(response) => Ok(response.map(UpstreamBody::Network)),
                Err(error) => Err(read_error(host, &error)),
            }
        }
        .boxed()
    }
}

fn read_error(host: String, error: &hyper_util::client::legacy::Error) -> TransportError {
    let mut reason = String::new();
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(inner) = cause {
        if let Some(blocked) = inner.downcast_ref::<AddressRefused>() {
            return TransportError::AddressBlocked(blocked.0);
        }
        if let Some(late) = inner.downcast_ref::<ConnectTimedOut>() {
            let limit_ms = u64::try_from(late.0.as_millis()).unwrap_or(u64::MAX);
            return TransportError::ConnectTimeout { host, limit_ms };
        }
        reason = inner.to_string();
        cause = inner.source();
    }
    if error.is_connect() {
        TransportError::Connect { host, reason }
    } else {
        TransportError::Broken { host, reason }
    }
}

/// DNS whose answers are checked before anything connects to them.
#[derive(Debug, Clone, Copy)]
struct CheckedResolver {
    allow_private: bool,
}

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct AddressRefused(address::Blocked);

#[derive(Debug, thiserror::Error)]
#[error("no connection within {0:?}")]
struct ConnectTimedOut(Duration);

impl Service<Name> for CheckedResolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let allow_private = self.allow_private;
        async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let mut refused = None;
            let allowed: Vec<SocketAddr> = found
                .into_iter()
                .filter(|address| match address::verdict(address.ip(), allow_private) {
                    Ok(()) => true,
                    Err(blocked) => {
                        refused = Some(blocked);
                        false
                    }
                })
                .collect();
            match (allowed.is_empty(), refused) {
                (true, Some(why)) => Err(AddressRefused(why).into()),
                (true, None) => {
                    Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address").into())
                }
                (false, _) => Ok(allowed.into_iter()),
            }
        }
        .boxed()
    }
}

/// A connector with one limit for all that it does.
#[derive(Debug, Clone)]
struct Limited<C> {
    inner: C,
    limit: Duration,
}

impl<C> Service<Uri> for Limited<C>
where
    C: Service<Uri>,
    C::Error: Into<BoxError>,
    C::Future: Send + 'static,
    C::Response: Send + 'static,
{
    type Response = C::Response;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<C::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let (connecting, limit) = (self.inner.call(uri), self.limit);
        Box::pin(async move {
            match tokio::time::timeout(limit, connecting).await {
                Ok(connected) => connected.map_err(Into::into),
                Err(_) => Err(ConnectTimedOut(limit).into()),
            }
        })
    }
}
