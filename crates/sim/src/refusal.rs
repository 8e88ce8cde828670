//! Errors in the vendor's shape.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Response, StatusCode, header};
use omniroute_wire::json_out::Object;

use crate::{
    SimBody, Vendor,
    body::{self},
};

/// Why a request is not answered.
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

    /// The account has no money.
    pub(crate) fn quota(vendor: Vendor) -> Self {
        match vendor {
            Vendor::OpenAi => Self {
                code: Some("insufficient_quota"),
                ..Self::status(
                    429,
                    "this account has used up its quota, check the plan and the billing details",
                )
            },
            Vendor::Anthropic => {
                Self::request("credit balance is too low for this call, buy credits to go on")
            }
        }
    }

    /// The error document.
    pub(crate) fn document(&self, vendor: Vendor, request_id: &str) -> Bytes {
        let mut out = BytesMut::with_capacity(256);
        let mut document = Object::begin(&mut out);
        match vendor {
            Vendor::OpenAi => {
                let mut error = document.object("error");
                error
                    .str("message", &self.message)
                    .str("type", self.openai_type())
                    .str_or_null("param", self.param.as_deref())
                    .str_or_null("code", self.code);
                error.end();
            }
            Vendor::Anthropic => {
                document.str("type", "error");
                let mut error = document.object("error");
                error.str("type", self.anthropic_type());
                match &self.param {
                    Some(param) => error.str("message", &format!("{param}: {}", self.message)),
                    None => error.str("message", &self.message),
                };
                error.end();
                document.str("request_id", request_id);
            }
        }
        document.end();
        out.freeze()
    }

    /// The error as an event of a stream.
    pub(crate) fn event(&self, vendor: Vendor, request_id: &str) -> Bytes {
        let document = self.document(vendor, request_id);
        let mut out = BytesMut::with_capacity(document.len() + 32);
        if vendor == Vendor::Anthropic {
            out.extend_from_slice(b"event: error\n");
        }
        out.extend_from_slice(b"data: ");
        out.extend_from_slice(&document);
        out.extend_from_slice(b"\n\n");
        out.freeze()
    }

    /// The whole answer.
    pub(crate) fn respond(&self, vendor: Vendor, request_id: &str) -> Response<SimBody> {
        let mut response = Response::new(body::whole(self.document(vendor, request_id)));
        *response.status_mut() =
            StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(retry) = self.retry {
            let ms = u64::try_from(retry.as_millis()).unwrap_or(u64::MAX);
            headers.insert(header::RETRY_AFTER, HeaderValue::from(ms.div_ceil(1000)));
            if vendor == Vendor::OpenAi {
                headers.insert("retry-after-ms", HeaderValue::from(ms));
            }
        }
        response
    }

    fn openai_type(&self) -> &'static str {
        match (self.status, self.code) {
            (_, Some("insufficient_quota")) => "insufficient_quota",
            (429, _) => "requests",
            (500.., _) => "server_error",
            _ => "invalid_request_error",
        }
    }

    fn anthropic_type(&self) -> &'static str {
        match self.status {
            401 => "authentication_error",
            402 => "billing_error",
            403 => "permission_error",
            404 => "not_found_error",
            413 => "request_too_large",
            429 => "rate_limit_error",
            504 => "timeout_error",
            529 => "overloaded_error",
            500.. => "api_error",
            _ => "invalid_request_error",
        }
    }
}
