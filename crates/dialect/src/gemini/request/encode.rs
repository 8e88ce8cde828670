//! A canonical request for an upstream of this dialect.

use std::borrow::Cow;

use bytes::{Bytes, BytesMut};
use omniroute_wire::json_out::Object;
use serde_json::value::RawValue;

use super::{
    conversation::{self, Conversation, refused},
    decode::CONFIG,
    native,
    reasoning::{self, Amount, Thinking, level_word},
    tools::{self, FunctionOut, Parameters},
};
use crate::{
    Caps, EncodeError, Encoded,
    gemini::{
        ID, MAX_STOP,
        schema::{self, Change},
        wire::write_parts,
    },
    ir::{ChatRequest, Loss, LossAction, OutputFormat, ReasoningAmount, Word, loss, quiet},
};

/// Writes a request. Members come in a fixed order, so that equal requests are equal bytes.
pub(in crate::gemini) fn encode(request: &ChatRequest, caps: &Caps) -> Result<Encoded, EncodeError> {
    let mut losses = request.losses_elsewhere();
    let body = if request.extras.origin == Some(ID) {
        native(request, caps)
    } else {
        translated(request, caps, &mut losses)?
    };
    Ok(Encoded { body: body.freeze(), losses })
}

/// Tools as they are written.
#[derive(Debug, Default)]
pub(super) struct ToolsOut<'a> {
    pub(super) functions: Vec<FunctionOut<'a>>,
    /// Entries of tools that the vendor runs.
    pub(super) entries: Vec<Cow<'a, str>>,
    pub(super) mode: Option<Mode<'a>>,
}

/// Which functions the model shall call.
#[derive(Debug)]
pub(super) struct Mode<'a> {
    pub(super) word: &'static str,
    pub(super) names: Vec<&'a str>,
}

impl Mode<'_> {
    pub(super) const fn plain(word: &'static str) -> Self {
        Self { word, names: Vec::new() }
    }
}

/// The form of the answer.
#[derive(Debug, Default)]
enum FormatOut<'a> {
    #[default]
    Text,
    Json,
    JsonSchema(Cow<'a, str>),
    Own(Cow<'a, str>),
}

/// The parts of a request apart from the conversation and the tools.
#[derive(Debug, Default)]
struct Config<'a> {
    /// Members that are numbers, as they came.
    numbers: Vec<(&'static str, &'a str)>,
    /// Another number than came.
    seed: Option<i64>,
    max_output_tokens: Option<u64>,
    n: Option<u64>,
    stop: Vec<&'a str>,
    logprobs: bool,
    top_logprobs: Option<u64>,
    format: FormatOut<'a>,
    thinking: Thinking,
    service_tier: Option<&'a str>,
    labels: Option<&'a str>,
    store: Option<bool>,
}

/// A request that came in this dialect: nothing is judged, the upstream does that.
fn native(request: &ChatRequest, caps: &Caps) -> BytesMut {
    let config = Config {
        numbers: numbers(request),
        seed: None,
        max_output_tokens: request.max_output_tokens,
        n: request.sampling.n,
        stop: request.stop.iter().map(String::as_str).collect(),
        logprobs: request.sampling.logprobs,
        top_logprobs: request.sampling.top_logprobs,
        format: match &request.output_format {
            OutputFormat::Text => FormatOut::Text,
            OutputFormat::JsonObject => FormatOut::Json,
            OutputFormat::JsonSchema { schema, .. } if caps.gemini.json_schema => {
                FormatOut::JsonSchema(Cow::Borrowed(schema.get()))
            }
            OutputFormat::JsonSchema { schema, .. } => FormatOut::Own(schema::as_own(schema).text),
        },
        thinking: reasoning::native(request),
        service_tier: request.service_tier.as_deref().map(tier_out),
        labels: request.metadata.as_deref().map(RawValue::get),
        store: request.store,
    };
    let members = &request.extras.members;
    write(&native::conversation(request), &tools::native(request, caps), &config, members)
}

fn translated(request: &ChatRequest, caps: &Caps, losses: &mut Vec<Loss>) -> Result<BytesMut, EncodeError> {
    let tools = tools::translated(request, caps, losses)?;
    let mut conversation = conversation::translated(request, caps, losses)?;
    let mut config = Config {
        thinking: reasoning::translated(request, caps, losses),
        max_output_tokens: max_output_tokens(request, caps, losses),
        stop: stop(request, losses),
        ..Config::default()
    };
    sampling(request, caps, &mut config, losses)?;
    config.format = format(request, caps, &tools, &mut conversation, losses);
    identity(request, &mut config, losses);
    other_members(request, losses)?;
    Ok(write(&conversation, &tools, &config, &[]))
}

