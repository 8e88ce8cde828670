//! Pictures, documents and sounds on their way to an upstream of this dialect.

use std::borrow::Cow;

use crate::{
    Caps, EncodeError,
    gemini::wire::PartOut,
    ir::{File, Image, MediaSource},
    media,
};

/// Largest picture or document in bytes.
const MAX_BYTES: usize = 20 << 20;

const UNSUPPORTED: &str = "unsupported_content";

pub(super) fn refused(path: &str, message: impl Into<String>) -> EncodeError {
    EncodeError { code: UNSUPPORTED, param: Some(path.to_owned()), message: message.into() }
}

/// A source of this dialect's own, as it came.
pub(super) fn native<'a>(source: &'a MediaSource, detail: Option<&str>) -> PartOut<'a> {
    match source {
        MediaSource::Base64 { media_type, data } => {
            PartOut::Blob { media_type: Cow::Borrowed(media_type), data, resolution: resolution(detail) }
        }
        MediaSource::Url(uri) | MediaSource::FileId { id: uri, .. } => {
            PartOut::FileUri { uri, media_type: type_of_address(uri) }
        }
        MediaSource::Text(text) => PartOut::text(text.as_str()),
    }
}

/// A picture of another dialect. Its type is read off its bytes, since labels are often wrong.
pub(super) fn image<'a>(image: &'a Image, caps: &Caps, path: &str) -> Result<PartOut<'a>, EncodeError> {
    if !caps.vision {
        return Err(refused(path, "this model takes no images"));
    }
    match &image.source {
        MediaSource::Base64 { media_type, data } => {
            let found = media::sniffed(data).unwrap_or(match media_type.as_str() {
                "image/jpg" => "image/jpeg",
                other => other,
            });
            if !matches!(found, "image/jpeg" | "image/png" | "image/webp" | "image/heic" | "image/heif") {
                let message =
                    format!("images of type `{found}` are not accepted; send JPEG, PNG, WebP, HEIC or HEIF");
                return Err(refused(path, message));
            }
            small_enough(data, path)?;
            let resolution = resolution(image.detail.as_deref()).filter(|_| caps.gemini.multimodal_results);
            Ok(PartOut::Blob { media_type: Cow::Borrowed(found), data, resolution })
        }
        MediaSource::Url(uri) => at_address(uri, path),
        MediaSource::FileId { .. } => Err(elsewhere(path)),
        MediaSource::Text(_) => Err(refused(path, "an image cannot be plain text")),
    }
}

/// A document of another dialect: PDF as it is, text as text.
pub(super) fn document<'a>(file: &'a File, caps: &Caps, path: &str) -> Result<PartOut<'a>, EncodeError> {
    match &file.source {
        MediaSource::Base64 { media_type, data } => {
            let essence = media_type.split(';').next().unwrap_or_default().trim();
            small_enough(data, path)?;
            if essence == "application/pdf" || data.starts_with("JVBERi") {
                if !caps.pdf {
                    return Err(refused(path, "this model takes no PDF files"));
                }
                Ok(PartOut::Blob { media_type: Cow::Borrowed("application/pdf"), data, resolution: None })
            } else if essence.starts_with("text/") || essence == "application/json" {
                Ok(as_text(file, &media::text(data, path)?))
            } else {
                let message = format!("files of type `{essence}` are not accepted; send PDF or text");
                Err(refused(path, message))
            }
        }
        MediaSource::Url(uri) => at_address(uri, path),
        MediaSource::FileId { .. } => Err(elsewhere(path)),
        MediaSource::Text(text) => Ok(as_text(file, text)),
    }
}

/// A sound of another dialect.
pub(super) fn audio<'a>(
    data: &'a str,
    format: &str,
    caps: &Caps,
    path: &str,
) -> Result<PartOut<'a>, EncodeError> {
    if !caps.audio_input {
        return Err(refused(path, "this model takes no audio"));
    }
    small_enough(data, path)?;
    Ok(PartOut::Blob { media_type: Cow::Owned(audio_type(format)), data, resolution: None })
}

