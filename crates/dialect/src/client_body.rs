//! What bodies of requests have in common in which the model and the wish for a stream are members: how they are
//! read and what a pass-through changes in all of them.

use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::header::ACCEPT;
use omniroute_wire::{
    envelope::{Member, ScanError, as_bool, as_str},
    json_out, members,
    splice::Splice,
    text::lone_surrogates,
};
use smallvec::SmallVec;

use crate::{
    DecodeError, Envelope, Head,
    dialect::EnvelopeSpans,
    json_in::{missing, wrong_type, wrong_value},
};

/// That a body is not what was expected.
pub(crate) fn not_json(error: &ScanError) -> DecodeError {
    DecodeError { code: "invalid_json", param: None, message: error.to_string() }
}

/// Whether the client's only wish is a stream of events.
pub(crate) fn wants_events(head: Head<'_>) -> bool {
    head.headers.get(ACCEPT).is_some_and(|accept| accept.as_bytes() == b"text/event-stream")
}

/// Whether a member is meant for the gateway, or known to be refused by upstreams.
pub(crate) fn is_unwanted(name: &str) -> bool {
    name == "client_metadata" || name.starts_with("omniroute")
}

/// The members that every such body has.
#[derive(Debug, Default)]
pub(crate) struct Basics<'a> {
    model: Option<&'a str>,
    stream: Option<&'a str>,
    repeated: Option<&'static str>,
}

impl<'a> Basics<'a> {
    /// Takes note of a member; false when it is another dialect's business.
    pub(crate) fn take(&mut self, member: &Member<'a>, spans: &mut EnvelopeSpans) -> bool {
        spans.places.note(member);
        match &*member.key {
            "model" => {
                if self.model.replace(member.raw).is_some() {
                    self.repeated = Some("model");
                }
                spans.model = Some(member.span.clone());
            }
            "stream" => {
                if self.stream.replace(member.raw).is_some() {
                    self.repeated = Some("stream");
                }
                spans.stream = Some(member.span.clone());
            }
            name if is_unwanted(name) => spans.has_unwanted = true,
            _ => return false,
        }
        true
    }

    /// The model's name.
    pub(crate) fn model(&self) -> Result<Arc<str>, DecodeError> {
        if let Some(name) = self.repeated {
            return Err(DecodeError {
                code: "invalid_json",
                message: format!("`{name}` is given more than once"),
                param: Some(name.to_owned()),
            });
        }
        let model = match self.model {
            None | Some("null") => return Err(missing("model")),
            Some(raw) => as_str(raw).ok_or_else(|| wrong_type("model", "a string"))?,
        };
        if model.trim().is_empty() {
            return Err(wrong_value("model", "a model's name, not an empty string"));
        }
        Ok((&*model).into())
    }

    /// Whether a stream is wanted.
    pub(crate) fn stream(&self, head: Head<'_>) -> Result<bool, DecodeError> {
        match self.stream {
            None | Some("null") => Ok(wants_events(head)),
            Some(raw) => as_bool(raw).ok_or_else(|| wrong_type("stream", "a boolean")),
        }
    }
}

/// Edits of a body that stays in its dialect.
#[derive(Debug)]
pub(crate) struct Edits<'a> {
    body: &'a Bytes,
    splice: Splice,
    edited: SmallVec<[Range<usize>; 2]>,
}

impl<'a> Edits<'a> {
    /// None so far.
    pub(crate) fn of(body: &'a Bytes) -> Self {
        Self { body, splice: Splice::new(body.clone()), edited: SmallVec::new() }
    }

    /// Puts the upstream's name of the model in.
    pub(crate) fn model(&mut self, envelope: &Envelope, upstream_model: &str) {
        if let Some(span) = envelope.spans.model.clone().filter(|_| *envelope.model != *upstream_model) {
            let mut name = BytesMut::with_capacity(upstream_model.len() + 2);
            json_out::string(&mut name, upstream_model);
            self.replace(span, name.freeze());
        }
    }

    /// Replaces a part of the body.
    pub(crate) fn replace(&mut self, span: Range<usize>, with: impl Into<Bytes>) {
        self.edited.push(span.clone());
        self.splice.replace(span, with);
    }

    /// Adds text to the body.
    pub(crate) fn insert(&mut self, at: usize, text: impl Into<Bytes>) {
        self.splice.replace(at..at, text);
    }

    /// Takes unwanted members out, and halves of characters that no upstream reads.
    pub(crate) fn finish(mut self, spans: &EnvelopeSpans) -> Splice {
        if spans.has_unwanted {
            for span in members::removals(self.body, 0, &mut is_unwanted) {
                self.replace(span, Bytes::new());
            }
        }
        let Self { body, mut splice, edited } = self;
        if !spans.has_surrogates {
            return splice;
        }
        lone_surrogates(body, &mut |span| {
            if !edited.iter().any(|other| other.start < span.end && span.start < other.end) {
                splice.replace(span, "\\ufffd");
            }
        });
        splice
    }
}
