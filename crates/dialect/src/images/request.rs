//! What a client asks for, and what those who are asked do not take of it.

use bytes::Bytes;
use serde_json::value::RawValue;

use super::size;
use crate::DecodeError;
use crate::ir::{Loss, LossAction, loss};
use crate::json_body::{Change, JsonBody};
use crate::json_in::{str_of, wrong_value};

/// Most pictures of one request.
const MAX_PICTURES: u64 = 10;
/// Most characters of a prompt; vendors take between 1000 and 32000.
const MAX_PROMPT: usize = 100_000;

/// How a client wants pictures.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Wanted {
    /// As they come.
    #[default]
    Any,
    /// By their address.
    Url,
    /// Themselves, in base64.
    Base64,
}

/// A request for pictures.
#[derive(Debug, Clone)]
pub struct ImageRequest {
    /// The model, as the client wrote it.
    pub model: String,
    /// What is to be seen.
    pub prompt: String,
    /// How many.
    pub count: u32,
    /// How they are wanted.
    pub wanted: Wanted,
    /// Whether the client wants events: one for each picture that is finished.
    pub stream: bool,
    pub(super) size: Option<String>,
    body: JsonBody,
}

/// Names and texts of a form's fields.
pub(super) type FormFields = Vec<(String, String)>;

/// In what an upstream's or a model's form differs from OpenAI's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Quirks {
    /// Members that it refuses.
    pub refused: &'static [&'static str],
    /// Size is two numbers, `width` and `height`.
    pub sides: bool,
    /// One picture a call.
    pub one_at_a_time: bool,
    /// Its word for pictures in base64, where it is another one.
    pub base64_word: Option<&'static str>,
    /// Its names for members that it calls otherwise.
    pub names: &'static [(&'static str, &'static str)],
    /// Whether pictures can be watched while they are painted.
    pub streams: bool,
    /// How it takes pictures that are to be changed.
    pub edits: Edits,
}

/// How an upstream takes pictures that are to be changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Edits {
    /// Not at all.
    #[default]
    None,
    /// In a form, or named in a JSON document, as OpenAI does.
    OpenAi,
    /// In a JSON document alone, as xAI does.
    Json,
}

impl ImageRequest {
    /// Reads a client's request.
    pub fn read(body: &[u8]) -> Result<Self, DecodeError> {
        Self::of(JsonBody::read(body)?)
    }

    pub(super) fn of(body: JsonBody) -> Result<Self, DecodeError> {
        let model = body.need_str("model")?;
        let prompt = body.need_str("prompt")?;
        if prompt.chars().count() > MAX_PROMPT {
            return Err(wrong_value("prompt", &format!("a text of at most {MAX_PROMPT} characters")));
        }
        let count = body.count("n", 1..=MAX_PICTURES)?.unwrap_or(1) as u32;
        let wanted = match body.str("response_format")?.as_deref() {
            None => Wanted::Any,
            Some("url") => Wanted::Url,
            Some("b64_json") => Wanted::Base64,
            Some(_) => return Err(wrong_value("response_format", "`url` or `b64_json`")),
        };
        for name in ["quality", "style", "background", "output_format", "moderation", "user"] {
            body.str(name)?;
        }
        body.count("output_compression", 0..=100)?;
        let stream = body.bool("stream")?.unwrap_or(false);
        body.count("partial_images", 0..=3)?;
        let size = body.str("size")?.map(|size| size.trim().to_owned()).filter(|size| !size.is_empty());
        Ok(Self { model, prompt, count, wanted, stream, size, body })
    }

    /// How many calls it takes, and how many pictures each of them is for.
    pub fn calls(&self, quirks: &Quirks) -> (u32, u32) {
        if quirks.one_at_a_time { (self.count, 1) } else { (1, self.count) }
    }

    /// Whether the answer is a stream that the upstream makes.
    pub fn is_live(&self, quirks: &Quirks) -> bool {
        self.stream && quirks.streams && !quirks.one_at_a_time
    }

