//! What the fuzz targets share: an allocator that counts.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Images of this many pixels are decoded at most.
pub const MAX_PIXELS: u64 = 4_000_000;

/// No input may take more than this: a small file of a hundred bands takes four times as many samples as pixels, of two
/// bytes, and what it is unpacked from besides.
const MOST: usize = 256 << 20;

/// The system's allocator, which ends the process once more than 256 MiB are in use.
pub struct Counting;

static IN_USE: AtomicUsize = AtomicUsize::new(0);

fn take(bytes: usize) {
    if IN_USE.fetch_add(bytes, Ordering::Relaxed) + bytes > MOST {
        // Panicking would allocate.
        std::process::abort();
    }
}

// SAFETY: all calls go to the system's allocator as they come.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        take(layout.size());
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        take(layout.size());
        // SAFETY: the caller's promise.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        IN_USE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(place, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;
