//! Bindings of `rsprune_core::entropy`.

use numpy::ndarray::{ArrayViewD, Axis};
use numpy::{PyArray1, PyArray2, PyArrayMethods, PyReadonlyArrayDyn};
use pyo3::prelude::*;
use rsprune_core::entropy::{Scores, entropies_from_arrays, entropies_from_inputs, scores_from_inputs};
use rsprune_core::image::gray::Gray;
use rsprune_core::image::{GrayOptions, ImageRef, SamplesRef};
use rsprune_core::{Error, Par, Result};

use crate::errors::to_py;
use crate::gil;
use crate::images::{Failure, Item, inputs, limits, split};

type Entropies<'py> = Bound<'py, PyArray1<f64>>;

#[pyfunction]
#[pyo3(signature = (items, /, *, gray, bands=None, nodata=None, valid_range=None, max_pixels=None, max_bytes=None, threads=None))]
#[allow(clippy::too_many_arguments, reason = "keywords in Python")]
pub fn entropy_images<'py>(
    py: Python<'py>,
    items: Vec<Item<'py>>,
    gray: &str,
    bands: Option<Vec<usize>>,
    nodata: Option<f64>,
    valid_range: Option<(f64, f64)>,
    max_pixels: Option<u64>,
    max_bytes: Option<u64>,
    threads: Option<usize>,
) -> PyResult<(Entropies<'py>, Vec<Failure>)> {
    let options = gray_options(py, gray, bands, nodata, valid_range)?;
    let (inputs, limits) = (inputs(&items)?, limits(max_pixels, max_bytes));
    let outcomes = gil::detach(py, threads, |par| entropies_from_inputs(&inputs, &options, &limits, par))?;
    Ok(with_failures(py, outcomes))
}

/// Entropy, width, height, mean, standard deviation, sharpness and JPEG quality of each image; NaN for what it has not.
#[pyfunction]
#[pyo3(signature = (items, /, *, gray, bands=None, nodata=None, valid_range=None, max_pixels=None, max_bytes=None, threads=None))]
#[allow(clippy::too_many_arguments, reason = "keywords in Python")]
pub fn score_images<'py>(
    py: Python<'py>,
    items: Vec<Item<'py>>,
    gray: &str,
    bands: Option<Vec<usize>>,
    nodata: Option<f64>,
    valid_range: Option<(f64, f64)>,
    max_pixels: Option<u64>,
    max_bytes: Option<u64>,
    threads: Option<usize>,
) -> PyResult<(Bound<'py, PyArray2<f64>>, Vec<Failure>)> {
    let options = gray_options(py, gray, bands, nodata, valid_range)?;
    let (inputs, limits) = (inputs(&items)?, limits(max_pixels, max_bytes));
    let outcomes = gil::detach(py, threads, |par| scores_from_inputs(&inputs, &options, &limits, par))?;
    let (found, failures) = split(outcomes);
    let values = found.iter().flat_map(|one| one.as_ref().map_or([f64::NAN; 7], columns)).collect();
    Ok((PyArray1::from_vec(py, values).reshape([found.len(), 7])?, failures))
}

fn columns((entropy, scores): &(f64, Scores)) -> [f64; 7] {
    let &Scores { width, height, mean, deviation, sharpness, jpeg_quality } = scores;
    let quality = jpeg_quality.map_or(f64::NAN, f64::from);
    [*entropy, width as f64, height as f64, mean, deviation, sharpness.unwrap_or(f64::NAN), quality]
}

/// A stack of images of one size: (N, H, W) or (N, H, W, C).
#[derive(FromPyObject)]
pub enum Stack<'py> {
    U8(PyReadonlyArrayDyn<'py, u8>),
    U16(PyReadonlyArrayDyn<'py, u16>),
    I16(PyReadonlyArrayDyn<'py, i16>),
    F32(PyReadonlyArrayDyn<'py, f32>),
    F64(PyReadonlyArrayDyn<'py, f64>),
}

#[pyfunction]
#[pyo3(signature = (array, /, *, gray, bands=None, nodata=None, valid_range=None, threads=None))]
pub fn entropy_arrays<'py>(
    py: Python<'py>,
    array: Stack<'py>,
    gray: &str,
    bands: Option<Vec<usize>>,
    nodata: Option<f64>,
    valid_range: Option<(f64, f64)>,
    threads: Option<usize>,
) -> PyResult<(Entropies<'py>, Vec<Failure>)> {
    let options = &gray_options(py, gray, bands, nodata, valid_range)?;
    macro_rules! of {
        ($array:expr, $samples:expr) => {{
            let stack = $array.as_array();
            gil::detach(py, threads, |par| entropies(&stack, $samples, options, par))
        }};
    }
    let outcomes = match &array {
        Stack::U8(array) => of!(array, |samples| SamplesRef::U8(samples)),
        Stack::U16(array) => of!(array, |samples| SamplesRef::U16(samples)),
        Stack::I16(array) => of!(array, |samples| SamplesRef::I16(samples)),
        Stack::F32(array) => of!(array, |samples| SamplesRef::F32(samples)),
        Stack::F64(array) => of!(array, |samples| SamplesRef::F64(samples)),
    };
    Ok(with_failures(py, outcomes?))
}

/// The entropies, NaN where there is none, and why.
fn with_failures(py: Python<'_>, outcomes: Vec<Result<f64>>) -> (Entropies<'_>, Vec<Failure>) {
    let (entropies, failures) = split(outcomes);
    let entropies = entropies.into_iter().map(|entropy| entropy.unwrap_or(f64::NAN)).collect();
    (PyArray1::from_vec(py, entropies), failures)
}

/// Images that lie together are lent as they are; others are copied one at a time.
fn entropies<T: Copy + Send + Sync>(
    stack: &ArrayViewD<'_, T>,
    samples: impl Fn(&[T]) -> SamplesRef<'_> + Sync + Send,
    options: &GrayOptions,
    par: &Par<'_>,
) -> Result<Vec<Result<f64>>> {
    let &[n, height, width, ref rest @ ..] = stack.shape() else {
        return Err(Error::Shape(format!("a stack of images has 3 or 4 dimensions, not {}", stack.ndim())));
    };
    let bands = rest.first().copied().unwrap_or(1);
    let with_array = |i, f: &mut dyn FnMut(ImageRef<'_>)| {
        let image = stack.index_axis(Axis(0), i);
        let image = image.as_standard_layout();
        // Always there: the line above has seen to it.
        if let Some(slice) = image.as_slice() {
            f(ImageRef { width, height, bands, samples: samples(slice) });
        }
    };
    entropies_from_arrays(n, with_array, options, par)
}

fn gray_options(
    py: Python<'_>,
    gray: &str,
    bands: Option<Vec<usize>>,
    nodata: Option<f64>,
    valid_range: Option<(f64, f64)>,
) -> PyResult<GrayOptions> {
    let gray = Gray::from_name(gray);
    gray.and_then(|gray| GrayOptions::new(gray, bands, nodata, valid_range)).map_err(|error| to_py(py, error))
}
