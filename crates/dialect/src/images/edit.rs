//! Pictures that are to be changed: how clients give them, and how those who are asked want them
//! (<https://platform.openai.com/docs/api-reference/images/createEdit>,
//! <https://docs.x.ai/docs/guides/image-generations>).

use bytes::{Bytes, BytesMut};
use omniroute_wire::json_out;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::request::{ImageRequest, Quirks};
use crate::DecodeError;
use crate::form::{Form, FormWriter};
use crate::ir::Loss;
use crate::json_body::JsonBody;
use crate::json_in::{list_of, missing, wrong_type, wrong_value};
use crate::media;

/// Most pictures of one request, the mask not counted.
pub const MAX_GIVEN: usize = 16;
/// Most fields of one form.
const MAX_FIELDS: usize = 64;
/// Most bytes of all fields together.
const MAX_BYTES: usize = 512 * 1024;

/// The fields of a client's form, as they come, without its files.
#[derive(Debug, Default)]
pub struct EditFields {
    members: Vec<(String, Box<RawValue>)>,
    bytes: usize,
}

impl EditFields {
    /// How many bytes the next field may have at most.
    pub fn room(&self) -> usize {
        MAX_BYTES - self.bytes
    }

    /// Takes a field.
    pub fn add(&mut self, name: &str, value: &str) -> Result<(), DecodeError> {
        self.bytes = self.bytes.saturating_add(name.len() + value.len());
        if self.members.len() == MAX_FIELDS || self.bytes > MAX_BYTES {
            return Err(DecodeError {
                code: "invalid_value",
                message: format!("a form has at most {MAX_FIELDS} fields of {MAX_BYTES} bytes together"),
                param: None,
            });
        }
        if !name.ends_with("[]") && self.members.iter().any(|(other, _)| other == name) {
            return Err(DecodeError {
                code: "invalid_value",
                message: format!("`{name}` is given more than once"),
                param: Some(name.to_owned()),
            });
        }
        let trimmed = value.trim();
        let as_it_is = match name {
            "n" | "output_compression" | "partial_images" => trimmed.parse::<u64>().is_ok(),
            "stream" => matches!(trimmed, "true" | "false"),
            _ => false,
        };
        let json = if as_it_is { trimmed.to_owned() } else { quoted(value) };
        let raw = RawValue::from_string(json).map_err(|_| wrong_type(name, "a text"))?;
        self.members.push((name.to_owned(), raw));
        Ok(())
    }

    /// The request, after the whole form was read.
    pub fn finish(self) -> Result<ImageRequest, DecodeError> {
        ImageRequest::of(JsonBody::of(self.members))
    }
}

/// Pictures that a JSON document names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Given {
    /// Those that are to be changed.
    pub pictures: Vec<Reference>,
    /// What shows where.
    pub mask: Option<Reference>,
    /// Whether they are named as OpenAI names them.
    pub is_plain: bool,
}

/// Where a picture is that a JSON document names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reference {
    /// At an address, or in a data URL.
    Url(String),
    /// At the vendor, under an id of its own.
    FileId(String),
}

