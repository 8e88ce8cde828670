//! What is asked.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Result, bail};
use bytes::Bytes;

use super::client::Load;

/// How a target is reached.
#[derive(Debug, Clone)]
pub(super) struct Setting {
    pub(super) address: SocketAddr,
    /// In front of model names, in turn; never empty.
    pub(super) prefixes: Vec<String>,
    pub(super) key: String,
}

impl Setting {
    /// A target that takes the simulator's own names.
    pub(super) fn plain(address: SocketAddr) -> Self {
        Self { address, prefixes: vec![String::new()], key: "sk-bench".to_owned() }
    }
}

/// One kind of request.
#[derive(Debug)]
pub(super) struct Scenario {
    pub(super) name: &'static str,
    pub(super) what: &'static str,
    pub(super) connections: usize,
    model: &'static str,
    dialect: Dialect,
    pub(super) stream: bool,
    /// Bytes of the prompt.
    prompt: usize,
    /// The simulator does not speak the client's dialect here, so that only the gateway can be asked.
    pub(super) gateway_only: bool,
    /// Asked through the gateways of many accounts and keys too.
    pub(super) compares_many: bool,
    /// What a good answer contains, and how often.
    marks: &'static [(&'static str, usize)],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dialect {
    OpenAi,
    Anthropic,
}

const WHOLE: &[(&str, usize)] = &[("Lorem ipsum", 4), ("\"finish_reason\":\"stop\"", 1)];
const CHUNKS: &[(&str, usize)] = &[("\"content\":\"", 101), ("[DONE]", 1)];
const TRANSLATED: &[(&str, usize)] = &[("Lorem ipsum", 4), ("\"stop_reason\":\"end_turn\"", 1)];
const TRANSLATED_CHUNKS: &[(&str, usize)] = &[("\"text_delta\"", 100), ("event: message_stop", 1)];

/// All scenarios. Names are stable: reports are compared by them.
pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario { name: "small-1", what: "1 KB answers", connections: 1, ..SMALL },
    Scenario { name: "small-32", what: "1 KB answers", connections: 32, compares_many: true, ..SMALL },
    Scenario {
        name: "translated-32",
        what: "1 KB answers, Anthropic → OpenAI",
        connections: 32,
        dialect: Dialect::Anthropic,
        gateway_only: true,
        marks: TRANSLATED,
        ..SMALL
    },
    Scenario { name: "small-256", what: "1 KB answers", connections: 256, ..SMALL },
    Scenario {
        name: "stream-32",
        what: "streams of 100 chunks",
        connections: 32,
        compares_many: true,
        ..STREAM
    },
    Scenario {
        name: "translated-stream-32",
        what: "streams of 100 chunks, Anthropic → OpenAI",
        connections: 32,
        dialect: Dialect::Anthropic,
        gateway_only: true,
        marks: TRANSLATED_CHUNKS,
        ..STREAM
    },
    Scenario { name: "large-32", what: "200 KB requests", connections: 32, prompt: 200 << 10, ..SMALL },
];

const SMALL: Scenario = Scenario {
    name: "",
    what: "",
    connections: 1,
    model: "bench-size-1k",
    dialect: Dialect::OpenAi,
    stream: false,
    prompt: 300,
    gateway_only: false,
    compares_many: false,
    marks: WHOLE,
};
const STREAM: Scenario = Scenario { model: "bench-chunks-100", stream: true, marks: CHUNKS, ..SMALL };

/// The scenarios of these names; all when there are none.
pub(super) fn chosen(names: &[String]) -> Result<Vec<&'static Scenario>> {
    if let Some(unknown) =
        names.iter().find(|name| !SCENARIOS.iter().any(|scenario| scenario.name == name.as_str()))
    {
        let known: Vec<&str> = SCENARIOS.iter().map(|scenario| scenario.name).collect();
        bail!("unknown scenario `{unknown}`, there are {}", known.join(", "));
    }
    let wanted = |scenario: &&Scenario| names.is_empty() || names.iter().any(|name| name == scenario.name);
    Ok(SCENARIOS.iter().filter(wanted).collect())
}

