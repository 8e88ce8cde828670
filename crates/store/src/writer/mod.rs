//! Writes what happened, behind the requests' backs.
//!
//! Two lanes. *Totals* are never lost: every request is added to sums in memory that are written as upserts. *Log
//! rows* go through a bounded queue; when it is full, rows are shed and counted, but their totals and what they cost are
//! not: the ledger then has one row for several. One task
//! writes both in one transaction per batch, and tries again while the database fails. Statuses of connections are
//! kept by connection, the latest wins. What conversations leave behind goes the same way, bounded and sheddable.

mod attempts;
mod denials;
mod kinds;
mod ledger;
mod memories;
mod sql;
mod statements;
mod totals;

use std::collections::HashMap;
use std::mem;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use omniroute_domain::budget::Event;
use omniroute_domain::entity::{ConnectionId, ConnectionStatus};
use omniroute_engine::bodies::RequestBodies;
use omniroute_engine::ports::{Memory, Recorder, RequestRow};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::bodies::{BodyCounts, BodyQueue};
use crate::decisions::Names;
use crate::error::StoreError;
use crate::reasoning_memory::MAX_BYTES;
use crate::similar_questions::MAX_BYTES as QUESTION_BYTES;
use crate::store::Store;

use denials::Denials;
use ledger::Unlisted;
use memories::Memories;
use sql::{Batch, Failure, Mark};
use statements::Statements;
use totals::Totals;

/// Pause between batches that fill up at once: the larger batch costs less than two small ones.
const BREATHER: Duration = Duration::from_millis(20);
const FIRST_BACKOFF: Duration = Duration::from_millis(100);
const LAST_BACKOFF: Duration = Duration::from_secs(30);
/// Most that happens to budgets between two flushes: few things a day for each.
const MAX_EVENTS: usize = 4_096;
/// How often a failing database is tried again when the process wants to end.
const CLOSING_TRIES: u32 = 4;
/// How long bodies that wait may still be written then.
const CLOSING_BODIES: Duration = Duration::from_secs(10);

/// How much is queued and how often it is written.
#[derive(Debug, Clone, Copy)]
pub struct WriterOptions {
    /// Most rows that wait; more are shed.
    pub queue_rows: usize,
    /// So many rows are written at once without waiting for more.
    pub flush_rows: usize,
    /// Rows wait no longer than this.
    pub flush_interval: Duration,
    /// Most rows of one transaction.
    pub batch_rows: usize,
    /// Most bytes of memories that the database keeps; an eighth more while it is written.
    pub memory_bytes: u64,
    /// The same for questions and their vectors.
    pub question_bytes: u64,
}

impl Default for WriterOptions {
    fn default() -> Self {
        Self {
            queue_rows: 8192,
            flush_rows: 1_000,
            flush_interval: Duration::from_millis(500),
            batch_rows: 2_048,
            memory_bytes: MAX_BYTES,
            question_bytes: QUESTION_BYTES,
        }
    }
}

/// What became of the rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RecorderStats {
    /// Rows that wait.
    pub queued: u64,
    /// Rows that were not logged: the queue was full, or the database refused them.
    pub shed_rows: u64,
    /// Rows that were logged.
    pub written_rows: u64,
    /// Transactions that failed.
    pub flush_failures: u64,
    /// Memories of conversations that are stored for the time after a restart.
    pub written_memories: u64,
    /// Those that are not: too many waited, or there is no key to encrypt them with.
    pub shed_memories: u64,
    /// Requests whose bodies wait to be written.
    pub queued_bodies: u64,
    /// Requests whose bodies were written.
    pub written_bodies: u64,
    /// Requests whose bodies were let go: too many waited.
    pub shed_bodies: u64,
    /// Requests whose bodies could not be written.
    pub failed_bodies: u64,
    /// Bytes that bodies take on disk.
    pub body_bytes: u64,
}

