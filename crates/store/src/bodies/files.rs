//! Files of bodies: `call_logs/YYYY-MM-DD/<milliseconds>_<id>.json.zst` in the data directory. Their names are made of row ids
//! alone, and say how old they are: what is too old or too much is found without the database.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use jiff::Timestamp;
use omniroute_engine::ports::RowId;

use super::document;

/// The folder in the data directory.
const FOLDER: &str = "call_logs";
const ENDING: &str = ".json.zst";
/// What a file is called until it is complete.
const UNFINISHED: &str = ".part";
/// Where speed begins to cost room.
const LEVEL: i32 = 3;
/// Most bytes of a file as it was before it was compressed, and then some.
const MOST: usize = 2 * document::MAX_BYTES;
/// Files of one folder that cannot be deleted, beyond which the next folder is tried.
const MOST_STUCK: u32 = 3;
/// Most bytes of a compressed file.
const MOST_ON_DISK: u64 = 2 * document::MAX_BYTES as u64;

/// The files of this process.
#[derive(Debug)]
pub(crate) struct BodyFiles {
    root: PathBuf,
    /// Which process this is: the machine and its data directory.
    name: Arc<str>,
    /// On disk, of all files.
    bytes: AtomicU64,
    /// How often a folder or a file could not be looked at or deleted.
    stuck: AtomicU64,
}

impl BodyFiles {
    /// Files in this data directory. Nothing is made before there is something to keep.
    pub(crate) fn in_dir(data_dir: &Path) -> Self {
        let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let host = match host.trim() {
            "" => "this machine",
            host => host,
        };
        let folder = fs::canonicalize(data_dir).unwrap_or_else(|_| data_dir.to_owned());
        Self {
            root: data_dir.join(FOLDER),
            name: format!("{host}:{}", folder.display()).into(),
            bytes: AtomicU64::new(0),
            stuck: AtomicU64::new(0),
        }
    }

    /// The folder of all files.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Which process this is.
    pub(crate) fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Bytes on disk, as far as they have been counted.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    fn path(&self, id: RowId) -> PathBuf {
        let ms = id.timestamp_ms();
        self.root.join(day_of(ms)).join(format!("{ms}_{id}{ENDING}"))
    }

