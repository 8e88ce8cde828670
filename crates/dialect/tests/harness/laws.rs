//! What holds for every dialect and every stream.

use bytes::BytesMut;
use omniroute_dialect::{
    Caps, Framing, fuzz,
    ir::{BlockKind, ChatResponse},
    registry::DIALECTS,
    stream::StreamCollector,
};
use proptest::prelude::*;
use serde_json::Value;

use crate::support::{Fixture, decode, echo, fixtures, has_end, has_mark_of_the_end, pipe, recorded, run};

#[test]
fn the_cuts_of_a_stream_do_not_matter() {
    for fixture in recorded() {
        for client in DIALECTS.iter().copied() {
            let whole = run(pipe(fixture.dialect, client, echo()), [&fixture.body[..]]);
            for size in [1, 2, 3, 5, 64, 1000] {
                let cut = run(pipe(fixture.dialect, client, echo()), fixture.body.chunks(size));
                assert_eq!(cut.0, whole.0, "{} to {} in {size}", fixture.name(), client.id());
                assert_eq!(format!("{:?}", cut.1), format!("{:?}", whole.1));
            }
        }
    }
}

#[test]
fn a_stream_says_what_the_whole_answer_says() {
    let answers = fixtures("response.json");
    let mut twins = 0;
    for fixture in recorded() {
        let Some(twin) = answers.iter().find(|answer| answer.name() == fixture.name()) else { continue };
        let mut collector = StreamCollector::new(fixture.dialect);
        collector.push(&fixture.body).unwrap();
        let collected = collector.finish().unwrap();
        let whole = fixture.dialect.decode_response(&twin.body).unwrap();
        assert_eq!(format!("{collected:#?}"), format!("{whole:#?}"), "{}", fixture.name());
        twins += 1;
    }
    assert!(twins >= 4);
}

#[test]
fn a_stream_that_breaks_off_is_never_complete() {
    for fixture in recorded() {
        for client in DIALECTS.iter().copied() {
            // Every place in the end, and so many before it as there is time for.
            let length = fixture.body.len();
            let ends = (0..length).step_by(length / 1000 + 1).chain(length.saturating_sub(80)..length);
            for end in ends {
                let (out, watch) = run(pipe(fixture.dialect, client, echo()), [&fixture.body[..end]]);
                assert_eq!(watch.complete, watch.error.is_none(), "{} at {end}", fixture.name());
                assert_eq!(has_end(client, &out), watch.complete, "{} at {end}: {out}", fixture.name());
                if watch.complete {
                    assert!(end > fixture.body.len() / 2, "{} at {end}", fixture.name());
                }
            }
        }
    }
}

#[test]
fn bytes_after_the_end_change_nothing() {
    for fixture in recorded().into_iter().filter(|fixture| has_mark_of_the_end(fixture.dialect)) {
        for client in DIALECTS.iter().copied() {
            let whole = run(pipe(fixture.dialect, client, echo()), [&fixture.body[..]]);
            let more =
                [&fixture.body[..], &b"data: {\"error\":{\"message\":\"x\"}}\n\n"[..], &fixture.body[..]];
            assert_eq!(run(pipe(fixture.dialect, client, echo()), more).0, whole.0);
        }
    }
}

#[test]
fn comments_line_ends_and_a_mark_at_the_head_change_nothing() {
    for fixture in recorded().into_iter().filter(|fixture| fixture.dialect.framing() == Framing::Sse) {
        let text = std::str::from_utf8(&fixture.body).unwrap().replace("\r\n", "\n");
        for client in DIALECTS.iter().copied().filter(|client| client.id() != fixture.dialect.id()) {
            let plain = run(pipe(fixture.dialect, client, echo()), [text.as_bytes()]).0;
            for variant in [
                text.replace('\n', "\r\n"),
                text.replace('\n', "\r"),
                format!("\u{feff}{text}"),
                text.replace("\n\n", "\n\n: hello\n\n<p>\n\n"),
                text.replace("data:", "id: 1\nretry: 2\ndata:"),
            ] {
                assert_eq!(run(pipe(fixture.dialect, client, echo()), [variant.as_bytes()]).0, plain);
            }
        }
    }
}

