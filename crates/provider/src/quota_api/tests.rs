use super::*;
use crate::catalog::catalog;
use crate::provider::ConnectionInput;
use crate::registry::provider_for;

/// 2026-11-27T12:00:00Z, a Friday.
const NOW_MS: i64 = 1_795_780_800_000;
const DAY_MS: i64 = 86_400_000;

fn api_of(provider: &str, base_url: Option<&str>) -> Option<Arc<QuotaApi>> {
    let spec = catalog().provider(provider).unwrap().clone();
    let input = ConnectionInput { api_key: Some("sk-secret"), base_url, ..ConnectionInput::default() };
    provider_for(spec).quota_api(&input).unwrap()
}

/// `name used/total left unit @days`, what is unknown as `-`, and whether it ends the account.
fn told(reading: &Reading) -> String {
    let amount = |amount: Option<Amount>| amount.map_or("-".to_owned(), |amount| amount.to_string());
    let quotas = reading.quotas.iter().map(|it| {
        let reset =
            it.reset_at.map_or(String::new(), |at| format!(" @{}", (at - NOW_MS) as f64 / DAY_MS as f64));
        let (used, total, left) = (amount(it.used), amount(it.total), amount(it.remaining));
        format!("{} {used}/{total} {left} {}{reset}", it.name, it.unit)
    });
    let end = match (reading.is_spent, reading.is_dry) {
        (true, _) => "; spent",
        (false, true) => "; only what is free",
        (false, false) => "",
    };
    format!("{}{end}", quotas.collect::<Vec<_>>().join(", "))
}

#[test]
fn where_vendors_are_asked() {
    for (provider, base_url, expected) in [
        ("openrouter", None, "https://openrouter.ai/api/v1/key https://openrouter.ai/api/v1/credits"),
        (
            "openrouter",
            Some("https://eu.openrouter.ai/api/v1/"),
            "https://eu.openrouter.ai/api/v1/key https://eu.openrouter.ai/api/v1/credits",
        ),
        // Whoever stands in for a vendor knows nothing of its accounts.
        ("openrouter", Some("http://openrouter.ai/api/v1"), ""),
        ("openrouter", Some("https://relay.example/api/v1"), ""),
        ("openrouter", Some("https://notopenrouter.ai/api/v1"), ""),
        ("openrouter", Some("https://openrouter.ai.example/api/v1"), ""),
        ("deepseek", Some("http://127.0.0.1:8080/v1"), ""),
        ("moonshot", Some("https://api.moonshot.cn/v1"), ""),
        ("deepseek", None, "https://api.deepseek.com/user/balance"),
        ("deepseek", Some("https://api.deepseek.com"), "https://api.deepseek.com/user/balance"),
        ("moonshot", None, "https://api.moonshot.ai/v1/users/me/balance"),
        ("moonshot-cn", None, "https://api.moonshot.cn/v1/users/me/balance"),
        ("siliconflow", None, "https://api.siliconflow.com/v1/user/info"),
        ("siliconflow-cn", None, "https://api.siliconflow.cn/v1/user/info"),
        ("novita", None, "https://api.novita.ai/openapi/v1/billing/balance/detail"),
        (
            "novita",
            Some("https://api.novita.ai/v3/openai"),
            "https://api.novita.ai/openapi/v1/billing/balance/detail",
        ),
        ("vercel-ai-gateway", None, "https://ai-gateway.vercel.sh/v1/credits"),
        ("poe", None, "https://api.poe.com/usage/current_balance"),
        ("stability", None, "https://api.stability.ai/v1/user/balance"),
        ("recraft", None, "https://external.api.recraft.ai/v1/users/me"),
        ("openai", None, ""),
        ("anthropic", None, ""),
    ] {
        let api = api_of(provider, base_url);
        let urls = api.iter().flat_map(|api| api.calls.iter()).map(|call| call.uri.to_string());
        assert_eq!(urls.collect::<Vec<_>>().join(" "), expected, "{provider} {base_url:?}");
        if let Some(api) = api {
            let key = &api.headers["authorization"];
            assert!(key.is_sensitive() && key == "Bearer sk-secret", "{provider}");
        }
    }
}

