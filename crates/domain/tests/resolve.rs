//! From the string in `model` to a target: every way that is found, and every way that is not.

mod fixture;

use fixture::{combo, model, snapshot};
use omniroute_domain::resolve::{
    Preference, ResolveError, Route, Target, model as resolve, resolve as route, resolve_at, resolve_named,
};
use omniroute_domain::snapshot::Snapshot;
use omniroute_provider::catalog::catalog;

fn told(target: &Target) -> String {
    let pin = target.connection_name.as_ref().map(|name| format!(" at {name}")).unwrap_or_default();
    format!("{} {}{pin}", target.provider.id, target.model)
}

#[test]
fn what_is_found() {
    let snapshot = snapshot(|_| {});
    for (asked, found) in [
        ("openai/gpt-5.6", "openai gpt-5.6"),
        (" cx/anything/at:all ", "openai anything/at:all"),
        ("openai/gpt-5.6[1m]", "openai gpt-5.6"),
        ("openai/gpt-5.6@work", "openai gpt-5.6 at work"),
        ("openai/gpt-5.6@nobody", "openai gpt-5.6@nobody"),
        ("one/shared", "n1 shared"),
        ("n1/shared", "n1 shared"),
        ("gpt-5.6", "openai gpt-5.6"),
        ("gpt-99-unheard-of", "openai gpt-99-unheard-of"),
        ("Qwen/Own", "n2 Qwen/Own"),
        ("sim/echo", "sim echo"),
    ] {
        match resolve(&snapshot, asked) {
            Ok(target) => assert_eq!(told(&target), found, "{asked}"),
            Err(error) => panic!("{asked}: {error}"),
        }
    }
}

#[test]
fn what_is_not_found() {
    let snapshot = snapshot(|_| {});
    let long = "m".repeat(257);
    for (asked, code, part) in [
        ("", "invalid_model", "empty"),
        ("  ", "invalid_model", "empty"),
        (long.as_str(), "invalid_model", "256"),
        ("a\nb", "invalid_model", "control"),
        ("openai/../x", "invalid_model", ".."),
        ("openai/", "invalid_model", "no model"),
        ("kr/x", "unknown_provider", "`kr`"),
        ("Nobody/Knows", "unknown_provider", "`Nobody`"),
        ("deepseek/deepseek-chat", "no_credentials", "`deepseek`"),
        ("deepseek-chat", "model_not_found", "`deepseek`"),
        ("shared", "ambiguous_model", "one/shared, two/shared"),
        ("sharet", "model_not_found", "`shared`"),
        ("echo", "model_not_found", "/v1/models"),
        ("combo/best", "model_not_found", "no combo `best`"),
        ("combo/a/b", "model_not_found", "no combo `a/b`"),
    ] {
        match resolve(&snapshot, asked) {
            Ok(target) => panic!("{asked}: {}", told(&target)),
            Err(error) => {
                assert_eq!(error.code(), code, "{asked}");
                assert!(error.to_string().contains(part), "{asked}: {error}");
            }
        }
    }
    let ordered = self::snapshot(|entities| entities.settings.provider_order = vec!["n2".into()]);
    assert_eq!(resolve(&ordered, "shared").ok().as_ref().map(told).as_deref(), Some("n2 shared"));
}

#[test]
fn routes_that_name_the_provider() {
    let snapshot = snapshot(|_| {});
    for (provider, asked, found) in [
        ("openai", "gpt-5.6", "openai gpt-5.6"),
        ("cx", "openai/gpt-5.6", "openai gpt-5.6"),
        ("one", "Qwen/Foreign", "n1 Qwen/Foreign"),
        ("one", "shared[1m]", "n1 shared"),
        ("one", "two/shared", "provider_mismatch"),
        ("nix", "shared", "unknown_provider"),
        ("one", "one/", "invalid_model"),
        ("deepseek", "deepseek-chat", "no_credentials"),
    ] {
        let got = resolve_at(&snapshot, provider, asked);
        let got = got.map_or_else(|error| error.code().to_owned(), |target| told(&target));
        assert_eq!(got, found, "{provider} {asked}");
    }
}

