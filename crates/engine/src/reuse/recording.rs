//! An answer that several clients read, each from its beginning.
//!
//! Nobody pumps: whichever reader is at the end of what is there asks the upstream for more, and wakes the others. So the
//! call goes on while one of them is left, at the pace of the fastest, and ends with the last.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use smallvec::SmallVec;

use crate::cancel;
use crate::ctx::RequestCtx;
use crate::relay::{self, Relay};

/// Most bytes of an answer that are kept for others. A longer one is read by those who are there, and by nobody later.
const MAX_BYTES: usize = 1024 * 1024;
/// Most bytes of all recordings together; beyond it no more is kept than who reads needs.
const MAX_TOTAL: usize = 64 * 1024 * 1024;
/// How far a reader may fall behind when there is no room.
const LEAST: usize = 64 * 1024;

/// Status and headers of an answer.
#[derive(Debug, Clone)]
pub(crate) struct Head {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
}

/// An answer on its way, or complete.
pub(crate) struct Recording {
    state: Mutex<State>,
    total: Arc<AtomicUsize>,
}

struct State {
    head: Option<Head>,
    /// What has come, but for the first `dropped` pieces.
    pieces: VecDeque<Bytes>,
    dropped: usize,
    bytes: usize,
    source: Source,
    readers: usize,
    next_id: u64,
    /// Who waits for a head or for more.
    waiting: SmallVec<[(u64, Waker); 2]>,
}

/// Where more comes from.
enum Source {
    /// The head has not come yet.
    Awaited,
    /// From here.
    Live(Box<Relay>),
    /// From nowhere: it is complete, since this time in epoch milliseconds.
    Complete(i64),
    /// From nowhere: it was not to be, or is of no use to others.
    Gone,
}

impl Recording {
    /// Of an answer that is still to come. `total` counts the bytes of all.
    pub(crate) fn new(total: Arc<AtomicUsize>) -> Arc<Self> {
        Arc::new(Self {
            total,
            state: Mutex::new(State {
                head: None,
                pieces: VecDeque::new(),
                dropped: 0,
                bytes: 0,
                source: Source::Awaited,
                readers: 0,
                next_id: 0,
                waiting: SmallVec::new(),
            }),
        })
    }

    /// The answer came whole. `since` is the time when others may still have it; `None` where only who waits may.
    pub(crate) fn complete(&self, head: Head, pieces: impl IntoIterator<Item = Bytes>, since: Option<i64>) {
        let mut state = self.state();
        state.head = Some(head);
        for piece in pieces {
            self.push(&mut state, piece);
        }
        // Too long to be kept: who waits would get the end without the beginning.
        let is_whole = state.dropped == 0;
        state.source = match since.filter(|_| is_whole) {
            Some(now_ms) => Source::Complete(now_ms),
            None => Source::Gone,
        };
        if !is_whole {
            state.head = None;
        }
        state.wake();
    }

    /// The answer has begun.
    pub(crate) fn begin(self: &Arc<Self>, head: Head, relay: Box<Relay>) -> Reader {
        let mut state = self.state();
        state.head = Some(head);
        state.source = Source::Live(relay);
        state.wake();
        self.reader_in(&mut state)
    }

    /// There will be no answer that others can have; they have to ask themselves.
    pub(crate) fn abandon(&self) {
        let mut state = self.state();
        if matches!(state.source, Source::Awaited) {
            state.source = Source::Gone;
        }
        state.wake();
    }

    /// Whether a request that comes now can have this answer.
    pub(crate) fn is_of_use(&self, now_ms: i64, window_ms: i64) -> bool {
        let state = self.state();
        match &state.source {
            Source::Awaited | Source::Live(_) => state.dropped == 0,
            Source::Complete(since) => now_ms.saturating_sub(*since) < window_ms,
            Source::Gone => false,
        }
    }

    /// Whether the answer is complete, or there will be none.
    pub(crate) fn is_over(&self) -> bool {
        matches!(self.state().source, Source::Complete(_) | Source::Gone)
    }

    /// Waits for the beginning of the answer. `None`: there is none to be had.
    pub(crate) async fn read(self: &Arc<Self>) -> Option<(Head, Reader)> {
        let mut place = Waiting { recording: self, id: None };
        std::future::poll_fn(|cx| place.poll(cx)).await
    }

    fn reader_in(self: &Arc<Self>, state: &mut State) -> Reader {
        state.readers += 1;
        state.next_id += 1;
        Reader { recording: self.clone(), id: state.next_id, next: 0 }
    }

