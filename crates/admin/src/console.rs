//! The latest lines of the process's own log, for people who look at it over HTTP.
//!
//! Whoever logs adds a line and goes on: one short lock, nothing is written or waited for. Readers come for lines at their own
//! pace. There is no queue per reader: what was pushed out before a slow one came is told as a number.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use omniroute_engine::error::rfc3339;
use serde::Serialize;
use serde_json::{Map, Value};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until};
use utoipa::ToSchema;

/// Most lines kept.
pub(crate) const MAX_LINES: usize = 2_000;
/// Most bytes of them, about.
pub(crate) const MAX_BYTES: usize = 1 << 20;
/// Most readers at once.
pub(crate) const MAX_READERS: usize = 16;
/// Most lines that a reader gets in one piece.
const BATCH: usize = 64;
/// What a line takes beside its texts.
const OVERHEAD: usize = 96;
/// Silence after which a reader hears that the stream still is there.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// After so long a reader has to come again, so that who may no longer read does not for ever.
const LONGEST: Duration = Duration::from_secs(3_600);

/// How bad a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// Something is broken.
    Error,
    /// Something may be.
    Warn,
    /// What happens.
    Info,
    /// For who looks for a mistake.
    Debug,
    /// For who looks very closely.
    Trace,
}

impl LogLevel {
    /// The word in lines and queries.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }

    /// Of such a word, in any case.
    pub(crate) fn of_word(word: &str) -> Option<Self> {
        let all = [Self::Error, Self::Warn, Self::Info, Self::Debug, Self::Trace];
        all.into_iter().find(|level| level.as_str().eq_ignore_ascii_case(word))
    }
}

/// A line, as whoever logs hands it over: its texts are short enough already.
#[derive(Debug, Clone)]
pub struct LogLine {
    /// When.
    pub time_ms: i64,
    /// How bad.
    pub level: LogLevel,
    /// The module that says it.
    pub target: &'static str,
    /// What it says.
    pub message: String,
    /// With which values.
    pub fields: Vec<(&'static str, Value)>,
    /// Whether something was too long and is cut off.
    pub is_cut: bool,
}

/// A line as it is shown.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LineView {
    /// Its place in the log of this process; for `Last-Event-ID`.
    id: String,
    time: String,
    level: &'static str,
    target: &'static str,
    message: String,
    #[schema(value_type = Object)]
    fields: Map<String, Value>,
    /// Whether something was too long and is cut off.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    truncated: bool,
}

/// The latest lines.
#[derive(Debug)]
pub struct Console {
    ring: Mutex<Ring>,
    grew: Notify,
    is_closed: AtomicBool,
    /// Tells the ids of this process from those of an earlier one.
    began_ms: i64,
    readers: Arc<Semaphore>,
}

#[derive(Debug, Default)]
struct Ring {
    lines: VecDeque<Arc<LogLine>>,
    bytes: usize,
    /// The number of the first line that is still there.
    first: u64,
}

impl Console {
    /// Nothing said yet, in a process that began then.
    pub fn new(began_ms: i64) -> Self {
        Self {
            ring: Mutex::default(),
            grew: Notify::new(),
            is_closed: AtomicBool::new(false),
            began_ms,
            readers: Arc::new(Semaphore::new(MAX_READERS)),
        }
    }

    /// Adds a line; the oldest make room.
    pub fn push(&self, line: LogLine) {
        let line = Arc::new(line);
        // What goes is freed after the lock.
        let mut gone = Vec::new();
        {
            let mut ring = self.ring();
            ring.bytes += size(&line);
            ring.lines.push_back(line);
            while ring.lines.len() > MAX_LINES || ring.bytes > MAX_BYTES {
                let Some(oldest) = ring.lines.pop_front() else { break };
                ring.bytes -= size(&oldest);
                ring.first += 1;
                gone.push(oldest);
            }
        }
        self.grew.notify_waiters();
    }

