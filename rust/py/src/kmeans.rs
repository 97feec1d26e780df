//! Binding of `rsprune_core::kmeans`.

use numpy::{IntoPyArray, PyArray1, PyArray2};
use pyo3::prelude::*;
use rsprune_core::kmeans::{self, Options};

use crate::assign::{matrix, on_invalid};
use crate::door;
use crate::rows::Rows;

/// Centroids, the objective after each iteration, the rows that the best run started from, the invalid rows.
type Fit<'py> =
    (Bound<'py, PyArray2<f32>>, Bound<'py, PyArray1<f64>>, Bound<'py, PyArray1<i64>>, Bound<'py, PyArray1<i64>>);

#[pyfunction]
#[pyo3(signature = (rows, /, *, k, seed, n_init, max_iter, tol, raise_invalid, threads))]
#[allow(clippy::too_many_arguments, reason = "the options of one Python function")]
pub fn fit_rows<'py>(
    py: Python<'py>,
    rows: &Rows,
    k: usize,
    seed: u64,
    n_init: usize,
    max_iter: usize,
    tol: f64,
    raise_invalid: bool,
    threads: Option<usize>,
) -> PyResult<Fit<'py>> {
    let options = Options { k, seed, n_init, max_iter, tol };
    let fit = door::run(py, threads, |par| kmeans::fit(rows.core(), &options, on_invalid(raise_invalid), par))?;
    let numbers = |rows: Vec<usize>| rows.into_iter().map(|row| row as i64).collect::<Vec<i64>>().into_pyarray(py);
    let dim = fit.centroids.dim();
    Ok((
        matrix(py, fit.centroids.into_vectors(), dim)?,
        fit.objective.into_pyarray(py),
        numbers(fit.seeds),
        numbers(fit.invalid),
    ))
}
