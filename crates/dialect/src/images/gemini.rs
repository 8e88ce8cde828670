//! Gemini's conversation that is answered with pictures (<https://ai.google.dev/gemini-api/docs/image-generation>).

use std::borrow::Cow;

use bytes::{Bytes, BytesMut};
use omniroute_wire::json_out::Object;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::answer::{ImageAnswer, Picture, Source};
use super::openai::unreadable;
use super::request::ImageRequest;
use super::size;
use crate::DecodeError;
use crate::gemini::usage;
use crate::ir::{Loss, LossAction, loss};

/// Proportions that it knows.
const PROPORTIONS: &[&str] = &["1:1", "2:3", "3:2", "3:4", "4:3", "4:5", "5:4", "9:16", "16:9", "21:9"];

/// A picture within a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inlined {
    /// What it is.
    pub media_type: String,
    /// Itself, in base64.
    pub data: String,
}

impl Inlined {
    /// The picture in a data URL.
    pub fn in_url(url: &str) -> Option<Self> {
        let (media_type, data) = crate::media::data_url(url)?;
        Some(Self { media_type: media_type.to_owned(), data: data.to_owned() })
    }
}

/// The body of one call, which is for one picture, and what of the request it does not say. `given` are pictures that are
/// to be changed; what shows where in them cannot be said here.
pub fn write(request: &ImageRequest, given: &[Inlined], has_mask: bool) -> (Bytes, Vec<Loss>) {
    let mut losses = request.without(&["size"]);
    if has_mask {
        losses.push(loss("mask", LossAction::Dropped));
    }
    let room: usize = given.iter().map(|picture| picture.data.len() + 96).sum();
    let mut out = BytesMut::with_capacity(request.prompt.len() + room + 192);
    let mut object = Object::begin(&mut out);
    let mut contents = object.array("contents");
    let mut turn = contents.object();
    turn.str("role", "user");
    let mut parts = turn.array("parts");
    let mut part = parts.object();
    part.str("text", &request.prompt);
    part.end();
    for picture in given {
        let mut part = parts.object();
        let mut inline = part.object("inlineData");
        inline.str("mimeType", &picture.media_type).str("data", &picture.data);
        inline.end();
        part.end();
    }
    parts.end();
    turn.end();
    contents.end();
    let mut config = object.object("generationConfig");
    config.raw("responseModalities", r#"["TEXT","IMAGE"]"#);
    let asked = request.size.as_deref().filter(|size| *size != "auto");
    match asked.map(|size| size::sides(size).and_then(|sides| size::nearest(sides, PROPORTIONS))) {
        None => {}
        Some(Some(proportion)) => {
            let mut image = config.object("imageConfig");
            image.str("aspectRatio", proportion);
            image.end();
            losses.push(loss("size", LossAction::Mapped));
        }
        Some(None) => losses.push(loss("size", LossAction::Dropped)),
    }
    config.end();
    object.end();
    (out.freeze(), losses)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer<'a> {
    #[serde(borrow, default)]
    candidates: Vec<Candidate<'a>>,
    #[serde(borrow)]
    prompt_feedback: Option<Feedback<'a>>,
    #[serde(borrow)]
    usage_metadata: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Feedback<'a> {
    #[serde(borrow)]
    block_reason: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Candidate<'a> {
    #[serde(borrow)]
    content: Option<Content<'a>>,
    #[serde(borrow)]
    finish_reason: Option<Cow<'a, str>>,
    #[serde(borrow)]
    finish_message: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct Content<'a> {
    #[serde(borrow, default)]
    parts: Vec<Part<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Part<'a> {
    #[serde(borrow)]
    text: Option<Cow<'a, str>>,
    #[serde(borrow, alias = "inline_data")]
    inline_data: Option<Inline<'a>>,
    #[serde(default)]
    thought: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Inline<'a> {
    #[serde(borrow, alias = "mime_type")]
    mime_type: Option<Cow<'a, str>>,
    #[serde(borrow)]
    data: Cow<'a, str>,
}

/// Reads an answer; where there is no picture, the second says why, if that was told.
pub fn read(body: &[u8]) -> Result<(ImageAnswer, Option<String>), DecodeError> {
    let answer: Answer<'_> = serde_json::from_slice(body).map_err(|error| unreadable(&error))?;
    let mut found = ImageAnswer {
        tokens: answer.usage_metadata.map(|raw| usage(raw.get())).unwrap_or_default(),
        ..ImageAnswer::default()
    };
    let mut reason = answer
        .prompt_feedback
        .and_then(|feedback| feedback.block_reason)
        .map(|reason| format!("the prompt was blocked ({reason})"));
    for candidate in answer.candidates {
        let mut said = String::new();
        let mut pictures = Vec::new();
        for part in candidate.content.map(|content| content.parts).unwrap_or_default() {
            // Sketches that were made on the way are not what was asked for.
            if part.thought {
                continue;
            }
            if let Some(text) = part.text {
                said.push_str(&text);
            }
            if let Some(inline) = part.inline_data.filter(|inline| !inline.data.is_empty()) {
                let media_type = inline.mime_type.map(Cow::into_owned);
                pictures.push(Source::Base64 { media_type, data: inline.data.into_owned() });
            }
        }
        let said = said.trim();
        if pictures.is_empty() && reason.is_none() {
            reason = match (candidate.finish_message, candidate.finish_reason) {
                (Some(message), _) => Some(message.into_owned()),
                (None, Some(reason)) if reason != "STOP" => Some(format!("it ended with {reason}")),
                (None, _) if !said.is_empty() => {
                    Some(format!("it said instead: {}", crate::error_text::shorten(said)))
                }
                (None, _) => None,
            };
        }
        let revised_prompt = (!said.is_empty()).then(|| said.to_owned());
        found.pictures.extend(
            pictures.into_iter().map(|source| Picture { source, revised_prompt: revised_prompt.clone() }),
        );
    }
    Ok((found, reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(more: &str) -> ImageRequest {
        ImageRequest::read(format!(r#"{{"model":"g","prompt":"a \"cat\""{more}}}"#).as_bytes()).unwrap()
    }

    #[test]
    fn requests() {
        let (body, losses) = write(&request(""), &[], false);
        assert_eq!(
            std::str::from_utf8(&body).unwrap(),
            r#"{"contents":[{"role":"user","parts":[{"text":"a \"cat\""}]}],"generationConfig":{"responseModalities":["TEXT","IMAGE"]}}"#
        );
        assert!(losses.is_empty());
        let picture = Inlined { media_type: "image/png".into(), data: "QQ==".into() };
        let (body, losses) = write(&request(r#","input_fidelity":"high""#), &[picture], true);
        let body = std::str::from_utf8(&body).unwrap();
        assert!(
            body.contains(r#"{"text":"a \"cat\""},{"inlineData":{"mimeType":"image/png","data":"QQ=="}}]"#),
            "{body}"
        );
        assert_eq!(losses, ["input_fidelity", "mask"].map(|name| loss(name, LossAction::Dropped)));
        let (body, losses) =
            write(&request(r#","size":"1024x1792","quality":"hd","background":"auto""#), &[], false);
        let body = std::str::from_utf8(&body).unwrap();
        assert!(body.contains(r#""imageConfig":{"aspectRatio":"9:16"}"#), "{body}");
        assert_eq!(losses, [loss("quality", LossAction::Dropped), loss("size", LossAction::Mapped)]);
    }

    #[test]
    fn answers() {
        let body = br#"{"candidates":[{"content":{"role":"model","parts":[{"text":"thinking","thought":true},
            {"inlineData":{"mimeType":"image/png","data":"AAAA"},"thought":true},{"text":"Here: "},
            {"inlineData":{"mimeType":"image/jpeg","data":"BBBB"}}]},"finishReason":"STOP"}],
            "usageMetadata":{"promptTokenCount":5,"candidatesTokenCount":1290,"totalTokenCount":1295}}"#;
        let (answer, reason) = read(body).unwrap();
        assert_eq!((answer.pictures.len(), reason), (1, None));
        assert_eq!(
            answer.pictures[0],
            Picture {
                source: Source::Base64 { media_type: Some("image/jpeg".into()), data: "BBBB".into() },
                revised_prompt: Some("Here:".into())
            }
        );
        assert_eq!((answer.tokens.input_uncached, answer.tokens.output_total), (Some(5), Some(1290)));
    }

    #[test]
    fn without_a_picture_the_reason_is_told() {
        for (body, expected) in [
            (r#"{"promptFeedback":{"blockReason":"SAFETY"}}"#, Some("the prompt was blocked (SAFETY)")),
            (r#"{"candidates":[{"finishReason":"IMAGE_SAFETY"}]}"#, Some("it ended with IMAGE_SAFETY")),
            (
                r#"{"candidates":[{"content":{"parts":[{"text":"No."}]},"finishReason":"STOP"}]}"#,
                Some("it said instead: No."),
            ),
            (r#"{"candidates":[]}"#, None),
        ] {
            let (answer, reason) = read(body.as_bytes()).unwrap();
            assert_eq!((answer.pictures.len(), reason.as_deref()), (0, expected), "{body}");
        }
        assert!(read(b"no").is_err());
    }
}
