//! Answers from memory: what benchmarks and load tests ask for costs next to nothing here.
//!
//! Models whose names begin with `bench-` are found by looking for the bytes `"model":` and are answered without
//! reading the rest. Inside a JSON string the quotes would be escaped, so the search cannot be led astray by a prompt.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};

use bytes::Bytes;
use http::{HeaderValue, Response, header};
use memchr::memmem;

use crate::{
    SimBody,
    ask::Ask,
    body,
    dialect::{Answer, Dialect},
    frame::{Framer, Frames},
    reply::Reply,
    route::{Route, Streaming},
    script::Script,
    stage::Ids,
};

/// Different answers that are kept.
const MAX_ANSWERS: usize = 256;

/// Prepared answers.
#[derive(Debug, Default)]
pub(crate) struct Shelf {
    answers: RwLock<HashMap<Key, Prepared>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    dialect: Dialect,
    stream: Streaming,
    include_usage: bool,
    model: String,
}

#[derive(Debug, Clone)]
enum Prepared {
    Whole(Bytes),
    Stream(Frames, Arc<[Bytes]>),
}

impl Shelf {
    /// The answer, if the request is of this kind. `None` also for names that are not understood.
    pub(crate) fn answer(&self, route: &Route, request: &[u8]) -> Option<Response<SimBody>> {
        let model = match &route.model {
            Some(model) if model.starts_with("bench-") => model,
            Some(_) => return None,
            None => model(request)?,
        };
        let wire = route.dialect.wire();
        let stream = match route.stream {
            Some(stream) => stream,
            None if streams(request, wire.streams_unasked()) => Streaming::Sse,
            None => Streaming::Whole,
        };
        let key = Key {
            dialect: route.dialect,
            stream,
            include_usage: stream == Streaming::Sse && is_true(request, b"\"include_usage\":"),
            model: model.to_owned(),
        };
        let known = self.answers.read().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        let answer = match known {
            Some(answer) => answer,
            None => {
                let answer = prepare(&key)?;
                let mut answers = self.answers.write().unwrap_or_else(PoisonError::into_inner);
                if answers.len() >= MAX_ANSWERS {
                    answers.clear();
                }
                answers.insert(key, answer.clone());
                answer
            }
        };
        let (content_type, body) = match answer {
            Prepared::Whole(bytes) => ("application/json", body::whole(bytes)),
            Prepared::Stream(kind, frames) => (kind.content_type(), body::prepared(frames)),
        };
        let mut response = Response::new(body);
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        Some(response)
    }
}

fn model(request: &[u8]) -> Option<&str> {
    let value = value(request, b"\"model\":")?;
    let value = value.strip_prefix(b"\"")?;
    if !value.starts_with(b"bench-") {
        return None;
    }
    let end = memchr::memchr(b'"', value.get(..value.len().min(128))?)?;
    std::str::from_utf8(&value[..end]).ok()
}

/// Whether the request wants a stream; one that says nothing gets what is usual.
fn streams(request: &[u8], usual: bool) -> bool {
    value(request, b"\"stream\":").map_or(usual, |value| value.starts_with(b"true"))
}

fn is_true(request: &[u8], name: &[u8]) -> bool {
    value(request, name).is_some_and(|value| value.starts_with(b"true"))
}

fn value<'a>(request: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let at = memmem::find(request, name)?;
    Some(request[at + name.len()..].trim_ascii_start())
}

fn prepare(key: &Key) -> Option<Prepared> {
    let script = Script::parse(&key.model).ok().filter(|script| script.bench)?;
    let ask = Ask {
        model: key.model.clone(),
        stream: key.stream != Streaming::Whole,
        frames: if key.stream == Streaming::Array { Frames::Array } else { key.dialect.wire().frames() },
        include_usage: key.include_usage,
        answers: 1,
        characters: 400,
        messages: 1,
        ..Ask::default()
    };
    let reply = Reply::compose(&script, &ask);
    let answer = Answer { script: &script, ask: &ask, reply: &reply, ids: Ids(0) };
    let wire = key.dialect.wire();
    if !ask.stream {
        return Some(Prepared::Whole(wire.whole(&answer)));
    }
    let mut framer = Framer::new(ask.frames, &script);
    let mut frames: Vec<Bytes> = wire.events(&answer).iter().map(|event| framer.frame(event)).collect();
    frames.extend(framer.end());
    Some(Prepared::Stream(ask.frames, frames.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_such_models_are_answered_unread() {
        for (body, expected) in [
            (r#"{"model":"bench-size-1k","messages":[]}"#, Some("bench-size-1k")),
            (r#"{"messages":[], "model": "bench-chunks-3"}"#, Some("bench-chunks-3")),
            (r#"{"messages":[{"content":"\"model\":\"bench-x\""}],"model":"echo"}"#, None),
            (r#"{"model":"echo"}"#, None),
            (r#"{"model":"bench-"#, None),
            (r#"{"model":1}"#, None),
            ("", None),
        ] {
            assert_eq!(model(body.as_bytes()), expected, "{body}");
        }
    }

    #[test]
    fn streams_are_told_from_whole_answers() {
        for (request, usual, expected) in [
            (r#"{"stream": true}"#, false, true),
            (r#"{"stream":false}"#, true, false),
            (r#"{"a":"\"stream\":true"}"#, false, false),
            ("{}", true, true),
        ] {
            assert_eq!(streams(request.as_bytes(), usual), expected, "{request}");
        }
    }
}
