//! The body of a request on its way to an upstream: pieces in memory, and behind them files if there are any.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http_body::{Body, Frame, SizeHint};
use omniroute_wire::splice::Pieces;

use crate::answer::Outgoing;
use crate::ports::{Attachment, Departure};

/// A body that is being sent.
pub(super) struct Sending {
    pieces: Outgoing,
    attached: Option<Box<Attached>>,
    departure: Departure,
}

struct Attached {
    attachment: Attachment,
    /// The file that is being sent.
    which: usize,
    /// How much of it was sent.
    at: u64,
    reading: Option<BoxFuture<'static, io::Result<Bytes>>>,
}

impl Sending {
    pub(super) fn new(pieces: Pieces, attachment: Option<&Attachment>, departure: Departure) -> Self {
        let attached = attachment.map(|attachment| {
            let attachment = attachment.clone();
            Box::new(Attached { attachment, which: 0, at: 0, reading: None })
        });
        Self { pieces: Outgoing::new(pieces), attached, departure }
    }
}

impl Attached {
    fn left(&self) -> u64 {
        let files = self.attachment.files.get(self.which..).unwrap_or_default();
        let whole: u64 = files.iter().map(|(file, behind)| file.len() + behind.len() as u64).sum();
        whole - self.at
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        while let Some((file, behind)) = self.attachment.files.get(self.which) {
            if self.at < file.len() {
                let reading = self.reading.get_or_insert_with(|| file.read(self.at));
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
            (self.which, self.at) = (self.which + 1, 0);
            if !behind.is_empty() {
                return Poll::Ready(Some(Ok(behind.clone())));
            }
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
        let next = match (self.pieces.next(), &mut self.attached) {
            (Some(piece), _) => Some(Ok(piece)),
            (None, None) => None,
            (None, Some(attached)) => ready!(attached.poll_next(cx)),
        };
        if self.is_end_stream() && !matches!(next, Some(Err(_))) {
            self.departure.note();
        }
        Poll::Ready(next.map(|read| read.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.pieces.is_end_stream() && self.attached.as_ref().is_none_or(|attached| attached.left() == 0)
    }

    fn size_hint(&self) -> SizeHint {
        let attached = self.attached.as_ref().map_or(0, |attached| attached.left());
        SizeHint::with_exact(self.pieces.length() + attached)
    }
}
