//! Marks for prompt caches, at every place that has them: carried where the target has a place, recorded where it has
//! none, and told where an hour was asked for and is not to be had.

use omniroute_dialect::{
    CacheMarks, Caps,
    ir::{Loss, LossAction},
};
use serde_json::{Value, json};

use crate::support::{full_caps, told, translate};

/// A request of Messages with one mark, at this place; an hour's if that is wanted.
fn marked(place: &str, hour: bool) -> Value {
    let mut body = json!({"model": "m", "max_tokens": 9,
        "system": [{"type": "text", "text": "s"}],
        "tools": [{"name": "f", "input_schema": {"type": "object", "properties": {}}}],
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "a"},
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}}]},
            {"role": "assistant", "content": [{"type": "text", "text": "b"},
                {"type": "tool_use", "id": "t", "name": "f", "input": {}}]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": "r"}]}]},
            {"role": "system", "content": [{"type": "text", "text": "S"}]},
            {"role": "user", "content": [{"type": "text", "text": "d"}]}]});
    let mark = if hour { json!({"type": "ephemeral", "ttl": "1h"}) } else { json!({"type": "ephemeral"}) };
    body.pointer_mut(place).unwrap()["cache_control"] = mark;
    body
}

/// Where marks are in what is sent.
fn places(value: &Value, place: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                if name == "cache_control" || name == "prompt_cache_breakpoint" {
                    found.push(place.to_owned());
                } else {
                    places(member, &format!("{place}/{name}"), found);
                }
            }
        }
        Value::Array(elements) => {
            for (at, element) in elements.iter().enumerate() {
                places(element, &format!("{place}/{at}"), found);
            }
        }
        _ => {}
    }
}

fn sent(place: &str, hour: bool, to: &str, marks: CacheMarks) -> (Vec<String>, Vec<Loss>, Value) {
    let caps = Caps { cache_marks: marks, ..full_caps() };
    let (body, losses) = translate("anthropic", to, &marked(place, hour), &caps).unwrap();
    let mut found = Vec::new();
    places(&body, "", &mut found);
    let losses = losses.into_iter().filter(|loss| loss.path.contains("cache_control")).collect();
    (found, losses, body)
}

const SYSTEM: &str = "/system/0";
const TOOL: &str = "/tools/0";
const TEXT: &str = "/messages/0/content/0";
const IMAGE: &str = "/messages/0/content/1";
const SAID: &str = "/messages/1/content/0";
const RESULT: &str = "/messages/2/content/0";
const CALL: &str = "/messages/1/content/1";
const IN_RESULT: &str = "/messages/2/content/0/content/0";
const LATE_SYSTEM: &str = "/messages/3/content/0";

#[test]
fn marks_are_carried_to_where_the_target_has_a_place() {
    for (place, chat, responses) in [
        (SYSTEM, Some("/messages/0/content/0"), None),
        (TOOL, None, None),
        (TEXT, Some("/messages/1/content/0"), Some("/input/0/content/0")),
        (IMAGE, Some("/messages/1/content/1"), Some("/input/0/content/1")),
        // Responses has none in what the model said.
        (SAID, Some("/messages/2/content/0"), None),
        // Nobody else has one at a call.
        (CALL, None, None),
        (RESULT, Some("/messages/3/content/0"), Some("/input/3/output/0")),
        (IN_RESULT, Some("/messages/3/content/0"), Some("/input/3/output/0")),
        (LATE_SYSTEM, Some("/messages/4/content/0"), Some("/input/4/content/0")),
    ] {
        for (to, marks, expected) in [
            ("openai", CacheMarks::Breakpoint, chat),
            ("openai", CacheMarks::Control, chat),
            ("openai", CacheMarks::None, None),
            ("responses", CacheMarks::Breakpoint, responses),
            ("responses", CacheMarks::None, None),
            ("gemini", CacheMarks::None, None),
            ("ollama", CacheMarks::None, None),
        ] {
            let (found, losses, body) = sent(place, false, to, marks);
            assert_eq!(found, expected.into_iter().collect::<Vec<_>>(), "{place} to {to} {marks:?}: {body}");
            // Providers cache by themselves, so nobody has to be told.
            let silent = losses.iter().all(|loss| loss.silent && loss.action == LossAction::Dropped);
            assert!(silent && losses.len() == usize::from(expected.is_none()), "{place} to {to}: {losses:?}");
        }
    }
}