/// Scenarios that are compared with each other, to be measured in turn: one that only the gateway can do goes with
/// the one before it.
pub(super) fn groups(scenarios: &[&'static Scenario]) -> Vec<Vec<&'static Scenario>> {
    let mut groups: Vec<Vec<&Scenario>> = Vec::new();
    for scenario in scenarios {
        match groups.last_mut() {
            Some(group) if scenario.gateway_only => group.push(scenario),
            _ => groups.push(vec![scenario]),
        }
    }
    groups
}

/// A request that any healthy target answers with 200.
pub(super) fn small_request(setting: &Setting) -> Bytes {
    SMALL.request(setting, &setting.prefixes[0])
}

impl Scenario {
    pub(super) fn load(&self, setting: &Setting, duration: Duration) -> Load {
        Load {
            address: setting.address,
            requests: setting.prefixes.iter().map(|prefix| self.request(setting, prefix)).collect(),
            connections: self.connections,
            duration,
            marks: self.marks,
            length: 0,
        }
    }

    fn request(&self, setting: &Setting, prefix: &str) -> Bytes {
        let stream = if self.stream { r#""stream":true,"# } else { "" };
        let model = format!("{prefix}{}", self.model);
        let prompt = prompt(self.prompt);
        let (path, head, limit) = match self.dialect {
            Dialect::OpenAi => ("/v1/chat/completions", format!("authorization: Bearer {}", setting.key), ""),
            Dialect::Anthropic => (
                "/v1/messages",
                format!("x-api-key: {}\r\nanthropic-version: 2023-06-01", setting.key),
                r#""max_tokens":4096,"#,
            ),
        };
        let system = "You are a helpful assistant.";
        let messages = match self.dialect {
            Dialect::OpenAi => format!(
                r#""messages":[{{"role":"system","content":"{system}"}},{{"role":"user","content":"{prompt}"}}]"#
            ),
            Dialect::Anthropic => {
                format!(r#""system":"{system}","messages":[{{"role":"user","content":"{prompt}"}}]"#)
            }
        };
        let body = format!(r#"{{"model":"{model}",{limit}{stream}{messages}}}"#);
        Bytes::from(format!(
            "POST {path} HTTP/1.1\r\nhost: {}\r\n{head}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
             \r\n{body}",
            setting.address,
            body.len()
        ))
    }
}

/// Text with an escape now and then, as prompts have.
fn prompt(bytes: usize) -> String {
    const LINE: &str = r"The quick brown fox said: \u201cfetch \u00e9 lines of code\u201d and jumped.\n\tif (a < b) return;\n";
    let mut text = String::with_capacity(bytes + LINE.len());
    while text.len() < bytes {
        text.push_str(LINE);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_announce_their_length_and_are_json() {
        let setting = Setting::plain(SocketAddr::from(([127, 0, 0, 1], 1)));
        for scenario in SCENARIOS {
            let request = scenario.request(&setting, "near/");
            let text = std::str::from_utf8(&request).unwrap();
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            assert!(head.contains(&format!("content-length: {}", body.len())), "{}", scenario.name);
            let body: serde_json::Value = serde_json::from_str(body).unwrap();
            assert_eq!(body["model"], format!("near/{}", scenario.model));
            assert_eq!(body.get("stream").is_some(), scenario.stream);
        }
    }

    #[test]
    fn what_is_compared_is_measured_together() {
        let all = chosen(&[]).unwrap();
        let names: Vec<Vec<&str>> =
            groups(&all).iter().map(|group| group.iter().map(|scenario| scenario.name).collect()).collect();
        assert_eq!(names[1], ["small-32", "translated-32"]);
        assert_eq!(names.concat().len(), SCENARIOS.len());
        assert!(chosen(&["nothing".to_owned()]).is_err());
    }
}
