//! Every entry of a combo and where it leads, whatever its conditions say of a request of which nothing is known.

use std::sync::Arc;

use omniroute_domain::combo::{self, ComboState, LeftOut, RequestFacts, Rule, StepState};
use omniroute_domain::entity::Goal;
use omniroute_domain::resolve::Target;
use omniroute_domain::snapshot::{ConnectionState, Snapshot};

/// An entry that leads to a model.
pub(crate) struct Entry {
    pub(crate) step: Arc<str>,
    pub(crate) target: Arc<Target>,
    /// Why requests of which nothing is known leave it out.
    pub(crate) left_out: Option<String>,
    /// Labels that an account must have for it.
    tags: Vec<String>,
}

/// The entries of a combo: those that lead to a model, in the order of the strategy, then those that are left out; and those
/// that lead nowhere.
pub(crate) fn entries(
    snapshot: &Snapshot,
    combo: &Arc<ComboState>,
    now_ms: i64,
) -> (Vec<Entry>, Vec<LeftOut>) {
    let mut found = Search { snapshot, now_ms, entries: Vec::new(), dead: Vec::new() };
    found.collect(combo, &[], combo.policy.max_depth, None);
    let Search { mut entries, dead, .. } = found;
    // Those that are asked come first.
    entries.sort_by_key(|entry| entry.left_out.is_some());
    (entries, dead)
}

impl Entry {
    /// Whether an account may serve it, if not now.
    pub(crate) fn may_be_served_by(&self, connection: &ConnectionState) -> bool {
        self.is_meant(connection) && !connection.excludes(&self.target.model) && self.is_tagged(connection)
    }

    /// The account that is asked first of those that may serve it, one of its keys where it has several: one that may now, before
    /// one that may again in time. In words where there is none.
    pub(crate) fn account(&self, now_ms: i64) -> Result<&Arc<ConnectionState>, &'static str> {
        let model = &self.target.model;
        let all = &self.target.provider.connections;
        let meant: Vec<_> = all.iter().filter(|connection| self.is_meant(connection)).collect();
        if meant.is_empty() {
            return Err("the provider has no active account");
        }
        let open: Vec<_> = meant.into_iter().filter(|connection| !connection.excludes(model)).collect();
        if open.is_empty() {
            return Err("all accounts are kept from this model; see their `excludedModels`");
        }
        let tagged: Vec<_> = open.into_iter().filter(|connection| self.is_tagged(connection)).collect();
        if tagged.is_empty() {
            return Err("no account has the labels that the combo wants; see its `requiredTags`");
        }
        let is_ready = |connection: &&Arc<ConnectionState>| connection.check(model, now_ms).is_ok();
        let comes_back = |connection: &&Arc<ConnectionState>| match connection.check(model, now_ms) {
            Ok(()) => true,
            Err(blocked) => blocked.until.is_some(),
        };
        let chosen = tagged.iter().copied().find(is_ready).or_else(|| tagged.into_iter().find(comes_back));
        let account = chosen.ok_or("no account may be asked until the operator acts; see /api/providers")?;
        Ok(account.pool.iter().find(is_ready).unwrap_or(account))
    }

    fn is_meant(&self, connection: &ConnectionState) -> bool {
        self.target.connection_name.as_deref().is_none_or(|name| *connection.name == *name)
    }

    fn is_tagged(&self, connection: &ConnectionState) -> bool {
        connection.has_tags(self.tags.iter().map(String::as_str))
    }
}

struct Search<'a> {
    snapshot: &'a Snapshot,
    now_ms: i64,
    entries: Vec<Entry>,
    dead: Vec<LeftOut>,
}

impl Search<'_> {
    /// `tags` are wanted by the combos around this one, `why` is the reason for which they leave it out.
    fn collect(&mut self, combo: &Arc<ComboState>, tags: &[String], depth: usize, why: Option<&str>) {
        let plan = combo::plan(self.snapshot, combo, &RequestFacts::default(), self.now_ms, 0, false);
        for planned in plan.targets {
            let own = planned.path.iter().flat_map(|place| &place.combo.rules.tags);
            self.entries.push(Entry {
                step: planned.path.last().map(|place| place.step().id.clone()).unwrap_or_default(),
                tags: tags.iter().chain(own).cloned().collect(),
                target: planned.target,
                left_out: why.map(str::to_owned),
            });
        }
        for left in plan.left_out {
            let mut tags = tags.to_vec();
            match find(self.snapshot, combo, &left, depth, &mut tags) {
                Some((step, depth)) => self.left_out(step, left, tags, depth),
                None => self.dead.push(left),
            }
        }
    }

    fn left_out(&mut self, step: &StepState, mut left: LeftOut, tags: Vec<String>, depth: usize) {
        let inner = match &step.goal {
            Goal::ComboRef { combo_name } => self.snapshot.combo(combo_name),
            Goal::Model { .. } => None,
        };
        let is_whole = |inner: &&Arc<ComboState>| {
            left.rule == Rule::Condition && depth > 1 && !inner.strategy.manner().is_joint()
        };
        match (step.target(self.snapshot), inner.filter(is_whole)) {
            (Some(Ok(target)), _) => {
                let (step, target) = (left.step, target.clone());
                self.entries.push(Entry { step, target, left_out: Some(left.reason), tags });
            }
            (_, Some(inner)) => self.collect(inner, &tags, depth - 1, Some(&left.reason)),
            (error, None) => {
                // Where it leads matters more than for whom it is.
                if let Some(Err(error)) = error {
                    (left.rule, left.reason) = (Rule::Inactive, error.to_string());
                }
                self.dead.push(left);
            }
        }
    }
}

/// The step that was left out, how many combos may stand from its own on, and what those on the way to it want of accounts.
fn find<'a>(
    snapshot: &'a Snapshot,
    combo: &'a ComboState,
    left: &LeftOut,
    depth: usize,
    tags: &mut Vec<String>,
) -> Option<(&'a StepState, usize)> {
    let before = tags.len();
    tags.extend(combo.rules.tags.iter().cloned());
    for step in combo.steps.iter() {
        let goal = match &step.goal {
            Goal::Model { model, .. } => model,
            Goal::ComboRef { combo_name } => combo_name,
        };
        if *step.id == *left.step && *goal == left.goal {
            return Some((step, depth));
        }
        if let Goal::ComboRef { combo_name } = &step.goal
            && depth > 1
            && let Some(inner) = snapshot.combo(combo_name)
            && let Some(found) = find(snapshot, inner, left, depth - 1, tags)
        {
            return Some(found);
        }
    }
    tags.truncate(before);
    None
}
