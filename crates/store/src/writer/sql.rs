//! What the writer sends, in one transaction per batch.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::BytesMut;
use omniroute_dialect::ir::Tier;
use omniroute_domain::budget::Event;
use omniroute_domain::entity::{ConnectionId, ConnectionStatus, key_parts};
use omniroute_engine::bodies::BodyNote;
use omniroute_engine::ports::{CHAT, LockRow, RequestRow, RowId};

use super::attempts;
use super::kinds::KindTotal;
use super::ledger::{self, Unlisted};
use super::memories::{Row, Sealed};
use super::statements::{CALL_LOG_COLUMNS, KIND_UPSERT, Statements, UPSERTS, chunks, roomy};
use super::totals::{Total, TotalKey, Totals, cache_creation};
use crate::answers;
use crate::audit::{self, AuditEvent};
use crate::bodies::BodyState;
use crate::call_logs::{LoggedLoss, UPSTREAM};
use crate::connections::write_status;
use crate::context_handoffs;
use crate::decisions::{self, Names};
use crate::error::StoreError;
use crate::key_states::write_key_state;
use crate::learned_limits;
use crate::pool::with_write;
use crate::quota_snapshots;
use crate::reasoning_memory;
use crate::resilience;
use crate::response_owners;
use crate::session_affinity;
use crate::similar_questions;
use crate::store::Store;
use crate::text::{clip, clip_shared, named, random, signed, to_hex};

pub(super) const MAX_NAME: usize = 256;
const MAX_PATH: usize = 512;
pub(super) const MAX_TEXT: usize = 2000;
const MAX_LOSSES: usize = 50;

/// What one transaction writes.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    /// For the request log.
    pub(crate) rows: Vec<RequestRow>,
    /// For the summaries; `rows` are already among them.
    pub(crate) totals: Totals,
    /// What rows cost that are not among `rows`.
    pub(crate) unlisted: Unlisted,
    /// What happened to budgets.
    pub(crate) events: Vec<Event>,
    /// What else is for the audit log.
    pub(crate) audited: Vec<AuditEvent>,
    /// Latest status of connections that changed.
    pub(crate) statuses: HashMap<ConnectionId, ConnectionStatus>,
    /// What conversations leave behind, in order.
    pub(crate) memories: Vec<Sealed>,
}

impl Batch {
    /// Whether there is nothing to write.
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
            && self.totals.is_empty()
            && self.unlisted.is_empty()
            && self.events.is_empty()
            && self.audited.is_empty()
            && self.statuses.is_empty()
            && self.memories.is_empty()
    }

    /// Puts what came later behind it.
    pub(super) fn absorb(&mut self, later: Self) {
        self.rows.extend(later.rows);
        self.totals.absorb(later.totals);
        self.unlisted.absorb(later.unlisted);
        self.events.extend(later.events);
        self.audited.extend(later.audited);
        self.statuses.extend(later.statuses);
        self.memories.extend(later.memories);
        self.memories.sort_by(|a, b| a.place().cmp(&b.place()));
    }
}

/// What the database knows a batch by: the same number is written once.
#[derive(Debug)]
pub(crate) struct Mark {
    /// Of this process.
    writer: String,
    /// Rises with each batch that is written.
    number: i64,
}

impl Mark {
    /// That of the first batch of a process.
    pub(super) fn first() -> Self {
        Self { writer: to_hex(&random::<16>()), number: 1 }
    }

    /// That of the batch before.
    #[cfg(test)]
    pub(super) fn again(&mut self) {
        self.number -= 1;
    }
}

/// Why a batch is not written, or may not be.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(super) error: StoreError,
    /// It may be written all the same: everything was sent, and nothing heard of the commit.
    pub(super) is_in_doubt: bool,
}

