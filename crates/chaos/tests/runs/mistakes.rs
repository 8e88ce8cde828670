//! Scenarios that cannot be: what is told, and of which line.

use omniroute_chaos::{Overrides, simulate};

const GOOD: &str = r#"title = "t"
requests = 10
[[account]]
name = "a"
provider = "openai"
[[combo]]
name = "c"
strategy = "priority"
steps = ["openai/gpt-5.4-mini"]
[[traffic]]
model = "c"
[[phase]]
name = "p"
seconds = 10
rate = 5
"#;

#[test]
fn mistakes_are_told_with_their_line() {
    simulate(GOOD, None, Overrides::default()).expect("what is damaged below is whole");
    // What is replaced, by what, the line of the mistake, and what is said of it.
    let cases: &[(&str, &str, Option<usize>, &str)] = &[
        ("seconds = 10", "seconds = 0", Some(14), "1 to"),
        ("rate = 5", "rate = -1", Some(15), "above 0"),
        ("rate = 5", "speed = 5", Some(15), "speed"),
        ("rate = 5", "rate = ", Some(15), ""),
        ("\"openai\"", "\"opanai\"", Some(5), "no provider of the catalogue"),
        ("provider = \"openai\"", "", Some(4), "needs a `provider`"),
        ("\"priority\"", "\"whim\"", Some(8), "no strategy; there are: "),
        ("model = \"c\"", "model = \"d\"", Some(11), "`d`"),
        ("model = \"c\"", "model = \"c\"\nkey = \"k\"", Some(12), "no key `k`"),
        ("model = \"c\"", "model = \"c\"\ndialect = \"latin\"", Some(12), "none of openai"),
        ("model = \"c\"", "model = \"c\"\nstream = 2.0", Some(11), "between 0 and 1"),
        ("model = \"c\"", "model = \"sim/echo\"", Some(11), "no account"),
        (
            "rate = 5",
            "rate = 5\nfault = [{ accounts = [\"b\"], kind = \"outage\" }]",
            Some(16),
            "no account `b`",
        ),
        ("rate = 5", "rate = 5\nfault = [{ accounts = [\"a\"], kind = \"flood\" }]", Some(16), "flood"),
        (
            "rate = 5",
            "rate = 5\nfault = [{ accounts = [\"a\"], kind = \"outage\", from = 5, to = 3 }]",
            Some(16),
            "after `from`",
        ),
        ("requests = 10", "requests = 0", None, "between 1 and"),
        ("requests = 10", "[settings]\nfallbackStrategie = \"p2c\"", None, "fallbackStrategie"),
        ("rate = 5", "rate = 5\nexpect = { shares = { b = 1 } }", None, "no account `b`"),
    ];
    for (from, to, line, words) in cases {
        let text = GOOD.replacen(from, to, 1);
        let error = match simulate(&text, None, Overrides::default()) {
            Err(error) => error,
            Ok(report) => panic!("`{to}` is taken: {}", report.text()),
        };
        assert!(error.message.contains(words), "`{to}`: {error}");
        if line.is_some() {
            assert_eq!(error.line, *line, "`{to}`: {error}");
        }
    }
}
