use proptest::prelude::*;

use super::*;
use crate::entity::Budget;

/// A Thursday, noon.
const NOON: i64 = 1_795_694_400_000;
const HOUR: i64 = 3_600_000;
const DAY: i64 = 24 * HOUR;

fn key() -> ApiKeyId {
    ApiKeyId::from("k")
}

fn budgets(change: impl FnOnce(&mut Budget)) -> Budgets {
    let mut budget = Budget::unlimited(Some(key()));
    change(&mut budget);
    Budgets::new(&[budget], Calendar::default())
}

/// Holds and settles at once.
fn spend(spending: &Spending, budgets: &Budgets, nano: i64, now_ms: i64) -> Result<Events, Exceeded> {
    let mut events = Events::new();
    let mut hold = spending.hold(budgets, Some(&key()), nano, now_ms, &mut events)?;
    hold.settle(nano, 1, now_ms, &mut events);
    Ok(events)
}

#[test]
fn exactly_at_the_limit_is_allowed_and_a_billionth_more_is_not() {
    let budgets = budgets(|budget| budget.daily_nano = Some(100));
    let spending = Spending::default();
    assert!(spend(&spending, &budgets, 60, NOON).is_ok());
    assert!(spend(&spending, &budgets, 40, NOON).is_ok());
    assert!(spend(&spending, &budgets, 0, NOON).is_ok());
    let exceeded = spend(&spending, &budgets, 1, NOON).unwrap_err();
    let want = Exceeded {
        key: Some(key()),
        window: Window::Daily,
        limit_nano: 100,
        spent_nano: 100,
        held_nano: 0,
        reset_at_ms: Some(NOON + 12 * HOUR),
    };
    assert_eq!(exceeded, want);
    assert!(spend(&spending, &budgets, 100, NOON + 12 * HOUR).is_ok(), "a new day");
}

#[test]
fn defect_12_every_window_counts_by_itself() {
    let budgets = budgets(|budget| {
        budget.daily_nano = Some(100);
        budget.weekly_nano = Some(150);
        budget.monthly_nano = Some(220);
        budget.total_nano = Some(250);
    });
    let spending = Spending::default();
    let window =
        |nano, at| spend(&spending, &budgets, nano, at).map(drop).map_err(|exceeded| exceeded.window);
    assert_eq!(window(100, NOON), Ok(()));
    assert_eq!(window(1, NOON), Err(Window::Daily));
    assert_eq!(window(50, NOON + DAY), Ok(()));
    assert_eq!(window(1, NOON + DAY), Err(Window::Weekly));
    // The next Monday is the last of November.
    assert_eq!(window(70, NOON + 4 * DAY), Ok(()));
    assert_eq!(window(1, NOON + 4 * DAY), Err(Window::Monthly));
    assert_eq!(window(30, NOON + 5 * DAY), Ok(()));
    assert_eq!(window(1, NOON + 5 * DAY), Err(Window::Total));
    assert_eq!(window(1, NOON + 400 * DAY), Err(Window::Total));
}

#[test]
fn everybody_together_has_a_budget_too() {
    let mut all = Budget::unlimited(None);
    all.daily_nano = Some(100);
    let budgets = Budgets::new(&[all], Calendar::default());
    let spending = Spending::default();
    let mut events = Events::new();
    let first = spending.hold(&budgets, Some(&key()), 60, NOON, &mut events).unwrap();
    let other = ApiKeyId::from("other");
    let refused = spending.hold(&budgets, Some(&other), 60, NOON, &mut events).unwrap_err();
    assert_eq!((refused.key, refused.held_nano), (None, 60), "held, not yet spent");
    let mut anonymous = spending.hold(&budgets, None, 40, NOON, &mut events).unwrap();
    drop(first);
    assert!(spending.hold(&budgets, Some(&other), 60, NOON, &mut events).is_ok());
    anonymous.settle(10, 1, NOON, &mut events);
    assert_eq!(spending.standing(&budgets, None, NOON).spent(Window::Daily), 10);
}

#[test]
fn warnings_and_resets_are_told_once() {
    let budgets = budgets(|budget| {
        budget.daily_nano = Some(100);
        budget.hard_stop = false;
    });
    let spending = Spending::default();
    let kinds = |events: Events| events.into_iter().map(|event| event.kind).collect::<Vec<_>>();
    assert_eq!(kinds(spend(&spending, &budgets, 79, NOON).unwrap()), []);
    let warning = EventKind::Warning { spent_nano: 80, limit_nano: 100 };
    assert_eq!(kinds(spend(&spending, &budgets, 1, NOON).unwrap()), [warning]);
    assert_eq!(kinds(spend(&spending, &budgets, 20, NOON).unwrap()), []);
    let exceeded = EventKind::Exceeded { spent_nano: 100, limit_nano: 100 };
    assert_eq!(kinds(spend(&spending, &budgets, 5, NOON).unwrap()), [exceeded], "told, not refused");
    assert_eq!(kinds(spend(&spending, &budgets, 5, NOON).unwrap()), []);
    let calendar = Calendar::default();
    let span = |at| calendar.span(Window::Daily, at);
    let reset = EventKind::Reset { spent_nano: 110, old: span(NOON), new: span(NOON + DAY) };
    assert_eq!(kinds(spend(&spending, &budgets, 1, NOON + DAY).unwrap()), [reset]);
}

