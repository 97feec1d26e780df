//! Hashes: the binding of `rsprune_core::runtime::rng`, and those of strings.

use std::hash::{DefaultHasher, Hasher};

use numpy::{IntoPyArray, PyArray1, PyReadonlyArray1};
use pyo3::prelude::*;
use rsprune_core::Error;
use rsprune_core::runtime::rng;

use crate::errors::to_py;

/// The hashes of the counters `start` to `stop`.
#[pyfunction]
#[pyo3(signature = (seed, start, stop, /))]
pub fn hash64(py: Python<'_>, seed: u64, start: u64, stop: u64) -> Bound<'_, PyArray1<u64>> {
    (start..stop).map(|counter| rng::hash64(seed, counter)).collect::<Vec<u64>>().into_pyarray(py)
}

/// The hash of each string of an Arrow array, of its bytes and the offsets where they begin and end. Other builds may
/// hash otherwise: these are no values to keep.
#[pyfunction]
#[pyo3(signature = (bytes, offsets, /))]
pub fn hash_strings<'py>(
    py: Python<'py>,
    bytes: PyReadonlyArray1<'py, u8>,
    offsets: PyReadonlyArray1<'py, i32>,
) -> PyResult<Bound<'py, PyArray1<u64>>> {
    let (bytes, offsets) = (bytes.as_slice()?, offsets.as_slice()?);
    let hash = |ends: &[i32]| {
        let string = bytes.get(usize::try_from(ends[0]).ok()?..usize::try_from(ends[1]).ok()?)?;
        let mut hasher = DefaultHasher::new();
        hasher.write(string);
        Some(hasher.finish())
    };
    let hashes: Option<Vec<u64>> = offsets.windows(2).map(hash).collect();
    let beyond = || to_py(py, Error::Argument(format!("offsets that {} bytes do not have", bytes.len())));
    Ok(hashes.ok_or_else(beyond)?.into_pyarray(py))
}
