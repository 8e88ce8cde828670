//! From a combo to the list of targets, and why each other step is not on it.

mod fixture;

use std::sync::Arc;

use fixture::{combo, model, snapshot};
use omniroute_domain::combo::{
    Bar, ComboState, MAX_ENTRIES, Plan, RequestFacts, Rule, Special, needs_content, plan, plan_for,
};
use omniroute_domain::entity::{ComboConfig, CustomModel, Goal, When};
use omniroute_domain::price::PriceRow;
use omniroute_domain::resolve::Target;
use omniroute_domain::snapshot::Snapshot;
use omniroute_provider::{Failure, FailureKind};

fn state<'a>(snapshot: &'a Snapshot, name: &str) -> &'a Arc<ComboState> {
    snapshot.combo(name).expect("a combo of that name")
}

fn planned(snapshot: &Snapshot, name: &str, facts: &RequestFacts) -> Plan {
    plan(snapshot, state(snapshot, name), facts, 0, 0, true)
}

fn models(plan: &Plan) -> Vec<String> {
    plan.targets.list().iter().map(|planned| planned.target.full_name()).collect()
}

fn left_out(plan: &Plan) -> Vec<(&str, Rule)> {
    plan.left_out.iter().map(|left| (left.goal.as_str(), left.rule)).collect()
}

#[test]
fn a_combo_within_a_combo_keeps_its_own_order() {
    let snapshot = snapshot(|entities| {
        entities.combos = vec![
            combo("outer", "priority", &["one/a", "combo:inner", "two/z"]),
            combo("inner", "round-robin", &["one/b", "two/c"]),
        ];
    });
    let facts = RequestFacts::default();
    assert_eq!(models(&planned(&snapshot, "outer", &facts)), ["one/a", "one/b", "two/c", "two/z"]);
    assert_eq!(models(&planned(&snapshot, "outer", &facts)), ["one/a", "two/c", "one/b", "two/z"]);
    let second = planned(&snapshot, "outer", &facts).targets.at(1);
    let path: Vec<_> = second.path.iter().map(|place| place.combo.name.to_string()).collect();
    assert_eq!(path, ["outer", "inner"], "both are told how it went");
}

#[test]
fn entries_may_name_combos_like_models_and_by_aliases() {
    let snapshot = snapshot(|entities| {
        entities.combos = vec![
            combo("outer", "priority", &["cheap", "combo/cheap", "fast", "high", "gpt-5.6"]),
            combo("cheap", "priority", &["one/b"]),
            combo("gpt-5.6", "priority", &["gpt-5.6"]),
            combo("circle", "priority", &["round", "two/z"]),
        ];
        let aliases = [("fast", "combo/cheap"), ("high", "cheap(high)"), ("round", "circle")];
        entities.aliases = aliases.map(|(name, target)| (name.to_owned(), target.to_owned())).into();
    });
    let facts = RequestFacts::default();
    let plan = planned(&snapshot, "outer", &facts);
    // The combo that has a model's name means the model by it.
    assert_eq!(models(&plan), ["one/b", "one/b", "one/b", "one/b", "openai/gpt-5.6"]);
    let said = plan.targets.list().iter().map(|planned| planned.path[0].step().suffixes.effort.is_some());
    assert_eq!(said.collect::<Vec<_>>(), [false, false, false, true, false], "it is kept what stands behind");
    let plan = planned(&snapshot, "circle", &facts);
    assert_eq!((models(&plan), left_out(&plan)), (vec!["two/z".into()], vec![("circle", Rule::Nesting)]));
}

#[test]
fn an_explanation_takes_nobodys_turn() {
    let snapshot =
        snapshot(|entities| entities.combos = vec![combo("c", "round-robin", &["one/a", "two/b"])]);
    let facts = RequestFacts::default();
    for _ in 0..3 {
        let shown = plan(&snapshot, state(&snapshot, "c"), &facts, 0, 0, false);
        assert_eq!(models(&shown), ["one/a", "two/b"]);
    }
    assert_eq!(models(&planned(&snapshot, "c", &facts)), ["one/a", "two/b"]);
    assert_eq!(models(&planned(&snapshot, "c", &facts)), ["two/b", "one/a"]);
}

