//! What stands around the conversation.

use serde_json::{Value, json};

use crate::{
    ask::{Ask, Choice, Format, Tool, Wish},
    check::{At, Wording as _},
    dialect::Incoming,
    frame::Frames,
    gemini::{Gemini, error, schema, turns},
    refusal::Refusal,
    route::Streaming,
};

const FIELDS: &[&str] = &[
    "model",
    "contents",
    "systemInstruction",
    "tools",
    "toolConfig",
    "safetySettings",
    "generationConfig",
    "cachedContent",
    "serviceTier",
    "labels",
    "store",
];
const CONFIG_FIELDS: &[&str] = &[
    "temperature",
    "topP",
    "topK",
    "candidateCount",
    "maxOutputTokens",
    "stopSequences",
    "seed",
    "presencePenalty",
    "frequencyPenalty",
    "responseMimeType",
    "responseSchema",
    "responseJsonSchema",
    "responseLogprobs",
    "logprobs",
    "responseModalities",
    "mediaResolution",
    "speechConfig",
    "imageConfig",
    "thinkingConfig",
    "enableEnhancedCivicAnswers",
];
const TOOL_FIELDS: &[&str] = &[
    "functionDeclarations",
    "googleSearch",
    "googleSearchRetrieval",
    "codeExecution",
    "urlContext",
    "googleMaps",
    "fileSearch",
    "computerUse",
    "mcpServers",
];
const FUNCTION_FIELDS: &[&str] = &[
    "name",
    "description",
    "parameters",
    "parametersJsonSchema",
    "response",
    "responseJsonSchema",
    "behavior",
];
const NAME_RULE: &str = "Invalid function name. Must start with a letter or an underscore. Must be alphameric (a-z, A-Z, \
    0-9), underscores (_), dots (.), colons (:), or dashes (-), with a maximum length of 128.";

/// Judges a request and reads what it asks for.
pub(crate) fn read(incoming: &Incoming<'_>) -> Result<Ask, Refusal> {
    generate(&At::root(incoming.body, &Gemini), incoming)
}

/// Judges a request for a number of tokens: contents alone, or a whole request.
pub(crate) fn counted(incoming: &Incoming<'_>) -> Result<Ask, Refusal> {
    let root = At::root(incoming.body, &Gemini);
    root.known(&[&["contents", "generateContentRequest", "model"]])?;
    match (root.get("contents"), root.get("generateContentRequest")) {
        (Some(_), Some(_)) => {
            Err(Refusal::request("contents and generate_content_request are mutually exclusive."))
        }
        (None, Some(whole)) => {
            let model = whole.need("model")?;
            if !model.str()?.starts_with("models/") {
                return Err(model.wrong("unexpected model name format"));
            }
            generate(&whole, incoming)
        }
        _ => generate(&root, incoming),
    }
}

/// A value of an enumeration; its letters may be small.
pub(crate) fn enumeration(at: &At<'_>, allowed: &[&str], kind: &str) -> Result<String, Refusal> {
    let name = at.value.as_str().map(str::to_ascii_uppercase).filter(|name| allowed.contains(&name.as_str()));
    let kind = format!("type.googleapis.com/google.ai.generativelanguage.v1beta.{kind}");
    name.ok_or_else(|| error::invalid(&at.path, &kind, at.value))
}

fn generate(root: &At<'_>, incoming: &Incoming<'_>) -> Result<Ask, Refusal> {
    root.known(&[FIELDS])?;
    let mut ask = Ask { model: incoming.model.to_owned(), answers: 1, ..Ask::default() };
    match incoming.stream {
        None | Some(Streaming::Whole) => {}
        Some(Streaming::Sse) => ask.stream = true,
        Some(Streaming::Array) => (ask.stream, ask.frames) = (true, Frames::Array),
    }
    if let Some(config) = root.get("generationConfig") {
        generation(&config, incoming, &mut ask)?;
    }
    settings(root)?;
    tools(root, incoming, &mut ask)?;
    if let Some(system) = root.get("systemInstruction") {
        turns::system(&system, &mut ask)?;
    }
    turns::read(&root.need("contents")?, incoming.script, &mut ask)?;
    Ok(ask)
}

