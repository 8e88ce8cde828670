//! Images and documents on their way to an upstream of this dialect.

use std::borrow::Cow;

use super::conversation::refused;
use crate::{
    Caps, EncodeError,
    anthropic::{ID, wire::SourceOut},
    ir::{File, Image, MediaSource},
    media,
};

/// Largest image in bytes.
const MAX_IMAGE: usize = 5 << 20;

const UNSUPPORTED: &str = "unsupported_content";

/// A source of this dialect's own, as it came.
pub(super) fn native_source(source: &MediaSource) -> SourceOut<'_> {
    match source {
        MediaSource::Base64 { media_type, data } => {
            SourceOut::Base64 { media_type: Cow::Borrowed(media_type), data }
        }
        MediaSource::Url(url) => SourceOut::Url(url),
        MediaSource::FileId { id, .. } => SourceOut::File(id),
        MediaSource::Text(text) => SourceOut::Text(Cow::Borrowed(text)),
    }
}

/// An image of another dialect. Its type is read off its bytes, since labels are often wrong and the upstream
/// refuses those that are.
pub(super) fn image<'a>(image: &'a Image, caps: &Caps, path: &str) -> Result<SourceOut<'a>, EncodeError> {
    if !caps.vision {
        return Err(refused(UNSUPPORTED, path, "this model takes no images"));
    }
    match &image.source {
        MediaSource::Base64 { media_type, data } => {
            let found = media::sniffed(data).unwrap_or(match media_type.as_str() {
                "image/jpg" => "image/jpeg",
                other => other,
            });
            if !matches!(found, "image/jpeg" | "image/png" | "image/gif" | "image/webp") {
                let message =
                    format!("images of type `{found}` are not accepted; send JPEG, PNG, GIF or WebP");
                return Err(refused(UNSUPPORTED, path, message));
            }
            if data.len() / 4 * 3 > MAX_IMAGE + 3 {
                let message = "the image is larger than 5 MiB; scale it down";
                return Err(refused(UNSUPPORTED, path, message));
            }
            Ok(SourceOut::Base64 { media_type: Cow::Borrowed(found), data })
        }
        MediaSource::Url(url) => Ok(SourceOut::Url(url)),
        MediaSource::FileId { origin, id } if *origin == ID => Ok(SourceOut::File(id)),
        MediaSource::FileId { .. } => Err(elsewhere(path)),
        MediaSource::Text(_) => Err(refused(UNSUPPORTED, path, "an image cannot be plain text")),
    }
}

/// A document of another dialect: PDF as it is, text decoded.
pub(super) fn document<'a>(file: &'a File, caps: &Caps, path: &str) -> Result<SourceOut<'a>, EncodeError> {
    let pdf = |source| if caps.pdf { Ok(source) } else { Err(no_pdf(path)) };
    match &file.source {
        MediaSource::Base64 { media_type, data } => {
            let essence = media_type.split(';').next().unwrap_or_default().trim();
            if essence == "application/pdf" || data.starts_with("JVBERi") {
                pdf(SourceOut::Base64 { media_type: Cow::Borrowed("application/pdf"), data })
            } else if essence.starts_with("text/") || essence == "application/json" {
                Ok(SourceOut::Text(Cow::Owned(media::text(data, path)?)))
            } else {
                let message = format!("files of type `{essence}` are not accepted; send PDF or text");
                Err(refused(UNSUPPORTED, path, message))
            }
        }
        MediaSource::Url(url) => pdf(SourceOut::Url(url)),
        MediaSource::FileId { origin, id } if *origin == ID => Ok(SourceOut::File(id)),
        MediaSource::FileId { .. } => Err(elsewhere(path)),
        MediaSource::Text(text) => Ok(SourceOut::Text(Cow::Borrowed(text))),
    }
}

fn elsewhere(path: &str) -> EncodeError {
    refused(UNSUPPORTED, path, "the file id belongs to another provider; send the data itself")
}

fn no_pdf(path: &str) -> EncodeError {
    refused(UNSUPPORTED, path, "this model takes no PDF files")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_type_comes_from_the_bytes() {
        let seen = |media_type: &str, data: &str| {
            let source = MediaSource::Base64 { media_type: media_type.to_owned(), data: data.to_owned() };
            let given = Image { source, detail: None };
            match image(&given, &Caps::permissive(), "messages[0].content[0]") {
                Ok(SourceOut::Base64 { media_type, .. }) => media_type.into_owned(),
                Ok(other) => panic!("{other:?}"),
                Err(error) => error.code.to_owned(),
            }
        };
        assert_eq!(seen("image/jpeg", "iVBORw0KGgoAAAANSUhEUg=="), "image/png");
        assert_eq!(seen("image/png", "/9j/4AAQSkZJRgABAQ=="), "image/jpeg");
        assert_eq!(seen("image/jpg", "AAAA"), "image/jpeg");
        assert_eq!(seen("image/png", "Qk0AAAAA"), UNSUPPORTED);
        assert_eq!(seen("image/tiff", "AAAA"), UNSUPPORTED);
        assert_eq!(seen("image/png", &"A".repeat(8 << 20)), UNSUPPORTED);
    }
}
