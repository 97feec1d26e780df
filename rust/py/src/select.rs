//! Binding of `rsprune_core::select`.

use num_bigint::BigInt;
use numpy::{IntoPyArray, PyArray1, PyArray2, PyArrayMethods, PyReadonlyArray1};
use pyo3::prelude::*;
use rsprune_core::Error;
use rsprune_core::select::{self, Fill, Options, Within};

use crate::door;
use crate::errors::to_py;

/// Indices, cluster, similarity, phase, counts (a row a cluster: pool, quota, fill, preselected), invalid rows.
type Selection<'py> = (
    Bound<'py, PyArray1<i64>>,
    Bound<'py, PyArray1<i32>>,
    Bound<'py, PyArray1<f32>>,
    Bound<'py, PyArray1<u8>>,
    Bound<'py, PyArray2<i64>>,
    Bound<'py, PyArray1<i64>>,
);

#[pyfunction]
#[pyo3(signature = (labels, similarity, /, *, k, budget, fill, within, seed, exclude, preselected, strict, threads))]
#[allow(clippy::too_many_arguments, reason = "the options of one Python function")]
pub fn select_rows<'py>(
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
) -> PyResult<Selection<'py>> {
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
    let options = Options { k, budget, fill, within, seed, exclude, preselected, strict };
    let selection = door::run(py, threads, |par| select::select(labels, similarity, &options, par))?;
    let counts = selection.counts.iter().flat_map(|c| [c.pool, c.quota, c.fill, c.preselected]);
    let counts: Vec<i64> = counts.map(|count| count as i64).collect();
    Ok((
        selection.indices.into_pyarray(py),
        selection.cluster.into_pyarray(py),
        selection.similarity.into_pyarray(py),
        selection.phase.into_pyarray(py),
        counts.into_pyarray(py).reshape([k, 4])?,
        selection.invalid.into_pyarray(py),
    ))
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
    let bounds = lower
        .iter()
        .zip(upper)
        .map(|(&lower, &upper)| Ok(select::apportion::Bound { lower: bound(lower)?, upper: bound(upper)? }));
    let bounds = bounds.collect::<PyResult<Vec<_>>>()?;
    let weights = match &weights {
        Weights::Floats(weights) => select::apportion::Weights::Floats(weights.as_slice()?),
        Weights::Integers(weights) => select::apportion::Weights::Integers(weights),
    };
    let options = select::apportion::Options {
        offsets: offsets.as_ref().map(|offsets| offsets.as_slice()).transpose()?,
        priority: priority.as_ref().map(|priority| priority.as_slice()).transpose()?,
    };
    let shares = select::apportion::apportion(total, weights, &bounds, options).map_err(|error| to_py(py, error))?;
    Ok(shares.into_iter().map(|share| share as i64).collect::<Vec<i64>>().into_pyarray(py))
}

fn unknown(py: Python<'_>, option: &str, value: &str, expected: &str) -> PyErr {
    to_py(py, Error::Argument(format!("{option} is {value:?}; expected {expected}")))
}
