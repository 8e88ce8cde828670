//! The provider's side of the conversation, without a network and without a key.
//!
//! A model's name says how it behaves: `echo`, `lorem`, `chunks-100`, `error-429-retry-2s`, `cut-3` and so on, all
//! of them in `docs/simulator.md`. [`Simulator::respond`] answers one request in this process; [`serve`] does the
//! same over HTTP for tests and benchmarks.
//!
//! It judges requests as strictly as the vendors do and names the field that is wrong. It writes the vendors' wire
//! shapes by itself and shares no code with the gateway's dialects: a stand-in built from the same parts would agree
//! with their mistakes.

mod anthropic;
mod ask;
mod bench;
mod body;
mod check;
mod dialect;
mod embeddings;
mod frame;
mod gemini;
mod media;
mod ollama;
mod openai;
mod refusal;
mod reply;
mod responses;
mod route;
mod schema;
mod script;
mod server;
mod signature;
mod stage;

use std::{
    collections::HashMap,
    io,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, header, request::Parts};
use http_body_util::combinators::UnsyncBoxBody;

pub use server::serve;

use crate::{
    check::Wording,
    dialect::{Answer, Incoming, Wire},
    refusal::Refusal,
    reply::{Finish, Reply},
    route::{Operation, Route},
    script::{Fault, Framing, Script},
    stage::Ids,
};

/// The body of an answer.
pub type SimBody = UnsyncBoxBody<Bytes, io::Error>;

/// Models that the list shows; others are made up by their names.
pub const LISTED_MODELS: &[&str] = &["echo", "lorem", "tools", "reasoning", "image", "embed"];

/// Keys whose failures are counted.
const MAX_COUNTED: usize = 10_000;

/// Whether callers must bring a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// No key is needed; one that is sent is looked at nevertheless.
    Open,
    /// Some key must be there, as with a real provider.
    KeyNeeded,
}

/// A provider that does what the model's name says.
#[derive(Debug)]
pub struct Simulator {
    access: Access,
    next_id: AtomicU64,
    /// Failures so far of a key and a model.
    failures: Mutex<HashMap<(String, String), u32>>,
    shelf: bench::Shelf,
    archive: media::Archive,
}

impl Simulator {
    /// A simulator that has not been asked anything yet.
    pub fn new(access: Access) -> Self {
        Self {
            access,
            next_id: AtomicU64::new(1),
            failures: Mutex::new(HashMap::new()),
            shelf: bench::Shelf::default(),
            archive: media::Archive::default(),
        }
    }

    /// Answers one request. The path is the vendor's own, or that below one segment of any name.
    pub async fn respond(&self, request: Request<Bytes>) -> Response<SimBody> {
        let (parts, body) = request.into_parts();
        if let Some(errand) = media::Errand::of(&parts, &body) {
            return self.media(errand, &parts, &body).await;
        }
        let Some(route) = Route::of(&parts) else {
            let refusal =
                Refusal { code: None, ..Refusal::status(404, format!("no such path: {}", parts.uri.path())) };
            return refusal.respond(route::dialect_of(&parts).wire(), &self.ids().request(), None);
        };
        let wire = route.dialect.wire();
        let method = route.method();
        if parts.method != method {
            let refusal = Refusal::status(405, format!("{} is not allowed here, use {method}", parts.method));
            let mut response = refusal.respond(wire, &self.ids().request(), None);
            if let Ok(allowed) = HeaderValue::from_str(method.as_str()) {
                response.headers_mut().insert(header::ALLOW, allowed);
            }
            return response;
        }
        if route.operation == Operation::Answer
            && !route.completes
            && let Some(response) = self.shelf.answer(&route, &body)
        {
            return response;
        }
        let ids = self.ids();
        let answered = match self.key(wire, &parts) {
            Err(refusal) => Err(refusal),
            Ok(key) => match route.operation {
                Operation::Answer => self.converse(&key, &route, &parts.headers, &body, ids).await,
                Operation::Count => count(&route, &parts.headers, &body, ids),
                Operation::Models => models(&route, ids),
                Operation::Model => shown(&route, &parts.headers, &body, ids),
                Operation::Embed(form) => self.embed(&key, &route, form, &parts.headers, &body, ids).await,
                Operation::Version => Ok(stage::document(wire.version(), wire, ids)),
            },
        };
        answered.unwrap_or_else(|refusal| refusal.respond(wire, &ids.request(), route.stream))
    }

