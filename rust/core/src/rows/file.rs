//! The file behind a block of rows, read in large pieces.
//!
//! Read, not mapped: pages of a map count as the process's own memory, a file that shrinks under a map kills the process,
//! and not every filesystem has maps.

use std::fs::File;
use std::io::ErrorKind;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::buffer::Buffer;
use crate::error::{Error, Result};

/// Rows of `row_bytes` bytes each, from `offset` on.
#[derive(Debug)]
pub(super) struct RowFile {
    file: File,
    path: PathBuf,
    offset: u64,
    row_bytes: usize,
    /// Whether what was read leaves the page cache again.
    past_cache: bool,
}

impl RowFile {
    pub(super) fn new(file: File, path: PathBuf, offset: u64, row_bytes: usize) -> Self {
        advise(&file, 0..0, Advice::Sequential);
        RowFile { file, path, offset, row_bytes, past_cache: false }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// From now on reads past the page cache, for files that would push everything else out of it and be gone
    /// themselves before they are read again.
    pub(super) fn read_past_cache(&mut self) {
        self.past_cache = true;
        set_direct(&self.file, true);
    }

    /// The size of buffer that reading `rows` takes.
    pub(super) fn space(&self, rows: usize) -> usize {
        // Whole pages are read: up to one more on either side.
        (rows * self.row_bytes).next_multiple_of(Buffer::PAGE) + Buffer::PAGE
    }

    /// Reads `rows` into `buffer`, which starts on a page; says at which byte of it they start.
    pub(super) fn read(&self, rows: Range<usize>, buffer: &mut [u8]) -> Result<usize> {
        let start = self.offset + (rows.start * self.row_bytes) as u64;
        let lead = (start % Buffer::PAGE as u64) as usize;
        let begin = start - lead as u64;
        let needed = lead + rows.len() * self.row_bytes;
        let buffer = &mut buffer[..needed.next_multiple_of(Buffer::PAGE)];
        let mut retried = false;
        let mut done = 0;
        while done < needed {
            match read_at(&self.file, &mut buffer[done..], begin + done as u64) {
                Ok(0) => {
                    let row = rows.start + done.saturating_sub(lead) / self.row_bytes;
                    let why = format!("truncated while it was read: it ends within row {row}");
                    return Err(Error::Format { path: self.path.clone(), why });
                }
                Ok(read) => done += read,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // Some filesystems only say so when it comes to reading.
                Err(error) if error.kind() == ErrorKind::InvalidInput && self.past_cache && !retried => {
                    retried = true;
                    set_direct(&self.file, false);
                }
                Err(source) => return Err(Error::Io { path: self.path.clone(), source }),
            }
        }
        if self.past_cache {
            // Nothing is there but where reading past the cache is not possible.
            advise(&self.file, begin..begin + done as u64, Advice::DontNeed);
        }
        Ok(lead)
    }
}

enum Advice {
    Sequential,
    DontNeed,
}

/// Tells the kernel what becomes of `range`; `0..0` is the whole file. Changes nothing but the time.
fn advise(file: &File, range: Range<u64>, advice: Advice) {
    #[cfg(target_os = "linux")]
    {
        use std::os::fd::AsRawFd;
        let advice = match advice {
            Advice::Sequential => libc::POSIX_FADV_SEQUENTIAL,
            Advice::DontNeed => libc::POSIX_FADV_DONTNEED,
        };
        let (start, length) = (range.start as libc::off_t, (range.end - range.start) as libc::off_t);
        // SAFETY: no memory of ours is involved.
        unsafe { libc::posix_fadvise(file.as_raw_fd(), start, length, advice) };
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (file, range, advice);
}

/// Switches between reading past the page cache and through it, where the filesystem lets us.
fn set_direct(file: &File, direct: bool) {
    #[cfg(target_os = "linux")]
    {
        use std::os::fd::AsRawFd;
        // SAFETY: no memory of ours is involved.
        unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFL, if direct { libc::O_DIRECT } else { 0 }) };
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (file, direct);
}

/// Bytes of the machine's memory, or none where we do not ask.
pub(super) fn memory_bytes() -> Option<u64> {
    #[cfg(target_os = "linux")]
    {
        // SAFETY: no memory of ours is involved.
        let [pages, size] = [libc::_SC_PHYS_PAGES, libc::_SC_PAGESIZE].map(|name| unsafe { libc::sysconf(name) });
        Some(u64::try_from(pages).ok()? * u64::try_from(size).ok()?)
    }
    #[cfg(not(target_os = "linux"))]
    None
}

#[cfg(unix)]
fn read_at(file: &File, buffer: &mut [u8], position: u64) -> std::io::Result<usize> {
    std::os::unix::fs::FileExt::read_at(file, buffer, position)
}

#[cfg(windows)]
fn read_at(file: &File, buffer: &mut [u8], position: u64) -> std::io::Result<usize> {
    std::os::windows::fs::FileExt::seek_read(file, buffer, position)
}
