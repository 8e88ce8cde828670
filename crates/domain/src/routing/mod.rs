//! In which order the accounts of a provider are tried. One file and one line per strategy.
//!
//! A strategy orders; it does not judge. Accounts that cannot serve the request are taken out before.

mod fill_first;
mod random;
mod round_robin;

use smallvec::SmallVec;

/// The order: indices into the candidates, each once.
pub type Order = SmallVec<[u16; 8]>;

/// What a strategy may look at.
#[derive(Debug, Clone, Copy)]
pub struct Choice {
    /// How many candidates there are; they stand in order of priority.
    pub candidates: usize,
    /// How many requests this provider has had before this one.
    pub turn: u64,
    /// Requests on one account before the next has its turn.
    pub sticky_limit: u32,
    /// 64 random bits, drawn by the caller.
    pub random: u64,
}

/// A way to order candidates.
pub trait Strategy: Sync {
    /// The name in settings.
    fn name(&self) -> &'static str;
    /// One sentence for people.
    fn describe(&self) -> &'static str;
    /// A permutation of `0..choice.candidates`.
    fn order(&self, choice: &Choice) -> Order;
}

/// Every strategy.
pub static STRATEGIES: &[&dyn Strategy] =
    &[&fill_first::FillFirst, &round_robin::RoundRobin, &random::Random];

/// The strategy of a fresh installation.
pub fn default() -> &'static dyn Strategy {
    STRATEGIES[0]
}

/// The strategy of this name.
pub fn by_name(name: &str) -> Option<&'static dyn Strategy> {
    STRATEGIES.iter().copied().find(|strategy| strategy.name() == name)
}

/// `0..candidates`, beginning with `first` and going round.
fn rotated(candidates: usize, first: usize) -> Order {
    (0..candidates).map(|offset| to_index((first + offset) % candidates)).collect()
}

fn to_index(place: usize) -> u16 {
    u16::try_from(place).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_strategy_yields_a_permutation(candidates in 0_usize..40, turn: u64, sticky in 0_u32..5, random: u64) {
            let choice = Choice { candidates, turn, sticky_limit: sticky, random };
            for strategy in STRATEGIES {
                let mut order = strategy.order(&choice).to_vec();
                order.sort_unstable();
                let all: Vec<u16> = (0..u16::try_from(candidates).unwrap()).collect();
                prop_assert_eq!(order, all, "{}", strategy.name());
            }
        }
    }

    #[test]
    fn fill_first_keeps_the_priority() {
        let choice = Choice { candidates: 3, turn: 7, sticky_limit: 1, random: 99 };
        assert_eq!(by_name("fill-first").unwrap().order(&choice).as_slice(), [0, 1, 2]);
    }

    #[test]
    fn round_robin_gives_each_account_its_turns() {
        let firsts: Vec<u16> = (0..9)
            .map(|turn| {
                let choice = Choice { candidates: 3, turn, sticky_limit: 2, random: 0 };
                by_name("round-robin").unwrap().order(&choice)[0]
            })
            .collect();
        assert_eq!(firsts, [0, 0, 1, 1, 2, 2, 0, 0, 1]);
    }

    #[test]
    fn random_starts_everywhere() {
        let mut seen = [0; 4];
        for random in 0..4_000_u64 {
            let choice = Choice {
                candidates: 4,
                turn: 0,
                sticky_limit: 1,
                random: random.wrapping_mul(0x9e37_79b9_7f4a_7c15),
            };
            seen[usize::from(by_name("random").unwrap().order(&choice)[0])] += 1;
        }
        assert!(seen.iter().all(|count| (800..1_200).contains(count)), "{seen:?}");
    }
}
