//! The command line. One file and one line per command.

mod chaos;
mod serve;
mod settings;
mod sim;

pub(crate) use serve::interrupted;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// One process, one endpoint, every model.
#[derive(Debug, Parser)]
#[command(name = "omniroute", version, about)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway.
    Serve(serve::Serve),
    /// Run the simulator: a provider without models, for tests and benchmarks.
    Sim(sim::Sim),
    /// Measure the gateway against nginx and against calling the upstream directly.
    Bench(crate::bench::BenchOptions),
    /// Play a scenario of failures through the engine in virtual time and check what must hold.
    Chaos(chaos::Chaos),
    /// Print the settings in force, secrets left out.
    Settings(settings::Settings),
    /// Print the OpenAPI document: routes of clients and of management.
    Openapi,
}

impl Cli {
    /// Runs the command; errors go to standard error in one line.
    pub(crate) fn run(self) -> ExitCode {
        let done = match self.command {
            Command::Serve(command) => command.run(),
            Command::Sim(command) => command.run(),
            Command::Bench(options) => on_runtime(crate::bench::run(options)),
            Command::Chaos(command) => command.run(),
            Command::Settings(command) => command.run(),
            Command::Openapi => openapi(),
        };
        match done {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                let _ =
                    std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("omniroute: {error:#}\n"));
                ExitCode::FAILURE
            }
        }
    }
}

/// Runs a future to its end on a runtime of its own.
fn on_runtime<T>(task: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(task)
}

fn openapi() -> anyhow::Result<()> {
    print(&crate::http::document(env!("CARGO_PKG_VERSION")).to_pretty_json()?)
}

/// Writes to standard output; a closed pipe is not an error.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    use std::io::Write as _;
    match writeln!(std::io::stdout(), "{text}") {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_help_of_every_command() {
        let plain =
            |command: clap::Command| command.mut_args(|arg| arg.hide_env_values(true)).term_width(100);
        let mut cli = plain(Cli::command()).mut_subcommands(plain);
        cli.build();
        let mut text = cli.render_help().to_string();
        for command in cli.get_subcommands_mut().filter(|command| command.get_name() != "help") {
            let help = command.render_help();
            text += &format!("\n=== {} ===\n{help}", command.get_name());
        }
        insta::assert_snapshot!(text);
    }
}
