//! What each vendor answers.

use std::borrow::Cow;

use serde::Deserialize;

use super::super::answer::{ImageAnswer, Picture, Source};
use super::super::openai::unreadable;
use super::Progress;
use crate::DecodeError;
use crate::error_text::shorten;

#[derive(Deserialize)]
struct Fal<'a> {
    #[serde(borrow, default)]
    images: Vec<At<'a>>,
    /// Some models make one and say so.
    #[serde(borrow)]
    image: Option<At<'a>>,
}

#[derive(Deserialize)]
struct At<'a> {
    #[serde(borrow)]
    url: Cow<'a, str>,
}

pub(super) fn fal(body: &[u8]) -> Result<Progress, DecodeError> {
    let answer: Fal<'_> = read(body)?;
    let all = answer.images.into_iter().chain(answer.image);
    Ok(done(all.map(|picture| Source::Url(picture.url.into_owned()))))
}

#[derive(Deserialize)]
struct Hyperbolic<'a> {
    #[serde(borrow, default)]
    images: Vec<Here<'a>>,
}

#[derive(Deserialize)]
struct Here<'a> {
    #[serde(borrow)]
    image: Cow<'a, str>,
}

pub(super) fn hyperbolic(body: &[u8]) -> Result<Progress, DecodeError> {
    let answer: Hyperbolic<'_> = read(body)?;
    Ok(done(answer.images.into_iter().map(|picture| here(picture.image))))
}

#[derive(Deserialize)]
struct Stability<'a> {
    #[serde(borrow)]
    image: Option<Cow<'a, str>>,
    #[serde(borrow)]
    finish_reason: Option<Cow<'a, str>>,
}

pub(super) fn stability(body: &[u8]) -> Result<Progress, DecodeError> {
    let answer: Stability<'_> = read(body)?;
    // A filtered answer has a picture too: a blurred one.
    let reason = answer.finish_reason.filter(|reason| *reason != "SUCCESS");
    Ok(match reason {
        Some(reason) => refused(&reason),
        None => done(answer.image.into_iter().map(here)),
    })
}

#[derive(Deserialize)]
struct BlackForest<'a> {
    #[serde(borrow)]
    polling_url: Option<Cow<'a, str>>,
    #[serde(borrow)]
    status: Option<Cow<'a, str>>,
    #[serde(borrow)]
    result: Option<Sample<'a>>,
}

#[derive(Deserialize)]
struct Sample<'a> {
    #[serde(borrow)]
    sample: Option<Cow<'a, str>>,
}

pub(super) fn black_forest(body: &[u8]) -> Result<Progress, DecodeError> {
    let answer: BlackForest<'_> = read(body)?;
    let place = answer.polling_url.map(Cow::into_owned);
    Ok(match answer.status.as_deref() {
        Some("Ready") => {
            let sample = answer.result.and_then(|result| result.sample);
            done(sample.into_iter().map(|url| Source::Url(url.into_owned())))
        }
        Some("Pending" | "Queued" | "Processing") => Progress::Later(place),
        // The answer to the order says no more than where to ask.
        None if place.is_some() => Progress::Later(place),
        None => done(std::iter::empty()),
        Some(other) => refused(other),
    })
}

