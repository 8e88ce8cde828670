//! What stands around the conversation.

use serde_json::{Value, json};

use crate::{
    ask::{Ask, Format, Tool, Wish},
    check::{At, Type},
    dialect::{self, Incoming},
    frame::Frames,
    ollama::{Ollama, turns},
    refusal::Refusal,
    signature,
};

const FIELDS: &[&str] = &[
    "model",
    "messages",
    "stream",
    "format",
    "keep_alive",
    "tools",
    "options",
    "think",
    "truncate",
    "shift",
    "logprobs",
    "top_logprobs",
];
/// Those of a completion.
const COMPLETION_FIELDS: &[&str] = &[
    "model",
    "prompt",
    "suffix",
    "system",
    "template",
    "context",
    "raw",
    "images",
    "stream",
    "format",
    "keep_alive",
    "options",
    "think",
    "truncate",
    "shift",
    "logprobs",
    "top_logprobs",
];
const WHOLE: &[&str] = &[
    "num_ctx",
    "num_batch",
    "num_gpu",
    "main_gpu",
    "num_thread",
    "num_keep",
    "seed",
    "num_predict",
    "top_k",
    "repeat_last_n",
    "mirostat",
];
const NUMBERS: &[&str] = &[
    "top_p",
    "min_p",
    "tfs_z",
    "typical_p",
    "temperature",
    "repeat_penalty",
    "presence_penalty",
    "frequency_penalty",
    "mirostat_tau",
    "mirostat_eta",
];
const FLAGS: &[&str] = &[
    "numa",
    "low_vram",
    "f16_kv",
    "logits_all",
    "vocab_only",
    "use_mmap",
    "use_mlock",
    "embedding_only",
    "penalize_newline",
];

/// The model, without the tag that all models have if they have no other; the older `name` is known to some paths.
pub(crate) fn model_name(body: &Value) -> Result<String, Refusal> {
    let old = body.get("model").is_none().then(|| body.get("name").and_then(Value::as_str)).flatten();
    let name = match old {
        Some(name) => name.to_owned(),
        None => dialect::named_in_body(body, &Ollama)?,
    };
    Ok(name.strip_suffix(":latest").map_or(name.clone(), str::to_owned))
}

/// Judges a request and reads what it asks for.
pub(crate) fn read(incoming: &Incoming<'_>) -> Result<Ask, Refusal> {
    let root = At::root(incoming.body, &Ollama);
    let strict = incoming.script.strict;
    known(&root, strict, &[if incoming.completes { COMPLETION_FIELDS } else { FIELDS }])?;
    // The answer names the model as the request does.
    let model = root.need("model")?.text()?.to_owned();
    let mut ask = Ask { model, answers: 1, stream: true, frames: Frames::Lines, ..Ask::default() };
    if let Some(stream) = root.get("stream") {
        ask.stream = stream.bool()?;
    }
    for name in ["truncate", "shift", "logprobs"] {
        if let Some(flag) = root.get(name) {
            flag.bool()?;
        }
    }
    if let Some(top) = root.get("top_logprobs")
        && top.integer(0)? > 20
    {
        return Err(top.wrong("must be between 0 and 20"));
    }
    if let Some(time) = root.get("keep_alive") {
        keep_alive(&time)?;
    }
    if let Some(think) = root.get("think") {
        ask.wish = wish(&think)?;
    }
    if let Some(format) = root.get("format") {
        ask.format = match format.value {
            Value::String(word) if word.is_empty() => Format::Text,
            Value::String(word) if word == "json" => Format::Object,
            Value::Object(_) => Format::Schema(format.value.clone()),
            other => {
                let message =
                    format!("invalid format: {other}; expected \"json\" or a valid JSON Schema object");
                return Err(Refusal::request(message));
            }
        };
    }
    if let Some(options) = root.get("options") {
        self::options(&options, strict, &mut ask)?;
    }
    if incoming.completes {
        ask.completes = true;
        return completion(&root, ask);
    }
    tools(&root, strict, &mut ask)?;
    match root.get("messages") {
        Some(messages) if !messages.array()?.is_empty() => turns::read(&messages, strict, &mut ask)?,
        // Without messages the model is only loaded, or thrown out if it is not to stay.
        Some(_) | None => ask.loads = Some(loads(&root)),
    }
    Ok(ask)
}

