//! Sources of texts: what a request asks of them, and where answers say them.

use bytes::Bytes;
use omniroute_dialect::{Caps, ir::LossAction};
use serde_json::{Value, json};

use crate::support::{dialect, echo, told, translate};

fn asked() -> Value {
    let document = json!({"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "Sun shines."},
        "title": "Weather", "context": "A report.", "citations": {"enabled": true}});
    json!({"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": [document, {"type": "text", "text": "What shines?"}]}]})
}

#[test]
fn whether_a_document_is_to_be_cited_survives_the_form() {
    let (same, losses) = translate("anthropic", "anthropic", &asked(), &Caps::permissive()).unwrap();
    assert_eq!(same["messages"], asked()["messages"]);
    assert!(losses.is_empty(), "{losses:?}");
}

#[test]
fn nobody_else_cites_documents_and_the_client_is_told() {
    for target in ["openai", "responses", "gemini", "ollama"] {
        let (_, losses) = translate("anthropic", target, &asked(), &Caps::permissive()).unwrap();
        let told = told(&losses);
        for path in ["messages[0].content[0].context", "messages[0].content[0].citations"] {
            assert!(told.contains(&path), "{target}: {told:?}");
        }
        // What asks for nothing is not missed.
        let mut body = asked();
        body["messages"][0]["content"][0]["citations"]["enabled"] = json!(false);
        body["messages"][0]["content"][0]["context"] = Value::Null;
        let (_, losses) = translate("anthropic", target, &body, &Caps::permissive()).unwrap();
        assert!(
            !losses.iter().any(|loss| loss.path.contains("cit") || loss.path.contains("context")),
            "{losses:?}"
        );
    }
}

/// A whole answer of one dialect for a client of another: its body, and the places that the client is told to have lost.
fn answered(upstream: &str, client: &str, answer: &Value) -> (Value, Vec<String>) {
    let read = dialect(upstream).decode_response(&Bytes::from(answer.to_string())).unwrap();
    let written = dialect(client).encode_response(&read, &echo());
    let lost = written.losses.iter().filter(|loss| !loss.silent && loss.action == LossAction::Dropped);
    let lost = lost.map(|loss| loss.path.to_string()).collect();
    (serde_json::from_slice(&written.body).unwrap(), lost)
}

#[test]
fn sources_that_only_their_vendor_can_name_are_told_to_be_lost() {
    let location = json!({"type": "page_location", "cited_text": "Sun", "document_index": 0, "document_title": "Weather", "start_page_number": 1, "end_page_number": 2});
    let messages = json!({"id": "msg_1", "content": [{"type": "text", "text": "The sun.", "citations": [location]}],
        "stop_reason": "end_turn", "usage": {"input_tokens": 1, "output_tokens": 1}});
    for client in ["openai", "responses", "gemini", "ollama"] {
        let (body, lost) = answered("anthropic", client, &messages);
        assert_eq!(lost, ["content[0].citations"], "{client}: {body}");
        assert!(!body.to_string().contains("Weather"), "a place on the web is made up: {body}");
    }
    let (body, lost) = answered("anthropic", "anthropic", &messages);
    assert_eq!((&body["content"][0]["citations"][0], lost.len()), (&location, 0));

    let file = json!({"type": "file_citation", "file_id": "file-1", "filename": "a.txt", "index": 3});
    let chat = json!({"id": "c", "model": "m", "choices": [{"index": 0, "finish_reason": "stop",
        "message": {"role": "assistant", "content": "The sun.", "annotations": [file]}}]});
    for client in ["responses", "anthropic", "gemini", "ollama"] {
        let (body, lost) = answered("openai", client, &chat);
        assert_eq!(lost, ["content[0].citations"], "{client}: {body}");
    }
    let (body, _) = answered("openai", "openai", &chat);
    assert_eq!(body["choices"][0]["message"]["annotations"], json!([file]));
}

#[test]
fn what_gemini_knows_from_elsewhere_has_its_sources() {
    let candidate = json!({"content": {"role": "model", "parts": [{"text": "Über sun"}]}, "finishReason": "STOP",
        "citationMetadata": {"citations": [{"startIndex": 6, "endIndex": 9, "uri": "https://a.example/s", "title": "S"}]}});
    let gemini = json!({"candidates": [candidate], "usageMetadata": {"promptTokenCount": 1, "candidatesTokenCount": 1, "totalTokenCount": 2}});
    let (body, lost) = answered("gemini", "openai", &gemini);
    let source = json!({"type": "url_citation", "url_citation": {"start_index": 5, "end_index": 8, "title": "S", "url": "https://a.example/s"}});
    assert_eq!(body["choices"][0]["message"]["annotations"], json!([source]), "{lost:?}");
    let (body, _) = answered("gemini", "anthropic", &gemini);
    assert_eq!(body["content"][0]["citations"][0]["url"], "https://a.example/s");
}
