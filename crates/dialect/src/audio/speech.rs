//! Text to speech, in OpenAI's form (<https://platform.openai.com/docs/api-reference/audio/createSpeech>): the request is
//! passed on, and the sound that comes back too. It is looked at for what it is billed by alone.

use bytes::Bytes;
use omniroute_wire::sse::{DEFAULT_FRAME_LIMIT, SseFramer};

use super::sound;
use crate::DecodeError;
use crate::ir::Usage;
use crate::json_body::{Change, JsonBody};
use crate::json_in::{Fields, count_of, str_of, wrong_value};

/// Most characters of a text. The vendor takes 4096; others take more.
const MAX_CHARACTERS: usize = 100_000;
/// How fast a text may be spoken.
const SPEEDS: std::ops::RangeInclusive<f64> = 0.25..=4.0;
/// A token of text, roughly.
const BYTES_A_TOKEN: u64 = 4;

/// A text to be spoken.
#[derive(Debug, Clone)]
pub struct SpeechRequest {
    /// The model, as the client wrote it.
    pub model: String,
    /// How many characters are billed.
    pub characters: u64,
    /// How many tokens they are about, with what is said of how to speak them.
    pub text_tokens: u64,
    /// How many seconds they usually take.
    pub usual_seconds: f64,
    /// The format that is asked for.
    pub format: Option<String>,
    body: JsonBody,
}

impl SpeechRequest {
    /// Reads a client's request.
    pub fn read(body: &[u8]) -> Result<Self, DecodeError> {
        let body = JsonBody::read(body)?;
        let model = body.need_str("model")?;
        let text = body.need_str("input")?;
        let characters = text.chars().count();
        if characters > MAX_CHARACTERS {
            return Err(wrong_value("input", &format!("a text of at most {MAX_CHARACTERS} characters")));
        }
        // What is no number, or no word, is for the upstream to refuse.
        let word = |name| body.get(name).and_then(str_of);
        let speed = body.get("speed").and_then(|raw| raw.get().parse::<f64>().ok());
        let speed = speed.filter(|speed| SPEEDS.contains(speed)).unwrap_or(1.0);
        let told = word("instructions").map_or(0, |told| told.len());
        Ok(Self {
            model,
            characters: characters as u64,
            text_tokens: ((text.len() + told) as u64).div_ceil(BYTES_A_TOKEN),
            usual_seconds: sound::usual_length(&text, speed),
            format: word("response_format").map(Into::into),
            body,
        })
    }

    /// The same for an upstream.
    pub fn write(&self, model: &str) -> Bytes {
        self.body
            .write(|name, _| if name == "model" { Change::Str(model.to_owned()) } else { Change::Keep }, &[])
    }
}

/// What the last event of a sound that comes as a stream of events says that it used; all that was produced is sound.
pub fn told_usage(body: &[u8]) -> Usage {
    let mut framer = SseFramer::new(DEFAULT_FRAME_LIMIT.max(body.len()));
    framer.push(body);
    framer.finish();
    let mut told = Usage::default();
    while let Some(Ok(found)) = framer.next_frame() {
        let data = found.frame.data;
        // Nearly all of the stream is sound, which nobody has to read.
        if memchr::memmem::find(data, b"\"speech.audio.done\"").is_none() {
            continue;
        }
        let Some(event) = std::str::from_utf8(data).ok().and_then(|text| Fields::lenient(text, "").ok())
        else {
            continue;
        };
        let Some(usage) = event.object_or_none("usage") else { continue };
        let count = |name| usage.raw(name).and_then(count_of);
        let output = count("output_tokens");
        told = Usage {
            input_uncached: count("input_tokens"),
            output_total: output,
            audio_output: output,
            ..Usage::default()
        };
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_passed_on() {
        let asked = SpeechRequest::read(
            br#"{"model":"openai/tts-1","input":"H\u00e9llo \ud83d\ude00","voice":"alloy","speed":1.0}"#,
        )
        .unwrap();
        assert_eq!((asked.model.as_str(), asked.characters), ("openai/tts-1", 7));
        assert_eq!(
            &asked.write("tts-1")[..],
            br#"{"model":"tts-1","input":"H\u00e9llo \ud83d\ude00","voice":"alloy","speed":1.0}"#
        );
        for (body, param) in [
            (&br#"{"model":"a"}"#[..], "input"),
            (br#"{"model":"a","input":"  "}"#, "input"),
            (br#"{"input":"a"}"#, "model"),
        ] {
            assert_eq!(SpeechRequest::read(body).unwrap_err().param.as_deref(), Some(param));
        }
    }
    #[test]
    fn what_is_billed_is_known_roughly_before() {
        let asked = SpeechRequest::read(
            br#"{"model":"m","input":"Twelve marks","instructions":"Slow","speed":0.5,"response_format":"pcm"}"#,
        )
        .unwrap();
        assert_eq!((asked.text_tokens, asked.format.as_deref()), (4, Some("pcm")));
        assert!((asked.usual_seconds - 1.6).abs() < 0.001);
        let odd = SpeechRequest::read(br#"{"model":"m","input":"Twelve marks","speed":0}"#).unwrap();
        assert!((odd.usual_seconds - 0.8).abs() < 0.001);
    }

    #[test]
    fn a_stream_of_events_says_what_it_used() {
        let stream = b"data: {\"type\":\"speech.audio.delta\",\"audio\":\"UklGRg==\"}\n\n\
            data: {\"type\":\"speech.audio.done\",\"usage\":{\"input_tokens\":14,\"output_tokens\":101,\"total_tokens\":115}}\n\n";
        let used = told_usage(stream);
        assert_eq!(
            (used.input_uncached, used.output_total, used.audio_output),
            (Some(14), Some(101), Some(101))
        );
        for silent in [&b"data: {\"type\":\"speech.audio.done\"}\n\n"[..], b"ID3", b""] {
            assert!(!told_usage(silent).is_known());
        }
    }
}