#[derive(Deserialize)]
struct Replicate<'a> {
    #[serde(borrow)]
    status: Cow<'a, str>,
    #[serde(borrow)]
    output: Option<Output<'a>>,
    #[serde(borrow)]
    error: Option<Cow<'a, str>>,
    #[serde(borrow)]
    urls: Option<Urls<'a>>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Output<'a> {
    #[serde(borrow)]
    One(Cow<'a, str>),
    Several(Vec<Cow<'a, str>>),
}

#[derive(Deserialize)]
struct Urls<'a> {
    #[serde(borrow)]
    get: Option<Cow<'a, str>>,
}

pub(super) fn replicate(body: &[u8]) -> Result<Progress, DecodeError> {
    let answer: Replicate<'_> = read(body)?;
    Ok(match &*answer.status {
        "succeeded" => {
            let pictures = match answer.output {
                None => Vec::new(),
                Some(Output::One(url)) => vec![url],
                Some(Output::Several(urls)) => urls,
            };
            done(pictures.into_iter().map(|url| Source::Url(url.into_owned())))
        }
        "starting" | "processing" => {
            Progress::Later(answer.urls.and_then(|urls| urls.get).map(Cow::into_owned))
        }
        other => refused(answer.error.as_deref().unwrap_or(other)),
    })
}

fn read<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, DecodeError> {
    serde_json::from_slice(body).map_err(|error| unreadable(&error))
}

/// Reasons may be whole traces of a program.
fn refused(reason: &str) -> Progress {
    Progress::Refused(shorten(reason).to_owned())
}

fn here(data: Cow<'_, str>) -> Source {
    Source::Base64 { media_type: None, data: data.into_owned() }
}

fn done(pictures: impl Iterator<Item = Source>) -> Progress {
    let pictures = pictures.map(|source| Picture { source, revised_prompt: None }).collect();
    Progress::Done(Box::new(ImageAnswer { pictures, ..ImageAnswer::default() }))
}

#[cfg(test)]
mod tests {
    use super::super::Painter;
    use super::*;

    /// In short: addresses, what is here in base64, where to ask, or why not.
    fn said(painter: Painter, body: &str) -> String {
        match painter.read(body.as_bytes()).unwrap() {
            Progress::Done(answer) => {
                let all = answer.pictures.iter().map(|picture| match &picture.source {
                    Source::Url(url) => url.clone(),
                    Source::Base64 { data, .. } => format!("<{data}>"),
                });
                all.collect::<Vec<_>>().join(" ")
            }
            Progress::Later(place) => format!("later at {}", place.as_deref().unwrap_or("the same place")),
            Progress::Refused(reason) => format!("no: {reason}"),
        }
    }

    #[test]
    fn answers_of_each() {
        use Painter::{BlackForest, Fal, Hyperbolic, Replicate, Stability};
        for (painter, body, expected) in [
            (
                Fal,
                r#"{"images":[{"url":"https://a/1","width":1},{"url":"https://a/2"}],"seed":1,"prompt":"a"}"#,
                "https://a/1 https://a/2",
            ),
            (Fal, r#"{"image":{"url":"https://a/1"}}"#, "https://a/1"),
            (Fal, r#"{"images":[]}"#, ""),
            (
                Hyperbolic,
                r#"{"images":[{"index":0,"image":"QQ==","random_seed":1}],"inference_time":1.5}"#,
                "<QQ==>",
            ),
            (Stability, r#"{"image":"QQ==","finish_reason":"SUCCESS","seed":1}"#, "<QQ==>"),
            (
                Stability,
                r#"{"image":"QQ==","finish_reason":"CONTENT_FILTERED","seed":1}"#,
                "no: CONTENT_FILTERED",
            ),
            (BlackForest, r#"{"id":"x","polling_url":"https://a/p?id=x"}"#, "later at https://a/p?id=x"),
            (BlackForest, r#"{"id":"x","status":"Pending","result":null}"#, "later at the same place"),
            (
                BlackForest,
                r#"{"id":"x","status":"Ready","result":{"sample":"https://a/1","seed":1}}"#,
                "https://a/1",
            ),
            (
                BlackForest,
                r#"{"id":"x","status":"Content Moderated","result":null}"#,
                "no: Content Moderated",
            ),
            (BlackForest, r#"{"id":"x"}"#, ""),
            (
                Replicate,
                r#"{"id":"x","status":"processing","output":null,"error":null,"urls":{"get":"https://a/p/x"}}"#,
                "later at https://a/p/x",
            ),
            (Replicate, r#"{"id":"x","status":"succeeded","output":"https://a/1"}"#, "https://a/1"),
            (
                Replicate,
                r#"{"id":"x","status":"succeeded","output":["https://a/1","https://a/2"]}"#,
                "https://a/1 https://a/2",
            ),
            (Replicate, r#"{"id":"x","status":"failed","output":null,"error":"NSFW"}"#, "no: NSFW"),
            (Replicate, r#"{"id":"x","status":"canceled"}"#, "no: canceled"),
        ] {
            assert_eq!(said(painter, body), expected, "{body}");
        }
        let trace = format!(r#"{{"status":"failed","error":"{}"}}"#, "x".repeat(9_000));
        assert!(said(Replicate, &trace).len() < 600, "a reason is no whole trace");
        for painter in [Fal, Hyperbolic, Stability, BlackForest, Replicate] {
            assert!(painter.read(b"7").is_err() && painter.read(b"{").is_err(), "{painter:?}");
        }
    }
}
