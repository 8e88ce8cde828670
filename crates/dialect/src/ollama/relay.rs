//! Passing on what stays in the dialect: exact bytes, with the asked model's name in place.

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use omniroute_wire::{envelope, json_out, ndjson::escape_line_ends, splice::Splice, sse::RawFrame};

use super::{
    error,
    response::{self, unreadable},
    stream::Encoder,
    wire::{self, Line, Message},
};
use crate::{
    DecodeError, Echo, Relayed, error_text,
    ir::PublicError,
    json_in::last_wins,
    stream::{self, StreamEncoder, StreamWatch, truncated},
};

/// Prepares a whole answer.
pub(super) fn whole(body: &Bytes, echo: &Echo) -> Result<Relayed, DecodeError> {
    let mut splice = Splice::new(body.clone());
    let mut seen = Seen::default();
    let mut disguise = error_text::Disguise::default();
    let scanned = envelope::scan(body, &mut |member| {
        disguise.note(&member);
        seen.take(&member);
        if member.key == "model" && envelope::as_str(member.raw).is_none_or(|model| *model != *echo.model) {
            splice.replace(member.span, quoted(&echo.model));
        }
    });
    if scanned.is_err() {
        let text = String::from_utf8_lossy(body);
        if response::is_stream(text.trim_start_matches('\u{feff}').trim()) {
            return collected(body, echo);
        }
        // Says in words what it is.
        response::decode(body)?;
        return Err(unreadable("it is not a JSON object"));
    }
    if let Some(span) = seen.message_at.clone().filter(|_| echo.legacy) {
        splice.replace(span, as_completion(seen.message_raw));
    }
    seen.settle();
    let line = seen.line();
    let usage = line.usage();
    let called = seen.message.as_ref().is_some_and(|message| message.calls);
    Ok(Relayed {
        body: splice,
        usage,
        finish: line.done_reason.and_then(wire::text_of).map(|word| wire::finish_reason(&word, called)),
        meaningful: seen.message.is_some_and(|message| message.meaningful)
            || usage.output_total.is_some_and(|tokens| tokens > 0),
        error: disguise.error(body),
    })
}

/// A stream that came in place of an answer.
fn collected(body: &Bytes, echo: &Echo) -> Result<Relayed, DecodeError> {
    let answer = response::collect(body)?;
    Ok(Relayed {
        body: Splice::new(response::encode(&answer, echo).body),
        usage: answer.usage,
        finish: answer.finish,
        meaningful: answer.is_meaningful(),
        error: None,
    })
}

/// Looks on while the lines of a stream are passed on.
#[derive(Debug)]
pub(super) struct Tap {
    echo: Echo,
    /// The asked model's name as JSON.
    asked: Bytes,
    watch: StreamWatch,
    called: bool,
}

impl Tap {
    /// For an answer to this request.
    pub(super) fn new(echo: Echo) -> Self {
        Self { asked: quoted(&echo.model), echo, watch: StreamWatch::default(), called: false }
    }

    /// Takes note of a line; false when it is not for the client.
    fn take_note(&mut self, line: &Seen<'_>, text: &str) -> bool {
        let parts = line.line();
        if parts.is_error() {
            self.watch.error = Some(error_text::read_value(text));
            return false;
        }
        if let Some(message) = &line.message {
            self.watch.meaningful |= message.meaningful;
            self.watch.output_bytes += message.bytes;
            self.called |= message.calls;
        }
        self.watch.usage.update(&parts.usage());
        if parts.is_done() {
            self.watch.finish = Some(wire::finish_reason(&parts.reason(), self.called));
            self.watch.meaningful = true;
            self.watch.complete = true;
        }
        true
    }
}

