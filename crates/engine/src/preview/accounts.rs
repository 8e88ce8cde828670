//! The accounts of a target, as an explanation tells of them.

use std::sync::Arc;

use omniroute_dialect::DialectId;
use omniroute_domain::combo::LeftOut;
use omniroute_domain::health::{Blocked, Hold};
use omniroute_domain::policy::Observed;
use omniroute_domain::resolve::Target;
use omniroute_domain::snapshot::{ConnectionState, IdleAccount};

use super::{IDLE, PreviewedCandidate, Skip};
use crate::attempt::{self, NoPlace};
use crate::ctx::RequestCtx;
use crate::policy;
use crate::resolve::{self, Obstacle};
use crate::turn::Turn;

/// The accounts of a target.
#[derive(Default)]
pub(super) struct Accounts {
    /// Those that would be asked, in order.
    pub(super) tried: Vec<PreviewedCandidate>,
    /// Those that would not be asked now.
    pub(super) skipped: Vec<PreviewedCandidate>,
    /// Those that nobody asks.
    pub(super) idle: Vec<PreviewedCandidate>,
}

impl Accounts {
    /// As the policies leave them.
    pub(super) fn judged(
        ctx: &mut RequestCtx,
        target: &Target,
        cost_nano: Option<i64>,
        applied: &mut Vec<Arc<str>>,
    ) -> Self {
        let verdict = policy::of_target(ctx, ctx.requested(), target);
        policy::add_new(applied, verdict.applied.iter().cloned());
        let denial = verdict.denial.as_ref().map(|denial| denial.reason.clone());
        if !ctx.snapshot.policies.is_empty() {
            let steering = ctx.steering.get_or_insert_default();
            Observed::add_new(&mut steering.observed, &verdict.observed);
            steering.verdict = verdict;
        }
        let mut accounts = Self::of(ctx, target, cost_nano);
        if let Some(reason) = denial {
            accounts.keep_back("policy", &reason);
        }
        accounts
    }

    /// Of a target none of whose accounts is asked, for this reason.
    pub(super) fn barred(ctx: &RequestCtx, target: &Target, cost_nano: Option<i64>, skip: &Skip) -> Self {
        let accounts = target.provider.connections.iter();
        let skipped = accounts.map(|account| PreviewedCandidate {
            skip: Some(skip.clone()),
            ..candidate(ctx, target, account, cost_nano)
        });
        let (skipped, idle) = (skipped.collect(), idle_of(target, cost_nano));
        Self { skipped, idle, ..Self::default() }
    }

    /// As a call that one of them gets or nobody finds them.
    pub(super) fn standing(ctx: &RequestCtx, turn: Turn, cost_nano: Option<i64>) -> Self {
        let Turn { target, accounts } = turn;
        let candidates = accounts.into_iter().map(|(account, skip)| PreviewedCandidate {
            skip,
            ..candidate(ctx, &target, &account, cost_nano)
        });
        let (tried, skipped) = candidates.partition(|candidate| candidate.skip.is_none());
        Self { tried, skipped, idle: idle_of(&target, cost_nano) }
    }

    fn of(ctx: &RequestCtx, target: &Target, cost_nano: Option<i64>) -> Self {
        let now_ms = ctx.started_ms;
        let mut accounts = Self { idle: idle_of(target, cost_nano), ..Self::default() };
        for connection in attempt::foreseen(ctx, target, now_ms) {
            let mut candidate = candidate(ctx, target, connection, cost_nano);
            candidate.skip = attempt::no_place(ctx, target, connection, now_ms).map(|why| match why {
                NoPlace::Busy => Skip {
                    rule: "concurrency",
                    reason: "as many requests are running as the account may have at once".to_owned(),
                    until: None,
                },
                NoPlace::Held(until) => Skip {
                    rule: "rate_limit",
                    reason: "it is held to its rate limit; asked when no other account can go at once"
                        .to_owned(),
                    until,
                },
            });
            let is_tried = candidate.skip.is_none();
            if is_tried { &mut accounts.tried } else { &mut accounts.skipped }.push(candidate);
        }
        for connection in &target.provider.connections {
            if let Some(obstacle) = resolve::obstacle(ctx, target, connection, now_ms) {
                let skip = Some(told(&obstacle));
                let candidate = candidate(ctx, target, connection, cost_nano);
                accounts.skipped.push(PreviewedCandidate { skip, ..candidate });
            }
        }
        accounts
    }

