//! to be written
use std::path::Path;
pub(crate) fn problems(_root: &Path) -> anyhow::Result<Vec<String>> {
    Ok(Vec::new())
}
