//! Reads the answers of vendors. A member that they document and that is not there is an error: an account is not taken for
//! spent, or for rich, because a vendor changed its words.

use std::borrow::Cow;

use serde::Deserialize;

use super::{Amount, Reading, ToldQuota, Unread};
use crate::hints;

/// Most purses of one account.
const MAX_PURSES: usize = 16;
/// Longest name of a currency.
const MAX_UNIT: usize = 16;

fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Unread> {
    serde_json::from_slice(body).map_err(|error| Unread::Shape(error.to_string()))
}

/// A purse of which only the content is known.
fn purse(
    name: impl Into<Cow<'static, str>>,
    remaining: Amount,
    unit: impl Into<Cow<'static, str>>,
) -> ToldQuota {
    ToldQuota {
        name: name.into(),
        used: None,
        total: None,
        remaining: Some(remaining),
        unit: unit.into(),
        reset_at: None,
    }
}

#[derive(Deserialize)]
struct Enveloped<T> {
    data: T,
}

/// A key may have a limit of its own, which is counted anew at times, or none.
pub(super) fn openrouter_key(body: &[u8], now_ms: i64) -> Result<Reading, Unread> {
    #[derive(Deserialize)]
    struct Key<'a> {
        // Required, but may be null: there is no limit.
        #[serde(deserialize_with = "Option::deserialize")]
        limit: Option<Amount>,
        #[serde(deserialize_with = "Option::deserialize")]
        limit_remaining: Option<Amount>,
        #[serde(default, borrow)]
        limit_reset: Option<Cow<'a, str>>,
        usage: Amount,
        #[serde(default)]
        is_free_tier: bool,
    }
    let Enveloped { data: key } = parse::<Enveloped<Key<'_>>>(body)?;
    let used = match (key.limit, key.limit_remaining) {
        (Some(limit), Some(remaining)) => limit.less(remaining),
        _ => key.usage,
    };
    let quota = ToldQuota {
        name: "key".into(),
        used: Some(used),
        total: key.limit,
        remaining: key.limit_remaining,
        unit: "usd".into(),
        reset_at: key.limit_reset.and_then(|reset| hints::next_reset(&reset, now_ms)),
    };
    Ok(Reading { plan: key.is_free_tier.then_some("free"), ..Reading::of(quota) })
}

pub(super) fn openrouter_credits(body: &[u8]) -> Result<Reading, Unread> {
    #[derive(Deserialize)]
    struct Credits {
        total_credits: Amount,
        total_usage: Amount,
    }
    let Enveloped { data: Credits { total_credits, total_usage } } = parse(body)?;
    let remaining = total_credits.less(total_usage);
    let quota = ToldQuota {
        name: "credits".into(),
        used: Some(total_usage),
        total: Some(total_credits),
        remaining: Some(remaining),
        unit: "usd".into(),
        reset_at: None,
    };
    // What is free is served until there are debts (https://openrouter.ai/docs/api/reference/limits).
    Ok(Reading { is_spent: quota.is_spent() && remaining.is_debt(), ..Reading::beside_free(quota) })
}

/// One purse for each currency; the vendor says whether any of them is enough.
pub(super) fn deepseek(body: &[u8]) -> Result<Reading, Unread> {
    #[derive(Deserialize)]
    struct Balance<'a> {
        is_available: bool,
        #[serde(borrow)]
        balance_infos: Vec<Purse<'a>>,
    }
    #[derive(Deserialize)]
    struct Purse<'a> {
        #[serde(borrow)]
        currency: Cow<'a, str>,
        total_balance: Amount,
    }
    let Balance { is_available, balance_infos } = parse(body)?;
    let is_one = balance_infos.len() == 1;
    let quotas = balance_infos.iter().take(MAX_PURSES).map(|Purse { currency, total_balance }| {
        let unit: String = currency.to_ascii_lowercase().chars().take(MAX_UNIT).collect();
        let name = if is_one { "balance".to_owned() } else { format!("balance:{unit}") };
        purse(name, *total_balance, unit)
    });
    Ok(Reading { quotas: quotas.collect(), is_spent: !is_available, ..Reading::default() })
}

pub(super) fn moonshot(body: &[u8], unit: &'static str) -> Result<Reading, Unread> {
    #[derive(Deserialize)]
    struct Data {
        available_balance: Amount,
    }
    #[derive(Deserialize)]
    struct Answer {
        code: i64,
        data: Option<Data>,
    }
    match parse(body)? {
        Answer { code: 0, data: Some(data) } => {
            Ok(Reading::of(purse("balance", data.available_balance, unit)))
        }
        Answer { code: 0, data: None } => Err(Unread::Shape("`data` is missing".to_owned())),
        Answer { code, .. } => Err(Unread::Refused(format!("code {code}"))),
    }
}

pub(super) fn siliconflow(body: &[u8], unit: &'static str) -> Result<Reading, Unread> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Data {
        total_balance: Amount,
    }
    #[derive(Deserialize)]
    struct Answer {
        code: i64,
        data: Option<Data>,
    }
    match parse(body)? {
        Answer { code: 20_000, data: Some(data) } => {
            Ok(Reading::beside_free(purse("balance", data.total_balance, unit)))
        }
        Answer { code: 20_000, data: None } => Err(Unread::Shape("`data` is missing".to_owned())),
        Answer { code, .. } => Err(Unread::Refused(format!("code {code}"))),
    }
}

/// In ten thousandths of a US dollar.
pub(super) fn novita(body: &[u8]) -> Result<Reading, Unread> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Balance {
        available_balance: Amount,
    }
    let Balance { available_balance } = parse(body)?;
    Ok(Reading::beside_free(purse("balance", available_balance.divided_by(10_000), "usd")))
}

/// What was used is that of all times, and says nothing of how much there was.
pub(super) fn vercel(body: &[u8]) -> Result<Reading, Unread> {
    #[derive(Deserialize)]
    struct Credits {
        balance: Amount,
        total_used: Amount,
    }
    let Credits { balance, total_used } = parse(body)?;
    Ok(Reading::beside_free(ToldQuota { used: Some(total_used), ..purse("credits", balance, "usd") }))
}

pub(super) fn poe(body: &[u8]) -> Result<Reading, Unread> {
    #[derive(Deserialize)]
    struct Points {
        current_point_balance: Amount,
    }
    let Points { current_point_balance } = parse(body)?;
    Ok(Reading::of(purse("points", current_point_balance, "points")))
}

/// Of vendors that sell credits and say how many there are.
pub(super) fn credits(body: &[u8]) -> Result<Reading, Unread> {
    #[derive(Deserialize)]
    struct Credits {
        credits: Amount,
    }
    let Credits { credits } = parse(body)?;
    Ok(Reading::of(purse("credits", credits, "credits")))
}
