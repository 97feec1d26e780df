//! Threads: the one place that knows rayon.
//!
//! Work is cut into items by the caller, never by the number of threads, so that results do not depend on it. A pool
//! lives for one call: a process that forks between two calls inherits no half-dead threads.

use std::sync::atomic::{AtomicBool, Ordering};

use rayon::prelude::*;

use crate::error::{Error, Result};

/// How many threads a call may use, and whether its caller still wants the answer.
pub struct Par<'a> {
    threads: usize,
    cancel: &'a AtomicBool,
}

static NEVER: AtomicBool = AtomicBool::new(false);

impl Par<'static> {
    /// `threads` threads, or all cores, that nobody interrupts.
    pub fn new(threads: Option<usize>) -> Self {
        Par::cancellable(threads, &NEVER)
    }
}

impl<'a> Par<'a> {
    /// `threads` threads, or all cores, that stop soon after `cancel` is set.
    pub fn cancellable(threads: Option<usize>, cancel: &'a AtomicBool) -> Self {
        let all = || std::thread::available_parallelism().map_or(1, |n| n.get());
        Par { threads: threads.filter(|&n| n > 0).unwrap_or_else(all), cancel }
    }

    /// The number of threads in use.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Fails with [`Error::Interrupted`] once the caller has asked to stop.
    pub fn check(&self) -> Result<()> {
        if self.cancel.load(Ordering::Relaxed) { Err(Error::Interrupted) } else { Ok(()) }
    }

    /// `f(scratch, i)` for every `i < n`, in index order in the answer. Each thread makes its scratch with `init`.
    pub fn map<S, T: Send>(
        &self,
        n: usize,
        init: impl Fn() -> S + Sync + Send,
        f: impl Fn(&mut S, usize) -> Result<T> + Sync + Send,
    ) -> Result<Vec<T>> {
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

    fn pool(&self) -> Result<rayon::ThreadPool> {
        rayon::ThreadPoolBuilder::new()
            .num_threads(self.threads)
            .thread_name(|i| format!("rsprune-{i}"))
            .build()
            .map_err(|e| Error::Threads { threads: self.threads, why: e.to_string() })
    }
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
    fn a_set_flag_interrupts() {
        let cancel = AtomicBool::new(true);
        for threads in [1, 2] {
            let got = Par::cancellable(Some(threads), &cancel).map(10, || (), |(), i| Ok(i));
            assert!(matches!(got, Err(Error::Interrupted)));
        }
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
