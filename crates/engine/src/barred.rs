//! A request that is refused for where it leads: who would have been asked otherwise, and why nobody is. The same for an
//! explanation and for the record.

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

/// Where a request would have led, and what does not let it.
pub(crate) struct Barred {
    pub(crate) route: Route,
    pub(crate) skip: Skip,
}

impl Barred {
    /// Whom the request would have asked, as they stand in the configuration.
    pub(crate) fn targets(&self, ctx: &RequestCtx) -> Vec<Arc<Target>> {
        let mut targets = match &self.route {
            Route::Target(target) => {
                let mut targets = fallback::others(ctx, target);
                targets.insert(0, target.clone());
                targets
            }
            Route::Combo(combo) => combo.targets(&ctx.snapshot),
        };
        targets.truncate(MOST);
        targets
    }
}

impl RequestCtx {
    /// The request does not get to where it leads, for this reason. `verdict` is what the policies said, where they had a say in it.
    pub(crate) fn bar(
        &mut self,
        route: Route,
        rule: &'static str,
        error: &GatewayError,
        verdict: Option<Box<Verdict>>,
    ) {
        let until = error.retry_after.map(|wait| self.started_ms.saturating_add(millis(wait)));
        let skip = Skip { rule, reason: error.message.clone(), until };
        if let Some(verdict) = verdict {
            let Verdict { applied, observed, .. } = *verdict;
            self.steering = Some(Box::new(Steering { applied, observed, ..Steering::default() }));
        }
        self.barred = Some(Box::new(Barred { route, skip }));
    }
}
