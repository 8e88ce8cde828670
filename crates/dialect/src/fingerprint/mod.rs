//! What makes two requests ask for the same answer: everything that may change it, and nothing else.
//!
//! The digest is taken of the canonical form, so that requests of different dialects which say the same have the same one.
//! Whoever adds a member to the form decides here what it means for the answer.

mod json;

use std::collections::HashMap;

use omniroute_wire::envelope;
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};
use unicode_normalization::{UnicodeNormalization as _, is_nfc};

use crate::ir::{
    Block, BlockKind, ChatRequest, Citation, File, Image, LossAction, MediaSource, OutputFormat, Reasoning,
    ReasoningAmount, Role, Sampling, Signature, Tool, ToolCall, ToolChoice, ToolKind, ToolResult, Turn,
};

/// Changes when the same request gets another digest.
const VERSION: &str = "1";

/// The digest of a request that is to be answered by `target`, in which `context` stands for what else changes the answer.
/// `None` for requests whose answers depend on more than themselves, or are not meant to be repeatable: without a
/// temperature of zero, with several answers, log probabilities, tools that the vendor runs, or things it keeps.
pub fn fingerprint(request: &ChatRequest, target: &str, context: &[&str]) -> Option<[u8; 32]> {
    digest(request, &request.turns, target, context)
}

/// A request that is one question: what is asked, and what else there is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// The user's text, in composed characters and with one kind of line end.
    pub text: String,
    /// The digest of everything else.
    pub rest: [u8; 32],
}

/// The question of a request that has nothing but one turn of a user's text, and no tools. `None` for others, and for those
/// that have no [`fingerprint`] either.
pub fn question(request: &ChatRequest, target: &str, context: &[&str]) -> Option<Question> {
    let [turn] = &*request.turns else { return None };
    if turn.role != Role::User || !request.tools.is_empty() {
        return None;
    }
    let mut parts = Vec::with_capacity(turn.blocks.len());
    for block in &turn.blocks {
        let Block { kind: BlockKind::Text(text), citations, phase: None, .. } = block else { return None };
        if !citations.is_empty() {
            return None;
        }
        parts.push(text.as_str());
    }
    let text = parts.join("\n");
    let text = if is_nfc(&text) { text } else { text.nfc().collect() };
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    let context: Vec<&str> =
        context.iter().copied().chain(["question of", turn.name.as_deref().unwrap_or_default()]).collect();
    let rest = digest(request, &[], target, &context)?;
    (!text.trim().is_empty()).then_some(Question { text, rest })
}

fn digest(request: &ChatRequest, turns: &[Turn], target: &str, context: &[&str]) -> Option<[u8; 32]> {
    // No `..` here: whoever adds a member decides what it means for the answer.
    let ChatRequest {
        model: _,
        reader: _,
        stream: _,
        include_usage: _,
        system,
        turns: _,
        tools,
        tool_choice,
        parallel_tool_calls,
        sampling,
        max_output_tokens,
        stop,
        output_format,
        reasoning,
        user: _,
        user_is_safety_id: _,
        prompt_cache_key: _,
        service_tier: _,
        metadata: _,
        store: _,
        verbosity,
        extras,
        resumes,
        losses,
    } = request;
    // A member that nobody knows is not in the form, and an upstream of the client's dialect gets it nevertheless.
    let has_unknown = losses.iter().any(|loss| !loss.silent && loss.action == LossAction::Dropped);
    if *resumes || has_unknown {
        return None;
    }
    let mut digest = Digest(Sha256::new());
    digest.text("version", VERSION);
    digest.text("target", target);
    for one in context {
        digest.text("context", one);
    }
    digest.sampling(sampling)?;
    let mut calls = Calls::default();
    for block in system {
        digest.block("system", block, &mut calls)?;
    }
    let mut before = None;
    for turn in turns {
        digest.turn(turn, before, &mut calls)?;
        before = Some(turn);
    }
    for tool in tools {
        digest.tool(tool)?;
    }
    if let Some(choice) = tool_choice {
        digest.choice(choice)?;
    }
    digest.flag("parallel", *parallel_tool_calls);
    digest.number("max", *max_output_tokens);
    for sequence in stop {
        digest.text("stop", sequence);
    }
    digest.format(output_format);
    digest.reasoning(reasoning);
    digest.maybe("verbosity", verbosity.as_deref());
    let mut members: Vec<_> = extras.members.iter().filter(|(name, raw)| counts(name, raw)).collect();
    members.sort_by(|one, other| one.0.cmp(&other.0));
    if let (Some(origin), false) = (extras.origin, members.is_empty()) {
        digest.text("members of", origin.as_str());
    }
    for (name, raw) in members {
        if is_kept_elsewhere(name) || asks_for_more_than_text(name, raw) {
            return None;
        }
        digest.text("member", name);
        digest.json("value", raw);
    }
    Some(digest.0.finalize().into())
}