/// Binds the columns of a request.
macro_rules! bind_call_log {
    ($query:expr, $row:expr, $words:expr) => {{
        let (row, words): (&RequestRow, &mut Words) = ($row, &mut $words);
        $query
            .bind(row.id.to_string())
            .bind(row.id.timestamp_ms())
            .bind(clip_shared(&row.request_id, MAX_NAME))
            .bind(words.shared(row.method.as_str()))
            .bind(clip_shared(&row.path, MAX_PATH))
            .bind(i64::from(row.status))
            .bind(clip_shared(&row.model, MAX_NAME))
            .bind(clip_shared(&row.requested_model, MAX_NAME))
            .bind(row.provider.as_ref().map(Arc::<str>::from))
            .bind(row.connection_name.clone())
            .bind(row.connection.as_ref().map(Arc::<str>::from))
            .bind(row.api_key.as_ref().map(Arc::<str>::from))
            .bind(row.api_key_name.clone())
            .bind(words.shared(row.client_dialect.as_str()))
            .bind(row.upstream_dialect.map(|dialect| words.shared(dialect.as_str())))
            .bind(row.stream)
            .bind(row.duration_ms)
            .bind(row.ttft_ms)
            .bind(row.overhead_us)
            .bind(row.usage.input_total().map(signed))
            .bind(row.usage.output_total.map(signed))
            .bind(row.usage.cache_read.map(signed))
            .bind(cache_creation(&row.usage).map(signed))
            .bind(row.usage.reasoning.map(signed))
            .bind(row.usage_estimated)
            .bind(row.cost_nano)
            .bind(row.price_source.map(|source| words.shared(source)))
            .bind(row.price_version.clone())
            .bind(i64::try_from(row.attempts.len()).unwrap_or(i64::MAX))
            .bind(attempts::json(row))
            .bind(row.error.as_deref().map(|error| clip(error, MAX_TEXT)))
            .bind(row.error_code.as_deref().map(|code| clip(code, MAX_NAME)))
            .bind(losses_json(row))
            .bind((row.source != UPSTREAM).then(|| words.shared(row.source)))
            .bind(row.combo.as_ref().map(|name| clip_shared(name, MAX_NAME)))
            .bind(row.combo_step.as_ref().map(|id| clip_shared(id, MAX_NAME)))
            .bind((row.request_type != CHAT).then(|| words.shared(row.request_type)))
            .bind(row.units.as_deref().and_then(|units| named(units.named())))
            .bind(row.saved_nano())
            .bind(row.similarity)
            .bind(BodyState::of(&row.bodies).word().map(|word| words.shared(&word)))
            .bind(match &row.bodies {
                BodyNote::Kept { at, .. } => Some(at.clone()),
                _ => None,
            })
            .bind(row.usage.tier.and_then(Tier::as_str).map(|tier| words.shared(tier)))
    }};
}

/// Writes a batch in one transaction, unless one of its number is written already. A commit can be in doubt only where it goes
/// over a connection, which may break before it is acknowledged; SQLite answers within the process. The mark is one small row
/// for a whole batch, so both go the same way.
pub(crate) async fn write(
    store: &Store,
    statements: &Statements,
    names: &mut Names,
    batch: &Batch,
    mark: &mut Mark,
) -> Result<(), Failure> {
    let mut is_sent = false;
    match Box::pin(send(store, statements, names, batch, mark, &mut is_sent)).await {
        Ok(()) => {
            mark.number += 1;
            names.written();
            Ok(())
        }
        Err(error) => Err(Failure { is_in_doubt: is_sent && error.is_transient(), error }),
    }
}

