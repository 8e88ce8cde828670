//! The one error of management routes. Handlers make it with the constructors below and return it with `?`; what
//! nobody foresaw is logged with the request's id and answered blandly.

use axum::response::{IntoResponse as _, Response};
use http::{HeaderValue, StatusCode, header};
use omniroute_store::StoreError;
use serde::Serialize;
use utoipa::ToSchema;

pub(crate) type AdminResult<T> = Result<T, AdminError>;

/// Why a management request was not done.
#[derive(Debug)]
pub(crate) struct AdminError {
    status: StatusCode,
    code: &'static str,
    message: String,
    details: Vec<Detail>,
    retry_after_secs: Option<u64>,
    allow: Option<String>,
}

/// How often a change is tried whose URLs have to be looked at first, and are changed by others meanwhile.
pub(crate) const MAX_ROUNDS: usize = 8;

/// It was tried as often.
pub(crate) fn overtaken(what: &str) -> AdminError {
    conflict(format!("others change the URL of this {what} all the time; nothing was changed, try again"))
}

/// Why a change was not made.
pub(crate) enum Refusal {
    /// What was sent is wrong.
    Wrong(AdminError),
    /// What had to be looked at first was changed by somebody else meanwhile.
    Overtaken,
}

impl From<AdminError> for Refusal {
    fn from(error: AdminError) -> Self {
        Self::Wrong(error)
    }
}

/// A member of the request that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct Detail {
    /// Path of the member.
    pub(crate) field: String,
    /// What it must be.
    pub(crate) message: String,
}

/// The body of every error.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ErrorBody {
    error: ErrorObject,
    request_id: String,
}

#[derive(Serialize, ToSchema)]
struct ErrorObject {
    /// What clients match on.
    code: &'static str,
    /// For people.
    message: String,
    /// Its class.
    r#type: &'static str,
    /// Which members are wrong, for `VALIDATION`; the steps that a name was followed, where they were asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    details: Vec<Detail>,
}

/// The body is not JSON.
pub(crate) fn bad_json(message: impl Into<String>) -> AdminError {
    AdminError::new(StatusCode::BAD_REQUEST, "BAD_JSON", message)
}

/// Members of the request are wrong.
pub(crate) fn invalid(details: Vec<Detail>) -> AdminError {
    let message = match details.as_slice() {
        [only] => format!("invalid request: `{}` {}", only.field, only.message),
        _ => "invalid request".to_owned(),
    };
    AdminError { details, ..AdminError::new(StatusCode::BAD_REQUEST, "VALIDATION", message) }
}

/// One member of the request is wrong.
pub(crate) fn invalid_field(field: &str, message: impl Into<String>) -> AdminError {
    invalid(vec![Detail { field: field.to_owned(), message: message.into() }])
}

/// A member is well formed, but what it asks for makes no sense among the rest.
pub(crate) fn unprocessable(field: &str, message: impl Into<String>) -> AdminError {
    let message = message.into();
    let details = vec![Detail { field: field.to_owned(), message: message.clone() }];
    AdminError { details, ..AdminError::new(StatusCode::UNPROCESSABLE_ENTITY, "UNPROCESSABLE", message) }
}

/// Members that are well formed, but that nothing can be made of.
pub(crate) fn unprocessable_all(details: Vec<Detail>) -> AdminError {
    let message = match details.as_slice() {
        [only] => format!("`{}` {}", only.field, only.message),
        _ => "nothing can be made of some members of the request".to_owned(),
    };
    AdminError { details, ..AdminError::new(StatusCode::UNPROCESSABLE_ENTITY, "UNPROCESSABLE", message) }
}

/// The request is wrong in a way that has its own words.
pub(crate) fn bad_request(message: impl Into<String>) -> AdminError {
    AdminError::new(StatusCode::BAD_REQUEST, "VALIDATION", message)
}

/// A URL may not be called.
pub(crate) fn url_blocked(field: &str, message: impl Into<String>) -> AdminError {
    let message = message.into();
    let details = vec![Detail { field: field.to_owned(), message: message.clone() }];
    AdminError { details, ..AdminError::new(StatusCode::BAD_REQUEST, "URL_BLOCKED", message) }
}

