//! What an answer did cost, line by line.

use omniroute_dialect::ir::Usage;
use smallvec::SmallVec;

use super::{Price, Units};

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
    /// In nano-USD per million, times the amount.
    exact: Option<i128>,
}

/// What a chat answer cost, in nano-USD; `None` if the usage or a price that it needs is not known.
pub fn cost_nano(price: &Price, usage: &Usage) -> Option<i64> {
    cost_nano_with(price, usage, &Units::REQUEST)
}

/// What an answer cost whose bill knows other units than tokens, in nano-USD. Tokens that were not reported do not
/// matter if any unit was.
pub fn cost_nano_with(price: &Price, usage: &Usage, units: &Units) -> Option<i64> {
    bill(price, usage, units).total_nano
}

/// Lines of what is paid by tokens or by the piece, as vendors please: pictures, sound, text to be spoken.
const BY_THE_PIECE: [&str; 4] = ["images", "characters", "millisIn", "millisOut"];

/// The bill of an answer. Lines that nothing is counted of are left out. What can be paid by tokens or by the piece is paid
/// once: by tokens if they were told and all of them have a price, else by the piece.
pub fn bill(price: &Price, usage: &Usage, units: &Units) -> Bill {
    let counted = Units { requests: 0, ..*units } != Units { requests: 0, ..Units::REQUEST };
    if !usage.is_known() && !counted {
        return Bill { lines: SmallVec::new(), total_nano: None };
    }
    let rates = price.rates(usage.input_total().unwrap_or(0));
    let count = |tokens: Option<u64>| tokens.unwrap_or(0);
    let audio_in = count(usage.audio_input);
    let (reasoning, audio_out) = (count(usage.reasoning), count(usage.audio_output));
    let write = rates.cache_write.or(rates.input);
    let plain_out = count(usage.output_total).saturating_sub(reasoning).saturating_sub(audio_out);
    let per_million = [
        ("input", count(usage.input_uncached).saturating_sub(audio_in), rates.input),
        ("audioIn", audio_in, rates.audio_input.or(rates.input)),
        ("cacheRead", count(usage.cache_read), rates.cached.or(rates.input)),
        ("cacheWrite", count(usage.cache_write), write),
        ("cacheWrite1h", count(usage.cache_write_1h), rates.cache_write_1h.or(write)),
        // What a painter produces is pictures.
        (
            "output",
            plain_out,
            if units.images > 0 { rates.image_output.or(rates.output) } else { rates.output },
        ),
        ("reasoning", reasoning, rates.reasoning.or(rates.output)),
        ("audioOut", audio_out, rates.audio_output.or(rates.output)),
        ("images", units.images, price.units.image),
        ("characters", units.characters, price.units.character),
        ("queries", units.queries, price.units.query),
        // Nobody asks for a request unless its price says so.
        ("requests", units.requests, price.units.request.or(Some(0))),
    ];
    let per_second = [
        ("millisIn", units.millis_in, price.units.second_in),
        ("millisOut", units.millis_out, price.units.second_out),
    ];
    let lines = per_million.into_iter().map(|(name, amount, rate)| (name, amount, rate, 1));
    let lines = lines.chain(per_second.into_iter().map(|(name, amount, rate)| (name, amount, rate, 1_000)));
    let mut lines: SmallVec<[Line; 14]> = lines
        .filter(|(_, amount, ..)| *amount > 0)
        .map(|(name, amount, rate, per)| {
            let product = rate.map(|rate| i128::from(amount) * i128::from(rate));
            // Numbers of this size are divided slowly, and most have nothing to be divided by.
            let exact = product.map(|product| if per == 1 { product } else { product / per });
            Line { name, amount, nano: exact.and_then(rounded), exact }
        })
        .collect();
    let is_piece = |line: &Line| BY_THE_PIECE.contains(&line.name);
    let is_token = |line: &Line| !is_piece(line) && !matches!(line.name, "queries" | "requests");
    if lines.iter().any(is_piece) && lines.iter().any(is_token) {
        let has_price = |line: &Line| line.exact.is_some();
        if lines.iter().filter(|line| is_token(line)).all(has_price) {
            lines.retain(|line| !is_piece(line));
        } else if lines.iter().filter(|line| is_piece(line)).all(has_price) {
            lines.retain(|line| !is_token(line));
        }
    }
    let sum = lines.iter().try_fold(0_i128, |sum, line| Some(sum + line.exact?));
    Bill { lines, total_nano: sum.and_then(rounded) }
}

/// From nano-USD per million to nano-USD.
fn rounded(millionths: i128) -> Option<i64> {
    const MILLION: i64 = 1_000_000;
    match i64::try_from(millionths).ok().and_then(|small| small.checked_add(MILLION / 2)) {
        Some(small) => Some(small.div_euclid(MILLION)),
        None => i64::try_from((millionths + 500_000).div_euclid(1_000_000)).ok(),
    }
}
