//! What stands around the conversation of a request of another dialect.

use super::*;

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
    assert_eq!(refusal(&asked, &Caps::permissive()), ("unsupported_tool", "tools[1]".to_owned()));
}

#[test]
fn thinking_by_what_the_model_can() {
    let manual = Caps::permissive();
    let adaptive = Caps { adaptive_thinking: true, ..Caps::permissive() };
    let none = Caps { reasoning: false, ..Caps::permissive() };
    use Effort::{High, Low, Max, Medium, XHigh};
    let newest = Caps { efforts: &[Low, Medium, High, XHigh, Max], ..adaptive.clone() };
    let between = Caps { reasoning_off: ReasoningOff::BetweenTools, ..newest.clone() };
    let always = Caps { reasoning_off: ReasoningOff::Least, ..newest.clone() };
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
        (
            ReasoningAmount::Budget(10_000),
            &adaptive,
            summarized,
            r#"{"effort":"medium"}"#,
            &["(mapped reasoning_effort)"],
        ),
        (effort(Effort::XHigh), &newest, summarized, r#"{"effort":"xhigh"}"#, &[]),
        (effort(Effort::Max), &newest, summarized, r#"{"effort":"max"}"#, &[]),
        (
            effort(Effort::XHigh),
            &adaptive,
            summarized,
            r#"{"effort":"high"}"#,
            &["(clamped reasoning_effort)"],
        ),
        (
            ReasoningAmount::Off,
            &between,
            r#"{"type":"between_tools"}"#,
            "null",
            &["(mapped reasoning_effort)"],
        ),
        (ReasoningAmount::Off, &always, "null", r#"{"effort":"low"}"#, &["clamped reasoning_effort"]),
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
    // A model that thinks whatever is asked thinks as much as is asked.
    for (amount, config, lost) in [
        (ReasoningAmount::Default, "null", &[][..]),
        (effort(High), r#"{"effort":"high"}"#, &[]),
        (ReasoningAmount::Off, r#"{"effort":"low"}"#, &["clamped reasoning_effort"]),
    ] {
        forced.reasoning.amount = amount;
        let (body, losses) = written(&forced, &always);
        assert_eq!((body.get("thinking"), body["output_config"].to_string()), (None, config.to_owned()));
        assert_eq!(losses, lost);
    }

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
    let one = Caps { one_sampler: true, ..Caps::permissive() };
    let both = written(&asked, &Caps::permissive()).0;
    assert_eq!((&both["temperature"], &both["top_p"]), (&Value::from(1), &Value::from(0.9)));
    let (body, losses) = written(&asked, &one);
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

#[test]
fn a_model_that_cannot_be_made_to_call_sees_the_one_tool_or_the_choice_is_refused() {
    let free = Caps { forced_calls: false, adaptive_thinking: true, ..Caps::permissive() };
    for (tools, choice, expected) in [
        (&["a", "b"][..], ToolChoice::Named("b".into()), Some("b")),
        (&["a"], ToolChoice::Required, Some("a")),
        (&["a", "b"], ToolChoice::Required, None),
        (&["a", "b"], ToolChoice::Allowed { required: true, names: vec!["b".into()] }, Some("b")),
    ] {
        let mut asked = asking();
        asked.tools = tools.iter().map(|name| function(name, None)).collect();
        asked.tool_choice = Some(choice.clone());
        let Some(name) = expected else {
            assert_eq!(refusal(&asked, &free), ("unsupported_tool_choice", "tool_choice".to_owned()));
            continue;
        };
        let (body, losses) = written(&asked, &free);
        assert_eq!(body["tools"].as_array().map(Vec::len), Some(1), "{choice:?}");
        assert_eq!((&body["tools"][0]["name"], &body["tool_choice"]["type"]), (&name.into(), &"auto".into()));
        assert!(losses.contains(&"mapped tool_choice".to_owned()), "{choice:?}: {losses:?}");
        assert!(body.get("thinking").is_none(), "nothing stands against thinking: {body}");
    }
    // Structured answers are not made by a call there.
    let mut asked = asking();
    let schema = raw(r#"{"type":"object","properties":{}}"#);
    asked.output_format = OutputFormat::JsonSchema { name: None, description: None, schema, strict: None };
    let old = Caps { json_schema: false, ..free };
    assert!(written(&asked, &old).0.get("tools").is_none());
}

#[test]
fn fast_is_a_speed_where_the_model_has_it_and_else_what_priority_is() {
    for (tier, fast, expected) in [
        ("fast", true, ["null", r#""fast""#]),
        ("fast", false, [r#""auto""#, "null"]),
        ("priority", true, [r#""auto""#, "null"]),
        ("priority", false, [r#""auto""#, "null"]),
    ] {
        let mut asked = asking();
        asked.service_tier = Some(tier.into());
        let (body, losses) = written(&asked, &Caps { fast, ..Caps::permissive() });
        let found = [&body["service_tier"], &body["speed"]].map(ToString::to_string);
        assert_eq!(found, expected, "{tier} {fast}");
        assert!(losses.contains(&"(mapped service_tier)".to_owned()), "{tier} {fast}: {losses:?}");
    }
}
