//! The limiter under every order of events: nobody is let through too early, nobody is overtaken, nobody is forgotten.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Wake, Waker};
use std::time::Duration;

use omniroute_domain::limiter::{Ask, Gate, Held, Limiter, Rules};
use omniroute_provider::allowance::{Allowance, Allowances};
use proptest::prelude::*;

const NOW: i64 = 1_800_000_000_000;
const M: Ask<'static> = Ask { model: "m", tokens: 10 };

fn rules() -> Rules {
    Rules { max_depth: 100, max_wait_ms: 15_000, ..Rules::default() }
}

fn said(limit: u64, remaining: u64, reset_ms: u64) -> Allowances {
    let requests = Allowance { limit: Some(limit), remaining, reset: Some(Duration::from_millis(reset_ms)) };
    Allowances { requests: Some(requests), ..Allowances::default() }
}

/// Counts how often it was woken.
#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

proptest! {
    #[test]
    fn no_minute_has_more_starts_than_are_allowed(
        per_minute in 1_u32..400,
        steps in proptest::collection::vec(0_i64..4_000, 1..600),
    ) {
        let (mut limiter, rules) = (Limiter::default(), Rules { per_minute, ..rules() });
        let (mut now, mut starts) = (NOW, VecDeque::new());
        for step in steps {
            now += step;
            while starts.front().is_some_and(|start| *start <= now - 60_000) {
                starts.pop_front();
            }
            if limiter.start(&rules, M, now).is_ok() {
                starts.push_back(now);
            }
            prop_assert!(starts.len() <= per_minute as usize, "{} in a minute", starts.len());
        }
    }

    #[test]
    fn when_it_says_to_come_back_it_lets_through(
        per_minute in 1_u32..400, spacing_ms in 0_u32..3_000, rushes in 1_usize..50,
    ) {
        let (mut limiter, rules) = (Limiter::default(), Rules { per_minute, spacing_ms, ..rules() });
        let mut now = NOW;
        for _ in 0..rushes {
            while let Err(Held { until }) = limiter.start(&rules, M, now) {
                let until = until.expect("only time is in the way");
                prop_assert!(until > now);
                now = until;
            }
        }
        let floor = i64::from(spacing_ms) * (rushes as i64 - 1);
        prop_assert!(now - NOW >= floor, "{} ms for {rushes}", now - NOW);
    }

    #[test]
    fn no_more_are_started_than_the_vendor_says_are_left(
        answers in proptest::collection::vec((0_u64..10, 1_u64..20_000), 1..40),
        pauses in proptest::collection::vec(0_i64..3_000, 1..80),
    ) {
        // As the vendor counts: what is left when it counts anew, less what came since.
        let (mut limiter, rules) = (Limiter::default(), rules());
        let (mut now, mut left, mut until) = (NOW, u64::MAX, 0);
        let mut answers = answers.into_iter();
        for pause in pauses {
            now += pause;
            if limiter.start(&rules, M, now).is_ok() && until > now {
                prop_assert!(left > 0, "one too many");
                left -= 1;
            }
            if pause % 3 == 0 && let Some((remaining, reset_ms)) = answers.next() {
                left = if until > now { left.min(remaining) } else { remaining };
                until = now + reset_ms as i64;
                limiter.learn("m", &said(101, remaining, reset_ms), now);
            }
        }
    }

    #[test]
    fn those_who_wait_go_in_order_and_all_of_them_go(
        at_once in 1_u32..4, spacing_ms in 0_u32..50, events in proptest::collection::vec(0_u8..4, 1..200),
    ) {
        let (gate, rules) = (Gate::default(), Rules { at_once, spacing_ms, ..rules() });
        let (mut now, mut running) = (NOW, 0_u32);
        let mut waiting = VecDeque::new();
        let (mut joined, mut gone) = (0_u32, Vec::new());
        for event in events.into_iter().chain(std::iter::repeat_n(3, 2_000)) {
            match event {
                0 => match gate.start(&rules, M, now) {
                    Ok(_) => {
                        prop_assert!(waiting.is_empty(), "those who wait were overtaken");
                        running += 1;
                    }
                    Err(_) => if let Some(ticket) = gate.join(&rules, M) {
                        waiting.push_back((joined, ticket));
                        joined += 1;
                    },
                },
                1 => if let Some((number, ticket)) = waiting.pop_back() {
                    gate.leave(ticket);
                    gone.push(number);
                },
                _ => now += 7,
            }
            if event >= 2 && running > 0 {
                gate.finish();
                running -= 1;
            }
            // Everybody asks again, the last ones first.
            for at in (0..waiting.len()).rev() {
                let (number, ticket) = waiting[at];
                if gate.start_waiting(&rules, ticket, Waker::noop(), now).is_ok() {
                    prop_assert_eq!(at, 0, "overtaken");
                    waiting.remove(at);
                    gone.push(number);
                    running += 1;
                }
            }
            prop_assert!(running <= at_once);
        }
        prop_assert!(waiting.is_empty(), "forgotten: {waiting:?}");
        gone.sort_unstable();
        prop_assert_eq!(gone, (0..joined).collect::<Vec<_>>());
        prop_assert_eq!((gate.view(now).queued, gate.view(now).running), (0, 0));
    }
}

