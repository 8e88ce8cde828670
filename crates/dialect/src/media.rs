//! Media that travel within requests as base64.

use base64::prelude::{BASE64_STANDARD, Engine};

use crate::EncodeError;

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

/// The text of a file that is sent as base64.
pub(crate) fn text(data: &str, path: &str) -> Result<String, EncodeError> {
    let refused =
        |code, message: &str| EncodeError { code, param: Some(path.to_owned()), message: message.to_owned() };
    let bytes = BASE64_STANDARD
        .decode(data)
        .map_err(|_| refused("invalid_value", "the file's data is not valid base64"))?;
    String::from_utf8(bytes).map_err(|_| refused("unsupported_content", "the text file is not valid UTF-8"))
}

/// The type that the first bytes tell, also of kinds that are not accepted.
pub(crate) fn sniffed(data: &str) -> Option<&'static str> {
    let head = data.get(..data.len().min(24))?;
    let bytes = BASE64_STANDARD.decode(&head[..head.len() / 4 * 4]).ok()?;
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
