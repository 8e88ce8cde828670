//! Connections: DNS whose answers are checked before anything connects to them, TCP without delay, TLS.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::client::legacy::connect::{Connection as _, HttpConnector};
use hyper_util::rt::TokioIo;
use omniroute_provider::address;
use tokio::net::TcpStream;
use tower::{BoxError, Service, ServiceExt as _};

use super::pool::Origin;
use crate::ports::TransportError;

/// An open connection.
pub(super) struct Opened {
    pub(super) stream: Stream,
    /// Whether both sides agreed on HTTP/2.
    pub(super) is_http2: bool,
}

/// A socket, encrypted or not.
pub(super) type Stream = MaybeHttpsStream<TokioIo<TcpStream>>;

type Tcp = HttpConnector<CheckedResolver>;

/// Opens connections.
pub(super) struct Connector {
    public: Paths,
    private: Paths,
    limit: Duration,
}

/// The ways to one kind of address.
struct Paths {
    plain: Tcp,
    /// Made when first needed: reading the system's certificates takes longer than a start should.
    encrypted: OnceLock<Result<HttpsConnector<Tcp>, String>>,
}

impl Connector {
    pub(super) fn new(limit: Duration) -> Self {
        Self { public: Paths::new(false, limit), private: Paths::new(true, limit), limit }
    }

    pub(super) fn warm_up(&self) {
        self.public.encrypted().ok();
    }

    pub(super) async fn open(&self, origin: &Origin) -> Result<Opened, TransportError> {
        let paths = if origin.allow_private() { &self.private } else { &self.public };
        let uri = origin.uri();
        if !origin.is_encrypted() {
            let socket = self.within_limit(origin, paths.plain.clone().oneshot(uri)).await?;
            return Ok(Opened { stream: MaybeHttpsStream::Http(socket), is_http2: false });
        }
        let reason = |reason| TransportError::Connect { host: origin.host().to_owned(), reason };
        let encrypted = paths.encrypted().map_err(reason)?.clone();
        let stream = self.within_limit(origin, encrypted.oneshot(uri)).await?;
        let is_http2 = stream.connected().is_negotiated_h2();
        Ok(Opened { stream, is_http2 })
    }

    async fn within_limit<T, E: Into<BoxError>>(
        &self,
        origin: &Origin,
        connecting: impl Future<Output = Result<T, E>>,
    ) -> Result<T, TransportError> {
        let host = || origin.host().to_owned();
        match tokio::time::timeout(self.limit, connecting).await {
            Ok(Ok(connected)) => Ok(connected),
            Ok(Err(error)) => Err(read_error(host(), &*error.into())),
            Err(_) => {
                let limit_ms = u64::try_from(self.limit.as_millis()).unwrap_or(u64::MAX);
                Err(TransportError::ConnectTimeout { host: host(), limit_ms })
            }
        }
    }
}

impl Paths {
    fn new(allow_private: bool, limit: Duration) -> Self {
        let mut plain = HttpConnector::new_with_resolver(CheckedResolver { allow_private });
        plain.set_nodelay(true);
        plain.enforce_http(false);
        plain.set_connect_timeout(Some(limit));
        Self { plain, encrypted: OnceLock::new() }
    }

    fn encrypted(&self) -> Result<&HttpsConnector<Tcp>, String> {
        let made = self.encrypted.get_or_init(|| {
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let builder = HttpsConnectorBuilder::new()
                .with_provider_and_native_roots(provider)
                .map_err(|error| format!("the system's certificates cannot be read: {error}"))?;
            Ok(builder.https_only().enable_all_versions().wrap_connector(self.plain.clone()))
        });
        made.as_ref().map_err(Clone::clone)
    }
}

/// The innermost cause says what happened.
fn read_error(host: String, error: &(dyn std::error::Error + 'static)) -> TransportError {
    let mut cause = error;
    loop {
        if let Some(refused) = cause.downcast_ref::<AddressRefused>() {
            return TransportError::AddressBlocked(refused.0);
        }
        match cause.source() {
            Some(inner) => cause = inner,
            None => return TransportError::Connect { host, reason: cause.to_string() },
        }
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
            let mut refused = None;
            let mut allowed = Vec::new();
            for address in tokio::net::lookup_host((name.as_str(), 0)).await? {
                match address::verdict(address.ip(), allow_private) {
                    Ok(()) => allowed.push(address),
                    Err(blocked) => refused = Some(blocked),
                }
            }
            match refused {
                Some(blocked) if allowed.is_empty() => Err(AddressRefused(blocked).into()),
                _ if allowed.is_empty() => Err("the name has no address".into()),
                _ => Ok(allowed.into_iter()),
            }
        }
        .boxed()
    }
}
