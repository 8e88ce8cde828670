//! What vendors tell of an account when they are asked for it: money that is left, limits of a key, requests of a plan.
//! Only calls that a vendor documents, and that take the key which the account has anyway.

use std::borrow::Cow;
use std::sync::Arc;

use http::{HeaderMap, Uri};

mod amount;
mod read;

pub use amount::Amount;

/// How a vendor is asked. Base URLs end with one of `instead_of`, whose place the paths take, or the paths come behind them.
struct Row {
    provider: &'static str,
    instead_of: &'static [&'static str],
    calls: &'static [Call],
}

struct Call {
    path: &'static str,
    /// Whether ordinary keys may be refused.
    is_for_some: bool,
    read: Reader,
}

type Reader = fn(&[u8], i64) -> Result<Reading, Unread>;

const fn call(path: &'static str, read: Reader) -> Call {
    Call { path, is_for_some: false, read }
}

const ROWS: [Row; 11] = [
    // https://api-docs.deepseek.com/api/get-user-balance
    Row {
        provider: "deepseek",
        instead_of: &["/v1"],
        calls: &[call("/user/balance", |body, _| read::deepseek(body))],
    },
    // https://platform.kimi.ai/docs/api/balance, in US dollars
    Row {
        provider: "moonshot",
        instead_of: &[],
        calls: &[call("/users/me/balance", |body, _| read::moonshot(body, "usd"))],
    },
    // https://platform.moonshot.cn/docs/api/balance, in yuan
    Row {
        provider: "moonshot-cn",
        instead_of: &[],
        calls: &[call("/users/me/balance", |body, _| read::moonshot(body, "cny"))],
    },
    // https://novita.ai/docs/api-reference/basic-get-user-balance
    Row {
        provider: "novita",
        instead_of: &["/openai/v1", "/v3/openai"],
        calls: &[call("/openapi/v1/billing/balance/detail", |body, _| read::novita(body))],
    },
    // https://openrouter.ai/docs/api/api-reference/api-keys/get-current-key
    // https://openrouter.ai/docs/api/api-reference/credits/get-credits, for keys that manage
    Row {
        provider: "openrouter",
        instead_of: &[],
        calls: &[
            call("/key", read::openrouter_key),
            Call { path: "/credits", is_for_some: true, read: |body, _| read::openrouter_credits(body) },
        ],
    },
    // https://creator.poe.com/api-reference/getCurrentBalance
    Row {
        provider: "poe",
        instead_of: &["/v1"],
        calls: &[call("/usage/current_balance", |body, _| read::poe(body))],
    },
    // https://www.recraft.ai/docs/api-reference/endpoints
    Row { provider: "recraft", instead_of: &[], calls: &[call("/users/me", |body, _| read::credits(body))] },
    // https://docs.siliconflow.com/en/api-reference/userinfo/get-user-info, in US dollars
    Row {
        provider: "siliconflow",
        instead_of: &[],
        calls: &[call("/user/info", |body, _| read::siliconflow(body, "usd"))],
    },
    // https://docs.siliconflow.cn/en/api-reference/userinfo/get-user-info, in yuan
    Row {
        provider: "siliconflow-cn",
        instead_of: &[],
        calls: &[call("/user/info", |body, _| read::siliconflow(body, "cny"))],
    },
    // https://platform.stability.ai/docs/api-reference#tag/User/paths/~1v1~1user~1balance/get
    Row {
        provider: "stability",
        instead_of: &["/v2beta"],
        calls: &[call("/v1/user/balance", |body, _| read::credits(body))],
    },
    // https://vercel.com/docs/ai-gateway/observability-and-spend/usage
    Row {
        provider: "vercel-ai-gateway",
        instead_of: &[],
        calls: &[call("/credits", |body, _| read::vercel(body))],
    },
];

/// How an account's vendor is asked what is left; ready to use, built once per configuration change.
#[derive(Debug, Clone)]
pub struct QuotaApi {
    /// What is asked, one after the other.
    pub calls: Vec<QuotaCall>,
    /// Every header of a request, credential included (marked sensitive).
    pub headers: HeaderMap,
}

impl QuotaApi {
    /// Whether it is asked for the same account: at the same places, with the same credential.
    pub fn is_same(&self, other: &Self) -> bool {
        let uris = |api: &Self| api.calls.iter().map(|call| call.uri.clone()).collect::<Vec<_>>();
        self.headers == other.headers && uris(self) == uris(other)
    }
}

/// One call.
#[derive(Clone)]
pub struct QuotaCall {
    /// Where; always GET.
    pub uri: Uri,
    /// Whether ordinary keys may be refused, so that a refusal says nothing.
    pub is_for_some: bool,
    read: Reader,
}

impl QuotaCall {
    /// Reads an answer. `now_ms` is UTC, for vendors that do not name the time at which they count anew.
    pub fn read(&self, body: &[u8], now_ms: i64) -> Result<Reading, Unread> {
        (self.read)(body, now_ms)
    }
}

impl std::fmt::Debug for QuotaCall {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("QuotaCall").field("uri", &self.uri).finish_non_exhaustive()
    }
}

/// Why an answer says nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unread {
    /// It has another shape than the vendor documents.
    #[error("the answer has not the shape that the vendor documents: {0}")]
    Shape(String),
    /// The vendor says in it that it does not know.
    #[error("the vendor says `{0}` instead of what is left")]
    Refused(String),
}

