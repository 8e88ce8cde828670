//! What a model costs, and what an answer did.
//!
//! People write USD per million tokens ([`PriceRow`]); sums are made of integers ([`Price`], nano-USD). A price that is
//! not known makes the cost unknown, never zero; a price of zero is a price.

mod bill;
mod book;
mod units;

use std::fmt::Write;
use std::sync::Arc;

use omniroute_dialect::ir::Tier;
use omniroute_provider::model::ModelSpec;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

pub use bill::{Bill, Line, PlainRates, bill, cost_nano, cost_nano_with, text_nano, text_nano_in};
pub use book::{EVERY_MODEL, MAX_ROWS, Overrides, PriceBook};
pub use units::Units;

/// Prices as people and the API write them: USD per million tokens, or per unit where the name says so. In an
/// operator's row, what is absent is taken from the catalogue.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PriceRow {
    /// Prompt tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<f64>,
    /// Produced tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<f64>,
    /// Prompt tokens read from a cache; else as `input`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cached: Option<f64>,
    /// Produced tokens spent on reasoning; else as `output`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasoning: Option<f64>,
    /// Prompt tokens written to a cache; else as `input`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_creation: Option<f64>,
    /// Prompt tokens written to a cache for an hour; else as `cache_creation`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_creation_1h: Option<f64>,
    /// Audio tokens of the prompt; else as `input`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audio_input: Option<f64>,
    /// Produced audio tokens; else as `output`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audio_output: Option<f64>,
    /// Produced image tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_output: Option<f64>,
    /// Prompt tokens in batches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch_input: Option<f64>,
    /// Produced tokens in batches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch_output: Option<f64>,
    /// One image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<f64>,
    /// One request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_request: Option<f64>,
    /// One second of audio or video sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_second_in: Option<f64>,
    /// One second of audio or video produced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_second_out: Option<f64>,
    /// One character of text to be spoken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_character_in: Option<f64>,
    /// One query.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_query: Option<f64>,
    /// What the prices of tokens are multiplied by where an answer was served at a higher speed. Without, what such an
    /// answer costs is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fast: Option<f64>,
    /// The same in the slower tier (`service_tier` `flex`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flex: Option<f64>,
    /// The same for prompt tokens read from a cache there; else as `flex`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flex_cached: Option<f64>,
    /// The same ahead of others (`service_tier` `priority`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<f64>,
    /// Prices of the whole request above a prompt size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tiers: Option<Vec<TierRow>>,
}

/// Prices of a whole request whose prompt is larger than `above_tokens`; what is absent stays as below it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TierRow {
    /// Prompt tokens, cached ones included.
    pub above_tokens: u64,
    /// Prompt tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<f64>,
    /// Produced tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<f64>,
    /// Prompt tokens read from a cache.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cached: Option<f64>,
    /// Prompt tokens written to a cache.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_creation: Option<f64>,
}

impl PriceRow {
    /// The names of its members.
    pub const MEMBERS: [&str; 22] = [
        "input",
        "output",
        "cached",
        "reasoning",
        "cache_creation",
        "cache_creation_1h",
        "audio_input",
        "audio_output",
        "image_output",
        "batch_input",
        "batch_output",
        "image",
        "per_request",
        "per_second_in",
        "per_second_out",
        "per_character_in",
        "per_query",
        "fast",
        "flex",
        "flex_cached",
        "priority",
        "tiers",
    ];
}

impl TierRow {
    /// The names of its members.
    pub const MEMBERS: [&str; 5] = ["above_tokens", "input", "output", "cached", "cache_creation"];
}

/// Prices to calculate with: nano-USD per million tokens or per million units.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Price {
    base: Rates,
    tiers: Vec<(u64, Rates)>,
    units: UnitRates,
    factors: Factors,
}

/// What the rates of tokens are multiplied by in tiers of service, in millionths.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Factors {
    fast: Option<i64>,
    flex: Option<i64>,
    flex_cached: Option<i64>,
    priority: Option<i64>,
}