fn numbers(request: &ChatRequest) -> Vec<(&'static str, &str)> {
    let sampling = &request.sampling;
    let given = [
        ("temperature", &sampling.temperature),
        ("topP", &sampling.top_p),
        ("topK", &sampling.top_k),
        ("seed", &sampling.seed),
        ("presencePenalty", &sampling.presence_penalty),
        ("frequencyPenalty", &sampling.frequency_penalty),
    ];
    given.into_iter().filter_map(|(name, raw)| Some((name, raw.as_deref()?.get()))).collect()
}

fn max_output_tokens(request: &ChatRequest, caps: &Caps, losses: &mut Vec<Loss>) -> Option<u64> {
    let asked = request.max_output_tokens?;
    let most = caps.max_output_tokens.unwrap_or(u64::MAX);
    if asked > most {
        losses.push(quiet(request.word(Word::OutputLimit), LossAction::Clamped));
    }
    Some(asked.min(most))
}

/// Stop sequences, blank ones left out. The gateway looks after those that are too many.
fn stop<'a>(request: &'a ChatRequest, losses: &mut Vec<Loss>) -> Vec<&'a str> {
    let mut kept: Vec<&str> =
        request.stop.iter().map(String::as_str).filter(|text| !text.trim().is_empty()).collect();
    if kept.len() < request.stop.len() {
        losses.push(loss(request.word(Word::Stop), LossAction::Dropped));
    }
    if kept.len() > MAX_STOP {
        losses.push(quiet(request.word(Word::Stop), LossAction::Mapped));
        kept.truncate(MAX_STOP);
    }
    kept
}

fn sampling<'a>(
    request: &'a ChatRequest,
    caps: &Caps,
    config: &mut Config<'a>,
    losses: &mut Vec<Loss>,
) -> Result<(), EncodeError> {
    for (name, value) in numbers(request) {
        let number = value.parse::<f64>().unwrap_or(f64::NAN);
        let path = match name {
            "topP" => "top_p",
            "topK" => "top_k",
            "presencePenalty" => "presence_penalty",
            "frequencyPenalty" => "frequency_penalty",
            other => other,
        };
        match name {
            "temperature" | "topP" | "topK" if !caps.sampling => losses.push(loss(path, LossAction::Dropped)),
            "temperature" if number > 2.0 => {
                losses.push(loss(path, LossAction::Clamped));
                config.numbers.push((name, "2"));
            }
            // A number for nothing but to be the same again. The upstream takes no larger ones.
            "seed" if value.parse::<i32>().is_err() && number.is_finite() && number.fract() == 0.0 => {
                // Beyond all integers its nearest is as good.
                #[expect(clippy::cast_possible_truncation, reason = "it is held to the largest")]
                let seed = value.parse().unwrap_or(number as i128) & i128::from(i32::MAX);
                let seed = i64::try_from(seed).unwrap_or_default();
                losses.push(quiet(path, LossAction::Mapped));
                config.seed = Some(seed);
            }
            // None at all is meant by zero, which the upstream does not take.
            "topK" if number < 1.0 => losses.push(quiet(path, LossAction::Dropped)),
            "presencePenalty" | "frequencyPenalty" if number == 0.0 => {
                losses.push(quiet(path, LossAction::Dropped));
            }
            "presencePenalty" | "frequencyPenalty" if !caps.gemini.penalties => {
                losses.push(loss(path, LossAction::Dropped));
            }
            _ => config.numbers.push((name, value)),
        }
    }
    let unsupported = |path: &str, message: &str| Err(refused("unsupported_parameter", path, message));
    let sampling = &request.sampling;
    if let Some(bias) = &sampling.logit_bias {
        if bias.get().chars().any(|c| !matches!(c, '{' | '}' | ' ' | '\n' | '\r' | '\t')) {
            return unsupported("logit_bias", "this model's provider has no `logit_bias`; leave it out");
        }
        losses.push(quiet("logit_bias", LossAction::Dropped));
    }
    config.logprobs = sampling.logprobs;
    if sampling.logprobs {
        config.top_logprobs = sampling.top_logprobs;
    } else if sampling.top_logprobs.is_some() {
        losses.push(quiet("top_logprobs", LossAction::Dropped));
    }
    match sampling.n {
        None => Ok(()),
        Some(1) => {
            losses.push(quiet("n", LossAction::Dropped));
            Ok(())
        }
        Some(_) => unsupported("n", "several answers do not go over from this model's provider; ask for one"),
    }
}

