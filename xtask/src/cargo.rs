//! Builds by cargo, and where what they built is.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};

/// Runs a `cargo build` whose messages are JSON, and says where the program or benchmark of this name is.
pub(crate) fn built(command: &mut Command, name: &str) -> anyhow::Result<PathBuf> {
    let built = command.stderr(Stdio::inherit()).output().context("cannot run cargo")?;
    if !built.status.success() {
        bail!("{command:?} failed");
    }
    let messages = String::from_utf8(built.stdout).context("cargo's messages are not text")?;
    let found = messages.lines().filter_map(|message| executable(message, name)).next_back();
    found.with_context(|| format!("cargo did not say where `{name}` is"))
}

fn executable(message: &str, name: &str) -> Option<PathBuf> {
    #[derive(serde::Deserialize)]
    struct Artifact {
        executable: Option<PathBuf>,
        target: Target,
    }
    #[derive(serde::Deserialize)]
    struct Target {
        name: String,
    }
    let artifact: Artifact = serde_json::from_str(message).ok()?;
    artifact.executable.filter(|_| artifact.target.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_program_of_that_name_is_found() {
        let program =
            r#"{"reason":"compiler-artifact","target":{"name":"omniroute"},"executable":"/t/omniroute"}"#;
        assert_eq!(executable(program, "omniroute"), Some(PathBuf::from("/t/omniroute")));
        assert_eq!(executable(program, "translation"), None);
        let library = r#"{"reason":"compiler-artifact","target":{"name":"omniroute"},"executable":null}"#;
        assert_eq!(executable(library, "omniroute"), None);
        assert_eq!(executable(r#"{"reason":"build-finished","success":true}"#, "omniroute"), None);
    }
}
