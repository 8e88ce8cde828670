//! Deepgram's pre-recorded audio (<https://developers.deepgram.com/reference/speech-to-text/listen-pre-recorded>): the file
//! is the body, everything else is in the query.

use std::borrow::Cow;

use serde::Deserialize;

use super::request::TranscriptionRequest;
use super::transcript::{Segment, Transcript, Word};
use crate::DecodeError;
use crate::ir::{Loss, LossAction, loss};

/// The query of a call, and what of the request it cannot say.
pub fn query(request: &TranscriptionRequest, model: &str) -> (String, Vec<Loss>) {
    let mut query = String::with_capacity(160);
    let mut add = |name: &str, value: &str| {
        if !query.is_empty() {
            query.push('&');
        }
        query.push_str(name);
        query.push('=');
        query.push_str(&encoded(value));
    };
    add("model", model);
    add("smart_format", "true");
    add("punctuate", "true");
    add("utterances", "true");
    match &request.language {
        Some(language) => add("language", language),
        None => add("detect_language", "true"),
    }
    if request.wants_speakers() {
        add("diarize", "true");
    }
    (query, without(request))
}

/// Fields that only OpenAI's own models know.
pub(super) fn without(request: &TranscriptionRequest) -> Vec<Loss> {
    let known = ["language", "timestamp_granularities[]"];
    let names = request.fields().map(|(name, _)| name).filter(|name| !known.contains(name));
    let mut losses: Vec<Loss> = Vec::new();
    for name in names {
        if !losses.iter().any(|known| known.path == name) {
            losses.push(loss(Cow::Owned(name.to_owned()), LossAction::Dropped));
        }
    }
    losses
}

fn encoded(value: &str) -> Cow<'_, str> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
    if value.bytes().all(is_plain) {
        return Cow::Borrowed(value);
    }
    let mut out = String::with_capacity(value.len() * 2);
    for byte in value.bytes() {
        if is_plain(byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    Cow::Owned(out)
}

#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(default)]
    metadata: Metadata,
    #[serde(borrow)]
    results: Results<'a>,
}

#[derive(Deserialize, Default)]
struct Metadata {
    duration: Option<f64>,
}

#[derive(Deserialize)]
struct Results<'a> {
    #[serde(borrow, default)]
    channels: Vec<Channel<'a>>,
    #[serde(borrow, default)]
    utterances: Option<Vec<Utterance<'a>>>,
}

#[derive(Deserialize)]
struct Channel<'a> {
    #[serde(borrow, default)]
    alternatives: Vec<Alternative<'a>>,
    #[serde(borrow)]
    detected_language: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct Alternative<'a> {
    #[serde(borrow, default)]
    transcript: Cow<'a, str>,
    #[serde(borrow, default)]
    words: Vec<WordIn<'a>>,
}

#[derive(Deserialize)]
struct WordIn<'a> {
    #[serde(borrow)]
    word: Cow<'a, str>,
    #[serde(borrow)]
    punctuated_word: Option<Cow<'a, str>>,
    start: f64,
    end: f64,
    confidence: Option<f64>,
    speaker: Option<u32>,
}

#[derive(Deserialize)]
struct Utterance<'a> {
    start: f64,
    end: f64,
    #[serde(borrow)]
    transcript: Cow<'a, str>,
    confidence: Option<f64>,
    speaker: Option<u32>,
}

