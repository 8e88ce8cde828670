//! Calls over the network.
//!
//! - `connect`: DNS whose answers are checked, TCP, TLS, with one limit for all of it.
//! - `pool`: connections that wait for their next request.
//! - `exchange`: one request over one connection.
//!
//! An HTTP/1 connection is driven by the task of the request that uses it, not by a task of its own: what the upstream
//! sends in one burst is read in one poll and goes to the client in one write, no other task has to be woken for it,
//! and dropping the request drops the connection. HTTP/2 connections are shared and so have a task each.

mod connect;
mod exchange;
mod pool;
mod sending;

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::header::{HOST, HeaderValue};
use http::{Response, Uri};
use omniroute_provider::address;

use crate::ports::{Clock, OutboundCall, Transport, TransportError, UpstreamBody};

pub use exchange::NetworkBody;

use connect::Connector;
use pool::{Origin, Pool};

/// The network.
pub struct NetworkTransport {
    connector: Connector,
    pool: Arc<Pool>,
}

impl NetworkTransport {
    /// Without connections yet. `connect_timeout` limits DNS, TCP and TLS together.
    pub fn new(connect_timeout: Duration, clock: Arc<dyn Clock>) -> Self {
        Self { connector: Connector::new(connect_timeout), pool: Arc::new(Pool::new(clock)) }
    }

    /// Reads the system's certificates now, so that the first encrypted call need not.
    pub fn warm_up(&self) {
        self.connector.warm_up();
    }

    /// Closes connections that have waited too long. Call it now and then.
    pub fn sweep(&self) {
        self.pool.sweep();
    }

    async fn call(&self, call: OutboundCall) -> Result<Response<UpstreamBody>, TransportError> {
        let OutboundCall { method, uri, mut headers, body, attachment, allow_private, departure } = call;
        if let Some(ip) = address::host_literal(&uri) {
            address::verdict(ip, allow_private).map_err(TransportError::AddressBlocked)?;
        }
        let origin = Origin::of(&uri, allow_private)?;
        if let Ok(host) = HeaderValue::from_str(origin.authority()) {
            headers.insert(HOST, host);
        }
        let request = exchange::Outbound { method, uri, headers, body, attachment, departure };
        exchange::run(&self.connector, &self.pool, origin, request).await
    }
}

impl Transport for NetworkTransport {
    fn send(&self, call: OutboundCall) -> BoxFuture<'_, Result<Response<UpstreamBody>, TransportError>> {
        self.call(call).boxed()
    }
}

/// The part of a URL that is sent in an HTTP/1 request line.
fn origin_form(uri: &Uri) -> Uri {
    uri.path_and_query().map_or_else(|| Uri::from_static("/"), |path| Uri::from(path.clone()))
}
