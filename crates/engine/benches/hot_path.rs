//! What the steps of a request cost. `cargo bench -p omniroute-engine` measures time; `cargo xtask instructions`
//! counts instructions, which are the same on every run and so show small changes.

#[allow(dead_code, unreachable_pub, reason = "the test of allocations uses the rest")]
mod rig;

use std::hint::black_box;
use std::io::Write as _;

use bytes::{Bytes, BytesMut};
use divan::Bencher;
use http::HeaderMap;
use omniroute_dialect::ir::Usage;
use omniroute_dialect::shape::Shape;
use omniroute_dialect::stream::{StreamPipe, Transcoder};
use omniroute_dialect::{Dialect, Echo, Head, anthropic::Anthropic, openai::OpenAi};
use omniroute_domain::budget::spending::Events;
use omniroute_domain::combo::{self, RequestFacts};
use omniroute_domain::entity::ApiKeyId;
use omniroute_domain::limit::Meter;
use omniroute_domain::price;
use omniroute_domain::resolve::{self, Route};
use omniroute_domain::rotation::Occasion;
use omniroute_engine::memory::MemoryCounters;
use omniroute_engine::ports::{Charge, Counters as _};
use omniroute_wire::{envelope, sse::SseFramer};
use rig::{Rig, Script};
use smallvec::SmallVec;

/// One step: what it is called, and how to get ready for repeating it.
struct Case {
    name: &'static str,
    prepare: fn() -> Box<dyn FnMut()>,
}

const CASES: &[Case] = &[
    Case { name: "scan_1_kb", prepare: || scan(1_000) },
    Case { name: "scan_200_kb", prepare: || scan(200_000) },
    Case { name: "envelope_1_kb", prepare: || envelope_of(1_000) },
    Case { name: "envelope_200_kb", prepare: || envelope_of(200_000) },
    Case { name: "edit_request_1_kb", prepare: edit_request },
    Case { name: "frame_of_chunk", prepare: framer },
    Case { name: "relay_chunk_same_name", prepare: || pipe(OpenAi.stream_relay(echo("m")), &chat_chunk()) },
    Case {
        name: "relay_chunk_other_name",
        prepare: || pipe(OpenAi.stream_relay(echo("up/m")), &chat_chunk()),
    },
    Case { name: "transcode_chat_to_messages_delta", prepare: chat_to_messages },
    Case { name: "transcode_messages_to_chat_delta", prepare: messages_to_chat },
    Case { name: "begin_and_identify", prepare: || admission(false) },
    Case { name: "begin_identify_and_record", prepare: || admission(true) },
    Case { name: "reserve_and_settle_4_limits", prepare: reserve },
    Case { name: "resolve_and_check_2_accounts", prepare: resolve_target },
    Case { name: "admit_and_resolve_among_many", prepare: admit_and_resolve },
    Case { name: "request_1_kb", prepare: || whole(&OpenAi, rig::chat_body(1_000, false)) },
    Case { name: "request_1_kb_among_many", prepare: || one_among_many("up7/m") },
    Case { name: "request_1_kb_of_a_combo", prepare: || one_among_many(rig::large::MODEL) },
    Case { name: "request_200_kb", prepare: || whole(&OpenAi, rig::chat_body(200_000, false)) },
    Case { name: "request_1_kb_translated", prepare: || whole(&Anthropic, rig::messages_body(1_000, false)) },
    Case { name: "stream_of_100_paced", prepare: || stream(&OpenAi, rig::chat_body(1_000, true), true) },
    Case {
        name: "stream_of_100_in_a_burst",
        prepare: || stream(&OpenAi, rig::chat_body(1_000, true), false),
    },
    Case {
        name: "stream_of_100_translated",
        prepare: || stream(&Anthropic, rig::messages_body(1_000, true), true),
    },
];

/// `count <case> <n>` repeats one step for a tool that watches from outside, `list` names the steps; without either
/// this is a benchmark like any other.
fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["list"] => {
            let mut out = std::io::stdout().lock();
            for case in CASES {
                writeln!(out, "{}", case.name).expect("standard output takes a line");
            }
        }
        ["count", name, times] => {
            let mut step = find(name);
            for _ in 0..times.parse::<u32>().expect("a number of repetitions") {
                step();
            }
        }
        _ => divan::main(),
    }
}

