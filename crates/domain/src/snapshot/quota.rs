//! What is left of an account: by the vendor's word (in headers, or when it is asked), by the operator's requests per minute,
//! and by its plan.

use super::ConnectionState;
use crate::health::{Blocked, Hold};
use crate::plan::{LOW, PlanLeft};
use crate::routing::Quota;
use omniroute_provider::FailureKind;

impl ConnectionState {
    /// What is left for a model, of whatever is scarcest; `None` where nobody says anything.
    pub fn quota(&self, model: &str, now_ms: i64) -> Option<Quota> {
        let told = self.told(model, now_ms);
        let told = scarcer(told, self.vendor_left(now_ms));
        let Some(PlanLeft { share, until, loss_per_ms }) = self.plan_left(now_ms) else { return told };
        let own = Quota { left: share, reset_ms: until - now_ms, loss_per_ms };
        match told.filter(|told| told.left < share) {
            // A plan says more of what is lost than a minute's limit does.
            Some(told) => Some(Quota { loss_per_ms, ..told }),
            None => Some(own),
        }
    }

    /// The share that is left for a model by the vendor's word or by the plan; requests per minute do not count.
    pub fn rest(&self, model: &str, now_ms: i64) -> Option<f64> {
        let told = self.most(model, now_ms, |key| key.health.gate.left(model, now_ms)).map(|(left, _)| left);
        let own = self.plan_left(now_ms).map(|left| left.share);
        let asked = self.vendor_left(now_ms).map(|quota| quota.left);
        [told, own, asked].into_iter().flatten().min_by(f64::total_cmp)
    }

    /// Whether so little is left that others that have more come first.
    pub fn is_low(&self, model: &str, now_ms: i64) -> bool {
        self.are_headers_low(model, now_ms)
            || self.account().vendor.is_low(now_ms)
            || self.plan_left(now_ms).is_some_and(|left| left.share <= LOW)
    }

    /// What is left by the headers and the operator's requests per minute.
    fn told(&self, model: &str, now_ms: i64) -> Option<Quota> {
        let told =
            self.most(model, now_ms, |key| key.health.gate.headroom(key.limits.as_ref(), model, now_ms));
        told.map(|(left, until)| Quota::told(left, until - now_ms))
    }

    /// What is left of the account's key: of several the one that has most counts, since it is the one to be asked. One that
    /// says nothing may have all of it.
    fn most(
        &self,
        model: &str,
        now_ms: i64,
        left: impl Fn(&Self) -> Option<(f64, i64)>,
    ) -> Option<(f64, i64)> {
        if self.pool.is_empty() {
            return left(self);
        }
        let mut most: Option<(f64, i64)> = None;
        for key in self.counting_keys(model, now_ms) {
            let own = left(key)?;
            most = Some(most.filter(|most| most.0 >= own.0).unwrap_or(own));
        }
        most
    }

    /// Whether the headers say that little is left: of each key, where there are several.
    fn are_headers_low(&self, model: &str, now_ms: i64) -> bool {
        let is_low = |key: &Self| key.health.gate.is_low(model, now_ms);
        if self.pool.is_empty() {
            return is_low(self);
        }
        self.counting_keys(model, now_ms).all(|key| is_low(key))
    }

    fn plan_left(&self, now_ms: i64) -> Option<PlanLeft> {
        self.account().plan.left(&self.plan, now_ms)
    }

    fn vendor_left(&self, now_ms: i64) -> Option<Quota> {
        let (left, reset_at) = self.account().vendor.left(now_ms)?;
        Some(match reset_at {
            Some(at) => Quota::told(left, at - now_ms),
            // Money is not lost by waiting.
            None => Quota { left, reset_ms: i64::MAX, loss_per_ms: 0.0 },
        })
    }

    /// What keeps the account from serving, its plan and its vendor's word too; of several things the one that ends last.
    pub(super) fn check_plan(&self, other: Result<(), Blocked>, now_ms: i64) -> Result<(), Blocked> {
        let account = self.account();
        let own = account.plan.spent_until(&self.plan, now_ms);
        let Some(until) = own.max(account.vendor.spent_until(now_ms)) else { return other };
        match other {
            Err(blocked) if blocked.until.is_none_or(|end| end > until) => Err(blocked),
            Ok(()) | Err(_) => {
                Err(Blocked { reason: FailureKind::QuotaSpent, until: Some(until), hold: Hold::Connection })
            }
        }
    }
}

/// Of two quotas the one of which less is left.
fn scarcer(one: Option<Quota>, other: Option<Quota>) -> Option<Quota> {
    [one, other].into_iter().flatten().min_by(|one, other| one.left.total_cmp(&other.left))
}
