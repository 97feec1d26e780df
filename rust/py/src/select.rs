//! Binding of `rsprune_core::select`.

use num_bigint::BigInt;
use numpy::{IntoPyArray, PyArray1, PyArray2, PyArrayMethods, PyReadonlyArray1};
use pyo3::prelude::*;
use rsprune_core::Error;
use rsprune_core::select::{Fill, Options, Within};

use crate::errors::to_py;
use crate::gil;

/// The selected rows, ascending, and the row counts of every cluster.
#[pyclass(frozen, get_all, module = "rsprune._core")]
pub struct Selection {
    indices: Py<PyArray1<i64>>,
    cluster: Py<PyArray1<i32>>,
    similarity: Py<PyArray1<f32>>,
    phase: Py<PyArray1<u8>>,
    /// (k, 4): pool, quota, fill, preselected.
    counts: Py<PyArray2<i64>>,
    invalid: Py<PyArray1<i64>>,
}

#[pyfunction]
#[pyo3(signature = (labels, similarity, /, *, k, budget, fill, within, seed, exclude, preselected, strict, threads, numbers=None, pools=None, weights=None))]
#[allow(clippy::too_many_arguments, reason = "the options of one Python function")]
pub fn select<'py>(
    py: Python<'py>,
    labels: PyReadonlyArray1<'py, i32>,
    similarity: PyReadonlyArray1<'py, f32>,
    k: usize,
    budget: usize,
    fill: &str,
    within: &str,
    seed: u64,
    exclude: PyReadonlyArray1<'py, i64>,
    preselected: PyReadonlyArray1<'py, i64>,
    strict: bool,
    threads: Option<usize>,
    numbers: Option<PyReadonlyArray1<'py, i64>>,
    pools: Option<Vec<usize>>,
    weights: Option<Vec<u64>>,
) -> PyResult<Selection> {
    let fill = match fill {
        "global" => Fill::Global,
        "waterfill" => Fill::Waterfill,
        "zscore" => Fill::Zscore,
        "none" => Fill::None,
        _ => return Err(unknown(py, "fill", fill, "global, waterfill, zscore or none")),
    };
    let within = match within {
        "nearest" => Within::Nearest,
        "far" => Within::Far,
        "random" => Within::Random,
        "mid" => Within::Mid,
        _ => return Err(unknown(py, "within", within, "nearest, far, random or mid")),
    };
    let (labels, similarity) = (labels.as_slice()?, similarity.as_slice()?);
    let (exclude, preselected) = (exclude.as_slice()?, preselected.as_slice()?);
    let numbers = numbers.as_ref().map(|numbers| numbers.as_slice()).transpose()?;
    let (pools, weights) = (pools.as_deref(), weights.as_deref());
    let options = Options { k, budget, fill, within, seed, numbers, pools, weights, exclude, preselected, strict };
    let selection = gil::detach(py, threads, |par| rsprune_core::select::select(labels, similarity, &options, par))?;
    let counts = selection.counts.iter().flat_map(|c| [c.pool, c.quota, c.fill, c.preselected]);
    let counts: Vec<i64> = counts.map(|count| count as i64).collect();
    Ok(Selection {
        indices: selection.indices.into_pyarray(py).unbind(),
        cluster: selection.cluster.into_pyarray(py).unbind(),
        similarity: selection.similarity.into_pyarray(py).unbind(),
        phase: selection.phase.into_pyarray(py).unbind(),
        counts: counts.into_pyarray(py).reshape([k, 4])?.unbind(),
        invalid: selection.invalid.into_pyarray(py).unbind(),
    })
}

/// Weights are float64, or integers of any size.
#[derive(FromPyObject)]
pub enum Weights<'py> {
    Floats(PyReadonlyArray1<'py, f64>),
    Integers(Vec<BigInt>),
}

#[pyfunction]
#[pyo3(signature = (total, weights, lower, upper, /, *, offsets, priority))]
pub fn apportion<'py>(
    py: Python<'py>,
    total: usize,
    weights: Weights<'py>,
    lower: PyReadonlyArray1<'py, i64>,
    upper: PyReadonlyArray1<'py, i64>,
    offsets: Option<PyReadonlyArray1<'py, f64>>,
    priority: Option<PyReadonlyArray1<'py, u64>>,
) -> PyResult<Bound<'py, PyArray1<i64>>> {
    let (lower, upper) = (lower.as_slice()?, upper.as_slice()?);
    let invalid = |value: i64| to_py(py, Error::Argument(format!("a share of {value}; expected at least 0")));
    let bound = |value: i64| usize::try_from(value).map_err(|_| invalid(value));
    let bounds = lower.iter().zip(upper).map(|(&lower, &upper)| {
        Ok(rsprune_core::select::apportion::Bound { lower: bound(lower)?, upper: bound(upper)? })
    });
    let bounds = bounds.collect::<PyResult<Vec<_>>>()?;
    let weights = match &weights {
        Weights::Floats(weights) => rsprune_core::select::apportion::Weights::Floats(weights.as_slice()?),
        Weights::Integers(weights) => rsprune_core::select::apportion::Weights::Integers(weights),
    };
    let options = rsprune_core::select::apportion::Options {
        offsets: offsets.as_ref().map(|offsets| offsets.as_slice()).transpose()?,
        priority: priority.as_ref().map(|priority| priority.as_slice()).transpose()?,
    };
    let shares = rsprune_core::select::apportion::apportion(total, weights, &bounds, options)
        .map_err(|error| to_py(py, error))?;
    Ok(shares.into_iter().map(|share| share as i64).collect::<Vec<i64>>().into_pyarray(py))
}

fn unknown(py: Python<'_>, option: &str, value: &str, expected: &str) -> PyErr {
    to_py(py, Error::Argument(format!("{option} is {value:?}; expected {expected}")))
}
