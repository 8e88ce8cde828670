//! The check of dependencies that needs no tool besides cargo: licences, sources and duplicates, as `deny.toml` says.
//!
//! `cargo deny check` knows more (advisories, texts of licences); this finds what changes a pull request most often.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use anyhow::Context;
use serde::Deserialize;

#[derive(Deserialize)]
struct Rules {
    licenses: Licenses,
    bans: Bans,
    sources: Sources,
}

#[derive(Deserialize)]
struct Licenses {
    allow: Vec<String>,
}

#[derive(Deserialize)]
struct Bans {
    skip: Vec<Skip>,
}

#[derive(Deserialize)]
struct Skip {
    #[serde(rename = "crate")]
    name: String,
    reason: String,
}

#[derive(Deserialize)]
struct Sources {
    #[serde(rename = "allow-registry")]
    allow_registry: Vec<String>,
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
    license: Option<String>,
    source: Option<String>,
}

/// Everything that breaks a rule, one line each.
pub(crate) fn problems(root: &Path) -> anyhow::Result<Vec<String>> {
    let rules = std::fs::read_to_string(root.join("deny.toml")).context("reading deny.toml")?;
    let rules: Rules = toml::from_str(&rules).context("deny.toml")?;
    let output = Command::new("cargo")
        .args(["metadata", "--format-version", "1", "--locked"])
        .current_dir(root)
        .output()
        .context("running cargo metadata")?;
    anyhow::ensure!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    let metadata: Metadata = serde_json::from_slice(&output.stdout)?;
    Ok(check(&rules, &metadata.packages))
}

fn check(rules: &Rules, packages: &[Package]) -> Vec<String> {
    let allowed: BTreeSet<&str> = rules.licenses.allow.iter().map(String::as_str).collect();
    let mut problems = Vec::new();
    let mut versions: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for package in packages {
        versions.entry(&package.name).or_default().insert(&package.version);
        let named = format!("{} {}", package.name, package.version);
        match &package.license {
            None => problems.push(format!("{named} names no licence")),
            Some(text) => match Expression::parse(text) {
                Ok(expression) if expression.holds(&allowed) => {}
                Ok(_) => problems.push(format!("{named}: licence `{text}` is not allowed by deny.toml")),
                Err(error) => problems.push(format!("{named}: licence `{text}` cannot be read: {error}")),
            },
        }
        if let Some(source) = &package.source {
            let is_known = |registry: &String| source.strip_prefix("registry+") == Some(registry);
            if !rules.sources.allow_registry.iter().any(is_known) {
                problems.push(format!("{named} comes from `{source}`, which deny.toml does not allow"));
            }
        }
    }
    let mut used = BTreeSet::new();
    for (name, versions) in versions.iter().filter(|(_, versions)| versions.len() > 1) {
        let mut is_skipped = |version: &&&str| {
            let found = rules.bans.skip.iter().position(|skip| covers(&skip.name, name, version));
            used.extend(found);
            found.is_some()
        };
        let unexplained = versions.iter().filter(|version| !is_skipped(version)).count();
        if unexplained > 1 {
            let list = versions.iter().copied().collect::<Vec<_>>().join(", ");
            problems.push(format!("{name} is there in versions {list}; deny.toml does not explain why"));
        }
    }
    for (at, skip) in rules.bans.skip.iter().enumerate() {
        if !used.contains(&at) {
            problems.push(format!("deny.toml skips `{}`, of which there is only one version now", skip.name));
        }
        if skip.reason.is_empty() {
            problems.push(format!("deny.toml skips `{}` without a reason", skip.name));
        }
    }
    problems
}

/// Whether `name@0.10` means this package; the version may be cut at a dot.
fn covers(pattern: &str, name: &str, version: &str) -> bool {
    let (wanted, prefix) = pattern.split_once('@').unwrap_or((pattern, ""));
    let rest = version.strip_prefix(prefix);
    wanted == name && rest.is_some_and(|rest| prefix.is_empty() || rest.is_empty() || rest.starts_with('.'))
}

/// An SPDX expression: `OR` binds looser than `AND`; `/` is an old spelling of `OR`.
#[derive(Debug, PartialEq, Eq)]
enum Expression {
    License(String),
    All(Vec<Self>),
    Any(Vec<Self>),
}

impl Expression {
    fn parse(text: &str) -> Result<Self, String> {
        let spaced = text.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
        let words: Vec<&str> = spaced.split_whitespace().collect();
        let (expression, rest) = Self::any(&words)?;
        match rest {
            [] => Ok(expression),
            [word, ..] => Err(format!("`{word}` is one too many")),
        }
    }

