//! Every entry of a combo and where it leads, whatever its conditions say of a request of which nothing is known.

use std::collections::HashSet;
use std::sync::Arc;

use omniroute_domain::combo::{self, ComboState, LeftOut, MAX_ENTRIES, RequestFacts, Rule, StepState};
use omniroute_domain::entity::{ComboId, Goal};
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
    let mut found = Search { snapshot, now_ms, looked_at: 0, entries: Vec::new(), dead: Vec::new() };
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
    /// Entries of all combos that were collected.
    looked_at: usize,
    entries: Vec<Entry>,
    dead: Vec<LeftOut>,
}

impl Search<'_> {
    /// `tags` are wanted by the combos around this one, `why` is the reason for which they leave it out.
    fn collect(&mut self, combo: &Arc<ComboState>, tags: &[String], depth: usize, why: Option<&str>) {
        self.looked_at += combo.steps.len();
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
            match find(self.snapshot, combo, &left, depth, &mut tags, &mut HashSet::new()) {
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
            // Old rows may lead to more than what is written now may.
            (_, Some(_)) if self.looked_at >= MAX_ENTRIES => {
                left.rule = Rule::Nesting;
                left.reason =
                    format!("a combo may have {MAX_ENTRIES} entries with those of the combos within it");
                self.dead.push(left);
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

/// The step that was left out, how many combos may stand from its own on, and what those on the way to it want of accounts. `without`
/// are combos that were gone through in vain, with how many might stand from each on: many ways may lead to the same one.
fn find<'a>(
    snapshot: &'a Snapshot,
    combo: &'a ComboState,
    left: &LeftOut,
    depth: usize,
    tags: &mut Vec<String>,
    without: &mut HashSet<(&'a ComboId, usize)>,
) -> Option<(&'a StepState, usize)> {
    if without.contains(&(&combo.id, depth)) {
        return None;
    }
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
            && let Some(found) = find(snapshot, inner, left, depth - 1, tags, without)
        {
            return Some(found);
        }
    }
    tags.truncate(before);
    without.insert((&combo.id, depth));
    None
}

#[cfg(test)]
mod tests {
    use omniroute_domain::entity::{Entities, When};
    use omniroute_domain::health::HealthMap;
    use omniroute_domain::snapshot::BuildOptions;
    use omniroute_provider::catalog::catalog;

    use super::super::nesting::tests::combo;
    use super::*;

    const WIDTH: usize = 16;
    const LEVELS: usize = 8;

    /// Levels of combos, each of which leads to all of the next one: as many ways as there are milliseconds in three days.
    fn ladder(when: &When) -> Snapshot {
        let combo = |level: usize, place: usize| {
            let below = if level + 1 < LEVELS { WIDTH } else { 0 };
            combo(&format!("{level}-{place}"), (0..below).map(|to| format!("{}-{to}", level + 1)), Some(when))
        };
        let combos = (0..LEVELS).flat_map(|level| (0..WIDTH).map(move |place| combo(level, place))).collect();
        let entities = Entities { combos, ..Entities::default() };
        Snapshot::build(&entities, catalog(), &HealthMap::default(), &BuildOptions::default())
    }

    #[test]
    fn what_old_rows_lead_to_is_looked_at_as_far_as_an_entry_may_lead() {
        let snapshot = ladder(&When { has_tools: Some(true), ..When::default() });
        let (entries, dead) = entries(&snapshot, snapshot.combo("0-0").unwrap(), 0);
        assert!(entries.is_empty());
        assert!((1..MAX_ENTRIES).contains(&dead.len()), "{}", dead.len());
        assert!(dead.iter().all(|left| left.rule == Rule::Nesting));
    }

    #[test]
    fn what_is_nowhere_is_looked_for_once_in_each_combo() {
        let snapshot = ladder(&When::default());
        let combo = snapshot.combo("0-0").unwrap();
        let left = |step: &str| LeftOut {
            idle: Arc::default(),
            step: step.into(),
            goal: "7-3".into(),
            target: None,
            cost_nano: None,
            rule: Rule::Nesting,
            reason: String::new(),
            until: None,
        };
        let mut tags = Vec::new();
        let mut found = |step| find(&snapshot, combo, &left(step), LEVELS, &mut tags, &mut HashSet::new());
        assert!(found("nowhere").is_none());
        assert_eq!(found("6-15-3").map(|(step, depth)| (&*step.id, depth)), Some(("6-15-3", 2)));
    }
}
