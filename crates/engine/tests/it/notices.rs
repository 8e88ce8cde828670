//! What operators are told of elsewhere: the engine leaves a notice of it, once, and goes on.

use omniroute_domain::timeline::EventKind;
use omniroute_engine::notices::Notice;
use omniroute_provider::FailureKind;

use crate::world::{ASK, World, refusal};

/// What was left since the last look.
fn left(notices: &mut tokio::sync::mpsc::Receiver<Notice>) -> Vec<Notice> {
    std::iter::from_fn(|| notices.try_recv().ok()).collect()
}

#[tokio::test(start_paused = true)]
async fn rejected_keys_and_breakers_leave_a_notice_and_locks_do_not() {
    let world = World::with(|entities| entities.settings.request_retry = 0, |_| {});
    let mut notices = world.engine.live.notices.take().unwrap();
    assert!(world.engine.live.notices.take().is_none(), "one task takes them");
    // A lock of a model on each account.
    for _ in 0..2 {
        world.transport.answer(refusal(429, "rate_limit_error", "no"));
    }
    world.chat(ASK).await;
    assert_eq!(left(&mut notices), []);
    for _ in 0..2 {
        world.transport.answer(refusal(401, "invalid_api_key", "no"));
    }
    world.chat(&ASK.replace("up/m", "up/other")).await;
    let told = left(&mut notices);
    let auth = FailureKind::AuthRejected.as_str();
    let is_pause = |notice: &Notice| matches!(notice, Notice::Health(event) if event.kind == EventKind::Cooldown && event.cause == auth);
    assert!(told.len() == 2 && told.iter().all(is_pause), "{told:?}");
}
