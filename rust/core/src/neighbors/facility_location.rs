//! Facility location: the rows that cover all others best, by the greedy algorithm (Nemhauser, Wolsey and Fisher, 1978)
//! evaluated lazily (Minoux, 1978).
//!
//! `f(A) = sum_i max_{a in A} w(i, a)` with `w = (1 + similarity) / 2`. Each step takes the row of the largest gain
//! `sum_i max(0, s_ia - c_i) / 2`, ties to the lower number, where `c_i` is the similarity of row i to the nearest that is
//! taken, at first -1. Gains are float64 sums in a fixed order, whose every term and sum only shrinks as `c` grows,
//! rounded or not: a gain of earlier is a bound on that of now, and most rows need not be looked at again.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use super::dedup::RowGroups;
use super::knn::NO_ROW;
use super::{Neighbor, Options, Source, check_count, cosine, norms};
use crate::error::{Error, Result};
use crate::linalg::dot::{LANES, reduce_lanes};
use crate::linalg::exact_gemm::ExactColumns;
use crate::rows::Rows;
use crate::runtime::cpu::{Level, dispatch};
use crate::runtime::parallel::Par;

/// Similarities of all pairs of a group are kept up to so many bytes for all threads together; those of larger groups are
/// computed again when they are needed.
const KEPT_BYTES: usize = 1 << 30;

/// A row that was chosen, and what it added to the sum.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pick {
    /// Its number.
    pub row: u32,
    /// Its gain when it was chosen.
    pub gain: f64,
}

/// In each group, as many rows as its budget says, in the order in which they are chosen, one group after the other. Rows
/// without a direction are neither chosen nor covered, so a group may give fewer.
///
/// # Errors
/// [`Error::Argument`] when there is not a budget a group, and what reading files can raise.
pub fn within_groups(
    rows: &Rows<'_>,
    groups: RowGroups<'_>,
    budgets: &[usize],
    options: Options,
    par: &Par<'_>,
) -> Result<Vec<Vec<Pick>>> {
    check_count(rows)?;
    if budgets.len() != groups.count() {
        return Err(Error::Argument(format!("{} budgets for {} groups", budgets.len(), groups.count())));
    }
    let level = options.level()?;
    let scratch = || (Source::new(rows), Vec::new());
    par.map(budgets.len(), scratch, |(source, values), g| {
        if budgets[g] == 0 {
            return Ok(Vec::new());
        }
        source.gather(groups.rows(g), values)?;
        let group = Group::new(groups.rows(g), values, rows.dim(), level);
        let kept = group.len().saturating_mul(group.len()) * size_of::<f32>() <= KEPT_BYTES / par.threads();
        let all = if kept { group.all_pairs(par)? } else { Vec::new() };
        let column = |i: usize| match kept {
            true => std::borrow::Cow::Borrowed(&all[i * group.len()..(i + 1) * group.len()]),
            false => std::borrow::Cow::Owned(group.column(i)),
        };
        let mut cover = vec![NOTHING; group.len()];
        let of_nothing = |i: usize| Pick { row: i as u32, gain: gain(level, &column(i), &cover) };
        let gains = (0..group.len()).map(|i| par.check().map(|()| of_nothing(i))).collect::<Result<Vec<Pick>>>()?;
        let picks = lazy_greedy(gains, budgets[g], par, |step| match step {
            Step::Gain(i) => gain(level, &column(i as usize), &cover),
            Step::Take(i) => {
                cover.iter_mut().zip(column(i as usize).iter()).for_each(|(c, &s)| *c = c.max(s));
                0.0
            }
        })?;
        Ok(picks.into_iter().map(|pick| Pick { row: group.numbers[pick.row as usize], ..pick }).collect())
    })
}

