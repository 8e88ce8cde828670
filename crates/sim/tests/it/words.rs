//! Thoughts, tools, refusals and tokens, in every dialect.

use super::*;
use dialects::{Chat, Gemini, Messages, Ollama, Responses, Said, Tokens};

/// The answer whole and as a stream, which must say the same.
async fn both(call: impl Fn(bool) -> Call) -> (Said, Answer) {
    let (whole, stream) = (ask(call(false)).await, ask(call(true)).await);
    assert_eq!(whole.status, 200, "{}", whole.raw());
    assert_eq!(whole.said(), stream.streamed(), "{:?}: {}", whole.dialect, stream.raw());
    (whole.said(), whole)
}

#[tokio::test]
async fn thoughts_come_before_the_answer() {
    for dialect in ALL {
        let (said, whole) = both(|stream| call(dialect, "reasoning", stream)).await;
        assert!(said.thoughts.starts_with("The user wants"), "{dialect:?}");
        assert_eq!(said.text, SAID);
        // One dialect does not tell them apart.
        let (output, reasoning) = match dialect {
            Gemini => (9, Some(20)),
            Ollama => (29, None),
            Chat | Messages | Responses => (29, Some(20)),
        };
        let tokens = dialects::tokens(&whole.json());
        assert_eq!((tokens.output, tokens.reasoning), (Some(output), reasoning), "{dialect:?}");
        for model in ["hidden", "redacted"] {
            let (said, whole) = both(|stream| call(dialect, model, stream)).await;
            assert_eq!((said.thoughts.as_str(), said.text.as_str()), ("", SAID), "{dialect:?} {model}");
            assert_eq!(dialects::tokens(&whole.json()), tokens, "{dialect:?} {model}");
        }
    }
}

#[tokio::test]
async fn models_that_think_as_they_are_asked() {
    for dialect in ALL {
        let (off, hidden, shown) = dialects::wishes(dialect);
        let (unsaid, _) = both(|stream| call(dialect, "thinks", stream)).await;
        assert_eq!(unsaid.thoughts, "");
        for (wish, visible, tokens) in [(off, false, false), (hidden, false, true), (shown, true, true)] {
            let Some(wish) = wish else { continue };
            let (said, whole) = both(|stream| call(dialect, "thinks", stream).with(wish.clone())).await;
            assert_eq!(!said.thoughts.is_empty(), visible, "{dialect:?} {wish}");
            let told = dialects::tokens(&whole.json());
            let output =
                told.output.unwrap() + if dialect == Gemini { told.reasoning.unwrap_or(0) } else { 0 };
            assert_eq!(output > 20, tokens, "{dialect:?} {wish}");
        }
    }
}