#[test]
fn a_request_survives_its_own_dialect() {
    let caps = Caps {
        mid_conversation_system: true,
        prefill: true,
        top_k: true,
        max_completion_tokens: true,
        ..Caps::permissive()
    };
    for fixture in fixtures("request.json") {
        // Superseded forms and other spellings come out in the current one, tools in namespaces outside of them.
        if matches!(fixture.case.as_str(), "functions" | "spellings" | "codex") {
            continue;
        }
        let given: Value = serde_json::from_slice(&fixture.body).unwrap();
        let request = decode(fixture.dialect, std::str::from_utf8(&fixture.body).unwrap()).unwrap();
        let encoded = fixture.dialect.encode_request(&request, &caps).unwrap();
        let written: Value = serde_json::from_slice(&encoded.body).unwrap();
        assert_eq!(normal(&written), normal(&given), "{}: {:?}", fixture.name(), encoded.losses);
    }
}

#[test]
fn an_answer_survives_the_way_through_another_dialect() {
    for fixture in fixtures("response.json") {
        let response = fixture.dialect.decode_response(&fixture.body).unwrap();
        for other in DIALECTS {
            let encoded = other.encode_response(&response, &echo());
            let back = other.decode_response(&encoded.body).unwrap();
            assert_eq!(said(&back), said(&response), "{} through {}", fixture.name(), other.id());
            assert_eq!(back.usage.input_total(), response.usage.input_total());
            assert_eq!(back.usage.output_total, response.usage.output_total);
        }
    }
}

#[test]
fn equal_requests_are_equal_bytes() {
    for fixture in fixtures("request.json") {
        for target in DIALECTS {
            let body = || {
                let request = decode(fixture.dialect, std::str::from_utf8(&fixture.body).unwrap()).unwrap();
                target.encode_request(&request, &Caps::permissive()).map(|encoded| encoded.body)
            };
            assert_eq!(body(), body());
        }
    }
}

#[test]
fn whole_answers_in_place_of_streams_become_recorded() {
    for fixture in fixtures("response.json") {
        for client in DIALECTS.iter().copied().filter(|client| client.id() != fixture.dialect.id()) {
            let (out, watch) = run(pipe(fixture.dialect, client, echo()), fixture.body.chunks(7));
            assert!(watch.complete, "{}: {watch:?}", fixture.name());
            let mut collector = StreamCollector::new(client);
            collector.push(out.as_bytes()).unwrap();
            let whole = fixture.dialect.decode_response(&fixture.body).unwrap();
            assert_eq!(
                said(&collector.finish().unwrap()),
                said(&whole),
                "{} to {}",
                fixture.name(),
                client.id()
            );
        }
    }
}

/// What an answer says, in the order that the poorest dialect has.
fn said(response: &ChatResponse) -> (String, String, Vec<(String, Value)>) {
    let (mut text, mut thinking, mut calls) = (String::new(), String::new(), Vec::new());
    for block in &response.blocks {
        match &block.kind {
            // Some dialects have a refusal both as text and as the reason.
            BlockKind::Refusal(more) if *more == text => {}
            BlockKind::Text(more) | BlockKind::Refusal(more) => text.push_str(more),
            BlockKind::Thinking { text, .. } => thinking.push_str(text),
            BlockKind::ToolCall(call) => {
                calls.push((call.name.clone(), serde_json::from_str(&call.arguments).unwrap()));
            }
            _ => {}
        }
    }
    (words(&text), thinking, calls)
}

/// A text without what stands in it for pictures and searches where a dialect has no other place for them.
fn words(text: &str) -> String {
    let mut words = text.replace("[image omitted]", "");
    while let Some(start) = words.find("![image](") {
        let end = words[start..].find(')').map_or(words.len(), |end| start + end + 1);
        words.replace_range(start..end, "");
    }
    words.truncate(words.find("[web search:").unwrap_or(words.len()));
    words
}

