//! Answers that are made in the background: what they come to is billed when they are seen to be finished.

use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use omniroute_domain::entity::Budget;
use omniroute_domain::price::PriceRow;
use omniroute_engine::ports::{Claims, Unfinished, Unreadable};

use super::*;

/// What a token of prompt and of answer costs here, in nano-dollars.
const INPUT: i64 = 1_000_000;
const OUTPUT: i64 = 2_000_000;

/// The world with a price, and a budget of a key that is far away.
fn priced() -> World {
    World::with(
        |entities| {
            let mut vendor = node("openai-compatible-responses-1", NodeType::OpenaiCompatible, "r");
            vendor.api_type = Some("responses".into());
            entities.connections.push(connection("r1", &vendor.id, "one", 1));
            let row = PriceRow { input: Some(1_000.0), output: Some(2_000.0), ..PriceRow::default() };
            entities.prices.user.entry(vendor.id.clone()).or_default().insert("m".into(), row);
            entities.nodes.push(vendor);
            let mut budget = Budget::unlimited(Some(ApiKeyId::from("k1")));
            budget.daily_nano = Some(1_000_000_000_000);
            entities.budgets.push(budget);
        },
        |_| {},
    )
}

fn background(status: &str, usage: &str) -> String {
    format!(
        r#"{{"id":"resp_b","object":"response","status":"{status}","background":true,"model":"m","output":[],"usage":{usage}}}"#
    )
}

const USED: &str = r#"{"input_tokens":500,"input_tokens_details":{"cached_tokens":0},"output_tokens":900,"output_tokens_details":{"reasoning_tokens":800},"total_tokens":1400}"#;
/// What that comes to.
const WHOLE: i64 = 500 * INPUT + 900 * OUTPUT;

/// Orders the answer; gives what was billed for it.
async fn order(world: &World) -> i64 {
    world.transport.answer(Answer::json(200, background("queued", "null")));
    let got = ask(world, KEY, r#""input":"a question","background":true"#).await;
    assert_eq!(got.status, 200, "{}", got.body);
    let row = world.row();
    assert!(row.bills[0].estimated && row.bills[0].usage.output_total == Some(0), "{:?}", row.bills);
    row.cost_nano.unwrap()
}

/// What was spent, and what is held.
fn standing(world: &World) -> (i64, i64) {
    let live = &world.engine.live;
    let now_ms = world.engine.clock.now_ms();
    let standing = live.spending.standing(&live.load().budgets, Some(&ApiKeyId::from("k1")), now_ms);
    (standing.total_nano, standing.held_nano)
}

/// Lets the gateway look for what it awaits for so many seconds.
async fn watch(world: &World, seconds: u64) {
    watch_among(world, seconds, true).await;
}

/// A database in which all answers were billed by another process, or none was.
struct Database(bool);

impl Claims for Database {
    fn claim<'a>(&'a self, tenant: &'a str, id: &'a str) -> BoxFuture<'a, Result<bool, Unreadable>> {
        assert_eq!((tenant, id), ("k1", "resp_b"));
        std::future::ready(Ok(self.0)).boxed()
    }
}

async fn watch_among(world: &World, seconds: u64, is_first: bool) {
    let database = Database(is_first);
    let watching = world.engine.watch_awaited(&database);
    tokio::time::timeout(Duration::from_secs(seconds), watching).await.expect_err("it goes on");
}

