//! What was spent, and what running requests may still spend. Exact at once, in memory; the ledger is where it comes from
//! after a restart.
//!
//! Each key has a purse, and everybody together has one. A request holds its estimate in both while it runs, so that
//! requests at once cannot spend the same money. One short lock per purse; a key's before everybody's, never the other way
//! round.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use foldhash::fast::RandomState;
use smallvec::SmallVec;

use super::{BudgetState, Budgets, Calendar, Span, Window};
use crate::entity::{ApiKeyId, OnExceeded};

const SHARDS: usize = 16;
/// A window that begins so much later than now is one of a clock that was ahead; of one that is nearer somebody was a moment late.
const LATE_MS: i64 = 60_000;
/// The same for bills, which are counted when the request is over and not when they were made.
const LATE_BILL_MS: i64 = 3_600_000;

type Purses = HashMap<ApiKeyId, Arc<Purse>, RandomState>;

/// What happened to a budget.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Whose budget; `None` = everybody's.
    pub key: Option<ApiKeyId>,
    /// In which window.
    pub window: Window,
    /// What.
    pub kind: EventKind,
    /// When.
    pub at_ms: i64,
}

/// What can happen to a budget.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventKind {
    /// Enough was spent to warn; once in a window.
    Warning {
        /// What was spent.
        spent_nano: i64,
        /// The limit.
        limit_nano: i64,
    },
    /// A request did not fit any more; once in a window.
    Exceeded {
        /// What was spent.
        spent_nano: i64,
        /// The limit.
        limit_nano: i64,
    },
    /// A new window began.
    Reset {
        /// What was spent in the old one.
        spent_nano: i64,
        /// The old window.
        old: Span,
        /// The new one.
        new: Span,
    },
}

/// Most events of one operation: a reset, a warning and more for each window of two purses.
pub type Events = SmallVec<[Event; 2]>;

/// A request that does not fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exceeded {
    /// Whose budget; `None` = everybody's.
    pub key: Option<ApiKeyId>,
    /// In which window.
    pub window: Window,
    /// The limit.
    pub limit_nano: i64,
    /// What was spent, without what is held.
    pub spent_nano: i64,
    /// What running requests hold.
    pub held_nano: i64,
    /// When a new window begins; `None` = never.
    pub reset_at_ms: Option<i64>,
}

/// What the ledger says of a key, or of everybody.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sums {
    /// Rows.
    pub entries: i64,
    /// All money.
    pub total_nano: i64,
    /// That of the running day, week and month.
    pub windows_nano: [i64; 3],
}

/// What was spent of a purse, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Bills, unknown ones too.
    pub entries: i64,
    /// All money.
    pub total_nano: i64,
    /// What running requests hold.
    pub held_nano: i64,
    /// The running day, week and month, and what was spent in each.
    pub windows: [(Span, i64); 3],
}

impl Standing {
    /// What was spent in a window.
    pub fn spent(&self, window: Window) -> i64 {
        self.windows.get(window.place()).map_or(self.total_nano, |(_, spent)| *spent)
    }

    /// The window.
    pub fn span(&self, window: Window) -> Span {
        self.windows.get(window.place()).map_or(Span::ALWAYS, |(span, _)| *span)
    }
}

/// Every purse of the process. There is one per key that ever was used.
#[derive(Debug, Default)]
pub struct Spending {
    shards: [Mutex<Purses>; SHARDS],
    all: Arc<Purse>,
}

#[derive(Debug, Default)]
struct Purse(Mutex<Contents>);

#[derive(Debug, Clone)]
struct Contents {
    entries: i64,
    total_nano: i64,
    held_nano: i64,
    windows: [(Span, i64); 3],
    /// The windows before those, for a clock that is set back.
    earlier: [(Span, i64); 3],
    calendar: Calendar,
    /// By window: whether there was a warning.
    warned: [bool; 4],
    /// By window: whether it was told that the limit is reached.
    exceeded: [bool; 4],
    /// By window: whether the client saw the warning.
    shown: [bool; 4],
}

