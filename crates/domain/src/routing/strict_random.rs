//! `strict-random`: a shuffled deck. Each is dealt once before any is dealt again.
//!
//! The deck is not kept: its number and the place in it follow from the turn, and its order from the seed. What was dealt
//! stays dealt, also when it could not serve.

use super::shuffle::Draw;
use super::{Choice, Order, Strategy, led_by};

/// The strategy.
pub(super) struct StrictRandom;

impl Strategy for StrictRandom {
    fn name(&self) -> &'static str {
        "strict-random"
    }

    fn describe(&self) -> &'static str {
        "any, but each once before any comes again; then the others as they stand"
    }

    fn remembers(&self) -> bool {
        true
    }

    fn order(&self, choice: &Choice<'_>) -> Order {
        let count = choice.candidates.len() as u64;
        if count == 0 {
            return Order::new();
        }
        let (deck, place) = (choice.turn / count, choice.turn % count);
        let dealt = dealt(choice, deck);
        let first = dealt[usize::try_from(place).unwrap_or(0)];
        led_by(choice, usize::from(first))
    }
}

/// A deck in the order in which it is dealt. It does not begin with what the one before ended with.
fn dealt(choice: &Choice<'_>, deck: u64) -> Order {
    let mut cards = plain(choice, deck);
    let count = cards.len();
    if deck == 0 || count < 2 {
        return cards;
    }
    // The last card of a deck is never moved by this, unless there are two only; then all decks are alike.
    if count == 2 {
        return plain(choice, 0);
    }
    if plain(choice, deck - 1).last() == cards.first() {
        cards.swap(0, 1);
    }
    cards
}

fn plain(choice: &Choice<'_>, deck: u64) -> Order {
    Draw::new(choice.seed ^ deck.wrapping_mul(0xd6e8_feb8_6659_fd93)).shuffled(choice.candidates.len())
}
