//! Memory for pixels: asked for and possibly refused, and shared by all threads.
//!
//! A file of a megabyte can declare pixels of a gigabyte, and no allocator's failure may end the process: buffers whose size
//! a file decides come from here. Large ones are counted, over all threads, and an image waits while others hold
//! [`SHARED`] bytes; it never waits for itself, however large it is.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::Result;
use crate::error::ImageError;

/// Bytes of large buffers that all images together may hold before another one waits.
pub const SHARED: u64 = 2 << 30;

/// Buffers below this size are not counted.
const LARGE: u64 = 16 << 20;

static IN_USE: Mutex<u64> = Mutex::new(0);
static GIVEN_BACK: Condvar = Condvar::new();

/// The memory that one image has been given.
#[derive(Debug, Default)]
pub struct Memory {
    held: u64,
}

impl Memory {
    /// Counts `bytes` more. The first large ones of an image wait until others have given back enough.
    pub fn claim(&mut self, bytes: usize) {
        // What no machine has is refused when it is asked for; here it must not overflow the sum.
        let bytes = (bytes as u64).min(1 << 50);
        if bytes < LARGE {
            return;
        }
        let mut in_use = in_use();
        // Whoever holds some already does not wait: two such images could wait for each other.
        while self.held == 0 && *in_use > 0 && *in_use + bytes > SHARED {
            in_use = GIVEN_BACK.wait(in_use).unwrap_or_else(PoisonError::into_inner);
        }
        *in_use += bytes;
        self.held += bytes;
    }

    /// Gives back what the image has been given; its buffers are gone, or will be in a moment.
    pub fn release(&mut self) {
        if self.held > 0 {
            *in_use() -= std::mem::take(&mut self.held);
            GIVEN_BACK.notify_all();
        }
    }

    /// A buffer of `length` zeros.
    ///
    /// # Errors
    ///
    /// [`ImageError::OutOfMemory`].
    pub fn zeroed<T: Copy + Default>(&mut self, length: usize) -> Result<Vec<T>> {
        let mut buffer = Vec::new();
        self.resize(&mut buffer, length, T::default())?;
        Ok(buffer)
    }

    /// As [`resize`], and counted.
    ///
    /// # Errors
    ///
    /// [`ImageError::OutOfMemory`].
    pub fn resize<T: Copy>(&mut self, buffer: &mut Vec<T>, length: usize, value: T) -> Result<()> {
        self.claim(length.saturating_mul(size_of::<T>()));
        resize(buffer, length, value)
    }

    /// Fails unless `bytes` can be had, which a decoder that does not ask is about to take.
    ///
    /// # Errors
    ///
    /// [`ImageError::OutOfMemory`].
    pub fn probe(&mut self, bytes: usize) -> Result<()> {
        self.claim(bytes);
        let mut buffer: Vec<u8> = Vec::new();
        buffer.try_reserve_exact(bytes).map_err(|_| ImageError::OutOfMemory { bytes: bytes as u64 })
    }
}

/// Makes a buffer `length` long. What is there already stays, as far as it fits; `value` follows.
///
/// # Errors
///
/// [`ImageError::OutOfMemory`].
pub fn resize<T: Copy>(buffer: &mut Vec<T>, length: usize, value: T) -> Result<()> {
    let bytes = length.saturating_mul(size_of::<T>()) as u64;
    let missing = length.saturating_sub(buffer.len());
    buffer.try_reserve_exact(missing).map_err(|_| ImageError::OutOfMemory { bytes })?;
    buffer.resize(length, value);
    Ok(())
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.release();
    }
}

fn in_use() -> MutexGuard<'static, u64> {
    IN_USE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;
    use std::time::Duration;

    use super::*;

    const HALF: usize = (SHARED / 2) as usize;

    #[test]
    fn images_wait_for_each_other_but_not_for_themselves() {
        let mut alone = Memory::default();
        alone.claim(3 * HALF);
        alone.claim(HALF);
        let reached = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    let mut other = Memory::default();
                    other.claim(LARGE as usize - 1);
                    reached.fetch_add(1, Ordering::SeqCst);
                    other.claim(HALF);
                    reached.fetch_add(10, Ordering::SeqCst);
                });
            }
            while reached.load(Ordering::SeqCst) < 3 {
                thread::yield_now();
            }
            thread::sleep(Duration::from_millis(20));
            assert_eq!(reached.load(Ordering::SeqCst), 3);
            alone.release();
        });
        assert_eq!(reached.load(Ordering::SeqCst), 33);
    }

    #[test]
    fn more_than_there_is_is_an_error() {
        let mut memory = Memory::default();
        let bytes = isize::MAX as u64;
        assert_eq!(memory.probe(bytes as usize), Err(ImageError::OutOfMemory { bytes }));
        assert_eq!(memory.zeroed::<u64>(1 << 61).unwrap_err(), ImageError::OutOfMemory { bytes: u64::MAX });
        let mut buffer = vec![7u8, 8, 9];
        memory.resize(&mut buffer, 5, 0).unwrap();
        assert_eq!(buffer, [7, 8, 9, 0, 0]);
        resize(&mut buffer, 2, 0).unwrap();
        assert_eq!(buffer, [7, 8]);
    }
}
