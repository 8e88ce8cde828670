//! A canonical request for an upstream of this dialect.

use std::borrow::Cow;

use bytes::BytesMut;
use serde_json::value::RawValue;

use super::{
    conversation::{self, Conversation, refused},
    marks::{self, Marks},
    reasoning::{effort_word, thinking},
    schema,
    tools::{tool_choice, tools},
    write::write,
};
use crate::{
    Caps, EncodeError, Encoded, JsonAnswer,
    anthropic::{
        ID, search,
        wire::{BlockOut, FAST},
    },
    dialect::ANSWER_TOOL,
    estimate,
    ir::{
        CacheMark, ChatRequest, Loss, LossAction, OutputFormat, ReasoningAmount, Tool, ToolChoice, Word,
        loss, quiet,
    },
};

/// Output limit for models whose own is unknown; the dialect demands one.
pub(super) const DEFAULT_MAX_TOKENS: u64 = 8192;
/// Tokens of a prompt from which on it pays to have it cached.
const CACHED_FROM: u64 = 2_000;
/// Longest user id.
const MAX_USER_ID: usize = 256;
/// Writes a request.
pub(in crate::anthropic) fn encode(request: &ChatRequest, caps: &Caps) -> Result<Encoded, EncodeError> {
    if request.extras.origin == Some(ID) {
        let mut losses = request.losses.clone();
        let body = native(request, &mut losses).freeze();
        return Ok(Encoded { body, losses });
    }
    let mut losses = request.losses_elsewhere();
    let body = translated(request, caps, &mut losses)?.freeze();
    Ok(Encoded { body, losses })
}

/// How the model shall think.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::anthropic) enum Thinking {
    /// Nothing is said.
    Unsaid,
    Disabled,
    /// Only between calls of tools.
    BetweenTools,
    Enabled {
        budget: u64,
    },
    Adaptive,
}

/// The parts of a request apart from the conversation.
#[derive(Debug)]
pub(super) struct Knobs<'a> {
    pub(super) max_tokens: Option<u64>,
    pub(super) tools: Vec<ToolOut<'a>>,
    /// The tool whose arguments are the answer.
    pub(super) answer_tool: Option<AnswerTool<'a>>,
    pub(super) tool_choice: Option<Choice<'a>>,
    pub(super) one_call: bool,
    pub(super) thinking: Thinking,
    pub(super) show: Option<bool>,
    pub(super) effort: Option<&'static str>,
    pub(super) schema: Option<Cow<'a, str>>,
    pub(super) temperature: Option<&'a str>,
    pub(super) top_p: Option<&'a str>,
    pub(super) top_k: Option<&'a str>,
    pub(super) stop: Vec<&'a str>,
    pub(super) user: Option<&'a str>,
    pub(super) service_tier: Option<&'a str>,
    /// At the higher speed that the vendor sells.
    pub(super) fast: bool,
}

/// What is said of the tool whose arguments are the answer.
#[derive(Debug)]
pub(super) struct AnswerTool<'a> {
    pub(super) description: &'a str,
    pub(super) schema: &'a str,
}

/// A tool with the schema that is written for it.
#[derive(Debug)]
pub(super) struct ToolOut<'a> {
    pub(super) tool: &'a Tool,
    pub(super) schema: Option<Cow<'a, str>>,
    pub(super) cache: Option<CacheMark>,
    pub(super) extras: &'a [(String, Box<RawValue>)],
}

/// Which tool the model shall call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Choice<'a> {
    Auto,
    Any,
    None,
    Tool(&'a str),
}

impl Choice<'_> {
    /// Whether a call must come.
    pub(super) fn is_forced(self) -> bool {
        matches!(self, Self::Any | Self::Tool(_))
    }
}

