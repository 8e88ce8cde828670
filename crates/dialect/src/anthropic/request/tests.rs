use bytes::Bytes;
use serde_json::{Value, value::RawValue};

use super::{decode, encode};
use crate::{
    Caps, DialectId,
    ir::{
        Block, BlockKind, CacheMark, ChatRequest, Effort, File, Image, Loss, MediaSource, OutputFormat,
        Reasoning, ReasoningAmount, Role, Tool, ToolCall, ToolChoice, ToolKind, ToolResult, Turn,
    },
};

const OTHER: DialectId = DialectId("other");

fn raw(text: &str) -> Box<RawValue> {
    serde_json::from_str(text).expect("valid JSON")
}

fn text(text: &str) -> Block {
    BlockKind::Text(text.into()).into()
}

fn call(id: &str) -> Block {
    BlockKind::ToolCall(ToolCall { id: id.into(), name: "f".into(), arguments: "{\"n\":1}".into() }).into()
}

fn result(id: &str, answer: &str) -> Block {
    let blocks = vec![text(answer)];
    BlockKind::ToolResult(ToolResult { call_id: id.into(), blocks, is_error: false }).into()
}

fn turn(role: Role, blocks: Vec<Block>) -> (Role, Vec<Block>) {
    (role, blocks)
}

/// A request of another dialect.
fn request(turns: Vec<(Role, Vec<Block>)>) -> ChatRequest {
    let turns = turns.into_iter().enumerate();
    let turns = turns
        .map(|(at, (role, blocks))| Turn { role, blocks, name: None, path: format!("messages[{at}]") })
        .collect();
    let mut request =
        ChatRequest { model: "m".into(), turns, max_output_tokens: Some(100), ..ChatRequest::default() };
    request.extras.origin = Some(OTHER);
    request
}

fn asking() -> ChatRequest {
    request(vec![turn(Role::User, vec![text("hi")])])
}

fn function(name: &str, schema: Option<&str>) -> Tool {
    let kind =
        ToolKind::Function { name: name.into(), description: None, schema: schema.map(raw), strict: None };
    Tool::at("", kind)
}

fn written(request: &ChatRequest, caps: &Caps) -> (Value, Vec<String>) {
    let encoded = encode(request, caps).expect("can be written");
    let body = serde_json::from_slice(&encoded.body).expect("valid JSON");
    (body, encoded.losses.iter().map(shown).collect())
}

/// `dropped top_k`; in brackets what is not told to the client.
fn shown(loss: &Loss) -> String {
    let shown = format!("{} {}", loss.action.as_str(), loss.path);
    if loss.silent { format!("({shown})") } else { shown }
}

fn messages(request: &ChatRequest) -> (String, Vec<String>) {
    messages_with(request, &Caps::permissive())
}

fn messages_with(request: &ChatRequest, caps: &Caps) -> (String, Vec<String>) {
    let encoded = encode(request, caps).expect("can be written");
    let body: std::collections::BTreeMap<String, Box<RawValue>> =
        serde_json::from_slice(&encoded.body).expect("valid JSON");
    (body["messages"].get().to_owned(), encoded.losses.iter().map(shown).collect())
}

fn refusal(request: &ChatRequest, caps: &Caps) -> (&'static str, String) {
    let error = encode(request, caps).expect_err("is refused");
    (error.code, error.param.unwrap_or_default())
}

#[test]
fn results_follow_their_calls_in_order() {
    let late = request(vec![
        turn(Role::User, vec![text("go")]),
        turn(Role::Assistant, vec![call("a"), call("b")]),
        turn(Role::User, vec![text("now?")]),
        turn(Role::User, vec![result("b", "two")]),
        turn(Role::User, vec![result("a", "one"), result("x", "lost")]),
    ]);
    let (found, losses) = messages(&late);
    assert_eq!(
        found,
        concat!(
            r#"[{"role":"user","content":"go"},{"role":"assistant","content":[{"type":"tool_use","id":"a","name":"f","input":{"n":1}},"#,
            r#"{"type":"tool_use","id":"b","name":"f","input":{"n":1}}]},{"role":"user","content":[{"type":"tool_result","tool_use_id":"a","content":"one"},"#,
            r#"{"type":"tool_result","tool_use_id":"b","content":"two"},{"type":"text","text":"now?"},{"type":"text","text":"[tool result x] lost"}]}]"#
        )
    );
    assert_eq!(losses, ["mapped messages[4].content[1]", "invented tools"]);
}

