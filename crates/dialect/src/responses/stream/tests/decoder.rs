//! Upstreams' streams.

use super::*;

#[test]
fn arguments_that_come_only_when_they_are_done_are_not_lost() {
    for events in [
        vec![
            added(0, call("fc_1", "a", "f", "")),
            json!({"type": "response.function_call_arguments.done", "output_index": 0, "arguments": "{\"q\":2}"}),
            done(0, call("fc_1", "a", "f", "{\"q\":2}")),
            completed(json!([])),
        ],
        vec![
            added(0, call("fc_1", "a", "f", "")),
            done(0, call("fc_1", "a", "f", "{\"q\":2}")),
            completed(json!([])),
        ],
        vec![completed(json!([call("fc_1", "a", "f", "{\"q\":2}")]))],
        vec![added(0, call("fc_1", "a", "f", "")), completed(json!([call("fc_1", "a", "f", "{\"q\":2}")]))],
    ] {
        let lines = decode(&events);
        let expected =
            ["0 call a f", "0 args {\"q\":2}", "0 stop", "usage Some(3) Some(2)", "finish ToolUse None"];
        assert_eq!(lines[1..], expected, "{events:?}");
    }
}

#[test]
fn only_what_is_missing_is_supplied() {
    let lines = decode(&[
        text_delta(0, "m", "Hel"),
        json!({"type": "response.output_text.done", "output_index": 0, "content_index": 0, "text": "Hello"}),
        done(0, message("m", "Hello!")),
        added(1, call("fc", "a", "f", "")),
        arguments_delta(1, "{\"x\":"),
        done(1, call("fc", "a", "f", "{\"x\":1}")),
        completed(json!([message("m", "Hello!"), call("fc", "a", "f", "{\"x\":1}")])),
    ]);
    let expected = [
        "start  ",
        "0 Text",
        "0 + Hel",
        "0 + lo",
        "0 + !",
        "0 stop",
        "1 call a f",
        "1 args {\"x\":",
        "1 args 1}",
        "1 stop",
        "usage Some(3) Some(2)",
        "finish ToolUse None",
    ];
    assert_eq!(lines, expected);
    // Written in another way at the end, it is still the same call.
    let lines = decode(&[
        added(0, call("fc", "a", "f", "")),
        arguments_delta(0, "{ \"x\": 1 }"),
        done(0, call("fc", "a", "f", "{\"x\":1,\"padding\":\"\"}")),
        completed(json!([])),
    ]);
    assert_eq!(lines[2..4], ["0 args { \"x\": 1 }", "0 stop"]);
}

#[test]
fn ids_that_are_empty_or_change_do_not_matter() {
    let lines = decode(&[
        added(0, json!({"type": "message", "id": "", "role": "assistant", "content": []})),
        text_delta(0, "a", "one"),
        text_delta(0, "b", " two"),
        done(0, message("c", "one two")),
        added(1, call("", "call_1", "f", "")),
        arguments_delta(1, "{}"),
        completed(json!([message("d", "one two"), call("e", "call_1", "f", "{}")])),
    ]);
    assert_eq!(
        lines[1..8],
        ["0 Text", "0 + one", "0 +  two", "0 stop", "1 call call_1 f", "1 args {}", "1 stop"]
    );
}

#[test]
fn items_that_all_have_one_place_are_told_apart() {
    let lines = decode(&[
        added(0, json!({"type": "reasoning", "id": "rs_1", "summary": []})),
        json!({"type": "response.reasoning_summary_text.delta", "output_index": 0, "summary_index": 0, "delta": "hm"}),
        done(
            0,
            json!({"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "hm"}]}),
        ),
        added(0, call("fc_1", "a", "f", "")),
        arguments_delta(0, "{}"),
        done(0, call("fc_1", "a", "f", "{}")),
        added(0, call("fc_2", "b", "f", "")),
        arguments_delta(0, "{\"n\":2}"),
        done(0, call("fc_2", "b", "f", "{\"n\":2}")),
        completed(json!([
            {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "hm"}]},
            call("fc_1", "a", "f", "{}"),
            call("fc_2", "b", "f", "{\"n\":2}")])),
    ]);
    let expected = [
        "0 Thinking rs_1",
        "0 ~ hm",
        "0 stop",
        "1 call a f",
        "1 args {}",
        "1 stop",
        "2 call b f",
        "2 args {\"n\":2}",
        "2 stop",
    ];
    assert_eq!(lines[1..10], expected);
}

