//! OpenAI's transcripts, with what each model and each house takes.

use bytes::Bytes;
use http::{Response, request::Parts};
use serde_json::json;

use super::{Errand, is_silent, json, multipart, play, script, sound, vendors_name};
use crate::{SimBody, Simulator, check::Wording as _, openai::OpenAi, refusal::Refusal};

const KNOWN: &[&str] = &[
    "whisper-1",
    "gpt-4o-transcribe",
    "gpt-4o-mini-transcribe",
    "gpt-4o-transcribe-diarize",
    "whisper-large-v3-turbo",
    "whisper-large-v3",
];
const EXTENSIONS: &[&str] =
    &["flac", "m4a", "mp3", "mp4", "mpeg", "mpga", "oga", "ogg", "wav", "webm", "opus"];
const FIELDS: &[&str] = &[
    "model",
    "file",
    "language",
    "prompt",
    "response_format",
    "temperature",
    "timestamp_granularities[]",
    "stream",
    "include[]",
    "chunking_strategy",
];

impl Simulator {
    pub(super) async fn transcript(
        &self,
        errand: &Errand<'_>,
        translate: bool,
        key: &str,
        parts: &Parts,
        body: &Bytes,
    ) -> Result<Response<SimBody>, Refusal> {
        let fields = multipart::read(&parts.headers, body)?;
        for field in &fields {
            let is_known = FIELDS.contains(&field.name.as_str())
                && !(translate && matches!(field.name.as_str(), "language" | "timestamp_granularities[]"));
            if !is_known {
                return Err(OpenAi.unknown("", &field.name));
            }
        }
        let text = |name: &str| {
            fields.iter().find(|field| field.name == name).map(multipart::Field::text).transpose()
        };
        let wrong = |name: &str, message: &str| OpenAi.wrong(name, message);
        let name = text("model")?.ok_or_else(|| OpenAi.missing("model"))?;
        let script = script(name, KNOWN, &OpenAi)?;
        let file = fields.iter().find(|field| field.name == "file").ok_or_else(|| OpenAi.missing("file"))?;
        let filename = file.filename.as_deref().unwrap_or_default();
        let extension = filename.rsplit_once('.').map(|(_, extension)| extension.to_ascii_lowercase());
        if !extension.is_some_and(|extension| EXTENSIONS.contains(&extension.as_str())) {
            let message = format!("invalid file format, supported formats: {EXTENSIONS:?}");
            return Err(wrong("file", &message));
        }
        if file.content.is_empty() {
            return Err(wrong("file", "the audio file is empty"));
        }
        if let Some(temperature) = text("temperature")?
            && !temperature.parse::<f64>().is_ok_and(|number| (0.0..=1.0).contains(&number))
        {
            return Err(wrong("temperature", "must be from 0 to 1"));
        }
        let format = text("response_format")?.unwrap_or("json");
        let formats: &[&str] = match (errand.house, vendors_name(name)) {
            ("groq", _) => &["json", "text", "verbose_json"],
            (_, "gpt-4o-transcribe-diarize") => &["json", "text", "diarized_json"],
            (_, model) if model.starts_with("gpt-4o") => &["json", "text"],
            _ => &["json", "text", "srt", "verbose_json", "vtt"],
        };
        if !formats.contains(&format) {
            return Err(wrong("response_format", &format!("'{format}' is not one of {formats:?}")));
        }
        let times: Vec<&str> = fields
            .iter()
            .filter(|field| field.name == "timestamp_granularities[]")
            .map(multipart::Field::text)
            .collect::<Result<_, _>>()?;
        if !times.is_empty() && format != "verbose_json" {
            return Err(wrong("timestamp_granularities", "needs response_format=verbose_json"));
        }
        if let Some(response) = self.act(key, name, &script, self.ids()).await? {
            return Ok(response);
        }
        let heard = sound::listen(&file.content, is_silent(&script));
        let words = || {
            let bare = |word: &str| word.trim_matches(|c: char| !c.is_alphanumeric()).to_owned();
            let words = heard.words();
            let words =
                words.iter().map(|it| json!({"word": bare(it.word), "start": it.start, "end": it.end}));
            words.collect::<Vec<_>>()
        };
        let segment = json!({
            "id": 0, "seek": 0, "start": 0.0, "end": heard.duration, "text": format!(" {}", heard.text),
            "tokens": [50364], "temperature": 0.0, "avg_logprob": -0.25, "compression_ratio": 1.0,
            "no_speech_prob": 0.01,
        });
        let segments = || if heard.text.is_empty() { Vec::new() } else { vec![segment.clone()] };
        let seconds = heard.duration.ceil();
        Ok(match format {
            "text" => play(format!("{}\n", heard.text), "text/plain; charset=utf-8", &script),
            "srt" => play(subtitles(&heard, ',', ""), "text/plain; charset=utf-8", &script),
            "vtt" => play(subtitles(&heard, '.', "WEBVTT\n\n"), "text/vtt; charset=utf-8", &script),
            "verbose_json" => {
                let mut answer = json!({
                    "task": if translate { "translate" } else { "transcribe" },
                    "language": "english", "duration": heard.duration, "text": heard.text,
                    "usage": {"type": "duration", "seconds": seconds},
                });
                if times.is_empty() || times.contains(&"segment") {
                    answer["segments"] = segments().into();
                }
                if times.contains(&"word") {
                    answer["words"] = words().into();
                }
                play(json(&answer), super::JSON, &script)
            }
            "diarized_json" => {
                let turn = json!({"type": "transcript.text.segment", "id": "seg_0", "start": 0.0,
                    "end": heard.duration, "text": heard.text, "speaker": "A"});
                let answer = json!({"task": "transcribe", "duration": heard.duration, "text": heard.text,
                    "segments": [turn], "usage": {"type": "duration", "seconds": seconds}});
                play(json(&answer), super::JSON, &script)
            }
            _ if vendors_name(name).starts_with("gpt-4o") => {
                let sound = (heard.duration * 10.0).ceil() as u64;
                let text = heard.text.len() as u64 / 4;
                let answer = json!({"text": heard.text, "usage": {"type": "tokens", "input_tokens": sound,
                    "input_token_details": {"text_tokens": 0, "audio_tokens": sound}, "output_tokens": text,
                    "total_tokens": sound + text}});
                play(json(&answer), super::JSON, &script)
            }
            _ => {
                let answer = json!({"text": heard.text, "usage": {"type": "duration", "seconds": seconds}});
                play(json(&answer), super::JSON, &script)
            }
        })
    }
}

fn subtitles(heard: &sound::Heard, point: char, head: &str) -> String {
    if heard.text.is_empty() {
        return head.to_owned();
    }
    let millis = (heard.duration * 1000.0) as u64;
    let end = format!(
        "{:02}:{:02}:{:02}{point}{:03}",
        millis / 3_600_000,
        millis / 60_000 % 60,
        millis / 1000 % 60,
        millis % 1000
    );
    let number = if head.is_empty() { "1\n" } else { "" };
    format!("{head}{number}00:00:00{point}000 --> {end}\n{}\n\n", heard.text)
}