impl stream::Tap for Tap {
    fn frame(&mut self, found: &RawFrame<'_>, out: &mut BytesMut) {
        let data = found.frame.data.strip_prefix(b"\xef\xbb\xbf").unwrap_or(found.frame.data);
        if data.first() != Some(&b'{') {
            return;
        }
        let mut seen = Seen::default();
        let mut model: Option<Range<usize>> = None;
        let scanned = std::str::from_utf8(data).ok().filter(|text| {
            let scanned = envelope::scan_str(text, &mut |member| {
                seen.take(&member);
                if member.key == "model" {
                    model = Some(member.span);
                }
            });
            scanned.is_ok()
        });
        let Some(text) = scanned else {
            self.watch.error = Some(error_text::malformed("a line of the stream is not valid JSON"));
            return;
        };
        seen.settle();
        if !self.take_note(&seen, text) {
            return;
        }
        let start = out.len();
        if let Some(span) = seen.message_at.clone().filter(|_| self.echo.legacy) {
            // A chat was made of the completion.
            let mut line = Splice::new(Bytes::copy_from_slice(data));
            line.replace(span, as_completion(seen.message_raw));
            if let Some(span) = model {
                line.replace(span, self.asked.clone());
            }
            out.extend_from_slice(&line.to_bytes());
        } else if let Some(span) = model {
            out.extend_from_slice(&data[..span.start]);
            out.extend_from_slice(&self.asked);
            out.extend_from_slice(&data[span.end..]);
        } else {
            out.extend_from_slice(data);
        }
        escape_line_ends(out, start);
        out.extend_from_slice(b"\n");
    }

    fn cut(&mut self, _out: &mut BytesMut) {
        self.watch.error = Some(truncated());
    }

    fn fail(&mut self, error: &PublicError, out: &mut BytesMut) {
        out.extend_from_slice(&error::encode_in_stream(error));
    }

    fn encoder(&self) -> Box<dyn StreamEncoder> {
        Box::new(Encoder::new(self.echo.clone()))
    }

    fn watch(&self) -> &StreamWatch {
        &self.watch
    }

    fn watch_mut(&mut self) -> &mut StreamWatch {
        &mut self.watch
    }
}

/// The members of a line that matter, by their text: lines are scanned and not read.
#[derive(Default)]
struct Seen<'a> {
    message: Option<Said>,
    /// Where the message stands, its name included, and the message.
    message_at: Option<Range<usize>>,
    message_raw: &'a str,
    response: Option<&'a str>,
    thinking: Option<&'a str>,
    done: Option<&'a str>,
    done_reason: Option<&'a str>,
    prompt_eval_count: Option<&'a str>,
    eval_count: Option<&'a str>,
    error: Option<&'a str>,
}

/// What a message says.
struct Said {
    meaningful: bool,
    calls: bool,
    bytes: u64,
}

impl<'a> Seen<'a> {
    fn take(&mut self, member: &envelope::Member<'a>) {
        let slot = match &*member.key {
            "message" => {
                self.message = Said::of(member.raw);
                self.message_at = Some(member.start..member.span.end);
                self.message_raw = member.raw;
                return;
            }
            "response" => &mut self.response,
            "thinking" => &mut self.thinking,
            "done" => &mut self.done,
            "done_reason" => &mut self.done_reason,
            "prompt_eval_count" => &mut self.prompt_eval_count,
            "eval_count" => &mut self.eval_count,
            "error" => &mut self.error,
            _ => return,
        };
        *slot = Some(member.raw);
    }

    /// All members were seen: a completion says what a message would.
    fn settle(&mut self) {
        let (response, thinking) = (self.response, self.thinking);
        if self.message.is_some() || (response.is_none() && thinking.is_none()) {
            return;
        }
        let length = |raw: Option<&str>| raw.map_or(0, |raw| raw.len().saturating_sub(2) as u64);
        let bytes = length(response) + length(thinking);
        let says = |raw: Option<&str>| raw.is_some_and(|raw| raw.starts_with('"') && raw != "\"\"");
        self.message = Some(Said { meaningful: says(response) || says(thinking), calls: false, bytes });
    }

    fn line(&self) -> Line<'a> {
        let raw = |text: Option<&'a str>| text.and_then(|text| serde_json::from_str(text).ok());
        Line {
            done: raw(self.done),
            done_reason: raw(self.done_reason),
            prompt_eval_count: raw(self.prompt_eval_count),
            eval_count: raw(self.eval_count),
            error: raw(self.error),
            ..Line::default()
        }
    }
}

