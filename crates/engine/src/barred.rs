//! A request that is refused for where it leads, or leads nowhere: who would have been asked otherwise, and why nobody is. The
//! same for an explanation and for the record.

use std::sync::Arc;

use omniroute_domain::policy::Verdict;
use omniroute_domain::resolve::{ResolveError, Route, Target};
use omniroute_domain::snapshot::{IdleAccount, Snapshot};

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
    /// Its model leads nowhere, or to providers none of whose accounts is asked.
    Lost(Vec<Unserved>),
    /// It may not get to where it leads.
    From {
        /// Where that is.
        route: Route,
        /// What does not let it.
        skip: Skip,
    },
}

/// A model of a provider none of whose accounts is asked.
#[derive(Clone)]
pub(crate) struct Unserved {
    pub(crate) model: Arc<str>,
    /// Those accounts; never empty.
    pub(crate) accounts: Arc<[IdleAccount]>,
}

impl Unserved {
    /// A single account that was to be asked.
    pub(crate) fn one(account: &IdleAccount, model: &str) -> Self {
        Self { model: model.into(), accounts: [account.clone()].into() }
    }

    /// Those that a name leads to which leads nowhere.
    pub(crate) fn of(snapshot: &Snapshot, error: &ResolveError) -> Vec<Self> {
        let Some((providers, model)) = error.unserved() else { return Vec::new() };
        let model: Arc<str> = model.into();
        let unserved = providers
            .iter()
            .map(|provider| Self { model: model.clone(), accounts: snapshot.idle_accounts(provider) });
        unserved.filter(|one| !one.accounts.is_empty()).take(MOST).collect()
    }
}

impl Barred {
    /// Whom the request would have asked, as they stand in the configuration.
    pub(crate) fn targets(&self, ctx: &RequestCtx) -> Vec<Arc<Target>> {
        let mut targets = match self {
            Self::Lost(_) => Vec::new(),
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
    /// The request leads nowhere, but perhaps to those.
    pub(crate) fn lose(&mut self, unserved: Vec<Unserved>) {
        self.barred = Some(Box::new(Barred::Lost(unserved)));
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
