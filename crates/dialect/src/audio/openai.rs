//! OpenAI's own form of transcripts, which many others have too
//! (<https://platform.openai.com/docs/api-reference/audio/createTranscription>).

use std::borrow::Cow;

use bytes::{Bytes, BytesMut};
use omniroute_wire::json_out;
use omniroute_wire::splice::Splice;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::deepgram::unreadable;
use super::request::{Format, TranscriptionRequest};
use super::transcript::{Segment, Transcript, Word};
use crate::DecodeError;
use crate::form::{Form, FormWriter};
use crate::ir::Usage;
use crate::json_in::count_of;

/// The format to ask for where `known` are those that there are: the one that was asked for, else the one with everything
/// in it. What there is no way to is asked for nevertheless, so that the refusal comes in the vendor's words.
pub fn format_to_ask(asked: Format, known: &[Format]) -> Format {
    if known.contains(&asked) || asked == Format::DiarizedJson || !known.contains(&Format::VerboseJson) {
        asked
    } else {
        Format::VerboseJson
    }
}

/// The form for a request. The boundary must not occur in the file; something long and random does not.
pub fn form(
    request: &TranscriptionRequest,
    model: &str,
    format: Format,
    (filename, media_type): (&str, &str),
    boundary: &str,
) -> Form {
    let mut writer = FormWriter::new(boundary);
    writer.field("model", model);
    for (name, value) in request.fields() {
        // Times of words are told in one format alone.
        if name != "timestamp_granularities[]" || format == Format::VerboseJson {
            writer.field(name, value);
        }
    }
    let has_granularities = request.fields().any(|(name, _)| name == "timestamp_granularities[]");
    if format == Format::VerboseJson && !has_granularities {
        // Cues and the words of the answer are made of them.
        writer.field("timestamp_granularities[]", "word");
        writer.field("timestamp_granularities[]", "segment");
    }
    writer.field("response_format", format.as_str());
    writer.file("file", filename, media_type);
    writer.end()
}

/// What a call used.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Used {
    /// Tokens, where it is billed by them.
    pub tokens: Usage,
    /// Seconds of sound, where they were told.
    pub seconds: Option<f64>,
}

#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow)]
    text: Option<Cow<'a, str>>,
    #[serde(borrow)]
    language: Option<Cow<'a, str>>,
    duration: Option<Number<'a>>,
    #[serde(borrow)]
    segments: Option<Vec<SegmentIn<'a>>>,
    #[serde(borrow)]
    words: Option<Vec<WordIn<'a>>>,
    #[serde(borrow)]
    usage: Option<UsageIn<'a>>,
    #[serde(borrow)]
    task: Option<&'a RawValue>,
}

/// Some write numbers as text.
#[derive(Deserialize)]
#[serde(untagged)]
enum Number<'a> {
    Number(f64),
    #[serde(borrow)]
    Text(Cow<'a, str>),
}

impl Number<'_> {
    fn value(&self) -> Option<f64> {
        match self {
            Self::Number(number) => Some(*number),
            Self::Text(text) => text.trim().parse().ok(),
        }
        .filter(|number: &f64| number.is_finite() && *number >= 0.0)
    }
}

#[derive(Deserialize)]
struct SegmentIn<'a> {
    start: f64,
    end: f64,
    #[serde(borrow)]
    text: Cow<'a, str>,
    #[serde(borrow)]
    speaker: Option<Cow<'a, str>>,
    avg_logprob: Option<f64>,
}

#[derive(Deserialize)]
struct WordIn<'a> {
    start: f64,
    end: f64,
    #[serde(borrow)]
    word: Cow<'a, str>,
}

#[derive(Deserialize)]
struct UsageIn<'a> {
    seconds: Option<f64>,
    #[serde(borrow)]
    input_tokens: Option<&'a RawValue>,
    #[serde(borrow)]
    output_tokens: Option<&'a RawValue>,
    #[serde(borrow)]
    input_token_details: Option<Details<'a>>,
}

#[derive(Deserialize)]
struct Details<'a> {
    #[serde(borrow)]
    audio_tokens: Option<&'a RawValue>,
}

impl Answer<'_> {
    fn used(&self) -> Used {
        let count = |raw: Option<&RawValue>| raw.and_then(count_of);
        let duration = self.duration.as_ref().and_then(Number::value);
        let Some(usage) = &self.usage else { return Used { seconds: duration, ..Used::default() } };
        Used {
            tokens: Usage {
                input_uncached: count(usage.input_tokens),
                audio_input: usage
                    .input_token_details
                    .as_ref()
                    .and_then(|details| count(details.audio_tokens)),
                output_total: count(usage.output_tokens),
                ..Usage::default()
            },
            seconds: usage.seconds.filter(|seconds| seconds.is_finite() && *seconds >= 0.0).or(duration),
        }
    }
}

