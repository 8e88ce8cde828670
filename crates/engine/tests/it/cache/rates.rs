//! What answers out of the cache count against.

use super::*;

#[tokio::test(start_paused = true)]
async fn hits_count_against_rates_and_not_against_budgets() {
    let world = World::with(
        |entities| {
            price(entities);
            entities.api_keys[0].max_requests_per_minute = Some(2);
            let budget =
                Budget { daily_nano: Some(25_000_000), ..Budget::unlimited(Some(ApiKeyId::from("k1"))) };
            entities.budgets.push(budget);
        },
        |_| {},
    );
    world.transport.answer(answer("one"));
    let ask = cold(r#""max_tokens":1"#);
    let send = || world.send(&OpenAi, &ask, &[BEARER]);
    let first = send().await;
    // What the next answer may cost is more than the budget has left then.
    assert_eq!(first.status, 200, "{}", first.body);
    let spent = || {
        let (live, now_ms) = (&world.engine.live, world.engine.clock.now_ms());
        let key = ApiKeyId::from("k1");
        live.spending.standing(&live.load().budgets, Some(&key), now_ms).total_nano
    };
    let before = spent();
    let hit = send().await;
    assert_eq!((hit.status, cache(&hit), spent()), (200, "HIT", before));
    let refused = send().await;
    assert_eq!((refused.status, cache(&refused)), (429, ""));
    assert!(refused.body.contains("requests per minute") || refused.body.contains("limited to"));
    let decision = world.row().decision.expect("it is written down");
    let rules: Vec<_> =
        decision.candidates(OpenAi.id()).iter().map(|it| it.skip.map(|skip| skip.rule)).collect();
    assert_eq!(rules, [Some("key"); 2]);
}