fn generation(config: &At<'_>, incoming: &Incoming<'_>, ask: &mut Ask) -> Result<(), Refusal> {
    config.known(&[CONFIG_FIELDS])?;
    for (name, min, max) in [
        ("temperature", 0.0, 2.0),
        ("topP", 0.0, 1.0),
        ("presencePenalty", -2.0, 2.0),
        ("frequencyPenalty", -2.0, 2.0),
    ] {
        if let Some(number) = config.get(name) {
            number.number(min, max)?;
        }
    }
    if let Some(k) = config.get("topK") {
        k.number(1.0, 1e6)?;
    }
    if let Some(count) = config.get("candidateCount") {
        ask.answers = usize::try_from(count.integer(1)?)
            .ok()
            .filter(|count| *count <= 8)
            .ok_or_else(|| count.wrong("candidate count must be between 1 and 8"))?;
    }
    if let Some(limit) = config.get("maxOutputTokens") {
        ask.max_tokens = Some(limit.integer(1)?);
    }
    if let Some(stops) = config.get("stopSequences") {
        let stops_at = stops.array()?;
        if stops_at.len() > 5 {
            return Err(stops.wrong("the number of stop_sequences must be at most 5"));
        }
        for stop in stops_at {
            ask.stops.push(stop.text()?.to_owned());
        }
    }
    if let Some(seed) = config.get("seed")
        && !(seed.value.is_i64() || seed.value.is_u64())
    {
        return Err(seed.mistyped(crate::check::Type::Integer));
    }
    for name in ["responseLogprobs", "enableEnhancedCivicAnswers"] {
        if let Some(flag) = config.get(name) {
            flag.bool()?;
        }
    }
    if let Some(logprobs) = config.get("logprobs") {
        logprobs.integer(0)?;
        if config.get("responseLogprobs").is_none_or(|flag| *flag.value != Value::Bool(true)) {
            return Err(logprobs.wrong("logprobs needs response_logprobs to be true"));
        }
    }
    for name in ["speechConfig", "imageConfig"] {
        if let Some(inner) = config.get(name) {
            inner.object()?;
        }
    }
    if let Some(resolution) = config.get("mediaResolution") {
        let allowed = ["MEDIA_RESOLUTION_LOW", "MEDIA_RESOLUTION_MEDIUM", "MEDIA_RESOLUTION_HIGH"];
        enumeration(&resolution, &allowed, "GenerationConfig.MediaResolution")?;
    }
    for modality in config.get("responseModalities").map(|list| list.array()).transpose()?.unwrap_or_default()
    {
        enumeration(&modality, &["TEXT", "IMAGE", "AUDIO"], "GenerationConfig.Modality")?;
    }
    if let Some(thinking) = config.get("thinkingConfig") {
        ask.wish = wish(&thinking)?;
    }
    ask.format = format(config, incoming)?;
    Ok(())
}

fn wish(thinking: &At<'_>) -> Result<Wish, Refusal> {
    thinking.known(&[&["includeThoughts", "thinkingBudget", "thinkingLevel"]])?;
    let include = thinking.get("includeThoughts").map(|include| include.bool()).transpose()?.unwrap_or(false);
    let budget = thinking.get("thinkingBudget");
    if let Some(budget) = &budget
        && budget.value.as_i64().is_none_or(|budget| budget < -1)
    {
        return Err(budget.wrong("the thinking budget must be -1 or more"));
    }
    if let Some(level) = thinking.get("thinkingLevel") {
        let levels = ["MINIMAL", "LOW", "MEDIUM", "HIGH", "XHIGH"];
        enumeration(&level, &levels, "ThinkingConfig.ThinkingLevel")?;
        if budget.is_some() {
            return Err(Refusal::request("You can only set only one of thinking budget and thinking level."));
        }
    }
    Ok(match (budget.and_then(|budget| budget.value.as_i64()), include) {
        (Some(0), _) => Wish::Off,
        (_, true) => Wish::Shown,
        (_, false) => Wish::Hidden,
    })
}