/// An answer in the format that the client wants, and what it used. An object gets the members that clients may count
/// on; `known` is what else is known of the recording.
pub fn relay(
    body: &Bytes,
    request: &TranscriptionRequest,
    known_seconds: Option<f64>,
) -> Result<(Bytes, Used), DecodeError> {
    if !request.format.is_json() {
        return Ok((body.clone(), Used { seconds: known_seconds, ..Used::default() }));
    }
    // All of it goes on, what nobody looks at here too.
    let document = std::str::from_utf8(body).map_err(|error| DecodeError {
        code: "bad_gateway",
        param: None,
        message: format!("the transcript is not UTF-8 at byte {}", error.valid_up_to()),
    })?;
    let answer: Answer<'_> = serde_json::from_str(document).map_err(|error| unreadable(&error))?;
    if answer.text.is_none() {
        return Err(no_text());
    }
    let mut used = answer.used();
    used.seconds = used.seconds.or(known_seconds);
    if request.format == Format::DiarizedJson {
        return Ok((body.clone(), used));
    }
    let mut added = BytesMut::new();
    let mut add = |name: &str, json: &str| {
        added.extend_from_slice(b",");
        json_out::string(&mut added, name);
        added.extend_from_slice(b":");
        added.extend_from_slice(json.as_bytes());
    };
    if answer.task.is_none() {
        add("task", &format!("\"{}\"", request.task()));
    }
    if answer.language.is_none() && !has_member(body, "language") {
        // A language's code has no character that would have to be written differently.
        add(
            "language",
            &request.language.as_ref().map_or_else(|| "null".to_owned(), |code| format!("\"{code}\"")),
        );
    }
    if answer.duration.is_none() && !has_member(body, "duration") {
        // Bills are in whole seconds; the file knows better.
        let seconds = known_seconds.or(used.seconds);
        add("duration", &seconds.map_or_else(|| "null".to_owned(), |seconds| seconds.to_string()));
    }
    let end = body.iter().rposition(|byte| *byte == b'}');
    let Some(end) = end.filter(|_| !added.is_empty()) else { return Ok((body.clone(), used)) };
    let mut splice = Splice::new(body.clone());
    splice.replace(end..end, added.freeze());
    Ok((splice.to_bytes(), used))
}

/// Whether an object has a member, be it null.
fn has_member(body: &[u8], name: &str) -> bool {
    serde_json::from_slice::<crate::json_in::Members<'_>>(body)
        .is_ok_and(|members| members.0.iter().any(|(other, _)| other == name))
}

/// Reads an answer with times, for a format that the upstream does not have.
pub fn read(body: &[u8], request: &TranscriptionRequest) -> Result<(Transcript, Used), DecodeError> {
    let answer: Answer<'_> = serde_json::from_slice(body).map_err(|error| unreadable(&error))?;
    let used = answer.used();
    let duration = answer.duration.as_ref().and_then(Number::value).or(used.seconds);
    let Some(text) = answer.text else { return Err(no_text()) };
    let segment = |segment: SegmentIn<'_>| Segment {
        start: segment.start,
        end: segment.end,
        text: segment.text.trim().to_owned(),
        speaker: segment.speaker.map(Cow::into_owned),
        confidence: segment.avg_logprob.map(f64::exp),
    };
    let word = |word: WordIn<'_>| Word {
        start: word.start,
        end: word.end,
        text: word.word.trim().to_owned(),
        ..Word::default()
    };
    let mut words: Vec<Word> = answer.words.unwrap_or_default().into_iter().map(word).collect();
    // Words come without punctuation from there: subtitles are better made of the segments then.
    let segments: Vec<Segment> = answer.segments.unwrap_or_default().into_iter().map(segment).collect();
    if !segments.is_empty() && matches!(request.format, Format::Srt | Format::Vtt) {
        words.clear();
    }
    let transcript = Transcript {
        text: text.into_owned(),
        language: answer.language.map(Cow::into_owned).or_else(|| request.language.clone()),
        duration,
        segments,
        words,
    };
    Ok((transcript, used))
}

