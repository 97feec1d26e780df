//! Binding of `rsprune_core::runtime::rng`.

use numpy::{IntoPyArray, PyArray1};
use pyo3::prelude::*;
use rsprune_core::runtime::rng;

/// The hashes of the counters `start` to `stop`.
#[pyfunction]
#[pyo3(signature = (seed, start, stop, /))]
pub fn hash64(py: Python<'_>, seed: u64, start: u64, stop: u64) -> Bound<'_, PyArray1<u64>> {
    (start..stop).map(|counter| rng::hash64(seed, counter)).collect::<Vec<u64>>().into_pyarray(py)
}
