//! Bodies of requests: what was said, in files beside the database. Rows of the log say whether there is such a file, and
//! at which process; the files themselves say how old they are.
//!
//! `queue.rs` takes them from requests, `document.rs` puts a file together, `redact.rs`, `media.rs` and `plain.rs` say what is left
//! out, `files.rs` is the folder.

mod document;
mod files;
mod media;
mod plain;
mod queue;
mod redact;

use std::borrow::Cow;
use std::sync::Arc;

use omniroute_domain::entity::RuntimeSettings;
use omniroute_engine::bodies::BodyNote;
use omniroute_engine::ports::RowId;

use crate::call_logs::CallLog;
use crate::error::StoreError;
use crate::pool::{with_read, with_write};
use crate::store::Store;
use crate::usage::DAY_MS;

pub use document::{Document, Message, Pipeline};
pub(crate) use files::BodyFiles;
pub(crate) use queue::{BodyCounts, BodyQueue};

/// Most files that one pass deletes.
const PRUNE_STEP: usize = 100_000;
/// How long it may take until a row is in the database whose file is there already, or the other way round.
const LATE_MS: i64 = 300_000;
/// Rows that are told in one transaction.
const TELL_STEP: usize = 500;

/// What a row says of the bodies of its request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum BodyState {
    /// The setting kept none.
    #[default]
    Off,
    /// The client's key keeps none.
    NoLog,
    /// Those of failures alone were kept.
    Succeeded,
    /// The client did not say who it is, or it was the gateway's own request.
    Unknown,
    /// There was no room for them.
    Shed,
    /// They could not be written.
    Failed,
    /// They were deleted.
    Pruned,
    /// They are kept.
    Kept {
        /// Whether the client sent a body.
        request: bool,
        /// Whether it got one.
        response: bool,
        /// Whether the last upstream's are there too.
        pipeline: bool,
    },
}

/// Words of the states that say why there is nothing.
const WORDS: [(BodyState, &str); 6] = [
    (BodyState::NoLog, "noLog"),
    (BodyState::Succeeded, "succeeded"),
    (BodyState::Unknown, "unknown"),
    (BodyState::Shed, "shed"),
    (BodyState::Failed, "failed"),
    (BodyState::Pruned, "pruned"),
];
/// In the words of those that are kept, in this order.
const PARTS: [&str; 3] = ["request", "response", "pipeline"];

impl BodyState {
    /// The word in the database; `None` for the usual state.
    pub(crate) fn word(self) -> Option<Cow<'static, str>> {
        if let Self::Kept { request, response, pipeline } = self {
            let parts = PARTS.into_iter().zip([request, response, pipeline]);
            let parts: Vec<_> = parts.filter(|(_, is_there)| *is_there).map(|(name, _)| name).collect();
            return Some(format!("kept:{}", parts.join("+")).into());
        }
        WORDS.iter().find(|(state, _)| *state == self).map(|(_, word)| Cow::Borrowed(*word))
    }

    pub(crate) fn of_word(word: Option<&str>) -> Self {
        let Some(word) = word else { return Self::Off };
        if let Some(parts) = word.strip_prefix("kept:") {
            let [request, response, pipeline] = PARTS.map(|name| parts.split('+').any(|part| part == name));
            return Self::Kept { request, response, pipeline };
        }
        WORDS.iter().find(|(_, known)| *known == word).map_or(Self::Unknown, |(state, _)| *state)
    }

    pub(crate) fn of(note: &BodyNote) -> Self {
        match *note {
            BodyNote::Off => Self::Off,
            BodyNote::NoLog => Self::NoLog,
            BodyNote::Succeeded => Self::Succeeded,
            BodyNote::Unknown => Self::Unknown,
            BodyNote::Shed => Self::Shed,
            BodyNote::Kept { at: _, request, response, pipeline } => {
                Self::Kept { request, response, pipeline }
            }
        }
    }
}

/// What there is of the bodies of a request.
#[derive(Debug)]
pub enum FoundBodies {
    /// All that was kept.
    Here(Box<Document>),
    /// Nothing was kept, or it is not kept any more.
    Gone(BodyState),
    /// They are about to be written.
    Awaited,
    /// Another process has them.
    Elsewhere(String),
    /// They should be here, and are not.
    Missing,
    /// The file cannot be read.
    Unreadable(String),
}

impl Store {
    /// Keeps bodies of requests in this data directory. To be called before the writer is started.
    pub fn keep_bodies_in(&self, data_dir: &std::path::Path) {
        // Set once: a second call changes nothing.
        let _ = self.body_files_cell().set(Arc::new(BodyFiles::in_dir(data_dir)));
    }

    pub(crate) fn body_files(&self) -> Option<&Arc<BodyFiles>> {
        self.body_files_cell().get()
    }

