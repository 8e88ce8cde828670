//! Reading forms with recordings or pictures: their fields are few and short, their files may be long and are not held in
//! memory.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http_body_util::BodyStream;
use multer::{Constraints, Field, Multipart, SizeLimit};
use omniroute_dialect::ir::ErrorKind;
use omniroute_engine::GatewayError;
use omniroute_engine::spool::Spool;
use omniroute_engine::task::Upload;
use tokio::time::timeout;

use super::arriving::Arriving;
use super::form::{Form, MAX_BYTES, file_name, misplaced, shown, too_large, too_long, wrong};

/// How long a client may pause within its form.
const SILENCE: Duration = Duration::from_secs(60);

/// Reads a whole form.
pub(super) async fn read<F: Form>(
    headers: &HeaderMap,
    body: Arriving,
    mut form: F,
) -> Result<F::Whole, GatewayError> {
    let mut parts = open(headers, body, F::WANTS).await?;
    while let Some(field) = patiently(parts.next_field()).await? {
        let name = field.name().unwrap_or_default().to_owned();
        if form.is_file(&name)? {
            let upload = uploaded(field, Spool::beside(form.taken())).await?;
            form.file(&name, upload);
        } else if field.file_name().is_some() {
            return Err(misplaced::<F>(&name));
        } else {
            let value = text(field, &name, form.room()).await?;
            form.text(&name, &value)?;
        }
    }
    form.finish()
}

/// Whether a body is a form.
pub(super) fn is_form(headers: &HeaderMap) -> bool {
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    content_type.trim_start().to_ascii_lowercase().starts_with("multipart/")
}

/// A form that is about to be read. `with` says what it should have.
async fn open(headers: &HeaderMap, body: Arriving, with: &str) -> Result<Multipart<'static>, GatewayError> {
    let boundary = boundary(headers, with)?;
    let declared = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if declared.is_some_and(|length| length > MAX_BYTES) {
        return Err(too_large());
    }
    let frames = BodyStream::new(body);
    let bytes = frames.filter_map(async |frame| match frame {
        Ok(frame) => frame.into_data().ok().map(Ok),
        Err(error) => Some(Err(error)),
    });
    let constraints = Constraints::new().size_limit(SizeLimit::new().whole_stream(MAX_BYTES));
    Ok(Multipart::with_constraints(Box::pin(bytes), boundary, constraints))
}

fn boundary(headers: &HeaderMap, with: &str) -> Result<String, GatewayError> {
    let is_encoded = |value: &http::HeaderValue| !value.as_bytes().eq_ignore_ascii_case(b"identity");
    if headers.get(CONTENT_ENCODING).is_some_and(is_encoded) {
        return Err(wrong("forms are taken without a Content-Encoding"));
    }
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    multer::parse_boundary(content_type).map_err(|_| {
        wrong(&format!(
            "send a form: the Content-Type must be multipart/form-data with a boundary, and {with}"
        ))
    })
}

async fn text(mut field: Field<'_>, name: &str, room: usize) -> Result<String, GatewayError> {
    let mut value = Vec::new();
    while let Some(bytes) = patiently(field.chunk()).await? {
        if value.len() + bytes.len() > room {
            return Err(too_long(name));
        }
        value.extend_from_slice(&bytes);
    }
    String::from_utf8(value).map_err(|_| wrong(&format!("the field `{}` is not UTF-8", shown(name))))
}

async fn uploaded(mut field: Field<'_>, mut spool: Spool) -> Result<Upload, GatewayError> {
    let filename = file_name(field.file_name().unwrap_or_default());
    let content_type = field.content_type().map(ToString::to_string);
    while let Some(bytes) = patiently(field.chunk()).await? {
        spool.push(&bytes).await.map_err(|error| cannot_keep(&error))?;
    }
    let file = Arc::new(spool.finish().await.map_err(|error| cannot_keep(&error))?);
    Ok(Upload { file, filename, content_type, seconds: None })
}

/// What comes next of a form, if it comes soon enough.
async fn patiently<T>(next: impl Future<Output = Result<T, multer::Error>>) -> Result<T, GatewayError> {
    match timeout(SILENCE, next).await {
        Ok(result) => result.map_err(|error| refused(&error)),
        Err(_) => {
            let message = format!("nothing of the form came for {} s", SILENCE.as_secs());
            Err(GatewayError::new(ErrorKind::RequestTimeout, "request_timeout", message))
        }
    }
}

fn refused(error: &multer::Error) -> GatewayError {
    match error {
        multer::Error::StreamSizeExceeded { .. } | multer::Error::FieldSizeExceeded { .. } => too_large(),
        multer::Error::IncompleteStream | multer::Error::IncompleteFieldData { .. } => {
            wrong("the form ends before its last boundary")
        }
        multer::Error::IncompleteHeaders | multer::Error::ReadHeaderFailed(_) => {
            wrong("a part of the form has headers that cannot be read")
        }
        multer::Error::StreamReadFailed(_) => wrong("the connection broke before the whole form had come"),
        _ => wrong("the form is not one: its parts and its boundary do not fit together"),
    }
}

fn cannot_keep(error: &std::io::Error) -> GatewayError {
    tracing::warn!(%error, "an uploaded file cannot be kept; see the space in the folder for temporary files");
    let message = "the gateway has no room for this file now; try again later";
    GatewayError::new(ErrorKind::Overloaded, "service_unavailable", message)
}