#[divan::bench(args = CASES.iter().map(|case| case.name))]
fn hot_path(bencher: Bencher<'_, '_>, name: &str) {
    let mut step = find(name);
    bencher.bench_local(&mut step);
}

fn find(name: &str) -> Box<dyn FnMut()> {
    let case = CASES.iter().find(|case| case.name == name).expect("`list` names the steps");
    (case.prepare)()
}

fn scan(length: usize) -> Box<dyn FnMut()> {
    let body = rig::chat_body(length, true);
    Box::new(move || {
        let mut members = 0;
        envelope::scan(black_box(&body), &mut |_| members += 1).expect("a valid body");
        black_box(members);
    })
}

fn envelope_of(length: usize) -> Box<dyn FnMut()> {
    let (body, headers) = (rig::chat_body(length, true), HeaderMap::new());
    Box::new(move || {
        let head = Head { headers: &headers, path: "/v1/chat/completions", query: None };
        black_box(OpenAi.envelope(head, black_box(&body)).expect("a valid body"));
    })
}

fn edit_request() -> Box<dyn FnMut()> {
    let (body, headers) = (rig::chat_body(1_000, true), HeaderMap::new());
    let head = Head { headers: &headers, path: "/v1/chat/completions", query: None };
    let envelope = OpenAi.envelope(head, &body).expect("a valid body");
    Box::new(move || {
        black_box(OpenAi.edit_request(black_box(&body), &envelope, "m").into_pieces());
    })
}

fn framer() -> Box<dyn FnMut()> {
    let (mut framer, chunk) = (SseFramer::default(), rig::chunk(1));
    Box::new(move || {
        framer.push(black_box(chunk.as_bytes()));
        while let Some(frame) = framer.next_frame() {
            black_box(frame.expect("a small frame"));
        }
    })
}

/// Feeds the same chunk over and over.
fn pipe(mut pipe: impl StreamPush + 'static, chunk: &str) -> Box<dyn FnMut()> {
    let (chunk, mut out) = (Bytes::copy_from_slice(chunk.as_bytes()), BytesMut::with_capacity(4_096));
    Box::new(move || {
        out.clear();
        pipe.push(black_box(&chunk), &mut out);
        black_box(&out);
    })
}

/// What a relay and a transcoder have in common here.
trait StreamPush {
    fn push(&mut self, bytes: &[u8], out: &mut BytesMut);
}

impl StreamPush for Box<dyn StreamPipe> {
    fn push(&mut self, bytes: &[u8], out: &mut BytesMut) {
        (**self).push(bytes, out).expect("a valid stream");
    }
}

impl StreamPush for Transcoder {
    fn push(&mut self, bytes: &[u8], out: &mut BytesMut) {
        StreamPipe::push(self, bytes, out).expect("a valid stream");
    }
}

fn chat_chunk() -> String {
    rig::chunk(1)
}

fn chat_to_messages() -> Box<dyn FnMut()> {
    pipe(Transcoder::new(&OpenAi, &Anthropic, echo("up/m"), Shape::none(&OpenAi)), &chat_chunk())
}

fn messages_to_chat() -> Box<dyn FnMut()> {
    const HEAD: &str = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"msg_1\",\"type\":\"message\",\"role\":\"assistant\",\"model\":\"m\",\"content\":[],\"usage\":{\"input_tokens\":5,\"output_tokens\":1}}}\n\nevent: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\n";
    const DELTA: &str = "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\" word0001\"}}\n\n";
    let mut transcoder = Transcoder::new(&Anthropic, &OpenAi, echo("up/m"), Shape::none(&Anthropic));
    StreamPush::push(&mut transcoder, HEAD.as_bytes(), &mut BytesMut::new());
    pipe(transcoder, DELTA)
}

fn echo(model: &str) -> Echo {
    Echo { model: model.into(), request_id: "req_1".into(), ..Echo::default() }
}

/// From the arrival to a known caller, and what is written down when the request is dropped.
fn admission(is_logged: bool) -> Box<dyn FnMut()> {
    let rig = here(Script::whole());
    Box::new(move || {
        let mut ctx = rig.identified(&OpenAi);
        ctx.arrival.is_logged = is_logged;
        black_box(&ctx);
    })
}

