//! A request that is refused for where it leads, or leads nowhere: who would have been asked otherwise, and why nobody is. The
//! same for an explanation and for the record.

use std::sync::Arc;

use omniroute_domain::policy::Verdict;
use omniroute_domain::resolve::{Route, Target};

use crate::ctx::RequestCtx;
use crate::error::GatewayError;
use crate::fallback;
use crate::policy::Steering;
use crate::preview::Skip;
use crate::time::millis;

/// Most targets that are told of.
const MOST: usize = 32;

/// Why a request gets to nobody.
pub(crate) enum Barred {
    /// Its model leads nowhere.
    Lost,
    /// It may not get to where it leads.
    From {
        /// Where that is.
        route: Route,
        /// What does not let it.
        skip: Skip,
    },
}

impl Barred {
    /// Whom the request would have asked, as they stand in the configuration.
    pub(crate) fn targets(&self, ctx: &RequestCtx) -> Vec<Arc<Target>> {
        let mut targets = match self {
            Self::Lost => Vec::new(),
            Self::From { route: Route::Target(target), .. } => {
                let mut targets = fallback::others(ctx, target);
                targets.insert(0, target.clone());
                targets
            }
            Self::From { route: Route::Combo(combo), .. } => combo.targets(&ctx.snapshot),
        };
        targets.truncate(MOST);
        targets
    }
}

impl RequestCtx {
    /// The request leads nowhere.
    pub(crate) fn lose(&mut self) {
        self.barred = Some(Box::new(Barred::Lost));
    }

    /// The request does not get to where it leads, for this reason.
    pub(crate) fn bar(&mut self, route: Route, rule: &'static str, error: &GatewayError) {
        let until = error.retry_after.map(|wait| self.started_ms.saturating_add(millis(wait)));
        let skip = Skip { rule, reason: error.message.clone(), until };
        self.barred = Some(Box::new(Barred::From { route, skip }));
    }

    /// This is what the policies said of a request that gets to nobody.
    pub(crate) fn judged(&mut self, verdict: Verdict) {
        let Verdict { applied, observed, .. } = verdict;
        self.steering = Some(Box::new(Steering { applied, observed, ..Steering::default() }));
    }
}
