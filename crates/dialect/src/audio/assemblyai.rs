//! AssemblyAI's asynchronous transcripts (<https://www.assemblyai.com/docs/api-reference/transcripts>): the file is uploaded,
//! a transcript of it is ordered, and asked for until it is there.

use std::borrow::Cow;

use bytes::{Bytes, BytesMut};
use omniroute_wire::json_out::Object;
use serde::Deserialize;

use super::deepgram::{unreadable, without};
use super::request::TranscriptionRequest;
use super::transcript::{Segment, Transcript, Word};
use crate::DecodeError;
use crate::ir::Loss;

/// How accounts want the model to be named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Naming {
    /// `speech_models`, a list. New accounts want it.
    List,
    /// `speech_model`. Old accounts know no other.
    One,
}

#[derive(Deserialize)]
struct Upload<'a> {
    #[serde(borrow)]
    upload_url: Cow<'a, str>,
}

/// Where the file is after it was uploaded.
pub fn upload_url(body: &[u8]) -> Result<String, DecodeError> {
    let upload: Upload<'_> = serde_json::from_slice(body).map_err(|error| unreadable(&error))?;
    Ok(upload.upload_url.into_owned())
}

/// The order of a transcript, and what of the request it cannot say.
pub fn order(
    request: &TranscriptionRequest,
    model: &str,
    audio_url: &str,
    naming: Naming,
) -> (Bytes, Vec<Loss>) {
    let mut out = BytesMut::with_capacity(256);
    let mut object = Object::begin(&mut out);
    object.str("audio_url", audio_url);
    match naming {
        Naming::List => {
            let mut models = object.array("speech_models");
            models.str(model);
            models.end();
        }
        Naming::One => {
            object.str("speech_model", model);
        }
    }
    match &request.language {
        // Codes are written with an underscore there.
        Some(language) => object.str("language_code", &language.replace('-', "_").to_ascii_lowercase()),
        None => object.bool("language_detection", true),
    };
    if request.wants_speakers() {
        object.bool("speaker_labels", true);
    }
    object.end();
    (out.freeze(), without(request))
}

/// How far it is.
#[derive(Debug, Clone, PartialEq)]
pub enum State {
    /// Ask again.
    Working,
    /// It is there.
    Done(Box<Transcript>),
    /// There will be none.
    Failed(String),
}

/// A transcript that was ordered.
#[derive(Debug, Clone, PartialEq)]
pub struct Ordered {
    /// What to ask for.
    pub id: String,
    /// How far it is.
    pub state: State,
    /// Length of the recording in seconds, once it is known.
    pub duration: Option<f64>,
}

#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(borrow)]
    status: Cow<'a, str>,
    #[serde(borrow)]
    text: Option<Cow<'a, str>>,
    #[serde(borrow)]
    error: Option<Cow<'a, str>>,
    #[serde(borrow)]
    language_code: Option<Cow<'a, str>>,
    audio_duration: Option<f64>,
    #[serde(borrow)]
    words: Option<Vec<WordIn<'a>>>,
    #[serde(borrow)]
    utterances: Option<Vec<Utterance<'a>>>,
}

/// Times are in milliseconds.
#[derive(Deserialize)]
struct WordIn<'a> {
    #[serde(borrow)]
    text: Cow<'a, str>,
    start: f64,
    end: f64,
    confidence: Option<f64>,
    #[serde(borrow)]
    speaker: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct Utterance<'a> {
    #[serde(borrow)]
    text: Cow<'a, str>,
    start: f64,
    end: f64,
    confidence: Option<f64>,
    #[serde(borrow)]
    speaker: Option<Cow<'a, str>>,
}

