//! OmniRoute: one process, one endpoint, every model.
//!
//! `cli` has a file per command; `serve` is the gateway itself, put together in `assemble`.

mod additions;
mod assemble;
mod bench;
mod cli;
mod http;
mod lifecycle;
mod logging;
mod memory;
mod outbound;
mod settings;

use clap::Parser as _;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    cli::Cli::parse().run()
}
