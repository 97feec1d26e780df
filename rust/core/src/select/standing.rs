//! What is known of every row before a choice is made, and the answer after it.

use std::borrow::Cow;

use super::cut::{pick, picked};
use super::{Counts, Options, Phase, Selection};
use crate::error::{Error, Result};
use crate::par::Par;

/// Rows that one thread works on at a time.
pub(super) const BLOCK: usize = 1 << 16;

/// What is known of every row.
pub(super) struct Standing<'a> {
    labels: &'a [i32],
    similarity: &'a [f32],
    /// One a row, or none at all where no row is marked.
    marks: Vec<Mark>,
    /// The label of every free row, and -1 for the others: the labels themselves where all that have one are free.
    free: Cow<'a, [i32]>,
    /// Number of clusters.
    k: usize,
    /// Rows without a label or a similarity, ascending.
    invalid: Vec<i64>,
    /// Preselected rows of every cluster.
    preselected: Vec<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mark {
    None,
    Preselected,
    Excluded,
}

impl<'a> Standing<'a> {
    /// Checks everything that was given but the budget, and finds where each row stands.
    pub(super) fn new(labels: &'a [i32], similarity: &'a [f32], options: &Options<'_>, par: &Par<'_>) -> Result<Self> {
        let &Options { k, budget, exclude, preselected, .. } = options;
        let n = labels.len();
        if similarity.len() != n {
            return Err(Error::Shape(format!(
                "{n} labels, but {} similarities; expected one each a row",
                similarity.len()
            )));
        }
        if n == 0 {
            return Err(Error::Empty("nothing to select from: 0 rows".into()));
        }
        if u32::try_from(n).is_err() {
            return Err(Error::Shape(format!("{n} rows; at most {} are selected from at once", u32::MAX)));
        }
        if k == 0 || i32::try_from(k).is_err() {
            return Err(Error::Argument(format!("k is {k}; expected 1 to {} clusters", i32::MAX)));
        }
        if budget == 0 {
            return Err(Error::Budget("a budget of 0 rows selects nothing; it must be at least 1".into()));
        }
        let invalid = invalid_rows(labels, similarity, k, par)?;
        let marks = if exclude.is_empty() && preselected.is_empty() { Vec::new() } else { vec![Mark::None; n] };
        let free = Cow::Borrowed(labels);
        let mut standing = Standing { labels, similarity, marks, free, k, invalid, preselected: vec![0; k] };
        for &index in exclude {
            let row = in_range(index, n, "exclude")?;
            standing.marks[row] = Mark::Excluded;
        }
        for &index in preselected {
            standing.preselect(in_range(index, n, "preselected")?)?;
        }
        if preselected.len() > budget {
            return Err(Error::Budget(format!(
                "{} rows are preselected, more than the budget of {budget}",
                preselected.len()
            )));
        }
        if !standing.marks.is_empty() || standing.invalid.iter().any(|&row| labels[row as usize] >= 0) {
            let free = |row| standing.pool(row).filter(|_| !standing.is_preselected(row));
            standing.free = (0..n).map(|row| free(row).map_or(-1, |cluster| cluster as i32)).collect();
        }
        Ok(standing)
    }

    fn preselect(&mut self, row: usize) -> Result<()> {
        match (self.marks[row], self.valid(row)) {
            (Mark::Preselected, _) => {
                Err(Error::Argument(format!("row {row} is preselected twice; give every row once")))
            }
            (Mark::Excluded, _) => Err(Error::Argument(format!("row {row} is both excluded and preselected"))),
            (Mark::None, None) => {
                Err(Error::InvalidRow { row, why: "is preselected, but has no label or no similarity" })
            }
            (Mark::None, Some(cluster)) => {
                self.marks[row] = Mark::Preselected;
                self.preselected[cluster] += 1;
                Ok(())
            }
        }
    }

    /// Fails where `budget` rows are more than the `pool` to select from.
    pub(super) fn check_budget(&self, budget: usize, pool: usize) -> Result<()> {
        if budget <= pool {
            return Ok(());
        }
        let invalid = self.invalid.len();
        Err(Error::Budget(format!(
            "a budget of {budget} rows, but only {pool} of {} can be selected ({invalid} invalid, {} excluded); lower \
             it, or pass strict=False to get all of them",
            self.rows(),
            self.rows() - invalid - pool,
        )))
    }

    /// Number of rows.
    pub(super) fn rows(&self) -> usize {
        self.labels.len()
    }

    /// Number of clusters.
    pub(super) fn k(&self) -> usize {
        self.k
    }

    /// Preselected rows of every cluster.
    pub(super) fn preselected(&self) -> &[usize] {
        &self.preselected
    }

    /// The similarity of `row`.
    pub(super) fn similarity(&self, row: usize) -> f32 {
        self.similarity[row]
    }