#[tokio::test(start_paused = true)]
async fn the_rest_is_billed_to_who_reads_it_first_and_once() {
    let world = priced();
    let ordered = order(&world).await;
    let (spent, held) = standing(&world);
    assert!(ordered > 0 && spent == ordered && held > 1_000 * OUTPUT, "{ordered} {spent} {held}");
    world.transport.answer(Answer::json(200, background("in_progress", "null")));
    assert_eq!(about(&world, KEY, "resp_b", KeptCall::Read, None).await.status, 200);
    assert_eq!((world.row().cost_nano, standing(&world)), (None, (ordered, held)), "it is not finished");
    for (call, cost) in
        [(KeptCall::Read, Some(WHOLE - ordered)), (KeptCall::Read, None), (KeptCall::Delete, None)]
    {
        world.transport.answer(Answer::json(200, background("completed", USED)));
        assert_eq!(about(&world, KEY, "resp_b", call, None).await.status, 200);
        let row = world.row();
        assert_eq!((row.cost_nano, row.bills.len()), (cost, usize::from(cost.is_some())), "{call:?}");
        assert_eq!(row.usage.reasoning, cost.map(|_| 800));
        assert_eq!(standing(&world), (WHOLE, 0), "nothing is held any more");
    }
    assert!(world.recorded.statuses.lock().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_read_again_bills_the_rest_at_its_end() {
    let world = priced();
    let ordered = order(&world).await;
    let event = format!(
        "event: response.completed\ndata: {{\"type\":\"response.completed\",\"sequence_number\":7,\"response\":{}}}\n\n",
        background("completed", USED)
    );
    world.transport.answer(Answer::new(200, "text/event-stream").send(event));
    let got = about(&world, KEY, "resp_b", KeptCall::Read, Some("stream=true")).await;
    assert_eq!(got.status, 200, "{}", got.body);
    assert_eq!((world.row().cost_nano, standing(&world)), (Some(WHOLE - ordered), (WHOLE, 0)));
}

#[tokio::test(start_paused = true)]
async fn what_is_deleted_is_looked_at_before() {
    let world = priced();
    let ordered = order(&world).await;
    let deleted = r#"{"id":"resp_b","object":"response","deleted":true}"#;
    world
        .transport
        .answer(Answer::json(200, background("completed", USED)))
        .answer(Answer::json(200, deleted));
    let got = about(&world, KEY, "resp_b", KeptCall::Delete, Some("stream=true")).await;
    assert_eq!((got.status, got.body.as_str()), (200, deleted));
    let sent = world.transport.sent();
    let methods: Vec<_> = sent[1..].iter().map(|call| (call.method.as_str(), call.uri.query())).collect();
    assert_eq!(methods, [("GET", None), ("DELETE", Some("stream=true"))]);
    assert_eq!((world.row().cost_nano, standing(&world)), (Some(WHOLE - ordered), (WHOLE, 0)));
}

#[tokio::test(start_paused = true)]
async fn the_gateway_looks_for_what_no_client_reads() {
    let world = priced();
    let ordered = order(&world).await;
    world.transport.answer(Answer::json(200, background("in_progress", "null")));
    world.transport.answer(Answer::json(503, r#"{"error":{"message":"overloaded"}}"#));
    world.transport.answer(Answer::json(200, background("completed", USED)));
    let rows = || world.recorded.rows.lock().unwrap().len();
    let before = rows();
    watch(&world, 100).await;
    assert_eq!((world.transport.sent().len(), rows()), (3, before), "nothing to say yet");
    assert_eq!(standing(&world).0, ordered);
    watch(&world, 1_000).await;
    assert_eq!((world.transport.sent().len(), rows()), (4, before + 1), "and then no more");
    let row = world.row();
    assert_eq!((row.status, row.cost_nano, &*row.path), (200, Some(WHOLE - ordered), "/v1/responses/resp_b"));
    assert_eq!(row.api_key.as_ref().map(ApiKeyId::as_str), Some("k1"));
    assert_eq!(standing(&world), (WHOLE, 0));
    assert!(world.recorded.statuses.lock().unwrap().is_empty(), "it says nothing about the account");
}

#[tokio::test(start_paused = true)]
async fn one_that_never_was_or_fails_stays_with_its_bill() {
    for last in [
        Answer::json(404, r#"{"error":{"message":"Response with id 'resp_b' not found."}}"#),
        Answer::json(200, background("failed", "null")),
    ] {
        let world = priced();
        let ordered = order(&world).await;
        world.transport.answer(last);
        watch(&world, 1_000).await;
        assert_eq!((world.transport.sent().len(), standing(&world)), (2, (ordered, 0)));
    }
}

#[tokio::test(start_paused = true)]
async fn it_is_looked_for_after_a_restart_too() {
    let before = priced();
    let ordered = order(&before).await;
    let memories = std::mem::take(&mut *before.recorded.memories.lock().unwrap());
    let after = priced();
    for memory in memories {
        let Memory::Owner(row) = &memory else { panic!("{memory:?}") };
        let input = u64::try_from(ordered / INPUT).unwrap();
        assert_eq!(row.unfinished, Some(Unfinished { input, output: 0 }));
        after.engine.restore(memory);
    }
    after.transport.answer(Answer::json(200, background("completed", USED)));
    watch(&after, 60).await;
    assert_eq!(after.row().cost_nano, Some(WHOLE - ordered));
}

#[tokio::test(start_paused = true)]
async fn one_process_of_several_bills_it() {
    let world = priced();
    let ordered = order(&world).await;
    let rows = || world.recorded.rows.lock().unwrap().len();
    let before = rows();
    world.transport.answer(Answer::json(200, background("completed", USED)));
    watch_among(&world, 1_000, false).await;
    assert_eq!((world.transport.sent().len(), rows()), (2, before));
    assert_eq!(standing(&world), (ordered, 0));
    // Whoever reads it here tells the others.
    order(&world).await;
    world.recorded.memories.lock().unwrap().clear();
    world.transport.answer(Answer::json(200, background("completed", USED)));
    assert_eq!(about(&world, KEY, "resp_b", KeptCall::Read, None).await.status, 200);
    let told = world.recorded.memories.lock().unwrap();
    let [Memory::Owner(row)] = &told[..] else { panic!("{told:?}") };
    assert_eq!((&*row.response_id, row.unfinished), ("resp_b", None));
}
