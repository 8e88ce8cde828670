//! Chunks as upstreams send them, and the events that they are.

use omniroute_wire::sse::Frame;

use super::Decoder;
use crate::stream::{
    BlockHead, Delta, EventSink, GrammarCheck, StreamDecoder as _, StreamError, StreamEvent,
};

/// Events in short: `T` text, `R` reasoning, `F` refusal, `C` call, `a` arguments.
#[derive(Debug, Default)]
struct Short(Vec<String>);

impl EventSink for Short {
    fn event(&mut self, event: StreamEvent<'_>) -> Result<(), StreamError> {
        let short = match event {
            StreamEvent::Start { id, .. } => format!("start {id}"),
            StreamEvent::BlockStart { index, block } => match block {
                BlockHead::Text => format!("{index} T"),
                BlockHead::Thinking { .. } => format!("{index} R"),
                BlockHead::Refusal => format!("{index} F"),
                BlockHead::RedactedThinking { .. } | BlockHead::WebSearch(_) | BlockHead::Image { .. } => {
                    format!("{index} ?")
                }
                BlockHead::ToolCall { id, name } => format!("{index} C {id}/{name}"),
            },
            StreamEvent::Delta { delta, .. } => match delta {
                Delta::Text(text) | Delta::Thinking(text) => format!("+{text}"),
                Delta::ToolArgs(text) => format!("a{text}"),
                Delta::Signature(text) => format!("s{text}"),
                Delta::Citation(citation) => format!("cite {:?}", citation.url),
                Delta::Logprobs(tokens) => format!("{} tokens", tokens.len()),
            },
            StreamEvent::BlockStop { .. } => "stop".to_owned(),
            StreamEvent::Usage(usage) => {
                format!("usage {:?}/{:?}", usage.input_total(), usage.output_total)
            }
            StreamEvent::ServiceTier(tier) => format!("tier {tier}"),
            StreamEvent::Finish { reason, .. } => format!("finish {reason:?}"),
            StreamEvent::Error(error) => format!("error {}", error.code.unwrap_or(error.message)),
            StreamEvent::Ping => "ping".to_owned(),
        };
        self.0.push(short);
        Ok(())
    }
}

/// Decodes chunks given as the inside of `choices[0]`, or whole when they begin with `{`.
fn decode(chunks: &[&str]) -> String {
    let mut decoder = Decoder::default();
    let mut check = GrammarCheck::new(Short::default());
    for chunk in chunks {
        let data = if chunk.starts_with(['{', '[', 'x']) {
            (*chunk).to_owned()
        } else {
            format!("{{\"id\":\"i\",\"choices\":[{{\"index\":0,{chunk}}}]}}")
        };
        decoder.frame(Frame { event: None, data: data.as_bytes() }, &mut check).unwrap();
    }
    decoder.finish(&mut check).unwrap();
    check.finish().unwrap().0.join(" · ")
}

fn call(index: &str, id: &str, name: &str, arguments: &str) -> String {
    let index = if index.is_empty() { String::new() } else { format!("\"index\":{index},") };
    let id = if id.is_empty() { String::new() } else { format!("\"id\":\"{id}\",") };
    let name = if name.is_empty() { String::new() } else { format!("\"name\":\"{name}\",") };
    let arguments = arguments.replace('"', "\\\"");
    format!(
        "\"delta\":{{\"tool_calls\":[{{{index}{id}\"function\":{{{name}\"arguments\":\"{arguments}\"}}}}]}}"
    )
}

const STOP: &str = r#""delta":{},"finish_reason":"stop""#;
const CALLS: &str = r#""delta":{},"finish_reason":"tool_calls""#;

#[test]
fn text_reasoning_and_refusals_are_blocks() {
    let events = decode(&[
        r#""delta":{"role":"assistant","content":""}"#,
        r#""delta":{"reasoning_content":"r","reasoning":"r"}"#,
        r#""delta":{"content":"a","tool_calls":[]}"#,
        r#""delta":{"content":"b","tool_calls":null}"#,
        r#""delta":{"refusal":"no"}"#,
        STOP,
        "[DONE]",
        r#""delta":{"content":"after the end"}"#,
    ]);
    assert_eq!(
        events,
        "start i · 0 R · +r · stop · 1 T · +a · +b · stop · 2 F · +no · stop · finish ContentFilter"
    );
}

