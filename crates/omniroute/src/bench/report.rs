//! Figures, ratios, and whether they are good enough.

use std::{
    fmt::Write as _,
    fs,
    io::{self, Write as _},
    path::Path,
};

use anyhow::{Context as _, Result};
use serde::Serialize;

use super::{Target, client::Outcome, scenario::Scenario};

/// Everything that was found out.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Report {
    machine: String,
    notes: Vec<String>,
    pub(super) lines: Vec<Line>,
    /// From the start of the process to its first good answer, on a database that exists.
    pub(super) start_ms: Option<f64>,
    pub(super) memory: Option<Memory>,
}

/// One scenario in front of one target: medians over the rounds.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Line {
    scenario: &'static str,
    what: &'static str,
    connections: usize,
    target: Target,
    requests: u64,
    per_second: f64,
    /// The same of each round, in the order in which they were measured.
    rounds_per_second: Vec<f64>,
    p50_us: f64,
    p99_us: f64,
    /// To the first byte of the body; streams only.
    #[serde(skip_serializing_if = "Option::is_none")]
    first_p50_us: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_p99_us: Option<f64>,
    /// Processor seconds of the target for 1,000 requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    cpu_per_1000: Option<f64>,
    /// Share of one CPU that the target used; well below 1, something else was the limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    busy: Option<f64>,
}

/// The gateway's memory in MiB.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Memory {
    pub(super) idle_mb: f64,
    pub(super) loaded_mb: f64,
    pub(super) peak_mb: f64,
    pub(super) after_mb: f64,
}

/// Something that is wanted, and what was found.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Verdict {
    what: &'static str,
    /// `None` = not measured.
    found: Option<f64>,
    bound: Bound,
    met: Option<bool>,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

impl Line {
    /// The medians of the rounds.
    pub(super) fn summary(scenario: &Scenario, target: Target, rounds: &[Outcome], cpu_seconds: f64) -> Self {
        let us = |quantile: f64, first: bool| {
            median(rounds.iter().map(|round| {
                let histogram = if first { &round.first } else { &round.whole };
                histogram.value_at_quantile(quantile) as f64 / 1000.0
            }))
        };
        let requests: u64 = rounds.iter().map(|round| round.requests).sum();
        let seconds: f64 = rounds.iter().map(|round| round.elapsed.as_secs_f64()).sum();
        let rates: Vec<f64> =
            rounds.iter().map(|round| round.requests as f64 / round.elapsed.as_secs_f64()).collect();
        Self {
            scenario: scenario.name,
            what: scenario.what,
            connections: scenario.connections,
            target,
            requests,
            per_second: median(rates.iter().copied()),
            rounds_per_second: rates,
            p50_us: us(0.5, false),
            p99_us: us(0.99, false),
            first_p50_us: scenario.stream.then(|| us(0.5, true)),
            first_p99_us: scenario.stream.then(|| us(0.99, true)),
            cpu_per_1000: (target != Target::Direct).then(|| cpu_seconds * 1000.0 / requests.max(1) as f64),
            busy: (target != Target::Direct).then(|| cpu_seconds / seconds),
        }
    }
}

impl Report {
    pub(super) fn new(machine: String) -> Self {
        Self { machine, notes: Vec::new(), lines: Vec::new(), start_ms: None, memory: None }
    }

    pub(super) fn note(&mut self, note: String) {
        self.notes.push(note);
    }

    /// The report in words, on standard output.
    pub(super) fn print(&self) -> io::Result<()> {
        io::stdout().lock().write_all(self.text().as_bytes())
    }