#[test]
fn reused_ids_stay_with_their_turns_and_missing_results_are_told() {
    let request = request(vec![
        turn(Role::User, vec![text("go")]),
        turn(Role::Assistant, vec![call("a")]),
        turn(Role::User, vec![result("a", "1")]),
        turn(Role::Assistant, vec![call("a"), call("b"), call("c")]),
        turn(Role::User, vec![result("a", "2"), result("", "3")]),
    ]);
    let (found, losses) = messages(&request);
    assert!(found.ends_with(concat!(
        r#"{"role":"user","content":[{"type":"tool_result","tool_use_id":"a","content":"2"},"#,
        r#"{"type":"tool_result","tool_use_id":"b","content":"3"},"#,
        r#"{"type":"tool_result","tool_use_id":"c","content":"tool call was not executed","is_error":true}]}]"#
    )), "{found}");
    assert_eq!(losses, ["invented messages[3].content[2]", "invented tools"]);
}

#[test]
fn calls_without_an_end_are_refused() {
    let open = request(vec![turn(Role::User, vec![text("go")]), turn(Role::Assistant, vec![call("a")])]);
    assert_eq!(
        refusal(&open, &Caps::permissive()),
        ("unpaired_tool_call", "messages[1].content[0]".to_owned())
    );
    let nameless = request(vec![turn(Role::User, vec![result("", "x")])]);
    assert_eq!(
        refusal(&nameless, &Caps::permissive()),
        ("unpaired_tool_call", "messages[0].content[0]".to_owned())
    );
}

