//! Deepgram's pre-recorded audio (<https://developers.deepgram.com/reference/speech-to-text/listen-pre-recorded>).

use bytes::Bytes;
use http::{Response, request::Parts};
use percent_encoding::percent_decode_str;
use serde_json::json;

use super::{content_type, is_silent, json, play, script, sound};
use crate::{SimBody, Simulator, check::Wording, refusal::Refusal, stage::Ids};

/// How it complains.
pub(super) struct Deepgram;

impl Wording for Deepgram {
    fn unknown(&self, _: &str, key: &str) -> Refusal {
        Refusal::field(key, "Bad Request", format!("Unknown query parameter: {key}"))
    }

    fn wrong(&self, path: &str, message: &str) -> Refusal {
        Refusal::field(path, "Bad Request", format!("Invalid {path}: {message}"))
    }

    fn no_key(&self) -> Refusal {
        Refusal { code: Some("INVALID_AUTH"), ..Refusal::status(401, "Invalid credentials.") }
    }

    fn bad_key(&self) -> Refusal {
        self.no_key()
    }

    fn broke(&self) -> Refusal {
        let message =
            "Project does not have enough credits for an ASR request and does not have an overage agreement.";
        Refusal { code: Some("ASR_PAYMENT_REQUIRED"), ..Refusal::status(402, message) }
    }

    fn no_model(&self, name: &str, reason: &str) -> Refusal {
        let message = format!("Bad Request: No such model/version combination found: {name} ({reason})");
        Refusal { code: Some("Bad Request"), ..Refusal::request(message) }
    }

    fn too_long(&self, found: u64, limit: u64) -> Refusal {
        Refusal::status(413, format!("{found} bytes are more than {limit}"))
    }

    fn document(&self, refusal: &Refusal, request_id: &str) -> Bytes {
        let code = refusal.code.map_or_else(|| format!("STATUS_{}", refusal.status), str::to_owned);
        json(&json!({"err_code": code, "err_msg": refusal.message, "request_id": request_id}))
    }
}

impl Simulator {
    pub(super) async fn deepgram(
        &self,
        key: &str,
        parts: &Parts,
        body: &Bytes,
        ids: Ids,
    ) -> Result<Response<SimBody>, Refusal> {
        let query: Vec<(&str, String)> = parts
            .uri
            .query()
            .unwrap_or_default()
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .map(|(name, value)| (name, percent_decode_str(value).decode_utf8_lossy().into_owned()))
            .collect();
        let of = |name: &str| query.iter().find(|(other, _)| *other == name).map(|(_, value)| value.as_str());
        for (name, value) in &query {
            match *name {
                "model" | "language" => {}
                "smart_format" | "punctuate" | "utterances" | "diarize" | "detect_language" => {
                    if value != "true" && value != "false" {
                        return Err(Deepgram.wrong(name, "must be true or false"));
                    }
                }
                name => return Err(Deepgram.unknown("", name)),
            }
        }
        let name = of("model").unwrap_or("base");
        let script = script(name, &["base", "nova-2", "nova-3", "enhanced", "whisper-large"], &Deepgram)?;
        if of("language").is_some() && of("detect_language") == Some("true") {
            return Err(Deepgram.wrong("detect_language", "cannot stand beside language"));
        }
        let content_type = content_type(parts);
        if content_type == "application/json" || content_type.starts_with("multipart/") {
            return Err(Deepgram.wrong("content-type", "send the audio itself as the body"));
        }
        if body.is_empty() || sound::kind(body) == "noise" {
            let message = "Bad Request: failed to process audio: corrupt or unsupported data";
            return Err(Refusal { code: Some("Bad Request"), ..Refusal::request(message) });
        }
        if let Some(response) = self.act(key, name, &script, ids).await? {
            return Ok(response);
        }
        // It looks for speech in films in vain.
        let heard = sound::listen(body, is_silent(&script) || content_type.starts_with("video/"));
        let is_diarized = of("diarize") == Some("true");
        let words: Vec<_> = heard
            .words()
            .iter()
            .map(|it| {
                let bare = it.word.trim_matches(|c: char| !c.is_alphanumeric()).to_lowercase();
                let mut word = json!({"word": bare, "start": it.start, "end": it.end, "confidence": 0.99,
                    "punctuated_word": it.word});
                if is_diarized {
                    word["speaker"] = 0.into();
                }
                word
            })
            .collect();
        let mut channel =
            json!({"alternatives": [{"transcript": heard.text, "confidence": 0.99, "words": words}]});
        if of("detect_language") == Some("true") {
            channel["detected_language"] = "en".into();
            channel["language_confidence"] = 0.98.into();
        }
        let mut results = json!({"channels": [channel]});
        if of("utterances") == Some("true") {
            results["utterances"] = if heard.text.is_empty() {
                json!([])
            } else {
                json!([{"start": 0.0, "end": heard.duration, "confidence": 0.99, "channel": 0,
                    "transcript": heard.text, "words": words, "speaker": 0, "id": ids.answer("utt_")}])
            };
        }
        let answer = json!({"metadata": {"request_id": ids.request(), "duration": heard.duration, "channels": 1,
            "models": [name]}, "results": results});
        Ok(play(json(&answer), super::JSON, &script))
    }
}