/// A request that came in this dialect: nothing is judged, the upstream does that.
fn native(request: &ChatRequest, losses: &mut Vec<Loss>) -> BytesMut {
    let (thinking, effort) = match &request.reasoning.amount {
        ReasoningAmount::Default => (Thinking::Unsaid, None),
        ReasoningAmount::Off => (Thinking::Disabled, None),
        ReasoningAmount::Effort(effort) => (Thinking::Unsaid, Some(effort_word(*effort))),
        ReasoningAmount::Budget(budget) => (Thinking::Enabled { budget: *budget }, None),
        ReasoningAmount::Adaptive(effort) => (Thinking::Adaptive, effort.map(effort_word)),
    };
    let knobs = Knobs {
        max_tokens: request.max_output_tokens,
        tools: request
            .tools
            .iter()
            .map(|tool| ToolOut {
                tool,
                schema: tool.as_function().and_then(|one| one.schema).map(|raw| Cow::Borrowed(raw.get())),
                cache: tool.cache_mark,
                extras: &tool.extras,
            })
            .collect(),
        answer_tool: None,
        tool_choice: request.tool_choice.as_ref().map(|choice| match choice {
            ToolChoice::Auto | ToolChoice::Allowed { required: false, .. } => Choice::Auto,
            ToolChoice::None => Choice::None,
            ToolChoice::Required | ToolChoice::Allowed { required: true, .. } => Choice::Any,
            ToolChoice::Named(name) => Choice::Tool(name),
            ToolChoice::WebSearch => Choice::Tool(search::NAME),
        }),
        one_call: request.parallel_tool_calls == Some(false),
        thinking,
        show: request.reasoning.show,
        effort,
        schema: match &request.output_format {
            OutputFormat::JsonSchema { schema, .. } => Some(Cow::Borrowed(schema.get())),
            OutputFormat::Text | OutputFormat::JsonObject => None,
        },
        temperature: request.sampling.temperature.as_deref().map(RawValue::get),
        top_p: request.sampling.top_p.as_deref().map(RawValue::get),
        top_k: request.sampling.top_k.as_deref().map(RawValue::get),
        stop: request.stop.iter().map(String::as_str).collect(),
        user: request.user.as_deref(),
        service_tier: request.service_tier.as_deref(),
        // What the client wrote of it is among the extras.
        fast: false,
    };
    write(request, &super::native::native(request, losses), &knobs, &request.extras.members)
}