fn no_text() -> DecodeError {
    DecodeError {
        code: "bad_gateway",
        param: None,
        message: "the answer has no `text`, so it is no transcript".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audio::request::asked as request;

    #[test]
    fn forms_are_sent_again_with_the_bare_model() {
        let asked = request(&[("prompt", "Zoë"), ("stream", "true"), ("x\"y", "1")]);
        let form = form(&asked, "whisper-1", Format::Json, ("a\"b\r\n.wav", "audio/wav"), "BOUND");
        assert_eq!(
            std::str::from_utf8(&form.head).unwrap(),
            "--BOUND\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nwhisper-1\r\n\
             --BOUND\r\nContent-Disposition: form-data; name=\"prompt\"\r\n\r\nZoë\r\n\
             --BOUND\r\nContent-Disposition: form-data; name=\"x%22y\"\r\n\r\n1\r\n\
             --BOUND\r\nContent-Disposition: form-data; name=\"response_format\"\r\n\r\njson\r\n\
             --BOUND\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a%22b%0D%0A.wav\"\r\n\
             Content-Type: audio/wav\r\n\r\n"
        );
        assert_eq!(form.behind, [Bytes::from_static(b"\r\n--BOUND--\r\n")]);
        assert_eq!(form.content_type, "multipart/form-data; boundary=BOUND");
    }

    #[test]
    fn formats_that_are_not_there_are_made_of_the_one_with_times() {
        use Format::{DiarizedJson, Json, Srt, Text, VerboseJson};
        for (asked, known, expected) in [
            (Srt, &[Json, Text, VerboseJson][..], VerboseJson),
            (Text, &[Json, Text, VerboseJson], Text),
            (Srt, &[Json, Text], Srt),
            (DiarizedJson, &[Json, VerboseJson], DiarizedJson),
        ] {
            assert_eq!(format_to_ask(asked, known), expected);
        }
    }

    #[test]
    fn objects_get_what_clients_count_on() {
        let asked = request(&[("language", "de")]);
        for (body, expected) in [
            (
                "{\"text\":\"Hi\",\"x\":1.0}\n",
                "{\"text\":\"Hi\",\"x\":1.0,\"task\":\"transcribe\",\"language\":\"de\",\"duration\":2.5}\n",
            ),
            (
                r#"{"text":"","usage":{"type":"duration","seconds":3}}"#,
                r#"{"text":"","usage":{"type":"duration","seconds":3},"task":"transcribe","language":"de","duration":2.5}"#,
            ),
            (
                r#"{"task":"transcribe","language":null,"duration":"1.5","text":"a"}"#,
                r#"{"task":"transcribe","language":null,"duration":"1.5","text":"a"}"#,
            ),
        ] {
            let (relayed, _) = relay(&Bytes::from(body), &asked, Some(2.5)).unwrap();
            assert_eq!(std::str::from_utf8(&relayed).unwrap(), expected);
        }
        for broken in [&b"{}"[..], b"{\"text\":\"a\",\"x\xff\":1}"] {
            assert!(relay(&Bytes::copy_from_slice(broken), &asked, None).is_err());
        }
        let text = request(&[("response_format", "text")]);
        let (relayed, used) = relay(&Bytes::from_static(b"Hi\n"), &text, Some(1.0)).unwrap();
        assert_eq!((&relayed[..], used.seconds), (&b"Hi\n"[..], Some(1.0)));
    }

    #[test]
    fn usage_of_both_kinds() {
        let asked = request(&[]);
        let tokens =
            br#"{"text":"a","usage":{"type":"tokens","total_tokens":30,"input_tokens":20,"output_tokens":10,
            "input_token_details":{"text_tokens":2,"audio_tokens":18}}}"#;
        let (_, used) = relay(&Bytes::from_static(tokens), &asked, None).unwrap();
        assert_eq!(
            (used.tokens.input_uncached, used.tokens.audio_input, used.tokens.output_total, used.seconds),
            (Some(20), Some(18), Some(10), None)
        );
        let (_, used) =
            relay(&Bytes::from_static(br#"{"text":"a","duration":"8.47"}"#), &asked, None).unwrap();
        assert_eq!(used.seconds, Some(8.47));
    }

    #[test]
    fn answers_with_times() {
        let body = br#"{"task":"transcribe","language":"english","duration":1.5,"text":" Hi there.",
            "segments":[{"id":0,"seek":0,"start":0.0,"end":1.2,"text":" Hi there.","tokens":[1],"temperature":0,
              "avg_logprob":-0.5,"compression_ratio":1.1,"no_speech_prob":0.01}],
            "words":[{"word":"Hi","start":0.0,"end":0.4},{"word":"there","start":0.4,"end":1.2}]}"#;
        let (transcript, used) = read(body, &request(&[("response_format", "srt")])).unwrap();
        assert_eq!((transcript.segments[0].text.as_str(), transcript.words.len()), ("Hi there.", 0));
        assert_eq!(used.seconds, Some(1.5));
        let (transcript, _) = read(body, &request(&[("response_format", "verbose_json")])).unwrap();
        assert_eq!(transcript.words.len(), 2);
    }
}