impl Default for Contents {
    fn default() -> Self {
        Self {
            entries: 0,
            total_nano: 0,
            held_nano: 0,
            windows: [(Span::NEVER, 0); 3],
            earlier: [(Span::NEVER, 0); 3],
            calendar: Calendar::default(),
            warned: [false; 4],
            exceeded: [false; 4],
            shown: [false; 4],
        }
    }
}

/// A warning for the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Notice {
    /// Whether it is about the budget of everybody together.
    pub is_everybodys: bool,
    /// In which window.
    pub window: Window,
    /// How much of the limit was spent.
    pub percent: i64,
}

/// A purse with the budget that holds for it.
#[derive(Debug, Clone)]
struct Party {
    key: Option<ApiKeyId>,
    purse: Arc<Purse>,
    terms: Terms,
}

/// What holds for a purse.
#[derive(Debug, Clone)]
enum Terms {
    Budget(Arc<BudgetState>),
    /// No limit: when its windows begin.
    Free(Calendar),
}

/// Money that a running request holds. Give it back with [`Hold::settle`]; dropped, it gives back what it held and
/// nothing was spent.
#[derive(Debug)]
pub struct Hold {
    parties: SmallVec<[Party; 2]>,
    held_nano: i64,
    /// Nothing is held in the purses, and nothing told.
    is_trial: bool,
}

impl Spending {
    /// A hold of a request of `key` that holds nothing yet.
    pub fn open(&self, budgets: &Budgets, key: Option<&ApiKeyId>) -> Hold {
        Hold { parties: self.parties(budgets, key), held_nano: 0, is_trial: false }
    }

    /// Holds `estimate_nano` for a request of `key`, where no limit is exceeded by it. Exactly at a limit is not over it.
    /// What happened to budgets meanwhile is told in `events`.
    pub fn hold(
        &self,
        budgets: &Budgets,
        key: Option<&ApiKeyId>,
        estimate_nano: i64,
        now_ms: i64,
        events: &mut Events,
    ) -> Result<Hold, Exceeded> {
        let mut hold = self.open(budgets, key);
        hold.raise(estimate_nano, now_ms, events)?;
        Ok(hold)
    }

    /// Lets in a request of `key` that costs nothing, where no budget refuses that too.
    pub fn hold_free(
        &self,
        budgets: &Budgets,
        key: Option<&ApiKeyId>,
        now_ms: i64,
        events: &mut Events,
    ) -> Result<Hold, Exceeded> {
        let mut hold = self.open(budgets, key);
        hold.raise_for(0, true, now_ms, events)?;
        Ok(hold)
    }

    /// A hold that finds out what would be refused to a request of `key`, and leaves everything as it is.
    pub fn trial(&self, budgets: &Budgets, key: Option<&ApiKeyId>) -> Hold {
        let mut hold = self.open(budgets, key);
        hold.is_trial = true;
        hold
    }

    /// What was spent of the purse of a key, or of everybody's.
    pub fn standing(&self, budgets: &Budgets, key: Option<&ApiKeyId>, now_ms: i64) -> Standing {
        let party = self.party(budgets, key);
        // Of a copy: what is only looked at is not told, and a reset is told with the first request after it.
        let mut contents = party.purse.lock().clone();
        contents.look(party.calendar(), now_ms, LATE_MS);
        Standing {
            entries: contents.entries,
            total_nano: contents.total_nano,
            held_nano: contents.held_nano,
            windows: contents.windows,
        }
    }

    /// Takes over what the ledger says: at the start, and when the windows of a budget begin at another time. What was
    /// spent but is not yet in the ledger was spent a moment ago, so that it belongs to the running windows.
    pub fn restore(&self, budgets: &Budgets, key: Option<&ApiKeyId>, sums: &Sums, now_ms: i64) {
        let party = self.party(budgets, key);
        let mut contents = party.purse.lock();
        let behind = (contents.total_nano - sums.total_nano).max(0);
        contents.total_nano = contents.total_nano.max(sums.total_nano);
        contents.entries = contents.entries.max(sums.entries);
        contents.calendar = party.calendar().clone();
        for (window, spent) in Window::ALL.into_iter().zip(sums.windows_nano) {
            contents.windows[window.place()] = (party.calendar().span(window, now_ms), spent + behind);
        }
        // There was a warning when that was spent.
        for window in Window::ALL {
            let reached = party.warns_at(window).is_some_and(|warns_at| contents.spent(window) >= warns_at);
            contents.warned[window.place()] = reached;
            contents.shown[window.place()] = reached;
        }
    }

