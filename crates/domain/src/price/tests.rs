use omniroute_dialect::ir::{Tier, Usage};
use omniroute_provider::{ProviderId, catalog::catalog};
use serde_json::Value;

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
    let quote = PriceBook::default().quote(catalog(), &provider, "claude-haiku-5-5").unwrap();
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
fn a_price_of_the_operators_own_holds_above_tiers_too() {
    let row = |text: &str| serde_json::from_str::<PriceRow>(text).unwrap();
    let base = row(
        r#"{"input":1,"output":2,"cached":0.1,"tiers":[{"above_tokens":100,"input":3,"output":6,"cached":0.3}]}"#,
    );
    for (own, tiers) in [
        (r#"{"output":5}"#, Some(r#"{"above_tokens":100,"input":3,"cached":0.3}"#)),
        (r#"{"cached":0.2}"#, Some(r#"{"above_tokens":100,"input":3,"output":6}"#)),
        (r#"{"reasoning":9}"#, Some(r#"{"above_tokens":100,"input":3,"output":6,"cached":0.3}"#)),
        (r#"{"input":2}"#, None),
    ] {
        let tiers = tiers.map(|tier| vec![serde_json::from_str::<TierRow>(tier).unwrap()]);
        assert_eq!(row(own).over(&base).tiers, tiers, "{own}");
    }
}

#[test]
fn what_costs_something_in_pictures_is_not_free() {
    let free = |text: &str| Price::from(&row(text)).is_free();
    assert!(free(r#"{"input":0,"output":0,"image_output":0}"#));
    assert!(!free(r#"{"input":0,"output":0,"image_output":30}"#));
}

#[test]
fn answers_at_a_higher_speed_have_their_own_price() {
    let fast = |usage: Usage| Usage { tier: Some(Tier::Fast), ..usage };
    let prices = r#"{"input":5,"output":25,"cached":0.5,"fast":2}"#;
    let tokens = usage(60, 40, 50, 10);
    assert_eq!(cost(prices, &tokens), Some(300_000 + 20_000 + 1_250_000));
    assert_eq!(cost(prices, &fast(tokens)), Some(2 * 1_570_000));
    assert_eq!(cost(r#"{"input":1,"output":1,"fast":1.5}"#, &fast(usage(100, 0, 100, 0))), Some(300_000));
    // By the request is by the request.
    let by_request = r#"{"input":1,"output":1,"per_request":0.005,"fast":2}"#;
    assert_eq!(cost(by_request, &fast(usage(1, 0, 0, 0))), Some(5_002_000));
    // What nobody told is not known, but nothing times anything is nothing.
    assert_eq!(cost(r#"{"input":1,"output":1}"#, &fast(tokens)), None);
    assert_eq!(cost(r#"{"input":0,"output":0}"#, &fast(tokens)), Some(0));
    let quote =
        PriceBook::default().quote(catalog(), &ProviderId::from("anthropic"), "claude-opus-5-5").unwrap();
    assert_eq!(cost_nano(&quote.price, &fast(usage(1_000, 0, 1_000, 0))), Some(48_000_000));
    let dearer = row(r#"{"input":10,"output":50}"#).over(&quote.row);
    assert_eq!((dearer.fast, dearer.version() == quote.row.version()), (Some(2.0), false));
    assert_eq!(row(r#"{"fast":-1}"#).problems().len(), 1);
}

#[test]
fn tiers_of_service_have_their_own_prices() {
    let at = |prices: &str, tier| cost(prices, &Usage { tier: Some(tier), ..usage(60, 40, 50, 0) });
    let both = r#"{"input":5,"output":20,"cached":0.5,"flex":0.5,"priority":1.75}"#;
    for (prices, tier, expected) in [
        (both, Tier::Standard, Some(1_320_000)),
        (both, Tier::Flex, Some(660_000)),
        (both, Tier::Priority, Some(2_310_000)),
        (both, Tier::Fast, None),
        (both, Tier::Other, None),
        // What is read from a cache may be no cheaper there.
        (r#"{"input":5,"output":20,"cached":0.5,"flex":0.5,"flex_cached":1}"#, Tier::Flex, Some(670_000)),
        (r#"{"input":5,"output":20}"#, Tier::Priority, None),
        (r#"{"input":0,"output":0}"#, Tier::Other, Some(0)),
    ] {
        assert_eq!(at(prices, tier), expected, "{prices} {tier:?}");
        assert_eq!(Price::from(&row(prices)).knows(tier), expected.is_some(), "{prices} {tier:?}");
    }
    let price = Price::from(&row(both));
    for (tier, expected) in [
        (Tier::Standard, Some(25_000)),
        (Tier::Flex, Some(25_000)),
        (Tier::Priority, Some(43_750)),
        (Tier::Other, None),
    ] {
        assert_eq!(text_nano_in(&price, tier, 1, 1), expected, "{tier:?}");
    }
    let book = PriceBook::default();
    let quote = book.quote(catalog(), &ProviderId::from("openai"), "gpt-4o-mini").unwrap();
    let told = Usage { tier: Some(Tier::Priority), ..usage(1_000_000, 0, 1_000_000, 0) };
    assert_eq!(cost_nano(&quote.price, &told), Some(1_250_000_250));
    let own = row(r#"{"flex":0.8}"#).over(&row(r#"{"flex":0.5,"flex_cached":1,"priority":2}"#));
    assert_eq!((own.flex, own.flex_cached, own.priority), (Some(0.8), None, Some(2.0)));
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
    // A sound is sold by its characters or by its seconds: whatever has a price.
    let sound = Units { characters: 3, millis_out: 1_500, ..Units::REQUEST };
    for (prices, expected) in [
        (r#"{"per_character_in":0.000015}"#, Some(45_000)),
        (r#"{"per_second_out":0.00025}"#, Some(375_000)),
        (r#"{"input":1,"output":2}"#, None),
    ] {
        let found = bill(&Price::from(&row(prices)), &Usage::default(), &sound);
        assert_eq!(found.total_nano, expected, "{prices}");
        assert_eq!(
            found.total_nano.is_some(),
            found.lines.iter().all(|line| line.nano.is_some()),
            "{prices}"
        );
    }
}

#[test]
fn the_price_is_looked_for_in_order() {
    let mut book = PriceBook::default();
    let set = |rows: &mut Overrides, provider: &str, model: &str, json: &str| {
        rows.entry(provider.into()).or_default().insert(model.to_owned(), row(json));
    };
    set(&mut book.user, "openai", "gpt-4o", r#"{"input":7}"#);
    set(&mut book.user, "mine", "x", r#"{"input":1,"output":1}"#);
    set(&mut book.user, "local", "*", r#"{"input":0,"output":0}"#);
    set(&mut book.user, "local", "dear", r#"{"input":5,"output":5}"#);
    set(&mut book.synced, "openai", "gpt-4o", r#"{"input":3,"output":4}"#);
    set(&mut book.synced, "mine", "y", r#"{"input":3,"output":4}"#);
    set(&mut book.synced, "local", "z", r#"{"input":3,"output":4}"#);
    let cases = [
        ("openai", "gpt-4o", Some((PriceSource::User, Some(7.0), Some(4.0)))),
        ("openai", "gpt-4o-2024-08-06", Some((PriceSource::User, Some(7.0), Some(4.0)))),
        ("openai", "gpt-4o-mini-2024-07-18", Some((PriceSource::Catalog, Some(0.15), Some(0.6)))),
        ("openrouter", "openai/gpt-4o-mini", Some((PriceSource::Inferred, Some(0.15), Some(0.6)))),
        ("openrouter", "openai/gpt-4o", Some((PriceSource::Inferred, Some(7.0), Some(4.0)))),
        ("mine", "x", Some((PriceSource::User, Some(1.0), Some(1.0)))),
        ("mine", "y", Some((PriceSource::Synced, Some(3.0), Some(4.0)))),
        ("mine", "z", None),
        ("local", "anything", Some((PriceSource::User, Some(0.0), Some(0.0)))),
        ("local", "dear", Some((PriceSource::User, Some(5.0), Some(5.0)))),
        ("local", "z", Some((PriceSource::User, Some(0.0), Some(0.0)))),
        ("openai", "gpt-unheard-of", None),
    ];
    for (provider, model, want) in cases {
        let found = book.quote(catalog(), &provider.into(), model);
        let found = found.map(|quote| (quote.source, quote.row.input, quote.row.output));
        assert_eq!(found, want, "{provider}/{model}");
    }
}

#[test]
fn a_bill_is_the_sum_of_its_lines() {
    let price = Price::from(&row(r#"{"input":1000,"output":2000,"cached":100,"reasoning":3000}"#));
    let bill = bill(&price, &usage(60, 40, 50, 10), &Units::REQUEST);
    assert_eq!(bill.total_nano, Some(174_000_000));
    let shown: Vec<_> = bill.lines.iter().map(|line| (line.name, line.amount, line.nano)).collect();
    assert_eq!(
        shown,
        [
            ("input", 60, Some(60_000_000)),
            ("cacheRead", 40, Some(4_000_000)),
            ("output", 40, Some(80_000_000)),
            ("reasoning", 10, Some(30_000_000)),
            ("requests", 1, Some(0)),
        ]
    );
}

#[test]
fn defect_9_reasoning_and_cache_writes_are_billed_once() {
    // The totals contain them: 50 produced tokens of which 10 are reasoning, 100 prompt tokens of which 40 were written.
    let written = Usage {
        input_uncached: Some(60),
        cache_write: Some(40),
        output_total: Some(50),
        reasoning: Some(10),
        ..Usage::default()
    };
    assert_eq!(cost(r#"{"input":1000,"output":2000}"#, &written), Some(100_000_000 + 100_000_000));
    assert_eq!(
        cost(r#"{"input":1000,"output":2000,"reasoning":2000,"cache_creation":1000}"#, &written),
        Some(200_000_000),
        "a price of their own is instead of the other, not on top of it"
    );
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

#[test]
fn what_is_paid_by_tokens_is_not_paid_by_the_piece_too() {
    let told = usage(100, 0, 1000, 0);
    let picture = Units { images: 1, ..Units::REQUEST };
    let sound = Units { millis_in: 2_000, ..Units::REQUEST };
    for (prices, usage, units, expected) in [
        // both prices, tokens told
        (r#"{"input":1,"output":2,"image_output":30,"image":0.04}"#, told, picture, Some(30_100_000)),
        // both prices, no tokens
        (
            r#"{"input":1,"output":2,"image_output":30,"image":0.04}"#,
            Usage::default(),
            picture,
            Some(40_000_000),
        ),
        // tokens alone have a price
        (r#"{"input":1,"image_output":8}"#, told, picture, Some(8_100_000)),
        // pieces alone have one
        (r#"{"image":0.04}"#, told, picture, Some(40_000_000)),
        (r#"{"input":1,"image":0.04}"#, told, picture, Some(40_000_000)),
        (r#"{"per_second_in":0.0001}"#, Usage::default(), sound, Some(200_000)),
        (r#"{"input":1,"output":2,"per_second_in":0.0001}"#, told, sound, Some(2_100_000)),
        // nothing has one
        (r#"{"input":1}"#, told, picture, None),
    ] {
        assert_eq!(cost_nano_with(&Price::from(&row(prices)), &usage, &units), expected, "{prices}");
    }
}

#[test]
fn plain_text_comes_to_the_same_sum_as_its_bill() {
    let tiers = r#"{"input":3,"output":15,"tiers":[{"above_tokens":1000,"input":6}],"per_request":0.001}"#;
    let prices = ["{}", r#"{"input":0.33}"#, r#"{"output":7}"#, r#"{"input":0,"output":0}"#, tiers];
    let amounts = [0, 1, 999, 1_000, 1_001, u64::from(u32::MAX), u64::MAX];
    for price in prices.map(|prices| Price::from(&row(prices))) {
        for (input, output) in amounts.into_iter().flat_map(|input| amounts.map(|output| (input, output))) {
            let plain = Usage { input_uncached: Some(input), output_total: Some(output), ..Usage::default() };
            // What is not told counts like nothing, and takes the long way.
            let long = Usage { cache_read: Some(0), ..plain };
            let sum = cost_nano(&price, &plain);
            assert_eq!(sum, cost_nano(&price, &long), "{input} and {output}");
            assert_eq!(sum, bill(&price, &plain, &Units::REQUEST).total_nano, "{input} and {output}");
        }
    }
}

#[test]
fn the_dearest_of_plain_rates_is_what_its_answer_costs() {
    let rates = |text: &str| PlainRates::of(&Price::from(&row(text))).unwrap();
    let all = [
        rates(r#"{"input":1,"output":2,"per_request":0.001}"#),
        rates(r#"{"input":0,"output":9}"#),
        rates(r#"{"input":3.000001,"output":0}"#),
    ];
    let most = i64::MAX.unsigned_abs();
    for (input, output) in [(0, 0), (1, 0), (0, 1), (7, 7), (900, 100), (1_000_000, 3), (most, 1), (1, most)]
    {
        let each = all.iter().map(|rates| rates.nano(input, output));
        let dearest = each.clone().max().filter(|_| each.clone().all(|nano| nano.is_some())).flatten();
        assert_eq!(PlainRates::dearest(&all, input, output), dearest, "{input} {output}");
        for (rates, nano) in all.iter().zip(each) {
            let exact = |amount: u64, rate: i64| i128::from(amount) * i128::from(rate);
            let sum = exact(input, rates.input) + exact(output, rates.output) + i128::from(rates.request);
            assert_eq!(nano, i64::try_from((sum + 500_000) / 1_000_000).ok(), "{input} {output}");
        }
    }
    assert_eq!(PlainRates::dearest(&all, 1_000, 1_000), Some(9_000_000));
    assert_eq!(PlainRates::dearest(&[], 1_000, 1_000), Some(0));
    assert_eq!(PlainRates::dearest(&all, u64::MAX, u64::MAX), None);
    for unknown in [r#"{"input":1}"#, r#"{"output":1}"#] {
        assert_eq!(PlainRates::of(&Price::from(&row(unknown))), None);
    }
}

#[test]
fn members_are_named_as_they_are_written() {
    let named =
        |value: &Value| -> Vec<String> { value.as_object().expect("object").keys().cloned().collect() };
    let figures = |names: &[&str]| -> Value {
        names
            .iter()
            .map(|name| ((*name).to_owned(), Value::from(1)))
            .collect::<serde_json::Map<_, _>>()
            .into()
    };
    let tier = figures(&TierRow::MEMBERS);
    let mut whole = figures(&PriceRow::MEMBERS);
    whole["tiers"] = Value::Array(vec![tier.clone()]);
    let row: PriceRow = serde_json::from_value(whole.clone()).expect("every name is one");
    let written = serde_json::to_value(&row).expect("serializes");
    assert_eq!((named(&written), named(&written["tiers"][0])), (named(&whole), named(&tier)));
}
