//! The conversation of a client's request.

use serde_json::value::RawValue;

use super::decode::one_or_more;
use crate::{
    DecodeError,
    gemini::{ID, wire::from_slot},
    ids::invented_call_id,
    ir::{
        Block, BlockKind, File, Image, Loss, LossAction, MediaSource, Role, ToolCall, ToolResult, Turn, loss,
    },
    json_in::{self, Fields, str_of, wrong_type, wrong_value},
    open_calls::OpenCalls,
};

/// What a part can be.
const KINDS: &[&str] = &[
    "text",
    "inlineData",
    "fileData",
    "functionCall",
    "functionResponse",
    "executableCode",
    "codeExecutionResult",
    "toolCall",
    "toolResponse",
];

/// Members of a part that stand beside what it is and are read.
const BESIDE: &[&str] = &["thought", "thoughtSignature", "mediaResolution"];

/// Reads `contents`.
pub(super) fn turns(fields: &Fields<'_>, losses: &mut Vec<Loss>) -> Result<Vec<Turn>, DecodeError> {
    let contents = one_or_more(fields, "contents")?;
    if contents.is_empty() {
        return Err(match fields.raw("contents") {
            None => fields.missing("contents"),
            Some(_) => wrong_value("contents", "a list with at least one content"),
        });
    }
    let mut reader = Reader { losses, open: OpenCalls::default(), of_answer: false };
    contents.into_iter().enumerate().map(|(at, raw)| reader.turn(raw, at)).collect()
}

struct Reader<'l> {
    losses: &'l mut Vec<Loss>,
    /// Calls whose results have not been seen yet.
    open: OpenCalls,
    /// Whether what is read is an earlier answer: what nobody knows of it is not missed.
    of_answer: bool,
}

