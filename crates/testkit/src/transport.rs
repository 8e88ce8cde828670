//! Upstreams without sockets: answers from a queue.

use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderMap, Method, Response, StatusCode, Uri};
use http_body::{Body, Frame};
use http_body_util::BodyExt as _;
use omniroute_engine::ports::{OutboundCall, Transport, TransportError, UpstreamBody};
use tokio::time::Sleep;

use crate::upstream::{Answer, Step};

/// Sends nothing: answers from a queue, and remembers what it was asked.
#[derive(Debug, Clone, Default)]
pub struct ScriptedTransport {
    state: Arc<State>,
}

/// One call that was made.
#[derive(Debug, Clone)]
pub struct Sent {
    /// Method.
    pub method: Method,
    /// Absolute address.
    pub uri: Uri,
    /// Headers.
    pub headers: HeaderMap,
    /// Body, in one piece.
    pub body: Bytes,
}

#[derive(Debug, Default)]
struct State {
    queue: Mutex<VecDeque<Planned>>,
    sent: Mutex<Vec<Sent>>,
    /// Answers whose future or body was dropped before its end.
    cancelled: Mutex<usize>,
}

#[derive(Debug)]
enum Planned {
    Answer(Answer),
    Failure(Duration, TransportError),
}

impl ScriptedTransport {
    /// A transport that has no answers yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the answer to a later call.
    pub fn answer(&self, answer: Answer) -> &Self {
        lock(&self.state.queue).push_back(Planned::Answer(answer));
        self
    }

    /// A later call fails after a while.
    pub fn fail(&self, after: Duration, error: TransportError) -> &Self {
        lock(&self.state.queue).push_back(Planned::Failure(after, error));
        self
    }

    /// The calls so far.
    pub fn sent(&self) -> Vec<Sent> {
        lock(&self.state.sent).clone()
    }

    /// Answers that nobody asked for yet.
    pub fn left(&self) -> usize {
        lock(&self.state.queue).len()
    }

    /// Calls that were given up before their answer's end.
    pub fn cancelled(&self) -> usize {
        *lock(&self.state.cancelled)
    }
}

impl Transport for ScriptedTransport {
    fn send(&self, call: OutboundCall) -> BoxFuture<'_, Result<Response<UpstreamBody>, TransportError>> {
        let body: Vec<u8> = call.body.iter().flat_map(|piece| piece.iter().copied()).collect();
        let (attachment, departure) = (call.attachment, call.departure);
        let at = lock(&self.state.sent).len();
        lock(&self.state.sent).push(Sent {
            method: call.method,
            uri: call.uri,
            headers: call.headers,
            body: body.into(),
        });
        let planned = lock(&self.state.queue).pop_front();
        let guard = Guard { state: Arc::clone(&self.state), ended: false };
        Box::pin(async move {
            let mut guard = guard;
            if let Some(attachment) = attachment {
                for (file, behind) in attachment.files {
                    let file = file.read_all().await.expect("an uploaded file can be read");
                    let mut sent = lock(&guard.state.sent);
                    sent[at].body = [sent[at].body.as_ref(), &file, &behind].concat().into();
                }
            }
            let Some(planned) = planned else {
                guard.ended = true;
                panic!("the transport was asked more often than it has answers");
            };
            match planned {
                Planned::Failure(after, error) => {
                    // What breaks was there; the others never got as far.
                    if matches!(error, TransportError::Broken { .. }) {
                        departure.note();
                    }
                    tokio::time::sleep(after).await;
                    guard.ended = true;
                    Err(error)
                }
                Planned::Answer(answer) => {
                    departure.note();
                    tokio::time::sleep(answer.head_after).await;
                    let mut response = Response::new(());
                    *response.status_mut() =
                        StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                    *response.headers_mut() = answer.headers;
                    let body = Playing { steps: answer.steps.into(), sleep: None, guard };
                    Ok(response.map(|()| UpstreamBody::Local(body.boxed_unsync())))
                }
            }
        })
    }
}

/// Counts an answer that was dropped before its end.
#[derive(Debug)]
struct Guard {
    state: Arc<State>,
    ended: bool,
}

impl Drop for Guard {
    fn drop(&mut self) {
        if !self.ended {
            *lock(&self.state.cancelled) += 1;
        }
    }
}

struct Playing {
    steps: VecDeque<Step>,
    sleep: Option<Pin<Box<Sleep>>>,
    guard: Guard,
}

impl Body for Playing {
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
                None => {
                    self.guard.ended = true;
                    return Poll::Ready(None);
                }
                Some(Step::Send(bytes)) => return Poll::Ready(Some(Ok(Frame::data(bytes)))),
                Some(Step::Pause(pause)) => self.sleep = Some(Box::pin(tokio::time::sleep(pause))),
                Some(Step::Hang) => {
                    self.steps.push_front(Step::Hang);
                    return Poll::Pending;
                }
                Some(Step::Abort) => {
                    self.steps.clear();
                    self.guard.ended = true;
                    return Poll::Ready(Some(Err(io::ErrorKind::ConnectionReset.into())));
                }
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use omniroute_engine::ports::Departure;
    use omniroute_wire::splice::Pieces;

    use super::*;

    fn call(body: &'static str) -> OutboundCall {
        let mut pieces = Pieces::new();
        pieces.push(Bytes::from_static(body.as_bytes()));
        OutboundCall {
            method: Method::POST,
            uri: Uri::from_static("http://upstream.test/v1/chat/completions"),
            headers: HeaderMap::new(),
            body: pieces,
            attachment: None,
            allow_private: false,
            departure: Departure::default(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn answers_come_in_order_and_take_their_time() {
        let transport = ScriptedTransport::new();
        transport.answer(Answer::json(429, "{}").after(Duration::from_secs(5)));
        transport
            .answer(Answer::sse(&["data: 1\n\n"]).pause(Duration::from_secs(60)).send("data: 2\n\n").abort());
        transport.answer(Answer::sse(&["data: 1\n\n"]).hang());
        let start = tokio::time::Instant::now();
        let first = transport.send(call("a")).await.unwrap();
        assert_eq!((first.status().as_u16(), start.elapsed().as_secs()), (429, 5));
        assert_eq!(first.into_body().collect().await.unwrap().to_bytes(), "{}");
        let mut second = transport.send(call("b")).await.unwrap().into_body();
        second.frame().await.unwrap().unwrap();
        second.frame().await.unwrap().unwrap();
        assert_eq!(start.elapsed().as_secs(), 65);
        assert!(second.frame().await.unwrap().is_err());
        drop(second);
        assert_eq!((transport.left(), transport.cancelled()), (1, 0));
        let mut third = transport.send(call("c")).await.unwrap().into_body();
        third.frame().await.unwrap().unwrap();
        drop(third);
        assert_eq!(transport.cancelled(), 1);
        let bodies: Vec<Bytes> = transport.sent().into_iter().map(|sent| sent.body).collect();
        assert_eq!(bodies, ["a", "b", "c"]);
    }
}