/// The requests' side: takes what happened, never waits.
#[derive(Debug)]
pub struct StoreRecorder {
    rows: mpsc::Sender<RequestRow>,
    shared: Arc<Shared>,
    flush_rows: usize,
    bodies: Option<BodyQueue>,
}

/// Starts the writing task.
#[derive(Debug, Clone, Copy)]
pub struct Writer;

/// The owner's side of the writing task.
#[derive(Debug, Clone)]
pub struct WriterHandle {
    flushes: mpsc::Sender<oneshot::Sender<()>>,
    cancel: CancellationToken,
    done: CancellationToken,
    bodies: Option<BodyQueue>,
}

impl Writer {
    /// Starts writing. When `cancel` fires, what was recorded until then is written and the task ends: cancel it
    /// after the last request.
    pub fn start(
        store: Store,
        options: WriterOptions,
        tracker: &TaskTracker,
        cancel: CancellationToken,
    ) -> (Arc<StoreRecorder>, WriterHandle) {
        let (rows, queue) = mpsc::channel(options.queue_rows.max(1));
        let (flushes, flush_requests) = mpsc::channel(16);
        let shared = Arc::new(Shared::default());
        let done = CancellationToken::new();
        let bodies = store.body_files().map(|files| BodyQueue::start(store.clone(), files.clone()));
        let task = Task {
            statements: Statements::new(store.pool()),
            store,
            options,
            queue,
            flush_requests,
            shared: Arc::clone(&shared),
            cancel: cancel.clone(),
            batch: Batch::default(),
            doubtful: None,
            mark: Mark::first(),
            waiting: Vec::new(),
            denials: Denials::default(),
            names: Names::default(),
            untrimmed: 0,
        };
        let finished = done.clone().drop_guard();
        tracker.spawn(async move {
            task.run().await;
            drop(finished);
        });
        let recorder =
            StoreRecorder { rows, shared, flush_rows: options.flush_rows.max(1), bodies: bodies.clone() };
        (Arc::new(recorder), WriterHandle { flushes, cancel, done, bodies })
    }
}

impl WriterHandle {
    /// Waits until everything that was recorded before is written.
    pub async fn flush(&self) {
        let (written, waiting) = oneshot::channel();
        if self.flushes.send(written).await.is_ok() {
            let _ = waiting.await;
        }
        if let Some(bodies) = &self.bodies {
            bodies.flush().await;
        }
    }

    /// Writes what is left and ends the task.
    pub async fn close(&self) {
        self.cancel.cancel();
        self.join().await;
    }

    /// Waits until the task has ended.
    pub async fn join(&self) {
        self.done.cancelled().await;
        if let Some(bodies) = &self.bodies {
            bodies.finish(CLOSING_BODIES).await;
        }
    }
}

impl StoreRecorder {
    /// What became of the rows so far.
    pub fn stats(&self) -> RecorderStats {
        let BodyCounts { queued, written, shed, failed, on_disk } =
            self.bodies.as_ref().map(BodyQueue::counts).unwrap_or_default();
        RecorderStats {
            queued_bodies: queued,
            written_bodies: written,
            shed_bodies: shed,
            failed_bodies: failed,
            body_bytes: on_disk,
            queued: (self.rows.max_capacity() - self.rows.capacity()) as u64,
            shed_rows: self.shared.shed_rows.load(Ordering::Relaxed),
            written_rows: self.shared.written_rows.load(Ordering::Relaxed),
            flush_failures: self.shared.flush_failures.load(Ordering::Relaxed),
            written_memories: self.shared.memories.stored(),
            shed_memories: self.shared.memories.shed(),
        }
    }
}

impl Recorder for StoreRecorder {
    fn record(&self, row: RequestRow) {
        match self.rows.try_send(row) {
            Ok(()) => {
                let queued = self.rows.max_capacity() - self.rows.capacity();
                if queued >= self.flush_rows && !self.shared.hurry.swap(true, Ordering::Relaxed) {
                    self.shared.wake.notify_one();
                }
            }
            Err(mpsc::error::TrySendError::Full(row) | mpsc::error::TrySendError::Closed(row)) => {
                self.shared.shed_rows.fetch_add(1, Ordering::Relaxed);
                let mut side = self.shared.side();
                side.totals.add(&row);
                side.unlisted.add(&row);
            }
        }
    }