/// Sends a batch; `is_sent` where only the commit is left.
async fn send(
    store: &Store,
    statements: &Statements,
    names: &mut Names,
    batch: &Batch,
    mark: &Mark,
    is_sent: &mut bool,
) -> Result<(), StoreError> {
    let last_uses = LastUses::of(batch);
    let entries = ledger::entries(batch);
    let mut words = Words::default();
    let decided = decided(batch, names)?;
    let (page, new_names) = (names.page(), names.unwritten());
    with_write!(store.pool(), |db| {
        // The first statement: it waits for a transaction of the same number that may still be about to end.
        let marked = sqlx::query(statements.mark).bind(&*mark.writer).bind(mark.number);
        if marked.execute(&mut *db).await?.rows_affected() == 0 {
            return Ok(());
        }
        for (chunk, sql) in chunks(&batch.rows, &statements.call_logs) {
            let mut query = roomy(sql, chunk.len(), CALL_LOG_COLUMNS.len());
            for row in chunk {
                query = bind_call_log!(query, row, words);
            }
            query.execute(&mut *db).await?;
        }
        for (chunk, sql) in chunks(&entries, &statements.ledger) {
            let mut query = roomy(sql, chunk.len(), ledger::COLUMNS.len());
            for entry in chunk {
                query = ledger::bind_entry!(query, entry, words);
            }
            query.execute(&mut *db).await?;
        }
        for event in &batch.events {
            ledger::write_event!(db, event);
        }
        for event in &batch.audited {
            audit::append!(db, event);
        }
        for (chunk, sql) in chunks(&new_names, &statements.names) {
            let mut query = roomy(sql, chunk.len(), decisions::NAME_COLUMNS.len());
            for (place, name) in chunk {
                query = decisions::bind_name!(query, &*names, place, name);
            }
            query.execute(&mut *db).await?;
        }
        for (chunk, sql) in chunks(&decided, &statements.decisions) {
            let mut query = roomy(sql, chunk.len(), decisions::COLUMNS.len());
            for Decided { id, kept } in chunk {
                query = query
                    .bind(id.to_string())
                    .bind(Arc::clone(kept))
                    .bind(id.timestamp_ms())
                    .bind(Arc::clone(&page));
            }
            query.execute(&mut *db).await?;
        }
        // Table by table, and in each by the key of its rows: two processes that write at once wait for each other
        // and never in a circle.
        for (sql, width) in UPSERTS {
            for ((bucket, key), total) in batch.totals.by_bucket(width) {
                let TotalKey { minute: _, provider, model, connection, api_key } = key;
                let Total { connection_name, api_key_name, .. } = &total;
                sqlx::query(sql)
                    .bind(bucket)
                    .bind(provider.as_str())
                    .bind(&**model)
                    .bind(connection.as_ref().map_or("", |id| id.as_str()))
                    .bind(api_key.as_ref().map_or("", |id| id.as_str()))
                    .bind(connection_name.as_deref().unwrap_or_default())
                    .bind(api_key_name.as_deref().unwrap_or_default())
                    .bind(total.requests)
                    .bind(total.successes)
                    .bind(total.tokens_input)
                    .bind(total.tokens_output)
                    .bind(total.tokens_cache_read)
                    .bind(total.tokens_cache_creation)
                    .bind(total.tokens_reasoning)
                    .bind(total.estimated)
                    .bind(total.cost_nano)
                    .bind(total.unpriced)
                    .bind(total.latency_sum_ms)
                    .bind(total.last_used_at)
                    .execute(&mut *db)
                    .await?;
            }
        }
        for (_, width) in UPSERTS {
            for ((bucket, kind), KindTotal { total, units }) in batch.totals.kinds_by_bucket(width) {
                sqlx::query(KIND_UPSERT)
                    .bind(width)
                    .bind(bucket)
                    .bind(kind)
                    .bind(total.requests)
                    .bind(total.successes)
                    .bind(total.tokens_input)
                    .bind(total.tokens_output)
                    .bind(total.tokens_cache_read)
                    .bind(total.tokens_cache_creation)
                    .bind(total.tokens_reasoning)
                    .bind(total.estimated)
                    .bind(total.cost_nano)
                    .bind(total.unpriced)
                    .bind(total.latency_sum_ms)
                    .bind(total.last_used_at)
                    .bind(signed(units.images))
                    .bind(signed(units.millis_in))
                    .bind(signed(units.millis_out))
                    .bind(signed(units.characters))
                    .bind(signed(units.queries))
                    .execute(&mut *db)
                    .await?;
            }
        }
        for (id, status, last_use) in touched_connections(batch, &last_uses) {
            match (status, key_parts(id)) {
                (Some(status), None) => {
                    write_status!(db, id, status);
                }
                (Some(status), Some((connection, key))) => write_key_state!(db, connection, key, status),
                (None, _) => {}
            }
            if let Some(timestamp) = last_use {
                sqlx::query(USED_CONNECTION).bind(id).bind(timestamp).execute(&mut *db).await?;
            }
        }
        for (id, timestamp) in &last_uses.keys {
            sqlx::query(USED_KEY).bind(*id).bind(*timestamp).execute(&mut *db).await?;
        }
        for memory in &batch.memories {
            let query = match &memory.row {
                Row::Reasoning { tenant, key, parts, created_at, expires_at } => {
                    let query = sqlx::query(reasoning_memory::UPSERT);
                    query.bind(&**tenant).bind(&**key).bind(&**parts).bind(*created_at).bind(*expires_at)
                }
                Row::Owner(row) => {
                    let query = sqlx::query(response_owners::UPSERT);
                    let query =
                        query.bind(&*row.response_id).bind(&*row.tenant).bind(row.connection.as_str());
                    let unfinished = row.unfinished.as_ref();
                    query
                        .bind(&*row.asked)
                        .bind(&*row.model)
                        .bind(row.expires_at)
                        .bind(unfinished.map(|billed| signed(billed.input)))
                        .bind(unfinished.map(|billed| signed(billed.output)))
                }
                Row::Limits { connection, model, limits, updated_at } => {
                    let query = sqlx::query(learned_limits::UPSERT);
                    query.bind(&**connection).bind(&**model).bind(&**limits).bind(*updated_at)
                }
                Row::Quota(row) => sqlx::query(quota_snapshots::INSERT)
                    .bind(&*row.provider)
                    .bind(&*row.connection)
                    .bind(&*row.key)
                    .bind(row.percent)
                    .bind(row.is_spent)
                    .bind(row.until)
                    .bind(row.raw.as_deref())
                    .bind(row.at),
                Row::Pinned(row) => sqlx::query(session_affinity::UPSERT)
                    .bind(&*row.tenant)
                    .bind(&*row.session)
                    .bind(row.provider.as_str())
                    .bind(row.connection.as_str())
                    .bind(row.created_at)
                    .bind(row.last_seen_at),
                Row::Unpinned { tenant, session } => {
                    sqlx::query(session_affinity::FORGET).bind(&**tenant).bind(&**session)
                }
                Row::Handoff(context_handoffs::Sealed { row, content }) => {
                    let (key, handoff) = (&row.key, &row.handoff);
                    let query = sqlx::query(context_handoffs::UPSERT).bind(key.session.tenant());
                    let query = query.bind(key.session.id()).bind(&*key.combo).bind(handoff.from.as_str());
                    let query = query.bind(&**content).bind(i64::from(handoff.turns));
                    let query = query.bind(format!("{:016x}", handoff.opening)).bind(&*handoff.model);
                    let query = query.bind(i64::from(handoff.threshold_percent));
                    query.bind(handoff.made_at).bind(handoff.expires_at)
                }
                Row::HandoffGone(key) => sqlx::query(context_handoffs::FORGET)
                    .bind(key.session.tenant())
                    .bind(key.session.id())
                    .bind(&*key.combo),
                Row::Breaker { record, options } => sqlx::query(resilience::UPSERT_BREAKER)
                    .bind(&*record.name)
                    .bind(record.state.as_str())
                    .bind(i64::from(record.failure_count))
                    .bind(record.last_failure)
                    .bind(&**options)
                    .bind(record.changed_at),
                Row::Lock(LockRow { provider, connection, lock }) => sqlx::query(resilience::UPSERT_LOCK)
                    .bind(provider.as_str())
                    .bind(connection.as_str())
                    .bind(&*lock.model)
                    .bind(lock.reason.as_str())
                    .bind(lock.until)
                    .bind(i64::from(lock.failure_count))
                    .bind(lock.locked_at),
                Row::Unlock { connection, model } => {
                    sqlx::query(resilience::UNLOCK).bind(&**connection).bind(&**model)
                }
                Row::Answer(row, body) => {
                    let answer = &row.answer;
                    let query = sqlx::query(answers::UPSERT).bind(&*row.signature).bind(&*row.tenant);
                    let query = query.bind(answers::prompt_hash(&row.signature));
                    let query = query.bind(clip(&answer.asked, MAX_NAME)).bind(answer.provider.as_str());
                    let query = query.bind(clip(&answer.model, MAX_NAME)).bind(answer.dialect.as_str());
                    let query = query.bind(&**body).bind(signed(answer.tokens)).bind(answer.cost_nano);
                    query.bind(row.created_at).bind(row.expires_at)
                }
                Row::AnswerUsed { signature, times } => {
                    sqlx::query(answers::USED).bind(&**signature).bind(i64::from(*times))
                }
                Row::Question(row, content) => sqlx::query(similar_questions::UPSERT)
                    .bind(&*row.signature)
                    .bind(&*row.tenant)
                    .bind(to_hex(&row.bucket))
                    .bind(clip(&row.asked, MAX_NAME))
                    .bind(&**content)
                    .bind(row.created_at)
                    .bind(row.expires_at),
                Row::AnswersCleared { model, signature, until } => {
                    let questions = sqlx::query(similar_questions::CLEAR).bind(model.as_deref());
                    questions.bind(signature.as_deref()).bind(*until).execute(&mut *db).await?;
                    sqlx::query(answers::CLEAR).bind(model.as_deref()).bind(signature.as_deref()).bind(*until)
                }
            };
            query.execute(&mut *db).await?;
        }
        *is_sent = true;
    });
    Ok(())
}

