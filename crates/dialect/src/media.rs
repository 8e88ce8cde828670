//! Media that travel within requests as base64.

use std::borrow::Cow;

use base64::prelude::{BASE64_STANDARD, Engine};

use crate::{
    EncodeError,
    ir::{Image, MediaSource},
};

/// Media type and base64 data of a data URL.
pub(crate) fn data_url(url: &str) -> Option<(&str, &str)> {
    let (head, data) = url.strip_prefix("data:")?.split_once(',')?;
    let media_type = head.strip_suffix(";base64")?;
    Some((media_type.split(';').next().unwrap_or(media_type), data))
}

/// A picture within a text, for answers of dialects that have no other place for it.
pub(crate) fn as_markdown(media_type: &str, data: &str) -> String {
    format!("![image](data:{media_type};base64,{data})")
}

/// Where an image is, by a data URL or an address on the web.
pub(crate) fn source_of_url(url: &str) -> Option<MediaSource> {
    if let Some((media_type, data)) = data_url(url) {
        return Some(MediaSource::Base64 { media_type: media_type.to_owned(), data: data.to_owned() });
    }
    is_on_the_web(url).then(|| MediaSource::Url(url.to_owned()))
}

/// Whether an address is one of the web.
pub(crate) fn is_on_the_web(url: &str) -> bool {
    url.starts_with("http://") || url.starts_with("https://")
}

/// A document by a data URL, or by base64 alone: then it is a PDF.
pub(crate) fn source_of_data(data: &str) -> MediaSource {
    let (media_type, data) = data_url(data).unwrap_or(("application/pdf", data));
    MediaSource::Base64 { media_type: media_type.to_owned(), data: data.to_owned() }
}

/// The way back: a data URL, an address, an id or a text.
pub(crate) fn source_url(source: &MediaSource) -> Cow<'_, str> {
    match source {
        MediaSource::Base64 { media_type, data } => Cow::Owned(format!("data:{media_type};base64,{data}")),
        MediaSource::Url(text) | MediaSource::Text(text) | MediaSource::FileId { id: text, .. } => {
            Cow::Borrowed(text)
        }
    }
}

/// Whether a file of this type is nothing but text.
pub(crate) fn is_text(media_type: &str) -> bool {
    let essence = media_type.split(';').next().unwrap_or_default().trim();
    essence.starts_with("text/") || essence == "application/json"
}

/// A text file within a text.
pub(crate) fn document_text(name: Option<&str>, text: &str) -> String {
    let name = name.unwrap_or("file.txt").replace('"', "'");
    format!("<document name=\"{name}\">\n{text}\n</document>")
}

/// The text of a file that is sent as base64.
pub(crate) fn text(data: &str, path: &str) -> Result<String, EncodeError> {
    let refused =
        |code, message: &str| EncodeError { code, param: Some(path.to_owned()), message: message.to_owned() };
    let bytes = BASE64_STANDARD
        .decode(data)
        .map_err(|_| refused("invalid_value", "the file's data is not valid base64"))?;
    String::from_utf8(bytes).map_err(|_| refused("unsupported_content", "the text file is not valid UTF-8"))
}

/// The type that the first bytes of what is in base64 tell, also of kinds that are not accepted.
pub(crate) fn sniffed(data: &str) -> Option<&'static str> {
    let head = data.get(..data.len().min(24))?;
    kind_of_picture(&BASE64_STANDARD.decode(&head[..head.len() / 4 * 4]).ok()?)
}

/// The type of a picture that most models cannot read, if it is one: by its first bytes, else by its label.
pub(crate) fn unread_picture(image: &Image) -> Option<&str> {
    let MediaSource::Base64 { media_type, data } = &image.source else { return None };
    let kind = sniffed(data).unwrap_or(media_type);
    let is_read = matches!(kind, "image/jpeg" | "image/jpg" | "image/png" | "image/gif" | "image/webp");
    (kind.starts_with("image/") && !is_read).then_some(kind)
}

/// The type of a picture by its first bytes, also of kinds that are not accepted.
pub(crate) fn kind_of_picture(bytes: &[u8]) -> Option<&'static str> {
    let starts = |mark: &[u8]| bytes.starts_with(mark);
    let kind = bytes.get(4..12).unwrap_or_default();
    Some(if starts(b"\x89PNG") {
        "image/png"
    } else if starts(b"\xff\xd8\xff") {
        "image/jpeg"
    } else if starts(b"GIF8") {
        "image/gif"
    } else if starts(b"RIFF") && bytes.get(8..12) == Some(b"WEBP") {
        "image/webp"
    } else if starts(b"BM") {
        "image/bmp"
    } else if starts(b"II*\0") || starts(b"MM\0*") {
        "image/tiff"
    } else if starts(b"<svg") || starts(b"<?xml") {
        "image/svg+xml"
    } else if kind.starts_with(b"ftyp") && (kind.ends_with(b"heic") || kind.ends_with(b"mif1")) {
        "image/heic"
    } else {
        return None;
    })
}
