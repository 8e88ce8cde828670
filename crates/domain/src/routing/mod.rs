//! In which order candidates are tried: the accounts of a provider, or the steps of a combo. One file and one line per
//! strategy.
//!
//! A strategy orders; it does not judge. It sees what its caller found out about the candidates and decides nothing else
//! from: no clock, no chance, no memory of its own, so that the same choice always gives the same order.

pub mod auto;
mod cache_optimized;
mod context_optimized;
mod context_relay;
mod cost_optimized;
mod fill_first;
mod fusion;
mod headroom;
mod last_good;
mod latencies;
mod least_used;
mod pipeline;
mod power_of_two;
mod priority;
mod race;
mod random;
mod reset_aware;
mod round_robin;
mod shuffle;
mod stats;
mod strict_random;
mod weighted;

use smallvec::SmallVec;

pub use auto::{Score, Signals, Tuning};
pub(crate) use cache_optimized::rendezvous;
pub use latencies::Spread;
pub use shuffle::Draw;
pub use stats::{Measured, Stats, Totals};

/// The order: indices into the candidates, each once.
pub type Order = SmallVec<[u16; 8]>;

/// What a strategy may look at.
#[derive(Debug, Clone, Copy)]
pub struct Choice<'a> {
    /// In order of priority.
    pub candidates: &'a [Candidate],
    /// What only `auto` looks at, of each candidate; empty for the others, whose candidates are small.
    pub signals: &'a [Signals],
    /// How many requests came before this one.
    pub turn: u64,
    /// Requests that stay with one start before the next has its turn.
    pub sticky: u32,
    /// 64 random bits, drawn by the caller for this request.
    pub random: u64,
    /// 64 random bits that stay the same from request to request.
    pub seed: u64,
    /// Who led last, if it is among the candidates, and for how many requests in a row.
    pub leader: Option<(u16, u32)>,
}

/// What is known of a candidate. A caller fills in what the strategy [wants](Strategy::wants), and leaves the rest.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Candidate {
    /// Its share, given by the operator.
    pub weight: u32,
    /// Requests within the last hour, running ones included.
    pub uses: u64,
    /// Share of those that went well, between 0 and 1; a half when nothing is known.
    pub success_rate: f64,
    /// How long answers took of late, in milliseconds.
    pub latency_ms: Option<f64>,
    /// Running requests for each that may run at once; 0 when there is no limit.
    pub load: f64,
    /// Whether something keeps it from serving now: a cooldown, a lock, a breaker.
    pub is_blocked: bool,
    /// What the request would cost, in billionths of a US dollar.
    pub cost_nano: Option<i64>,
    /// Tokens of context that it has room for.
    pub context_window: Option<u64>,
    /// Whether it was the last to answer.
    pub is_last_good: bool,
    /// The turn at which it led last; 0 when it never did, or nobody keeps count of that.
    pub last_turn: u64,
    /// An account's standing, from 0 to 100; `None` for what is no account.
    pub standing: Option<f64>,
    /// What the vendor says is left of what it allows.
    pub quota: Option<Quota>,
    /// Where it stands among those that may have the beginning of the prompt in their cache, between 0 and 1; alike for all where
    /// a prompt has no such beginning.
    pub affinity: f64,
}

/// What is left of what a vendor allows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Quota {
    /// Share of the scarcest limit, between 0 and 1.
    pub left: f64,
    /// Until the vendor counts anew, in milliseconds.
    pub reset_ms: i64,
    /// How much of it is lost with each millisecond in which nothing is asked, as a share.
    pub loss_per_ms: f64,
}

impl Quota {
    /// Sooner than this is at once.
    const AT_ONCE_MS: i64 = 1_000;

    /// Of a limit of which no more is known than what is left, and when it is counted anew.
    pub fn told(left: f64, reset_ms: i64) -> Self {
        #[allow(clippy::cast_precision_loss, reason = "at most a day")]
        let loss_per_ms = left / reset_ms.max(Self::AT_ONCE_MS) as f64;
        Self { left, reset_ms, loss_per_ms }
    }
}

/// What a strategy looks at beyond weights; callers need not find out more.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wants {
    /// How often it was asked of late.
    pub uses: bool,
    /// Rates, latencies, load.
    pub stats: bool,
    /// Whether something is in the way.
    pub health: bool,
    /// The cost.
    pub cost: bool,
    /// The context window.
    pub context: bool,
    /// The last that answered.
    pub last_good: bool,
    /// Who led when.
    pub turns: bool,
    /// What is left of quotas.
    pub quota: bool,
    /// The beginning of the prompt.
    pub affinity: bool,
    /// What only `auto` looks at.
    pub signals: bool,
}

impl Wants {
    /// Whether it looks at more than a candidate's own weight and uses, and who was the last.
    pub const fn is_of_target(&self) -> bool {
        self.stats || self.health || self.cost || self.context || self.quota || self.affinity
    }
}

