//! Binding of `rsprune_core::cpu`.

use pyo3::prelude::*;
use pyo3::types::PyDict;

#[pyfunction]
pub fn cpu_features(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    let features = PyDict::new(py);
    for &(name, present) in rsprune_core::cpu::features() {
        features.set_item(name, present)?;
    }
    Ok(features)
}
