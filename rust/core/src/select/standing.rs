//! What stands for every row before a choice is made, and the answer after it.

use super::{Counts, Options, Phase, Selection};
use crate::error::{Error, Result};

/// The standing of every row.
pub(super) struct Standing {
    rows: Vec<Row>,
    /// Rows to select from, a cluster: the preselected included.
    pools: Vec<usize>,
    preselected: Vec<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Row {
    Free,
    Preselected,
    Excluded,
    Invalid,
}

impl Standing {
    /// Checks everything that was given, and finds where each row stands.
    pub(super) fn new(labels: &[i32], similarity: &[f32], options: &Options<'_>) -> Result<Self> {
        let &Options { k, budget, exclude, preselected, strict, .. } = options;
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
        let mut standing = Standing { rows: vec![Row::Free; n], pools: vec![0; k], preselected: vec![0; k] };
        for (row, (&label, similarity)) in labels.iter().zip(similarity).enumerate() {
            if label < -1 || label >= k as i32 {
                return Err(Error::Argument(format!(
                    "row {row} has label {label}; expected 0 to {} (k = {k}), or -1 for an invalid row",
                    k - 1
                )));
            }
            if label < 0 || similarity.is_nan() {
                standing.rows[row] = Row::Invalid;
            } else {
                standing.pools[label as usize] += 1;
            }
        }
        for &index in exclude {
            let row = in_range(index, n, "exclude")?;
            if standing.rows[row] == Row::Free {
                standing.rows[row] = Row::Excluded;
                standing.pools[labels[row] as usize] -= 1;
            }
        }
        standing.preselect(labels, exclude, preselected)?;
        standing.check_budget(budget, preselected.len(), strict)?;
        Ok(standing)
    }

    fn preselect(&mut self, labels: &[i32], exclude: &[i64], preselected: &[i64]) -> Result<()> {
        for &index in preselected {
            let row = in_range(index, labels.len(), "preselected")?;
            match self.rows[row] {
                Row::Free => self.rows[row] = Row::Preselected,
                Row::Preselected => {
                    return Err(Error::Argument(format!("row {row} is preselected twice; give every row once")));
                }
                Row::Invalid if !exclude.contains(&index) => {
                    return Err(Error::InvalidRow { row, why: "is preselected, but has no label or no similarity" });
                }
                Row::Excluded | Row::Invalid => {
                    return Err(Error::Argument(format!("row {row} is both excluded and preselected")));
                }
            }
            self.preselected[labels[row] as usize] += 1;
        }
        Ok(())
    }

    fn check_budget(&self, budget: usize, preselected: usize, strict: bool) -> Result<()> {
        if preselected > budget {
            return Err(Error::Budget(format!("{preselected} rows are preselected, more than the budget of {budget}")));
        }
        let pool = self.pool();
        if strict && budget > pool {
            let count = |kind| self.rows.iter().filter(|&&row| row == kind).count();
            return Err(Error::Budget(format!(
                "a budget of {budget} rows, but only {pool} of {} can be selected ({} invalid, {} excluded); lower it, \
                 or pass strict=False to get all of them",
                self.rows.len(),
                count(Row::Invalid),
                count(Row::Excluded),
            )));
        }
        Ok(())
    }

    /// Rows to select from: valid and not excluded.
    pub(super) fn pool(&self) -> usize {
        self.pools.iter().sum()
    }

    /// Rows to select from and preselected rows of every cluster.
    pub(super) fn clusters(&self) -> impl Iterator<Item = (usize, usize)> {
        self.pools.iter().copied().zip(self.preselected.iter().copied())
    }

    /// Whether `row` is valid and not excluded.
    pub(super) fn is_in_pool(&self, row: usize) -> bool {
        matches!(self.rows[row], Row::Free | Row::Preselected)
    }

    /// Whether `row` is preselected.
    pub(super) fn is_preselected(&self, row: usize) -> bool {
        self.rows[row] == Row::Preselected
    }

    /// The answer: the preselected rows and the chosen ones, ascending.
    pub(super) fn selection(&self, chosen: Vec<(usize, Phase)>, labels: &[i32], similarity: &[f32]) -> Selection {
        // A byte a row and one pass over it: cheaper than to sort what was chosen.
        let mut phases: Vec<Option<Phase>> =
            self.rows.iter().map(|&row| (row == Row::Preselected).then_some(Phase::Preselected)).collect();
        let size = chosen.len() + self.preselected.iter().sum::<usize>();
        for (row, phase) in chosen {
            phases[row] = Some(phase);
        }
        let mut selection = Selection {
            indices: Vec::with_capacity(size),
            cluster: Vec::with_capacity(size),
            similarity: Vec::with_capacity(size),
            phase: Vec::with_capacity(size),
            counts: self.pools.iter().map(|&pool| Counts { pool, ..Default::default() }).collect(),
            invalid: (0..self.rows.len()).filter(|&row| self.rows[row] == Row::Invalid).map(|row| row as i64).collect(),
        };
        for (row, phase) in phases.iter().enumerate().filter_map(|(row, phase)| Some((row, (*phase)?))) {
            selection.indices.push(row as i64);
            selection.cluster.push(labels[row]);
            selection.similarity.push(similarity[row]);
            selection.phase.push(phase as u8);
            let counts = &mut selection.counts[labels[row] as usize];
            match phase {
                Phase::Quota => counts.quota += 1,
                Phase::Fill => counts.fill += 1,
                Phase::Preselected => counts.preselected += 1,
            }
        }
        selection
    }
}

fn in_range(index: i64, n: usize, list: &str) -> Result<usize> {
    usize::try_from(index)
        .ok()
        .filter(|&row| row < n)
        .ok_or_else(|| Error::Argument(format!("{list} names row {index}, but rows are numbered 0 to {}", n - 1)))
}
