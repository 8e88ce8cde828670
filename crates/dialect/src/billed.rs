//! What an upstream says in its usage that it billed: `cost`, as OpenRouter has it in every dialect that it speaks
//! (<https://openrouter.ai/docs/use-cases/usage-accounting>), or `cost_in_usd_ticks`, as xAI has it
//! (<https://docs.x.ai/docs/api-reference>).

use serde_json::value::RawValue;

use crate::json_in::{Fields, count_of};

/// More than this is no bill of one answer.
const MOST: f64 = 1_000_000.0;
const MOST_NANO: u64 = 1_000_000_000_000_000;

/// Ten billion of xAI's ticks are a dollar.
const TICKS_PER_NANO: u64 = 10;

/// The cost that a usage object names, in billionths. Where the caller's own key was used at a vendor behind the upstream,
/// what that vendor takes comes on top of the upstream's fee.
pub(crate) fn billed_nano(usage: &Fields<'_>) -> Option<u64> {
    if let Some(ticks) = usage.raw("cost_in_usd_ticks").and_then(count_of) {
        return Some(ticks.div_ceil(TICKS_PER_NANO)).filter(|nano| *nano <= MOST_NANO);
    }
    let fee = nano(usage.raw("cost")?)?;
    let is_own_key = usage.raw("is_byok").is_some_and(|raw| raw.get() == "true");
    let details = usage.object_or_none("cost_details").filter(|_| is_own_key);
    let beside = details.and_then(|details| nano(details.raw("upstream_inference_cost")?));
    Some(fee.saturating_add(beside.unwrap_or(0)))
}

fn nano(raw: &RawValue) -> Option<u64> {
    let amount: f64 = raw.get().parse().ok()?;
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be 0 to 10^6")]
    (0.0..=MOST).contains(&amount).then(|| (amount * 1e9).round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_a_cost_and_nothing_else_is() {
        for (json, expected) in [
            (r#"{"cost":0.00014}"#, Some(140_000)),
            (r#"{"cost":0}"#, Some(0)),
            (r#"{"cost":1.5e-5}"#, Some(15_000)),
            (r#"{"cost":null}"#, None),
            (r#"{"cost":-1}"#, None),
            (r#"{"cost":"0.1"}"#, None),
            (r#"{"cost":{"total_cost":0.006}}"#, None),
            (r#"{"cost":1e300}"#, None),
            (r#"{"prompt_tokens":3}"#, None),
            (r#"{"cost_in_usd_ticks":318319000}"#, Some(31_831_900)),
            (r#"{"cost_in_usd_ticks":null}"#, None),
            (r#"{"cost_in_usd_ticks":99999999999999999}"#, None),
            // Without a key of the caller's own, the details say what the cost is made of.
            (r#"{"cost":0.5,"cost_details":{"upstream_inference_cost":0.4}}"#, Some(500_000_000)),
            (
                r#"{"cost":0.05,"is_byok":true,"cost_details":{"upstream_inference_cost":0.4}}"#,
                Some(450_000_000),
            ),
            (r#"{"cost":0.05,"is_byok":true,"cost_details":null}"#, Some(50_000_000)),
        ] {
            let fields = Fields::lenient(json, "").expect("an object");
            assert_eq!(billed_nano(&fields), expected, "{json}");
        }
    }
}
