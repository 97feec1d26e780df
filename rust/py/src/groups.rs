//! Binding of `rsprune_core::groups`.

use numpy::{IntoPyArray, PyArray1, PyArray2, PyArrayMethods, PyReadonlyArray1, PyReadonlyArray2};
use pyo3::prelude::*;
use rsprune_core::groups;

use crate::gil;
use crate::rows::Rows;

#[pyfunction]
#[pyo3(signature = (rows, /, *, threads))]
pub fn valid<'py>(py: Python<'py>, rows: &Rows, threads: Option<usize>) -> PyResult<Bound<'py, PyArray1<bool>>> {
    Ok(gil::detach(py, threads, |par| groups::valid(rows.core(), par))?.into_pyarray(py))
}

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
    let medians = gil::detach(py, threads, |par| groups::medians(rows.core(), labels, k, par))?;
    medians.into_pyarray(py).reshape([k, rows.core().dim()])
}

#[pyfunction]
#[pyo3(signature = (rows, labels, centres, /, *, threads))]
pub fn distances<'py>(
    py: Python<'py>,
    rows: &Rows,
    labels: PyReadonlyArray1<'py, i32>,
    centres: PyReadonlyArray2<'py, f64>,
    threads: Option<usize>,
) -> PyResult<Bound<'py, PyArray1<f64>>> {
    let (labels, centres) = (labels.as_slice()?, centres.as_slice()?);
    Ok(gil::detach(py, threads, |par| groups::distances(rows.core(), labels, centres, par))?.into_pyarray(py))
}

/// Row numbers, group by group, in the order in which they were chosen.
#[pyfunction]
#[pyo3(signature = (rows, labels, counts, /, *, threads))]
pub fn herd<'py>(
    py: Python<'py>,
    rows: &Rows,
    labels: PyReadonlyArray1<'py, i32>,
    counts: PyReadonlyArray1<'py, i64>,
    threads: Option<usize>,
) -> PyResult<Bound<'py, PyArray1<i64>>> {
    let labels = labels.as_slice()?;
    let counts: Vec<usize> = counts.as_slice()?.iter().map(|&count| count.max(0) as usize).collect();
    let chosen = gil::detach(py, threads, |par| groups::herd(rows.core(), labels, &counts, par))?;
    Ok(chosen.into_iter().flatten().map(|row| row as i64).collect::<Vec<i64>>().into_pyarray(py))
}

#[pyfunction]
#[pyo3(signature = (a, b, /, *, threads))]
pub fn dots<'py>(py: Python<'py>, a: &Rows, b: &Rows, threads: Option<usize>) -> PyResult<Bound<'py, PyArray2<f64>>> {
    let dots = gil::detach(py, threads, |par| groups::dots(a.core(), b.core(), par))?;
    dots.into_pyarray(py).reshape([a.core().len(), b.core().len()])
}

#[pyfunction]
#[pyo3(signature = (values, temperature, /))]
pub fn softmax<'py>(
    py: Python<'py>,
    values: PyReadonlyArray1<'py, f64>,
    temperature: f64,
) -> PyResult<Bound<'py, PyArray1<f64>>> {
    Ok(groups::softmax(values.as_slice()?, temperature).into_pyarray(py))
}
