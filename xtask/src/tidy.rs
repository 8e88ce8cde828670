//! The rules of the layout that the compiler does not check. `cargo test -p xtask` and `cargo xtask tidy` run them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use anyhow::Context;
use serde::Deserialize;

use crate::files;

/// What each package of the workspace may depend on, without dev-dependencies. Every package is listed.
static LAYERS: &[(&str, &[&str])] = &[
    ("omniroute-wire", &[]),
    ("omniroute-dialect", &["omniroute-wire"]),
    ("omniroute-provider", &["omniroute-wire", "omniroute-dialect"]),
    ("omniroute-domain", &["omniroute-wire", "omniroute-dialect", "omniroute-provider"]),
    ("omniroute-engine", &["omniroute-wire", "omniroute-dialect", "omniroute-provider", "omniroute-domain"]),
    (
        "omniroute-store",
        &[
            "omniroute-wire",
            "omniroute-dialect",
            "omniroute-provider",
            "omniroute-domain",
            "omniroute-engine",
        ],
    ),
    (
        "omniroute-admin",
        &[
            "omniroute-wire",
            "omniroute-dialect",
            "omniroute-provider",
            "omniroute-domain",
            "omniroute-engine",
            "omniroute-store",
        ],
    ),
    // Stands for providers: it shares no code with what is tested against it.
    ("omniroute-sim", &["omniroute-wire"]),
    // The engine before scripted upstreams: neither database nor HTTP.
    (
        "omniroute-chaos",
        &[
            "omniroute-wire",
            "omniroute-dialect",
            "omniroute-provider",
            "omniroute-domain",
            "omniroute-engine",
        ],
    ),
    (
        "omniroute",
        &[
            "omniroute-wire",
            "omniroute-dialect",
            "omniroute-provider",
            "omniroute-domain",
            "omniroute-engine",
            "omniroute-store",
            "omniroute-admin",
            "omniroute-sim",
            "omniroute-chaos",
        ],
    ),
    // Development only.
    (
        "omniroute-testkit",
        &[
            "omniroute-wire",
            "omniroute-dialect",
            "omniroute-provider",
            "omniroute-domain",
            "omniroute-engine",
            "omniroute-store",
            "omniroute-admin",
            "omniroute-sim",
        ],
    ),
    ("xtask", &[]),
];

/// Packages that neither wait, nor read a clock, nor draw numbers, and what they therefore never pull in.
const PURE: &[&str] = &["omniroute-wire", "omniroute-dialect", "omniroute-provider", "omniroute-domain"];
const IMPURE: &[&str] = &[
    "async-std",
    "axum",
    "hyper",
    "mio",
    "rand",
    "reqwest",
    "rustls",
    "sqlx",
    "sqlx-core",
    "tokio",
    "tower",
];

/// Crates that must not know which vendors, dialects or databases there are.
const NEUTRAL: &[&str] = &["domain", "engine", "store", "admin"];
/// Ids that mean nothing else. A rule about vendors belongs into the provider crate, as data.
const PROVIDER_NAMES: &[&str] = &[
    "alibaba",
    "bedrock",
    "cerebras",
    "cohere",
    "deepseek",
    "fireworks",
    "groq",
    "llamacpp",
    "mistral",
    "moonshot",
    "nvidia",
    "openrouter",
    "perplexity",
    "together",
    "vertex",
    "vllm",
    "xai",
];
const DIALECT_NAMES: &[&str] =
    &["anthropic", "anthropic-messages", "gemini", "ollama", "openai", "openai-chat", "openai-responses"];
const SQL: &[&str] = &["CREATE TABLE ", "DELETE FROM ", "INSERT INTO ", "PRAGMA ", "SELECT ", "sqlx::"];

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    workspace_members: Vec<String>,
    resolve: Resolve,
}

#[derive(Deserialize)]
struct Package {
    id: String,
    name: String,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    deps: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    pkg: String,
    dep_kinds: Vec<Kind>,
}

