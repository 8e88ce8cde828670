//! Progress of a stream, for clients that ask for it with `x-omniroute-progress`.

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::HeaderName;
use memchr::memmem;
use omniroute_dialect::stream::StreamWatch;
use omniroute_dialect::{Dialect, Progress};

use crate::ctx::RequestCtx;

/// The header by which clients ask, and by which they are told that they will be.
pub(crate) const HEADER: HeaderName = HeaderName::from_static("x-omniroute-progress");
/// Between two reports.
pub(crate) const INTERVAL: Duration = Duration::from_secs(2);

/// How many tokens of an answer have come: what the upstream says, or what its length lets one guess if that is more.
pub(crate) fn tokens(watch: &StreamWatch) -> u64 {
    watch.usage.output_total.unwrap_or(0).max(watch.output_bytes.div_ceil(4))
}

/// Reports of one stream.
pub(crate) struct Reports {
    dialect: &'static dyn Dialect,
    arrived: Instant,
    forced: bool,
    /// When the last one was made, or the stream began; `None` before its first bytes.
    last: Option<Instant>,
    tokens: u64,
    is_done: bool,
}

impl Reports {
    /// The reports that the client asked for, where clients of its dialect survive them.
    pub(crate) fn wanted(ctx: &RequestCtx) -> Option<Self> {
        let wish = ctx.arrival.headers.get(HEADER)?.to_str().ok()?.trim();
        let forced = wish.eq_ignore_ascii_case("force");
        let asks = forced || ["true", "1", "yes"].iter().any(|word| wish.eq_ignore_ascii_case(word));
        let streams = ctx.envelope.as_ref().is_some_and(|envelope| envelope.stream);
        let nothing = Progress { tokens: 0, elapsed: Duration::ZERO, done: false, forced };
        (asks && streams && ctx.dialect().progress(&nothing).is_some()).then(|| Self {
            dialect: ctx.dialect(),
            arrived: ctx.started,
            forced,
            last: None,
            tokens: 0,
            is_done: false,
        })
    }

    /// The client gets its first bytes; says whether it is them.
    pub(crate) fn begin(&mut self, now: Instant) -> bool {
        let is_first = self.last.is_none();
        self.last.get_or_insert(now);
        is_first
    }

    /// How long until the next report; `None` where none will come.
    pub(crate) fn due_in(&self, now: Instant) -> Option<Duration> {
        let last = self.last.filter(|_| !self.is_done)?;
        Some(INTERVAL.saturating_sub(now.saturating_duration_since(last)))
    }

    /// A report between two events.
    pub(crate) fn report(&mut self, watch: &StreamWatch, now: Instant) -> Bytes {
        self.last = Some(now);
        self.event(watch, now, false).into()
    }

    /// The end of the stream with the last report in it.
    pub(crate) fn complete(&mut self, end: Bytes, watch: &StreamWatch, now: Instant) -> Bytes {
        if std::mem::replace(&mut self.is_done, true) {
            return end;
        }
        let event = self.event(watch, now, true);
        let place = self.dialect.end_mark().and_then(|mark| memmem::rfind(&end, mark)).unwrap_or(end.len());
        let mut whole = BytesMut::with_capacity(end.len() + event.len());
        whole.extend_from_slice(&end[..place]);
        whole.extend_from_slice(event.as_bytes());
        whole.extend_from_slice(&end[place..]);
        whole.freeze()
    }

    fn event(&mut self, watch: &StreamWatch, now: Instant, done: bool) -> String {
        // A count of the upstream may be lower than what was estimated before it came; progress does not go back.
        self.tokens = self.tokens.max(tokens(watch));
        let elapsed = now.saturating_duration_since(self.arrived);
        let progress = Progress { tokens: self.tokens, elapsed, done, forced: self.forced };
        self.dialect.progress(&progress).unwrap_or_default()
    }
}