#[test]
fn with_much_left_nothing_is_held_back_with_some_it_is_spaced_out_with_little_it_is_counted() {
    for (remaining, spacing) in [(51, 0), (50, 590), (10, 590)] {
        let mut limiter = Limiter::default();
        limiter.learn("m", &said(100, remaining, 60_000), NOW);
        assert_eq!(limiter.start(&rules(), M, NOW), Ok(()), "{remaining}");
        let next = limiter.start(&rules(), M, NOW);
        let expected = if spacing == 0 { Ok(()) } else { Err(Held { until: Some(NOW + spacing) }) };
        assert_eq!(next, expected, "{remaining} left");
    }
    let mut limiter = Limiter::default();
    limiter.learn("m", &said(100, 2, 5_000), NOW);
    assert!(limiter.start(&rules(), M, NOW).is_ok() && limiter.start(&rules(), M, NOW).is_ok());
    assert_eq!(limiter.start(&rules(), M, NOW), Err(Held { until: Some(NOW + 5_000) }));
    assert_eq!(limiter.start(&rules(), M, NOW + 5_000), Ok(()));
    assert_eq!(limiter.start(&rules(), Ask { model: "other", tokens: 10 }, NOW), Ok(()));
    // More came back than was thought.
    limiter.learn("m", &said(100, 2, 50_000), NOW + 5_000);
    limiter.learn("m", &said(100, 90, 50_000), NOW + 6_000);
    assert_eq!(limiter.start(&rules(), M, NOW + 6_000), Ok(()));
}

#[test]
fn spacing_is_never_slower_than_what_is_left_allows() {
    let mut limiter = Limiter::default();
    // Ten a second, half of it left: six seconds between two would be absurd.
    limiter.learn("m", &said(10, 5, 1_000), NOW);
    limiter.start(&rules(), M, NOW).expect("the first");
    assert_eq!(limiter.start(&rules(), M, NOW), Err(Held { until: Some(NOW + 200) }));
}

#[test]
fn a_prompt_waits_until_its_tokens_are_there() {
    let tokens = |limit, remaining| Allowances {
        tokens: Some(Allowance { limit: Some(limit), remaining, reset: Some(Duration::from_secs(6)) }),
        ..Allowances::default()
    };
    let ask = |tokens| Ask { model: "m", tokens };
    let mut limiter = Limiter::default();
    limiter.learn("m", &tokens(10_000, 500), NOW);
    assert_eq!(limiter.start(&rules(), ask(501), NOW), Err(Held { until: Some(NOW + 6_000) }));
    assert_eq!(limiter.start(&rules(), ask(400), NOW), Ok(()));
    assert_eq!(
        limiter.start(&rules(), ask(400), NOW),
        Err(Held { until: Some(NOW + 6_000) }),
        "counted down"
    );
    // An estimate that is more than there ever is goes when half is there.
    limiter.learn("m", &tokens(10_000, 5_001), NOW);
    assert_eq!(limiter.start(&rules(), ask(20_000), NOW), Ok(()));
    assert_eq!(limiter.start(&rules(), ask(20_000), NOW), Err(Held { until: Some(NOW + 6_000) }));
}