fn format<'a>(
    request: &'a ChatRequest,
    caps: &Caps,
    tools: &ToolsOut<'_>,
    conversation: &mut Conversation<'a>,
    losses: &mut Vec<Loss>,
) -> FormatOut<'a> {
    let fits = caps.json_schema && (caps.gemini.schema_with_tools || tools.functions.is_empty());
    let mut note = |losses: &mut Vec<Loss>, note: String| {
        losses.push(loss("response_format", LossAction::Mapped));
        if caps.gemini.system {
            conversation.system.push(Cow::Owned(note));
        } else if let Some(first) = conversation.contents.first_mut() {
            first.parts.insert(0, crate::gemini::wire::PartOut::text(note));
        }
        FormatOut::Text
    };
    match &request.output_format {
        OutputFormat::Text => FormatOut::Text,
        OutputFormat::JsonObject if fits => FormatOut::Json,
        OutputFormat::JsonObject => note(
            losses,
            "Answer with one JSON object only, without a code fence and without any other text.".to_owned(),
        ),
        OutputFormat::JsonSchema { schema, .. } if fits => {
            let written =
                if caps.gemini.json_schema { schema::as_json_schema(schema) } else { schema::as_own(schema) };
            let path = "response_format.json_schema.schema";
            match written.change {
                Change::None => {}
                Change::Form => losses.push(quiet(path, LossAction::Mapped)),
                Change::Meaning => losses.push(loss(path, LossAction::Mapped)),
            }
            if caps.gemini.json_schema {
                FormatOut::JsonSchema(written.text)
            } else {
                FormatOut::Own(written.text)
            }
        }
        OutputFormat::JsonSchema { schema, .. } => note(
            losses,
            format!(
                "Answer with one JSON value only, without a code fence and without any other text. It must \
                 obey this JSON schema: {schema}"
            ),
        ),
    }
}

fn identity<'a>(request: &'a ChatRequest, config: &mut Config<'a>, losses: &mut Vec<Loss>) {
    if request.user.is_some() {
        losses.push(loss(request.word(Word::User), LossAction::Dropped));
    }
    for (given, path) in [
        (request.prompt_cache_key.is_some(), "prompt_cache_key"),
        (request.metadata.is_some(), "metadata"),
        (request.store.is_some(), "store"),
    ] {
        if given {
            losses.push(quiet(path, LossAction::Dropped));
        }
    }
    if request.verbosity.is_some() {
        losses.push(loss("verbosity", LossAction::Dropped));
    }
    config.service_tier = match request.service_tier.as_deref() {
        None => None,
        Some("auto") => {
            losses.push(quiet("service_tier", LossAction::Dropped));
            None
        }
        Some(tier @ ("default" | "standard_only" | "flex" | "priority" | "fast")) => {
            losses.push(quiet("service_tier", LossAction::Mapped));
            Some(tier_out(tier))
        }
        Some(_) => {
            losses.push(loss("service_tier", LossAction::Dropped));
            None
        }
    };
}

/// A tier in the format's word.
fn tier_out(tier: &str) -> &str {
    match tier {
        "default" | "standard_only" => "standard",
        "fast" => "priority",
        other => other,
    }
}

fn other_members(request: &ChatRequest, losses: &mut Vec<Loss>) -> Result<(), EncodeError> {
    for (name, raw) in &request.extras.members {
        losses.push(request.extras.leave_out(name, raw)?);
    }
    Ok(())
}

fn write(
    conversation: &Conversation<'_>,
    tools: &ToolsOut<'_>,
    config: &Config<'_>,
    members: &[(String, Box<RawValue>)],
) -> BytesMut {
    let mut out = BytesMut::with_capacity(4096);
    let mut body = Object::begin(&mut out);
    if !conversation.system.is_empty() {
        let mut system = body.object("systemInstruction");
        let mut parts = system.array("parts");
        for text in &conversation.system {
            let mut part = parts.object();
            part.str("text", text);
            part.end();
        }
        parts.end();
        system.end();
    }
    let mut contents = body.array("contents");
    for content in &conversation.contents {
        let mut object = contents.object();
        object.str("role", content.role);
        write_parts(object.array("parts"), &content.parts);
        object.end();
    }
    contents.end();
    write_tools(&mut body, tools, members);
    write_config(&mut body, config, members);
    body.opt_str("serviceTier", config.service_tier);
    if let Some(labels) = config.labels {
        body.raw("labels", labels);
    }
    if let Some(store) = config.store {
        body.bool("store", store);
    }
    for (name, raw) in members.iter().filter(|(name, _)| !name.starts_with(CONFIG)) {
        body.raw(name, raw.get());
    }
    body.end();
    out
}

