//! A request's body on its way in, whoever reads it, and what becomes of it when nobody does.
//!
//! An answer may be ready before the body has come: the key is wrong, a form's first field is. A client that was not told
//! otherwise sends its next request over the same connection, so what is left of the body is read and thrown away beside
//! the answer. Where that would be too much, or where the client waits to be asked for it, the answer says
//! `Connection: close` (RFC 9112 §9.3 and §9.6, RFC 9110 §10.1.1).

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, EXPECT};
use http::{HeaderMap, HeaderValue, Request, Version};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::runtime::Handle;
use tokio::time::timeout;

/// Read and thrown away of a body that nobody wants.
pub(super) const MAX_DISCARDED: usize = 1024 * 1024;

/// How long what is left of such a body is read.
pub(super) const COURTESY: Duration = Duration::from_secs(5);

/// A request's body.
pub(super) struct Arriving {
    /// `None` once nothing more can come.
    body: Option<Incoming>,
    /// Whether somebody began to read it.
    is_begun: bool,
    /// Whether the client waits for `100 Continue` before it sends anything.
    is_held_back: bool,
    fate: Fate,
}

/// Whether a connection can serve another request after this one. Only of requests that make one doubt.
#[derive(Clone, Default)]
pub(super) struct Fate(Option<Arc<AtomicBool>>);

impl Arriving {
    /// The request with its body watched, and what is to be told its answer.
    pub(super) fn watch(request: Request<Incoming>) -> (Request<Self>, Fate) {
        let is_held_back = request.headers().contains_key(EXPECT);
        let is_long = request.body().size_hint().lower() > MAX_DISCARDED as u64;
        let is_doubtful = (is_held_back || is_long) && request.version() < Version::HTTP_2;
        let fate = Fate(is_doubtful.then(Arc::default));
        let watched = |body| Self { body: Some(body), is_begun: false, is_held_back, fate: fate.clone() };
        (request.map(watched), fate)
    }
}

impl Fate {
    /// Says on an answer that the connection ends with it, if it does.
    pub(super) fn tell(self, answer: &mut HeaderMap) {
        if self.0.is_some_and(|ends| ends.load(Ordering::Relaxed)) {
            answer.insert(CONNECTION, HeaderValue::from_static("close"));
        }
    }
}

impl Body for Arriving {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        self.is_begun = true;
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let polled = Pin::new(body).poll_frame(cx);
        if matches!(polled, Poll::Ready(None | Some(Err(_)))) {
            self.body = None;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        let Some(rest) = self.body.take().filter(|body| !body.is_end_stream()) else { return };
        let is_too_long = rest.size_hint().lower() > MAX_DISCARDED as u64;
        if let Some(ends) = &self.fate.0
            && (is_too_long || (self.is_held_back && !self.is_begun))
        {
            ends.store(true, Ordering::Relaxed);
        }
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(discard(rest));
        }
    }
}

/// Reads what is left of a body, up to the limits.
async fn discard(mut body: Incoming) {
    let reading = async {
        let mut seen = 0;
        while seen < MAX_DISCARDED
            && let Some(Ok(frame)) = body.frame().await
        {
            seen += frame.data_ref().map_or(0, Bytes::len);
        }
    };
    // Only a courtesy: who does not send goes without it.
    let _ = timeout(COURTESY, reading).await;
}
