//! Clients' requests: what is read of them, and that they survive.

use super::*;

/// The top-level members in any order.
fn tree(body: &[u8]) -> Value {
    serde_json::from_slice(body).expect("valid JSON")
}

#[test]
fn a_request_of_the_dialect_survives_the_round_trip() {
    let body = Bytes::from_static(
        br#"{"model":"m","max_tokens":0,"system":[{"type":"text","text":"a"},{"type":"text","text":"b","cache_control":{"type":"ephemeral","ttl":"1h"}}],
        "messages":[{"role":"user","content":"go"},{"role":"system","content":"mid"},
          {"role":"assistant","content":[{"type":"thinking","thinking":"","signature":"S"},{"type":"redacted_thinking","data":"D"},
            {"type":"text","text":" "},{"type":"tool_use","id":"t 1","name":"f","input":{"b":1.0,"a":[]}},
            {"type":"server_tool_use","id":"s","name":"web_search","input":{}}]},
          {"role":"user","content":[{"type":"tool_result","tool_use_id":"t 1","is_error":true,"content":[{"type":"image","source":{"type":"url","url":"https://e/x"}},
            {"type":"search_result","source":"s","title":"t","content":[]}]},
            {"type":"document","source":{"type":"text","media_type":"text/plain","data":"d"},"title":"T"},
            {"type":"document","source":{"type":"content","content":"c"}},{"type":"tool_result","tool_use_id":"none"}]}],
        "tools":[{"name":"f","description":"d","input_schema":{"type":"object","x":1e-9},"strict":true,"defer_loading":true,"cache_control":{"type":"ephemeral"}},
          {"type":"web_search_20250305","name":"web_search","max_uses":2}],
        "tool_choice":{"type":"tool","name":"f","disable_parallel_tool_use":true},
        "thinking":{"type":"enabled","budget_tokens":2000,"display":"omitted"},"output_config":{"effort":"high"},
        "stop_sequences":["x"],"temperature":1.0,"top_p":0.5,"top_k":3,"metadata":{"user_id":"{\"a\":1}"},"service_tier":"auto","stream":true,
        "context_management":{"edits":[]},"speed":"fast"}"#,
    );
    let encoded = encode(&decode(&body).expect("readable"), &Caps::permissive()).expect("can be written");
    assert_eq!(tree(&encoded.body), tree(&body));
    assert_eq!(encoded.losses, []);
}

#[test]
fn recorded_requests_survive_the_round_trip() {
    for body in [
        &include_bytes!("../../../../fixtures/anthropic/full/request.json")[..],
        include_bytes!("../../../../fixtures/anthropic/tools/request.json"),
        include_bytes!("../../../../fixtures/anthropic/images/request.json"),
        include_bytes!("../../../../fixtures/anthropic/plain/request.json"),
    ] {
        let request = decode(&Bytes::from_static(body)).expect("readable");
        let encoded = encode(&request, &Caps::permissive()).expect("can be written");
        assert_eq!(tree(&encoded.body), tree(body));
        assert_eq!(encoded.losses, []);
    }
}