    /// The process ends: so do the streams, after what was said so far.
    pub fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
        self.grew.notify_waiters();
    }

    /// Waits until the process ends.
    pub(crate) async fn closed(&self) {
        loop {
            let mut grew = pin!(self.grew.notified());
            // From here on nothing is overlooked.
            grew.as_mut().enable();
            if self.is_closed.load(Ordering::Acquire) {
                return;
            }
            grew.await;
        }
    }

    /// The latest lines of that level or worse, oldest first.
    pub(crate) fn tail(&self, level: LogLevel, most: usize) -> Vec<LineView> {
        let mut found: Vec<_> = {
            let ring = self.ring();
            let numbered =
                ring.lines.iter().enumerate().rev().map(|(at, line)| (ring.first + at as u64, line));
            let wanted = numbered.filter(|(_, line)| line.level <= level);
            wanted.take(most).map(|(number, line)| (number, line.clone())).collect()
        };
        found.reverse();
        found.iter().map(|(number, line)| self.view(*number, line)).collect()
    }

    /// The latest lines of every level as they are shown, oldest first.
    pub fn latest(&self, most: usize) -> Vec<impl Serialize + use<>> {
        self.tail(LogLevel::Trace, most)
    }

    /// A reader of new lines, of those after `last` where it has been here before; `None` when there are too many readers.
    pub(crate) fn follow(self: &Arc<Self>, level: LogLevel, last: Option<&str>) -> Option<Follower> {
        let place = self.readers.clone().try_acquire_owned().ok()?;
        let end = {
            let ring = self.ring();
            ring.first + ring.lines.len() as u64
        };
        let next = match last.map(|id| self.number_of(id)) {
            None => end,
            // Of an earlier process: all that this one said is new.
            Some(None) => 0,
            Some(Some(last)) => last.saturating_add(1).min(end),
        };
        let now = Instant::now();
        Some(Follower {
            console: self.clone(),
            level,
            next,
            // All lines of another process are unknown here, not missed.
            counts_missed: last.is_none_or(|id| self.number_of(id).is_some()),
            greets: true,
            keep_alive_at: now + KEEP_ALIVE,
            ends_at: now + LONGEST,
            _place: place,
        })
    }

    fn view(&self, number: u64, line: &LogLine) -> LineView {
        LineView {
            id: self.id_of(number),
            time: rfc3339(line.time_ms),
            level: line.level.as_str(),
            target: line.target,
            message: line.message.clone(),
            fields: line.fields.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect(),
            truncated: line.is_cut,
        }
    }

    fn id_of(&self, number: u64) -> String {
        format!("{:x}-{number}", self.began_ms)
    }

    /// `None`: it is no id of this process.
    fn number_of(&self, id: &str) -> Option<u64> {
        let (began, number) = id.trim().split_once('-')?;
        (i64::from_str_radix(began, 16).ok()? == self.began_ms).then(|| number.parse().ok()).flatten()
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// About what a line takes.
fn size(line: &LogLine) -> usize {
    let text = |value: &Value| value.as_str().map_or(0, str::len);
    OVERHEAD + line.message.len() + line.fields.iter().map(|(_, value)| 32 + text(value)).sum::<usize>()
}

/// Somebody who reads along, as server-sent events.
pub(crate) struct Follower {
    console: Arc<Console>,
    level: LogLevel,
    /// The number of the next line to look at.
    next: u64,
    counts_missed: bool,
    greets: bool,
    keep_alive_at: Instant,
    ends_at: Instant,
    _place: OwnedSemaphorePermit,
}

impl Follower {
    /// The next events; `None` at the end.
    pub(crate) async fn read(&mut self) -> Option<Bytes> {
        if std::mem::take(&mut self.greets) {
            // The head goes out with it, so that the client knows at once that it listens.
            return Some(Bytes::from_static(b"retry: 3000\n\n"));
        }
        let console = self.console.clone();
        loop {
            let mut grew = pin!(console.grew.notified());
            // From here on nothing is overlooked.
            grew.as_mut().enable();
            let is_closed = console.is_closed.load(Ordering::Acquire);
            let text = self.news();
            let now = Instant::now();
            if !text.is_empty() {
                self.keep_alive_at = now + KEEP_ALIVE;
                return Some(text.into());
            }
            if is_closed || now >= self.ends_at {
                return None;
            }
            if now >= self.keep_alive_at {
                self.keep_alive_at = now + KEEP_ALIVE;
                return Some(Bytes::from_static(b": keep-alive\n\n"));
            }
            tokio::select! {
                () = grew => {}
                () = sleep_until(self.keep_alive_at.min(self.ends_at)) => {}
            }
        }
    }

    /// The lines that are there and were not read yet, at most a batch of them.
    fn news(&mut self) -> String {
        let (mut missed, mut found) = (0, Vec::new());
        {
            let ring = self.console.ring();
            if self.next < ring.first {
                missed = ring.first - self.next;
                self.next = ring.first;
            }
            let from = usize::try_from(self.next - ring.first).unwrap_or(usize::MAX);
            for line in ring.lines.iter().skip(from) {
                if found.len() >= BATCH {
                    break;
                }
                if line.level <= self.level {
                    found.push((self.next, line.clone()));
                }
                self.next += 1;
            }
        }
        let mut text = String::new();
        if missed > 0 && self.counts_missed {
            let _ = write!(text, "event: missed\ndata: {{\"missed\":{missed}}}\n\n");
        }
        self.counts_missed = true;
        for (number, line) in found {
            let view = self.console.view(number, &line);
            // Strings and numbers only: nothing in it can fail to be written.
            let json = serde_json::to_string(&view).unwrap_or_default();
            let _ = write!(text, "id: {}\ndata: {json}\n\n", view.id);
        }
        text
    }
}

#[cfg(test)]
#[path = "console/tests.rs"]
mod tests;
