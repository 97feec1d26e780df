//! Threads: the one place that knows rayon.
//!
//! Work is cut into items by the caller, never by the number of threads, so that results do not depend on it. A pool
//! lives for one call: a process that forks between two calls inherits no half-dead threads.

use std::cell::RefCell;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use rayon::BroadcastContext;
use rayon::prelude::*;

use crate::error::{Error, Result};

/// The number of threads that a call may use, and the flag by which its caller cancels it.
pub struct Par<'a> {
    threads: usize,
    cancel: Option<&'a Arc<AtomicBool>>,
}

thread_local! {
    /// The flag of the call that this thread works for.
    static CANCEL: RefCell<Option<Arc<AtomicBool>>> = const { RefCell::new(None) };
}

/// Whether the caller of [`Par::map`], for which this thread works on an item, has asked to stop. An item that may take
/// seconds looks from time to time, however deep it is in its work.
pub fn cancelled() -> bool {
    CANCEL.with_borrow(|cancel| cancel.as_ref().is_some_and(|cancel| cancel.load(Ordering::Relaxed)))
}

impl Par<'static> {
    /// `threads` threads, or all cores, that nobody interrupts.
    pub fn new(threads: Option<usize>) -> Self {
        let all = || std::thread::available_parallelism().map_or(1, |n| n.get());
        Par { threads: threads.filter(|&n| n > 0).unwrap_or_else(all), cancel: None }
    }
}

impl<'a> Par<'a> {
    /// `threads` threads, or all cores, that stop soon after `cancel` is set.
    pub fn cancellable(threads: Option<usize>, cancel: &'a Arc<AtomicBool>) -> Self {
        Par { cancel: Some(cancel), ..Par::new(threads) }
    }

    /// The number of threads in use.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Fails with [`Error::Interrupted`] once the caller has asked to stop.
    pub fn check(&self) -> Result<()> {
        let cancelled = self.cancel.is_some_and(|cancel| cancel.load(Ordering::Relaxed));
        if cancelled { Err(Error::Interrupted) } else { Ok(()) }
    }

    /// `f(scratch, i)` for every `i < n`, in index order in the answer. Each thread makes its scratch with `init`.
    pub fn map<S, T: Send>(
        &self,
        n: usize,
        init: impl Fn() -> S + Sync + Send,
        f: impl Fn(&mut S, usize) -> Result<T> + Sync + Send,
    ) -> Result<Vec<T>> {
        let init = || {
            if self.cancel.is_some() {
                CANCEL.set(self.cancel.cloned());
            }
            init()
        };
        let one = |scratch: &mut S, i: usize| self.check().and_then(|()| f(scratch, i));
        if self.threads == 1 || n <= 1 {
            let mut scratch = init();
            return (0..n).map(|i| one(&mut scratch, i)).collect();
        }
        self.pool()?.install(|| (0..n).into_par_iter().map_init(init, one).collect())
    }

    /// `f(scratch, i, block)` for the `i`-th block of `size` elements of `out`.
    pub fn for_blocks<S, T: Send>(
        &self,
        out: &mut [T],
        size: usize,
        init: impl Fn() -> S + Sync + Send,
        f: impl Fn(&mut S, usize, &mut [T]) -> Result<()> + Sync + Send,
    ) -> Result<()> {
        let one = |scratch: &mut S, (i, block): (usize, &mut [T])| self.check().and_then(|()| f(scratch, i, block));
        if self.threads == 1 || out.len() <= size {
            let mut scratch = init();
            return out.chunks_mut(size).enumerate().try_for_each(|item| one(&mut scratch, item));
        }
        self.pool()?.install(|| out.par_chunks_mut(size).enumerate().try_for_each_init(init, one))
    }

    /// As [`Par::for_blocks`], for blocks whose input `fetch(scratch, i, length)` waits for. Three times as many threads fetch
    /// blocks, in order, so that at any time [`Par::threads`] of them can work while the others wait.
    pub fn for_prefetched_blocks<S, T: Send>(
        &self,
        out: &mut [T],
        size: usize,
        init: impl Fn() -> S + Sync + Send,
        fetch: impl Fn(&mut S, usize, usize) -> Result<()> + Sync + Send,
        f: impl Fn(&mut S, usize, &mut [T]) -> Result<()> + Sync + Send,
    ) -> Result<()> {
        let threads = (3 * self.threads).min(out.len().div_ceil(size));
        let blocks = Mutex::new(out.chunks_mut(size).enumerate());
        let failed = AtomicBool::new(false);
        let semaphore = Semaphore { free: Mutex::new(self.threads), changed: Condvar::new() };
        let one = |scratch: &mut S, i: usize, block: &mut [T]| {
            self.check()?;
            fetch(scratch, i, block.len())?;
            let _permit = semaphore.acquire();
            f(scratch, i, block)
        };
        let all = |_: BroadcastContext<'_>| {
            let mut scratch = init();
            while !failed.load(Ordering::Relaxed) {
                let Some((i, block)) = lock(&blocks).next() else { break };
                one(&mut scratch, i, block).inspect_err(|_| failed.store(true, Ordering::Relaxed))?;
            }
            Ok(())
        };
        pool(threads)?.broadcast(all).into_iter().collect()
    }

    fn pool(&self) -> Result<rayon::ThreadPool> {
        pool(self.threads)
    }
}