/// As [`within_groups`], of all rows at once. A row is covered by itself, with `w = 1`, and by its `k` neighbors; all other
/// `w` are 0. Rows whose neighbors are all missing are neither chosen nor covered.
///
/// # Errors
/// [`Error::Argument`] for a neighbor that is no row.
pub fn on_graph(neighbors: &[Neighbor], k: usize, budget: usize, par: &Par<'_>) -> Result<Vec<Pick>> {
    let n = neighbors.len() / k.max(1);
    let covered = Covered::new(neighbors, k, n)?;
    let mut cover = vec![NOTHING; n];
    let gain = |cover: &[f32], row: u32| 0.5 * covered.by(row).map(|(i, s)| term(s, cover[i as usize])).sum::<f64>();
    // A row that does not even cover itself is none.
    let rows = (0..n as u32).filter(|&row| covered.by(row).next().is_some());
    let gains = rows.map(|row| Pick { row, gain: gain(&cover, row) }).collect();
    lazy_greedy(gains, budget, par, |step| match step {
        Step::Gain(row) => gain(&cover, row),
        Step::Take(row) => {
            covered.by(row).for_each(|(i, s)| cover[i as usize] = cover[i as usize].max(s));
            0.0
        }
    })
}

/// The rows that each row covers.
struct Covered {
    rows: Vec<u32>,
    similarity: Vec<f32>,
    starts: Vec<usize>,
}

impl Covered {
    fn new(neighbors: &[Neighbor], k: usize, n: usize) -> Result<Self> {
        // A row and itself, then its neighbors.
        let edges = |i: usize| {
            let list = neighbors[i * k..(i + 1) * k].iter().filter(|other| other.row != NO_ROW);
            let itself = list.clone().next().map(|_| Neighbor { row: i as u32, similarity: 1.0 });
            itself.into_iter().chain(list.copied().filter(move |other| other.row as usize != i))
        };
        let mut starts = vec![0; n + 1];
        for i in 0..n {
            for other in edges(i) {
                if other.row as usize >= n {
                    return Err(Error::Argument(format!("row {i} has neighbor {}; there are {n} rows", other.row)));
                }
                starts[other.row as usize + 1] += 1;
            }
        }
        for i in 0..n {
            starts[i + 1] += starts[i];
        }
        let (mut rows, mut similarity) = (vec![0; starts[n]], vec![0.0; starts[n]]);
        let mut next = starts.clone();
        for i in 0..n {
            for other in edges(i) {
                let place = &mut next[other.row as usize];
                (rows[*place], similarity[*place]) = (i as u32, other.similarity);
                *place += 1;
            }
        }
        Ok(Covered { rows, similarity, starts })
    }

    /// The rows that `row` covers, ascending, and its similarity to each.
    fn by(&self, row: u32) -> impl Iterator<Item = (u32, f32)> {
        let range = self.starts[row as usize]..self.starts[row as usize + 1];
        self.rows[range.clone()].iter().copied().zip(self.similarity[range].iter().copied())
    }
}

/// The similarity to the nearest that is taken where there is none: `w` is 0.
const NOTHING: f32 = -1.0;

/// Twice the gain of a candidate from one row, of this `similarity` to it and this `cover`.
#[inline(always)]
fn term(similarity: f32, cover: f32) -> f64 {
    let more = f64::from(similarity) - f64::from(cover);
    if more > 0.0 { more } else { 0.0 }
}

dispatch! {
    /// The gain of a candidate from its `similarity` to all rows and their `cover`.
    fn gain(level: Level, similarity: &[f32], cover: &[f32]) -> f64 {
        Avx512 | Avx2 | Scalar => gain_in_lanes(similarity, cover),
    }
}

/// In eight lanes, as a dot product is summed.
#[inline(always)]
fn gain_in_lanes(similarity: &[f32], cover: &[f32]) -> f64 {
    let mut sums = [0.0; LANES];
    let (s, s_tail) = similarity.as_chunks::<LANES>();
    let (c, c_tail) = cover.as_chunks::<LANES>();
    for (s, c) in s.iter().zip(c) {
        for l in 0..LANES {
            sums[l] += term(s[l], c[l]);
        }
    }
    for (sum, (&s, &c)) in sums.iter_mut().zip(s_tail.iter().zip(c_tail)) {
        *sum += term(s, c);
    }
    0.5 * reduce_lanes(sums)
}

/// Candidates whose similarities to all are computed at a time: packed, they stay in the second-level cache.
const COLUMNS: usize = 48;

