//! Binding of `rsprune_core::rows`: NumPy arrays are borrowed, never copied.

use std::ops::Range;
use std::path::PathBuf;

use numpy::{
    IntoPyArray, PyArray1, PyArray2, PyArrayDescrMethods, PyArrayMethods, PyReadonlyArray1, PyUntypedArray,
    PyUntypedArrayMethods,
};
use pyo3::prelude::*;
use rsprune_core::Error;
use rsprune_core::rows::{self, Block, Dtype};

use crate::errors::to_py;
use crate::gil;

/// (N, D) rows made of arrays and `.npy` files, in their order.
#[pyclass(frozen, module = "rsprune._core")]
pub struct Rows {
    rows: rows::Rows<'static>,
    /// The owners of the memory that `rows` borrows.
    _arrays: Vec<Py<PyUntypedArray>>,
}

/// An array of float16, float32 or float64, of uint16 that holds the bits of bfloat16, or the path of a `.npy` file.
#[derive(FromPyObject)]
pub enum Part<'py> {
    Array(Bound<'py, PyUntypedArray>),
    Path(PathBuf),
}

impl Rows {
    pub fn core(&self) -> &rows::Rows<'static> {
        &self.rows
    }
}

#[pymethods]
impl Rows {
    #[new]
    #[pyo3(signature = (parts, /))]
    fn new(py: Python<'_>, parts: Vec<Part<'_>>) -> PyResult<Self> {
        let mut blocks = Vec::with_capacity(parts.len());
        let mut arrays = Vec::new();
        for part in parts {
            match part {
                Part::Array(array) => {
                    blocks.push(borrow(&array).map_err(|error| to_py(py, error))?);
                    arrays.push(array.unbind());
                }
                Part::Path(path) => blocks.push(Block::open(&path).map_err(|error| to_py(py, error))?),
            }
        }
        let rows = rows::Rows::new(blocks).map_err(|error| to_py(py, error))?;
        Ok(Rows { rows, _arrays: arrays })
    }

    #[getter]
    fn shape(&self) -> (usize, usize) {
        (self.rows.len(), self.rows.dim())
    }

    /// The rows `start` to `stop` as float64.
    #[pyo3(signature = (start, stop, /))]
    fn read<'py>(&self, py: Python<'py>, start: usize, stop: usize) -> PyResult<Bound<'py, PyArray2<f64>>> {
        let range = self.range(py, start, stop)?;
        let values = gil::detach(py, Some(1), |_| Ok(self.rows.reader().read(range)?.to_vec()))?;
        values.into_pyarray(py).reshape([stop - start, self.rows.dim()])
    }

    /// The BLAKE3 hash of the rows as float32, or as float64 if any number needs it.
    #[pyo3(signature = (*, threads))]
    fn digest(&self, py: Python<'_>, threads: Option<usize>) -> PyResult<String> {
        gil::detach(py, threads, |par| rows::digest(&self.rows, par))
    }
}

impl Rows {
    fn range(&self, py: Python<'_>, start: usize, stop: usize) -> PyResult<Range<usize>> {
        let n = self.rows.len();
        if start > stop || stop > n {
            return Err(to_py(py, Error::Argument(format!("rows {start} to {stop} of {n}"))));
        }
        Ok(start..stop)
    }
}

/// The rows with these numbers as float32, or as float64 if any block is float64.
#[pyfunction]
#[pyo3(signature = (rows, numbers, /))]
pub fn take_rows<'py>(
    py: Python<'py>,
    rows: &Rows,
    numbers: PyReadonlyArray1<'py, i64>,
) -> PyResult<Bound<'py, PyAny>> {
    let (core, n, dim) = (rows.core(), rows.core().len(), rows.core().dim());
    let numbers = numbers.as_slice()?;
    if let Some(odd) = numbers.iter().find(|&&row| !(0..n as i64).contains(&row)) {
        return Err(to_py(py, Error::Argument(format!("row {odd} of {n}"))));
    }
    let mut reader = core.reader();
    let one = |row: i64| row as usize..row as usize + 1;
    if core.holds(Dtype::F64) {
        let values = gil::detach(py, Some(1), |par| {
            let mut values = Vec::with_capacity(numbers.len() * dim);
            for &row in numbers {
                par.check()?;
                values.extend_from_slice(reader.read(one(row))?);
            }
            Ok(values)
        })?;
        return Ok(values.into_pyarray(py).reshape([numbers.len(), dim])?.into_any());
    }
    let values = gil::detach(py, Some(1), |par| {
        let mut values = Vec::with_capacity(numbers.len() * dim);
        for &row in numbers {
            par.check()?;
            values.extend_from_slice(reader.read_single(one(row), 0..0)?.0);
        }
        Ok(values)
    })?;
    Ok(values.into_pyarray(py).reshape([numbers.len(), dim])?.into_any())
}

#[pyfunction]
#[pyo3(signature = (rows, /, *, threads))]
pub fn valid<'py>(py: Python<'py>, rows: &Rows, threads: Option<usize>) -> PyResult<Bound<'py, PyArray1<bool>>> {
    Ok(gil::detach(py, threads, |par| rows::valid(rows.core(), par))?.into_pyarray(py))
}

#[pyfunction]
#[pyo3(signature = (a, b, /, *, threads))]
pub fn dots<'py>(py: Python<'py>, a: &Rows, b: &Rows, threads: Option<usize>) -> PyResult<Bound<'py, PyArray2<f64>>> {
    let dots = gil::detach(py, threads, |par| rows::dots(a.core(), b.core(), par))?;
    dots.into_pyarray(py).reshape([a.core().len(), b.core().len()])
}

/// Borrows the memory of `array` as a block, which must not outlive the array.
fn borrow(array: &Bound<'_, PyUntypedArray>) -> Result<Block<'static>, Error> {
    let (&[n, dim], &[row, column]) = (array.shape(), array.strides()) else {
        return Err(Error::Shape(format!("an array of shape {:?}; expected (rows, dimensions)", array.shape())));
    };
    let dtype = array.dtype();
    let kind = match (dtype.kind(), dtype.itemsize()) {
        (b'f', 2) => Dtype::F16,
        (b'f', 4) => Dtype::F32,
        (b'f', 8) => Dtype::F64,
        (b'u', 2) => Dtype::Bf16,
        _ => return Err(Error::Dtype(format!("an array of {dtype}; expected float16, float32 or float64"))),
    };
    if dtype.is_native_byteorder() == Some(false) {
        return Err(Error::Dtype(format!("an array of {dtype}, which is not this machine's byte order")));
    }
    // SAFETY: the array's own pointer, shape and strides. NumPy memory lives as long as the array, which `Rows` keeps;
    // like NumPy itself without the GIL, reading relies on nobody writing at the same time.
    Ok(unsafe {
        let first = (*array.as_array_ptr()).fields.data.cast::<u8>();
        Block::from_raw(first, [n, dim], [row, column], kind)
    })
}
