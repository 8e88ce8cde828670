//! What an answer did cost, line by line.

use omniroute_dialect::ir::{Tier, Usage};
use smallvec::SmallVec;

use super::{MILLION, Price, Rates, Units};

/// What an answer cost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bill {
    /// What is paid for.
    pub lines: SmallVec<[Line; 14]>,
    /// In nano-USD; `None` if the usage or a price that it needs is not known.
    pub total_nano: Option<i64>,
}

/// One thing that is paid for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line {
    /// `input`, `cacheRead`, …
    pub name: &'static str,
    /// How much of it; milliseconds where it is time.
    pub amount: u64,
    /// In nano-USD, rounded by itself; `None` = it has no price.
    pub nano: Option<i64>,
}

/// What a chat answer cost, in nano-USD; `None` if the usage or a price that it needs is not known.
pub fn cost_nano(price: &Price, usage: &Usage) -> Option<i64> {
    cost_nano_with(price, usage, &Units::REQUEST)
}

/// What an answer cost whose bill knows other units than tokens, in nano-USD. Tokens that were not reported do not
/// matter if any unit was.
pub fn cost_nano_with(price: &Price, usage: &Usage, units: &Units) -> Option<i64> {
    if !is_counted(usage, units) {
        return None;
    }
    if let Some(nano) = text_only(price, usage, units) {
        return nano;
    }
    let positions = positions(price, usage, units);
    total_nano(&positions, paid(&positions))
}

/// What a plain prompt and a plain answer of so many tokens cost in one request, in nano-USD; `None` if a price that it needs is
/// not known.
pub fn text_nano(price: &Price, input: u64, output: u64) -> Option<i64> {
    let rates = price.rates(input);
    let rate_of = |amount: u64, rate: Option<i64>| if amount == 0 { Some(0) } else { rate };
    let (input_rate, output_rate) = (rate_of(input, rates.input)?, rate_of(output, rates.output)?);
    let request = price.units.request.unwrap_or(0);
    PlainRates { input: input_rate, output: output_rate, request }.nano(input, output)
}

/// What plain prompts and plain answers of any size cost: nano-USD per million tokens, and per million requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlainRates {
    pub(super) input: i64,
    pub(super) output: i64,
    pub(super) request: i64,
}

impl PlainRates {
    /// Those of a price; `None` where they depend on the size of the prompt, or are not known.
    pub fn of(price: &Price) -> Option<Self> {
        let Rates { input, output, .. } = price.base;
        let request = price.units.request.unwrap_or(0);
        price.tiers.is_empty().then_some(Self { input: input?, output: output?, request })
    }

    /// What so many tokens cost in one request, in nano-USD; `None` if that is more than can be counted.
    pub fn nano(&self, input: u64, output: u64) -> Option<i64> {
        match self.millionths(input, output) {
            Some(small) if small <= ROUNDED => Some((small + MILLION / 2).div_euclid(MILLION)),
            // Numbers of twice the size are for what nobody asks.
            _ => {
                let of = |amount: u64, rate: i64| i128::from(amount) * i128::from(rate);
                rounded(of(input, self.input) + of(output, self.output) + i128::from(self.request))
            }
        }
    }

    /// What so many tokens cost at the dearest of these rates in one request, in nano-USD; 0 where there are none, `None` if that is
    /// more than can be counted.
    pub fn dearest(all: &[Self], input: u64, output: u64) -> Option<i64> {
        let most = |most: i64, rates: &Self| Some(most.max(rates.millionths(input, output)?));
        match all.iter().try_fold(0, most).filter(|most| *most <= ROUNDED) {
            Some(most) => Some((most + MILLION / 2).div_euclid(MILLION)),
            None => all.iter().try_fold(0, |most: i64, rates| Some(most.max(rates.nano(input, output)?))),
        }
    }

    /// A million times as much, where that is a number of usual size.
    fn millionths(&self, input: u64, output: u64) -> Option<i64> {
        let of = |amount: u64, rate: i64| i64::try_from(amount).ok()?.checked_mul(rate);
        of(input, self.input)?.checked_add(of(output, self.output)?)?.checked_add(self.request)
    }
}

/// The same where the request asks for a tier: the dearer of that one and the usual one, in which it may be served too.
/// `None` if a price that it needs is not known in one of them.
pub fn text_nano_in(price: &Price, tier: Tier, input: u64, output: u64) -> Option<i64> {
    let usual = text_nano(price, input, output);
    if tier == Tier::Standard {
        return usual;
    }
    let usage = Usage {
        input_uncached: Some(input),
        output_total: Some(output),
        tier: Some(tier),
        ..Usage::default()
    };
    Some(usual?.max(cost_nano(price, &usage)?))
}

/// What the commonest usage costs: plain prompt, plain answer, one request. `None` = it is another one.
fn text_only(price: &Price, usage: &Usage, units: &Units) -> Option<Option<i64>> {
    let Usage {
        input_uncached: Some(input),
        output_total: Some(output),
        cache_read: None | Some(0),
        cache_write: None | Some(0),
        cache_write_1h: None | Some(0),
        reasoning: None | Some(0),
        audio_input: None | Some(0),
        audio_output: None | Some(0),
        tier: None | Some(Tier::Standard),
        ..
    } = *usage
    else {
        return None;
    };
    (*units == Units::REQUEST).then(|| text_nano(price, input, output))
}