fn reserve() -> Box<dyn FnMut()> {
    let counters = MemoryCounters::default();
    let key = ApiKeyId::from("0199f0a0-0000-7000-8000-000000000001");
    let meters =
        [Meter::RequestsPerMinute, Meter::RequestsPerDay, Meter::TokensPerMinute, Meter::Concurrency];
    let charges = meters.map(|meter| Charge { key: key.clone(), meter, limit: 1 << 40, amount: 1 });
    let given_back = [2, 3].map(|place| Charge { amount: -1, ..charges[place].clone() });
    Box::new(move || {
        black_box(counters.reserve(black_box(&charges), 1_000));
        counters.settle(black_box(&given_back), 1_000);
    })
}

fn resolve_target() -> Box<dyn FnMut()> {
    let rig = here(Script::whole());
    let snapshot = rig.engine.live.load().clone();
    Box::new(move || {
        let target = resolve::model(&snapshot, black_box("up/m")).expect("a known model");
        for connection in &target.provider.connections {
            black_box(connection.health.check(&target.model, 1_000)).expect("nothing is blocked");
        }
    })
}

/// Everything between the head of a request and its first call, but for the scan of the body: 200 accounts, 50 combos,
/// 1,000 keys, four limits, a budget.
fn admit_and_resolve() -> Box<dyn FnMut()> {
    let rig = Rig::over(&rig::large::entities(), Script::whole(), |run| run());
    let snapshot = rig.engine.live.load().clone();
    let mut take_and_give_back = reserve();
    let facts = RequestFacts { input_tokens: 250, ..RequestFacts::default() };
    let prompt =
        Usage { input_uncached: Some(facts.input_tokens), output_total: Some(1_024), ..Usage::default() };
    let mut turn = 0;
    Box::new(move || {
        let mut ctx = rig.identified(&OpenAi);
        ctx.arrival.is_logged = false;
        take_and_give_back();
        turn += 1;
        let key = ctx.caller.as_ref().map(|caller| &caller.id);
        let route = resolve::resolve(&snapshot, black_box(rig::large::MODEL)).expect("a known combo");
        let Route::Combo(combo) = route else { panic!("it is a combo") };
        let plan = combo::plan(&snapshot, &combo, &facts, 1_000, turn, true);
        let costs = plan.targets.list().iter().filter_map(|planned| {
            let target = &planned.target;
            price::cost_nano(&target.quote(&snapshot)?.price, &prompt)
        });
        let (dearest, mut events) = (costs.max().expect("they have prices"), Events::new());
        let spending = &rig.engine.live.spending;
        let hold = spending.hold(&snapshot.budgets, key, dearest, 1_000, &mut events);
        hold.expect("it is within the budget").settle(dearest, 1, 1_000, &mut events);
        let first = plan.targets.list().first().expect("it has targets");
        let provider = &first.target.provider;
        let free = provider.connections.iter().filter(|one| one.check(&first.target.model, 1_000).is_ok());
        let free: SmallVec<[_; 16]> = free.cloned().collect();
        let occasion = Occasion { now_ms: 1_000, random: turn, model: &first.target.model, prefix: 0 };
        let chosen = provider.rotation.choose(provider.rule, &free, occasion, |one| one.health.enter(None));
        black_box((chosen, &ctx));
    })
}

/// A whole request in a large installation.
fn one_among_many(model: &'static str) -> Box<dyn FnMut()> {
    let rig = Rig::over(&rig::large::entities(), Script::whole(), |run| run());
    request(rig, &OpenAi, rig::chat_body_for(model, 1_000, false))
}

fn whole(dialect: &'static dyn Dialect, body: Bytes) -> Box<dyn FnMut()> {
    request(here(Script::whole()), dialect, body)
}

fn stream(dialect: &'static dyn Dialect, body: Bytes, is_paced: bool) -> Box<dyn FnMut()> {
    request(here(Script::stream(100, is_paced)), dialect, body)
}

fn request(rig: Rig, dialect: &'static dyn Dialect, body: Bytes) -> Box<dyn FnMut()> {
    Box::new(move || {
        black_box(rig.read(rig.ask(dialect, &body).into_body()));
    })
}

fn here(script: Script) -> Rig {
    Rig::new(script, |run| run())
}
