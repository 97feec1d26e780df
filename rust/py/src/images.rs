//! Bindings of `rsprune_core::image`.

use std::path::PathBuf;

use numpy::{PyArray1, PyArray3, PyArrayMethods, PyReadonlyArrayDyn, PyReadwriteArray4, PyUntypedArrayMethods};
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use rsprune_core::image::gray::Gray;
use rsprune_core::image::resize::{Filter, Fit, Middle, Target, resize_inputs};
use rsprune_core::image::{GrayOptions, ImageRef, Input, Limits, SamplesRef, rgb_from_inputs, values_from_inputs};
use rsprune_core::{Error, Result};

use crate::errors::{failure_kind, to_py};
use crate::gil;

/// An image that failed: its number, the kind of its failure, and the message.
pub type Failure = (usize, &'static str, String);

/// One image as Python holds it.
#[derive(FromPyObject)]
pub enum Item<'py> {
    Bytes(Bound<'py, PyBytes>),
    U8(PyReadonlyArrayDyn<'py, u8>),
    U16(PyReadonlyArrayDyn<'py, u16>),
    I16(PyReadonlyArrayDyn<'py, i16>),
    F32(PyReadonlyArrayDyn<'py, f32>),
    F64(PyReadonlyArrayDyn<'py, f64>),
    Path(PathBuf),
    /// A file, where in it the image begins, and how many bytes it has.
    Part((PathBuf, u64, u64)),
}

impl Item<'_> {
    fn input(&self) -> PyResult<Input<'_>> {
        let array = |shape: &[usize], samples| {
            let (width, height, bands) = (shape[1], shape[0], shape.get(2).copied().unwrap_or(1));
            Input::Array(ImageRef { width, height, bands, samples })
        };
        Ok(match self {
            Item::Bytes(bytes) => Input::Bytes(bytes.as_bytes()),
            Item::Path(path) => Input::Path(path),
            &Item::Part((ref path, offset, length)) => Input::Part { path, offset, length },
            Item::U8(samples) => array(samples.shape(), SamplesRef::U8(samples.as_slice()?)),
            Item::U16(samples) => array(samples.shape(), SamplesRef::U16(samples.as_slice()?)),
            Item::I16(samples) => array(samples.shape(), SamplesRef::I16(samples.as_slice()?)),
            Item::F32(samples) => array(samples.shape(), SamplesRef::F32(samples.as_slice()?)),
            Item::F64(samples) => array(samples.shape(), SamplesRef::F64(samples.as_slice()?)),
        })
    }
}

/// The inputs that the items stand for.
pub fn inputs<'a>(items: &'a [Item<'_>]) -> PyResult<Vec<Input<'a>>> {
    items.iter().map(Item::input).collect()
}

/// The limits of a call.
pub fn limits(max_pixels: Option<u64>, max_bytes: Option<u64>) -> Limits {
    let default = Limits::default();
    Limits { max_pixels: max_pixels.unwrap_or(default.max_pixels), max_bytes: max_bytes.unwrap_or(default.max_bytes) }
}

/// What came of each item, and the failures among them.
pub fn split<T>(outcomes: Vec<Result<T>>) -> (Vec<Option<T>>, Vec<Failure>) {
    let mut failures = Vec::new();
    let take = |(i, outcome): (usize, Result<T>)| {
        outcome.map_err(|error: Error| failures.push((i, failure_kind(&error), error.to_string()))).ok()
    };
    (outcomes.into_iter().enumerate().map(take).collect(), failures)
}

type Values<'py> = Vec<Option<(&'static str, Bound<'py, PyArray1<f64>>)>>;

#[pyfunction]
#[pyo3(signature = (items, /, *, count, bands=None, nodata=None, max_pixels=None, max_bytes=None, threads=None))]
#[allow(clippy::too_many_arguments, reason = "keywords in Python")]
pub fn sample_values<'py>(
    py: Python<'py>,
    items: Vec<Item<'py>>,
    count: usize,
    bands: Option<Vec<usize>>,
    nodata: Option<f64>,
    max_pixels: Option<u64>,
    max_bytes: Option<u64>,
    threads: Option<usize>,
) -> PyResult<(Values<'py>, Vec<Failure>)> {
    let options = GrayOptions::new(Gray::Mean, bands, nodata, None).map_err(|error| to_py(py, error))?;
    let (inputs, limits) = (inputs(&items)?, limits(max_pixels, max_bytes));
    let outcomes = gil::detach(py, threads, |par| values_from_inputs(&inputs, &options, count, &limits, par))?;
    let (values, failures) = split(outcomes);
    let array = |(dtype, values)| (dtype, PyArray1::from_vec(py, values));
    Ok((values.into_iter().map(|values| values.flatten().map(array)).collect(), failures))
}

type Decoded<'py> = Vec<Option<Bound<'py, PyArray3<u8>>>>;

#[pyfunction]
#[pyo3(signature = (items, /, *, bands=None, valid_range=None, max_pixels=None, max_bytes=None, threads=None))]
pub fn decode_images<'py>(
    py: Python<'py>,
    items: Vec<Item<'py>>,
    bands: Option<Vec<usize>>,
    valid_range: Option<(f64, f64)>,
    max_pixels: Option<u64>,
    max_bytes: Option<u64>,
    threads: Option<usize>,
) -> PyResult<(Decoded<'py>, Vec<Failure>)> {
    // The rule that takes any number of bands: how many RGB takes is checked where it is made.
    let options = GrayOptions::new(Gray::Mean, bands, None, valid_range).map_err(|error| to_py(py, error))?;
    let (inputs, limits) = (inputs(&items)?, limits(max_pixels, max_bytes));
    let outcomes = gil::detach(py, threads, |par| rgb_from_inputs(&inputs, &options, &limits, par))?;
    let (decoded, failures) = split(outcomes);
    let array = |rgb: rsprune_core::image::Rgb| PyArray1::from_vec(py, rgb.samples).reshape([rgb.height, rgb.width, 3]);
    let decoded = decoded.into_iter().map(|rgb| rgb.map(array).transpose()).collect::<PyResult<_>>()?;
    Ok((decoded, failures))
}

#[pyfunction]
#[pyo3(signature = (items, out, /, *, interpolation, resize_to=None, squash=false, middle="even", bands=None,
                    valid_range=None, max_pixels=None, max_bytes=None, threads=None))]
