//! Reading forms with recordings or pictures: their fields are few and short, their files may be long and are not held in
//! memory.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http_body_util::BodyStream;
use hyper::body::Incoming;
use multer::{Constraints, Field, Multipart, SizeLimit};
use omniroute_dialect::audio::Fields;
use omniroute_dialect::images::EditFields;
use omniroute_dialect::images::edit::MAX_GIVEN;
use omniroute_dialect::ir::ErrorKind;
use omniroute_engine::GatewayError;
use omniroute_engine::spool::Spool;
use omniroute_engine::task::{EditForm, Recording, Upload};
use tokio::time::timeout;

/// Most bytes of a form.
const MAX_BYTES: u64 = 512 * 1024 * 1024;
/// How long a client may pause within its form.
const SILENCE: Duration = Duration::from_secs(60);
/// Longest name of a file.
const MAX_NAME: usize = 255;

/// Reads the whole form of a recording. `translates` says what it is for.
pub(super) async fn recording(
    headers: &HeaderMap,
    body: Incoming,
    translates: bool,
) -> Result<Recording, GatewayError> {
    let mut form = open(headers, body, "the recording its field `file`").await?;
    let mut fields = Fields::default();
    let mut file = None;
    while let Some(field) = patiently(form.next_field()).await? {
        let name = field.name().unwrap_or_default().to_owned();
        if name != "file" && field.file_name().is_some() {
            let message = format!("the field `{}` is a file; send the recording as `file`", shown(&name));
            return Err(wrong(&message));
        }
        if name != "file" {
            let value = text(field, &name, fields.room()).await?;
            fields.add(&name, &value)?;
            continue;
        }
        if file.is_some() {
            return Err(wrong("`file` is given more than once"));
        }
        file = Some(uploaded(field, Spool::new()).await?);
    }
    let mut request = fields.finish(file.is_some())?;
    request.translates = translates;
    let Some(Upload { file, filename, content_type }) = file else { return Err(wrong("`file` is required")) };
    Ok(Recording { request, file, filename, content_type })
}

/// Reads the whole form of pictures that are to be changed.
pub(super) async fn pictures(headers: &HeaderMap, body: Incoming) -> Result<EditForm, GatewayError> {
    let mut form = open(headers, body, "the picture its field `image`").await?;
    let mut fields = EditFields::default();
    let (mut pictures, mut mask) = (Vec::new(), None);
    let mut taken = 0;
    while let Some(field) = patiently(form.next_field()).await? {
        let name = field.name().unwrap_or_default().to_owned();
        let is_picture = matches!(name.as_str(), "image" | "image[]");
        if !is_picture && name != "mask" {
            if field.file_name().is_some() {
                let message = format!(
                    "the field `{}` is a file; send pictures as `image` or `image[]`, and a mask as `mask`",
                    shown(&name)
                );
                return Err(wrong(&message));
            }
            let value = text(field, &name, fields.room()).await?;
            fields.add(&name, &value)?;
            continue;
        }
        if is_picture && pictures.len() == MAX_GIVEN {
            return Err(wrong(&format!("a form has at most {MAX_GIVEN} pictures")));
        }
        if !is_picture && mask.is_some() {
            return Err(wrong("`mask` is given more than once"));
        }
        let upload = uploaded(field, Spool::beside(taken)).await?;
        taken = taken.saturating_add(upload.file.len());
        if is_picture {
            pictures.push(upload);
        } else {
            mask = Some(upload);
        }
    }
    let request = fields.finish()?;
    if pictures.is_empty() {
        let message = "`image` is required: a file, or several as `image[]`".to_owned();
        let error = GatewayError::new(ErrorKind::InvalidRequest, "missing_required_parameter", message);
        return Err(error.param("image"));
    }
    Ok(EditForm { request, pictures, mask })
}

/// Whether a body is a form.
pub(super) fn is_form(headers: &HeaderMap) -> bool {
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    content_type.trim_start().to_ascii_lowercase().starts_with("multipart/")
}

/// A form that is about to be read. `with` says what it should have.
async fn open(headers: &HeaderMap, body: Incoming, with: &str) -> Result<Multipart<'static>, GatewayError> {
    let boundary = boundary(headers, with)?;
    let declared = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if declared.is_some_and(|length| length > MAX_BYTES) {
        super::body::discard(body).await;
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
            return Err(wrong(&format!("the field `{}` is too long", shown(name))));
        }
        value.extend_from_slice(&bytes);
    }
    String::from_utf8(value).map_err(|_| wrong(&format!("the field `{}` is not UTF-8", shown(name))))
}

async fn uploaded(mut field: Field<'_>, mut spool: Spool) -> Result<Upload, GatewayError> {
    let filename = field.file_name().unwrap_or_default();
    let filename: String = filename.chars().filter(|c| !c.is_control()).take(MAX_NAME).collect();
    let content_type = field.content_type().map(ToString::to_string);
    while let Some(bytes) = patiently(field.chunk()).await? {
        spool.push(&bytes).await.map_err(|error| cannot_keep(&error))?;
    }
    let file = Arc::new(spool.finish().await.map_err(|error| cannot_keep(&error))?);
    Ok(Upload { file, filename, content_type })
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

/// A name in a message: no longer than names are.
fn shown(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(64).collect()
}

fn wrong(message: &str) -> GatewayError {
    GatewayError::new(ErrorKind::InvalidRequest, "invalid_multipart", message.to_owned())
}

fn too_large() -> GatewayError {
    let message = format!("the form is larger than {} MiB", MAX_BYTES >> 20);
    GatewayError::new(ErrorKind::TooLarge, "request_too_large", message)
}

fn cannot_keep(error: &std::io::Error) -> GatewayError {
    tracing::warn!(%error, "an uploaded file cannot be kept; see the space in the folder for temporary files");
    let message = "the gateway has no room for this file now; try again later";
    GatewayError::new(ErrorKind::Overloaded, "service_unavailable", message)
}
