//! Gemini's answers with pictures (<https://ai.google.dev/gemini-api/docs/image-generation>).

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::{HeaderMap, Response};
use serde_json::{Value, json};

use super::{is_silent, json, pictures, play, script, sound};
use crate::{SimBody, Simulator, check::At, gemini::Gemini, json_document, refusal::Refusal, stage::Ids};

const KNOWN: &[&str] =
    &["gemini-2.5-flash-image", "gemini-3-pro-image", "gemini-3-pro-image-preview", "gemini-2.0-flash-exp"];
const KINDS: &[&str] = &["image/png", "image/jpeg", "image/webp", "image/heic", "image/heif"];
const PROPORTIONS: &[&str] = &["1:1", "2:3", "3:2", "3:4", "4:3", "4:5", "5:4", "9:16", "16:9", "21:9"];

/// Whether a request asks for pictures.
pub(super) fn wants_pictures(body: &[u8]) -> bool {
    // Most requests are conversations, and are not read twice.
    if memchr::memmem::find(body, b"responseModalities").is_none() {
        return false;
    }
    let Ok(body) = serde_json::from_slice::<Value>(body) else { return false };
    let modalities = body.get("generationConfig").and_then(|config| config.get("responseModalities"));
    modalities.and_then(Value::as_array).is_some_and(|list| list.iter().any(|it| it == "IMAGE"))
}

impl Simulator {
    pub(super) async fn gemini_pictures(
        &self,
        key: &str,
        name: &str,
        headers: &HeaderMap,
        body: &Bytes,
        ids: Ids,
    ) -> Result<Response<SimBody>, Refusal> {
        let script = script(name, KNOWN, &Gemini)?;
        let body = json_document(false, headers, body)?;
        let root = At::root(&body, &Gemini);
        root.known(&[&["contents", "generationConfig", "safetySettings", "systemInstruction"]])?;
        let (mut prompt, mut given) = (String::new(), Vec::new());
        for turn in root.need("contents")?.list()? {
            turn.known(&[&["role", "parts"]])?;
            for part in turn.need("parts")?.list()? {
                part.known(&[&["text", "inlineData"]])?;
                if let Some(text) = part.get("text") {
                    prompt.push_str(text.text()?);
                }
                if let Some(picture) = part.get("inlineData") {
                    picture.known(&[&["mimeType", "data"]])?;
                    picture.need("mimeType")?.one_of(KINDS)?;
                    let data = picture.need("data")?;
                    let bytes = BASE64_STANDARD.decode(data.text()?);
                    given.push(bytes.map_err(|_| data.wrong("Base64 decoding failed"))?);
                }
            }
        }
        let config = root.need("generationConfig")?;
        config.known(&[&["responseModalities", "imageConfig", "temperature", "seed", "topP"]])?;
        for modality in config.need("responseModalities")?.list()? {
            modality.one_of(&["TEXT", "IMAGE"])?;
        }
        if let Some(image) = config.get("imageConfig") {
            image.known(&[&["aspectRatio", "imageSize"]])?;
            image.get("aspectRatio").map(|it| it.one_of(PROPORTIONS)).transpose()?;
        }
        if let Some(response) = self.act(key, name, &script, ids).await? {
            return Ok(response);
        }
        let said = match given.as_slice() {
            [] => format!("A picture of: {prompt}"),
            given => {
                let bytes = given.concat();
                let (count, sum) = (given.len(), sound::sum(&bytes));
                format!("{prompt}: {count} pictures of {} bytes with the sum {sum:08x}", bytes.len())
            }
        };
        let tokens = prompt.chars().count().div_ceil(4);
        let candidate = if is_silent(&script) {
            json!({"finishReason": "IMAGE_SAFETY", "index": 0})
        } else {
            json!({"content": {"role": "model", "parts": [
                {"text": said},
                {"inlineData": {"mimeType": "image/png", "data": pictures::PNG}},
            ]}, "finishReason": "STOP", "index": 0})
        };
        let answer = json!({"candidates": [candidate], "usageMetadata": {"promptTokenCount": tokens,
            "candidatesTokenCount": 1290, "totalTokenCount": tokens + 1290}, "modelVersion": name,
            "responseId": ids.answer("")});
        Ok(play(json(&answer), super::JSON, &script))
    }
}