    fn connection_status(&self, connection: &ConnectionId, status: ConnectionStatus) {
        let first = {
            let mut side = self.shared.side();
            let first = side.statuses.is_empty();
            side.statuses.insert(connection.clone(), status);
            first
        };
        if first {
            self.shared.changed.notify_one();
        }
    }

    fn budget(&self, event: Event) {
        let mut side = self.shared.side();
        if side.events.len() < MAX_EVENTS {
            side.events.push(event);
            drop(side);
            self.shared.changed.notify_one();
        } else {
            tracing::warn!(?event, "the database is behind; what happened to a budget is not written down");
        }
    }

    fn keep_bodies(&self, bodies: Box<RequestBodies>) -> Option<Arc<str>> {
        self.bodies.as_ref()?.offer(bodies)
    }

    fn remember(&self, memory: Memory) {
        if self.shared.memories.offer(memory) {
            self.shared.changed.notify_one();
        }
    }
}

/// Between the requests and the task.
#[derive(Debug, Default)]
struct Shared {
    side: Mutex<Side>,
    memories: Memories,
    /// There are statuses or memories to write.
    changed: Notify,
    /// A batch is full.
    wake: Notify,
    hurry: AtomicBool,
    shed_rows: AtomicU64,
    written_rows: AtomicU64,
    flush_failures: AtomicU64,
}

/// What does not go through the queue.
#[derive(Debug, Default)]
struct Side {
    /// Of rows that were shed.
    totals: Totals,
    /// What they cost.
    unlisted: Unlisted,
    /// What happened to budgets.
    events: Vec<Event>,
    statuses: HashMap<ConnectionId, ConnectionStatus>,
}

impl Shared {
    fn side(&self) -> MutexGuard<'_, Side> {
        self.side.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Task {
    store: Store,
    options: WriterOptions,
    statements: Statements,
    queue: mpsc::Receiver<RequestRow>,
    flush_requests: mpsc::Receiver<oneshot::Sender<()>>,
    shared: Arc<Shared>,
    cancel: CancellationToken,
    batch: Batch,
    /// One whose commit is in doubt. It is settled before anything else is written, and stays as it is until then.
    doubtful: Option<Batch>,
    mark: Mark,
    waiting: Vec<oneshot::Sender<()>>,
    denials: Denials,
    /// Those in decisions.
    names: Names,
    /// Bytes of memories that were written since their table was trimmed.
    untrimmed: u64,
}

impl Task {
    async fn run(mut self) {
        let mut backoff = FIRST_BACKOFF;
        while self.wait().await {
            self.gather();
            if self.write().await {
                backoff = FIRST_BACKOFF;
                if self.queue.is_empty() && self.batch.is_empty() {
                    self.answer();
                }
                continue;
            }
            tokio::select! {
                () = self.cancel.cancelled() => break,
                () = sleep(backoff) => {}
            }
            backoff = (backoff * 2).min(LAST_BACKOFF);
        }
        self.finish().await;
    }

    /// Waits until there is something to write, and a little longer for more. False when it is time to end.
    async fn wait(&mut self) -> bool {
        let Self {
            queue, flush_requests, shared, cancel, batch, doubtful, waiting, options, denials, ..
        } = self;
        let mut deadline = Instant::now() + options.flush_interval;
        if batch.is_empty() && doubtful.is_none() && waiting.is_empty() {
            tokio::select! {
                biased;
                () = cancel.cancelled() => return false,
                Some(ask) = flush_requests.recv() => waiting.push(ask),
                Some(row) = queue.recv() => {
                    batch.audited.extend(denials.event(&row));
                    batch.totals.add(&row);
                    batch.rows.push(row);
                }
                () = shared.changed.notified() => {}
            }
            deadline = Instant::now() + options.flush_interval;
        }
        if !waiting.is_empty() {
            return true;
        }
        if queue.len() >= options.flush_rows {
            deadline = Instant::now() + BREATHER;
        }
        loop {
            tokio::select! {
                biased;
                () = cancel.cancelled() => return false,
                Some(ask) = flush_requests.recv() => {
                    waiting.push(ask);
                    return true;
                }
                () = shared.wake.notified() => deadline = deadline.min(Instant::now() + BREATHER),
                () = sleep_until(deadline) => return true,
            }
        }
    }

