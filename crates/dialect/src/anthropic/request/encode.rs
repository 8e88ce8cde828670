//! A canonical request for an upstream of this dialect.

use std::{borrow::Cow, collections::BTreeSet};

use bytes::BytesMut;
use omniroute_wire::json_out::{self, Object};
use serde_json::value::RawValue;

use super::{
    conversation::{self, Conversation, Marks, refused},
    schema,
};
use crate::{
    Caps, EncodeError, Encoded,
    anthropic::{
        ID,
        wire::{BlockOut, loss, quiet, write_cache, write_content, write_list},
    },
    ir::{
        CacheMark, ChatRequest, Effort, Loss, LossAction, OutputFormat, ReasoningAmount, Tool, ToolChoice,
        ToolKind,
    },
};

/// Output limit for models whose own is unknown; the dialect demands one.
const DEFAULT_MAX_TOKENS: u64 = 8192;
/// Smallest thinking budget.
const MIN_BUDGET: u64 = 1024;
/// Longest user id.
const MAX_USER_ID: usize = 256;
/// Members of other dialects whose loss nobody has to be told of.
const HARMLESS: &[&str] =
    &["metadata", "store", "stream_options", "prompt_cache_options", "prompt_cache_retention"];

/// Writes a request.
pub(in crate::anthropic) fn encode(request: &ChatRequest, caps: &Caps) -> Result<Encoded, EncodeError> {
    let mut losses = request.losses.clone();
    let body = if request.extras.origin == Some(ID) {
        native(request)
    } else {
        translated(request, caps, &mut losses)?
    };
    Ok(Encoded { body: body.freeze(), losses })
}

/// How the model shall think.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Thinking {
    /// Nothing is said.
    Unsaid,
    Disabled,
    Enabled {
        budget: u64,
    },
    Adaptive,
}

/// The parts of a request apart from the conversation.
#[derive(Debug)]
struct Knobs<'a> {
    max_tokens: Option<u64>,
    tools: Vec<ToolOut<'a>>,
    tool_choice: Option<Choice<'a>>,
    one_call: bool,
    thinking: Thinking,
    show: Option<bool>,
    effort: Option<&'static str>,
    schema: Option<Cow<'a, str>>,
    temperature: Option<&'a str>,
    top_p: Option<&'a str>,
    top_k: Option<&'a str>,
    stop: Vec<&'a str>,
    user: Option<&'a str>,
    service_tier: Option<&'a str>,
}

#[derive(Debug)]
struct ToolOut<'a> {
    tool: &'a Tool,
    schema: Option<Cow<'a, str>>,
    cache: Option<CacheMark>,
    extras: &'a [(String, Box<RawValue>)],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Choice<'a> {
    Auto,
    Any,
    None,
    Tool(&'a str),
}

impl Choice<'_> {
    fn is_forced(self) -> bool {
        matches!(self, Self::Any | Self::Tool(_))
    }
}

/// A request that came in this dialect: nothing is judged, the upstream does that.
fn native(request: &ChatRequest) -> BytesMut {
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
                schema: match &tool.kind {
                    ToolKind::Function { schema, .. } => schema.as_ref().map(|raw| Cow::Borrowed(raw.get())),
                    ToolKind::Opaque { .. } => None,
                },
                cache: tool.cache_mark,
                extras: &tool.extras,
            })
            .collect(),
        tool_choice: request.tool_choice.as_ref().map(|choice| match choice {
            ToolChoice::Auto | ToolChoice::Allowed { required: false, .. } => Choice::Auto,
            ToolChoice::None => Choice::None,
            ToolChoice::Required | ToolChoice::Allowed { required: true, .. } => Choice::Any,
            ToolChoice::Named(name) => Choice::Tool(name),
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
    };
    write(request, &conversation::native(request), &knobs, &request.extras.members)
}

fn translated(request: &ChatRequest, caps: &Caps, losses: &mut Vec<Loss>) -> Result<BytesMut, EncodeError> {
    let mut marks = Marks::of(request, losses);
    let tools = tools(request, caps, &mut marks, losses)?;
    let mut conversation = conversation::translated(request, caps, &mut marks, losses)?;
    if tools.is_empty() && conversation.called_tools().next().is_some() {
        losses.push(loss("tools", LossAction::Invented));
    }
    let mut knobs = Knobs {
        max_tokens: Some(max_tokens(request, caps, losses)),
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
        tools,
    };
    tool_choice(request, &mut knobs, losses)?;
    thinking(request, caps, &conversation, &mut knobs, losses);
    sampling(request, caps, &mut knobs, losses)?;
    output_format(request, caps, &mut conversation, &mut knobs, losses);
    identity(request, &mut knobs, losses);
    other_members(request, losses)?;
    Ok(write(request, &conversation, &knobs, &[]))
}

