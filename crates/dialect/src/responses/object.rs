//! The response object: what an answer says of itself and repeats of its request.

use bytes::BytesMut;
use omniroute_wire::json_out::Object;
use serde_json::value::RawValue;

use super::{
    request::namespaces,
    wire::{self, ENCRYPTED, SOURCES},
};
use crate::{
    Echo, ids,
    ir::Usage,
    json_in::{self, Fields, list_of, str_of},
};

/// Members of the request that are repeated, and what stands there when it has none.
const REPEATED: &[(&str, Option<&str>)] = &[
    ("instructions", Some("null")),
    ("max_output_tokens", Some("null")),
    ("max_tool_calls", None),
    ("parallel_tool_calls", Some("true")),
    ("previous_response_id", Some("null")),
    ("prompt_cache_key", None),
    ("reasoning", Some(r#"{"effort":null,"summary":null}"#)),
    ("safety_identifier", None),
    ("temperature", Some("null")),
    ("tool_choice", Some("\"auto\"")),
    ("tools", Some("[]")),
    ("top_logprobs", None),
    ("top_p", Some("null")),
    ("truncation", Some("\"disabled\"")),
    ("user", Some("null")),
    ("metadata", Some("{}")),
];
const PLAIN_TEXT: &str = r#"{"type":"text"}"#;

/// What all response objects of an answer have in common.
#[derive(Debug)]
pub(super) struct ResponseObject {
    pub(super) id: String,
    pub(super) created: i64,
    /// Members that are written the same each time.
    repeated: BytesMut,
    /// The tier that was asked for, as it was written; what the upstream says of it goes before that.
    asked_tier: Option<String>,
    /// Tools within namespaces: as they are called here, the namespace and the tool.
    namespaces: Vec<(String, String, String)>,
    /// Whether the client gets reasoning in a form that it can send back.
    pub(super) gives_encrypted: bool,
    /// Whether the client gets the addresses of the pages that a search found.
    pub(super) gives_sources: bool,
}

/// How an answer stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct State<'a> {
    pub(super) status: &'a str,
    /// Why it is incomplete.
    pub(super) incomplete: Option<&'a str>,
    /// Code and message.
    pub(super) error: Option<(&'a str, &'a str)>,
    /// The items so far, without the brackets of their list.
    pub(super) output: &'a [u8],
    pub(super) usage: Option<&'a Usage>,
    /// The tier in which it was served.
    pub(super) tier: Option<&'a str>,
}

impl State<'_> {
    /// Of an answer that has just begun.
    pub(super) const BEGUN: State<'static> =
        State { status: "in_progress", incomplete: None, error: None, output: b"", usage: None, tier: None };
}

impl ResponseObject {
    /// For an answer to this request. `upstream_id` is what its upstream calls it; may be empty.
    pub(super) fn new(echo: &Echo, upstream_id: &str) -> Self {
        let text = json_in::text(&echo.request).unwrap_or_default();
        // A request that does not have these members is another dialect's.
        let request = Fields::lenient(&text, "").ok().filter(|fields| {
            ["input", "previous_response_id", "conversation", "prompt"]
                .iter()
                .any(|name| fields.raw(name).is_some())
        });
        let mut repeated = BytesMut::with_capacity(512);
        let mut object = Object::begin(&mut repeated);
        object.str("model", &echo.model).bool("store", false);
        let given = |name| request.as_ref().and_then(|fields| fields.raw(name)).map(RawValue::get);
        for (name, usual) in REPEATED {
            if let Some(raw) = given(name).or(*usual) {
                object.raw(name, raw);
            }
        }
        write_text(request.as_ref(), object.object("text"));
        let listed = request.as_ref().and_then(|fields| fields.raw("include")).and_then(list_of);
        let includes = |name: &str| listed.iter().flatten().any(|one| str_of(one).as_deref() == Some(name));
        Self {
            id: ids::answer_id("resp_", upstream_id, &echo.request_id),
            created: echo.created,
            gives_encrypted: includes(ENCRYPTED) || given("store") != Some("true"),
            gives_sources: includes(SOURCES),
            namespaces: request.as_ref().map(namespaces).unwrap_or_default(),
            asked_tier: given("service_tier").map(str::to_owned),
            // What was written goes into another object: without the brace.
            repeated: repeated.split_off(1),
        }
    }

