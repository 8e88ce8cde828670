//! What is known of a key goes where the key is: from an account to one of its several keys, back, or away with the key.

use std::sync::atomic::Ordering;

use super::{ConnectionHealth, Detail, ModelLock, has_error};
use crate::entity::ConnectionStatus;

/// What was known of a connection, apart from it.
struct Taken {
    cooldown_until: i64,
    cooldown_level: u32,
    auth_failures: u32,
    detail: Detail,
}

impl ConnectionHealth {
    /// What is known there is known here from now on, and there no more; where it is nothing but limits, the rest stays as it is. Gives the
    /// locks, or `None` where nothing else was known.
    pub(crate) fn take_over(&self, from: &Self) -> Option<Vec<ModelLock>> {
        self.gate.take_over(&from.gate);
        if from.is_blank() {
            return None;
        }
        let taken = from.empty();
        self.cooldown_until.store(taken.cooldown_until, Ordering::Release);
        self.cooldown_level.store(taken.cooldown_level, Ordering::Release);
        self.auth_failures.store(taken.auth_failures, Ordering::Release);
        self.terminal.store(taken.detail.status.test_status.is_terminal(), Ordering::Release);
        self.has_error.store(has_error(&taken.detail.status), Ordering::Release);
        let told = taken.detail.told();
        let mut detail = self.detail();
        detail.locks.extend(taken.detail.locks);
        detail.missing_dialects.extend(taken.detail.missing_dialects);
        detail.cooldown_reason = taken.detail.cooldown_reason;
        detail.status = taken.detail.status;
        self.has_locks.store(!detail.locks.is_empty(), Ordering::Release);
        self.has_missing_dialects.store(!detail.missing_dialects.is_empty(), Ordering::Release);
        Some(told)
    }

    /// It has another key: nothing is known of that. Gives the locks that ended so, or `None` where nothing was known of the one
    /// before but limits.
    pub(crate) fn start_anew(&self) -> Option<Vec<ModelLock>> {
        self.vendor.forget();
        self.gate.forget();
        let was_blank = self.is_blank();
        let told = self.empty().detail.told();
        self.detail().status.last_tested = None;
        (!was_blank).then_some(told)
    }

    fn is_blank(&self) -> bool {
        self.is_clean() && !self.terminal.load(Ordering::Acquire)
    }

    /// Takes out what is known but for when it was used and tested.
    fn empty(&self) -> Taken {
        self.terminal.store(false, Ordering::Release);
        self.has_error.store(false, Ordering::Release);
        self.has_locks.store(false, Ordering::Release);
        self.has_missing_dialects.store(false, Ordering::Release);
        let mut detail = self.detail();
        let ConnectionStatus { last_tested, last_used_at, .. } = detail.status;
        let status = ConnectionStatus { last_tested, last_used_at, ..ConnectionStatus::default() };
        Taken {
            cooldown_until: self.cooldown_until.swap(0, Ordering::AcqRel),
            cooldown_level: self.cooldown_level.swap(0, Ordering::AcqRel),
            auth_failures: self.auth_failures.swap(0, Ordering::AcqRel),
            detail: std::mem::replace(&mut *detail, Detail { status, ..Detail::default() }),
        }
    }
}

impl Detail {
    fn told(&self) -> Vec<ModelLock> {
        self.locks.iter().map(|(model, lock)| lock.told(model)).collect()
    }
}
