//! Where the time of a request goes.

use std::time::Duration;

use omniroute_engine::telemetry::Window;

use crate::world::{ASK, ASK_STREAM, END, NOW_MS, World, answer, chunk, stream};

const COLD: &str = r#"{"model":"up/m","messages":[{"role":"user","content":"hi"}],"temperature":0}"#;

/// The phases that were gone through, with the mean of each in milliseconds.
fn phases(world: &World) -> Vec<(&'static str, u64, f64)> {
    let summary = world.engine.telemetry.summary(Window::FiveMinutes, NOW_MS + 1_000);
    let told = summary.phases_us.into_iter();
    told.map(|(phase, took)| (phase.as_str(), took.count, took.avg / 1e3)).collect()
}

#[tokio::test(start_paused = true)]
async fn the_parts_of_a_stream_are_what_it_waited_for() {
    let world = World::new();
    let slow =
        stream().after(Duration::from_millis(300)).pause(Duration::from_millis(200)).send(chunk("Hel"));
    world.transport.answer(slow.pause(Duration::from_millis(400)).send(chunk("lo")).send(END));
    assert_eq!(world.chat(ASK_STREAM).await.status, 200);
    assert_eq!(
        phases(&world),
        [
            ("validate", 1, 0.0),
            ("parse", 1, 0.0),
            ("resolve", 1, 0.0),
            ("policy", 1, 0.0),
            ("queue", 1, 0.0),
            ("connect", 1, 300.0),
            ("firstByte", 1, 200.0),
            ("stream", 1, 400.0),
            ("finalize", 1, 0.0),
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn who_is_not_served_goes_through_few_of_them() {
    let world = World::new();
    assert_eq!(world.chat(r#"{"model":"up/m"}"#).await.status, 400);
    let names =
        |world: &World| phases(world).into_iter().map(|(name, count, _)| (name, count)).collect::<Vec<_>>();
    assert_eq!(names(&world)[0], ("validate", 1));
    assert!(!names(&world).iter().any(|(name, _)| *name == "connect"), "{:?}", names(&world));
}

#[tokio::test(start_paused = true)]
async fn only_what_may_have_an_answer_already_looks_for_one() {
    let world = World::new();
    world.transport.answer(answer("hello")).answer(answer("hello"));
    world.chat(ASK).await;
    let count = |world: &World, name: &str| phases(world).iter().find(|it| it.0 == name).map_or(0, |it| it.1);
    assert_eq!((count(&world, "cache"), count(&world, "connect")), (0, 1));
    world.chat(COLD).await;
    assert_eq!((count(&world, "cache"), count(&world, "connect")), (1, 2));
    // Given again, nobody is asked.
    world.chat(COLD).await;
    assert_eq!((count(&world, "connect"), count(&world, "finalize")), (2, 3));
}