/// The factors' unit.
const MILLION: i64 = 1_000_000;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Rates {
    input: Option<i64>,
    output: Option<i64>,
    cached: Option<i64>,
    cache_write: Option<i64>,
    cache_write_1h: Option<i64>,
    reasoning: Option<i64>,
    audio_input: Option<i64>,
    audio_output: Option<i64>,
    image_output: Option<i64>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct UnitRates {
    image: Option<i64>,
    request: Option<i64>,
    second_in: Option<i64>,
    second_out: Option<i64>,
    character: Option<i64>,
    query: Option<i64>,
}

/// Where a price comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PriceSource {
    /// The operator set it.
    User,
    /// It was taken over from a list.
    Synced,
    /// The catalogue has it.
    Catalog,
    /// It is what the maker of a resold model asks.
    Inferred,
    /// There is none: the upstream says what it billed.
    Upstream,
}

impl PriceSource {
    /// The word in rows and API fields.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Synced => "synced",
            Self::Catalog => "catalog",
            Self::Inferred => "inferred",
            Self::Upstream => "upstream",
        }
    }
}

/// A price, where it comes from, and which it was.
#[derive(Debug, Clone, PartialEq)]
pub struct Quote {
    /// As people write it.
    pub row: PriceRow,
    /// To calculate with.
    pub price: Price,
    /// Where it comes from.
    pub source: PriceSource,
    /// Short hash of the row; kept with each cost so that old figures can be explained.
    pub version: Arc<str>,
}

impl Rates {
    const fn all(&self) -> [Option<i64>; 9] {
        [
            self.input,
            self.output,
            self.cached,
            self.cache_write,
            self.cache_write_1h,
            self.reasoning,
            self.audio_input,
            self.audio_output,
            self.image_output,
        ]
    }
}

impl Price {
    /// Whether it is known that nothing costs anything.
    pub fn is_free(&self) -> bool {
        let is_zero = |rate: Option<i64>| rate.is_none_or(|rate| rate == 0);
        let UnitRates { image, request, second_in, second_out, character, query } = self.units;
        let units = [image, request, second_in, second_out, character, query];
        let all_zero = |rates: &Rates| rates.all().into_iter().all(is_zero);
        self.base.input == Some(0)
            && self.base.output == Some(0)
            && all_zero(&self.base)
            && self.tiers.iter().all(|(_, rates)| all_zero(rates))
            && units.into_iter().all(is_zero)
    }

    /// Whether speech is sold by the character of its text.
    pub const fn counts_characters(&self) -> bool {
        self.units.character.is_some()
    }

    /// Whether speech is sold by the token, and what a second of it costs only follows from that.
    pub fn speaks_by_tokens(&self) -> bool {
        self.base.audio_output.or(self.base.output).is_some()
    }

    /// Whether a second of speech has a price.
    pub const fn speaks_by_seconds(&self) -> bool {
        self.units.second_out.is_some()
    }

    /// Whether transcripts are sold by the token; as of speech.
    pub fn hears_by_tokens(&self) -> bool {
        self.base.audio_input.or(self.base.input).is_some()
    }

    /// Whether a second of a recording has a price.
    pub const fn hears_by_seconds(&self) -> bool {
        self.units.second_in.is_some()
    }

    /// The rates for a prompt of this size.
    fn rates(&self, input_total: u64) -> &Rates {
        if self.tiers.is_empty() {
            return &self.base;
        }
        let tier = self.tiers.iter().rev().find(|(above, _)| input_total > *above);
        tier.map_or(&self.base, |(_, rates)| rates)
    }

    /// Whether the prices of tokens are known in a tier.
    pub fn knows(&self, tier: Tier) -> bool {
        tier == Tier::Standard || self.factor(tier, false).is_some() || self.is_free()
    }

    /// What the rates of tokens are multiplied by in a tier.
    fn factor(&self, tier: Tier, is_cached: bool) -> Option<i64> {
        let Factors { fast, flex, flex_cached, priority } = self.factors;
        match tier {
            Tier::Standard => Some(MILLION),
            Tier::Flex => flex_cached.filter(|_| is_cached).or(flex),
            Tier::Priority => priority,
            Tier::Fast => fast,
            Tier::Other => None,
        }
    }

    /// A rate for tokens of an answer in a tier; what is free stays so.
    fn in_tier(&self, rate: Option<i64>, tier: Tier, is_cached: bool) -> Option<i64> {
        match rate {
            Some(0) => Some(0),
            rate => {
                let product = i128::from(rate?) * i128::from(self.factor(tier, is_cached)?);
                i64::try_from((product + i128::from(MILLION / 2)) / i128::from(MILLION)).ok()
            }
        }
    }
}

