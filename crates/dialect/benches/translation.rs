//! What an event of text costs from each upstream's dialect to each client's. `cargo bench -p omniroute-dialect`
//! measures time; `cargo xtask instructions` counts instructions.

mod told;

use std::{hint::black_box, io::Write as _};

use divan::Bencher;
use omniroute_dialect::Dialect;
use told::{Telling, pairs};

/// Different texts, so that none is found to be the one before.
const TEXTS: usize = 16;

/// As the benchmarks of other crates: `count <pair> <n>` repeats one step, `list` names them.
fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["list"] => {
            let mut out = std::io::stdout().lock();
            for name in names() {
                writeln!(out, "{name}").expect("standard output takes a line");
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

#[divan::bench(args = names())]
fn event(bencher: Bencher<'_, '_>, name: &str) {
    let mut step = find(name);
    bencher.bench_local(&mut step);
}

fn names() -> Vec<String> {
    pairs().map(|(upstream, client)| name(upstream, client)).collect()
}

fn name(upstream: &dyn Dialect, client: &dyn Dialect) -> String {
    format!("event_{}_to_{}", upstream.id(), client.id())
}

fn find(wanted: &str) -> impl FnMut() + use<> {
    let (upstream, client) = pairs()
        .find(|(upstream, client)| name(*upstream, *client) == wanted)
        .expect("`list` names the steps");
    let mut telling = Telling::begin(upstream, client);
    let deltas: Vec<String> = (0..TEXTS).map(|n| telling.delta(n)).collect();
    let mut turn = 0;
    move || {
        turn += 1;
        black_box(telling.read(black_box(&deltas[turn % TEXTS])));
    }
}
