//! What conversations leave behind, on its way into the database. Can be done without, so its bytes are bounded and
//! what is too much is shed; each is counted.

use std::mem;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use omniroute_domain::breaker::BreakerRecord;
use omniroute_domain::handoff::HandoffKey;
use omniroute_domain::session::Affinity;
use omniroute_engine::ports::{AnswerRow, LimitsRow, LockRow, Memory, OwnerRow, QuestionRow, ReasoningRow};

use crate::answers;
use crate::context_handoffs;
use crate::error::StoreError;
use crate::quota_snapshots::Stored;
use crate::reasoning_memory::{ROW_BYTES, place};
use crate::resilience;
use crate::similar_questions;
use crate::text::to_json;
use crate::vault::Vault;

/// Most bytes that wait to be written, those of a batch that the database does not take among them.
const MAX_WAITING: u64 = 8 * 1024 * 1024;

/// Between the requests and the writing task.
#[derive(Debug, Default)]
pub(super) struct Memories {
    waiting: Mutex<Vec<Memory>>,
    bytes: AtomicU64,
    shed: AtomicU64,
    written: AtomicU64,
    is_told: AtomicBool,
    is_closed: AtomicBool,
}

/// A memory that is ready to be stored, and what it counts of the bytes that wait.
#[derive(Debug)]
pub(crate) struct Sealed {
    pub(crate) row: Row,
    weight: u64,
}

/// A row of one of the tables.
#[derive(Debug)]
pub(crate) enum Row {
    Reasoning {
        tenant: String,
        key: String,
        parts: String,
        created_at: i64,
        expires_at: i64,
    },
    Owner(OwnerRow),
    Limits {
        connection: String,
        model: String,
        limits: String,
        updated_at: i64,
    },
    Quota(Stored),
    Pinned(Affinity),
    Unpinned {
        tenant: String,
        session: String,
    },
    Handoff(context_handoffs::Sealed),
    HandoffGone(HandoffKey),
    Breaker {
        record: BreakerRecord,
        options: String,
    },
    Lock(LockRow),
    Unlock {
        connection: String,
        model: String,
    },
    /// With the body encrypted.
    Answer(AnswerRow, String),
    /// With text and vector encrypted.
    Question(QuestionRow, String),
    AnswerUsed {
        signature: String,
        times: u32,
    },
    AnswersCleared {
        model: Option<String>,
        signature: Option<String>,
        until: i64,
    },
}

impl Sealed {
    /// Table and key, whose last part is empty where two say it all. Rows are written in this order by all writers, so that they cannot lock each other out.
    pub(super) fn place(&self) -> (u8, &str, &str, &str) {
        match &self.row {
            Row::Reasoning { tenant, key, .. } => (0, tenant, key, ""),
            Row::Owner(OwnerRow { tenant, response_id, .. }) => (1, tenant, response_id, ""),
            Row::Limits { connection, model, .. } => (2, connection, model, ""),
            Row::Quota(row) => (6, &row.connection, &row.key, ""),
            // The end of a conversation stays behind what was written of it before.
            Row::Pinned(Affinity { tenant, session, .. }) | Row::Unpinned { tenant, session } => {
                (3, tenant, session, "")
            }
            // Its end stays behind it.
            Row::Handoff(context_handoffs::Sealed { row, .. }) => {
                (8, row.key.session.tenant(), row.key.session.id(), &row.key.combo)
            }
            Row::HandoffGone(key) => (8, key.session.tenant(), key.session.id(), &key.combo),
            Row::Breaker { record, .. } => (4, &record.name, "", ""),
            // One table, so that a lock and its end stay in the order in which they happened.
            Row::Lock(LockRow { connection, lock, .. }) => (5, connection.as_str(), &lock.model, ""),
            Row::Unlock { connection, model } => (5, connection, model, ""),
            Row::Answer(AnswerRow { signature, .. }, _) | Row::AnswerUsed { signature, .. } => {
                (6, signature, "", "")
            }
            // Behind the answers that were made before.
            Row::Question(QuestionRow { signature, .. }, _) => (7, signature, "", ""),
            Row::AnswersCleared { .. } => (8, "", "", ""),
        }
    }
}

impl Memories {
    /// Takes one, if there is room. True where the task has to be woken for it.
    pub(super) fn offer(&self, memory: Memory) -> bool {
        let weight = weight(&memory);
        let waiting = self.bytes.fetch_add(weight, Ordering::Relaxed);
        if waiting + weight > MAX_WAITING || self.is_closed.load(Ordering::Relaxed) {
            self.bytes.fetch_sub(weight, Ordering::Relaxed);
            self.shed.fetch_add(1, Ordering::Relaxed);
            return false;
        }
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.push(memory);
        waiting.len() == 1
    }

    /// From now on nothing is taken.
    pub(super) fn close(&self) {
        self.is_closed.store(true, Ordering::Relaxed);
    }