#[allow(clippy::too_many_arguments, reason = "keywords in Python")]
pub fn preprocess_images<'py>(
    py: Python<'py>,
    items: Vec<Item<'py>>,
    mut out: PyReadwriteArray4<'py, u8>,
    interpolation: &str,
    resize_to: Option<usize>,
    squash: bool,
    middle: &str,
    bands: Option<Vec<usize>>,
    valid_range: Option<(f64, f64)>,
    max_pixels: Option<u64>,
    max_bytes: Option<u64>,
    threads: Option<usize>,
) -> PyResult<Vec<Failure>> {
    let options = GrayOptions::new(Gray::Mean, bands, None, valid_range).map_err(|error| to_py(py, error))?;
    let size = square(out.shape(), items.len()).map_err(|error| to_py(py, error))?;
    let fit = match resize_to {
        Some(side) if !squash => Fit::Crop(side),
        side => Fit::Squash(side.unwrap_or(size)),
    };
    let target = Filter::from_name(interpolation)
        .and_then(|filter| Target::new(size, fit, Middle::from_name(middle)?, filter))
        .map_err(|error| to_py(py, error))?;
    let (inputs, limits) = (inputs(&items)?, limits(max_pixels, max_bytes));
    let out = out.as_slice_mut()?;
    let failures = gil::detach(py, threads, |par| resize_inputs(&inputs, target, &options, &limits, out, par))?;
    Ok(failures.into_iter().map(|(i, error)| (i, failure_kind(&error), error.to_string())).collect())
}

/// The side of the squares that fill an output of that shape.
fn square(shape: &[usize], images: usize) -> Result<usize> {
    match *shape {
        [n, height, width, 3] if n == images && height == width => Ok(width),
        _ => Err(Error::Shape(format!("out has shape {shape:?}; expected ({images}, S, S, 3)"))),
    }
}