/// What is kept of a request's decision.
struct Decided {
    /// The request's.
    id: RowId,
    /// As JSON.
    kept: Arc<str>,
}

fn decided(batch: &Batch, names: &mut Names) -> Result<Vec<Decided>, StoreError> {
    let with_decision = || batch.rows.iter().filter_map(|row| Some((row, row.decision.as_deref()?)));
    if let Some((row, _)) = with_decision().next() {
        names.turn(row.id.timestamp_ms());
    }
    let mut out = BytesMut::new();
    with_decision()
        .map(|(row, decision)| {
            decisions::write(row, decision, names, &mut out);
            let kept =
                std::str::from_utf8(&out).map_err(|error| StoreError::Damaged(error.to_string()))?.into();
            out.clear();
            Ok(Decided { id: row.id, kept })
        })
        .collect()
}

const USED_KEY: &str = "UPDATE api_keys SET last_used_at = $2
     WHERE id = $1 AND (last_used_at IS NULL OR last_used_at < $2)";
const USED_CONNECTION: &str = "UPDATE provider_connections SET last_used_at = $2
     WHERE id = $1 AND (last_used_at IS NULL OR last_used_at < $2)";

/// When keys and connections were last used, by id.
#[derive(Default)]
struct LastUses<'a> {
    keys: BTreeMap<&'a str, i64>,
    connections: BTreeMap<&'a str, i64>,
}

