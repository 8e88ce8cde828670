//! The task that writes: waits for enough, puts a batch together, and writes it until it is written or refused.

use std::mem;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use omniroute_engine::ports::RequestRow;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::denials::Denials;
use super::sql::{self, Batch, Failure, Mark};
use super::statements::Statements;
use super::{Shared, WriterOptions};
use crate::decisions::Names;
use crate::error::StoreError;
use crate::store::Store;

/// Pause between batches that fill up at once: the larger batch costs less than two small ones.
const BREATHER: Duration = Duration::from_millis(20);
const FIRST_BACKOFF: Duration = Duration::from_millis(100);
const LAST_BACKOFF: Duration = Duration::from_secs(30);
/// How often a failing database is tried again when the process wants to end.
const CLOSING_TRIES: u32 = 4;

/// What writes, one batch after the other.
pub(super) struct Task {
    pub(super) store: Store,
    pub(super) options: WriterOptions,
    pub(super) statements: Statements,
    pub(super) queue: mpsc::Receiver<RequestRow>,
    pub(super) flush_requests: mpsc::Receiver<oneshot::Sender<()>>,
    pub(super) shared: Arc<Shared>,
    pub(super) cancel: CancellationToken,
    pub(super) batch: Batch,
    /// One whose commit is in doubt. It is settled before anything else is written, and stays as it is until then.
    pub(super) doubtful: Option<Batch>,
    pub(super) mark: Mark,
    pub(super) waiting: Vec<oneshot::Sender<()>>,
    pub(super) denials: Denials,
    /// Those in decisions.
    pub(super) names: Names,
    /// Bytes of memories that were written since their table was trimmed.
    pub(super) untrimmed: u64,
}

impl Task {
    /// Writes until it is cancelled, and then what is left.
    pub(super) async fn run(mut self) {
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
