//! Binding of `rsprune_core::neighbors`.

use numpy::{
    IntoPyArray, PyArray1, PyArray2, PyArrayMethods, PyReadonlyArray1, PyReadonlyArray2, PyUntypedArrayMethods,
};
use pyo3::prelude::*;
use rsprune_core::Error;
use rsprune_core::neighbors::dedup::{self, RowGroups};
use rsprune_core::neighbors::facility_location::{self as facility, Pick};
use rsprune_core::neighbors::kcenter::{self, StopRule};
use rsprune_core::neighbors::knn::NO_ROW;
use rsprune_core::neighbors::{self, Neighbor, Options, UnionFind, message_passing};

use crate::errors::to_py;
use crate::gil;
use crate::rows::Rows;

type Numbers<'py> = PyReadonlyArray1<'py, i64>;
type Neighbors<'py> = (Bound<'py, PyArray2<i64>>, Bound<'py, PyArray2<f32>>);
type Centers<'py> = (Bound<'py, PyArray1<i64>>, Bound<'py, PyArray1<f32>>);
type Picks<'py> = (Bound<'py, PyArray1<i64>>, Bound<'py, PyArray1<f64>>);

/// Numbers and similarities (N, k) of the most similar rows; -1 and NaN where there are too few.
#[pyfunction]
#[pyo3(signature = (queries, base, /, *, k, exclude_self, threads))]
pub fn knn<'py>(
    py: Python<'py>,
    queries: &Rows,
    base: &Rows,
    k: usize,
    exclude_self: bool,
    threads: Option<usize>,
) -> PyResult<Neighbors<'py>> {
    let (numbers, similarity): (Vec<i64>, Vec<f32>) = gil::detach(py, threads, |par| {
        let found = neighbors::knn(queries.core(), base.core(), k, exclude_self, Options::default(), par)?;
        let number = |row: u32| if row == NO_ROW { -1 } else { i64::from(row) };
        Ok(found.into_iter().map(|neighbor| (number(neighbor.row), neighbor.similarity)).unzip())
    })?;
    let shape = [queries.core().len(), k];
    Ok((numbers.into_pyarray(py).reshape(shape)?, similarity.into_pyarray(py).reshape(shape)?))
}

/// Of each row of `order`, its largest similarity to an earlier one of its group, and at least 0.
#[pyfunction]
#[pyo3(signature = (rows, order, starts, /, *, threads))]
pub fn max_similarity_to_earlier<'py>(
    py: Python<'py>,
    rows: &Rows,
    order: Numbers<'py>,
    starts: Numbers<'py>,
    threads: Option<usize>,
) -> PyResult<Bound<'py, PyArray1<f32>>> {
    let lists = Lists::new(py, &order, &starts)?;
    let similarity = gil::detach(py, threads, |par| {
        dedup::max_similarity_to_earlier(rows.core(), lists.groups(rows)?, Options::default(), par)
    })?;
    Ok(similarity.into_pyarray(py))
}

/// Of each row of `order`, whether no earlier one of its group that remains is similar above the threshold.
#[pyfunction]
#[pyo3(signature = (rows, order, starts, /, *, threshold, threads))]
pub fn greedy_dedup<'py>(
    py: Python<'py>,
    rows: &Rows,
    order: Numbers<'py>,
    starts: Numbers<'py>,
    threshold: f32,
    threads: Option<usize>,
) -> PyResult<Bound<'py, PyArray1<bool>>> {
    let lists = Lists::new(py, &order, &starts)?;
    let remain = gil::detach(py, threads, |par| {
        dedup::greedy_dedup(rows.core(), lists.groups(rows)?, threshold, Options::default(), par)
    })?;
    Ok(remain.into_pyarray(py))
}

/// Of each row, the lowest of its component: edges join rows of a group that are similar above the threshold.
#[pyfunction]
#[pyo3(signature = (rows, order, starts, /, *, threshold, threads))]
pub fn similar_components<'py>(
    py: Python<'py>,
    rows: &Rows,
    order: Numbers<'py>,
    starts: Numbers<'py>,
    threshold: f32,
    threads: Option<usize>,
) -> PyResult<Bound<'py, PyArray1<i64>>> {
    let lists = Lists::new(py, &order, &starts)?;
    let components = gil::detach(py, threads, |par| {
        dedup::similar_components(rows.core(), lists.groups(rows)?, threshold, Options::default(), par)
    })?;
    Ok(wide(py, components.roots()))
}

/// As [`similar_components`], of the edges between rows and their neighbors.
#[pyfunction]
#[pyo3(signature = (neighbors, similarity, /, *, threshold))]
pub fn graph_components<'py>(
    py: Python<'py>,
    neighbors: PyReadonlyArray2<'py, i64>,
    similarity: PyReadonlyArray2<'py, f32>,
    threshold: f32,
) -> PyResult<Bound<'py, PyArray1<i64>>> {
    let graph = Graph::new(py, &neighbors, &similarity)?;
    let components = gil::detach(py, Some(1), |_| {
        let n = graph.lists.len() / graph.k.max(1);
        let components = UnionFind::new(n);
        for (i, list) in (0u32..).zip(graph.lists.chunks_exact(graph.k)) {
            let edges = list.iter().filter(|other| (other.row as usize) < n && other.similarity > threshold);
            edges.for_each(|other| components.union(i, other.row));
        }
        Ok(components)
    })?;
    Ok(wide(py, components.roots()))
}