#[test]
fn numbers_without_a_time_count_for_a_minute_and_a_vendor_may_ask_for_less_without_numbers() {
    let requests = Allowance { limit: Some(100), remaining: 0, reset: None };
    let mut limiter = Limiter::default();
    limiter.learn("m", &Allowances { requests: Some(requests), ..Allowances::default() }, NOW);
    assert_eq!(limiter.start(&rules(), M, NOW), Err(Held { until: Some(NOW + 60_000) }));
    let mut limiter = Limiter::default();
    limiter.learn("m", &Allowances { is_over: true, ..Allowances::default() }, NOW);
    limiter.start(&rules(), M, NOW).expect("the first");
    assert_eq!(limiter.start(&rules(), M, NOW), Err(Held { until: Some(NOW + 200) }));
    assert_eq!(limiter.start(&rules(), M, NOW + 60_000), Ok(()));
    assert_eq!(limiter.start(&rules(), M, NOW + 60_000), Ok(()));
}

#[test]
fn a_model_that_has_nothing_left_does_not_hold_up_others() {
    let (gate, rules) = (Gate::default(), rules());
    gate.learn("m", &said(100, 0, 60_000), NOW);
    let ticket = gate.join(&rules, M).expect("room");
    assert!(gate.start(&rules, M, NOW).is_err(), "nobody overtakes the one who waits for the same");
    assert_eq!(gate.start(&rules, Ask { model: "other", tokens: 1 }, NOW), Ok(true));
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(woken.clone());
    assert!(gate.start_waiting(&rules, ticket, &waker, NOW).is_err());
    gate.learn("m", &said(100, 90, 60_000), NOW);
    assert_eq!(woken.0.load(Ordering::Relaxed), 1, "good news reach who waits");
    assert!(gate.start_waiting(&rules, ticket, &waker, NOW).is_ok());
}

#[test]
fn a_clock_that_is_set_back_holds_nobody_for_longer() {
    let spaced = Rules { spacing_ms: 300, ..rules() };
    let minute = Rules { per_minute: 6, ..rules() };
    for rules in [spaced, minute] {
        let mut limiter = Limiter::default();
        limiter.start(&rules, M, NOW).unwrap();
        let next = limiter.start(&rules, M, NOW).unwrap_err().until.unwrap();
        let wait = next - NOW;
        let back = NOW - 3_600_000;
        assert_eq!(limiter.start(&rules, M, back), Ok(()), "{rules:?}");
        assert_eq!(limiter.start(&rules, M, back), Err(Held { until: Some(back + wait) }), "{rules:?}");
        assert_eq!(limiter.start(&rules, M, back + wait), Ok(()));
        // By so little that it may be another thread's look at the same clock, nothing is taken back.
        assert!(limiter.start(&rules, M, back + wait - 1).is_err(), "{rules:?}");
    }
    // However far it is set back, and however much was asked before.
    for per_minute in [1, 7, 60, 600] {
        let rules = Rules { per_minute, ..rules() };
        let (mut limiter, mut pause) = (Limiter::default(), 0);
        for _ in 0..=per_minute {
            if let Err(held) = limiter.start(&rules, M, NOW) {
                pause = held.until.unwrap() - NOW;
            }
        }
        for asked in [1, per_minute] {
            for back in (0..70_000).step_by(250) {
                let mut limiter = Limiter::default();
                for _ in 0..asked {
                    let _ = limiter.start(&rules, M, NOW);
                }
                let now = NOW - back;
                let held = limiter.start(&rules, M, now).err().map_or(0, |held| held.until.unwrap() - now);
                assert!(
                    held <= 2 * pause + 100,
                    "{per_minute} a minute, {asked} before, {back} back: {held}"
                );
            }
        }
    }
    let bursts = Rules { per_minute: 100, ..rules() };
    let gate = Gate::default();
    for _ in 0..10 {
        gate.start(&bursts, M, NOW).unwrap();
    }
    let back = NOW - 3_600_000;
    assert_eq!(gate.headroom(Some(&bursts), "m", NOW).map(|(left, _)| left), Some(0.0));
    assert_eq!(gate.headroom(Some(&bursts), "m", back).map(|(left, _)| left), Some(1.0));
    gate.start(&bursts, M, back).unwrap();
    // Not as many again as may come at once: those of before may be of the same minute.
    assert!(gate.start(&bursts, M, back).is_err());
}

