//! What client keys and policies name that must be there: endpoints, combos, connections, keys. A name with a typing error in it
//! restricts a key to what does not exist, and makes a policy one for nobody.

use std::collections::HashSet;

use omniroute_domain::entity::{ApiKey, ApiKeyId};
use omniroute_domain::pattern::Pattern;
use omniroute_store::ConnectionFilter;

use super::connections;
use crate::error::AdminResult;
use crate::state::Admin;
use crate::validation::Problems;

/// Why a name is that of no endpoint.
fn no_endpoint(endpoints: &[&str], name: &str) -> String {
    format!("`{name}` is no endpoint; there are {}", endpoints.join(", "))
}

/// What is wrong with the endpoint of a condition, if anything.
pub(crate) fn endpoint_problem(admin: &Admin, name: &str) -> Option<String> {
    let endpoints = &admin.settings.endpoints;
    (!endpoints.contains(&name)).then(|| no_endpoint(endpoints, name))
}

/// What is wrong with the key of a condition, if anything; one that was revoked is still known.
pub(crate) async fn key_problem(admin: &Admin, id: &str) -> AdminResult<Option<String>> {
    let key = admin.store.api_keys().get(&ApiKeyId::from(id)).await?;
    Ok(key.is_none().then(|| format!("`{id}` is the id of no key; see GET /api/keys")))
}

/// What is sent of these lists.
#[derive(Clone, Copy)]
pub(crate) struct References<'a> {
    pub(crate) endpoints: Option<&'a Vec<String>>,
    pub(crate) combos: Option<&'a Vec<String>>,
    pub(crate) connections: Option<&'a Vec<String>>,
}

/// What is there, as far as it is asked for.
pub(crate) struct Known {
    endpoints: Vec<&'static str>,
    combos: Vec<String>,
    connections: HashSet<String>,
}

impl Known {
    /// Reads what is there.
    pub(crate) async fn of(admin: &Admin, sent: References<'_>) -> AdminResult<Self> {
        let endpoints = admin.settings.endpoints.clone();
        let mut known = Self { endpoints, combos: Vec::new(), connections: HashSet::new() };
        if sent.combos.is_some_and(|combos| !combos.is_empty()) {
            known.combos = admin.store.combos().list().await?.into_iter().map(|combo| combo.name).collect();
            let snapshot = admin.live.load();
            known.combos.extend(snapshot.auto_variants().iter().map(|variant| variant.name.to_string()));
        }
        if sent.connections.is_some_and(|connections| !connections.is_empty()) {
            let rows = connections::all(admin, &ConnectionFilter::default()).await?;
            known.connections = rows.into_iter().map(|row| row.id.to_string()).collect();
        }
        Ok(known)
    }

    /// Notes what is not there. What the key had before may stay: a connection that was deleted would else have to be taken out
    /// before anything else can be put in, and an empty list restricts nothing.
    pub(crate) fn check(&self, sent: References<'_>, key: &ApiKey, problems: &mut Problems) {
        let mut check = |field: &str,
                         sent: Option<&Vec<String>>,
                         before: &[String],
                         is_known: &dyn Fn(&str) -> bool,
                         message: &dyn Fn(&str) -> String| {
            for (at, name) in sent.into_iter().flatten().enumerate() {
                if !before.contains(name) && !is_known(name) {
                    problems.add(&format!("{field}[{at}]"), message(name));
                }
            }
        };
        check(
            "allowedEndpoints",
            sent.endpoints,
            &key.allowed_endpoints,
            &|name| self.endpoints.contains(&name),
            &|name| no_endpoint(&self.endpoints, name),
        );
        check(
            "allowedCombos",
            sent.combos,
            &key.rights.allowed_combos,
            // A pattern may be for combos that are made later.
            &|name| {
                let pattern = Pattern::new(name);
                name.contains(['*', '?']) || self.combos.iter().any(|combo| pattern.matches(combo))
            },
            &|name| format!("`{name}` is no combo's name; make the combo first, or use a pattern with `*`"),
        );
        check(
            "allowedConnections",
            sent.connections,
            &key.allowed_connections,
            &|name| self.connections.contains(name),
            &|name| format!("`{name}` is no connection's id; see GET /api/providers"),
        );
    }
}