#[test]
fn that_an_hour_is_not_to_be_had_is_told() {
    for place in [SYSTEM, TOOL, TEXT, IMAGE, SAID, CALL, RESULT, IN_RESULT, LATE_SYSTEM] {
        for (to, marks) in [
            ("openai", CacheMarks::Breakpoint),
            ("openai", CacheMarks::None),
            ("responses", CacheMarks::Breakpoint),
            ("responses", CacheMarks::None),
            ("gemini", CacheMarks::None),
            ("ollama", CacheMarks::None),
        ] {
            let (found, losses, _) = sent(place, true, to, marks);
            let [path] = told(&losses)[..] else { panic!("{place} to {to} {marks:?}: {losses:?}") };
            assert_eq!(path.ends_with(".ttl"), !found.is_empty(), "{place} to {to}: {path}");
        }
        let (found, losses, body) = sent(place, true, "openai", CacheMarks::Control);
        if !found.is_empty() {
            assert!(losses.is_empty() && body.to_string().contains("\"ttl\":\"1h\""), "{place}: {body}");
        }
    }
}

#[test]
fn a_mark_for_the_whole_prompt_is_told_of_like_any_other() {
    for (ttl, silent) in [("5m", true), ("1h", false)] {
        let mut body = marked(TEXT, false);
        body["messages"][0]["content"][0] = json!({"type": "text", "text": "a"});
        body["cache_control"] = json!({"type": "ephemeral", "ttl": ttl});
        for to in ["openai", "responses", "gemini", "ollama"] {
            let (_, losses) = translate("anthropic", to, &body, &full_caps()).unwrap();
            let marks: Vec<_> = losses.iter().filter(|loss| loss.path.contains("cache_control")).collect();
            assert!(marks.len() == 1 && marks[0].silent == silent, "{ttl} to {to}: {marks:?}");
        }
    }
}

#[test]
fn an_hours_mark_at_the_search_of_the_web_is_told() {
    for (ttl, silent) in [("5m", true), ("1h", false)] {
        let mut body = marked(TEXT, false);
        body["messages"][0]["content"][0] = json!({"type": "text", "text": "a"});
        let mark = json!({"type": "ephemeral", "ttl": ttl});
        let search = json!({"type": "web_search_20250305", "name": "web_search", "cache_control": mark});
        body["tools"].as_array_mut().unwrap().push(search);
        for to in ["openai", "responses", "gemini"] {
            let (_, losses) = translate("anthropic", to, &body, &full_caps()).unwrap();
            let marks: Vec<_> = losses.iter().filter(|loss| loss.path.contains("cache_control")).collect();
            assert!(marks.len() == 1 && marks[0].silent == silent, "{ttl} to {to}: {marks:?}");
        }
    }
}

#[test]
fn what_the_model_said_stays_one_text_around_its_marks() {
    let mut body = marked(SAID, false);
    body["messages"][1]["content"] = json!([
        {"type": "text", "text": "one "}, {"type": "text", "text": "two", "cache_control": {"type": "ephemeral"}},
        {"type": "text", "text": " three"}, {"type": "tool_use", "id": "t", "name": "f", "input": {}}]);
    let caps = Caps { cache_marks: CacheMarks::Breakpoint, ..full_caps() };
    let (sent, _) = translate("anthropic", "openai", &body, &caps).unwrap();
    assert_eq!(
        sent["messages"][2]["content"],
        json!([{"type": "text", "text": "one two", "prompt_cache_breakpoint": {"mode": "explicit"}},
            {"type": "text", "text": " three"}])
    );
}

