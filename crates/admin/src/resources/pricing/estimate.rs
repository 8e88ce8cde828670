//! What so many tokens of a model would cost.

use std::collections::BTreeMap;

use omniroute_dialect::ir::{Tier, Usage};
use omniroute_domain::price::{Units, bill};
use omniroute_domain::resolve::{self, ResolveError};
use omniroute_domain::snapshot::Snapshot;
use omniroute_provider::ProviderId;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::auth::Management;
use crate::endpoint::{Body, Json};
use crate::error::{AdminResult, invalid_field};
use crate::text::usd;
use crate::validation::Problems;

#[derive(Deserialize, ToSchema)]
pub(crate) struct Ask {
    /// A model as a client would ask for it.
    model: String,
    tokens: TokenCounts,
}

/// How much of what. Totals contain their parts: `input` what was read from and written to caches, `output` reasoning.
#[derive(Deserialize, ToSchema, Default, Clone, Copy)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct TokenCounts {
    input: u64,
    cache_read: u64,
    cache_write: u64,
    #[serde(rename = "cacheWrite1h")]
    cache_write_1h: u64,
    audio_in: u64,
    output: u64,
    reasoning: u64,
    audio_out: u64,
    images: u64,
    characters: u64,
    queries: u64,
    millis_in: u64,
    millis_out: u64,
    /// Whether the answer is served at the vendor's higher speed: the tier `fast`.
    fast: bool,
    /// The tier in which the answer is served: `default`, `flex`, `priority` or `fast`.
    service_tier: AskedTier,
}

/// A tier of service.
#[derive(Deserialize, Serialize, ToSchema, Default, Clone, Copy)]
#[serde(rename_all = "lowercase")]
pub(crate) enum AskedTier {
    /// The usual one.
    #[default]
    Default,
    /// Slower.
    Flex,
    /// Ahead of others.
    Priority,
    /// At a higher speed.
    Fast,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Estimate {
    /// USD; null when a price that is needed is not known.
    cost: Option<f64>,
    /// USD by what is paid for; null = it has no price.
    breakdown: BTreeMap<&'static str, Option<f64>>,
    provider: String,
    model: String,
    /// `user`, `synced`, `catalog` or `inferred`; null = the model has no price.
    price_source: Option<&'static str>,
    price_version: Option<String>,
}

pub(crate) async fn estimate(access: Management, Body(ask): Body<Ask>) -> AdminResult<Json<Estimate>> {
    let tokens = ask.tokens;
    let mut problems = Problems::default();
    let within = |parts: &[u64], total: u64| {
        parts.iter().try_fold(0_u64, |sum, part| sum.checked_add(*part)).is_some_and(|sum| sum <= total)
    };
    if !within(&[tokens.cache_read, tokens.cache_write, tokens.cache_write_1h, tokens.audio_in], tokens.input)
    {
        problems.add(
            "tokens.input",
            "contains what was read from and written to caches, and audio; it cannot be less",
        );
    }
    if !within(&[tokens.reasoning, tokens.audio_out], tokens.output) {
        problems.add("tokens.output", "contains reasoning and audio; it cannot be less");
    }
    problems.done()?;
    let snapshot = access.admin.live.load();
    let (provider, model) = target(&snapshot, &ask.model)?;
    let quote = snapshot.quote(&provider, &model);
    let billed = quote.as_ref().map(|quote| bill(&quote.price, &tokens.usage(), &tokens.units()));
    Ok(Json(Estimate {
        cost: billed.as_ref().and_then(|bill| bill.total_nano).map(usd),
        breakdown: billed
            .iter()
            .flat_map(|bill| bill.lines.iter().map(|line| (line.name, line.nano.map(usd))))
            .collect(),
        provider: provider.to_string(),
        model,
        price_source: quote.as_ref().map(|quote| quote.source.as_str()),
        price_version: quote.map(|quote| quote.version.to_string()),
    }))
}

/// The provider and the model that a name means, usable or not: a price needs no account.
fn target(snapshot: &Snapshot, name: &str) -> AdminResult<(ProviderId, String)> {
    if snapshot.combo(name).is_some() {
        return Err(invalid_field("model", "is a combo; ask for one of its models"));
    }
    let error = match resolve::model(snapshot, name) {
        Ok(target) => return Ok((target.provider.id.clone(), target.model.to_string())),
        Err(error) => error,
    };
    let split = name.split_once('/').and_then(|(prefix, model)| Some((snapshot.by_prefix(prefix)?, model)));
    match (&error, split) {
        (ResolveError::NoCredentials { .. }, Some((provider, model))) => {
            Ok((provider.clone(), model.to_owned()))
        }
        (ResolveError::NotFound { inactive, .. }, _) if inactive.len() == 1 => {
            Ok((inactive[0].clone(), name.to_owned()))
        }
        _ => Err(invalid_field("model", error.to_string())),
    }
}

impl TokenCounts {
    fn usage(&self) -> Usage {
        let cached = self.cache_read + self.cache_write + self.cache_write_1h;
        Usage {
            input_uncached: Some(self.input.saturating_sub(cached)),
            cache_read: Some(self.cache_read),
            cache_write: Some(self.cache_write),
            cache_write_1h: Some(self.cache_write_1h),
            audio_input: Some(self.audio_in),
            output_total: Some(self.output),
            reasoning: Some(self.reasoning),
            audio_output: Some(self.audio_out),
            billed_nano: None,
            tier: Some(match self.service_tier {
                AskedTier::Default if self.fast => Tier::Fast,
                AskedTier::Default => Tier::Standard,
                AskedTier::Flex => Tier::Flex,
                AskedTier::Priority => Tier::Priority,
                AskedTier::Fast => Tier::Fast,
            }),
        }
    }

    fn units(&self) -> Units {
        Units {
            images: self.images,
            millis_in: self.millis_in,
            millis_out: self.millis_out,
            characters: self.characters,
            queries: self.queries,
            requests: 1,
        }
    }
}