#[derive(Deserialize)]
struct Named {
    image_url: Option<Address>,
    url: Option<String>,
    file_id: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Address {
    Text(String),
    Object { url: String },
}

impl Given {
    /// The pictures that a request names.
    pub fn of(request: &ImageRequest) -> Result<Self, DecodeError> {
        let mut given = Self { is_plain: request.member("image").is_none(), ..Self::default() };
        for name in ["images", "image"] {
            let Some(raw) = request.member(name) else { continue };
            let items = if raw.get().starts_with('[') { list_of(raw) } else { Some(vec![raw]) };
            let items = items.ok_or_else(|| wrong_type(name, "a list"))?;
            for (at, item) in items.into_iter().enumerate() {
                given.is_plain &= is_plain(item);
                given.pictures.push(reference(item, &format!("{name}[{at}]"))?);
            }
        }
        if given.pictures.is_empty() {
            return Err(missing("images"));
        }
        if given.pictures.len() > MAX_GIVEN {
            return Err(wrong_value("images", &format!("a list of at most {MAX_GIVEN} pictures")));
        }
        let mask = request.member("mask");
        given.is_plain &= mask.is_none_or(is_plain);
        given.mask = mask.map(|raw| reference(raw, "mask")).transpose()?;
        Ok(given)
    }
}

/// Whether a picture is named in OpenAI's words: an address that is a text, or an id.
fn is_plain(raw: &RawValue) -> bool {
    serde_json::from_str::<Named>(raw.get())
        .is_ok_and(|named| named.url.is_none() && !matches!(named.image_url, Some(Address::Object { .. })))
}

fn reference(raw: &RawValue, path: &str) -> Result<Reference, DecodeError> {
    let wrong = || wrong_type(path, "an object with `image_url` or `file_id`");
    if let Ok(url) = serde_json::from_str::<String>(raw.get()) {
        return Ok(Reference::Url(url));
    }
    let named: Named = serde_json::from_str(raw.get()).map_err(|_| wrong())?;
    let url = match named.image_url {
        Some(Address::Text(url) | Address::Object { url }) => Some(url),
        None => named.url,
    };
    match (url, named.file_id) {
        (Some(url), _) => Ok(Reference::Url(url)),
        (None, Some(id)) => Ok(Reference::FileId(id)),
        (None, None) => Err(wrong()),
    }
}

/// What a file is sent as: what it is by its first bytes, else what the client says if that is a kind of picture. `None` if
/// it is none.
pub fn media_type(declared: Option<&str>, head: &[u8]) -> Option<String> {
    if let Some(found) = media::kind_of_picture(head) {
        return Some(found.to_owned());
    }
    let declared = declared?.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    declared.starts_with("image/").then_some(declared)
}

/// A file of a form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileName<'a> {
    /// What it is called.
    pub name: &'a str,
    /// What it is.
    pub media_type: &'a str,
}

