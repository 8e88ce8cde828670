//! Several keys in one account.

use std::time::Duration;

use omniroute_domain::entity::{ConnectionId, ConnectionStatus, Entities, KeyPool};
use omniroute_domain::snapshot::ConnectionState;
use omniroute_engine::chronicle;
use omniroute_engine::ports::Memory;

use crate::world::{ASK, World, answer, refusal};

/// One account at `up` with the keys `upstream-key-of-first`, `key-b` and `key-c`.
fn world(change: impl FnOnce(&mut Entities)) -> World {
    World::with(
        |entities| {
            entities.connections.retain(|row| row.id != ConnectionId::from("c2"));
            entities.settings.request_retry = 0;
            entities.connections[0].options.api_keys =
                KeyPool(["key-b", "key-c"].map(Into::into).into_iter().collect());
            change(entities);
        },
        |_| {},
    )
}

/// The keys that were sent, in order.
fn sent(world: &World) -> Vec<String> {
    let sent = world.transport.sent();
    let key = |text: &str| text.replace("Bearer ", "").replace("upstream-key-of-first", "key-a");
    sent.iter().map(|sent| key(sent.headers["authorization"].to_str().unwrap())).collect()
}

#[tokio::test(start_paused = true)]
async fn keys_take_turns() {
    let world = world(|_| {});
    for _ in 0..6 {
        world.transport.answer(answer("ok"));
        assert_eq!(world.chat(ASK).await.status, 200);
    }
    assert_eq!(sent(&world), ["key-a", "key-b", "key-c", "key-a", "key-b", "key-c"]);
    assert_eq!(world.row().connection.as_ref().map(|id| id.as_str()), Some("c1"), "one account in the log");
}

#[tokio::test(start_paused = true)]
async fn a_key_that_is_refused_gives_way_to_the_next_and_has_a_lock_of_its_own() {
    let world = world(|_| {});
    world
        .transport
        .answer(refusal(429, "rate_limit_error", "slow down").header("retry-after", "20"))
        .answer(refusal(401, "authentication_error", "no such key"))
        .answer(answer("ok"));
    assert_eq!(world.chat(ASK).await.header("x-omniroute-attempts"), "3");
    assert_eq!(sent(&world), ["key-a", "key-b", "key-c"]);
    for _ in 0..2 {
        world.transport.answer(answer("ok"));
        assert_eq!(world.chat(ASK).await.header("x-omniroute-attempts"), "1");
    }
    assert_eq!(sent(&world)[3..], ["key-c", "key-c"]);
    let statuses = world.recorded.statuses.lock().unwrap().clone();
    assert!(statuses.iter().all(|(id, _)| id.key_parts().is_some()), "one of its keys is not the account");
    let cooling = statuses.iter().filter(|(_, status)| status.rate_limited_until.is_some());
    assert_eq!(cooling.count(), 1, "the refused key is out of use after a restart too");
    tokio::time::advance(Duration::from_secs(21)).await;
    for _ in 0..3 {
        world.transport.answer(answer("ok"));
        world.chat(ASK).await;
    }
    assert!(sent(&world)[5..].contains(&"key-a".to_owned()), "the first is back");
    assert!(!sent(&world)[5..].contains(&"key-b".to_owned()), "the second is not yet");
}

#[tokio::test(start_paused = true)]
async fn an_account_is_out_when_all_its_keys_are_and_says_when_the_first_is_back() {
    let world = world(|_| {});
    for seconds in ["40", "20", "30"] {
        let refused = refusal(429, "rate_limit_error", "slow down").header("retry-after", seconds);
        world.transport.answer(refused);
    }
    let got = world.chat(ASK).await;
    assert_eq!((got.status, got.header("retry-after"), sent(&world).len()), (429, "20", 3), "{}", got.body);
    let again = world.chat(ASK).await;
    assert_eq!((again.status, again.header("retry-after"), sent(&world).len()), (429, "20", 3));
}

#[tokio::test(start_paused = true)]
async fn its_places_are_common_to_all_keys() {
    let world = world(|entities| entities.connections[0].max_concurrent = Some(1));
    world.transport.answer(answer("slow").after(Duration::from_secs(2)));
    let (one, other) = tokio::join!(world.chat(ASK), world.chat(ASK));
    assert_eq!((one.status, other.status), (200, 429), "{}", other.body);
    let connection = world.engine.live.load().connection(&ConnectionId::from("c1")).unwrap().clone();
    assert_eq!(connection.health.in_flight(), 0);
    assert_eq!(connection.health.stats.totals().requests, 1);
}

