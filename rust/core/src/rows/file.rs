//! The file behind a block of rows, read in large pieces.
//!
//! Files are read rather than mapped: mapped pages count as the process's memory, a file that shrinks while it is mapped
//! kills the process, and not every filesystem supports maps.

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
    /// Whether data is dropped from the page cache after it was read.
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

    /// Bypasses the page cache from now on. This is for files so large that they would evict everything else from it and
    /// be evicted themselves before they are read again.
    pub(super) fn read_past_cache(&mut self) {
        self.past_cache = true;
        set_direct(&self.file, true);
    }

    /// The buffer size needed to read `rows`.
    pub(super) fn space(&self, rows: usize) -> usize {
        // Whole pages are read, so up to one more on either side.
        (rows * self.row_bytes).next_multiple_of(Buffer::PAGE) + Buffer::PAGE
    }

    /// Reads `rows` into the page-aligned `buffer`, and returns the offset at which they start in it.
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
                // Some filesystems refuse direct reads only when reading.
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

/// Advises the kernel on the use of `range`, `0..0` being the whole file. Affects nothing but time.
fn advise(file: &File, range: Range<u64>, advice: Advice) {
    #[cfg(target_os = "linux")]
    {
        use std::os::fd::AsRawFd;
        let advice = match advice {
            Advice::Sequential => libc::POSIX_FADV_SEQUENTIAL,
            Advice::DontNeed => libc::POSIX_FADV_DONTNEED,
        };
        let (start, length) = (range.start as libc::off_t, (range.end - range.start) as libc::off_t);
        // SAFETY: the call takes no pointers.
        unsafe { libc::posix_fadvise(file.as_raw_fd(), start, length, advice) };
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (file, range, advice);
}

/// Switches direct reads, which bypass the page cache, on or off, where the filesystem supports them.
fn set_direct(file: &File, direct: bool) {
    #[cfg(target_os = "linux")]
    {
        use std::os::fd::AsRawFd;
        // SAFETY: the call takes no pointers.
        unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFL, if direct { libc::O_DIRECT } else { 0 }) };
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (file, direct);
}

/// The machine's memory in bytes; None where it is not known.
pub(super) fn memory_bytes() -> Option<u64> {
    #[cfg(target_os = "linux")]
    {
        // SAFETY: the call takes no pointers.
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