/// Whether a number is written that is zero.
pub(crate) fn is_zero(raw: &str) -> bool {
    let digits = raw.strip_prefix('-').unwrap_or(raw);
    digits.starts_with('0') && digits.parse::<f64>().is_ok_and(|number| number == 0.0)
}

/// Whether an object says a temperature of zero.
pub(crate) fn has_zero_temperature(object: &str) -> bool {
    let mut is_cold = false;
    if memchr::memmem::find(object.as_bytes(), b"temperature").is_some() {
        // What is no object says nothing.
        let _ = envelope::scan_str(object, &mut |member| {
            if member.key == "temperature" {
                is_cold = is_zero(member.raw);
            }
        });
    }
    is_cold
}

/// Whether an answer can depend on a member: not on those that say where things are kept or counted, nor on what is
/// not there.
fn counts(name: &str, raw: &RawValue) -> bool {
    const BOOKKEEPING: &[&str] = &[
        "metadata",
        "user",
        "store",
        "stream_options",
        "prompt_cache_options",
        "prompt_cache_retention",
        "keep_alive",
        "safety_identifier",
        "labels",
    ];
    let says_nothing = raw.get() == "null" || (name == "background" && raw.get() == "false");
    !says_nothing && !BOOKKEEPING.contains(&name)
}

/// Members that name something which the vendor keeps and may change, or do there.
fn is_kept_elsewhere(name: &str) -> bool {
    const NAMES: &[&str] = &[
        "previous_response_id",
        "conversation",
        "background",
        "container",
        "prompt",
        "cachedContent",
        "cached_content",
        "mcp_servers",
    ];
    NAMES.contains(&name) || (name.starts_with("input[") && !name.ends_with(".phase"))
}

/// What is kept are texts, reasoning and calls.
fn asks_for_more_than_text(name: &str, raw: &RawValue) -> bool {
    let has = |words: &[&str]| {
        let text = raw.get().to_ascii_lowercase();
        words.iter().any(|word| text.contains(word))
    };
    match name {
        "modalities" | "generationConfig.responseModalities" => has(&["audio", "image", "video"]),
        "include" => has(&["logprobs"]),
        "audio" => true,
        _ => false,
    }
}

/// The calls of a conversation in their order: their ids are made up anew for every answer.
#[derive(Default)]
struct Calls<'a>(HashMap<&'a str, u64>);

impl<'a> Calls<'a> {
    fn number(&mut self, id: &'a str) -> u64 {
        let next = self.0.len() as u64;
        *self.0.entry(id).or_insert(next)
    }
}

/// Hashes parts so that no two sequences of them look the same.
struct Digest(Sha256);

impl Digest {
    fn bytes(&mut self, name: &str, bytes: &[u8]) {
        for part in [name.as_bytes(), bytes] {
            self.0.update((part.len() as u64).to_le_bytes());
            self.0.update(part);
        }
    }

    /// A text as people see it: composed characters and one kind of line end.
    fn text(&mut self, name: &str, text: &str) {
        let composed = if is_nfc(text) { None } else { Some(text.nfc().collect::<String>()) };
        let text = composed.as_deref().unwrap_or(text);
        if text.contains('\r') {
            self.bytes(name, text.replace("\r\n", "\n").replace('\r', "\n").as_bytes());
        } else {
            self.bytes(name, text.as_bytes());
        }
    }

