//! What is known of a request before it is read.

use std::sync::Arc;

use omniroute_wire::envelope::Extent;

use super::Framing;
use crate::{ir::Tier, opening::Places, shape};

/// What routing needs to know of a request, found in one pass without building a tree.
#[derive(Debug, Clone)]
pub struct Envelope {
    /// The model the client asked for, unescaped.
    pub model: Arc<str>,
    /// Whether the client wants a stream (the dialect's default applied).
    pub stream: bool,
    /// Whether the client wants usage at the end of a stream. True for dialects that always send it.
    pub include_usage: bool,
    /// The client's own cache or session key in the body, if the dialect has one.
    pub session_key: Option<String>,
    /// The output limit the client set, in tokens.
    pub max_output_tokens: Option<u64>,
    /// Whether the client used a form of the dialect that is superseded and wants its answer in it
    /// (`functions` of OpenAI, completions of Ollama). False for dialects without such a form.
    pub legacy: bool,
    /// How the client wants a stream framed.
    pub framing: Framing,
    /// What the vendor keeps for the client, boxed because it seldom does.
    pub kept: Option<Box<Kept>>,
    /// Places in the body that [`Dialect::edit_request`] changes. Opaque outside the dialect.
    pub spans: EnvelopeSpans,
}

impl Envelope {
    /// Of a request that is no conversation: it asks for a model, and that is all that routing has to know.
    pub fn of_model(model: String, framing: Framing) -> Self {
        Self {
            model: model.into(),
            stream: false,
            include_usage: false,
            session_key: None,
            max_output_tokens: None,
            legacy: false,
            framing,
            kept: None,
            spans: EnvelopeSpans::default(),
        }
    }
}

/// What a vendor keeps for a client, at the one account that made it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Kept {
    /// What the request names of it.
    pub names: Vec<KeptName>,
    /// Whether the answer to the request will be kept too.
    pub answer: bool,
    /// Whether it is made in the background: the request ends before the answer is finished.
    pub background: bool,
}

/// Something that a request names instead of bringing it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptName {
    /// Where the request does: `previous_response_id`, `input[2].id`.
    pub path: String,
    /// The name.
    pub id: String,
    /// Whether only an earlier answer can have made it. Else it may come from where the gateway was not asked.
    pub by_answer: bool,
}

/// What a client may do with an answer that a vendor keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeptCall {
    /// Read it; as a stream, if the client wants one and the vendor has one.
    Read,
    /// Have it deleted.
    Delete,
    /// Have it ended while it is made in the background.
    Cancel,
    /// List what it is an answer to.
    Inputs,
}

/// Byte ranges of the members that a pass-through may have to change.
#[derive(Debug, Clone, Default)]
pub struct EnvelopeSpans {
    /// The value of the model member.
    pub model: Option<std::ops::Range<usize>>,
    /// The value of the stream member.
    pub stream: Option<std::ops::Range<usize>>,
    /// The value of the stream options member.
    pub stream_options: Option<std::ops::Range<usize>>,
    /// The value of the member that says whether the answer is kept.
    pub store: Option<std::ops::Range<usize>>,
    /// Just behind the last member, before the closing brace of the object.
    pub end: usize,
    /// Whether the object has any member (decides about a comma).
    pub has_members: bool,
    /// Whether any string has escapes of surrogates, which may be halves that no upstream reads.
    pub has_surrogates: bool,
    /// Whether there are carriers, which an upstream of the client's own dialect must not get.
    pub has_carriers: bool,
    /// Whether there may be roles that only the vendor's own servers know.
    pub has_own_roles: bool,
    /// Whether there are members that are never sent on.
    pub has_unwanted: bool,
    /// What tells a conversation from others.
    pub(crate) places: Places,
    /// Whether the body is one of another dialect: it is read as that and written anew, never passed on.
    pub is_foreign: bool,
    /// Whether anything is said about how much to reason.
    pub asks_to_reason: bool,
    /// Whether a temperature of zero is asked for: the same answer to the same question.
    pub is_cold: bool,
    /// In which tier the answer is wanted.
    pub tier: Tier,
}

impl EnvelopeSpans {
    /// With what a scan for `shape::MARKS`, and maybe others behind them, found out about the whole object.
    pub(crate) fn within(self, extent: &Extent) -> Self {
        Self {
            end: extent.end,
            has_members: extent.has_members,
            has_surrogates: extent.has_surrogates,
            has_carriers: shape::has_carriers(extent.marks),
            ..self
        }
    }
}
