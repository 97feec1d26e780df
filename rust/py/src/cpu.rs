//! Binding of `rsprune_core::runtime::cpu`.

use pyo3::prelude::*;
use pyo3::types::PyDict;
use rsprune_core::runtime::cpu;

use crate::errors::to_py;

/// By name whether this CPU has each instruction set, as `level` the highest that kernels may use, and as `kernels` which
/// instance of each kernel has run last in this process.
#[pyfunction]
pub fn cpu_features(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    let features = PyDict::new(py);
    for &(name, present) in cpu::features() {
        features.set_item(name, present)?;
    }
    let level = cpu::level().map_err(|error| to_py(py, error))?;
    features.set_item("level", level.name())?;
    let kernels = PyDict::new(py);
    for (kernel, level) in cpu::kernels() {
        kernels.set_item(kernel, level.name())?;
    }
    features.set_item("kernels", kernels)?;
    Ok(features)
}