    /// Namespace and name of a tool, as the client knows it.
    pub(super) fn own_name<'a>(&'a self, name: &'a str) -> (Option<&'a str>, &'a str) {
        match self.namespaces.iter().find(|(flat, ..)| flat == name) {
            Some((_, namespace, own)) => (Some(namespace), own),
            None => (None, name),
        }
    }

    /// Appends the object.
    pub(super) fn write(&self, out: &mut BytesMut, state: &State<'_>) {
        out.reserve(self.repeated.len() + state.output.len() + 512);
        let mut object = Object::begin(out);
        object.str("id", &self.id).str("object", "response").i64("created_at", self.created);
        object.str("status", state.status);
        match state.error {
            None => {
                object.raw("error", "null");
            }
            Some((code, message)) => {
                let mut error = object.object("error");
                error.str("code", code).str("message", message);
                error.end();
            }
        }
        match state.incomplete {
            None => {
                object.raw("incomplete_details", "null");
            }
            Some(reason) => {
                let mut details = object.object("incomplete_details");
                details.str("reason", reason);
                details.end();
            }
        }
        let list = object.key("output");
        list.extend_from_slice(b"[");
        list.extend_from_slice(state.output);
        list.extend_from_slice(b"],");
        list.extend_from_slice(&self.repeated);
        match (state.tier, &self.asked_tier) {
            (Some(tier), _) => {
                object.str("service_tier", tier);
            }
            (None, Some(asked)) => {
                object.raw("service_tier", asked);
            }
            (None, None) => {}
        }
        match state.usage {
            Some(usage) => wire::write_usage(object.key("usage"), usage),
            None => {
                object.raw("usage", "null");
            }
        }
        object.end();
    }
}

/// Writes `text`, whose format is always told.
fn write_text(request: Option<&Fields<'_>>, mut text: Object<'_>) {
    let given = request.and_then(|fields| fields.object_or_none("text"));
    let raw = |name| given.as_ref().and_then(|fields| fields.raw(name));
    text.raw("format", raw("format").map_or(PLAIN_TEXT, RawValue::get));
    if let Some(verbosity) = raw("verbosity") {
        text.raw("verbosity", verbosity.get());
    }
    text.end();
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn object(request: &str) -> (ResponseObject, Value) {
        let echo =
            Echo { model: "asked".into(), created: 5, request: request.to_owned().into(), ..Echo::default() };
        let object = ResponseObject::new(&echo, "resp_0123456789012345678901234");
        let mut out = BytesMut::new();
        object.write(&mut out, &State::BEGUN);
        let value = serde_json::from_slice(&out).unwrap();
        (object, value)
    }

    #[test]
    fn all_required_members_are_there() {
        let (_, value) = object("");
        assert_eq!(
            value,
            json!({"id": "resp_0123456789012345678901234", "object": "response", "created_at": 5,
                "status": "in_progress", "error": null, "incomplete_details": null, "output": [],
                "model": "asked", "store": false, "instructions": null, "max_output_tokens": null,
                "parallel_tool_calls": true, "previous_response_id": null,
                "reasoning": {"effort": null, "summary": null}, "temperature": null, "tool_choice": "auto",
                "tools": [], "top_p": null, "truncation": "disabled", "user": null, "metadata": {},
                "text": {"format": {"type": "text"}}, "usage": null})
        );
        assert_eq!(object(r#"{"messages":[],"temperature":1}"#).1, value, "another dialect's request");
    }

    #[test]
    fn members_of_the_request_are_repeated_as_they_were_written() {
        let (object, value) = object(
            r#"{"input":"x","temperature":0.70,"instructions":"\ud83d","store":true,"text":{"verbosity":"low"},
                "tools":[{"type":"namespace","name":"n","tools":[{"type":"function","name":"f"}]}]}"#,
        );
        let repeated = std::str::from_utf8(&object.repeated).unwrap();
        assert!(
            repeated.contains(r#""temperature":0.70"#) && repeated.contains(r#""instructions":"\ufffd""#)
        );
        assert_eq!(value["text"], json!({"format": {"type": "text"}, "verbosity": "low"}));
        assert_eq!(value["store"], false);
        assert!(!object.gives_encrypted);
        assert_eq!(object.own_name("n__f"), (Some("n"), "f"));
        assert_eq!(object.own_name("f"), (None, "f"));
    }
}
