//! From what people write (an id, an alias, a node's prefix) to a provider.

use std::sync::Arc;

use omniroute_domain::entity::{Connection, ConnectionOptions, Node};
use omniroute_domain::snapshot::{endpoints_of, reach_of};
use omniroute_provider::registry::{provider_for, spec_from_node};
use omniroute_provider::spec::{AuthKind, ResilienceProfile};
use omniroute_provider::{Endpoint, EndpointError, Provider, ProviderId, Service};
use omniroute_store::StoreError;

use crate::error::{AdminError, AdminResult, internal, invalid_field};
use crate::state::Admin;

/// A provider that connections can belong to.
#[derive(Clone)]
pub(crate) struct Vendor {
    pub(crate) id: ProviderId,
    pub(crate) provider: Arc<dyn Provider>,
    /// The operator's own endpoint, if it is one.
    pub(crate) node: Option<Node>,
}

impl Vendor {
    /// The provider with this id, alias or prefix.
    pub(crate) async fn find(admin: &Admin, name: &str) -> AdminResult<Option<Self>> {
        if let Some(spec) = admin.catalog.provider(name) {
            let provider = provider_for(spec.clone());
            return Ok(Some(Self { id: spec.id.clone(), provider, node: None }));
        }
        let nodes = admin.store.nodes().list().await?;
        nodes
            .into_iter()
            .find(|node| node.id.as_str() == name || node.prefix == name)
            .map(Self::of_node)
            .transpose()
    }

    /// The provider that a node is.
    pub(crate) fn of_node(node: Node) -> AdminResult<Self> {
        let spec =
            node.to_spec().ok_or_else(|| internal(format!("node {} has an impossible type", node.id)))?;
        let provider = provider_for(Arc::new(spec_from_node(&spec)));
        Ok(Self { id: node.id.clone(), provider, node: Some(node) })
    }

    /// Whether a connection needs a key.
    pub(crate) fn needs_key(&self) -> bool {
        !matches!(self.provider.spec().auth.kind, AuthKind::None | AuthKind::ApiKeyOptional)
    }

    /// Whether a connection with these options may call private addresses. The URLs that local providers are shipped
    /// with need no switch.
    pub(crate) fn allows_private(&self, admin: &Admin, options: &ConnectionOptions) -> bool {
        let is_shipped = self.node.is_none()
            && options.base_url.is_none()
            && self.provider.resilience_profile() == ResilienceProfile::Local;
        admin.settings.allow_private
            || is_shipped
            || options.allow_private
            || self.node.as_ref().is_some_and(|node| node.allow_private)
    }

    /// Where a connection would be called. What is wrong with it is an error that names the member.
    pub(crate) fn endpoints(&self, connection: &Connection) -> AdminResult<Vec<Endpoint>> {
        endpoints_of(self.provider.as_ref(), connection).map_err(|error| endpoint_error(&error))
    }

    /// The same, and where it would be called for what is not chat.
    pub(crate) fn reach(&self, connection: &Connection) -> AdminResult<(Vec<Endpoint>, Vec<Service>)> {
        reach_of(self.provider.as_ref(), connection).map_err(|error| endpoint_error(&error))
    }
}

/// A node may be deleted after it was looked up.
pub(crate) fn not_kept(error: StoreError) -> AdminError {
    match error {
        StoreError::NotFound { what: "node", .. } => {
            invalid_field("provider", "was a node that has just been deleted; nothing was saved")
        }
        other => other.into(),
    }
}

fn endpoint_error(error: &EndpointError) -> AdminError {
    let field = match error {
        EndpointError::MissingVariable(name) => format!("providerSpecificData.{name}"),
        EndpointError::MissingKey => "apiKey".to_owned(),
        EndpointError::BadUrl { .. } => "providerSpecificData.baseUrl".to_owned(),
        EndpointError::BadHeader(name) => format!("providerSpecificData.extraHeaders.{name}"),
        EndpointError::Unsupported(_) => "provider".to_owned(),
    };
    invalid_field(&field, error.to_string())
}
