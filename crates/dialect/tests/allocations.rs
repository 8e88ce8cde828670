//! A text that streams needs no memory for each of its events, whatever the dialects on both sides. What is kept of it
//! as a whole grows by doubling.

#[path = "../benches/told/mod.rs"]
mod told;

use told::{Telling, pairs};

/// Events that find out how large the buffers have to be.
const FIRST: usize = 20;
const COUNTED: usize = 1_000;
/// How often a buffer doubles while it takes in so many events of nine bytes.
const DOUBLINGS: u64 = 6;
/// Who has to know the whole text: citations say where in it they belong, and some clients are told it once more.
const KEEPING_READERS: &[&str] = &["gemini"];
const KEEPING_WRITERS: &[&str] = &["gemini", "responses"];

#[test]
fn an_event_of_text_needs_none() {
    for (upstream, client) in pairs() {
        let pair = format!("{} to {}", upstream.id(), client.id());
        let mut telling = Telling::begin(upstream, client);
        let deltas: Vec<String> = (0..FIRST + COUNTED).map(|n| telling.delta(n)).collect();
        for delta in &deltas[..FIRST] {
            assert!(telling.read(delta) > 0, "{pair}: {delta} is not told");
        }
        let counted = allocation_counter::measure(|| {
            for delta in &deltas[FIRST..] {
                assert!(telling.read(delta) > 0, "{pair}: {delta} is not told");
            }
        });
        let keepers = u64::from(KEEPING_READERS.contains(&upstream.id().as_str()))
            + u64::from(KEEPING_WRITERS.contains(&client.id().as_str()));
        let limit = if upstream.id() == client.id() { 0 } else { keepers * DOUBLINGS };
        assert!(
            counted.count_total <= limit,
            "{pair}: {} allocations for {COUNTED} events, at most {limit} are meant to be needed",
            counted.count_total
        );
    }
}