/// The form of one call, in OpenAI's words, and what of the request it does not say.
pub fn form(
    request: &ImageRequest,
    model: &str,
    quirks: &Quirks,
    (pictures, mask): (&[FileName<'_>], Option<FileName<'_>>),
    boundary: &str,
) -> Result<(Form, Vec<Loss>), DecodeError> {
    let (fields, losses) = request.fields(model, quirks)?;
    let mut writer = FormWriter::new(boundary);
    for (name, value) in &fields {
        writer.field(name, value);
    }
    // Servers that take one alone do not know the brackets.
    let name = if pictures.len() == 1 { "image" } else { "image[]" };
    for file in pictures {
        writer.file(name, file.name, file.media_type);
    }
    if let Some(file) = mask {
        writer.file("mask", file.name, file.media_type);
    }
    Ok((writer.end(), losses))
}

/// The JSON document of one call, in xAI's words: pictures by their address, which may be a data URL.
pub fn json(
    request: &ImageRequest,
    model: &str,
    quirks: &Quirks,
    pictures: &[String],
    mask: Option<&str>,
) -> Result<(Bytes, Vec<Loss>), DecodeError> {
    let one = |url: &str| format!("{{\"url\":{}}}", quoted(url));
    let (name, value) = match pictures {
        [only] => ("image", one(only)),
        several => {
            ("images", format!("[{}]", several.iter().map(|url| one(url)).collect::<Vec<_>>().join(",")))
        }
    };
    let mask = mask.map(one);
    let mut more = vec![(name, value.as_str())];
    more.extend(mask.as_deref().map(|mask| ("mask", mask)));
    request.write_with(model, quirks, &["image", "images", "mask"], &more)
}

/// The JSON document of one call, in OpenAI's words. What is in them already goes on as it came.
pub fn document(
    request: &ImageRequest,
    model: &str,
    quirks: &Quirks,
    given: &Given,
) -> Result<(Bytes, Vec<Loss>), DecodeError> {
    if given.is_plain {
        return request.write(model, quirks);
    }
    let one = |picture: &Reference| match picture {
        Reference::Url(url) => format!("{{\"image_url\":{}}}", quoted(url)),
        Reference::FileId(id) => format!("{{\"file_id\":{}}}", quoted(id)),
    };
    let pictures = given.pictures.iter().map(one).collect::<Vec<_>>().join(",");
    let (pictures, mask) = (format!("[{pictures}]"), given.mask.as_ref().map(one));
    let mut more = vec![("images", pictures.as_str())];
    more.extend(mask.as_deref().map(|mask| ("mask", mask)));
    request.write_with(model, quirks, &["image", "images", "mask"], &more)
}

fn quoted(text: &str) -> String {
    let mut out = BytesMut::with_capacity(text.len() + 2);
    json_out::string(&mut out, text);
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::images::Edits;
    use crate::ir::LossAction;

    fn fields(fields: &[(&str, &str)]) -> Result<ImageRequest, DecodeError> {
        let mut read = EditFields::default();
        for (name, value) in fields {
            read.add(name, value)?;
        }
        read.finish()
    }

    #[test]
    fn forms_become_requests_and_forms_again() {
        let request = fields(&[
            ("model", "p/m"),
            ("prompt", "a \"hat\""),
            ("n", "2"),
            ("stream", "false"),
            ("style", "vivid"),
            ("input_fidelity", "high"),
        ])
        .unwrap();
        assert_eq!((request.model.as_str(), request.prompt.as_str(), request.count), ("p/m", "a \"hat\"", 2));
        let file = FileName { name: "a.png", media_type: "image/png" };
        let quirks = Quirks { refused: &["style"], edits: Edits::OpenAi, ..Quirks::default() };
        let (form, losses) = form(&request, "m", &quirks, (&[file], Some(file)), "B").unwrap();
        let head = String::from_utf8(form.head.to_vec()).unwrap();
        for part in [
            "name=\"model\"\r\n\r\nm\r\n",
            "name=\"prompt\"\r\n\r\na \"hat\"\r\n",
            "name=\"n\"\r\n\r\n2\r\n",
            "name=\"input_fidelity\"\r\n\r\nhigh\r\n",
            "name=\"image\"; filename=\"a.png\"\r\nContent-Type: image/png\r\n\r\n",
        ] {
            assert!(head.contains(part), "{part} is not in {head}");
        }
        assert!(!head.contains("stream") && !head.contains("style"), "{head}");
        assert_eq!(losses, [crate::ir::loss("style", LossAction::Dropped)]);
        assert!(
            form.behind[0].ends_with(b"name=\"mask\"; filename=\"a.png\"\r\nContent-Type: image/png\r\n\r\n")
        );
        let (several, _) = super::form(&request, "m", &quirks, (&[file, file], None), "B").unwrap();
        assert!(
            several.behind[0]
                .ends_with(b"name=\"image[]\"; filename=\"a.png\"\r\nContent-Type: image/png\r\n\r\n")
        );
    }

    #[test]
    fn wrong_fields_are_named() {
        for (given, code, param) in [
            (&[("prompt", "a")][..], "missing_required_parameter", "model"),
            (&[("model", "m")], "missing_required_parameter", "prompt"),
            (&[("model", "m"), ("prompt", "a"), ("n", "two")], "invalid_type", "n"),
            (&[("model", "m"), ("prompt", "a"), ("n", "99")], "invalid_value", "n"),
            (&[("model", "m"), ("prompt", "a"), ("stream", "yes")], "invalid_type", "stream"),
            (&[("model", "m"), ("model", "n")], "invalid_value", "model"),
        ] {
            let error = fields(given).unwrap_err();
            assert_eq!((error.code, error.param.as_deref()), (code, Some(param)), "{given:?}");
        }
        let mut form = EditFields::default();
        assert_eq!(
            (0..=MAX_FIELDS).filter(|at| form.add(&format!("f{at}"), "x").is_ok()).count(),
            MAX_FIELDS
        );
        assert!(EditFields::default().add("prompt", &"x".repeat(MAX_BYTES)).is_err());
    }

    fn read(more: &str) -> ImageRequest {
        ImageRequest::read(format!(r#"{{"model":"p/m","prompt":"a"{more}}}"#).as_bytes()).unwrap()
    }

    #[test]
    fn files_are_what_they_begin_with() {
        for (declared, head, expected) in [
            (Some("application/octet-stream"), &b"\x89PNG\r\n"[..], Some("image/png")),
            (Some("image/png"), b"\xff\xd8\xff\xe0", Some("image/jpeg")),
            (Some("image/avif; x=y"), b"....ftypavif", Some("image/avif")),
            (None, b"RIFF....WEBPVP8 ", Some("image/webp")),
            (Some("text/plain"), b"hello", None),
            (None, b"", None),
        ] {
            assert_eq!(media_type(declared, head).as_deref(), expected, "{declared:?}");
        }
    }

    #[test]
    fn documents_name_pictures_in_several_ways() {
        let url = |text: &str| Reference::Url(text.to_owned());
        for (more, expected) in [
            (
                r#","images":[{"image_url":"data:x"},{"file_id":"f"}]"#,
                vec![url("data:x"), Reference::FileId("f".into())],
            ),
            (r#","image":{"url":"https://a.example/b"}"#, vec![url("https://a.example/b")]),
            (r#","image":"https://a.example/b""#, vec![url("https://a.example/b")]),
            (r#","images":[{"image_url":{"url":"data:y"}}]"#, vec![url("data:y")]),
        ] {
            assert_eq!(Given::of(&read(more)).unwrap().pictures, expected, "{more}");
        }
        let many = format!(r#","images":[{}]"#, vec![r#""u""#; MAX_GIVEN + 1].join(","));
        for (more, code, param) in [
            ("", "missing_required_parameter", "images"),
            (r#","images":[]"#, "missing_required_parameter", "images"),
            (r#","images":[{"x":1}]"#, "invalid_type", "images[0]"),
            (r#","image":"u","mask":7"#, "invalid_type", "mask"),
            (many.as_str(), "invalid_value", "images"),
        ] {
            let error = Given::of(&read(more)).unwrap_err();
            assert_eq!((error.code, error.param.as_deref()), (code, Some(param)), "{more}");
        }
    }

    #[test]
    fn pictures_are_named_as_openai_names_them() {
        let quirks = Quirks { edits: Edits::OpenAi, ..Quirks::default() };
        for (more, expected) in [
            // Its own words stay as they are, spaces and all.
            (r#","images":[ {"image_url":"u"},{"file_id":"f"}],"mask":{"file_id":"g"}"#, None),
            (r#","image":{"url":"u","type":"image_url"}"#, Some(r#","images":[{"image_url":"u"}]"#)),
            (r#","image":"u","n":2"#, Some(r#","n":2,"images":[{"image_url":"u"}]"#)),
            (
                r#","images":[{"url":"u"},{"url":"v"}],"mask":{"url":"w"}"#,
                Some(r#","images":[{"image_url":"u"},{"image_url":"v"}],"mask":{"image_url":"w"}"#),
            ),
            (
                r#","images":[{"image_url":{"url":"u"}}],"mask":{"file_id":"f"}"#,
                Some(r#","images":[{"image_url":"u"}],"mask":{"file_id":"f"}"#),
            ),
        ] {
            let request = read(more);
            let (body, _) = document(&request, "m", &quirks, &Given::of(&request).unwrap()).unwrap();
            let expected = format!(r#"{{"model":"m","prompt":"a"{}}}"#, expected.unwrap_or(more));
            assert_eq!(std::str::from_utf8(&body).unwrap(), expected);
        }
    }

    #[test]
    fn one_picture_and_several_have_names_of_their_own() {
        let request = read(r#","images":[{"image_url":"u"}],"size":"1x1""#);
        let quirks = Quirks { refused: &["size"], ..Quirks::default() };
        let (body, losses) = json(&request, "m", &quirks, &["u".into()], Some("v")).unwrap();
        assert_eq!(
            std::str::from_utf8(&body).unwrap(),
            r#"{"model":"m","prompt":"a","image":{"url":"u"},"mask":{"url":"v"}}"#
        );
        assert_eq!(losses.len(), 1);
        let (body, _) = json(&request, "m", &quirks, &["u".into(), "v".into()], None).unwrap();
        assert!(std::str::from_utf8(&body).unwrap().ends_with(r#""images":[{"url":"u"},{"url":"v"}]}"#));
    }
}