#[derive(Deserialize)]
struct Kind {
    kind: Option<String>,
}

/// Everything that breaks a rule, one line each.
pub(crate) fn problems(root: &Path) -> anyhow::Result<Vec<String>> {
    let mut problems = dependencies(&metadata(root)?);
    problems.extend(reasons(&std::fs::read_to_string(root.join("Cargo.toml"))?));
    problems.extend(layout(root)?);
    problems.extend(documents(root)?);
    for path in files::below(&root.join("crates"), "rs")? {
        let relative = files::relative(root, &path);
        if !is_test_file(&relative) {
            problems.extend(words(&relative, &std::fs::read_to_string(&path)?));
        }
    }
    Ok(problems)
}

fn metadata(root: &Path) -> anyhow::Result<Metadata> {
    let rustc = Command::new("rustc").arg("-vV").output().context("running rustc")?;
    let version = String::from_utf8(rustc.stdout)?;
    let host =
        version.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc names its host")?;
    let output = Command::new("cargo")
        .args(["metadata", "--format-version", "1", "--filter-platform", host, "--locked"])
        .current_dir(root)
        .output()
        .context("running cargo metadata")?;
    anyhow::ensure!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// The direction of dependencies, and what pure crates pull in.
fn dependencies(metadata: &Metadata) -> Vec<String> {
    let names: BTreeMap<&str, &str> =
        metadata.packages.iter().map(|package| (package.id.as_str(), package.name.as_str())).collect();
    let edges: BTreeMap<&str, Vec<&str>> =
        metadata.resolve.nodes.iter().map(|node| (node.id.as_str(), shipped(node))).collect();
    let mut problems = Vec::new();
    for member in &metadata.workspace_members {
        let Some(&name) = names.get(member.as_str()) else { continue };
        let Some((_, allowed)) = LAYERS.iter().find(|(package, _)| *package == name) else {
            problems
                .push(format!("package `{name}` has no place in the layers; add it to xtask/src/tidy.rs"));
            continue;
        };
        let direct = edges.get(member.as_str()).into_iter().flatten();
        for to in direct.filter_map(|id| names.get(id)) {
            let is_ours = LAYERS.iter().any(|(package, _)| package == to);
            if is_ours && !allowed.contains(to) {
                problems.push(format!("`{name}` must not depend on `{to}`"));
            }
        }
        if PURE.contains(&name) {
            for id in reachable(member, &edges) {
                if let Some(to) = names.get(id).filter(|to| IMPURE.contains(to)) {
                    problems.push(format!("`{name}` is pure and must not pull in `{to}`"));
                }
            }
        }
    }
    problems
}

/// Dependencies that are neither for tests nor for build scripts.
fn shipped(node: &Node) -> Vec<&str> {
    let is_shipped = |dependency: &&Dependency| dependency.dep_kinds.iter().any(|kind| kind.kind.is_none());
    node.deps.iter().filter(is_shipped).map(|dependency| dependency.pkg.as_str()).collect()
}

fn reachable<'a>(from: &'a str, edges: &BTreeMap<&'a str, Vec<&'a str>>) -> BTreeSet<&'a str> {
    let mut seen = BTreeSet::new();
    let mut open = vec![from];
    while let Some(id) = open.pop() {
        for &next in edges.get(id).into_iter().flatten() {
            if seen.insert(next) {
                open.push(next);
            }
        }
    }
    seen
}

/// Every dependency line of the root manifest says why.
fn reasons(manifest: &str) -> Vec<String> {
    let mut in_dependencies = false;
    let mut problems = Vec::new();
    for line in manifest.lines() {
        if line.starts_with('[') {
            in_dependencies = line == "[workspace.dependencies]";
        } else if in_dependencies && line.contains('=') && !line.starts_with('#') {
            let name = line.split([' ', '=']).next().unwrap_or_default();
            let (declaration, reason) = line.split_once(" # ").unwrap_or((line, ""));
            if declaration.contains("path = ") {
                continue;
            }
            if reason.trim().is_empty() {
                problems.push(format!("Cargo.toml: `{name}` has no reason behind a `#`"));
            }
            if !declaration.contains("default-features = false") {
                problems.push(format!("Cargo.toml: `{name}` does not say `default-features = false`"));
            }
        }
    }
    problems
}

