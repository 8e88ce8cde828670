//! Conversations of other dialects.

use super::*;

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
            vec!["(dropped messages[0].content[0])", "(dropped messages[1])"],
        ),
        (
            vec![
                turn(Role::Assistant, vec![text("b")]),
                turn(Role::User, vec![text("c")]),
                turn(Role::User, vec![text("\n"), text("d")]),
            ],
            r#"[{"role":"user","content":"(conversation resumed)"},{"role":"assistant","content":"b"},{"role":"user","content":[{"type":"text","text":"c"},{"type":"text","text":"d"}]}]"#,
            vec!["(dropped messages[2].content[0])", "invented messages"],
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
                thinking(Some("S"), super::super::super::ID),
                thinking(Some("T"), OTHER),
                thinking(None, super::super::super::ID),
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
fn a_mark_that_is_not_written_takes_no_place_of_another() {
    let marked = |words: &str| Block { cache_mark: Some(CacheMark { one_hour: false }), ..text(words) };
    let kept = |blocks: &[&str]| {
        let asked = request(vec![turn(Role::User, blocks.iter().map(|words| marked(words)).collect())]);
        let body = written(&asked, &Caps::permissive()).0;
        let content = body["messages"][0]["content"].as_array().unwrap().clone();
        content.iter().filter(|block| block.get("cache_control").is_some()).count()
    };
    assert_eq!(kept(&["1", "2", "3", "4", " "]), 4);
    assert_eq!(kept(&[" ", "1", "2", "3", "4", " "]), 4);
    assert_eq!(kept(&["1", "2", "3", "4", "5", " "]), 4);
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

#[test]
fn names_of_others_than_users_and_marks_without_a_place_are_told() {
    let mut asked = request(vec![
        turn(Role::System, vec![text("S")]),
        turn(Role::User, vec![text("a")]),
        turn(Role::Assistant, vec![text("b")]),
        turn(Role::System, vec![text("T")]),
        turn(
            Role::User,
            vec![Block { cache_mark: Some(CacheMark { one_hour: true }), ..text("") }, text("c")],
        ),
    ]);
    asked.turns.iter_mut().for_each(|turn| turn.name = Some("n".into()));
    let (_, losses) = written(&asked, &Caps::permissive());
    assert_eq!(
        losses,
        [
            "dropped messages[0].name",
            "dropped messages[1].name",
            "dropped messages[2].name",
            "dropped messages[3].name",
            "mapped messages[3].role",
            "dropped messages[4].content[0].cache_control",
            "dropped messages[4].name",
        ]
    );
}

#[test]
fn a_hundred_thousand_turns_of_one_role_are_read_in_one_pass() {
    let many = |role| (0..100_000).map(move |_| turn(role, vec![text("x")]));
    let mut users = vec![turn(Role::User, vec![text("a")]), turn(Role::Assistant, vec![call("c")])];
    users.extend(many(Role::User));
    let mut systems = vec![turn(Role::User, vec![text("a")])];
    systems.extend(many(Role::System));
    systems.push(turn(Role::User, vec![text("b")]));
    for (turns, message, parts) in [(users, 2, 100_001), (systems, 0, 100_002)] {
        let asked = request(turns);
        for mid_conversation_system in [false, true] {
            let caps = Caps { mid_conversation_system, ..Caps::permissive() };
            let content = &written(&asked, &caps).0["messages"][message]["content"];
            assert_eq!(content.as_array().map(Vec::len), Some(parts));
        }
    }
}