    /// Writes a file; whoever reads it finds all of it or nothing.
    pub(super) fn write(&self, id: RowId, document: &[u8]) -> io::Result<()> {
        let packed = zstd::bulk::compress(document, LEVEL)?;
        let path = self.path(id);
        let unfinished = path.with_extension(&UNFINISHED[1..]);
        let mut file = match create(&unfinished) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                make_folder(&self.root)?;
                make_folder(path.parent().unwrap_or(&self.root))?;
                create(&unfinished)?
            }
            other => other?,
        };
        let written = file.write_all(&packed).and_then(|()| fs::rename(&unfinished, &path));
        if let Err(error) = written {
            let _ = fs::remove_file(&unfinished);
            return Err(error);
        }
        self.bytes.fetch_add(packed.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    /// A document; `None` where there is no such file.
    pub(super) fn read(&self, id: RowId) -> io::Result<Option<Vec<u8>>> {
        let file = match File::open(self.path(id)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        let mut packed = Vec::new();
        file.take(MOST_ON_DISK).read_to_end(&mut packed)?;
        zstd::bulk::decompress(&packed, MOST).map(Some)
    }

    /// Counts what is there, and takes away what was never finished.
    pub(super) fn count(&self) -> io::Result<()> {
        let mut total = 0;
        for (_, folder) in self.days()? {
            for entry in self.entries(&folder) {
                let name = entry.file_name();
                let name = name.to_string_lossy();
                if name.ends_with(UNFINISHED) {
                    let _ = fs::remove_file(entry.path());
                } else if id_of(&name).is_some() {
                    total += entry.metadata().map_or(0, |found| found.len());
                }
            }
        }
        self.bytes.store(total, Ordering::Relaxed);
        Ok(())
    }

    /// Deletes files of requests before this time, the oldest first, at most so many; says which.
    pub(super) fn remove_before(&self, ms: i64, most: usize) -> io::Result<Vec<RowId>> {
        self.remove(most, |id| id.timestamp_ms() < ms)
    }

    /// Deletes the oldest files until there are no more bytes than that, at most so many files; says which.
    pub(super) fn trim(&self, bytes: u64, most: usize) -> io::Result<Vec<RowId>> {
        if self.bytes() <= bytes {
            return Ok(Vec::new());
        }
        // A little more, so that not every file makes another one go.
        let target = bytes - bytes / 20;
        self.remove(most, |_| self.bytes() > target)
    }

    /// What cannot be deleted stays, and those after it go; others may be deleting at the same time.
    fn remove(&self, most: usize, goes: impl Fn(RowId) -> bool) -> io::Result<Vec<RowId>> {
        let mut removed = Vec::new();
        for (_, folder) in self.days()? {
            let mut files: Vec<(String, RowId)> = self
                .entries(&folder)
                .filter_map(|entry| {
                    let name = entry.file_name().into_string().ok()?;
                    id_of(&name).map(|id| (name, id))
                })
                .collect();
            files.sort_unstable();
            let mut stuck = 0;
            for (name, id) in files {
                if removed.len() >= most || !goes(id) {
                    return Ok(removed);
                }
                let path = folder.join(name);
                let length = fs::metadata(&path).map_or(0, |found| found.len());
                match fs::remove_file(&path) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    Err(error) => {
                        self.tell_stuck(&path, &error);
                        stuck += 1;
                        if stuck > MOST_STUCK {
                            break;
                        }
                        continue;
                    }
                    Ok(()) => {}
                }
                let _ = self.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |all| {
                    Some(all.saturating_sub(length))
                });
                removed.push(id);
            }
            // Fails, as it should, where something else is in it or comes at this moment.
            let _ = fs::remove_dir(&folder);
        }
        Ok(removed)
    }

    /// What is in a folder; nothing where that cannot be found out.
    fn entries(&self, folder: &Path) -> impl Iterator<Item = fs::DirEntry> {
        let entries = match fs::read_dir(folder) {
            Ok(entries) => Some(entries),
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    self.tell_stuck(folder, &error);
                }
                None
            }
        };
        entries.into_iter().flatten().flatten()
    }

    /// Tells what is in the way; ever more seldom, as it is met again with every pass.
    fn tell_stuck(&self, path: &Path, error: &io::Error) {
        let times = self.stuck.fetch_add(1, Ordering::Relaxed) + 1;
        if times.is_power_of_two() {
            let path = path.display();
            tracing::warn!(%error, %path, times, "bodies of old requests cannot be deleted; see who owns this path");
        }
    }

    /// The folders of days, the oldest first.
    fn days(&self) -> io::Result<Vec<(String, PathBuf)>> {
        let entries = match fs::read_dir(&self.root) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other?,
        };
        let mut days: Vec<(String, PathBuf)> = entries
            .flatten()
            .filter_map(|entry| {
                let name = entry.file_name().into_string().ok()?;
                let is_day = name.len() == 10
                    && name.bytes().enumerate().all(|(at, byte)| match at {
                        4 | 7 => byte == b'-',
                        _ => byte.is_ascii_digit(),
                    });
                is_day.then(|| (name, entry.path()))
            })
            .collect();
        days.sort_unstable();
        Ok(days)
    }
}

/// The day of a time, in UTC.
fn day_of(ms: i64) -> String {
    Timestamp::from_millisecond(ms).unwrap_or_default().strftime("%Y-%m-%d").to_string()
}

/// Whose file has this name.
fn id_of(name: &str) -> Option<RowId> {
    let (_, id) = name.strip_suffix(ENDING)?.split_once('_')?;
    RowId::parse(id)
}

fn create(path: &Path) -> io::Result<File> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

