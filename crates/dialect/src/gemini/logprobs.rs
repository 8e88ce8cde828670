//! Log probabilities: `logprobsResult`.

use omniroute_wire::json_out::{Array, Object};
use serde_json::value::RawValue;

use crate::{
    ir::Logprob,
    json_in::{Fields, list_of, str_of},
    logprobs::{is_number, number},
};

/// Most tokens of an answer that wait for its end; those behind them are left out.
pub(super) const MAX_TOKENS: usize = 1 << 18;

/// Reads the tokens that were chosen, each with the others that were likely at its place.
pub(super) fn read(raw: &RawValue) -> Vec<Logprob> {
    let Ok(fields) = Fields::strict_camel(raw.get(), "") else { return Vec::new() };
    let list = |name: &str| fields.raw(name).and_then(list_of).unwrap_or_default();
    let mut others = list("topCandidates").into_iter().map(|raw| {
        let fields = Fields::lenient(raw.get(), "").ok();
        let list = fields.as_ref().and_then(|fields| fields.raw("candidates")).and_then(list_of);
        list.unwrap_or_default().into_iter().filter_map(token).collect()
    });
    let chosen = list("chosenCandidates").into_iter().filter_map(|raw| {
        // The lists go side by side.
        let others = others.next().unwrap_or_default();
        Some(Logprob { others, ..token(raw)? })
    });
    chosen.collect()
}

fn token(raw: &RawValue) -> Option<Logprob> {
    let fields = Fields::strict_camel(raw.get(), "").ok()?;
    Some(Logprob {
        token: fields.raw("token").and_then(str_of)?.into_owned(),
        logprob: fields.raw("logProbability").filter(|raw| is_number(raw)).map(ToOwned::to_owned),
        bytes: None,
        others: Vec::new(),
    })
}

/// Writes them; nothing where there are none.
pub(super) fn write(candidate: &mut Object<'_>, tokens: &[Logprob]) {
    if tokens.is_empty() {
        return;
    }
    let mut result = candidate.object("logprobsResult");
    if tokens.iter().any(|token| !token.others.is_empty()) {
        let mut list = result.array("topCandidates");
        for token in tokens {
            let mut place = list.object();
            write_list(place.array("candidates"), &token.others);
            place.end();
        }
        list.end();
    }
    write_list(result.array("chosenCandidates"), tokens);
    result.end();
}

fn write_list(mut list: Array<'_>, tokens: &[Logprob]) {
    for token in tokens {
        let mut object = list.object();
        object.str("token", &token.token).raw("logProbability", number(token));
        object.end();
    }
    list.end();
}