/// What happens to a model of which nothing is asked.
fn loads(root: &At<'_>) -> &'static str {
    let stays = root.get("keep_alive").is_none_or(|time| *time.value != json!(0));
    if stays { "load" } else { "unload" }
}

/// Judges what a completion has instead of messages.
fn completion(root: &At<'_>, mut ask: Ask) -> Result<Ask, Refusal> {
    let text = |name| root.get(name).map(|at| at.str().map(str::to_owned)).transpose();
    let (prompt, suffix) = (text("prompt")?.unwrap_or_default(), text("suffix")?.unwrap_or_default());
    let (system, template) = (text("system")?.unwrap_or_default(), text("template")?.unwrap_or_default());
    let context = root.get("context").map(|at| at.array()).transpose()?.unwrap_or_default();
    let is_raw = root.get("raw").map(|at| at.bool()).transpose()?.unwrap_or_default();
    if is_raw && !(system.is_empty() && template.is_empty() && context.is_empty()) {
        return Err(Refusal::request("raw mode does not support template, system, or context".to_owned()));
    }
    for image in root.get("images").map(|images| images.array()).transpose()?.unwrap_or_default() {
        if signature::decode(image.str()?).is_none_or(|bytes| bytes.is_empty()) {
            return Err(image.wrong("illegal base64 data at input byte 0"));
        }
        ask.images += 1;
    }
    if prompt.is_empty() {
        ask.loads = Some(loads(root));
    }
    ask.messages = 1;
    ask.characters = [&prompt, &suffix, &system, &template].iter().map(|text| text.chars().count()).sum();
    ask.characters += 4 * context.len();
    // What is filled in between two texts shows that both arrived.
    ask.last_text = if suffix.is_empty() { prompt } else { format!("{prompt}<FILL>{suffix}") };
    Ok(ask)
}

/// Members that are not known are read over, unless the model is strict.
pub(crate) fn known(at: &At<'_>, strict: bool, keys: &[&[&str]]) -> Result<(), Refusal> {
    if strict { at.known(keys) } else { at.object().map(|_| ()) }
}

fn keep_alive(at: &At<'_>) -> Result<(), Refusal> {
    let fits = match at.value {
        Value::Number(_) => true,
        // `5m`, `1h30m`, `-1s`, or a number of seconds.
        Value::String(text) => {
            let text = text.trim_start_matches('-');
            text.starts_with(|first: char| first.is_ascii_digit())
                && text.chars().all(|c| c.is_ascii_digit() || "hmsnuµ.".contains(c))
        }
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => false,
    };
    if fits { Ok(()) } else { Err(Refusal::request(format!("time: invalid duration {}", at.value))) }
}

fn wish(think: &At<'_>) -> Result<Wish, Refusal> {
    match think.value {
        Value::Bool(false) => Ok(Wish::Off),
        Value::Bool(true) => Ok(Wish::Shown),
        Value::String(level) if ["high", "medium", "low", "max"].contains(&level.as_str()) => Ok(Wish::Shown),
        other => Err(Refusal::request(format!(
            "invalid think value: {other} (must be \"high\", \"medium\", \"low\", \"max\", true, or false)"
        ))),
    }
}

fn options(options: &At<'_>, strict: bool, ask: &mut Ask) -> Result<(), Refusal> {
    known(options, strict, &[WHOLE, NUMBERS, FLAGS, &["stop"]])?;
    let mistyped =
        |name: &str, kind: &str| Refusal::request(format!("option \"{name}\" must be of type {kind}"));
    for name in WHOLE {
        if options.get(name).is_some_and(|at| at.value.as_f64().is_none_or(|number| number.fract() != 0.0)) {
            return Err(mistyped(name, "integer"));
        }
    }
    for name in NUMBERS {
        if options.get(name).is_some_and(|at| !at.value.is_number()) {
            return Err(mistyped(name, "float32"));
        }
    }
    for name in FLAGS {
        if options.get(name).is_some_and(|at| !at.value.is_boolean()) {
            return Err(mistyped(name, "boolean"));
        }
    }
    // Less than nothing means without end.
    ask.max_tokens = options.get("num_predict").and_then(|limit| limit.value.as_u64());
    if let Some(stops) = options.get("stop") {
        if !stops.value.is_array() {
            return Err(mistyped("stop", "array"));
        }
        for stop in stops.array()? {
            match stop.value.as_str() {
                Some(stop) if !stop.is_empty() => ask.stops.push(stop.to_owned()),
                Some(_) => {}
                None => return Err(mistyped("stop", "of an array of strings")),
            }
        }
    }
    Ok(())
}

fn tools(root: &At<'_>, strict: bool, ask: &mut Ask) -> Result<(), Refusal> {
    for tool in root.get("tools").map(|tools| tools.array()).transpose()?.unwrap_or_default() {
        known(&tool, strict, &[&["type", "items", "function"]])?;
        let kind = tool.need("type")?;
        if kind.str()? != "function" {
            return Err(kind.wrong(&format!("'{}' is not a type of tools, only 'function' is", kind.str()?)));
        }
        let function = tool.need("function")?;
        known(&function, strict, &[&["name", "description", "parameters"]])?;
        let name = function.need("name")?.text()?.to_owned();
        if let Some(description) = function.get("description") {
            description.str()?;
        }
        let schema = match function.get("parameters") {
            Some(parameters) => {
                let kind = parameters.object()?.get("type");
                if kind.is_some_and(|kind| kind.as_str() != Some("object")) {
                    return Err(parameters.wrong("must be a schema of type 'object'"));
                }
                if let Some(properties) = parameters.get("properties") {
                    for name in properties.object()?.keys() {
                        if properties.verbatim(name).value.as_object().is_none() {
                            return Err(properties.verbatim(name).mistyped(Type::Object));
                        }
                    }
                }
                parameters.value.clone()
            }
            None => json!({"type": "object"}),
        };
        ask.tools.push(Tool { name, schema, free_text: false });
    }
    Ok(())
}
