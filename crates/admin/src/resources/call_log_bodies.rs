//! What was said in a logged request, and the setting of which requests keep that.

use std::collections::BTreeMap;

use omniroute_domain::entity::{CallBodySettings, KeepBodies};
use omniroute_store::{BodyState, Document, FoundBodies, Message};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::validation::Problems;

/// Of which requests bodies are kept.
#[derive(Serialize, Deserialize, ToSchema, Clone, Copy)]
#[serde(rename_all = "lowercase")]
pub(crate) enum KeepBodiesView {
    /// Of none.
    Off,
    /// Of those that failed.
    Failures,
    /// Of all.
    All,
}

/// The setting.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CallLogBodiesView {
    keep: KeepBodiesView,
    /// Most megabytes on disk; the oldest go first.
    max_disk_mb: u32,
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CallLogBodiesPatch {
    keep: Option<KeepBodiesView>,
    /// Most megabytes on disk, 1 to 1048576; the oldest go first.
    max_disk_mb: Option<u32>,
}

impl From<CallBodySettings> for CallLogBodiesView {
    fn from(settings: CallBodySettings) -> Self {
        let keep = match settings.keep {
            KeepBodies::Off => KeepBodiesView::Off,
            KeepBodies::Failures => KeepBodiesView::Failures,
            KeepBodies::All => KeepBodiesView::All,
        };
        Self { keep, max_disk_mb: settings.max_disk_mb }
    }
}

impl CallLogBodiesPatch {
    pub(crate) fn merge(&self, settings: &mut CallBodySettings, problems: &mut Problems) {
        problems.range("callLogBodies.maxDiskMb", self.max_disk_mb, &(1..=1_048_576));
        settings.max_disk_mb = self.max_disk_mb.unwrap_or(settings.max_disk_mb);
        settings.keep = match self.keep {
            Some(KeepBodiesView::Off) => KeepBodies::Off,
            Some(KeepBodiesView::Failures) => KeepBodies::Failures,
            Some(KeepBodiesView::All) => KeepBodies::All,
            None => settings.keep,
        };
    }
}

/// What was said.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct BodiesView {
    /// JSON as it was sent; any other text as a string; `{"truncated":true,"bytes","text"}` where it was too long, and
    /// `{"omitted","bytes"}` where it was no text.
    #[schema(value_type = Option<Object>)]
    request_body: Option<Box<RawValue>>,
    /// The same of what the client got; streams as their text.
    #[schema(value_type = Option<Object>)]
    response_body: Option<Box<RawValue>>,
    pipeline: PipelineView,
    bodies: BodiesNote,
}

/// The messages of a request; null where one was not sent or is not kept.
#[derive(Default, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PipelineView {
    client_request: Option<MessageView>,
    /// The last one to an upstream.
    provider_request: Option<MessageView>,
    provider_response: Option<MessageView>,
    client_response: Option<MessageView>,
}

/// Head and body of a message.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct MessageView {
    #[serde(skip_serializing_if = "Option::is_none")]
    method: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    query: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    /// Credentials are `[key]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    headers: Option<BTreeMap<String, String>>,
    /// Bytes of files that were sent behind the body.
    #[serde(skip_serializing_if = "Option::is_none")]
    attached_bytes: Option<u64>,
    #[schema(value_type = Option<Object>)]
    body: Option<Box<RawValue>>,
}

impl MessageView {
    fn of(message: Message) -> Self {
        let Message { method, path, query, url, status, headers, attached_bytes, body } = message;
        Self { method, path, query, url, status, headers, attached_bytes, body }
    }

    fn with_body(message: Message, body: Option<&RawValue>) -> Self {
        Self { body: body.map(ToOwned::to_owned), ..Self::of(message) }
    }
}

/// Whether bodies are there, and why not.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct BodiesNote {
    /// `kept`, `off`, `noLog`, `succeeded`, `unknown`, `shed`, `failed`, `pruned`, `awaited`, `elsewhere`, `missing` or
    /// `unreadable`.
    state: &'static str,
    /// The same in words.
    message: String,
    /// The process that has them: its machine and data directory.
    at: Option<String>,
}

/// What the log says of a request's bodies, and they themselves.
pub(crate) fn view(found: FoundBodies, at: Option<String>) -> BodiesView {
    let (state, message) = match &found {
        FoundBodies::Here(_) => ("kept", "what was kept is here".to_owned()),
        FoundBodies::Gone(state) => {
            let (word, message) = why(*state);
            (word, message.to_owned())
        }
        FoundBodies::Awaited => (
            "awaited",
            "they are about to be written, unless somebody deleted them; ask again in a moment".to_owned(),
        ),
        FoundBodies::Elsewhere(process) => {
            ("elsewhere", format!("they are at another process, `{process}`; ask that one"))
        }
        FoundBodies::Missing => (
            "missing",
            "their file is not in the data directory any more; somebody may have deleted it".to_owned(),
        ),
        FoundBodies::Unreadable(error) => ("unreadable", format!("their file cannot be read: {error}")),
    };
    let bodies = BodiesNote { state, message, at };
    let FoundBodies::Here(document) = found else {
        return BodiesView {
            request_body: None,
            response_body: None,
            pipeline: PipelineView::default(),
            bodies,
        };
    };
    let Document { request_body, response_body, pipeline, .. } = *document;
    BodiesView {
        pipeline: PipelineView {
            client_request: Some(MessageView::with_body(pipeline.client_request, request_body.as_deref())),
            provider_request: pipeline.provider_request.map(MessageView::of),
            provider_response: pipeline.provider_response.map(MessageView::of),
            client_response: Some(MessageView::with_body(pipeline.client_response, response_body.as_deref())),
        },
        request_body,
        response_body,
        bodies,
    }
}

fn why(state: BodyState) -> (&'static str, &'static str) {
    match state {
        BodyState::Off => ("off", "bodies were not to be kept; see the setting callLogBodies.keep"),
        BodyState::NoLog => ("noLog", "the client's key keeps none (noLog, or NO_LOG_API_KEY_IDS)"),
        BodyState::Succeeded => {
            ("succeeded", "only those of failures were kept; see the setting callLogBodies.keep")
        }
        BodyState::Unknown => {
            ("unknown", "the client did not say who it is, or it was a request of the gateway's own")
        }
        BodyState::Shed => ("shed", "too many waited to be written, so they were let go"),
        BodyState::Failed => {
            ("failed", "they could not be written to the data directory; see the process's log")
        }
        BodyState::Pruned => {
            ("pruned", "they were deleted for want of room; see the setting callLogBodies.maxDiskMb")
        }
        // Those are looked for.
        BodyState::Kept { .. } => ("missing", "they are not here"),
    }
}
