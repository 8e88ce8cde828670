//! What is known of a step's model before any request comes.

use omniroute_dialect::Caps;

use crate::resolve::Target;
use crate::routing::auto::{Fitness, Need, Tier, fitness_of};
use crate::snapshot::Snapshot;

/// Shares of the two prices in one figure: prompts are longer than answers.
const INPUT_SHARE: f64 = 0.6;
const OUTPUT_SHARE: f64 = 0.4;

/// What is known of a model.
pub struct Traits {
    /// What it can do.
    pub caps: Caps,
    /// Blended price in US dollars per million tokens.
    pub price: Option<f64>,
    /// What it is good at.
    pub fitness: Fitness,
    /// How large it is.
    pub tier: Tier,
}

impl Traits {
    pub(super) fn of(snapshot: &Snapshot, target: &Target) -> Self {
        let quote = target.quote(snapshot);
        let price = quote
            .and_then(|quote| Some(INPUT_SHARE.mul_add(quote.row.input?, OUTPUT_SHARE * quote.row.output?)));
        let fitness = fitness_of(&target.model);
        Self {
            caps: snapshot.caps(&target.provider, &target.model),
            price,
            tier: fitness.tier.or(price.map(Tier::by_price)).unwrap_or_default(),
            fitness,
        }
    }

    /// Whether it has what a variant of `auto` asks for.
    pub fn has(&self, need: Need) -> bool {
        match need {
            Need::Vision => self.caps.vision,
            Need::Multimodal => self.caps.vision && self.caps.audio_input,
            Need::Reasoning => self.caps.reasoning,
            Need::Free => self.price.is_some_and(|price| price <= 0.0),
            Need::Premium => self.tier == Tier::Premium,
        }
    }
}
