//! Requests of clients, and what upstreams get of others'.

use bytes::Bytes;
use serde_json::{Value, json, value::RawValue};

use super::{decode, encode};
use crate::{
    Caps, DecodeError,
    ir::{
        Block, BlockKind, ChatRequest, Effort, File, Image, MediaSource, OutputFormat, ReasoningAmount, Role,
        Signature, Tool, ToolCall, ToolChoice, ToolKind, ToolResult, Turn,
    },
    ollama::ID,
};

fn read(body: &Value) -> Result<ChatRequest, DecodeError> {
    decode(&Bytes::from(body.to_string()))
}

fn with(member: &str, value: Value) -> Value {
    let mut body = json!({"model": "m", "messages": [{"role": "user", "content": "a"}]});
    body[member] = value;
    body
}

fn written(request: &ChatRequest, caps: &Caps) -> (Value, Vec<String>) {
    let encoded = encode(request, caps).unwrap();
    let told = encoded.losses.iter().filter(|loss| !loss.silent).map(|loss| loss.path.to_string()).collect();
    (serde_json::from_slice(&encoded.body).unwrap(), told)
}

fn refused(request: &ChatRequest, caps: &Caps) -> (&'static str, Option<String>) {
    let error = encode(request, caps).unwrap_err();
    (error.code, error.param)
}

fn raw(text: &str) -> Box<RawValue> {
    RawValue::from_string(text.to_owned()).unwrap()
}

/// A request that came in another dialect.
fn foreign(turns: Vec<(Role, Vec<BlockKind>)>) -> ChatRequest {
    let turns = turns.into_iter().enumerate().map(|(at, (role, kinds))| Turn {
        role,
        blocks: kinds.into_iter().map(Block::from).collect(),
        name: None,
        path: format!("messages[{at}]"),
    });
    ChatRequest { model: "m".to_owned(), turns: turns.collect(), ..ChatRequest::default() }
}

fn text(text: &str) -> BlockKind {
    BlockKind::Text(text.to_owned())
}

fn call(id: &str, name: &str, arguments: &str) -> BlockKind {
    BlockKind::ToolCall(ToolCall { id: id.into(), name: name.into(), arguments: arguments.into() })
}

fn result(call_id: &str, blocks: Vec<BlockKind>, is_error: bool) -> BlockKind {
    let blocks = blocks.into_iter().map(Block::from).collect();
    BlockKind::ToolResult(ToolResult { call_id: call_id.into(), blocks, is_error })
}

fn function(name: &str) -> Tool {
    let kind = ToolKind::Function { name: name.to_owned(), description: None, schema: None, strict: None };
    Tool::at("", kind)
}

#[test]
fn what_is_wrong_is_named() {
    for (body, code, param) in [
        (json!({"messages": [{}]}), "missing_required_parameter", "model"),
        (with("messages", json!([])), "invalid_value", "messages"),
        (with("messages", json!([{"content": "a"}])), "missing_required_parameter", "messages[0].role"),
        (with("messages", json!([{"role": "developer"}])), "invalid_value", "messages[0].role"),
        (with("messages", json!([{"role": "user", "content": 1}])), "invalid_type", "messages[0].content"),
        (with("messages", json!([{"role": "user", "images": [1]}])), "invalid_type", "messages[0].images[0]"),
        (
            with("messages", json!([{"role": "tool", "content": "x"}])),
            "unpaired_tool_call",
            "messages[0].tool_name",
        ),
        (with("format", json!("xml")), "invalid_value", "format"),
        (with("think", json!("hard")), "invalid_value", "think"),
        (with("options", json!([])), "invalid_type", "options"),
        (with("options", json!({"temperature": "hot"})), "invalid_type", "options.temperature"),
        (with("options", json!({"stop": [1]})), "invalid_type", "options.stop[0]"),
        (with("tools", json!([{"type": "function"}])), "missing_required_parameter", "tools[0].function"),
        (with("tools", json!([{"function": {"name": " "}}])), "invalid_value", "tools[0].function.name"),
        (
            with("tools", json!([{"function": {"name": "f", "parameters": []}}])),
            "invalid_tool_schema",
            "tools[0].function.parameters",
        ),
    ] {
        let error = read(&body).unwrap_err();
        assert_eq!((error.code, error.param.as_deref()), (code, Some(param)), "{error}");
    }
}