/// The bill of an answer. Lines that nothing is counted of are left out. What can be paid by tokens or by the piece is paid
/// once: by tokens if they were told and all of them have a price, else by the piece. Of pieces those are paid that have a
/// price, if any has: a sound is sold by the character or by the second.
pub fn bill(price: &Price, usage: &Usage, units: &Units) -> Bill {
    if !is_counted(usage, units) {
        return Bill { lines: SmallVec::new(), total_nano: None };
    }
    let positions = positions(price, usage, units);
    let paid = paid(&positions);
    let lines = positions.iter().filter(|position| position.is_among(paid)).map(|position| Line {
        name: position.name,
        amount: position.amount,
        nano: position.millionths().and_then(rounded),
    });
    Bill { lines: lines.collect(), total_nano: total_nano(&positions, paid) }
}

/// What a line is paid for by.
#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    Tokens,
    /// What vendors sell by tokens or by the piece, as they please: pictures, sound, text to be spoken.
    Pieces,
    /// Comes on top, whatever the rest is paid by.
    Calls,
}

/// A line before it is known whether it is paid.
struct Position {
    name: &'static str,
    by: By,
    amount: u64,
    /// Nano-USD per million.
    rate: Option<i64>,
    /// For so many of the amount.
    per: u16,
}

impl Position {
    /// Times a million, in nano-USD; `None` = it has no price.
    fn millionths(&self) -> Option<i128> {
        let product = i128::from(self.amount) * i128::from(self.rate?);
        // Numbers of this size are divided slowly, and most have nothing to be divided by.
        Some(if self.per == 1 { product } else { product / i128::from(self.per) })
    }

    const fn is_counted(&self) -> bool {
        self.amount > 0
    }

    fn is_among(&self, paid: Paid) -> bool {
        self.is_counted()
            && match self.by {
                By::Tokens => paid.tokens,
                By::Pieces => paid.pieces && (self.rate.is_some() || !paid.has_priced_pieces),
                By::Calls => true,
            }
    }
}

/// What is paid.
#[derive(Clone, Copy)]
struct Paid {
    tokens: bool,
    pieces: bool,
    has_priced_pieces: bool,
}

/// Whether anything is known of what the answer used.
fn is_counted(usage: &Usage, units: &Units) -> bool {
    usage.is_known() || Units { requests: 0, ..*units } != Units { requests: 0, ..Units::REQUEST }
}

#[inline]
fn positions(price: &Price, usage: &Usage, units: &Units) -> [Position; 14] {
    let rates = price.rates(usage.input_total().unwrap_or(0));
    let count = |tokens: Option<u64>| tokens.unwrap_or(0);
    let audio_in = count(usage.audio_input);
    let (reasoning, audio_out) = (count(usage.reasoning), count(usage.audio_output));
    let write = rates.cache_write.or(rates.input);
    let plain_out = count(usage.output_total).saturating_sub(reasoning).saturating_sub(audio_out);
    // What a painter produces is pictures.
    let output = if units.images > 0 { rates.image_output.or(rates.output) } else { rates.output };
    let line = |name, by, amount, rate| Position { name, by, amount, rate, per: 1 };
    let in_tier = |rate, is_cached| match usage.tier {
        None | Some(Tier::Standard) => rate,
        Some(tier) => price.in_tier(rate, tier, is_cached),
    };
    let tokens = |name, amount, rate| line(name, By::Tokens, amount, in_tier(rate, false));
    let cached = |name, amount, rate| line(name, By::Tokens, amount, in_tier(rate, true));
    let time = |name, millis, rate| Position { per: 1_000, ..line(name, By::Pieces, millis, rate) };
    [
        tokens("input", count(usage.input_uncached).saturating_sub(audio_in), rates.input),
        tokens("audioIn", audio_in, rates.audio_input.or(rates.input)),
        cached("cacheRead", count(usage.cache_read), rates.cached.or(rates.input)),
        tokens("cacheWrite", count(usage.cache_write), write),
        tokens("cacheWrite1h", count(usage.cache_write_1h), rates.cache_write_1h.or(write)),
        tokens("output", plain_out, output),
        tokens("reasoning", reasoning, rates.reasoning.or(rates.output)),
        tokens("audioOut", audio_out, rates.audio_output.or(rates.output)),
        line("images", By::Pieces, units.images, price.units.image),
        line("characters", By::Pieces, units.characters, price.units.character),
        line("queries", By::Calls, units.queries, price.units.query),
        // Nobody asks for a request unless its price says so.
        line("requests", By::Calls, units.requests, price.units.request.or(Some(0))),
        time("millisIn", units.millis_in, price.units.second_in),
        time("millisOut", units.millis_out, price.units.second_out),
    ]
}

#[inline]
fn paid(positions: &[Position; 14]) -> Paid {
    let of = |by: By| positions.iter().filter(move |position| position.by == by && position.is_counted());
    let has_priced_pieces = of(By::Pieces).any(|position| position.rate.is_some());
    let both = Paid { tokens: true, pieces: true, has_priced_pieces };
    if of(By::Pieces).next().is_none() || of(By::Tokens).next().is_none() {
        both
    } else if of(By::Tokens).all(|position| position.rate.is_some()) {
        Paid { pieces: false, ..both }
    } else if has_priced_pieces {
        Paid { tokens: false, ..both }
    } else {
        both
    }
}

#[inline]
fn total_nano(positions: &[Position; 14], paid: Paid) -> Option<i64> {
    let mut paid = positions.iter().filter(|position| position.is_among(paid));
    let sum = paid.try_fold(0_i128, |sum, position| Some(sum + position.millionths()?));
    sum.and_then(rounded)
}

/// The largest number that can be rounded as it is.
const ROUNDED: i64 = i64::MAX - MILLION / 2;

/// From nano-USD per million to nano-USD.
fn rounded(millionths: i128) -> Option<i64> {
    match i64::try_from(millionths).ok().filter(|small| *small <= ROUNDED) {
        Some(small) => Some((small + MILLION / 2).div_euclid(MILLION)),
        None => i64::try_from((millionths + 500_000).div_euclid(1_000_000)).ok(),
    }
}
