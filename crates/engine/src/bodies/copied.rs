//! A body as it is copied for the log: what came whole is shared, what came in pieces is copied, and neither beyond a limit.

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame};
use smallvec::SmallVec;

use crate::ports::UpstreamBody;

/// Most bytes of a stream that are copied.
pub(super) const STREAM_LIMIT: usize = 512 * 1024;
/// Longest whole body that is shared. Of a longer one a beginning is copied, so that the log does not hold the rest.
pub(super) const SHARED_LIMIT: usize = 8 * 1024 * 1024;

/// Most bytes of all streams together that are copied at once, until they are written down.
const ROOM: usize = 64 * 1024 * 1024;

/// How many bytes of streams are copied now, by all requests.
#[derive(Debug, Clone, Default)]
pub(crate) struct Room(Arc<AtomicUsize>);

impl Room {
    /// Whether so many more may be copied.
    fn take(&self, bytes: usize) -> bool {
        let taken = self.0.fetch_add(bytes, Ordering::Relaxed);
        let fits = taken + bytes <= ROOM;
        if !fits {
            self.0.fetch_sub(bytes, Ordering::Relaxed);
        }
        fits
    }
}

/// What one stream takes of the room.
#[derive(Debug)]
struct Share {
    room: Room,
    bytes: usize,
}

impl Share {
    fn take(&mut self, bytes: usize) -> bool {
        let fits = self.room.take(bytes);
        self.bytes += if fits { bytes } else { 0 };
        fits
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.room.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// What is kept of a body until it is written down.
#[derive(Debug, Default)]
pub struct Copied {
    shared: SmallVec<[Bytes; 2]>,
    copied: BytesMut,
    /// Of the whole body.
    length: u64,
    /// There is a body, of which nothing is here.
    is_omitted: bool,
    /// Of a stream: where it takes its bytes from.
    share: Option<Share>,
    /// There was no room for some of it, so that the rest would not follow.
    is_broken: bool,
}

impl Copied {
    /// A body that is there in full.
    pub fn whole(pieces: &[Bytes]) -> Self {
        let length: usize = pieces.iter().map(Bytes::len).sum();
        let mut body = Self { length: length as u64, ..Self::default() };
        if length <= SHARED_LIMIT {
            body.shared.extend(pieces.iter().filter(|piece| !piece.is_empty()).cloned());
            return body;
        }
        for piece in pieces {
            let room = STREAM_LIMIT - body.copied.len();
            body.copied.extend_from_slice(&piece[..piece.len().min(room)]);
        }
        body
    }

    /// A body that is not copied; `length` is what the client said of it, if it did.
    pub fn omitted(length: u64) -> Self {
        Self { length, is_omitted: true, ..Self::default() }
    }

    /// A body that comes in pieces, as long as there is room for them.
    pub(super) fn streamed(room: Room) -> Self {
        Self { share: Some(Share { room, bytes: 0 }), ..Self::default() }
    }

    /// More of a body that comes in pieces.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.length += bytes.len() as u64;
        if self.is_broken {
            return;
        }
        let wanted = bytes.len().min(STREAM_LIMIT.saturating_sub(self.copied.len()));
        self.is_broken = self.share.as_mut().is_some_and(|share| !share.take(wanted));
        if !self.is_broken {
            self.copied.extend_from_slice(&bytes[..wanted]);
        }
    }

    /// Bytes of the whole body.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Bytes that are here.
    pub fn held(&self) -> usize {
        self.shared.iter().map(Bytes::len).sum::<usize>() + self.copied.len()
    }

    /// Whether nothing came.
    pub fn is_empty(&self) -> bool {
        self.length == 0 && !self.is_omitted
    }

    /// What is here, in one piece.
    pub fn to_bytes(&self) -> Bytes {
        match (self.shared.as_slice(), self.copied.is_empty()) {
            ([one], true) => one.clone(),
            (pieces, _) => {
                let mut all = BytesMut::with_capacity(self.held());
                for piece in pieces {
                    all.extend_from_slice(piece);
                }
                all.extend_from_slice(&self.copied);
                all.freeze()
            }
        }
    }
}

/// Where the body of an upstream's answer is copied to while somebody reads it.
#[derive(Debug, Clone)]
pub(super) struct Sink(Arc<Mutex<Copied>>);

impl Sink {
    pub(super) fn new(room: Room) -> Self {
        Self(Arc::new(Mutex::new(Copied::streamed(room))))
    }

    fn copied(&self) -> MutexGuard<'_, Copied> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What has come so far; the rest is not copied any more than it is read.
    pub(super) fn take(&self) -> Copied {
        std::mem::take(&mut *self.copied())
    }
}

/// The body of an upstream's answer that is copied while it is read.
pub struct CopiedBody {
    body: UpstreamBody,
    into: Sink,
}

impl CopiedBody {
    pub(super) fn new(body: UpstreamBody, into: Sink) -> Self {
        Self { body, into }
    }
}

impl Body for CopiedBody {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(bytes) = frame.data_ref()
        {
            self.into.copied().push(bytes);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_body_is_shared_and_a_long_one_cut() {
        let piece = Bytes::from(vec![b'a'; 1_000]);
        let body = Copied::whole(&[piece.clone(), Bytes::new(), piece.clone()]);
        assert_eq!((body.length(), body.held(), body.shared.len()), (2_000, 2_000, 2));
        assert_eq!(body.shared[0].as_ptr(), piece.as_ptr());
        assert_eq!(Copied::whole(std::slice::from_ref(&piece)).to_bytes().as_ptr(), piece.as_ptr());

        let long = Bytes::from(vec![b'b'; SHARED_LIMIT]);
        let body = Copied::whole(&[piece, long]);
        assert_eq!((body.length(), body.held()), (SHARED_LIMIT as u64 + 1_000, STREAM_LIMIT));
        assert!(body.shared.is_empty());
    }

    #[test]
    fn all_streams_together_have_one_room() {
        let room = Room::default();
        room.0.store(ROOM - 1_500, Ordering::Relaxed);
        let mut body = Copied::streamed(room.clone());
        body.push(&[b'd'; 1_000]);
        body.push(&[b'd'; 1_000]);
        // What would follow a gap is left out, however short.
        body.push(b"d");
        assert_eq!((body.length(), body.held()), (2_001, 1_000));
        assert_eq!(room.0.load(Ordering::Relaxed), ROOM - 500, "only what is kept takes room");
        drop(body);
        assert_eq!(room.0.load(Ordering::Relaxed), ROOM - 1_500);
    }

    #[test]
    fn a_stream_is_copied_up_to_its_limit_and_counted_beyond() {
        let mut body = Copied::default();
        assert!(body.is_empty());
        for _ in 0..600 {
            body.push(&[b'c'; 1_000]);
        }
        assert_eq!((body.length(), body.held()), (600_000, STREAM_LIMIT));
        assert_eq!(body.to_bytes().len(), STREAM_LIMIT);
    }
}