/// How the targets of an order are asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Manner {
    /// One after the other, until one answers.
    #[default]
    OneByOne,
    /// The first ones at once, and then the others one after the other.
    Race,
    /// The first ones at once, all of them, and one that makes a reply of their answers.
    Fusion,
    /// Each with what the one before it answered.
    Pipeline,
}

impl Manner {
    /// Whether the targets make one answer together, so that none of them stands for another.
    pub const fn is_joint(self) -> bool {
        matches!(self, Self::Fusion | Self::Pipeline)
    }
}

/// A way to order candidates.
pub trait Strategy: Sync {
    /// The name in settings and combos.
    fn name(&self) -> &'static str;
    /// Other names under which the field knows it.
    fn aliases(&self) -> &'static [&'static str] {
        &[]
    }
    /// One sentence for people.
    fn describe(&self) -> &'static str;
    /// What it looks at.
    fn wants(&self) -> Wants {
        Wants::default()
    }
    /// Whether a target is only left when it cannot serve, and not for a passing failure.
    fn is_loyal(&self) -> bool {
        false
    }
    /// Whether a target takes a limited number of requests at once, and others wait for their turn.
    fn queues(&self) -> bool {
        false
    }
    /// Whether its order depends on what came before, so that it has to be known after a restart.
    fn remembers(&self) -> bool {
        false
    }
    /// Whether a conversation that changes its account takes a summary with it.
    fn relays(&self) -> bool {
        false
    }
    /// How the targets of its order are asked.
    fn manner(&self) -> Manner {
        Manner::OneByOne
    }
    /// Whether it is of use for accounts too, which all have the same models.
    fn orders_accounts(&self) -> bool {
        true
    }
    /// A permutation of the candidates.
    fn order(&self, choice: &Choice<'_>) -> Order;
}

/// Every strategy.
pub static STRATEGIES: &[&dyn Strategy] = &[
    &priority::Priority,
    &fill_first::FillFirst,
    &round_robin::RoundRobin,
    &weighted::Weighted,
    &random::Random,
    &strict_random::StrictRandom,
    &least_used::LeastUsed,
    &cost_optimized::CostOptimized,
    &power_of_two::PowerOfTwo,
    &last_good::LastGood,
    &context_optimized::ContextOptimized,
    &context_relay::ContextRelay,
    &cache_optimized::CacheOptimized,
    &headroom::Headroom,
    &reset_aware::ResetAware,
    &race::Race,
    &fusion::Fusion,
    &pipeline::Pipeline,
    &auto::Auto,
];

/// The strategy for accounts of a fresh installation.
pub fn default() -> &'static dyn Strategy {
    &fill_first::FillFirst
}

/// The strategy of combos that name none.
pub fn combo_default() -> &'static dyn Strategy {
    &priority::Priority
}

/// The strategy of this name or alias.
pub fn by_name(name: &str) -> Option<&'static dyn Strategy> {
    STRATEGIES.iter().copied().find(|strategy| strategy.name() == name || strategy.aliases().contains(&name))
}

/// The strategy of this name or alias, if it orders accounts.
pub fn for_accounts(name: &str) -> Option<&'static dyn Strategy> {
    by_name(name).filter(|strategy| strategy.orders_accounts())
}

/// The candidates as they stand.
fn as_they_stand(choice: &Choice<'_>) -> Order {
    first_places(choice.candidates.len())
}

/// The places of the first so many.
pub(crate) fn first_places(count: usize) -> Order {
    const FEW: [u16; 32] = {
        let (mut places, mut place) = ([0; 32], 0);
        while place < 32 {
            places[place as usize] = place;
            place += 1;
        }
        places
    };
    match FEW.get(..count) {
        Some(few) => Order::from_slice(few),
        None => (0..count).map(to_index).collect(),
    }
}

/// The candidates, beginning with `first` and going round.
fn rotated(choice: &Choice<'_>, first: usize) -> Order {
    let count = choice.candidates.len();
    (0..count).map(|offset| to_index((first + offset) % count)).collect()
}

/// The candidates as they stand, but `first` before the others.
fn led_by(choice: &Choice<'_>, first: usize) -> Order {
    let others = (0..choice.candidates.len()).filter(|place| *place != first);
    std::iter::once(first).chain(others).map(to_index).collect()
}

/// Ascending by what `key` says of a candidate; equal ones as they stand.
fn sorted_by<K: PartialOrd>(choice: &Choice<'_>, key: impl Fn(&Candidate) -> K) -> Order {
    let key = |place: u16| key(&choice.candidates[usize::from(place)]);
    let mut order = first_places(choice.candidates.len());
    order.sort_by(|a, b| key(*a).partial_cmp(&key(*b)).unwrap_or(std::cmp::Ordering::Equal));
    order
}

pub(crate) fn to_index(place: usize) -> u16 {
    u16::try_from(place).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests;
