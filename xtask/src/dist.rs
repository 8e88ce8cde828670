//! The binary as it is published: built twice. The first build counts which way its code goes while the benchmark and the
//! translations run; the second is laid out by what was counted, so that what requests need lies together (profile-guided
//! optimisation: <https://doc.rust-lang.org/rustc/profile-guided-optimization.html>).

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};

use crate::cargo;

/// How often each step of the translations runs.
const REPEATS: &str = "200";
/// Separates flags for the compiler, which may have spaces in them.
const BETWEEN_FLAGS: &str = "\u{1f}";

/// Builds it, and says where it is.
pub(crate) fn build(root: &Path, out: &mut impl Write) -> anyhow::Result<()> {
    let compiler = Compiler::find()?;
    let counts = target_directory(root)?.join("counts");
    // What an earlier version of the code did says nothing of this one.
    if counts.exists() {
        fs::remove_dir_all(&counts).with_context(|| format!("cannot empty {}", counts.display()))?;
    }
    fs::create_dir_all(&counts).with_context(|| format!("cannot create {}", counts.display()))?;

    writeln!(out, "1 of 4: a build that counts")?;
    // Where a call may lead to several functions the most frequent ones are kept; the usual number of places is too small.
    let flags =
        [format!("-Cprofile-generate={}", counts.display()), "-Cllvm-args=-vp-counters-per-site=8".into()];
    let gateway = compiler.build(root, &flags, &["-p", "omniroute"], "omniroute")?;
    let translation = ["-p", "omniroute-dialect", "--bench", "translation"];
    let translation = compiler.build(root, &flags, &translation, "translation")?;

    writeln!(out, "2 of 4: requests for it to count")?;
    train(&gateway, &translation, &counts)?;

    writeln!(out, "3 of 4: the counts of all processes together")?;
    let merged = counts.join("merged.profdata");
    run(Command::new(&compiler.merger).arg("merge").arg("-o").arg(&merged).arg(&counts))?;

    writeln!(out, "4 of 4: the build that is laid out by them")?;
    let flags = [format!("-Cprofile-use={}", merged.display())];
    let binary = compiler.build(root, &flags, &["-p", "omniroute"], "omniroute")?;
    writeln!(out, "{}", binary.display())?;
    Ok(())
}

/// What requests usually need: the benchmark, and each dialect's answers for clients of each.
fn train(gateway: &Path, translation: &Path, counts: &Path) -> anyhow::Result<()> {
    // The figures of a build that counts mean nothing.
    run(Command::new(gateway)
        .args(["bench", "--quick", "--targets", "gateway,accounts,many"])
        .env("LLVM_PROFILE_FILE", counts.join("gateway-%p-%m.profraw"))
        .stdout(Stdio::null()))?;
    let listed = Command::new(translation)
        .arg("list")
        .env("LLVM_PROFILE_FILE", counts.join("list-%m.profraw"))
        .output()
        .context("cannot run the translations")?;
    let listed = String::from_utf8(listed.stdout).context("the list of translations is not text")?;
    if listed.trim().is_empty() {
        bail!("{} lists no translations", translation.display());
    }
    for name in listed.lines() {
        run(Command::new(translation)
            .args(["count", name, REPEATS])
            .env("LLVM_PROFILE_FILE", counts.join("translation-%m.profraw"))
            .stdout(Stdio::null()))?;
    }
    Ok(())
}

/// The installed compiler.
struct Compiler {
    /// What it builds for where nothing else is said.
    host: String,
    /// Its `llvm-profdata`: another version's does not read its counts.
    merger: PathBuf,
}

impl Compiler {
    fn find() -> anyhow::Result<Self> {
        let version = told(Command::new("rustc").arg("-vV"))?;
        let host = version.lines().find_map(|line| line.strip_prefix("host: "));
        let host = host.context("`rustc -vV` names no host")?.to_owned();
        let libraries = PathBuf::from(told(Command::new("rustc").args(["--print", "target-libdir"]))?.trim());
        let merger =
            libraries.with_file_name("bin").join(format!("llvm-profdata{}", std::env::consts::EXE_SUFFIX));
        if !merger.exists() {
            bail!("the compiler's llvm-profdata is not installed: rustup component add llvm-tools");
        }
        Ok(Self { host, merger })
    }

    /// Naming the target keeps the flags away from build scripts and macros.
    fn build(&self, root: &Path, flags: &[String], what: &[&str], name: &str) -> anyhow::Result<PathBuf> {
        cargo::built(
            Command::new(env!("CARGO"))
                .current_dir(root)
                .env("CARGO_ENCODED_RUSTFLAGS", flags.join(BETWEEN_FLAGS))
                .args(["build", "--release", "--locked", "--target", &self.host])
                .args(what)
                .arg("--message-format=json-render-diagnostics"),
            name,
        )
    }
}

/// Where cargo puts what it builds.
fn target_directory(root: &Path) -> anyhow::Result<PathBuf> {
    #[derive(serde::Deserialize)]
    struct Metadata {
        target_directory: PathBuf,
    }
    let metadata = told(Command::new(env!("CARGO")).current_dir(root).args([
        "metadata",
        "--no-deps",
        "--format-version",
        "1",
    ]))?;
    let metadata: Metadata =
        serde_json::from_str(&metadata).context("cargo's metadata is not as expected")?;
    Ok(metadata.target_directory)
}

/// What a command prints.
fn told(command: &mut Command) -> anyhow::Result<String> {
    let output =
        command.stderr(Stdio::inherit()).output().with_context(|| format!("cannot run {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?} failed");
    }
    String::from_utf8(output.stdout).with_context(|| format!("what {command:?} prints is not text"))
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    if !command.status().with_context(|| format!("cannot run {command:?}"))?.success() {
        bail!("{command:?} failed");
    }
    Ok(())
}