impl Reader<'_> {
    fn turn(&mut self, raw: &RawValue, at: usize) -> Result<Turn, DecodeError> {
        let path = format!("contents[{at}]");
        let fields = Fields::strict_camel(raw.get(), path.clone())?;
        let role = match fields.str("role")?.unwrap_or_default().to_ascii_lowercase().as_str() {
            "" | "user" | "function" | "tool" => Role::User,
            "model" | "assistant" => Role::Assistant,
            "system" => Role::System,
            _ => return Err(wrong_value(fields.path_of("role"), "`user` or `model`")),
        };
        self.of_answer = role == Role::Assistant;
        self.note_unknown(&fields, &["role", "parts"]);
        let list = fields.path_of("parts");
        let mut blocks = Vec::new();
        for (n, raw) in one_or_more(&fields, "parts")?.into_iter().enumerate() {
            self.part(raw, format!("{list}[{n}]"), (at, n), &mut blocks)?;
        }
        Ok(Turn { role, blocks, name: None, path })
    }

    fn part(
        &mut self,
        raw: &RawValue,
        path: String,
        place: (usize, usize),
        blocks: &mut Vec<Block>,
    ) -> Result<(), DecodeError> {
        let part = Fields::strict_camel(raw.get(), path.clone())?;
        let mut kinds = KINDS.iter().filter(|kind| part.raw(kind).is_some());
        let kind = kinds.next().copied().unwrap_or_default();
        if kinds.next().is_some() {
            return Err(wrong_value(path, "one thing: text, or data, or a call, or a result"));
        }
        let signature = part.str("thoughtSignature")?.filter(|signature| !signature.is_empty());
        let thought = part.bool("thought")?.unwrap_or(false);
        let kind = match kind {
            "text" if thought => {
                let text = part.need_str("text")?.into_owned();
                let signature = signature.map(|slot| from_slot(&slot).into_owned().into());
                blocks.push(BlockKind::Thinking { text, signature, origin: ID }.into());
                self.note_unknown(&part, &["text", "thought", "thoughtSignature"]);
                return Ok(());
            }
            "text" => {
                self.unseen(&part, part.raw("mediaResolution").is_some());
                BlockKind::Text(part.need_str("text")?.into_owned())
            }
            "inlineData" | "fileData" => self.media(&part, raw)?,
            "functionCall" => BlockKind::ToolCall(self.call(&part, place)?),
            "functionResponse" => BlockKind::ToolResult(self.result(&part)?),
            "" if signature.is_some() => BlockKind::Text(String::new()),
            "" => return Err(wrong_value(path, &format!("one of {}", KINDS.join(", ")))),
            _ => {
                // Signature and all stay within.
                blocks.push(BlockKind::Opaque { origin: ID, raw: raw.to_owned() }.into());
                return Ok(());
            }
        };
        if let Some(slot) = signature
            && !matches!(kind, BlockKind::Opaque { .. })
        {
            sign(from_slot(&slot).into_owned(), blocks);
        }
        let read = |name: &str| KINDS.contains(&name) || BESIDE.contains(&name);
        for (name, _) in part.unlisted(&[]).filter(|(name, _)| !read(name)) {
            let silent = self.of_answer;
            self.losses.push(Loss { silent, ..loss(part.path_of(name), LossAction::Dropped) });
        }
        blocks.push(kind.into());
        Ok(())
    }

    fn call(&mut self, part: &Fields<'_>, place: (usize, usize)) -> Result<ToolCall, DecodeError> {
        let call = part.object("functionCall")?.ok_or_else(|| part.missing("functionCall"))?;
        self.note_unknown(&call, &["id", "name", "args"]);
        let name = call.need_str("name")?.into_owned();
        let arguments = call.raw("args").map_or_else(|| "{}".to_owned(), |raw| json_in::compact(raw.get()));
        let id = match call.str("id")?.filter(|id| !id.is_empty()) {
            Some(id) => id.into_owned(),
            None => invented_call_id(&format!("{} {arguments}", place.0), place.1, &name),
        };
        self.open.push(&id, &name);
        Ok(ToolCall { id, name, arguments })
    }

    fn result(&mut self, part: &Fields<'_>) -> Result<ToolResult, DecodeError> {
        let result = part.object("functionResponse")?.ok_or_else(|| part.missing("functionResponse"))?;
        self.note_unknown(&result, &["id", "name", "response", "parts"]);
        let name = result.need_str("name")?;
        let id = result.str("id")?.filter(|id| !id.is_empty());
        let call_id = self.answered(id.as_deref(), &name);
        let (text, is_error) = response(&result)?;
        let mut blocks = Vec::new();
        if !text.is_empty() {
            blocks.push(BlockKind::Text(text).into());
        }
        for (at, raw) in one_or_more(&result, "parts")?.into_iter().enumerate() {
            let inner = Fields::strict_camel(raw.get(), result.path_of(&format!("parts[{at}]")))?;
            self.note_unknown(&inner, &["inlineData", "fileData", "mediaResolution"]);
            blocks.push(self.media(&inner, raw)?.into());
        }
        Ok(ToolResult { call_id, blocks, is_error })
    }

    /// Which call a result answers: the one that it names, else the first open one of the same tool, else the first.
    fn answered(&mut self, id: Option<&str>, name: &str) -> String {
        let named = id.and_then(|id| self.open.of_id(id));
        let at = match (named, id) {
            (Some(at), _) => Some(at),
            (None, Some(id)) => {
                // Calls may have come without the id that their results have.
                match self.open.invented_of_tool(name) {
                    Some(at) => Some(at),
                    None => return id.to_owned(),
                }
            }
            (None, None) => self.open.of_tool(name).or_else(|| self.open.oldest()),
        };
        at.and_then(|at| self.open.take(at)).unwrap_or_default()
    }

    fn media(&mut self, part: &Fields<'_>, raw: &RawValue) -> Result<BlockKind, DecodeError> {
        let detail = self.detail(part)?;
        if let Some(blob) = part.object("inlineData")? {
            self.note_unknown(&blob, &["mimeType", "data", "displayName"]);
            let media_type = blob.need_str("mimeType")?.into_owned();
            let data = standard_base64(&blob.need_str("data")?);
            let name = blob.str("displayName")?.map(Into::into);
            let source = MediaSource::Base64 { media_type: media_type.clone(), data };
            return Ok(match media_type.split_once('/').unwrap_or((&media_type, "")) {
                ("image", _) => BlockKind::Image(Image { source, detail }),
                ("audio", kind) => {
                    self.unseen(part, detail.is_some());
                    let MediaSource::Base64 { data, .. } = source else {
                        return Err(wrong_type(blob.path_of("data"), "base64"));
                    };
                    BlockKind::Audio { data, format: audio_format(kind).to_owned() }
                }
                ("video", _) => BlockKind::Opaque { origin: ID, raw: raw.to_owned() },
                _ => {
                    self.unseen(part, detail.is_some());
                    BlockKind::File(File { name, ..source.into() })
                }
            });
        }
        let file = part
            .object("fileData")?
            .ok_or_else(|| wrong_value(part.path_of("inlineData"), "there, or `fileData` in its place"))?;
        self.note_unknown(&file, &["fileUri", "mimeType", "displayName"]);
        let name = file.str("displayName")?.map(Into::into);
        let uri = file.need_str("fileUri")?;
        let media_type = file.str("mimeType")?.unwrap_or_default();
        // Only the vendor can read its own files.
        if !is_public(&uri) {
            return Ok(BlockKind::Opaque { origin: ID, raw: raw.to_owned() });
        }
        let source = MediaSource::Url(uri.into_owned());
        Ok(match media_type.split('/').next().unwrap_or_default() {
            "image" => BlockKind::Image(Image { source, detail }),
            "application" | "text" => {
                self.unseen(part, detail.is_some());
                BlockKind::File(File { name, ..source.into() })
            }
            _ => BlockKind::Opaque { origin: ID, raw: raw.to_owned() },
        })
    }

    /// That how closely to look was said of what is no picture.
    fn unseen(&mut self, part: &Fields<'_>, said: bool) {
        if said {
            self.losses.push(loss(part.path_of("mediaResolution"), LossAction::Dropped));
        }
    }

    /// How closely to look at a picture. Others know two ways of it.
    fn detail(&mut self, part: &Fields<'_>) -> Result<Option<String>, DecodeError> {
        let Some(resolution) = part.object("mediaResolution")? else { return Ok(None) };
        self.note_unknown(&resolution, &["level"]);
        let level = resolution.str("level")?.unwrap_or_default();
        let detail = detail_of(&level);
        if detail.is_none() && !level.is_empty() && !level.to_ascii_uppercase().ends_with("UNSPECIFIED") {
            self.losses.push(loss(resolution.path_of("level"), LossAction::Dropped));
        }
        Ok(detail.map(str::to_owned))
    }

    /// Records members that the canonical form has no place for.
    fn note_unknown(&mut self, fields: &Fields<'_>, known: &[&str]) {
        fields.unlisted_as(known, self.of_answer, self.losses);
    }
}

