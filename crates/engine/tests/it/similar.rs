//! Questions that get the answer of another one that is close.

use std::time::Duration;

use omniroute_dialect::openai::OpenAi;
use omniroute_domain::entity::{
    ApiKey, ApiKeyId, Budget, Entities, KeyHash, KeySimilarity, Number, SimilarityMode,
};
use omniroute_domain::likeness::Guard;
use omniroute_domain::price::PriceRow;
use omniroute_engine::PairOutcome;
use omniroute_engine::ports::{Memory, QuestionRow};
use omniroute_testkit::Answer;

use crate::world::{END, Got, World, answer, chunk, combo, key, refusal, stream};

const BEARER: (&str, &str) = ("authorization", "Bearer sk-omni-test");
const OTHER: (&str, &str) = ("authorization", "Bearer sk-omni-other");
const KIND: &str = "how do I reset my password";
const CLOSE: &str = "how can I reset my password";

fn ask(text: &str) -> String {
    format!(r#"{{"model":"up/m","messages":[{{"role":"user","content":"{text}"}}],"temperature":0}}"#)
}

/// The vector at this angle, in degrees: 10 apart is a similarity of 0.985, 20 of 0.94.
fn at(angle: f64) -> Answer {
    at_all(&[angle])
}

fn at_all(angles: &[f64]) -> Answer {
    let data: Vec<String> = angles
        .iter()
        .enumerate()
        .map(|(at, angle)| {
            let (y, x) = angle.to_radians().sin_cos();
            format!(r#"{{"object":"embedding","index":{at},"embedding":[{},{}]}}"#, 3.0 * x, 3.0 * y)
        })
        .collect();
    let body = format!(
        r#"{{"object":"list","data":[{}],"model":"e","usage":{{"prompt_tokens":4,"total_tokens":4}}}}"#,
        data.join(",")
    );
    Answer::json(200, body)
}

fn world(mode: SimilarityMode) -> World {
    world_with(mode, |_| {})
}

fn world_with(mode: SimilarityMode, change: impl FnOnce(&mut Entities)) -> World {
    World::with(
        |entities| {
            set(entities, mode);
            change(entities);
        },
        |_| {},
    )
}

fn set(entities: &mut Entities, mode: SimilarityMode) {
    let similarity = &mut entities.settings.semantic_cache_similarity;
    similarity.mode = mode;
    similarity.model = Some("up/e".to_owned());
    similarity.sample_rate = Number::from(0.0);
    entities.settings.request_retry = 0;
    let prices = entities.prices.user.entry("openai-compatible-chat-1".into()).or_default();
    prices
        .insert("m".into(), PriceRow { input: Some(1_000.0), output: Some(2_000.0), ..PriceRow::default() });
    prices.insert("e".into(), PriceRow { input: Some(10.0), ..PriceRow::default() });
}

fn said(got: &Got) -> (&str, &str, &str) {
    (
        got.header("x-omniroute-cache"),
        got.header("x-omniroute-cache-similarity"),
        got.header("x-omniroute-cache-shadow"),
    )
}

const MISS: (&str, &str, &str) = ("MISS", "", "");

/// Asks the first question, which is answered.
async fn first(world: &World, text: &str) {
    world.transport.answer(at(0.0)).answer(answer(text));
    let got = world.chat(&ask(KIND)).await;
    assert_eq!((got.status, said(&got)), (200, MISS), "{}", got.body);
}

#[tokio::test(start_paused = true)]
async fn a_close_question_gets_the_answer() {
    let world = world(SimilarityMode::Enabled);
    first(&world, "click here").await;
    world.transport.answer(at(10.0));
    let got = world.chat(&ask(CLOSE)).await;
    assert_eq!((got.status, said(&got)), (200, ("HIT", "0.984", "")));
    assert!(got.body.contains("click here"), "{}", got.body);
    assert_eq!((got.header("x-omniroute-response-cost"), world.transport.sent().len()), ("0", 3));
    let row = world.row();
    assert_eq!((row.source, row.cost_nano, row.saved_nano()), ("similar", Some(0), Some(7_000_000)));
    assert!(row.similarity.is_some_and(|similarity| (similarity - 0.9848).abs() < 1e-3));
    let rows = world.recorded.rows.lock().unwrap().clone();
    let vectors: Vec<_> = rows.iter().filter(|row| row.request_type == "embedding").collect();
    assert_eq!(vectors.len(), 2);
    assert!(
        vectors.iter().all(|row| row.cost_nano == Some(40_000) && row.bills.len() == 1),
        "each is paid for"
    );
    // The same again is found by its likeness again; the first question itself by what it is.
    world.transport.answer(at(10.0));
    assert_eq!(said(&world.chat(&ask(CLOSE)).await).0, "HIT");
    assert_eq!(said(&world.chat(&ask(KIND)).await), ("HIT", "", ""));
    let report = world.engine.similarity();
    assert_eq!((report.lookups, report.hits, report.entries, report.would_have_served), (3, 2, 1, 0));
    assert_eq!(report.recent[0].outcome, PairOutcome::Served);
    assert_eq!(
        (report.recent[0].question.as_deref(), report.recent[0].kept_question.as_deref()),
        (Some(CLOSE), Some(KIND))
    );
    assert_eq!((world.engine.cache_counts().hits, world.engine.cache_counts().misses), (3, 1));
}

#[tokio::test(start_paused = true)]
async fn what_is_too_far_or_means_something_else_is_asked_for() {
    for (text, angle, guard) in [
        (CLOSE, 20.0, None),
        ("how do I not reset my password", 0.0, Some(Guard::Negation)),
        ("how do I reset my password 3 times", 5.0, Some(Guard::Numbers)),
        ("how do I reset your password", 5.0, Some(Guard::Opposites)),
    ] {
        let world = world(SimilarityMode::Enabled);
        first(&world, "one").await;
        world.transport.answer(at(angle)).answer(answer("two"));
        let got = world.chat(&ask(text)).await;
        assert_eq!((said(&got), got.body.contains("two")), (MISS, true), "{text}");
        let report = world.engine.similarity();
        let counted: Vec<_> = report.guarded.iter().filter(|(_, count)| *count > 0).collect();
        assert_eq!(
            counted,
            guard.iter().map(|guard| (*guard, 1)).collect::<Vec<_>>().iter().collect::<Vec<_>>()
        );
        assert_eq!(report.recent.first().map(|pair| pair.outcome), guard.map(PairOutcome::Guarded));
        assert_eq!((report.entries, world.row().similarity), (2, None), "it is a question of its own then");
    }
}

#[tokio::test(start_paused = true)]
async fn only_single_questions_without_tools_are_compared() {
    let tools = r#""tools":[{"type":"function","function":{"name":"f"}}],"temperature":0"#;
    let turns =
        r#"[{"role":"user","content":"a"},{"role":"assistant","content":"b"},{"role":"user","content":"c"}]"#;
    let plain = format!(r#"[{{"role":"user","content":"{KIND}"}}]"#);
    for body in [
        ask(KIND).replace(r#""temperature":0"#, tools),
        ask(KIND).replace(&plain, turns),
        ask(KIND).replace(r#""temperature":0"#, r#""temperature":1"#),
        ask(&"long ".repeat(300)),
    ] {
        let world = world(SimilarityMode::Enabled);
        world.transport.answer(answer("one"));
        assert_eq!(said(&world.chat(&body).await), MISS, "{body}");
        assert_eq!(world.transport.sent().len(), 1, "no vector: {body}");
    }
    let off = world(SimilarityMode::Off);
    off.transport.answer(answer("one"));
    off.chat(&ask(KIND)).await;
    assert_eq!((off.transport.sent().len(), off.engine.similarity().lookups), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn only_requests_that_are_the_same_otherwise_are_compared() {
    let world = world_with(SimilarityMode::Enabled, |entities| {
        let other = ApiKey { id: ApiKeyId::from("k2"), hash: KeyHash::of("sk-omni-other"), ..key() };
        entities.api_keys.push(other);
    });
    world.transport.answer(at(0.0)).answer(answer("mine"));
    world.send(&OpenAi, &ask(KIND), &[BEARER]).await;
    let close = ask(CLOSE);
    // The vector of a text is there after the first time, for the same key.
    for (body, headers, is_first) in [
        (close.clone(), vec![OTHER], true),
        (close.clone(), vec![], true),
        (close.replace("up/m", "up/n"), vec![BEARER], true),
        (close.replace(r#""temperature":0"#, r#""temperature":0,"max_tokens":9"#), vec![BEARER], false),
        (close.replace("[{", r#"[{"role":"system","content":"be brief"},{"#), vec![BEARER], false),
    ] {
        if is_first {
            world.transport.answer(at(5.0));
        }
        world.transport.answer(answer("another"));
        let got = world.send(&OpenAi, &body, &headers).await;
        assert_eq!(said(&got), MISS, "{body} {headers:?}");
    }
    let got = world.send(&OpenAi, &close, &[BEARER]).await;
    assert!(said(&got).0 == "HIT" && got.body.contains("mine"), "{}", got.body);
}

#[tokio::test(start_paused = true)]
async fn a_shadow_tells_what_it_would_have_done_and_compares() {
    let world = world(SimilarityMode::Shadow);
    first(&world, "Click here.").await;
    world.transport.answer(at(10.0)).answer(answer("click  HERE."));
    let got = world.chat(&ask(CLOSE)).await;
    assert_eq!(said(&got), ("MISS", "", "would-have-served; similarity=0.984"));
    assert!(got.body.contains("HERE"));
    let row = world.row();
    assert_eq!((row.source, row.similarity.is_some()), ("upstream", true));
    world.engine.compare_answers().await;
    let report = world.engine.similarity();
    assert_eq!((report.would_have_served, report.sampled, report.hits, report.entries), (1, 0, 0, 1));
    assert_eq!(
        (report.agreed, report.recent[0].agrees),
        (1, Some(true)),
        "equal but for capitals and spaces"
    );

    // In other words: their vectors are compared. With another number: they are not even asked for.
    for (text, fresh, angles, agrees) in [
        ("how could I reset my password", "press that", Some([0.0, 20.0]), Some(true)),
        ("how would I reset my password", "go away", Some([0.0, 60.0]), Some(false)),
        ("how should I reset my password", "Click here 3 times.", None, Some(false)),
    ] {
        world.transport.answer(at(10.0)).answer(answer(fresh));
        assert_eq!(said(&world.chat(&ask(text)).await).0, "MISS");
        if let Some(angles) = angles {
            world.transport.answer(at_all(&angles));
        }
        world.engine.compare_answers().await;
        assert_eq!(world.engine.similarity().recent[0].agrees, agrees, "{fresh}");
    }
    let report = world.engine.similarity();
    assert_eq!((report.agreed, report.disagreed, report.undecided), (2, 2, 0));

    // A stream says it in its head, and is compared when it has ended.
    world.transport.answer(at(10.0)).answer(stream().send(chunk("Click here.")).send(END));
    let streaming =
        ask("how may I reset my password").replace(r#""temperature""#, r#""stream":true,"temperature""#);
    let got = world.chat(&streaming).await;
    assert_eq!(said(&got), ("", "", "would-have-served; similarity=0.984"));
    world.engine.compare_answers().await;
    assert_eq!(world.engine.similarity().agreed, 3);
}

#[tokio::test(start_paused = true)]
async fn a_share_of_the_hits_is_asked_for_all_the_same() {
    let world = world_with(SimilarityMode::Enabled, |entities| {
        entities.settings.semantic_cache_similarity.sample_rate = Number::from(1.0);
    });
    first(&world, "apples").await;
    world.transport.answer(at(0.0)).answer(answer("pears"));
    let got = world.chat(&ask(CLOSE)).await;
    assert_eq!(said(&got), ("MISS", "", "would-have-served; similarity=1.000"));
    // The vectors of the answers are not to be had: the comparison decides nothing.
    world.transport.answer(refusal(400, "invalid_request_error", "no"));
    world.engine.compare_answers().await;
    let report = world.engine.similarity();
    assert_eq!((report.would_have_served, report.sampled, report.undecided), (1, 1, 1));
    assert_eq!((report.recent[0].outcome, report.recent[0].agrees), (PairOutcome::Sampled, None));
}

#[tokio::test(start_paused = true)]
async fn whatever_goes_wrong_is_a_miss() {
    let late = Duration::from_millis(1_001);
    for wrong in [
        refusal(400, "invalid_request_error", "no"),
        refusal(500, "server_error", "no"),
        at(0.0).after(late),
        Answer::json(200, r#"{"object":"list","data":[{"index":0,"embedding":[0,0]}]}"#),
        Answer::json(200, r#"{"object":"list","data":[]}"#),
    ] {
        let world = world_with(SimilarityMode::Enabled, |entities| {
            entities.connections.retain(|connection| connection.name != "second");
        });
        world.transport.answer(wrong).answer(answer("whole"));
        let got = world.chat(&ask(KIND)).await;
        // A failure may put the account out of use, which is the chat request's business too.
        let report = world.engine.similarity();
        assert_eq!((report.lookups, report.failures, report.entries), (1, 1, 0), "{}", got.body);
        if got.status == 200 {
            assert_eq!((said(&got), world.row().request_type), (MISS, "chat"));
        }
    }
    // A budget that refuses models without a price has no room for vectors, but for the answer.
    let world = world_with(SimilarityMode::Enabled, |entities| {
        let prices = entities.prices.user.get_mut("openai-compatible-chat-1").unwrap();
        prices.remove("e");
        let budget = Budget {
            daily_nano: Some(1_000_000_000_000),
            block_unpriced: true,
            ..Budget::unlimited(Some(ApiKeyId::from("k1")))
        };
        entities.budgets.push(budget);
    });
    world.transport.answer(answer("whole"));
    let got = world.send(&OpenAi, &ask(KIND), &[BEARER]).await;
    assert_eq!((got.status, said(&got), world.engine.similarity().lookups), (200, MISS, 0), "{}", got.body);
    assert_eq!(world.recorded.rows.lock().unwrap().len(), 1, "nothing is asked for that would be refused");
    // The same where a budget is nearly used up: the answer fits, a vector does not.
    let world = world_with(SimilarityMode::Enabled, |entities| {
        let prices = entities.prices.user.get_mut("openai-compatible-chat-1").unwrap();
        prices.insert("m".into(), PriceRow { input: Some(0.0), output: Some(0.0), ..PriceRow::default() });
        prices.insert("e".into(), PriceRow { input: Some(1_000_000.0), ..PriceRow::default() });
        let budget = Budget { daily_nano: Some(1_000), ..Budget::unlimited(Some(ApiKeyId::from("k1"))) };
        entities.budgets.push(budget);
    });
    world.transport.answer(answer("whole"));
    let got = world.send(&OpenAi, &ask(KIND), &[BEARER]).await;
    assert_eq!((got.status, said(&got), world.engine.similarity().lookups), (200, MISS, 0), "{}", got.body);
    assert_eq!((world.row().request_type, world.recorded.rows.lock().unwrap().len()), ("chat", 1));
    // A key that may not use the model, or has nothing left, is not asked for.
    let world = world_with(SimilarityMode::Enabled, |entities| {
        entities.api_keys[0].allowed_models = vec!["up/m".to_owned()];
    });
    world.transport.answer(answer("whole"));
    let got = world.send(&OpenAi, &ask(KIND), &[BEARER]).await;
    assert_eq!((got.status, world.engine.similarity().lookups), (200, 0), "{}", got.body);
    assert_eq!((world.row().request_type, world.recorded.rows.lock().unwrap().len()), ("chat", 1));
    let world = world_with(SimilarityMode::Enabled, |entities| {
        let budget = Budget { daily_nano: Some(0), ..Budget::unlimited(Some(ApiKeyId::from("k1"))) };
        entities.budgets.push(budget);
    });
    let got = world.send(&OpenAi, &ask(KIND), &[BEARER]).await;
    assert_eq!((got.status, world.recorded.rows.lock().unwrap().len()), (429, 1), "{}", got.body);
}

#[tokio::test(start_paused = true)]
async fn a_paraphrase_that_is_repeated_is_turned_into_a_vector_once() {
    let world = world(SimilarityMode::Enabled);
    first(&world, "click here").await;
    world.transport.answer(at(10.0));
    for _ in 0..3 {
        assert_eq!(said(&world.chat(&ask(CLOSE)).await), ("HIT", "0.984", ""));
    }
    let vectors = |world: &World| {
        let rows = world.recorded.rows.lock().unwrap();
        rows.iter().filter(|row| row.request_type == "embedding").count()
    };
    assert_eq!((vectors(&world), world.transport.sent().len()), (2, 3));
    assert_eq!((world.engine.similarity().lookups, world.engine.similarity().hits), (4, 3));
    // Of another key, and after a while, it is made anew.
    world.transport.answer(at(10.0)).answer(answer("other"));
    assert_eq!(said(&world.send(&OpenAi, &ask(CLOSE), &[BEARER]).await), MISS);
    assert_eq!(vectors(&world), 3);
    tokio::time::advance(Duration::from_secs(1_800)).await;
    world.transport.answer(at(10.0)).answer(answer("later"));
    assert_eq!(said(&world.chat(&ask(CLOSE)).await), MISS);
    assert_eq!(vectors(&world), 4);
}

#[tokio::test(start_paused = true)]
async fn a_shelf_that_fails_has_forgotten_nothing() {
    let world = world(SimilarityMode::Enabled);
    first(&world, "click here").await;
    let again = world.restarted(|entities| set(entities, SimilarityMode::Enabled));
    for memory in world.recorded.memories.lock().unwrap().clone() {
        again.engine.restore(memory);
    }
    *again.recorded.shelf_fails.lock().unwrap() = true;
    again.transport.answer(at(5.0)).answer(answer("fresh"));
    assert_eq!(said(&again.send(&OpenAi, &ask(CLOSE), &[("cache-control", "no-store")]).await), MISS);
    assert_eq!(again.engine.similarity().entries, 1, "what cannot be read may be there");
    assert_eq!(again.engine.cache_counts().shelf_failures, 2, "for the request, and for the question");
    *again.recorded.shelf_fails.lock().unwrap() = false;
    let got = again.chat(&ask(CLOSE)).await;
    assert!(said(&got).0 == "HIT" && got.body.contains("click here"), "{}", got.body);
}

#[tokio::test(start_paused = true)]
async fn who_asks_the_same_at_once_gets_the_same() {
    let world = world(SimilarityMode::Enabled);
    first(&world, "click here").await;
    world.transport.answer(at(10.0).after(Duration::from_millis(300)));
    let asked = ask(CLOSE);
    let asking = (0..3).map(|_| world.chat(&asked));
    for got in futures_util::future::join_all(asking).await {
        assert_eq!((got.status, said(&got)), (200, ("HIT", "0.984", "")));
    }
    assert_eq!(
        (world.transport.sent().len(), world.elapsed()),
        (3, Duration::from_millis(300)),
        "one vector for all"
    );
    let report = world.engine.similarity();
    assert_eq!((report.lookups, report.hits, report.failures), (4, 3, 0));
}

#[tokio::test(start_paused = true)]
async fn a_slow_shelf_is_waited_for_once() {
    let world = world(SimilarityMode::Enabled);
    first(&world, "click here").await;
    let again = world.restarted(|entities| set(entities, SimilarityMode::Enabled));
    let memories = world.recorded.memories.lock().unwrap().clone();
    for memory in memories {
        let Memory::Question(row) = memory else { continue };
        for number in 0..5 {
            let signature = format!("{}{number}", row.signature);
            again.engine.restore(Memory::Question(QuestionRow { signature, ..row.clone() }));
        }
        again.engine.restore(Memory::Question(row));
    }
    assert_eq!(again.engine.similarity().entries, 6);
    *again.recorded.shelf_delay.lock().unwrap() = Duration::from_millis(100);
    let began = again.elapsed();
    again.transport.answer(at(5.0)).answer(answer("fresh"));
    assert_eq!(said(&again.chat(&ask(CLOSE)).await), MISS);
    // The shelf is asked for the request itself too.
    assert_eq!(again.elapsed().checked_sub(began), Some(Duration::from_millis(350)));
    assert_eq!(again.engine.similarity().entries, 5, "two have no answer; of the others nothing is known");
    *again.recorded.shelf_delay.lock().unwrap() = Duration::ZERO;
    again.transport.answer(at(0.0));
    let got = again.chat(&ask("how could I reset my password")).await;
    assert!(said(&got).0 == "HIT" && got.body.contains("click here"), "{}", got.body);
}

#[tokio::test(start_paused = true)]
async fn a_vector_does_not_count_against_the_rate_of_a_key() {
    let world = world_with(SimilarityMode::Enabled, |entities| {
        entities.api_keys[0].max_requests_per_minute = Some(2);
    });
    world.transport.answer(at(0.0)).answer(answer("one")).answer(at(0.0));
    let sent = [KIND, CLOSE].map(ask);
    let mut told = Vec::new();
    for body in &sent {
        told.push(world.send(&OpenAi, body, &[BEARER]).await.status);
    }
    told.push(world.send(&OpenAi, &ask("something else"), &[BEARER]).await.status);
    assert_eq!(told, [200, 200, 429]);
    assert_eq!(
        (world.transport.sent().len(), world.engine.similarity().lookups),
        (3, 2),
        "no vector is made"
    );
}

#[tokio::test(start_paused = true)]
async fn a_key_has_its_own_mode_and_threshold() {
    let own = |mode, threshold: Option<f64>| {
        move |entities: &mut Entities| {
            let similarity = KeySimilarity { mode, threshold: threshold.map(Number::from) };
            entities.api_keys[0].rights.similarity = Some(similarity);
        }
    };
    for (mode, change, angle, expected) in [
        (SimilarityMode::Off, own(Some(SimilarityMode::Enabled), None), 10.0, "HIT"),
        (SimilarityMode::Enabled, own(None, Some(0.9)), 20.0, "HIT"),
        (SimilarityMode::Enabled, own(None, Some(0.99)), 10.0, "MISS"),
        (SimilarityMode::Enabled, own(Some(SimilarityMode::Shadow), None), 10.0, "MISS"),
    ] {
        let world = world_with(mode, change);
        world.transport.answer(at(0.0)).answer(answer("one")).answer(at(angle)).answer(answer("two"));
        world.send(&OpenAi, &ask(KIND), &[BEARER]).await;
        let got = world.send(&OpenAi, &ask(CLOSE), &[BEARER]).await;
        assert_eq!(said(&got).0, expected, "{mode:?} {angle}");
    }
    let world = world_with(SimilarityMode::Enabled, own(Some(SimilarityMode::Off), None));
    world.transport.answer(answer("one"));
    world.send(&OpenAi, &ask(KIND), &[BEARER]).await;
    assert_eq!(world.transport.sent().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn questions_end_with_their_answers_and_are_deleted_with_them() {
    let world = world(SimilarityMode::Enabled);
    world.transport.answer(at(0.0)).answer(answer("one"));
    world.send(&OpenAi, &ask(KIND), &[("x-omniroute-cache-ttl", "90")]).await;
    tokio::time::advance(Duration::from_secs(89)).await;
    world.transport.answer(at(0.0));
    assert_eq!(said(&world.chat(&ask(CLOSE)).await).0, "HIT");
    tokio::time::advance(Duration::from_secs(1)).await;
    world.transport.answer(answer("two"));
    assert_eq!(said(&world.chat(&ask(CLOSE)).await), MISS);
    world.engine.sweep();
    assert_eq!(world.engine.similarity().entries, 1, "the new one is left");

    for (model, signature, left) in [(Some("up/n"), None, 1), (Some("up/m"), None, 0)] {
        world.engine.clear_cache(model, signature);
        assert_eq!(world.engine.similarity().entries, left);
    }
    assert_eq!(world.engine.similarity().hits, 1);
    world.engine.clear_cache(None, None);
    let report = world.engine.similarity();
    assert_eq!((report.hits, report.lookups, report.recent.len()), (0, 0, 0), "counters begin anew");
}

#[tokio::test(start_paused = true)]
async fn a_new_process_finds_what_an_older_one_kept() {
    let world = world(SimilarityMode::Enabled);
    first(&world, "click here").await;
    let again = world.restarted(|entities| set(entities, SimilarityMode::Enabled));
    let questions: Vec<_> = {
        let memories = world.recorded.memories.lock().unwrap();
        memories.iter().filter(|memory| matches!(memory, Memory::Question(_))).cloned().collect()
    };
    assert_eq!(questions.len(), 1);
    for question in questions {
        again.engine.restore(question);
    }
    again.transport.answer(at(5.0));
    let got = again.chat(&ask(CLOSE)).await;
    assert!(said(&got).0 == "HIT" && got.body.contains("click here"), "the answer comes from the shelf");
    // Where the answer is gone, its question is of no use.
    again.engine.clear_cache(Some("nothing"), None);
    world.recorded.memories.lock().unwrap().retain(|memory| !matches!(memory, Memory::Answer(_)));
    let third = world.restarted(|entities| set(entities, SimilarityMode::Enabled));
    for memory in world.recorded.memories.lock().unwrap().iter().cloned() {
        third.engine.restore(memory);
    }
    assert_eq!(third.engine.similarity().entries, 1);
    third.transport.answer(at(5.0)).answer(answer("fresh"));
    assert_eq!(said(&third.chat(&ask(CLOSE)).await), MISS);
    assert_eq!(third.engine.similarity().entries, 1, "that of the fresh answer");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_written_or_shown_of_a_key_without_a_log() {
    let world = world_with(SimilarityMode::Enabled, |entities| entities.api_keys[0].no_log = true);
    world.transport.answer(at(0.0)).answer(answer("one")).answer(at(5.0));
    world.send(&OpenAi, &ask(KIND), &[BEARER]).await;
    assert_eq!(said(&world.send(&OpenAi, &ask(CLOSE), &[BEARER]).await).0, "HIT");
    let memories = world.recorded.memories.lock().unwrap();
    assert!(!memories.iter().any(|memory| matches!(memory, Memory::Question(_) | Memory::Answer(_))));
    let pair = world.engine.similarity().recent.remove(0);
    assert_eq!((pair.api_key.as_deref(), pair.question, pair.kept_question), (Some("k1"), None, None));
}

#[tokio::test(start_paused = true)]
async fn an_answer_of_a_target_that_a_key_may_not_use_any_more_is_not_given() {
    let change = |entities: &mut Entities| {
        set(entities, SimilarityMode::Enabled);
        entities.combos.push(combo("pair", &["up/m", "anth/m"]));
    };
    let world = World::with(change, |_| {});
    world.transport.answer(at(0.0)).answer(answer("one"));
    let body = |text: &str| ask(text).replace("up/m", "pair");
    assert_eq!(said(&world.send(&OpenAi, &body(KIND), &[BEARER]).await), MISS);
    let again = world.restarted(|entities| {
        change(entities);
        entities.api_keys[0].denied_models = vec!["up/m".to_owned()];
    });
    for memory in world.recorded.memories.lock().unwrap().iter().cloned() {
        again.engine.restore(memory);
    }
    again.transport.answer(at(0.0));
    again.transport.answer(Answer::json(
        200,
        r#"{"id":"x","type":"message","role":"assistant","model":"m","content":[{"type":"text","text":"two"}],"stop_reason":"end_turn","usage":{"input_tokens":1,"output_tokens":1}}"#,
    ));
    let got = again.send(&OpenAi, &body(CLOSE), &[BEARER]).await;
    assert_eq!((got.status, said(&got), got.body.contains("two")), (200, MISS, true), "{}", got.body);
}
