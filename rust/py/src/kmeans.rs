//! Binding of `rsprune_core::kmeans`.

use numpy::{IntoPyArray, PyArray1, PyArray2};
use pyo3::prelude::*;
use rsprune_core::kmeans::Options;

use crate::assign::{matrix, on_invalid};
use crate::gil;
use crate::rows::Rows;

/// The outcome of spherical K-means.
#[pyclass(frozen, get_all, module = "rsprune._core")]
pub struct Clustering {
    /// float32 (k, D).
    centroids: Py<PyArray2<f32>>,
    /// The objective after each iteration of the best run.
    objective: Py<PyArray1<f64>>,
    /// The rows that the best run started from.
    seeds: Py<PyArray1<i64>>,
    /// Invalid rows, ascending.
    invalid: Py<PyArray1<i64>>,
}

#[pyfunction]
#[pyo3(signature = (rows, /, *, k, seed, n_init, max_iter, tol, raise_invalid, threads))]
#[allow(clippy::too_many_arguments, reason = "the options of one Python function")]
pub fn kmeans(
    py: Python<'_>,
    rows: &Rows,
    k: usize,
    seed: u64,
    n_init: usize,
    max_iter: usize,
    tol: f64,
    raise_invalid: bool,
    threads: Option<usize>,
) -> PyResult<Clustering> {
    let options = Options { k, seed, n_init, max_iter, tol };
    let fit = gil::detach(py, threads, |par| {
        rsprune_core::kmeans::fit(rows.core(), &options, on_invalid(raise_invalid), par)
    })?;
    let numbers = |rows: Vec<usize>| rows.into_iter().map(|row| row as i64).collect::<Vec<i64>>().into_pyarray(py);
    let dim = fit.centroids.dim();
    Ok(Clustering {
        centroids: matrix(py, fit.centroids.into_vectors(), dim)?.unbind(),
        objective: fit.objective.into_pyarray(py).unbind(),
        seeds: numbers(fit.seeds).unbind(),
        invalid: numbers(fit.invalid).unbind(),
    })
}
