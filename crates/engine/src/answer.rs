//! Bodies that the engine sends: answers to clients, requests to upstreams.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use omniroute_wire::splice::Pieces;

use crate::relay::Relay;
use crate::reuse::Shared;

/// A complete body in pieces; its length is known, nothing of it is copied.
#[derive(Debug)]
pub struct Outgoing {
    pieces: smallvec::IntoIter<[Bytes; 8]>,
    length: u64,
}

impl Outgoing {
    /// A body of these pieces.
    pub fn new(pieces: Pieces) -> Self {
        let length = pieces.iter().map(|piece| piece.len() as u64).sum();
        Self { pieces: pieces.into_iter(), length }
    }

    /// How many bytes are left of it.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// What is left of it.
    pub(crate) fn pieces(&self) -> &[Bytes] {
        self.pieces.as_slice()
    }

    pub(crate) fn next(&mut self) -> Option<Bytes> {
        let piece = self.pieces.next()?;
        self.length -= piece.len() as u64;
        Some(piece)
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Poll::Ready(self.next().map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.length == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.length)
    }
}

/// The body of an answer to a client.
#[allow(
    clippy::large_enum_variant,
    reason = "most answers are complete; a box would cost each of them an allocation"
)]
#[derive(Debug)]
pub enum Answer {
    /// Complete.
    Whole(Outgoing),
    /// As the upstream gives it.
    Stream(Box<Relay>),
    /// Which others read too.
    Shared(Box<Shared>),
}

impl Answer {
    /// A complete body.
    pub fn whole(pieces: Pieces) -> Self {
        Self::Whole(Outgoing::new(pieces))
    }

    /// A complete body of one piece.
    pub fn full(bytes: Bytes) -> Self {
        let mut pieces = Pieces::new();
        if !bytes.is_empty() {
            pieces.push(bytes);
        }
        Self::whole(pieces)
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        match &mut *self {
            Self::Whole(body) => Poll::Ready(body.next().map(|piece| Ok(Frame::data(piece)))),
            Self::Stream(relay) => {
                relay.poll_bytes(cx).map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
            }
            Self::Shared(shared) => {
                shared.poll_bytes(cx).map(|bytes| bytes.map(|read| read.map(Frame::data)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(body) => body.is_end_stream(),
            Self::Stream(relay) => relay.is_done(),
            Self::Shared(shared) => shared.is_done(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(body) => body.size_hint(),
            Self::Stream(_) | Self::Shared(_) => SizeHint::default(),
        }
    }
}
