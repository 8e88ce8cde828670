//! Pictures that are changed: OpenAI's form and document, and xAI's document
//! (<https://platform.openai.com/docs/api-reference/images/createEdit>).

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::{Response, request::Parts};
use serde_json::{Map, Value};

use super::{Errand, content_type, multipart, pictures, sound, vendors_name};
use crate::{
    SimBody, Simulator,
    check::{At, Wording as _},
    json_document,
    openai::OpenAi,
    refusal::Refusal,
    stage::Ids,
};

/// Members of those who change pictures, beside what those who make them take.
const MORE: &[&str] = &["input_fidelity"];
const KINDS: [(&str, &[u8]); 3] =
    [("image/png", b"\x89PNG"), ("image/jpeg", b"\xff\xd8\xff"), ("image/webp", b"RIFF")];
const TOKENS_OF_A_PICTURE: u64 = 85;

/// What came to be changed.
#[derive(Default)]
struct Given {
    count: usize,
    bytes: usize,
    /// Of all of them in order.
    sum: u32,
    has_mask: bool,
    /// Those that are somewhere else.
    far: usize,
}

impl Given {
    fn add(&mut self, name: &str, content: &[u8]) {
        if name == "mask" {
            self.has_mask = true;
            return;
        }
        self.count += 1;
        self.bytes += content.len();
        self.sum = self.sum.wrapping_mul(31).wrapping_add(sound::sum(content));
    }

    fn words(&self) -> String {
        let mask = if self.has_mask { ", with a mask" } else { "" };
        let far = if self.far > 0 { format!(", {} of them elsewhere", self.far) } else { String::new() };
        format!("{} pictures of {} bytes with the sum {:08x}{mask}{far}", self.count, self.bytes, self.sum)
    }
}

impl Simulator {
    pub(super) async fn edits(
        &self,
        errand: &Errand<'_>,
        key: &str,
        parts: &Parts,
        body: &Bytes,
        ids: Ids,
    ) -> Result<Response<SimBody>, Refusal> {
        let is_xai = errand.house == "xai";
        let (members, given) = match content_type(parts).as_str() {
            "multipart/form-data" if is_xai => {
                return Err(Refusal {
                    status: 415,
                    ..Refusal::request("Expected request with `Content-Type: application/json`")
                });
            }
            "multipart/form-data" => form(parts, body)?,
            _ => named(json_document(true, &parts.headers, body)?, is_xai)?,
        };
        let members = Value::Object(members);
        let root = At::root(&members, &OpenAi);
        let name = root.need("model")?.text()?;
        let model = vendors_name(name);
        let rules = pictures::rules(errand.house, model);
        if rules.most_given == 0 {
            return Err(OpenAi.wrong("model", &format!("'{model}' does not change pictures")));
        }
        let more = if model.starts_with("gpt-image") { MORE } else { &[] };
        root.known(&[rules.fields, more])?;
        root.get("input_fidelity").map(|it| it.one_of(&["high", "low"])).transpose()?;
        if given.count == 0 {
            return Err(OpenAi.missing("image"));
        }
        if given.count > rules.most_given {
            return Err(OpenAi.wrong("image", &format!("more than {} pictures", rules.most_given)));
        }
        let order = pictures::Order {
            house: errand.house,
            name,
            changed: Some(given.words()),
            given_tokens: TOKENS_OF_A_PICTURE * given.count as u64,
        };
        self.paint(&order, &root, key, parts, ids).await
    }
}

/// The members of a form, and its files.
fn form(parts: &Parts, body: &Bytes) -> Result<(Map<String, Value>, Given), Refusal> {
    let (mut members, mut given) = (Map::new(), Given::default());
    let (mut plain, mut listed) = (0, 0);
    for field in multipart::read(&parts.headers, body)? {
        match field.name.as_str() {
            "image" => plain += 1,
            "image[]" => listed += 1,
            "mask" => {}
            name => {
                let text = field.text()?;
                let value = match name {
                    "n" | "output_compression" | "partial_images" => text
                        .parse::<u64>()
                        .map(Value::from)
                        .map_err(|_| OpenAi.wrong(name, "must be a whole number"))?,
                    "stream" => Value::from(text == "true"),
                    _ => Value::from(text),
                };
                if members.insert(name.to_owned(), value).is_some() {
                    return Err(OpenAi.wrong(name, "is given twice"));
                }
                continue;
            }
        }
        let declared = field.content_type.as_deref().unwrap_or("application/octet-stream");
        let known = KINDS.iter().find(|(kind, _)| *kind == declared);
        let Some((_, mark)) = known.filter(|_| field.filename.is_some()) else {
            let message = format!(
                "Invalid file '{}': unsupported mimetype ('{declared}'). Supported file formats are 'image/jpeg', 'image/png', and 'image/webp'.",
                field.name
            );
            return Err(OpenAi.wrong(&field.name, &message));
        };
        if !field.content.starts_with(mark) {
            return Err(OpenAi.wrong(&field.name, &format!("is not of the type {declared}")));
        }
        if field.name == "mask" && declared != "image/png" {
            return Err(OpenAi.wrong("mask", "must be a PNG"));
        }
        given.add(&field.name, &field.content);
    }
    if plain > 1 || (plain > 0 && listed > 0) {
        return Err(OpenAi.wrong("image", "is given twice; use 'image[]' for several"));
    }
    Ok((members, given))
}

/// The members of a document, and the pictures that it names.
fn named(mut body: Value, is_xai: bool) -> Result<(Map<String, Value>, Given), Refusal> {
    let mut given = Given::default();
    let root = At::root(&body, &OpenAi);
    let (several, one) = (root.get("images"), root.get("image"));
    if several.is_some() && one.is_some() {
        return Err(OpenAi.wrong("images", "cannot stand beside 'image'"));
    }
    if let Some(one) = &one {
        if !is_xai {
            return Err(OpenAi.unknown("", "image"));
        }
        take(one, "image", is_xai, &mut given)?;
    }
    if let Some(several) = several {
        for picture in several.list()? {
            take(&picture, "image", is_xai, &mut given)?;
        }
    }
    if let Some(mask) = root.get("mask") {
        take(&mask, "mask", is_xai, &mut given)?;
    }
    let Some(members) = body.as_object_mut() else { return Err(Refusal::request("no object")) };
    for name in ["image", "images", "mask"] {
        members.remove(name);
    }
    Ok((std::mem::take(members), given))
}

fn take(picture: &At<'_>, name: &str, is_xai: bool, given: &mut Given) -> Result<(), Refusal> {
    let (known, address): (&[&str], _) =
        if is_xai { (&["url", "type"], "url") } else { (&["image_url", "file_id"], "image_url") };
    picture.known(&[known])?;
    let address = picture.need(address)?;
    let text = address.text()?;
    if text.starts_with("https://") || text.starts_with("http://") {
        given.far += 1;
        given.add(name, b"");
        return Ok(());
    }
    let data = KINDS.iter().find_map(|(kind, mark)| {
        let data = text.strip_prefix("data:")?.strip_prefix(kind)?.strip_prefix(";base64,")?;
        BASE64_STANDARD.decode(data).ok().filter(|bytes| bytes.starts_with(mark))
    });
    let data = data.ok_or_else(|| address.wrong("is neither an address nor a picture in a data URL"))?;
    given.add(name, &data);
    Ok(())
}
