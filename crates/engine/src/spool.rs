//! Files that clients upload. Small ones stay in memory, large ones go to disk, so that neither many of them fill the
//! memory nor a second account has to go without: a file can be read any number of times.
//!
//! A file on disk has no name, and is gone when the last request that reads it is, or the process.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use sha2::{Digest as _, Sha256};

/// Largest file that is kept in memory.
const IN_MEMORY: usize = 8 * 1024 * 1024;
/// What is kept in memory whatever else is there.
const SMALL: usize = 64 * 1024;
/// How much is written to disk, or read from it, at once.
const CHUNK: usize = 256 * 1024;
/// First bytes of a file that are at hand.
const HEAD: usize = omniroute_dialect::audio::container::HEAD;

/// A file that is being taken in.
pub struct Spool {
    /// What is not on disk (yet).
    memory: BytesMut,
    disk: Option<Arc<Mutex<File>>>,
    head: BytesMut,
    length: u64,
    digest: Sha256,
    /// Most bytes of it in memory.
    room: usize,
}

/// A file that is there.
pub struct Spooled {
    kept: Kept,
    head: Bytes,
    length: u64,
    digest: [u8; 32],
}

enum Kept {
    Memory(Bytes),
    Disk(Arc<Mutex<File>>),
    /// Only its length is known.
    Nowhere,
}

impl Spool {
    /// A file of which nothing has come.
    pub fn new() -> Self {
        Self::beside(0)
    }

    /// The same where so many bytes of other files of one upload are there already: together they have the room of one.
    pub fn beside(others: u64) -> Self {
        let room = IN_MEMORY.saturating_sub(usize::try_from(others).unwrap_or(usize::MAX)).max(SMALL);
        Self {
            memory: BytesMut::new(),
            disk: None,
            head: BytesMut::new(),
            length: 0,
            digest: Sha256::new(),
            room,
        }
    }

    /// How long it is so far.
    pub fn len(&self) -> u64 {
        self.length
    }

    /// Whether nothing has come.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Takes the next bytes.
    pub async fn push(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.digest.update(bytes);
        self.length += bytes.len() as u64;
        let wanted = HEAD.saturating_sub(self.head.len()).min(bytes.len());
        self.head.extend_from_slice(&bytes[..wanted]);
        self.memory.extend_from_slice(bytes);
        let most = if self.disk.is_some() { CHUNK } else { self.room };
        if self.memory.len() > most {
            self.write_down().await?;
        }
        Ok(())
    }

    async fn write_down(&mut self) -> io::Result<()> {
        let bytes = std::mem::take(&mut self.memory);
        let disk = self.disk.clone();
        let (disk, mut bytes) = blocking(move || {
            let disk = match disk {
                Some(disk) => disk,
                None => Arc::new(Mutex::new(tempfile::tempfile()?)),
            };
            lock(&disk).write_all(&bytes)?;
            Ok((disk, bytes))
        })
        .await?;
        // The buffer is used again, unless it is the large one from before there was a file.
        bytes.clear();
        if bytes.capacity() <= 4 * CHUNK {
            self.memory = bytes;
        }
        self.disk = Some(disk);
        Ok(())
    }

    /// The file, after its last bytes.
    pub async fn finish(mut self) -> io::Result<Spooled> {
        if self.disk.is_some() && !self.memory.is_empty() {
            self.write_down().await?;
        }
        Ok(Spooled {
            kept: match self.disk {
                None => Kept::Memory(self.memory.freeze()),
                Some(disk) => Kept::Disk(disk),
            },
            head: self.head.freeze(),
            length: self.length,
            digest: self.digest.finalize().into(),
        })
    }
}

impl Default for Spool {
    fn default() -> Self {
        Self::new()
    }
}

impl Spooled {
    /// A file that is only spoken of, and cannot be read.
    pub fn of_length(length: u64) -> Self {
        Self { kept: Kept::Nowhere, head: Bytes::new(), length, digest: [0; 32] }
    }

