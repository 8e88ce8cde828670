//! Writing a request for an upstream.

use std::borrow::Cow;

use bytes::BytesMut;
use omniroute_wire::json_out::Object;

use super::{
    super::{
        ID,
        wire::{ENCRYPTED, LOGPROBS},
    },
    input, write_tools,
};
use crate::{
    Caps, EncodeError, Encoded, JsonAnswer, ReasoningOff, caps, effort, ids,
    ir::{self, BlockKind, ChatRequest, Effort, Loss, LossAction, OutputFormat, ReasoningAmount, Word},
    json_in::{list_of, str_of},
    openai, strict_schema, tool_list,
};

/// The least output limit that upstreams accept.
const MIN_OUTPUT: u64 = 16;
/// Members of the vendor's other dialect that mean the same here.
const SHARED: &[&str] = &["moderation", "prompt_cache_options", "prompt_cache_retention", "user"];

/// Writes a request. Members come in a fixed order, so that equal requests are equal bytes.
pub(in crate::responses) fn encode(request: &ChatRequest, caps: &Caps) -> Result<Encoded, EncodeError> {
    let mut losses = request.losses_elsewhere();
    let mut out = BytesMut::with_capacity(1024);
    let origin = request.extras.origin;
    let native = origin == Some(ID);
    let kin = native || origin == Some(openai::ID);
    let mut writer = Writer { request, caps, native, kin, losses: &mut losses };
    let mut body = Object::begin(&mut out);
    body.str("model", &request.model);
    let note = writer.schema_note();
    input::write(request, caps, note.as_deref(), &mut body, writer.losses)?;
    if !writer.native {
        tool_list::check_chosen(request)?;
    }
    write_tools::write(request, caps, &mut body, writer.losses)?;
    writer.limits(&mut body);
    writer.sampling(&mut body)?;
    writer.text(&mut body);
    let reasons = writer.reasoning(&mut body);
    writer.identity(&mut body);
    writer.extras(&mut body)?;
    writer.include(reasons, &mut body);
    if request.stream {
        body.bool("stream", true);
    }
    body.end();
    Ok(Encoded { body: out.freeze(), losses })
}

/// Whether the target is asked for its JSON in words.
pub(in crate::responses) fn json_answer(request: &ChatRequest, caps: &Caps) -> JsonAnswer {
    let in_words = matches!(request.output_format, OutputFormat::JsonSchema { .. }) && !caps.json_schema;
    if in_words { JsonAnswer::Fenced } else { JsonAnswer::AsIs }
}

struct Writer<'a> {
    request: &'a ChatRequest,
    caps: &'a Caps,
    /// Whether the request came in this dialect.
    native: bool,
    /// Whether it came in this one or in the vendor's other, which has the same members for who asks.
    kin: bool,
    losses: &'a mut Vec<Loss>,
}

