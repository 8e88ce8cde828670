//! Taking over a list of prices in LiteLLM's form (`model_prices_and_context_window.json`). The list comes in the body;
//! the gateway fetches none.

use std::collections::{BTreeMap, BTreeSet};

use omniroute_domain::price::{MAX_ROWS, PriceRow, TierRow};
use omniroute_domain::resolve::MAX_MODEL_LENGTH;
use omniroute_provider::{ProviderId, foreign};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::Names;
use crate::auth::Management;
use crate::endpoint::{Body, Json};
use crate::error::{AdminResult, invalid_field};

#[derive(Deserialize, ToSchema)]
pub(crate) struct List {
    /// `file`.
    source: String,
    /// The list: what is known of each model, by its name.
    #[schema(value_type = Object)]
    models: Option<Map<String, Value>>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Synced {
    /// Prices that changed.
    updated: usize,
    /// Prices that are new.
    added: usize,
    /// Prices that were there already.
    unchanged: usize,
    /// Entries without a price, of a provider that is not known, or that cannot be read.
    skipped: usize,
    /// Those providers, at most fifty.
    unknown_providers: BTreeSet<String>,
}

const MAX_UNKNOWN: usize = 50;

pub(crate) async fn sync(access: Management, Body(list): Body<List>) -> AdminResult<Json<Synced>> {
    match list.source.as_str() {
        "file" => {}
        "url" => {
            let message = "`url` is not possible: the gateway fetches no lists; send the list itself as `models` with \
                           the source `file`";
            return Err(invalid_field("source", message));
        }
        _ => return Err(invalid_field("source", "must be `file`")),
    }
    let models = list.models.ok_or_else(|| invalid_field("models", "is required: the list, by model"))?;
    let admin = &access.admin;
    let names = Names::of(admin).await?;
    let mut synced =
        Synced { updated: 0, added: 0, unchanged: 0, skipped: 0, unknown_providers: BTreeSet::new() };
    let mut rows: BTreeMap<(ProviderId, String), PriceRow> = BTreeMap::new();
    for (key, entry) in &models {
        match read(&names, key, entry) {
            Ok((provider, model, row)) => drop(rows.insert((provider, model), row)),
            Err(unknown) => {
                synced.skipped += 1;
                if let Some(provider) = unknown.filter(|_| synced.unknown_providers.len() < MAX_UNKNOWN) {
                    synced.unknown_providers.insert(provider);
                }
            }
        }
    }
    let prices = admin.store.prices();
    let changed = prices.change(|book| {
        for ((provider, model), row) in rows {
            let models = book.synced.entry(provider).or_default();
            match models.insert(model, row.clone()) {
                None => synced.added += 1,
                Some(before) if before == row => synced.unchanged += 1,
                Some(_) => synced.updated += 1,
            }
        }
        if book.synced.values().map(BTreeMap::len).sum::<usize>() > MAX_ROWS {
            return Err(invalid_field("models", format!("there may be {MAX_ROWS} prices of lists")));
        }
        Ok(synced)
    });
    let synced = changed.await??;
    access.reload().await?;
    let Synced { updated, added, .. } = synced;
    access.audit("pricing.updated", "pricing", "list", &format!("{added} new, {updated} changed")).await;
    Ok(Json(synced))
}

/// A price of the list; the name of the provider if that is what is not known.
fn read(names: &Names, key: &str, entry: &Value) -> Result<(ProviderId, String, PriceRow), Option<String>> {
    let entry = entry.as_object().ok_or(None)?;
    let named = entry.get("litellm_provider").and_then(Value::as_str).ok_or(None)?;
    let provider = provider(names, named).ok_or_else(|| Some(named.chars().take(64).collect::<String>()))?;
    // `together_ai/meta-llama/x` is `meta-llama/x` there; a maker's name that belongs to the model stays.
    let model = match key.split_once('/') {
        Some((prefix, rest))
            if prefix == named || self::provider(names, prefix).as_ref() == Some(&provider) =>
        {
            rest
        }
        _ => key,
    };
    if model.is_empty() || model.len() > MAX_MODEL_LENGTH || model.chars().any(char::is_control) {
        return Err(None);
    }
    let row = row(entry);
    if row == PriceRow::default() || !row.problems().is_empty() {
        return Err(None);
    }
    Ok((provider, model.to_owned(), row))
}

fn provider(names: &Names, named: &str) -> Option<ProviderId> {
    let own = foreign::own_name(named);
    names.id_of(own).or_else(|| names.id_of(&own.replace('_', "-"))).cloned()
}

fn row(entry: &Map<String, Value>) -> PriceRow {
    let number = |name: &str| entry.get(name).and_then(Value::as_f64);
    let token = |name: &str| number(name).map(per_million);
    PriceRow {
        input: token("input_cost_per_token"),
        output: token("output_cost_per_token"),
        cached: token("cache_read_input_token_cost"),
        reasoning: token("output_cost_per_reasoning_token"),
        cache_creation: token("cache_creation_input_token_cost"),
        cache_creation_1h: token("cache_creation_input_token_cost_above_1hr"),
        audio_input: token("input_cost_per_audio_token"),
        audio_output: token("output_cost_per_audio_token"),
        image_output: token("output_cost_per_image_token"),
        batch_input: token("input_cost_per_token_batches"),
        batch_output: token("output_cost_per_token_batches"),
        image: number("output_cost_per_image"),
        per_request: number("input_cost_per_request"),
        per_second_in: number("input_cost_per_second"),
        per_second_out: number("output_cost_per_second"),
        per_character_in: number("input_cost_per_character"),
        per_query: number("input_cost_per_query"),
        fast: entry.get("provider_specific_entry").and_then(|own| own.get("fast")).and_then(Value::as_f64),
        flex: factor(entry, "flex"),
        flex_cached: factor(entry, "flex").and_then(|flex| {
            let cached = ratio(entry, "cache_read_input_token_cost", "flex")?;
            Some(cached).filter(|cached| (cached - flex).abs() > NEAR)
        }),
        priority: factor(entry, "priority"),
        tiers: tiers(entry),
    }
}

/// What the prices of tokens are multiplied by in a tier of service, where those of prompts and of answers agree.
fn factor(entry: &Map<String, Value>, tier: &str) -> Option<f64> {
    let [input, output] =
        ["input_cost_per_token", "output_cost_per_token"].map(|name| ratio(entry, name, tier));
    let (input, output) = (input?, output?);
    ((input - output).abs() <= NEAR * input).then_some(input)
}

/// A price in a tier of service by the usual one.
fn ratio(entry: &Map<String, Value>, name: &str, tier: &str) -> Option<f64> {
    let usual = entry.get(name).and_then(Value::as_f64).filter(|usual| *usual > 0.0)?;
    let tiers = entry.get(&format!("{name}_{tier}")).and_then(Value::as_f64)?;
    Some((tiers / usual * 1e6).round() / 1e6)
}

/// Prices are rounded to cents: so far apart may be what is meant to be one factor.
const NEAR: f64 = 0.001;

/// `input_cost_per_token_above_200k_tokens` and its kin.
fn tiers(entry: &Map<String, Value>) -> Option<Vec<TierRow>> {
    type Set = fn(&mut TierRow, f64);
    let members: [(&str, Set); 4] = [
        ("input_cost_per_token_above_", |tier, price| tier.input = Some(price)),
        ("output_cost_per_token_above_", |tier, price| tier.output = Some(price)),
        ("cache_read_input_token_cost_above_", |tier, price| tier.cached = Some(price)),
        ("cache_creation_input_token_cost_above_", |tier, price| tier.cache_creation = Some(price)),
    ];
    let mut tiers: BTreeMap<u64, TierRow> = BTreeMap::new();
    for (name, value) in entry {
        for (start, set) in members {
            let thousands = name.strip_prefix(start).and_then(|rest| rest.strip_suffix("k_tokens"));
            let Some(thousands) = thousands.and_then(|text| text.parse::<u32>().ok()) else { continue };
            let Some(price) = value.as_f64() else { continue };
            let above_tokens = u64::from(thousands) * 1_000;
            let empty =
                TierRow { above_tokens, input: None, output: None, cached: None, cache_creation: None };
            set(tiers.entry(above_tokens).or_insert(empty), per_million(price));
        }
    }
    (!tiers.is_empty()).then(|| tiers.into_values().collect())
}

/// USD per token as USD per million, without the crumbs of the multiplication.
fn per_million(per_token: f64) -> f64 {
    (per_token * 1e15).round() / 1e9
}
