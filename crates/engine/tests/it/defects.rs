//! Twenty defects that a gateway of this kind has had, and the tests that keep this one free of them. The table names tests
//! wherever they are, and is checked; those that fit nowhere else stand below.

use std::path::Path;

use crate::world::{ASK, World, answer, refusal};

/// Who prevents a defect.
enum Guard {
    /// These tests: a file within `crates`, and a function of it.
    Tests(&'static [(&'static str, &'static str)]),
    /// Nobody yet, since what could have it is not built.
    NotBuilt(&'static str),
}

use Guard::{NotBuilt, Tests};

const DEFECTS: [(&str, Guard); 20] = [
    (
        "a request for a stream is answered from a cache with JSON",
        Tests(&[
            ("engine/tests/it/cache.rs", "streams_are_kept_and_given"),
            ("engine/tests/it/idempotency.rs", "a_stream_is_shared_from_its_beginning_and_repeated"),
        ]),
    ),
    (
        "a cache answers a request with other parameters, or somebody without a key",
        Tests(&[
            ("engine/tests/it/cache.rs", "what_may_be_another_answer_is_asked_for"),
            ("engine/tests/it/cache.rs", "whoever_has_another_key_asks_for_themselves"),
            ("engine/tests/it/idempotency.rs", "what_differs_is_another_request"),
        ]),
    ),
    (
        "a request that says nothing of streams gets one",
        Tests(&[(HERE, "what_says_nothing_of_streams_gets_a_whole_answer")]),
    ),
    (
        "prompt tokens are told higher than they are",
        Tests(&[(HERE, "tokens_are_told_as_the_upstream_counted_them")]),
    ),
    ("an alias of a model at a node leads nowhere", Tests(&[(HERE, "an_alias_may_lead_to_a_node")])),
    (
        "a failing model puts its account out of use for others, or its error is told of another model",
        Tests(&[
            ("engine/tests/it/combos.rs", "one_failing_model_does_not_take_its_account_from_the_next_target"),
            ("engine/tests/it/fallback.rs", "a_limit_on_one_model_leaves_the_others_of_the_account_alone"),
            (
                "engine/tests/it/breaker.rs",
                "a_model_that_fails_does_not_keep_the_next_target_from_the_same_account",
            ),
            (HERE, "an_error_names_the_model_of_its_own_request"),
        ]),
    ),
    (
        "refusals of the gateway itself count as failures of an account",
        Tests(&[
            (HERE, "refusals_of_our_own_say_nothing_about_accounts"),
            ("engine/tests/it/breaker.rs", "local_refusals_and_refusals_of_accounts_never_open_a_breaker"),
        ]),
    ),
    (
        "requests wait for minutes, or fail because a queue was taken down",
        Tests(&[
            ("engine/tests/it/limits.rs", "nobody_waits_for_minutes"),
            ("engine/tests/it/limits.rs", "a_change_of_the_account_takes_nobody_out_of_its_queue"),
            ("engine/tests/it/fallback.rs", "a_long_one_is_told_at_once"),
            ("chaos/tests/runs/scenarios.rs", "storms_outages_and_quotas"),
        ]),
    ),
    (
        "reasoning is billed twice",
        Tests(&[("domain/src/price/tests.rs", "defect_9_reasoning_and_cache_writes_are_billed_once")]),
    ),
    (
        "addresses are not checked for calls of models",
        Tests(&[("engine/tests/it/admission.rs", "a_key_has_its_limits")]),
    ),
    (
        "the list of models in Ollama's shape is always the same",
        Tests(&[("omniroute/tests/it/models.rs", "ollamas_list_is_the_list_of_this_gateway")]),
    ),
    (
        "budgets have one window, and members left out reset it",
        Tests(&[
            ("domain/src/budget/spending/tests.rs", "defect_12_every_window_counts_by_itself"),
            ("admin/tests/it/budgets.rs", "defect_12_what_is_not_sent_stays_and_every_window_is_shown"),
        ]),
    ),
    ("the state of a sign-in at a provider is not checked", NotBuilt("there is no sign-in at providers")),
    ("bundles and synchronisation give credentials away", NotBuilt("nothing is exported or synchronised")),
    (
        "client keys are stored in the clear",
        Tests(&[("omniroute/tests/it/secrets.rs", "secrets_stay_out_of_answers_logs_and_files")]),
    ),
    ("one connection's proxy is used for another's calls", NotBuilt("there are no proxies")),
    (
        "changes are missing from the audit log",
        Tests(&[("admin/tests/it/configuration.rs", "every_change_is_in_the_audit_log")]),
    ),
    (
        "a restart is an end",
        Tests(&[("omniroute/tests/it/lifecycle.rs", "restart_lets_a_stream_finish_and_then_serves_anew")]),
    ),
    ("an unknown backup is an error of ours, and the smallest are deleted", NotBuilt("there are no backups")),
    (
        "unknown paths get a page, wrong methods nothing",
        Tests(&[(
            "omniroute/tests/it/rim.rs",
            "unknown_paths_and_methods_are_json_in_the_dialect_of_the_path",
        )]),
    ),
];

const HERE: &str = "engine/tests/it/defects.rs";

#[test]
fn the_tests_that_are_named_exist() {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    for (what, guard) in &DEFECTS {
        match guard {
            NotBuilt(why) => assert!(!why.is_empty(), "{what}"),
            Tests(tests) => {
                assert!(!tests.is_empty(), "{what}");
                for (file, name) in *tests {
                    let text = std::fs::read_to_string(crates.join(file))
                        .unwrap_or_else(|error| panic!("{file}, for \"{what}\": {error}"));
                    assert!(text.contains(&format!("fn {name}(")), "{file} has no `{name}`, for \"{what}\"");
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_says_nothing_of_streams_gets_a_whole_answer() {
    let world = World::new();
    world.transport.answer(answer("whole"));
    let got = world.chat(ASK).await;
    assert_eq!((got.status, got.header("content-type")), (200, "application/json"));
    let sent = &world.transport.sent()[0];
    assert!(!String::from_utf8_lossy(&sent.body).contains("\"stream\":true"));
    assert!(!world.row().stream);
}

#[tokio::test(start_paused = true)]
async fn tokens_are_told_as_the_upstream_counted_them() {
    let world = World::new();
    world.transport.answer(answer("same")).answer(answer("other"));
    let got = world.chat(ASK).await;
    assert!(got.body.contains(r#""prompt_tokens":3"#), "{}", got.body);
    let got = world
        .messages(r#"{"model":"up/m","max_tokens":9,"messages":[{"role":"user","content":"hi"}]}"#)
        .await;
    assert!(got.body.contains(r#""input_tokens":3"#), "{}", got.body);
}

#[tokio::test(start_paused = true)]
async fn an_alias_may_lead_to_a_node() {
    let world = World::with(|rows| rows.aliases.push(("mine".into(), "up/m".into())), |_| {});
    world.transport.answer(answer("there"));
    let got = world.chat(&ASK.replace("up/m", "mine")).await;
    assert_eq!((got.status, world.row().model.as_ref()), (200, "m"), "{}", got.body);
}

#[tokio::test(start_paused = true)]
async fn an_error_names_the_model_of_its_own_request() {
    let world = World::new();
    let wait = |model: &str| {
        refusal(429, "rate_limit_error", &format!("{model} is limited")).header("retry-after", "900")
    };
    // Both accounts are out of use for one model; then another one fails.
    world.transport.answer(wait("m")).answer(wait("m"));
    world.chat(ASK).await;
    world.transport.answer(wait("other")).answer(wait("other"));
    let got = world.chat(&ASK.replace("up/m", "up/other")).await;
    assert!(got.body.contains("other") && !got.body.contains("m is limited"), "{}", got.body);
    let calls = world.transport.sent().len();
    let got = world.chat(ASK).await;
    assert_eq!((got.status, world.transport.sent().len()), (429, calls), "nobody is asked: {}", got.body);
    assert!(got.body.contains("up/m") && !got.body.contains("other"), "{}", got.body);
}

#[tokio::test(start_paused = true)]
async fn refusals_of_our_own_say_nothing_about_accounts() {
    let world = World::new();
    // A body that is no request, and a model that nobody has.
    for body in [r#"{"model":"up/m"}"#, r#"{"model":"nothing","messages":[{"role":"user","content":"x"}]}"#] {
        assert!((400..500).contains(&world.chat(body).await.status));
    }
    let snapshot = world.engine.live.load();
    for id in ["c1", "c2"] {
        let connection = snapshot.connection(&id.into()).unwrap();
        assert_eq!(connection.health.stats.totals().requests, 0);
        assert_eq!(connection.health.check("m", world.engine.clock.now_ms()), Ok(()));
    }
    assert!(world.recorded.statuses.lock().unwrap().is_empty());
}
