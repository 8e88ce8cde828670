//! What happened: counted as the engine records it, and as clients saw it.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hdrhistogram::Histogram;
use omniroute_domain::breaker::BreakerState;
use omniroute_domain::entity::{ApiKeyId, ConnectionId, ConnectionStatus};
use omniroute_engine::ports::{Clock as _, HANDOFF, Memory, Recorder, RequestRow};

use crate::clock::VirtualClock;
use crate::money::Billed;
use crate::upstream::Upstreams;

/// Codes of refusals that concern the caller, not the accounts.
const REFUSALS: [&str; 2] = ["rate_limit_exceeded", "budget_exceeded"];
/// Logged for a client that went away.
const GONE: u16 = 499;
const DAY_MS: i64 = 86_400_000;

/// Counts of the requests of one phase, or of all.
#[derive(Debug, Clone)]
pub(crate) struct Counts {
    pub(crate) requests: u64,
    pub(crate) answered: u64,
    /// Limits of the key.
    pub(crate) refused: u64,
    /// Clients that hung up.
    pub(crate) gone: u64,
    /// Streams that broke after their first piece.
    pub(crate) broken: u64,
    pub(crate) errors: u64,
    /// Errors although an account would have served all the time.
    pub(crate) avoidable: u64,
    pub(crate) attempts: u64,
    pub(crate) most_attempts: usize,
    /// Time that the account which answered did not take; all of it where none did.
    pub(crate) wait_ms: Histogram<u64>,
    /// Answers by account.
    pub(crate) by_account: Vec<u64>,
}

impl Counts {
    fn new(accounts: usize) -> Self {
        Self {
            requests: 0,
            answered: 0,
            refused: 0,
            gone: 0,
            broken: 0,
            errors: 0,
            avoidable: 0,
            attempts: 0,
            most_attempts: 0,
            wait_ms: durations(),
            by_account: vec![0; accounts],
        }
    }

    fn add(&mut self, judged: &Judged) {
        self.requests += 1;
        self.attempts += judged.attempts as u64;
        self.most_attempts = self.most_attempts.max(judged.attempts);
        match judged.end {
            End::Answered => self.answered += 1,
            End::Refused => self.refused += 1,
            End::Gone => self.gone += 1,
            End::Broken => self.broken += 1,
            End::Failed { is_avoidable } => {
                self.errors += 1;
                self.avoidable += u64::from(is_avoidable);
            }
        }
        if let (End::Answered, Some(account)) = (judged.end, judged.account) {
            self.by_account[account] += 1;
        }
        if !matches!(judged.end, End::Refused | End::Gone) {
            self.wait_ms.saturating_record(judged.wait_ms);
        }
    }
}

/// Durations in milliseconds up to some days, to three digits.
fn durations() -> Histogram<u64> {
    #[allow(clippy::expect_used, reason = "the bounds are constants that histograms take")]
    Histogram::new_with_bounds(1, 1_000_000_000, 3).expect("bounds that histograms take")
}

/// Counts of an account, as the engine's rows tell them.
#[derive(Debug, Clone)]
pub(crate) struct AccountCounts {
    pub(crate) answered: u64,
    pub(crate) rate_limited: u64,
    pub(crate) server_errors: u64,
    pub(crate) other_failures: u64,
    /// Times it was put out of use as a whole.
    pub(crate) cooldowns: u64,
    /// Times a model was locked on it.
    pub(crate) locks: u64,
    pub(crate) cost_nano: i64,
    pub(crate) latency_ms: Histogram<u64>,
}

/// Counts of a key.
#[derive(Debug, Clone, Default)]
pub(crate) struct KeyCounts {
    pub(crate) requests: u64,
    pub(crate) answered: u64,
    pub(crate) refused: u64,
    pub(crate) cost_nano: i64,
    /// Requests let in, by UTC day.
    pub(crate) by_day: BTreeMap<i64, u64>,
    /// Bills.
    pub(crate) billed: Billed,
}

