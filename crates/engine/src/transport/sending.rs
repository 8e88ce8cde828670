//! The body of a request on its way to an upstream: pieces in memory, and behind them a file if there is one.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http_body::{Body, Frame, SizeHint};
use omniroute_wire::splice::Pieces;

use crate::answer::Outgoing;
use crate::ports::Attachment;

/// A body that is being sent.
pub(super) struct Sending {
    pieces: Outgoing,
    attached: Option<Box<Attached>>,
}

struct Attached {
    attachment: Attachment,
    /// How much of the file was sent.
    at: u64,
    reading: Option<BoxFuture<'static, io::Result<Bytes>>>,
    is_tail_sent: bool,
}

impl Sending {
    pub(super) fn new(pieces: Pieces, attachment: Option<&Attachment>) -> Self {
        let attached = attachment.map(|attachment| {
            let attachment = attachment.clone();
            Box::new(Attached { attachment, at: 0, reading: None, is_tail_sent: false })
        });
        Self { pieces: Outgoing::new(pieces), attached }
    }
}

impl Attached {
    fn left(&self) -> u64 {
        let tail = if self.is_tail_sent { 0 } else { self.attachment.tail.len() as u64 };
        self.attachment.file.len() - self.at + tail
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        if self.at < self.attachment.file.len() {
            let reading = self.reading.get_or_insert_with(|| self.attachment.file.read(self.at));
            let read = ready!(reading.poll_unpin(cx));
            self.reading = None;
            return Poll::Ready(Some(read.and_then(|bytes| {
                if bytes.is_empty() {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                self.at += bytes.len() as u64;
                Ok(bytes)
            })));
        }
        if !std::mem::replace(&mut self.is_tail_sent, true) && !self.attachment.tail.is_empty() {
            return Poll::Ready(Some(Ok(self.attachment.tail.clone())));
        }
        Poll::Ready(None)
    }
}

impl Body for Sending {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if let Some(piece) = self.pieces.next() {
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        match &mut self.attached {
            None => Poll::Ready(None),
            Some(attached) => attached.poll_next(cx).map(|next| next.map(|read| read.map(Frame::data))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.pieces.is_end_stream() && self.attached.as_ref().is_none_or(|attached| attached.left() == 0)
    }

    fn size_hint(&self) -> SizeHint {
        let attached = self.attached.as_ref().map_or(0, |attached| attached.left());
        SizeHint::with_exact(self.pieces.length() + attached)
    }
}
