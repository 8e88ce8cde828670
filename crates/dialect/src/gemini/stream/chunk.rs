//! A piece of an answer as it is read. A whole answer is a single piece.

use std::{borrow::Cow, fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{SeqAccess, Visitor},
};
use serde_json::value::RawValue;
use smallvec::SmallVec;

use crate::json_in;

/// A piece of an answer.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(in crate::gemini) struct Chunk<'a> {
    #[serde(borrow)]
    pub(in crate::gemini) candidates: Option<Candidates<'a>>,
    #[serde(borrow)]
    pub(in crate::gemini) prompt_feedback: Option<Feedback<'a>>,
    #[serde(borrow)]
    pub(in crate::gemini) usage_metadata: Option<&'a RawValue>,
    #[serde(borrow)]
    model_version: Option<Text<'a>>,
    #[serde(borrow)]
    response_id: Option<Text<'a>>,
    #[serde(borrow)]
    pub(in crate::gemini) error: Option<&'a RawValue>,
}

/// Text, borrowed where nothing in it is escaped.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// The first alternative.
#[derive(Default)]
pub(in crate::gemini) struct Candidates<'a> {
    pub(in crate::gemini) first: Option<Candidate<'a>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(in crate::gemini) struct Candidate<'a> {
    #[serde(borrow)]
    content: Option<Content<'a>>,
    #[serde(borrow)]
    finish_reason: Option<Text<'a>>,
    #[serde(borrow)]
    finish_message: Option<Text<'a>>,
    index: Option<u32>,
    #[serde(borrow)]
    pub(in crate::gemini) grounding_metadata: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(in crate::gemini) citation_metadata: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(in crate::gemini) logprobs_result: Option<&'a RawValue>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Content<'a> {
    #[serde(borrow)]
    parts: Option<Parts<'a>>,
}

#[derive(Default)]
struct Parts<'a>(SmallVec<[Part<'a>; 1]>);

/// What a part is, and what stands beside it.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(in crate::gemini) struct Part<'a> {
    #[serde(borrow)]
    text: Option<Text<'a>>,
    thought: Option<bool>,
    #[serde(borrow)]
    thought_signature: Option<Text<'a>>,
    #[serde(borrow)]
    pub(in crate::gemini) function_call: Option<Call<'a>>,
    #[serde(borrow)]
    pub(in crate::gemini) inline_data: Option<Blob<'a>>,
    #[serde(borrow)]
    pub(in crate::gemini) executable_code: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(in crate::gemini) code_execution_result: Option<&'a RawValue>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(in crate::gemini) struct Call<'a> {
    #[serde(borrow)]
    id: Option<Text<'a>>,
    #[serde(borrow)]
    name: Option<Text<'a>>,
    #[serde(borrow)]
    pub(in crate::gemini) args: Option<&'a RawValue>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(in crate::gemini) struct Blob<'a> {
    #[serde(borrow)]
    mime_type: Option<Text<'a>>,
    #[serde(borrow)]
    data: Option<Text<'a>>,
}

/// What the upstream has to say about the prompt.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(in crate::gemini) struct Feedback<'a> {
    #[serde(borrow)]
    block_reason: Option<Text<'a>>,
    #[serde(borrow)]
    block_reason_message: Option<Text<'a>>,
}

fn text<'t>(text: &'t Option<Text<'_>>) -> &'t str {
    text.as_ref().map_or("", |text| &text.0)
}

impl<'a> Chunk<'a> {
    pub(in crate::gemini) fn id(&self) -> &str {
        text(&self.response_id)
    }

    pub(in crate::gemini) fn model(&self) -> &str {
        text(&self.model_version)
    }