/// Rows chosen by farthest point after the `given` ones, which come first; of every row the similarity to the nearest.
#[pyfunction]
#[pyo3(signature = (rows, given, /, *, count, distance, threads))]
pub fn farthest_first<'py>(
    py: Python<'py>,
    rows: &Rows,
    given: Numbers<'py>,
    count: usize,
    distance: f64,
    threads: Option<usize>,
) -> PyResult<Centers<'py>> {
    let given = narrow(py, given.as_slice()?)?;
    let stop = StopRule { count, distance };
    let centers =
        gil::detach(py, threads, |par| kcenter::farthest_first(rows.core(), &given, stop, Options::default(), par))?;
    Ok((wide(py, centers.chosen), centers.similarity.into_pyarray(py)))
}

/// Rows and gains by facility location, group by group in the order in which they were chosen.
#[pyfunction]
#[pyo3(signature = (rows, order, starts, budgets, /, *, threads))]
pub fn facility_location<'py>(
    py: Python<'py>,
    rows: &Rows,
    order: Numbers<'py>,
    starts: Numbers<'py>,
    budgets: Numbers<'py>,
    threads: Option<usize>,
) -> PyResult<Picks<'py>> {
    let lists = Lists::new(py, &order, &starts)?;
    let budgets: Vec<usize> = budgets.as_slice()?.iter().map(|&budget| budget.max(0) as usize).collect();
    let picks = gil::detach(py, threads, |par| {
        facility::within_groups(rows.core(), lists.groups(rows)?, &budgets, Options::default(), par)
    })?;
    Ok(columns(py, picks.concat()))
}

/// Rows and gains by facility location on the graph of the neighbors of each row, itself among them.
#[pyfunction]
#[pyo3(signature = (neighbors, similarity, /, *, budget))]
pub fn facility_location_on_graph<'py>(
    py: Python<'py>,
    neighbors: PyReadonlyArray2<'py, i64>,
    similarity: PyReadonlyArray2<'py, f32>,
    budget: usize,
) -> PyResult<Picks<'py>> {
    let graph = Graph::new(py, &neighbors, &similarity)?;
    Ok(columns(py, gil::detach(py, Some(1), |par| facility::on_graph(&graph.lists, graph.k, budget, par))?))
}

/// Rows by D2 pruning on the graph of the neighbors of each row, in the order in which they were chosen.
#[pyfunction]
#[pyo3(signature = (neighbors, similarity, scores, /, *, multiply, gamma, budget))]
#[allow(clippy::too_many_arguments, reason = "the options of one Python function")]
pub fn pass_messages<'py>(
    py: Python<'py>,
    neighbors: PyReadonlyArray2<'py, i64>,
    similarity: PyReadonlyArray2<'py, f32>,
    scores: PyReadonlyArray1<'py, f64>,
    multiply: bool,
    gamma: f64,
    budget: usize,
) -> PyResult<Bound<'py, PyArray1<i64>>> {
    let graph = Graph::new(py, &neighbors, &similarity)?;
    let (scores, passing) = (scores.as_slice()?, message_passing::Options { multiply, gamma });
    let chosen = gil::detach(py, Some(1), |par| {
        message_passing::pass_messages(&graph.lists, graph.k, scores, passing, budget, par)
    })?;
    Ok(wide(py, chosen))
}

/// Groups of rows as the core takes them.
struct Lists {
    order: Vec<u32>,
    starts: Vec<usize>,
}

impl Lists {
    fn new(py: Python<'_>, order: &Numbers<'_>, starts: &Numbers<'_>) -> PyResult<Self> {
        let starts = narrow(py, starts.as_slice()?)?.into_iter().map(|start| start as usize).collect();
        Ok(Lists { order: narrow(py, order.as_slice()?)?, starts })
    }

    fn groups(&self, rows: &Rows) -> Result<RowGroups<'_>, Error> {
        RowGroups::new(&self.order, &self.starts, rows.core().len())
    }
}

/// Neighbors as the core takes them.
struct Graph {
    lists: Vec<Neighbor>,
    k: usize,
}

impl Graph {
    fn new(
        py: Python<'_>,
        neighbors: &PyReadonlyArray2<'_, i64>,
        similarity: &PyReadonlyArray2<'_, f32>,
    ) -> PyResult<Self> {
        let (shape, other) = (neighbors.shape(), similarity.shape());
        if shape != other || shape[1] == 0 {
            let message =
                format!("neighbors of shape {shape:?} with similarities of {other:?}; expected one (rows, k)");
            return Err(to_py(py, Error::Shape(message)));
        }
        let one = |(&number, &similarity): (&i64, &f32)| Neighbor {
            row: u32::try_from(number).unwrap_or(NO_ROW),
            similarity,
        };
        let lists = neighbors.as_slice()?.iter().zip(similarity.as_slice()?).map(one).collect();
        Ok(Graph { lists, k: shape[1] })
    }
}

/// Row numbers in 32 bits.
fn narrow(py: Python<'_>, numbers: &[i64]) -> PyResult<Vec<u32>> {
    let one = |&number: &i64| {
        u32::try_from(number)
            .map_err(|_| to_py(py, Error::Argument(format!("row {number}; expected 0 to {}", u32::MAX))))
    };
    numbers.iter().map(one).collect()
}

fn wide(py: Python<'_>, numbers: Vec<u32>) -> Bound<'_, PyArray1<i64>> {
    numbers.into_iter().map(i64::from).collect::<Vec<i64>>().into_pyarray(py)
}

fn columns(py: Python<'_>, picks: Vec<Pick>) -> Picks<'_> {
    let (rows, gains): (Vec<i64>, Vec<f64>) = picks.into_iter().map(|pick| (i64::from(pick.row), pick.gain)).unzip();
    (rows.into_pyarray(py), gains.into_pyarray(py))
}
