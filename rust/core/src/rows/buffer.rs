//! Page-aligned memory for reading files.

use std::alloc::{Layout, handle_alloc_error};
use std::ptr::NonNull;

/// A huge page, which the kernel maps and reads into as one; a read into thousands of small pages is slower.
const HUGE: usize = 2 << 20;

/// Page-aligned bytes, aligned to huge pages if there are enough of them. Growing discards the content.
#[derive(Debug)]
pub(super) struct Buffer {
    first: NonNull<u8>,
    layout: Layout,
}

// SAFETY: the buffer owns its memory, as a `Vec<u8>` does.
unsafe impl Send for Buffer {}
// SAFETY: a shared buffer gives out shared slices only, as a `Vec<u8>` does.
unsafe impl Sync for Buffer {}

impl Buffer {
    /// Alignment of every buffer and of every read past the page cache: the largest block size in use on disks.
    pub(super) const PAGE: usize = 4096;

    /// An empty buffer.
    pub(super) const fn new() -> Self {
        Buffer { first: NonNull::dangling(), layout: Layout::new::<()>() }
    }

    /// The whole content.
    pub(super) fn bytes(&self) -> &[u8] {
        // SAFETY: `grow` has allocated and zeroed these bytes; an empty buffer has none.
        unsafe { std::slice::from_raw_parts(self.first.as_ptr(), self.layout.size()) }
    }

    /// At least `size` bytes of unspecified content.
    pub(super) fn at_least(&mut self, size: usize) -> &mut [u8] {
        if size > self.layout.size() {
            self.grow(size);
        }
        // SAFETY: as in `bytes`; `&mut self` makes the borrow unique.
        unsafe { std::slice::from_raw_parts_mut(self.first.as_ptr(), self.layout.size()) }
    }

    fn grow(&mut self, size: usize) {
        // Rounding up to whole huge pages at most doubles the size.
        let page = if size < HUGE / 2 { Self::PAGE } else { HUGE };
        *self = Buffer::new();
        let Ok(layout) = Layout::from_size_align(size, page).map(|layout| layout.pad_to_align()) else {
            handle_alloc_error(Layout::new::<u8>())
        };
        // SAFETY: the layout has a size above 0.
        let Some(first) = NonNull::new(unsafe { std::alloc::alloc(layout) }) else { handle_alloc_error(layout) };
        #[cfg(target_os = "linux")]
        if page == HUGE {
            // SAFETY: this advises on pages that this buffer owns, and leaves their content alone. If it fails, they stay small.
            unsafe { libc::madvise(first.as_ptr().cast(), layout.size(), libc::MADV_HUGEPAGE) };
        }
        // SAFETY: `layout.size()` bytes have just been allocated.
        unsafe { first.write_bytes(0, layout.size()) };
        *self = Buffer { first, layout };
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.layout.size() > 0 {
            // SAFETY: `grow` allocated this memory with this layout.
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