/// What a vendor told of an account.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reading {
    /// The plan it is on, where the vendor names it.
    pub plan: Option<&'static str>,
    /// Each limit and each purse.
    pub quotas: Vec<ToldQuota>,
    /// Whether the account cannot be used for want of them.
    pub is_spent: bool,
    /// Whether nothing is left to pay with, at a vendor that serves what is free all the same.
    pub is_dry: bool,
}

/// One limit or purse. What the vendor does not say is `None`, and never 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToldQuota {
    /// `balance`, `credits`, `key`, …
    pub name: Cow<'static, str>,
    /// What was used of it.
    pub used: Option<Amount>,
    /// How much there is in all.
    pub total: Option<Amount>,
    /// What is left.
    pub remaining: Option<Amount>,
    /// `usd`, `cny`, `credits`, `points`, …
    pub unit: Cow<'static, str>,
    /// When the vendor counts anew, in epoch milliseconds.
    pub reset_at: Option<i64>,
}

impl Reading {
    /// Of a single quota, which ends the account when it is used up.
    fn of(quota: ToldQuota) -> Self {
        Self { plan: None, is_spent: quota.is_spent(), is_dry: false, quotas: vec![quota] }
    }

    /// Of a purse at a vendor that has free models too, or models that are paid for elsewhere: those are served when it is
    /// empty.
    fn beside_free(quota: ToldQuota) -> Self {
        Self { plan: None, is_spent: false, is_dry: quota.is_spent(), quotas: vec![quota] }
    }

    /// Takes over what another call told: each of them can end the account.
    pub fn add(&mut self, other: Self) {
        self.plan = self.plan.or(other.plan);
        self.quotas.extend(other.quotas);
        self.is_spent |= other.is_spent;
        self.is_dry |= other.is_dry;
    }

    /// The share of the scarcest quota and when that is counted anew; `None` where no total is known, unless nothing is left.
    pub fn scarcest(&self) -> Option<(f64, Option<i64>)> {
        if self.is_dry {
            return Some((0.0, None));
        }
        let shares = self.quotas.iter().filter_map(|quota| Some((quota.share()?, quota.reset_at)));
        shares.min_by(|one, other| one.0.total_cmp(&other.0))
    }

    /// When an account that is spent can be used again: with the last of what is used up; `None` where one of them has no such
    /// time, or nothing says which it is.
    pub fn back_at(&self) -> Option<i64> {
        let spent = self.quotas.iter().filter(|quota| quota.is_spent());
        spent
            .map(|quota| quota.reset_at)
            .try_fold(None, |latest: Option<i64>, at| Some(latest.max(Some(at?))))?
    }
}

impl ToldQuota {
    /// Whether nothing is left of it. Where there never was anything, nothing was used up.
    pub fn is_spent(&self) -> bool {
        self.remaining.is_some_and(Amount::is_nothing) && !self.total.is_some_and(Amount::is_nothing)
    }

    /// The share that is left, between 0 and 1; `None` where the total is unknown or nothing.
    pub fn share(&self) -> Option<f64> {
        let (remaining, total) = (self.remaining?, self.total.filter(|total| !total.is_nothing())?);
        Some((remaining.to_f64() / total.to_f64()).clamp(0.0, 1.0))
    }
}

/// Whether a base URL is the vendor's own. A relay in its place answers for the vendor's models, and not for its accounts.
pub(crate) fn is_home(own: &str, base_url: &str) -> bool {
    if own == base_url {
        return true;
    }
    let (Ok(own), Ok(asked)) = (own.parse::<Uri>(), base_url.parse::<Uri>()) else { return false };
    let (Some(own), Some(asked), Some("https")) = (own.host(), asked.host(), asked.scheme_str()) else {
        return false;
    };
    let mut dots = own.rmatch_indices('.').map(|(at, _)| at);
    let site = dots.nth(1).map_or(own, |at| &own[at + 1..]);
    let asked = asked.to_ascii_lowercase();
    asked.strip_suffix(site).is_some_and(|before| before.is_empty() || before.ends_with('.'))
}

/// Where a provider is asked below a base URL, and how; empty for those that cannot be.
pub(crate) fn calls_of(provider: &str, base_url: &str) -> impl Iterator<Item = (String, Planned)> {
    let row = ROWS.iter().find(|row| row.provider == provider);
    let calls = row.map_or(&[][..], |row| row.calls);
    let root = row.and_then(|row| row.instead_of.iter().find_map(|end| base_url.strip_suffix(end)));
    let root = root.unwrap_or(base_url).to_owned();
    calls.iter().map(move |call| (format!("{root}{}", call.path), Planned(call)))
}

/// A call whose address is not checked yet.
pub(crate) struct Planned(&'static Call);

impl Planned {
    pub(crate) fn at(self, uri: Uri) -> QuotaCall {
        QuotaCall { uri, is_for_some: self.0.is_for_some, read: self.0.read }
    }
}

/// The API of an account, if its vendor has one.
pub(crate) fn api(calls: Vec<QuotaCall>, headers: HeaderMap) -> Option<Arc<QuotaApi>> {
    (!calls.is_empty()).then(|| Arc::new(QuotaApi { calls, headers }))
}

#[cfg(test)]
mod tests;