#[test]
fn what_the_ledger_says_is_taken_over() {
    let before = budgets(|budget| budget.daily_nano = Some(100));
    let spending = Spending::default();
    let sums = Sums { entries: 7, total_nano: 900, windows_nano: [90, 200, 300] };
    spending.restore(&before, Some(&key()), &sums, NOON);
    let standing = spending.standing(&before, Some(&key()), NOON);
    assert_eq!((standing.entries, standing.total_nano, standing.spent(Window::Weekly)), (7, 900, 200));
    assert!(spend(&spending, &before, 11, NOON).is_err());
    assert_eq!(
        spend(&spending, &before, 10, NOON).unwrap().len(),
        0,
        "the warning was told before the restart"
    );

    // Days begin in the afternoon from now on; the last ten are not in the ledger yet.
    let after = budgets(|budget| {
        budget.daily_nano = Some(100);
        budget.reset_minute = 11 * 60;
    });
    assert_eq!(spending.standing(&after, Some(&key()), NOON).spent(Window::Daily), 100, "until it is asked");
    let sums = Sums { entries: 7, total_nano: 900, windows_nano: [20, 200, 300] };
    spending.restore(&after, Some(&key()), &sums, NOON);
    let standing = spending.standing(&after, Some(&key()), NOON);
    assert_eq!((standing.spent(Window::Daily), standing.total_nano), (30, 910));
    assert_eq!(standing.span(Window::Daily), Span { start_ms: NOON - HOUR, end_ms: NOON + 23 * HOUR });
}

#[test]
fn two_hundred_and_fifty_six_at_once_never_spend_more_than_there_is() {
    let budgets = budgets(|budget| budget.daily_nano = Some(1_000));
    let spending = Spending::default();
    let gate = std::sync::Barrier::new(256);
    std::thread::scope(|scope| {
        for number in 0..256 {
            let (spending, budgets, gate) = (&spending, &budgets, &gate);
            scope.spawn(move || {
                gate.wait();
                for round in 0..8 {
                    let mut events = Events::new();
                    let Ok(mut hold) = spending.hold(budgets, Some(&key()), 7, NOON, &mut events) else {
                        continue;
                    };
                    let standing = spending.standing(budgets, Some(&key()), NOON);
                    assert!(standing.spent(Window::Daily) + standing.held_nano <= 1_000);
                    if (number + round) % 3 == 0 {
                        drop(hold);
                    } else {
                        hold.settle(7, 1, NOON, &mut events);
                    }
                }
            });
        }
    });
    let standing = spending.standing(&budgets, Some(&key()), NOON);
    assert_eq!(
        (standing.held_nano, standing.spent(Window::Daily)),
        (0, 142 * 7),
        "all that fits, and no more"
    );
}

/// What a request may do with what it holds.
#[derive(Debug, Clone, Copy)]
enum End {
    Paid(i64),
    Unknown,
    Failed,
}

proptest! {
    #[test]
    fn the_purse_is_the_sum_of_what_was_settled(
        requests in proptest::collection::vec(
            (0..500_i64, 0..3_u8, prop_oneof![(0..500_i64).prop_map(End::Paid), Just(End::Unknown), Just(End::Failed)]),
            1..60,
        ),
        order in proptest::collection::vec(any::<proptest::sample::Index>(), 60),
    ) {
        let budgets = budgets(|budget| budget.daily_nano = Some(2_000));
        let spending = Spending::default();
        let mut events = Events::new();
        let (mut running, mut paid, mut bills, mut overshoot) = (Vec::new(), 0_i64, 0_i64, 0_i64);
        let mut order = order.into_iter();
        for (estimate, finish, end) in requests {
            if let Ok(hold) = spending.hold(&budgets, Some(&key()), estimate, NOON, &mut events) {
                running.push((hold, end));
            }
            for _ in 0..finish.min(2) {
                let Some(at) = (!running.is_empty()).then(|| order.next()).flatten() else { break };
                let (mut hold, end): (Hold, End) = running.swap_remove(at.index(running.len()));
                match end {
                    End::Paid(amount) => {
                        overshoot += (amount - hold.held_nano()).max(0);
                        paid += amount;
                        bills += 1;
                        hold.settle(amount, 1, NOON, &mut events);
                    }
                    End::Unknown => {
                        bills += 1;
                        hold.settle(0, 1, NOON, &mut events);
                    }
                    End::Failed => drop(hold),
                }
            }
            let held: i64 = running.iter().map(|(hold, _)| hold.held_nano()).sum();
            let standing = spending.standing(&budgets, Some(&key()), NOON);
            prop_assert_eq!((standing.total_nano, standing.held_nano, standing.entries), (paid, held, bills));
            prop_assert!(paid <= 2_000 + overshoot);
        }
    }
}

