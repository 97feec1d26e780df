//! D2 pruning (Maharana, Yadav and Bansal, 2024): scores passed over a graph of neighbors, forward and back.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use super::Neighbor;
use super::kcenter::distance;
use super::knn::NO_ROW;
use crate::error::{Error, Result};
use crate::runtime::parallel::Par;

/// Settings of the two passes.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Forward: neighbors' scores are added, or multiplied.
    pub multiply: bool,
    /// Back: how fast the message fades with distance; 0 takes off all of it.
    pub gamma: f64,
}

/// Chooses `budget` rows by message passing on the graph of the `k` neighbors of each row, made symmetric and without
/// loops, and returns them in the order in which they are chosen. With `d` the Euclidean distance of unit vectors:
///
/// - forward, `u_i = s_i + sum_j exp(-d_ij) s_j`, neighbors ascending;
/// - back, the row of the largest `u` is chosen (ties: lower number), and `u_j -= exp(-gamma d_ij) u_i` for its neighbors.
///
/// Rows whose score is NaN are not chosen, and pass nothing on.
///
/// # Errors
/// [`Error::Argument`] for a neighbor that is no row.
pub fn pass_messages(
    neighbors: &[Neighbor],
    k: usize,
    scores: &[f64],
    options: Options,
    budget: usize,
    par: &Par<'_>,
) -> Result<Vec<u32>> {
    let n = scores.len();
    let graph = Graph::new(neighbors, k, n)?;
    let mut sums: Vec<f64> = (0..n)
        .map(|i| {
            let messages = graph.edges(i).filter(|(j, _)| !scores[*j].is_nan());
            let messages = messages.map(|(j, distance)| libm::exp(-distance) * scores[j]);
            if options.multiply {
                messages.fold(scores[i], |u, m| u * m)
            } else {
                messages.fold(scores[i], |u, m| u + m)
            }
        })
        .collect();
    let valid = |(_, u): &(usize, &f64)| !u.is_nan();
    let mut heap: BinaryHeap<Entry> =
        sums.iter().enumerate().filter(valid).map(|(row, &sum)| Entry { sum, row }).collect();
    let mut is_chosen = vec![false; n];
    let mut chosen = Vec::with_capacity(budget.min(n));
    while chosen.len() < budget
        && let Some(Entry { sum, row }) = heap.pop()
    {
        // Each change of a sum left an entry: only the last counts.
        if is_chosen[row] || sum.to_bits() != sums[row].to_bits() {
            continue;
        }
        par.check()?;
        is_chosen[row] = true;
        chosen.push(row as u32);
        for (j, distance) in graph.edges(row) {
            sums[j] -= libm::exp(-options.gamma * distance) * sum;
            if !is_chosen[j] && !sums[j].is_nan() {
                heap.push(Entry { sum: sums[j], row: j });
            }
        }
    }
    Ok(chosen)
}

/// Edges of both directions, ascending.
struct Graph {
    edges: Vec<(u32, f32)>,
    starts: Vec<usize>,
}

impl Graph {
    fn new(neighbors: &[Neighbor], k: usize, n: usize) -> Result<Self> {
        let mut directed: Vec<(u32, u32, f32)> = Vec::with_capacity(2 * neighbors.len());
        for (i, list) in neighbors.chunks_exact(k).enumerate() {
            for other in list.iter().filter(|other| other.row != NO_ROW && other.row as usize != i) {
                if other.row as usize >= n {
                    return Err(Error::Argument(format!("row {i} has neighbor {}; there are {n} rows", other.row)));
                }
                directed.push((i as u32, other.row, other.similarity));
                directed.push((other.row, i as u32, other.similarity));
            }
        }
        directed.sort_unstable_by_key(|&(from, to, _)| (from, to));
        directed.dedup_by_key(|&mut (from, to, _)| (from, to));
        let starts = (0..=n).map(|i| directed.partition_point(|&(from, ..)| (from as usize) < i)).collect();
        Ok(Graph { edges: directed.into_iter().map(|(_, to, similarity)| (to, similarity)).collect(), starts })
    }

    /// The neighbors of `row`, ascending, and their distances.
    fn edges(&self, row: usize) -> impl Iterator<Item = (usize, f64)> {
        let edges = &self.edges[self.starts[row]..self.starts[row + 1]];
        edges.iter().map(|&(to, similarity)| (to as usize, distance(similarity)))
    }
}

/// A sum as it once was. The largest comes first, of equals the lower number.
#[derive(Debug, PartialEq)]
struct Entry {
    sum: f64,
    row: usize,
}

impl Eq for Entry {}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        self.sum.total_cmp(&other.sum).then(other.row.cmp(&self.row))
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