    fn valid(&self, row: usize) -> Option<usize> {
        // NaN is invalid.
        (self.labels[row] >= 0 && !self.similarity[row].is_nan()).then_some(self.labels[row] as usize)
    }

    /// The cluster of `row`, if it is valid and not excluded.
    pub(super) fn pool(&self, row: usize) -> Option<usize> {
        let excluded = !self.marks.is_empty() && self.marks[row] == Mark::Excluded;
        self.valid(row).filter(|_| !excluded)
    }

    /// The cluster of `row`, if it is in the pool and not preselected.
    pub(super) fn free(&self, row: usize) -> Option<usize> {
        usize::try_from(self.free[row]).ok()
    }

    /// Whether `row` is preselected.
    pub(super) fn is_preselected(&self, row: usize) -> bool {
        !self.marks.is_empty() && self.marks[row] == Mark::Preselected
    }

    /// The answer: the preselected rows and those that are `chosen`, ascending. `pools` are the sizes of the clusters'
    /// pools, `phase` says why a row was chosen.
    pub(super) fn selection(
        &self,
        pools: &[usize],
        chosen: impl Fn(usize) -> bool + Sync,
        phase: impl Fn(usize) -> Phase + Sync,
        par: &Par<'_>,
    ) -> Result<Selection> {
        let lists = if self.marks.is_empty() {
            pick(self.rows(), par, chosen)
        } else {
            pick(self.rows(), par, |row| self.is_preselected(row) || chosen(row))
        }?;
        let size = lists.iter().map(Vec::len).sum();
        let (mut indices, mut cluster) = (vec![0; size], vec![0; size]);
        let (mut similarity, mut phases) = (vec![0.0; size], vec![0; size]);
        let mut rest =
            Columns { indices: &mut indices, cluster: &mut cluster, similarity: &mut similarity, phase: &mut phases };
        let mut parts: Vec<Columns<'_>> = lists.iter().map(|list| rest.split_off(list.len())).collect();
        let write = |(): &mut (), i: usize, part: &mut [Columns<'_>]| {
            for (at, row) in picked(i, &lists[i]).enumerate() {
                part[0].indices[at] = row as i64;
                part[0].cluster[at] = self.labels[row];
                part[0].similarity[at] = self.similarity[row];
                part[0].phase[at] = if self.is_preselected(row) { Phase::Preselected } else { phase(row) } as u8;
            }
            Ok(())
        };
        par.for_blocks(&mut parts, 1, || (), write)?;
        let mut counts: Vec<Counts> = pools.iter().map(|&pool| Counts { pool, ..Counts::default() }).collect();
        for (&label, &phase) in cluster.iter().zip(&phases) {
            let counts = &mut counts[label as usize];
            counts.quota += usize::from(phase == Phase::Quota as u8);
            counts.fill += usize::from(phase == Phase::Fill as u8);
            counts.preselected += usize::from(phase == Phase::Preselected as u8);
        }
        Ok(Selection { indices, cluster, similarity, phase: phases, counts, invalid: self.invalid.clone() })
    }
}

/// A stretch of the answer.
struct Columns<'a> {
    indices: &'a mut [i64],
    cluster: &'a mut [i32],
    similarity: &'a mut [f32],
    phase: &'a mut [u8],
}

impl<'a> Columns<'a> {
    /// The first `n` rows, which are taken away.
    fn split_off(&mut self, n: usize) -> Columns<'a> {
        fn first<'a, T>(rest: &mut &'a mut [T], n: usize) -> &'a mut [T] {
            let (first, others) = std::mem::take(rest).split_at_mut(n);
            *rest = others;
            first
        }
        Columns {
            indices: first(&mut self.indices, n),
            cluster: first(&mut self.cluster, n),
            similarity: first(&mut self.similarity, n),
            phase: first(&mut self.phase, n),
        }
    }
}

/// Checks the labels, and finds the rows that have none or no similarity.
fn invalid_rows(labels: &[i32], similarity: &[f32], k: usize, par: &Par<'_>) -> Result<Vec<i64>> {
    let is_valid = |row: usize| (labels[row] as u32) < k as u32 && !similarity[row].is_nan();
    let lists = pick(labels.len(), par, |row| !is_valid(row))?;
    let rows = || lists.iter().enumerate().flat_map(|(i, list)| picked(i, list));
    if let Some(row) = rows().find(|&row| labels[row] < -1 || labels[row] >= k as i32) {
        return Err(Error::Argument(format!(
            "row {row} has label {}; expected 0 to {} (k = {k}), or -1 for an invalid row",
            labels[row],
            k - 1
        )));
    }
    Ok(rows().map(|row| row as i64).collect())
}

fn in_range(index: i64, n: usize, list: &str) -> Result<usize> {
    usize::try_from(index)
        .ok()
        .filter(|&row| row < n)
        .ok_or_else(|| Error::Argument(format!("{list} names row {index}, but rows are numbered 0 to {}", n - 1)))
}
