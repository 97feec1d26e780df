//! Binding of `rsprune_core::herding`.

use numpy::{IntoPyArray, PyArray1, PyReadonlyArray1};
use pyo3::prelude::*;
use rsprune_core::herding;

use crate::gil;
use crate::rows::Rows;

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
    let chosen = gil::detach(py, threads, |par| herding::herd(rows.core(), labels, &counts, par))?;
    Ok(chosen.into_iter().flatten().map(|row| row as i64).collect::<Vec<i64>>().into_pyarray(py))
}