    /// What there is of the bodies of a logged request.
    pub async fn bodies_of(&self, log: &CallLog, now_ms: i64) -> FoundBodies {
        let BodyState::Kept { .. } = log.bodies else { return FoundBodies::Gone(log.bodies) };
        let (Some(files), Some(id)) = (self.body_files().cloned(), RowId::parse(&log.id)) else {
            return FoundBodies::Missing;
        };
        let name = files.name().clone();
        let read = move || -> Result<Option<Document>, String> {
            let Some(bytes) = files.read(id).map_err(|error| error.to_string())? else { return Ok(None) };
            serde_json::from_slice(&bytes).map(Some).map_err(|error| error.to_string())
        };
        match tokio::task::spawn_blocking(read).await.map_err(|error| error.to_string()) {
            Ok(Ok(Some(document))) => FoundBodies::Here(Box::new(document)),
            Ok(Err(error)) | Err(error) => FoundBodies::Unreadable(error),
            Ok(Ok(None)) => match log.bodies_at.as_deref() {
                Some(other) if other != &*name => FoundBodies::Elsewhere(other.to_owned()),
                _ if now_ms - log.timestamp - log.duration < LATE_MS => FoundBodies::Awaited,
                _ => FoundBodies::Missing,
            },
        }
    }

    /// Deletes files of bodies that are older than the log, or than it may be, and the oldest where they are too many
    /// bytes; says how many.
    pub(crate) async fn prune_bodies(
        &self,
        now_ms: i64,
        settings: &RuntimeSettings,
    ) -> Result<u64, StoreError> {
        let Some(files) = self.body_files().cloned() else { return Ok(0) };
        let oldest: Option<i64> = with_read!(self.pool(), |db| {
            sqlx::query_scalar("SELECT MIN(timestamp) FROM call_logs").fetch_one(&mut *db).await?
        });
        let retention = now_ms.saturating_sub(i64::from(settings.log_retention_days).saturating_mul(DAY_MS));
        let before = oldest.unwrap_or(i64::MAX).min(now_ms - LATE_MS).max(retention);
        let most = settings.call_log_bodies.max_bytes();
        let old = on_disk(&files, move |files| files.remove_before(before, PRUNE_STEP)).await.len();
        let removed = on_disk(&files, move |files| files.trim(most, PRUNE_STEP)).await;
        let removed: Vec<_> = removed.into_iter().map(|id| (id, BodyState::Pruned)).collect();
        self.call_logs().tell_bodies(&removed).await?;
        Ok((old + removed.len()) as u64)
    }
}

impl crate::CallLogs<'_> {
    /// Writes down what became of the bodies of these requests.
    pub(crate) async fn tell_bodies(&self, rows: &[(RowId, BodyState)]) -> Result<(), StoreError> {
        for step in rows.chunks(TELL_STEP) {
            with_write!(self.0.pool(), |db| {
                for (id, state) in step {
                    sqlx::query(
                        "UPDATE call_logs SET bodies = $1, bodies_at = NULL WHERE timestamp = $2 AND id = $3",
                    )
                    .bind(state.word())
                    .bind(id.timestamp_ms())
                    .bind(id.to_string())
                    .execute(&mut *db)
                    .await?;
                }
            });
        }
        Ok(())
    }

    /// Deletes requests that arrived before this time, and what was said in them; says how many.
    pub async fn delete_before(&self, before_ms: i64) -> Result<u64, StoreError> {
        let deleted = crate::prune::delete_logs_before(self.0, before_ms).await?;
        if let Some(files) = self.0.body_files() {
            on_disk(files, move |files| files.remove_before(before_ms, usize::MAX)).await;
        }
        Ok(deleted)
    }
}

/// Deletes files in a thread that may wait; says which. What cannot be deleted now is left for the next time.
async fn on_disk(
    files: &Arc<BodyFiles>,
    delete: impl FnOnce(&BodyFiles) -> std::io::Result<Vec<RowId>> + Send + 'static,
) -> Vec<RowId> {
    let files = files.clone();
    match tokio::task::spawn_blocking(move || delete(&files)).await.map_err(std::io::Error::from).flatten() {
        Ok(deleted) => deleted,
        Err(error) => {
            tracing::warn!(%error, "bodies of old requests cannot be deleted now");
            Vec::new()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_read_as_they_are_written() {
        let kept = |request, response, pipeline| BodyState::Kept { request, response, pipeline };
        for state in WORDS.map(|(state, _)| state).into_iter().chain([
            BodyState::Off,
            kept(true, true, true),
            kept(false, true, false),
            kept(false, false, false),
        ]) {
            assert_eq!(BodyState::of_word(state.word().as_deref()), state);
        }
        assert_eq!(kept(true, true, false).word().as_deref(), Some("kept:request+response"));
    }
}