#[test]
fn who_gives_a_budget_is_shown_what_it_was_spent_on() {
    for (thinking, show) in [
        (r#"{"type":"enabled","budget_tokens":2000}"#, Some(true)),
        (r#"{"type":"enabled","budget_tokens":2000,"display":"omitted"}"#, Some(false)),
        (r#"{"type":"adaptive"}"#, None),
        (r#"{"type":"adaptive","display":"summarized"}"#, Some(true)),
        (r#"{"type":"disabled"}"#, None),
    ] {
        let body = format!(
            r#"{{"model":"m","max_tokens":5,"messages":[{{"role":"user","content":"x"}}],"thinking":{thinking}}}"#
        );
        let request = decode(&Bytes::from(body)).expect("readable");
        assert_eq!(request.reasoning.show, show, "{thinking}");
    }
}

#[test]
fn knobs_that_the_form_cannot_say_come_back_as_they_were() {
    for knobs in [
        r#""thinking":{"type":"adaptive"},"output_config":{"effort":"high"}"#,
        r#""output_config":{"effort":"xhigh","format":{"type":"json_schema","schema":{"type":"object"}}}"#,
        r#""thinking":{"type":"between_tools"},"output_config":{"effort":"max"}"#,
        r#""thinking":{"type":"disabled"},"output_config":{"effort":"low"}"#,
        r#""thinking":{"type":"adaptive","display":"summarized","new":1},"output_config":{"effort":"new"}"#,
        r#""output_config":{"task_budget":5},"metadata":{"user_id":"u","x":1}"#,
    ] {
        let body =
            format!(r#"{{"model":"m","max_tokens":5,"messages":[{{"role":"user","content":"x"}}],{knobs}}}"#);
        let body = Bytes::from(body);
        let encoded = encode(&decode(&body).expect("readable"), &Caps::permissive()).expect("can be written");
        assert_eq!(tree(&encoded.body), tree(&body));
    }
}

#[test]
fn errors_name_the_place() {
    for (members, code, param) in [
        (r#""messages":[]"#, "invalid_value", "messages"),
        (r#""messages":[{"role":"bot","content":"x"}]"#, "invalid_value", "messages[0].role"),
        (r#""messages":[{"role":"user"}]"#, "missing_required_parameter", "messages[0].content"),
        (r#""messages":[{"role":"user","content":7}]"#, "invalid_type", "messages[0].content"),
        (
            r#""messages":[{"role":"user","content":[{"text":"x"}]}]"#,
            "missing_required_parameter",
            "messages[0].content[0].type",
        ),
        (
            r#""messages":[{"role":"user","content":[{"type":"image","source":{"type":"base64","data":"x"}}]}]"#,
            "missing_required_parameter",
            "messages[0].content[0].source.media_type",
        ),
        (r#""messages":[{"role":"user","content":"x","role":"user"}]"#, "invalid_json", "messages[0].role"),
        (
            r#""messages":[{"role":"user","content":"x"}],"tools":[{}]"#,
            "missing_required_parameter",
            "tools[0].name",
        ),
        (
            r#""messages":[{"role":"user","content":"x"}],"thinking":{"type":"enabled"}"#,
            "missing_required_parameter",
            "thinking.budget_tokens",
        ),
        (r#""messages":[{"role":"user","content":"x"}],"temperature":"1""#, "invalid_type", "temperature"),
    ] {
        let error =
            decode(&Bytes::from(format!(r#"{{"model":"m","max_tokens":5,{members}}}"#))).expect_err(members);
        assert_eq!((error.code, error.param.as_deref()), (code, Some(param)));
    }
}

#[test]
fn what_only_this_dialect_has_can_be_told_as_text() {
    for (block, expected) in [
        (
            r#"{"type":"search_result","source":"s","title":"t","content":[{"type":"text","text":"x"}]}"#,
            Some("t — s\nx"),
        ),
        (r#"{"type":"document","title":"d","source":{"type":"content","content":"x"}}"#, Some("d\nx")),
        (
            r#"{"type":"server_tool_use","name":"web_search","input":{"query": "q"}}"#,
            Some(r#"[web_search {"query":"q"}]"#),
        ),
        (
            r#"{"type":"web_search_tool_result","content":[{"url":"https://e/","title":"E"}]}"#,
            Some("[search results]\n- E https://e/"),
        ),
        (r#"{"type":"container_upload","file_id":"f"}"#, None),
    ] {
        assert_eq!(super::super::opaque_as_text(&raw(block)).as_deref(), expected);
    }
}

proptest::proptest! {
    #[test]
    fn any_small_request_can_be_read_and_written(
        blocks in proptest::collection::vec((0_usize..3, 0_usize..16), 0..12),
        knobs in proptest::collection::vec(0_usize..8, 0..4),
    ) {
        let kinds = [
            r#"{"type":"text","text":"x"}"#, r#"{"type":"text","text":" ","cache_control":{"type":"ephemeral"}}"#,
            r#"{"type":"thinking","thinking":"t","signature":"S"}"#, r#"{"type":"redacted_thinking","data":"d"}"#,
            r#"{"type":"tool_use","id":"a","name":"f","input":{"x": 1}}"#, r#"{"type":"tool_use","id":"b","name":"","input":7}"#,
            r#"{"type":"tool_result","tool_use_id":"a","content":"r"}"#, r#"{"type":"tool_result","tool_use_id":"b"}"#,
            r#"{"type":"tool_result","tool_use_id":"","content":[{"type":"text","text":"q"}]}"#,
            r#"{"type":"image","source":{"type":"base64","media_type":"image/png","data":"iVBORw0KGgo="}}"#,
            r#"{"type":"image","source":{"type":"file","file_id":"f"}}"#, r#"{"type":"server_tool_use","name":"s"}"#,
            r#"{"type":"document","source":{"type":"text","media_type":"text/plain","data":"d"}}"#,
            r#"{"type":"text","text":"\ud83d"}"#, r#"{"type":"tool_use","id":"ü","name":"g"}"#, r#"{"type":"x"}"#,
        ];
        let more = [
            r#""tools":[{"name":"f"}]"#, r#""tool_choice":{"type":"any"}"#, r#""thinking":{"type":"adaptive"}"#,
            r#""thinking":{"type":"enabled","budget_tokens":2000}"#, r#""output_config":{"effort":"low"}"#,
            r#""system":"s""#, r#""temperature":2"#, r#""system":[{"type":"text","text":"s"}]"#,
        ];
        let roles = ["user", "assistant", "system"];
        let messages: Vec<_> = blocks
            .iter()
            .map(|(role, kind)| format!(r#"{{"role":"{}","content":[{}]}}"#, roles[*role], kinds[*kind]))
            .collect();
        let mut body = format!(r#"{{"model":"m","max_tokens":9000,"messages":[{}]"#, messages.join(","));
        for knob in knobs {
            body.push(',');
            body.push_str(more[knob]);
        }
        body.push('}');
        crate::fuzz::request(&super::super::super::Anthropic, body.as_bytes());
    }
}
