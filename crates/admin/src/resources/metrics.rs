//! `/metrics`, for Prometheus.

use omniroute_engine::telemetry::{Extra, ExtraKind};

use crate::auth::MetricsReader;
use crate::endpoint::Text;
use crate::error::AdminResult;

pub(crate) async fn show(access: MetricsReader) -> AdminResult<Text> {
    let admin = &access.admin;
    let recorder = (admin.recorder_stats)();
    let snapshot = admin.live.load();
    let cache = admin.reuse.cache_counts();
    let similar = admin.reuse.similarity();
    let guarded = similar.guarded.iter().map(|(_, count)| count).sum();
    let count = |name, help, value| Extra { name, help, kind: ExtraKind::Counter, value };
    let gauge = |name, help, value| Extra { name, help, kind: ExtraKind::Gauge, value };
    let text = admin.telemetry.metrics(&[
        gauge("log_rows_queued", "Log rows that wait to be written", recorder.queued),
        count("log_rows_written", "Log rows written", recorder.written_rows),
        count("log_rows_shed", "Log rows dropped because the database was too slow", recorder.shed_rows),
        count("log_flush_failures", "Transactions of the log that failed", recorder.flush_failures),
        gauge("log_bodies_queued", "Requests whose bodies wait to be written", recorder.queued_bodies),
        count("log_bodies_written", "Requests whose bodies were written", recorder.written_bodies),
        count(
            "log_bodies_shed",
            "Requests whose bodies were dropped because too many waited",
            recorder.shed_bodies,
        ),
        count("log_bodies_failed", "Requests whose bodies could not be written", recorder.failed_bodies),
        gauge("log_body_bytes", "Bytes that bodies of requests take on disk", recorder.body_bytes),
        count(
            "memories_written",
            "Memories of conversations that a restart keeps",
            recorder.written_memories,
        ),
        count(
            "memories_shed",
            "Memories of conversations that a restart loses: the database was too slow, or there is no key",
            recorder.shed_memories,
        ),
        gauge("cache_answers", "Answers in memory that are given again", cache.in_memory),
        count("cache_hits", "Requests that were answered from the cache of answers", cache.hits),
        count("cache_misses", "Requests that could have been answered from it", cache.misses),
        count(
            "cache_db_failures",
            "Times that the database could not say what it has of the cache",
            cache.shelf_failures,
        ),
        count("cache_db_late", "Times that it did not say so in time", cache.shelf_late),
        count("cache_tokens_saved", "Tokens that did not have to be read or made", cache.tokens_saved),
        count(
            "cache_nano_usd_saved",
            "What they would have cost, in billionths of a US dollar",
            cache.nano_saved,
        ),
        gauge("cache_similar_questions", "Questions that others may be close to", similar.entries),
        count("cache_similar_lookups", "Requests that looked for a question that is close", similar.lookups),
        count("cache_similar_hits", "Requests that got the answer of a question that is close", similar.hits),
        count(
            "cache_similar_would_have_served",
            "Requests that would have got it, but somebody was asked",
            similar.would_have_served,
        ),
        count("cache_similar_sampled", "Those of them that were samples", similar.sampled),
        count("cache_similar_guarded", "Questions that are close and were kept apart by a rule", guarded),
        count("cache_similar_failures", "Questions whose vector was not to be had", similar.failures),
        count(
            "cache_similar_agreed",
            "Answers of samples that say the same as the kept ones",
            similar.agreed,
        ),
        count("cache_similar_disagreed", "Answers of samples that say something else", similar.disagreed),
        gauge(
            "connections_active",
            "Connections that are switched on and usable",
            snapshot.connection_count() as u64,
        ),
        gauge("configuration_problems", "Rows that cannot be used", snapshot.problems.len() as u64),
    ]);
    Ok(Text { content_type: "application/openmetrics-text; version=1.0.0; charset=utf-8", text })
}
