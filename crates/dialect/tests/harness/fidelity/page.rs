//! The document.

use std::fmt::Write as _;

use omniroute_dialect::ir::LossAction;

use super::{
    answers::verdicts,
    requests::verdict,
    returns,
    verdict::Verdict,
    words::{Feature, Words},
};

const INTRODUCTION: &str = "\
# What is kept between dialects

A client speaks one dialect, the upstream perhaps another. These tables say what becomes of each feature on the way. They
are written by the tests of `crates/dialect`: every cell is an experiment, in which the feature is sent and what was written
for the other side is read back. A feature that is neither there nor recorded as lost fails the tests. Do not edit this page;
write it anew with

```sh
OMNIROUTE_WRITE_DOCS=1 cargo test -p omniroute-dialect fidelity
```

## How to read it

One table for the clients of each dialect; its columns are the dialects of upstreams.

| in a cell | |
|---|---|
| kept | read back, it is the same |
| mapped | said in another form with the same meaning, or as near to it as the other side comes |
| clamped | limited to what the other side allows |
| dropped | left out |
| invented | something was added that the other side demands |
| refused | answered with status 400 and a code that says why, since the answer would mean something else |
| no place | answers only: the client's dialect has no member for it |
| – | whoever would have to say it has no word for it: the client in a request, the upstream in an answer |

**Strong** words are told to the caller: the header `X-OmniRoute-Dropped` names the member by its path in the request
(`top_k`, `messages[2].role`). A caller that sends `X-OmniRoute-Strict: true`, or whose key is strict, gets status 400 with the
code `unsupported_parameter` in place of a request that something strong would become of. Whatever is recorded, told or not,
is counted in `X-OmniRoute-Fidelity` and listed in the request log (`/api/usage/call-logs/{id}`); a plain *mapped* may also
be a form that loses nothing and is not recorded. Headers go before a stream: what a streamed answer loses is not told, only
listed in the request log.

The upstream is taken for a model that can do all that its dialect can say. What a real one cannot do is refused or dropped
in addition, as its entry in the catalogue says. Within one dialect bodies are passed on as they came, but for the model's
name and what the policy of the gateway asks for.

";

/// Writes the document.
pub(super) fn write(features: &[Feature], words: &[Words], faults: &mut Vec<String>) -> String {
    let mut page = Page { out: INTRODUCTION.to_owned(), notes: Vec::new() };
    for client in words {
        page.requests(features, words, client, faults);
    }
    page.out.push_str(
        "## Answers\n\nA cell holds for whole answers and for streams; where they differ, the stream comes second. Streams are made of the\nwhole answers by the writer of the upstream's dialect.\n\n",
    );
    for client in words {
        page.answers(features, words, client, faults);
    }
    page.notes();
    page.out
}

struct Page<'a> {
    out: String,
    /// What the numbers behind rows stand for.
    notes: Vec<&'a str>,
}

impl<'a> Page<'a> {
    fn requests(
        &mut self,
        features: &'a [Feature],
        words: &[Words],
        client: &Words,
        faults: &mut Vec<String>,
    ) {
        writeln!(self.out, "## Requests of {} clients\n", client.title).unwrap();
        self.table(features, false, words, "to", |feature, upstream| {
            verdict(client, upstream, feature, faults).sign()
        });
    }

    fn answers(
        &mut self,
        features: &'a [Feature],
        words: &[Words],
        client: &Words,
        faults: &mut Vec<String>,
    ) {
        writeln!(self.out, "### Answers to {} clients\n", client.title).unwrap();
        self.table(features, true, words, "from", |feature, upstream| {
            if feature == "signature_back" {
                return returns::sign(upstream, client, faults);
            }
            match verdicts(upstream, client, feature, faults) {
                // Some readers see in a whole answer what a stream only tells at its end; the bytes say the same.
                (
                    Verdict::Kept,
                    Some(mapped @ Verdict::Changed { action: LossAction::Mapped, told: false, .. }),
                ) => mapped.sign(),
                (whole, Some(streamed)) if whole == streamed => whole.sign(),
                (whole, Some(streamed)) => format!("{}; {}", whole.sign(), streamed.sign()),
                (whole, None) => whole.sign(),
            }
        });
    }

    /// One table per side, the groups as rows of their own.
    fn table(
        &mut self,
        features: &'a [Feature],
        is_answer: bool,
        words: &[Words],
        direction: &str,
        mut cell: impl FnMut(&str, &Words) -> String,
    ) {
        let titles: Vec<_> = words.iter().map(|one| format!("{direction} {}", one.title)).collect();
        writeln!(self.out, "| | {} |\n|---|{}", titles.join(" | "), "---|".repeat(words.len())).unwrap();
        let mut group = "";
        for feature in features.iter().filter(|feature| feature.is_answer == is_answer) {
            if feature.group != group {
                group = &feature.group;
                writeln!(self.out, "| **{group}** |{}", " |".repeat(words.len())).unwrap();
            }
            let cells: Vec<_> = words.iter().map(|upstream| cell(&feature.name, upstream)).collect();
            let note = feature.note.as_deref().map_or_else(String::new, |note| self.number(note));
            writeln!(self.out, "| {}{note} | {} |", feature.label, cells.join(" | ")).unwrap();
        }
        self.out.push('\n');
    }

    /// The number of a note, which is new at its first row.
    fn number(&mut self, note: &'a str) -> String {
        let at = self.notes.iter().position(|known| *known == note).unwrap_or_else(|| {
            self.notes.push(note);
            self.notes.len() - 1
        });
        format!(" [({0})](#notes)", at + 1)
    }

    fn notes(&mut self) {
        self.out.push_str("## Notes\n\n");
        for (at, note) in self.notes.iter().enumerate() {
            writeln!(self.out, "{}. {note}", at + 1).unwrap();
        }
    }
}
