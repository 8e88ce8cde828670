//! What a client asks for, and what those who are asked do not take of it.

use bytes::Bytes;

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
}

impl ImageRequest {
    /// Reads a client's request.
    pub fn read(body: &[u8]) -> Result<Self, DecodeError> {
        let body = JsonBody::read(body)?;
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

    /// The body of one call, and what of the request it does not say.
    pub fn write(&self, model: &str, quirks: &Quirks) -> Result<(Bytes, Vec<Loss>), DecodeError> {
        let (_, count) = self.calls(quirks);
        let mut losses = Vec::new();
        let is_left = |name: &str| {
            quirks.refused.contains(&name)
                // Answers are taken whole, and made into a stream here where one was asked for.
                || matches!(name, "stream" | "partial_images")
        };
        for name in quirks.refused.iter().filter(|name| self.body.get(name).is_some()) {
            // Whoever refuses to be told how pictures are wanted has them converted here.
            if *name != "response_format" {
                losses.push(loss(*name, LossAction::Dropped));
            }
        }
        let mut added: Vec<(&str, String)> = Vec::new();
        if quirks.sides
            && let Some(size) = self.size.as_deref().filter(|size| *size != "auto")
        {
            let (width, height) = size::sides(size).ok_or_else(|| {
                wrong_value("size", "a width and a height such as `1024x768` for this model")
            })?;
            added.push(("width", width.to_string()));
            added.push(("height", height.to_string()));
        }
        let added: Vec<(&str, &str)> = added.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let body = self.body.write(
            |name, raw| match name {
                "model" => Change::Str(model.to_owned()),
                "n" if u64::from(count) != u64::from(self.count) => Change::Raw(count.to_string()),
                "size" if quirks.sides => Change::Leave,
                name if is_left(name) => Change::Leave,
                "response_format" => match (quirks.base64_word, str_of(raw).as_deref()) {
                    (Some(word), Some("b64_json")) => Change::Str(word.to_owned()),
                    _ => Change::Keep,
                },
                _ => Change::Keep,
            },
            &added,
        );
        Ok((body, losses))
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
        const OPTIONAL: &[&str] =
            &["size", "quality", "style", "background", "output_format", "output_compression", "moderation"];
        OPTIONAL
            .iter()
            .filter(|name| !known.contains(name))
            .filter(|name| {
                self.body.str(name).map_or(true, |value| value.is_some_and(|value| value != "auto"))
            })
            .map(|name| loss(*name, LossAction::Dropped))
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
    fn answers_are_taken_whole() {
        let body = r#"{"model":"m","prompt":"a","stream":true,"partial_images":1}"#;
        assert!(read(body).stream);
        assert_eq!(written(body, &Quirks::default()).0, r#"{"model":"m","prompt":"a"}"#);
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
