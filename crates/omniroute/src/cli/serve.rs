//! `omniroute serve`: the gateway.

use std::os::unix::process::CommandExt as _;

use anyhow::Context as _;
use clap::Args;

use crate::assemble;
use crate::lifecycle::Ending;
use crate::logging;
use crate::settings::{BootArgs, BootSettings, process_env};

/// Options of the command.
#[derive(Debug, Args)]
pub(crate) struct Serve {
    #[command(flatten)]
    boot: BootArgs,
}

/// What a supervisor understands as "start me again" (EX_TEMPFAIL of sysexits.h).
const EXIT_RESTART: i32 = 75;

impl Serve {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let settings = BootSettings::resolve(self.boot, &process_env)?;
        let (log, console) = logging::start(&settings)?;
        let supervised = settings.supervised;
        let runtime = runtime()?;
        let ending = runtime.block_on(assemble::run(settings, console))?;
        drop(runtime);
        drop(log);
        match ending {
            Ending::Exit => Ok(()),
            Ending::Restart if supervised =>
            {
                #[allow(clippy::exit, reason = "the supervisor's sign; everything has been closed above")]
                std::process::exit(EXIT_RESTART)
            }
            Ending::Restart => {
                let program = std::env::current_exe().context("cannot find the program to start again")?;
                let error = std::process::Command::new(program).args(std::env::args_os().skip(1)).exec();
                Err(error).context("cannot start again")
            }
        }
    }
}

/// One thread per core; on a single core a runtime without work stealing, which costs less.
fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut builder = if cores == 1 {
        tokio::runtime::Builder::new_current_thread()
    } else {
        tokio::runtime::Builder::new_multi_thread()
    };
    builder.enable_all().build().context("cannot start the runtime")
}

/// Ends when somebody asks the process to: Ctrl-C, or a supervisor's SIGTERM.
pub(crate) async fn interrupted() {
    use tokio::signal::unix::{SignalKind, signal};
    match signal(SignalKind::terminate()) {
        Ok(mut terminated) => {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminated.recv() => {}
            }
        }
        Err(_) => {
            let _ = tokio::signal::ctrl_c().await;
        }
    }
}
