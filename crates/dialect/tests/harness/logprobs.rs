//! Log probabilities, between the dialects that have them.

use omniroute_dialect::{
    Caps,
    ir::{BlockKind, ChatResponse, Logprob},
    stream::StreamCollector,
};
use serde_json::{Value, json};

use crate::support::{dialect, echo, fixture, list, pipe, run, translate};

const HAVE_THEM: [&str; 4] = ["openai", "responses", "gemini", "ollama"];

#[test]
fn they_are_asked_for_in_the_words_of_the_target() {
    for client in HAVE_THEM {
        let body: Value = serde_json::from_slice(&fixture(client, "logprobs", "request.json")).unwrap();
        for target in HAVE_THEM {
            let (out, losses) = translate(client, target, &body, &Caps::permissive()).unwrap();
            let asked = match target {
                "responses" => (out["include"].clone(), out["top_logprobs"].clone()),
                "gemini" => {
                    let config = &out["generationConfig"];
                    (config["responseLogprobs"].clone(), config["logprobs"].clone())
                }
                _ => (out["logprobs"].clone(), out["top_logprobs"].clone()),
            };
            let switch =
                if target == "responses" { json!(["message.output_text.logprobs"]) } else { json!(true) };
            assert_eq!(asked, (switch, json!(2)), "{client} to {target}: {out}");
            assert!(!list(&losses).contains("logprobs"), "{client} to {target}: {losses:?}");
        }
        let refused = translate(client, "anthropic", &body, &Caps::permissive()).unwrap_err();
        assert_eq!(refused.code, "unsupported_parameter");
    }
}

#[test]
fn how_many_others_to_tell_is_nothing_without_the_switch() {
    let body = json!({"model": "m", "messages": [{"role": "user", "content": "a"}], "top_logprobs": 3});
    for target in ["responses", "gemini", "ollama", "anthropic"] {
        let (out, losses) = translate("openai", target, &body, &Caps::permissive()).unwrap();
        assert!(!out.to_string().contains("logprobs"), "{target}: {out}");
        assert!(list(&losses).contains("dropped top_logprobs (quiet)"), "{target}: {losses:?}");
    }
}

#[test]
fn they_come_back_whole_and_in_streams() {
    for upstream in HAVE_THEM {
        let file = if upstream == "ollama" { "stream.ndjson" } else { "stream.sse" };
        let streamed = fixture(upstream, "logprobs", file);
        let whole =
            dialect(upstream).decode_response(&fixture(upstream, "logprobs", "response.json")).unwrap();
        let expected = tokens(&whole);
        assert_eq!(expected.len(), 3);
        for client in HAVE_THEM {
            let written = dialect(client).encode_response(&whole, &echo()).body;
            let read = dialect(client).decode_response(&written).unwrap();
            assert_eq!(tokens(&read), expected, "{upstream} to {client}");

            let (out, _) = run(pipe(dialect(upstream), dialect(client), echo()), [&streamed[..]]);
            let mut collector = StreamCollector::new(dialect(client));
            collector.push(out.as_bytes()).unwrap();
            assert_eq!(tokens(&collector.finish().unwrap()), expected, "{upstream} to {client}: {out}");
        }
        let (out, _) = run(pipe(dialect(upstream), dialect("anthropic"), echo()), [&streamed[..]]);
        assert!(!out.contains("ogprob"), "{out}");
    }
}

#[test]
fn tokens_stand_beside_the_text_they_are_of() {
    let streamed = fixture("ollama", "logprobs", "stream.ndjson");
    for (client, text, tokens) in [
        ("openai", "/choices/0/delta/content", "/choices/0/logprobs/content/0/token"),
        ("responses", "/delta", "/logprobs/0/token"),
    ] {
        let (out, _) = run(pipe(dialect("ollama"), dialect(client), echo()), [&streamed[..]]);
        let events = crate::support::events(&out);
        let beside =
            events.iter().filter(|event| event.pointer(tokens).is_some() && event.pointer(text).is_some());
        let beside: Vec<_> = beside.map(|event| (event.pointer(text), event.pointer(tokens))).collect();
        assert_eq!(beside.len(), 3, "{out}");
        assert!(beside.iter().all(|(text, token)| text == token), "{beside:?}");
    }
}

/// Tokens with their probabilities, and those of the others.
fn tokens(response: &ChatResponse) -> Vec<(String, String, Vec<String>)> {
    let texts = response.blocks.iter().filter(|block| matches!(block.kind, BlockKind::Text(_)));
    let number = |token: &Logprob| token.logprob.as_ref().unwrap().get().to_owned();
    let told = |token: &Logprob| {
        let others = token.others.iter().map(|other| format!("{} {}", other.token, number(other)));
        (token.token.clone(), number(token), others.collect())
    };
    texts.flat_map(|block| &block.logprobs).map(told).collect()
}