impl Said {
    fn of(raw: &str) -> Option<Self> {
        let repaired;
        let message: Message<'_> = match serde_json::from_str(raw) {
            Ok(message) => message,
            Err(_) => {
                repaired = last_wins(raw);
                serde_json::from_str(&repaired).ok()?
            }
        };
        // Without quotes; escapes count as they are written.
        let length = |raw: Option<&serde_json::value::RawValue>| {
            raw.map_or(0, |raw| raw.get().len().saturating_sub(2) as u64)
        };
        let calls = !message.calls().is_empty();
        Some(Self {
            meaningful: message.is_meaningful(),
            calls,
            bytes: length(message.content) + length(message.thinking) + length(message.tool_calls),
        })
    }
}

/// The members of a completion that stand for a message.
fn as_completion(message: &str) -> Bytes {
    let repaired;
    let message: Message<'_> = match serde_json::from_str(message) {
        Ok(message) => message,
        Err(_) => {
            repaired = last_wins(message);
            serde_json::from_str(&repaired).unwrap_or_default()
        }
    };
    let mut out = BytesMut::new();
    out.extend_from_slice(b"\"response\":");
    out.extend_from_slice(
        message.content.filter(|raw| raw.get() != "null").map_or("\"\"", |raw| raw.get()).as_bytes(),
    );
    if let Some(thinking) = message.thinking.filter(|raw| raw.get() != "null") {
        out.extend_from_slice(b",\"thinking\":");
        out.extend_from_slice(thinking.get().as_bytes());
    }
    out.freeze()
}