    async fn converse(
        &self,
        key: &str,
        route: &Route,
        headers: &HeaderMap,
        body: &[u8],
        ids: Ids,
    ) -> Result<Response<SimBody>, Refusal> {
        let wire = route.dialect.wire();
        let body = json(wire, headers, body)?;
        let (model, mut script) = model(route, &body)?;
        if key.starts_with("sk-cut") {
            script.fault.get_or_insert(Fault::Cut(0));
        }
        let incoming = Incoming {
            headers,
            body: &body,
            model: &model,
            script: &script,
            stream: route.stream,
            completes: route.completes,
        };
        let mut ask = wire.read(&incoming)?;
        pause(&script).await;
        if let Some(limit) = script.window
            && ask.prompt_tokens() > limit
        {
            return Err(wire.too_long(ask.prompt_tokens(), limit));
        }
        match script.framing {
            Framing::AsAsked => {}
            Framing::Whole => ask.stream = false,
            Framing::Stream => ask.stream = true,
        }
        if let Some(response) = self.failure(key, &script, wire, &ask, ids)? {
            return Ok(response);
        }
        let mut reply = Reply::compose(&script, &ask);
        if let Some(Fault::Huge(_)) = script.fault {
            reply.text = stage::FLOOD_MARK.to_owned();
            reply.calls.clear();
            reply.finish = Finish::Stop;
        }
        let answer = Answer { script: &script, ask: &ask, reply: &reply, ids };
        Ok(if ask.stream { stage::stream(&answer, wire) } else { stage::whole(&answer, wire) })
    }

    async fn embed(
        &self,
        key: &str,
        route: &Route,
        form: embeddings::Form,
        headers: &HeaderMap,
        body: &[u8],
        ids: Ids,
    ) -> Result<Response<SimBody>, Refusal> {
        let wire = route.dialect.wire();
        let body = json(wire, headers, body)?;
        let (model, script) = model(route, &body)?;
        let incoming =
            Incoming { headers, body: &body, model: &model, script: &script, stream: None, completes: false };
        let wish = form.read(&incoming)?;
        pause(&script).await;
        if let Some(limit) = script.window
            && wish.ask.prompt_tokens() > limit
        {
            return Err(wire.too_long(wish.ask.prompt_tokens(), limit));
        }
        if let Some(response) = self.failure(key, &script, wire, &wish.ask, ids)? {
            return Ok(response);
        }
        Ok(stage::delivered(form.answer(&wish, &incoming), &script, wire, ids))
    }

    /// What the script wants in the place of an answer.
    fn failure(
        &self,
        key: &str,
        script: &Script,
        wire: &dyn Wire,
        ask: &ask::Ask,
        ids: Ids,
    ) -> Result<Option<Response<SimBody>>, Refusal> {
        let failing = match script.fail_first {
            Some(first) => self.fails(key, &ask.model, first),
            None => true,
        };
        if !failing {
            return Ok(None);
        }
        if let Some(response) = stage::canned(script, wire, ask, ids) {
            return Ok(Some(response));
        }
        match (script.error, script.fail_first) {
            // It is told in the middle of the answer.
            (Some(_), None) if matches!(script.fault, Some(Fault::ErrorAfter(_))) => Ok(None),
            (Some(status), _) => Err(stage::scripted_refusal(script, status)),
            (None, Some(_)) => Err(stage::scripted_refusal(script, 503)),
            (None, None) => Ok(None),
        }
    }

