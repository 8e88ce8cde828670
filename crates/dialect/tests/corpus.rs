//! The fuzz targets without a fuzzer: every input that `fuzz/corpus` holds, and for a while what comes of damaging them.
//!
//! What a target checks is said once, beside the code it is about; `fuzz/fuzz_targets` and this file call the same
//! functions. The damage is drawn from a fixed seed, so that a failure comes again; it is made smaller and printed.

// Helpers of tests fail by panicking, like tests.
#![allow(clippy::unwrap_used)]
// How long to look is not what is tested.
#![allow(clippy::disallowed_methods)]

use std::{
    collections::BTreeSet,
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use omniroute_dialect::{Dialect, embeddings, fuzz, registry::DIALECTS};
use omniroute_wire::{envelope, members, ndjson, splice, sse};
use proptest::{
    prelude::*,
    sample::{Index, select},
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};

/// How long each target gets for damaged inputs; `OMNIROUTE_FUZZ_MILLIS` says otherwise.
const MILLIS: u64 = 600;

type Check = Box<dyn Fn(&[u8])>;
type CheckBytes = fn(&[u8]);
type CheckDialect = fn(&'static dyn Dialect, &[u8]);

const KINDS: [(&str, CheckDialect); 3] =
    [("request", fuzz::request), ("answer", fuzz::answer), ("stream", fuzz::stream)];

const BYTES: [(&str, CheckBytes); 6] = [
    ("embeddings", embeddings::fuzz_embeddings),
    ("scan", envelope::fuzz_scan),
    ("members", members::fuzz_members),
    ("splice", splice::fuzz_splice),
    ("sse", sse::fuzz_sse),
    ("ndjson", ndjson::fuzz_ndjson),
];

#[test]
fn framers_and_splices_hold_on_the_corpus_and_near_it() {
    for (target, check) in BYTES {
        run(target, &check);
    }
}

#[test]
fn requests_hold_on_the_corpus_and_near_it() {
    run_kind("request");
}

#[test]
fn answers_hold_on_the_corpus_and_near_it() {
    run_kind("answer");
}

#[test]
fn streams_hold_on_the_corpus_and_near_it() {
    run_kind("stream");
}

#[test]
fn every_reader_framer_and_splice_has_a_fuzz_target() {
    let wanted: BTreeSet<String> = targets().into_iter().map(|(name, _)| name).collect();
    let folder = |path: &str| -> BTreeSet<String> {
        let entries = fs::read_dir(root().join(path)).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    };
    let sources: BTreeSet<String> =
        folder("fuzz_targets").iter().map(|file| file.trim_end_matches(".rs").to_owned()).collect();
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let built = manifest.lines().filter_map(|line| line.strip_prefix("path = \"fuzz_targets/"));
    let built: BTreeSet<String> = built.map(|file| file.trim_end_matches(".rs\"").to_owned()).collect();
    assert_eq!(sources, wanted, "fuzz/fuzz_targets");
    assert_eq!(built, wanted, "fuzz/Cargo.toml");
    assert_eq!(folder("corpus"), wanted, "fuzz/corpus");
}

fn targets() -> Vec<(String, Check)> {
    let mut targets: Vec<(String, Check)> = Vec::new();
    for (name, check) in BYTES {
        targets.push((name.to_owned(), Box::new(check)));
    }
    for dialect in DIALECTS.iter().copied() {
        for (kind, check) in KINDS {
            targets.push((format!("{}_{kind}", dialect.id()), Box::new(move |data| check(dialect, data))));
        }
    }
    targets
}

fn run_kind(kind: &str) {
    for (name, check) in targets() {
        if name.ends_with(&format!("_{kind}")) {
            run(&name, &check);
        }
    }
}

fn run(target: &str, check: &dyn Fn(&[u8])) {
    let corpus = corpus(target);
    for input in &corpus {
        check(input);
    }
    let millis = std::env::var("OMNIROUTE_FUZZ_MILLIS").ok().and_then(|millis| millis.parse().ok());
    let end = Instant::now() + Duration::from_millis(millis.unwrap_or(MILLIS));
    let damaged = damaged(corpus);
    let config = Config { cases: 1, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    while Instant::now() < end {
        let result = runner.run(&damaged, |input| {
            check(&input);
            Ok(())
        });
        if let Err(error) = result {
            panic!("{target}: {error}");
        }
    }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fuzz")
}

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = root().join("corpus").join(target);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty(), "{} has no input", folder.display());
    files.iter().map(|file| fs::read(file).unwrap()).collect()
}

/// Inputs with a few bytes lost, changed, put in, repeated, or taken from another input.
fn damaged(corpus: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let tokens = select(vec![
        "null", "\"\"", "{}", "[]", "-1", "1e999", "\\ud83d", "\\u0000", "\u{fffd}", "\n", "\n\n", "\r", ",",
        "\"", "}",
    ]);
    let change = (any::<Index>(), any::<Index>(), 0..7_u8, any::<u8>(), tokens);
    (select(corpus.clone()), select(corpus), proptest::collection::vec(change, 1..6)).prop_map(
        |(mut input, other, changes)| {
            for (place, length, kind, byte, token) in changes {
                let place = place.index(input.len() + 1);
                let end = (place + length.index(40)).min(input.len());
                match kind {
                    0 => input.truncate(place),
                    1 => input[place..end].fill(byte),
                    2 => input.insert(place, byte),
                    3 => drop(input.drain(place..end)),
                    4 => {
                        let again = input[place..].iter().copied().take(400).collect::<Vec<_>>();
                        input.splice(end..end, again);
                    }
                    5 => drop(input.splice(place..end, token.bytes())),
                    _ => {
                        let from = length.index(other.len() + 1);
                        input.truncate(place);
                        input.extend_from_slice(&other[from..]);
                    }
                }
            }
            input
        },
    )
}
