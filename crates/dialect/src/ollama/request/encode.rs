//! Writing a request for an upstream.

use bytes::BytesMut;
use omniroute_wire::json_out::Object;

use super::{
    super::ID,
    conversation,
    tools::{self, refused},
};
use crate::{
    Caps, EncodeError, Encoded, effort, estimate,
    ir::{self, ChatRequest, Effort, Extras, Loss, LossAction, OutputFormat, ReasoningAmount, Word},
};

/// Tokens kept for an answer whose length nobody limits.
const USUAL_OUTPUT: u64 = 4096;
/// Context windows are asked for in steps: each other size makes the server load the model anew.
const WINDOW_STEP: u64 = 4096;

/// What chats do not know of completions. Those that stay what they are do not come here.
const ONLY_OF_COMPLETIONS: &[&str] = &["suffix", "raw", "context", "template"];

/// Writes a request. Members come in a fixed order, so that equal requests are equal bytes.
pub(in crate::ollama) fn encode(request: &ChatRequest, caps: &Caps) -> Result<Encoded, EncodeError> {
    let mut losses = request.losses_elsewhere();
    let mut out = BytesMut::with_capacity(1024);
    let native = request.extras.origin == Some(ID);
    let mut writer = Writer { request, caps, native, losses: &mut losses };
    let mut body = Object::begin(&mut out);
    body.str("model", &request.model);
    conversation::write(request, caps, body.key("messages"), writer.losses)?;
    if let Some(tools) = tools::write(request, caps, writer.losses)? {
        body.key("tools").extend_from_slice(&tools);
    }
    writer.format(&mut body);
    writer.thinking(&mut body);
    writer.options(&mut body)?;
    // Said either way: saying nothing asks for a stream.
    body.bool("stream", request.stream);
    writer.log_probabilities(&mut body);
    writer.identity();
    writer.extras(&mut body)?;
    body.end();
    Ok(Encoded { body: out.freeze(), losses })
}

struct Writer<'a> {
    request: &'a ChatRequest,
    caps: &'a Caps,
    /// Whether the request came in this dialect.
    native: bool,
    losses: &'a mut Vec<Loss>,
}

