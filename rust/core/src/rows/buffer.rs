//! Memory that files are read into.

use std::alloc::{Layout, handle_alloc_error};
use std::ptr::NonNull;

/// Pages that the kernel maps, and reads into, as one. Thousands of small ones make a disk wait for its list of them.
const HUGE: usize = 2 << 20;

/// Bytes that start on a page, and on a huge one if there are enough of them. They grow, and keep no content when they do.
#[derive(Debug)]
pub(super) struct Buffer {
    first: NonNull<u8>,
    layout: Layout,
}

// SAFETY: it owns its memory, as a `Vec<u8>` does.
unsafe impl Send for Buffer {}
// SAFETY: as above.
unsafe impl Sync for Buffer {}

impl Buffer {
    /// The start of every buffer, and the step of every read past the page cache, is a multiple of this: the largest
    /// block of the disks there are.
    pub(super) const PAGE: usize = 4096;

    /// Of no bytes.
    pub(super) const fn new() -> Self {
        Buffer { first: NonNull::dangling(), layout: Layout::new::<()>() }
    }

    /// All bytes.
    pub(super) fn bytes(&self) -> &[u8] {
        // SAFETY: allocated and set in `grow`, or none.
        unsafe { std::slice::from_raw_parts(self.first.as_ptr(), self.layout.size()) }
    }

    /// At least `size` bytes of any content.
    pub(super) fn at_least(&mut self, size: usize) -> &mut [u8] {
        if size > self.layout.size() {
            self.grow(size);
        }
        // SAFETY: as in `bytes`, and borrowed alone.
        unsafe { std::slice::from_raw_parts_mut(self.first.as_ptr(), self.layout.size()) }
    }

    fn grow(&mut self, size: usize) {
        // Rounding up to whole huge pages at most doubles it.
        let page = if size < HUGE / 2 { Self::PAGE } else { HUGE };
        *self = Buffer::new();
        let Ok(layout) = Layout::from_size_align(size, page).map(|layout| layout.pad_to_align()) else {
            handle_alloc_error(Layout::new::<u8>())
        };
        // SAFETY: of more than no bytes.
        let Some(first) = NonNull::new(unsafe { std::alloc::alloc(layout) }) else { handle_alloc_error(layout) };
        #[cfg(target_os = "linux")]
        if page == HUGE {
            // SAFETY: changes the pages of memory that is all ours, not its content. Where it fails, they stay small.
            unsafe { libc::madvise(first.as_ptr().cast(), layout.size(), libc::MADV_HUGEPAGE) };
        }
        // SAFETY: `layout.size()` bytes were allocated.
        unsafe { first.write_bytes(0, layout.size()) };
        *self = Buffer { first, layout };
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.layout.size() > 0 {
            // SAFETY: allocated in `grow` with this layout.
            unsafe { std::alloc::dealloc(self.first.as_ptr(), self.layout) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_grow_and_start_on_a_page() {
        let mut buffer = Buffer::new();
        assert!(buffer.bytes().is_empty());
        for (size, page) in [(1, Buffer::PAGE), (5000, Buffer::PAGE), (HUGE - 1, HUGE), (HUGE + 1, HUGE), (3, HUGE)] {
            let bytes = buffer.at_least(size);
            assert!(bytes.len() >= size && bytes.as_ptr().addr().is_multiple_of(page));
            bytes.fill(7);
        }
        assert!(buffer.bytes().len() == 2 * HUGE && buffer.bytes().iter().all(|&byte| byte == 7));
    }
}
