//! Passing on what stays in the dialect: exact bytes, with the asked model's name in place.

mod whole;

pub(in crate::openai) use whole::whole;

use std::ops::Range;

use bytes::{BufMut as _, Bytes, BytesMut};
use omniroute_wire::{json_out, members, splice::Splice, sse::RawFrame};

use super::{
    error,
    finders::Finders,
    stream::Encoder,
    wire::{self, Answer, text_of},
};
use crate::{
    Echo, error_text,
    ir::{PublicError, Tier, Usage},
    json_in::{compact, last_wins},
    stream::{self, LastChunk, StreamEncoder, StreamWatch, truncated},
};

/// Looks on while the frames of a stream are passed on.
#[derive(Debug)]
pub(super) struct Tap {
    echo: Echo,
    /// The asked model's name as JSON.
    asked: Bytes,
    find: Finders,
    /// The last chunk that was nothing but text, and where it has a name that is not the asked one.
    last: LastChunk,
    last_name: Option<Range<usize>>,
    watch: StreamWatch,
    /// Parts of the last chunk that was read, for one that has to be made up.
    id: String,
    created: String,
    chunks: bool,
    called: bool,
    /// Whether the client got the chunk with the usage, and whether the chunk at hand has some that does not belong there.
    told_usage: bool,
    strips_usage: bool,
    usage_text: Option<String>,
    /// Whether the client wants usage with every chunk; nobody looks for that before there is some.
    wants_all_usage: Option<bool>,
}

impl Tap {
    pub(super) fn new(echo: Echo) -> Self {
        Self {
            asked: quoted(&echo.model),
            echo,
            find: Finders::default(),
            last: LastChunk::default(),
            last_name: None,
            watch: StreamWatch::default(),
            id: String::new(),
            created: String::new(),
            chunks: false,
            called: false,
            told_usage: false,
            strips_usage: false,
            usage_text: None,
            wants_all_usage: None,
        }
    }
}

impl stream::Tap for Tap {
    fn frame(&mut self, found: &RawFrame<'_>, out: &mut BytesMut) {
        let data = found.frame.data.trim_ascii();
        if let Some(text) = self.last.inside(data)
            && let Some(offset) = verbatim(found, data)
        {
            self.watch.output_bytes += text.len() as u64;
            let span = self.last_name.as_ref().map(|span| span.start + offset..span.end + offset);
            self.splice(found.raw, span, out);
        } else if data.starts_with(b"[DONE]") {
            self.done(out);
        } else if data.first() == Some(&b'{') && self.take_note(found, data) {
            self.write(found, data, out);
        }
    }

    fn cut(&mut self, out: &mut BytesMut) {
        if self.watch.finish.is_some() {
            self.done(out);
        } else {
            self.watch.error = Some(truncated());
        }
    }

