//! Budgets of a scenario, and whether what was billed is what was spent, and never more than there was.

use std::collections::BTreeMap;

use omniroute_domain::budget::Window;
use omniroute_domain::entity::{ApiKeyId, Budget as BudgetRow, Entities};
use omniroute_engine::ports::{BillRow, Clock as _};

use crate::scenario::{Budget, Scenario};
use crate::setup::key_id;
use crate::tally::Counted;
use crate::verdict::{Verdicts, dollars};
use crate::world::World;

const DAY_MS: i64 = 86_400_000;

/// Bills, as the ledger would have them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Billed {
    pub(crate) total_nano: i64,
    /// By the UTC day on which they were counted.
    by_day: BTreeMap<i64, i64>,
}

impl Billed {
    pub(crate) fn add(&mut self, bills: &[BillRow]) {
        for bill in bills {
            let amount = bill.amount_nano.unwrap_or(0);
            self.total_nano += amount;
            *self.by_day.entry(bill.settled_ms.div_euclid(DAY_MS)).or_default() += amount;
        }
    }

    /// The most of any day, or of any week from Monday.
    fn most_of(&self, window: Window) -> Option<i64> {
        let place = |day: i64| match window {
            Window::Daily => Some(day),
            // The first of January 1970 was a Thursday.
            Window::Weekly => Some((day + 3).div_euclid(7)),
            Window::Monthly | Window::Total => None,
        };
        let mut sums: BTreeMap<i64, i64> = BTreeMap::new();
        for (day, amount) in &self.by_day {
            *sums.entry(place(*day)?).or_default() += amount;
        }
        Some(sums.into_values().max().unwrap_or(0))
    }
}

/// The budgets of a scenario become rows; those that a configuration has of the same keys give way.
pub(crate) fn budgets(scenario: &Scenario, entities: &mut Entities) {
    let own = scenario.keys.iter().map(|key| (Some(key_id(key.name.get_ref())), key.budget));
    for (key, budget) in own.chain([(None, scenario.budget)]) {
        let Some(budget) = budget else { continue };
        entities.budgets.retain(|row| row.key != key);
        entities.budgets.push(row(key, budget));
    }
}

fn row(key: Option<ApiKeyId>, budget: Budget) -> BudgetRow {
    BudgetRow {
        daily_nano: budget.daily_usd.map(nano),
        weekly_nano: budget.weekly_usd.map(nano),
        monthly_nano: budget.monthly_usd.map(nano),
        total_nano: budget.total_usd.map(nano),
        hard_stop: budget.hard_stop,
        ..BudgetRow::unlimited(key)
    }
}

#[allow(clippy::cast_possible_truncation, reason = "dollars of a scenario")]
fn nano(dollars: f64) -> i64 {
    (dollars * 1e9).round() as i64
}

/// What the gateway counted as spent of a key.
pub(crate) fn ledger(world: &World, key: &ApiKeyId) -> i64 {
    standing(world, Some(key)).0
}

/// The limits of a key, for people.
pub(crate) fn budget(world: &World, key: &ApiKeyId) -> String {
    let snapshot = world.engine.live.load();
    let Some(state) = snapshot.budgets.of(Some(key)) else { return "-".to_owned() };
    let limits = WINDOWS
        .iter()
        .filter_map(|window| Some(format!("{} {}", window.as_str(), dollars(state.limit(*window)?))));
    let limits: Vec<String> = limits.collect();
    if limits.is_empty() { "-".to_owned() } else { limits.join(", ") }
}

const WINDOWS: [Window; 4] = [Window::Daily, Window::Weekly, Window::Monthly, Window::Total];

/// What was spent, and what is still held.
fn standing(world: &World, key: Option<&ApiKeyId>) -> (i64, i64) {
    let live = &world.engine.live;
    let standing = live.spending.standing(&live.load().budgets, key, world.clock.now_ms());
    (standing.total_nano, standing.held_nano)
}

/// What must hold of money in every run.
pub(crate) fn verdicts(verdicts: &mut Verdicts, world: &World, counted: &Counted) {
    verdicts.exactly("bills are the costs", &dollars(counted.billed.total_nano), &dollars(counted.cost_nano));
    let keys = world.keys.iter().zip(&counted.keys);
    let all = keys.map(|(key, counts)| (Some(&key.id), key.name.as_str(), &counts.billed));
    for (key, name, billed) in all.chain([(None, "everybody", &counted.billed)]) {
        let (total, held) = standing(world, key);
        verdicts.exactly(
            format!("the ledger is the sum of bills, {name}"),
            &dollars(total),
            &dollars(billed.total_nano),
        );
        verdicts.exactly(format!("no money stays held, {name}"), &dollars(held), &dollars(0));
        let snapshot = world.engine.live.load();
        let Some(state) = snapshot.budgets.of(key).filter(|state| state.budget.hard_stop) else { continue };
        for window in WINDOWS {
            let Some(limit) = state.limit(window) else { continue };
            let most = billed.most_of(window).unwrap_or_else(|| match window {
                Window::Total => billed.total_nano,
                Window::Daily | Window::Weekly | Window::Monthly => {
                    let live = &world.engine.live;
                    live.spending.standing(&snapshot.budgets, key, world.clock.now_ms()).spent(window)
                }
            });
            verdicts.money_at_most(format!("never over the {} budget, {name}", window.as_str()), most, limit);
        }
    }
}
