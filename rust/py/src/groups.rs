//! Binding of `rsprune_core::groups`.

use numpy::{IntoPyArray, PyArray1};
use pyo3::prelude::*;
use rsprune_core::groups;

use crate::door;
use crate::rows::Rows;

#[pyfunction]
#[pyo3(signature = (rows, /, *, threads))]
pub fn valid_rows<'py>(py: Python<'py>, rows: &Rows, threads: Option<usize>) -> PyResult<Bound<'py, PyArray1<bool>>> {
    Ok(door::run(py, threads, |par| groups::valid(rows.core(), par))?.into_pyarray(py))
}
