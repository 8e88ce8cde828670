//! What must hold: always, and as the scenario expects.

use omniroute_domain::limit::Meter;
use omniroute_engine::ports::{Charge, Clock as _, Reserving, Verdict as Reserved};

use crate::money;
use crate::scenario::Expect;
use crate::tally::{Counted, Counts};
use crate::upstream::Seen;
use crate::world::World;

/// Most upstream calls for one request.
const MAX_ATTEMPTS: usize = 64;

/// Something that must hold, and whether it did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// What.
    pub what: String,
    /// What was found.
    pub found: String,
    /// What is wanted.
    pub wanted: String,
    /// Whether it holds.
    pub is_met: bool,
}

/// Verdicts being collected.
#[derive(Default)]
pub(crate) struct Verdicts(pub(crate) Vec<Verdict>);

impl Verdicts {
    pub(crate) fn exactly<T: ToString + ?Sized>(&mut self, what: impl Into<String>, found: &T, wanted: &T) {
        let (found, wanted) = (found.to_string(), wanted.to_string());
        let is_met = found == wanted;
        self.0.push(Verdict { what: what.into(), found, wanted, is_met });
    }

    pub(crate) fn at_most<T: PartialOrd + ToString + Copy>(
        &mut self,
        what: impl Into<String>,
        found: T,
        bound: T,
    ) {
        let is_met = found <= bound;
        let wanted = format!("at most {}", bound.to_string());
        self.0.push(Verdict { what: what.into(), found: found.to_string(), wanted, is_met });
    }

    pub(crate) fn money_at_most(&mut self, what: String, found: i64, bound: i64) {
        let (is_met, found, wanted) = (found <= bound, dollars(found), format!("at most {}", dollars(bound)));
        self.0.push(Verdict { what, found, wanted, is_met });
    }

    fn share(&mut self, what: impl Into<String>, found: f64, bound: f64, is_least: bool) {
        let is_met = if is_least { found >= bound } else { found <= bound };
        let word = if is_least { "at least" } else { "at most" };
        let (found, wanted) = (percent(found), format!("{word} {}", percent(bound)));
        self.0.push(Verdict { what: what.into(), found, wanted, is_met });
    }

    /// What holds in every run, whatever the scenario.
    pub(crate) fn always(&mut self, world: &World, counted: &Counted, requests: u64) {
        self.exactly("every request is recorded once", &counted.all.requests, &requests);
        self.exactly("every client comes to an end", &counted.ended, &requests);
        self.exactly("nothing is recorded that nobody asked", &counted.strays, &0);
        self.exactly("no answer ends without its end or an error", &counted.contradictions, &0);
        self.exactly(
            "what is recorded as answered was seen complete",
            &counted.all.answered,
            &counted.complete,
        );
        self.at_most("upstream calls of one request", counted.all.most_attempts, MAX_ATTEMPTS);
        let seen: Vec<_> =
            (0..world.accounts.len()).map(|place| world.upstreams.account(place).seen()).collect();
        self.exactly("no call is left running", &seen.iter().map(|seen| seen.running).sum::<u32>(), &0);
        let snapshot = world.engine.live.load();
        let places = world.accounts.iter().filter_map(|account| snapshot.connection(&account.id));
        let held: u32 = places.map(|connection| connection.health.in_flight()).sum();
        self.exactly("no place at an account is left taken", &held, &0);
        for (account, seen) in world.accounts.iter().zip(&seen) {
            if let Some(most) = account.max_concurrent {
                self.at_most(format!("calls at once, {}", account.name), seen.peak, most);
            }
        }
        self.money(counted, &seen);
        self.keys(world, counted);
        money::verdicts(self, world, counted);
    }

    /// What upstreams asked for is what was booked: all of it where an answer came to its end, and nothing that was never
    /// begun. Prompts by estimate come on top, of calls that no upstream told anything of.
    fn money(&mut self, counted: &Counted, seen: &[Seen]) {
        let complete: i64 = seen.iter().map(|seen| seen.cost_nano).sum();
        let begun: i64 = seen.iter().map(|seen| seen.begun_nano).sum();
        let by_account: i64 = counted.accounts.iter().map(|account| account.cost_nano).sum();
        self.exactly(
            "costs by account add up to all costs",
            &dollars(by_account),
            &dollars(counted.cost_nano),
        );
        let has_losses = counted.all.gone + counted.all.broken + counted.all.errors > 0;
        let untold: u64 = seen.iter().map(|seen| seen.untold).sum();
        self.at_most("prompts billed by estimate", counted.guesses, untold);
        let told_nano = counted.cost_nano - counted.guessed_nano;
        if has_losses {
            let is_met = (complete..=begun).contains(&told_nano);
            self.0.push(Verdict {
                what: "costs lie between answers complete and answers begun".to_owned(),
                found: dollars(told_nano),
                wanted: format!("{} to {}", dollars(complete), dollars(begun)),
                is_met,
            });
        } else {
            self.exactly("costs are those of the upstreams", &dollars(told_nano), &dollars(complete));
        }
    }