    fn maybe(&mut self, name: &str, text: Option<&str>) {
        if let Some(text) = text {
            self.text(name, text);
        }
    }

    fn number(&mut self, name: &str, number: Option<u64>) {
        if let Some(number) = number {
            self.bytes(name, &number.to_le_bytes());
        }
    }

    fn flag(&mut self, name: &str, flag: Option<bool>) {
        self.number(name, flag.map(u64::from));
    }

    /// JSON without regard to its spaces and the order of its members.
    fn json(&mut self, name: &str, raw: &RawValue) {
        self.json_text(name, raw.get());
    }

    fn json_text(&mut self, name: &str, text: &str) {
        self.bytes(name, json::canonical(text).as_bytes());
    }

    fn maybe_json(&mut self, name: &str, raw: Option<&RawValue>) {
        if let Some(raw) = raw {
            self.json(name, raw);
        }
    }

    fn sampling(&mut self, sampling: &Sampling) -> Option<()> {
        let Sampling {
            temperature,
            top_p,
            top_k,
            frequency_penalty,
            presence_penalty,
            seed,
            logit_bias,
            logprobs,
            top_logprobs,
            n,
        } = sampling;
        let is_cold = temperature.as_deref().is_some_and(|raw| is_zero(raw.get()));
        let has_logprobs = *logprobs || top_logprobs.is_some_and(|count| count > 0);
        if !is_cold || has_logprobs || n.is_some_and(|n| n != 1) {
            return None;
        }
        for (name, raw) in [
            ("top_p", top_p),
            ("top_k", top_k),
            ("frequency_penalty", frequency_penalty),
            ("presence_penalty", presence_penalty),
            ("seed", seed),
            ("logit_bias", logit_bias),
        ] {
            self.maybe_json(name, raw.as_deref());
        }
        Some(())
    }

