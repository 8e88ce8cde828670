//! Chores of the repository. `cargo xtask` lists them.

mod cargo;
mod catalog;
mod deps;
mod dist;
mod files;
mod instructions;
mod pretty;
mod sizes;
mod tidy;

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

const HELP: &str = "\
cargo xtask catalog import <providers.json> <pricing.json>   split two large files into crates/provider/catalog
cargo xtask catalog list                                     write the list of catalogue files the provider crate includes
cargo xtask deps                                             licences, sources and duplicates of dependencies, by deny.toml
cargo xtask dist                                             the binary as it is published (needs rustup's llvm-tools)
cargo xtask instructions [name]                              instructions of the steps of a request (needs valgrind)
cargo xtask sizes [count]                                    the longest source files
cargo xtask tidy                                             check the rules of the layout (also a test)
";

fn main() -> anyhow::Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let root = files::workspace_root()?;
    let mut out = std::io::stdout().lock();
    match words.as_slice() {
        ["catalog", "import", providers, prices] => {
            let count = catalog::import(&root, Path::new(providers), Path::new(prices))?;
            writeln!(out, "{count} files written")?;
        }
        ["catalog", "list"] => catalog::write_list(&root)?,
        ["dist"] => dist::build(&root, &mut out)?,
        ["instructions"] => instructions::print(&root, "", &mut out)?,
        ["instructions", name] => instructions::print(&root, name, &mut out)?,
        ["sizes"] => sizes::print(&root, 25, &mut out)?,
        ["sizes", count] => sizes::print(&root, count.parse()?, &mut out)?,
        ["deps"] => return report(&deps::problems(&root)?, &mut out),
        ["tidy"] => return report(&tidy::problems(&root)?, &mut out),
        [] | ["help" | "--help" | "-h"] => out.write_all(HELP.as_bytes())?,
        _ => {
            out.write_all(HELP.as_bytes())?;
            return Ok(ExitCode::FAILURE);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// One line per problem; any makes the command fail.
fn report(problems: &[String], out: &mut impl Write) -> anyhow::Result<ExitCode> {
    for problem in problems {
        writeln!(out, "{problem}")?;
    }
    Ok(if problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