    fn keys(&mut self, world: &World, counted: &Counted) {
        let now_ms = world.clock.now_ms();
        for (key, counts) in world.keys.iter().zip(&counted.keys) {
            if let Some(limit) = key.requests_per_day {
                let most = counts.by_day.values().copied().max().unwrap_or(0);
                self.at_most(format!("requests in a day, {}", key.name), most, u64::from(limit));
            }
            if let Some(limit) = key.max_concurrent {
                let all = Charge {
                    key: key.id.clone(),
                    meter: Meter::Concurrency,
                    limit: u64::from(limit),
                    amount: i64::from(limit),
                };
                let is_free = matches!(
                    world.engine.counters.reserve(&[all], now_ms),
                    Reserving::Ready(Reserved { exceeded: None, .. })
                );
                let found = if is_free { "free" } else { "taken" };
                self.exactly(format!("places of the key afterwards, {}", key.name), found, "free");
            }
        }
    }

    /// What the scenario expects of some of the requests.
    pub(crate) fn expected(&mut self, of: &str, expect: &Expect, counts: &Counts, world: &World) {
        if let Some(bound) = expect.availability {
            let wanted = counts.answered + counts.broken + counts.errors;
            self.share(format!("answered, {of}"), ratio(counts.answered, wanted, 1.0), bound, true);
        }
        if let Some(bound) = expect.avoidable {
            let found = ratio(counts.avoidable, counts.requests, 0.0);
            self.share(format!("avoidable errors, {of}"), found, bound, false);
        }
        if let Some(bound) = expect.longest_wait_ms {
            self.at_most(format!("longest wait in ms, {of}"), counts.wait_ms.max(), bound);
        }
        if let Some(bound) = expect.p99_wait_ms {
            let found = counts.wait_ms.value_at_quantile(0.99);
            self.at_most(format!("99 % wait in ms, {of}"), found, bound);
        }
        if let Some(bound) = expect.attempts {
            let found = ratio(counts.attempts, counts.requests, 0.0);
            let is_met = found <= bound;
            self.0.push(Verdict {
                what: format!("calls per request, {of}"),
                found: format!("{found:.3}"),
                wanted: format!("at most {bound:.3}"),
                is_met,
            });
        }
        self.shares(of, expect, counts, world);
    }

    fn shares(&mut self, of: &str, expect: &Expect, counts: &Counts, world: &World) {
        let Some(shares) = &expect.shares else { return };
        let place = |name: &str| world.place(name);
        let weights: f64 = shares.values().sum();
        let answers: u64 = shares.keys().filter_map(|name| place(name)).map(|at| counts.by_account[at]).sum();
        let within = expect.within.unwrap_or(0.05);
        for (name, weight) in shares {
            let found = place(name).map_or(0.0, |at| ratio(counts.by_account[at], answers, 0.0));
            let fair = weight / weights;
            self.0.push(Verdict {
                what: format!("share of {name}, {of}"),
                found: percent(found),
                wanted: format!("{} ± {}", percent(fair), percent(within)),
                is_met: (found - fair).abs() <= within,
            });
        }
    }
}

#[allow(clippy::cast_precision_loss, reason = "counts of a run")]
pub(crate) fn ratio(part: u64, whole: u64, of_nothing: f64) -> f64 {
    if whole == 0 { of_nothing } else { part as f64 / whole as f64 }
}

pub(crate) fn percent(share: f64) -> String {
    format!("{:.3} %", share * 100.0)
}

/// Billionths of a US dollar, for people.
pub(crate) fn dollars(nano: i64) -> String {
    let sign = if nano < 0 { "-" } else { "" };
    let nano = nano.unsigned_abs();
    format!("{sign}${}.{:09}", nano / 1_000_000_000, nano % 1_000_000_000)
}