/// All counts.
#[derive(Debug, Clone)]
pub(crate) struct Counted {
    pub(crate) all: Counts,
    pub(crate) phases: Vec<Counts>,
    pub(crate) accounts: Vec<AccountCounts>,
    pub(crate) keys: Vec<KeyCounts>,
    /// Costs of every row.
    pub(crate) cost_nano: i64,
    /// Calls whose prompts are billed by estimate, because their upstreams told nothing; and what they cost.
    pub(crate) guesses: u64,
    pub(crate) guessed_nano: i64,
    /// Bills of every row.
    pub(crate) billed: Billed,
    /// How often each breaker opened.
    pub(crate) breakers: BTreeMap<String, u64>,
    /// Codes of errors, for people who look for the cause, and how many of each were avoidable.
    pub(crate) codes: BTreeMap<String, (u64, u64)>,
    /// What clients saw: complete answers, and ends.
    pub(crate) complete: u64,
    pub(crate) ended: u64,
    /// Answers that looked complete to one side only.
    pub(crate) contradictions: u64,
    /// Calls of the gateway's own, which sum conversations up.
    pub(crate) summaries: u64,
    /// Rows of requests that nobody sent.
    pub(crate) strays: u64,
}

/// What a client saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sight {
    /// An answer with its proper end.
    Complete,
    /// Anything else: an error, or a stream that says that it broke off.
    Error,
    /// An answer without its proper end and without a word about it.
    Cut,
    /// It did not stay to see.
    Left,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Answered,
    Refused,
    Gone,
    Broken,
    Failed { is_avoidable: bool },
}

struct Judged {
    end: End,
    attempts: usize,
    wait_ms: u64,
    account: Option<usize>,
}

/// A request's place in the scenario, carried in its id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ticket {
    pub(crate) number: u64,
    pub(crate) phase: usize,
    pub(crate) ask: usize,
}

impl Ticket {
    pub(crate) fn to_id(self) -> String {
        format!("chaos-{}-{}-{}", self.phase, self.ask, self.number)
    }

    fn parse(id: &str) -> Option<Self> {
        let mut parts = id.strip_prefix("chaos-")?.split('-');
        let (phase, ask) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        Some(Self { phase, ask, number: parts.next()?.parse().ok()? })
    }
}

/// Takes what the engine records.
pub(crate) struct Tally {
    counted: Mutex<Counted>,
    upstreams: Arc<Upstreams>,
    clock: Arc<VirtualClock>,
    marks: HashMap<ConnectionId, usize>,
    keys: HashMap<ApiKeyId, usize>,
    /// Accounts that may serve each kind of request.
    reaches: Vec<Vec<usize>>,
}

impl Tally {
    pub(crate) fn new(
        upstreams: Arc<Upstreams>,
        clock: Arc<VirtualClock>,
        marks: HashMap<ConnectionId, usize>,
        keys: HashMap<ApiKeyId, usize>,
        reaches: Vec<Vec<usize>>,
        phases: usize,
    ) -> Self {
        let account = AccountCounts {
            answered: 0,
            rate_limited: 0,
            server_errors: 0,
            other_failures: 0,
            cooldowns: 0,
            locks: 0,
            cost_nano: 0,
            latency_ms: durations(),
        };
        let counted = Counted {
            all: Counts::new(marks.len()),
            phases: vec![Counts::new(marks.len()); phases],
            accounts: vec![account; marks.len()],
            keys: vec![KeyCounts::default(); keys.len()],
            cost_nano: 0,
            guesses: 0,
            guessed_nano: 0,
            billed: Billed::default(),
            breakers: BTreeMap::new(),
            codes: BTreeMap::new(),
            complete: 0,
            ended: 0,
            contradictions: 0,
            summaries: 0,
            strays: 0,
        };
        Self { counted: Mutex::new(counted), upstreams, clock, marks, keys, reaches }
    }

    /// The counts so far.
    pub(crate) fn counted(&self) -> MutexGuard<'_, Counted> {
        self.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A client is done.
    pub(crate) fn seen(&self, sight: Sight) {
        let mut counted = self.counted();
        counted.ended += 1;
        match sight {
            Sight::Complete => counted.complete += 1,
            Sight::Cut => counted.contradictions += 1,
            Sight::Error | Sight::Left => {}
        }
    }

    fn judge(&self, row: &RequestRow, ticket: Ticket) -> Judged {
        let duration = u64::try_from(row.duration_ms).unwrap_or(0);
        let last = row.attempts.last();
        let code = row.error_code.as_deref().unwrap_or_default();
        let end = if row.status == GONE {
            End::Gone
        } else if row.status == 200 && row.error.is_none() {
            End::Answered
        } else if row.stream && row.ttft_ms.is_some() {
            End::Broken
        } else if row.attempts.is_empty() && REFUSALS.contains(&code) {
            End::Refused
        } else {
            End::Failed { is_avoidable: self.is_avoidable(ticket, duration) }
        };
        let served = match end {
            End::Answered | End::Broken => {
                last.map_or(0, |last| u64::try_from(last.duration_ms).unwrap_or(0))
            }
            End::Refused | End::Gone | End::Failed { .. } => 0,
        };
        Judged {
            end,
            attempts: row.attempts.len(),
            wait_ms: duration.saturating_sub(served),
            account: row.connection.as_ref().and_then(|id| self.marks.get(id).copied()),
        }
    }