impl PriceRow {
    /// This row, completed from another.
    pub fn over(&self, base: &Self) -> Self {
        Self {
            input: self.input.or(base.input),
            output: self.output.or(base.output),
            cached: self.cached.or(base.cached),
            reasoning: self.reasoning.or(base.reasoning),
            cache_creation: self.cache_creation.or(base.cache_creation),
            cache_creation_1h: self.cache_creation_1h.or(base.cache_creation_1h),
            audio_input: self.audio_input.or(base.audio_input),
            audio_output: self.audio_output.or(base.audio_output),
            image_output: self.image_output.or(base.image_output),
            batch_input: self.batch_input.or(base.batch_input),
            batch_output: self.batch_output.or(base.batch_output),
            image: self.image.or(base.image),
            per_request: self.per_request.or(base.per_request),
            per_second_in: self.per_second_in.or(base.per_second_in),
            per_second_out: self.per_second_out.or(base.per_second_out),
            per_character_in: self.per_character_in.or(base.per_character_in),
            per_query: self.per_query.or(base.per_query),
            fast: self.fast.or(base.fast),
            flex: self.flex.or(base.flex),
            flex_cached: self.flex_cached.or(base.flex_cached.filter(|_| self.flex.is_none())),
            priority: self.priority.or(base.priority),
            tiers: self.tiers_over(base),
        }
    }

    /// The tiers of the base belong to its prices: who sets a price for prompts has none of them, who sets another price has
    /// theirs without it.
    fn tiers_over(&self, base: &Self) -> Option<Vec<TierRow>> {
        if self.input.is_some() || self.tiers.is_some() {
            return self.tiers.clone();
        }
        let left = |own: Option<f64>, of_tier: Option<f64>| of_tier.filter(|_| own.is_none());
        let tiers = base.tiers.iter().flatten().map(|tier| TierRow {
            above_tokens: tier.above_tokens,
            input: tier.input,
            output: left(self.output, tier.output),
            cached: left(self.cached, tier.cached),
            cache_creation: left(self.cache_creation, tier.cache_creation),
        });
        base.tiers.is_some().then(|| tiers.collect())
    }

    /// What is wrong with the row, by member.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for (name, value) in self.figures() {
            if value.is_some_and(|value| nano(value).is_none()) {
                problems.push(format!("`{name}` must be a number from 0 to {MOST}"));
            }
        }
        let tiers = self.tiers.as_deref().unwrap_or_default();
        for (at, tier) in tiers.iter().enumerate() {
            for value in [tier.input, tier.output, tier.cached, tier.cache_creation].into_iter().flatten() {
                if nano(value).is_none() {
                    problems.push(format!("`tiers[{at}]` must hold numbers from 0 to {MOST}"));
                }
            }
        }
        if tiers.windows(2).any(|pair| pair[0].above_tokens >= pair[1].above_tokens) {
            problems.push("`tiers` must be in rising order of `above_tokens`".to_owned());
        }
        problems
    }

    /// Short hash of the row.
    pub fn version(&self) -> String {
        let mut hash = Sha256::new();
        for (name, value) in self.figures() {
            if let Some(value) = value {
                hash.update(format!("{name}={value};"));
            }
        }
        for tier in self.tiers.iter().flatten() {
            hash.update(format!("{tier:?};"));
        }
        hash.finalize().iter().take(6).fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
    }

    fn figures(&self) -> [(&'static str, Option<f64>); 21] {
        [
            ("input", self.input),
            ("output", self.output),
            ("cached", self.cached),
            ("reasoning", self.reasoning),
            ("cache_creation", self.cache_creation),
            ("cache_creation_1h", self.cache_creation_1h),
            ("audio_input", self.audio_input),
            ("audio_output", self.audio_output),
            ("image_output", self.image_output),
            ("batch_input", self.batch_input),
            ("batch_output", self.batch_output),
            ("image", self.image),
            ("per_request", self.per_request),
            ("per_second_in", self.per_second_in),
            ("per_second_out", self.per_second_out),
            ("per_character_in", self.per_character_in),
            ("per_query", self.per_query),
            ("fast", self.fast),
            ("flex", self.flex),
            ("flex_cached", self.flex_cached),
            ("priority", self.priority),
        ]
    }
}

