//! `omniroute chaos`: a scenario of failures played through the engine in virtual time.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, bail};
use clap::Args;
use omniroute_chaos::{Base, Overrides};
use omniroute_provider::catalog::catalog;
use omniroute_store::{Location, Store};
use secrecy::SecretString;

/// Largest scenario.
const MAX_FILE: u64 = 1024 * 1024;

/// Options of the command.
#[derive(Debug, Args)]
pub(crate) struct Chaos {
    /// The scenario, a TOML file as docs/chaos.md has it.
    scenario: PathBuf,
    /// How many requests, instead of the scenario's number.
    #[arg(long, value_name = "N")]
    requests: Option<u64>,
    /// What all chance follows from, instead of the scenario's seed.
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// Play it over the configuration in this data folder; nothing is sent or written.
    #[arg(long, value_name = "DIR", conflicts_with = "database_url")]
    data_dir: Option<PathBuf>,
    /// Play it over the configuration in this Postgres database.
    #[arg(long, value_name = "URL")]
    database_url: Option<String>,
}

impl Chaos {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let text = read(&self.scenario)?;
        let location = match (self.data_dir, self.database_url) {
            (Some(data_dir), _) => Some(Location::Sqlite { data_dir }),
            (None, Some(url)) => Some(Location::Postgres { url: SecretString::from(url) }),
            (None, None) => None,
        };
        let base = location.map(|location| super::on_runtime(look(location))).transpose()?;
        let overrides = Overrides { requests: self.requests, seed: self.seed };
        let report = omniroute_chaos::simulate(&text, base, overrides)
            .map_err(|error| anyhow!("{}: {error}", self.scenario.display()))?;
        super::print(report.text().trim_end())?;
        let violated = report.violated();
        if violated.is_empty() {
            return Ok(());
        }
        let list: Vec<String> = violated
            .iter()
            .map(|it| format!("{} (found {}, wanted {})", it.what, it.found, it.wanted))
            .collect();
        bail!("{} of {} do not hold: {}", violated.len(), report.verdicts().len(), list.join("; "));
    }
}

fn read(path: &Path) -> anyhow::Result<String> {
    let named = || format!("cannot read the scenario `{}`", path.display());
    let size = std::fs::metadata(path).with_context(named)?.len();
    if size > MAX_FILE {
        bail!("the scenario `{}` is larger than {MAX_FILE} bytes", path.display());
    }
    std::fs::read_to_string(path).with_context(named)
}

/// The rows of a database; what is wrong with single ones is told and left out.
async fn look(location: Location) -> anyhow::Result<Base> {
    use std::io::Write as _;
    let loaded = Store::look(&location).await.context("cannot read the configuration")?;
    for problem in &loaded.problems {
        let _ = writeln!(
            std::io::stderr(),
            "omniroute: {} `{}` takes no part: {}",
            problem.table,
            problem.id,
            problem.message
        );
    }
    let catalog = match &location {
        Location::Sqlite { data_dir } => crate::additions::catalog_with(data_dir)?,
        Location::Postgres { .. } => catalog(),
    };
    Ok(Base { entities: loaded.entities, catalog })
}