    fn any<'a>(words: &'a [&'a str]) -> Result<(Self, &'a [&'a str]), String> {
        let (first, mut rest) = Self::all(words)?;
        let mut parts = vec![first];
        while let ["OR", more @ ..] = rest {
            let (part, after) = Self::all(more)?;
            parts.push(part);
            rest = after;
        }
        Ok((if parts.len() == 1 { parts.remove(0) } else { Self::Any(parts) }, rest))
    }

    fn all<'a>(words: &'a [&'a str]) -> Result<(Self, &'a [&'a str]), String> {
        let (first, mut rest) = Self::one(words)?;
        let mut parts = vec![first];
        while let ["AND", more @ ..] = rest {
            let (part, after) = Self::one(more)?;
            parts.push(part);
            rest = after;
        }
        Ok((if parts.len() == 1 { parts.remove(0) } else { Self::All(parts) }, rest))
    }

    fn one<'a>(words: &'a [&'a str]) -> Result<(Self, &'a [&'a str]), String> {
        match words {
            ["(", rest @ ..] => match Self::any(rest)? {
                (inner, [")", rest @ ..]) => Ok((inner, rest)),
                _ => Err("a bracket is not closed".to_owned()),
            },
            [license, "WITH", exception, rest @ ..] => {
                Ok((Self::License(format!("{license} WITH {exception}")), rest))
            }
            [license, rest @ ..] if !matches!(*license, "AND" | "OR" | "WITH" | ")") => {
                Ok((Self::License((*license).to_owned()), rest))
            }
            [word, ..] => Err(format!("`{word}` stands where a licence belongs")),
            [] => Err("it ends too early".to_owned()),
        }
    }

    fn holds(&self, allowed: &BTreeSet<&str>) -> bool {
        match self {
            Self::License(name) => allowed.contains(name.as_str()),
            Self::All(parts) => parts.iter().all(|part| part.holds(allowed)),
            Self::Any(parts) => parts.iter().any(|part| part.holds(allowed)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn licences_are_read_as_spdx_says() {
        let allowed = BTreeSet::from(["MIT", "Apache-2.0", "Unicode-3.0"]);
        for (text, holds) in [
            ("MIT", true),
            ("MIT/GPL-3.0", true),
            ("GPL-3.0 OR Apache-2.0", true),
            ("(MIT OR GPL-3.0) AND Unicode-3.0", true),
            ("MIT AND GPL-3.0", false),
            ("MIT OR GPL-3.0 AND GPL-2.0", true),
            ("GPL-3.0", false),
            ("Apache-2.0 WITH LLVM-exception", false),
        ] {
            assert_eq!(Expression::parse(text).map(|it| it.holds(&allowed)), Ok(holds), "{text}");
        }
        for text in ["", "MIT OR", "(MIT", "MIT)", "AND MIT", "MIT MIT"] {
            assert!(Expression::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn each_rule_can_fail() {
        let rules: Rules = toml::from_str(
            r#"
            licenses.allow = ["MIT"]
            sources.allow-registry = ["https://registry"]
            bans.skip = [{ crate = "old@0.1", reason = "b" }, { crate = "gone@1", reason = "a" }]
            "#,
        )
        .unwrap();
        let package = |name: &str, version: &str, license: Option<&str>, source: &str| Package {
            name: name.to_owned(),
            version: version.to_owned(),
            license: license.map(str::to_owned),
            source: Some(source.to_owned()),
        };
        let good = "registry+https://registry";
        let found = check(
            &rules,
            &[
                package("fine", "1.0.0", Some("MIT"), good),
                package("closed", "1.0.0", Some("Proprietary"), good),
                package("silent", "1.0.0", None, good),
                package("stranger", "1.0.0", Some("MIT"), "git+https://elsewhere"),
                package("twice", "1.0.0", Some("MIT"), good),
                package("twice", "2.0.0", Some("MIT"), good),
                package("old", "0.1.7", Some("MIT"), good),
                package("old", "0.10.0", Some("MIT"), good),
            ],
        );
        let words = ["closed", "silent", "stranger", "twice", "gone"];
        assert_eq!(found.len(), words.len(), "{found:#?}");
        for word in words {
            assert!(found.iter().any(|line| line.contains(word)), "{word}: {found:#?}");
        }
    }
}