    /// The body of one call, and what of the request it does not say.
    pub fn write(&self, model: &str, quirks: &Quirks) -> Result<(Bytes, Vec<Loss>), DecodeError> {
        self.write_with(model, quirks, &[], &[])
    }

    /// The same without some members and with others.
    pub(super) fn write_with(
        &self,
        model: &str,
        quirks: &Quirks,
        without: &[&str],
        more: &[(&str, &str)],
    ) -> Result<(Bytes, Vec<Loss>), DecodeError> {
        let sides = self.said_otherwise(quirks)?;
        let mut added: Vec<(&str, &str)> =
            sides.iter().map(|(name, value)| (*name, value.as_str())).collect();
        added.extend(more);
        let change = |name: &str, raw: &RawValue| match without.contains(&name) {
            true => Change::Leave,
            false => self.change(name, raw, model, quirks),
        };
        Ok((self.body.write(change, &added), self.losses(quirks)))
    }

    /// The fields of one call that is a form.
    pub(super) fn fields(
        &self,
        model: &str,
        quirks: &Quirks,
    ) -> Result<(FormFields, Vec<Loss>), DecodeError> {
        let sides = self.said_otherwise(quirks)?;
        let added: Vec<(&str, &str)> =
            sides.iter().map(|(name, value)| (*name, value.trim_matches('"'))).collect();
        let fields = self.body.fields(|name, raw| self.change(name, raw, model, quirks), &added);
        Ok((fields, self.losses(quirks)))
    }

    /// A member as it came.
    pub(super) fn member(&self, name: &str) -> Option<&RawValue> {
        self.body.get(name)
    }

    fn losses(&self, quirks: &Quirks) -> Vec<Loss> {
        let refused = quirks.refused.iter().filter(|name| self.body.get(name).is_some());
        // Whoever refuses to be told how pictures are wanted has them converted here.
        refused
            .filter(|name| **name != "response_format")
            .map(|name| loss(*name, LossAction::Dropped))
            .collect()
    }

    /// The members that are the upstream's own, with others that say the rest; `is_left` tells which are left out.
    pub(super) fn own_document(&self, is_left: impl Fn(&str) -> bool, said: &[(&str, &str)]) -> Bytes {
        self.body.write(|name, _| if is_left(name) { Change::Leave } else { Change::Keep }, said)
    }

    /// The members that are the upstream's own, as fields of a form.
    pub(super) fn own_fields(&self, is_left: impl Fn(&str) -> bool) -> FormFields {
        self.body.fields(|name, _| if is_left(name) { Change::Leave } else { Change::Keep }, &[])
    }

    /// Names and JSON of what this upstream has other members for.
    fn said_otherwise(&self, quirks: &Quirks) -> Result<Vec<(&'static str, String)>, DecodeError> {
        let mut said = self.sides(quirks)?;
        for (usual, own) in quirks.names {
            let raw = self.body.get(usual).map(RawValue::get);
            if let Some(raw) = raw.filter(|raw| !matches!(*raw, "null" | "\"auto\"")) {
                said.push((*own, raw.to_owned()));
            }
        }
        Ok(said)
    }

    fn sides(&self, quirks: &Quirks) -> Result<Vec<(&'static str, String)>, DecodeError> {
        let size = self.size.as_deref().filter(|size| quirks.sides && *size != "auto");
        let Some(size) = size else { return Ok(Vec::new()) };
        let (width, height) = size::sides(size)
            .ok_or_else(|| wrong_value("size", "a width and a height such as `1024x768` for this model"))?;
        Ok(vec![("width", width.to_string()), ("height", height.to_string())])
    }