fn make_folder(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: i64 = 1_767_312_000_000;
    const DAY: i64 = 86_400_000;

    fn id(ms: i64, number: u8) -> RowId {
        RowId::new(ms, [number; 10])
    }

    fn filled(days: i64) -> (tempfile::TempDir, BodyFiles) {
        let folder = tempfile::tempdir().unwrap();
        let files = BodyFiles::in_dir(folder.path());
        for day in 0..days {
            for number in 0..4 {
                files.write(id(NOON + day * DAY + i64::from(number), number), b"{\"a\":1}").unwrap();
            }
        }
        (folder, files)
    }

    #[test]
    fn a_file_is_found_by_its_row_alone() {
        let (folder, files) = filled(1);
        let path = format!("call_logs/2026-01-02/{NOON}_{}.json.zst", id(NOON, 0));
        assert!(folder.path().join(&path).is_file(), "{path}");
        assert_eq!(files.read(id(NOON, 0)).unwrap().as_deref(), Some(&b"{\"a\":1}"[..]));
        assert_eq!(files.read(id(NOON, 9)).unwrap(), None);
        #[cfg(unix)]
        for (path, mode) in [("call_logs", 0o700), ("call_logs/2026-01-02", 0o700), (path.as_str(), 0o600)] {
            use std::os::unix::fs::PermissionsExt as _;
            let found = fs::metadata(folder.path().join(path)).unwrap().permissions().mode() & 0o777;
            assert_eq!(found, mode, "{path}");
        }
    }

    #[test]
    fn the_oldest_go_first_and_their_folders_with_them() {
        let (folder, files) = filled(3);
        let one = files.bytes() / 12;
        assert_eq!(files.trim(12 * one, 100).unwrap(), []);
        let gone = files.trim(6 * one, 100).unwrap();
        assert_eq!(gone.len(), 7);
        assert_eq!((gone[0], gone[6]), (id(NOON, 0), id(NOON + DAY + 2, 2)));
        assert!(!folder.path().join("call_logs/2026-01-02").exists());
        assert_eq!(files.bytes(), 5 * one);

        assert_eq!(files.remove_before(NOON + 2 * DAY + 2, 2).unwrap().len(), 2);
        assert_eq!(files.remove_before(NOON + 2 * DAY + 2, 100).unwrap(), [id(NOON + 2 * DAY + 1, 1)]);
        assert_eq!(files.remove_before(NOON + 2 * DAY + 2, 100).unwrap(), []);
        assert_eq!(files.bytes(), 2 * one);
    }

    #[test]
    fn what_cannot_be_deleted_keeps_nothing_else() {
        let (folder, files) = filled(2);
        let root = folder.path().join("call_logs");
        fs::write(root.join("2000-01-01"), b"a file in the place of a folder").unwrap();
        // A folder in the place of a file, before all others of its day.
        let odd = root.join(format!("2026-01-02/1_{}.json.zst", id(1, 1)));
        fs::create_dir(&odd).unwrap();
        let again = BodyFiles::in_dir(folder.path());
        again.count().unwrap();
        assert!(again.bytes() >= files.bytes());
        assert_eq!(again.trim(0, 100).unwrap().len(), 8);
        assert!(odd.exists() && root.join("2000-01-01").exists() && !root.join("2026-01-03").exists());
    }

    #[test]
    fn a_new_process_counts_what_is_there_and_clears_what_was_not_finished() {
        let (folder, files) = filled(2);
        let day = folder.path().join("call_logs/2026-01-02");
        fs::write(day.join("1_x.json.part"), b"half").unwrap();
        fs::write(day.join("notes.txt"), b"somebody's own").unwrap();
        fs::create_dir(folder.path().join("call_logs/other")).unwrap();
        let again = BodyFiles::in_dir(folder.path());
        again.count().unwrap();
        assert_eq!(again.bytes(), files.bytes());
        assert!(!day.join("1_x.json.part").exists());
        again.remove_before(i64::MAX, 100).unwrap();
        assert!(day.join("notes.txt").exists() && folder.path().join("call_logs/other").exists());
        assert_eq!(again.bytes(), 0);
        // Before anything was kept there is no folder at all.
        let empty = tempfile::tempdir().unwrap();
        let files = BodyFiles::in_dir(empty.path());
        files.count().unwrap();
        assert_eq!((files.trim(0, 9).unwrap(), fs::read_dir(empty.path()).unwrap().count()), (vec![], 0));
    }
}
