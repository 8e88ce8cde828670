//! Text to speech, in OpenAI's form: the request is passed on, the sound that comes back is not looked at.

use bytes::Bytes;

use crate::DecodeError;
use crate::json_body::{Change, JsonBody};
use crate::json_in::wrong_value;

/// Most characters of a text. The vendor takes 4096; others take more.
const MAX_CHARACTERS: usize = 100_000;

/// A text to be spoken.
#[derive(Debug, Clone)]
pub struct SpeechRequest {
    /// The model, as the client wrote it.
    pub model: String,
    /// How many characters are billed.
    pub characters: u64,
    body: JsonBody,
}

impl SpeechRequest {
    /// Reads a client's request.
    pub fn read(body: &[u8]) -> Result<Self, DecodeError> {
        let body = JsonBody::read(body)?;
        let model = body.need_str("model")?;
        let characters = body.need_str("input")?.chars().count();
        if characters > MAX_CHARACTERS {
            return Err(wrong_value("input", &format!("a text of at most {MAX_CHARACTERS} characters")));
        }
        Ok(Self { model, characters: characters as u64, body })
    }

    /// The same for an upstream.
    pub fn write(&self, model: &str) -> Bytes {
        self.body
            .write(|name, _| if name == "model" { Change::Str(model.to_owned()) } else { Change::Keep }, &[])
    }
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
}