    /// Whether some account would have served the request at any time since it arrived.
    fn is_avoidable(&self, ticket: Ticket, duration_ms: u64) -> bool {
        let now_ms = self.clock.since_start_ms();
        let arrived = now_ms.saturating_sub(duration_ms);
        self.reaches.get(ticket.ask).into_iter().flatten().any(|mark| {
            self.upstreams.account(*mark).well_since_ms(now_ms).is_some_and(|since| since <= arrived)
        })
    }
}

impl Recorder for Tally {
    fn record(&self, row: RequestRow) {
        let Some(ticket) = Ticket::parse(&row.request_id).filter(|ticket| ticket.ask < self.reaches.len())
        else {
            self.counted().strays += 1;
            return;
        };
        let judged = self.judge(&row, ticket);
        // Nobody asked for it, but it is paid for.
        let is_own = row.request_type == HANDOFF;
        let mut counted = self.counted();
        let counted = &mut *counted;
        if is_own {
            counted.summaries += 1;
        } else {
            counted.all.add(&judged);
            match counted.phases.get_mut(ticket.phase) {
                Some(phase) => phase.add(&judged),
                None => counted.strays += 1,
            }
        }
        let cost = row.cost_nano.unwrap_or(0);
        counted.cost_nano += cost;
        counted.billed.add(&row.bills);
        for attempt in &row.attempts {
            if attempt.is_estimated() {
                counted.guesses += 1;
                counted.guessed_nano += attempt.cost_nano.unwrap_or(0);
            }
            let Some(mark) = self.marks.get(&attempt.connection) else { continue };
            let account = &mut counted.accounts[*mark];
            account.cost_nano += attempt.cost_nano.unwrap_or(0);
            match (attempt.failure, attempt.status) {
                (None, _) => {
                    account.answered += 1;
                    account.latency_ms.saturating_record(u64::try_from(attempt.duration_ms).unwrap_or(0));
                }
                (Some(_), Some(429)) => account.rate_limited += 1,
                (Some(_), Some(500..=599)) => account.server_errors += 1,
                (Some(_), _) => account.other_failures += 1,
            }
        }
        if let Some(key) = row.api_key.as_ref().and_then(|id| self.keys.get(id)) {
            let key = &mut counted.keys[*key];
            key.cost_nano += cost;
            key.billed.add(&row.bills);
            if is_own {
                return;
            }
            key.requests += 1;
            match judged.end {
                End::Answered => key.answered += 1,
                End::Refused => key.refused += 1,
                End::Gone | End::Broken | End::Failed { .. } => {}
            }
            if judged.end != End::Refused {
                let day = (self.clock.now_ms() - row.duration_ms).div_euclid(DAY_MS);
                *key.by_day.entry(day).or_default() += 1;
            }
        }
        if let Some(code) = row.error_code.filter(|_| !is_own) {
            let (all, avoidable) = counted.codes.entry(code).or_default();
            *all += 1;
            *avoidable += u64::from(matches!(judged.end, End::Failed { is_avoidable: true }));
        }
    }

    fn connection_status(&self, connection: &ConnectionId, status: ConnectionStatus) {
        let is_out = status.rate_limited_until.is_some_and(|until| until > self.clock.now_ms());
        // Of one of several keys it is the account's.
        let account =
            connection.key_parts().map_or_else(|| connection.clone(), |(account, _)| account.into());
        if let Some(mark) = self.marks.get(&account).filter(|_| is_out) {
            self.counted().accounts[*mark].cooldowns += 1;
        }
    }

    fn remember(&self, memory: Memory) {
        match memory {
            Memory::Breaker(record) if record.state == BreakerState::Open => {
                *self.counted().breakers.entry(record.name.to_string()).or_default() += 1;
            }
            Memory::Lock(row) => {
                if let Some(mark) = self.marks.get(&row.connection) {
                    self.counted().accounts[*mark].locks += 1;
                }
            }
            // Everything else is of no use after a run.
            _ => {}
        }
    }

    fn budget(&self, _: omniroute_domain::budget::Event) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_is_read_back_from_its_id() {
        let ticket = Ticket { number: 123_456, phase: 3, ask: 2 };
        assert_eq!(Ticket::parse(&ticket.to_id()), Some(ticket));
        assert_eq!(Ticket::parse("req_1"), None);
    }
}