    /// Its length.
    pub fn len(&self) -> u64 {
        self.length
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Its first bytes.
    pub fn head(&self) -> &[u8] {
        &self.head
    }

    /// SHA-256 of all of it.
    pub fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    /// Some bytes from a place on: at least one unless the place is the end.
    pub fn read(self: &Arc<Self>, at: u64) -> BoxFuture<'static, io::Result<Bytes>> {
        let left = self.length.saturating_sub(at);
        match &self.kept {
            Kept::Memory(bytes) => {
                let from = usize::try_from(at).unwrap_or(usize::MAX).min(bytes.len());
                std::future::ready(Ok(bytes.slice(from..))).boxed()
            }
            Kept::Nowhere => {
                let error = io::Error::new(io::ErrorKind::Unsupported, "only the file's length is known");
                std::future::ready(Err(error)).boxed()
            }
            Kept::Disk(disk) => {
                let disk = disk.clone();
                let size = usize::try_from(left).unwrap_or(usize::MAX).min(CHUNK);
                blocking(move || {
                    let mut bytes = vec![0; size];
                    let mut file = lock(&disk);
                    file.seek(SeekFrom::Start(at))?;
                    file.read_exact(&mut bytes)?;
                    Ok(bytes.into())
                })
                .boxed()
            }
        }
    }

    /// All of it, for those who cannot take it piece by piece.
    pub async fn read_all(self: &Arc<Self>) -> io::Result<Bytes> {
        if let Kept::Memory(bytes) = &self.kept {
            return Ok(bytes.clone());
        }
        let mut whole = BytesMut::new();
        while (whole.len() as u64) < self.length {
            let piece = self.read(whole.len() as u64).await?;
            whole.extend_from_slice(&piece);
        }
        Ok(whole.freeze())
    }
}

impl std::fmt::Debug for Spooled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Spooled").field("length", &self.length).finish_non_exhaustive()
    }
}

/// Files are read and written where waiting holds nobody up.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

fn lock(file: &Mutex<File>) -> std::sync::MutexGuard<'_, File> {
    file.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn spooled(size: usize, piece: usize) -> (Vec<u8>, Arc<Spooled>) {
        taken(Spool::new(), size, piece).await
    }

    async fn taken(mut spool: Spool, size: usize, piece: usize) -> (Vec<u8>, Arc<Spooled>) {
        let bytes: Vec<u8> = (0..size).map(|at| (at * 31 % 251) as u8).collect();
        for piece in bytes.chunks(piece) {
            spool.push(piece).await.unwrap();
        }
        (bytes, Arc::new(spool.finish().await.unwrap()))
    }

    #[tokio::test]
    async fn files_of_every_size_are_read_as_they_came() {
        for (size, piece, is_on_disk) in [
            (0, 1, false),
            (10, 3, false),
            (IN_MEMORY, 70_000, false),
            (IN_MEMORY + 1, 70_000, true),
            (IN_MEMORY + 3 * CHUNK, 1_000_000, true),
        ] {
            let (bytes, file) = spooled(size, piece).await;
            assert_eq!(matches!(file.kept, Kept::Disk(_)), is_on_disk, "{size}");
            assert_eq!((file.len(), file.is_empty()), (size as u64, size == 0));
            assert_eq!(file.head(), &bytes[..size.min(HEAD)]);
            assert_eq!(file.digest()[..], Sha256::digest(&bytes)[..]);
            for _ in 0..2 {
                assert!(file.read_all().await.unwrap() == bytes, "{size}");
            }
            if size > 5 {
                assert_eq!(file.read(5).await.unwrap()[0], bytes[5]);
            }
            assert!(file.read(size as u64).await.unwrap().is_empty());
        }
    }

    #[tokio::test]
    async fn a_file_that_is_only_spoken_of_has_a_length_and_no_bytes() {
        let file = Arc::new(Spooled::of_length(1_000));
        assert_eq!((file.len(), file.is_empty(), file.head()), (1_000, false, &b""[..]));
        assert_eq!(file.read_all().await.unwrap_err().kind(), io::ErrorKind::Unsupported);
        assert_eq!(file.read(0).await.unwrap_err().kind(), io::ErrorKind::Unsupported);
    }

    #[tokio::test]
    async fn files_of_one_upload_share_their_room() {
        for (others, size, is_on_disk) in [
            (0, IN_MEMORY, false),
            (IN_MEMORY as u64 / 2, IN_MEMORY / 2, false),
            (IN_MEMORY as u64 / 2, IN_MEMORY / 2 + 1, true),
            (u64::MAX, SMALL, false),
            (u64::MAX, SMALL + 1, true),
        ] {
            let (bytes, file) = taken(Spool::beside(others), size, 100_000).await;
            assert_eq!(matches!(file.kept, Kept::Disk(_)), is_on_disk, "{others} {size}");
            assert!(file.read_all().await.unwrap() == bytes);
        }
    }

    #[tokio::test]
    async fn two_can_read_at_once() {
        let (bytes, file) = spooled(IN_MEMORY + CHUNK, CHUNK).await;
        let (one, other) = tokio::join!(file.read_all(), file.read_all());
        assert!(one.unwrap() == bytes && other.unwrap() == bytes);
    }
}