fn quoted(text: &str) -> Bytes {
    let mut out = BytesMut::with_capacity(text.len() + 2);
    json_out::string(&mut out, text);
    out.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ir::FinishReason,
        ollama::Ollama,
        stream::{Relay, StreamPipe as _},
    };

    fn echo() -> Echo {
        Echo { model: "asked".into(), created: 1, ..Echo::default() }
    }

    fn run(input: &str) -> (String, StreamWatch) {
        let mut relay = Relay::new(&Ollama, Tap::new(echo()));
        let mut out = BytesMut::new();
        for piece in input.as_bytes().chunks(7) {
            relay.push(piece, &mut out).unwrap();
        }
        relay.finish(&mut out).unwrap();
        (String::from_utf8(out.to_vec()).unwrap(), relay.watch().clone())
    }

    const TEXT: &str = r#"{"model":"up","created_at":"2026-01-01T00:00:00.1Z","message":{"role":"assistant","content":"a\"b"},"done":false}"#;
    const END: &str = r#"{"model":"up","created_at":"2026-01-01T00:00:01.1Z","message":{"role":"assistant","content":""},"done":true,"done_reason":"stop","total_duration":5,"prompt_eval_count":3,"eval_count":2}"#;

    #[test]
    fn lines_pass_with_the_asked_name_and_one_end() {
        let (out, watch) = run(&format!("{TEXT}\r\n\n{END}\n{END}\n{TEXT}\n"));
        assert_eq!(out, format!("{TEXT}\n{END}\n").replace("\"up\"", "\"asked\""));
        assert!(watch.complete && watch.meaningful);
        assert_eq!((watch.finish, watch.usage.output_total), (Some(FinishReason::Stop), Some(2)));
        assert_eq!(watch.output_bytes, 4);
    }

    #[test]
    fn completions_pass_as_they_are_and_chats_become_completions() {
        let completion = |line: &str| {
            line.replace(r#""message":{"role":"assistant","content":"a\"b"}"#, r#""response":"a\"b""#)
                .replace(r#""message":{"role":"assistant","content":""}"#, r#""response":"""#)
        };
        let expected = format!("{}\n{}\n", completion(TEXT), completion(END)).replace("\"up\"", "\"asked\"");
        for input in [format!("{TEXT}\n{END}\n"), format!("{}\n{}\n", completion(TEXT), completion(END))] {
            let mut relay = Relay::new(&Ollama, Tap::new(Echo { legacy: true, ..echo() }));
            let mut out = BytesMut::new();
            relay.push(input.as_bytes(), &mut out).unwrap();
            relay.finish(&mut out).unwrap();
            assert_eq!(out, expected);
            let watch = relay.watch();
            assert!(watch.complete && watch.meaningful);
            assert_eq!((watch.output_bytes, watch.usage.output_total), (4, Some(2)));
            for line in input.lines() {
                let body = Bytes::copy_from_slice(line.as_bytes());
                let relayed = whole(&body, &Echo { legacy: true, ..echo() }).unwrap();
                assert!(expected.contains(std::str::from_utf8(&relayed.body.to_bytes()).unwrap()));
                assert!(relayed.meaningful);
            }
        }
        let thoughtful = Bytes::from_static(
            br#"{"model":"asked","message":{"role":"assistant","thinking":"hm","content":"x"},"done":true}"#,
        );
        let relayed = whole(&thoughtful, &Echo { legacy: true, ..echo() }).unwrap();
        assert_eq!(
            relayed.body.to_bytes(),
            r#"{"model":"asked","response":"x","thinking":"hm","done":true}"#
        );
        let twice = Bytes::from_static(
            br#"{"model":"asked","message":{"role":"assistant","content":"a","content":"b"},"done":true}"#,
        );
        let relayed = whole(&twice, &Echo { legacy: true, ..echo() }).unwrap();
        assert_eq!(relayed.body.to_bytes(), r#"{"model":"asked","response":"b","done":true}"#);
    }

    #[test]
    fn nothing_within_a_line_ends_it() {
        let text = |content: &str| TEXT.replace(r#"a\"b"#, content);
        let (out, _) = run(&format!("{}\n{END}\n", text("a\u{85}\u{2028}b")));
        assert_eq!(out.lines().next(), Some(&*text("a\\u0085\\u2028b").replace("\"up\"", "\"asked\"")));
    }

    #[test]
    fn errors_and_breaks_are_noted_and_not_written() {
        let (out, watch) = run("{\"error\":\"out of memory\"}\n");
        assert_eq!((out.as_str(), watch.error.unwrap().message.as_str()), ("", "out of memory"));
        let (out, watch) = run(&format!("{TEXT}\n{{\"error\":\"late\",\"status\":503}}\n"));
        let error = watch.error.unwrap();
        assert_eq!((out.lines().count(), error.status, error.message.as_str()), (1, Some(503), "late"));
        for broken in [format!("{TEXT}\n"), format!("{TEXT}\n{}", &END[..90])] {
            let (out, watch) = run(&broken);
            assert_eq!(out.lines().count(), 1);
            assert_eq!(watch.error.unwrap().code.as_deref(), Some("upstream_stream_truncated"));
        }
        assert!(run(&format!("{TEXT}\n{{\"done\":\n{END}\n")).1.error.is_some());
        assert_eq!(run("<html>\n</html>\n").1.error.unwrap().message, "upstream returned HTML (status 200)");
        assert_eq!(run(&format!("hello\n{END}\n")).0.lines().count(), 1);
    }

    #[test]
    fn whole_answers_are_edited_and_judged() {
        let body = Bytes::copy_from_slice(END.replace("\"content\":\"\"", "\"content\":\"hi\"").as_bytes());
        let relayed = whole(&body, &echo()).unwrap();
        assert!(relayed.body.to_bytes().starts_with(br#"{"model":"asked","created_at""#));
        assert!(relayed.meaningful && relayed.error.is_none());
        assert_eq!((relayed.finish, relayed.usage.input_uncached), (Some(FinishReason::Stop), Some(3)));
        let same = Echo { model: "up".into(), ..echo() };
        assert!(whole(&body, &same).unwrap().body.is_untouched());

        let empty = Bytes::from_static(br#"{"message":{"role":"assistant","content":""},"done":true}"#);
        assert!(!whole(&empty, &echo()).unwrap().meaningful);
        let error = Bytes::from_static(br#"{"error":"no"}"#);
        assert_eq!(whole(&error, &echo()).unwrap().error.unwrap().message, "no");
        let stream = Bytes::from(format!("{TEXT}\n{END}\n"));
        assert!(whole(&stream, &echo()).unwrap().body.to_bytes().starts_with(br#"{"model":"asked""#));
        for body in ["<html></html>", "", "[1]"] {
            assert!(whole(&Bytes::copy_from_slice(body.as_bytes()), &echo()).is_err(), "{body}");
        }
    }
}
