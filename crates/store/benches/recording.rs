//! What writing down a request costs, with the database's own work: the other half of the engine's `hot_path`.

use std::hint::black_box;
use std::io::Write as _;

use divan::Bencher;
use omniroute_dialect::ir::Usage;
use omniroute_engine::ports::{AttemptRow, Recorder as _, RequestRow, RowId};
use omniroute_store::{Location, Store, StoreOptions, StoreRecorder, Writer, WriterHandle, WriterOptions};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Rows that are recorded and then written, as in one batch under load.
const BATCH: i64 = 500;

/// One step: what it is called, and how to get ready for repeating it.
struct Case {
    name: &'static str,
    prepare: fn() -> Box<dyn FnMut()>,
}

const CASES: &[Case] = &[
    Case { name: "write_500_rows", prepare: || writing(BATCH) },
    Case { name: "write_1_row", prepare: || writing(1) },
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
fn recording(bencher: Bencher<'_, '_>, name: &str) {
    let mut step = find(name);
    bencher.bench_local(&mut step);
}

fn find(name: &str) -> Box<dyn FnMut()> {
    let case = CASES.iter().find(|case| case.name == name).expect("`list` names the steps");
    (case.prepare)()
}

/// A database in a folder of its own, and the task that writes to it.
struct Database {
    runtime: tokio::runtime::Runtime,
    recorder: std::sync::Arc<StoreRecorder>,
    handle: WriterHandle,
    _dir: tempfile::TempDir,
}

impl Database {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        let location = Location::Sqlite { data_dir: dir.path().to_owned() };
        let options = StoreOptions { location, encryption_key: None, previous_key: None };
        let (recorder, handle) = runtime.block_on(async {
            let store = Store::open(options).await.expect("a database");
            Writer::start(store, WriterOptions::default(), &TaskTracker::new(), CancellationToken::new())
        });
        Self { runtime, recorder, handle, _dir: dir }
    }
}

fn writing(rows: i64) -> Box<dyn FnMut()> {
    let database = Database::new();
    let mut number = 0;
    Box::new(move || {
        for _ in 0..rows {
            number += 1;
            database.recorder.record(black_box(row(number)));
        }
        database.runtime.block_on(database.handle.flush());
    })
}

/// An ordinary request: one attempt, which answered.
fn row(number: i64) -> RequestRow {
    let dialect = |name| omniroute_dialect::registry::by_name(name).expect("a dialect").id();
    let attempt = AttemptRow {
        provider: "openai-compatible-chat-0199f0a0".into(),
        model: "gpt-5-mini".into(),
        connection: "0199f0a0-1111-7000-8000-000000000001".into(),
        connection_name: "work account".into(),
        path: Default::default(),
        status: Some(200),
        failure: None,
        message: None,
        duration_ms: 900,
        units: None,
        usage: Usage::default(),
        is_unheard: false,
        cost_nano: None,
    };
    RequestRow {
        id: RowId::new(1_767_323_045_678 + number, [7; 10]),
        request_id: format!("req_{number:022}").into(),
        method: http::Method::POST,
        path: "/v1/chat/completions".into(),
        request_type: "chat",
        status: 200,
        requested_model: "fast/gpt-5-mini".into(),
        model: attempt.model.clone(),
        provider: Some(attempt.provider.clone()),
        connection: Some(attempt.connection.clone()),
        connection_name: Some(attempt.connection_name.clone()),
        api_key: Some("0199f0a0-2222-7000-8000-000000000001".into()),
        api_key_name: Some("team key".into()),
        client_dialect: dialect("openai"),
        upstream_dialect: Some(dialect("openai")),
        stream: false,
        duration_ms: 905,
        ttft_ms: Some(800),
        overhead_us: 90,
        units: None,
        usage: Usage { input_uncached: Some(1_000), output_total: Some(200), ..Usage::default() },
        usage_estimated: false,
        cost_nano: Some(1_500_000),
        price_source: Some("catalog"),
        price_version: Some("0123abcd".into()),
        source: "upstream",
        similarity: None,
        combo: None,
        combo_step: None,
        is_fallback: false,
        bills: vec![],
        attempts: vec![attempt],
        error: None,
        error_code: None,
        losses: Vec::new(),
        decision: None,
        bodies: omniroute_engine::bodies::BodyNote::Off,
    }
}