fn max_tokens(request: &ChatRequest, caps: &Caps, losses: &mut Vec<Loss>) -> u64 {
    let most = caps.max_output_tokens;
    match (request.max_output_tokens, most) {
        (Some(asked), Some(most)) if asked > most => {
            losses.push(quiet("max_tokens", LossAction::Clamped));
            most
        }
        (Some(asked), _) => asked,
        (None, most) => {
            losses.push(quiet("max_tokens", LossAction::Invented));
            most.unwrap_or(DEFAULT_MAX_TOKENS)
        }
    }
}

fn tools<'a>(
    request: &'a ChatRequest,
    caps: &Caps,
    marks: &mut Marks,
    losses: &mut Vec<Loss>,
) -> Result<Vec<ToolOut<'a>>, EncodeError> {
    if !caps.tools && !request.tools.is_empty() {
        return Err(refused("unsupported_tool", "tools", "this model takes no tools"));
    }
    let mut out: Vec<ToolOut<'_>> = Vec::with_capacity(request.tools.len());
    for (at, tool) in request.tools.iter().enumerate() {
        let path = || format!("tools[{at}]");
        let written = match &tool.kind {
            ToolKind::Function { name, schema, .. } => {
                let schema = match schema {
                    None => Cow::Borrowed(schema::EMPTY),
                    Some(raw) => {
                        let (text, changed) = schema::arguments(raw).ok_or_else(|| {
                            let message = format!("the parameters of tool `{name}` must be an object schema");
                            refused("invalid_tool_schema", path(), message)
                        })?;
                        if changed {
                            losses.push(loss(format!("{}.function.parameters", path()), LossAction::Mapped));
                        }
                        text
                    }
                };
                for (name, _) in &tool.extras {
                    losses.push(loss(format!("{}.{name}", path()), LossAction::Dropped));
                }
                if let Some(earlier) = out.iter().find(|earlier| tool_name(earlier.tool) == Some(name)) {
                    if same_tool(earlier.tool, tool) {
                        losses.push(quiet(path(), LossAction::Dropped));
                        continue;
                    }
                    let message = format!("tool `{name}` is defined twice in different ways");
                    return Err(refused("invalid_value", path(), message));
                }
                Some(schema)
            }
            ToolKind::Opaque { origin, .. } if *origin == ID => None,
            ToolKind::Opaque { origin, name, .. } => {
                let forced = match (&request.tool_choice, name) {
                    (Some(ToolChoice::Named(wanted)), Some(name)) => wanted == name,
                    _ => false,
                };
                if request.tools.len() == 1 || forced {
                    let message = format!("this tool exists only in the `{origin}` dialect");
                    return Err(refused("unsupported_tool", path(), message));
                }
                losses.push(loss(path(), LossAction::Dropped));
                continue;
            }
        };
        out.push(ToolOut { tool, schema: written, cache: marks.take(tool.cache_mark), extras: &[] });
    }
    Ok(out)
}

fn tool_name(tool: &Tool) -> Option<&String> {
    match &tool.kind {
        ToolKind::Function { name, .. } => Some(name),
        ToolKind::Opaque { name, .. } => name.as_ref(),
    }
}

fn same_tool(one: &Tool, other: &Tool) -> bool {
    fn parts(tool: &Tool) -> Option<(Option<&str>, Option<&str>, Option<bool>)> {
        match &tool.kind {
            ToolKind::Function { description, schema, strict, .. } => {
                Some((description.as_deref(), schema.as_deref().map(RawValue::get), *strict))
            }
            ToolKind::Opaque { .. } => None,
        }
    }
    parts(one).is_some() && parts(one) == parts(other)
}

