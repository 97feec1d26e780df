//! Binding of `rsprune_core::math`.

use numpy::{IntoPyArray, PyArray1, PyReadonlyArray1};
use pyo3::prelude::*;
use rsprune_core::math;

#[pyfunction]
#[pyo3(signature = (values, temperature, /))]
pub fn softmax<'py>(
    py: Python<'py>,
    values: PyReadonlyArray1<'py, f64>,
    temperature: f64,
) -> PyResult<Bound<'py, PyArray1<f64>>> {
    Ok(math::softmax(values.as_slice()?, temperature).into_pyarray(py))
}
