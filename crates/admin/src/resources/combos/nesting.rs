//! Combos within combos: none within itself, none too deep.

use std::collections::{BTreeMap, BTreeSet};

use omniroute_domain::alias::Aliases;
use omniroute_domain::combo::MAX_DEPTH;
use omniroute_domain::entity::{Combo, Goal};
use omniroute_domain::resolve;
use omniroute_domain::routing;

/// The combos as they would be, and which of them change.
pub(crate) struct Nesting<'a> {
    all: BTreeMap<&'a str, Entered<'a>>,
    changed: BTreeSet<&'a str>,
}

/// A combo, and the names of those that it leads to.
struct Entered<'a> {
    combo: &'a Combo,
    leads_to: BTreeSet<String>,
}

impl<'a> Nesting<'a> {
    /// `before` is what the changed combo was called until now.
    pub(super) fn new(others: &'a [Combo], changed: &'a Combo, before: &str, aliases: &Aliases) -> Self {
        let known: BTreeSet<&str> =
            others.iter().chain([changed]).map(|combo| combo.name.as_str()).chain([before]).collect();
        // With its new name it has it everywhere.
        let named = |name: String| if name == before { changed.name.clone() } else { name };
        let entered = |combo: &'a Combo| {
            let leads_to = led_to(combo, &known, aliases).map(named).collect();
            (combo.name.as_str(), Entered { combo, leads_to })
        };
        let all = others.iter().chain([changed]).map(entered).collect();
        Self { all, changed: BTreeSet::from([changed.name.as_str()]) }
    }

    /// Those change that lead elsewhere by these aliases than by the ones before.
    pub(crate) fn by_aliases(combos: &'a [Combo], before: &Aliases, aliases: &Aliases) -> Self {
        let known: BTreeSet<&str> = combos.iter().map(|combo| combo.name.as_str()).collect();
        let (mut all, mut changed) = (BTreeMap::new(), BTreeSet::new());
        for combo in combos {
            let leads_to: BTreeSet<String> = led_to(combo, &known, aliases).collect();
            if leads_to != led_to(combo, &known, before).collect() {
                changed.insert(combo.name.as_str());
            }
            all.insert(combo.name.as_str(), Entered { combo, leads_to });
        }
        Self { all, changed }
    }

    /// Why the changed combos, and those that lead to them, may not stand as they would. What is wrong with others was so
    /// before. `usual` is how deep combos may stand that say nothing of it.
    pub(crate) fn check(&self, usual: u32) -> Result<(), String> {
        if self.changed.is_empty() {
            return Ok(());
        }
        self.all.values().try_for_each(|outer| {
            let depth = outer.combo.config.max_combo_depth.unwrap_or(usual);
            self.descend(outer, depth as usize, &mut Vec::new())
        })
    }

    fn descend<'b>(
        &'b self,
        entered: &'b Entered<'a>,
        depth: usize,
        path: &mut Vec<&'b str>,
    ) -> Result<(), String> {
        let name = entered.combo.name.as_str();
        let is_circle = path.contains(&name);
        let is_too_deep = path.len() >= depth;
        path.push(name);
        let concerns = path.iter().any(|name| self.changed.contains(name));
        if (is_circle || is_too_deep) && concerns {
            let path = path.join(" → ");
            let message = match is_circle {
                true => format!("Circular combo reference: {path}"),
                false => format!("Combos may stand {depth} deep, this is deeper: {path}"),
            };
            return Err(message);
        }
        if !is_circle && !is_too_deep {
            for inner in entered.leads_to.iter().filter_map(|inner| self.all.get(inner.as_str())) {
                let (name, strategy) = (&inner.combo.name, &inner.combo.strategy);
                let is_joint =
                    routing::by_name(strategy).is_some_and(|strategy| strategy.manner().is_joint());
                if is_joint && (concerns || self.changed.contains(name.as_str())) {
                    let message = format!(
                        "Combo {name} is a {strategy}: it answers as one and is no entry of another (here of {})",
                        entered.combo.name
                    );
                    return Err(message);
                }
                self.descend(inner, depth, path)?;
            }
        }
        path.pop();
        Ok(())
    }
}

/// The names of the combos that one leads to, of those that are known.
fn led_to(combo: &Combo, known: &BTreeSet<&str>, aliases: &Aliases) -> impl Iterator<Item = String> {
    let meant = |goal: &Goal| match goal {
        Goal::ComboRef { combo_name } => Some(combo_name.clone()),
        Goal::Model { model, connection_id: None } if !resolve::is_own_name(model, &combo.name) => {
            resolve::combo_meant(aliases, model, |name| known.contains(name)).map(|(name, _)| name)
        }
        Goal::Model { .. } => None,
    };
    combo.steps.iter().filter_map(move |step| meant(&step.goal))
}

/// The first combo that stands within the usual depth until now and would not from now on.
pub(super) fn too_deep_by<'a>(
    combos: &'a [Combo],
    aliases: &Aliases,
    before: u32,
    from_now_on: u32,
) -> Option<&'a str> {
    let (first, others) = combos.split_first()?;
    let nesting = Nesting::new(others, first, &first.name, aliases);
    combos.iter().filter(|combo| combo.config.max_combo_depth.is_none()).map(|combo| &*combo.name).find(
        |name| {
            let depth = nesting.depth_of(&nesting.all[name], &mut Vec::new());
            (from_now_on..before).contains(&depth.saturating_sub(1))
        },
    )
}

impl Nesting<'_> {
    /// How deep combos stand within this one, which counts too; one more than any may where it is deeper.
    fn depth_of<'b>(&'b self, entered: &'b Entered<'_>, path: &mut Vec<&'b str>) -> u32 {
        let name = entered.combo.name.as_str();
        if path.contains(&name) || path.len() > MAX_DEPTH as usize {
            return 0;
        }
        path.push(name);
        let inner = entered.leads_to.iter().filter_map(|inner| self.all.get(inner.as_str()));
        let deepest = inner.map(|inner| self.depth_of(inner, path)).max().unwrap_or(0);
        path.pop();
        deepest + 1
    }
}