fn format(config: &At<'_>, incoming: &Incoming<'_>) -> Result<Format, Refusal> {
    let (own, json) = (config.get("responseSchema"), config.get("responseJsonSchema"));
    let mime = match config.get("responseMimeType") {
        Some(mime) => {
            let mime = mime.str()?;
            if !["text/plain", "application/json", "text/x.enum"].contains(&mime) {
                let allowed = "allowed mimetypes are `text/plain`, `application/json` and `text/x.enum`.";
                return Err(Gemini.wrong("generation_config.response_mime_type", allowed));
            }
            mime
        }
        None => "text/plain",
    };
    if let Some(schema) = &own {
        schema::own(schema, 0)?;
    }
    if let Some(schema) = &json {
        schema::json(schema, incoming.script.strict, 0)?;
    }
    let schema = match (own, json) {
        (Some(schema), Some(_)) => {
            return Err(schema.wrong("response_schema and response_json_schema are mutually exclusive"));
        }
        (Some(schema), None) | (None, Some(schema)) => schema,
        (None, None) if mime == "application/json" => return Ok(Format::Object),
        (None, None) => return Ok(Format::Text),
    };
    match mime {
        "text/plain" => Err(schema.wrong("only allowed with a response_mime_type of application/json")),
        _ => Ok(Format::Schema(schema.value.clone())),
    }
}

fn settings(root: &At<'_>) -> Result<(), Refusal> {
    for setting in root.get("safetySettings").map(|list| list.array()).transpose()?.unwrap_or_default() {
        setting.known(&[&["category", "threshold"]])?;
        let categories = [
            "HARM_CATEGORY_HARASSMENT",
            "HARM_CATEGORY_HATE_SPEECH",
            "HARM_CATEGORY_SEXUALLY_EXPLICIT",
            "HARM_CATEGORY_DANGEROUS_CONTENT",
            "HARM_CATEGORY_CIVIC_INTEGRITY",
        ];
        enumeration(&setting.need("category")?, &categories, "HarmCategory")?;
        let thresholds =
            ["BLOCK_LOW_AND_ABOVE", "BLOCK_MEDIUM_AND_ABOVE", "BLOCK_ONLY_HIGH", "BLOCK_NONE", "OFF"];
        enumeration(&setting.need("threshold")?, &thresholds, "SafetySetting.HarmBlockThreshold")?;
    }
    if let Some(tier) = root.get("serviceTier") {
        enumeration(&tier, &["STANDARD", "FLEX", "PRIORITY", "UNSPECIFIED"], "ServiceTier")?;
    }
    if let Some(cached) = root.get("cachedContent") {
        // This simulator has made none.
        let name = cached.str()?;
        let message = format!("CachedContent not found (or permission denied): {name}");
        return Err(Refusal::status(403, message));
    }
    for name in root.get("labels").map(|labels| labels.object()).transpose()?.into_iter().flatten() {
        if !name.1.is_string() {
            return Err(error::invalid("labels", "TYPE_STRING", name.1));
        }
    }
    Ok(())
}