#[tokio::test(start_paused = true)]
async fn each_key_is_held_to_its_own_limits() {
    let world = world(|_| {});
    let spent = answer("ok")
        .header("x-ratelimit-limit-requests", "100")
        .header("x-ratelimit-remaining-requests", "0")
        .header("x-ratelimit-reset-requests", "10s");
    world.transport.answer(spent);
    world.chat(ASK).await;
    for _ in 0..4 {
        world.transport.answer(answer("ok"));
        assert_eq!(world.chat(ASK).await.status, 200);
    }
    assert!(!sent(&world)[1..].contains(&"key-a".to_owned()), "{:?}", sent(&world));
    assert_eq!(world.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn the_locks_of_its_keys_outlive_a_restart() {
    let before = world(|_| {});
    before
        .transport
        .answer(refusal(429, "rate_limit_error", "slow down").header("retry-after", "600"))
        .answer(answer("ok"));
    assert_eq!(before.chat(ASK).await.status, 200);
    assert_eq!(sent(&before), ["key-a", "key-b"]);
    let kept: Vec<_> = before.recorded.memories.lock().unwrap().clone();
    let locks = kept.iter().filter_map(|memory| match memory {
        Memory::Lock(row) => Some(row.connection.as_str()),
        _ => None,
    });
    let locks: Vec<_> = locks.collect();
    assert!(matches!(locks[..], [id] if id.starts_with("c1#") && !id.contains("key")), "{locks:?}");

    let after = world(|_| {});
    kept.into_iter().for_each(|memory| after.engine.restore(memory));
    for _ in 0..4 {
        after.transport.answer(answer("ok"));
        assert_eq!(after.chat(ASK).await.header("x-omniroute-attempts"), "1");
    }
    assert!(!sent(&after).contains(&"key-a".to_owned()), "{:?}", sent(&after));
    // A key that was taken away is nobody's.
    let without = world(|entities| entities.connections[0].options.api_keys = KeyPool::default());
    let stray = before.recorded.memories.lock().unwrap().clone();
    stray.into_iter().for_each(|memory| without.engine.restore(memory));
    without.transport.answer(answer("ok"));
    assert_eq!(without.chat(ASK).await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn what_a_key_learned_outlives_a_restart() {
    let spent = || {
        answer("ok")
            .header("x-ratelimit-limit-requests", "100")
            .header("x-ratelimit-remaining-requests", "0")
            .header("x-ratelimit-reset-requests", "10m")
    };
    let before = world(|_| {});
    before.transport.answer(spent());
    assert_eq!(before.chat(ASK).await.status, 200);
    let kept: Vec<_> = before.recorded.memories.lock().unwrap().clone();
    let of_keys = kept.iter().filter_map(|memory| match memory {
        Memory::Limits(row) => Some(&row.connection),
        Memory::Quota(row) => Some(&row.connection),
        _ => None,
    });
    let of_keys: Vec<_> = of_keys.map(|id| id.key_parts().map(|(account, _)| account)).collect();
    assert_eq!(of_keys, [Some("c1"); 2], "its limits, and a row of the history");
    let events = before.engine.live.health.timeline.latest(9, |_| true);
    assert!(matches!(&events[..], [event] if event.to == "exhausted" && event.key.is_some()), "{events:?}");

    let after = world(|_| {});
    kept.into_iter().for_each(|memory| after.engine.restore(memory));
    for _ in 0..4 {
        after.transport.answer(answer("ok"));
        assert_eq!(after.chat(ASK).await.status, 200);
    }
    assert!(!sent(&after).contains(&"key-a".to_owned()), "{:?}", sent(&after));
    assert_eq!(after.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_banned_key_is_asked_again_when_the_operator_says_so() {
    let world = world(|_| {});
    world.transport.answer(refusal(401, "account_disabled", "this account is disabled")).answer(answer("ok"));
    assert_eq!(world.chat(ASK).await.header("x-omniroute-attempts"), "2");
    let account = world.engine.live.load().connection(&ConnectionId::from("c1")).unwrap().clone();
    let banned: Vec<_> = account.pool.iter().map(|key| key.health.check("m", 0).is_err()).collect();
    assert_eq!(banned, [true, false, false]);
    let recorder = &*world.engine.recorder;
    chronicle::clear(&world.engine.live, recorder, &account, ConnectionStatus::default(), 0);
    let last = world.recorded.statuses.lock().unwrap().iter().rev().take(3).cloned().collect::<Vec<_>>();
    assert!(
        last.iter().all(|(id, status)| id.key_parts().is_some() && *status == ConnectionStatus::default())
    );
    for _ in 0..3 {
        world.transport.answer(answer("ok"));
        world.chat(ASK).await;
    }
    assert!(sent(&world)[2..].contains(&"key-a".to_owned()), "{:?}", sent(&world));
}

/// A call is under way with the first key while the operator changes which keys the account has.
#[tokio::test(start_paused = true)]
async fn what_a_call_finds_out_is_held_against_its_own_key() {
    async fn refused_after(keys: &[&str], first: Option<&str>) -> World {
        let world = world(|entities| entities.connections[0].options.api_keys = KeyPool::default());
        let limits = refusal(402, "insufficient_quota", "You exceeded your current quota")
            .after(Duration::from_secs(5));
        world.transport.answer(
            limits.header("x-ratelimit-remaining-requests", "0").header("x-ratelimit-reset-requests", "1h"),
        );
        let change = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            world.reconfigure(|entities| {
                entities.connections.retain(|row| row.id != ConnectionId::from("c2"));
                let row = &mut entities.connections[0];
                row.options.api_keys = KeyPool(keys.iter().map(|key| (*key).into()).collect());
                row.api_key = first.map(Into::into).or(row.api_key.take());
            });
        };
        let (got, ()) = futures_util::join!(world.chat(ASK), change);
        assert_eq!(got.status, 402, "{}", got.body);
        world
    }
    let account = |world: &World| world.engine.live.load().connection(&"c1".into()).unwrap().clone();
    let now_ms = |world: &World| world.engine.clock.now_ms();

    let world = refused_after(&["key-b"], None).await;
    let state = account(&world);
    let is_refused = |state: &ConnectionState| state.health.check("gpt-5.6", now_ms(&world)).is_err();
    assert_eq!(
        (is_refused(&state), is_refused(&state.pool[0]), is_refused(&state.pool[1])),
        (false, true, false)
    );
    let told = world.recorded.statuses.lock().unwrap().clone();
    assert!(!told.is_empty() && told.iter().all(|(id, _)| *id == *state.pool[0].state_id()), "{told:?}");

    let world = refused_after(&[], Some("key-new")).await;
    let state = account(&world);
    assert_eq!(state.health.check("gpt-5.6", now_ms(&world)), Ok(()));
    assert_eq!(state.health.status(0), ConnectionStatus::default());
    assert_eq!(*world.recorded.statuses.lock().unwrap(), []);
}
