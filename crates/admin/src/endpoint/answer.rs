//! What handlers answer.

use axum::body::Body as HttpBody;
use axum::response::Response;
use bytes::Bytes;
use futures_util::Stream;
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use utoipa::ToSchema;

use super::{Describe, to_json};
use crate::error::{AdminResult, internal};

/// Something a handler answers.
pub(crate) trait Answer: Send {
    /// Adds itself to the documentation of a route.
    fn describe(route: &mut Describe);
    /// The answer.
    fn respond(self) -> AdminResult<Response>;
}

/// 200 with a body.
pub(crate) struct Json<T>(pub(crate) T);

/// 201 with a body.
pub(crate) struct Created<T>(pub(crate) T);

/// 202 with a body.
pub(crate) struct Accepted<T>(pub(crate) T);

/// A body with 200 or with another status.
pub(crate) struct WithStatus<T, const OTHER: u16> {
    is_ok: bool,
    body: T,
}

impl<T, const OTHER: u16> WithStatus<T, OTHER> {
    /// With 200.
    pub(crate) const fn ok(body: T) -> Self {
        Self { is_ok: true, body }
    }

    /// With the other one.
    pub(crate) const fn other(body: T) -> Self {
        Self { is_ok: false, body }
    }
}

/// 200 with a body, and how many rows there are in `x-total-count`.
pub(crate) struct WithTotal<T>(pub(crate) u64, pub(crate) T);

/// 200 with a body, and a cookie.
pub(crate) struct WithCookie<T>(pub(crate) Option<HeaderValue>, pub(crate) T);

/// 200 with text.
pub(crate) struct Text {
    pub(crate) content_type: &'static str,
    pub(crate) text: String,
}

/// 200 with server-sent events as they come.
pub(crate) struct Events(HttpBody);

impl Events {
    pub(crate) fn new<S, E>(events: S) -> Self
    where
        S: Stream<Item = Result<Bytes, E>> + Send + 'static,
        E: Into<axum::BoxError>,
    {
        Self(HttpBody::from_stream(events))
    }
}

impl Answer for Events {
    fn describe(route: &mut Describe) {
        route.answers_events();
    }

    fn respond(self) -> AdminResult<Response> {
        let mut response = build(StatusCode::OK, "text/event-stream; charset=utf-8", self.0)?;
        // nginx holds a stream back otherwise.
        response.headers_mut().insert("x-accel-buffering", HeaderValue::from_static("no"));
        Ok(response)
    }
}

impl<T: Serialize + ToSchema + Send> Answer for Json<T> {
    fn describe(route: &mut Describe) {
        route.answers::<T>(StatusCode::OK);
    }

    fn respond(self) -> AdminResult<Response> {
        json(StatusCode::OK, &self.0)
    }
}

impl<T: Serialize + ToSchema + Send> Answer for Created<T> {
    fn describe(route: &mut Describe) {
        route.answers::<T>(StatusCode::CREATED);
    }

    fn respond(self) -> AdminResult<Response> {
        json(StatusCode::CREATED, &self.0)
    }
}

impl<T: Serialize + ToSchema + Send> Answer for Accepted<T> {
    fn describe(route: &mut Describe) {
        route.answers::<T>(StatusCode::ACCEPTED);
    }

    fn respond(self) -> AdminResult<Response> {
        json(StatusCode::ACCEPTED, &self.0)
    }
}

impl<T: Serialize + ToSchema + Send, const OTHER: u16> Answer for WithStatus<T, OTHER> {
    fn describe(route: &mut Describe) {
        route.answers::<T>(StatusCode::OK);
        route.answers::<T>(status_of(OTHER));
    }

    fn respond(self) -> AdminResult<Response> {
        json(if self.is_ok { StatusCode::OK } else { status_of(OTHER) }, &self.body)
    }
}

fn status_of(code: u16) -> StatusCode {
    StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

impl<T: Serialize + ToSchema + Send> Answer for WithTotal<T> {
    fn describe(route: &mut Describe) {
        route.answers::<T>(StatusCode::OK);
    }

    fn respond(self) -> AdminResult<Response> {
        let mut response = json(StatusCode::OK, &self.1)?;
        response.headers_mut().insert("x-total-count", HeaderValue::from(self.0));
        Ok(response)
    }
}

impl<T: Serialize + ToSchema + Send> Answer for WithCookie<T> {
    fn describe(route: &mut Describe) {
        route.answers::<T>(StatusCode::OK);
    }

    fn respond(self) -> AdminResult<Response> {
        let mut response = json(StatusCode::OK, &self.1)?;
        if let Some(cookie) = self.0 {
            response.headers_mut().insert(header::SET_COOKIE, cookie);
        }
        Ok(response)
    }
}

impl Answer for Text {
    fn describe(route: &mut Describe) {
        route.answers_text();
    }

    fn respond(self) -> AdminResult<Response> {
        build(StatusCode::OK, self.content_type, self.text.into())
    }
}

fn json<T: Serialize>(status: StatusCode, value: &T) -> AdminResult<Response> {
    build(status, "application/json", to_json(value)?.into())
}

fn build(status: StatusCode, content_type: &'static str, body: HttpBody) -> AdminResult<Response> {
    Response::builder().status(status).header(header::CONTENT_TYPE, content_type).body(body).map_err(internal)
}