/// Every crate has the usual files and takes part in the workspace's settings.
fn layout(root: &Path) -> anyhow::Result<Vec<String>> {
    let mut problems = Vec::new();
    for entry in std::fs::read_dir(root.join("crates"))? {
        let folder = entry?.path();
        if !folder.is_dir() {
            continue;
        }
        let name = files::relative(root, &folder);
        let short = name.trim_start_matches("crates/");
        let manifest = std::fs::read_to_string(folder.join("Cargo.toml")).with_context(|| name.clone())?;
        let package = if short == "omniroute" { short.to_owned() } else { format!("omniroute-{short}") };
        if !manifest.contains(&format!("name = \"{package}\"")) {
            problems.push(format!("{name}: the package is not called `{package}`"));
        }
        for line in [
            "[lints]\nworkspace = true",
            "license.workspace = true",
            "publish.workspace = true",
            "description = ",
        ] {
            if !manifest.contains(line) {
                problems.push(format!("{name}/Cargo.toml lacks `{}`", line.replace('\n', " ")));
            }
        }
        for line in manifest.lines().filter(|line| line.contains("version = \"")) {
            problems.push(format!("{name}/Cargo.toml: versions stand in the root manifest: `{line}`"));
        }
        if !folder.join("src/lib.rs").exists() && !folder.join("src/main.rs").exists() {
            problems.push(format!("{name} has neither src/lib.rs nor src/main.rs"));
        }
    }
    problems.sort();
    Ok(problems)
}

/// Documents that tell where things are tell it right.
fn documents(root: &Path) -> anyhow::Result<Vec<String>> {
    let files = files::below(root, "rs")?;
    let files: Vec<String> = files.iter().map(|path| format!("/{}", files::relative(root, path))).collect();
    let mut problems = Vec::new();
    for document in ["ARCHITECTURE.md", "CONTRIBUTING.md"] {
        let text = std::fs::read_to_string(root.join(document)).context(document)?;
        for path in named_sources(&text) {
            if !files.iter().any(|file| file.ends_with(&format!("/{path}"))) {
                problems.push(format!("{document}: there is no `{path}`"));
            }
        }
    }
    Ok(problems)
}

/// Rust files between backticks that are named with their folder; `<…>` stands for a name to be chosen.
fn named_sources(text: &str) -> impl Iterator<Item = &str> {
    let quoted = text.split('`').skip(1).step_by(2);
    let paths = quoted.map(|words| words.split("::").next().unwrap_or_default());
    paths.filter(|path| path.ends_with(".rs") && path.contains('/') && !path.contains(['<', ' ', '…']))
}

/// Names and languages that do not belong where they stand.
fn words(path: &str, text: &str) -> Vec<String> {
    let Some((folder, _)) = path.strip_prefix("crates/").and_then(|rest| rest.split_once('/')) else {
        return Vec::new();
    };
    let mut problems = Vec::new();
    for (number, line) in code(text) {
        let mut complain = |what: &str, word: &str| {
            problems.push(format!("{path}:{number}: {what} `{}` does not belong here", word.trim()));
        };
        if NEUTRAL.contains(&folder) {
            for name in PROVIDER_NAMES.iter().filter(|name| line.contains(&format!("\"{name}\""))) {
                complain("provider name", name);
            }
            for name in DIALECT_NAMES.iter().filter(|name| line.contains(&format!("\"{name}\""))) {
                complain("dialect name", name);
            }
        }
        if !matches!(folder, "store" | "testkit") {
            for word in SQL.iter().filter(|word| line.contains(*word)) {
                complain("SQL", word);
            }
        }
    }
    problems
}

