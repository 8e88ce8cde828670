//! Answers of `generateContent`.

use bytes::{Bytes, BytesMut};
use omniroute_wire::json_out::{Array, Object};

use crate::{
    ask::Ask,
    dialect::Answer,
    frame::Event,
    reply::{Call, Finish, Tokens},
    script::UsageScript,
    signature::{self, Kind},
};

/// The answer as one document.
pub(crate) fn whole(answer: &Answer<'_>) -> Bytes {
    let Answer { script, ask, reply, .. } = *answer;
    document(answer, |document| {
        if reply.finish == Finish::Blocked {
            blocked(document);
        } else {
            let mut candidates = document.array("candidates");
            for index in 0..ask.answers {
                candidate(&mut candidates, index, Some(reply.finish.clone()), |parts| {
                    if let Some(thoughts) = reply.shown() {
                        thought(parts, thoughts);
                    }
                    if !reply.text.is_empty() {
                        text(
                            parts,
                            &reply.text,
                            reply.calls.is_empty().then(|| said(answer)).flatten().as_deref(),
                        );
                    }
                    for (position, call) in reply.calls.iter().enumerate() {
                        function(parts, call, signature(answer, position).as_deref());
                    }
                });
            }
            candidates.end();
        }
        if script.usage != UsageScript::Never {
            usage(document.key("usageMetadata"), reply.usage, ask.answers);
        }
    })
}

/// The answer as the events of a stream.
pub(crate) fn events(answer: &Answer<'_>) -> Vec<Event> {
    let Answer { script, ask, reply, .. } = *answer;
    if reply.finish == Finish::Blocked {
        return vec![Event { name: None, data: whole(answer), content: true }];
    }
    let mut writer = Writer { answer, events: Vec::new(), written: 0 };
    for index in 0..ask.answers {
        let last = index + 1 == ask.answers;
        for piece in reply.shown().iter().flat_map(|thoughts| thoughts.split_inclusive(' ')) {
            writer.chunk(index, piece.len(), |parts| thought(parts, piece));
        }
        for piece in reply.pieces(script.chunks) {
            writer.chunk(index, piece.len(), |parts| text(parts, piece, None));
        }
        // Calls are whole; they come together, or one by one if they are to come in fragments.
        let group = if script.fragments.is_some() { 1 } else { reply.calls.len().max(1) };
        for (at, calls) in reply.calls.chunks(group).enumerate() {
            let length = calls.iter().map(|call| call.arguments.len()).sum();
            writer.chunk(index, length, |parts| {
                for (position, call) in calls.iter().enumerate() {
                    function(parts, call, signature(answer, at * group + position).as_deref());
                }
            });
        }
        if last && script.usage == UsageScript::Early {
            writer.event(false, |chunk| usage(chunk.key("usageMetadata"), reply.usage, ask.answers));
        }
        writer.event(false, |chunk| {
            let mut candidates = chunk.array("candidates");
            candidate(&mut candidates, index, Some(reply.finish.clone()), |parts| {
                // The signature of a text stands in a part of its own at the end.
                text(parts, "", reply.calls.is_empty().then(|| said(answer)).flatten().as_deref());
            });
            candidates.end();
            if last && !matches!(script.usage, UsageScript::Never | UsageScript::Early) {
                usage(chunk.key("usageMetadata"), reply.usage, ask.answers);
            }
        });
    }
    writer.events
}

/// The answer to a question for the number of tokens.
pub(crate) fn count(ask: &Ask) -> Bytes {
    let mut out = BytesMut::with_capacity(128);
    let mut document = Object::begin(&mut out);
    document.u64("totalTokens", ask.prompt_tokens());
    modalities(&mut document, ask.prompt_tokens());
    document.end();
    out.freeze()
}

struct Writer<'a> {
    answer: &'a Answer<'a>,
    events: Vec<Event>,
    /// Bytes of the answer so far.
    written: usize,
}

