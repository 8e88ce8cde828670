//! Ollama's completions (`/api/generate`): the dialect's older form, towards upstreams of every dialect and back.

use http::HeaderMap;
use omniroute_dialect::{
    Caps, Dialect, Echo, EncodeError, Head,
    ir::{BlockKind, Loss},
    registry::DIALECTS,
};
use serde_json::{Value, json};

use crate::support::{dialect, echo, fixtures, pipe, recorded, run, told, translate};

const PATH: &str = "/api/generate";

fn head(headers: &HeaderMap) -> Head<'_> {
    Head { headers, path: PATH, query: None }
}

/// A completion as the body for an upstream, and what was lost.
fn asked_of(upstream: &dyn Dialect, body: &Value) -> Result<(Value, Vec<Loss>), EncodeError> {
    let mut request =
        dialect("ollama").decode_request(head(&HeaderMap::new()), &body.to_string().into()).unwrap();
    request.model = "up".to_owned();
    let encoded = upstream.encode_request(&request, &Caps::permissive())?;
    Ok((serde_json::from_slice(&encoded.body).unwrap(), encoded.losses))
}

/// What the client of a completion gets.
fn wants_completion() -> Echo {
    Echo { legacy: true, ..echo() }
}

#[test]
fn a_text_is_a_conversation_of_one_turn() {
    let png = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNk+A8AAQUBAScY42YAAAAASUVORK5CYII=";
    let body = json!({"model": "m", "prompt": "What is it?", "system": "Be brief.", "images": [png],
        "format": "json", "options": {"num_predict": 9, "temperature": 0.5}, "think": "low", "stream": false,
        "keep_alive": "5m", "raw": false, "suffix": "", "context": [], "template": ""});
    let chat = json!({"model": "m", "messages": [{"role": "system", "content": "Be brief."},
        {"role": "user", "content": "What is it?", "images": [png]}], "format": "json",
        "options": {"num_predict": 9, "temperature": 0.5}, "think": "low", "stream": false, "keep_alive": "5m"});
    let own = dialect("ollama");
    let headers = HeaderMap::new();
    let at = |path| Head { headers: &headers, path, query: None };
    for upstream in DIALECTS.iter().copied() {
        let mut request = own.decode_request(at("/api/chat"), &chat.to_string().into()).unwrap();
        request.model = "up".to_owned();
        let expected = upstream.encode_request(&request, &Caps::permissive()).unwrap();
        let (sent, losses) = asked_of(upstream, &body).unwrap();
        assert_eq!(sent, serde_json::from_slice::<Value>(&expected.body).unwrap(), "{}", upstream.id());
        assert_eq!(told(&losses), told(&expected.losses), "{}", upstream.id());
    }
    let request = own.decode_request(at("/v1/api/generate"), &body.to_string().into()).unwrap();
    assert!(matches!(&request.turns[0].blocks[1].kind, BlockKind::Text(text) if text == "What is it?"));
}

#[test]
fn what_only_completions_have_is_refused_where_it_matters_and_else_told() {
    for upstream in DIALECTS {
        for (name, value) in [("suffix", json!("}")), ("raw", json!(true)), ("context", json!([1, 2]))] {
            let body = json!({"model": "m", "prompt": "fn main() {", name: value});
            let error = asked_of(*upstream, &body).unwrap_err();
            assert_eq!((error.code, error.param.as_deref()), ("unsupported_parameter", Some(name)));
        }
        let body = json!({"model": "m", "prompt": "x", "template": "{{ .Prompt }}"});
        assert_eq!(told(&asked_of(*upstream, &body).unwrap().1), ["template"], "{}", upstream.id());
    }
}

#[test]
fn words_of_completions_mean_nothing_to_clients_of_other_dialects() {
    let body = json!({"model": "m", "messages": [{"role": "user", "content": "a"}],
        "context": {"user": "x"}, "raw": true, "suffix": ""});
    let (_, losses) = translate("openai", "anthropic", &body, &Caps::permissive()).unwrap();
    assert_eq!(told(&losses), ["context", "raw", "suffix"]);
}

