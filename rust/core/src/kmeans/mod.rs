//! Reference centroids by spherical K-means.
//!
//! Maximises the sum of cosines between unit rows and the centroids of their clusters (Dhillon and Modha, 2001): rows
//! are assigned to the nearest centroid, a centroid is the normalised sum of its rows, in turn, until no label changes.
//! Unlike K-means with normalised centroids over raw rows, the objective never falls.
//!
//! Reference sets are small, so their rows are held in memory, with the digits that assign them.

mod init;
mod lloyd;
mod sums;
#[cfg(test)]
mod tests;
mod unit_rows;

use crate::assign::{Centroids, OnInvalid};
use crate::error::{Error, Result};
use crate::rows::Rows;
use crate::runtime::parallel::Par;
use unit_rows::UnitRows;

/// Settings of a fit.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Number of clusters, K.
    pub k: usize,
    /// Seed for k-means++.
    pub seed: u64,
    /// Number of runs from different starts; the best is kept.
    pub n_init: usize,
    /// The most assignments in a run.
    pub max_iter: usize,
    /// A run ends when the objective grows by less than this, relatively.
    pub tol: f64,
}

impl Options {
    /// The defaults for `k` clusters.
    pub fn new(k: usize) -> Self {
        Options { k, seed: 0, n_init: 4, max_iter: 100, tol: 1e-4 }
    }
}

/// Fitted centroids.
#[derive(Debug, Clone)]
pub struct Fit {
    /// The centroids of the best run.
    pub centroids: Centroids,
    /// The sum of cosines after each of its assignments; the last is that of `centroids`.
    pub objective: Vec<f64>,
    /// The rows that it started from.
    pub seeds: Vec<usize>,
    /// Rows without a direction, which were left out.
    pub invalid: Vec<usize>,
}

/// Fits `options.k` centroids to the directions of `rows`.
///
/// # Errors
/// [`Error::Argument`] for options out of range and for fewer rows, or fewer distinct rows, than clusters;
/// [`Error::InvalidRow`] with [`OnInvalid::Raise`]; what reading files can raise.
pub fn fit(rows: &Rows<'_>, options: &Options, on_invalid: OnInvalid, par: &Par<'_>) -> Result<Fit> {
    let &Options { k, seed, n_init, max_iter, tol } = options;
    for (name, value) in [("k", k), ("n_init", n_init), ("max_iter", max_iter)] {
        if value == 0 {
            return Err(Error::Argument(format!("{name} is 0; it must be at least 1")));
        }
    }
    if !(tol >= 0.0 && tol.is_finite()) {
        return Err(Error::Argument(format!("tol is {tol}; it must be a number of at least 0")));
    }
    let units = UnitRows::load(rows, on_invalid, par)?;
    if k > units.len() {
        let invalid = units.invalid.len();
        return Err(Error::Argument(format!(
            "k is {k}, but there are only {} valid rows ({invalid} invalid); lower k, or give more reference images",
            units.len()
        )));
    }
    let distinct = units.distinct(k);
    if k > distinct {
        return Err(Error::Argument(format!(
            "k is {k}, but only {distinct} of {} rows point in distinct directions; lower k, or give more reference images",
            units.len()
        )));
    }
    let mut best: Option<(lloyd::Run, Vec<usize>)> = None;
    for run in 0..n_init {
        let seeds = init::plus_plus(&units, k, seed, run, par)?;
        let run = lloyd::run(&units, &seeds, options, par)?;
        if best.as_ref().is_none_or(|(best, _)| run.objective.last() > best.objective.last()) {
            best = Some((run, seeds));
        }
    }
    let Some((run, seeds)) = best else {
        return Err(Error::Argument("n_init is 0; it must be at least 1".into()));
    };
    let seeds = seeds.into_iter().map(|unit| units.row(unit)).collect();
    Ok(Fit { centroids: run.centroids, objective: run.objective, seeds, invalid: units.invalid })
}
