//! What is known of every row before a choice is made, and the answer after it.

use std::borrow::Cow;

use super::cut::{ALWAYS, CHUNK, Listed, NOWHERE, rows_of};
use super::{Counts, Options, Phase, Selection};
use crate::error::{Error, Result};
use crate::runtime::parallel::Par;

/// Rows that one thread works on at a time.
pub(super) const BLOCK: usize = 1 << 16;

/// What is known of every row.
pub(super) struct Standing<'a> {
    labels: &'a [i32],
    similarity: &'a [f32],
    /// The label of every free row, [`ALWAYS`] for a preselected one and [`NOWHERE`] for the others: the labels
    /// themselves where all rows that have one are free.
    free: Cow<'a, [i32]>,
    /// Number of clusters.
    k: usize,
    /// Rows without a label or a similarity, ascending.
    invalid: Vec<i64>,
    /// Preselected rows of every cluster.
    preselected: Vec<usize>,
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
        let free = Cow::Borrowed(labels);
        let mut standing = Standing { labels, similarity, free, k, invalid, preselected: vec![0; k] };
        for &row in &standing.invalid {
            if labels[row as usize] >= 0 {
                standing.free.to_mut()[row as usize] = NOWHERE;
            }
        }
        for &index in exclude {
            standing.free.to_mut()[in_range(index, n, "exclude")?] = NOWHERE;
        }
        for &index in preselected {
            standing.preselect(in_range(index, n, "preselected")?, exclude)?;
        }
        if preselected.len() > budget {
            return Err(Error::Budget(format!(
                "{} rows are preselected, more than the budget of {budget}",
                preselected.len()
            )));
        }
        Ok(standing)
    }

    fn preselect(&mut self, row: usize, exclude: &[i64]) -> Result<()> {
        match self.free[row] {
            ALWAYS => Err(Error::Argument(format!("row {row} is preselected twice; give every row once"))),
            NOWHERE if exclude.contains(&(row as i64)) => {
                Err(Error::Argument(format!("row {row} is both excluded and preselected")))
            }
            NOWHERE => Err(Error::InvalidRow { row, why: "is preselected, but has no label or no similarity" }),
            cluster => {
                self.free.to_mut()[row] = ALWAYS;
                self.preselected[cluster as usize] += 1;
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

    /// The cluster of `row`, if it is valid and not excluded.
    pub(super) fn pool(&self, row: usize) -> Option<usize> {
        usize::try_from(if self.free[row] == ALWAYS { self.labels[row] } else { self.free[row] }).ok()
    }

    /// The cluster of every row that is in the pool and not preselected, [`ALWAYS`] for the preselected ones and
    /// [`NOWHERE`] for the others.
    pub(super) fn free(&self) -> &[i32] {
        &self.free
    }

    /// The answer: of the rows that are `listed` the preselected ones, and those for which `phase` has a reason, given
    /// their cluster. It has one for every row that is not near a cut. `counts` lacks the fill.
    pub(super) fn selection(
        &self,
        mut counts: Vec<Counts>,
        listed: &[Listed],
        phase: impl Fn(usize, usize) -> Option<Phase> + Sync,
        par: &Par<'_>,
    ) -> Result<Selection> {
        let phase = |row| match self.free[row] {
            ALWAYS => Some(Phase::Preselected),
            cluster => phase(row, cluster as usize),
        };
        let left_out =
            |(): &mut (), i: usize| Ok(rows_of(i, &listed[i].near).filter(|&row| phase(row).is_none()).count());
        let left_out = par.map(listed.len(), || (), left_out)?;
        let sizes: Vec<usize> = listed.iter().zip(&left_out).map(|(list, out)| list.rows.len() - out).collect();
        let size = sizes.iter().sum();
        let (mut indices, mut cluster) = (vec![0; size], vec![0; size]);
        let (mut similarity, mut phases) = (vec![0.0; size], vec![0; size]);
        let mut rest =
            Columns { indices: &mut indices, cluster: &mut cluster, similarity: &mut similarity, phase: &mut phases };
        let mut parts: Vec<Columns<'_>> = sizes.iter().map(|&size| rest.split_off(size)).collect();
        let write = |(): &mut (), i: usize, part: &mut [Columns<'_>]| {
            let chosen = rows_of(i, &listed[i].rows).filter_map(|row| phase(row).map(|phase| (row, phase)));
            for (at, (row, phase)) in chosen.enumerate() {
                part[0].indices[at] = row as i64;
                part[0].cluster[at] = self.labels[row];
                part[0].similarity[at] = self.similarity[row];
                part[0].phase[at] = phase as u8;
            }
            Ok(())
        };
        par.for_blocks(&mut parts, 1, || (), write)?;
        let known: usize = counts.iter().map(|counts| counts.quota + counts.preselected).sum();
        if known < size {
            for (&label, _) in cluster.iter().zip(&phases).filter(|&(_, &phase)| phase == Phase::Fill as u8) {
                counts[label as usize].fill += 1;
            }
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
    let is_invalid = |(&label, s): (&i32, &f32)| (label as u32 >= k as u32) | s.is_nan();
    let lists = par.map(
        labels.len().div_ceil(BLOCK),
        || (),
        |(), i| {
            let end = labels.len().min((i + 1) * BLOCK);
            let mut rows = Vec::new();
            for start in (i * BLOCK..end).step_by(CHUNK) {
                let chunk = start..end.min(start + CHUNK);
                let chunk = || labels[chunk.clone()].iter().zip(&similarity[chunk.clone()]);
                // All of them without a branch: there are few.
                if chunk().fold(false, |any, row| any | is_invalid(row)) {
                    rows.extend((start as i64..).zip(chunk()).filter(|&(_, row)| is_invalid(row)).map(|(row, _)| row));
                }
            }
            Ok(rows)
        },
    )?;
    let rows = lists.concat();
    if let Some(&row) = rows.iter().find(|&&row| !(-1..k as i32).contains(&labels[row as usize])) {
        return Err(Error::Argument(format!(
            "row {row} has label {}; expected 0 to {} (k = {k}), or -1 for an invalid row",
            labels[row as usize],
            k - 1
        )));
    }
    Ok(rows)
}

fn in_range(index: i64, n: usize, list: &str) -> Result<usize> {
    usize::try_from(index)
        .ok()
        .filter(|&row| row < n)
        .ok_or_else(|| Error::Argument(format!("{list} names row {index}, but rows are numbered 0 to {}", n - 1)))
}
