//! Embeddings and images when accounts and providers fail: cooldowns, the breaker and the next ones are those of chat.

use std::time::Duration;

use omniroute_domain::breaker::BreakerState;
use omniroute_domain::entity::Entities;
use omniroute_testkit::Answer;

use crate::world::{Got, World, combo, refusal};
use crate::{embeddings, images};

const UP: &str = "openai-compatible-chat-1";

/// A kind of request: how it is asked for a model, and what a good answer is.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Embeddings,
    Images,
}

const KINDS: [Kind; 2] = [Kind::Embeddings, Kind::Images];

impl Kind {
    async fn ask(self, world: &World, model: &str) -> Got {
        match self {
            Self::Embeddings => {
                embeddings::ask(world, &format!(r#"{{"model":"{model}","input":"a"}}"#), &[]).await
            }
            Self::Images => images::ask(world, &format!(r#"{{"model":"{model}","prompt":"a"}}"#), &[]).await,
        }
    }

    fn good(self) -> Answer {
        match self {
            Self::Embeddings => Answer::json(
                200,
                r#"{"object":"list","data":[{"object":"embedding","index":0,"embedding":[0.5]}],"model":"m","usage":{"prompt_tokens":1,"total_tokens":1}}"#,
            ),
            Self::Images => images::here(),
        }
    }

    const fn request_type(self) -> &'static str {
        match self {
            Self::Embeddings => "embedding",
            Self::Images => "image",
        }
    }
}

/// Three failures open a breaker, for half a minute; nobody waits for cooldowns.
fn touchy(entities: &mut Entities) {
    let chosen = &mut entities.settings.resilience.profiles.apikey;
    chosen.failure_threshold = Some(3);
    entities.settings.request_retry = 0;
    entities.combos.push(combo("both", &["up/m", "gem/m"]));
}

fn breaker(world: &World) -> BreakerState {
    let live = world.engine.live.load();
    let provider = live.provider(&UP.into()).unwrap();
    provider.connections[0].breaker.record(world.engine.clock.now_ms()).state
}

#[tokio::test(start_paused = true)]
async fn a_limited_account_is_left_alone_for_as_long_as_it_says() {
    for kind in KINDS {
        let world = World::with(touchy, |_| {});
        let limited = refusal(429, "rate_limit_exceeded", "slow down").header("retry-after", "20");
        world.transport.answer(limited).answer(kind.good());
        let got = kind.ask(&world, "up/m").await;
        assert_eq!((got.status, got.header("x-omniroute-attempts")), (200, "2"), "{kind:?} {}", got.body);
        let row = world.row();
        assert_eq!(row.request_type, kind.request_type());
        let failures: Vec<_> = row.attempts.iter().map(|attempt| attempt.failure).collect();
        assert_eq!(failures, [Some("rate_limit"), None]);

        // While it lasts the other one answers; another model of the first is not held back.
        world.transport.answer(kind.good());
        let got = kind.ask(&world, "up/m").await;
        assert_eq!((got.status, got.header("x-omniroute-attempts")), (200, "1"));
        let keys: Vec<_> = world
            .transport
            .sent()
            .iter()
            .map(|sent| sent.headers["authorization"].to_str().unwrap().to_owned())
            .collect();
        assert_eq!(keys[1], keys[2], "{kind:?}");
        world.transport.answer(kind.good());
        kind.ask(&world, "up/other").await;
        let other = world.transport.sent()[3].headers["authorization"].to_str().unwrap().to_owned();
        assert_eq!(other, keys[0]);

        tokio::time::advance(Duration::from_secs(21)).await;
        world.transport.answer(kind.good());
        kind.ask(&world, "up/m").await;
        let back = world.transport.sent()[4].headers["authorization"].to_str().unwrap().to_owned();
        assert_eq!(back, keys[0], "{kind:?}: its time is over");
    }
}

#[tokio::test(start_paused = true)]
async fn a_rejected_key_takes_the_account_out_for_every_model() {
    for kind in KINDS {
        let world = World::with(touchy, |_| {});
        world.transport.answer(refusal(401, "invalid_api_key", "no")).answer(kind.good()).answer(kind.good());
        assert_eq!(kind.ask(&world, "up/m").await.status, 200);
        assert_eq!(kind.ask(&world, "up/other").await.header("x-omniroute-attempts"), "1");
        let statuses = world.recorded.statuses.lock().unwrap();
        assert!(statuses.iter().any(|(id, _)| id.as_str() == "c1"), "{kind:?}: people are told");
    }
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_is_out_of_order_is_not_asked_and_its_substitute_is() {
    for kind in KINDS {
        let world = World::with(touchy, |_| {});
        for _ in 0..2 {
            world.transport.answer(refusal(500, "server_error", "no"));
        }
        assert_eq!(kind.ask(&world, "up/m").await.status, 500);
        tokio::time::advance(Duration::from_secs(5)).await;
        world.transport.answer(refusal(502, "server_error", "no"));
        assert_eq!(kind.ask(&world, "up/m").await.status, 502);
        assert_eq!(breaker(&world), BreakerState::Open);

        let calls = world.transport.sent().len();
        let got = kind.ask(&world, "up/m").await;
        assert_eq!((got.status, got.header("x-omniroute-provider-breaker")), (503, "open"), "{}", got.body);
        assert_eq!(world.transport.sent().len(), calls, "{kind:?}");

        // One probe that answers closes it.
        tokio::time::advance(Duration::from_secs(31)).await;
        world.transport.answer(kind.good());
        assert_eq!(kind.ask(&world, "up/m").await.status, 200);
        assert_eq!(breaker(&world), BreakerState::Closed);
    }
}

#[tokio::test(start_paused = true)]
async fn a_combo_goes_on_to_its_next_target_in_that_ones_own_form() {
    for kind in KINDS {
        let world = World::with(touchy, |_| {});
        for _ in 0..2 {
            world.transport.answer(refusal(503, "overloaded", "busy"));
        }
        world.transport.answer(match kind {
            Kind::Embeddings => Answer::json(200, r#"{"embeddings":[{"values":[0.25]}]}"#),
            Kind::Images => Answer::json(
                200,
                r#"{"candidates":[{"content":{"parts":[{"inlineData":{"mimeType":"image/png","data":"QQ=="}}]},"finishReason":"STOP"}]}"#,
            ),
        });
        let got = kind.ask(&world, "both").await;
        assert_eq!((got.status, got.header("x-omniroute-attempts")), (200, "3"), "{kind:?} {}", got.body);
        assert_eq!(got.header("x-omniroute-combo"), "both");
        let last = world.transport.sent().pop().unwrap();
        assert!(last.uri.path().contains("/models/m:"), "{}", last.uri);
        let row = world.row();
        let succeeded: Vec<_> = row.attempts.iter().map(|attempt| attempt.status).collect();
        assert_eq!(succeeded, [Some(503), Some(503), Some(200)]);
    }
}
