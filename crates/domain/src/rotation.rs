//! Which account of a provider leads. The strategy's choice and the taking of a place are one step, so that requests that
//! arrive together see each other: none is counted twice, and they do not all run after the same account.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use crate::entity::ConnectionId;
use crate::routing::{Candidate, Choice, Order, Strategy, rendezvous};
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

#[derive(Debug, Clone, Default)]
struct State {
    /// How many requests have chosen.
    turn: u64,
    leader: Option<ConnectionId>,
    /// For how many of them in a row the leader led.
    in_row: u32,
}

/// What an order of accounts may depend on beside them.
#[derive(Debug, Clone, Copy)]
pub struct Occasion<'a> {
    /// When, in epoch milliseconds.
    pub now_ms: i64,
    /// 64 random bits, drawn for this request.
    pub random: u64,
    /// The model, as the accounts know it.
    pub model: &'a str,
    /// Stands for the beginning of the prompt; 0 = unknown, or of no matter.
    pub prefix: u64,
}

/// What came of a choice.
#[derive(Debug)]
pub struct Chosen<P> {
    /// The accounts in the order in which they are tried.
    pub order: Order,
    /// The first of them that had room, by its index into the accounts, and the place that was taken there.
    pub first: Option<(usize, P)>,
}

/// Whose turn it is, as it is kept over a restart.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RotationMark {
    /// How many requests have chosen.
    pub turn: u64,
    /// Who led last.
    pub leader: Option<ConnectionId>,
    /// For how many of them in a row.
    pub in_row: u32,
    /// At which turn each account led last.
    pub led: BTreeMap<ConnectionId, u64>,
}

impl Rotation {
    /// A copy that goes its own way.
    pub(crate) fn apart(&self) -> Self {
        Self { state: Mutex::new(self.state().clone()) }
    }

    /// What is to be kept.
    pub fn mark(&self, accounts: &[Arc<ConnectionState>]) -> RotationMark {
        let state = self.state();
        let led = accounts.iter().map(|account| (account.id.clone(), account.health.last_led()));
        RotationMark {
            turn: state.turn,
            leader: state.leader.clone(),
            in_row: state.in_row,
            led: led.filter(|(_, turn)| *turn > 0).collect(),
        }
    }

    /// Takes over what an earlier process kept.
    pub fn restore(&self, mark: &RotationMark, accounts: &[Arc<ConnectionState>]) {
        let mut state = self.state();
        state.turn = state.turn.max(mark.turn);
        if state.leader.is_none() {
            state.leader.clone_from(&mark.leader);
            state.in_row = mark.in_row;
        }
        for account in accounts {
            if let Some(turn) = mark.led.get(&account.id) {
                account.health.led_at((*turn).max(account.health.last_led()));
            }
        }
    }

    /// Orders the accounts and takes a place at the first that has one. `enter` must not wait.
    pub fn choose<P, A: AsRef<ConnectionState>>(
        &self,
        rule: Rule,
        accounts: &[A],
        occasion: Occasion<'_>,
        mut enter: impl FnMut(&A) -> Option<P>,
    ) -> Chosen<P> {
        let mut state = self.state();
        let order = ordered(&state, rule, accounts, occasion);
        let first = order.iter().map(|place| usize::from(*place)).find_map(|place| {
            let taken = enter(accounts.get(place)?)?;
            Some((place, taken))
        });
        state.turn += 1;
        let leader = first.as_ref().and_then(|(place, _)| accounts.get(*place)).map(A::as_ref);
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
    pub fn preview<A: AsRef<ConnectionState>>(
        &self,
        rule: Rule,
        accounts: &[A],
        occasion: Occasion<'_>,
    ) -> Order {
        ordered(&self.state(), rule, accounts, occasion)
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

fn ordered<A: AsRef<ConnectionState>>(
    state: &State,
    Rule { strategy, sticky }: Rule,
    accounts: &[A],
    Occasion { now_ms, random, model, prefix }: Occasion<'_>,
) -> Order {
    let wants = strategy.wants();
    let candidates: SmallVec<[Candidate; 8]> = accounts
        .iter()
        .map(A::as_ref)
        .map(|account| {
            let mut candidate = Candidate { weight: account.weight, ..Candidate::default() };
            let health = &account.health;
            if wants.uses {
                candidate.uses = health.stats.uses(now_ms) + u64::from(health.in_flight());
            }
            if wants.health {
                candidate.standing = Some(account.standing(model, now_ms));
            }
            if wants.cost {
                candidate.cost_nano = Some(account.discount.left_nano());
            }
            if wants.turns {
                candidate.last_turn = health.last_led();
            }
            if wants.quota {
                candidate.quota = account.quota(model, now_ms);
            }
            if wants.affinity && prefix != 0 {
                candidate.affinity = rendezvous(prefix, account.id.as_str());
            }
            candidate
        })
        .collect();
    let leader = state.leader.as_ref().filter(|_| wants.turns).and_then(|leader| {
        let place = accounts.iter().position(|account| account.as_ref().id == *leader)?;
        Some((u16::try_from(place).ok()?, state.in_row))
    });
    let choice =
        Choice { candidates: &candidates, signals: &[], turn: state.turn, sticky, random, seed: 0, leader };
    let mut order = strategy.order(&choice);
    let is_low = |place: &u16| {
        accounts.get(usize::from(*place)).is_some_and(|account| account.as_ref().is_low(model, now_ms))
    };
    if order.iter().any(is_low) {
        // What has little left is saved while others have more.
        order.sort_by_key(is_low);
    }
    order
}
