//! Validated input of a selection.

use std::borrow::Cow;

use super::options::Options;
use crate::error::{Error, Result};
use crate::runtime::parallel::Par;

/// Rows that one thread works on at a time.
pub(super) const BLOCK: usize = 1 << 16;

/// Rows that are looked at before anything is done with them.
pub(super) const CHUNK: usize = 512;

/// The label of a row that cannot be selected.
pub(super) const EXCLUDED: i32 = -1;

/// The label of a row that is selected whatever its rank.
pub(super) const PRESELECTED: i32 = -2;

/// The rows to select from.
pub(super) struct Pool<'a> {
    /// The cluster of every row, or -1, as given.
    clusters: &'a [i32],
    similarity: &'a [f32],
    /// The cluster of every row that may be selected, [`PRESELECTED`] or [`EXCLUDED`]. Borrowed where nothing is either.
    labels: Cow<'a, [i32]>,
    /// Number of clusters.
    k: usize,
    /// Rows without a label or a similarity, ascending.
    invalid: Vec<i64>,
    /// Number of preselected rows of every cluster.
    preselected: Vec<usize>,
}

impl<'a> Pool<'a> {
    /// Checks everything but whether the budget can be met.
    pub(super) fn new(labels: &'a [i32], similarity: &'a [f32], options: &Options<'_>, par: &Par<'_>) -> Result<Self> {
        let &Options { k, budget, numbers, exclude, preselected, .. } = options;
        let n = labels.len();
        if similarity.len() != n {
            return Err(Error::Shape(format!(
                "{n} labels, but {} similarities; expected one each a row",
                similarity.len()
            )));
        }
        if let Some(numbers) = numbers.filter(|numbers| numbers.len() != n) {
            return Err(Error::Shape(format!(
                "{n} labels, but {} row numbers; expected one each a row",
                numbers.len()
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
        let mut pool =
            Pool { clusters: labels, similarity, labels: Cow::Borrowed(labels), k, invalid, preselected: vec![0; k] };
        for &row in &pool.invalid {
            if labels[row as usize] >= 0 {
                pool.labels.to_mut()[row as usize] = EXCLUDED;
            }
        }
        for &index in exclude {
            pool.labels.to_mut()[in_range(index, n, "exclude")?] = EXCLUDED;
        }
        for &index in preselected {
            pool.preselect(in_range(index, n, "preselected")?, exclude)?;
        }
        if preselected.len() > budget {
            return Err(Error::Budget(format!(
                "{} rows are preselected, more than the budget of {budget}",
                preselected.len()
            )));
        }
        Ok(pool)
    }

    fn preselect(&mut self, row: usize, exclude: &[i64]) -> Result<()> {
        match self.labels[row] {
            PRESELECTED => Err(Error::Argument(format!("row {row} is preselected twice; give every row once"))),
            EXCLUDED if exclude.contains(&(row as i64)) => {
                Err(Error::Argument(format!("row {row} is both excluded and preselected")))
            }
            EXCLUDED => Err(Error::InvalidRow { row, why: "is preselected, but has no label or no similarity" }),
            cluster => {
                self.labels.to_mut()[row] = PRESELECTED;
                self.preselected[cluster as usize] += 1;
                Ok(())
            }
        }
    }

    /// Fails when the budget is more than the `pool` rows there are to select from.
    pub(super) fn check_budget(&self, budget: usize, pool: usize) -> Result<()> {
        if budget <= pool {
            return Ok(());
        }
        let invalid = self.invalid.len();
        Err(Error::Budget(format!(
            "a budget of {budget} rows, but only {pool} of {} can be selected ({invalid} invalid, {} excluded); lower \
             it, or pass strict=False (--no-strict) to get all of them",
            self.rows(),
            self.rows() - invalid - pool,
        )))
    }

    /// Number of rows.
    pub(super) fn rows(&self) -> usize {
        self.clusters.len()
    }

    /// Number of clusters.
    pub(super) fn k(&self) -> usize {
        self.k
    }

    /// Number of preselected rows of every cluster.
    pub(super) fn preselected(&self) -> &[usize] {
        &self.preselected
    }

    /// The cluster of `row` as given.
    pub(super) fn given_cluster(&self, row: usize) -> i32 {
        self.clusters[row]
    }

    /// The similarity of `row`.
    pub(super) fn similarity(&self, row: usize) -> f32 {
        self.similarity[row]
    }

    /// The cluster of `row`, if it is valid and not excluded.
    pub(super) fn cluster(&self, row: usize) -> Option<usize> {
        usize::try_from(if self.labels[row] == PRESELECTED { self.clusters[row] } else { self.labels[row] }).ok()
    }

    /// The cluster of every row that may be selected, [`PRESELECTED`] or [`EXCLUDED`].
    pub(super) fn labels(&self) -> &[i32] {
        &self.labels
    }

    /// Rows without a label or a similarity, ascending.
    pub(super) fn invalid(&self) -> &[i64] {
        &self.invalid
    }
}

/// Checks the labels, and lists the rows without a label or a similarity.
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
                // One branch for all of them: few are invalid.
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
