//! What a request or an answer says of a feature, read from the canonical form. Two dialects agree on a feature when the
//! readers of both find the same.

use omniroute_dialect::ir::{
    Block, BlockKind, ChatRequest, ChatResponse, Image, MediaSource, OutputFormat, Role, ToolKind,
};
use serde_json::{Value, json, value::RawValue};

/// What a request says of a feature; `None` for features that the form has no place for.
pub(super) fn of_request(feature: &str, request: &ChatRequest) -> Option<Value> {
    let sampling = &request.sampling;
    let is_call = |block: &&Block| matches!(block.kind, BlockKind::ToolCall(_) | BlockKind::ToolResult(_));
    Some(match feature {
        "limit" => json!(request.max_output_tokens),
        "temperature" | "hot" => number(sampling.temperature.as_deref()),
        "top_p" => number(sampling.top_p.as_deref()),
        "top_k" => number(sampling.top_k.as_deref()),
        "penalties" => {
            json!([
                number(sampling.frequency_penalty.as_deref()),
                number(sampling.presence_penalty.as_deref())
            ])
        }
        "seed" => number(sampling.seed.as_deref()),
        "logit_bias" => raw(sampling.logit_bias.as_deref()),
        "several_answers" => json!(sampling.n),
        "logprobs" => json!([sampling.logprobs, sampling.top_logprobs]),
        "stop" | "stop_six" => json!(request.stop),
        "system" | "several_systems" => json!(request.system.iter().map(block).collect::<Vec<_>>()),
        "late_system" | "name" => {
            let turn = |turn: &omniroute_dialect::ir::Turn| {
                let blocks: Vec<Value> = turn.blocks.iter().map(block).collect();
                json!([format!("{:?}", turn.role), turn.name, blocks])
            };
            json!(request.turns.iter().map(turn).collect::<Vec<_>>())
        }
        "image" | "image_url" | "image_id" | "image_detail" | "pdf" | "pdf_url" | "text_file" | "audio"
        | "citable" => {
            json!(
                blocks(request)
                    .filter(|one| !matches!(one.kind, BlockKind::Text(_)))
                    .map(block)
                    .collect::<Vec<_>>()
            )
        }
        "prefill" | "empty" => {
            json!(request.turns.last().map(|turn| {
                (format!("{:?}", turn.role), turn.blocks.iter().map(block).collect::<Vec<_>>())
            }))
        }
        "tools" | "strict_tools" | "custom_tool" | "grammar_tool" | "schema_words" => {
            json!(request.tools.iter().map(|tool| tool_says(&tool.kind)).collect::<Vec<_>>())
        }
        "parallel_off" => json!(request.parallel_tool_calls),
        "choice_auto" | "choice_none" | "choice_required" | "choice_named" | "choice_allowed" => {
            json!(request.tool_choice.as_ref().map(|choice| format!("{choice:?}")))
        }
        "two_calls" | "result_image" | "result_pdf" | "failed_result" => {
            json!(blocks(request).filter(is_call).map(block).collect::<Vec<_>>())
        }
        "call_ids" => json!(blocks(request).filter_map(call_id).collect::<Vec<_>>()),
        "text_beside" => json!(
            request
                .turns
                .iter()
                .map(|turn| turn.blocks.iter().map(kind).collect())
                .collect::<Vec<Vec<Value>>>()
        ),
        "effort" | "effort_max" | "budget" | "adaptive" | "reasoning_off" => {
            json!(format!("{:?}", request.reasoning.amount))
        }
        "show" => json!(request.reasoning.show),
        "starts_assistant" => {
            let said = request.turns.iter().filter(|turn| turn.role == Role::Assistant);
            json!(said.flat_map(|turn| turn.blocks.iter().map(block)).collect::<Vec<_>>())
        }
        "system_only" => json!(request.system.iter().map(block).collect::<Vec<_>>()),
        "open_call" => {
            let is_call = |block: &&Block| matches!(block.kind, BlockKind::ToolCall(_));
            json!(blocks(request).filter(is_call).map(block).collect::<Vec<_>>())
        }
        "signed" => json!(blocks(request).filter_map(signature).collect::<Vec<_>>()),
        "json_object" | "json_schema" | "json_strict" => match &request.output_format {
            OutputFormat::Text => Value::Null,
            OutputFormat::JsonObject => json!("object"),
            OutputFormat::JsonSchema { schema, strict, .. } if feature == "json_strict" => {
                json!([raw(Some(schema)), strict])
            }
            OutputFormat::JsonSchema { schema, .. } => raw(Some(schema)),
        },
        "cache_marks" | "cache_marks_hour" => {
            let marked =
                blocks(request).filter_map(|one| one.cache_mark.map(|mark| (block(one), mark.one_hour)));
            json!(marked.collect::<Vec<_>>())
        }
        "cache_key" => json!(request.prompt_cache_key),
        "user" => json!(request.user),
        "metadata" => raw(request.metadata.as_deref()),
        "verbosity" => json!(request.verbosity),
        "web_search" | "web_search_domains" => {
            let searches = request.tools.iter().filter_map(|tool| match &tool.kind {
                ToolKind::WebSearch(search) => Some(json!([search.allowed_domains, search.blocked_domains])),
                _ => None,
            });
            json!(searches.collect::<Vec<_>>())
        }
        _ => return None,
    })
}

