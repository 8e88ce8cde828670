//! How a conversation begins, in any dialect: by that it is recognised when its client gives it no name. Found in the bytes of
//! the places that the envelope's scan noted, without decoding the request.

use std::borrow::Cow;
use std::ops::Range;

use omniroute_wire::elements::{Elements, elements};
use omniroute_wire::envelope::{self, Member, as_str};
use smallvec::SmallVec;

use crate::Envelope;

/// So many turns are looked at for the user's first.
const MAX_TURNS: usize = 64;
/// So many tools are looked at.
const MAX_TOOLS: usize = 1_024;

/// Where in the body the parts stand that tell a conversation from others.
#[derive(Debug, Clone, Default)]
pub(crate) struct Places {
    turns: Option<Range<usize>>,
    system: Option<Range<usize>>,
    tools: Option<Range<usize>>,
    metadata: Option<Range<usize>>,
}

impl Places {
    /// Takes note of a top-level member.
    pub(crate) fn note(&mut self, member: &Member<'_>) {
        let place = match &*member.key {
            "messages" | "input" | "contents" => &mut self.turns,
            // A prompt that is kept at the vendor is named by an object.
            "prompt" if member.raw.starts_with('"') => &mut self.turns,
            "system" | "instructions" | "systemInstruction" | "system_instruction" => &mut self.system,
            "tools" => &mut self.tools,
            "metadata" => &mut self.metadata,
            _ => return,
        };
        *place = Some(member.span.clone());
    }
}

/// How a conversation begins. Texts are JSON as the client wrote it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Opening<'a> {
    /// What the system says, in order.
    pub system: SmallVec<[&'a str; 2]>,
    /// The user's first turn.
    pub first_user: Option<&'a str>,
    /// Names of the tools, sorted.
    pub tools: Vec<Cow<'a, str>>,
    /// Who the client says its user is.
    pub user: Option<Cow<'a, str>>,
}

/// How the conversation of a request begins.
pub fn opening<'a>(body: &'a [u8], envelope: &Envelope) -> Opening<'a> {
    let places = &envelope.spans.places;
    // A range that does not fit a body of text is one of another body, and says nothing.
    let text = |place: &Option<Range<usize>>| {
        place.clone().and_then(|span| body.get(span)).and_then(|bytes| simdutf8::basic::from_utf8(bytes).ok())
    };
    let mut opening = Opening::default();
    opening.system.extend(text(&places.system).filter(|raw| *raw != "null"));
    if let Some(turns) = text(&places.turns) {
        if turns.starts_with('"') {
            opening.first_user = Some(turns);
        }
        let mut turns = elements(turns);
        for _ in 0..MAX_TURNS {
            let Some(Turn { role, content }) = Turn::next(&mut turns) else { break };
            match role {
                "\"system\"" | "\"developer\"" => opening.system.extend(content),
                // Gemini's only speaker that needs no name.
                "\"user\"" | "" if content.is_some() => {
                    opening.first_user = content;
                    break;
                }
                _ => {}
            }
        }
    }
    if let Some(tools) = text(&places.tools) {
        let mut tools = elements(tools);
        for _ in 0..MAX_TOOLS {
            let shown = tools.next_with_members(&mut |member| name_tools(&member, &mut opening.tools));
            if shown.is_none() {
                break;
            }
        }
        opening.tools.sort_unstable();
    }
    if let Some(metadata) = text(&places.metadata) {
        members(metadata, |key, raw| {
            if key == "user_id" {
                opening.user = as_str(raw);
            }
        });
    }
    opening
}

#[derive(Default)]
struct Turn<'a> {
    /// With its quotes.
    role: &'a str,
    content: Option<&'a str>,
}

impl<'a> Turn<'a> {
    fn next(turns: &mut Elements<'a>) -> Option<Self> {
        let mut turn = Self::default();
        turns.next_with_members(&mut |member| match &*member.key {
            "role" => turn.role = member.raw,
            "content" | "parts" => turn.content = Some(member.raw),
            _ => {}
        })?;
        Some(turn)
    }
}

