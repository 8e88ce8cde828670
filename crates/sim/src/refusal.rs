//! Why a request is not answered.

use std::time::Duration;

use http::{HeaderValue, Response, StatusCode, header};

use crate::{SimBody, body, check::Wording, route::Streaming};

/// Why a request is not answered. The words and the shape are the dialect's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) status: u16,
    pub(crate) message: String,
    pub(crate) code: Option<&'static str>,
    pub(crate) param: Option<String>,
    pub(crate) retry: Option<Duration>,
}

impl Refusal {
    /// A refusal with the code that usually goes with the status.
    pub(crate) fn status(status: u16, message: impl Into<String>) -> Self {
        let code = match status {
            401 => Some("invalid_api_key"),
            404 => Some("model_not_found"),
            429 => Some("rate_limit_exceeded"),
            _ => None,
        };
        Self { status, message: message.into(), code, param: None, retry: None }
    }

    /// Something is wrong with a field.
    pub(crate) fn field(path: &str, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status: 400,
            message: message.into(),
            code: Some(code),
            param: Some(path.to_owned()),
            retry: None,
        }
    }

    /// The request as a whole is wrong.
    pub(crate) fn request(message: impl Into<String>) -> Self {
        Self { status: 400, message: message.into(), code: None, param: None, retry: None }
    }

    /// The whole answer.
    pub(crate) fn respond(
        &self,
        wording: &dyn Wording,
        request_id: &str,
        stream: Option<Streaming>,
    ) -> Response<SimBody> {
        let document = wording.document(self, request_id);
        let body = match stream {
            // Where an array was to be, the error is its only element.
            Some(Streaming::Array) => [b"[", &document[..], b"]"].concat().into(),
            Some(Streaming::Whole | Streaming::Sse) | None => document,
        };
        let mut response = Response::new(body::whole(body));
        *response.status_mut() =
            StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(retry) = self.retry {
            wording.retry(retry, headers);
        }
        response
    }
}