    /// The caller's key, or why it is not accepted.
    fn key(&self, wire: &dyn Wire, parts: &Parts) -> Result<String, Refusal> {
        self.judge_key(wire.key(parts), wire, wire.open())
    }

    fn judge_key(
        &self,
        key: Option<String>,
        wording: &dyn Wording,
        is_open: bool,
    ) -> Result<String, Refusal> {
        let key = key.unwrap_or_default();
        if key.is_empty() && self.access == Access::KeyNeeded && !is_open {
            return Err(wording.no_key());
        }
        if key.starts_with("sk-bad") {
            return Err(wording.bad_key());
        }
        if key.starts_with("sk-limited") {
            return Err(wording.limited());
        }
        if key.starts_with("sk-broke") {
            return Err(wording.broke());
        }
        Ok(key)
    }

    /// Whether this is one of the first requests of the key for the model.
    fn fails(&self, key: &str, model: &str, first: u32) -> bool {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        if failures.len() >= MAX_COUNTED {
            failures.clear();
        }
        let failed = failures.entry((key.to_owned(), model.to_owned())).or_default();
        if *failed < first {
            *failed += 1;
            return true;
        }
        false
    }

    fn ids(&self) -> Ids {
        Ids(self.next_id.fetch_add(1, Ordering::Relaxed))
    }
}

/// What passes before the head of an answer.
async fn pause(script: &Script) {
    if !script.delay.is_zero() {
        tokio::time::sleep(script.delay).await;
    }
    if script.fault == Some(Fault::Hang) {
        std::future::pending::<()>().await;
    }
}

fn count(route: &Route, headers: &HeaderMap, body: &[u8], ids: Ids) -> Result<Response<SimBody>, Refusal> {
    let wire = route.dialect.wire();
    let body = json(wire, headers, body)?;
    let (model, script) = model(route, &body)?;
    let incoming =
        Incoming { headers, body: &body, model: &model, script: &script, stream: None, completes: false };
    Ok(stage::document(wire.count(&incoming)?, wire, ids))
}

fn models(route: &Route, ids: Ids) -> Result<Response<SimBody>, Refusal> {
    let wire = route.dialect.wire();
    let document = match &route.model {
        Some(name) => {
            Script::parse(name).map_err(|reason| wire.no_model(name, &reason))?;
            wire.model(name, ids)
        }
        None => wire.models(LISTED_MODELS, ids),
    };
    Ok(stage::document(document, wire, ids))
}

fn shown(route: &Route, headers: &HeaderMap, body: &[u8], ids: Ids) -> Result<Response<SimBody>, Refusal> {
    let wire = route.dialect.wire();
    let (name, _) = model(route, &json(wire, headers, body)?)?;
    Ok(stage::document(wire.model(&name, ids), wire, ids))
}

/// The model that is asked for, and what its name says.
fn model(route: &Route, body: &serde_json::Value) -> Result<(String, Script), Refusal> {
    let wire = route.dialect.wire();
    let name = match &route.model {
        Some(name) => name.clone(),
        None => wire.model_name(body)?,
    };
    let script = Script::parse(&name).map_err(|reason| wire.no_model(&name, &reason))?;
    Ok((name, script))
}

fn json(wire: &dyn Wire, headers: &HeaderMap, body: &[u8]) -> Result<serde_json::Value, Refusal> {
    json_document(wire.typed(), headers, body)
}

/// A request's document; whether it has to say that it is one.
fn json_document(typed: bool, headers: &HeaderMap, body: &[u8]) -> Result<serde_json::Value, Refusal> {
    let content_type =
        headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if typed && !content_type.trim_start().to_ascii_lowercase().starts_with("application/json") {
        return Err(Refusal::request("the content type must be application/json"));
    }
    match serde_json::from_slice::<serde_json::Value>(body) {
        Ok(value) if value.is_object() => Ok(value),
        Ok(_) => Err(Refusal::request("the body must be a JSON object")),
        Err(error) => Err(Refusal::request(format!("the body is not JSON: {error}"))),
    }
}
