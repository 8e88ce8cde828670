//! Reading a client's request.

use bytes::Bytes;

use super::{
    super::{ID, wire::LOGPROBS},
    items, tools,
};
use crate::{
    DecodeError, Head, client_body, effort,
    ir::{
        BlockKind, ChatRequest, LossAction, OutputFormat, Reasoning, ReasoningAmount, Sampling, loss, quiet,
    },
    json_in::{self, Fields, is_object, list_of, missing, str_of, wrong_type, wrong_value},
};

/// Members that have a place in the canonical form.
const KNOWN: &[&str] = &[
    "model",
    "input",
    "instructions",
    "stream",
    "max_output_tokens",
    "temperature",
    "top_p",
    "top_logprobs",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "text",
    "reasoning",
    "prompt_cache_key",
    "service_tier",
    "user",
    "safety_identifier",
    "metadata",
    "store",
];

/// Reads a request into the canonical form.
pub(in crate::responses) fn decode(head: Head<'_>, body: &Bytes) -> Result<ChatRequest, DecodeError> {
    let text = json_in::text(body)?;
    if let Err(error) = omniroute_wire::envelope::scan_str(&text, &mut |_| {}) {
        return Err(client_body::not_json(&error));
    }
    let fields = Fields::strict(&text, "")?;
    let mut request = ChatRequest {
        model: fields.need_str("model")?.into_owned(),
        stream: fields.bool("stream")?.unwrap_or_else(|| client_body::wants_events(head)),
        include_usage: true,
        sampling: sampling(&fields)?,
        max_output_tokens: fields.count("max_output_tokens")?,
        prompt_cache_key: fields.str("prompt_cache_key")?.map(Into::into),
        service_tier: fields.str("service_tier")?.map(Into::into),
        parallel_tool_calls: fields.bool("parallel_tool_calls")?,
        metadata: fields.object("metadata")?.and(fields.raw("metadata")).map(ToOwned::to_owned),
        store: fields.bool("store")?,
        ..ChatRequest::default()
    };
    request.extras.origin = Some(ID);
    let user = fields.str("user")?;
    match fields.str("safety_identifier")? {
        Some(id) => {
            request.user = Some(id.into_owned());
            request.user_is_safety_id = true;
            if let Some(raw) = fields.raw("user") {
                request.extras.members.push(("user".to_owned(), raw.to_owned()));
            }
        }
        None => request.user = user.map(Into::into),
    }
    output(&fields, &mut request)?;
    request.reasoning = reasoning(&fields, &mut request)?;
    tools::decode(&fields, &mut request)?;
    if let Some(instructions) = fields.str("instructions")?.filter(|text| !text.is_empty()) {
        request.system.push(BlockKind::Text(instructions.into_owned()).into());
    }
    items::decode(&fields, &mut request)?;
    others(&fields, &mut request);
    Ok(request)
}

fn sampling(fields: &Fields<'_>) -> Result<Sampling, DecodeError> {
    let include = fields.list("include")?.unwrap_or_default();
    Ok(Sampling {
        temperature: fields.number("temperature")?,
        top_p: fields.number("top_p")?,
        logprobs: include.into_iter().any(|one| str_of(one).as_deref() == Some(LOGPROBS)),
        top_logprobs: fields.count("top_logprobs")?,
        ..Sampling::default()
    })
}

/// Reads `text`.
fn output(fields: &Fields<'_>, request: &mut ChatRequest) -> Result<(), DecodeError> {
    let Some(text) = fields.object("text")? else { return Ok(()) };
    request.verbosity = text.str("verbosity")?.map(Into::into);
    let known = &["type", "name", "description", "schema", "strict"];
    let Some(format) = text.object_of("format", known, &mut request.losses)? else { return Ok(()) };
    request.output_format = match &*format.need_str("type")? {
        "text" => OutputFormat::Text,
        "json_object" => OutputFormat::JsonObject,
        "json_schema" => {
            let Some(schema) = format.raw("schema") else { return Err(missing("text.format.schema")) };
            if !is_object(schema) {
                return Err(wrong_type("text.format.schema", "an object"));
            }
            OutputFormat::JsonSchema {
                name: format.str("name")?.map(Into::into),
                description: format.str("description")?.map(Into::into),
                schema: schema.to_owned(),
                strict: format.bool("strict")?,
            }
        }
        _ => return Err(wrong_value("text.format.type", "`text`, `json_object` or `json_schema`")),
    };
    Ok(())
}

fn reasoning(fields: &Fields<'_>, request: &mut ChatRequest) -> Result<Reasoning, DecodeError> {
    let Some(reasoning) = fields.object("reasoning")? else { return Ok(Reasoning::default()) };
    let amount = match reasoning.str("effort")?.as_deref() {
        None => ReasoningAmount::Default,
        Some("none") => ReasoningAmount::Off,
        Some(word) => match effort::of_word(word) {
            Some(effort) => ReasoningAmount::Effort(effort),
            None => return Err(wrong_value("reasoning.effort", effort::WORDS)),
        },
    };
    let summary = match reasoning.str("summary")? {
        Some(summary) => Some(summary),
        None => reasoning.str("generate_summary")?,
    };
    // How long a summary is to be cannot be said elsewhere.
    if summary.as_deref().is_some_and(|summary| summary != "auto") {
        request.losses.push(quiet("reasoning.summary", LossAction::Mapped));
    }
    for (name, _) in reasoning.unlisted(&["effort", "summary", "generate_summary"]) {
        request.losses.push(loss(reasoning.path_of(name), LossAction::Dropped));
    }
    Ok(Reasoning { amount, show: Some(summary.is_some()) })
}

/// Keeps what has no place in the form.
fn others(fields: &Fields<'_>, request: &mut ChatRequest) {
    for (name, raw) in fields.unlisted(KNOWN) {
        let means_nothing = match name {
            "truncation" => raw.get() == "\"disabled\"",
            "background" => raw.get() == "false",
            // The form has a place for log probabilities.
            "include" => list_of(raw)
                .is_some_and(|list| list.into_iter().all(|name| str_of(name).as_deref() == Some(LOGPROBS))),
            _ => false,
        };
        if client_body::is_unwanted(name) {
            request.losses.push(quiet(name.to_owned(), LossAction::Dropped));
        } else if !means_nothing {
            request.extras.members.push((name.to_owned(), raw.to_owned()));
        }
    }
    if let Some(inner) = fields.object_or_none("text") {
        for (name, _) in inner.unlisted(&["format", "verbosity"]) {
            request.losses.push(loss(inner.path_of(name), LossAction::Dropped));
        }
    }
}
