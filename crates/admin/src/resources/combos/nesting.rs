//! Combos within combos: none within itself, none too deep, none that comes to too many entries.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use omniroute_domain::alias::Aliases;
use omniroute_domain::combo::{MAX_DEPTH, MAX_ENTRIES};
use omniroute_domain::entity::{Combo, Goal};
use omniroute_domain::resolve;
use omniroute_domain::routing;

/// The combos as they would be, and which of them change.
pub(crate) struct Nesting<'a> {
    all: BTreeMap<&'a str, Entered<'a>>,
    changed: BTreeSet<&'a str>,
}

/// A combo, and the names of those that it leads to, with how many of its entries do.
struct Entered<'a> {
    combo: &'a Combo,
    leads_to: BTreeMap<String, usize>,
}

/// Combos within which nothing was wrong, by name: with so much room for others, behind one that changes or not.
type Fine<'a> = BTreeSet<(&'a str, usize, bool)>;

impl<'a> Nesting<'a> {
    /// `before` is what the changed combo was called until now.
    pub(super) fn new(others: &'a [Combo], changed: &'a Combo, before: &str, aliases: &Aliases) -> Self {
        let known: BTreeSet<&str> =
            others.iter().chain([changed]).map(|combo| combo.name.as_str()).chain([before]).collect();
        // With its new name it has it everywhere.
        let named = |name: String| if name == before { changed.name.clone() } else { name };
        let entered = |combo: &'a Combo| {
            let leads_to = counted(led_to(combo, &known, aliases).map(named));
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
            let leads_to = counted(led_to(combo, &known, aliases));
            if leads_to != counted(led_to(combo, &known, before)) {
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
        let mut fine = Fine::new();
        self.all.values().try_for_each(|outer| {
            let depth = outer.combo.config.max_combo_depth.unwrap_or(usual);
            self.descend(outer, depth as usize, &mut Vec::new(), &mut fine).map(drop)
        })?;
        let mut sizes = HashMap::new();
        for outer in self.all.values() {
            let Size { entries, concerns } = self.size_of(outer, &mut sizes);
            if concerns && entries > MAX_ENTRIES {
                return Err(format!(
                    "Combo {} would have {entries} entries with those of the combos within it; {MAX_ENTRIES} are the most",
                    outer.combo.name
                ));
            }
        }
        Ok(())
    }

    /// Whether all was gone through, and nothing left out for what leads here.
    fn descend<'b>(
        &'b self,
        entered: &'b Entered<'a>,
        depth: usize,
        path: &mut Vec<&'b str>,
        fine: &mut Fine<'b>,
    ) -> Result<bool, String> {
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
        let place = (name, depth.saturating_sub(path.len()), concerns);
        let mut is_whole = !is_circle;
        if !is_circle && !is_too_deep && !fine.contains(&place) {
            for inner in entered.leads_to.keys().filter_map(|inner| self.all.get(inner.as_str())) {
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
                is_whole &= self.descend(inner, depth, path, fine)?;
            }
            if is_whole {
                fine.insert(place);
            }
        }
        path.pop();
        Ok(is_whole)
    }

    /// How many entries a combo has with those of the combos within it. One that is in a circle counts nothing there.
    fn size_of<'b>(&'b self, entered: &'b Entered<'_>, sizes: &mut HashMap<&'b str, Size>) -> Size {
        let name = entered.combo.name.as_str();
        if let Some(known) = sizes.get(name) {
            return *known;
        }
        let own = Size { entries: entered.combo.steps.len(), concerns: self.changed.contains(name) };
        sizes.insert(name, Size { entries: 0, ..own });
        let inner =
            entered.leads_to.iter().filter_map(|(name, times)| Some((self.all.get(name.as_str())?, *times)));
        let size = inner.fold(own, |sum, (inner, times)| {
            let Size { entries, concerns } = self.size_of(inner, sizes);
            Size {
                entries: sum.entries.saturating_add(entries.saturating_mul(times)),
                concerns: sum.concerns || concerns,
            }
        });
        sizes.insert(name, size);
        size
    }
}

/// How large a combo is with those within it.
#[derive(Clone, Copy)]
struct Size {
    entries: usize,
    /// Whether it is one of those that change, or leads to one.
    concerns: bool,
}

/// How often each name is there.
fn counted(names: impl Iterator<Item = String>) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for name in names {
        *counts.entry(name).or_default() += 1;
    }
    counts
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
    let mut known = HashMap::new();
    combos.iter().filter(|combo| combo.config.max_combo_depth.is_none()).map(|combo| &*combo.name).find(
        |name| {
            let (depth, _) = nesting.depth_of(&nesting.all[name], &mut Vec::new(), &mut known);
            (from_now_on..before).contains(&depth.saturating_sub(1))
        },
    )
}

impl Nesting<'_> {
    /// How deep combos stand within this one, which counts too; one more than any may where it is deeper. And whether that is
    /// so whatever leads here.
    fn depth_of<'b>(
        &'b self,
        entered: &'b Entered<'_>,
        path: &mut Vec<&'b str>,
        known: &mut HashMap<(&'b str, usize), u32>,
    ) -> (u32, bool) {
        let name = entered.combo.name.as_str();
        if path.contains(&name) {
            return (0, false);
        }
        if path.len() > MAX_DEPTH as usize {
            return (0, true);
        }
        let place = (name, path.len());
        if let Some(depth) = known.get(&place) {
            return (*depth, true);
        }
        path.push(name);
        let (mut deepest, mut is_whole) = (0, true);
        for inner in entered.leads_to.keys().filter_map(|inner| self.all.get(inner.as_str())) {
            let (depth, is_certain) = self.depth_of(inner, path, known);
            (deepest, is_whole) = (deepest.max(depth), is_whole && is_certain);
        }
        path.pop();
        if is_whole {
            known.insert(place, deepest + 1);
        }
        (deepest + 1, is_whole)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use omniroute_domain::entity::{ComboConfig, Step, When};

    use super::*;

    const WIDTH: usize = 16;

    /// A combo of others, as deep as any may be, for requests of which `when` is so.
    pub(in super::super) fn combo(
        name: &str,
        leads_to: impl Iterator<Item = String>,
        when: Option<&When>,
    ) -> Combo {
        let step = |(place, combo_name): (usize, String)| Step {
            when: when.cloned(),
            ..Step::new(format!("{name}-{place}"), Goal::ComboRef { combo_name })
        };
        Combo {
            config: ComboConfig { max_combo_depth: Some(MAX_DEPTH), ..ComboConfig::default() },
            ..Combo::new(name, name, "priority", leads_to.enumerate().map(step).collect(), 0)
        }
    }

    /// As many ways through eight levels as there are milliseconds in three days.
    #[test]
    fn each_combo_is_looked_at_once_however_many_ways_lead_to_it() {
        let level = |level: usize| (0..WIDTH).map(move |place| format!("{level}-{place}"));
        let mut all: Vec<Combo> = level(7).map(|name| combo(&name, std::iter::empty(), None)).collect();
        for above in (0..7).rev() {
            all.extend(level(above).map(|name| combo(&name, level(above + 1), None)));
        }
        let (changed, others) = all.split_last().expect("there are some");
        let nesting = Nesting::new(others, changed, &changed.name, &Aliases::default());
        let message = nesting.check(MAX_DEPTH).expect_err("it is too large");
        assert!(message.starts_with("Combo 0-15 would have 286331152 entries"), "{message}");
        let entered = &nesting.all["0-15"];
        assert_eq!(nesting.depth_of(entered, &mut Vec::new(), &mut HashMap::new()), (8, true));
    }
}