#[tokio::test]
async fn tools_are_called_with_arguments_that_fit() {
    let weather = ("weather".to_owned(), r#"{"city":"sample"}"#.to_owned());
    for dialect in ALL {
        let now = ("now".to_owned(), "{}".to_owned());
        for (model, calls) in [
            ("tools", vec![weather.clone()]),
            ("tools-2", vec![weather.clone(), now.clone()]),
            ("tools-3-fragments-5", vec![weather.clone(), now.clone(), weather.clone()]),
            ("tools-2-interleaved", vec![weather.clone(), now.clone()]),
            ("tools-2-interleaved-fragments-100", vec![weather.clone(), now.clone()]),
            ("tool-now", vec![now.clone()]),
            ("tool-now-tools-2", vec![now.clone(), now.clone()]),
            ("tool-other", vec![]),
            ("reasoning-tools-2", vec![weather.clone(), now.clone()]),
        ] {
            let (said, _) = both(|stream| call(dialect, model, stream).with_tools()).await;
            assert_eq!(said.calls, calls, "{dialect:?} {model}");
            let text = if calls.is_empty() { SAID } else { "" };
            assert_eq!(said.text, text);
        }
        let said = r#"call it with {"city":"Zürich \" 😀","days":[1,2.5]} and then {"city":"x"}"#;
        let (given, _) =
            both(|stream| call(dialect, "tool-weather-tools-3-args", stream).saying(said).with_tools()).await;
        let arguments: Vec<&str> = given.calls.iter().map(|(_, arguments)| arguments.as_str()).collect();
        assert_eq!(
            arguments,
            [r#"{"city":"Zürich \" 😀","days":[1,2.5]}"#, r#"{"city":"x"}"#, r#"{"city":"sample"}"#],
            "{dialect:?}"
        );
    }
}

#[tokio::test]
async fn refusals_and_filters_end_the_answer() {
    for dialect in ALL {
        let (refused, filtered, blocked) = match dialect {
            Chat => ("stop", "content_filter", Some("content_filter")),
            Responses => ("completed", "content_filter", Some("content_filter")),
            Messages => ("refusal", "refusal", Some("refusal")),
            Gemini => ("STOP", "SAFETY", None),
            Ollama => ("stop", "stop", Some("stop")),
        };
        let (said, _) = both(|stream| call(dialect, "refusal", stream)).await;
        assert_eq!(said.text, "I am sorry, but I cannot help with that.", "{dialect:?}");
        assert_eq!(said.finish.as_deref(), Some(refused), "{dialect:?}");
        let (said, _) = both(|stream| call(dialect, "filtered", stream)).await;
        assert_eq!(
            (said.text.len(), said.finish.as_deref()),
            (SAID.len() / 2, Some(filtered)),
            "{dialect:?}"
        );
        let (said, _) = both(|stream| call(dialect, "blocked", stream)).await;
        assert_eq!((said.text.as_str(), said.finish.as_deref()), ("", blocked), "{dialect:?}");
        let (said, _) = both(|stream| call(dialect, "tools-refusal", stream).with_tools()).await;
        assert!(said.calls.is_empty());
    }
}

#[tokio::test]
async fn tokens_are_told_as_the_script_says() {
    for dialect in ALL {
        let told = |events: &[Value]| events.iter().filter(|event| dialects::tells_tokens(event)).count();
        let whole = dialects::tokens(&ask(call(dialect, "cached", false)).await.json());
        let prompt = if dialect == Messages { 6 } else { 12 };
        let cached = (dialect != Ollama).then_some(6);
        assert_eq!(
            (whole.prompt, whole.cached, whole.output),
            (Some(prompt), cached, Some(9)),
            "{dialect:?}"
        );
        assert_eq!(dialects::tokens(&ask(call(dialect, "nousage", false)).await.json()), Tokens::default());
        assert_eq!(told(&ask(call(dialect, "nousage", true)).await.events()), 0, "{dialect:?}");
        for (model, some) in [("usage-early", true), ("usage-finish", true), ("usage-every", true)] {
            let stream = ask(call(dialect, model, true)).await;
            assert_eq!(told(&stream.events()) > 0, some, "{dialect:?} {model}");
            assert_eq!(stream.streamed().text, SAID);
        }
        let every = ask(call(dialect, "usage-every", true)).await;
        if matches!(dialect, Chat | Gemini | Ollama) {
            assert!(told(&every.events()) > 7, "{dialect:?}");
        }
    }
}

#[tokio::test]
async fn limits_stops_images_and_formats_are_obeyed() {
    for dialect in ALL {
        let cases = dialects::limits(dialect);
        let long = "What is up? ".repeat(20);
        let (said, _) =
            both(|stream| call(dialect, "echo", stream).saying(&long).with(cases.limit.clone())).await;
        assert_eq!(
            (said.text.as_str(), said.finish.as_deref()),
            (&long[..64], Some(cases.length)),
            "{dialect:?}"
        );
        if let Some(stop) = cases.stop {
            let (said, _) = both(|stream| call(dialect, "echo", stream).with(stop.clone())).await;
            assert_eq!(said.text, "What is", "{dialect:?}");
        }
        let (said, _) = both(|stream| call(dialect, "image", stream).with(cases.image.clone())).await;
        assert_eq!(said.text, "I see 1 image.", "{dialect:?}");
        let (said, _) = both(|stream| call(dialect, "echo", stream).with(cases.schema.clone())).await;
        assert_eq!(said.text, r#"{"a":true}"#, "{dialect:?}");
    }
}
