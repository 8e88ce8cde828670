//! Answers to requests whose head could not be read: what was wrong and what the limit is, in the shape of errors that
//! the client's path stands for.

use std::error::Error;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use http::header::{CONNECTION, CONTENT_LENGTH, DATE};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use http_body_util::BodyExt as _;
use jiff::fmt::rfc2822::DateTimePrinter;
use omniroute_dialect::ir::ErrorKind;
use omniroute_engine::{Arrival, GatewayError};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::timeout;

use super::arriving::{COURTESY, MAX_DISCARDED};
use super::listen::{HEAD_LIMIT, MAX_HEAD_BYTES, MAX_HEADERS, MAX_TARGET_BYTES};
use super::routes::{Found, Operation};
use super::socket::{Beginning, Leftover};
use super::{Gateway, RimBody, Side, routes};

impl Gateway {
    /// Closes a connection that the server has given up, with an answer if one is owed.
    pub(super) async fn close<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        left: Leftover<S>,
        ended: Option<&(dyn Error + Send + Sync + 'static)>,
        peer: SocketAddr,
        side: Side,
    ) {
        let Leftover { mut io, beginning, bare } = left;
        let error = ended.and_then(|ended| ended.downcast_ref());
        let bytes = match error.and_then(|error| what_was_wrong(error, &beginning, &bare)) {
            Some(error) => {
                let (method, path) = beginning.request_line().unwrap_or_default();
                let is_head = method == Method::HEAD;
                let path = routes::normal_form(&path).into_owned();
                let response = self.refused(&error, (method, path), peer, side);
                self.render(response, is_head).await
            }
            // Only looked like an answer of the server's own.
            None if !bare.is_empty() => bare,
            None => return,
        };
        // A courtesy: who does not read or send goes without it.
        let _ = timeout(COURTESY, last_words(&mut io, &bytes)).await;
    }

    fn refused(
        &self,
        error: &GatewayError,
        (method, path): (Method, String),
        peer: SocketAddr,
        side: Side,
    ) -> Response<RimBody> {
        let found = super::find(&path, &method, side);
        let is_logged = matches!(&found, Found::Route(route) if route.operation == Operation::Chat);
        if !is_logged {
            tracing::info!(%peer, status = error.kind.status(), %path, error = error.message, "head refused");
        }
        match found {
            Found::Route(route) => {
                let arrival = Arrival {
                    peer,
                    method,
                    path: path.into(),
                    query: None,
                    headers: HeaderMap::new(),
                    dialect: route.dialect,
                    endpoint: route.endpoint,
                    provider: route.provider,
                    is_logged,
                };
                let mut response = self.engine.refuse(self.engine.begin(arrival), error);
                self.cors.allow(None, response.headers_mut());
                response.map(RimBody::Client)
            }
            Found::Elsewhere => {
                let id = self.engine.new_request_id();
                let status = StatusCode::from_u16(error.kind.status()).unwrap_or(StatusCode::BAD_REQUEST);
                let mut response = omniroute_admin::refuse_head(status, &error.message, &id);
                if let Ok(id) = HeaderValue::from_str(&id) {
                    response.headers_mut().insert("x-request-id", id);
                }
                response.map(RimBody::Admin)
            }
        }
    }

    /// The answer as bytes of HTTP/1.
    async fn render(&self, response: Response<RimBody>, is_head: bool) -> Vec<u8> {
        let (mut parts, body) = response.into_parts();
        let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        parts.headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
        parts.headers.insert(CONNECTION, HeaderValue::from_static("close"));
        let now = jiff::Timestamp::from_millisecond(self.engine.clock.now_ms()).unwrap_or_default();
        if let Ok(date) = DateTimePrinter::new().timestamp_to_rfc9110_string(&now)
            && let Ok(date) = HeaderValue::from_str(&date)
        {
            parts.headers.insert(DATE, date);
        }
        let mut head = String::new();
        // Writing to a string cannot fail.
        let _ = write!(head, "HTTP/1.1 {}\r\n", parts.status);
        let mut bytes = head.into_bytes();
        for (name, value) in &parts.headers {
            for piece in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
                bytes.extend_from_slice(piece);
            }
        }
        bytes.extend_from_slice(b"\r\n");
        if !is_head {
            bytes.extend_from_slice(&body);
        }
        bytes
    }
}

/// The server's verdict in words for the client; `None` when the client is owed no answer.
fn what_was_wrong(error: &hyper::Error, beginning: &Beginning, bare: &[u8]) -> Option<GatewayError> {
    if error.is_timeout() && beginning.is_open() && beginning.request_line().is_some() {
        let message =
            format!("the head of the request was not complete after {} s", Duration::as_secs(&HEAD_LIMIT));
        return Some(GatewayError::new(ErrorKind::RequestTimeout, "request_timeout", message));
    }
    if !error.is_parse() || bare.is_empty() {
        return None;
    }
    Some(match bare.get(9..12) {
        Some(b"431") => {
            let message = format!(
                "the head of the request is too large: at most {MAX_HEADERS} headers and {MAX_HEAD_BYTES} bytes are \
                 taken; send fewer or shorter headers"
            );
            GatewayError::new(ErrorKind::HeadTooLarge, "headers_too_large", message)
        }
        Some(b"414") => {
            let message = format!(
                "the path and query are longer than {MAX_TARGET_BYTES} bytes; what is long belongs in the body"
            );
            GatewayError::new(ErrorKind::UriTooLong, "uri_too_long", message)
        }
        _ if beginning.is_tls() => {
            let message = "this address speaks plain HTTP, and the client began with TLS; use http:// instead of \
                           https://, or put a proxy that ends TLS in front";
            GatewayError::new(ErrorKind::InvalidRequest, "bad_request", message)
        }
        _ => {
            let message = format!(
                "the head of the request cannot be read ({error}); a head is a line like `GET /path HTTP/1.1`, \
                 lines like `name: value`, and an empty line"
            );
            GatewayError::new(ErrorKind::InvalidRequest, "bad_request", message)
        }
    })
}

/// Sends the answer and reads on for a while: closing a socket that still has unread bytes resets the connection, and
/// the client would lose the answer with it.
async fn last_words<S: AsyncRead + AsyncWrite + Unpin>(io: &mut S, bytes: &[u8]) -> std::io::Result<()> {
    io.write_all(bytes).await?;
    io.shutdown().await?;
    tokio::io::copy(&mut io.take(MAX_DISCARDED as u64), &mut tokio::io::sink()).await?;
    Ok(())
}

#[cfg(test)]
mod tests;