#[test]
fn what_only_chats_have_does_not_take_the_place_of_what_is_asked() {
    let tool = json!({"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}});
    let body = json!({"model": "m", "prompt": "x", "tools": [tool],
        "messages": [{"role": "user", "content": "other"}]});
    for upstream in DIALECTS {
        let (sent, losses) = asked_of(*upstream, &body).unwrap();
        assert!(!sent.to_string().contains("other") && sent.get("tools").is_none(), "{sent}");
        assert_eq!(told(&losses), ["messages", "tools"], "{}", upstream.id());
    }
    let body = json!({"model": "m", "prompt": "x", "messages": []});
    let encoded = asked_of(dialect("ollama"), &body).unwrap();
    assert_eq!(encoded.0["messages"][0]["content"], "x");
    assert!(told(&encoded.1).is_empty());
}

#[test]
fn what_stays_goes_to_the_path_of_completions_as_it_is() {
    let own = dialect("ollama");
    let headers = HeaderMap::new();
    let body = r#"{"model": "m","prompt":"a","suffix":"b","raw":true, "x":1.0}"#.into();
    let envelope = own.envelope(head(&headers), &body).unwrap();
    assert_eq!(own.path_as_asked("/base/api/chat", &envelope).as_deref(), Some("/base/api/generate"));
    let sent = own.edit_request(&body, &envelope, "up").to_bytes();
    assert_eq!(sent, r#"{"model": "up","prompt":"a","suffix":"b","raw":true, "x":1.0}"#);
    let chat = r#"{"model":"m","messages":[{"role":"user","content":"a"}]}"#.into();
    let at = Head { headers: &headers, path: "/api/chat", query: None };
    assert_eq!(own.path_as_asked("/api/chat", &own.envelope(at, &chat).unwrap()), None);
}

/// The text and the reasoning of lines, which must be completions, with one end.
fn said(lines: &str) -> (String, String) {
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let (last, before) = lines.split_last().unwrap();
    assert!(last["done"] == true && last["done_reason"].is_string() && last["eval_count"].is_u64(), "{last}");
    assert!(before.iter().all(|line| line["done"] == false && line.get("done_reason").is_none()));
    assert!(
        lines.iter().all(|line| line["response"].is_string() && line.get("message").is_none()),
        "{lines:?}"
    );
    assert!(lines.iter().all(|line| line["model"] == "asked/model" && line["created_at"].is_string()));
    let all = |name| lines.iter().filter_map(|line| line[name].as_str()).collect();
    (all("response"), all("thinking"))
}

/// The same of the lines of a chat.
fn said_in_chat(lines: &str) -> (String, String) {
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let all = |name| lines.iter().filter_map(|line| line["message"][name].as_str()).collect();
    (all("content"), all("thinking"))
}

#[test]
fn answers_have_the_text_where_chats_have_a_message() {
    let own = dialect("ollama");
    for fixture in recorded() {
        let lines = |echo| run(pipe(fixture.dialect, own, echo), fixture.body.chunks(7)).0;
        let name = fixture.name();
        assert_eq!(said(&lines(wants_completion())), said_in_chat(&lines(echo())), "{name}");
    }
    for fixture in fixtures("response.json") {
        let answer = fixture.dialect.decode_response(&fixture.body).unwrap();
        let written = |echo| own.encode_response(&answer, &echo).body;
        let completion = String::from_utf8(written(wants_completion()).to_vec()).unwrap();
        let chat = String::from_utf8(written(echo()).to_vec()).unwrap();
        assert_eq!(said(&completion), said_in_chat(&chat), "{}", fixture.name());
        // A completion is read like a chat.
        let read = own.decode_response(&completion.into()).unwrap();
        let text = |kind: &BlockKind| match kind {
            BlockKind::Text(text) => text.clone(),
            _ => String::new(),
        };
        let texts: String = read.blocks.iter().map(|block| text(&block.kind)).collect();
        assert_eq!(texts, said_in_chat(&chat).0, "{}", fixture.name());
    }
}

#[test]
fn completions_of_an_upstream_are_read_as_streams_too() {
    let lines = [
        json!({"model": "up", "created_at": "t", "response": "", "thinking": "hm", "done": false}),
        json!({"model": "up", "created_at": "t", "response": "a", "done": false}),
        json!({"model": "up", "created_at": "t", "response": "", "done": true, "done_reason": "length",
            "prompt_eval_count": 3, "eval_count": 2}),
    ];
    let input: String = lines.iter().map(|line| format!("{line}\n")).collect();
    let (out, watch) = run(pipe(dialect("ollama"), dialect("openai"), echo()), [input.as_bytes()]);
    assert!(out.contains("\"reasoning_content\":\"hm\"") && out.contains("\"content\":\"a\""), "{out}");
    assert!(out.contains("\"finish_reason\":\"length\"") && watch.usage.output_total == Some(2), "{out}");
}
