//! Where calls to upstreams go: to the network, or to the simulator inside this process.

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::uri::PathAndQuery;
use http::{Request, Response, Uri};
use omniroute_engine::ports::{OutboundCall, Transport, TransportError, UpstreamBody};
use omniroute_engine::transport::NetworkTransport;
use omniroute_provider::registry::SIM;
use omniroute_sim::{Access, Simulator};

/// The network, and the simulator for addresses of its scheme.
pub(crate) struct Outbound {
    pub(crate) network: NetworkTransport,
    simulator: Simulator,
}

impl Outbound {
    pub(crate) fn new(network: NetworkTransport) -> Self {
        Self { network, simulator: Simulator::new(Access::Open) }
    }

    async fn simulate(&self, call: OutboundCall) -> Result<Response<UpstreamBody>, TransportError> {
        let mut body: Bytes = match call.body.as_slice() {
            [only] => only.clone(),
            pieces => pieces.concat().into(),
        };
        if let Some(attachment) = &call.attachment {
            let mut whole = BytesMut::from(body);
            for (file, behind) in &attachment.files {
                let file = file.read_all().await.map_err(|error| TransportError::Broken {
                    host: SIM.to_owned(),
                    reason: format!("the uploaded file cannot be read: {error}"),
                })?;
                whole.extend_from_slice(&file);
                whole.extend_from_slice(behind);
            }
            body = whole.freeze();
        }
        call.departure.note();
        let mut request = Request::new(body);
        *request.method_mut() = call.method;
        *request.headers_mut() = call.headers;
        *request.uri_mut() = below_v1(&call.uri);
        Ok(self.simulator.respond(request).await.map(UpstreamBody::Local))
    }
}

impl Transport for Outbound {
    fn send(&self, call: OutboundCall) -> BoxFuture<'_, Result<Response<UpstreamBody>, TransportError>> {
        if call.uri.scheme_str() == Some(SIM) {
            return self.simulate(call).boxed();
        }
        self.network.send(call)
    }
}

/// The simulator answers below `/v1`, like the providers that it plays.
fn below_v1(uri: &Uri) -> Uri {
    let path = uri.path_and_query().map_or("/", PathAndQuery::as_str);
    format!("/v1{path}").parse().unwrap_or_default()
}
