//! One event of a stream, taken apart.

use std::borrow::Cow;

use omniroute_wire::envelope::{self, ScanError, as_str, as_u64};

/// The members of an event that matter, as they were written.
#[derive(Debug, Default)]
pub(in crate::responses) struct Event<'a> {
    pub(in crate::responses) kind: Cow<'a, str>,
    pub(in crate::responses) item_id: Option<&'a str>,
    pub(in crate::responses) output_index: Option<u64>,
    /// The part of a text or of a summary.
    pub(in crate::responses) part: u64,
    pub(in crate::responses) sequence: Option<u64>,
    pub(in crate::responses) delta: Option<&'a str>,
    /// The whole text, arguments, input or refusal.
    pub(in crate::responses) whole: Option<&'a str>,
    pub(in crate::responses) item: Option<&'a str>,
    pub(in crate::responses) response: Option<&'a str>,
    pub(in crate::responses) annotation: Option<&'a str>,
    pub(in crate::responses) logprobs: Option<&'a str>,
    pub(in crate::responses) error: Option<&'a str>,
}

impl<'a> Event<'a> {
    /// Reads the data of an event. `name` is what its frame is called; it counts where the data does not say.
    pub(in crate::responses) fn read(data: &'a [u8], name: Option<&'a str>) -> Result<Self, ScanError> {
        let mut event = Event { kind: Cow::Borrowed(name.unwrap_or_default()), ..Event::default() };
        envelope::scan(data, &mut |member| {
            let raw = Some(member.raw).filter(|raw| *raw != "null");
            match &*member.key {
                "type" => {
                    if let Some(kind) = raw.and_then(as_str) {
                        event.kind = kind;
                    }
                }
                "item_id" => event.item_id = raw,
                "output_index" => event.output_index = raw.and_then(as_u64),
                "content_index" | "summary_index" => event.part = raw.and_then(as_u64).unwrap_or(0),
                "sequence_number" => event.sequence = raw.and_then(as_u64),
                "delta" => event.delta = raw,
                "text" | "arguments" | "input" | "refusal" => event.whole = raw,
                "item" => event.item = raw,
                "response" => event.response = raw,
                "annotation" => event.annotation = raw,
                "logprobs" => event.logprobs = raw.filter(|raw| *raw != "[]"),
                "error" => event.error = raw,
                _ => {}
            }
        })?;
        Ok(event)
    }

    /// Whether it says that the answer failed.
    pub(in crate::responses) fn is_error(&self) -> bool {
        let has_error = self.error.is_some_and(|raw| !matches!(raw, "{}" | "\"\"" | "false"));
        self.kind == "error" || (has_error && !self.kind.starts_with("response."))
    }
}
