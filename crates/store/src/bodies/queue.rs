//! From requests to files: a queue that is bounded by bytes and by number, and one thread that writes. A request waits for
//! neither: where there is no room its bodies are let go, and that is counted.

use std::collections::VecDeque;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use omniroute_engine::bodies::RequestBodies;
use omniroute_engine::ports::RowId;
use tokio::runtime::Handle;
use tokio::time::Instant;

use super::files::BodyFiles;
use super::redact::Redactor;
use super::{BodyState, document};
use crate::store::Store;

/// Most bytes that wait.
const MAX_BYTES: usize = 32 * 1024 * 1024;
/// Most requests that wait.
const MAX_WAITING: usize = 4_096;
/// What a request takes beside its bodies.
const OVERHEAD: usize = 2_048;
/// Most files that are deleted before those that wait have their turn.
const TRIM_STEP: usize = 500;
/// Most rows that wait to be told that their bodies are gone; those beyond find out when they are asked for.
const MAX_GONE: usize = 20_000;
/// How long a row has to get into the database before it is told that its bodies could not be written.
const TELL_EVERY: Duration = Duration::from_secs(5);

/// The requests' side of the files.
#[derive(Debug, Clone)]
pub(crate) struct BodyQueue(Arc<Shared>);

/// What became of bodies.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct BodyCounts {
    pub(crate) queued: u64,
    pub(crate) written: u64,
    pub(crate) shed: u64,
    pub(crate) failed: u64,
    pub(crate) on_disk: u64,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// There is something to do, or nothing more.
    wake: Condvar,
    /// Everything is done.
    idle: Condvar,
    files: Arc<BodyFiles>,
    written: AtomicU64,
    shed: AtomicU64,
    failed: AtomicU64,
    has_ended: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Box<RequestBodies>>,
    bytes: usize,
    is_busy: bool,
    /// Until when what waits may still be written, once no more comes.
    closing: Option<Instant>,
}