impl Writer<'_> {
    fn lose(&mut self, path: &'static str, action: LossAction, silent: bool) {
        self.losses.push(Loss { silent, ..ir::loss(path, action) });
    }

    fn format(&mut self, body: &mut Object<'_>) {
        match &self.request.output_format {
            OutputFormat::Text => {}
            OutputFormat::JsonObject => {
                body.str("format", "json");
            }
            OutputFormat::JsonSchema { schema, .. } => {
                body.raw("format", schema.get());
            }
        }
    }

    /// A model that does not think refuses to be asked to.
    fn thinking(&mut self, body: &mut Object<'_>) {
        let path = self.request.word(Word::Reasoning);
        let level = match &self.request.reasoning.amount {
            ReasoningAmount::Default => {
                if self.request.reasoning.show == Some(true) && !self.native {
                    // What shows the reasoning also asks for it, which models without refuse.
                    self.lose(self.request.word(Word::Show), LossAction::Dropped, true);
                }
                return;
            }
            ReasoningAmount::Off | ReasoningAmount::Budget(0) => {
                body.bool("think", false);
                return;
            }
            _ if !self.native && !self.caps.reasoning => {
                self.lose(path, LossAction::Dropped, false);
                return;
            }
            ReasoningAmount::Adaptive(None) => {
                body.bool("think", true);
                return;
            }
            ReasoningAmount::Effort(effort) | ReasoningAmount::Adaptive(Some(effort)) => *effort,
            ReasoningAmount::Budget(tokens) => {
                self.lose(path, LossAction::Mapped, true);
                effort::of_budget(*tokens)
            }
        };
        let (word, exact) = match level {
            // The highest word is new; older servers refuse it.
            Effort::Max if self.native => ("max", true),
            level => think_word(level),
        };
        if !exact {
            self.lose(path, LossAction::Clamped, true);
        }
        body.str("think", word);
    }

    fn options(&mut self, body: &mut Object<'_>) -> Result<(), EncodeError> {
        let mut out = BytesMut::new();
        let mut options = Object::begin(&mut out);
        let limit = self.limit();
        options.opt_u64("num_predict", limit);
        self.sampling(&mut options)?;
        if !self.native {
            options.u64("num_ctx", self.window(limit));
        }
        for (name, raw) in &self.request.extras.members {
            if let Some(name) = name.strip_prefix(Extras::RUNNER).filter(|_| self.native) {
                options.raw(name, raw.get());
            }
        }
        options.end();
        if out.len() > 2 {
            body.key("options").extend_from_slice(&out);
        }
        Ok(())
    }

    fn limit(&mut self) -> Option<u64> {
        let asked = self.request.max_output_tokens?;
        let most = self.caps.max_output_tokens.filter(|most| !self.native && *most < asked);
        if most.is_some() {
            self.lose(self.request.word(Word::OutputLimit), LossAction::Clamped, true);
        }
        Some(most.unwrap_or(asked))
    }

    /// The context to be kept for prompt and answer. The server's own default is small, and it cuts longer prompts from
    /// the front: the instructions and tools go first.
    fn window(&self, limit: Option<u64>) -> u64 {
        let estimated = estimate::tokens(self.request);
        // On the safe side: what does not fit is cut off in silence.
        let prompt = estimated.saturating_add(estimated / 4);
        let output = limit.unwrap_or_else(|| {
            self.caps.max_output_tokens.map_or(USUAL_OUTPUT, |most| most.min(USUAL_OUTPUT))
        });
        let needed = prompt.saturating_add(output).div_ceil(WINDOW_STEP).saturating_mul(WINDOW_STEP);
        self.caps.context_window.map_or(needed, |most| needed.min(most))
    }

    fn sampling(&mut self, options: &mut Object<'_>) -> Result<(), EncodeError> {
        let sampling = &self.request.sampling;
        for (name, value) in
            [("temperature", &sampling.temperature), ("top_p", &sampling.top_p), ("top_k", &sampling.top_k)]
        {
            match value {
                Some(_) if !self.native && !self.caps.sampling => {
                    self.lose(name, LossAction::Dropped, false);
                }
                Some(raw) => {
                    options.raw(name, raw.get());
                }
                None => {}
            }
        }
        for (name, value) in [
            ("seed", &sampling.seed),
            ("frequency_penalty", &sampling.frequency_penalty),
            ("presence_penalty", &sampling.presence_penalty),
        ] {
            if let Some(raw) = value {
                options.raw(name, raw.get());
            }
        }
        let mut stop: Vec<&String> = self.request.stop.iter().collect();
        if !self.native && stop.iter().any(|text| text.trim().is_empty()) {
            stop.retain(|text| !text.trim().is_empty());
            self.lose(self.request.word(Word::Stop), LossAction::Dropped, false);
        }
        if !stop.is_empty() {
            let mut list = options.array("stop");
            for text in stop {
                list.str(text);
            }
            list.end();
        }
        if sampling.logit_bias.is_some() {
            let message = "the target has no `logit_bias`; leave it out";
            return Err(refused("unsupported_parameter", "logit_bias", message));
        }
        match sampling.n {
            None => {}
            Some(1) => self.lose("n", LossAction::Dropped, true),
            Some(_) => {
                let message = "the target gives one answer per request";
                return Err(refused("unsupported_parameter", "n", message));
            }
        }
        Ok(())
    }

    fn log_probabilities(&mut self, body: &mut Object<'_>) {
        let sampling = &self.request.sampling;
        if sampling.logprobs {
            body.bool("logprobs", true);
        }
        if self.native || sampling.logprobs {
            body.opt_u64("top_logprobs", sampling.top_logprobs);
        } else if sampling.top_logprobs.is_some() {
            self.lose("top_logprobs", LossAction::Dropped, true);
        }
    }

    /// Who asks, and on what terms: the model's own machine does not care.
    fn identity(&mut self) {
        let request = self.request;
        if request.user.is_some() {
            self.lose(request.word(Word::User), LossAction::Dropped, false);
        }
        for (given, path) in [
            (request.prompt_cache_key.is_some(), "prompt_cache_key"),
            (request.metadata.is_some(), "metadata"),
            (request.store.is_some(), "store"),
        ] {
            if given {
                self.lose(path, LossAction::Dropped, true);
            }
        }
        if request.verbosity.is_some() {
            self.lose("verbosity", LossAction::Dropped, false);
        }
        if let Some(tier) = &request.service_tier {
            self.lose("service_tier", LossAction::Dropped, matches!(tier.as_str(), "auto" | "default"));
        }
    }

    fn extras(&mut self, body: &mut Object<'_>) -> Result<(), EncodeError> {
        for (name, raw) in &self.request.extras.members {
            if self.native && !ONLY_OF_COMPLETIONS.contains(&name.as_str()) {
                if !name.starts_with(Extras::RUNNER) {
                    body.raw(name, raw.get());
                }
                continue;
            }
            self.losses.push(self.request.extras.leave_out(name, raw)?);
        }
        Ok(())
    }
}

/// A level in the format's word, and whether it says just that.
pub(in crate::ollama) fn think_word(level: Effort) -> (&'static str, bool) {
    match level {
        Effort::Minimal => ("low", false),
        Effort::Low => ("low", true),
        Effort::Medium => ("medium", true),
        Effort::High => ("high", true),
        Effort::XHigh | Effort::Max => ("high", false),
    }
}
