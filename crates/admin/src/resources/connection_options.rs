//! `providerSpecificData` of a connection as it is sent, and what may be wrong with it.

use std::collections::BTreeMap;

use omniroute_domain::budget::Calendar;
use omniroute_domain::entity::{ConnectionOptions, Discount, KeyPool, MAX_QUOTA_WINDOWS, QuotaWindow};
use omniroute_domain::plan::PlanWindow;
use serde_json::Value;

use crate::endpoint::Ignored;
use crate::provider_lookup::Vendor;
use crate::text::unmasked;
use crate::validation::Problems;

/// Most further keys of a connection.
const MAX_POOL: usize = 100;

/// Merges `providerSpecificData`. What the provider has no use for is ignored, and said so.
pub(super) fn merge_options(
    options: &mut ConnectionOptions,
    members: BTreeMap<String, Value>,
    vendor: &Vendor,
    ignored: &Ignored,
    problems: &mut Problems,
) {
    for (name, value) in members {
        let field = format!("providerSpecificData.{name}");
        match name.as_str() {
            "baseUrl" => take(&mut options.base_url, &field, value, "must be a text", problems),
            "dialect" => take(&mut options.dialect, &field, value, "must be a text", problems),
            "allowPrivate" => {
                take(&mut options.allow_private, &field, value, "must be true or false", problems);
            }
            "extraHeaders" => {
                let stored = options.extra_headers.clone();
                take(&mut options.extra_headers, &field, value, "must map names to texts", problems);
                options.extra_headers = unmasked(std::mem::take(&mut options.extra_headers), &stored);
            }
            "apiKeys" => {
                let mut keys: Vec<String> = Vec::new();
                take(&mut keys, &field, value, "must be a list of keys", problems);
                if keys.len() > MAX_POOL {
                    problems.add(&field, format!("must have at most {MAX_POOL} keys"));
                }
                for (at, key) in keys.iter().enumerate().take(MAX_POOL) {
                    check_key(&format!("{field}[{at}]"), key, problems);
                }
                options.api_keys = KeyPool(keys.into_iter().map(Into::into).collect());
            }
            "limiter" => {
                let mut chosen = Some(false);
                take(&mut chosen, &field, value, "must be true, false or null", problems);
                options.limiter = chosen;
            }
            "weight" => match value {
                Value::Null => options.weight = None,
                _ => match value.as_u64().and_then(|weight| u32::try_from(weight).ok()) {
                    Some(weight @ 0..=1_000_000) => options.weight = Some(weight),
                    _ => problems.add(&field, "must be a whole number from 0 to 1000000"),
                },
            },
            "discount" => match value {
                Value::Null => options.discount = None,
                _ => match value.as_f64().map(Discount::try_from) {
                    Some(Ok(discount)) => options.discount = Some(discount),
                    _ => problems.add(&field, "must be a share between 0 and 1, such as 0.2"),
                },
            },
            "quotaWindows" => match value {
                Value::Null => options.quota_windows.clear(),
                value => options.quota_windows = quota_windows(&field, value, problems),
            },
            "excludedModels" => {
                take(&mut options.excluded_models, &field, value, "must be a list of texts", problems);
            }
            _ if !vendor.provider.spec().vars.contains_key(&name) => ignored.add(field),
            _ => match value {
                Value::Null => {
                    options.vars.remove(&name);
                }
                Value::String(text) if text.len() <= 2_048 => {
                    options.vars.insert(name, text);
                }
                _ => problems.add(&field, "must be a text of at most 2048 bytes"),
            },
        }
    }
}

/// What the plan of an account allows.
fn quota_windows(field: &str, value: Value, problems: &mut Problems) -> Vec<QuotaWindow> {
    let Value::Array(rows) = value else {
        problems.add(field, "must be a list such as [{\"window\":\"5h\",\"requests\":500}]");
        return Vec::new();
    };
    if rows.len() > MAX_QUOTA_WINDOWS {
        problems.add(field, format!("must have at most {MAX_QUOTA_WINDOWS} windows"));
    }
    let mut windows: Vec<QuotaWindow> = Vec::new();
    for (at, row) in rows.into_iter().enumerate().take(MAX_QUOTA_WINDOWS) {
        let field = format!("{field}[{at}]");
        let window = match serde_json::from_value::<QuotaWindow>(row) {
            Ok(window) => window,
            Err(error) => {
                problems.add(&field, error.to_string());
                continue;
            }
        };
        if let Err(error) = PlanWindow::new(&window, &Calendar::default()) {
            problems.add(&field, error.to_string());
        } else if windows.iter().any(|other| other.window == window.window) {
            problems
                .add(&field, format!("`{}` is there already; one has requests and tokens", window.window));
        }
        windows.push(window);
    }
    windows
}

/// Whether a text can be a key: without spaces, unless it is an object that a vendor hands out as a file.
pub(super) fn check_key(field: &str, key: &str, problems: &mut Problems) {
    problems.length(field, key, 1..=16_384);
    if key.chars().any(|c| c.is_control() || c.is_whitespace()) && !key.starts_with('{') {
        problems.add(field, "must not contain spaces or line breaks");
    }
}

fn take<T>(target: &mut T, field: &str, value: Value, expected: &str, problems: &mut Problems)
where
    T: serde::de::DeserializeOwned + Default,
{
    if value.is_null() {
        *target = T::default();
        return;
    }
    match serde_json::from_value(value) {
        Ok(value) => *target = value,
        Err(_) => problems.add(field, expected),
    }
}