#[test]
fn circles_and_depth_cost_a_branch_and_not_the_request() {
    let snapshot = snapshot(|entities| {
        entities.combos = vec![
            combo("a", "priority", &["combo:b", "one/a"]),
            combo("b", "priority", &["combo:a", "one/b"]),
            combo("d1", "priority", &["combo:d2", "one/1"]),
            combo("d2", "priority", &["combo:d3", "one/2"]),
            combo("d3", "priority", &["combo:d4", "one/3"]),
            combo("d4", "priority", &["one/4"]),
        ];
    });
    let circle = planned(&snapshot, "a", &RequestFacts::default());
    assert_eq!(models(&circle), ["one/b", "one/a"]);
    assert_eq!(left_out(&circle), [("a", Rule::Nesting)]);
    let deep = planned(&snapshot, "d1", &RequestFacts::default());
    assert_eq!(models(&deep), ["one/3", "one/2", "one/1"]);
    assert_eq!(left_out(&deep), [("d4", Rule::Nesting)]);
}

#[test]
fn combos_within_combos_come_to_a_bounded_plan() {
    let names = ["c0", "c1", "c2", "c3", "c4", "c5", "c6", "c7"];
    let snapshot = snapshot(|entities| {
        entities.settings.combo_defaults.max_combo_depth = Some(8);
        let mut all = vec![combo("c0", "priority", &["one/a"; 128])];
        for (inner, name) in names.iter().zip(&names[1..]) {
            all.push(combo(name, "priority", &[format!("combo:{inner}").as_str(); 128]));
        }
        entities.combos = all;
    });
    let plan = planned(&snapshot, "c7", &RequestFacts::default());
    assert!((1..=MAX_ENTRIES).contains(&plan.targets.len()), "{}", plan.targets.len());
    assert!(plan.left_out.len() <= 8 * 128 && plan.left_out.iter().all(|left| left.rule == Rule::Nesting));
    assert!(plan.left_out[0].reason.contains("1024 entries"), "{}", plan.left_out[0].reason);
    let outermost = state(&snapshot, "c7");
    assert_eq!(outermost.targets(&snapshot).len(), 128, "each is told once");
    let mut seen = 0;
    outermost.visit(&snapshot, &mut |_| seen += 1);
    assert_eq!(seen, 8);
}

#[test]
fn steps_that_lead_nowhere_are_named() {
    let snapshot = snapshot(|entities| {
        entities.combos =
            vec![combo("c", "priority", &["deepseek/deepseek-chat", "combo:gone", "nobody/x", "one/a"])];
        if let Goal::Model { connection_id, .. } = &mut entities.combos[0].steps[3].goal {
            *connection_id = Some("n2-b".into());
        }
    });
    let plan = planned(&snapshot, "c", &RequestFacts::default());
    assert_eq!(models(&plan), [] as [&str; 0]);
    assert!(plan.left_out.iter().all(|left| left.rule == Rule::Inactive));
    assert_eq!(
        plan.left_out.len(),
        4,
        "an account of another provider is not taken for the one that was named"
    );
    assert!(plan.left_out[0].reason.contains("no active connection"), "{}", plan.left_out[0].reason);
    assert!(plan.left_out[1].reason.contains("`gone`"), "{}", plan.left_out[1].reason);
}