impl Writer<'_> {
    fn lose(&mut self, path: impl Into<Cow<'static, str>>, action: LossAction) {
        self.losses.push(ir::loss(path, action));
    }

    fn quiet(&mut self, path: impl Into<Cow<'static, str>>, action: LossAction) {
        self.losses.push(ir::quiet(path, action));
    }

    fn limits(&mut self, body: &mut Object<'_>) {
        if let Some(asked) = self.request.max_output_tokens {
            let limit = self.caps.max_output_tokens.map_or(asked, |most| most.min(asked)).max(MIN_OUTPUT);
            if limit != asked {
                self.quiet(self.request.word(Word::OutputLimit), LossAction::Clamped);
            }
            body.u64("max_output_tokens", limit);
        }
        // The dialect has no such member: the gateway looks out for them itself.
        if !self.request.stop.is_empty() {
            self.quiet(self.request.word(Word::Stop), LossAction::Mapped);
        }
    }

    fn sampling(&mut self, body: &mut Object<'_>) -> Result<(), EncodeError> {
        let sampling = &self.request.sampling;
        let samples = self.caps.takes_sampling(self.request);
        for (name, value) in [("temperature", &sampling.temperature), ("top_p", &sampling.top_p)] {
            match value {
                Some(_) if !samples => self.lose(name, LossAction::Dropped),
                Some(raw) if !self.kin && name == "temperature" && caps::is_above_two(raw) => {
                    body.raw(name, "2");
                    self.lose(name, LossAction::Clamped);
                }
                Some(raw) => {
                    body.raw(name, raw.get());
                }
                None => {}
            }
        }
        if self.native || sampling.logprobs {
            body.opt_u64("top_logprobs", sampling.top_logprobs);
        } else if sampling.top_logprobs.is_some() {
            self.losses.push(ir::quiet("top_logprobs", LossAction::Dropped));
        }
        for (name, value) in [
            ("frequency_penalty", &sampling.frequency_penalty),
            ("presence_penalty", &sampling.presence_penalty),
        ] {
            if let Some(raw) = value {
                let silent = raw.get().parse::<f64>() == Ok(0.0);
                self.losses.push(Loss { silent, ..ir::loss(name, LossAction::Dropped) });
            }
        }
        match &sampling.top_k {
            Some(raw) if self.caps.top_k && self.caps.sampling => {
                body.raw("top_k", raw.get());
            }
            Some(_) => self.lose("top_k", LossAction::Dropped),
            None => {}
        }
        if sampling.seed.is_some() {
            self.lose("seed", LossAction::Dropped);
        }
        if let Some(bias) = &sampling.logit_bias {
            if bias.get().bytes().any(|byte| !matches!(byte, b'{' | b'}' | b' ' | b'\n' | b'\r' | b'\t')) {
                let message = "the target has no `logit_bias`; leave it out, or use a Chat Completions model";
                return Err(unsupported("logit_bias", message));
            }
            self.quiet("logit_bias", LossAction::Dropped);
        }
        match sampling.n {
            None => Ok(()),
            Some(1) => {
                self.quiet("n", LossAction::Dropped);
                Ok(())
            }
            Some(_) => Err(unsupported("n", "the target gives one answer per request; ask several times")),
        }
    }

    /// What to say about the form of the answer to a target that cannot be told otherwise.
    fn schema_note(&mut self) -> Option<String> {
        match &self.request.output_format {
            OutputFormat::JsonSchema { schema, .. } if !self.caps.json_schema => {
                self.lose(self.request.word(Word::Format), LossAction::Mapped);
                Some(format!(
                    "Answer with one JSON object only, valid under this JSON schema: {}",
                    schema.get()
                ))
            }
            _ => None,
        }
    }

    fn text(&mut self, body: &mut Object<'_>) {
        let request = self.request;
        if matches!(request.output_format, OutputFormat::Text) && request.verbosity.is_none() {
            return;
        }
        let mut text = body.object("text");
        match &request.output_format {
            OutputFormat::Text => {}
            OutputFormat::JsonSchema { name, description, schema, strict } if self.caps.json_schema => {
                let mut format = text.object("format");
                format.str("type", "json_schema").str("name", name.as_deref().unwrap_or("response"));
                format.opt_str("description", description.as_deref()).raw("schema", schema.get());
                // The dialects of others have no word for it since they hold every answer to its schema.
                if let Some(wanted) = strict.or((!self.kin).then_some(true)) {
                    // A schema that cannot be obeyed in full would be refused.
                    let is_legal = if strict.is_some() {
                        strict_schema::is_legal
                    } else {
                        strict_schema::is_surely_legal
                    };
                    let kept = wanted && (self.native || is_legal(schema));
                    if kept != wanted {
                        let path = format!("{}.strict", request.word(Word::Format));
                        let silent = strict.is_none();
                        self.losses.push(Loss { silent, ..ir::loss(path, LossAction::Mapped) });
                    }
                    format.bool("strict", kept);
                }
                format.end();
            }
            OutputFormat::JsonObject | OutputFormat::JsonSchema { .. } => {
                text.raw("format", r#"{"type":"json_object"}"#);
            }
        }
        text.opt_str("verbosity", request.verbosity.as_deref());
        text.end();
    }

    /// Writes `reasoning`; whether the model will reason, as far as that is known.
    fn reasoning(&mut self, body: &mut Object<'_>) -> bool {
        let request = self.request;
        let path = request.word(Word::Reasoning);
        // Only models that are known to reason are known to take the word for not doing so.
        let is_known = self.caps.reasoning && self.caps.max_completion_tokens;
        let (effort, asked) = match &request.reasoning.amount {
            ReasoningAmount::Default => (None, false),
            ReasoningAmount::Adaptive(None) => {
                // It is what these models do when nothing is said.
                self.quiet(path, LossAction::Dropped);
                (None, false)
            }
            ReasoningAmount::Off | ReasoningAmount::Budget(0)
                if self.kin || (is_known && self.caps.reasoning_off != ReasoningOff::Least) =>
            {
                if self.native || is_known {
                    (Some("none"), false)
                } else {
                    self.quiet(path, LossAction::Dropped);
                    (None, false)
                }
            }
            // Not reasoning is what the model cannot do.
            ReasoningAmount::Off | ReasoningAmount::Budget(0) if is_known => {
                self.lose(path, LossAction::Clamped);
                (self.caps.efforts.first().map(|least| least.word()), true)
            }
            ReasoningAmount::Off | ReasoningAmount::Budget(0) => {
                self.quiet(path, LossAction::Dropped);
                (None, false)
            }
            ReasoningAmount::Effort(effort) | ReasoningAmount::Adaptive(Some(effort)) => {
                (self.effort(*effort, path), true)
            }
            ReasoningAmount::Budget(tokens) => (self.effort(effort::of_budget(*tokens), path), true),
        };
        let shows = request.reasoning.show == Some(true) && (self.native || self.caps.reasoning);
        if effort.is_some() || shows {
            let mut reasoning = body.object("reasoning");
            reasoning.opt_str("effort", effort).opt_str("summary", shows.then_some("auto"));
            reasoning.end();
        }
        let continues = request.turns.iter().flat_map(|turn| &turn.blocks).any(|block| {
            matches!(&block.kind, BlockKind::Thinking { origin, signature: Some(_), .. } if *origin == ID)
        });
        let off = effort == Some("none");
        !off && self.caps.reasoning && (asked || shows || continues || is_known)
    }

    fn effort(&mut self, effort: Effort, path: &'static str) -> Option<&'static str> {
        if !self.native && !self.caps.reasoning {
            self.lose(path, LossAction::Dropped);
            return None;
        }
        if self.kin {
            if !self.native {
                self.quiet(path, LossAction::Mapped);
            }
            return Some(effort.word());
        }
        let nearest = effort::nearest(effort, self.caps.efforts);
        self.quiet(path, if nearest == effort { LossAction::Mapped } else { LossAction::Clamped });
        Some(nearest.word())
    }

    /// Who asks, and on what terms.
    fn identity(&mut self, body: &mut Object<'_>) {
        let request = self.request;
        if let Some(user) = request.user.as_deref() {
            if self.kin {
                body.str(if request.user_is_safety_id { "safety_identifier" } else { "user" }, user);
            } else {
                body.str("safety_identifier", &ids::sha256_hex(user));
                self.quiet(request.word(Word::User), LossAction::Mapped);
            }
        }
        body.opt_str("prompt_cache_key", request.prompt_cache_key.as_deref());
        if let Some(tier) = request.service_tier.as_deref() {
            let word = match tier.to_ascii_lowercase().as_str() {
                _ if self.kin => Some(tier),
                "auto" => Some("auto"),
                "default" | "standard_only" | "standard" => Some("default"),
                "flex" => Some("flex"),
                "priority" => Some("priority"),
                _ => None,
            };
            match word {
                None => self.lose("service_tier", LossAction::Dropped),
                Some(word) => {
                    body.str("service_tier", word);
                    if !self.kin {
                        self.quiet("service_tier", LossAction::Mapped);
                    }
                }
            }
        }
        if let Some(metadata) = &request.metadata {
            if self.kin {
                body.raw("metadata", metadata.get());
            } else {
                self.quiet("metadata", LossAction::Dropped);
            }
        }
        body.bool("store", request.store == Some(true));
    }

    fn extras(&mut self, body: &mut Object<'_>) -> Result<(), EncodeError> {
        for (name, raw) in &self.request.extras.members {
            if self.native && (name == "include" || name.starts_with("input[")) {
                // Written with the others of its kind, and within the conversation.
                continue;
            }
            if self.native || (self.kin && SHARED.contains(&name.as_str())) {
                body.raw(name, raw.get());
            } else {
                self.losses.push(self.request.extras.leave_out(name, raw)?);
            }
        }
        Ok(())
    }

    /// Asks for what is only told on request. Nothing is kept at the upstream, so reasoning has to come with the answer
    /// if it is to be sent back.
    fn include(&self, reasons: bool, body: &mut Object<'_>) {
        let extras = self.request.extras.members.iter().filter(|_| self.native);
        let mut names: Vec<Cow<'_, str>> = extras
            .filter(|(name, _)| name == "include")
            .filter_map(|(_, raw)| list_of(raw))
            .flatten()
            .filter_map(str_of)
            .collect();
        // A client of the dialect that says itself what is to be kept has asked for what it needs.
        let unsaid = !self.native || self.request.store.is_none();
        if reasons && unsaid && !names.iter().any(|known| known == ENCRYPTED) {
            names.push(Cow::Borrowed(ENCRYPTED));
        }
        if self.request.sampling.logprobs && !names.iter().any(|known| known == LOGPROBS) {
            names.push(Cow::Borrowed(LOGPROBS));
        }
        if names.is_empty() {
            return;
        }
        let mut list = body.array("include");
        for name in &names {
            list.str(name);
        }
        list.end();
    }
}

pub(super) fn unsupported(param: &str, message: &str) -> EncodeError {
    EncodeError { code: "unsupported_parameter", param: Some(param.to_owned()), message: message.to_owned() }
}
