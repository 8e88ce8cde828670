//! Who else has a model, for when its provider is out: `/api/fallback/chains`.

use std::collections::BTreeMap;

use omniroute_domain::entity::{ChainLink, FallbackChain, MAX_CHAINS, MAX_LINKS};
use omniroute_domain::resolve::MAX_MODEL_LENGTH;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Done;
use crate::auth::Management;
use crate::endpoint::{Body, Filter, Json, TextOr};
use crate::error::{AdminResult, not_found};
use crate::validation::Problems;

/// Chains by model.
#[derive(Serialize, ToSchema)]
#[serde(transparent)]
pub(crate) struct Chains(BTreeMap<String, Vec<LinkView>>);

/// A provider that stands in.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct LinkView {
    /// Id or prefix.
    provider: String,
    /// The lower, the earlier; its place when it is not given.
    #[serde(default)]
    priority: Option<i64>,
    #[serde(default = "yes")]
    enabled: bool,
}

const fn yes() -> bool {
    true
}

#[derive(Deserialize, ToSchema)]
pub(crate) struct ChainDraft {
    /// As clients ask for it, or as its provider knows it.
    model: String,
    /// Who stands in; a text is a provider alone.
    chain: Vec<TextOr<LinkView>>,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct ChainAnswer {
    success: bool,
    model: String,
}

#[derive(Deserialize, IntoParams)]
pub(crate) struct ChainQuery {
    /// Which.
    model: String,
}

pub(crate) async fn list(access: Management) -> AdminResult<Json<Chains>> {
    let chains = access.admin.store.fallback_chains().list().await?;
    let view = |link: ChainLink| LinkView {
        provider: link.provider,
        priority: Some(link.priority),
        enabled: link.enabled,
    };
    let chains =
        chains.into_iter().map(|chain| (chain.model, chain.links.into_iter().map(view).collect())).collect();
    Ok(Json(Chains(chains)))
}

pub(crate) async fn put(access: Management, Body(draft): Body<ChainDraft>) -> AdminResult<Json<ChainAnswer>> {
    let store = &access.admin.store;
    let mut problems = Problems::default();
    if draft.model.trim() != draft.model || draft.model.is_empty() || draft.model.len() > MAX_MODEL_LENGTH {
        problems.add("model", "must have 1 to 256 bytes without spaces around them");
    }
    if !(1..=MAX_LINKS).contains(&draft.chain.len()) {
        problems.add("chain", format!("must have 1 to {MAX_LINKS} entries"));
    }
    let snapshot = access.admin.live.load().clone();
    let mut links = Vec::new();
    for (at, draft) in (0_i64..).zip(draft.chain) {
        let link = match draft {
            TextOr::Text(provider) => LinkView { provider, priority: None, enabled: true },
            TextOr::More(link) => *link,
        };
        if snapshot.by_prefix(&link.provider).is_none() {
            problems.add(&format!("chain[{at}].provider"), "is neither a provider nor a node");
        }
        let priority = link.priority.unwrap_or(at + 1);
        links.push(ChainLink { provider: link.provider, priority, enabled: link.enabled });
    }
    problems.done()?;
    let chain = FallbackChain { model: draft.model, links };
    store.fallback_chains().put(&chain, MAX_CHAINS).await?;
    access.reload().await?;
    access.audit("fallback.chain.set", "fallback_chain", &chain.model, "").await;
    Ok(Json(ChainAnswer { success: true, model: chain.model }))
}

pub(crate) async fn delete(access: Management, Filter(query): Filter<ChainQuery>) -> AdminResult<Json<Done>> {
    if !access.admin.store.fallback_chains().delete(&query.model).await? {
        return Err(not_found("Fallback chain"));
    }
    access.reload().await?;
    access.audit("fallback.chain.deleted", "fallback_chain", &query.model, "").await;
    Ok(Json(Done::new()))
}
