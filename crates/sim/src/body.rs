//! Bodies that take their time, break off, or never end.

use std::{
    collections::VecDeque,
    convert::Infallible,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt as _, Full};
use tokio::time::Sleep;

use crate::SimBody;

/// One thing a body does.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    /// Sends bytes as a frame of their own.
    Send(Bytes),
    /// Waits.
    Wait(Duration),
    /// Sends these bytes again and again until so many were sent.
    Flood(Bytes, u64),
    /// Breaks the connection.
    Cut,
    /// Does nothing more and does not end.
    Hang,
}

/// A body that is there at once.
pub(crate) fn whole(bytes: Bytes) -> SimBody {
    Full::new(bytes).map_err(|never: Infallible| match never {}).boxed_unsync()
}

/// A body that follows steps. With `writes`, what is to be sent in one go is cut into frames of so many bytes, without
/// regard to what they mean.
pub(crate) fn scripted(steps: impl IntoIterator<Item = Step>, writes: Option<usize>) -> SimBody {
    let steps = match writes {
        None => steps.into_iter().collect(),
        Some(_) => joined(steps),
    };
    Scripted { steps, writes, sleep: None, flushed: false }.boxed_unsync()
}

fn joined(steps: impl IntoIterator<Item = Step>) -> VecDeque<Step> {
    let mut joined = VecDeque::new();
    let mut pending = BytesMut::new();
    for step in steps {
        match step {
            Step::Send(bytes) => pending.extend_from_slice(&bytes),
            other => {
                joined.push_back(Step::Send(pending.split().freeze()));
                joined.push_back(other);
            }
        }
    }
    joined.push_back(Step::Send(pending.freeze()));
    joined
}

/// A body of prepared frames, shared by all answers.
pub(crate) fn prepared(frames: Arc<[Bytes]>) -> SimBody {
    Prepared { frames, next: 0 }.boxed_unsync()
}

struct Scripted {
    steps: VecDeque<Step>,
    /// Bytes of a frame.
    writes: Option<usize>,
    sleep: Option<Pin<Box<Sleep>>>,
    /// What came before a cut was handed over.
    flushed: bool,
}

impl Body for Scripted {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        loop {
            if let Some(sleep) = &mut self.sleep {
                match sleep.as_mut().poll(cx) {
                    Poll::Ready(()) => self.sleep = None,
                    Poll::Pending => return Poll::Pending,
                }
            }
            match self.steps.pop_front() {
                None => return Poll::Ready(None),
                Some(Step::Send(bytes)) if bytes.is_empty() => {}
                Some(Step::Send(mut bytes)) => {
                    if let Some(most) = self.writes
                        && bytes.len() > most
                    {
                        let rest = bytes.split_off(most);
                        self.steps.push_front(Step::Send(rest));
                    }
                    return Poll::Ready(Some(Ok(Frame::data(bytes))));
                }
                Some(Step::Wait(pause)) => self.sleep = Some(Box::pin(tokio::time::sleep(pause))),
                Some(Step::Flood(bytes, left)) => {
                    let take = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
                    let left = left - take as u64;
                    let piece = bytes.slice(..take);
                    if left > 0 {
                        self.steps.push_front(Step::Flood(bytes, left));
                    }
                    if take > 0 {
                        return Poll::Ready(Some(Ok(Frame::data(piece))));
                    }
                }
                Some(Step::Cut) if !self.flushed => {
                    // A server that is told to wait sends what it has; one that is told to stop throws it away.
                    self.flushed = true;
                    self.steps.push_front(Step::Cut);
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Some(Step::Cut) => {
                    self.steps.clear();
                    return Poll::Ready(Some(Err(io::Error::new(
                        io::ErrorKind::ConnectionAborted,
                        "the script cuts the connection here",
                    ))));
                }
                Some(Step::Hang) => {
                    self.steps.push_front(Step::Hang);
                    return Poll::Pending;
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.steps.is_empty() && self.sleep.is_none()
    }
}

struct Prepared {
    frames: Arc<[Bytes]>,
    next: usize,
}

impl Body for Prepared {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let frame = self.frames.get(self.next).cloned();
        self.next += 1;
        Poll::Ready(frame.map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.next >= self.frames.len()
    }

    fn size_hint(&self) -> SizeHint {
        // A stream's length is not announced.
        SizeHint::default()
    }
}
