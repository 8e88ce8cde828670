//! What a client key names that must be there: endpoints, combos, connections. A name with a typing error in it restricts the key
//! to what does not exist.

use std::collections::HashSet;

use omniroute_domain::entity::ApiKey;
use omniroute_domain::pattern::Pattern;
use omniroute_store::ConnectionFilter;

use super::connections;
use crate::error::AdminResult;
use crate::state::Admin;
use crate::validation::Problems;

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
            &|name| format!("`{name}` is no endpoint; there are {}", self.endpoints.join(", ")),
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
