//! Sound and pictures: OpenAI's audio and image endpoints with the refusals of those who only look like it, Deepgram,
//! AssemblyAI, and Gemini's answers with pictures.
//!
//! What is heard is told by the file alone: how long it is, how many bytes of which kind, and a checksum, so that a test
//! sees whether all of it arrived. A WAV file of silence says nothing.

mod assemblyai;
mod deepgram;
mod edits;
mod gemini;
mod multipart;
mod pictures;
mod sound;
mod speech;
mod transcripts;

use bytes::Bytes;
use http::{HeaderValue, Method, Response, header, request::Parts};
use serde_json::Value;

pub(crate) use self::assemblyai::Archive;
use crate::{
    SimBody, Simulator,
    ask::Ask,
    body,
    check::Wording,
    dialect::{Dialect, bearer, header as header_of},
    refusal::Refusal,
    route,
    script::{Content, Fault, Script},
    stage::{self, Ids},
};

const JSON: &str = "application/json";

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Media {
    Transcripts {
        translate: bool,
    },
    Speech,
    Pictures,
    Edits,
    /// A picture that was painted before.
    Picture,
    GeminiPictures {
        model: String,
    },
    Deepgram,
    AssemblyUpload,
    AssemblyTranscripts,
    AssemblyTranscript {
        id: String,
    },
}

/// A request for it. `house` is the path's first segment if it is not the vendor's own: some houses have rules of their
/// own (`xai`, `together`, `groq`, `retired`).
pub(crate) struct Errand<'a> {
    pub(crate) media: Media,
    pub(crate) house: &'a str,
}

impl<'a> Errand<'a> {
    /// Reads the path.
    pub(crate) fn of(parts: &'a Parts, body: &[u8]) -> Option<Self> {
        let path = parts.uri.path();
        if let Some(media) = media(path, body) {
            return Some(Self { media, house: "" });
        }
        let below = path.strip_prefix('/')?;
        let (house, _) = below.split_once('/')?;
        media(&below[house.len()..], body).map(|media| Self { media, house })
    }

    fn method_fits(&self, method: &Method) -> bool {
        match self.media {
            Media::Picture => *method == Method::GET,
            Media::AssemblyTranscripts => *method == Method::POST || *method == Method::GET,
            Media::AssemblyTranscript { .. } => *method == Method::GET || *method == Method::DELETE,
            _ => *method == Method::POST,
        }
    }

    fn wording(&self) -> &'static dyn Wording {
        match self.media {
            Media::Deepgram => &deepgram::Deepgram,
            Media::AssemblyUpload | Media::AssemblyTranscripts | Media::AssemblyTranscript { .. } => {
                &assemblyai::AssemblyAi
            }
            Media::GeminiPictures { .. } => Dialect::Gemini.wire(),
            _ => Dialect::OpenAi.wire(),
        }
    }

    fn key(&self, parts: &Parts) -> Option<String> {
        match self.media {
            Media::Deepgram => {
                let key = header_of(&parts.headers, "authorization")?;
                Some(key.strip_prefix("Token ")?.trim().to_owned())
            }
            // A scheme before the key makes it another key.
            Media::AssemblyUpload | Media::AssemblyTranscripts | Media::AssemblyTranscript { .. } => {
                header_of(&parts.headers, "authorization").filter(|key| !key.contains(' '))
            }
            Media::GeminiPictures { .. } => Dialect::Gemini.wire().key(parts),
            _ => bearer(&parts.headers),
        }
    }
}

fn media(path: &str, body: &[u8]) -> Option<Media> {
    Some(match path {
        "/v1/audio/transcriptions" => Media::Transcripts { translate: false },
        "/v1/audio/translations" => Media::Transcripts { translate: true },
        "/v1/audio/speech" => Media::Speech,
        "/v1/images/generations" => Media::Pictures,
        "/v1/images/edits" => Media::Edits,
        "/v1/listen" => Media::Deepgram,
        "/v2/upload" => Media::AssemblyUpload,
        "/v2/transcript" => Media::AssemblyTranscripts,
        _ if path.starts_with("/v1/pictures/") => Media::Picture,
        _ => {
            if let Some(id) = path.strip_prefix("/v2/transcript/") {
                return (!id.contains('/')).then(|| Media::AssemblyTranscript { id: id.to_owned() });
            }
            let tail = path.strip_prefix("/v1beta/models/").or_else(|| path.strip_prefix("/v1/models/"))?;
            let model = route::decoded(tail.strip_suffix(":generateContent")?)?;
            return gemini::wants_pictures(body).then_some(Media::GeminiPictures { model });
        }
    })
}