    /// Some dialects put all results of calls into one turn, others give each a turn of its own.
    fn turn<'a>(&mut self, turn: &'a Turn, before: Option<&Turn>, calls: &mut Calls<'a>) -> Option<()> {
        let goes_on = before.is_some_and(|before| {
            let ends_with_result =
                before.blocks.last().is_some_and(|block| matches!(block.kind, BlockKind::ToolResult(_)));
            ends_with_result && before.role == turn.role && before.name.is_none() && turn.name.is_none()
        });
        let Turn { role, blocks, name, path: _ } = turn;
        let role = match role {
            Role::User => "user",
            Role::Assistant => "assistant",
            Role::System => "system",
        };
        if !goes_on {
            self.text("turn", role);
        }
        self.maybe("name", name.as_deref());
        blocks.iter().try_for_each(|block| self.block("block", block, calls))
    }

    fn block<'a>(&mut self, name: &str, block: &'a Block, calls: &mut Calls<'a>) -> Option<()> {
        let Block { kind, cache_mark: _, citations, phase, logprobs: _ } = block;
        self.maybe("phase", phase.as_deref());
        for Citation { url, title, cited_text, span: _, native: _ } in citations {
            self.text("cites", url.as_deref().unwrap_or_default());
            self.maybe("title", title.as_deref());
            self.maybe("cited", cited_text.as_deref());
        }
        match kind {
            BlockKind::Text(text) => self.text(name, text),
            BlockKind::Refusal(text) => self.text("refusal", text),
            BlockKind::Image(Image { source, detail }) => {
                self.maybe("detail", detail.as_deref());
                self.media("image", source)?;
            }
            BlockKind::File(File { source, name, extras }) => {
                self.maybe("file name", name.as_deref());
                for (name, raw) in extras {
                    self.text("file member", name);
                    self.json("value", raw);
                }
                self.media("file", source)?;
            }
            BlockKind::Audio { data, format } => {
                self.text("audio format", format);
                self.bytes("audio", data.as_bytes());
            }
            BlockKind::Thinking { text, signature, origin } => {
                self.text("thinking of", origin.as_str());
                self.text("thinking", text);
                if let Some(Signature { data, item, family: _, account: _ }) = signature {
                    self.text("signature", data);
                    self.maybe("item", item.as_deref());
                }
            }
            BlockKind::RedactedThinking { data, origin } => {
                self.text("thinking of", origin.as_str());
                self.bytes("redacted", data.as_bytes());
            }
            BlockKind::ToolCall(ToolCall { id, name, arguments }) => {
                self.number("call", Some(calls.number(id)));
                self.text("called", name);
                self.json_text("arguments", arguments);
            }
            BlockKind::ToolResult(ToolResult { call_id, blocks, is_error }) => {
                self.number("result of", Some(calls.number(call_id)));
                self.flag("is error", Some(*is_error));
                self.number("parts", Some(blocks.len() as u64));
                blocks.iter().try_for_each(|block| self.block("result", block, calls))?;
            }
            BlockKind::WebSearch(search) => self.text("search", &search.as_text()),
            BlockKind::Opaque { origin, raw } => {
                self.text("block of", origin.as_str());
                self.json("opaque", raw);
            }
        }
        Some(())
    }

    /// `None` for what somebody else keeps and may change.
    fn media(&mut self, name: &str, source: &MediaSource) -> Option<()> {
        match source {
            MediaSource::Base64 { media_type, data } => {
                self.text("media type", media_type);
                self.bytes(name, data.as_bytes());
            }
            MediaSource::Text(text) => self.text(name, text),
            MediaSource::Url(url) => self.text("address", url),
            MediaSource::FileId { .. } => return None,
        }
        Some(())
    }

    fn tool(&mut self, tool: &Tool) -> Option<()> {
        let Tool { kind, cache_mark: _, extras, path: _ } = tool;
        match kind {
            ToolKind::Function { name, description, schema, strict } => {
                self.text("function", name);
                self.maybe("description", description.as_deref());
                self.maybe_json("schema", schema.as_deref());
                self.flag("strict", *strict);
            }
            ToolKind::Custom { name, description, format } => {
                self.text("custom tool", name);
                self.maybe("description", description.as_deref());
                self.maybe_json("format", format.as_deref());
            }
            // What the vendor finds or runs is another thing tomorrow.
            ToolKind::WebSearch(_) | ToolKind::Opaque { .. } => return None,
        }
        for (name, raw) in extras {
            self.text("tool member", name);
            self.json("value", raw);
        }
        Some(())
    }

    fn choice(&mut self, choice: &ToolChoice) -> Option<()> {
        match choice {
            ToolChoice::Auto => self.text("choice", "auto"),
            ToolChoice::None => self.text("choice", "none"),
            ToolChoice::Required => self.text("choice", "required"),
            ToolChoice::Named(name) => self.text("choice of", name),
            ToolChoice::WebSearch => return None,
            ToolChoice::Allowed { required, names } => {
                self.flag("choice is required", Some(*required));
                for name in names {
                    self.text("allowed", name);
                }
            }
        }
        Some(())
    }

    fn format(&mut self, format: &OutputFormat) {
        match format {
            OutputFormat::Text => {}
            OutputFormat::JsonObject => self.text("format", "json"),
            OutputFormat::JsonSchema { name, description, schema, strict } => {
                self.maybe("schema name", name.as_deref());
                self.maybe("schema description", description.as_deref());
                self.json("answer schema", schema);
                self.flag("schema is strict", *strict);
            }
        }
    }

    fn reasoning(&mut self, reasoning: &Reasoning) {
        let Reasoning { amount, show } = reasoning;
        match amount {
            ReasoningAmount::Default => {}
            ReasoningAmount::Off => self.text("reasoning", "off"),
            ReasoningAmount::Effort(effort) => self.text("effort", &format!("{effort:?}")),
            ReasoningAmount::Budget(tokens) => self.number("budget", Some(*tokens)),
            ReasoningAmount::Adaptive(effort) => self.text("adaptive", &format!("{effort:?}")),
        }
        self.flag("show reasoning", *show);
    }
}

#[cfg(test)]
mod tests;