    /// The first alternative.
    pub(in crate::gemini) fn candidate(&self) -> Option<&Candidate<'a>> {
        self.candidates.as_ref().and_then(|candidates| candidates.first.as_ref())
    }

    /// The error that stands in the place of a piece, as JSON.
    pub(in crate::gemini) fn error(&self) -> Option<&'a str> {
        let error = self.error.filter(|_| self.candidate().is_none())?;
        matches!(error.get().as_bytes().first(), Some(b'{' | b'"')).then(|| error.get())
    }
}

impl<'a> Candidate<'a> {
    pub(in crate::gemini) fn finish_reason(&self) -> &str {
        text(&self.finish_reason)
    }

    pub(in crate::gemini) fn finish_message(&self) -> &str {
        text(&self.finish_message)
    }

    pub(in crate::gemini) fn parts(&self) -> &[Part<'a>] {
        self.content.as_ref().and_then(|content| content.parts.as_ref()).map_or(&[], |parts| &parts.0)
    }
}

impl Part<'_> {
    pub(in crate::gemini) fn text(&self) -> Option<&str> {
        self.text.as_ref().map(|text| &*text.0)
    }

    /// Whether the text is a thought.
    pub(in crate::gemini) fn is_thought(&self) -> bool {
        self.thought == Some(true)
    }

    pub(in crate::gemini) fn signature(&self) -> Option<&str> {
        self.thought_signature.as_ref().map(|text| &*text.0).filter(|text| !text.is_empty())
    }
}

impl Call<'_> {
    pub(in crate::gemini) fn id(&self) -> &str {
        text(&self.id)
    }

    pub(in crate::gemini) fn name(&self) -> &str {
        text(&self.name)
    }
}

impl Blob<'_> {
    pub(in crate::gemini) fn media_type(&self) -> &str {
        text(&self.mime_type)
    }

    pub(in crate::gemini) fn data(&self) -> &str {
        text(&self.data)
    }
}

impl Feedback<'_> {
    /// Why the prompt was not taken, if it was not.
    pub(in crate::gemini) fn blocked(&self) -> Option<String> {
        let reason = match text(&self.block_reason) {
            "" | "BLOCKED_REASON_UNSPECIFIED" | "BLOCK_REASON_UNSPECIFIED" => return None,
            reason => reason,
        };
        let mut message = format!("The prompt was blocked: {reason}");
        let more = text(&self.block_reason_message).trim();
        if !more.is_empty() {
            message.push_str(". ");
            message.push_str(more);
        }
        Some(message)
    }
}

/// Reads a piece and shows it. Half characters and repeated members are no reason to give up an answer.
pub(in crate::gemini) fn read_chunk<T>(data: &[u8], show: impl FnOnce(&Chunk<'_>) -> T) -> Option<T> {
    if let Ok(chunk) = serde_json::from_slice::<Chunk<'_>>(data) {
        return Some(show(&chunk));
    }
    let repaired = json_in::last_wins(&json_in::text(data).ok()?);
    serde_json::from_str::<Chunk<'_>>(&repaired).ok().map(|chunk| show(&chunk))
}

impl<'de: 'a, 'a> Deserialize<'de> for Candidates<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List<'a>(PhantomData<&'a ()>);
        impl<'de: 'a, 'a> Visitor<'de> for List<'a> {
            type Value = Candidates<'a>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of candidates")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let mut found = Candidates::default();
                while let Some(candidate) = list.next_element::<Candidate<'a>>()? {
                    // Zeros are left out.
                    if candidate.index.unwrap_or(0) == 0 && found.first.is_none() {
                        found.first = Some(candidate);
                    }
                }
                Ok(found)
            }
        }
        deserializer.deserialize_seq(List(PhantomData))
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Parts<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List<'a>(PhantomData<&'a ()>);
        impl<'de: 'a, 'a> Visitor<'de> for List<'a> {
            type Value = Parts<'a>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of parts")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let mut parts = SmallVec::new();
                while let Some(part) = list.next_element()? {
                    parts.push(part);
                }
                Ok(Parts(parts))
            }
        }
        deserializer.deserialize_seq(List(PhantomData))
    }
}