/// The rows of a group that have a direction.
struct Group<'v> {
    numbers: Vec<u32>,
    vectors: std::borrow::Cow<'v, [f32]>,
    norms: Vec<f64>,
    dim: usize,
    level: Level,
}

impl<'v> Group<'v> {
    fn new(numbers: &[u32], vectors: &'v [f32], dim: usize, level: Level) -> Self {
        let norms = norms(vectors, dim, level);
        let is_valid = |norm: &f64| *norm > 0.0 && norm.is_finite();
        if norms.iter().all(is_valid) {
            return Group { numbers: numbers.to_vec(), vectors: vectors.into(), norms, dim, level };
        }
        let valid = || norms.iter().map(is_valid);
        let vectors = vectors.chunks_exact(dim).zip(valid()).filter(|(_, valid)| *valid).flat_map(|(v, _)| v).copied();
        let numbers = numbers.iter().zip(valid()).filter(|(_, valid)| *valid).map(|(&number, _)| number);
        let (numbers, vectors) = (numbers.collect(), vectors.collect::<Vec<f32>>().into());
        let norms = norms.into_iter().filter(is_valid).collect();
        Group { numbers, vectors, norms, dim, level }
    }

    fn len(&self) -> usize {
        self.numbers.len()
    }

    /// The similarities of all pairs, a row after the other: of each pair computed once.
    fn all_pairs(&self, par: &Par<'_>) -> Result<Vec<f32>> {
        let n = self.len();
        let mut all = vec![0f32; n * n];
        let mut dots = Vec::new();
        for first in (0..n).step_by(COLUMNS) {
            par.check()?;
            let end = n.min(first + COLUMNS);
            let columns = ExactColumns::new(self.level, &self.vectors[first * self.dim..end * self.dim], self.dim);
            columns.dots(&self.vectors[first * self.dim..], &mut dots);
            for (i, dots) in (first..n).zip(dots.chunks_exact(end - first)) {
                for (j, &dot) in (first..end).zip(dots) {
                    let similarity = cosine(dot, self.norms[i], self.norms[j]);
                    (all[i * n + j], all[j * n + i]) = (similarity, similarity);
                }
            }
        }
        Ok(all)
    }

    /// The similarities of row `i` to all.
    fn column(&self, i: usize) -> Vec<f32> {
        let column = &self.vectors[i * self.dim..(i + 1) * self.dim];
        let mut dots = Vec::new();
        ExactColumns::new(self.level, column, self.dim).dots(&self.vectors, &mut dots);
        dots.iter().zip(&self.norms).map(|(&dot, &norm)| cosine(dot, norm, self.norms[i])).collect()
    }
}

/// A request of [`lazy_greedy`]: for the present gain of a row, or that the row be taken.
enum Step {
    Gain(u32),
    Take(u32),
}

/// The greedy order of rows whose gains only shrink.
fn lazy_greedy(gains: Vec<Pick>, budget: usize, par: &Par<'_>, mut step: impl FnMut(Step) -> f64) -> Result<Vec<Pick>> {
    let mut heap: BinaryHeap<Bound> = gains.into_iter().map(|pick| Bound { pick, taken: 0 }).collect();
    let mut picks = Vec::with_capacity(budget.min(heap.len()));
    while picks.len() < budget
        && let Some(mut best) = heap.pop()
    {
        if best.taken == picks.len() {
            par.check()?;
            step(Step::Take(best.pick.row));
            picks.push(best.pick);
        } else {
            best.pick.gain = step(Step::Gain(best.pick.row));
            best.taken = picks.len();
            heap.push(best);
        }
    }
    Ok(picks)
}

/// A gain as it was when so many were `taken`. The largest comes first, of equals the lower number.
#[derive(Debug, PartialEq)]
struct Bound {
    pick: Pick,
    taken: usize,
}

impl Eq for Bound {}

impl Ord for Bound {
    fn cmp(&self, other: &Self) -> Ordering {
        self.pick.gain.total_cmp(&other.pick.gain).then(other.pick.row.cmp(&self.pick.row))
    }
}

impl PartialOrd for Bound {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