fn tool_choice<'a>(
    request: &'a ChatRequest,
    knobs: &mut Knobs<'a>,
    losses: &mut Vec<Loss>,
) -> Result<(), EncodeError> {
    let defined = |tools: &[ToolOut<'_>], name: &str| {
        if tools.iter().any(|tool| tool_name(tool.tool).is_some_and(|other| other == name)) {
            return Ok(());
        }
        let message = format!("`tool_choice` names the tool `{name}`, which is not defined");
        Err(refused("invalid_value", "tool_choice", message))
    };
    if knobs.tools.is_empty() {
        if let Some(ToolChoice::Named(name)) = &request.tool_choice {
            defined(&knobs.tools, name)?;
        }
        if request.tool_choice.is_some() {
            losses.push(quiet("tool_choice", LossAction::Dropped));
        }
        return Ok(());
    }
    knobs.tool_choice = match &request.tool_choice {
        None => None,
        Some(ToolChoice::Auto) => Some(Choice::Auto),
        Some(ToolChoice::None) => Some(Choice::None),
        Some(ToolChoice::Required) => Some(Choice::Any),
        Some(ToolChoice::Named(name)) => {
            defined(&knobs.tools, name)?;
            Some(Choice::Tool(name))
        }
        Some(ToolChoice::Allowed { required, names }) => {
            for name in names {
                defined(&knobs.tools, name)?;
            }
            losses.push(quiet("tool_choice", LossAction::Mapped));
            if let ([name], true) = (names.as_slice(), required) {
                Some(Choice::Tool(name))
            } else {
                knobs.tools.retain(|tool| tool_name(tool.tool).is_some_and(|name| names.contains(name)));
                Some(if *required { Choice::Any } else { Choice::Auto })
            }
        }
    };
    if request.parallel_tool_calls == Some(false) && knobs.tool_choice != Some(Choice::None) {
        knobs.one_call = true;
        knobs.tool_choice.get_or_insert(Choice::Auto);
    }
    Ok(())
}

/// Decides about thinking: what was asked, as far as the model can and the rest of the request lets it.
fn thinking(
    request: &ChatRequest,
    caps: &Caps,
    conversation: &Conversation<'_>,
    knobs: &mut Knobs<'_>,
    losses: &mut Vec<Loss>,
) {
    let amount = &request.reasoning.amount;
    let asked =
        !matches!(amount, ReasoningAmount::Default | ReasoningAmount::Off | ReasoningAmount::Budget(0));
    let give_up = |losses: &mut Vec<Loss>| losses.push(loss("reasoning_effort", LossAction::Dropped));
    if !caps.reasoning {
        if asked {
            give_up(losses);
        }
        return;
    }
    // A forced call and thinking exclude each other; models that think by themselves must be told not to.
    let forced = knobs.tool_choice.is_some_and(Choice::is_forced);
    if forced || conversation.prefilled {
        if asked {
            give_up(losses);
        }
        if caps.adaptive_thinking || asked {
            knobs.thinking = Thinking::Disabled;
        }
        return;
    }
    let max_tokens = knobs.max_tokens.unwrap_or(DEFAULT_MAX_TOKENS);
    match amount {
        ReasoningAmount::Default => {}
        ReasoningAmount::Off | ReasoningAmount::Budget(0) => knobs.thinking = Thinking::Disabled,
        _ if caps.adaptive_thinking => {
            knobs.thinking = Thinking::Adaptive;
            let effort = match amount {
                ReasoningAmount::Effort(effort) | ReasoningAmount::Adaptive(Some(effort)) => Some(*effort),
                ReasoningAmount::Budget(budget) => Some(effort_of(*budget)),
                _ => None,
            };
            let (word, exact) = match effort {
                None => (None, true),
                Some(Effort::Minimal) => (Some("low"), false),
                // Only some models know a step between high and the highest.
                Some(Effort::XHigh) => (Some("high"), false),
                Some(effort) => (Some(effort_word(effort)), true),
            };
            if !exact {
                losses.push(quiet("reasoning_effort", LossAction::Clamped));
            }
            knobs.effort = word;
            if knobs.show.is_none() && effort.is_some() {
                knobs.show = Some(true);
            }
        }
        _ => {
            let wanted = match amount {
                ReasoningAmount::Budget(budget) => *budget,
                ReasoningAmount::Effort(effort) | ReasoningAmount::Adaptive(Some(effort)) => {
                    budget_of(*effort, caps)
                }
                _ => return,
            };
            let budget = wanted.max(MIN_BUDGET).min(max_tokens.saturating_sub(1));
            if budget < MIN_BUDGET || continues_unsigned(conversation) {
                knobs.thinking = Thinking::Disabled;
                give_up(losses);
                return;
            }
            if budget != wanted {
                losses.push(quiet("reasoning_effort", LossAction::Clamped));
            }
            knobs.thinking = Thinking::Enabled { budget };
            // The member is new; models with budgets show their thinking by themselves.
            knobs.show = None;
        }
    }
}

