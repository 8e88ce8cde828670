//! `omniroute settings`: what is in force, and from nowhere else.

use clap::Args;

use crate::settings::{BootArgs, BootSettings, process_env};

/// Options of the command: those of `serve`.
#[derive(Debug, Args)]
pub(crate) struct Settings {
    #[command(flatten)]
    boot: BootArgs,
}

impl Settings {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        super::print(&BootSettings::resolve(self.boot, &process_env)?.describe())
    }
}