#[test]
fn what_a_vendor_said_before_the_clock_was_set_back_is_over() {
    let gate = Gate::default();
    gate.learn("m", &said(100, 0, 2_000), NOW);
    let over = Allowances { is_over: true, ..Allowances::default() };
    gate.learn("n", &over, NOW);
    let n = Ask { model: "n", ..M };
    gate.start(&rules(), n, NOW).unwrap();
    assert!(gate.held(&rules(), M, NOW).is_some() && gate.held(&rules(), n, NOW).is_some());
    let back = NOW - 3_600_000;
    assert_eq!((gate.held(&rules(), M, back), gate.held(&rules(), n, back)), (None, None));
    assert_eq!(gate.view(back).learned, []);
    assert!(!gate.is_low("m", back) && gate.left("m", back).is_none());
    // What it says now counts, and nothing of before beside it.
    let tokens = Allowance { limit: Some(9), remaining: 9, reset: Some(Duration::from_secs(2)) };
    gate.learn("m", &Allowances { tokens: Some(tokens), ..Allowances::default() }, back);
    assert_eq!(gate.held(&rules(), M, back), None);
    assert_eq!(gate.view(back).learned[0].1.until(), back + 2_000);
    // A process whose clock is a little ahead is believed.
    gate.learn("m", &said(100, 0, 2_000), back);
    assert_eq!(gate.held(&rules(), M, back - 9_000), Some(Held { until: Some(back + 2_000) }));
}

#[test]
fn a_queue_has_its_depth_and_what_is_learned_its_bounds() {
    let (mut limiter, rules) = (Limiter::default(), Rules { max_depth: 2, ..rules() });
    assert!(limiter.join(&rules, M).is_some() && limiter.join(&rules, M).is_some());
    assert_eq!(limiter.join(&rules, M), None);
    let gate = Gate::default();
    for n in 0..1_000 {
        gate.learn(&format!("m{n}"), &said(100, 1, 60_000), NOW + n);
    }
    let known = gate.view(NOW).learned;
    assert_eq!(known.len(), 64);
    assert!(known.iter().any(|(model, _)| model == "m999"), "the latest are kept");
}

#[test]
fn the_database_hears_of_what_matters_and_not_of_every_answer() {
    let gate = Gate::default();
    let heard = |remaining, at| gate.learn("m", &said(100, remaining, 60_000), NOW + at).is_some();
    assert!(heard(90, 0), "the first");
    assert!(!heard(89, 10) && !heard(60, 20));
    assert!(heard(0, 30), "nothing is left");
    assert!(heard(99, 40), "and now there is");
    assert!(!heard(98, 50));
    assert!(heard(97, 60_000), "a minute later");
    assert!(gate.learn("m", &Allowances::default(), NOW).is_none(), "nothing was said");
}

#[test]
fn what_an_account_has_left_is_the_scarcer_of_what_is_told_and_what_is_counted() {
    let gate = Gate::default();
    let rules = Rules { per_minute: 100, ..Rules::default() };
    let left = |rules: Option<&Rules>, at| gate.headroom(rules, "m", NOW + at).map(|(left, _)| left);
    assert_eq!((left(None, 0), left(Some(&Rules::default()), 0)), (None, None), "nobody says anything");
    assert_eq!(gate.headroom(Some(&rules), "m", NOW), Some((1.0, NOW + 60_000)));
    // Ten may come at once, and each comes back after 60 s / 91.
    for _ in 0..5 {
        assert_eq!(gate.start(&rules, M, NOW), Ok(true));
    }
    let half = left(Some(&rules), 0).expect("it is counted");
    assert!((half - 0.5).abs() < 1e-9, "{half}");
    assert!(left(Some(&rules), 1_000).expect("counted") > half, "some are back");
    assert_eq!(left(Some(&rules), 60_000), Some(1.0));
    gate.learn("m", &said(100, 30, 30_000), NOW);
    assert_eq!(gate.headroom(Some(&rules), "m", NOW), Some((0.3, NOW + 30_000)), "the vendor has less");
    gate.learn("m", &said(100, 80, 30_000), NOW);
    assert_eq!(left(None, 0), Some(0.8));
    assert_eq!(left(Some(&rules), 0), Some(half));
}