#[test]
fn routes_that_name_the_provider_follow_its_aliases() {
    let snapshot = snapshot(|entities| {
        entities.combos = vec![combo("best", "priority", &["one/shared"])];
        entities.aliases = [
            ("fast", "one/shared"),
            ("faster", "fast"),
            ("deep", "one/shared[1m]"),
            ("abroad", "two/shared"),
            ("shared", "two/shared"),
            ("any", "best"),
            ("gone", "nix/model"),
            ("idle", "deepseek/deepseek-chat"),
            ("claude-*", "one/anthropic/claude-*"),
            ("gpt-*", "openai/gpt-5.6"),
        ]
        .map(|(name, target)| (name.to_owned(), target.to_owned()))
        .to_vec();
    });
    for (provider, asked, found) in [
        ("one", "fast", "n1 shared"),
        ("n1", "faster", "n1 shared"),
        ("two", "fast", "provider_mismatch"),
        ("one", "abroad", "provider_mismatch"),
        ("one", "any", "provider_mismatch"),
        ("one", "gone", "provider_mismatch"),
        ("one", "idle", "provider_mismatch"),
        ("deepseek", "idle", "no_credentials"),
        ("one", "shared", "n1 shared"),
        ("one", "claude-x", "n1 anthropic/claude-x"),
        ("one", "gpt-own", "n1 gpt-own"),
        ("one", "best", "n1 best"),
    ] {
        let got = resolve_at(&snapshot, provider, asked);
        let got = got.map_or_else(|error| error.code().to_owned(), |target| told(&target));
        assert_eq!(got, found, "{provider} {asked}");
    }
    let error =
        resolve_at(&snapshot, "one", "abroad").err().map(|error| error.to_string()).unwrap_or_default();
    assert!(error.contains("`abroad` stands for `two/shared`"), "{error}");
    assert!(resolve_at(&snapshot, "one", "deep").is_ok_and(|target| target.suffixes.extended_context));
}

#[test]
fn models_that_are_bound_to_a_dialect_are_known() {
    let snapshot =
        snapshot(|entities| entities.custom_models.push(model("openai", "gpt-5.4-pro", "chat-completions")));
    let only = |name: &str| resolve(&snapshot, name).ok().and_then(|it| it.provider.only_dialect(&it.model));
    let bound = catalog().models_of(&"openai".into()).iter().filter(|row| row.only_dialect().is_some());
    let bound: Vec<_> = bound.map(|row| row.model.as_str()).filter(|name| *name != "gpt-5.4-pro").collect();
    assert!(!bound.is_empty());
    for name in bound {
        assert_eq!(only(&format!("openai/{name}")), Some("openai-responses"), "{name}");
    }
    assert_eq!(only("two/Qwen/Own"), Some("openai-responses"), "the operator said so");
    assert_eq!(only("openai/gpt-5.4-pro"), None, "the operator knows better");
    assert_eq!(only("one/shared"), None);
}

#[test]
fn combos_shadow_aliases_and_aliases_shadow_models() {
    let snapshot = snapshot(|entities| {
        entities.combos =
            vec![combo("gpt-5.6", "priority", &["one/shared"]), combo("best", "priority", &["sim/echo"])];
        entities.combos.push(omniroute_domain::entity::Combo {
            is_active: false,
            ..combo("off", "priority", &["sim/echo"])
        });
        entities.aliases = [
            ("best", "openai/gpt-5.6"),
            ("shared", "two/shared"),
            ("fast", "best"),
            ("hop", "shared"),
            ("a", "b"),
            ("b", "c"),
            ("c", "d"),
            ("loop", "pool"),
            ("pool", "loop"),
            ("claude-*", "one/anthropic/claude-*"),
            ("off", "one/x"),
        ]
        .map(|(name, target)| (name.to_owned(), target.to_owned()))
        .to_vec();
    });
    let to = |asked: &str| match route(&snapshot, asked) {
        Ok(Route::Combo(combo)) => format!("combo {}", combo.name),
        Ok(Route::Target(target)) => told(&target),
        Err(error) => error.code().to_owned(),
    };
    for (asked, found) in [
        ("gpt-5.6", "combo gpt-5.6"),
        ("combo/best", "combo best"),
        ("combo/off", "model_not_found"),
        ("combo/bes", "model_not_found"),
        ("best", "combo best"),
        ("BEST", "model_not_found"),
        ("fast", "combo best"),
        ("fast[1m]", "combo best"),
        ("shared", "n2 shared"),
        ("hop", "n2 shared"),
        ("openai/gpt-5.6", "openai gpt-5.6"),
        ("a", "invalid_model"),
        ("loop", "invalid_model"),
        ("claude-sonnet-9", "n1 anthropic/claude-sonnet-9"),
        ("off", "n1 x"),
    ] {
        assert_eq!(to(asked), found, "{asked}");
    }
    assert!(matches!(route(&snapshot, "a"), Err(ResolveError::AliasChain { .. })));
    let near = route(&snapshot, "combo/bes").err().map(|error| error.to_string());
    assert!(near.as_deref().is_some_and(|text| text.ends_with("did you mean `best`?")), "{near:?}");
    let combo = resolve(&snapshot, "fast").err().map(|error| error.to_string());
    assert!(combo.as_deref().is_some_and(|text| text.contains("the combo `best`")), "{combo:?}");
}

/// A snapshot whose aliases are these, beside a combo `best`.
fn aliased(aliases: &[(&str, &str)]) -> Snapshot {
    snapshot(|entities| {
        entities.combos.push(combo("best", "priority", &["sim/echo"]));
        entities.aliases = aliases.iter().map(|(name, target)| ((*name).into(), (*target).into())).collect();
    })
}

