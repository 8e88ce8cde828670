//! Answers in OpenAI's form (<https://platform.openai.com/docs/api-reference/images>).

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::answer::{ImageAnswer, Picture, Source};
use crate::DecodeError;
use crate::billed::billed_nano;
use crate::ir::Usage;
use crate::json_in::{Fields, Members, compact, count_of, list_of};

#[derive(Deserialize)]
struct Entry<'a> {
    #[serde(borrow)]
    b64_json: Option<Cow<'a, str>>,
    #[serde(borrow)]
    url: Option<Cow<'a, str>>,
    #[serde(borrow)]
    revised_prompt: Option<Cow<'a, str>>,
    #[serde(borrow, alias = "mime_type")]
    media_type: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct UsageIn<'a> {
    #[serde(borrow, alias = "prompt_tokens")]
    input_tokens: Option<&'a RawValue>,
    #[serde(borrow, alias = "completion_tokens")]
    output_tokens: Option<&'a RawValue>,
    #[serde(borrow)]
    input_tokens_details: Option<Details<'a>>,
}

#[derive(Deserialize)]
struct Details<'a> {
    #[serde(borrow)]
    image_tokens: Option<&'a RawValue>,
}

/// Reads an answer. Entries without a picture are left out.
pub fn read(body: &[u8]) -> Result<ImageAnswer, DecodeError> {
    let members: Members<'_> = serde_json::from_slice(body).map_err(|error| unreadable(&error))?;
    let mut answer = ImageAnswer::default();
    let mut media_type = None;
    // Some say the same twice, under the name that they had first.
    let has_data = members.0.iter().any(|(name, raw)| name == "data" && raw.get().starts_with('['));
    for (name, raw) in &members.0 {
        match &**name {
            "created" => answer.created = count_of(raw),
            "images" if has_data => {}
            "data" | "images" => {
                for entry in list_of(raw).unwrap_or_default() {
                    answer.pictures.extend(picture(entry.get())?);
                }
            }
            "usage" => (answer.tokens, answer.image_tokens) = usage(raw.get()),
            // Names of models and ids of jobs are the upstream's own.
            "model" | "id" | "object" => {}
            name => {
                if name == "output_format"
                    && let Ok(format) = serde_json::from_str::<Cow<'_, str>>(raw.get())
                {
                    media_type = Some(format!("image/{format}"));
                }
                // Within one line, for events.
                let raw = RawValue::from_string(compact(raw.get())).unwrap_or_else(|_| (*raw).to_owned());
                answer.extras.push((name.to_owned(), raw));
            }
        }
    }
    if media_type.is_some() {
        for picture in &mut answer.pictures {
            if let Source::Base64 { media_type: untold @ None, .. } = &mut picture.source {
                untold.clone_from(&media_type);
            }
        }
    }
    Ok(answer)
}

fn picture(entry: &str) -> Result<Option<Picture>, DecodeError> {
    let entry: Entry<'_> = serde_json::from_str(entry).map_err(|error| unreadable(&error))?;
    let there = |text: Option<Cow<'_, str>>| text.filter(|text| !text.is_empty()).map(Cow::into_owned);
    let source = match (there(entry.b64_json), there(entry.url)) {
        (Some(data), _) => Source::Base64 { media_type: there(entry.media_type), data },
        (None, Some(url)) => Source::Url(url),
        (None, None) => return Ok(None),
    };
    Ok(Some(Picture { source, revised_prompt: there(entry.revised_prompt) }))
}

/// Tokens, and those of the prompt that were pictures.
pub(super) fn usage(json: &str) -> (Usage, Option<u64>) {
    let Ok(found) = serde_json::from_str::<UsageIn<'_>>(json) else { return Default::default() };
    let count = |raw: Option<&RawValue>| raw.and_then(count_of);
    let tokens = Usage {
        input_uncached: count(found.input_tokens),
        output_total: count(found.output_tokens),
        billed_nano: Fields::lenient(json, "").ok().and_then(|usage| billed_nano(&usage)),
        ..Usage::default()
    };
    (tokens, found.input_tokens_details.and_then(|details| count(details.image_tokens)))
}

/// That an answer is not one.
pub(super) fn unreadable(error: &serde_json::Error) -> DecodeError {
    DecodeError {
        code: "bad_gateway",
        param: None,
        message: format!("the pictures cannot be read near line {}, column {}", error.line(), error.column()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers() {
        let answer = read(
            br#"{"created":1700000000,"background":"opaque","output_format":"webp","data":[{"b64_json":"UklGRg==","revised_prompt":""},{"url":"https://a.example/b"},{"index":2}],
                "usage":{"total_tokens":30,"input_tokens":10,"output_tokens":20,"input_tokens_details":{"text_tokens":8,"image_tokens":2}},"model":"x"}"#,
        )
        .unwrap();
        assert_eq!(
            (answer.created, answer.pictures.len(), answer.image_tokens),
            (Some(1_700_000_000), 2, Some(2))
        );
        assert_eq!((answer.tokens.input_uncached, answer.tokens.output_total), (Some(10), Some(20)));
        let webp = Source::Base64 { media_type: Some("image/webp".into()), data: "UklGRg==".into() };
        assert_eq!(answer.pictures[0], Picture { source: webp, revised_prompt: None });
        assert_eq!(
            std::str::from_utf8(&answer.write(0)).unwrap(),
            r#"{"created":1700000000,"background":"opaque","output_format":"webp","data":[{"b64_json":"UklGRg=="},{"url":"https://a.example/b"}],"usage":{"total_tokens":30,"input_tokens":10,"output_tokens":20,"input_tokens_details":{"text_tokens":8,"image_tokens":2}}}"#
        );
        assert!(read(b"{\"data\":null}").unwrap().pictures.is_empty());
        // SiliconFlow's list, once; and what xAI bills for pictures that are given and made.
        let twice =
            br#"{"images":[{"url":"https://a/1"}],"data":[{"url":"https://a/1"}],"timings":{"inference":1}}"#;
        assert_eq!(read(twice).unwrap().pictures.len(), 1);
        let answer = read(
            br#"{"images":[{"url":"https://a/1"}],"data":null,"usage":{"cost_in_usd_ticks":220000000}}"#,
        )
        .unwrap();
        assert_eq!((answer.pictures.len(), answer.tokens.billed_nano), (1, Some(22_000_000)));
        let answer = read(br#"{"data":[{"b64_json":"QQ==","media_type":"image/webp"}]}"#).unwrap();
        let Source::Base64 { media_type, .. } = &answer.pictures[0].source else { panic!("it is here") };
        assert_eq!(media_type.as_deref(), Some("image/webp"));
        assert!(read(b"[]").is_err() && read(b"{\"data\":[1]}").is_err());
    }
}