#[test]
fn interleaved_items_come_out_one_after_the_other() {
    let lines = decode(&[
        added(0, call("fc_1", "a", "f", "")),
        added(1, call("fc_2", "b", "g", "")),
        arguments_delta(0, "{\"x\":"),
        arguments_delta(1, "{\"y\":"),
        text_delta(2, "m", "mid"),
        arguments_delta(1, "2}"),
        text_delta(2, "m", "dle"),
        arguments_delta(0, "1}"),
        done(1, call("fc_2", "b", "g", "{\"y\":2}")),
        done(0, call("fc_1", "a", "f", "{\"x\":1}")),
        done(2, message("m", "middle")),
        completed(json!([])),
    ]);
    let expected = [
        "0 call a f",
        "0 args {\"x\":",
        "0 args 1}",
        "0 stop",
        "1 call b g",
        "1 args {\"y\":2}",
        "1 stop",
        "2 Text",
        "2 + middle",
        "2 stop",
    ];
    assert_eq!(lines[1..11], expected);
}

#[test]
fn a_name_that_comes_late_is_waited_for_and_one_that_never_comes_is_an_error() {
    let lines = decode(&[
        added(0, call("fc_1", "a", "", "")),
        arguments_delta(0, "{}"),
        done(0, call("fc_1", "a", "f", "{}")),
        completed(json!([])),
    ]);
    assert_eq!(lines[1..4], ["0 call a f", "0 args {}", "0 stop"]);
    for events in [
        vec![added(0, call("fc_1", "a", "", "")), arguments_delta(0, "{}"), completed(json!([]))],
        vec![
            added(0, call("fc_1", "a", " ", "")),
            done(0, call("fc_1", "a", "", "{}")),
            completed(json!([])),
        ],
    ] {
        assert_eq!(decode(&events).last().unwrap(), "error Some(502) invalid_tool_call");
    }
}

#[test]
fn reasoning_shows_its_summary_or_else_its_text() {
    let part = |index: u64, text: &str| json!({"type": "response.reasoning_summary_text.delta", "output_index": 0, "summary_index": index, "delta": text});
    let raw = json!({"type": "response.reasoning_text.delta", "output_index": 0, "content_index": 0, "delta": "raw"});
    let item = |encrypted: &str| {
        json!({"type": "reasoning", "id": "rs_1", "encrypted_content": encrypted, "content": [{"type": "reasoning_text", "text": "raw"}],
            "summary": [{"type": "summary_text", "text": "a b"}, {"type": "summary_text", "text": "c"}]})
    };
    let lines = decode(&[
        added(0, item("first")),
        part(0, "a"),
        raw.clone(),
        part(0, " b"),
        part(1, "c"),
        done(0, item("last")),
        completed(json!([item("last")])),
    ]);
    assert_eq!(lines[1..7], ["0 Thinking rs_1", "0 ~ a", "0 ~  b", "0 ~ \n\nc", "0 signed last", "0 stop"]);
    let mut bare = item("");
    bare["summary"] = json!([]);
    let lines = decode(&[added(0, bare.clone()), raw, done(0, bare), completed(json!([]))]);
    assert_eq!(lines[1..4], ["0 Thinking rs_1", "0 ~ raw", "0 stop"]);
    let empty = json!({"type": "reasoning", "id": "rs_1", "summary": []});
    let lines = decode(&[added(0, empty.clone()), done(0, empty), completed(json!([]))]);
    assert_eq!(lines[1], "usage Some(3) Some(2)", "nothing said is no block");
}

#[test]
fn free_text_becomes_arguments() {
    let item = |input: &str| json!({"type": "custom_tool_call", "id": "ctc_1", "call_id": "a", "name": "p", "input": input});
    let delta = |text: &str| json!({"type": "response.custom_tool_call_input.delta", "output_index": 0, "delta": text});
    let lines = decode(&[
        added(0, item("")),
        delta("say \"hi\""),
        delta("\n{"),
        done(0, item("say \"hi\"\n{!")),
        completed(json!([])),
    ]);
    let pieces: Vec<_> = lines.iter().filter_map(|line| line.strip_prefix("0 args ")).collect();
    assert_eq!(pieces.concat(), "{\"input\":\"say \\\"hi\\\"\\n{!\"}");
    let lines = decode(&[completed(json!([item("")]))]);
    assert_eq!(lines[1..4], ["0 call a p", "0 args {\"input\":\"", "0 args \"}"]);
}