#[test]
fn results_find_their_calls_by_id_by_name_and_by_order() {
    let request = read(&with(
        "messages",
        json!([
            {"role": "user", "content": "a"},
            {"role": "Assistant", "tool_calls": [
                {"function": {"name": "f", "arguments": {"n": 1}}},
                {"function": {"name": "g", "arguments": "{\"n\":2}"}},
                {"id": "mine", "function": {"name": "f"}}]},
            {"role": "tool", "tool_call_id": "mine", "content": "3"},
            {"role": "tool", "tool_name": "g", "content": "2"},
            {"role": "tool", "content": "1"}
        ]),
    ))
    .unwrap();
    let ids: Vec<_> = request.turns[1]
        .blocks
        .iter()
        .map(|block| match &block.kind {
            BlockKind::ToolCall(call) => (call.id.as_str(), call.arguments.as_str()),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!([ids[0].1, ids[1].1, ids[2].1], ["{\"n\":1}", "{\"n\":2}", "{}"]);
    let answered: Vec<_> = request.turns[2]
        .blocks
        .iter()
        .map(|block| match &block.kind {
            BlockKind::ToolResult(result) => result.call_id.as_str(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(answered, ["mine", ids[1].0, ids[0].0]);
}

#[test]
fn options_thinking_and_format_are_understood() {
    let request = read(&json!({"model": "m", "messages": [{"role": "user", "content": "a"}],
        "options": {"num_predict": -1, "stop": "END", "num_ctx": 4096, "temperature": 0.70},
        "think": true, "format": "json"}))
    .unwrap();
    assert!(request.stream, "a stream is the default");
    assert_eq!((request.max_output_tokens, request.stop.as_slice()), (None, &["END".to_owned()][..]));
    assert_eq!(request.extras.members[0].0, "options.num_ctx");
    assert_eq!(request.reasoning.amount, ReasoningAmount::Adaptive(None));
    assert!(matches!(request.output_format, OutputFormat::JsonObject));
    for (think, amount, show) in [
        (json!(false), ReasoningAmount::Off, Some(false)),
        (json!("max"), ReasoningAmount::Effort(Effort::Max), Some(true)),
        (Value::Null, ReasoningAmount::Default, None),
    ] {
        let reasoning = read(&with("think", think)).unwrap().reasoning;
        assert_eq!((reasoning.amount, reasoning.show), (amount, show));
    }
    let schema = read(&with("format", json!({"type": "object"}))).unwrap();
    assert!(matches!(schema.output_format, OutputFormat::JsonSchema { .. }));
    assert!(matches!(read(&with("format", json!(""))).unwrap().output_format, OutputFormat::Text));
}

#[test]
fn pictures_are_base64_also_when_they_come_as_addresses() {
    let png = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwC";
    let images = json!([png, format!("data:image/jpeg;base64,{png}"), "AAAA"]);
    let request =
        read(&with("messages", json!([{"role": "user", "content": "a", "images": images}]))).unwrap();
    let types: Vec<_> = request.turns[0]
        .blocks
        .iter()
        .filter_map(|block| match &block.kind {
            BlockKind::Image(Image { source: MediaSource::Base64 { media_type, data }, .. }) => {
                Some((media_type.as_str(), data.starts_with("data:")))
            }
            _ => None,
        })
        .collect();
    assert_eq!(types, [("image/png", false), ("image/png", false), ("image/jpeg", false)]);
}

#[test]
fn f41_the_context_window_is_asked_for() {
    let mut request = foreign(vec![(Role::User, vec![text(&"word ".repeat(6000))])]);
    let window = |request: &ChatRequest, caps: &Caps| written(request, caps).0["options"]["num_ctx"].clone();
    // 30,000 letters are 7,500 tokens, and the usual answer has place behind them.
    assert_eq!(window(&request, &Caps::permissive()), 16_384);
    let small = Caps { context_window: Some(8192), ..Caps::permissive() };
    assert_eq!(window(&request, &small), 8192);
    request.max_output_tokens = Some(20_000);
    assert_eq!(window(&request, &Caps::permissive()), 32_768);
    let limited = Caps { max_output_tokens: Some(1000), ..Caps::permissive() };
    assert_eq!(window(&request, &limited), 12_288);

    let source = MediaSource::Base64 { media_type: "image/png".into(), data: "A".repeat(400_000) };
    let picture = foreign(vec![(Role::User, vec![BlockKind::Image(Image { source, detail: None })])]);
    assert_eq!(window(&picture, &Caps::permissive()), 8192, "a picture's bytes are no text");

    let own = read(&with("options", json!({"num_ctx": 2048}))).unwrap();
    assert_eq!(window(&own, &Caps::permissive()), 2048, "a client of the dialect knows what it wants");
    assert_eq!(window(&read(&with("stream", json!(false))).unwrap(), &Caps::permissive()), Value::Null);
}

#[test]
fn whether_a_stream_is_wanted_is_always_said() {
    let mut request = foreign(vec![(Role::User, vec![text("a")])]);
    assert_eq!(written(&request, &Caps::permissive()).0["stream"], false);
    request.stream = true;
    assert_eq!(written(&request, &Caps::permissive()).0["stream"], true);
}

#[test]
fn results_stand_behind_their_calls_and_name_the_tool() {
    let source = MediaSource::Base64 { media_type: "image/png".into(), data: "iVBORw0KGgoAAAAN".into() };
    let image = BlockKind::Image(Image { source, detail: None });
    let request = foreign(vec![
        (Role::User, vec![text("go"), text("now")]),
        (
            Role::Assistant,
            vec![text("ok"), call("t1", "f", ""), call("t2", "g", "[1]"), call("t3", "f", "{}")],
        ),
        (Role::User, vec![text("wait"), result("t2", vec![text("no")], true)]),
        (Role::User, vec![result("t1", vec![image], false), result("t9", vec![text("9")], false)]),
    ]);
    let (out, told) = written(&request, &Caps::permissive());
    assert_eq!(
        out["messages"],
        json!([
            {"role": "user", "content": "go\n\nnow"},
            {"role": "assistant", "content": "ok", "tool_calls": [
                {"function": {"name": "f", "arguments": {}}},
                {"function": {"name": "g", "arguments": {"value": [1]}}},
                {"function": {"name": "f", "arguments": {}}}]},
            {"role": "tool", "content": "(no output)", "images": ["iVBORw0KGgoAAAAN"], "tool_name": "f"},
            {"role": "tool", "content": "Error: no", "tool_name": "g"},
            {"role": "tool", "content": "Error: tool call was not executed", "tool_name": "f"},
            {"role": "user", "content": "wait"},
            {"role": "user", "content": "[tool result t9] 9"}
        ])
    );
    assert_eq!(told, ["messages[1]", "messages[3]"]);
}

#[test]
fn several_users_are_told_apart_by_their_names() {
    let mut request = foreign(vec![(Role::User, vec![text("a")]), (Role::User, vec![text("b")])]);
    request.turns[0].name = Some("ann".into());
    let (out, told) = written(&request, &Caps::permissive());
    assert_eq!((&out["messages"][0]["content"], told), (&json!("a"), vec!["messages[0].name".to_owned()]));
    request.turns[1].name = Some("bob".into());
    let (out, told) = written(&request, &Caps::permissive());
    assert_eq!((&out["messages"][1]["content"], told.len()), (&json!("bob: b"), 0));
}

#[test]
fn only_thinking_of_such_a_model_goes_back() {
    let thinking = |text: &str, origin, signature: Option<Signature>| BlockKind::Thinking {
        text: text.to_owned(),
        signature,
        origin,
    };
    let mine = thinking("mine", ID, None);
    let theirs = thinking("theirs", crate::anthropic::ID, Some("S".to_owned().into()));
    let request = foreign(vec![
        (Role::User, vec![text("a")]),
        (Role::Assistant, vec![mine, theirs, text("b")]),
        (Role::User, vec![text("c")]),
    ]);
    let (out, _) = written(&request, &Caps::permissive());
    assert_eq!(out["messages"][1], json!({"role": "assistant", "content": "b", "thinking": "mine"}));
}

#[test]
fn a_choice_is_made_by_what_is_offered() {
    let mut request = foreign(vec![(Role::User, vec![text("a")])]);
    request.tools = vec![function("f"), function("g"), function("h")];
    let names = |request: &ChatRequest| -> (Vec<String>, Vec<String>) {
        let (out, told) = written(request, &Caps::permissive());
        let tools = out["tools"].as_array().cloned().unwrap_or_default();
        let name = |tool: &Value| tool["function"]["name"].as_str().unwrap().to_owned();
        (tools.iter().map(name).collect(), told)
    };
    let allowed = |required, names: &[&str]| ToolChoice::Allowed {
        required,
        names: names.iter().map(ToString::to_string).collect(),
    };
    let no_names: [&str; 0] = [];
    for (choice, offered, told) in [
        (Some(ToolChoice::Auto), &["f", "g", "h"][..], &no_names[..]),
        (None, &["f", "g", "h"], &[]),
        (Some(ToolChoice::None), &[], &[]),
        (Some(ToolChoice::Named("g".into())), &["g"], &["tool_choice"]),
        (Some(allowed(false, &["f", "h"])), &["f", "h"], &[]),
        (Some(allowed(true, &["h"])), &["h"], &["tool_choice"]),
    ] {
        request.tool_choice = choice;
        let found = names(&request);
        assert_eq!(found.0, offered, "{:?}", request.tool_choice);
        assert_eq!(found.1, told, "{:?}", request.tool_choice);
    }
    for (choice, code) in [
        (ToolChoice::Required, "unsupported_tool_choice"),
        (allowed(true, &["f", "h"]), "unsupported_tool_choice"),
        (ToolChoice::Named("x".into()), "invalid_value"),
    ] {
        request.tool_choice = Some(choice);
        assert_eq!(refused(&request, &Caps::permissive()), (code, Some("tool_choice".to_owned())));
    }
    request.tools.truncate(1);
    request.tool_choice = Some(ToolChoice::Required);
    assert_eq!(names(&request), (vec!["f".to_owned()], vec!["tool_choice".to_owned()]));
    request.tools.clear();
    assert_eq!(
        written(&request, &Caps::permissive()).0.get("tools"),
        None,
        "a choice among nothing is dropped"
    );
}

#[test]
fn thinking_is_asked_for_in_words() {
    let mut request = foreign(vec![(Role::User, vec![text("a")])]);
    let silent = Caps { reasoning: false, ..Caps::permissive() };
    for (amount, think, told_by_silent) in [
        (ReasoningAmount::Default, Value::Null, false),
        (ReasoningAmount::Off, json!(false), false),
        (ReasoningAmount::Budget(0), json!(false), false),
        (ReasoningAmount::Adaptive(None), json!(true), true),
        (ReasoningAmount::Effort(Effort::Minimal), json!("low"), true),
        (ReasoningAmount::Effort(Effort::Medium), json!("medium"), true),
        (ReasoningAmount::Adaptive(Some(Effort::Max)), json!("high"), true),
        (ReasoningAmount::Budget(12_000), json!("medium"), true),
    ] {
        request.reasoning.amount = amount;
        assert_eq!(written(&request, &Caps::permissive()).0["think"], think, "{:?}", request.reasoning);
        let (out, told) = written(&request, &silent);
        assert_eq!(told.contains(&"reasoning_effort".to_owned()), told_by_silent);
        assert!(out["think"] != true && !out["think"].is_string());
    }
}

#[test]
fn what_would_change_the_meaning_is_refused() {
    let plain = || foreign(vec![(Role::User, vec![text("a")])]);
    let user = |kind: BlockKind| foreign(vec![(Role::User, vec![kind])]);
    let file = |media_type: &str, data: &str| {
        let source = MediaSource::Base64 { media_type: media_type.into(), data: data.into() };
        BlockKind::File(File { name: Some("a".into()), ..source.into() })
    };
    let image = |source: MediaSource| BlockKind::Image(Image { source, detail: None });
    let png = || MediaSource::Base64 { media_type: "image/png".into(), data: "iVBORw0KGgoAAAAN".into() };
    let blind = Caps { vision: false, tools: false, ..Caps::permissive() };
    let open = Caps::permissive();
    let mut n = plain();
    n.sampling.n = Some(2);
    let mut bias = plain();
    bias.sampling.logit_bias = Some(raw(r#"{"1":5}"#));
    let mut tools = plain();
    tools.tools.push(function("f"));
    let mut container = plain();
    container.extras.members.push(("container".into(), raw("\"c\"")));
    let mut audio_out = plain();
    audio_out.extras.members.push(("modalities".into(), raw(r#"["text","audio"]"#)));
    let audio = user(BlockKind::Audio { data: "AAAA".into(), format: "wav".into() });
    let url = user(image(MediaSource::Url("https://example.com/a.png".into())));
    let bmp = user(image(MediaSource::Base64 { media_type: "image/png".into(), data: "Qk0AAAAA".into() }));
    let prefill = foreign(vec![(Role::User, vec![text("a")]), (Role::Assistant, vec![text("pre")])]);
    let unpaired =
        foreign(vec![(Role::User, vec![text("a")]), (Role::Assistant, vec![call("t", "f", "{}")])]);
    for (request, caps, code, param) in [
        (n, &open, "unsupported_parameter", "n"),
        (bias, &open, "unsupported_parameter", "logit_bias"),
        (container, &open, "unsupported_parameter", "container"),
        (audio_out, &open, "unsupported_content", "modalities"),
        (audio, &open, "unsupported_content", "messages[0].content[0]"),
        (url, &open, "unsupported_content", "messages[0].content[0]"),
        (bmp, &open, "unsupported_content", "messages[0].content[0]"),
        (
            user(file("application/pdf", "JVBERi0xLjQK")),
            &open,
            "unsupported_content",
            "messages[0].content[0]",
        ),
        (user(image(png())), &blind, "unsupported_content", "messages[0].content[0]"),
        (tools, &blind, "unsupported_tool", "tools"),
        (prefill, &open, "unsupported_prefill", "messages[1]"),
        (unpaired, &open, "unpaired_tool_call", "messages[1]"),
    ] {
        assert_eq!(refused(&request, caps), (code, Some(param.to_owned())));
    }
    let (out, _) = written(&user(file("text/plain", "aGk=")), &open);
    assert_eq!(out["messages"][0]["content"], "<document name=\"a\">\nhi\n</document>");
}

#[test]
fn limits_are_kept_and_blank_stops_go() {
    let mut request = foreign(vec![(Role::User, vec![text("a")])]);
    request.max_output_tokens = Some(9000);
    request.stop = vec!["END".into(), " ".into()];
    request.parallel_tool_calls = Some(false);
    request.tools.push(function("f"));
    request.verbosity = Some("low".into());
    let caps = Caps { max_output_tokens: Some(500), sampling: false, ..Caps::permissive() };
    request.sampling.temperature = Some(raw("0.5"));
    let (out, told) = written(&request, &caps);
    assert_eq!(out["options"], json!({"num_predict": 500, "stop": ["END"], "num_ctx": 4096}));
    assert_eq!(told, ["parallel_tool_calls", "temperature", "stop", "verbosity"]);
}
