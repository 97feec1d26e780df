//! Releasing the GIL, in one place.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

use pyo3::prelude::*;
use rsprune_core::runtime::cpu;
use rsprune_core::{Par, Result};

use crate::errors::to_py;

/// How often a waiting call checks for Ctrl-C: often enough to feel immediate, seldom enough to cost nothing.
const SIGNAL_PERIOD: Duration = Duration::from_millis(50);

/// Runs `work` without the GIL on `threads` threads, raises its error as a Python exception, and stops it on Ctrl-C.
///
/// Every call into the core that can take longer than a millisecond goes through here.
pub fn detach<T: Send>(
    py: Python<'_>,
    threads: Option<usize>,
    work: impl FnOnce(&Par<'_>) -> Result<T> + Send,
) -> PyResult<T> {
    let cancel = Arc::new(AtomicBool::new(false));
    let mut interrupt = None;
    let outcome = py.detach(|| {
        std::thread::scope(|scope| {
            let (done, finished) = sync_channel(1);
            let cancel = &cancel;
            let worker = scope.spawn(move || {
                // A wrong RSPRUNE_CPU is an error of every call, even of those whose kernels could not report it.
                let outcome = cpu::level().and_then(|_| work(&Par::cancellable(threads, cancel)));
                // The receiver outlives the worker: it leaves its loop only once something was sent or dropped.
                let _ = done.send(outcome);
            });
            loop {
                match finished.recv_timeout(SIGNAL_PERIOD) {
                    Ok(outcome) => return Some(outcome),
                    Err(RecvTimeoutError::Disconnected) => {
                        // The worker panicked: hand its panic on, PyO3 raises it as PanicException.
                        if let Err(panic) = worker.join() {
                            std::panic::resume_unwind(panic);
                        }
                        return None;
                    }
                    Err(RecvTimeoutError::Timeout) => {
                        if let Err(signal) = Python::attach(|py| py.check_signals()) {
                            interrupt = Some(signal);
                            cancel.store(true, Ordering::Relaxed);
                        }
                    }
                }
            }
        })
    });
    match (interrupt, outcome) {
        (Some(signal), _) => Err(signal),
        (None, Some(outcome)) => outcome.map_err(|error| to_py(py, error)),
        (None, None) => Err(to_py(py, rsprune_core::Error::Interrupted)),
    }
}