#[test]
fn conditions_choose_steps() {
    let snapshot = snapshot(|entities| {
        let mut c = combo("c", "priority", &["one/short", "one/long", "one/tools"]);
        c.steps[0].when = Some(When { max_tokens: Some(1_000), ..When::default() });
        c.steps[1].when = Some(When { min_tokens: Some(1_001), ..When::default() });
        c.steps[2].when = Some(When { has_tools: Some(true), ..When::default() });
        entities.combos = vec![c];
    });
    assert!(needs_content(&snapshot, state(&snapshot, "c")));
    let facts = RequestFacts { input_tokens: 1_000, ..RequestFacts::default() };
    let short = planned(&snapshot, "c", &facts);
    assert_eq!(models(&short), ["one/short"]);
    assert_eq!(left_out(&short), [("one/long", Rule::Condition), ("one/tools", Rule::Condition)]);
    let facts = RequestFacts { input_tokens: 5_000, has_tools: true, ..RequestFacts::default() };
    assert_eq!(models(&planned(&snapshot, "c", &facts)), ["one/long", "one/tools"]);
}

/// A model that the operator knows to take no images and little text, and one that nobody knows.
fn blind() -> Snapshot {
    snapshot(|entities| {
        let mut small =
            CustomModel { context_window: Some(1_000), ..model("n1", "small", "chat-completions") };
        small.caps.insert("vision".into(), false);
        entities.custom_models.push(small);
        entities.combos = vec![
            combo("c", "priority", &["one/small", "one/unheard-of"]),
            combo("blind", "priority", &["one/small"]),
        ];
    })
}

#[test]
fn models_that_lack_something_come_last_resort() {
    let snapshot = blind();
    assert!(needs_content(&snapshot, state(&snapshot, "c")));
    let facts = RequestFacts { has_images: true, ..RequestFacts::default() };
    let plan = planned(&snapshot, "c", &facts);
    assert_eq!(models(&plan), ["one/unheard-of"]);
    assert_eq!(left_out(&plan), [("one/small", Rule::Capability)]);
    let long = RequestFacts { input_tokens: 900, max_output: Some(200), ..RequestFacts::default() };
    assert_eq!(models(&planned(&snapshot, "c", &long)), ["one/unheard-of"]);
    // Before nobody is asked, the one that may not be able to is.
    assert_eq!(models(&planned(&snapshot, "blind", &facts)).len(), 1);
    assert_eq!(models(&planned(&snapshot, "c", &RequestFacts::default())).len(), 2);
}

#[test]
fn counts_and_the_last_good_one_steer() {
    let snapshot = snapshot(|entities| {
        entities.combos = vec![
            combo("least", "least-used", &["one/a", "two/b"]),
            combo("last", "lkgp", &["one/a", "two/b"]),
        ];
    });
    let facts = RequestFacts::default();
    state(&snapshot, "least").steps[0].stats.begin();
    assert_eq!(models(&planned(&snapshot, "least", &facts)), ["two/b", "one/a"]);
    let last = state(&snapshot, "last");
    last.memory.answered(&last.steps[1].id, 0);
    assert_eq!(models(&planned(&snapshot, "last", &facts)), ["two/b", "one/a"]);
    last.memory.failed(&last.steps[0].id);
    assert_eq!(
        models(&planned(&snapshot, "last", &facts)),
        ["two/b", "one/a"],
        "another's failure changes nothing"
    );
    last.memory.failed(&last.steps[1].id);
    assert_eq!(models(&planned(&snapshot, "last", &facts)), ["one/a", "two/b"]);
}

#[test]
fn the_cheapest_is_the_cheapest_for_this_request() {
    let snapshot = snapshot(|entities| {
        entities.combos =
            vec![combo("c", "cost-optimized", &["one/unpriced", "openai/gpt-5.6", "openai/gpt-5.4-mini"])];
    });
    let plan = planned(&snapshot, "c", &RequestFacts { input_tokens: 10_000, ..RequestFacts::default() });
    assert_eq!(models(&plan), ["openai/gpt-5.4-mini", "openai/gpt-5.6", "one/unpriced"]);
    assert!(plan.targets.list()[0].cost_nano.unwrap() < plan.targets.list()[1].cost_nano.unwrap());
    assert_eq!(plan.targets.list()[2].cost_nano, None, "unknown is not nothing");
}

