//! Binding of `rsprune_core::select`.

use numpy::{IntoPyArray, PyArray1, PyArray2, PyArrayMethods, PyReadonlyArray1, PyUntypedArrayMethods};
use pyo3::prelude::*;
use rsprune_core::Error;
use rsprune_core::select::allocate::{Share, allocate as share_out};
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

#[pyfunction]
#[pyo3(signature = (total, least, most, weight, /))]
pub fn allocate<'py>(
    py: Python<'py>,
    total: usize,
    least: PyReadonlyArray1<'py, i64>,
    most: PyReadonlyArray1<'py, i64>,
    weight: PyReadonlyArray1<'py, f64>,
) -> PyResult<Bound<'py, PyArray1<i64>>> {
    let bound = |value: i64| {
        let what = || to_py(py, Error::Argument(format!("a share of {value}; expected at least 0")));
        usize::try_from(value).map_err(|_| what())
    };
    let mut shares = Vec::with_capacity(most.len());
    for ((&least, &most), &weight) in least.as_slice()?.iter().zip(most.as_slice()?).zip(weight.as_slice()?) {
        shares.push(Share { least: bound(least)?, most: bound(most)?, weight });
    }
    let given = share_out(total, &shares).map_err(|error| to_py(py, error))?;
    Ok(given.into_iter().map(|share| share as i64).collect::<Vec<i64>>().into_pyarray(py))
}

fn unknown(py: Python<'_>, option: &str, value: &str, expected: &str) -> PyErr {
    to_py(py, Error::Argument(format!("{option} is {value:?}; expected {expected}")))
}