/// The elements of the `i`-th of the blocks of `size` that `n` elements are cut into.
pub(crate) fn block_range(i: usize, size: usize, n: usize) -> Range<usize> {
    i * size..n.min((i + 1) * size)
}

fn pool(threads: usize) -> Result<rayon::ThreadPool> {
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .thread_name(|i| format!("rsprune-{i}"))
        .build()
        .map_err(|e| Error::Threads { threads, why: e.to_string() })
}

/// A counting semaphore: the number of threads that may still start to work.
struct Semaphore {
    free: Mutex<usize>,
    changed: Condvar,
}

/// The permission to work, which is given back when it is dropped.
struct Permit<'t>(&'t Semaphore);

impl Semaphore {
    fn acquire(&self) -> Permit<'_> {
        let free = self.changed.wait_while(lock(&self.free), |free| *free == 0);
        *free.unwrap_or_else(PoisonError::into_inner) -= 1;
        Permit(self)
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        *lock(&self.0.free) += 1;
        self.0.changed.notify_one();
    }
}

/// Locks a mutex whether or not a thread has panicked with it: what it guards is always consistent.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn map_keeps_index_order_at_any_thread_count() {
        for threads in [1, 2, 7] {
            let got = Par::new(Some(threads)).map(1000, || (), |(), i| Ok(i * i)).unwrap();
            assert_eq!(got, (0..1000).map(|i| i * i).collect::<Vec<_>>());
        }
    }

    #[test]
    fn blocks_cover_every_element_once() {
        for threads in [1, 3] {
            let mut out = vec![0usize; 1001];
            let fill = |(): &mut (), i: usize, block: &mut [usize]| {
                block.iter_mut().enumerate().for_each(|(j, x)| *x += i * 16 + j);
                Ok(())
            };
            Par::new(Some(threads)).for_blocks(&mut out, 16, || (), fill).unwrap();
            assert_eq!(out, (0..1001).collect::<Vec<_>>());
        }
    }

    #[test]
    fn fetched_blocks_cover_every_element_once() {
        for threads in [1, 3] {
            let mut out = vec![0usize; 1001];
            let fetch = |fetched: &mut (usize, usize), i: usize, length: usize| {
                *fetched = (i, length);
                Ok(())
            };
            let fill = |fetched: &mut (usize, usize), i: usize, block: &mut [usize]| {
                assert_eq!(*fetched, (i, block.len()));
                block.iter_mut().enumerate().for_each(|(j, x)| *x += i * 16 + j);
                Ok(())
            };
            Par::new(Some(threads)).for_prefetched_blocks(&mut out, 16, || (0, 0), fetch, fill).unwrap();
            assert_eq!(out, (0..1001).collect::<Vec<_>>());
        }
    }

    #[test]
    fn no_more_threads_work_than_may() {
        use std::sync::atomic::AtomicUsize;
        for threads in [1, 2] {
            let working = AtomicUsize::new(0);
            let work = |(): &mut (), _: usize, _: &mut [u8]| {
                assert!(working.fetch_add(1, Ordering::SeqCst) < threads);
                std::thread::sleep(std::time::Duration::from_millis(1));
                working.fetch_sub(1, Ordering::SeqCst);
                Ok(())
            };
            Par::new(Some(threads)).for_prefetched_blocks(&mut [0; 40], 1, || (), |(), _, _| Ok(()), work).unwrap();
        }
    }

    #[test]
    fn a_block_that_cannot_be_fetched_ends_it() {
        for threads in [1, 2] {
            let fetch =
                |(): &mut (), i: usize, _: usize| if i == 3 { Err(Error::Empty("three".into())) } else { Ok(()) };
            let got = Par::new(Some(threads)).for_prefetched_blocks(&mut [0u8; 10], 1, || (), fetch, |(), _, _| Ok(()));
            assert!(matches!(got, Err(Error::Empty(_))));
        }
    }

    #[test]
    fn a_set_flag_interrupts() {
        let cancel = Arc::new(AtomicBool::new(true));
        for threads in [1, 2] {
            let par = Par::cancellable(Some(threads), &cancel);
            assert!(matches!(par.map(10, || (), |(), i| Ok(i)), Err(Error::Interrupted)));
            let got = par.for_prefetched_blocks(&mut [0u8; 10], 1, || (), |(), _, _| Ok(()), |(), _, _| Ok(()));
            assert!(matches!(got, Err(Error::Interrupted)));
        }
    }

    #[test]
    fn an_item_can_tell_that_its_caller_wants_to_stop() {
        for threads in [1, 2] {
            let cancel = Arc::new(AtomicBool::new(false));
            let par = Par::cancellable(Some(threads), &cancel);
            let item = |(): &mut (), _: usize| {
                let before = cancelled();
                cancel.store(true, Ordering::Relaxed);
                Ok((before, cancelled()))
            };
            // On a thread that ends, as those of a pool do: the flag stays with the thread.
            let seen = std::thread::scope(|scope| scope.spawn(|| par.map(1, || (), item)).join().unwrap());
            assert_eq!(seen.unwrap(), [(false, true)]);
        }
        assert!(!cancelled());
    }

    #[test]
    fn the_first_error_comes_back() {
        let got = Par::new(Some(2)).map(
            10,
            || (),
            |(), i| {
                if i == 3 { Err(Error::Empty("three".into())) } else { Ok(i) }
            },
        );
        assert!(matches!(got, Err(Error::Empty(_))));
    }
}
