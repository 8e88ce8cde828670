//! AssemblyAI's transcripts (<https://www.assemblyai.com/docs/api-reference/transcripts>): uploaded, ordered, and looked at
//! until they are there. Each look brings an order one step further: queued, processing, completed.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
};

use bytes::Bytes;
use http::{Response, request::Parts};
use serde_json::{Value, json};

use super::{document, is_silent, json, script, sound};
use crate::{
    SimBody, Simulator,
    check::{At, Wording},
    json_document,
    refusal::Refusal,
    script::{Fault, Script},
    stage::Ids,
};

/// Most uploads, and most orders, that are remembered.
const MAX_KEPT: usize = 1000;
const FIELDS: &[&str] = &[
    "audio_url",
    "speech_model",
    "speech_models",
    "language_code",
    "language_detection",
    "speaker_labels",
    "punctuate",
    "format_text",
];

/// How it complains.
pub(super) struct AssemblyAi;

impl Wording for AssemblyAi {
    fn unknown(&self, _: &str, key: &str) -> Refusal {
        Refusal::request(format!(
            "Invalid endpoint schema, please refer to documentation for examples: '{key}'"
        ))
    }

    fn wrong(&self, path: &str, message: &str) -> Refusal {
        Refusal::request(format!("'{path}' {message}"))
    }

    fn no_key(&self) -> Refusal {
        Refusal::status(401, "Authentication error, API token missing/invalid")
    }

    fn bad_key(&self) -> Refusal {
        self.no_key()
    }

    fn broke(&self) -> Refusal {
        Refusal::request("Your current account balance is negative. Please top up to continue using the API.")
    }

    fn no_model(&self, name: &str, reason: &str) -> Refusal {
        Refusal::request(format!("\"speech_model\" is not available: {name} ({reason})"))
    }

    fn too_long(&self, found: u64, limit: u64) -> Refusal {
        Refusal::request(format!("{found} bytes are more than {limit}"))
    }

    fn document(&self, refusal: &Refusal, _: &str) -> Bytes {
        json(&json!({"error": refusal.message}))
    }
}

/// What was uploaded and ordered.
#[derive(Debug, Default)]
pub(crate) struct Archive(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    uploads: VecDeque<(String, Bytes)>,
    orders: VecDeque<Order>,
}

#[derive(Debug)]
struct Order {
    id: String,
    looks: u32,
    script: Script,
    /// What will be answered when it is done; why it will not, in `Err`.
    outcome: Result<Value, String>,
}

impl Order {
    fn status(&self) -> &'static str {
        match (self.looks, &self.outcome) {
            (0, _) => "queued",
            (1, _) => "processing",
            _ if self.script.fault == Some(Fault::Stall(0)) => "processing",
            (_, Ok(_)) => "completed",
            (_, Err(_)) => "error",
        }
    }

    fn view(&self) -> Value {
        let mut view = json!({"id": self.id, "status": self.status(), "text": null, "words": null,
            "utterances": null, "language_code": null, "audio_duration": null, "error": null});
        match (self.status(), &self.outcome) {
            ("completed", Ok(Value::Object(done))) => {
                for (name, value) in done {
                    view[name] = value.clone();
                }
            }
            ("error", Err(reason)) => view["error"] = reason.as_str().into(),
            _ => {}
        }
        view
    }
}