    /// A budget was changed: what is reached by the new one is told anew.
    pub fn changed(&self, key: Option<&ApiKeyId>) {
        let purse = self.purse(key);
        let mut contents = purse.lock();
        (contents.warned, contents.exceeded, contents.shown) = ([false; 4], [false; 4], [false; 4]);
    }

    fn parties(&self, budgets: &Budgets, key: Option<&ApiKeyId>) -> SmallVec<[Party; 2]> {
        let key = key.map(|key| self.party(budgets, Some(key)));
        key.into_iter().chain([self.party(budgets, None)]).collect()
    }

    fn party(&self, budgets: &Budgets, key: Option<&ApiKeyId>) -> Party {
        let terms = match budgets.of(key) {
            Some(budget) => Terms::Budget(budget.clone()),
            None => Terms::Free(budgets.calendar.clone()),
        };
        Party { purse: self.purse(key), terms, key: key.cloned() }
    }

    fn purse(&self, key: Option<&ApiKeyId>) -> Arc<Purse> {
        let Some(key) = key else { return self.all.clone() };
        let hash = key
            .as_str()
            .bytes()
            .fold(0_usize, |hash, byte| hash.wrapping_mul(31).wrapping_add(usize::from(byte)));
        let mut shard = self.shards[hash % SHARDS].lock().unwrap_or_else(PoisonError::into_inner);
        match shard.get(key) {
            Some(purse) => purse.clone(),
            None => shard.entry(key.clone()).or_default().clone(),
        }
    }
}

impl Hold {
    /// What is held.
    pub fn held_nano(&self) -> i64 {
        self.held_nano
    }

    /// Whether any budget looks at this request.
    pub fn is_limited(&self) -> bool {
        self.parties.iter().any(|party| party.budget().is_some())
    }

    /// Whether so much of a budget was spent that its owner was warned.
    pub fn is_warned(&self) -> bool {
        let parties = self.parties.iter().filter(|party| party.budget().is_some());
        parties.into_iter().any(|party| {
            let contents = party.purse.lock();
            Window::ALL
                .into_iter()
                .any(|window| party.limit(window).is_some() && contents.warned[window.place()])
        })
    }

    /// A hold of the same money for a part of the request; it begins with nothing.
    pub fn part(&self) -> Self {
        Self { parties: self.parties.clone(), held_nano: 0, is_trial: self.is_trial }
    }

    /// Takes over what a part of the request holds.
    pub fn absorb(&mut self, mut part: Self) {
        self.held_nano = self.held_nano.saturating_add(std::mem::take(&mut part.held_nano));
    }

    /// Holds more, or nothing more if a limit would be exceeded by it.
    pub fn raise(&mut self, by_nano: i64, now_ms: i64, events: &mut Events) -> Result<(), Exceeded> {
        self.raise_for(by_nano, false, now_ms, events)
    }

    /// Lets in what costs nothing, where no budget refuses that too.
    pub fn raise_free(&mut self, now_ms: i64, events: &mut Events) -> Result<(), Exceeded> {
        self.raise_for(0, true, now_ms, events)
    }

