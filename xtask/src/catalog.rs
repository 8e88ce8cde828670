//! The catalogue of the provider crate: importing it once from two large files, listing its files for the compiler.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{
    files,
    pretty::{self, Members},
};

const FOLDER: &str = "crates/provider/catalog";
const LIST: &str = "crates/provider/src/catalog/list.rs";

#[derive(Deserialize)]
struct Providers {
    providers: Vec<Box<RawValue>>,
}

#[derive(Deserialize)]
struct Prices {
    models: Vec<Box<RawValue>>,
}

/// Writes one file per provider and one per provider's models, then the list. Returns how many files.
pub(crate) fn import(root: &Path, providers: &Path, prices: &Path) -> anyhow::Result<usize> {
    let providers: Providers = read(providers)?;
    let prices: Prices = read(prices)?;
    let folder = root.join(FOLDER);
    let mut count = 0;

    for raw in &providers.providers {
        let id = text_member(raw.get(), "id")?;
        write(&folder.join("providers").join(format!("{id}.json")), raw.get())?;
        count += 1;
    }
    let mut by_provider: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for raw in &prices.models {
        by_provider.entry(text_member(raw.get(), "provider")?).or_default().push(raw.get());
    }
    for (provider, rows) in &by_provider {
        let path = folder.join("models").join(format!("{provider}.json"));
        write(&path, &format!("[{}]", rows.join(",")))?;
        count += 1;
    }
    write_list(root)?;
    Ok(count)
}

/// Writes the Rust file that includes every file of the catalogue.
pub(crate) fn write_list(root: &Path) -> anyhow::Result<()> {
    std::fs::write(root.join(LIST), list(root)?)?;
    Ok(())
}

fn list(root: &Path) -> anyhow::Result<String> {
    let mut out = String::from(
        "//! Every file of `catalog/`, written by `cargo xtask catalog list`; a test compares it with the folder.\n",
    );
    for (name, doc, folder) in [
        ("PROVIDERS", "Provider files by id.", "providers"),
        ("MODELS", "Files of model rows by provider id.", "models"),
    ] {
        out.push_str(&format!(
            "\n/// {doc}\n#[rustfmt::skip]\npub(super) static {name}: &[(&str, &str)] = &[\n"
        ));
        for path in files::below(&root.join(FOLDER).join(folder), "json")? {
            let id = path.file_stem().and_then(|stem| stem.to_str()).context("file names are UTF-8")?;
            out.push_str(&format!("    (\"{id}\", include_str!(\"../../catalog/{folder}/{id}.json\")),\n"));
        }
        out.push_str("];\n");
    }
    Ok(out)
}

fn read<T: serde::de::DeserializeOwned>(path: &Path) -> anyhow::Result<T> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    serde_json::from_str(&text).with_context(|| path.display().to_string())
}

fn text_member(raw: &str, key: &str) -> anyhow::Result<String> {
    let members: Members = serde_json::from_str(raw)?;
    let value = members.get(key).with_context(|| format!("an entry has no `{key}`"))?;
    Ok(serde_json::from_str(value)?)
}

fn write(path: &Path, raw: &str) -> anyhow::Result<()> {
    let mut text = String::new();
    pretty::print(raw, 0, &mut text)?;
    text.push('\n');
    std::fs::write(path, text).with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_current() {
        let root = files::workspace_root().unwrap();
        let current = std::fs::read_to_string(root.join(LIST)).unwrap();
        assert_eq!(current, list(&root).unwrap(), "run `cargo xtask catalog list`");
    }
}
