//! Recorded exchanges: `<root>/<dialect>/<case>/{request.json,response.json,stream.sse,error.json,…}`.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// One recorded exchange.
#[derive(Debug, Clone)]
pub struct Fixture {
    /// The dialect it is in: the name of the folder above.
    pub dialect: String,
    /// What it shows: the name of its folder.
    pub case: String,
    /// Its files by name.
    pub files: BTreeMap<String, Vec<u8>>,
}

impl Fixture {
    /// The content of a file, if the case has it.
    pub fn file(&self, name: &str) -> Option<&[u8]> {
        self.files.get(name).map(Vec::as_slice)
    }

    /// The content of a text file, if the case has it.
    pub fn text(&self, name: &str) -> Option<&str> {
        let text = std::str::from_utf8(self.file(name)?);
        Some(text.unwrap_or_else(|error| panic!("{self}/{name} is not text: {error}")))
    }
}

impl std::fmt::Display for Fixture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.dialect, self.case)
    }
}

/// All cases below a folder, in the order of their names. Panics when there are none: an empty run proves nothing.
pub fn load(root: impl AsRef<Path>) -> Vec<Fixture> {
    let root = root.as_ref();
    let mut found = Vec::new();
    for dialect in folders(root) {
        for case in folders(&dialect) {
            let files = entries(&case)
                .into_iter()
                .filter(|path| path.is_file())
                .map(|path| {
                    let content =
                        fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
                    (name(&path), content)
                })
                .collect();
            found.push(Fixture { dialect: name(&dialect), case: name(&case), files });
        }
    }
    assert!(!found.is_empty(), "no fixtures below {}", root.display());
    found
}

fn folders(path: &Path) -> Vec<PathBuf> {
    entries(path).into_iter().filter(|path| path.is_dir()).collect()
}

fn entries(path: &Path) -> Vec<PathBuf> {
    let read = fs::read_dir(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut entries: Vec<PathBuf> = read.filter_map(|entry| Some(entry.ok()?.path())).collect();
    entries.sort();
    entries
}

fn name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}