    /// None of them is asked, and this is why.
    pub(super) fn keep_back(&mut self, rule: &'static str, reason: &str) {
        self.skipped.append(&mut self.tried);
        for candidate in &mut self.skipped {
            candidate.skip = Some(Skip::plain(rule, reason));
        }
    }

    /// All of them.
    pub(super) fn each(&mut self) -> impl Iterator<Item = &mut PreviewedCandidate> {
        self.tried.iter_mut().chain(&mut self.skipped).chain(&mut self.idle)
    }
}

/// Why none of a target's accounts would be asked, in the words for the first of them.
pub(crate) fn why_not(ctx: &mut RequestCtx, target: &Target) -> Option<Skip> {
    let Accounts { skipped, .. } = Accounts::judged(ctx, target, None, &mut Vec::new());
    skipped.into_iter().find_map(|candidate| candidate.skip)
}

fn candidate(
    ctx: &RequestCtx,
    target: &Target,
    connection: &ConnectionState,
    cost_nano: Option<i64>,
) -> PreviewedCandidate {
    PreviewedCandidate {
        provider: Some(target.provider.id.clone()),
        model: target.model.clone(),
        connection: Some((connection.id.clone(), connection.name.clone())),
        dialect: match ctx.ability() {
            None => dialect(target, connection, ctx.dialect().id(), ctx.started_ms),
            Some(ability) => {
                connection.service(ability).and_then(|service| Some(service.dialect.chat_dialect()?.as_str()))
            }
        },
        skip: None,
        cost_nano,
        score: None,
        wave: None,
    }
}

/// The accounts of a target's provider that nobody asks.
fn idle_of(target: &Target, cost_nano: Option<i64>) -> Vec<PreviewedCandidate> {
    let idle = target.provider.idle.iter();
    idle.map(|account| idle_candidate(&target.model, account, cost_nano)).collect()
}

/// An account that nobody asks.
pub(super) fn idle_candidate(
    model: &Arc<str>,
    account: &IdleAccount,
    cost_nano: Option<i64>,
) -> PreviewedCandidate {
    PreviewedCandidate {
        provider: Some(account.provider.clone()),
        model: model.clone(),
        connection: Some((account.id.clone(), account.name.clone())),
        dialect: None,
        skip: Some(Skip::plain(IDLE, account.why.as_str())),
        cost_nano,
        score: None,
        wave: None,
    }
}

/// The dialect in which an account would be asked.
fn dialect(
    target: &Target,
    connection: &ConnectionState,
    client: DialectId,
    now_ms: i64,
) -> Option<&'static str> {
    let only = target.provider.only_dialect(&target.model);
    connection.endpoint_for(client, only, now_ms).map(|endpoint| endpoint.dialect.as_str())
}

pub(crate) fn told(obstacle: &Obstacle) -> Skip {
    match obstacle {
        Obstacle::Other => Skip::plain("excluded", "another account was named"),
        Obstacle::Denied => Skip::plain("key", "the key may not use this account"),
        Obstacle::Excluded => Skip::plain("excluded", "the account is kept from this model"),
        Obstacle::Untagged => {
            Skip::plain("policy", "the account lacks a label that a policy or the combo wants")
        }
        Obstacle::Blocked(Blocked { reason, until, hold }) => {
            let rule = match (until, hold) {
                (None, _) => IDLE,
                (Some(_), Hold::Model) => "model_lock",
                (Some(_), Hold::Connection) => "cooldown",
                (Some(_), Hold::Provider) => "breaker",
            };
            Skip { rule, reason: reason.as_str().to_owned(), until: *until }
        }
    }
}

/// A step that leads to no target for this request, or the accounts for want of which it leads to none.
pub(super) fn step(left: LeftOut) -> Vec<PreviewedCandidate> {
    let LeftOut { step: _, goal, target, idle, cost_nano, rule, reason, until } = left;
    let model: Arc<str> = target.as_ref().map_or_else(|| goal.into(), |target| target.model.clone());
    if !idle.is_empty() {
        return idle.iter().map(|account| idle_candidate(&model, account, cost_nano)).collect();
    }
    vec![PreviewedCandidate {
        provider: target.map(|target| target.provider.id.clone()),
        model,
        connection: None,
        dialect: None,
        skip: Some(Skip { rule: rule.as_str(), reason, until }),
        cost_nano,
        score: None,
        wave: None,
    }]
}