fn translated(request: &ChatRequest, caps: &Caps, losses: &mut Vec<Loss>) -> Result<BytesMut, EncodeError> {
    let marks = Marks::of(request, losses);
    let tools = tools(request, caps, losses)?;
    let mut conversation = conversation::translated(request, caps, losses)?;
    if tools.is_empty() && conversation.called_tools().next().is_some() {
        losses.push(loss("tools", LossAction::Invented));
    }
    let mut knobs = Knobs {
        max_tokens: Some(max_tokens(request, caps, losses)),
        answer_tool: None,
        tool_choice: None,
        one_call: false,
        thinking: Thinking::Unsaid,
        show: request.reasoning.show,
        effort: None,
        schema: None,
        temperature: None,
        top_p: None,
        top_k: None,
        stop: stop(request, losses),
        user: None,
        service_tier: None,
        fast: false,
        tools,
    };
    tool_choice(request, caps, &mut knobs, losses)?;
    thinking(request, caps, &conversation, &mut knobs, losses);
    sampling(request, caps, &mut knobs, losses)?;
    output_format(request, caps, &mut conversation, &mut knobs, losses);
    identity(request, caps, &mut knobs, losses);
    other_members(request, losses)?;
    marks::limit(&mut knobs.tools, &mut conversation);
    let mut body = write(request, &conversation, &knobs, &[]);
    if caps.auto_cache && !marks.any() && estimate::tokens(request) > CACHED_FROM {
        losses.push(quiet("cache_control", LossAction::Invented));
        body.truncate(body.len() - 1);
        body.extend_from_slice(br#","cache_control":{"type":"ephemeral"}}"#);
    }
    Ok(body)
}

fn max_tokens(request: &ChatRequest, caps: &Caps, losses: &mut Vec<Loss>) -> u64 {
    let most = caps.max_output_tokens;
    match (request.max_output_tokens, most) {
        (Some(asked), Some(most)) if asked > most => {
            losses.push(quiet(request.word(Word::OutputLimit), LossAction::Clamped));
            most
        }
        (Some(asked), _) => asked,
        (None, most) => {
            losses.push(quiet(request.word(Word::OutputLimit), LossAction::Invented));
            most.unwrap_or(DEFAULT_MAX_TOKENS)
        }
    }
}

fn sampling<'a>(
    request: &'a ChatRequest,
    caps: &Caps,
    knobs: &mut Knobs<'a>,
    losses: &mut Vec<Loss>,
) -> Result<(), EncodeError> {
    let sampling = &request.sampling;
    let number = |raw: &Option<Box<RawValue>>| raw.as_deref().and_then(|raw| raw.get().parse::<f64>().ok());
    let thinks = matches!(knobs.thinking, Thinking::Enabled { .. } | Thinking::Adaptive);

    if let Some(value) = number(&sampling.temperature) {
        if !caps.sampling || (thinks && value != 1.0) {
            losses.push(loss("temperature", LossAction::Dropped));
        } else if value > 1.0 {
            losses.push(loss("temperature", LossAction::Clamped));
            knobs.temperature = Some("1");
        } else {
            knobs.temperature = sampling.temperature.as_deref().map(RawValue::get);
        }
    }
    if let Some(value) = number(&sampling.top_p) {
        let refused = !caps.sampling || (thinks && value < 0.95);
        if refused || (caps.one_sampler && knobs.temperature.is_some()) {
            let path = "top_p";
            losses.push(Loss { silent: value == 1.0, ..loss(path, LossAction::Dropped) });
        } else {
            knobs.top_p = sampling.top_p.as_deref().map(RawValue::get);
        }
    }
    if sampling.top_k.is_some() {
        if !caps.sampling || thinks {
            losses.push(loss("top_k", LossAction::Dropped));
        } else {
            knobs.top_k = sampling.top_k.as_deref().map(RawValue::get);
        }
    }
    for (path, raw) in
        [("frequency_penalty", &sampling.frequency_penalty), ("presence_penalty", &sampling.presence_penalty)]
    {
        if let Some(value) = number(raw) {
            losses.push(Loss { silent: value == 0.0, ..loss(path, LossAction::Dropped) });
        }
    }
    if sampling.seed.is_some() {
        losses.push(loss("seed", LossAction::Dropped));
    }
    let unsupported = |path: &str, message: &str| Err(refused("unsupported_parameter", path, message));
    if let Some(bias) = &sampling.logit_bias {
        if bias.get().chars().any(|c| !matches!(c, '{' | '}' | ' ' | '\n' | '\r' | '\t')) {
            return unsupported("logit_bias", "this model's provider has no `logit_bias`; leave it out");
        }
        losses.push(quiet("logit_bias", LossAction::Dropped));
    }
    if sampling.logprobs {
        return unsupported("logprobs", "this model's provider tells no log probabilities");
    }
    if sampling.top_logprobs.is_some() {
        losses.push(quiet("top_logprobs", LossAction::Dropped));
    }
    match sampling.n {
        None => {}
        Some(1) => losses.push(quiet("n", LossAction::Dropped)),
        Some(_) => return unsupported("n", "this model's provider gives one answer per request"),
    }
    Ok(())
}

fn stop<'a>(request: &'a ChatRequest, losses: &mut Vec<Loss>) -> Vec<&'a str> {
    let kept: Vec<_> =
        request.stop.iter().map(String::as_str).filter(|text| !text.trim().is_empty()).collect();
    if kept.len() < request.stop.len() {
        losses.push(loss(request.word(Word::Stop), LossAction::Dropped));
    }
    kept
}

/// By which means the model is made to answer in JSON. A call can be forced where there are no other tools and the model
/// does not think.
pub(in crate::anthropic) fn json_answer(request: &ChatRequest, caps: &Caps) -> JsonAnswer {
    if request.extras.origin == Some(ID) {
        return JsonAnswer::AsIs;
    }
    match &request.output_format {
        OutputFormat::Text => JsonAnswer::AsIs,
        OutputFormat::JsonSchema { .. } if caps.json_schema => JsonAnswer::AsIs,
        OutputFormat::JsonSchema { schema, .. }
            if caps.tools
                && caps.forced_calls
                && request.tools.is_empty()
                && !thinks(request, caps)
                && schema::arguments(schema).is_some_and(|(_, changed)| !changed) =>
        {
            JsonAnswer::Tool
        }
        OutputFormat::JsonObject | OutputFormat::JsonSchema { .. } => JsonAnswer::Fenced,
    }
}