    /// The report as JSON, in a file.
    pub(super) fn write(&self, file: &Path) -> Result<()> {
        #[derive(Serialize)]
        struct Whole<'a> {
            #[serde(flatten)]
            report: &'a Report,
            verdicts: Vec<Verdict>,
        }
        let whole = Whole { report: self, verdicts: self.verdicts() };
        let text = serde_json::to_string_pretty(&whole).context("the report is not JSON")?;
        fs::write(file, text + "\n").with_context(|| format!("cannot write {}", file.display()))
    }

    fn text(&self) -> String {
        let mut out = format!("{}\n", self.machine);
        for note in &self.notes {
            let _ = writeln!(out, "{note}");
        }
        let _ = writeln!(
            out,
            "\n{:<22} {:<8} {:>10} {:>10} {:>10} {:>10} {:>10} {:>10} {:>6}",
            "scenario",
            "target",
            "req/s",
            "p50 µs",
            "p99 µs",
            "first p50",
            "first p99",
            "CPU s/1000",
            "busy %"
        );
        let optional = |value: Option<f64>, digits: usize| match value {
            Some(value) => format!("{value:.digits$}"),
            None => "–".to_owned(),
        };
        for line in &self.lines {
            let _ = writeln!(
                out,
                "{:<22} {:<8} {:>10.0} {:>10.0} {:>10.0} {:>10} {:>10} {:>10} {:>6}",
                line.scenario,
                line.target.name(),
                line.per_second,
                line.p50_us,
                line.p99_us,
                optional(line.first_p50_us, 0),
                optional(line.first_p99_us, 0),
                optional(line.cpu_per_1000, 3),
                optional(line.busy.map(|busy| busy * 100.0), 0),
            );
        }
        let _ = writeln!(out);
        if let Some(memory) = self.memory {
            let _ = writeln!(
                out,
                "memory: {:.1} MB idle, {:.1} MB under load ({:.1} MB at most), {:.1} MB afterwards",
                memory.idle_mb, memory.loaded_mb, memory.peak_mb, memory.after_mb
            );
        }
        if let Some(start) = self.start_ms {
            let _ = writeln!(out, "start to first good answer: {start:.1} ms");
        }
        let _ = writeln!(out, "\n{:<66} {:>8} {:>9}", "gateway", "found", "wanted");
        for verdict in self.verdicts() {
            let (sign, bound) = match verdict.bound {
                Bound::AtLeast(bound) => ('≥', bound),
                Bound::AtMost(bound) => ('≤', bound),
            };
            let met = match verdict.met {
                Some(true) => "met",
                Some(false) => "MISSED",
                None => "not measured",
            };
            let _ = writeln!(
                out,
                "{:<66} {:>8} {:>9} {met}",
                verdict.what,
                optional(verdict.found, 2),
                format!("{sign} {bound}")
            );
        }
        out
    }

    fn verdicts(&self) -> Vec<Verdict> {
        use Bound::{AtLeast, AtMost};
        let cpu = |line: &Line| line.cpu_per_1000;
        let rate = |line: &Line| Some(line.per_second);
        let translated = |translated, plain| {
            Some(
                self.line(translated, Target::Gateway)?.per_second
                    / self.line(plain, Target::Gateway)?.per_second,
            )
        };
        // A start of either is faster or slower than another one of the same by more than they differ, and a median would tell of
        // few starts: all that one answered, to all that the other did.
        let steered = |scenario| {
            let all = |target| {
                self.line(scenario, target).map(|line| line.rounds_per_second.iter().copied().sum::<f64>())
            };
            Some(all(Target::Many)? / all(Target::Accounts)?)
        };
        let steered_cpu = |scenario| {
            Some(cpu(self.line(scenario, Target::Many)?)? / cpu(self.line(scenario, Target::Accounts)?)?)
        };
        let than_one = |scenario| {
            Some(
                self.line(scenario, Target::Many)?.per_second
                    / self.line(scenario, Target::Gateway)?.per_second,
            )
        };
        let verdict = |what, found: Option<f64>, bound| {
            let found = found.filter(|found| found.is_finite());
            let met = found.map(|found| match bound {
                AtLeast(bound) => found >= bound,
                AtMost(bound) => found <= bound,
            });
            Verdict { what, found, bound, met }
        };
        vec![
            verdict("throughput ÷ nginx, 1 KB answers, c=32", self.ratio("small-32", rate), AtLeast(0.6)),
            verdict(
                "throughput ÷ nginx, streams of 100 chunks, c=32",
                self.ratio("stream-32", rate),
                AtLeast(0.6),
            ),
            verdict("throughput ÷ nginx, 200 KB requests, c=32", self.ratio("large-32", rate), AtLeast(0.6)),
            verdict(
                "CPU per 1,000 requests ÷ nginx, 1 KB answers, c=32",
                self.ratio("small-32", cpu),
                AtMost(2.5),
            ),
            verdict(
                "CPU per 1,000 requests ÷ nginx, streams, c=32",
                self.ratio("stream-32", cpu),
                AtMost(2.5),
            ),
            verdict("added p50 ÷ nginx's, 1 KB answers, c=1", self.added_ratio("small-1"), AtMost(1.5)),
            verdict(
                "Anthropic → OpenAI ÷ pass-through, 1 KB answers",
                translated("translated-32", "small-32"),
                AtLeast(0.8),
            ),
            verdict(
                "Anthropic → OpenAI ÷ pass-through, streams",
                translated("translated-stream-32", "stream-32"),
                AtLeast(0.8),
            ),
            verdict(
                "combos and budgets ÷ the same without them, 1 KB answers",
                steered("small-32"),
                AtLeast(0.95),
            ),
            verdict(
                "combos and budgets ÷ the same without them, streams",
                steered("stream-32"),
                AtLeast(0.95),
            ),
            verdict(
                "CPU per 1,000 requests ÷ the same without them, 1 KB answers",
                steered_cpu("small-32"),
                AtMost(1.05),
            ),
            verdict(
                "CPU per 1,000 requests ÷ the same without them, streams",
                steered_cpu("stream-32"),
                AtMost(1.05),
            ),
            verdict(
                "combo of many accounts, with budgets ÷ one account, 1 KB answers",
                than_one("small-32"),
                AtLeast(0.95),
            ),
            verdict(
                "combo of many accounts, with budgets ÷ one account, streams",
                than_one("stream-32"),
                AtLeast(0.95),
            ),
            verdict("memory when idle, MB", self.memory.map(|memory| memory.idle_mb), AtMost(25.0)),
            verdict(
                "memory after the load ÷ idle",
                self.memory.map(|memory| memory.after_mb / memory.idle_mb),
                AtMost(1.3),
            ),
            verdict("start to first good answer, ms", self.start_ms, AtMost(60.0)),
        ]
    }

    fn line(&self, scenario: &str, target: Target) -> Option<&Line> {
        self.lines.iter().find(|line| line.scenario == scenario && line.target == target)
    }

    fn ratio(&self, scenario: &str, figure: impl Fn(&Line) -> Option<f64>) -> Option<f64> {
        let gateway = figure(self.line(scenario, Target::Gateway)?)?;
        Some(gateway / figure(self.line(scenario, Target::Nginx)?)?)
    }

    /// What the gateway adds to the direct way, as a multiple of what nginx adds.
    fn added_ratio(&self, scenario: &str) -> Option<f64> {
        let p50 = |target| self.line(scenario, target).map(|line| line.p50_us);
        let direct = p50(Target::Direct)?;
        let nginx = p50(Target::Nginx)? - direct;
        // Less than the clock can tell apart is no yardstick.
        (nginx > 1.0).then(|| p50(Target::Gateway).map(|gateway| (gateway - direct) / nginx)).flatten()
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        length if length % 2 == 1 => sorted[length / 2],
        length => (sorted[length / 2 - 1] + sorted[length / 2]) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(scenario: &'static str, target: Target, per_second: f64, p50_us: f64) -> Line {
        Line {
            scenario,
            what: "",
            connections: 1,
            target,
            requests: 1,
            per_second,
            rounds_per_second: vec![per_second],
            p50_us,
            p99_us: 0.0,
            first_p50_us: None,
            first_p99_us: None,
            cpu_per_1000: (target != Target::Direct).then_some(1.0 / per_second),
            busy: None,
        }
    }

    #[test]
    fn ratios_are_judged_and_missing_figures_are_named() {
        let mut report = Report::new("machine".to_owned());
        report.note("a note".to_owned());
        for (target, rate, p50) in [
            (Target::Direct, 9000.0, 100.0),
            (Target::Nginx, 2000.0, 140.0),
            (Target::Gateway, 1000.0, 150.0),
        ] {
            report.lines.push(line("small-32", target, rate, p50));
            report.lines.push(line("small-1", target, rate, p50));
        }
        report.start_ms = Some(61.0);
        let found: Vec<(&str, Option<f64>, Option<bool>)> = report
            .verdicts()
            .into_iter()
            .filter(|verdict| verdict.found.is_some())
            .map(|verdict| (verdict.what, verdict.found, verdict.met))
            .collect();
        assert_eq!(
            found,
            [
                ("throughput ÷ nginx, 1 KB answers, c=32", Some(0.5), Some(false)),
                ("CPU per 1,000 requests ÷ nginx, 1 KB answers, c=32", Some(2.0), Some(true)),
                ("added p50 ÷ nginx's, 1 KB answers, c=1", Some(1.25), Some(true)),
                ("start to first good answer, ms", Some(61.0), Some(false)),
            ]
        );
        let text = report.text();
        assert!(text.contains("a note") && text.contains("MISSED") && text.contains("not measured"));
    }

    #[test]
    fn what_differs_little_is_compared_over_all_rounds() {
        let mut report = Report::new("machine".to_owned());
        for (target, rates) in [(Target::Accounts, [100.0, 50.0, 10.0]), (Target::Many, [90.0, 58.0, 4.0])] {
            let rounds_per_second = rates.to_vec();
            report.lines.push(Line { rounds_per_second, ..line("small-32", target, rates[1], 1.0) });
        }
        let found = report.verdicts().into_iter().filter_map(|verdict| verdict.found);
        let found: Vec<String> = found.map(|found| format!("{found:.3}")).collect();
        assert_eq!(found, ["0.950", "0.862"]);
    }

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), 2.0);
        assert_eq!(median([4.0, 1.0, 2.0, 3.0].into_iter()), 2.5);
        assert!(median(std::iter::empty()).is_nan());
    }
}