/// Reads an answer. Of several channels the first counts: no more are asked for.
pub fn read(body: &[u8], request: &TranscriptionRequest) -> Result<Transcript, DecodeError> {
    let answer: Answer<'_> = serde_json::from_slice(body).map_err(|error| unreadable(&error))?;
    let duration = answer.metadata.duration;
    let language = request.language.clone();
    let Some(channel) = answer.results.channels.into_iter().next() else {
        return Ok(Transcript { duration, language, ..Transcript::default() });
    };
    let language = channel.detected_language.map(Cow::into_owned).or(language);
    let (text, words) = match channel.alternatives.into_iter().next() {
        Some(best) => (best.transcript.into_owned(), best.words),
        None => (String::new(), Vec::new()),
    };
    let speaker = |speaker: Option<u32>| speaker.map(name);
    let words = words
        .into_iter()
        .map(|word| Word {
            start: word.start,
            end: word.end,
            text: word.punctuated_word.unwrap_or(word.word).into_owned(),
            speaker: speaker(word.speaker),
            confidence: word.confidence,
        })
        .collect();
    let segments = answer
        .results
        .utterances
        .unwrap_or_default()
        .into_iter()
        .map(|utterance| Segment {
            start: utterance.start,
            end: utterance.end,
            text: utterance.transcript.into_owned(),
            speaker: speaker(utterance.speaker),
            confidence: utterance.confidence,
        })
        .collect();
    Ok(Transcript { text, language, duration, segments, words })
}

/// `A` to `Z`, then numbers.
fn name(speaker: u32) -> String {
    match u8::try_from(speaker) {
        Ok(number @ 0..=25) => char::from(b'A' + number).to_string(),
        _ => format!("{speaker}"),
    }
}

/// That an answer is not one.
pub(super) fn unreadable(error: &serde_json::Error) -> DecodeError {
    DecodeError {
        code: "bad_gateway",
        param: None,
        message: format!(
            "the transcript cannot be read near line {}, column {}",
            error.line(),
            error.column()
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audio::request::asked as request;

    #[test]
    fn queries() {
        let (asked, losses) = query(&request(&[]), "nova-3");
        let usual = "model=nova-3&smart_format=true&punctuate=true&utterances=true";
        assert_eq!((asked.as_str(), losses.len()), (format!("{usual}&detect_language=true").as_str(), 0));
        let (asked, losses) = query(
            &request(&[("language", "pt-BR"), ("prompt", "x"), ("response_format", "diarized_json")]),
            "a b&c",
        );
        assert!(asked.starts_with("model=a%20b%26c&"), "{asked}");
        assert!(asked.ends_with("&language=pt-BR&diarize=true"), "{asked}");
        assert_eq!(losses, [loss("prompt", LossAction::Dropped)]);
    }

    #[test]
    fn answers() {
        let body = br#"{"metadata":{"request_id":"r","duration":2.5,"channels":1},"results":{"channels":[{
            "alternatives":[{"transcript":"Hello, you.","confidence":0.99,"words":[
              {"word":"hello","start":0.1,"end":0.5,"confidence":0.9,"punctuated_word":"Hello,","speaker":0},
              {"word":"you","start":0.6,"end":0.9,"confidence":0.8,"punctuated_word":"you.","speaker":1}]}],
            "detected_language":"en","language_confidence":0.9}],
            "utterances":[{"start":0.1,"end":0.9,"confidence":0.85,"channel":0,"transcript":"Hello, you.","id":"u"}]}}"#;
        let found = read(body, &request(&[])).unwrap();
        assert_eq!((found.text.as_str(), found.language.as_deref()), ("Hello, you.", Some("en")));
        assert_eq!((found.duration, found.segments.len()), (Some(2.5), 1));
        assert_eq!((found.words[0].text.as_str(), found.words[1].speaker.as_deref()), ("Hello,", Some("B")));
    }

    #[test]
    fn silence_is_empty_and_nonsense_is_refused() {
        let silence = br#"{"metadata":{"duration":1.0},"results":{"channels":[{"alternatives":[{"transcript":"","words":[]}]}]}}"#;
        let found = read(silence, &request(&[("language", "de")])).unwrap();
        assert_eq!((found.text.as_str(), found.language.as_deref()), ("", Some("de")));
        assert_eq!(read(br#"{"results":{"channels":[]}}"#, &request(&[])).unwrap().text, "");
        assert!(read(b"{}", &request(&[])).is_err());
        assert!(read(b"<html>", &request(&[])).is_err());
    }
}
