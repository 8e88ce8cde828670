//! What is kept, reshaped, lost or refused between any two dialects, as a public document.
//!
//! The folder beside this file says of each dialect how its clients and upstreams say each feature, and what a body must
//! hold that has it. Every cell of the document is an experiment: the feature is sent, what was written is read back, and
//! what is neither there nor among the losses fails the test.

mod answers;
mod facts;
mod page;
mod pattern;
mod requests;
mod returns;
mod verdict;
mod words;

use std::{fs, path::PathBuf};

use omniroute_dialect::registry::DIALECTS;

use words::{Feature, Words};

/// Set to have the document written.
const SWITCH: &str = "OMNIROUTE_WRITE_DOCS";

#[test]
fn fidelity_page_is_what_is_done() {
    let features = Feature::all();
    let words: Vec<Words> = DIALECTS.iter().map(|dialect| Words::read(dialect.id().as_str())).collect();
    let mut faults = words::unknown(&features, &words);
    let page = page::write(&features, &words, &mut faults);
    assert!(
        faults.is_empty(),
        "lost in silence, or a probe that proves nothing ({}):\n{}",
        faults.len(),
        faults.join("\n")
    );
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/fidelity.md");
    if is_to_be_written() {
        fs::write(&path, &page).unwrap();
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == page,
        "docs/fidelity.md is stale: run `{SWITCH}=1 cargo test -p omniroute-dialect fidelity` and review the difference"
    );
}

#[expect(clippy::disallowed_methods, reason = "tests have no settings")]
fn is_to_be_written() -> bool {
    std::env::var(SWITCH).is_ok()
}