#[test]
fn a_mark_at_an_empty_text_is_recorded_and_leaves_the_message_a_string() {
    for (ttl, silent) in [("5m", true), ("1h", false)] {
        let mut body = marked(SAID, false);
        let mark = json!({"type": "ephemeral", "ttl": ttl});
        body["messages"][1]["content"][0] = json!({"type": "text", "text": "", "cache_control": mark});
        for marks in [CacheMarks::Control, CacheMarks::Breakpoint, CacheMarks::None] {
            let caps = Caps { cache_marks: marks, ..full_caps() };
            let (sent, losses) = translate("anthropic", "openai", &body, &caps).unwrap();
            assert_eq!(sent["messages"][2]["content"], "", "{sent}");
            let marks: Vec<_> = losses.iter().filter(|loss| loss.path.contains("cache_control")).collect();
            assert!(marks.len() == 1 && marks[0].silent == silent, "{marks:?}");
        }
        // Behind a text it is the mark of that.
        body["messages"][1]["content"]
            .as_array_mut()
            .unwrap()
            .insert(0, json!({"type": "text", "text": "b"}));
        let caps = Caps { cache_marks: CacheMarks::Control, ..full_caps() };
        let (sent, losses) = translate("anthropic", "openai", &body, &caps).unwrap();
        let content = &sent["messages"][2]["content"];
        assert!(content[0]["text"] == "b" && content[0]["cache_control"].is_object(), "{content}");
        assert!(content[1].is_null() && !losses.iter().any(|loss| loss.path.contains("cache")), "{content}");
    }
}

#[test]
fn a_result_that_nobody_called_for_keeps_its_mark() {
    for place in [RESULT, IN_RESULT] {
        let mut body = marked(place, true);
        body["messages"].as_array_mut().unwrap().remove(1);
        for (to, marks) in [
            ("openai", CacheMarks::Control),
            ("openai", CacheMarks::Breakpoint),
            ("openai", CacheMarks::None),
            ("responses", CacheMarks::Breakpoint),
            ("responses", CacheMarks::None),
        ] {
            let caps = Caps { cache_marks: marks, ..full_caps() };
            let (sent, losses) = translate("anthropic", to, &body, &caps).unwrap();
            let mut found = Vec::new();
            places(&sent, "", &mut found);
            let lost = told(&losses).into_iter().filter(|path| path.contains("cache_control")).count();
            // Where there is a mark it may not be an hour's.
            assert_eq!(lost, usize::from(marks != CacheMarks::Control), "{place} to {to}: {losses:?}");
            assert_eq!(found.len(), usize::from(marks != CacheMarks::None), "{place} to {to}: {sent}");
            if let [found] = &found[..] {
                let written = sent.pointer(found).unwrap()["text"].to_string();
                assert!(written.contains("[tool result t] r"), "{place} to {to}: {sent}");
            }
        }
    }
}

