//! The conversation of a request that came in this dialect: nothing is judged, the upstream does that.

use std::{borrow::Cow, collections::HashMap};

use super::{
    contents::detail_of,
    conversation::{Content, Conversation, MODEL, Signed, USER, id_out, value_of},
    decode::{CONFIG, RESOLUTION},
    media,
};
use crate::{
    arguments,
    gemini::{
        ID,
        wire::{CallOut, PartOut, ResultOut},
    },
    ir::{Block, BlockKind, ChatRequest, Image, Role, ToolResult},
    json_in::str_of,
};

/// Writes it as it came.
pub(super) fn conversation(request: &ChatRequest) -> Conversation<'_> {
    let system = request.system.iter().filter_map(|block| match &block.kind {
        BlockKind::Text(text) => Some(Cow::Borrowed(text.as_str())),
        _ => None,
    });
    let names: HashMap<&str, &str> = request
        .turns
        .iter()
        .flat_map(|turn| &turn.blocks)
        .filter_map(|block| match &block.kind {
            BlockKind::ToolCall(call) => Some((call.id.as_str(), call.name.as_str())),
            _ => None,
        })
        .collect();
    // What holds for all pictures is said once, as it was.
    let whole = request
        .extras
        .members
        .iter()
        .find_map(|(name, raw)| (name.strip_prefix(CONFIG)? == RESOLUTION).then(|| str_of(raw))?);
    let whole = whole.as_deref().and_then(detail_of);
    let contents = request.turns.iter().map(|turn| {
        let mut signed = Signed::default();
        let mut parts = Vec::new();
        for block in &turn.blocks {
            native_part(block, &names, whole, &mut signed, &mut parts);
        }
        signed.flush(&mut parts);
        let role = if turn.role == Role::Assistant { MODEL } else { USER };
        Content { role, parts, results: false }
    });
    Conversation { system: system.collect(), contents: contents.collect() }
}

fn native_part<'a>(
    block: &'a Block,
    names: &HashMap<&str, &'a str>,
    whole: Option<&str>,
    signed: &mut Signed<'a>,
    parts: &mut Vec<PartOut<'a>>,
) {
    match &block.kind {
        BlockKind::Text(text) | BlockKind::Refusal(text) => {
            parts.push(PartOut::Text { text: Cow::Borrowed(text), signature: signed.take() });
        }
        BlockKind::Thinking { text, signature, origin } if *origin == ID => {
            if !text.is_empty() {
                parts.push(PartOut::Thought { text });
            }
            if let Some(signature) = signature {
                signed.put(&signature.data, parts);
            }
        }
        BlockKind::ToolCall(call) => parts.push(PartOut::Call(CallOut {
            id: id_out(&call.id, true),
            name: &call.name,
            args: arguments::object(&call.arguments).object,
            signature: signed.take(),
        })),
        BlockKind::ToolResult(result) => {
            let media = result.blocks.iter().filter_map(|block| match &block.kind {
                BlockKind::Image(image) => Some(media::native(&image.source, detail_beside(image, whole))),
                BlockKind::File(file) => Some(media::native(&file.source, None)),
                BlockKind::Opaque { origin, raw } if *origin == ID => Some(PartOut::Raw(raw)),
                _ => None,
            });
            parts.push(PartOut::Result(ResultOut {
                id: id_out(&result.call_id, true),
                name: names.get(result.call_id.as_str()).copied().unwrap_or("unknown_function"),
                is_error: result.is_error,
                value: value_of(Cow::Owned(texts(result))),
                media: media.collect(),
            }));
        }
        BlockKind::Image(image) => {
            signed.flush(parts);
            parts.push(media::native(&image.source, detail_beside(image, whole)));
        }
        BlockKind::File(file) => {
            signed.flush(parts);
            parts.push(media::native(&file.source, None));
        }
        BlockKind::Audio { data, format } => {
            signed.flush(parts);
            let media_type = Cow::Owned(media::audio_type(format));
            parts.push(PartOut::Blob { media_type, data, resolution: None });
        }
        BlockKind::Opaque { origin, raw } if *origin == ID => {
            signed.flush(parts);
            parts.push(PartOut::Raw(raw));
        }
        BlockKind::WebSearch(_)
        | BlockKind::Thinking { .. }
        | BlockKind::RedactedThinking { .. }
        | BlockKind::Opaque { .. } => {}
    }
}

/// How closely to look at a picture, where it is not said of all.
fn detail_beside<'a>(image: &'a Image, whole: Option<&str>) -> Option<&'a str> {
    image.detail.as_deref().filter(|detail| Some(*detail) != whole)
}

fn texts(result: &ToolResult) -> String {
    let texts: Vec<&str> = result
        .blocks
        .iter()
        .filter_map(|block| match &block.kind {
            BlockKind::Text(text) => Some(text.as_str()),
            _ => None,
        })
        .collect();
    texts.join("\n")
}