#[test]
fn what_answers_usually_have_counts_for_their_cost() {
    let snapshot = snapshot(|entities| {
        let mut price = |model: &str, input: f64, output: f64| {
            let row = PriceRow { input: Some(input), output: Some(output), ..PriceRow::default() };
            entities.prices.user.entry("openai".into()).or_default().insert(model.into(), row);
        };
        // For a short prompt the first costs less as long as its answers are short.
        price("gpt-5.6", 1.0, 100.0);
        price("gpt-5.4-mini", 20.0, 50.0);
        entities.combos = vec![combo("c", "cost-optimized", &["openai/gpt-5.6", "openai/gpt-5.4-mini"])];
    });
    let facts = RequestFacts { input_tokens: 1_000, ..RequestFacts::default() };
    let leads = |facts: &RequestFacts| models(&planned(&snapshot, "c", facts))[0].clone();
    assert_eq!(leads(&facts), "openai/gpt-5.4-mini");
    assert_eq!(leads(&RequestFacts { max_output: Some(10), ..facts }), "openai/gpt-5.6");
    let steps = &state(&snapshot, "c").steps;
    steps[0].stats.note_output(50);
    steps[1].stats.note_output(600);
    assert_eq!(leads(&facts), "openai/gpt-5.6");
    // What the client allows at most counts where it is less.
    steps[0].stats.note_output(5_000);
    assert_eq!(leads(&facts), "openai/gpt-5.4-mini");
    assert_eq!(leads(&RequestFacts { max_output: Some(10), ..facts }), "openai/gpt-5.6");
}

#[test]
fn what_is_in_the_way_counts_for_the_power_of_two() {
    let snapshot = snapshot(|entities| entities.combos = vec![combo("c", "p2c", &["one/a", "two/b"])]);
    let connection = &snapshot.provider(&"n1".into()).unwrap().connections[0];
    let failure = Failure::timeout("too slow");
    assert_eq!(failure.kind, FailureKind::Timeout);
    connection.health.failed("a", &failure, &connection.profile, 0, 0.0);
    for random in 0..20 {
        let plan = plan(&snapshot, state(&snapshot, "c"), &RequestFacts::default(), 1, random, true);
        assert_eq!(models(&plan)[0], "two/b");
    }
}

#[test]
fn the_operators_defaults_lie_under_a_combo() {
    let snapshot = snapshot(|entities| {
        entities.settings.combo_defaults =
            ComboConfig { max_retries: Some(4), retry_delay_ms: Some(10), ..ComboConfig::default() };
        let mut c = combo("c", "priority", &["one/a"]);
        c.config.max_retries = Some(0);
        entities.combos = vec![c];
    });
    let policy = &state(&snapshot, "c").policy;
    assert_eq!((policy.max_retries, policy.retry_delay.as_millis()), (0, 10));
    assert_eq!(policy.timeout.as_secs(), 600, "the built-in one");
}

#[test]
fn what_vendors_say_is_left_counts_for_auto() {
    use omniroute_domain::routing::auto::Factor;
    use omniroute_provider::allowance::{Allowance, Allowances};
    let snapshot = snapshot(|entities| entities.combos = vec![combo("c", "auto", &["one/a", "two/b"])]);
    let connection = &snapshot.provider(&"n1".into()).unwrap().connections[0];
    let reset = Some(std::time::Duration::from_secs(60));
    let requests = Some(Allowance { limit: Some(100), remaining: 20, reset });
    connection.health.gate.learn("a", &Allowances { requests, ..Allowances::default() }, 0);
    let plan = plan(&snapshot, state(&snapshot, "c"), &RequestFacts::default(), 1, 0, false);
    let quota = |name: &str| {
        let planned = plan.targets.list().iter().find(|planned| planned.target.full_name() == name).unwrap();
        planned.score.as_ref().unwrap().of(Factor::Quota)
    };
    assert!((quota("one/a") - 0.2).abs() < 1e-6, "{}", quota("one/a"));
    assert!((quota("two/b") - 1.0).abs() < 1e-6, "nothing was said, and nothing runs");
    assert_eq!(models(&plan)[0], "two/b");
}