fn tools(root: &At<'_>, incoming: &Incoming<'_>, ask: &mut Ask) -> Result<(), Refusal> {
    for tool in root.get("tools").map(|tools| tools.array()).transpose()?.unwrap_or_default() {
        tool.known(&[TOOL_FIELDS])?;
        if tool.object()?.is_empty() {
            return Err(tool.wrong("required one_of 'tool_type' must have one initialized field"));
        }
        let functions = tool.get("functionDeclarations").map(|list| list.array()).transpose()?;
        for function in functions.unwrap_or_default() {
            let found = declaration(&function, incoming)?;
            if ask.tools.iter().any(|known| known.name == found.name) {
                let message = format!("Duplicate function declaration found: {}", found.name);
                return Err(function.wrong(&message));
            }
            ask.tools.push(found);
        }
    }
    let Some(config) = root.get("toolConfig") else { return Ok(()) };
    config.known(&[&["functionCallingConfig", "retrievalConfig", "includeServerSideToolInvocations"]])?;
    let Some(calling) = config.get("functionCallingConfig") else { return Ok(()) };
    calling.known(&[&["mode", "allowedFunctionNames"]])?;
    let mode = match calling.get("mode") {
        Some(mode) => {
            enumeration(&mode, &["AUTO", "ANY", "NONE", "VALIDATED"], "FunctionCallingConfig.Mode")?
        }
        None => "AUTO".to_owned(),
    };
    if ask.tools.is_empty() {
        return Err(Refusal::request("Function calling config is set without function_declarations."));
    }
    let allowed = calling.get("allowedFunctionNames");
    if let Some(allowed) = &allowed {
        if !["ANY", "VALIDATED"].contains(&mode.as_str()) {
            return Err(Refusal::request(
                "Please set allowed_function_names only when function calling mode is ANY.",
            ));
        }
        let names: Vec<At<'_>> = allowed.array()?;
        for name in &names {
            if !ask.tools.iter().any(|tool| Some(tool.name.as_str()) == name.value.as_str()) {
                return Err(name.wrong("is not the name of a function declaration"));
            }
        }
        if !names.is_empty() {
            ask.tools.retain(|tool| names.iter().any(|name| name.value.as_str() == Some(tool.name.as_str())));
        }
    }
    ask.choice = match mode.as_str() {
        "NONE" => Choice::Never,
        "ANY" => Choice::Any,
        _ => Choice::Auto,
    };
    Ok(())
}

fn declaration(function: &At<'_>, incoming: &Incoming<'_>) -> Result<Tool, Refusal> {
    function.known(&[FUNCTION_FIELDS])?;
    let name_at = function.need("name")?;
    let name = name_at.str()?;
    let mut letters = name.bytes();
    let begins = letters.next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_');
    if !begins
        || name.len() > 128
        || !letters.all(|byte| byte.is_ascii_alphanumeric() || b"_.:-".contains(&byte))
    {
        return Err(name_at.wrong(NAME_RULE));
    }
    if let Some(description) = function.get("description") {
        description.str()?;
    }
    if let Some(behavior) = function.get("behavior") {
        enumeration(&behavior, &["UNSPECIFIED", "BLOCKING", "NON_BLOCKING"], "FunctionDeclaration.Behavior")?;
    }
    if let Some(response) = function.get("response") {
        schema::own(&response, 0)?;
    }
    if let Some(response) = function.get("responseJsonSchema") {
        schema::json(&response, incoming.script.strict, 0)?;
    }
    let schema = match (function.get("parameters"), function.get("parametersJsonSchema")) {
        (Some(parameters), Some(_)) => {
            return Err(parameters.wrong("parameters and parameters_json_schema are mutually exclusive"));
        }
        (Some(parameters), None) => {
            schema::own(&parameters, 0)?;
            parameters.value.clone()
        }
        (None, Some(parameters)) => {
            schema::json(&parameters, incoming.script.strict, 0)?;
            if parameters.value.get("type").and_then(Value::as_str).is_some_and(|kind| kind != "object") {
                return Err(parameters.wrong("schema must be of type object"));
            }
            parameters.value.clone()
        }
        (None, None) => json!({"type": "object"}),
    };
    Ok(Tool { name: name.to_owned(), schema, free_text: false })
}
