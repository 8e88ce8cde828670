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
mod openai;
mod refusal;
mod reply;
mod schema;
mod script;
mod server;
mod stage;

use std::{
    collections::HashMap,
    io,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method, Request, Response, header, request::Parts};
use http_body_util::combinators::UnsyncBoxBody;
use omniroute_wire::json_out::Object;

pub use server::serve;

use crate::{
    refusal::Refusal,
    reply::Reply,
    script::{Fault, Framing, Script},
    stage::Ids,
};

/// The body of an answer.
pub type SimBody = UnsyncBoxBody<Bytes, io::Error>;

/// Models that the list shows; others are made up by their names.
pub const LISTED_MODELS: &[&str] = &["echo", "lorem", "tools", "reasoning", "image"];

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
}

/// Whose wire format is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Vendor {
    OpenAi,
    Anthropic,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    Chat,
    Messages,
    CountTokens,
    Models,
}

impl Simulator {
    /// A simulator that has not been asked anything yet.
    pub fn new(access: Access) -> Self {
        Self {
            access,
            next_id: AtomicU64::new(1),
            failures: Mutex::new(HashMap::new()),
            shelf: bench::Shelf::default(),
        }
    }

    /// Answers one request. The path is `/v1/…` or that below one segment of any name.
    pub async fn respond(&self, request: Request<Bytes>) -> Response<SimBody> {
        let (parts, body) = request.into_parts();
        let vendor = Vendor::of(&parts);
        let Some((operation, rest)) = operation(parts.uri.path()) else {
            let refusal =
                Refusal { code: None, ..Refusal::status(404, format!("no such path: {}", parts.uri.path())) };
            return refusal.respond(vendor, &self.ids().request());
        };
        let method = if operation == Operation::Models { Method::GET } else { Method::POST };
        if parts.method != method {
            let refusal = Refusal::status(405, format!("{} is not allowed here, use {method}", parts.method));
            let mut response = refusal.respond(vendor, &self.ids().request());
            if let Ok(allowed) = HeaderValue::from_str(method.as_str()) {
                response.headers_mut().insert(header::ALLOW, allowed);
            }
            return response;
        }
        if matches!(operation, Operation::Chat | Operation::Messages)
            && let Some(response) = self.shelf.answer(vendor, &body)
        {
            return response;
        }
        let ids = self.ids();
        let answered = match operation {
            Operation::Models => self.key(vendor, &parts.headers).and_then(|_| models(vendor, rest, ids)),
            Operation::CountTokens => self.count(&parts.headers, &body, ids),
            Operation::Chat | Operation::Messages => self.converse(vendor, &parts.headers, &body, ids).await,
        };
        answered.unwrap_or_else(|refusal| refusal.respond(vendor, &ids.request()))
    }

    async fn converse(
        &self,
        vendor: Vendor,
        headers: &HeaderMap,
        body: &[u8],
        ids: Ids,
    ) -> Result<Response<SimBody>, Refusal> {
        let key = self.key(vendor, headers)?;
        let body = json(headers, body)?;
        let mut ask = match vendor {
            Vendor::OpenAi => openai::read(&body)?,
            Vendor::Anthropic => anthropic::read(headers, &body, false)?,
        };
        let script = Script::parse(&ask.model).map_err(|reason| Refusal {
            param: Some("model".to_owned()),
            ..Refusal::status(404, format!("there is no model '{}': {reason}", ask.model))
        })?;
        if !script.delay.is_zero() {
            tokio::time::sleep(script.delay).await;
        }
        if script.fault == Some(Fault::Hang) {
            std::future::pending::<()>().await;
        }
        if let Some(limit) = script.window
            && ask.prompt_tokens() > limit
        {
            return Err(too_long(vendor, ask.prompt_tokens(), limit));
        }
        match script.framing {
            Framing::AsAsked => {}
            Framing::Whole => ask.stream = false,
            Framing::Stream => ask.stream = true,
        }
        let failing = match script.fail_first {
            Some(first) => self.fails(key, &ask.model, first),
            None => true,
        };
        if failing {
            if let Some(response) = stage::canned(&script, vendor, ask.stream, ids) {
                return Ok(response);
            }
            match (script.error, script.fail_first) {
                (Some(status), _) => return Err(stage::scripted_refusal(&script, status)),
                (None, Some(_)) => return Err(stage::scripted_refusal(&script, 503)),
                (None, None) => {}
            }
        }
        let mut reply = Reply::compose(&script, &ask);
        if let Some(Fault::Huge(_)) = script.fault {
            reply.text = stage::FLOOD_MARK.to_owned();
            reply.calls.clear();
        }
        Ok(match (ask.stream, vendor) {
            (true, Vendor::OpenAi) => {
                stage::stream(&script, openai::answer::events(&script, &ask, &reply, &ids), vendor, ids)
            }
            (true, Vendor::Anthropic) => {
                stage::stream(&script, anthropic::answer::events(&script, &ask, &reply, &ids), vendor, ids)
            }
            (false, Vendor::OpenAi) => {
                stage::whole(&script, openai::answer::whole(&script, &ask, &reply, &ids), vendor, ids)
            }
            (false, Vendor::Anthropic) => {
                stage::whole(&script, anthropic::answer::whole(&script, &ask, &reply, &ids), vendor, ids)
            }
        })
    }

