//! A transcript as clients want it.

use bytes::Bytes;
use serde::Serialize;

use super::request::{Format, TranscriptionRequest};
use super::transcript::{Segment, Transcript};
use super::{cues, subtitles};

/// That subtitles were asked for, and whoever was asked did not say when what was said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoTimes;

#[derive(Serialize)]
struct Json<'a> {
    text: &'a str,
    task: &'static str,
    language: Option<&'a str>,
    duration: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    segments: Option<Vec<SegmentOut<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    words: Option<Vec<WordOut<'a>>>,
}

/// With every member that the vendor's typed clients demand. What nobody told is neutral: no tokens, a temperature of
/// zero, and so on.
#[derive(Serialize)]
struct SegmentOut<'a> {
    id: usize,
    seek: u64,
    start: f64,
    end: f64,
    text: &'a str,
    tokens: [u64; 0],
    temperature: f64,
    avg_logprob: f64,
    compression_ratio: f64,
    no_speech_prob: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    speaker: Option<&'a str>,
}

#[derive(Serialize)]
struct WordOut<'a> {
    word: &'a str,
    start: f64,
    end: f64,
}

#[derive(Serialize)]
struct Diarized<'a> {
    task: &'static str,
    duration: Option<f64>,
    text: &'a str,
    segments: Vec<Turn<'a>>,
}

#[derive(Serialize)]
struct Turn<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    id: String,
    start: f64,
    end: f64,
    text: &'a str,
    speaker: &'a str,
}

/// The transcript in the format that was asked for; what it is sent as is [`Format::media_type`].
pub fn write(transcript: &Transcript, request: &TranscriptionRequest) -> Result<Bytes, NoTimes> {
    let task = request.task();
    let json = |segments, words| Json {
        text: &transcript.text,
        task,
        language: transcript.language.as_deref().or(request.language.as_deref()),
        duration: transcript.duration,
        segments,
        words,
    };
    Ok(match request.format {
        Format::Text => Bytes::from(format!("{}\n", transcript.text)),
        Format::Json => document(&json(None, None)),
        Format::VerboseJson => {
            let parts = if request.wants_segments() { transcript.parts() } else { Vec::new() };
            let segments = request.wants_segments().then(|| segments(&parts));
            let words = request.wants_words().then(|| {
                let words = transcript.words.iter();
                words.map(|word| WordOut { word: &word.text, start: word.start, end: word.end }).collect()
            });
            document(&json(segments, words))
        }
        Format::DiarizedJson => {
            let parts = transcript.parts();
            let turn = |(at, part)| turn(at, part);
            let segments = parts.iter().enumerate().map(turn).collect();
            document(&Diarized { task, duration: transcript.duration, text: &transcript.text, segments })
        }
        Format::Srt | Format::Vtt => {
            let cues = cues::of(transcript);
            if cues.is_empty() && !transcript.text.trim().is_empty() {
                return Err(NoTimes);
            }
            let write = if request.format == Format::Srt { subtitles::srt } else { subtitles::vtt };
            Bytes::from(write(&cues))
        }
    })
}

fn segments(parts: &[Segment]) -> Vec<SegmentOut<'_>> {
    let segment = |(id, part): (usize, &'_ Segment)| SegmentOut {
        id,
        seek: 0,
        start: part.start,
        end: part.end,
        text: "",
        tokens: [],
        temperature: 0.0,
        // What the vendor calls so is the logarithm of how sure it is.
        avg_logprob: part.confidence.map_or(0.0, |sure| sure.clamp(1e-6, 1.0).ln()),
        compression_ratio: 1.0,
        no_speech_prob: 0.0,
        speaker: None,
    };
    let texts = parts.iter().map(|part| (part.text.as_str(), part.speaker.as_deref()));
    parts
        .iter()
        .enumerate()
        .map(segment)
        .zip(texts)
        .map(|(segment, (text, speaker))| SegmentOut { text, speaker, ..segment })
        .collect()
}

fn turn(at: usize, part: &Segment) -> Turn<'_> {
    Turn {
        kind: "transcript.text.segment",
        id: format!("seg_{at}"),
        start: part.start,
        end: part.end,
        text: &part.text,
        speaker: part.speaker.as_deref().unwrap_or("A"),
    }
}

/// Strings and finite numbers are always written; what is not finite becomes null.
fn document(value: &impl Serialize) -> Bytes {
    serde_json::to_vec(value).expect("text and numbers can be written").into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audio::request::asked as request;
    use crate::audio::transcript::words;

    fn written(transcript: &Transcript, fields: &[(&str, &str)]) -> String {
        let bytes = write(transcript, &request(fields)).unwrap();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    fn said() -> Transcript {
        Transcript {
            text: "Hi. \"Yo\"".into(),
            language: Some("en".into()),
            duration: Some(1.25),
            words: words(&[("Hi.", 0.0, 0.5), ("\"Yo\"", 0.5, 1.0)]),
            segments: Vec::new(),
        }
    }

    #[test]
    fn every_format() {
        let head = r#"{"text":"Hi. \"Yo\"","task":"transcribe","language":"en","duration":1.25"#;
        assert_eq!(written(&said(), &[]), format!("{head}}}"));
        assert_eq!(written(&said(), &[("response_format", "text")]), "Hi. \"Yo\"\n");
        let verbose = written(&said(), &[("response_format", "verbose_json")]);
        assert!(verbose.starts_with(head), "{verbose}");
        let value: serde_json::Value = serde_json::from_str(&verbose).unwrap();
        assert_eq!(value["segments"].as_array().unwrap().len(), 2);
        assert_eq!(value["segments"][1]["text"], "\"Yo\"");
        assert_eq!(value["words"][0]["word"], "Hi.");
        let srt = written(&said(), &[("response_format", "srt")]);
        assert_eq!(srt, "1\n00:00:00,000 --> 00:00:01,000\nHi. \"Yo\"\n\n");
        assert!(written(&said(), &[("response_format", "vtt")]).starts_with("WEBVTT\n\n00:00:00.000"));
        let turns = written(&said(), &[("response_format", "diarized_json")]);
        let value: serde_json::Value = serde_json::from_str(&turns).unwrap();
        assert_eq!(value["segments"][0]["speaker"], "A");
    }

    #[test]
    fn only_what_was_asked_for_is_told() {
        for (asked, segments, words) in [("word", false, true), ("segment", true, false)] {
            let fields = [("response_format", "verbose_json"), ("timestamp_granularities[]", asked)];
            let value: serde_json::Value = serde_json::from_str(&written(&said(), &fields)).unwrap();
            assert_eq!((value.get("segments").is_some(), value.get("words").is_some()), (segments, words));
        }
    }

    #[test]
    fn silence_is_an_answer_and_subtitles_need_times() {
        let silence = Transcript { duration: Some(3.0), ..Transcript::default() };
        assert_eq!(
            written(&silence, &[]),
            r#"{"text":"","task":"transcribe","language":null,"duration":3.0}"#
        );
        assert_eq!(written(&silence, &[("response_format", "vtt"), ("language", "de")]), "WEBVTT\n\n");
        let no_times = Transcript { text: "a".into(), ..Transcript::default() };
        assert_eq!(write(&no_times, &request(&[("response_format", "srt")])), Err(NoTimes));
    }
}
