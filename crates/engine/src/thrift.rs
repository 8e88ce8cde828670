//! What becomes of requests that a budget has no room for, where it does not simply refuse them: they go to a combo that it
//! names, or to those of their targets that cost nothing. Once: what has no room there either is refused.

use std::fmt;
use std::sync::Arc;

use omniroute_domain::budget::Window;
use omniroute_domain::combo::{ComboState, Planned, Targets};
use omniroute_domain::entity::OnExceeded;
use omniroute_domain::resolve::Target;

use crate::admit;
use crate::ctx::RequestCtx;
use crate::error::GatewayError;
use crate::task;

/// What a request became because a budget had no room for it. Reads `daily downgrade:cheap free-only`.
#[derive(Debug, Clone)]
pub(crate) struct Thrift {
    window: Window,
    /// The combo that is asked in the place of what the client named.
    combo: Option<Arc<str>>,
    /// Whether only what costs nothing is asked.
    pub(crate) is_free_only: bool,
}

impl fmt::Display for Thrift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.window.as_str())?;
        if let Some(combo) = &self.combo {
            write!(f, " downgrade:{combo}")?;
        }
        if self.is_free_only { f.write_str(" free-only") } else { Ok(()) }
    }
}

impl RequestCtx {
    /// What the budget says that refused the request.
    fn way_out(&self) -> Option<(Window, OnExceeded)> {
        let exceeded = self.money.exceeded()?;
        let state = self.snapshot.budgets.of(exceeded.key.as_ref())?;
        Some((exceeded.window, state.budget.on_exceeded.clone()))
    }

    /// Whether what costs nothing is asked all the same. With a combo to go to, that is so for its targets.
    pub(crate) fn keeps_free(&self) -> bool {
        match self.way_out() {
            Some((_, OnExceeded::FreeOnly)) => true,
            Some((_, OnExceeded::Downgrade(_))) => self.money.thrift.is_some(),
            Some((_, OnExceeded::Block)) | None => false,
        }
    }

    /// Leaves those of a plan that cost nothing, or refuses the request; gives the others.
    pub(crate) fn keep_free(
        &mut self,
        targets: &mut Targets,
        error: GatewayError,
    ) -> Result<Vec<Planned>, GatewayError> {
        if !self.keeps_free() || !targets.each().any(|target| self.is_free(target)) {
            return Err(error);
        }
        self.go_free()?;
        Ok(targets.edit(|list| list.extract_if(.., |planned| !self.is_free(&planned.target)).collect()))
    }

    /// Goes on with what costs nothing, unless another budget refuses that too.
    pub(crate) fn go_free(&mut self) -> Result<(), GatewayError> {
        let Some((window, _)) = self.way_out() else { return Ok(()) };
        self.hold_nothing()?;
        self.money.forgive();
        let thrift = self.money.thrift.get_or_insert_with(|| Box::new(Thrift::of(window)));
        thrift.is_free_only = true;
        Ok(())
    }

    /// The combo to go to. A request that is bound to what it names stays, and so does one whose key may not use the combo, or
    /// which nobody in it can do.
    pub(crate) fn downgrade(&mut self) -> Option<Arc<ComboState>> {
        let (window, OnExceeded::Downgrade(name)) = self.way_out()? else { return None };
        let kept = self.envelope.as_ref().and_then(|envelope| envelope.kept.as_ref());
        let is_bound = kept.is_some_and(|kept| !kept.names.is_empty())
            || self.pinned.is_some()
            || self.arrival.provider.is_some();
        if is_bound || self.money.thrift.is_some() {
            return None;
        }
        let combo = self.snapshot.combo(&name)?.clone();
        admit::check_combo(self, &combo).ok()?;
        if !self.fits_task(&combo) {
            return None;
        }
        if self.arrival.is_logged {
            tracing::info!(request_id = %self.request_id, combo = %combo.name, "the budget sends the request to another combo");
        }
        self.money.forgive();
        self.money.thrift = Some(Box::new(Thrift { combo: Some(combo.name.clone()), ..Thrift::of(window) }));
        self.combo = Some(combo.name.clone());
        Some(combo)
    }
}

impl RequestCtx {
    /// Whether a combo has somebody for what is asked. What only the asked model may make, no other combo can.
    fn fits_task(&self, combo: &ComboState) -> bool {
        let Some(job) = &self.task else { return true };
        let is_able = |target: &Arc<Target>| task::able(self, target).is_ok();
        job.task.may_mix_models() && combo.targets(&self.snapshot).iter().any(is_able)
    }
}

impl Thrift {
    const fn of(window: Window) -> Self {
        Self { window, combo: None, is_free_only: false }
    }
}