    /// Takes what waits, up to the size of a batch. Rows are counted when they are taken, once.
    fn gather(&mut self) {
        self.shared.hurry.store(false, Ordering::Relaxed);
        while self.batch.rows.len() < self.options.batch_rows {
            let Ok(row) = self.queue.try_recv() else { break };
            self.batch.audited.extend(self.denials.event(&row));
            self.batch.totals.add(&row);
            self.batch.rows.push(row);
        }
        let side = mem::take(&mut *self.shared.side());
        self.batch.totals.absorb(side.totals);
        self.batch.unlisted.absorb(side.unlisted);
        self.batch.events.extend(side.events);
        self.batch.statuses.extend(side.statuses);
        if !self.shared.memories.is_empty() {
            self.batch.memories.extend(self.shared.memories.take(&self.store.vault()));
            self.batch.memories.sort_by(|a, b| a.place().cmp(&b.place()));
        }
    }

    /// Whether the batch is written, as far as it ever can be.
    async fn write(&mut self) -> bool {
        if !self.settle().await {
            return false;
        }
        if self.batch.is_empty() {
            return true;
        }
        let Self { store, statements, names, batch, mark, .. } = self;
        let failure = match Box::pin(sql::write(store, statements, names, batch, mark)).await {
            Ok(()) => {
                self.shared.written_rows.fetch_add(self.batch.rows.len() as u64, Ordering::Relaxed);
                self.batch.rows.clear();
                self.batch.rows.shrink_to(256);
                self.batch.totals.clear();
                self.batch.unlisted.clear();
                self.batch.events.clear();
                self.batch.audited.clear();
                self.batch.statuses.clear();
                self.untrimmed += self.shared.memories.written(&mut self.batch.memories);
                self.trim().await;
                return true;
            }
            Err(failure) => failure,
        };
        if failure.is_in_doubt {
            self.doubtful = Some(mem::take(&mut self.batch));
        }
        self.note_failure(&failure.error);
        if failure.error.is_transient() {
            return false;
        }
        self.write_singly().await
    }

    /// Whether no batch is in doubt any more. One that is refused now was not written before, and is one with what came since.
    async fn settle(&mut self) -> bool {
        let Some(mut doubtful) = self.doubtful.take() else { return true };
        let Self { store, statements, names, mark, .. } = self;
        match Box::pin(sql::write(store, statements, names, &doubtful, mark)).await {
            Ok(()) => {
                self.shared.written_rows.fetch_add(doubtful.rows.len() as u64, Ordering::Relaxed);
                self.untrimmed += self.shared.memories.written(&mut doubtful.memories);
                true
            }
            Err(failure) => {
                self.note_failure(&failure.error);
                if failure.error.is_transient() {
                    self.doubtful = Some(doubtful);
                    return false;
                }
                doubtful.absorb(mem::take(&mut self.batch));
                self.batch = doubtful;
                true
            }
        }
    }

    fn note_failure(&self, error: &StoreError) {
        let failures = self.shared.flush_failures.fetch_add(1, Ordering::Relaxed);
        if failures.is_power_of_two() || failures == 0 {
            tracing::error!(%error, rows = self.kept_rows(), "usage cannot be written; it is kept and tried again");
        }
    }

    /// Rows that were taken from the queue and are not known to be written.
    fn kept_rows(&self) -> usize {
        self.batch.rows.len() + self.doubtful.as_ref().map_or(0, |batch| batch.rows.len())
    }