impl Writer<'_> {
    fn chunk(&mut self, index: usize, length: usize, fill: impl FnOnce(&mut Array<'_>)) {
        self.written += length;
        let running = Tokens {
            output: (self.written.div_ceil(4) as u64).min(self.answer.reply.usage.output),
            reasoning: 0,
            ..self.answer.reply.usage
        };
        let every = self.answer.script.usage == UsageScript::Every;
        self.event(true, |chunk| {
            let mut candidates = chunk.array("candidates");
            candidate(&mut candidates, index, None, fill);
            candidates.end();
            if every {
                usage(chunk.key("usageMetadata"), running, 1);
            }
        });
    }

    fn event(&mut self, content: bool, fill: impl FnOnce(&mut Object<'_>)) {
        let data = document(self.answer, fill);
        self.events.push(Event { name: None, data, content });
    }
}

/// What every document has.
fn document(answer: &Answer<'_>, fill: impl FnOnce(&mut Object<'_>)) -> Bytes {
    let mut out = BytesMut::with_capacity(512);
    let mut document = Object::begin(&mut out);
    fill(&mut document);
    document.str("modelVersion", &answer.ask.model).str("responseId", &answer.ids.answer(""));
    document.end();
    out.freeze()
}

fn candidate(
    candidates: &mut Array<'_>,
    index: usize,
    finish: Option<Finish>,
    fill: impl FnOnce(&mut Array<'_>),
) {
    let mut candidate = candidates.object();
    let mut content = candidate.object("content");
    let mut parts = content.array("parts");
    fill(&mut parts);
    parts.end();
    content.str("role", "model");
    content.end();
    if let Some(finish) = finish {
        let reason = match finish {
            Finish::Stop | Finish::StopSequence(_) | Finish::Tools | Finish::Refused => "STOP",
            Finish::Length => "MAX_TOKENS",
            Finish::Filtered | Finish::Blocked => "SAFETY",
        };
        candidate.str("finishReason", reason);
        if finish == Finish::Filtered {
            ratings(&mut candidate);
        }
    }
    candidate.u64("index", index as u64);
    candidate.end();
}

fn text(parts: &mut Array<'_>, text: &str, signature: Option<&str>) {
    let mut part = parts.object();
    part.str("text", text).opt_str("thoughtSignature", signature);
    part.end();
}

fn thought(parts: &mut Array<'_>, text: &str) {
    let mut part = parts.object();
    part.str("text", text).bool("thought", true);
    part.end();
}

fn function(parts: &mut Array<'_>, call: &Call, signature: Option<&str>) {
    let mut part = parts.object();
    let mut function = part.object("functionCall");
    function.str("name", &call.name);
    if !call.arguments.is_empty() {
        function.raw("args", &call.arguments);
    }
    function.end();
    part.opt_str("thoughtSignature", signature);
    part.end();
}

/// The first call of an answer is signed, the others are not.
fn signature(answer: &Answer<'_>, position: usize) -> Option<String> {
    let call = answer.reply.calls.get(position).filter(|_| position == 0)?;
    answer.reply.thoughts?;
    // As the reader writes it: the order of members does not count.
    let args = serde_json::from_str::<serde_json::Value>(&call.arguments).ok();
    let args = args.map_or_else(|| "{}".to_owned(), |args| args.to_string());
    Some(signature::issue(Kind::Call, answer.ids, &[&call.name, &args]))
}

/// The signature of a text.
fn said(answer: &Answer<'_>) -> Option<String> {
    answer.reply.thoughts?;
    Some(signature::issue(Kind::Said, answer.ids, &[]))
}

fn blocked(document: &mut Object<'_>) {
    let mut feedback = document.object("promptFeedback");
    feedback.str("blockReason", "PROHIBITED_CONTENT");
    feedback.end();
}

fn ratings(candidate: &mut Object<'_>) {
    let mut ratings = candidate.array("safetyRatings");
    let mut rating = ratings.object();
    rating
        .str("category", "HARM_CATEGORY_DANGEROUS_CONTENT")
        .str("probability", "HIGH")
        .bool("blocked", true);
    rating.end();
    ratings.end();
}

fn usage(out: &mut BytesMut, usage: Tokens, answers: usize) {
    let answers = answers as u64;
    let written = (usage.output - usage.reasoning) * answers;
    let thoughts = usage.reasoning * answers;
    let mut object = Object::begin(out);
    object.u64("promptTokenCount", usage.prompt);
    if usage.cached > 0 {
        object.u64("cachedContentTokenCount", usage.cached);
    }
    object.u64("candidatesTokenCount", written);
    if thoughts > 0 {
        object.u64("thoughtsTokenCount", thoughts);
    }
    object.u64("totalTokenCount", usage.prompt + written + thoughts);
    modalities(&mut object, usage.prompt);
    object.end();
}

fn modalities(object: &mut Object<'_>, tokens: u64) {
    let mut details = object.array("promptTokensDetails");
    let mut text = details.object();
    text.str("modality", "TEXT").u64("tokenCount", tokens);
    text.end();
    details.end();
}
