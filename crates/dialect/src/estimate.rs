//! How many tokens a request has, roughly, when nobody counts them: for clients that ask before they send, and that
//! size their context by the answer. Everything the model reads is counted, and an estimate is never zero.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::value::RawValue;

use crate::{
    ir::{Block, BlockKind, ChatRequest, Image, MediaSource, Role, Tool, ToolKind},
    json_in,
};

/// For each message, beside its content.
const PER_MESSAGE: u64 = 4;
/// What vendors add to the prompt when there are tools.
const FOR_TOOLS: u64 = 300;
/// An image whose size cannot be told, and the most that one counts.
const UNKNOWN_IMAGE: u64 = 1_500;
const MAX_IMAGE: u64 = 1_600;
/// Edge of the squares that an image is cut into, in pixels.
const IMAGE_SQUARE: usize = 28;
/// A document whose text cannot be read here.
const DOCUMENT: u64 = 2_000;
/// A sound.
const AUDIO: u64 = 1_500;
/// Base64 characters that are decoded to find the size of an image.
const IMAGE_HEAD: usize = 64 * 1024;
/// Bytes of a body that is not decoded are looked at in such steps, and so many of each.
const STEP: usize = 512;
const GLANCE: usize = 32;
/// Shorter pieces without a space or a quotation mark are text.
const LEAST_MEDIUM: usize = 2 * STEP;

/// Tokens of a whole request.
pub fn tokens(request: &ChatRequest) -> u64 {
    let last_answer = request.turns.iter().rposition(|turn| turn.role == Role::Assistant);
    let mut sum = blocks(&request.system, true);
    for (at, turn) in request.turns.iter().enumerate() {
        // Earlier thinking is not read again.
        sum += PER_MESSAGE + blocks(&turn.blocks, Some(at) == last_answer);
    }
    if !request.tools.is_empty() {
        sum += FOR_TOOLS + request.tools.iter().map(tool).sum::<u64>();
    }
    sum.max(1)
}

/// Tokens of a request in any dialect that nobody has decoded: four of its bytes are a token, and each image, document or
/// sound that is embedded in it counts as a document does, since by its bytes it would be far too dear. What is embedded
/// is known by long stretches of base64, which are looked for in steps, and by what stands before them. Quick and rough.
pub fn of_body(body: &[u8]) -> u64 {
    (weight(body) / 4).max(1)
}

/// The bytes that such an estimate goes by: those of a body, with fewer for what is embedded in it. Of a short one that is
/// its length; of a longer one few are looked at.
pub fn weight(body: &[u8]) -> u64 {
    if body.len() < LEAST_MEDIUM {
        return body.len() as u64;
    }
    let is_dense = |at: usize| {
        let seen = body.get(at..at + GLANCE);
        seen.is_some_and(|bytes| bytes.iter().all(|byte| is_base64(*byte)))
    };
    let (mut at, mut embedded, mut media) = (0, 0, 0);
    while at < body.len() {
        if !is_dense(at) {
            at += STEP;
            continue;
        }
        let begin = at;
        let end = loop {
            // It may end, and another one begin, between two glances.
            let step = &body[at..body.len().min(at + STEP)];
            if let Some(quote) = memchr::memchr(b'"', step) {
                break at + quote;
            }
            at += step.len();
            if !is_dense(at) {
                break at;
            }
        };
        at = end + 1;
        if end - begin >= LEAST_MEDIUM && is_embedded(body, begin) {
            let length = (end - begin) as u64;
            embedded += length;
            media += (length / 4).min(DOCUMENT);
        }
    }
    body.len() as u64 - embedded + 4 * media
}

/// Members whose text is base64 in some dialect: media, and what vendors sign or encrypt.
const BASE64_MEMBERS: [&[u8]; 6] =
    [b"data", b"file_data", b"encrypted_content", b"signature", b"thoughtSignature", b"thought_signature"];

/// Whether the string that goes on at `at` is a medium and no text: a `data:` URL, the value of a member for base64, or an
/// entry of a list, as Ollama's images are.
fn is_embedded(body: &[u8], at: usize) -> bool {
    let nearby = at.saturating_sub(2 * STEP);
    let Some(quote) = memchr::memrchr(b'"', &body[nearby..at]).map(|quote| nearby + quote) else {
        return false;
    };
    if body[quote + 1..].starts_with(b"data:") {
        return true;
    }
    match body[..quote].trim_ascii_end() {
        [.., b'[' | b','] => true,
        [before @ .., b':'] => before
            .trim_ascii_end()
            .strip_suffix(b"\"")
            .is_some_and(|name| BASE64_MEMBERS.iter().any(|member| name.ends_with(member))),
        _ => false,
    }
}

