//! Every scripted behaviour, in both dialects.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

mod anthropic;
mod behaviour;
mod openai;
mod server;

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::BodyExt as _;
use omniroute_sim::{Access, Simulator};
use serde_json::{Value, json};

/// An answer, read to its end.
struct Answer {
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

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes()).into_owned()
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes()).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// The data of all events; what is not JSON is a string.
    fn events(&self) -> Vec<Value> {
        let text = self.text().replace("\r\n", "\n");
        let data = |block: &str| {
            let data = block.lines().find_map(|line| line.strip_prefix("data: "))?;
            Some(serde_json::from_str(data).unwrap_or_else(|_| json!(data)))
        };
        text.split("\n\n").filter_map(data).collect()
    }

    /// The text that the events carry.
    fn streamed(&self) -> String {
        let piece = |event: &Value| {
            let openai = event.pointer("/choices/0/delta/content").and_then(Value::as_str);
            openai.or(event.pointer("/delta/text").and_then(Value::as_str)).map(str::to_owned)
        };
        self.events().iter().filter_map(piece).collect()
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

const CHAT: &str = "/v1/chat/completions";
const MESSAGES: &str = "/v1/messages";
const BOTH: [&str; 2] = [CHAT, MESSAGES];

/// A minimal request in the dialect of the path.
fn body(path: &str, model: &str, stream: bool) -> Value {
    let mut body = json!({"model": model, "stream": stream,
        "messages": [{"role": "user", "content": "What is up with the weather today?"}]});
    if path == MESSAGES {
        body["max_tokens"] = json!(1000);
    }
    body
}

/// The member `more` put over `base`.
fn with(mut base: Value, more: Value) -> Value {
    if let (Some(base), Value::Object(more)) = (base.as_object_mut(), more) {
        base.extend(more);
    }
    base
}

async fn ask(simulator: &Simulator, path: &str, body: &Value) -> Answer {
    ask_with(simulator, path, body, "sk-test").await
}

async fn ask_with(simulator: &Simulator, path: &str, body: &Value, key: &str) -> Answer {
    let mut request = Request::post(path).header("content-type", "application/json");
    if path == CHAT {
        request = request.header("authorization", format!("Bearer {key}"));
    } else {
        request = request.header("x-api-key", key).header("anthropic-version", "2023-06-01");
    }
    send(simulator, request.body(Bytes::from(body.to_string())).unwrap()).await
}

async fn send(simulator: &Simulator, request: Request<Bytes>) -> Answer {
    let start = tokio::time::Instant::now();
    let response = simulator.respond(request).await;
    let head_after = start.elapsed();
    let (parts, mut body) = response.into_parts();
    let mut answer = Answer {
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
