//! Every scripted behaviour, in all dialects.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

mod anthropic;
mod behaviour;
mod dialects;
mod embeddings;
mod gemini;
mod media;
mod odd;
mod ollama;
mod openai;
mod responses;
mod server;
mod streams;
mod words;

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::BodyExt as _;
use omniroute_sim::{Access, Simulator};
use serde_json::{Value, json};

use dialects::{ALL, Call, Dialect, call};

const SAID: &str = "What is up with the weather today?";

/// An answer, read to its end.
struct Answer {
    dialect: Dialect,
    status: u16,
    headers: HeaderMap,
    frames: Vec<Bytes>,
    /// The body broke off.
    broken: bool,
    /// From the call to the head, to the first frame, to the end; in the runtime's time.
    head_after: Duration,
    first_after: Duration,
    end_after: Duration,
}

impl Answer {
    fn bytes(&self) -> Vec<u8> {
        self.frames.concat()
    }

    fn raw(&self) -> String {
        String::from_utf8_lossy(&self.bytes()).into_owned()
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes()).unwrap_or_else(|error| panic!("{error}: {}", self.raw()))
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The message of a refusal.
    fn message(&self) -> String {
        let document = self.json();
        let text = document.pointer("/error/message").or(document.get("error")).and_then(Value::as_str);
        text.unwrap_or_else(|| panic!("no message: {document}")).to_owned()
    }
}

/// The members `more` put over `base`.
fn with(mut base: Value, more: Value) -> Value {
    if let (Some(base), Value::Object(more)) = (base.as_object_mut(), more) {
        base.extend(more);
    }
    base
}

async fn ask(call: Call) -> Answer {
    call.send(&simulator(), "sk-test").await
}

async fn send(simulator: &Simulator, dialect: Dialect, request: Request<Bytes>) -> Answer {
    let start = tokio::time::Instant::now();
    let response = simulator.respond(request).await;
    let head_after = start.elapsed();
    let (parts, mut body) = response.into_parts();
    let mut answer = Answer {
        dialect,
        status: parts.status.as_u16(),
        headers: parts.headers,
        frames: Vec::new(),
        broken: false,
        head_after,
        first_after: Duration::ZERO,
        end_after: Duration::ZERO,
    };
    while let Some(frame) = body.frame().await {
        if answer.frames.is_empty() {
            answer.first_after = start.elapsed();
        }
        match frame {
            Ok(frame) => answer.frames.push(frame.into_data().unwrap()),
            Err(_) => {
                answer.broken = true;
                break;
            }
        }
    }
    answer.end_after = start.elapsed();
    answer
}

fn simulator() -> Simulator {
    Simulator::new(Access::KeyNeeded)
}