    fn fail(&mut self, error: &PublicError, out: &mut BytesMut) {
        out.extend_from_slice(&error::encode_stream(error));
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

    fn is_ending(&self) -> bool {
        // Of several answers one may be at its end long before the others.
        self.watch.finish.is_some() && memchr::memmem::find(&self.echo.request, b"\"n\"").is_none()
    }
}

impl Tap {
    /// Looks into a chunk; false when it is not for the client.
    fn take_note(&mut self, found: &RawFrame<'_>, data: &[u8]) -> bool {
        if self.watch.meaningful
            && found.frame.event.is_none()
            && let Some(plain) = self.find.plain_text(data)
        {
            self.watch.output_bytes += plain.bytes;
            if let Some(text) = plain.only_text {
                self.learn(data, &text);
            }
            return true;
        }
        let Ok(text) = std::str::from_utf8(data) else {
            self.watch.error = Some(error_text::malformed("stream event is not UTF-8"));
            return false;
        };
        if found.frame.event == Some("error") {
            self.watch.error = Some(error_text::read_value(text));
            return false;
        }
        if let Ok(chunk) = serde_json::from_str::<Answer<'_>>(text) {
            return self.chunk(&chunk, text);
        }
        let repaired = last_wins(text);
        if let Ok(chunk) = serde_json::from_str::<Answer<'_>>(&repaired) {
            return self.chunk(&chunk, text);
        }
        self.watch.error = Some(error_text::malformed("stream event is not a chunk"));
        false
    }

    /// Remembers a chunk that is nothing but text, unless its name of the model comes behind the text.
    fn learn(&mut self, data: &[u8], text: &Range<usize>) {
        self.last.learn(data, text);
        self.last_name = self.name_to_replace(data);
        if self.last_name.as_ref().is_some_and(|span| !self.last.is_before(span)) {
            self.last = LastChunk::default();
        }
    }

    /// Where the chunk has a name that is not the asked one.
    fn name_to_replace(&self, data: &[u8]) -> Option<Range<usize>> {
        self.find.model_span(data).filter(|span| data[span.clone()] != *self.asked)
    }

    fn chunk(&mut self, chunk: &Answer<'_>, text: &str) -> bool {
        self.strips_usage = false;
        if chunk.error.is_some_and(|error| !matches!(error.get(), "{}" | "\"\"" | "false")) {
            self.watch.error = Some(error_text::read_value(text));
            return false;
        }
        let reported = chunk.usage.map(wire::usage).filter(Usage::is_known);
        if let Some(tier) = chunk.service_tier.and_then(text_of) {
            self.watch.usage.tier = Tier::of_answer(&tier).or(self.watch.usage.tier);
        }
        if let Some(usage) = reported.filter(|usage| wire::total(usage) >= wire::total(&self.watch.usage)) {
            self.watch.usage = Usage { tier: self.watch.usage.tier, ..usage };
            // It is told once, and in the upstream's words.
            let told = chunk.usage.filter(|_| self.echo.include_usage);
            self.usage_text = told.map(|raw| compact(raw.get()));
        }
        // Some leave the list out where it would be empty.
        let Some(choices) = chunk.choices.as_ref().filter(|choices| choices.count > 0) else {
            self.told_usage |= reported.is_some();
            return reported.is_none() || self.echo.include_usage;
        };
        // Clients add up what they are told, and some upstreams tell it again and again.
        self.strips_usage = reported.is_some() && !self.wants_all_usage();
        self.told_usage |= reported.is_some() && !self.strips_usage;
        self.chunks = true;
        if self.id.is_empty() {
            self.id = chunk.id.and_then(text_of).unwrap_or_default().into_owned();
            chunk.created.map_or("0", |raw| raw.get()).clone_into(&mut self.created);
        }
        let Some(choice) = &choices.first else {
            // Another alternative than the first: of interest to the client alone.
            self.watch.meaningful = true;
            return true;
        };
        let mut meaningful = false;
        for message in [&choice.delta, &choice.message].into_iter().flatten() {
            meaningful |= message.is_meaningful();
            self.called |= message.function_call.is_some();
            let texts = [message.text(), message.thinking(), message.refused()];
            self.watch.output_bytes += texts.iter().flatten().map(|text| text.len() as u64).sum::<u64>();
            for call in message.tool_calls.iter().flat_map(|calls| &calls.0) {
                self.called = true;
                let arguments = call.function.as_ref().map(wire::Function::arguments).unwrap_or_default();
                self.watch.output_bytes += arguments.len() as u64;
            }
        }
        self.watch.meaningful |= meaningful;
        let Some(word) = choice.finish_reason.and_then(text_of).filter(|word| !word.is_empty()) else {
            return true;
        };
        if let Some(error) = wire::failed_end(&word) {
            self.watch.error = Some(error);
            return false;
        }
        let says_more = meaningful || (reported.is_some() && !self.strips_usage);
        if self.watch.finish.is_some() && choices.count == 1 && !says_more {
            return false;
        }
        let reason = wire::finish_reason(&word, self.called);
        self.watch.finish.get_or_insert(reason);
        true
    }

    fn wants_all_usage(&mut self) -> bool {
        let request = &self.echo.request;
        *self
            .wants_all_usage
            .get_or_insert_with(|| memchr::memmem::find(request, b"\"continuous_usage_stats\"").is_some())
    }

    fn write(&mut self, found: &RawFrame<'_>, data: &[u8], out: &mut BytesMut) {
        let span = self.name_to_replace(data);
        if std::mem::take(&mut self.strips_usage) {
            let mut stripped = Splice::new(Bytes::copy_from_slice(data));
            for cut in members::removal(data, "usage") {
                stripped.replace(cut, Bytes::new());
            }
            if let Some(span) = span {
                stripped.replace(span, self.asked.clone());
            }
            write_data(&stripped.to_bytes(), out);
            return;
        }
        if let Some(offset) = verbatim(found, data) {
            self.splice(found.raw, span.map(|span| span.start + offset..span.end + offset), out);
            return;
        }
        let mut edited = BytesMut::with_capacity(data.len() + self.asked.len());
        self.splice(data, span, &mut edited);
        write_data(&edited, out);
    }

    fn splice(&self, bytes: &[u8], span: Option<Range<usize>>, out: &mut BytesMut) {
        match span {
            Some(span) => {
                out.reserve(bytes.len() + self.asked.len());
                out.put_slice(&bytes[..span.start]);
                out.put_slice(&self.asked);
                out.put_slice(&bytes[span.end..]);
            }
            None => out.extend_from_slice(bytes),
        }
    }

    /// Writes a chunk that the upstream left out.
    fn write_own(&self, out: &mut BytesMut, members: impl FnOnce(&mut json_out::Object<'_>)) {
        out.extend_from_slice(b"data: ");
        let mut object = json_out::Object::begin(out);
        object.str("id", &self.id).str("object", "chat.completion.chunk");
        object.raw("created", &self.created).str("model", &self.echo.model);
        members(&mut object);
        object.end();
        out.extend_from_slice(b"\n\n");
    }

    /// The proper end; a finish reason that the upstream left out is supplied, and usage that was asked for.
    fn done(&mut self, out: &mut BytesMut) {
        if self.watch.finish.is_none() {
            let reason = wire::finish_reason("", self.called);
            self.watch.finish = Some(reason);
            if self.chunks {
                self.write_own(out, |object| {
                    let mut choices = object.array("choices");
                    let mut choice = choices.object();
                    choice.u64("index", 0).raw("delta", "{}");
                    choice.str("finish_reason", wire::finish_word(reason, self.echo.legacy));
                    choice.end();
                    choices.end();
                });
            }
        }
        if self.chunks && self.echo.include_usage && !self.told_usage {
            let usage = wire::known_or_estimated(self.watch.usage, &self.echo, self.watch.output_bytes);
            self.write_own(out, |object| {
                object.raw("choices", "[]");
                match &self.usage_text {
                    Some(text) => _ = object.raw("usage", text),
                    None => wire::write_usage(object.key("usage"), &usage),
                }
            });
        }
        out.extend_from_slice(b"data: [DONE]\n\n");
        // An end of nothing is no answer.
        self.watch.meaningful |= self.chunks;
        self.watch.complete = true;
    }
}