#[test]
fn parallel_calls_with_one_index_are_told_apart_by_their_ids() {
    let events = decode(&[&call("0", "a", "f", r#"{"x":1}"#), &call("0", "b", "g", "{}"), STOP, "[DONE]"]);
    assert_eq!(events, "start i · 0 C a/f · a{\"x\":1} · stop · 1 C b/g · a{} · stop · finish ToolUse");
    let events =
        decode(&[&call("", "a", "f", "{}"), &call("", "b", "g", "{"), &call("", "", "", "}"), CALLS]);
    assert_eq!(events, "start i · 0 C a/f · a{} · stop · 1 C b/g · a{ · a} · stop · finish ToolUse");
}

#[test]
fn interleaved_calls_come_out_one_after_the_other() {
    let events = decode(&[
        &call("1", "a", "f", "{\"x\":"),
        &call("2", "b", "g", "{\"y\""),
        &call("1", "a", "f", "1}"),
        &call("2", "", "", ":2}"),
        CALLS,
        "[DONE]",
    ]);
    assert_eq!(
        events,
        "start i · 0 C a/f · a{\"x\": · a1} · stop · 1 C b/g · a{\"y\" · a:2} · stop · finish ToolUse"
    );
}

#[test]
fn repeated_ids_and_names_are_no_new_calls_and_fragments_are_joined() {
    let events = decode(&[
        &call("0", "a", "fun", ""),
        &call("0", "a", "fun", "{"),
        &call("0", "a", "fun", "}"),
        CALLS,
    ]);
    assert_eq!(events, "start i · 0 C a/fun · a{ · a} · stop · finish ToolUse");
    let events =
        decode(&[&call("0", "a", "get_", ""), &call("0", "", "time", ""), &call("0", "", "", "{}"), CALLS]);
    assert_eq!(events, "start i · 0 C a/get_time · a{} · stop · finish ToolUse");
}

#[test]
fn calls_without_arguments_or_ids_are_whole() {
    let events = decode(&[&call("0", "a", "f", ""), &call("1", "b", "g", "{}"), CALLS, "[DONE]"]);
    assert_eq!(events, "start i · 0 C a/f · stop · 1 C b/g · a{} · stop · finish ToolUse");
    let events = decode(&[&call("0", "", "f", "{}"), CALLS]);
    assert!(events.starts_with("start i · 0 C call_0_"), "{events}");
    let events = decode(&[&call("0", "a", "", "{}"), CALLS]);
    assert_eq!(events, "start i · error invalid_tool_call");
}

#[test]
fn text_waits_for_an_incomplete_call() {
    let events = decode(&[
        &call("0", "a", "f", "{\"x\":"),
        r#""delta":{"content":"mid"}"#,
        &call("0", "", "", "1}"),
        r#""delta":{"content":"dle"}"#,
        CALLS,
    ]);
    assert_eq!(
        events,
        "start i · 0 C a/f · a{\"x\": · a1} · stop · 1 T · +mid · stop · 2 T · +dle · stop · finish ToolUse"
    );
}

#[test]
fn a_buffered_call_that_was_cut_off_is_left_out() {
    let events = decode(&[
        &call("0", "a", "f", "{\"x\":"),
        &call("1", "b", "g", "{\"y\":"),
        r#""delta":{},"finish_reason":"length""#,
    ]);
    assert_eq!(events, "start i · 0 C a/f · a{\"x\": · stop · finish Length");
}

#[test]
fn usage_may_come_anywhere_and_the_largest_counts() {
    let usage =
        |n: u32| format!("{{\"choices\":[],\"usage\":{{\"prompt_tokens\":{n},\"completion_tokens\":{n}}}}}");
    let text = r#""delta":{"content":"a"},"usage":{"prompt_tokens":0,"completion_tokens":0}"#;
    for order in [
        vec![usage(3), text.to_owned(), STOP.to_owned(), "[DONE]".to_owned()],
        vec![text.to_owned(), STOP.to_owned(), usage(3), "[DONE]".to_owned()],
        vec![text.to_owned(), usage(3), STOP.to_owned(), usage(0)],
        vec![text.to_owned(), format!("{STOP},\"usage\":{{\"prompt_tokens\":3,\"completion_tokens\":3}}")],
    ] {
        let order: Vec<&str> = order.iter().map(String::as_str).collect();
        assert_eq!(decode(&order), "start i · 0 T · +a · stop · usage Some(3)/Some(3) · finish Stop");
    }
    let groq = r#"{"choices":[],"x_groq":{"usage":{"prompt_tokens":1,"completion_tokens":2}}}"#;
    assert_eq!(decode(&[STOP, groq, "[DONE]"]), "start i · usage Some(1)/Some(2) · finish Stop");
}

#[test]
fn the_end_is_never_made_up() {
    let text = r#""delta":{"content":"a"}"#;
    assert_eq!(decode(&[text]), "start i · 0 T · +a · error upstream_stream_truncated");
    assert_eq!(decode(&[]), "error upstream_stream_truncated");
    assert_eq!(decode(&[text, STOP, STOP]), "start i · 0 T · +a · stop · finish Stop");
    assert_eq!(decode(&[text, "[DONE]"]), "start i · 0 T · +a · stop · finish Stop");
    assert_eq!(decode(&[text, r#"{"error":{"code":"busy"}}"#, STOP]), "start i · 0 T · +a · error busy");
    assert!(decode(&[text, r#""delta":{},"finish_reason":"error""#]).contains("error the upstream ended"));
    assert_eq!(decode(&["x garbage", "[1]", STOP]), "start i · finish Stop");
    assert_eq!(decode(&["{\"choices\":"]), "error bad_gateway");
}

#[test]
fn odd_forms_are_understood() {
    for chunk in [
        r#""message":{"content":"hi"},"finish_reason":"stop""#,
        r#""delta":{"content":[{"type":"text","text":"hi"}]},"finish_reason":"eos""#,
        r#""delta":{"content":"no","content":"hi"},"finish_reason":"stop""#,
    ] {
        assert_eq!(decode(&[chunk]), "start i · 0 T · +hi · stop · finish Stop", "{chunk}");
    }
    let events = decode(&[
        r#""delta":{"function_call":{"name":"f","arguments":"{"}}"#,
        r#""delta":{"function_call":{"arguments":"}"}}"#,
        r#""delta":{},"finish_reason":"function_call""#,
    ]);
    assert!(events.ends_with("/f · a{ · a} · stop · finish ToolUse"), "{events}");
}