    /// What waits, encrypted. Without a key nothing of it can be kept.
    pub(super) fn take(&self, vault: &Vault) -> Vec<Sealed> {
        let waiting = mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        let mut sealed = Vec::with_capacity(waiting.len());
        for memory in waiting {
            let weight = weight(&memory);
            match seal(memory, vault) {
                Ok(row) => sealed.push(Sealed { row, weight }),
                Err(error) => {
                    if !self.is_told.swap(true, Ordering::Relaxed) {
                        tracing::warn!(%error, "what was learned is not kept over a restart");
                    }
                    self.bytes.fetch_sub(weight, Ordering::Relaxed);
                    self.shed.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        sealed
    }

    /// These are stored; how many bytes they took.
    pub(super) fn written(&self, stored: &mut Vec<Sealed>) -> u64 {
        self.written.fetch_add(stored.len() as u64, Ordering::Relaxed);
        self.release(stored)
    }

    /// These never will be.
    pub(super) fn dropped(&self, refused: &mut Vec<Sealed>) {
        self.shed.fetch_add(refused.len() as u64, Ordering::Relaxed);
        self.release(refused);
    }

    pub(super) fn shed(&self) -> u64 {
        self.shed.load(Ordering::Relaxed)
    }

    pub(super) fn stored(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    fn release(&self, done: &mut Vec<Sealed>) -> u64 {
        let bytes = done.drain(..).map(|one| one.weight).sum();
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        bytes
    }
}

/// About what the limits of a model take as text.
const LIMITS_BYTES: usize = 400;

fn weight(memory: &Memory) -> u64 {
    let bytes = match memory {
        Memory::Reasoning(row) => row.tenant.len() + row.key.len() + row.parts.len(),
        Memory::Owner(row) => row.tenant.len() + row.response_id.len() + row.asked.len() + row.model.len(),
        Memory::Limits(row) => row.model.len() + LIMITS_BYTES,
        Memory::Quota(row) => row.model.as_ref().map_or(0, String::len) + LIMITS_BYTES,
        Memory::Pinned(row) => row.tenant.len() + row.session.len() + row.connection.as_str().len(),
        Memory::Unpinned(key) => key.tenant().len() + key.id().len(),
        Memory::Handoff(row) => {
            let brief = &row.handoff.brief;
            let lists = brief.key_decisions.iter().chain(&brief.active_entities).map(String::len);
            brief.summary.len() + brief.task_progress.len() + lists.sum::<usize>()
        }
        Memory::HandoffGone(key) => key.session.id().len() + key.combo.len(),
        Memory::Breaker(record) => record.name.len(),
        Memory::Lock(LockRow { lock, .. }) => lock.model.len(),
        Memory::Unlock { model, .. } => model.len(),
        Memory::Answer(row) => 2 * row.signature.len() + row.answer.asked.len() + row.answer.body.len(),
        Memory::Question(row) => {
            2 * row.signature.len() + row.asked.len() + row.text.len() + 2 * row.vector.len()
        }
        Memory::AnswerUsed { signature, .. } => signature.len(),
        Memory::AnswersCleared { .. } => 0,
    };
    (bytes + ROW_BYTES) as u64
}

fn seal(memory: Memory, vault: &Vault) -> Result<Row, StoreError> {
    Ok(match memory {
        Memory::Reasoning(ReasoningRow { tenant, key, parts, created_at, expires_at }) => {
            let text = std::str::from_utf8(&parts)
                .map_err(|_| StoreError::Damaged("reasoning_memory.parts: not a text".into()))?;
            let parts = vault.seal(&place(&tenant, &key), text)?;
            Row::Reasoning { tenant, key, parts, created_at, expires_at }
        }
        // Postgres takes no NUL; nobody can name such an id anyway.
        Memory::Owner(row) => {
            let response_id = row.response_id.replace('\0', "");
            Row::Owner(OwnerRow { response_id, ..row })
        }
        Memory::Limits(LimitsRow { connection, model, limits, updated_at }) => Row::Limits {
            connection: connection.to_string(),
            model: model.replace('\0', ""),
            limits: to_json(&limits)?,
            updated_at,
        },
        Memory::Quota(row) => Row::Quota(Stored::of(&row)?),
        Memory::Pinned(row) => Row::Pinned(row),
        Memory::Unpinned(key) => {
            Row::Unpinned { tenant: key.tenant().to_owned(), session: key.id().to_owned() }
        }
        Memory::Handoff(row) => Row::Handoff(context_handoffs::Sealed::of(row, vault)?),
        Memory::HandoffGone(key) => Row::HandoffGone(key),
        Memory::Breaker(record) => Row::Breaker { options: resilience::options(&record)?, record },
        Memory::Lock(mut row) => {
            row.lock.model = row.lock.model.replace('\0', "");
            Row::Lock(row)
        }
        Memory::Unlock { connection, model } => {
            Row::Unlock { connection: connection.to_string(), model: model.replace('\0', "") }
        }
        Memory::Answer(row) => {
            let text = std::str::from_utf8(&row.answer.body)
                .map_err(|_| StoreError::Damaged("semantic_cache.response: not a text".into()))?;
            let body = vault.seal(&answers::place(&row.signature), text)?;
            Row::Answer(row, body)
        }
        Memory::Question(row) => {
            let content = similar_questions::seal(&row, vault)?;
            Row::Question(row, content)
        }
        Memory::AnswerUsed { signature, times } => Row::AnswerUsed { signature, times },
        Memory::AnswersCleared { model, signature, until } => Row::AnswersCleared {
            model: model.map(|model| model.replace('\0', "")),
            signature: signature.map(|signature| signature.replace('\0', "")),
            until,
        },
    })
}

#[cfg(test)]
mod tests {
    use omniroute_domain::session::SessionKey;

    use super::*;

    /// Two writers that take the rows of one conversation in different orders can lock each other out.
    #[test]
    fn rows_of_one_conversation_have_an_order() {
        let gone = |combo: &str| {
            let key = HandoffKey { session: SessionKey::new("k1", "s1"), combo: combo.into() };
            Sealed { row: Row::HandoffGone(key), weight: 0 }
        };
        assert!(gone("a").place() < gone("b").place());
        assert_eq!(gone("a").place(), gone("a").place());
    }
}