/// Writes an event. Line ends within the data are white space of its JSON.
fn write_data(data: &[u8], out: &mut BytesMut) {
    out.extend_from_slice(b"data: ");
    let start = out.len();
    out.extend_from_slice(data);
    for byte in &mut out[start..] {
        if *byte == b'\n' {
            *byte = b' ';
        }
    }
    out.extend_from_slice(b"\n\n");
}

/// Where the data stands in the frame's bytes, if those can be sent on as they are.
fn verbatim(found: &RawFrame<'_>, data: &[u8]) -> Option<usize> {
    let within = found.raw.as_ptr_range();
    let is_verbatim = found.verbatim
        && found.frame.event.is_none()
        && within.contains(&data.as_ptr())
        && data.as_ptr_range().end <= within.end;
    is_verbatim.then(|| data.as_ptr() as usize - found.raw.as_ptr() as usize)
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
        openai::OpenAi,
        stream::{Relay, StreamPipe as _},
    };

    fn echo() -> Echo {
        Echo { model: "asked".into(), request_id: "r".into(), created: 1, ..Echo::default() }
    }

    fn run(echo: Echo, input: &str) -> (String, StreamWatch) {
        let mut relay = Relay::new(&OpenAi, Tap::new(echo));
        let mut out = BytesMut::new();
        relay.push(input.as_bytes(), &mut out).unwrap();
        relay.finish(&mut out).unwrap();
        (String::from_utf8(out.to_vec()).unwrap(), relay.watch().clone())
    }

    const CHUNK: &str = r#"{"id":"c","object":"chat.completion.chunk","created":7,"model":"up","choices":[{"index":0,"delta":{"content":"a\"b"},"finish_reason":null}]}"#;
    const FINISH: &str =
        r#"{"id":"c","model":"up","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#;
    const USAGE: &str =
        r#"{"id":"c","model":"up","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}}"#;

    #[test]
    fn chunks_pass_with_the_asked_name() {
        let input =
            format!("data: {CHUNK}\n\ndata: {CHUNK}\n\ndata: {FINISH}\n\ndata: {USAGE}\n\ndata: [DONE]\n\nx");
        let (out, watch) = run(echo(), &input);
        let expected = format!("data: {CHUNK}\n\ndata: {CHUNK}\n\ndata: {FINISH}\n\ndata: [DONE]\n\n");
        assert_eq!(out, expected.replace("\"up\"", "\"asked\""));
        assert!(watch.meaningful && watch.complete);
        assert_eq!(watch.finish, Some(FinishReason::Stop));
        assert_eq!(watch.usage.output_total, Some(2));
        assert_eq!(watch.output_bytes, 3 + 4);

        let with_usage = Echo { include_usage: true, ..echo() };
        assert!(run(with_usage.clone(), &input).0.contains("prompt_tokens"));
        // The same without a list that would be empty.
        let short = input.replace(r#""choices":[],"#, "");
        assert_eq!(run(echo(), &short).0, expected.replace("\"up\"", "\"asked\""));
        assert_eq!(run(with_usage, &short).0.matches("prompt_tokens").count(), 1);
        let same = Echo { model: "up".into(), include_usage: true, ..echo() };
        assert_eq!(run(same, &input).0, input[..input.len() - 1]);
    }

    #[test]
    fn usage_is_told_once_and_only_to_those_who_asked() {
        let told = r#""usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5,"prompt_cache_hit_tokens":1}"#;
        let with = |chunk: &str| format!("data: {},{told}}}\n\n", chunk.strip_suffix('}').unwrap());
        let plain = |chunk: &str| format!("data: {}\n\n", chunk.replace("\"up\"", "\"asked\""));
        let asked = Echo { include_usage: true, ..echo() };
        let last = |text: &str| format!(r#""model":"asked","choices":[],{text}}}"#);
        // With every piece, with the last, and nowhere.
        for input in [with(CHUNK) + &with(FINISH), format!("data: {CHUNK}\n\n") + &with(FINISH)] {
            let input = input + "data: [DONE]\n\n";
            let (out, watch) = run(echo(), &input);
            assert_eq!(out, plain(CHUNK) + &plain(FINISH) + "data: [DONE]\n\n");
            assert_eq!(watch.usage.output_total, Some(2));
            let (out, _) = run(asked.clone(), &input);
            assert!(out.starts_with(&(plain(CHUNK) + &plain(FINISH))), "{out}");
            assert!(out.contains(&last(told)) && out.matches("prompt_tokens").count() == 1, "{out}");
        }
        let silent = format!("data: {CHUNK}\n\ndata: {FINISH}\n\ndata: [DONE]\n\n");
        let estimated = Echo { estimated_input_tokens: 7, ..asked.clone() };
        let (out, watch) = run(estimated, &silent);
        let told = r#""usage":{"prompt_tokens":7,"completion_tokens":1,"total_tokens":8}"#;
        assert!(out.contains(&last(told)) && !watch.usage.is_known(), "{out}");
        // Who wants to be told again and again is.
        let request = Bytes::from_static(br#"{"stream_options":{"continuous_usage_stats":true}}"#);
        let (out, _) = run(Echo { request, ..asked }, &(with(CHUNK) + &with(FINISH) + "data: [DONE]\n\n"));
        assert_eq!(out.matches("prompt_tokens").count(), 2);
    }

    #[test]
    fn only_the_chunks_own_model_is_replaced() {
        for (chunk, expected) in [
            (
                r#"{"x":{"model":"in"},"choices":[],"model":"up"}"#,
                r#"{"x":{"model":"in"},"choices":[],"model":"asked"}"#,
            ),
            (
                r#"{"choices":[{"delta":{"content":"\"model\":\"no\""}}]}"#,
                r#"{"choices":[{"delta":{"content":"\"model\":\"no\""}}]}"#,
            ),
            (
                r#"{"model":null,"choices":[{"delta":{"content":"x"}}]}"#,
                r#"{"model":"asked","choices":[{"delta":{"content":"x"}}]}"#,
            ),
            (
                r#"{"choices":[{"delta":{"content":"x"}}],"model" : "u\"p" ,"o":"x"}"#,
                r#"{"choices":[{"delta":{"content":"x"}}],"model" : "asked" ,"o":"x"}"#,
            ),
            (
                r#"{"object":"model","model":"up","choices":[]}"#,
                r#"{"object":"model","model":"asked","choices":[]}"#,
            ),
            (
                r#"{"choices":[{"delta":{"content":"x"}}],"model": "u\"p" ,"o":"x"}"#,
                r#"{"choices":[{"delta":{"content":"x"}}],"model": "asked" ,"o":"x"}"#,
            ),
        ] {
            assert_eq!(run(echo(), &format!("data: {chunk}\n\n")).0, format!("data: {expected}\n\n"));
        }
    }

    #[test]
    fn other_fields_of_frames_stay_behind() {
        let input = format!(
            ": hi\nid: 1\nretry: 5\nevent: message\ndata: {CHUNK}\n\n: comment\n\ndata: {{\ndata: }}\n\n"
        );
        let expected = format!("data: {}\n\ndata: {{ }}\n\n", CHUNK.replace("\"up\"", "\"asked\""));
        assert_eq!(run(echo(), &input).0, expected);
    }

    #[test]
    fn a_missing_end_is_an_error_and_a_missing_terminal_is_supplied() {
        let (out, watch) = run(echo(), &format!("data: {CHUNK}\n\n"));
        assert!(!out.contains("[DONE]") && !watch.complete);
        assert_eq!(watch.error.unwrap().code.as_deref(), Some("upstream_stream_truncated"));

        let (out, watch) = run(echo(), &format!("data: {CHUNK}\n\ndata: {FINISH}\n\ndata: {FINISH}\n\n"));
        assert!(watch.complete && out.ends_with("data: [DONE]\n\n"));
        assert_eq!(out.matches("stop").count(), 1, "finish is told once");

        let (out, watch) = run(echo(), &format!("data: {CHUNK}\n\ndata: [DONE]\n\n"));
        assert!(watch.complete);
        assert!(out.contains(r#"{"id":"c","object":"chat.completion.chunk","created":7,"model":"asked","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#));
    }

    #[test]
    fn a_chunk_like_the_one_before_is_treated_like_it() {
        let text = |text: &str| CHUNK.replace("a\\\"b", text);
        let name_behind = |text: &str| {
            format!(r#"{{"choices":[{{"index":0,"delta":{{"content":"{text}"}}}}],"model":"up"}}"#)
        };
        let chunks = [
            text("one"),
            text("two"),
            text("\\\"thr\\\"ee"),
            text(r#"x","refusal":"y"#),
            text(r#"x"},"finish_reason":"length"}],"more":[{"delta":{"content":"y"#),
            text(""),
            name_behind("six"),
            name_behind("seven"),
            text("eight").replace("\"up\"", "\"asked\""),
            text("nine"),
        ];
        let input: String = chunks.iter().map(|chunk| format!("data: {chunk}\n\n")).collect();
        let (out, watch) = run(echo(), &format!("{input}data: [DONE]\n\n"));
        assert_eq!(out, format!("{input}data: [DONE]\n\n").replace("\"up\"", "\"asked\""));
        assert_eq!(
            (watch.output_bytes, watch.finish),
            (3 + 3 + 9 + 2 + 1 + 3 + 5 + 5 + 4, Some(FinishReason::Length))
        );
    }

    #[test]
    fn errors_are_noted_and_not_written() {
        for input in [
            "data: {\"error\":{\"message\":\"busy\",\"code\":429}}\n\n",
            "event: error\ndata: {\"message\":\"busy\",\"code\":429}\n\n",
            "{\"error\":{\"message\":\"busy\",\"code\":429}}",
        ] {
            let (out, watch) = run(echo(), input);
            let error = watch.error.unwrap();
            assert_eq!((out.as_str(), error.status, error.message.as_str()), ("", Some(429), "busy"));
            assert!(!watch.meaningful);
        }
        let late =
            format!("data: {CHUNK}\n\ndata: {{\"error\":{{\"message\":\"late\"}}}}\n\ndata: {CHUNK}\n\n");
        let (out, watch) = run(echo(), &late);
        assert_eq!(out.matches("data:").count(), 1);
        assert_eq!(watch.error.unwrap().message, "late");
        assert_eq!(run(echo(), "<html>\n\n").1.error.unwrap().message, "upstream returned HTML (status 200)");
        assert!(run(echo(), "data: {\"choices\":[\n\n").1.error.is_some());
    }

    #[test]
    fn a_whole_answer_in_place_of_a_stream_becomes_one() {
        let body = r#"{"id":"chatcmpl-x","choices":[{"message":{"content":"hi"},"finish_reason":"stop"}]}"#;
        let (out, watch) = run(echo(), body);
        assert!(watch.complete && out.contains("\"content\":\"hi\"") && out.ends_with("data: [DONE]\n\n"));
    }
}
