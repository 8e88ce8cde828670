use omniroute_provider::catalog::catalog;

use super::*;

fn usage(input: u64, cache_read: u64, output: u64, reasoning: u64) -> Usage {
    Usage {
        input_uncached: Some(input),
        cache_read: Some(cache_read),
        output_total: Some(output),
        reasoning: Some(reasoning),
        ..Usage::default()
    }
}

fn row(json: &str) -> PriceRow {
    serde_json::from_str(json).unwrap()
}

fn cost(prices: &str, usage: &Usage) -> Option<i64> {
    cost_nano(&Price::from(&row(prices)), usage)
}

#[test]
fn costs() {
    let full = r#"{"input":1000,"output":2000,"cached":100,"reasoning":3000}"#;
    assert_eq!(cost(full, &usage(60, 40, 50, 10)), Some(174_000_000), "0.174 USD");

    let nothing = Usage::default();
    let write = |five, hour| Usage {
        input_uncached: Some(0),
        cache_write: Some(five),
        cache_write_1h: Some(hour),
        ..Usage::default()
    };
    let audio = Usage {
        input_uncached: Some(100),
        audio_input: Some(30),
        output_total: Some(100),
        audio_output: Some(40),
        ..Usage::default()
    };
    let cases: &[(&str, Usage, Option<i64>)] = &[
        // reasoning and caches cost as output and input unless they have a price
        (r#"{"input":1,"output":2}"#, usage(60, 40, 50, 10), Some(200_000)),
        // a price of zero is one
        (r#"{"input":1,"output":2,"cached":0,"reasoning":0}"#, usage(60, 40, 50, 10), Some(140_000)),
        (r#"{"input":0,"output":0}"#, usage(60, 40, 50, 10), Some(0)),
        // unknown stays unknown, but only where it matters
        (r#"{"input":1}"#, usage(60, 40, 50, 10), None),
        (r#"{"input":1}"#, usage(60, 40, 0, 0), Some(100_000)),
        (r#"{"input":1,"output":2}"#, nothing, None),
        ("{}", usage(1, 0, 0, 0), None),
        // cache writes
        (r#"{"input":1,"output":2}"#, write(10, 10), Some(20_000)),
        (r#"{"input":1,"output":2,"cache_creation":1.25}"#, write(10, 10), Some(25_000)),
        (
            r#"{"input":1,"output":2,"cache_creation":1.25,"cache_creation_1h":2}"#,
            write(10, 10),
            Some(32_500),
        ),
        // audio
        (r#"{"input":1,"output":2}"#, audio, Some(300_000)),
        (
            r#"{"input":1,"output":2,"audio_input":10,"audio_output":20}"#,
            audio,
            Some(70_000 + 300_000 + 120_000 + 800_000),
        ),
        // small prices do not vanish: 0.0375 USD per million are 37.5 nano-USD a token
        (r#"{"input":0.0375,"output":0}"#, usage(1, 0, 0, 0), Some(38)),
        (r#"{"input":0.0375,"output":0}"#, usage(2, 0, 0, 0), Some(75)),
        // per request
        (r#"{"input":1,"output":1,"per_request":0.005}"#, usage(1, 0, 0, 0), Some(5_001_000)),
        // tiers hold for the whole request, and only above
        (
            r#"{"input":1,"output":2,"tiers":[{"above_tokens":100,"input":3}]}"#,
            usage(60, 40, 10, 0),
            Some(120_000),
        ),
        (
            r#"{"input":1,"output":2,"tiers":[{"above_tokens":100,"input":3}]}"#,
            usage(61, 40, 10, 0),
            Some(323_000),
        ),
    ];
    for (prices, usage, want) in cases {
        assert_eq!(cost(prices, usage), *want, "{prices} {usage:?}");
    }
    assert_eq!(cost(r#"{"input":1000000,"output":1}"#, &usage(u64::MAX, 0, 0, 0)), None, "no overflow");
}

#[test]
fn tiers_of_hour_long_caches_rise_with_the_others() {
    let provider = ProviderId::from("anthropic");
    let quote = quote(&Overrides::new(), catalog(), &provider, "claude-haiku-5-5").unwrap();
    let usage = |uncached| Usage {
        input_uncached: Some(uncached),
        cache_write_1h: Some(10),
        output_total: Some(0),
        ..Usage::default()
    };
    assert_eq!(cost_nano(&quote.price, &usage(0)), Some(2_000));
    assert_eq!(cost_nano(&quote.price, &usage(100_000)), Some(50_000_000 + 10_000));
}

#[test]
fn units() {
    let units = Units { images: 2, millis_in: 1_500, millis_out: 0, characters: 3, queries: 1, requests: 1 };
    let prices =
        row(r#"{"image":0.04,"per_second_in":0.00003333,"per_character_in":0.000015,"per_query":0.002}"#);
    let price = Price::from(&prices);
    let want = 80_000_000 + 49_995 + 45_000 + 2_000_000;
    assert_eq!(cost_nano_with(&price, &Usage::default(), &units), Some(want));
    assert_eq!(cost_nano_with(&Price::default(), &Usage::default(), &units), None);
}

#[test]
fn the_price_is_looked_for_in_order() {
    let mut overrides = Overrides::new();
    let mut set = |provider: &str, model: &str, json: &str| {
        overrides.entry(provider.into()).or_default().insert(model.to_owned(), row(json));
    };
    set("openai", "gpt-4o", r#"{"input":7}"#);
    set("mine", "x", r#"{"input":1,"output":1}"#);
    let cases = [
        ("openai", "gpt-4o", Some((PriceSource::User, Some(7.0), Some(10.0)))),
        ("openai", "gpt-4o-2024-08-06", Some((PriceSource::User, Some(7.0), Some(10.0)))),
        ("openai", "gpt-4o-mini-2024-07-18", Some((PriceSource::Catalog, Some(0.15), Some(0.6)))),
        ("openrouter", "openai/gpt-4o-mini", Some((PriceSource::Inferred, Some(0.15), Some(0.6)))),
        ("openrouter", "openai/gpt-4o", Some((PriceSource::Inferred, Some(7.0), Some(10.0)))),
        ("mine", "x", Some((PriceSource::User, Some(1.0), Some(1.0)))),
        ("mine", "y", None),
        ("openai", "gpt-unheard-of", None),
    ];
    for (provider, model, want) in cases {
        let found = quote(&overrides, catalog(), &provider.into(), model);
        let found = found.map(|quote| (quote.source, quote.row.input, quote.row.output));
        assert_eq!(found, want, "{provider}/{model}");
    }
}

#[test]
fn versions_follow_the_row() {
    let one = row(r#"{"input":1,"output":2}"#);
    assert_eq!(one.version(), row(r#"{"input":1.0,"output":2}"#).version());
    assert_eq!(one.version().len(), 12);
    for other in [
        r#"{"input":1,"output":3}"#,
        r#"{"input":1,"cached":2}"#,
        r#"{"input":1,"output":2,"tiers":[{"above_tokens":1}]}"#,
    ] {
        assert_ne!(one.version(), row(other).version());
    }
}

#[test]
fn bad_rows_are_named() {
    let cases = [
        (r#"{"input":-1}"#, "`input`"),
        (r#"{"output":1e300}"#, "`output`"),
        (r#"{"tiers":[{"above_tokens":5},{"above_tokens":5}]}"#, "rising order"),
        (r#"{"tiers":[{"above_tokens":5,"input":-2}]}"#, "`tiers[0]`"),
    ];
    for (json, want) in cases {
        let problems = row(json).problems();
        assert!(problems.iter().any(|problem| problem.contains(want)), "{json}: {problems:?}");
    }
    assert!(row(r#"{"input":0,"output":2.5}"#).problems().is_empty());
    assert!(serde_json::from_str::<PriceRow>(r#"{"inputs":1}"#).is_err());
}

#[test]
fn every_row_of_the_catalogue_is_sound() {
    for spec in catalog().providers() {
        for model in catalog().models_of(&spec.id) {
            assert_eq!(PriceRow::from(model).problems(), Vec::<String>::new(), "{} {}", spec.id, model.model);
        }
    }
}
