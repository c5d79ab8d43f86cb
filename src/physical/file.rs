//! A file read at positions, never mapped: one that shrinks meanwhile is an error, not a signal.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// An open file and how long it was then.
#[derive(Debug)]
pub(crate) struct PositionedFile {
    file: File,
    len: u64,
    path: PathBuf,
}

impl PositionedFile {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        // Before it is opened, which waits at a pipe for somebody who writes.
        let metadata = std::fs::metadata(path)?;
        if metadata.is_dir() {
            return Err(io::Error::new(io::ErrorKind::IsADirectory, "it is a folder"));
        }
        if !metadata.is_file() {
            let why = "it is a pipe or a device, which is not read at positions; copy it into a file first";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        Ok(Self { file, len: metadata.len(), path: path.to_owned() })
    }

    /// Opens what has no end that the system tells: a process's memory.
    pub(crate) fn open_endless(path: &Path) -> io::Result<Self> {
        Ok(Self { file: File::open(path)?, len: i64::MAX as u64, path: path.to_owned() })
    }

    pub(crate) const fn len(&self) -> u64 {
        self.len
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Fills `buf` with the bytes from `offset` on.
    pub(crate) fn read_exact_at(&self, mut offset: u64, mut buf: &mut [u8]) -> io::Result<()> {
        while !buf.is_empty() {
            match self.read_at(offset, buf) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(len) => {
                    buf = &mut buf[len..];
                    offset += len as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Bytes from `offset` on: `len`, or fewer where the file ends.
    pub(crate) fn read_some(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let there = usize::try_from(self.len.saturating_sub(offset)).unwrap_or(usize::MAX);
        let mut bytes = vec![0; len.min(there)];
        self.read_exact_at(offset, &mut bytes)?;
        Ok(bytes)
    }

    /// Where, from `offset` on, the first byte lies that somebody wrote; nothing if all to the end is a hole.
    #[cfg(target_os = "linux")]
    pub(crate) fn next_written(&self, offset: u64) -> Option<u64> {
        match rustix::fs::seek(&self.file, rustix::fs::SeekFrom::Data(offset)) {
            Ok(at) => Some(at),
            Err(rustix::io::Errno::NXIO) => None,
            // A file system that does not know of holes.
            Err(_) => Some(offset),
        }
    }

    /// Where, from `offset` on, the first byte lies that somebody may have written.
    #[cfg(not(target_os = "linux"))]
    pub(crate) const fn next_written(&self, offset: u64) -> Option<u64> {
        Some(offset)
    }

    #[cfg(unix)]
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        std::os::unix::fs::FileExt::read_at(&self.file, buf, offset)
    }

    #[cfg(windows)]
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        std::os::windows::fs::FileExt::seek_read(&self.file, buf, offset)
    }
}