impl Archive {
    fn lock(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn upload(&self, body: &Bytes, ids: Ids) -> Result<Response<SimBody>, Refusal> {
        if body.is_empty() {
            return Err(Refusal {
                status: 422,
                ..Refusal::request(
                    "Upload failed, please try again. If you continue to have issues please reach out to support@assemblyai.com",
                )
            });
        }
        let url = format!("https://cdn.assemblyai.invalid/upload/{}", ids.answer("up-"));
        let mut kept = self.lock();
        if kept.uploads.len() >= MAX_KEPT {
            kept.uploads.pop_front();
        }
        kept.uploads.push_back((url.clone(), body.clone()));
        Ok(document(json(&json!({"upload_url": url})), super::JSON))
    }

    pub(super) fn list(&self) -> Response<SimBody> {
        let kept = self.lock();
        let orders: Vec<_> =
            kept.orders.iter().map(|order| json!({"id": order.id, "status": order.status()})).collect();
        document(json(&json!({"page_details": {"limit": MAX_KEPT}, "transcripts": orders})), super::JSON)
    }

    pub(super) fn look(&self, id: &str) -> Result<Response<SimBody>, Refusal> {
        let mut kept = self.lock();
        let order = kept.orders.iter_mut().find(|order| order.id == id).ok_or_else(not_there)?;
        order.looks += 1;
        Ok(document(json(&order.view()), super::JSON))
    }

    pub(super) fn delete(&self, id: &str) -> Result<Response<SimBody>, Refusal> {
        let mut kept = self.lock();
        let at = kept.orders.iter().position(|order| order.id == id).ok_or_else(not_there)?;
        let view = kept.orders.remove(at).map(|order| order.view()).unwrap_or_default();
        Ok(document(json(&view), super::JSON))
    }
}

fn not_there() -> Refusal {
    Refusal::request("Transcript lookup error, transcript id not found")
}

impl Simulator {
    pub(super) async fn order(
        &self,
        key: &str,
        parts: &Parts,
        body: &Bytes,
        ids: Ids,
    ) -> Result<Response<SimBody>, Refusal> {
        let body = json_document(true, &parts.headers, body)?;
        let root = At::root(&body, &AssemblyAi);
        root.known(&[FIELDS])?;
        let url = root.need("audio_url")?.text()?.to_owned();
        // Accounts are of two ages, told by their keys here.
        let is_old = key.starts_with("old-");
        let name = match (root.get("speech_models"), root.get("speech_model")) {
            (Some(list), None) if !is_old => {
                let list = list.list()?;
                list[0].text()?.to_owned()
            }
            (None, Some(one)) if is_old => one.text()?.to_owned(),
            (Some(_), _) if is_old => return Err(AssemblyAi.unknown("", "speech_models")),
            (_, Some(_)) => {
                return Err(AssemblyAi.wrong("speech_model", "is deprecated, use 'speech_models'"));
            }
            (_, None) => return Err(AssemblyAi.missing("speech_models")),
        };
        let script = script(&name, &["best", "universal", "universal-2", "nano", "slam-1"], &AssemblyAi)?;
        if let Some(language) = root.get("language_code") {
            let code = language.text()?;
            if code.contains('-') || code.to_ascii_lowercase() != code {
                return Err(language.wrong("is not a valid language code"));
            }
            if root.get("language_detection").is_some_and(|it| it.value == &Value::Bool(true)) {
                return Err(language.wrong("cannot stand beside 'language_detection'"));
            }
        }
        for name in ["language_detection", "speaker_labels", "punctuate", "format_text"] {
            if let Some(flag) = root.get(name) {
                flag.bool()?;
            }
        }
        if let Some(response) = self.act(key, &name, &script, ids).await? {
            return Ok(response);
        }
        let language = root.get("language_code").map(|it| it.str().map(str::to_owned)).transpose()?;
        let is_diarized = root.get("speaker_labels").is_some_and(|it| it.value == &Value::Bool(true));
        let mut kept = self.archive.lock();
        let file = kept.uploads.iter().find(|(known, _)| *known == url).map(|(_, file)| file.clone());
        let outcome = match file {
            _ if script.fault == Some(Fault::End(0)) => Err("the script lets it fail".to_owned()),
            None => Err(format!("Download error, unable to download {url}")),
            Some(file) if sound::kind(&file) == "noise" => {
                Err("Transcoding failed. File does not appear to contain audio.".to_owned())
            }
            Some(file) => Ok(transcript(&file, &script, language.as_deref(), is_diarized)),
        };
        if kept.orders.len() >= MAX_KEPT {
            kept.orders.pop_front();
        }
        let order = Order { id: ids.answer("tr-"), looks: 0, script, outcome };
        let view = order.view();
        kept.orders.push_back(order);
        Ok(document(json(&view), super::JSON))
    }
}

fn transcript(file: &[u8], script: &Script, language: Option<&str>, is_diarized: bool) -> Value {
    let heard = sound::listen(file, is_silent(script));
    let millis = |seconds: f64| (seconds * 1000.0).round() as u64;
    let speaker = if is_diarized { Value::from("A") } else { Value::Null };
    let words: Vec<_> = heard
        .words()
        .iter()
        .map(|it| {
            json!({"text": it.word, "start": millis(it.start), "end": millis(it.end), "confidence": 0.99,
                "speaker": speaker})
        })
        .collect();
    let utterances = match (is_diarized, heard.text.is_empty()) {
        (false, _) => Value::Null,
        (true, true) => json!([]),
        (true, false) => {
            json!([{"speaker": "A", "text": heard.text, "start": 0, "end": millis(heard.duration),
            "confidence": 0.99, "words": words}])
        }
    };
    json!({"text": heard.text, "words": words, "utterances": utterances,
        "language_code": language.unwrap_or("en"), "audio_duration": heard.duration.ceil() as u64})
}