#[test]
fn turns_alternate_and_no_text_is_blank() {
    for (turns, expected, losses) in [
        (vec![], r#"[{"role":"user","content":"Continue."}]"#, vec!["invented messages"]),
        (
            vec![turn(Role::User, vec![text(" ")]), turn(Role::Assistant, vec![text("")])],
            r#"[{"role":"user","content":"(no content)"}]"#,
            vec!["(dropped messages[1])"],
        ),
        (
            vec![
                turn(Role::Assistant, vec![text("b")]),
                turn(Role::User, vec![text("c")]),
                turn(Role::User, vec![text("\n"), text("d")]),
            ],
            r#"[{"role":"user","content":"(conversation resumed)"},{"role":"assistant","content":"b"},{"role":"user","content":[{"type":"text","text":"c"},{"type":"text","text":"d"}]}]"#,
            vec!["invented messages"],
        ),
        (
            vec![
                turn(Role::User, vec![text("a")]),
                turn(Role::Assistant, vec![text("")]),
                turn(Role::User, vec![text("b")]),
            ],
            r#"[{"role":"user","content":"a"},{"role":"assistant","content":"(no content)"},{"role":"user","content":"b"}]"#,
            vec![],
        ),
    ] {
        assert_eq!(
            messages(&request(turns)),
            (expected.to_owned(), losses.iter().map(|&loss| loss.into()).collect())
        );
    }
}

#[test]
fn late_system_messages_go_where_they_may() {
    let with_support = Caps { mid_conversation_system: true, ..Caps::permissive() };
    let after_answer = request(vec![
        turn(Role::User, vec![text("a")]),
        turn(Role::Assistant, vec![text("b")]),
        turn(Role::System, vec![text("S2")]),
        turn(Role::User, vec![text("q")]),
    ]);
    let expected = concat!(
        r#"[{"role":"user","content":"a"},{"role":"assistant","content":"b"},"#,
        r#"{"role":"user","content":[{"type":"text","text":"<system-reminder>S2</system-reminder>"},{"type":"text","text":"q"}]}]"#
    );
    for caps in [&Caps::permissive(), &with_support] {
        assert_eq!(
            messages_with(&after_answer, caps),
            (expected.to_owned(), vec!["mapped messages[2].role".to_owned()])
        );
    }
    let last = request(vec![turn(Role::User, vec![text("q")]), turn(Role::System, vec![text("S2")])]);
    let (found, losses) = messages_with(&last, &with_support);
    assert_eq!(found, r#"[{"role":"user","content":"q"},{"role":"system","content":"S2"}]"#);
    assert!(losses.is_empty());
    let (found, losses) = messages(&last);
    let reminder = r#"{"type":"text","text":"<system-reminder>S2</system-reminder>"}"#;
    assert_eq!(found, format!(r#"[{{"role":"user","content":[{{"type":"text","text":"q"}},{reminder}]}}]"#));
    assert_eq!(losses, ["mapped messages[1].role"]);

    let mut leading = request(vec![turn(Role::System, vec![text("S1")]), turn(Role::User, vec![text("q")])]);
    leading.system.push(text("S0"));
    let (body, losses) = written(&leading, &Caps::permissive());
    assert_eq!(body["system"][1]["text"], "S1");
    assert!(losses.is_empty());
}

#[test]
fn a_trailing_answer_is_continued_or_refused() {
    let mut prefilled =
        request(vec![turn(Role::User, vec![text("q")]), turn(Role::Assistant, vec![text("{ ")])]);
    assert_eq!(refusal(&prefilled, &Caps::permissive()), ("unsupported_prefill", "messages[1]".to_owned()));
    let caps = Caps { prefill: true, ..Caps::permissive() };
    prefilled.reasoning.amount = ReasoningAmount::Effort(Effort::High);
    let (body, losses) = written(&prefilled, &caps);
    assert_eq!(body["messages"][1]["content"], "{");
    assert_eq!(body["thinking"]["type"], "disabled");
    assert_eq!(losses, ["(clamped messages[1])", "dropped reasoning_effort"]);
}

#[test]
fn content_is_carried_or_refused() {
    let image = |detail: Option<&str>| {
        let source = MediaSource::Base64 { media_type: "image/jpeg".into(), data: "iVBORw0KGgoAAAAN".into() };
        Block::from(BlockKind::Image(Image { source, detail: detail.map(Into::into) }))
    };
    let file = |media_type: &str, data: &str| {
        let source = MediaSource::Base64 { media_type: media_type.into(), data: data.into() };
        Block::from(BlockKind::File(File { name: Some("n".into()), ..source.into() }))
    };
    let asked = request(vec![turn(
        Role::User,
        vec![image(Some("high")), file("application/pdf", "JVBERi0x"), file("text/plain", "aGk=")],
    )]);
    let (found, losses) = messages(&asked);
    assert_eq!(
        found,
        concat!(
            r#"[{"role":"user","content":[{"type":"image","source":{"type":"base64","media_type":"image/png","data":"iVBORw0KGgoAAAAN"}},"#,
            r#"{"type":"document","source":{"type":"base64","media_type":"application/pdf","data":"JVBERi0x"},"title":"n"},"#,
            r#"{"type":"document","source":{"type":"text","media_type":"text/plain","data":"hi"},"title":"n"}]}]"#
        )
    );
    assert_eq!(losses, ["dropped messages[0].content[0].image_url.detail"]);

    let blind = Caps { vision: false, pdf: false, ..Caps::permissive() };
    let foreign_id = MediaSource::FileId { origin: OTHER, id: "file_1".into() };
    for (block, caps) in [
        (image(None), &blind),
        (file("application/pdf", ""), &blind),
        (file("application/msword", ""), &Caps::permissive()),
        (BlockKind::Audio { data: String::new(), format: "wav".into() }.into(), &Caps::permissive()),
        (BlockKind::Image(Image { source: foreign_id, detail: None }).into(), &Caps::permissive()),
        (BlockKind::Opaque { origin: OTHER, raw: raw("{}") }.into(), &Caps::permissive()),
    ] {
        let asked = request(vec![turn(Role::User, vec![text("x"), block])]);
        assert_eq!(refusal(&asked, caps), ("unsupported_content", "messages[0].content[1]".to_owned()));
    }
}

#[test]
fn only_the_own_reasoning_is_sent_back() {
    let thinking = |signature: Option<&str>, origin| {
        Block::from(BlockKind::Thinking {
            text: String::new(),
            signature: signature.map(|data| data.to_owned().into()),
            origin,
        })
    };
    let asked = request(vec![
        turn(Role::User, vec![text("q")]),
        turn(
            Role::Assistant,
            vec![
                thinking(Some("S"), super::super::ID),
                thinking(Some("T"), OTHER),
                thinking(None, super::super::ID),
                text("a"),
            ],
        ),
        turn(Role::User, vec![text("r")]),
    ]);
    let (found, losses) = messages(&asked);
    assert!(
        found.contains(r#"[{"type":"thinking","thinking":"","signature":"S"},{"type":"text","text":"a"}]"#)
    );
    assert_eq!(losses, ["(dropped messages[1].content[1])", "(dropped messages[1].content[2])"]);
}

#[test]
fn the_last_four_cache_marks_stay() {
    let marked =
        |words: &str| Block { cache_mark: Some(CacheMark { one_hour: words == "6" }), ..text(words) };
    let mut asked = request(vec![turn(Role::User, (2..=6).map(|n| marked(&n.to_string())).collect())]);
    asked.system.push(marked("1"));
    let (body, losses) = written(&asked, &Caps::permissive());
    assert_eq!(body["system"], "1");
    assert!(body["messages"][0]["content"][0].get("cache_control").is_none());
    assert_eq!(body["messages"][0]["content"][1]["cache_control"]["type"], "ephemeral");
    assert_eq!(body["messages"][0]["content"][4]["cache_control"]["ttl"], "1h");
    assert_eq!(losses, ["(dropped cache_control)"]);
}

#[test]
fn tools_and_choices() {
    let mut asked = asking();
    asked.tools = vec![function("a", None), function("b", Some(r#"{"properties":{}}"#)), function("a", None)];
    asked.parallel_tool_calls = Some(false);
    let (body, losses) = written(&asked, &Caps::permissive());
    assert_eq!(
        body["tools"].to_string(),
        r#"[{"input_schema":{"properties":{},"type":"object"},"name":"a"},{"input_schema":{"properties":{},"type":"object"},"name":"b"}]"#
    );
    assert_eq!(body["tool_choice"].to_string(), r#"{"disable_parallel_tool_use":true,"type":"auto"}"#);
    assert_eq!(losses, ["(dropped tools[2])"]);

    let allowed = |required, names: &[&str]| ToolChoice::Allowed {
        required,
        names: names.iter().map(|&name| name.into()).collect(),
    };
    asked.tools.pop();
    asked.parallel_tool_calls = None;
    for (choice, expected, tools) in [
        (ToolChoice::Auto, r#"{"type":"auto"}"#, 2),
        (ToolChoice::None, r#"{"type":"none"}"#, 2),
        (ToolChoice::Required, r#"{"type":"any"}"#, 2),
        (ToolChoice::Named("b".into()), r#"{"name":"b","type":"tool"}"#, 2),
        (allowed(true, &["b"]), r#"{"name":"b","type":"tool"}"#, 2),
        (allowed(false, &["b"]), r#"{"type":"auto"}"#, 1),
        (allowed(true, &["b", "a"]), r#"{"type":"any"}"#, 2),
    ] {
        asked.tool_choice = Some(choice);
        let (body, _) = written(&asked, &Caps::permissive());
        assert_eq!(body["tool_choice"].to_string(), expected);
        assert_eq!(body["tools"].as_array().map(Vec::len), Some(tools));
    }

    asked.tool_choice = Some(ToolChoice::Named("c".into()));
    assert_eq!(refusal(&asked, &Caps::permissive()), ("invalid_value", "tool_choice".to_owned()));
    asked.tool_choice = None;
    asked.tools[1] = function("a", Some(r#"{"type":"object"}"#));
    assert_eq!(refusal(&asked, &Caps::permissive()), ("invalid_value", "tools[1]".to_owned()));
    asked.tools[1] = function("b", Some(r#"{"type":"array"}"#));
    assert_eq!(refusal(&asked, &Caps::permissive()), ("invalid_tool_schema", "tools[1]".to_owned()));
    let foreign = ToolKind::Opaque { origin: OTHER, name: Some("b".into()), raw: raw("{}") };
    asked.tools[1] = Tool::at("", foreign);
    assert_eq!(written(&asked, &Caps::permissive()).1, ["dropped tools[1]"]);
    asked.tools.remove(0);
    assert_eq!(refusal(&asked, &Caps::permissive()), ("unsupported_tool", "tools[0]".to_owned()));
}

#[test]
fn thinking_by_what_the_model_can() {
    let manual = Caps::permissive();
    let adaptive = Caps { adaptive_thinking: true, ..Caps::permissive() };
    let none = Caps { reasoning: false, ..Caps::permissive() };
    let effort = ReasoningAmount::Effort;
    let summarized = r#"{"display":"summarized","type":"adaptive"}"#;
    for (amount, caps, thinking, config, losses) in [
        (ReasoningAmount::Default, &adaptive, "null", "null", &[][..]),
        (ReasoningAmount::Off, &adaptive, r#"{"type":"disabled"}"#, "null", &[]),
        (effort(Effort::Medium), &adaptive, summarized, r#"{"effort":"medium"}"#, &[]),
        (
            effort(Effort::Minimal),
            &adaptive,
            summarized,
            r#"{"effort":"low"}"#,
            &["(clamped reasoning_effort)"],
        ),
        (ReasoningAmount::Budget(10_000), &adaptive, summarized, r#"{"effort":"medium"}"#, &[]),
        (ReasoningAmount::Adaptive(None), &adaptive, r#"{"type":"adaptive"}"#, "null", &[]),
        (effort(Effort::Low), &manual, r#"{"budget_tokens":4096,"type":"enabled"}"#, "null", &[]),
        (
            effort(Effort::High),
            &manual,
            r#"{"budget_tokens":7999,"type":"enabled"}"#,
            "null",
            &["(clamped reasoning_effort)"],
        ),
        (
            ReasoningAmount::Adaptive(None),
            &manual,
            r#"{"budget_tokens":7999,"type":"enabled"}"#,
            "null",
            &["(mapped reasoning_effort)", "(clamped reasoning_effort)"],
        ),
        (effort(Effort::Low), &none, "null", "null", &["dropped reasoning_effort"]),
        (ReasoningAmount::Off, &none, "null", "null", &[]),
    ] {
        let mut asked = asking();
        asked.max_output_tokens = Some(8000);
        asked.reasoning = Reasoning { amount: amount.clone(), show: None };
        let (body, found) = written(&asked, caps);
        assert_eq!(
            (body["thinking"].to_string(), body["output_config"].to_string(), found),
            (thinking.to_owned(), config.to_owned(), losses.iter().map(|&loss| loss.to_owned()).collect()),
            "{amount:?}"
        );
    }

    let mut small = asking();
    small.reasoning.amount = effort(Effort::Low);
    let (body, losses) = written(&small, &manual);
    assert_eq!(
        (body["thinking"]["type"].as_str(), losses),
        (Some("disabled"), vec!["dropped reasoning_effort".to_owned()])
    );

    let mut forced = asking();
    forced.tools = vec![function("a", None)];
    forced.tool_choice = Some(ToolChoice::Required);
    let (body, losses) = written(&forced, &adaptive);
    assert_eq!((body["thinking"]["type"].as_str(), losses), (Some("disabled"), vec![]));
    assert!(written(&forced, &manual).0.get("thinking").is_none());

    let mut open = request(vec![
        turn(Role::User, vec![text("q")]),
        turn(Role::Assistant, vec![call("a")]),
        turn(Role::User, vec![result("a", "1")]),
    ]);
    open.max_output_tokens = None;
    open.reasoning.amount = effort(Effort::Low);
    assert_eq!(written(&open, &manual).0["thinking"]["type"], "disabled");
    assert_eq!(written(&open, &adaptive).0["thinking"]["type"], "adaptive");
}

#[test]
fn numbers_and_switches() {
    let mut asked = asking();
    asked.max_output_tokens = None;
    asked.sampling.temperature = Some(raw("1.50"));
    asked.sampling.top_p = Some(raw("0.9"));
    asked.sampling.top_k = Some(raw("5"));
    asked.sampling.frequency_penalty = Some(raw("0.0"));
    asked.sampling.presence_penalty = Some(raw("0.5"));
    asked.sampling.seed = Some(raw("7"));
    asked.sampling.logit_bias = Some(raw("{ }"));
    asked.sampling.n = Some(1);
    asked.stop = vec!["END".into(), "\n".into()];
    asked.user = Some("ü".repeat(300));
    asked.service_tier = Some("flex".into());
    asked.prompt_cache_key = Some("k".into());
    asked.extras.members = vec![("verbosity".into(), raw("\"low\"")), ("metadata".into(), raw("{}"))];
    asked.stream = true;
    let (body, losses) = written(&asked, &Caps::permissive());
    assert_eq!(body["max_tokens"], 8192);
    assert_eq!((&body["temperature"], &body["top_k"]), (&Value::from(1), &Value::from(5)));
    assert_eq!(body["stop_sequences"].to_string(), r#"["END"]"#);
    assert_eq!(body["metadata"]["user_id"].as_str().map(|id| id.chars().count()), Some(256));
    assert_eq!((&body["service_tier"], &body["stream"]), (&"standard_only".into(), &true.into()));
    assert_eq!(
        losses,
        [
            "(invented max_tokens)",
            "dropped stop",
            "clamped temperature",
            "dropped top_p",
            "(dropped frequency_penalty)",
            "dropped presence_penalty",
            "dropped seed",
            "(dropped logit_bias)",
            "(dropped n)",
            "(clamped user)",
            "(dropped prompt_cache_key)",
            "(mapped service_tier)",
            "dropped verbosity",
            "(dropped metadata)",
        ]
    );

    let refused = |change: &dyn Fn(&mut ChatRequest)| {
        let mut asked = asking();
        change(&mut asked);
        refusal(&asked, &Caps::permissive()).1
    };
    assert_eq!(refused(&|asked| asked.sampling.n = Some(2)), "n");
    assert_eq!(refused(&|asked| asked.sampling.logprobs = true), "logprobs");
    assert_eq!(refused(&|asked| asked.sampling.logit_bias = Some(raw("{\"1\":2}"))), "logit_bias");
    let audio = || ("modalities".to_owned(), raw(r#"["text","audio"]"#));
    assert_eq!(refused(&|asked| asked.extras.members.push(audio())), "modalities");

    let strict = Caps { sampling: false, max_output_tokens: Some(50), ..Caps::permissive() };
    let mut asked = asking();
    asked.sampling.temperature = Some(raw("0.5"));
    let (body, losses) = written(&asked, &strict);
    assert_eq!((body.get("temperature"), &body["max_tokens"]), (None, &Value::from(50)));
    assert_eq!(losses, ["(clamped max_tokens)", "dropped temperature"]);
}

#[test]
fn forms_of_answers() {
    let mut asked = asking();
    let schema = raw(r#"{"type":"object","properties":{}}"#);
    asked.output_format =
        OutputFormat::JsonSchema { name: Some("n".into()), description: None, schema, strict: Some(true) };
    let (body, losses) = written(&asked, &Caps::permissive());
    assert_eq!(body["output_config"]["format"]["schema"]["additionalProperties"], false);
    assert_eq!(losses, ["mapped response_format.json_schema.schema"]);
    let old = Caps { json_schema: false, ..Caps::permissive() };
    let (body, losses) = written(&asked, &old);
    assert_eq!(body["tools"][0]["input_schema"]["type"], "object");
    assert_eq!(body["tool_choice"].to_string(), r#"{"name":"json_response","type":"tool"}"#);
    assert_eq!((body.get("system"), losses), (None, vec!["(mapped response_format)".to_owned()]));
    // With tools of the client, while thinking, or for something else than an object a call is not forced.
    let said = |asked: &ChatRequest| {
        let (body, losses) = written(asked, &old);
        assert!(body["system"].as_str().is_some_and(|text| text.contains("JSON schema: {")));
        assert!(body.get("tool_choice").is_none() && losses.contains(&"mapped response_format".to_owned()));
    };
    asked.tools.push(function("f", None));
    said(&asked);
    asked.tools.clear();
    asked.reasoning.amount = ReasoningAmount::Effort(Effort::Low);
    asked.max_output_tokens = Some(9000);
    said(&asked);
    asked.reasoning.amount = ReasoningAmount::Off;
    let schema = raw(r#"{"type":"array"}"#);
    asked.output_format = OutputFormat::JsonSchema { name: None, description: None, schema, strict: None };
    said(&asked);
    asked.output_format = OutputFormat::JsonObject;
    assert!(written(&asked, &Caps::permissive()).0["system"].is_string());
}

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
        &include_bytes!("../../../fixtures/anthropic/full/request.json")[..],
        include_bytes!("../../../fixtures/anthropic/tools/request.json"),
        include_bytes!("../../../fixtures/anthropic/images/request.json"),
        include_bytes!("../../../fixtures/anthropic/plain/request.json"),
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
        assert_eq!(super::opaque_as_text(&raw(block)).as_deref(), expected);
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
        crate::fuzz::request(&super::super::Anthropic, body.as_bytes());
    }
}

#[test]
fn long_prompts_without_marks_are_marked_where_the_setting_says_so() {
    let caps = Caps { auto_cache: true, ..Caps::permissive() };
    let mut asked = asking();
    assert_eq!(written(&asked, &caps).0.get("cache_control"), None, "it does not pay");
    asked.system.push(BlockKind::Text("word ".repeat(2000)).into());
    assert_eq!(written(&asked, &caps).0["cache_control"].to_string(), r#"{"type":"ephemeral"}"#);
    assert_eq!(written(&asked, &Caps::permissive()).0.get("cache_control"), None);
    asked.system[0].cache_mark = Some(CacheMark { one_hour: false });
    assert_eq!(written(&asked, &caps).0.get("cache_control"), None, "the client marks itself");
}
