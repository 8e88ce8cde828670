//! OpenAI's speech: a tone of 60 ms for each character.

use bytes::Bytes;
use http::{Response, request::Parts};
use serde_json::Value;

use super::{content_type, is_silent, play, script, sound};
use crate::{SimBody, Simulator, check::At, openai::OpenAi, refusal::Refusal};

const KNOWN: &[&str] = &["tts-1", "tts-1-hd", "gpt-4o-mini-tts"];
const VOICES: &[&str] =
    &["alloy", "ash", "ballad", "coral", "echo", "fable", "nova", "onyx", "sage", "shimmer", "verse"];
/// Samples of a character.
const SAMPLES: u32 = 960;
/// The longest text.
const MAX_TEXT: usize = 4096;

impl Simulator {
    pub(super) async fn speech(
        &self,
        key: &str,
        parts: &Parts,
        body: &Bytes,
    ) -> Result<Response<SimBody>, Refusal> {
        if content_type(parts) != super::JSON {
            return Err(Refusal::request("the content type must be application/json"));
        }
        let body: Value =
            serde_json::from_slice(body).map_err(|error| Refusal::request(format!("no JSON: {error}")))?;
        let root = At::root(&body, &OpenAi);
        root.known(&[&[
            "model",
            "input",
            "voice",
            "response_format",
            "speed",
            "instructions",
            "stream_format",
        ]])?;
        let name = root.need("model")?.text()?;
        let script = script(name, KNOWN, &OpenAi)?;
        let input = root.need("input")?;
        let characters = input.text()?.chars().count();
        if characters > MAX_TEXT {
            return Err(input.wrong(&format!("has at most {MAX_TEXT} characters")));
        }
        root.need("voice")?.one_of(VOICES)?;
        if let Some(speed) = root.get("speed") {
            speed.number(0.25, 4.0)?;
        }
        let format = match root.get("response_format") {
            Some(format) => format.one_of(&["mp3", "wav", "pcm"])?,
            None => "mp3",
        };
        if let Some(response) = self.act(key, name, &script, self.ids()).await? {
            return Ok(response);
        }
        let samples = SAMPLES * u32::try_from(characters).unwrap_or(0);
        let wav = sound::wav(samples, is_silent(&script));
        Ok(match format {
            "wav" => play(wav, "audio/wav", &script),
            "pcm" => play(wav[44..].to_vec(), "audio/pcm", &script),
            _ => play(silent_mp3(samples), "audio/mpeg", &script),
        })
    }
}

/// Frames of silence: 128 kbit/s, 44.1 kHz, one channel; a frame has 1152 samples.
fn silent_mp3(samples: u32) -> Vec<u8> {
    const FRAME: usize = 417;
    let frames = (u64::from(samples) * 44_100 / 16_000).div_ceil(1152).max(1);
    let mut file = Vec::with_capacity(frames as usize * FRAME);
    for _ in 0..frames {
        file.extend(b"\xff\xfb\x90\xc0");
        file.resize(file.len() + FRAME - 4, 0);
    }
    file
}
