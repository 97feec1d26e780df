//! Binding of `rsprune_core::assign`.

use numpy::{IntoPyArray, PyArray1, PyArray2, PyArrayMethods};
use pyo3::prelude::*;
use rsprune_core::Error;
use rsprune_core::assign::{OnInvalid, Options};

use crate::gil;
use crate::rows::Rows;

type Labels<'py> = (Bound<'py, PyArray1<i32>>, Bound<'py, PyArray1<f32>>);

/// Unit centroids that have been validated.
#[pyclass(frozen, module = "rsprune._core")]
pub struct Centroids(rsprune_core::assign::Centroids);

#[pymethods]
impl Centroids {
    #[new]
    #[pyo3(signature = (vectors, /))]
    fn new(py: Python<'_>, vectors: &Rows) -> PyResult<Self> {
        gil::detach(py, Some(1), |_| rsprune_core::assign::Centroids::new(vectors.core())).map(Centroids)
    }

    #[getter]
    fn shape(&self) -> (usize, usize) {
        (self.0.len(), self.0.dim())
    }

    /// The number of vectors that were not of unit length as given.
    #[getter]
    fn normalized(&self) -> usize {
        self.0.normalized()
    }

    /// A copy of the vectors.
    fn vectors<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyArray2<f32>>> {
        matrix(py, self.0.vectors().to_vec(), self.0.dim())
    }
}

/// Reshapes numbers in C order to a matrix, without a copy.
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
pub fn assign<'py>(
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
    let assigned = gil::detach(py, threads, |par| {
        let on_invalid = on_invalid(raise_invalid);
        let assigned = rsprune_core::assign::assign(rows.core(), &centroids.0, options, on_invalid, par);
        // Rows that come in several calls are numbered consecutively.
        assigned.map_err(|error| match error {
            Error::InvalidRow { row, why } => Error::InvalidRow { row: first_row + row, why },
            error => error,
        })
    })?;
    Ok((assigned.labels.into_pyarray(py), assigned.similarity.into_pyarray(py)))
}