/// There is no credential.
pub(crate) fn auth_required() -> AdminError {
    AdminError::new(
        StatusCode::UNAUTHORIZED,
        "AUTH_REQUIRED",
        "sign in, or send `Authorization: Bearer` with a key that has the scope `manage`",
    )
}

/// The credential is wrong.
pub(crate) fn auth_invalid(message: impl Into<String>) -> AdminError {
    AdminError::new(StatusCode::UNAUTHORIZED, "AUTH_INVALID", message)
}

/// The credential does not allow this.
pub(crate) fn forbidden(message: impl Into<String>) -> AdminError {
    AdminError::new(StatusCode::FORBIDDEN, "FORBIDDEN", message)
}

/// A browser sent this on behalf of another site.
pub(crate) fn csrf(message: impl Into<String>) -> AdminError {
    AdminError::new(StatusCode::FORBIDDEN, "CSRF", message)
}

/// There is no such thing: `not_found("Connection")`.
pub(crate) fn not_found(what: &str) -> AdminError {
    AdminError::new(StatusCode::NOT_FOUND, "NOT_FOUND", format!("{what} not found"))
}

/// There is no such thing, in words of its own.
pub(crate) fn not_there(message: impl Into<String>) -> AdminError {
    AdminError::new(StatusCode::NOT_FOUND, "NOT_FOUND", message)
}

/// No request of this process that is still running has this id.
pub(crate) fn not_running(id: &str) -> AdminError {
    AdminError::new(
        StatusCode::NOT_FOUND,
        "NOT_FOUND",
        format!(
            "no request `{id}` is running in this process; where several serve one database, each lists (GET \
             /api/logs/active) and cancels its own"
        ),
    )
}

/// There is no such route.
pub(crate) fn no_route(path: &str) -> AdminError {
    AdminError::new(
        StatusCode::NOT_FOUND,
        "NOT_FOUND",
        format!("there is no route `{path}`; see /api/openapi.json"),
    )
}

/// The route does not take this method.
pub(crate) fn wrong_method(method: &http::Method, allow: &str) -> AdminError {
    let message = format!("{method} is not possible here; use {allow}");
    AdminError {
        allow: Some(allow.to_owned()),
        ..AdminError::new(StatusCode::METHOD_NOT_ALLOWED, "METHOD_NOT_ALLOWED", message)
    }
}

/// It exists already, or the state does not allow it.
pub(crate) fn conflict(message: impl Into<String>) -> AdminError {
    AdminError::new(StatusCode::CONFLICT, "CONFLICT", message)
}

/// Nobody has set a password yet.
pub(crate) fn setup_required() -> AdminError {
    AdminError::new(
        StatusCode::CONFLICT,
        "SETUP_REQUIRED",
        "no password is set; sign in with the token that was printed at the start, or set INITIAL_PASSWORD",
    )
}

/// What was here has been removed for good.
pub(crate) fn gone(message: impl Into<String>) -> AdminError {
    AdminError::new(StatusCode::GONE, "GONE", message)
}

/// The body is too large.
pub(crate) fn too_large(limit_bytes: usize) -> AdminError {
    let message =
        format!("the body has more than {limit_bytes} bytes; the setting `maxBodySizeMb` is the limit");
    AdminError::new(StatusCode::PAYLOAD_TOO_LARGE, "TOO_LARGE", message)
}

/// The server could not read the head of the request, so that it never reached the router.
pub fn refuse_head(status: StatusCode, message: &str, request_id: &str) -> Response {
    let code = match status {
        StatusCode::URI_TOO_LONG | StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => "TOO_LARGE",
        StatusCode::REQUEST_TIMEOUT => "TIMEOUT",
        _ => "VALIDATION",
    };
    AdminError::new(status, code, message).response(request_id)
}

/// The body is of another type.
pub(crate) fn unsupported_media() -> AdminError {
    AdminError::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "UNSUPPORTED_MEDIA",
        "send `Content-Type: application/json`",
    )
}