    /// The same; budgets that let in what is free are not asked about it.
    fn raise_for(
        &mut self,
        by_nano: i64,
        is_free: bool,
        now_ms: i64,
        events: &mut Events,
    ) -> Result<(), Exceeded> {
        if !self.is_limited() {
            return Ok(());
        }
        let by_nano = by_nano.max(0);
        if self.is_trial {
            return self.try_raise(by_nano, is_free, now_ms);
        }
        let mut locked: SmallVec<[(&Party, MutexGuard<'_, Contents>); 2]> = SmallVec::new();
        for party in &self.parties {
            let mut contents = party.purse.lock();
            contents.roll(party, now_ms, LATE_MS, events);
            contents.warn(party, now_ms, events);
            locked.push((party, contents));
        }
        for (party, contents) in &mut locked {
            if let Some(exceeded) = contents.exceeds(party, by_nano) {
                let place = exceeded.window.place();
                if !std::mem::replace(&mut contents.exceeded[place], true) {
                    let (spent_nano, limit_nano) = (exceeded.spent_nano, exceeded.limit_nano);
                    let kind = EventKind::Exceeded { spent_nano, limit_nano };
                    events.push(party.event(exceeded.window, kind, now_ms));
                }
                if party.refuses(is_free) {
                    return Err(exceeded);
                }
            }
        }
        for (_, contents) in &mut locked {
            contents.held_nano = contents.held_nano.saturating_add(by_nano);
        }
        drop(locked);
        self.held_nano = self.held_nano.saturating_add(by_nano);
        Ok(())
    }

    /// Whether so much more would be let in.
    fn try_raise(&mut self, by_nano: i64, is_free: bool, now_ms: i64) -> Result<(), Exceeded> {
        let held_nano = self.held_nano.saturating_add(by_nano);
        for party in &self.parties {
            let mut contents = party.purse.lock().clone();
            contents.look(party.calendar(), now_ms, LATE_MS);
            if let Some(exceeded) = contents.exceeds(party, held_nano).filter(|_| party.refuses(is_free)) {
                return Err(exceeded);
            }
        }
        self.held_nano = held_nano;
        Ok(())
    }

    /// Gives back what was held, and counts what was spent: `entries` bills that come to `amount_nano`, as far as they are
    /// known.
    pub fn settle(&mut self, amount_nano: i64, entries: i64, now_ms: i64, events: &mut Events) {
        if self.is_trial {
            return;
        }
        for party in &self.parties {
            let mut contents = party.purse.lock();
            contents.roll(party, now_ms, LATE_BILL_MS, events);
            contents.held_nano -= self.held_nano;
            contents.entries += entries;
            contents.total_nano = contents.total_nano.saturating_add(amount_nano);
            let Contents { windows, earlier, .. } = &mut *contents;
            for ((span, spent), (_, before)) in windows.iter_mut().zip(earlier) {
                // Whoever was a moment late does not put money of the old window into the new one.
                let spent = if now_ms >= span.start_ms { spent } else { before };
                *spent = spent.saturating_add(amount_nano);
            }
            contents.warn(party, now_ms, events);
        }
        self.held_nano = 0;
    }

    /// Warnings that the client of the key has not seen; each is given once in a window.
    pub fn notices(&self) -> SmallVec<[Notice; 1]> {
        let mut notices = SmallVec::new();
        for party in self.parties.iter().filter(|party| party.budget().is_some()) {
            let mut contents = party.purse.lock();
            for window in Window::ALL {
                let Some(limit) = party.limit(window) else { continue };
                let (place, spent) = (window.place(), contents.spent(window));
                if contents.warned[place] && !std::mem::replace(&mut contents.shown[place], true) {
                    let percent = i128::from(spent) * 100 / i128::from(limit.max(1));
                    notices.push(Notice {
                        is_everybodys: party.key.is_none(),
                        window,
                        percent: i64::try_from(percent).unwrap_or(i64::MAX),
                    });
                }
            }
        }
        notices
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if self.held_nano == 0 || self.is_trial {
            return;
        }
        for party in &self.parties {
            party.purse.lock().held_nano -= self.held_nano;
        }
    }
}

impl Purse {
    fn lock(&self) -> MutexGuard<'_, Contents> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Party {
    fn budget(&self) -> Option<&BudgetState> {
        match &self.terms {
            Terms::Budget(budget) => Some(budget),
            Terms::Free(_) => None,
        }
    }

    /// When its windows begin.
    fn calendar(&self) -> &Calendar {
        match &self.terms {
            Terms::Budget(budget) => &budget.calendar,
            Terms::Free(calendar) => calendar,
        }
    }

    fn limit(&self, window: Window) -> Option<i64> {
        self.budget()?.limit(window)
    }

    /// Whether its budget refuses what does not fit.
    fn refuses(&self, is_free: bool) -> bool {
        self.budget().is_some_and(|state| {
            state.budget.hard_stop && !(is_free && state.budget.on_exceeded != OnExceeded::Block)
        })
    }

    /// What has to be spent for a warning.
    fn warns_at(&self, window: Window) -> Option<i64> {
        self.budget()?.warns_at(window)
    }

    fn event(&self, window: Window, kind: EventKind, at_ms: i64) -> Event {
        Event { key: self.key.clone(), window, kind, at_ms }
    }
}

impl Contents {
    fn spent(&self, window: Window) -> i64 {
        self.windows.get(window.place()).map_or(self.total_nano, |(_, spent)| *spent)
    }

    /// Begins the windows that are due.
    fn roll(&mut self, party: &Party, now_ms: i64, late_ms: i64, events: &mut Events) {
        // So it is nearly always.
        if self.windows.iter().all(|(span, _)| span.contains(now_ms)) && self.calendar == *party.calendar() {
            return;
        }
        for (window, old, spent_nano, new) in self.look(party.calendar(), now_ms, late_ms) {
            if party.limit(window).is_some() && old != Span::NEVER {
                events.push(party.event(window, EventKind::Reset { spent_nano, old, new }, now_ms));
            }
        }
    }

    /// The same without a word; gives the windows that ended, what was spent in each, and the new ones.
    fn look(
        &mut self,
        calendar: &Calendar,
        now_ms: i64,
        late_ms: i64,
    ) -> SmallVec<[(Window, Span, i64, Span); 3]> {
        let mut ended = SmallVec::new();
        let is_moved = self.calendar != *calendar;
        if is_moved {
            // What was spent stays until the ledger is asked again: better too much than too little.
            self.calendar = calendar.clone();
        }
        for window in [Window::Daily, Window::Weekly, Window::Monthly] {
            let place = window.place();
            let (span, spent) = self.windows[place];
            if now_ms >= span.end_ms {
                let new = calendar.span(window, now_ms);
                self.earlier[place] = (span, spent);
                self.windows[place] = (new, 0);
                (self.warned[place], self.exceeded[place], self.shown[place]) = (false, false, false);
                ended.push((window, span, spent, new));
            } else if now_ms.saturating_add(late_ms) < span.start_ms {
                // The clock was ahead and is set back. What was spent meanwhile was spent in the true window, beside what is
                // known of it from before; where nothing is, rather too much than too little. Warnings were told.
                let new = calendar.span(window, now_ms);
                let (earlier, before) = self.earlier[place];
                let before = if earlier == new { before } else { 0 };
                self.windows[place] = (new, spent.saturating_add(before));
                self.earlier[place] = (Span::NEVER, 0);
            } else if is_moved {
                self.windows[place].0 = calendar.span(window, now_ms);
            }
        }
        ended
    }

    /// Tells what is new about warnings.
    fn warn(&mut self, party: &Party, now_ms: i64, events: &mut Events) {
        let Some(budget) = party.budget() else { return };
        for window in Window::ALL {
            let Some((limit_nano, warns_at)) = budget.limit(window).zip(budget.warns_at(window)) else {
                continue;
            };
            let (place, spent_nano) = (window.place(), self.spent(window));
            if spent_nano >= warns_at && !std::mem::replace(&mut self.warned[place], true) {
                events.push(party.event(window, EventKind::Warning { spent_nano, limit_nano }, now_ms));
            }
        }
    }

    /// The first limit that would be exceeded by so much more.
    fn exceeds(&self, party: &Party, by_nano: i64) -> Option<Exceeded> {
        Window::ALL.into_iter().find_map(|window| {
            let limit_nano = party.limit(window)?;
            let spent_nano = self.spent(window);
            let projected = spent_nano.saturating_add(self.held_nano).saturating_add(by_nano);
            let end_ms = self.windows.get(window.place()).map(|(span, _)| span.end_ms);
            (projected > limit_nano).then(|| Exceeded {
                key: party.key.clone(),
                window,
                limit_nano,
                spent_nano,
                held_nano: self.held_nano,
                reset_at_ms: end_ms,
            })
        })
    }
}

#[cfg(test)]
mod tests;