    fn push(&self, state: &mut State, piece: Bytes) {
        state.bytes += piece.len();
        let total = self.total.fetch_add(piece.len(), Ordering::Relaxed) + piece.len();
        state.pieces.push_back(piece);
        let most = if total > MAX_TOTAL { LEAST } else { MAX_BYTES };
        while state.bytes > most && state.pieces.len() > 1 {
            let Some(first) = state.pieces.pop_front() else { break };
            state.dropped += 1;
            state.bytes -= first.len();
            self.total.fetch_sub(first.len(), Ordering::Relaxed);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        let bytes = self.state().bytes;
        self.total.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl State {
    fn wake(&mut self) {
        for (_, waker) in self.waiting.drain(..) {
            waker.wake();
        }
    }

    fn wait(&mut self, id: u64, waker: &Waker) {
        match self.waiting.iter_mut().find(|(other, _)| *other == id) {
            Some((_, old)) => old.clone_from(waker),
            None => self.waiting.push((id, waker.clone())),
        }
    }
}

/// Somebody who waits for the head.
struct Waiting<'a> {
    recording: &'a Arc<Recording>,
    id: Option<u64>,
}

impl Waiting<'_> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<(Head, Reader)>> {
        let mut state = self.recording.state();
        match &state.source {
            Source::Awaited => {
                let id = *self.id.get_or_insert_with(|| {
                    state.next_id += 1;
                    state.next_id
                });
                state.wait(id, cx.waker());
                Poll::Pending
            }
            _ => Poll::Ready(match state.head.clone().filter(|_| state.dropped == 0) {
                Some(head) => Some((head, self.recording.reader_in(&mut state))),
                None => None,
            }),
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.recording.state().waiting.retain(|(other, _)| *other != id);
        }
    }
}

/// One client's place in an answer.
pub(crate) struct Reader {
    recording: Arc<Recording>,
    id: u64,
    next: usize,
}

impl Reader {
    /// The next bytes.
    pub(crate) fn poll_bytes(
        &mut self,
        clock: impl FnOnce() -> i64,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Bytes>>> {
        let mut guard = self.recording.state();
        let state = &mut *guard;
        let Some(place) = self.next.checked_sub(state.dropped) else {
            let message = "this client reads too slowly to share an answer with others";
            return Poll::Ready(Some(Err(io::Error::other(message))));
        };
        if let Some(piece) = state.pieces.get(place) {
            self.next += 1;
            return Poll::Ready(Some(Ok(piece.clone())));
        }
        let Source::Live(relay) = &mut state.source else { return Poll::Ready(None) };
        match relay.poll_bytes(cx) {
            Poll::Ready(Some(bytes)) => {
                self.next += 1;
                self.recording.push(state, bytes.clone());
                state.wake();
                Poll::Ready(Some(Ok(bytes)))
            }
            Poll::Ready(None) => {
                let is_of_use = relay.has_succeeded() && state.dropped == 0;
                state.source = if is_of_use { Source::Complete(clock()) } else { Source::Gone };
                state.wake();
                Poll::Ready(None)
            }
            Poll::Pending => {
                state.wait(self.id, cx.waker());
                Poll::Pending
            }
        }
    }

    fn is_done(&self) -> bool {
        let state = self.recording.state();
        !matches!(state.source, Source::Live(_)) && self.next >= state.dropped + state.pieces.len()
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let ended = {
            let mut state = self.recording.state();
            state.readers -= 1;
            state.waiting.retain(|(id, _)| *id != self.id);
            // It may have been the one whom the upstream would wake.
            state.wake();
            let is_abandoned = state.readers == 0 && matches!(state.source, Source::Live(_));
            is_abandoned.then(|| std::mem::replace(&mut state.source, Source::Gone))
        };
        // Ends the call and writes the request down, which is nothing to hold a lock for.
        drop(ended);
    }
}

/// The body of an answer that others read too.
pub struct Shared {
    reader: Reader,
    /// The request of a client that got somebody else's answer; whoever began it is written down with the answer itself.
    ctx: Option<Box<RequestCtx>>,
    /// An operator ended this client's part in it.
    is_cancelled: bool,
    engine: Arc<crate::Engine>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("is_done", &self.is_done()).finish_non_exhaustive()
    }
}

impl Shared {
    pub(crate) fn new(engine: Arc<crate::Engine>, reader: Reader, ctx: Option<Box<RequestCtx>>) -> Self {
        Self { reader, ctx, is_cancelled: false, engine }
    }

    pub(crate) fn poll_bytes(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        if self.is_cancelled {
            return Poll::Ready(None);
        }
        let polled = self.reader.poll_bytes(|| self.engine.clock.now_ms(), cx);
        // The answer itself goes on: it is somebody else's.
        if let Some(ctx) = &mut self.ctx
            && polled.is_pending()
            && ctx.is_cancelled_or_wake(cx)
        {
            self.is_cancelled = true;
            let error = cancel::end(ctx);
            return Poll::Ready(Some(Ok(relay::fail(ctx, &error))));
        }
        if let Some(ctx) = &mut self.ctx {
            match &polled {
                Poll::Ready(None) => ctx.outcome.status = Some(StatusCode::OK.as_u16()),
                Poll::Ready(Some(Ok(bytes))) => ctx.copy_part(bytes),
                Poll::Ready(Some(Err(_))) | Poll::Pending => {}
            }
        }
        polled
    }

    pub(crate) fn is_done(&self) -> bool {
        self.is_cancelled || self.reader.is_done()
    }
}
