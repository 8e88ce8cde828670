//! What a run found: tables for people, the same for the same seed.

use std::fmt::Write as _;

use crate::money;
use crate::scenario::Scenario;
use crate::tally::{Counted, Counts};
use crate::verdict::{Verdict, Verdicts, dollars, percent, ratio};
use crate::world::World;

/// Most codes of errors that are listed.
const MAX_CODES: usize = 12;

/// The result of a run.
#[derive(Debug, Clone)]
pub struct Report {
    text: String,
    verdicts: Vec<Verdict>,
}

impl Report {
    pub(crate) fn new(scenario: &Scenario, world: &World, requests: u64, seed: u64, held_back: u64) -> Self {
        let counted = world.tally.counted().clone();
        let mut verdicts = Verdicts::default();
        verdicts.always(world, &counted, requests);
        for (phase, counts) in world.phases.iter().zip(&counted.phases) {
            verdicts.expected(&phase.name, &phase.expect, counts, world);
        }
        verdicts.expected("all", &scenario.expect, &counted.all, world);
        let verdicts = verdicts.0;
        let mut text = heading(scenario, world, requests, seed, (held_back, counted.summaries));
        text += &phases(world, &counted);
        text += &accounts(world, &counted);
        text += &breakers(&counted);
        text += &keys(world, &counted);
        text += &codes(&counted);
        text += &verdict_table(&verdicts);
        Self { text, verdicts }
    }

    /// The tables, as Markdown.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Everything that had to hold.
    pub fn verdicts(&self) -> &[Verdict] {
        &self.verdicts
    }

    /// What had to hold and did not.
    pub fn violated(&self) -> Vec<&Verdict> {
        self.verdicts.iter().filter(|verdict| !verdict.is_met).collect()
    }
}

fn heading(
    scenario: &Scenario,
    world: &World,
    requests: u64,
    seed: u64,
    (held_back, summaries): (u64, u64),
) -> String {
    let ms = world.clock.since_start_ms();
    let mut text = format!("## {}\n\n", scenario.title);
    let _ = writeln!(
        text,
        "{requests} requests in {} of virtual time, {:.1} rounds of {} s, seed {seed}.",
        time(ms),
        ratio(ms, world.round_ms, 0.0),
        world.round_ms / 1_000
    );
    if held_back > 0 {
        let _ = writeln!(text, "{held_back} requests arrived late, since too many were under way.");
    }
    if summaries > 0 {
        let _ = writeln!(text, "{summaries} calls more summed conversations up.");
    }
    for note in &world.notes {
        let _ = writeln!(text, "Takes no part: {note}");
    }
    text
}

fn phases(world: &World, counted: &Counted) -> String {
    let mut table = Table::new(&[
        "phase",
        "requests",
        "answered",
        "refused",
        "left",
        "broken",
        "errors",
        "avoidable",
        "calls/req",
        "wait p50",
        "wait p99",
        "longest",
    ]);
    let mut row = |name: &str, counts: &Counts| {
        let wait = &counts.wait_ms;
        table.row(vec![
            name.to_owned(),
            counts.requests.to_string(),
            counts.answered.to_string(),
            counts.refused.to_string(),
            counts.gone.to_string(),
            counts.broken.to_string(),
            counts.errors.to_string(),
            counts.avoidable.to_string(),
            format!("{:.3}", ratio(counts.attempts, counts.requests, 0.0)),
            duration(wait.value_at_quantile(0.5)),
            duration(wait.value_at_quantile(0.99)),
            duration(wait.max()),
        ]);
    };
    for (phase, counts) in world.phases.iter().zip(&counted.phases) {
        row(&phase.name, counts);
    }
    row("all", &counted.all);
    table.text()
}

fn accounts(world: &World, counted: &Counted) -> String {
    let mut table = Table::new(&[
        "account",
        "calls",
        "share",
        "answered",
        "429",
        "5xx",
        "other",
        "locks",
        "cooldowns",
        "p50",
        "p99",
        "at once",
        "spent",
    ]);
    let answered: u64 = counted.accounts.iter().map(|account| account.answered).sum();
    for (place, (facts, counts)) in world.accounts.iter().zip(&counted.accounts).enumerate() {
        let seen = world.upstreams.account(place).seen();
        table.row(vec![
            facts.name.clone(),
            seen.calls.to_string(),
            percent(ratio(counts.answered, answered, 0.0)),
            counts.answered.to_string(),
            counts.rate_limited.to_string(),
            counts.server_errors.to_string(),
            counts.other_failures.to_string(),
            counts.locks.to_string(),
            counts.cooldowns.to_string(),
            duration(counts.latency_ms.value_at_quantile(0.5)),
            duration(counts.latency_ms.value_at_quantile(0.99)),
            seen.peak.to_string(),
            dollars(counts.cost_nano),
        ]);
    }
    table.text()
}