/// The names that a member of a tool gives: the tool's own, its function's, or of each that it declares.
fn name_tools<'a>(member: &Member<'a>, names: &mut Vec<Cow<'a, str>>) {
    let raw = member.raw;
    match &*member.key {
        "name" => names.extend(as_str(raw)),
        "function" => members(raw, |key, raw| {
            if key == "name" {
                names.extend(as_str(raw));
            }
        }),
        "functionDeclarations" | "function_declarations" => {
            elements(raw).take(MAX_TOOLS).for_each(|one| {
                members(one, |key, raw| {
                    if key == "name" {
                        names.extend(as_str(raw));
                    }
                });
            });
        }
        _ => {}
    }
}

/// Shows the members of an object; what is none has none.
fn members<'a>(object: &'a str, mut visit: impl FnMut(&str, &'a str)) {
    if object.starts_with('{') {
        let _ = envelope::scan_str(object, &mut |member| visit(&member.key, member.raw));
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::HeaderMap;

    use super::*;
    use crate::{
        Dialect, Head, anthropic::Anthropic, gemini::Gemini, ollama::Ollama, openai::OpenAi,
        responses::Responses,
    };

    fn seen(dialect: &dyn Dialect, body: &str) -> (Vec<String>, Option<String>, Vec<String>, Option<String>) {
        let (headers, bytes) = (HeaderMap::new(), Bytes::copy_from_slice(body.as_bytes()));
        let head = Head { headers: &headers, path: "/v1beta/models/m:generateContent", query: None };
        let envelope = dialect.envelope(head, &bytes).expect("a request");
        let opening = opening(&bytes, &envelope);
        (
            opening.system.iter().map(|text| (*text).to_owned()).collect(),
            opening.first_user.map(str::to_owned),
            opening.tools.iter().map(ToString::to_string).collect(),
            opening.user.map(Cow::into_owned),
        )
    }

    #[test]
    fn every_dialect_shows_how_a_conversation_begins() {
        let expected = |system: &str, user: &str, who: Option<&str>| {
            let tools = vec!["a".to_owned(), "b".to_owned()];
            (vec![system.to_owned()], Some(user.to_owned()), tools, who.map(str::to_owned))
        };
        assert_eq!(
            seen(
                &OpenAi,
                r#"{"model":"m","tools":[{"type":"function","function":{"name":"b"}},{"function":{"name":"a"}}],
                "messages":[{"role":"system","content":"S"},{"role":"assistant","content":"x"},{"content":"U","role":"user"},{"role":"user","content":"later"}]}"#
            ),
            expected("\"S\"", "\"U\"", None)
        );
        assert_eq!(
            seen(
                &Anthropic,
                r#"{"model":"m","max_tokens":1,"metadata":{"user_id":"who"},"system":[{"type":"text","text":"S"}],
                "messages":[{"role":"user","content":[{"type":"text","text":"U"}]}],"tools":[{"name":"a"},{"name":"b"}]}"#
            ),
            expected(r#"[{"type":"text","text":"S"}]"#, r#"[{"type":"text","text":"U"}]"#, Some("who"))
        );
        assert_eq!(
            seen(
                &Responses,
                r#"{"model":"m","instructions":"S","input":"U","tools":[{"type":"function","name":"b"},{"name":"a"}]}"#
            ),
            expected("\"S\"", "\"U\"", None)
        );
        assert_eq!(
            seen(
                &Gemini,
                r#"{"systemInstruction":{"parts":[{"text":"S"}]},"contents":[{"parts":[{"text":"U"}]}],
                "tools":[{"functionDeclarations":[{"name":"b"},{"name":"a"}]}]}"#
            ),
            expected(r#"{"parts":[{"text":"S"}]}"#, r#"[{"text":"U"}]"#, None)
        );
        assert_eq!(
            seen(
                &Ollama,
                r#"{"model":"m","messages":[{"role":"system","content":"S"},{"role":"user","content":"U"}],
                "tools":[{"type":"function","function":{"name":"a"}},{"type":"function","function":{"name":"b"}}]}"#
            ),
            expected("\"S\"", "\"U\"", None)
        );
    }

    #[test]
    fn a_conversation_keeps_its_opening_while_it_grows() {
        let begun =
            r#"{"model":"m","messages":[{"role":"system","content":"S"},{"role":"user","content":"U"}]}"#;
        let grown = r#"{"messages":[{"role":"system","content":"S"},{"role":"user","content":"U"},{"role":"assistant","content":"A"},{"role":"user","content":"more"}],"model":"m","temperature":1}"#;
        assert_eq!(seen(&OpenAi, begun), seen(&OpenAi, grown));
    }
}
