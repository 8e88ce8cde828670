//! Reading a form as strictly as servers do.

use bytes::Bytes;
use http::{HeaderMap, header};

use crate::refusal::Refusal;

/// One field of a form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Field {
    pub(super) name: String,
    pub(super) filename: Option<String>,
    pub(super) content_type: Option<String>,
    pub(super) content: Bytes,
}

impl Field {
    /// What a field without a file says.
    pub(super) fn text(&self) -> Result<&str, Refusal> {
        std::str::from_utf8(&self.content)
            .map_err(|_| Refusal::field(&self.name, "invalid_value", format!("'{}' is not text", self.name)))
    }
}

/// All fields in order.
pub(super) fn read(headers: &HeaderMap, body: &Bytes) -> Result<Vec<Field>, Refusal> {
    let broken = |what: &str| Refusal::request(format!("could not parse the multipart form: {what}"));
    let content_type =
        headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !content_type.to_ascii_lowercase().starts_with("multipart/form-data") {
        return Err(broken("the content type must be multipart/form-data"));
    }
    let boundary = content_type
        .split(';')
        .find_map(|parameter| parameter.trim().strip_prefix("boundary="))
        .map(|boundary| boundary.trim_matches('"'))
        .filter(|boundary| !boundary.is_empty())
        .ok_or_else(|| broken("there is no boundary"))?;
    let opening = format!("--{boundary}");
    let between = format!("\r\n--{boundary}");
    let mut at = memchr::memmem::find(body, opening.as_bytes()).ok_or_else(|| broken("no part begins"))?
        + opening.len();
    let mut fields = Vec::new();
    loop {
        if body[at..].starts_with(b"--") {
            return Ok(fields);
        }
        if !body[at..].starts_with(b"\r\n") {
            return Err(broken("a boundary is followed by something else than a line's end"));
        }
        let from = at + 2;
        let head_end =
            memchr::memmem::find(&body[from..], b"\r\n\r\n").ok_or_else(|| broken("a part has no head"))?;
        let head =
            std::str::from_utf8(&body[from..from + head_end]).map_err(|_| broken("a head is not text"))?;
        let content_from = from + head_end + 4;
        let length = memchr::memmem::find(&body[content_from..], between.as_bytes())
            .ok_or_else(|| broken("a part does not end"))?;
        fields.push(
            field(head, body.slice(content_from..content_from + length))
                .ok_or_else(|| broken("a part has no name"))?,
        );
        at = content_from + length + between.len();
    }
}

fn field(head: &str, content: Bytes) -> Option<Field> {
    let (mut name, mut filename, mut content_type) = (None, None, None);
    for line in head.split("\r\n") {
        let (key, value) = line.split_once(':')?;
        match key.trim().to_ascii_lowercase().as_str() {
            "content-disposition" => {
                for parameter in value.split(';').skip(1) {
                    match parameter.trim().split_once('=') {
                        Some(("name", value)) => name = Some(value.trim_matches('"').to_owned()),
                        Some(("filename", value)) => filename = Some(value.trim_matches('"').to_owned()),
                        _ => {}
                    }
                }
            }
            "content-type" => content_type = Some(value.trim().to_owned()),
            _ => {}
        }
    }
    Some(Field { name: name?, filename, content_type, content })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn read(body: &str) -> Result<Vec<Field>, Refusal> {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("multipart/form-data; boundary=\"B\""));
        super::read(&headers, &Bytes::from(body.to_owned()))
    }

    #[test]
    fn forms() {
        let fields = read(
            "--B\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1\r\n\
             --B\r\nContent-Disposition: form-data; name=\"file\"; filename=\"x.wav\"\r\nContent-Type: audio/wav\r\n\r\n\
             \r\n--A\r\n\r\n--B--\r\n",
        )
        .unwrap();
        assert_eq!((fields.len(), fields[0].text().unwrap()), (2, "1"));
        assert_eq!(fields[1].filename.as_deref(), Some("x.wav"));
        assert_eq!(&fields[1].content[..], b"\r\n--A\r\n");
        for body in ["", "--B", "--B\r\n\r\n", "--B\r\nX: y\r\n\r\nz\r\n--B--", "--Bx\r\n"] {
            assert!(read(body).is_err(), "{body:?}");
        }
    }
}
