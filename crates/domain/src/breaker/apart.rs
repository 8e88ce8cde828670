//! A breaker as a copy that goes its own way.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use super::Breaker;

impl Breaker {
    pub(crate) fn apart(&self) -> Self {
        let inner = self.inner();
        Self {
            name: self.name.clone(),
            provider: self.provider.clone(),
            is_shut: AtomicBool::new(self.is_shut.load(Ordering::Acquire)),
            is_troubled: AtomicBool::new(self.is_troubled.load(Ordering::Acquire)),
            inner: Mutex::new(inner.clone()),
        }
    }
}