#[test]
fn every_row_is_of_a_provider_and_needs_nothing_but_its_key() {
    for row in &ROWS {
        assert!(api_of(row.provider, None).is_some(), "{}", row.provider);
        let base = &catalog().provider(row.provider).unwrap().base_url;
        let is_there = row.instead_of.is_empty() || row.instead_of.iter().any(|end| base.ends_with(end));
        assert!(is_there, "{}: {base} ends with none of {:?}", row.provider, row.instead_of);
    }
}

/// The answers are those of the vendors' documents, some with other figures.
#[test]
fn what_vendors_answer() {
    for (provider, call, body, expected) in [
        (
            "openrouter",
            0,
            r#"{"data":{"label":"sk-or-v1-au7...890","limit":100,"limit_remaining":74.5,"limit_reset":"monthly",
                "usage":25.5,"usage_daily":25.5,"byok_usage":17.38,"include_byok_in_limit":false,"is_free_tier":false,
                "rate_limit":{"interval":"1h","note":"…","requests":1000}}}"#,
            "key 25.5/100 74.5 usd @3.5",
        ),
        (
            "openrouter",
            0,
            r#"{"data":{"limit":5,"usage":0.1015644762,"limit_remaining":4.8984355238,"limit_reset":"weekly"}}"#,
            "key 0.1015644762/5 4.8984355238 usd @2.5",
        ),
        (
            "openrouter",
            0,
            r#"{"data":{"limit":1,"usage":9,"limit_remaining":0,"limit_reset":"daily"}}"#,
            "key 1/1 0 usd @0.5; spent",
        ),
        (
            "openrouter",
            0,
            r#"{"data":{"limit":null,"usage":9.25,"limit_remaining":null,"limit_reset":null,"is_free_tier":true}}"#,
            "key 9.25/- - usd",
        ),
        (
            "openrouter",
            0,
            r#"{"data":{"limit":2,"usage":3,"limit_remaining":-1,"limit_reset":null}}"#,
            "key 3/2 -1 usd; spent",
        ),
        (
            "openrouter",
            1,
            r#"{"data":{"total_credits":100.5,"total_usage":25.75}}"#,
            "credits 25.75/100.5 74.75 usd",
        ),
        (
            "openrouter",
            1,
            r#"{"data":{"total_credits":5,"total_usage":5.01}}"#,
            "credits 5.01/5 -0.01 usd; spent",
        ),
        // Without debts, what is free is served.
        (
            "openrouter",
            1,
            r#"{"data":{"total_credits":5,"total_usage":5}}"#,
            "credits 5/5 0 usd; only what is free",
        ),
        // Who never paid uses what is free.
        ("openrouter", 1, r#"{"data":{"total_credits":0,"total_usage":0}}"#, "credits 0/0 0 usd"),
        (
            "deepseek",
            0,
            r#"{"is_available":true,"balance_infos":[{"currency":"CNY","total_balance":"110.00",
                "granted_balance":"10.00","topped_up_balance":"100.00"}]}"#,
            "balance -/- 110 cny",
        ),
        (
            "deepseek",
            0,
            r#"{"is_available":true,"balance_infos":[{"currency":"CNY","total_balance":"0.00"},
                {"currency":"USD","total_balance":"0.07"}]}"#,
            "balance:cny -/- 0 cny, balance:usd -/- 0.07 usd",
        ),
        (
            "deepseek",
            0,
            r#"{"is_available":false,"balance_infos":[{"currency":"USD","total_balance":"0.00"}]}"#,
            "balance -/- 0 usd; spent",
        ),
        (
            "moonshot",
            0,
            r#"{"code":0,"data":{"available_balance":49.58894,"voucher_balance":46.58893,"cash_balance":3.00001},
                "scode":"0x0","status":true}"#,
            "balance -/- 49.58894 usd",
        ),
        (
            "moonshot-cn",
            0,
            r#"{"code":0,"data":{"available_balance":-0.5,"voucher_balance":0,"cash_balance":-0.5},"status":true}"#,
            "balance -/- -0.5 cny; spent",
        ),
        (
            "siliconflow",
            0,
            r#"{"code":20000,"message":"OK","status":true,"data":{"id":"userid","name":"username","balance":"0.88",
                "status":"normal","chargeBalance":"88.00","totalBalance":"88.88"}}"#,
            "balance -/- 88.88 usd",
        ),
        (
            "siliconflow-cn",
            0,
            r#"{"code":20000,"data":{"totalBalance":"0"}}"#,
            "balance -/- 0 cny; only what is free",
        ),
        (
            "novita",
            0,
            r#"{"availableBalance":"1000000","cashBalance":"800000","creditLimit":"200000","pendingCharges":"0",
                "outstandingInvoices":"0"}"#,
            "balance -/- 100 usd",
        ),
        ("novita", 0, r#"{"availableBalance":"1"}"#, "balance -/- 0.0001 usd"),
        ("novita", 0, r#"{"availableBalance":"0"}"#, "balance -/- 0 usd; only what is free"),
        (
            "vercel-ai-gateway",
            0,
            r#"{"balance":"0","total_used":"5"}"#,
            "credits 5/- 0 usd; only what is free",
        ),
        ("poe", 0, r#"{"current_point_balance":0}"#, "points -/- 0 points; spent"),
        ("vercel-ai-gateway", 0, r#"{"balance":"95.50","total_used":"4.50"}"#, "credits 4.5/- 95.5 usd"),
        ("poe", 0, r#"{"current_point_balance":1500000}"#, "points -/- 1500000 points"),
        ("stability", 0, r#"{"credits":0.6336833840314097}"#, "credits -/- 0.6336833840314097 credits"),
        ("recraft", 0, r#"{"id":"u","email":"d@example.com","credits":0}"#, "credits -/- 0 credits; spent"),
    ] {
        let api = api_of(provider, None).unwrap();
        let reading = api.calls[call]
            .read(body.as_bytes(), NOW_MS)
            .unwrap_or_else(|error| panic!("{provider}: {error}"));
        assert_eq!(told(&reading), expected, "{provider}");
    }
}

#[test]
fn what_is_not_as_documented_is_an_error_and_never_nothing() {
    let shape = "not the shape";
    for (provider, call, body, expected) in [
        ("openrouter", 0, r#"{"data":{"usage":1}}"#, shape),
        ("openrouter", 0, r#"{"usage":1}"#, shape),
        ("openrouter", 0, r#"{"data":{"limit":"much","limit_remaining":1,"usage":1}}"#, shape),
        ("openrouter", 1, r#"{"data":{"total_credits":null,"total_usage":0}}"#, shape),
        ("deepseek", 0, r#"{"balance_infos":[]}"#, shape),
        ("deepseek", 0, r#"{"is_available":true}"#, shape),
        ("moonshot", 0, r#"{"code":0,"status":true}"#, shape),
        ("moonshot", 0, r#"{"code":5,"scode":"0x5","status":false}"#, "says `code 5`"),
        ("siliconflow", 0, r#"{"code":20000,"data":{"balance":"1"}}"#, shape),
        ("siliconflow", 0, r#"{"code":30001,"message":"no"}"#, "says `code 30001`"),
        ("novita", 0, r#"{"availableBalance":""}"#, shape),
        ("vercel-ai-gateway", 0, "[]", shape),
        ("poe", 0, "<html>", shape),
        ("stability", 0, "", shape),
        ("recraft", 0, r#"{"credits":null}"#, shape),
    ] {
        let api = api_of(provider, None).unwrap();
        let error = api.calls[call].read(body.as_bytes(), NOW_MS).unwrap_err().to_string();
        assert!(error.contains(expected), "{provider} {body}: {error}");
    }
}

#[test]
fn several_calls_are_one_reading() {
    let api = api_of("openrouter", None).unwrap();
    let read = |call: usize, body: &str| api.calls[call].read(body.as_bytes(), NOW_MS).unwrap();
    let mut reading = read(
        0,
        r#"{"data":{"limit":10,"usage":1,"limit_remaining":0,"limit_reset":"daily","is_free_tier":true}}"#,
    );
    assert_eq!(reading.back_at(), Some(NOW_MS + DAY_MS / 2));
    reading.add(read(1, r#"{"data":{"total_credits":4,"total_usage":3}}"#));
    assert_eq!((reading.quotas.len(), reading.is_spent, reading.plan), (2, true, Some("free")));
    assert_eq!(reading.scarcest(), Some((0.0, Some(NOW_MS + DAY_MS / 2))));
    assert_eq!(reading.back_at(), Some(NOW_MS + DAY_MS / 2), "there is money");
    reading.add(read(1, r#"{"data":{"total_credits":4,"total_usage":5}}"#));
    assert_eq!(reading.back_at(), None, "nobody knows when there will be money again");
    assert!(!api.calls[0].is_for_some && api.calls[1].is_for_some);
}
