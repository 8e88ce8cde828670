//! A target whose turn comes for a call that one account gets or nobody: to count tokens, or about an answer that a vendor
//! keeps. The same for the call, its record and an explanation.

use std::sync::Arc;

use omniroute_domain::resolve::Target;
use omniroute_domain::snapshot::ConnectionState;

use crate::ctx::RequestCtx;
use crate::error::GatewayError;
use crate::policy;
use crate::preview::Skip;
use crate::time::millis;

/// What such a call costs, in billionths of a US dollar.
pub(crate) const COST_NANO: i64 = 0;

/// An account, and what keeps it from being asked.
pub(crate) type Standing = (Arc<ConnectionState>, Option<Skip>);

/// A target, and what the call has of it.
pub(crate) struct Turn {
    pub(crate) target: Arc<Target>,
    /// Its accounts by priority; one at most has nothing in its way.
    pub(crate) accounts: Vec<Standing>,
}

impl Turn {
    /// With what `keeps` each account from being asked.
    pub(crate) fn with(
        target: &Arc<Target>,
        mut keeps: impl FnMut(&Arc<ConnectionState>) -> Option<Skip>,
    ) -> Self {
        let accounts = target.provider.connections.iter();
        let accounts = accounts.map(|account| (account.clone(), keeps(account))).collect();
        Self { target: target.clone(), accounts }
    }

    /// The client gets this instead, so that nobody is asked.
    pub(crate) fn refuse(&mut self, error: &GatewayError, now_ms: i64) {
        let until = error.retry_after.map(|wait| now_ms.saturating_add(millis(wait)));
        for (_, skip) in self.accounts.iter_mut().filter(|(_, skip)| skip.is_none()) {
            *skip = Some(Skip { rule: "key", reason: error.message.clone(), until });
        }
    }

    /// None of its accounts is asked, and this is why.
    pub(crate) fn passed(target: &Arc<Target>, rule: &'static str, reason: &str) -> Self {
        Self::with(target, |_| Some(Skip::plain(rule, reason)))
    }
}

impl RequestCtx {
    /// What the request would cost at a target, in billionths of a US dollar; `None` = unknown.
    pub(crate) fn cost_at(&self, target: &Target) -> Option<i64> {
        match self.is_count || self.about.is_some() {
            true => Some(COST_NANO),
            false => policy::cost_nano(self, target),
        }
    }
}