fn is_test_file(path: &str) -> bool {
    path.split('/')
        .any(|part| matches!(part, "tests" | "benches" | "tests.rs") || part.ends_with("_tests.rs"))
}

/// The lines of a file that are code: no comments, and nothing from its tests on, which stand last.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let end = text.find("\n#[cfg(test)]\nmod ").unwrap_or(text.len());
    let lines = text[..end].lines().enumerate().map(|(at, line)| (at + 1, line));
    lines.filter(|(_, line)| !line.trim_start().starts_with("//"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_workspace_is_tidy() {
        let problems = problems(&files::workspace_root().unwrap()).unwrap();
        assert!(problems.is_empty(), "{}", problems.join("\n"));
    }

    #[test]
    fn layers_have_no_circle() {
        for (at, (name, allowed)) in LAYERS.iter().enumerate() {
            for other in *allowed {
                let other_at = LAYERS.iter().position(|(package, _)| package == other);
                assert!(other_at.is_some_and(|other_at| other_at < at), "{name} and {other}");
            }
        }
    }

    #[test]
    fn what_breaks_a_rule_is_found() {
        let found = |path: &str, text: &str| words(path, text).len();
        assert_eq!(found("crates/engine/src/a.rs", "if id == \"groq\" {"), 1);
        assert_eq!(
            found("crates/engine/src/a.rs", "// \"groq\" is one\n#[cfg(test)]\nmod tests {\n\"groq\""),
            0
        );
        assert_eq!(found("crates/engine/src/a.rs", "match dialect { \"openai-chat\" => 1 }"), 1);
        assert_eq!(found("crates/provider/src/a.rs", "\"groq\" \"openai-chat\""), 0);
        assert_eq!(found("crates/admin/src/a.rs", "query(\"SELECT 1\")"), 1);
        assert_eq!(found("crates/store/src/a.rs", "query(\"SELECT 1\")"), 0);

        let manifest = "[workspace.dependencies]\na = { path = \"a\" }\nb = { version = \"1\", default-features = false } # why\nc = \"1\"\n[profile.dev]\nd = 1\n";
        assert_eq!(reasons(manifest).len(), 2, "{:?}", reasons(manifest));
        assert!(is_test_file("crates/a/tests/it/main.rs") && is_test_file("crates/a/src/b/tests.rs"));
        assert!(!is_test_file("crates/testkit/src/lib.rs"));
    }

    #[test]
    fn sources_that_documents_name_are_found() {
        let text = "in `a/src/b.rs::c`, `b.rs`, `x/<name>.rs` and\n`d/e.rs` but not f/g.rs";
        assert_eq!(named_sources(text).collect::<Vec<_>>(), ["a/src/b.rs", "d/e.rs"]);
    }

    #[test]
    fn forbidden_edges_are_found() {
        let metadata: Metadata = serde_json::from_str(
            r#"{
              "packages": [{"id":"w","name":"omniroute-wire"},{"id":"d","name":"omniroute-dialect"},{"id":"t","name":"tokio"},{"id":"m","name":"middle"}],
              "workspace_members": ["w","d"],
              "resolve": {"nodes": [
                {"id":"w","deps":[{"pkg":"d","dep_kinds":[{"kind":null}]},{"pkg":"t","dep_kinds":[{"kind":"dev"}]}]},
                {"id":"d","deps":[{"pkg":"m","dep_kinds":[{"kind":null}]}]},
                {"id":"m","deps":[{"pkg":"t","dep_kinds":[{"kind":null}]}]},
                {"id":"t","deps":[]}]}
            }"#,
        )
        .unwrap();
        let problems = dependencies(&metadata);
        assert!(
            problems.contains(&"`omniroute-wire` must not depend on `omniroute-dialect`".to_owned()),
            "{problems:?}"
        );
        assert!(
            problems.contains(&"`omniroute-dialect` is pure and must not pull in `tokio`".to_owned()),
            "{problems:?}"
        );
    }
}