/// What an answer says of a feature; `None` for features that the form has no place for.
pub(super) fn of_answer(feature: &str, answer: &ChatResponse) -> Option<Value> {
    let usage = &answer.usage;
    let of =
        |find: fn(&Block) -> Option<Value>| json!(answer.blocks.iter().filter_map(find).collect::<Vec<_>>());
    Some(match feature {
        "text" => of(|block| match &block.kind {
            BlockKind::Text(text) => Some(json!(text)),
            _ => None,
        }),
        "calls" => of(|one| matches!(one.kind, BlockKind::ToolCall(_)).then(|| block(one))),
        "call_ids" => of(call_id),
        "text_beside" => json!(answer.blocks.iter().map(kind).collect::<Vec<_>>()),
        "refusal" => of(|block| match &block.kind {
            BlockKind::Refusal(text) => Some(json!(text)),
            _ => None,
        }),
        "thinking" => of(|block| match &block.kind {
            BlockKind::Thinking { text, .. } => Some(json!(text)),
            _ => None,
        }),
        "signature" | "hidden_thinking" => of(signature),
        "citations" => of(|block| {
            let sources = block.citations.iter().map(|one| json!([one.url, one.title]));
            (!block.citations.is_empty()).then(|| sources.collect())
        }),
        "document_citations" => of(|block| {
            let words = block.citations.iter().map(|one| json!([one.title, one.cited_text]));
            (!block.citations.is_empty()).then(|| words.collect())
        }),
        "search" => of(|block| match &block.kind {
            BlockKind::WebSearch(search) => Some(json!(search.queries)),
            _ => None,
        }),
        "image" => of(|one| matches!(one.kind, BlockKind::Image(_)).then(|| block(one))),
        "stop" | "tool_use" | "length" | "context" | "filtered" | "pause" => {
            json!(answer.finish.map(|finish| format!("{finish:?}")))
        }
        "stop_sequence" => {
            json!([answer.finish.map(|finish| format!("{finish:?}")), answer.stop_sequence])
        }
        "tokens" => json!([usage.input_total(), usage.output_total]),
        "cached" => json!([usage.input_total(), usage.cache_read]),
        "cache_written" => json!([usage.input_total(), usage.cache_write]),
        "cache_written_hour" => json!([usage.input_total(), usage.cache_write_1h]),
        "reasoning_tokens" => json!([usage.output_total, usage.reasoning]),
        "audio_tokens" => json!(usage.audio_input),
        "tier" => json!(answer.service_tier),
        "id" => json!(answer.id.rsplit(['-', '_']).next()),
        _ => return None,
    })
}

/// Everything that is said in a request.
fn blocks(request: &ChatRequest) -> impl Iterator<Item = &Block> {
    request.system.iter().chain(request.turns.iter().flat_map(|turn| &turn.blocks))
}

/// A block without what only its place says.
fn block(block: &Block) -> Value {
    match &block.kind {
        BlockKind::Text(text) => json!(text),
        BlockKind::Image(Image { source, detail }) => json!([source_says(source), detail]),
        BlockKind::File(file) => json!([source_says(&file.source), file.name]),
        BlockKind::Audio { data, format } => json!([format, data]),
        BlockKind::ToolCall(call) => {
            json!([call.name, serde_json::from_str::<Value>(&call.arguments).unwrap_or_default()])
        }
        BlockKind::ToolResult(result) => {
            let inner: Vec<Value> = result.blocks.iter().map(self::block).collect();
            json!([inner, result.is_error])
        }
        other => json!(format!("{other:?}")),
    }
}

/// What kind of thing is said, in which order.
fn kind(block: &Block) -> Value {
    match &block.kind {
        BlockKind::Text(text) => json!(text),
        BlockKind::ToolCall(call) => json!({"call": call.name}),
        other => json!(format!("{other:?}").split([' ', '(']).next()),
    }
}

fn source_says(source: &MediaSource) -> Value {
    match source {
        MediaSource::Base64 { media_type, data } => json!([media_type, data]),
        MediaSource::Url(url) => json!(url),
        MediaSource::FileId { id, .. } => json!({"id": id}),
        MediaSource::Text(text) => json!({"text": text}),
    }
}

fn tool_says(tool: &ToolKind) -> Value {
    match tool {
        ToolKind::Function { name, description, schema, strict } => {
            let schema = schema
                .as_deref()
                .map_or_else(|| json!({"type": "object", "properties": {}}), |one| raw(Some(one)));
            json!([name, description, schema, strict.unwrap_or(false)])
        }
        ToolKind::Custom { name, description, format } => {
            json!({"free": [name, description, raw(format.as_deref())]})
        }
        ToolKind::WebSearch(_) => json!("search"),
        ToolKind::Opaque { raw: entry, .. } => raw(Some(entry)),
    }
}

fn signature(block: &Block) -> Option<Value> {
    match &block.kind {
        BlockKind::Thinking { signature: Some(signature), .. } => Some(json!(signature.data)),
        BlockKind::RedactedThinking { data, .. } => Some(json!(data)),
        _ => None,
    }
}

fn call_id(block: &Block) -> Option<Value> {
    match &block.kind {
        BlockKind::ToolCall(call) => Some(json!(call.id)),
        BlockKind::ToolResult(result) => Some(json!(result.call_id)),
        _ => None,
    }
}

fn number(value: Option<&RawValue>) -> Value {
    value.map_or(Value::Null, |value| json!(value.get().parse::<f64>().ok()))
}

fn raw(value: Option<&RawValue>) -> Value {
    value.map_or(Value::Null, |value| serde_json::from_str(value.get()).unwrap_or_default())
}