impl Shared {
    fn of(files: Arc<BodyFiles>) -> Self {
        Self {
            state: Mutex::default(),
            wake: Condvar::new(),
            idle: Condvar::new(),
            files,
            written: AtomicU64::new(0),
            shed: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            has_ended: AtomicBool::new(false),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl BodyQueue {
    /// Starts the thread. It ends with [`finish`](Self::finish).
    pub(crate) fn start(store: Store, files: Arc<BodyFiles>) -> Self {
        let shared = Arc::new(Shared::of(files));
        let (theirs, runtime) = (shared.clone(), Handle::current());
        let run = move || {
            Thread {
                shared: theirs.clone(),
                store,
                runtime,
                redactor: Redactor::default(),
                gone: Vec::new(),
            }
            .run();
            theirs.has_ended.store(true, Ordering::Release);
            theirs.idle.notify_all();
        };
        if let Err(error) = thread::Builder::new().name("bodies".to_owned()).spawn(run) {
            tracing::error!(%error, "bodies of requests cannot be kept: there is no thread for them");
            shared.state().closing = Some(Instant::now());
            shared.has_ended.store(true, Ordering::Release);
        }
        Self(shared)
    }

    /// Takes the bodies of a request; says which process keeps them, unless there is no room.
    pub(crate) fn offer(&self, bodies: Box<RequestBodies>) -> Option<Arc<str>> {
        let length = bodies.held() + OVERHEAD;
        let is_taken = {
            let mut state = self.0.state();
            let fits = state.closing.is_none()
                && state.waiting.len() < MAX_WAITING
                && state.bytes + length <= MAX_BYTES;
            if fits {
                state.bytes += length;
                state.waiting.push_back(bodies);
            }
            fits
        };
        if !is_taken {
            self.0.shed.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        self.0.wake.notify_one();
        Some(self.0.files.name().clone())
    }

    /// What became of bodies so far.
    pub(crate) fn counts(&self) -> BodyCounts {
        BodyCounts {
            queued: self.0.state().waiting.len() as u64,
            written: self.0.written.load(Ordering::Relaxed),
            shed: self.0.shed.load(Ordering::Relaxed),
            failed: self.0.failed.load(Ordering::Relaxed),
            on_disk: self.0.files.bytes(),
        }
    }

    /// Waits until what was taken before is written.
    pub(crate) async fn flush(&self) {
        self.wait_while(|state| state.is_busy || !state.waiting.is_empty()).await;
    }

    /// Writes what waits, for so long at most, and ends the thread. What is left then is let go.
    pub(crate) async fn finish(&self, limit: Duration) {
        self.0.state().closing.get_or_insert_with(|| Instant::now() + limit);
        self.0.wake.notify_all();
        // One file may be under way when the time is over.
        let end = Instant::now() + limit + Duration::from_secs(1);
        self.wait_while(move |_| Instant::now() < end).await;
    }

    /// Waits while something is so, and the thread has not ended.
    async fn wait_while(&self, is_so: impl Fn(&State) -> bool + Send + 'static) {
        let shared = self.0.clone();
        let wait = move || {
            let mut state = shared.state();
            while is_so(&state) && !shared.has_ended.load(Ordering::Acquire) {
                let (next, _) = shared
                    .idle
                    .wait_timeout(state, Duration::from_millis(100))
                    .unwrap_or_else(PoisonError::into_inner);
                state = next;
            }
        };
        let _ = tokio::task::spawn_blocking(wait).await;
    }
}

enum Next {
    Write(Box<RequestBodies>),
    /// Nothing waits: there is time to tell rows what became of their bodies.
    Tell,
    /// No more is written; these were not.
    End(Vec<RowId>),
}

struct Thread {
    shared: Arc<Shared>,
    store: Store,
    runtime: Handle,
    redactor: Redactor,
    /// Rows whose bodies are not there (any more).
    gone: Vec<(RowId, BodyState)>,
}

impl Thread {
    fn run(mut self) {
        if let Err(error) = self.shared.files.count() {
            tracing::warn!(%error, "bodies of earlier requests cannot be counted; their limit holds for new ones");
        }
        let mut told = Instant::now();
        loop {
            match self.next() {
                Next::Write(bodies) => self.write(&bodies),
                Next::Tell => {}
                Next::End(left) => {
                    self.note_gone(left, BodyState::Shed);
                    break;
                }
            }
            if told.elapsed() >= TELL_EVERY {
                self.tell();
                told = Instant::now();
            }
        }
        self.tell();
    }

    fn next(&self) -> Next {
        let mut state = self.shared.state();
        state.is_busy = false;
        loop {
            if let Some(end) = state.closing
                && (state.waiting.is_empty() || Instant::now() >= end)
            {
                let left: Vec<_> = mem::take(&mut state.waiting).iter().map(|bodies| bodies.id).collect();
                if !left.is_empty() {
                    self.shared.shed.fetch_add(left.len() as u64, Ordering::Relaxed);
                    let left = left.len();
                    tracing::warn!(left, "bodies of requests were not written before the gateway had to end");
                }
                return Next::End(left);
            }
            if let Some(bodies) = state.waiting.pop_front() {
                state.bytes = state.bytes.saturating_sub(bodies.held() + OVERHEAD);
                state.is_busy = true;
                return Next::Write(bodies);
            }
            self.shared.idle.notify_all();
            if self.gone.is_empty() {
                state = self.shared.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
            } else {
                let waited = self.shared.wake.wait_timeout(state, TELL_EVERY);
                let (next, waited) = waited.unwrap_or_else(PoisonError::into_inner);
                state = next;
                if waited.timed_out() {
                    return Next::Tell;
                }
            }
        }
    }

    fn write(&mut self, bodies: &RequestBodies) {
        // What clients sent must not end the thread, whatever it is.
        let redactor = &mut self.redactor;
        let document = catch_unwind(AssertUnwindSafe(|| {
            // Who cannot look for secrets writes nothing.
            let redaction = redactor.of(bodies).map_err(std::io::Error::other)?;
            document::write(bodies, &redaction).map_err(std::io::Error::other)
        }));
        let document = document.unwrap_or_else(|_| {
            Err(std::io::Error::other("it could not be put together; this is a bug of the gateway"))
        });
        match document.and_then(|document| self.shared.files.write(bodies.id, &document)) {
            Ok(()) => {
                self.shared.written.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => {
                let failed = self.shared.failed.fetch_add(1, Ordering::Relaxed) + 1;
                if failed.is_power_of_two() {
                    tracing::error!(%error, failed, "the bodies of a request cannot be written to the data directory");
                }
                self.note_gone([bodies.id], BodyState::Failed);
            }
        }
        let most = bodies.snapshot.settings.call_log_bodies.max_bytes();
        match self.shared.files.trim(most, TRIM_STEP) {
            Ok(removed) => self.note_gone(removed, BodyState::Pruned),
            Err(error) => tracing::warn!(%error, "the oldest bodies of requests cannot be deleted"),
        }
    }

    fn note_gone(&mut self, rows: impl IntoIterator<Item = RowId>, state: BodyState) {
        let room = MAX_GONE.saturating_sub(self.gone.len());
        self.gone.extend(rows.into_iter().take(room).map(|id| (id, state)));
    }

    fn tell(&mut self) {
        if self.gone.is_empty() {
            return;
        }
        let gone = mem::take(&mut self.gone);
        if let Err(error) = self.runtime.block_on(self.store.call_logs().tell_bodies(&gone)) {
            tracing::warn!(%error, rows = gone.len(), "rows of the log do not know that their bodies are gone");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::document::tests::bodies;
    use super::*;
    use crate::{Location, StoreOptions};

    #[tokio::test]
    async fn what_is_left_when_the_time_is_over_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let location = Location::Sqlite { data_dir: dir.path().to_owned() };
        let options = StoreOptions { location, encryption_key: None, previous_key: None };
        let shared = Arc::new(Shared::of(Arc::new(BodyFiles::in_dir(dir.path()))));
        let thread = Thread {
            shared: shared.clone(),
            store: Store::open(options).await.unwrap(),
            runtime: Handle::current(),
            redactor: Redactor::default(),
            gone: Vec::new(),
        };
        let ids = [1, 2].map(|number| RowId::new(1_767_323_045_678, [number; 10]));
        shared.state().waiting.extend(ids.map(|id| Box::new(bodies(id, "{}", "{}"))));
        shared.state().closing = Some(Instant::now());
        let Next::End(left) = thread.next() else { panic!("there is no time left") };
        assert_eq!((left, shared.shed.load(Ordering::Relaxed)), (ids.to_vec(), 2));
    }
}
