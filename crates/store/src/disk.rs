//! How much room the disk has that the database is on.

use std::path::Path;

use crate::store::Store;

/// Below this share of a disk it is nearly full.
const SCARCE_PERCENT: u64 = 5;

/// The room of a disk, as programs without special rights see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskFacts {
    /// Bytes that can still be written.
    pub free_bytes: u64,
    /// Those and all that are in use.
    pub total_bytes: u64,
}

impl DiskFacts {
    /// Of the disk that a path is on; `None` where it cannot be found out.
    fn of(path: &Path) -> Option<Self> {
        let facts = rustix::fs::statvfs(path).ok()?;
        let bytes = |blocks: u64| blocks.saturating_mul(facts.f_frsize);
        let free_bytes = bytes(facts.f_bavail);
        let used_bytes = bytes(facts.f_blocks.saturating_sub(facts.f_bfree));
        Some(Self { free_bytes, total_bytes: free_bytes.saturating_add(used_bytes) })
    }

    /// Whether less than a twentieth is free.
    pub fn is_scarce(&self) -> bool {
        u128::from(self.free_bytes) * 100 < u128::from(self.total_bytes) * u128::from(SCARCE_PERCENT)
    }
}

impl Store {
    /// The disk that the embedded database is on, or else what is kept of requests. `None` where there is neither.
    pub fn disk(&self) -> Option<DiskFacts> {
        self.folders().into_iter().flatten().find_map(|folder| DiskFacts::of(&folder))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_twentieth_is_enough() {
        let facts = |free_bytes| DiskFacts { free_bytes, total_bytes: 1_000 };
        assert_eq!((facts(49).is_scarce(), facts(50).is_scarce()), (true, false));
        assert!(!DiskFacts { free_bytes: u64::MAX, total_bytes: u64::MAX }.is_scarce());
        let here = DiskFacts::of(Path::new(".")).expect("it is on a disk");
        assert!(here.total_bytes >= here.free_bytes && here.total_bytes > 0);
        assert_eq!(DiskFacts::of(Path::new("/no/such/folder")), None);
    }
}
