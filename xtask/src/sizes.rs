//! Which source files are longest. Informs only.

use std::io::Write;
use std::path::Path;

use crate::files;

/// Prints the `count` longest Rust files.
pub(crate) fn print(root: &Path, count: usize, out: &mut dyn Write) -> anyhow::Result<()> {
    let mut sizes = Vec::new();
    for path in files::below(root, "rs")? {
        let text = std::fs::read_to_string(&path)?;
        sizes.push((text.lines().count(), files::relative(root, &path)));
    }
    sizes.sort_by(|a, b| b.cmp(a));
    let total: usize = sizes.iter().map(|(lines, _)| lines).sum();
    for (lines, path) in sizes.iter().take(count) {
        writeln!(out, "{lines:>6} {path}")?;
    }
    writeln!(out, "{total:>6} lines in {} files", sizes.len())?;
    Ok(())
}