fn thinks(request: &ChatRequest, caps: &Caps) -> bool {
    let off = matches!(request.reasoning.amount, ReasoningAmount::Off | ReasoningAmount::Budget(0));
    let unasked = request.reasoning.amount == ReasoningAmount::Default && !caps.adaptive_thinking;
    caps.reasoning && !off && !unasked
}

fn output_format<'a>(
    request: &'a ChatRequest,
    caps: &Caps,
    conversation: &mut Conversation<'_>,
    knobs: &mut Knobs<'a>,
    losses: &mut Vec<Loss>,
) {
    match &request.output_format {
        OutputFormat::Text => {}
        OutputFormat::JsonObject => {
            losses.push(loss(request.word(Word::Format), LossAction::Mapped));
            let note = "Answer with one JSON object only, without a code fence and without any other text.";
            conversation.system.push(BlockOut::text(note));
        }
        OutputFormat::JsonSchema { schema, .. } if caps.json_schema => {
            let (text, changed) = schema::closed(schema);
            if changed {
                losses.push(loss(request.word(Word::Schema), LossAction::Mapped));
            }
            knobs.schema = Some(Cow::Owned(text));
        }
        OutputFormat::JsonSchema { schema, description, .. }
            if json_answer(request, caps) == JsonAnswer::Tool =>
        {
            losses.push(quiet("response_format", LossAction::Mapped));
            let text =
                description.as_deref().unwrap_or("Gives the answer. Call it once, with the whole answer.");
            knobs.answer_tool = Some(AnswerTool { description: text, schema: schema.get() });
            knobs.tool_choice = Some(Choice::Tool(ANSWER_TOOL));
        }
        OutputFormat::JsonSchema { schema, .. } => {
            losses.push(loss(request.word(Word::Format), LossAction::Mapped));
            let note = format!(
                "Answer with one JSON value only, without a code fence and without any other text. It must \
                 obey this JSON schema: {schema}"
            );
            conversation.system.push(BlockOut::text(note));
        }
    }
}

fn identity<'a>(request: &'a ChatRequest, caps: &Caps, knobs: &mut Knobs<'a>, losses: &mut Vec<Loss>) {
    knobs.user = request.user.as_deref().map(|user| match user.char_indices().nth(MAX_USER_ID) {
        None => user,
        Some((end, _)) => {
            losses.push(quiet(request.word(Word::User), LossAction::Clamped));
            &user[..end]
        }
    });
    for (path, given) in [
        ("prompt_cache_key", request.prompt_cache_key.is_some()),
        ("metadata", request.metadata.is_some()),
        ("store", request.store.is_some()),
    ] {
        if given {
            losses.push(quiet(path, LossAction::Dropped));
        }
    }
    if request.verbosity.is_some() {
        losses.push(loss("verbosity", LossAction::Dropped));
    }
    knobs.service_tier = match request.service_tier.as_deref() {
        None => None,
        Some(FAST) if caps.fast => {
            losses.push(quiet("service_tier", LossAction::Mapped));
            knobs.fast = true;
            None
        }
        // OpenAI means the same by both.
        Some("auto" | "priority" | FAST) => Some("auto"),
        Some("default" | "flex") => Some("standard_only"),
        Some(_) => {
            losses.push(loss("service_tier", LossAction::Dropped));
            None
        }
    };
    if knobs.service_tier.is_some_and(|tier| Some(tier) != request.service_tier.as_deref()) {
        losses.push(quiet("service_tier", LossAction::Mapped));
    }
}

fn other_members(request: &ChatRequest, losses: &mut Vec<Loss>) -> Result<(), EncodeError> {
    for (name, raw) in &request.extras.members {
        losses.push(request.extras.leave_out(name, raw)?);
    }
    Ok(())
}