#[test]
fn what_is_free_is_let_in_where_the_budget_says_so() {
    for (way, is_let_in) in [
        (OnExceeded::Block, false),
        (OnExceeded::FreeOnly, true),
        (OnExceeded::Downgrade("cheap".into()), true),
    ] {
        let budgets = budgets(|budget| {
            budget.daily_nano = Some(100);
            budget.on_exceeded = way;
        });
        let spending = Spending::default();
        spending.hold(&budgets, Some(&key()), 0, NOON, &mut Events::new()).unwrap().settle(
            150,
            1,
            NOON,
            &mut Events::new(),
        );
        let free = spending.hold_free(&budgets, Some(&key()), NOON, &mut Events::new());
        assert_eq!(free.is_ok(), is_let_in);
        assert!(spend(&spending, &budgets, 0, NOON).is_err(), "what may cost something is not");
    }
}

#[test]
fn what_parts_of_a_request_hold_becomes_the_requests() {
    let budgets = budgets(|budget| budget.daily_nano = Some(100));
    let spending = Spending::default();
    let mut events = Events::new();
    let held = || spending.standing(&budgets, Some(&key()), NOON).held_nano;
    let mut whole = spending.hold(&budgets, Some(&key()), 40, NOON, &mut events).unwrap();
    let (mut one, mut other) = (whole.part(), whole.part());
    one.raise(30, NOON, &mut events).unwrap();
    assert!(other.raise(31, NOON, &mut events).is_err(), "they share one purse");
    other.raise(30, NOON, &mut events).unwrap();
    drop(other);
    assert_eq!(held(), 70, "what is dropped is given back");
    whole.absorb(one);
    assert_eq!((held(), whole.held_nano()), (70, 70));
    whole.settle(50, 2, NOON, &mut events);
    assert_eq!(held(), 0);
}

#[test]
fn a_clock_that_is_set_back_loses_no_money() {
    let budgets = budgets(|budget| {
        budget.daily_nano = Some(100);
        budget.monthly_nano = Some(1_000);
    });
    let spending = Spending::default();
    let spent = |at, window| spending.standing(&budgets, Some(&key()), at).spent(window);
    spend(&spending, &budgets, 40, NOON).unwrap();
    // Ahead by two months, then right again: all of it was spent today.
    let ahead = NOON + 60 * DAY;
    spend(&spending, &budgets, 30, ahead).unwrap();
    assert_eq!((spent(ahead, Window::Daily), spent(ahead, Window::Monthly)), (30, 30));
    assert_eq!((spent(NOON + 1, Window::Daily), spent(NOON + 1, Window::Monthly)), (70, 70));
    spend(&spending, &budgets, 20, NOON + 1).unwrap();
    let standing = spending.standing(&budgets, Some(&key()), NOON + 1);
    assert_eq!(standing.span(Window::Daily), Calendar::default().span(Window::Daily, NOON));
    assert_eq!((standing.spent(Window::Daily), standing.spent(Window::Weekly)), (90, 90));
    assert_eq!(standing.total_nano, 90);
    assert!(spend(&spending, &budgets, 11, NOON + 2).is_err(), "the limit of the day holds");
    // The next day begins as ever.
    let told = spend(&spending, &budgets, 11, NOON + DAY).unwrap();
    assert!(matches!(told.first().map(|event| &event.kind), Some(EventKind::Reset { spent_nano: 90, .. })));
    assert_eq!(spent(NOON + DAY, Window::Daily), 11);
}

#[test]
fn a_start_with_a_clock_that_is_ahead_counts_on_when_it_is_set_back() {
    let budgets = budgets(|budget| budget.daily_nano = Some(100));
    let spending = Spending::default();
    let sums = Sums { entries: 1, total_nano: 60, windows_nano: [60, 60, 60] };
    spending.restore(&budgets, Some(&key()), &sums, NOON + 3 * DAY);
    assert!(
        spend(&spending, &budgets, 41, NOON).is_err(),
        "nothing is known of the true day: rather too much"
    );
    spend(&spending, &budgets, 40, NOON).unwrap();
    assert_eq!(spending.standing(&budgets, Some(&key()), NOON).spent(Window::Daily), 100);
}

#[test]
fn money_that_comes_a_moment_late_is_of_the_window_before() {
    let budgets = budgets(|budget| budget.daily_nano = Some(100));
    let (spending, midnight) = (Spending::default(), NOON + 12 * HOUR);
    let mut events = Events::new();
    let mut late = spending.hold(&budgets, Some(&key()), 10, midnight - 5, &mut events).unwrap();
    spend(&spending, &budgets, 1, midnight + 5).unwrap();
    late.settle(10, 1, midnight - 300_000, &mut events);
    let spent = |at| spending.standing(&budgets, Some(&key()), at).spent(Window::Daily);
    assert_eq!(spent(midnight + 6), 1);
    assert_eq!(spent(midnight - HOUR), 11, "where the clock is set back, it is there");
}
