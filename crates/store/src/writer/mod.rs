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
mod task;
#[cfg(test)]
mod tests;
mod totals;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use omniroute_domain::budget::Event;
use omniroute_domain::entity::{ConnectionId, ConnectionStatus};
use omniroute_engine::bodies::RequestBodies;
use omniroute_engine::ports::{Memory, Recorder, RequestRow};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::bodies::{BodyCounts, BodyQueue};
use crate::decisions::Names;
use crate::reasoning_memory::MAX_BYTES;
use crate::similar_questions::MAX_BYTES as QUESTION_BYTES;
use crate::store::Store;

use denials::Denials;
use ledger::Unlisted;
use memories::Memories;
use sql::{Batch, Mark};
use statements::Statements;
use task::Task;
use totals::Totals;

/// Most that happens to budgets between two flushes: few things a day for each.
const MAX_EVENTS: usize = 4_096;
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
