//! Binding of `rsprune_core::assign`.

use numpy::{IntoPyArray, PyArray1, PyArray2, PyArrayMethods};
use pyo3::prelude::*;
use rsprune_core::Error;
use rsprune_core::assign::{self, OnInvalid, Options};

use crate::door;
use crate::rows::Rows;

type Labels<'py> = (Bound<'py, PyArray1<i32>>, Bound<'py, PyArray1<f32>>);

/// Unit centroids, checked.
#[pyclass(frozen, module = "rsprune._core")]
pub struct Centroids(assign::Centroids);

#[pymethods]
impl Centroids {
    #[new]
    #[pyo3(signature = (vectors, /))]
    fn new(py: Python<'_>, vectors: &Rows) -> PyResult<Self> {
        door::run(py, Some(1), |_| assign::Centroids::new(vectors.core())).map(Centroids)
    }

    #[getter]
    fn shape(&self) -> (usize, usize) {
        (self.0.len(), self.0.dim())
    }

    /// How many were not of unit length when they came.
    #[getter]
    fn normalized(&self) -> usize {
        self.0.normalized()
    }

    /// A copy of the vectors.
    fn vectors<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyArray2<f32>>> {
        matrix(py, self.0.vectors().to_vec(), self.0.dim())
    }
}

/// A vector of numbers in C order as a matrix, without a copy.
pub fn matrix(py: Python<'_>, values: Vec<f32>, dim: usize) -> PyResult<Bound<'_, PyArray2<f32>>> {
    let shape = [values.len() / dim, dim];
    values.into_pyarray(py).reshape(shape)
}

/// "raise" or "exclude", which the Python side has checked.
pub fn on_invalid(raise: bool) -> OnInvalid {
    if raise { OnInvalid::Raise } else { OnInvalid::Exclude }
}

#[pyfunction]
#[pyo3(signature = (rows, centroids, /, *, normalize, raise_invalid, first_row, block_rows, threads))]
#[allow(clippy::too_many_arguments, reason = "the options of one Python function")]
pub fn assign_rows<'py>(
    py: Python<'py>,
    rows: &Rows,
    centroids: &Centroids,
    normalize: bool,
    raise_invalid: bool,
    first_row: usize,
    block_rows: Option<usize>,
    threads: Option<usize>,
) -> PyResult<Labels<'py>> {
    let options = Options { normalize, block_rows, ..Options::default() };
    let assigned = door::run(py, threads, |par| {
        let assigned = assign::assign(rows.core(), &centroids.0, options, on_invalid(raise_invalid), par);
        // Rows that come in several calls are numbered through.
        assigned.map_err(|error| match error {
            Error::InvalidRow { row, why } => Error::InvalidRow { row: first_row + row, why },
            error => error,
        })
    })?;
    Ok((assigned.labels.into_pyarray(py), assigned.similarity.into_pyarray(py)))
}
