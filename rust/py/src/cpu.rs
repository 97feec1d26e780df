//! Binding of `rsprune_core::runtime::cpu`.

use pyo3::prelude::*;
use pyo3::types::PyDict;
use rsprune_core::runtime::cpu;

use crate::errors::to_py;

/// By name whether this CPU has each instruction set, and as `level` which kernels run.
#[pyfunction]
pub fn cpu_features(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    let features = PyDict::new(py);
    for &(name, present) in cpu::features() {
        features.set_item(name, present)?;
    }
    let level = cpu::level().map_err(|error| to_py(py, error))?;
    features.set_item("level", level.name())?;
    Ok(features)
}
