//! `p2c`, the power of two choices: of two drawn by chance the better one. Nearly as good as always taking the best, without
//! all requests running after the same one.

use super::shuffle::Draw;
use super::{Candidate, Choice, Order, Strategy, Wants, led_by};

/// The strategy.
pub(super) struct PowerOfTwo;

impl Strategy for PowerOfTwo {
    fn name(&self) -> &'static str {
        "p2c"
    }

    fn aliases(&self) -> &'static [&'static str] {
        &["power-of-two", "power of two choices"]
    }

    fn describe(&self) -> &'static str {
        "the better of two drawn by chance: by success, latency and load, accounts by their standing"
    }

    fn wants(&self) -> Wants {
        Wants { stats: true, health: true, ..Wants::default() }
    }

    fn order(&self, choice: &Choice<'_>) -> Order {
        let count = choice.candidates.len();
        if count < 2 {
            return super::as_they_stand(choice);
        }
        let drawn = Draw::new(choice.random).shuffled(count);
        let (one, other) = (usize::from(drawn[0]), usize::from(drawn[1]));
        let slowest =
            choice.candidates.iter().filter_map(|candidate| candidate.latency_ms).fold(0.0, f64::max);
        let score = |place: usize| score(&choice.candidates[place], slowest);
        // Which of the two was drawn first is chance too, so equal ones are equally likely.
        led_by(choice, if score(other) > score(one) { other } else { one })
    }
}

fn score(candidate: &Candidate, slowest_ms: f64) -> f64 {
    if let Some(standing) = candidate.standing {
        return standing;
    }
    let latency = match candidate.latency_ms {
        Some(latency) if slowest_ms > 0.0 => latency / slowest_ms,
        _ => 0.0,
    };
    let blocked = if candidate.is_blocked { 0.5 } else { 0.0 };
    candidate.success_rate - 0.3 * latency - 0.2 * candidate.load - blocked
}