    fn count(&self, headers: &HeaderMap, body: &[u8], ids: Ids) -> Result<Response<SimBody>, Refusal> {
        self.key(Vendor::Anthropic, headers)?;
        let ask = anthropic::read(headers, &json(headers, body)?, true)?;
        let document = anthropic::answer::count(&ask);
        Ok(stage::head(body::whole(document), "application/json", Vendor::Anthropic, ids))
    }

    /// The caller's key, or why it is not accepted.
    fn key<'a>(&self, vendor: Vendor, headers: &'a HeaderMap) -> Result<&'a str, Refusal> {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let bearer = text("authorization").and_then(|value| value.strip_prefix("Bearer ")).map(str::trim);
        let key = match vendor {
            Vendor::OpenAi => bearer,
            Vendor::Anthropic => text("x-api-key").or(bearer),
        };
        let key = key.unwrap_or_default();
        if key.is_empty() && self.access == Access::KeyNeeded {
            let place = match vendor {
                Vendor::OpenAi => "send it as 'Authorization: Bearer …'",
                Vendor::Anthropic => "send it as 'x-api-key'",
            };
            return Err(Refusal::status(401, format!("the API key is missing: {place}")));
        }
        if key.starts_with("sk-bad") {
            return Err(Refusal::status(401, "this API key is not correct"));
        }
        if key.starts_with("sk-limited") {
            let refusal = Refusal::status(429, "this API key has reached its rate limit, try again in 2s");
            return Err(Refusal { retry: Some(Duration::from_secs(2)), ..refusal });
        }
        if key.starts_with("sk-broke") {
            return Err(Refusal::quota(vendor));
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

impl Vendor {
    /// Told by the path, and for lists by the version header.
    pub(crate) fn of(parts: &Parts) -> Self {
        match operation(parts.uri.path()) {
            Some((Operation::Messages | Operation::CountTokens, _)) => Self::Anthropic,
            Some((Operation::Models, _)) if parts.headers.contains_key("anthropic-version") => {
                Self::Anthropic
            }
            _ => Self::OpenAi,
        }
    }
}

/// The operation, and what stands behind `/models/`.
fn operation(path: &str) -> Option<(Operation, Option<&str>)> {
    let tail = match path.strip_prefix("/v1/") {
        Some(tail) => tail,
        None => path.strip_prefix('/')?.split_once('/')?.1.strip_prefix("v1/")?,
    };
    match tail {
        "chat/completions" => Some((Operation::Chat, None)),
        "messages" => Some((Operation::Messages, None)),
        "messages/count_tokens" => Some((Operation::CountTokens, None)),
        "models" => Some((Operation::Models, None)),
        _ => tail.strip_prefix("models/").map(|name| (Operation::Models, Some(name))),
    }
}

fn json(headers: &HeaderMap, body: &[u8]) -> Result<serde_json::Value, Refusal> {
    let content_type =
        headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !content_type.trim_start().to_ascii_lowercase().starts_with("application/json") {
        return Err(Refusal::request("the content type must be application/json"));
    }
    match serde_json::from_slice::<serde_json::Value>(body) {
        Ok(value) if value.is_object() => Ok(value),
        Ok(_) => Err(Refusal::request("the body must be a JSON object")),
        Err(error) => Err(Refusal::request(format!("the body is not JSON: {error}"))),
    }
}

fn too_long(vendor: Vendor, found: u64, limit: u64) -> Refusal {
    match vendor {
        Vendor::OpenAi => Refusal::field(
            "messages",
            "context_length_exceeded",
            format!("the maximum context length of this model is {limit} tokens, the messages have {found}"),
        ),
        Vendor::Anthropic => {
            Refusal::request(format!("prompt is too long: {found} tokens > {limit} maximum"))
        }
    }
}

fn models(vendor: Vendor, name: Option<&str>, ids: Ids) -> Result<Response<SimBody>, Refusal> {
    let mut out = BytesMut::with_capacity(512);
    match name {
        Some(name) => {
            Script::parse(name)
                .map_err(|reason| Refusal::status(404, format!("there is no model '{name}': {reason}")))?;
            model(Object::begin(&mut out), vendor, name, ids);
        }
        None => {
            let mut list = Object::begin(&mut out);
            if vendor == Vendor::OpenAi {
                list.str("object", "list");
            }
            let mut data = list.array("data");
            for name in LISTED_MODELS {
                model(data.object(), vendor, name, ids);
            }
            data.end();
            if vendor == Vendor::Anthropic {
                list.bool("has_more", false)
                    .opt_str("first_id", LISTED_MODELS.first().copied())
                    .opt_str("last_id", LISTED_MODELS.last().copied());
            }
            list.end();
        }
    }
    Ok(stage::head(body::whole(out.freeze()), "application/json", vendor, ids))
}

fn model(mut object: Object<'_>, vendor: Vendor, name: &str, ids: Ids) {
    match vendor {
        Vendor::OpenAi => {
            object.str("id", name).str("object", "model");
            object.u64("created", ids.created()).str("owned_by", "simulator");
        }
        Vendor::Anthropic => {
            object.str("type", "model").str("id", name).str("display_name", name);
            object.str("created_at", "2025-01-01T00:00:00Z");
        }
    }
    object.end();
}
