//! The targets of a plan, in order.

use std::sync::{Arc, OnceLock};

use smallvec::{SmallVec, smallvec};

use super::needs::Common;
use super::{ComboState, Place, Planned};
use crate::price::PlainRates;
use crate::resolve::Target;
use crate::routing::Order;

/// The targets of a plan, in order: a list of [`Planned`]. Of a combo whose steps are models that all suit the request only
/// the order is noted, and the list made when somebody wants to see it, which for most requests nobody does.
#[derive(Clone, Default)]
pub struct Targets {
    steps: Option<Box<Steps>>,
    list: OnceLock<Vec<Planned>>,
}

/// The costs of targets, in billionths of a US dollar; `None` = unknown.
pub(super) type Costs = SmallVec<[Option<i64>; 8]>;

/// All steps of a combo, in an order.
#[derive(Clone)]
struct Steps {
    combo: Arc<ComboState>,
    common: Arc<Common>,
    order: Order,
    costs: Costs,
}

impl Steps {
    fn at(&self, place: usize) -> Planned {
        let step = usize::from(self.order[place]);
        Planned {
            path: smallvec![Place { combo: self.combo.clone(), step }],
            target: self.common.targets[step].clone(),
            cost_nano: self.costs[place],
            score: None,
        }
    }

    fn list(&self) -> Vec<Planned> {
        (0..self.order.len()).map(|place| self.at(place)).collect()
    }
}

impl Targets {
    /// All steps of a combo in this order, with what each would cost.
    pub(super) fn of_steps(
        combo: &Arc<ComboState>,
        common: &Arc<Common>,
        order: Order,
        costs: Costs,
    ) -> Self {
        let steps = Steps { combo: combo.clone(), common: common.clone(), order, costs };
        Self { steps: Some(Box::new(steps)), list: OnceLock::new() }
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.steps.as_ref().map_or_else(|| self.list().len(), |steps| steps.order.len())
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The one at a place below [`len`](Self::len), by itself.
    pub fn at(&self, place: usize) -> Planned {
        match &self.steps {
            Some(steps) => steps.at(place),
            None => self.list()[place].clone(),
        }
    }

    /// Where the one at a place below [`len`](Self::len) leads.
    pub fn target(&self, place: usize) -> &Arc<Target> {
        match &self.steps {
            Some(steps) => &steps.common.targets[usize::from(steps.order[place])],
            None => &self.list()[place].target,
        }
    }

    /// Where each leads.
    pub fn each(&self) -> impl ExactSizeIterator<Item = &Arc<Target>> {
        (0..self.len()).map(|place| self.target(place))
    }

    /// What the request would cost at each, in billionths of a US dollar; `None` = unknown.
    pub fn costs(&self) -> impl ExactSizeIterator<Item = Option<i64>> {
        (0..self.len()).map(|place| match &self.steps {
            Some(steps) => steps.costs[place],
            None => self.list()[place].cost_nano,
        })
    }

    /// Whether it is told what speaks for any of them.
    pub fn are_scored(&self) -> bool {
        self.steps.is_none() && self.list().iter().any(|planned| planned.score.is_some())
    }

    /// What so many tokens of prompt and of answer cost at the dearest of them, in billionths of a US dollar, where that can be
    /// told of all without looking at each.
    pub fn dearest(&self, input: u64, output: u64) -> Option<i64> {
        PlainRates::dearest(self.steps.as_ref()?.common.rates.as_deref()?, input, output)
    }

    /// Appends what tells these targets and their order from any others of the same state of the combo.
    pub fn mark(&self, key: &mut Vec<u8>) {
        let Some(steps) = &self.steps else {
            key.push(0);
            let addresses = self.list().iter().map(|planned| Arc::as_ptr(&planned.target).addr());
            return addresses.for_each(|address| key.extend_from_slice(&address.to_le_bytes()));
        };
        key.push(1);
        steps.order.iter().for_each(|step| key.extend_from_slice(&step.to_le_bytes()));
    }

    /// Changes the list.
    pub fn edit<T>(&mut self, change: impl FnOnce(&mut Vec<Planned>) -> T) -> T {
        let mut list = std::mem::take(self).into_list();
        let told = change(&mut list);
        *self = list.into();
        told
    }

    /// As a list.
    pub fn into_list(self) -> Vec<Planned> {
        let Self { steps, list } = self;
        list.into_inner().or_else(|| steps.map(|steps| steps.list())).unwrap_or_default()
    }

    /// The list; made, where there is none yet.
    pub fn list(&self) -> &[Planned] {
        self.list.get_or_init(|| self.steps.as_ref().map(|steps| steps.list()).unwrap_or_default())
    }
}

impl From<Vec<Planned>> for Targets {
    fn from(list: Vec<Planned>) -> Self {
        Self { steps: None, list: OnceLock::from(list) }
    }
}

impl IntoIterator for Targets {
    type Item = Planned;
    type IntoIter = std::vec::IntoIter<Planned>;

    fn into_iter(self) -> Self::IntoIter {
        self.into_list().into_iter()
    }
}