/// Content as a list of blocks, wherever a string stands for one.
fn normal(value: &Value) -> Value {
    match value {
        Value::Object(members) => {
            let members = members.iter().map(|(name, value)| {
                let value = match (name.as_str(), value) {
                    ("content" | "system", Value::String(text)) => {
                        serde_json::json!([{"type": "text", "text": text}])
                    }
                    _ => normal(value),
                };
                let name = if name == "max_tokens" { "max_completion_tokens" } else { name };
                (name.to_owned(), value)
            });
            members.filter(|(_, value)| !value.is_null()).collect()
        }
        Value::Array(items) => items.iter().map(normal).collect(),
        other => other.clone(),
    }
}

fn any_stream() -> impl Strategy<Value = (usize, Vec<u8>)> {
    let fixtures: Vec<Fixture> = recorded();
    let bodies: Vec<(usize, Vec<u8>)> = fixtures
        .iter()
        .map(|fixture| {
            let at = DIALECTS.iter().position(|dialect| dialect.id() == fixture.dialect.id()).unwrap();
            (at, fixture.body.to_vec())
        })
        .collect();
    (
        prop::sample::select(bodies),
        prop::collection::vec((any::<prop::sample::Index>(), 0..6_u8, any::<u8>()), 1..6),
    )
        .prop_map(|((at, mut body), changes)| {
            for (place, kind, byte) in changes {
                let place = place.index(body.len().max(1)).min(body.len().saturating_sub(1));
                match kind {
                    _ if body.is_empty() => {}
                    0 => body.truncate(place),
                    1 => body[place] = byte,
                    2 => body.insert(place, byte),
                    3 => {
                        body.remove(place);
                    }
                    4 => {
                        let copy = body[place..].to_vec();
                        body.extend_from_slice(&copy[..copy.len().min(400)]);
                    }
                    _ => {
                        let end = (place + usize::from(byte)).min(body.len());
                        body.drain(place..end);
                    }
                }
            }
            (at, body)
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn damaged_streams_keep_the_grammar((at, body) in any_stream()) {
        fuzz::stream(DIALECTS[at], &body);
    }

    #[test]
    fn arbitrary_bytes_keep_the_grammar(body in "(data: |event: |\\{\"choices\":\\[|\\{\"delta\":|\\}|\\]|\n\n|[a-z{}\\[\\]\":,0-9])*") {
        for dialect in DIALECTS.iter().copied() {
            fuzz::stream(dialect, body.as_bytes());
        }
    }

    #[test]
    fn random_cuts_do_not_matter(cuts in prop::collection::vec(1..200_usize, 1..40)) {
        for fixture in recorded() {
            for client in DIALECTS.iter().copied() {
                let whole = run(pipe(fixture.dialect, client, echo()), [&fixture.body[..]]).0;
                let mut pipe = pipe(fixture.dialect, client, echo());
                let mut out = BytesMut::new();
                let mut rest = &fixture.body[..];
                for cut in cuts.iter().cycle() {
                    if rest.is_empty() {
                        break;
                    }
                    let (head, tail) = rest.split_at((*cut).min(rest.len()));
                    pipe.push(head, &mut out).unwrap();
                    rest = tail;
                }
                pipe.finish(&mut out).unwrap();
                prop_assert_eq!(std::str::from_utf8(&out).unwrap(), whole.as_str());
            }
        }
    }

    #[test]
    fn requests_of_any_shape_are_answered(body in "\\{(\"(model|messages|tools|stop|role|content|system|stream|n)\":|\\{|\\}|\\[|\\]|\"[a-z]{0,3}\"|,|[0-9]|true|null){0,30}\\}?") {
        for dialect in DIALECTS.iter().copied() {
            if let Ok(request) = decode(dialect, &body) {
                for target in DIALECTS {
                    let _ = target.encode_request(&request, &Caps::permissive());
                }
            }
            let bytes = bytes::Bytes::copy_from_slice(body.as_bytes());
            let _ = dialect.decode_response(&bytes);
            let _ = dialect.relay_response(&bytes, &echo());
        }
    }
}