/// Whether a byte may be part of base64 as it stands in JSON, in either alphabet.
const fn is_base64(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'-' | b'_' | b'=' | b'\\')
}

/// Tokens of a text.
pub fn text(text: &str) -> u64 {
    let (mut ascii, mut signs, mut letters, mut ideographs) = (0_u64, 0_u64, 0_u64, 0_u64);
    for c in text.chars() {
        match c {
            '\u{2e80}'.. => ideographs += 1,
            '\u{80}'.. => letters += 1,
            _ => {
                ascii += 1;
                signs += u64::from(c.is_ascii_punctuation());
            }
        }
    }
    // Program text has more signs than prose, and shorter tokens: 3.6 characters instead of 4.
    let per_hundred = if signs * 8 > ascii { 28 } else { 25 };
    (ascii * per_hundred).div_ceil(100) + letters.div_ceil(2) + ideographs
}

fn blocks(blocks: &[Block], with_thinking: bool) -> u64 {
    blocks.iter().map(|block| one(block, with_thinking)).sum()
}

fn one(block: &Block, with_thinking: bool) -> u64 {
    match &block.kind {
        BlockKind::Text(words) | BlockKind::Refusal(words) => text(words),
        BlockKind::Thinking { text: words, .. } if with_thinking => text(words),
        BlockKind::Thinking { .. } | BlockKind::RedactedThinking { .. } => 0,
        BlockKind::Image(given) => image(given),
        BlockKind::File(file) => match &file.source {
            MediaSource::Text(words) => text(words),
            MediaSource::Base64 { .. } | MediaSource::Url(_) | MediaSource::FileId { .. } => DOCUMENT,
        },
        BlockKind::Audio { .. } => AUDIO,
        BlockKind::ToolCall(call) => text(&call.name) + text(&call.arguments),
        BlockKind::ToolResult(result) => blocks(&result.blocks, true),
        BlockKind::WebSearch(search) => text(&search.as_text()),
        BlockKind::Opaque { raw, .. } => json(raw),
    }
}

fn tool(tool: &Tool) -> u64 {
    if let Some(function) = tool.as_function() {
        let description = function.description.as_deref().map_or(0, text);
        return text(function.name) + description + function.schema.map_or(0, json);
    }
    match &tool.kind {
        ToolKind::Opaque { raw, .. } => json(raw),
        ToolKind::WebSearch(_) | ToolKind::Function { .. } | ToolKind::Custom { .. } => 50,
    }
}

fn json(raw: &RawValue) -> u64 {
    text(&json_in::compact(raw.get()))
}