impl From<&ModelSpec> for PriceRow {
    fn from(model: &ModelSpec) -> Self {
        let unit = |name: &str| model.per_unit.get(name).copied();
        let tier = |tier: &omniroute_provider::model::PriceTier| TierRow {
            above_tokens: tier.above_tokens,
            input: tier.input,
            output: tier.output,
            cached: tier.cached_read,
            cache_creation: tier.cache_write,
        };
        Self {
            input: model.input,
            output: model.output,
            cached: model.cached_read,
            reasoning: model.reasoning,
            cache_creation: model.cache_write,
            cache_creation_1h: model.cache_write_1h,
            audio_input: model.audio_input,
            audio_output: model.audio_output,
            image_output: model.image_output,
            batch_input: model.batch_input,
            batch_output: model.batch_output,
            image: unit("per_image"),
            per_request: unit("per_request"),
            per_second_in: unit("per_second_in"),
            per_second_out: unit("per_second_out"),
            per_character_in: unit("per_character_in"),
            per_query: unit("per_query"),
            fast: model.fast,
            flex: model.flex,
            flex_cached: model.flex_cached,
            priority: model.priority,
            tiers: (!model.tiers.is_empty()).then(|| model.tiers.iter().map(tier).collect()),
        }
    }
}

impl From<&PriceRow> for Price {
    fn from(row: &PriceRow) -> Self {
        let rate = |usd: Option<f64>| usd.and_then(nano);
        let base = Rates {
            input: rate(row.input),
            output: rate(row.output),
            cached: rate(row.cached),
            cache_write: rate(row.cache_creation),
            cache_write_1h: rate(row.cache_creation_1h),
            reasoning: rate(row.reasoning),
            audio_input: rate(row.audio_input),
            audio_output: rate(row.audio_output),
            image_output: rate(row.image_output),
        };
        let tiers = row.tiers.iter().flatten().map(|tier| {
            let cache_write = rate(tier.cache_creation);
            let rates = Rates {
                input: rate(tier.input).or(base.input),
                output: rate(tier.output).or(base.output),
                cached: rate(tier.cached).or(base.cached),
                cache_write: cache_write.or(base.cache_write),
                cache_write_1h: raised(base.cache_write_1h, base.cache_write, cache_write),
                ..base
            };
            (tier.above_tokens, rates)
        });
        // Prices per unit are per one, those of tokens per million.
        let unit = |usd: Option<f64>| rate(usd).map(|nano| nano.saturating_mul(1_000_000));
        let units = UnitRates {
            image: unit(row.image),
            request: unit(row.per_request),
            second_in: fine(row.per_second_in),
            second_out: fine(row.per_second_out),
            character: fine(row.per_character_in),
            query: unit(row.per_query),
        };
        let factor = |factor: Option<f64>| {
            let factor = factor.filter(|factor| (0.0..=MOST).contains(factor))?;
            Some((factor * MILLION as f64).round() as i64)
        };
        let factors = Factors {
            fast: factor(row.fast),
            flex: factor(row.flex),
            flex_cached: factor(row.flex_cached),
            priority: factor(row.priority),
        };
        Self { base, tiers: tiers.collect(), units, factors }
    }
}

impl Quote {
    fn new(row: PriceRow, source: PriceSource) -> Self {
        Self { price: Price::from(&row), version: row.version().into(), source, row }
    }
}

/// No price is higher, in USD.
const MOST: f64 = 1_000_000.0;

/// USD as nano-USD.
fn nano(usd: f64) -> Option<i64> {
    (0.0..=MOST).contains(&usd).then(|| (usd * 1e9).round() as i64)
}

/// USD per unit as nano-USD per million units, for prices far below a nano-USD's precision of one unit.
fn fine(usd: Option<f64>) -> Option<i64> {
    let usd = usd.filter(|usd| (0.0..=MOST).contains(usd))?;
    // Beyond i64 (9,000 USD per unit) the cast saturates.
    Some((usd * 1e15).round() as i64)
}

/// The hour's price of a tier that names only the other: it rises by the same factor.
fn raised(hour: Option<i64>, base: Option<i64>, tier: Option<i64>) -> Option<i64> {
    match (hour, base, tier) {
        (Some(hour), Some(base), Some(tier)) if base > 0 => {
            i64::try_from(i128::from(hour) * i128::from(tier) / i128::from(base)).ok()
        }
        _ => hour,
    }
}

#[cfg(test)]
mod tests;