#[test]
fn marks_of_openais_dialects_come_to_messages_at_every_place() {
    let mark = json!({"mode": "explicit"});
    let chat = json!({"model": "m", "tools": [{"type": "function", "function": {"name": "f"}}], "messages": [
        {"role": "system", "content": [{"type": "text", "text": "s", "prompt_cache_breakpoint": mark}]},
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": [{"type": "text", "text": "b", "prompt_cache_breakpoint": mark}],
            "tool_calls": [{"id": "t", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
        {"role": "tool", "tool_call_id": "t", "content": [{"type": "text", "text": "r", "prompt_cache_breakpoint": mark}]},
        {"role": "system", "content": [{"type": "text", "text": "S", "prompt_cache_breakpoint": mark}]},
        {"role": "user", "content": "d"}]});
    let responses = json!({"model": "m", "tools": [{"type": "function", "name": "f"}], "input": [
        {"role": "developer", "content": [{"type": "input_text", "text": "s", "prompt_cache_breakpoint": mark}]},
        {"role": "user", "content": [{"type": "input_text", "text": "a", "prompt_cache_breakpoint": mark}]},
        {"type": "function_call", "call_id": "t", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "t",
            "output": [{"type": "input_text", "text": "r", "prompt_cache_breakpoint": mark}]},
        {"role": "developer", "content": [{"type": "input_text", "text": "S", "prompt_cache_breakpoint": mark}]},
        {"role": "user", "content": "d"}]});
    // A late instruction is a note in the next message of the user.
    let late = "/messages/2/content/1";
    let result = "/messages/2/content/0/content/0";
    for (from, body, expected) in [
        ("openai", chat, ["/messages/1/content/0", result, late, "/system/0"]),
        ("responses", responses, ["/messages/0/content/0", result, late, "/system/0"]),
    ] {
        let caps = Caps { mid_conversation_system: false, ..full_caps() };
        let (sent, losses) = translate(from, "anthropic", &body, &caps).unwrap();
        let mut found = Vec::new();
        places(&sent, "", &mut found);
        found.sort();
        assert_eq!(found, expected, "{from}: {sent}");
        assert!(!losses.iter().any(|loss| loss.path.contains("cache")), "{losses:?}");
    }
}

#[test]
fn a_mark_at_an_image_in_a_result_that_nobody_called_for_goes_with_the_image() {
    let image = json!({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="},
        "cache_control": {"type": "ephemeral", "ttl": "1h"}});
    let mut body = marked(TEXT, false);
    body["messages"][0]["content"][0] = json!({"type": "text", "text": "a"});
    body["messages"].as_array_mut().unwrap().remove(1);
    body["messages"][1]["content"][0]["content"] = json!([{"type": "text", "text": "r"}, image]);
    for (to, marks, place, told_of) in [
        ("openai", CacheMarks::Control, Some("/messages/1/content/3"), 0),
        ("openai", CacheMarks::Breakpoint, Some("/messages/1/content/3"), 1),
        ("openai", CacheMarks::None, None, 1),
        ("responses", CacheMarks::Breakpoint, Some("/input/1/content/1"), 1),
        ("responses", CacheMarks::None, None, 1),
        ("gemini", CacheMarks::None, None, 1),
        ("ollama", CacheMarks::None, None, 1),
    ] {
        let caps = Caps { cache_marks: marks, ..full_caps() };
        let (sent, losses) = translate("anthropic", to, &body, &caps).unwrap();
        let mut found = Vec::new();
        places(&sent, "", &mut found);
        let found: Vec<&str> = found.iter().map(String::as_str).collect();
        if let Some(place) = place {
            let part = sent.pointer(found.first().unwrap_or(&"")).unwrap_or(&sent);
            assert!(
                found.len() == 1 && part.to_string().contains("base64,iVBOR"),
                "{to} {marks:?} {place}: {sent}"
            );
        } else {
            assert!(found.is_empty(), "{to} {marks:?}: {sent}");
        }
        assert!(sent.to_string().contains("iVBORw0KGgo="), "the image is there: {sent}");
        let lost = told(&losses).into_iter().filter(|path| path.contains("cache_control")).count();
        assert_eq!(lost, told_of, "{to} {marks:?}: {losses:?}");
    }
}

#[test]
fn marks_at_what_only_messages_has_are_not_lost_in_silence() {
    let mark = json!({"type": "ephemeral", "ttl": "1h"});
    let found = json!({"type": "search_result", "source": "https://a.example", "title": "t",
        "content": [{"type": "text", "text": "d"}], "cache_control": mark});
    let asked = json!({"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"query": "q"}});
    let searched =
        json!({"type": "web_search_tool_result", "tool_use_id": "s", "content": [], "cache_control": mark});
    let ran = json!({"type": "server_tool_use", "id": "x", "name": "code_execution", "input": {}, "cache_control": mark});
    for said in [json!([found]), json!([asked, searched]), json!([ran])] {
        let role = if said[0]["type"] == "search_result" { "user" } else { "assistant" };
        let body = json!({"model": "m", "max_tokens": 9, "messages": [
            {"role": "user", "content": "a"}, {"role": role, "content": said}, {"role": "user", "content": "b"}]});
        for (to, marks) in [
            ("openai", CacheMarks::Breakpoint),
            ("openai", CacheMarks::None),
            ("responses", CacheMarks::Breakpoint),
            ("responses", CacheMarks::None),
            ("gemini", CacheMarks::None),
            ("ollama", CacheMarks::None),
        ] {
            let caps = Caps { cache_marks: marks, ..full_caps() };
            let (sent, losses) = translate("anthropic", to, &body, &caps).unwrap();
            let lost = told(&losses).into_iter().filter(|path| path.contains("cache_control")).count();
            assert_eq!(lost, 1, "{to} {marks:?}: {losses:?} {sent}");
        }
        let (same, losses) = translate("anthropic", "anthropic", &body, &full_caps()).unwrap();
        assert!(losses.is_empty() && same.to_string().matches("\"1h\"").count() == 1, "{same} {losses:?}");
    }
}