/// Reads what an order, or a question after it, is answered with.
pub fn read(body: &[u8], request: &TranscriptionRequest) -> Result<Ordered, DecodeError> {
    let answer: Answer<'_> = serde_json::from_slice(body).map_err(|error| unreadable(&error))?;
    let id = answer.id.into_owned();
    if id.is_empty() || !id.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')) {
        return Err(DecodeError {
            code: "bad_gateway",
            param: None,
            message: "the transcript that was ordered has no usable id".to_owned(),
        });
    }
    let duration = answer.audio_duration;
    let state = match &*answer.status {
        "completed" => State::Done(Box::new(Transcript {
            text: answer.text.unwrap_or_default().into_owned(),
            language: answer.language_code.map(Cow::into_owned).or_else(|| request.language.clone()),
            duration,
            segments: answer.utterances.unwrap_or_default().into_iter().map(segment).collect(),
            words: answer.words.unwrap_or_default().into_iter().map(word).collect(),
        })),
        "error" => {
            let reason = answer.error.filter(|reason| !reason.trim().is_empty());
            State::Failed(reason.map_or_else(|| "the upstream told no reason".to_owned(), Cow::into_owned))
        }
        // Queued, processing, and what else there may be one day: whoever waits has a limit.
        _ => State::Working,
    };
    Ok(Ordered { id, state, duration })
}

fn word(word: WordIn<'_>) -> Word {
    Word {
        start: word.start / 1000.0,
        end: word.end / 1000.0,
        text: word.text.into_owned(),
        speaker: word.speaker.map(Cow::into_owned),
        confidence: word.confidence,
    }
}

fn segment(utterance: Utterance<'_>) -> Segment {
    Segment {
        start: utterance.start / 1000.0,
        end: utterance.end / 1000.0,
        text: utterance.text.into_owned(),
        speaker: utterance.speaker.map(Cow::into_owned),
        confidence: utterance.confidence,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audio::request::asked as request;
    use crate::ir::{LossAction, loss};

    #[test]
    fn orders() {
        let (body, losses) = order(&request(&[]), "best", "https://u", Naming::List);
        assert_eq!(
            (&body[..], losses.len()),
            (&br#"{"audio_url":"https://u","speech_models":["best"],"language_detection":true}"#[..], 0)
        );
        let wishes = [("language", "en-US"), ("prompt", "x"), ("response_format", "diarized_json")];
        let (body, losses) = order(&request(&wishes), "best", "u", Naming::One);
        assert_eq!(
            &body[..],
            br#"{"audio_url":"u","speech_model":"best","language_code":"en_us","speaker_labels":true}"#
        );
        assert_eq!(losses, [loss("prompt", LossAction::Dropped)]);
    }

    #[test]
    fn states() {
        let asked = request(&[]);
        for (body, expected) in [
            (r#"{"id":"a-1","status":"queued"}"#, State::Working),
            (r#"{"id":"a","status":"processing","text":null,"words":null}"#, State::Working),
            (r#"{"id":"a","status":"error","error":"no sound"}"#, State::Failed("no sound".into())),
        ] {
            assert_eq!(read(body.as_bytes(), &asked).unwrap().state, expected);
        }
        let done = br#"{"id":"a","status":"completed","text":"Hi.","language_code":"en","audio_duration":2,
            "words":[{"text":"Hi.","start":250,"end":650,"confidence":0.9,"speaker":null}],"utterances":null}"#;
        let ordered = read(done, &asked).unwrap();
        let State::Done(transcript) = ordered.state else { panic!("it is done") };
        assert_eq!((transcript.text.as_str(), transcript.duration), ("Hi.", Some(2.0)));
        assert_eq!((transcript.words[0].start, transcript.words[0].end), (0.25, 0.65));
        for body in [r#"{"id":"../x","status":"queued"}"#, r#"{"status":"queued"}"#, "no"] {
            assert!(read(body.as_bytes(), &asked).is_err(), "{body}");
        }
        assert_eq!(upload_url(br#"{"upload_url":"https://cdn/x"}"#).unwrap(), "https://cdn/x");
        assert!(upload_url(b"{}").is_err());
    }
}