/// Whether the model is to go on behind tool results without its own reasoning of before, which it refuses to
/// do while thinking with a budget.
fn continues_unsigned(conversation: &Conversation<'_>) -> bool {
    let [.., before, last] = conversation.messages.as_slice() else { return false };
    let has_results = matches!(last.content.first(), Some(BlockOut::ToolResult { .. }));
    let has_reasoning =
        matches!(before.content.first(), Some(BlockOut::Thinking { .. } | BlockOut::RedactedThinking { .. }));
    has_results && !has_reasoning
}

fn effort_word(effort: Effort) -> &'static str {
    match effort {
        Effort::Minimal | Effort::Low => "low",
        Effort::Medium => "medium",
        Effort::High => "high",
        Effort::XHigh => "xhigh",
        Effort::Max => "max",
    }
}

fn budget_of(effort: Effort, caps: &Caps) -> u64 {
    match effort {
        Effort::Minimal => 1024,
        Effort::Low => 4096,
        Effort::Medium => 10_240,
        Effort::High => 24_576,
        Effort::XHigh => 32_768,
        Effort::Max => caps.max_output_tokens.unwrap_or(u64::MAX),
    }
}

fn effort_of(budget: u64) -> Effort {
    match budget {
        0..=1024 => Effort::Minimal,
        1025..=6144 => Effort::Low,
        6145..=16_384 => Effort::Medium,
        16_385..=28_672 => Effort::High,
        28_673..=49_152 => Effort::XHigh,
        _ => Effort::Max,
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
        if refused || knobs.temperature.is_some() {
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
        losses.push(loss("stop", LossAction::Dropped));
    }
    kept
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
            losses.push(loss("response_format", LossAction::Mapped));
            let note = "Answer with one JSON object only, without a code fence and without any other text.";
            conversation.system.push(BlockOut::text(note));
        }
        OutputFormat::JsonSchema { schema, .. } if caps.json_schema => {
            let (text, changed) = schema::closed(schema);
            if changed {
                losses.push(loss("response_format.json_schema.schema", LossAction::Mapped));
            }
            knobs.schema = Some(Cow::Owned(text));
        }
        OutputFormat::JsonSchema { schema, .. } => {
            losses.push(loss("response_format", LossAction::Mapped));
            let note = format!(
                "Answer with one JSON value only, without a code fence and without any other text. It must \
                 obey this JSON schema: {schema}"
            );
            conversation.system.push(BlockOut::text(note));
        }
    }
}

fn identity<'a>(request: &'a ChatRequest, knobs: &mut Knobs<'a>, losses: &mut Vec<Loss>) {
    knobs.user = request.user.as_deref().map(|user| match user.char_indices().nth(MAX_USER_ID) {
        None => user,
        Some((end, _)) => {
            losses.push(quiet("user", LossAction::Clamped));
            &user[..end]
        }
    });
    if request.prompt_cache_key.is_some() {
        losses.push(quiet("prompt_cache_key", LossAction::Dropped));
    }
    knobs.service_tier = match request.service_tier.as_deref() {
        None => None,
        Some("auto" | "priority") => Some("auto"),
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
        if name == "modalities" && raw.get().contains("\"audio\"") {
            let message = "this model's provider produces no audio";
            return Err(refused("unsupported_content", name.as_str(), message));
        }
        let silent = HARMLESS.contains(&name.as_str()) || raw.get() == "null";
        losses.push(Loss { silent, ..loss(name.clone(), LossAction::Dropped) });
    }
    Ok(())
}

