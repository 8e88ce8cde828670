//! Searches of the web that the vendor does, between Messages and Chat Completions.

use omniroute_dialect::{
    Caps,
    ir::{Block, BlockKind, ChatResponse, SearchResult, WebSearch},
    stream::replay,
};
use serde_json::{Value, json};

use crate::support::{dialect, echo, fixture, stream, told, translate};

fn searching() -> Caps {
    Caps { web_search: true, ..Caps::permissive() }
}

#[test]
fn f34_a_search_is_no_function() {
    let place = json!({"city": "Bern", "country": "CH"});
    let chat = json!({"model": "m", "messages": [{"role": "user", "content": "a"}], "web_search_options": {
        "search_context_size": "low", "user_location": {"type": "approximate", "approximate": place}}});
    let (out, losses) = translate("openai", "anthropic", &chat, &searching()).unwrap();
    assert_eq!(
        out["tools"],
        json!([{"type": "web_search_20250305", "name": "web_search",
            "user_location": {"type": "approximate", "city": "Bern", "country": "CH"}}])
    );
    assert_eq!(told(&losses), ["web_search_options.search_context_size"]);

    let search = json!({"type": "web_search_20250305", "name": "web_search", "max_uses": 2,
        "allowed_domains": ["a.example"], "user_location": {"type": "approximate", "city": "Bern", "country": "CH"}});
    let function = json!({"name": "f", "input_schema": {"type": "object"}});
    let messages = json!({"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "a"}],
        "tools": [search, function]});
    let (out, losses) = translate("anthropic", "openai", &messages, &searching()).unwrap();
    assert_eq!(
        out["web_search_options"],
        json!({"user_location": {"type": "approximate", "approximate": place}})
    );
    assert_eq!(out["tools"].as_array().map(Vec::len), Some(1));
    assert_eq!(told(&losses), ["tools[0].allowed_domains", "tools[0].max_uses"]);
}

#[test]
fn a_target_without_a_search_is_told_from_one_that_was_only_listed() {
    let with = |tools: Value, choice: Value| {
        json!({"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "a"}],
            "tools": tools, "tool_choice": choice})
    };
    let search = json!({"type": "web_search_20250305", "name": "web_search"});
    let function = json!({"name": "f", "input_schema": {"type": "object"}});
    let auto = json!({"type": "auto"});
    let forced = json!({"type": "tool", "name": "web_search"});
    for target in ["openai", "ollama"] {
        let both = with(json!([search, function]), auto.clone());
        let (out, losses) = translate("anthropic", target, &both, &Caps::permissive()).unwrap();
        assert_eq!((out["tools"].as_array().map(Vec::len), told(&losses)), (Some(1), vec!["tools[0]"]));
        for body in [with(json!([search]), auto.clone()), with(json!([search, function]), forced.clone())] {
            let error = translate("anthropic", target, &body, &Caps::permissive()).unwrap_err();
            assert_eq!((error.code, error.param.as_deref()), ("unsupported_tool", Some("tools[0]")));
        }
    }
    let (out, _) = translate("anthropic", "openai", &with(json!([search]), forced), &searching()).unwrap();
    assert_eq!((out.get("tools"), &out["web_search_options"]), (None, &json!({})));
    assert_eq!(out.get("tool_choice"), None);
}

#[test]
fn a_search_of_another_vendor_is_shown_to_messages_clients_as_their_own() {
    let search = WebSearch {
        queries: vec!["one".into(), "two".into()],
        results: vec![SearchResult { url: "https://a.example".into(), title: "A".into() }],
        ..WebSearch::default()
    };
    let response = ChatResponse {
        blocks: vec![Block::from(BlockKind::WebSearch(search)), BlockKind::Text("so".into()).into()],
        ..ChatResponse::default()
    };
    let body = dialect("anthropic").encode_response(&response, &echo()).body;
    let whole: Value = serde_json::from_slice(&body).unwrap();
    let content = whole["content"].as_array().unwrap();
    let id = content[0]["id"].as_str().unwrap();
    assert!(id.starts_with("srvtoolu_") && id.len() > 20, "{id}");
    assert_eq!(content[0]["input"], json!({"query": "one; two"}));
    assert_eq!(
        content[1],
        json!({"type": "web_search_tool_result", "tool_use_id": id, "content": [{"type": "web_search_result",
            "url": "https://a.example", "title": "A", "encrypted_content": "", "page_age": null}]})
    );

    struct Written(Box<dyn omniroute_dialect::stream::StreamEncoder>, bytes::BytesMut);
    impl omniroute_dialect::stream::EventSink for Written {
        fn event(
            &mut self,
            event: omniroute_dialect::stream::StreamEvent<'_>,
        ) -> Result<(), omniroute_dialect::stream::StreamError> {
            self.0.event(event, &mut self.1)
        }
    }
    let mut written = Written(dialect("anthropic").stream_encoder(echo()), bytes::BytesMut::new());
    replay(&response, &mut written).unwrap();
    let events = crate::support::events(std::str::from_utf8(&written.1).unwrap());
    let starts: Vec<_> = events.iter().filter(|event| event["type"] == "content_block_start").collect();
    let types: Vec<_> = starts
        .iter()
        .map(|event| (&event["index"], event["content_block"]["type"].as_str().unwrap()))
        .collect();
    assert_eq!(
        types,
        [(&json!(0), "server_tool_use"), (&json!(1), "web_search_tool_result"), (&json!(2), "text")]
    );
    assert_eq!(starts[1]["content_block"]["tool_use_id"], starts[0]["content_block"]["id"]);
    assert_eq!(events.iter().filter(|event| event["type"] == "content_block_stop").count(), 3);
}

#[test]
fn a_search_that_messages_clients_were_shown_never_reaches_their_vendor_as_its_own() {
    let (shown, _) = stream(
        "responses",
        "anthropic",
        std::str::from_utf8(&fixture("responses", "search", "stream.sse")).unwrap(),
    );
    let mut collector = omniroute_dialect::stream::StreamCollector::new(dialect("anthropic"));
    collector.push(shown.as_bytes()).unwrap();
    let answer = dialect("anthropic").encode_response(&collector.finish().unwrap(), &echo()).body;
    let answer: Value = serde_json::from_slice(&answer).unwrap();
    assert!(answer.to_string().contains(r#""encrypted_content":"""#), "{answer}");
    let body = json!({"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "q"},
        {"role": "assistant", "content": answer["content"]}, {"role": "user", "content": "and?"}]});

    let (written, losses) = translate("anthropic", "anthropic", &body, &Caps::permissive()).unwrap();
    assert_eq!(told(&losses), ["messages[1].content[0]"]);
    let bytes = bytes::Bytes::from(body.to_string());
    let head =
        omniroute_dialect::Head { headers: &http::HeaderMap::new(), path: "/v1/messages", query: None };
    let envelope = dialect("anthropic").envelope(head, &bytes).unwrap();
    let relayed = dialect("anthropic").edit_request(&bytes, &envelope, "up").to_bytes();
    let counted = dialect("anthropic").edit_count(&bytes, "up").to_bytes();
    assert_eq!(relayed, counted);
    let relayed: Value = serde_json::from_slice(&relayed).unwrap();
    for (way, sent) in [("written", &written), ("relayed", &relayed)] {
        let content = &sent["messages"][1]["content"];
        let text = content[0]["text"].as_str().unwrap();
        assert!(text.starts_with("[web search: ") && text.contains("https://"), "{way}: {text}");
        let all = content.to_string();
        for word in ["server_tool_use", "web_search_tool_result", "encrypted_"] {
            assert!(!all.contains(word), "{way}: {all}");
        }
    }
}
