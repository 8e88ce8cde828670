//! Which account of a provider leads. The strategy's choice and the taking of a place are one step, so that requests that
//! arrive together see each other: none is counted twice, and they do not all run after the same account.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use smallvec::SmallVec;

use crate::entity::ConnectionId;
use crate::routing::{Candidate, Choice, Order, Strategy};
use crate::snapshot::ConnectionState;

/// How the accounts of a provider are ordered.
#[derive(Clone, Copy)]
pub struct Rule {
    /// By this strategy.
    pub strategy: &'static dyn Strategy,
    /// For so many requests round-robin stays with an account.
    pub sticky: u32,
}

impl std::fmt::Debug for Rule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rule").field("strategy", &self.strategy.name()).field("sticky", &self.sticky).finish()
    }
}

/// Whose turn it is among the accounts of one provider. Survives configuration changes.
#[derive(Debug, Default)]
pub struct Rotation {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// How many requests have chosen.
    turn: u64,
    leader: Option<ConnectionId>,
    /// For how many of them in a row the leader led.
    in_row: u32,
}

/// What came of a choice.
#[derive(Debug)]
pub struct Chosen<P> {
    /// The accounts in the order in which they are tried.
    pub order: Order,
    /// The first of them that had room, by its index into the accounts, and the place that was taken there.
    pub first: Option<(usize, P)>,
}

impl Rotation {
    /// Orders the accounts and takes a place at the first that has one. `enter` must not wait.
    pub fn choose<P>(
        &self,
        rule: Rule,
        accounts: &[Arc<ConnectionState>],
        now_ms: i64,
        random: u64,
        mut enter: impl FnMut(&Arc<ConnectionState>) -> Option<P>,
    ) -> Chosen<P> {
        let mut state = self.state();
        let order = ordered(&state, rule, accounts, now_ms, random);
        let first = order.iter().map(|place| usize::from(*place)).find_map(|place| {
            let taken = enter(accounts.get(place)?)?;
            Some((place, taken))
        });
        state.turn += 1;
        let leader = first.as_ref().and_then(|(place, _)| accounts.get(*place));
        if let Some(leader) = leader {
            leader.health.led_at(state.turn);
            state.in_row = match &state.leader {
                Some(before) if *before == leader.id => state.in_row.saturating_add(1),
                _ => {
                    state.leader = Some(leader.id.clone());
                    1
                }
            };
        }
        Chosen { order, first }
    }

    /// The order as it would be, without taking anything.
    pub fn preview(&self, rule: Rule, accounts: &[Arc<ConnectionState>], now_ms: i64, random: u64) -> Order {
        ordered(&self.state(), rule, accounts, now_ms, random)
    }

    /// For how many requests in a row this account led, until now.
    pub fn in_row(&self, id: &ConnectionId) -> u32 {
        let state = self.state();
        if state.leader.as_ref() == Some(id) { state.in_row } else { 0 }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn ordered(
    state: &State,
    Rule { strategy, sticky }: Rule,
    accounts: &[Arc<ConnectionState>],
    now_ms: i64,
    random: u64,
) -> Order {
    let wants = strategy.wants();
    let candidates: SmallVec<[Candidate; 4]> = accounts
        .iter()
        .map(|account| {
            let mut candidate = Candidate { weight: account.weight, ..Candidate::default() };
            let health = &account.health;
            if wants.stats {
                candidate.uses = health.stats.uses(now_ms) + u64::from(health.in_flight());
            }
            if wants.health {
                candidate.standing = Some(health.standing(now_ms));
            }
            if wants.cost {
                candidate.cost_nano = Some(account.discount.left_nano());
            }
            if wants.turns {
                candidate.last_turn = health.last_led();
            }
            candidate
        })
        .collect();
    let leader = state.leader.as_ref().filter(|_| wants.turns).and_then(|leader| {
        let place = accounts.iter().position(|account| account.id == *leader)?;
        Some((u16::try_from(place).ok()?, state.in_row))
    });
    strategy.order(&Choice { candidates: &candidates, turn: state.turn, sticky, random, seed: 0, leader })
}