/// Too many wrong passwords.
pub(crate) fn locked_out(retry_after_ms: i64) -> AdminError {
    let secs = u64::try_from(retry_after_ms).unwrap_or(0).div_ceil(1_000).max(1);
    AdminError {
        retry_after_secs: Some(secs),
        ..AdminError::new(
            StatusCode::TOO_MANY_REQUESTS,
            "LOCKED_OUT",
            format!("too many failed attempts; try again in {secs} s"),
        )
    }
}

/// The gateway cannot do this now.
pub(crate) fn unavailable(message: impl Into<String>) -> AdminError {
    AdminError::new(StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE", message)
}

/// A bug, or something that should not happen. `error` is logged, not told.
pub(crate) fn internal(error: impl std::fmt::Display) -> AdminError {
    tracing::error!(%error, "management request failed");
    AdminError::new(
        StatusCode::INTERNAL_SERVER_ERROR,
        "INTERNAL",
        "something went wrong; the log has the details under this requestId",
    )
}

impl AdminError {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
            details: Vec::new(),
            retry_after_secs: None,
            allow: None,
        }
    }

    /// The same, with these.
    pub(crate) fn with_details(self, details: Vec<Detail>) -> Self {
        Self { details, ..self }
    }

    /// The same; it may be sent again after so many seconds.
    pub(crate) fn again_in(self, secs: u64) -> Self {
        Self { retry_after_secs: Some(secs), ..self }
    }

    /// The status it is answered with.
    pub(crate) fn status(&self) -> StatusCode {
        self.status
    }

    /// What people are told.
    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    /// The answer.
    pub(crate) fn response(self, request_id: &str) -> Response {
        let body = ErrorBody {
            error: ErrorObject {
                code: self.code,
                message: self.message,
                r#type: type_of(self.status),
                details: self.details,
            },
            request_id: request_id.to_owned(),
        };
        let mut response = (self.status, axum::Json(body)).into_response();
        let headers = response.headers_mut();
        if let Some(secs) = self.retry_after_secs {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(secs));
        }
        if let Some(allow) = self.allow.and_then(|allow| HeaderValue::try_from(allow).ok()) {
            headers.insert(header::ALLOW, allow);
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"omniroute\""));
        }
        response
    }
}

fn type_of(status: StatusCode) -> &'static str {
    match status.as_u16() {
        401 => "authentication_error",
        403 => "permission_error",
        404 | 410 => "not_found_error",
        429 => "rate_limit_error",
        400..500 => "invalid_request_error",
        _ => "api_error",
    }
}

impl From<StoreError> for AdminError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Conflict { field, message } => {
                let details = vec![Detail { field: field.to_owned(), message: message.clone() }];
                Self { details, ..conflict(message) }
            }
            StoreError::NotFound { what, .. } => {
                let (first, rest) = what.split_at(1);
                not_found(&format!("{}{rest}", first.to_uppercase()))
            }
            full @ StoreError::NoRoom { .. } => conflict(full.to_string()),
            StoreError::Cryptography(reason) => unavailable(format!("secrets cannot be stored: {reason}")),
            other if other.is_transient() => {
                tracing::error!(error = %other, "database cannot be used");
                let retry_after_secs = matches!(other, StoreError::Busy { .. }).then_some(1);
                // Without its path: this may be said to anybody.
                let unavailable = unavailable(match other {
                    StoreError::Full { .. } => "the disk is full: nothing can be saved until there is room",
                    StoreError::ReadOnly { .. } => "the database is read-only: nothing can be saved",
                    StoreError::Busy { .. } => "the database is busy with other writes; try again",
                    _ => "the database cannot be used at the moment; see the log",
                });
                Self { retry_after_secs, ..unavailable }
            }
            other => internal(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_says_when_to_try_again() {
        for (error, retry_after) in
            [(StoreError::Busy { path: None }, Some("1")), (StoreError::Full { path: None }, None)]
        {
            let response = AdminError::from(error).response("r");
            assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
            let header = response.headers().get(header::RETRY_AFTER);
            assert_eq!(header.and_then(|value| value.to_str().ok()), retry_after);
        }
    }
}