/// The media type of a sound.
pub(super) fn audio_type(format: &str) -> String {
    format!("audio/{format}")
}

/// How closely to look at a picture.
pub(super) fn resolution(detail: Option<&str>) -> Option<&'static str> {
    match detail {
        Some("low") => Some("MEDIA_RESOLUTION_LOW"),
        Some("high") => Some("MEDIA_RESOLUTION_HIGH"),
        _ => None,
    }
}

fn as_text<'a>(file: &File, text: &str) -> PartOut<'a> {
    let name = file.name.as_deref().unwrap_or("file.txt").replace('"', "'");
    PartOut::text(format!("<document name=\"{name}\">\n{text}\n</document>"))
}

fn small_enough(data: &str, path: &str) -> Result<(), EncodeError> {
    if data.len() / 4 * 3 > MAX_BYTES + 3 {
        return Err(refused(path, "the file is larger than 20 MiB; make it smaller"));
    }
    Ok(())
}

/// Something at an address, where the vendor itself reads it.
fn at_address<'a>(uri: &'a str, path: &str) -> Result<PartOut<'a>, EncodeError> {
    let rest = uri.strip_prefix("https://").unwrap_or_default();
    let readable = uri.starts_with("gs://")
        || ["generativelanguage.googleapis.com/", "www.youtube.com/", "youtube.com/", "youtu.be/"]
            .iter()
            .any(|host| rest.starts_with(host));
    if readable {
        return Ok(PartOut::FileUri { uri, media_type: type_of_address(uri) });
    }
    Err(refused(path, "this model's provider does not fetch from addresses; send the data itself"))
}

fn type_of_address(uri: &str) -> Option<&'static str> {
    let path = uri.split(['?', '#']).next().unwrap_or_default();
    Some(match path.rsplit('.').next()?.to_ascii_lowercase().as_str() {
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "webp" => "image/webp",
        "gif" => "image/gif",
        "pdf" => "application/pdf",
        "txt" => "text/plain",
        _ => return None,
    })
}

fn elsewhere(path: &str) -> EncodeError {
    refused(path, "the file id belongs to another provider; send the data itself")
}

#[cfg(test)]
mod tests {
    use super::*;

    static CAPS: Caps = Caps::permissive();

    #[test]
    fn the_type_comes_from_the_bytes() {
        let seen = |media_type: &str, data: &str| {
            let source = MediaSource::Base64 { media_type: media_type.to_owned(), data: data.to_owned() };
            match image(&Image { source, detail: None }, &CAPS, "p") {
                Ok(PartOut::Blob { media_type, .. }) => media_type.into_owned(),
                Ok(other) => panic!("{other:?}"),
                Err(error) => error.code.to_owned(),
            }
        };
        assert_eq!(seen("image/jpeg", "iVBORw0KGgoAAAANSUhEUg=="), "image/png");
        assert_eq!(seen("image/jpg", "AAAA"), "image/jpeg");
        assert_eq!(seen("image/png", "R0lGODlhAQABAAAAACw="), UNSUPPORTED);
        assert_eq!(seen("image/tiff", "AAAA"), UNSUPPORTED);
        assert_eq!(seen("image/png", &"A".repeat(30 << 20)), UNSUPPORTED);
    }

    #[test]
    fn only_addresses_of_the_vendor_are_passed_on() {
        for (uri, taken) in [
            ("gs://bucket/a.png", true),
            ("https://generativelanguage.googleapis.com/v1beta/files/x", true),
            ("https://youtu.be/x", true),
            ("https://example.com/a.png", false),
            ("https://youtu.be.example.com/a.png", false),
            ("http://youtu.be/x", false),
        ] {
            let source = MediaSource::Url(uri.to_owned());
            let given = Image { source, detail: None };
            let found = image(&given, &CAPS, "p");
            assert_eq!(found.is_ok(), taken, "{uri}");
        }
    }
}