/// Whether a resolution of all media is told elsewhere: with each picture, or by saying nothing.
pub(crate) fn is_told_of_each(resolution: &RawValue) -> bool {
    str_of(resolution).is_some_and(|level| {
        detail_of(&level).is_some() || level.to_ascii_uppercase().ends_with("UNSPECIFIED")
    })
}

/// What other dialects call a resolution of media. They know two.
pub(super) fn detail_of(level: &str) -> Option<&'static str> {
    match level.to_ascii_uppercase().trim_start_matches("MEDIA_RESOLUTION_") {
        "LOW" => Some("low"),
        "HIGH" => Some("high"),
        _ => None,
    }
}

/// Tells the signature of the part that follows: with the thoughts right before it, or in a block of its own.
fn sign(signature: String, blocks: &mut Vec<Block>) {
    let signature = Some(signature.into());
    match blocks.last_mut().map(|block| &mut block.kind) {
        Some(BlockKind::Thinking { signature: slot @ None, .. }) => *slot = signature,
        _ => blocks.push(BlockKind::Thinking { text: String::new(), signature, origin: ID }.into()),
    }
}

/// What a function said, and whether it failed: `output` or `error` alone, or whatever there is.
fn response(result: &Fields<'_>) -> Result<(String, bool), DecodeError> {
    let Some(raw) = result.raw("response") else { return Ok((String::new(), false)) };
    // Names are the function's own here.
    let response = Fields::lenient(raw.get(), result.path_of("response"))?;
    let mut members = response.unlisted(&[]);
    let (first, more) = (members.next(), members.next());
    let text = |raw: &RawValue| str_of(raw).map_or_else(|| json_in::compact(raw.get()), Into::into);
    Ok(match (first, more) {
        (None, _) => (String::new(), false),
        (Some(("output" | "result", value)), None) => (text(value), false),
        (Some(("error", value)), None) => (text(value), true),
        _ => (json_in::compact(raw.get()), false),
    })
}

fn audio_format(kind: &str) -> &str {
    match kind {
        "mpeg" | "mp3" | "mpga" => "mp3",
        "wav" | "x-wav" | "wave" | "vnd.wave" => "wav",
        other => other,
    }
}

/// Base64 in the alphabet that everybody reads; clients of the dialect may use the one for addresses.
fn standard_base64(data: &str) -> String {
    if data.contains(['-', '_']) { data.replace('-', "+").replace('_', "/") } else { data.to_owned() }
}

/// Whether others than the vendor can read what is at this address.
fn is_public(uri: &str) -> bool {
    let host = uri.strip_prefix("https://").or_else(|| uri.strip_prefix("http://"));
    let host = host.map(|rest| rest.split(['/', '?', '#']).next().unwrap_or_default().to_ascii_lowercase());
    host.is_some_and(|host| {
        !host.is_empty()
            && !host.ends_with("googleapis.com")
            && !matches!(host.trim_start_matches("www."), "youtube.com" | "m.youtube.com" | "youtu.be")
    })
}