    fn change(&self, name: &str, raw: &RawValue, model: &str, quirks: &Quirks) -> Change {
        let (_, count) = self.calls(quirks);
        match name {
            "model" => Change::Str(model.to_owned()),
            "n" if count != self.count => Change::Raw(count.to_string()),
            "size" if quirks.sides => Change::Leave,
            name if quirks.names.iter().any(|(usual, _)| *usual == name) => Change::Leave,
            // What is taken whole is made into a stream here where one was asked for.
            "stream" | "partial_images" if !self.is_live(quirks) => Change::Leave,
            name if quirks.refused.contains(&name) => Change::Leave,
            "response_format" => match (quirks.base64_word, str_of(raw).as_deref()) {
                (Some(word), Some("b64_json")) => Change::Str(word.to_owned()),
                _ => Change::Keep,
            },
            _ => Change::Keep,
        }
    }

    /// The same request in the words of the model that came after the one that it was made for.
    pub fn for_successor(&self) -> (Self, Vec<Loss>) {
        let mut losses = Vec::new();
        let mut changed = self.clone();
        let mut map = |name: &'static str, from: &[(&str, &str)]| {
            let value = self.body.get(name).and_then(str_of)?;
            let (_, new) = from.iter().find(|(old, _)| *old == value)?;
            losses.push(loss(name, LossAction::Mapped));
            Some((*new).to_owned())
        };
        let quality = map("quality", &[("hd", "high"), ("standard", "medium")]);
        let size = map(
            "size",
            &[
                ("1792x1024", "1536x1024"),
                ("1024x1792", "1024x1536"),
                ("512x512", "1024x1024"),
                ("256x256", "1024x1024"),
            ],
        );
        if self.body.get("style").is_some() {
            losses.push(loss("style", LossAction::Dropped));
        }
        if losses.is_empty() {
            return (changed, losses);
        }
        let body = self.body.write(
            |name, _| match (name, &quality, &size) {
                ("quality", Some(quality), _) => Change::Str(quality.clone()),
                ("size", _, Some(size)) => Change::Str(size.clone()),
                ("style", ..) => Change::Leave,
                _ => Change::Keep,
            },
            &[],
        );
        if let Ok(read) = JsonBody::read(&body) {
            changed.body = read;
        }
        changed.size = size.or(changed.size);
        (changed, losses)
    }

    /// Members that a format of another kind has no word for.
    pub(super) fn without(&self, known: &[&str]) -> Vec<Loss> {
        // What every format says in its own way, what is between the client and the gateway, and who asks.
        const CARRIED: &[&str] = &[
            "model",
            "prompt",
            "n",
            "response_format",
            "stream",
            "partial_images",
            "user",
            "image",
            "images",
            "mask",
        ];
        let says_nothing = |raw: &RawValue| matches!(raw.get(), "null" | "\"auto\"");
        let members = self.body.members();
        members
            .filter(|(name, raw)| !CARRIED.contains(name) && !known.contains(name) && !says_nothing(raw))
            .map(|(name, _)| loss(name.to_owned(), LossAction::Dropped))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = r#"{"model":"p/m","prompt":"a cat","n":2,"size":"1024x768","quality":"hd","style":"vivid","response_format":"b64_json","seed":7}"#;

    fn read(body: &str) -> ImageRequest {
        ImageRequest::read(body.as_bytes()).unwrap()
    }

    fn written(body: &str, quirks: &Quirks) -> (String, Vec<String>) {
        let (body, losses) = read(body).write("m", quirks).unwrap();
        let losses =
            losses.into_iter().map(|loss| format!("{} {}", loss.path, loss.action.as_str())).collect();
        (String::from_utf8(body.to_vec()).unwrap(), losses)
    }

    #[test]
    fn wrong_requests_name_the_member() {
        for (body, code, param) in [
            (r#"{"prompt":"a"}"#, "missing_required_parameter", "model"),
            (r#"{"model":"m"}"#, "missing_required_parameter", "prompt"),
            (r#"{"model":"m","prompt":" \n"}"#, "invalid_value", "prompt"),
            (r#"{"model":"m","prompt":["a"]}"#, "invalid_type", "prompt"),
            (r#"{"model":"m","prompt":"a","n":0}"#, "invalid_value", "n"),
            (r#"{"model":"m","prompt":"a","n":11}"#, "invalid_value", "n"),
            (r#"{"model":"m","prompt":"a","n":"2"}"#, "invalid_type", "n"),
            (r#"{"model":"m","prompt":"a","response_format":"png"}"#, "invalid_value", "response_format"),
            (r#"{"model":"m","prompt":"a","size":5}"#, "invalid_type", "size"),
            (r#"{"model":"m","prompt":"a","stream":1}"#, "invalid_type", "stream"),
            (r#"{"model":"m","prompt":"a","partial_images":4}"#, "invalid_value", "partial_images"),
        ] {
            let error = ImageRequest::read(body.as_bytes()).unwrap_err();
            assert_eq!((error.code, error.param.as_deref()), (code, Some(param)), "{body}");
        }
    }

    #[test]
    fn what_is_not_refused_goes_on_as_it_came() {
        let (body, losses) = written(WHOLE, &Quirks::default());
        assert_eq!((body, losses.len()), (WHOLE.replace("p/m", "m"), 0));
    }

    #[test]
    fn quirks_change_the_body() {
        let sides = Quirks { sides: true, base64_word: Some("base64"), ..Quirks::default() };
        assert_eq!(
            written(WHOLE, &sides).0,
            r#"{"model":"m","prompt":"a cat","n":2,"quality":"hd","style":"vivid","response_format":"base64","seed":7,"width":1024,"height":768}"#
        );
        let strict = Quirks { refused: &["size", "quality", "style"], ..Quirks::default() };
        assert_eq!(
            written(WHOLE, &strict),
            (
                r#"{"model":"m","prompt":"a cat","n":2,"response_format":"b64_json","seed":7}"#.to_owned(),
                ["size dropped", "quality dropped", "style dropped"].map(str::to_owned).to_vec()
            )
        );
        let named = Quirks { names: &[("size", "image_size"), ("n", "batch_size")], ..Quirks::default() };
        let (body, losses) = written(WHOLE, &named);
        assert!(
            body.ends_with(r#""image_size":"1024x768","batch_size":2}"#) && !body.contains(r#""n":"#),
            "{body}"
        );
        assert!(losses.is_empty(), "{losses:?}");
        let single = Quirks { one_at_a_time: true, refused: &["response_format"], ..Quirks::default() };
        let (body, losses) = written(WHOLE, &single);
        assert!(
            body.contains("\"n\":1,") && !body.contains("response_format") && losses.is_empty(),
            "{body}"
        );
        assert_eq!(read(WHOLE).calls(&single), (2, 1));
        let odd = read(r#"{"model":"m","prompt":"a","size":"huge"}"#).write("m", &sides).unwrap_err();
        assert_eq!(odd.param.as_deref(), Some("size"));
    }

    #[test]
    fn answers_are_taken_whole_but_from_those_who_stream() {
        let body = r#"{"model":"m","prompt":"a","stream":true,"partial_images":1}"#;
        assert!(read(body).stream);
        assert_eq!(written(body, &Quirks::default()).0, r#"{"model":"m","prompt":"a"}"#);
        let live = Quirks { streams: true, ..Quirks::default() };
        assert_eq!(written(body, &live).0, body);
        assert_eq!(written(&body.replace("true", "false"), &live).0, r#"{"model":"m","prompt":"a"}"#);
    }

    #[test]
    fn a_successor_has_other_words() {
        let (changed, losses) = read(&WHOLE.replace("1024x768", "1792x1024")).for_successor();
        let (body, _) = changed.write("new", &Quirks::default()).unwrap();
        let body = String::from_utf8(body.to_vec()).unwrap();
        assert!(body.contains(r#""size":"1536x1024","quality":"high","response_format""#), "{body}");
        assert_eq!(losses.len(), 3);
        let (same, losses) = read(r#"{"model":"m","prompt":"a"}"#).for_successor();
        assert_eq!((same.count, losses.len()), (1, 0));
    }
}
