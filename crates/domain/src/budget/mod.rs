//! Budgets: what may be spent within a window of time ([`calendar`]), and what has been ([`spending`]).

pub mod calendar;
pub mod spending;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use foldhash::fast::RandomState;

pub use calendar::{Calendar, Span, Window};
pub use spending::{Event, EventKind, Exceeded, Hold, Notice, Spending, Standing, Sums};

use crate::entity::{ApiKeyId, Budget};

/// A budget as requests see it.
#[derive(Debug)]
pub struct BudgetState {
    /// The row.
    pub budget: Budget,
    /// When its windows begin.
    pub calendar: Calendar,
    /// What has to be spent for a warning, by the place of the window.
    warns_at: [Option<i64>; 4],
}

impl BudgetState {
    fn new(budget: &Budget, calendar: Calendar) -> Self {
        let mut state = Self { budget: budget.clone(), calendar, warns_at: [None; 4] };
        let share = |limit: i64| i128::from(limit) * i128::from(budget.warning_permille) / 1_000;
        let warns_at = |limit| i64::try_from(share(limit)).unwrap_or(limit);
        state.warns_at = Window::ALL.map(|window| state.limit(window).map(warns_at));
        state
    }

    /// Most that may be spent in a window.
    pub fn limit(&self, window: Window) -> Option<i64> {
        match window {
            Window::Daily => self.budget.daily_nano,
            Window::Weekly => self.budget.weekly_nano,
            Window::Monthly => self.budget.monthly_nano,
            Window::Total => self.budget.total_nano,
        }
    }

    /// What has to be spent in a window for a warning.
    pub fn warns_at(&self, window: Window) -> Option<i64> {
        self.warns_at[window.place()]
    }
}

/// Every budget.
#[derive(Debug, Default)]
pub struct Budgets {
    /// When the windows of those begin who have no budget.
    pub calendar: Calendar,
    all: Option<Arc<BudgetState>>,
    by_key: HashMap<ApiKeyId, Arc<BudgetState>, RandomState>,
    /// Whether any of them refuses models without a price.
    any_refuses_unpriced: bool,
}

impl Budgets {
    /// Budgets whose days begin in a time zone.
    pub fn new(rows: &[Budget], calendar: Calendar) -> Self {
        let mut budgets = Self { calendar, ..Self::default() };
        for row in rows {
            let calendar = budgets.calendar.at_minute(row.reset_minute);
            budgets.any_refuses_unpriced |= row.block_unpriced;
            let state = Arc::new(BudgetState::new(row, calendar));
            match &row.key {
                Some(key) => drop(budgets.by_key.insert(key.clone(), state)),
                None => budgets.all = Some(state),
            }
        }
        budgets
    }

    /// That of a key, or with `None` that of everybody together.
    pub fn of(&self, key: Option<&ApiKeyId>) -> Option<&Arc<BudgetState>> {
        match key {
            Some(key) => self.by_key.get(key),
            None => self.all.as_ref(),
        }
    }

    /// Whether a budget that holds for a key refuses models without a price.
    pub fn refuse_unpriced(&self, key: Option<&ApiKeyId>) -> bool {
        let own = || key.and_then(|key| self.by_key.get(key));
        self.any_refuses_unpriced && self.all.iter().chain(own()).any(|state| state.budget.block_unpriced)
    }

    /// When the windows of a key begin.
    pub fn calendar_of(&self, key: Option<&ApiKeyId>) -> &Calendar {
        self.of(key).map_or(&self.calendar, |state| &state.calendar)
    }

    /// Whether any windows begin at another time than with those before.
    pub fn have_moved(&self, before: &Self) -> bool {
        let moved = |key: Option<&ApiKeyId>| self.calendar_of(key) != before.calendar_of(key);
        let mut keys = self.by_key.keys().chain(before.by_key.keys());
        self.calendar != before.calendar || moved(None) || keys.any(|key| moved(Some(key)))
    }

    /// Whose budgets are new, or not what they were before.
    pub fn changed_since(&self, before: &Self) -> impl Iterator<Item = Option<&ApiKeyId>> {
        let budget =
            |budgets: &Self, key: Option<&ApiKeyId>| budgets.of(key).map(|state| state.budget.clone());
        let all = self.all.iter().map(|_| None);
        all.chain(self.by_key.keys().map(Some)).filter(move |key| budget(self, *key) != budget(before, *key))
    }
}

/// Money for people: two decimals, four where it is less than a dollar, all where that would be nothing.
pub fn dollars(nano: i64) -> String {
    let sign = if nano < 0 { "-" } else { "" };
    let amount = Decimal(nano);
    let nano = nano.unsigned_abs();
    if (1..50_000).contains(&nano) {
        return format!("{sign}${}", amount.to_string().trim_start_matches('-'));
    }
    if nano < 1_000_000_000 {
        let tenths_of_milli = (nano + 50_000) / 100_000;
        return format!("{sign}${}.{:04}", tenths_of_milli / 10_000, tenths_of_milli % 10_000);
    }
    let cents = (nano + 5_000_000) / 10_000_000;
    format!("{sign}${}.{:02}", cents / 100, cents % 100)
}

/// Billionths of a US dollar as programs read money: US dollars, as many decimals as there are.
#[derive(Debug, Clone, Copy)]
pub struct Decimal(pub i64);

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nano = self.0.unsigned_abs();
        let sign = if self.0 < 0 { "-" } else { "" };
        write!(f, "{sign}{}", nano / 1_000_000_000)?;
        let (mut fraction, mut digits) = (nano % 1_000_000_000, 9);
        if fraction == 0 {
            return Ok(());
        }
        while fraction.is_multiple_of(10) {
            (fraction, digits) = (fraction / 10, digits - 1);
        }
        write!(f, ".{fraction:0digits$}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_money_is_not_shown_as_nothing() {
        for (nano, people, programs) in [
            (0, "$0.0000", "0"),
            (194_000_000, "$0.1940", "0.194"),
            (49_999, "$0.000049999", "0.000049999"),
            (-7, "-$0.000000007", "-0.000000007"),
            (50_000, "$0.0001", "0.00005"),
            (999_999_999, "$1.0000", "0.999999999"),
            (1_000_000_000, "$1.00", "1"),
            (12_345_678_901, "$12.35", "12.345678901"),
            (-250_000_000, "-$0.2500", "-0.25"),
        ] {
            assert_eq!((dollars(nano).as_str(), Decimal(nano).to_string().as_str()), (people, programs));
        }
    }
}
