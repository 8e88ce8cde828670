//! Answers that are given again, and what vendors' prompt caches saved: `/api/cache`.

use std::collections::BTreeMap;

use omniroute_dialect::ir::Usage;
use omniroute_domain::price;
use omniroute_domain::snapshot::Snapshot;
use omniroute_engine::ports::Memory;
use omniroute_provider::ProviderId;
use omniroute_store::{ModelUsage, Period, UsageCounters};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::cache_similarity::SimilarityView;
use crate::auth::Management;
use crate::endpoint::{Filter, Json};
use crate::error::AdminResult;
use crate::text::usd;

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CacheView {
    semantic_cache: SemanticCacheView,
    prompt_cache: PromptCacheView,
    idempotency: IdempotencyView,
    config: CacheConfigView,
}

/// Answers that are kept for whoever asks for the same.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SemanticCacheView {
    /// In the memory of this process.
    memory_size: u64,
    /// Most there.
    memory_max_size: u32,
    /// In the database, those that have not expired.
    db_size: u64,
    /// Times that the database could not be read for a request, since the process started or the cache was cleared.
    db_failures: u64,
    /// Times that it took too long, and an upstream was asked.
    db_late: u64,
    /// 0 to 1; of the requests that could have been answered.
    hit_rate: f64,
    /// Since the process started, or the cache was cleared.
    hits: u64,
    misses: u64,
    /// Tokens that did not have to be read or made.
    tokens_saved: u64,
    /// USD.
    cost_saved: f64,
    /// The tier that goes by similarity.
    similarity: SimilarityView,
}

/// What vendors read from their own caches, in all that was logged.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PromptCacheView {
    total_requests: i64,
    total_input_tokens: i64,
    total_cached_tokens: i64,
    total_cache_creation_tokens: i64,
    /// USD at today's prices: what the tokens would have cost without a cache, less what they did cost.
    estimated_cost_saved: f64,
    by_provider: BTreeMap<String, PromptCacheOfProvider>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PromptCacheOfProvider {
    requests: i64,
    input_tokens: i64,
    cached_tokens: i64,
    cache_creation_tokens: i64,
}

/// Answers for requests that are sent again.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct IdempotencyView {
    active_keys: usize,
    window_ms: u32,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CacheConfigView {
    semantic_cache_enabled: bool,
    semantic_cache_ttl_ms: u32,
    semantic_cache_max_size: u32,
}

#[derive(Deserialize, IntoParams)]
pub(crate) struct CacheFilter {
    /// Answers of this model alone, as it was asked for.
    model: Option<String>,
    /// The answer under this signature alone.
    signature: Option<String>,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct CacheCleared {
    success: bool,
    cleared: ClearedCounts,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct ClearedCounts {
    /// Answers that were kept.
    semantic: u64,
    /// Answers for requests that are sent again.
    idempotency: usize,
}

pub(crate) async fn show(access: Management) -> AdminResult<Json<CacheView>> {
    let admin = &access.admin;
    let counts = admin.reuse.cache_counts();
    let db_size = admin.store.answers().count(access.now_ms).await?;
    let history = admin.store.usage().history(Period::All, access.now_ms).await?;
    let snapshot = admin.live.load();
    let settings = &snapshot.settings;
    let asked = counts.hits + counts.misses;
    #[allow(clippy::cast_precision_loss, reason = "a rate needs no precision")]
    let hit_rate = if asked == 0 { 0.0 } else { counts.hits as f64 / asked as f64 };
    let by_provider = history.by_provider.iter().map(|of| (of.provider.clone(), of_provider(&of.counters)));
    Ok(Json(CacheView {
        semantic_cache: SemanticCacheView {
            memory_size: counts.in_memory,
            memory_max_size: settings.semantic_cache_max_size,
            db_size,
            db_failures: counts.shelf_failures,
            db_late: counts.shelf_late,
            hit_rate,
            hits: counts.hits,
            misses: counts.misses,
            tokens_saved: counts.tokens_saved,
            cost_saved: usd(i64::try_from(counts.nano_saved).unwrap_or(i64::MAX)),
            similarity: SimilarityView::new(
                admin.reuse.similarity(),
                admin.store.similar_questions().count(access.now_ms).await?,
                &settings.semantic_cache_similarity,
            ),
        },
        prompt_cache: PromptCacheView {
            total_requests: history.total.requests,
            total_input_tokens: history.total.prompt_tokens,
            total_cached_tokens: history.total.cached_tokens,
            total_cache_creation_tokens: history.total.cache_creation_tokens,
            estimated_cost_saved: usd(history
                .by_model
                .iter()
                .map(|of| saved_nano(&snapshot, of))
                .fold(0, i64::saturating_add)),
            by_provider: by_provider.collect(),
        },
        idempotency: IdempotencyView {
            active_keys: admin.reuse.repeatable_answers(),
            window_ms: settings.idempotency_window_ms,
        },
        config: CacheConfigView {
            semantic_cache_enabled: settings.semantic_cache_enabled,
            semantic_cache_ttl_ms: settings.semantic_cache_ttl_ms,
            semantic_cache_max_size: settings.semantic_cache_max_size,
        },
    }))
}

/// Without a filter everything, counters too.
pub(crate) async fn clear(
    access: Management,
    Filter(filter): Filter<CacheFilter>,
) -> AdminResult<Json<CacheCleared>> {
    let admin = &access.admin;
    let (model, signature) = (filter.model.as_deref(), filter.signature.as_deref());
    let in_memory = admin.reuse.clear_cache(model, signature) as u64;
    // Those that wait to be written are gone with it.
    admin.recorder.remember(Memory::AnswersCleared {
        model: filter.model.clone(),
        signature: filter.signature.clone(),
        until: access.now_ms,
    });
    // What is in memory is in the database too, but for what waits to be written and what never is.
    let semantic = admin.store.answers().clear(model, signature, access.now_ms).await?.max(in_memory);
    admin.store.similar_questions().clear(model, signature, access.now_ms).await?;
    let is_all = model.is_none() && signature.is_none();
    let idempotency = if is_all { admin.reuse.forget_answers() } else { 0 };
    let what = signature.or(model).unwrap_or("all");
    access.audit("cache.clear", "cache", what, "").await;
    Ok(Json(CacheCleared { success: true, cleared: ClearedCounts { semantic, idempotency } }))
}

fn of_provider(counters: &UsageCounters) -> PromptCacheOfProvider {
    PromptCacheOfProvider {
        requests: counters.requests,
        input_tokens: counters.prompt_tokens,
        cached_tokens: counters.cached_tokens,
        cache_creation_tokens: counters.cache_creation_tokens,
    }
}

/// What the cached tokens of a model would have cost more; nothing where it has no price.
fn saved_nano(snapshot: &Snapshot, of: &ModelUsage) -> i64 {
    let Ok(tokens @ 1..) = u64::try_from(of.counters.cached_tokens) else { return 0 };
    let Some(quote) = snapshot.quote(&ProviderId::from(of.provider.as_str()), &of.model) else { return 0 };
    let uncached = Usage { input_uncached: Some(tokens), ..Usage::default() };
    let cached = Usage { input_uncached: Some(0), cache_read: Some(tokens), ..Usage::default() };
    match (price::cost_nano(&quote.price, &uncached), price::cost_nano(&quote.price, &cached)) {
        (Some(without), Some(with)) => without.saturating_sub(with).max(0),
        _ => 0,
    }
}