fn image(image: &Image) -> u64 {
    let MediaSource::Base64 { data, .. } = &image.source else { return UNKNOWN_IMAGE };
    let head = data.get(..data.len().min(IMAGE_HEAD) / 4 * 4).unwrap_or_default();
    let size = BASE64_STANDARD.decode(head).ok().and_then(|bytes| imagesize::blob_size(&bytes).ok());
    size.map_or(UNKNOWN_IMAGE, |size| {
        let squares = size.width.div_ceil(IMAGE_SQUARE).saturating_mul(size.height.div_ceil(IMAGE_SQUARE));
        u64::try_from(squares).unwrap_or(MAX_IMAGE).clamp(1, MAX_IMAGE)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::{ToolCall, Turn};

    #[test]
    fn texts_of_several_kinds() {
        assert_eq!(text(""), 0);
        assert_eq!(text(&"word ".repeat(80)), 100);
        assert!(text(&"{\"a\":[1,2]}".repeat(40)) > 110);
        assert_eq!(text("你好世界"), 4);
        assert_eq!(text("éé"), 1);
    }

    #[test]
    fn everything_the_model_reads_counts() {
        let turn = |role, kinds: Vec<BlockKind>| Turn {
            role,
            blocks: kinds.into_iter().map(Block::from).collect(),
            name: None,
            path: String::new(),
        };
        let words = || "x".repeat(400);
        let thinking = || BlockKind::Thinking { text: words(), signature: None, origin: crate::openai::ID };
        let call = ToolCall { id: "1".into(), name: String::new(), arguments: "y".repeat(400) };
        let mut request = ChatRequest {
            system: vec![BlockKind::Text(words()).into()],
            turns: vec![
                turn(Role::User, vec![BlockKind::Text(words())]),
                turn(Role::Assistant, vec![thinking(), BlockKind::Text(words())]),
                turn(Role::Assistant, vec![thinking(), BlockKind::ToolCall(call)]),
            ],
            ..ChatRequest::default()
        };
        assert_eq!(tokens(&request), 5 * 100 + 3 * PER_MESSAGE);
        request.tools.push(Tool {
            kind: ToolKind::Function { name: "f".repeat(40), description: None, schema: None, strict: None },
            cache_mark: None,
            extras: Vec::new(),
            path: String::new(),
        });
        assert_eq!(tokens(&request), 5 * 100 + 3 * PER_MESSAGE + FOR_TOOLS + 10);
        assert_eq!(tokens(&ChatRequest::default()), 1);
    }

    #[test]
    fn images_count_by_their_size() {
        // A PNG of 100 by 56 pixels: 4 by 2 squares.
        let mut png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x64\0\0\0\x38\x08\x06\0\0\0".to_vec();
        png.extend_from_slice(&[0; 16]);
        let data = BASE64_STANDARD.encode(&png);
        let given = |source| Image { source, detail: None };
        assert_eq!(image(&given(MediaSource::Base64 { media_type: "image/png".into(), data })), 8);
        assert_eq!(image(&given(MediaSource::Url("https://x".into()))), UNKNOWN_IMAGE);
    }

    #[test]
    fn what_is_embedded_in_a_body_counts_by_the_piece() {
        let image = |length: usize| {
            format!(
                r#"{{"type":"image_url","image_url":{{"url":"data:image/png;base64,{}"}}}}"#,
                "iVBO/+9x".repeat(length / 8)
            )
        };
        let words = "A few words, as people write them. ".repeat(100);
        let body =
            |parts: &[String]| format!(r#"{{"messages":[{{"content":[{},"{words}"]}}]}}"#, parts.join(","));
        let alone = of_body(body(&[]).as_bytes());
        assert!(alone.abs_diff(words.len() as u64 / 4) < 20, "{alone}");
        // Up to a step of each is taken for text, and so is what stands around it.
        let check = |parts: &[String], tokens: u64| {
            let (counted, least) = (of_body(body(parts).as_bytes()), alone + tokens);
            assert!(
                (least..least + 160 * parts.len() as u64).contains(&counted),
                "{counted}, not {least} or more"
            );
        };
        check(&[image(400_000)], DOCUMENT);
        check(&[image(400_000), image(50_000), image(9_000)], 3 * DOCUMENT);
        // Many small ones, each of them found.
        let several: Vec<String> = (0..20).map(|n| image(9_000 + 40 * n)).collect();
        check(&several, 20 * DOCUMENT);
        // One that is smaller than a document counts by its bytes.
        check(&[image(4_000)], 1_000);
        // Wherever dialects have their base64.
        let base64 = "iVBO/+9x".repeat(9_000);
        for around in [
            [r#"{"images":["", ""#, r#""]}"#],
            [r#"{"source":{"type":"base64","data" : ""#, r#""}}"#],
            [r#"{"file_data":""#, r#""}"#],
            [r#"{"type":"reasoning","encrypted_content":""#, r#""}"#],
            [r#"{"type":"thinking","thinking":"so","signature":""#, r#""}"#],
            [r#"{"parts":[{"text":"a","thoughtSignature":""#, r#""}]}"#],
        ] {
            let counted = of_body(around.join(&base64).as_bytes());
            assert!((DOCUMENT..DOCUMENT + 320).contains(&counted), "{around:?}: {counted}");
        }
        // Long words, and what is no request.
        for words in [900, 100_000] {
            let body = format!("{{\"a\":\"{}\"}}", "x".repeat(words));
            assert_eq!(of_body(body.as_bytes()), body.len() as u64 / 4);
        }
        assert_eq!(of_body("x".repeat(100_000).as_bytes()), 25_000);
        assert_eq!(of_body(b""), 1);
    }
}