impl Simulator {
    /// Answers it.
    pub(crate) async fn media(&self, errand: Errand<'_>, parts: &Parts, body: &Bytes) -> Response<SimBody> {
        let ids = self.ids();
        let wording = errand.wording();
        let answered = if errand.method_fits(&parts.method) {
            match self.judge_key(errand.key(parts), wording, errand.media == Media::Picture) {
                Ok(key) => self.run(&errand, &key, parts, body, ids).await,
                Err(refusal) => Err(refusal),
            }
        } else {
            Err(Refusal::status(405, format!("{} is not allowed here", parts.method)))
        };
        let mut response = answered.unwrap_or_else(|refusal| refusal.respond(wording, &ids.request(), None));
        if let Ok(id) = HeaderValue::from_str(&ids.request()) {
            response.headers_mut().insert("x-request-id", id);
        }
        response
    }

    async fn run(
        &self,
        errand: &Errand<'_>,
        key: &str,
        parts: &Parts,
        body: &Bytes,
        ids: Ids,
    ) -> Result<Response<SimBody>, Refusal> {
        match &errand.media {
            Media::Transcripts { translate } => self.transcript(errand, *translate, key, parts, body).await,
            Media::Speech => self.speech(key, parts, body).await,
            Media::Pictures => self.pictures(errand, key, parts, body, ids).await,
            Media::Edits => self.edits(errand, key, parts, body, ids).await,
            Media::Picture => Ok(document(pictures::png(), "image/png")),
            Media::GeminiPictures { model } => {
                self.gemini_pictures(key, model, &parts.headers, body, ids).await
            }
            Media::Deepgram => self.deepgram(key, parts, body, ids).await,
            Media::AssemblyUpload => self.archive.upload(body, ids),
            Media::AssemblyTranscripts if parts.method == Method::GET => Ok(self.archive.list()),
            Media::AssemblyTranscripts => self.order(key, parts, body, ids).await,
            Media::AssemblyTranscript { id } if parts.method == Method::DELETE => self.archive.delete(id),
            Media::AssemblyTranscript { id } => self.archive.look(id),
        }
    }

    /// Waits, fails and refuses as the model's name wants it; `Some` is the answer.
    async fn act(
        &self,
        key: &str,
        model: &str,
        script: &Script,
        ids: Ids,
    ) -> Result<Option<Response<SimBody>>, Refusal> {
        if !script.delay.is_zero() {
            tokio::time::sleep(script.delay).await;
        }
        if script.fault == Some(Fault::Hang) {
            std::future::pending::<()>().await;
        }
        let is_failing = script.fail_first.is_none_or(|first| self.fails(key, model, first));
        if !is_failing {
            return Ok(None);
        }
        if let Some(response) = stage::canned(script, Dialect::OpenAi.wire(), &Ask::default(), ids) {
            return Ok(Some(response));
        }
        match (script.error, script.fail_first) {
            (Some(status), _) => Err(stage::scripted_refusal(script, status)),
            (None, Some(_)) => Err(stage::scripted_refusal(script, 503)),
            (None, None) => Ok(None),
        }
    }
}

/// A model's name: one of a vendor's, or words, or a vendor's and behind a comma words.
fn script(name: &str, known: &[&str], wording: &dyn Wording) -> Result<Script, Refusal> {
    let words = match name.split_once(',') {
        Some((vendors, words)) if known.contains(&vendors) => words,
        None if known.contains(&name) => "echo",
        _ => name,
    };
    Script::parse(words).map_err(|reason| wording.no_model(name, &reason))
}

/// What the vendor's own name is in a model's name.
fn vendors_name(name: &str) -> &str {
    name.split_once(',').map_or(name, |(vendors, _)| vendors)
}

/// A document that is sent as the script wants it.
fn play(bytes: impl Into<Bytes>, content_type: &'static str, script: &Script) -> Response<SimBody> {
    let mut response = Response::new(stage::played(bytes.into(), script));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// A document that is there at once.
fn document(bytes: impl Into<Bytes>, content_type: &'static str) -> Response<SimBody> {
    let mut response = Response::new(body::whole(bytes.into()));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

fn json(value: &Value) -> Bytes {
    value.to_string().into()
}

fn is_silent(script: &Script) -> bool {
    script.content == Content::Empty
}

/// What a request's content is said to be, without parameters.
fn content_type(parts: &Parts) -> String {
    let whole = header_of(&parts.headers, "content-type").unwrap_or_default();
    whole.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}
