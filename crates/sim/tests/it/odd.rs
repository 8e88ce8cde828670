//! A member that no vendor knows, at every place of a request.

use super::*;

/// Members that have objects of their own within, and places in which everything is taken as it comes: names that are the
/// client's own, and tools that the vendor runs.
fn sample(dialect: Dialect) -> (Value, &'static [&'static str]) {
    let schema = json!({"type": "object", "properties": {}});
    match dialect {
        Dialect::Chat => (
            json!({"metadata": {"a": "b"}, "stream": true, "stream_options": {"include_usage": true},
                "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}},
                "tools": [{"type": "function", "function": {"name": "f", "parameters": schema}},
                    {"type": "custom", "custom": {"name": "c", "format": {"type": "text"}}}],
                "tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto",
                    "tools": [{"type": "function", "function": {"name": "f"}}]}},
                "messages": [
                    {"role": "system", "content": [{"type": "text", "text": "s"}]},
                    {"role": "user", "content": [{"type": "text", "text": "a"},
                        {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}},
                        {"type": "file", "file": {"filename": "a.txt", "file_data": "data:text/plain;base64,YQ=="}}]},
                    {"role": "assistant", "content": [{"type": "text", "text": "b"}], "tool_calls": [
                        {"id": "t1", "type": "function", "function": {"name": "f", "arguments": "{}"}},
                        {"id": "t2", "type": "custom", "custom": {"name": "c", "input": "x"}}]},
                    {"role": "tool", "tool_call_id": "t1", "content": [{"type": "text", "text": "r"}]},
                    {"role": "tool", "tool_call_id": "t2", "content": "r"}]}),
            &["metadata", "response_format.json_schema.schema", "tools[0].function.parameters"],
        ),
        Dialect::Responses => (
            json!({"metadata": {"a": "b"}, "stream": true, "stream_options": {"include_obfuscation": false},
                "reasoning": {"effort": "low"}, "text": {"format": {"type": "json_schema", "name": "n", "schema": schema}},
                "tools": [{"type": "function", "name": "f", "parameters": schema},
                    {"type": "custom", "name": "c", "format": {"type": "text"}},
                    {"type": "namespace", "name": "s", "tools": [{"type": "function", "name": "g", "parameters": schema}]},
                    {"type": "web_search", "filters": {"allowed_domains": ["example.com"]}}],
                "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "f"}]},
                "input": [
                    {"role": "user", "content": [{"type": "input_text", "text": "a"},
                        {"type": "input_image", "image_url": "data:image/png;base64,iVBORw0KGgo="},
                        {"type": "input_file", "filename": "a.txt", "file_data": "data:text/plain;base64,YQ=="}]},
                    {"role": "assistant", "content": [{"type": "output_text", "text": "b", "annotations": []}]},
                    {"type": "function_call", "call_id": "t1", "name": "f", "arguments": "{}"},
                    {"type": "custom_tool_call", "call_id": "t2", "name": "c", "input": "x"},
                    {"type": "function_call_output", "call_id": "t1", "output": [{"type": "input_text", "text": "r"}]},
                    {"type": "custom_tool_call_output", "call_id": "t2", "output": "r"}]}),
            &[
                "metadata",
                "text.format.schema",
                "tools[0].parameters",
                "tools[2].tools[0].parameters",
                "tools[3]",
            ],
        ),
        Dialect::Messages => (
            json!({"system": [{"type": "text", "text": "s", "cache_control": {"type": "ephemeral"}}],
                "metadata": {"user_id": "u"}, "thinking": {"type": "adaptive"}, "tool_choice": {"type": "auto"},
                "output_config": {"effort": "low", "format": {"type": "json_schema", "schema": {"type": "object", "additionalProperties": false}}},
                "tools": [{"name": "f", "input_schema": schema}],
                "messages": [
                    {"role": "user", "content": [{"type": "text", "text": "a"},
                        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}},
                        {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "d"}}]},
                    {"role": "assistant", "content": [{"type": "text", "text": "b"},
                        {"type": "tool_use", "id": "t1", "name": "f", "input": {}}]},
                    {"role": "user", "content": [
                        {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "r"}]}]}]}),
            &["output_config.format.schema", "tools[0].input_schema", "messages[1].content[1].input"],
        ),
        Dialect::Gemini => (
            json!({"systemInstruction": {"parts": [{"text": "s"}]}, "labels": {"a": "b"},
                "safetySettings": [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_NONE"}],
                "generationConfig": {"temperature": 0.5, "responseMimeType": "application/json",
                    "responseSchema": {"type": "STRING"}, "thinkingConfig": {"includeThoughts": true}},
                "tools": [{"functionDeclarations": [{"name": "f", "parameters": {"type": "OBJECT", "properties": {"x": {"type": "STRING"}}}}]}],
                "toolConfig": {"functionCallingConfig": {"mode": "AUTO"}},
                "contents": [
                    {"role": "user", "parts": [{"text": "a"}, {"inlineData": {"mimeType": "image/png", "data": "iVBORw0KGgo="}}]},
                    {"role": "model", "parts": [{"text": "b"}, {"functionCall": {"name": "f", "args": {}}}]},
                    {"role": "user", "parts": [{"functionResponse": {"name": "f", "response": {"output": "r"}}}]}]}),
            &[
                "labels",
                "contents[1].parts[1].functionCall.args",
                "contents[2].parts[0].functionResponse.response",
            ],
        ),
        Dialect::Ollama => (
            json!({"format": schema, "options": {"temperature": 0.5},
                "tools": [{"type": "function", "function": {"name": "f", "parameters": schema}}],
                "messages": [
                    {"role": "user", "content": "a"},
                    {"role": "assistant", "content": "b", "tool_calls": [{"function": {"name": "f", "arguments": {}}}]},
                    {"role": "tool", "tool_name": "f", "content": "r"}]}),
            &["format", "tools[0].function.parameters", "messages[1].tool_calls[0].function.arguments"],
        ),
    }
}

/// The places of all objects, as `messages[1].content[0]`; that of the whole is empty.
fn objects(value: &Value, place: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            found.push(place.to_owned());
            for (name, member) in members {
                let place = if place.is_empty() { name.clone() } else { format!("{place}.{name}") };
                objects(member, &place, found);
            }
        }
        Value::Array(elements) => {
            for (at, element) in elements.iter().enumerate() {
                objects(element, &format!("{place}[{at}]"), found);
            }
        }
        _ => {}
    }
}

#[tokio::test]
async fn members_that_no_vendor_knows_are_refused_at_every_place() {
    let mut faults = Vec::new();
    for dialect in ALL {
        let (members, free) = sample(dialect);
        let request = call(dialect, "echo-strict", false).with(members);
        let usual = ask(request.clone()).await;
        assert_eq!(usual.status, 200, "{dialect:?}: {}", usual.raw());
        let mut places = Vec::new();
        objects(&request.body, "", &mut places);
        let is_free = |place: &String| {
            free.iter().any(|known| {
                place.strip_prefix(known).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
            })
        };
        for place in places.iter().filter(|place| !is_free(place)) {
            let mut odd = request.clone();
            let pointer = match place.as_str() {
                "" => String::new(),
                place => format!("/{}", place.replace('[', "/").replace(']', "").replace('.', "/")),
            };
            odd.body.pointer_mut(&pointer).unwrap()["xOdd"] = json!(1);
            let refused = ask(odd).await;
            if refused.status != 400 || !refused.raw().contains("xOdd") {
                faults.push(format!("{dialect:?} at `{place}`: {}", refused.status));
            }
        }
    }
    assert!(faults.is_empty(), "not refused:\n{}", faults.join("\n"));
}