#[test]
fn a_call_that_was_cut_off_before_it_was_told_of_is_left_out() {
    let cut = json!({"type": "response.incomplete", "response": {"status": "incomplete",
        "incomplete_details": {"reason": "max_output_tokens"},
        "output": [message("m", "x"), call("fc", "a", "f", "{\"x\":")]}});
    let lines = decode(&[cut]);
    assert_eq!(lines[1..], ["0 Text", "0 + x", "0 stop", "finish Length None"]);
}

#[test]
fn searches_and_sources_are_told() {
    let source =
        json!({"type": "url_citation", "url": "https://a", "title": "A", "start_index": 0, "end_index": 2});
    let mut said = message("m", "hi");
    said["content"][0]["annotations"] = json!([source]);
    let lines = decode(&[
        done(0, json!({"type": "web_search_call", "id": "ws_1", "action": {"type": "search", "query": "q"}})),
        text_delta(1, "m", "hi"),
        json!({"type": "response.output_text.annotation.added", "output_index": 1, "content_index": 0, "annotation": source}),
        done(1, said.clone()),
        completed(json!([])),
    ]);
    let expected =
        ["0 search [\"q\"] []", "0 stop", "1 Text", "1 + hi", "1 cites Some(\"https://a\")", "1 stop"];
    assert_eq!(lines[1..7], expected);
    assert_eq!(
        decode(&[completed(json!([said]))])[1..5].join("|"),
        "0 Text|0 + hi|0 cites Some(\"https://a\")|0 stop"
    );
}

#[test]
fn failures_are_errors_with_their_code() {
    for (event, expected) in [
        (
            json!({"type": "response.failed", "response": {"status": "failed", "error": {"code": "rate_limit_exceeded", "message": "slow"}}}),
            "error Some(429) rate_limit_exceeded",
        ),
        (
            json!({"type": "response.failed", "response": {"output": []}}),
            "error Some(502) the answer failed at the upstream, which does not say why",
        ),
        (
            json!({"type": "error", "code": "server_error", "message": "broke"}),
            "error Some(500) server_error",
        ),
        (json!({"type": "error", "error": {"code": "x", "message": "broke"}}), "error None x"),
        (json!({"error": {"message": "broke", "code": 503}}), "error Some(503) 503"),
        (json!({"type": "response.completed"}), "error Some(502) bad_gateway"),
    ] {
        assert_eq!(decode(&[text_delta(0, "m", "x"), event]).last().unwrap(), expected);
    }
    assert_eq!(
        decode(&[text_delta(0, "m", "x"), json!({"type": "response.output_item.done"})]).last().unwrap(),
        "error Some(502) upstream_stream_truncated"
    );
}

#[test]
fn nothing_follows_an_error_at_the_end() {
    let lines = decode(&[
        text_delta(0, "m", "open"),
        completed(json!([message("m", "open"), call("fc", "a", "", "{}")])),
    ]);
    assert_eq!(lines[1..], ["0 Text", "0 + open", "0 stop", "error Some(502) invalid_tool_call"]);
    let lines =
        decode(&[added(0, call("fc", "a", "", "")), text_delta(1, "m", "open"), completed(json!([]))]);
    assert_eq!(lines.last().unwrap(), "error Some(502) invalid_tool_call");
}

#[test]
fn unknown_events_and_an_empty_end_are_fine() {
    let lines = decode(&[
        json!({"type": "response.created", "response": {"id": "resp_1", "model": "m"}}),
        json!({"type": "response.something.new", "delta": "x"}),
        json!({"type": "keepalive", "sequence_number": 1}),
        added(0, json!({"type": "mcp_list_tools", "id": "mcp_1"})),
        done(0, json!({"type": "mcp_list_tools", "id": "mcp_1", "tools": []})),
        text_delta(1, "m", "hi"),
        completed(json!([])),
        text_delta(1, "m", "late"),
    ]);
    assert_eq!(
        lines,
        ["start resp_1 m", "0 Text", "0 + hi", "0 stop", "usage Some(3) Some(2)", "finish Stop None"]
    );
}