fn write(
    request: &ChatRequest,
    conversation: &Conversation<'_>,
    knobs: &Knobs<'_>,
    members: &[(String, Box<RawValue>)],
) -> BytesMut {
    let mut out = BytesMut::with_capacity(4096);
    let mut object = Object::begin(&mut out);
    let kept = |name: &str| members.iter().any(|(other, _)| other == name);
    object.str("model", &request.model).opt_u64("max_tokens", knobs.max_tokens);
    if !conversation.system.is_empty() {
        write_content(object.key("system"), &conversation.system);
    }
    write_list(object.key("messages"), conversation.messages.iter(), |out, message| {
        let mut object = Object::begin(out);
        object.str("role", message.role);
        write_content(object.key("content"), &message.content);
        object.end();
    });
    write_tools(&mut object, request, conversation, knobs);
    if let Some(choice) = knobs.tool_choice {
        write_choice(object.object("tool_choice"), choice, knobs.one_call);
    }
    if !kept("thinking") {
        write_thinking(&mut object, knobs);
    }
    if !kept("output_config") && (knobs.effort.is_some() || knobs.schema.is_some()) {
        let mut config = object.object("output_config");
        config.opt_str("effort", knobs.effort);
        if let Some(schema) = &knobs.schema {
            let mut format = config.object("format");
            format.str("type", "json_schema").raw("schema", schema);
            format.end();
        }
        config.end();
    }
    for (name, value) in [("temperature", knobs.temperature), ("top_p", knobs.top_p), ("top_k", knobs.top_k)]
    {
        if let Some(value) = value {
            object.raw(name, value);
        }
    }
    if !knobs.stop.is_empty() {
        write_list(object.key("stop_sequences"), knobs.stop.iter(), |out, text| json_out::string(out, text));
    }
    if let Some(user) = knobs.user.filter(|_| !kept("metadata")) {
        let mut metadata = object.object("metadata");
        metadata.str("user_id", user);
        metadata.end();
    }
    object.opt_str("service_tier", knobs.service_tier);
    if request.stream {
        object.bool("stream", true);
    }
    for (name, raw) in members {
        object.raw(name, raw.get());
    }
    object.end();
    out
}

/// Writes the tools, or what stands in for them when only the history knows them.
fn write_tools(
    object: &mut Object<'_>,
    request: &ChatRequest,
    conversation: &Conversation<'_>,
    knobs: &Knobs<'_>,
) {
    if !knobs.tools.is_empty() {
        write_list(object.key("tools"), knobs.tools.iter(), write_tool);
    } else if request.extras.origin != Some(ID) {
        let mut seen = BTreeSet::new();
        let names: Vec<_> = conversation.called_tools().filter(|name| seen.insert(*name)).collect();
        if !names.is_empty() {
            write_list(object.key("tools"), names.into_iter(), |out, name| {
                let mut tool = Object::begin(out);
                tool.str("name", name).raw("input_schema", r#"{"type":"object"}"#);
                tool.end();
            });
        }
    }
}

fn write_tool(out: &mut BytesMut, written: &ToolOut<'_>) {
    match &written.tool.kind {
        ToolKind::Opaque { raw, .. } => out.extend_from_slice(raw.get().as_bytes()),
        ToolKind::Function { name, description, strict, .. } => {
            let mut object = Object::begin(out);
            object.str("name", name).opt_str("description", description.as_deref());
            object.raw("input_schema", written.schema.as_deref().unwrap_or(schema::EMPTY));
            if let Some(strict) = strict {
                object.bool("strict", *strict);
            }
            write_cache(&mut object, written.cache);
            for (name, raw) in written.extras {
                object.raw(name, raw.get());
            }
            object.end();
        }
    }
}

fn write_choice(mut object: Object<'_>, choice: Choice<'_>, one_call: bool) {
    match choice {
        Choice::Auto => object.str("type", "auto"),
        Choice::Any => object.str("type", "any"),
        Choice::None => object.str("type", "none"),
        Choice::Tool(name) => object.str("type", "tool").str("name", name),
    };
    if one_call && choice != Choice::None {
        object.bool("disable_parallel_tool_use", true);
    }
    object.end();
}

fn write_thinking(object: &mut Object<'_>, knobs: &Knobs<'_>) {
    if knobs.thinking == Thinking::Unsaid {
        return;
    }
    let mut thinking = object.object("thinking");
    match knobs.thinking {
        Thinking::Unsaid => {}
        Thinking::Disabled => {
            thinking.str("type", "disabled");
        }
        Thinking::Enabled { budget } => {
            thinking.str("type", "enabled").u64("budget_tokens", budget);
        }
        Thinking::Adaptive => {
            thinking.str("type", "adaptive");
        }
    }
    if knobs.thinking != Thinking::Disabled {
        thinking.opt_str("display", knobs.show.map(|show| if show { "summarized" } else { "omitted" }));
    }
    thinking.end();
}
