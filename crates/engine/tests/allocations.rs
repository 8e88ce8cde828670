//! How often a request asks for memory. Counted, not timed, so the numbers are the same on every machine; each limit
//! stands beside what was measured when it was set. The client's connection, the upstream's and the log's writer are
//! left out: this is what the engine and the dialects themselves need.

#[path = "../benches/rig/mod.rs"]
#[allow(dead_code, unreachable_pub, reason = "the benchmarks use the rest")]
mod rig;

use omniroute_dialect::{Dialect, anthropic::Anthropic, openai::OpenAi};
use rig::{Rig, Script, chat_body, messages_body};

/// A complete answer of 1 KB in the client's own dialect, of a conversation that stays with one of two accounts;
/// measured: 23, with limits and a budget on.
const WHOLE: u64 = 23;
/// A stream in the client's own dialect until its head is ready, together with its end; measured: 38.
const STREAM_HEAD_AND_END: u64 = 38;
/// The same for an Anthropic client at an OpenAI upstream; measured: 79.
const TRANSLATED_HEAD_AND_END: u64 = 79;

/// Requests that fill caches and buffers before anything is counted.
const WARM_UP: usize = 20;

fn aside(run: &mut dyn FnMut()) {
    allocation_counter::opt_out(run);
}

fn count<T>(run: impl FnOnce() -> T) -> (T, u64) {
    let mut result = None;
    let counted = allocation_counter::measure(|| result = Some(run()));
    (result.expect("it ran"), counted.count_total)
}

/// Says what was measured (`--nocapture` shows it) and holds it to its limit.
#[allow(clippy::print_stdout, reason = "the numbers are what the reader of a failed test needs")]
fn check(what: &str, measured: u64, limit: u64) {
    println!("{what}: {measured} (limit {limit})");
    assert!(measured <= limit, "{what}: {measured} allocations, at most {limit} are meant to be needed");
}

#[test]
fn a_whole_answer() {
    let rig = Rig::new(Script::whole(), aside);
    let body = chat_body(1_000, false);
    for _ in 0..WARM_UP {
        rig.read(rig.ask(&OpenAi, &body).into_body());
    }
    let (length, allocations) = count(|| rig.read(rig.ask(&OpenAi, &body).into_body()));
    assert!(length > 900, "{length}");
    check("whole answer, same dialect", allocations, WHOLE);
}

#[test]
fn a_chunk_of_a_stream_needs_none() {
    stream(&OpenAi, &chat_body(1_000, true), "same dialect", STREAM_HEAD_AND_END);
}

#[test]
fn a_translated_chunk_needs_none() {
    stream(&Anthropic, &messages_body(1_000, true), "Anthropic to OpenAI", TRANSLATED_HEAD_AND_END);
}

fn stream(dialect: &'static dyn Dialect, ask: &bytes::Bytes, what: &str, limit: u64) {
    const CHUNKS: usize = 120;
    let rig = Rig::new(Script::stream(CHUNKS, true), aside);
    for _ in 0..WARM_UP {
        rig.read(rig.ask(dialect, ask).into_body());
    }
    let (mut body, head) = count(|| rig.ask(dialect, ask).into_body());
    // The first pieces find out how large the buffer has to be.
    let ((), first) = count(|| (0..15).for_each(|_| assert!(rig.next(&mut body).is_some())));
    let ((), steady) = count(|| (0..100).for_each(|_| assert!(rig.next(&mut body).is_some())));
    let (rest, end) = count(|| rig.read(body));
    assert!(rest > 0);
    check(&format!("stream's head, first chunks and end, {what}"), head + first + end, limit);
    check(&format!("100 chunks of a stream, {what}"), steady, 0);
}