impl<'a> LastUses<'a> {
    fn of(batch: &'a Batch) -> Self {
        fn note<'a>(uses: &mut BTreeMap<&'a str, i64>, id: Option<&'a str>, timestamp: i64) {
            if let Some(id) = id {
                let known = uses.entry(id).or_insert(timestamp);
                *known = timestamp.max(*known);
            }
        }
        let mut uses = Self::default();
        // Those with a provider are among the totals.
        for row in batch.rows.iter().filter(|row| row.provider.is_none()) {
            note(&mut uses.keys, row.api_key.as_ref().map(|id| id.as_str()), row.id.timestamp_ms());
        }
        for (key, total) in batch.totals.iter() {
            note(&mut uses.keys, key.api_key.as_ref().map(|id| id.as_str()), total.last_used_at);
            note(&mut uses.connections, key.connection.as_ref().map(|id| id.as_str()), total.last_used_at);
        }
        uses
    }
}

/// Everything that changes of connections, row by row in one order for all writers.
fn touched_connections<'a>(
    batch: &'a Batch,
    last_uses: &LastUses<'a>,
) -> impl Iterator<Item = (&'a str, Option<&'a ConnectionStatus>, Option<i64>)> {
    let mut touched: BTreeMap<&str, (Option<&ConnectionStatus>, Option<i64>)> = BTreeMap::new();
    for (id, status) in &batch.statuses {
        touched.entry(id.as_str()).or_default().0 = Some(status);
    }
    for (id, timestamp) in &last_uses.connections {
        touched.entry(id).or_default().1 = Some(*timestamp);
    }
    touched.into_iter().map(|(id, (status, last_use))| (id, status, last_use))
}

/// Words of a small vocabulary, shared between the rows of a batch.
#[derive(Default)]
struct Words(Vec<Arc<str>>);

impl Words {
    /// More words than this are not remembered.
    const MAX: usize = 32;

    fn shared(&mut self, word: &str) -> Arc<str> {
        if let Some(known) = self.0.iter().find(|known| ***known == *word) {
            return Arc::clone(known);
        }
        let new = Arc::<str>::from(clip(word, MAX_NAME));
        if self.0.len() < Self::MAX {
            self.0.push(Arc::clone(&new));
        }
        new
    }
}

fn losses_json(row: &RequestRow) -> Option<String> {
    if row.losses.is_empty() {
        return None;
    }
    let losses: Vec<LoggedLoss> = row
        .losses
        .iter()
        .take(MAX_LOSSES)
        .map(|loss| LoggedLoss { path: clip(&loss.path, MAX_NAME), class: loss.action.as_str().to_owned() })
        .collect();
    serde_json::to_string(&losses).ok()
}