#[test]
fn an_alias_of_what_is_not_there_is_named() {
    let snapshot = aliased(&[
        ("fast", "gone"),
        ("full", "combo/gone(high)"),
        ("team", "our/gone"),
        ("any-*", "gone"),
        ("out", "deepseek-chat"),
    ]);
    for (asked, name) in
        [("fast", "gone"), ("full[1m]", "combo/gone"), ("team", "our/gone"), ("any-thing", "gone")]
    {
        let alias = asked.trim_end_matches("[1m]");
        for error in [route(&snapshot, asked).err(), resolve(&snapshot, asked).err()].map(Option::unwrap) {
            assert_eq!(error.code(), "model_not_found", "{asked}");
            let text = error.to_string();
            assert!(text.starts_with(&format!("`{alias}` stands for `{name}`, which is neither")), "{text}");
        }
    }
    let text = route(&snapshot, "out").err().unwrap().to_string();
    assert!(text.contains("`deepseek` has it"), "{text}");
}

/// Where a name leads, and what the names say beside that.
fn said(snapshot: &Snapshot, asked: &str) -> String {
    let (route, suffixes) = match resolve_named(snapshot, asked, Preference::default()) {
        Ok(found) => found,
        Err(error) => return error.code().to_owned(),
    };
    let place = match route {
        Route::Combo(combo) => format!("combo {}", combo.name),
        Route::Target(target) => {
            assert_eq!(target.suffixes, suffixes, "{asked}");
            told(&target)
        }
    };
    let effort = suffixes.effort.map_or_else(String::new, |effort| format!(" {effort:?}"));
    format!("{place}{effort}{}", if suffixes.extended_context { " 1m" } else { "" })
}

#[test]
fn aliases_may_say_how_much_to_reason() {
    let snapshot = aliased(&[
        ("smart", "one/x(high)"),
        ("large", "one/x[1m]"),
        ("both", "smart"),
        ("lazy", "smart(low)"),
        ("team", "best(high)"),
        ("gpt-5.6", "gpt-5.6(high)"),
        ("*-thinking", "one/*(medium)"),
    ]);
    for (asked, expected) in [
        ("smart", "n1 x Effort(High)"),
        ("smart(low)", "n1 x Effort(Low)"),
        ("large", "n1 x 1m"),
        ("large(low)", "n1 x Effort(Low) 1m"),
        ("both", "n1 x Effort(High)"),
        // The nearer to the client, the more it counts.
        ("lazy", "n1 x Effort(Low)"),
        ("team", "combo best Effort(High)"),
        ("team[1m]", "combo best Effort(High) 1m"),
        ("team(off)", "combo best Off"),
        ("gpt-5.6", "openai gpt-5.6 Effort(High)"),
        ("qwen-thinking", "n1 qwen Effort(Medium)"),
    ] {
        assert_eq!(said(&snapshot, asked), expected, "{asked}");
    }
    let target = resolve(&snapshot, "one/x(high)[1m]").unwrap();
    assert_eq!((target.suffixes.effort.is_some(), target.suffixes.extended_context), (true, true));
}

#[test]
fn patterns_may_lead_to_patterns() {
    let snapshot = aliased(&[
        ("a-*", "b-*"),
        ("b-*", "one/*"),
        // Its result fits it again.
        ("claude-*", "claude-4-*"),
        ("old/*", "one/*"),
        // For what nothing else fits.
        ("*", "one/any"),
        ("team-*", "best"),
        ("exact", "a-z"),
        ("up-1", "down-1"),
        ("down-*", "up-*"),
        ("self-*", "self-*"),
    ]);
    for (asked, expected) in [
        ("a-x", "n1 x"),
        ("exact", "n1 z"),
        ("old/y", "n1 y"),
        ("team-red", "combo best"),
        ("nobody", "n1 any"),
        ("up-1", "invalid_model"),
        ("down-1", "invalid_model"),
    ] {
        assert_eq!(said(&snapshot, asked), expected, "{asked}");
    }
    // Neither is tried once more, whatever comes of it.
    for asked in ["claude-x", "self-x"] {
        assert!(!matches!(route(&snapshot, asked), Err(ResolveError::AliasLoop { .. })), "{asked}");
    }
    match route(&snapshot, "up-1") {
        Err(error @ ResolveError::AliasLoop { .. }) => {
            assert!(error.to_string().contains("up-1 → down-1 → up-1"), "{error}");
        }
        other => panic!("{:?}", other.err()),
    }
}

#[test]
fn so_many_aliases_are_followed_and_no_more() {
    let names: Vec<(String, String)> = (1..=9)
        .map(|at| (format!("n{at}-*"), format!("n{}-*", at + 1)))
        .chain([("n10-*".into(), "one/*".into())])
        .collect();
    let pairs: Vec<(&str, &str)> =
        names.iter().map(|(name, target)| (name.as_str(), target.as_str())).collect();
    let snapshot = aliased(&pairs);
    assert_eq!(said(&snapshot, "n3-x"), "n1 x");
    assert!(matches!(route(&snapshot, "n1-x"), Err(ResolveError::AliasHops { .. })));
}