    /// Keeps the tables of memories small between the hours at which everything is pruned.
    async fn trim(&mut self) {
        let limit = self.options.memory_bytes;
        if self.untrimmed >= limit / 8 {
            self.untrimmed = 0;
            let reasoning = self.store.reasoning_memory().trim(limit).await;
            let answers = self.store.answers().trim().await;
            // How many a key may have is a setting, which the hours are for.
            let questions = self.store.similar_questions().trim(u32::MAX, self.options.question_bytes).await;
            let owners = self.store.response_owners().trim().await;
            if let Err(error) = reasoning.and(answers).and(questions).and(owners) {
                tracing::warn!(%error, "old memories cannot be deleted now");
            }
        }
    }

    /// Something in the batch is refused: writes the rows one by one, sheds those that fail, then the rest.
    async fn write_singly(&mut self) -> bool {
        let mut rows = mem::take(&mut self.batch.rows).into_iter();
        while let Some(row) = rows.next() {
            let single = Batch { rows: vec![row], ..Batch::default() };
            let Self { store, statements, names, mark, .. } = self;
            match Box::pin(sql::write(store, statements, names, &single, mark)).await {
                Ok(()) => {
                    self.shared.written_rows.fetch_add(1, Ordering::Relaxed);
                }
                Err(failure) if failure.error.is_transient() => {
                    if failure.is_in_doubt {
                        self.doubtful = Some(single);
                    } else {
                        self.batch.rows.extend(single.rows);
                    }
                    self.batch.rows.extend(rows);
                    return false;
                }
                Err(Failure { error, .. }) => {
                    tracing::error!(%error, "a log row was refused");
                    // It may have been a name of its decision, which the next row would try to write again.
                    self.names = Names::default();
                    single.rows.iter().for_each(|row| self.batch.unlisted.add(row));
                    self.shared.shed_rows.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        let mut rest = mem::take(&mut self.batch);
        let Self { store, statements, names, mark, .. } = self;
        match Box::pin(sql::write(store, statements, names, &rest, mark)).await {
            Ok(()) => {
                self.untrimmed += self.shared.memories.written(&mut rest.memories);
                true
            }
            Err(Failure { error, is_in_doubt: true }) => {
                tracing::error!(%error, "whether totals, statuses and memories are written is not known");
                self.doubtful = Some(rest);
                false
            }
            Err(Failure { error, is_in_doubt: false }) => {
                let kept = error.is_transient();
                tracing::error!(%error, kept, "totals, statuses or memories were refused");
                self.batch = rest;
                if !kept {
                    // Statuses are found out again, memories can be done without; totals stay.
                    self.batch.statuses.clear();
                    self.batch.events.clear();
                    self.batch.audited.clear();
                    self.shared.memories.dropped(&mut self.batch.memories);
                }
                false
            }
        }
    }

    fn answer(&mut self) {
        for written in self.waiting.drain(..) {
            let _ = written.send(());
        }
    }

    /// Writes what is left. Gives up on a database that keeps failing, and says what that lost.
    async fn finish(mut self) {
        self.queue.close();
        self.shared.memories.close();
        let mut backoff = FIRST_BACKOFF;
        let mut tries = 0;
        loop {
            self.gather();
            if self.write().await {
                tries = 0;
                if self.queue.is_empty() {
                    break;
                }
                continue;
            }
            tries += 1;
            if tries >= CLOSING_TRIES {
                let rows = self.kept_rows() + self.queue.len();
                self.shared.shed_rows.fetch_add(rows as u64, Ordering::Relaxed);
                self.shared.memories.dropped(&mut self.batch.memories);
                if let Some(doubtful) = &mut self.doubtful {
                    self.shared.memories.dropped(&mut doubtful.memories);
                }
                tracing::error!(rows, "the database cannot be written; these requests are not in the log");
                break;
            }
            sleep(backoff).await;
            backoff *= 2;
        }
        self.answer();
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        // Whoever waits for a flush must not wait for ever.
        self.answer();
    }
}

#[cfg(test)]
mod tests;
