//! Handlers: what they may take, what they answer, and how both are documented.
//!
//! A handler is an `async fn` whose first argument is an access value (`Public`, `Management`, `MetricsReader`), whose
//! others are [`Argument`]s, and which answers `AdminResult<impl Answer>`. The application's state is reached through
//! the access value only: a route that checks nothing has nothing to work with, and does not compile anyway.

mod answer;
mod argument;
mod document;
mod text_or;
mod version;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use axum::body::Body as HttpBody;
use axum::response::Response;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::request::Parts;
use http::{HeaderName, HeaderValue, header};
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

use crate::error::{AdminError, AdminResult, internal};
use crate::state::{Admin, Peer};

pub(crate) use answer::{Accepted, Answer, Created, Events, Json, Text, WithCookie, WithStatus, WithTotal};
pub(crate) use argument::{Body, Filter, Id, Ignored, LastEventId, OptionalBody, Quoted};
pub(crate) use document::{Access, Describe, Documentation};
pub(crate) use text_or::TextOr;
pub(crate) use version::{IfMatch, Version, Versioned};

/// Header that names the members of a request that nothing was done with.
pub(crate) const IGNORED_FIELDS: HeaderName = HeaderName::from_static("x-ignored-fields");

/// A request on its way to a handler.
pub(crate) struct Incoming {
    pub(crate) admin: Arc<Admin>,
    pub(crate) parts: Parts,
    pub(crate) body: HttpBody,
    pub(crate) peer: Peer,
    pub(crate) request_id: String,
    /// Members nothing is done with, as paths.
    pub(crate) ignored: Ignored,
    /// A renewed session.
    pub(crate) set_cookie: Option<HeaderValue>,
}

/// Something a handler takes.
pub(crate) trait Argument: Sized + Send {
    /// Adds itself to the documentation of a route.
    fn describe(route: &mut Describe);
    /// Takes itself out of a request.
    fn take(incoming: &mut Incoming) -> impl Future<Output = AdminResult<Self>> + Send;
}

/// An argument that decides who may call.
pub(crate) trait Tier: Argument {
    /// Who may.
    const ACCESS: Access;
}

/// A handler, its arguments' types forgotten but for `A`.
pub(crate) trait Handle<A>: Clone + Send + Sync + 'static {
    fn describe(route: &mut Describe);
    fn call(self, incoming: Incoming) -> BoxFuture<'static, Response>;
}

macro_rules! handle {
    ($($argument:ident),*) => {
        #[allow(non_snake_case, unused_mut)]
        impl<F, Fut, R, T, $($argument,)*> Handle<(T, $($argument,)*)> for F
        where
            F: Fn(T, $($argument,)*) -> Fut + Clone + Send + Sync + 'static,
            Fut: Future<Output = AdminResult<R>> + Send + 'static,
            R: Answer + 'static,
            T: Tier + 'static,
            $($argument: Argument + 'static,)*
        {
            fn describe(route: &mut Describe) {
                route.access(T::ACCESS);
                T::describe(route);
                $($argument::describe(route);)*
                R::describe(route);
            }

            fn call(self, mut incoming: Incoming) -> BoxFuture<'static, Response> {
                Box::pin(async move {
                    let changes = (!incoming.parts.method.is_safe()).then(|| incoming.admin.tasks.clone());
                    let answer = async {
                        let access = T::take(&mut incoming).await?;
                        $(let $argument = $argument::take(&mut incoming).await?;)*
                        let work = self(access, $($argument),*);
                        match changes {
                            Some(tasks) => to_the_end(&tasks, work).await,
                            None => work.await,
                        }
                    };
                    // A bug in one handler must not take the connection's other requests with it.
                    let answer = AssertUnwindSafe(answer).catch_unwind().await;
                    finish(answer.unwrap_or_else(|_| Err(internal("the handler panicked"))), &incoming)
                })
            }
        }
    };
}

handle!();
handle!(A1);
handle!(A1, A2);
handle!(A1, A2, A3);
handle!(A1, A2, A3, A4);

/// Carries out what changes something, also where the client hangs up meanwhile: what was written is put in force and told.
async fn to_the_end<R: Send + 'static>(
    tasks: &TaskTracker,
    work: impl Future<Output = AdminResult<R>> + Send + 'static,
) -> AdminResult<R> {
    tasks.spawn(work.in_current_span()).await.unwrap_or_else(|_| Err(internal("the handler panicked")))
}

fn finish<R: Answer>(answer: AdminResult<R>, incoming: &Incoming) -> Response {
    let mut response = answer.and_then(R::respond).unwrap_or_else(|error: AdminError| {
        tracing::debug!(status = error.status().as_u16(), request_id = %incoming.request_id, "refused");
        error.response(&incoming.request_id)
    });
    let headers = response.headers_mut();
    let ignored = incoming.ignored.header();
    if let Some(ignored) = ignored {
        headers.insert(IGNORED_FIELDS, ignored);
    }
    if let Some(cookie) = &incoming.set_cookie
        && !headers.contains_key(header::SET_COOKIE)
    {
        headers.insert(header::SET_COOKIE, cookie.clone());
    }
    response
}

/// A value as JSON text; only a type with a broken `Serialize` fails.
pub(crate) fn to_json<T: serde::Serialize>(value: &T) -> AdminResult<Vec<u8>> {
    serde_json::to_vec(value).map_err(internal)
}