fn breakers(counted: &Counted) -> String {
    if counted.breakers.is_empty() {
        return String::new();
    }
    let mut table = Table::new(&["breaker", "opened"]);
    for (name, count) in &counted.breakers {
        table.row(vec![name.clone(), count.to_string()]);
    }
    table.text()
}

fn keys(world: &World, counted: &Counted) -> String {
    if world.keys.is_empty() {
        return String::new();
    }
    let mut table =
        Table::new(&["key", "requests", "answered", "refused", "spent", "billed", "ledger", "budget"]);
    for (key, counts) in world.keys.iter().zip(&counted.keys) {
        table.row(vec![
            key.name.clone(),
            counts.requests.to_string(),
            counts.answered.to_string(),
            counts.refused.to_string(),
            dollars(counts.cost_nano),
            dollars(counts.billed.total_nano),
            dollars(money::ledger(world, &key.id)),
            money::budget(world, &key.id),
        ]);
    }
    table.text()
}

fn codes(counted: &Counted) -> String {
    if counted.codes.is_empty() {
        return String::new();
    }
    let mut codes: Vec<_> = counted.codes.iter().collect();
    codes.sort_by(|a, b| b.1.cmp(a.1).then(a.0.cmp(b.0)));
    let mut table = Table::new(&["code", "requests", "avoidable"]);
    for (code, (count, avoidable)) in codes.into_iter().take(MAX_CODES) {
        table.row(vec![code.clone(), count.to_string(), avoidable.to_string()]);
    }
    table.text()
}

fn verdict_table(verdicts: &[Verdict]) -> String {
    let mut table = Table::new(&["what must hold", "found", "wanted", ""]);
    for verdict in verdicts {
        let word = if verdict.is_met { "holds" } else { "VIOLATED" };
        table.row(vec![verdict.what.clone(), verdict.found.clone(), verdict.wanted.clone(), word.to_owned()]);
    }
    table.text()
}

/// A duration in milliseconds, for people.
fn duration(ms: u64) -> String {
    if ms < 10_000 { format!("{ms} ms") } else { format!("{}.{} s", ms / 1_000, ms % 1_000 / 100) }
}

fn time(ms: u64) -> String {
    let (minutes, seconds) = (ms / 60_000, ms / 1_000 % 60);
    format!("{} h {} min {seconds} s", minutes / 60, minutes % 60)
}

/// A table of Markdown whose columns are also even as plain text.
struct Table {
    head: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    fn new(head: &[&'static str]) -> Self {
        Self { head: head.to_vec(), rows: Vec::new() }
    }

    fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    fn text(&self) -> String {
        let width = |at: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(at)).map(|cell| cell.chars().count());
            cells.chain([self.head[at].chars().count(), 3]).max().unwrap_or(3)
        };
        let widths: Vec<usize> = (0..self.head.len()).map(width).collect();
        let mut text = String::from("\n");
        let mut line = |cells: &[String]| {
            text.push('|');
            for (at, cell) in cells.iter().enumerate() {
                // Names to the left, numbers to the right.
                let gap = " ".repeat(widths[at].saturating_sub(cell.chars().count()));
                let _ = if at == 0 { write!(text, " {cell}{gap} |") } else { write!(text, " {gap}{cell} |") };
            }
            text.push('\n');
        };
        line(&self.head.iter().map(ToString::to_string).collect::<Vec<_>>());
        let rule = |(at, width): (usize, &usize)| {
            let dashes = "-".repeat(width.saturating_sub(1));
            if at == 0 { format!("{dashes}-") } else { format!("{dashes}:") }
        };
        line(&widths.iter().enumerate().map(rule).collect::<Vec<_>>());
        for row in &self.rows {
            line(row);
        }
        text
    }
}
