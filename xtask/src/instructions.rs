//! Instructions of the hot path's steps, counted by Callgrind: unlike time, the same on every run of one toolchain.

use std::fmt::Write as _;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};

use crate::cargo;

/// Where the steps are: packages and their benchmarks.
const BENCHES: [(&str, &str); 3] = [
    ("omniroute-engine", "hot_path"),
    ("omniroute-dialect", "translation"),
    ("omniroute-store", "recording"),
];
/// Repetitions of the short run; the long one has twice as many, and the difference is free of start and preparation.
const REPEATS: u64 = 50;

/// Counts the steps whose names contain `filter` and writes a table.
pub(crate) fn print(root: &Path, filter: &str, out: &mut impl Write) -> anyhow::Result<()> {
    if !Command::new("valgrind").arg("--version").stdout(Stdio::null()).status().is_ok_and(|it| it.success())
    {
        bail!("valgrind is needed to count instructions; on Debian: apt-get install valgrind");
    }
    writeln!(out, "| step | instructions |\n|---|---:|")?;
    for (package, bench) in BENCHES {
        let bench = build(root, package, bench)?;
        let list = Command::new(&bench).arg("list").output().context("cannot run the benchmark")?;
        let list = String::from_utf8(list.stdout).context("the benchmark's list of steps is not text")?;
        for name in list.lines().filter(|name| name.contains(filter)) {
            let (short, long) = (count(&bench, name, REPEATS)?, count(&bench, name, 2 * REPEATS)?);
            let each = long.saturating_sub(short) / REPEATS;
            writeln!(out, "| `{name}` | {} |", grouped(each))?;
            out.flush()?;
        }
    }
    Ok(())
}

/// Builds a benchmark as it is released, and says where it is.
fn build(root: &Path, package: &str, bench: &str) -> anyhow::Result<PathBuf> {
    cargo::built(
        Command::new(env!("CARGO")).current_dir(root).args([
            "build",
            "--release",
            "-p",
            package,
            "--bench",
            bench,
            "--message-format=json",
        ]),
        bench,
    )
}

fn count(bench: &Path, name: &str, repeats: u64) -> anyhow::Result<u64> {
    let run = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(bench)
        .args(["count", name, &repeats.to_string()])
        .output()
        .context("cannot run valgrind")?;
    let report = String::from_utf8_lossy(&run.stderr);
    if !run.status.success() {
        bail!("`{name}` failed under valgrind:\n{report}");
    }
    collected(&report).with_context(|| format!("valgrind did not say how many instructions `{name}` took"))
}

/// The number in the line `==1== Collected : 12345`.
fn collected(report: &str) -> Option<u64> {
    report.lines().find_map(|line| line.split_once("Collected : ")?.1.trim().parse().ok())
}

/// `1234567` as `1,234,567`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        let comma = if place > 0 && (digits.len() - place).is_multiple_of(3) { "," } else { "" };
        let _ = write!(text, "{comma}{digit}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_are_read_and_numbers_written() {
        let report = "==7== Events    : Ir\n==7== Collected : 11245670\n==7== \n";
        assert_eq!(collected(report), Some(11_245_670));
        assert_eq!(collected("==7== nothing"), None);
        for (number, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(number), text);
        }
    }
}
