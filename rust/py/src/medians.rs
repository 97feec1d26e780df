//! Binding of `rsprune_core::medians`.

use numpy::{IntoPyArray, PyArray1, PyArray2, PyArrayMethods, PyReadonlyArray1, PyReadonlyArray2};
use pyo3::prelude::*;

use crate::gil;
use crate::rows::Rows;

#[pyfunction]
#[pyo3(signature = (rows, labels, /, *, k, threads))]
pub fn medians<'py>(
    py: Python<'py>,
    rows: &Rows,
    labels: PyReadonlyArray1<'py, i32>,
    k: usize,
    threads: Option<usize>,
) -> PyResult<Bound<'py, PyArray2<f64>>> {
    let labels = labels.as_slice()?;
    let medians = gil::detach(py, threads, |par| rsprune_core::medians::medians(rows.core(), labels, k, par))?;
    medians.into_pyarray(py).reshape([k, rows.core().dim()])
}

#[pyfunction]
#[pyo3(signature = (rows, labels, centers, /, *, threads))]
pub fn distances<'py>(
    py: Python<'py>,
    rows: &Rows,
    labels: PyReadonlyArray1<'py, i32>,
    centers: PyReadonlyArray2<'py, f64>,
    threads: Option<usize>,
) -> PyResult<Bound<'py, PyArray1<f64>>> {
    let (labels, centers) = (labels.as_slice()?, centers.as_slice()?);
    Ok(gil::detach(py, threads, |par| rsprune_core::medians::distances(rows.core(), labels, centers, par))?
        .into_pyarray(py))
}