#[test]
fn a_hidden_model_is_chosen_by_no_combo_but_can_be_asked_for() {
    let snapshot = snapshot(|entities| {
        let hidden = CustomModel { is_hidden: true, ..model("n1", "secret", "chat-completions") };
        entities.custom_models.push(hidden);
        entities.combos = vec![combo("c", "priority", &["one/secret", "two/shared"])];
    });
    let plan = planned(&snapshot, "c", &RequestFacts::default());
    assert_eq!(
        (models(&plan), left_out(&plan)),
        (vec!["two/shared".to_owned()], vec![("one/secret", Rule::Inactive)])
    );
    assert!(plan.left_out[0].reason.contains("hidden"), "{}", plan.left_out[0].reason);
    assert!(omniroute_domain::resolve::resolve(&snapshot, "one/secret").is_ok());
}

#[test]
fn who_cannot_be_asked_has_no_share_and_no_turn() {
    let gone = "deepseek/deepseek-chat";
    let snapshot = snapshot(|entities| {
        let mut weighted = combo("weighted", "weighted", &[gone, "one/a", "two/b"]);
        weighted.steps[0].weight = 90;
        weighted.steps[1].weight = 5;
        weighted.steps[2].weight = 5;
        entities.combos = vec![weighted, combo("round", "round-robin", &["one/a", gone, "two/b"])];
    });
    let first = |name: &str, random: u64| {
        let plan = plan(&snapshot, state(&snapshot, name), &RequestFacts::default(), 0, random, true);
        assert_eq!(left_out(&plan), [(gone, Rule::Inactive)]);
        models(&plan)[0].clone()
    };
    let count = |name: &str| {
        let draws = (0..1_000_u64).map(|number| number.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(17));
        draws.filter(|random| first(name, *random) == "one/a").count()
    };
    // Half of them: four standard deviations are 63.
    assert!(count("weighted").abs_diff(500) < 63, "{}", count("weighted"));
    assert_eq!(count("round"), 500);
}

#[test]
fn who_is_not_for_the_key_or_cannot_do_it_has_no_share_either() {
    let snapshot = snapshot(|entities| {
        let mut weighted = combo("c", "weighted", &["one/b", "one/a", "two/b", "two/shared"]);
        for (step, weight) in weighted.steps.iter_mut().zip([60, 5, 5, 30]) {
            step.weight = weight;
        }
        entities.combos = vec![weighted];
    });
    let bars = |target: &Target| match target.full_name().as_str() {
        "one/b" => Some(Bar::Key),
        "two/shared" => Some(Bar::Unable("it does not paint".into())),
        _ => None,
    };
    let cost = |_: &Target| Some(7);
    let special = Special { bars: Some(&bars), cost: Some(&cost) };
    let mut first = 0;
    for number in 0..1_000_u64 {
        let random = number.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(17);
        let facts = RequestFacts::default();
        let plan = plan_for(&snapshot, state(&snapshot, "c"), &facts, special, 0, random, true);
        assert_eq!(left_out(&plan), [("two/shared", Rule::Capability)]);
        assert_eq!(plan.left_out[0].reason, "it does not paint");
        let denied: Vec<_> = plan.denied.iter().map(|planned| planned.target.full_name()).collect();
        assert_eq!((plan.targets.len(), denied), (2, vec!["one/b".to_owned()]));
        assert!(plan.targets.list().iter().all(|planned| planned.cost_nano == Some(7)));
        first += usize::from(models(&plan)[0] == "one/a");
    }
    assert!(first.abs_diff(500) < 63, "{first}");
    // Where nobody is left nobody is asked.
    let nobody = Special { bars: Some(&|_| Some(Bar::Key)), ..Special::default() };
    let plan = plan_for(&snapshot, state(&snapshot, "c"), &RequestFacts::default(), nobody, 0, 0, true);
    assert_eq!((plan.targets.len(), plan.denied.len()), (0, 4));
}