fn write_tools(body: &mut Object<'_>, tools: &ToolsOut<'_>, members: &[(String, Box<RawValue>)]) {
    if !tools.functions.is_empty() || !tools.entries.is_empty() {
        let mut list = body.array("tools");
        if !tools.functions.is_empty() {
            let mut entry = list.object();
            let mut functions = entry.array("functionDeclarations");
            for function in &tools.functions {
                let mut object = functions.object();
                object.str("name", function.name).opt_str("description", function.description.as_deref());
                match &function.parameters {
                    None => {}
                    Some(Parameters::JsonSchema(schema)) => {
                        object.raw("parametersJsonSchema", schema);
                    }
                    Some(Parameters::Own(schema)) => {
                        object.raw("parameters", schema);
                    }
                }
                for (name, raw) in function.extras {
                    object.raw(name, raw.get());
                }
                object.end();
            }
            functions.end();
            entry.end();
        }
        for entry in &tools.entries {
            list.raw(entry);
        }
        list.end();
    }
    // One that says more came whole, and is among the members.
    let kept = members.iter().any(|(name, _)| name == "toolConfig");
    if let Some(mode) = tools.mode.as_ref().filter(|_| !kept) {
        let mut config = body.object("toolConfig");
        let mut calling = config.object("functionCallingConfig");
        calling.str("mode", mode.word);
        if !mode.names.is_empty() {
            let mut names = calling.array("allowedFunctionNames");
            mode.names.iter().for_each(|name| {
                names.str(name);
            });
            names.end();
        }
        calling.end();
        config.end();
    }
}

fn write_config(body: &mut Object<'_>, config: &Config<'_>, members: &[(String, Box<RawValue>)]) {
    let mut out = BytesMut::new();
    let mut object = Object::begin(&mut out);
    for (name, number) in &config.numbers {
        object.raw(name, number);
    }
    if let Some(seed) = config.seed {
        object.i64("seed", seed);
    }
    object.opt_u64("candidateCount", config.n).opt_u64("maxOutputTokens", config.max_output_tokens);
    if !config.stop.is_empty() {
        let mut list = object.array("stopSequences");
        config.stop.iter().for_each(|text| {
            list.str(text);
        });
        list.end();
    }
    if config.logprobs {
        object.bool("responseLogprobs", true);
    }
    object.opt_u64("logprobs", config.top_logprobs);
    let json = "application/json";
    match &config.format {
        FormatOut::Text => {}
        FormatOut::Json => {
            object.str("responseMimeType", json);
        }
        FormatOut::JsonSchema(schema) => {
            object.str("responseMimeType", json).raw("responseJsonSchema", schema);
        }
        FormatOut::Own(schema) => {
            object.str("responseMimeType", json).raw("responseSchema", schema);
        }
    }
    write_thinking(&mut object, config.thinking);
    for (name, raw) in members {
        if let Some(name) = name.strip_prefix(CONFIG) {
            object.raw(name, raw.get());
        }
    }
    object.end();
    if &out[..] != b"{}" {
        body.key("generationConfig").extend_from_slice(&out);
    }
}

fn write_thinking(config: &mut Object<'_>, thinking: Thinking) {
    if thinking != Thinking::default() {
        write_members(config.object("thinkingConfig"), thinking);
    }
}

/// `thinkingConfig` alone; `None` where nothing is said. `include` is whether the client wants to see it.
pub(in crate::gemini) fn thinking_config(
    amount: &ReasoningAmount,
    include: Option<bool>,
    caps: &Caps,
) -> Option<Bytes> {
    let mut request = ChatRequest::default();
    request.reasoning.amount = amount.clone();
    let thinking = Thinking { include, ..reasoning::translated(&request, caps, &mut Vec::new()) };
    let mut out = BytesMut::new();
    write_members(Object::begin(&mut out), thinking);
    (out.len() > 2).then(|| out.freeze())
}

fn write_members(mut object: Object<'_>, thinking: Thinking) {
    if let Some(include) = thinking.include {
        object.bool("includeThoughts", include);
    }
    match thinking.amount {
        None => {}
        Some(Amount::Level(effort)) => {
            object.str("thinkingLevel", level_word(effort));
        }
        Some(Amount::Budget(tokens)) => {
            object.u64("thinkingBudget", tokens);
        }
        Some(Amount::Dynamic) => {
            object.i64("thinkingBudget", -1);
        }
    }
    object.end();
}
