//! Stage II: which rows a budget keeps.
//!
//! Of a budget of B rows every one of K clusters may fill a quota of `floor(B / K)` with its best rows; what is left of
//! B, because K does not divide it or because clusters are too small, goes to the best of all remaining rows
//! (RS-Prune, Sec. 3.3). What "best" means is [`Within`], who gets the rest is [`Fill`]. Ties go to the lowest row.
//!
//! Cost is O(N): rows are counted into bins, those up to the bins where the quotas and the fill end are listed, and only
//! those in them are compared to find the keys at which they end ([`cut`]). Rows are neither moved nor sorted (but for
//! [`Within::Mid`], which needs ranks), so memory beyond the answer stays small: two bytes a listed row, four a row more
//! for [`Fill::Zscore`] or where rows are excluded, preselected or without a label.

pub mod apportion;
mod cut;
mod order;
mod standing;
#[cfg(test)]
mod tests;

use crate::error::{Error, Result};
use crate::runtime::parallel::Par;
use apportion::{Bound, apportion_evenly};
use cut::{Groups, NOWHERE, Place};
use order::{BySimilarity, Drawn, Key, MiddleOut, Order, Standardised};
use standing::Standing;

/// Who gets what the quotas leave of the budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fill {
    /// The best of all remaining rows, whatever their cluster: the paper.
    Global,
    /// Every cluster alike, as far as its rows reach: see [`apportion`].
    Waterfill,
    /// As [`Fill::Global`], by similarity standardised within the cluster.
    Zscore,
    /// Nobody: the quotas only, so fewer than B rows.
    None,
}

/// Which rows of a cluster come first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Within {
    /// The most similar to the centroid: the paper.
    Nearest,
    /// The least similar.
    Far,
    /// A seeded draw.
    Random,
    /// Those of middle rank by similarity.
    Mid,
}

/// What is to be selected.
#[derive(Debug, Clone, Copy)]
pub struct Options<'a> {
    /// Number of clusters, K.
    pub k: usize,
    /// Rows to select, B.
    pub budget: usize,
    /// Who gets what the quotas leave.
    pub fill: Fill,
    /// Which rows of a cluster come first.
    pub within: Within,
    /// For [`Within::Random`].
    pub seed: u64,
    /// Rows that are never selected.
    pub exclude: &'a [i64],
    /// Rows that are in the answer already: they count towards B and towards their cluster's quota.
    pub preselected: &'a [i64],
    /// Fail when there are fewer than B rows to select from, instead of returning all of them.
    pub strict: bool,
}

impl Options<'_> {
    /// The paper's selection of `budget` rows from `k` clusters.
    pub fn new(k: usize, budget: usize) -> Self {
        Options {
            k,
            budget,
            fill: Fill::Global,
            within: Within::Nearest,
            seed: 0,
            exclude: &[],
            preselected: &[],
            strict: true,
        }
    }
}

/// Why a row was selected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// By its cluster's quota.
    Quota = 0,
    /// By the fill.
    Fill = 1,
    /// It was selected before.
    Preselected = 2,
}

/// What became of a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Rows to select from: valid, not excluded, the preselected included.
    pub pool: usize,
    /// Selected by quota.
    pub quota: usize,
    /// Selected by the fill.
    pub fill: usize,
    /// Selected before.
    pub preselected: usize,
}

/// The selected rows, ascending, and what is known of each.
#[derive(Debug, Clone, PartialEq)]
pub struct Selection {
    /// Row numbers.
    pub indices: Vec<i64>,
    /// Their clusters.
    pub cluster: Vec<i32>,
    /// Their similarities.
    pub similarity: Vec<f32>,
    /// Their [`Phase`]s, as numbers.
    pub phase: Vec<u8>,
    /// One entry a cluster.
    pub counts: Vec<Counts>,
    /// Rows without a label or a similarity, ascending.
    pub invalid: Vec<i64>,
}

/// Selects from rows whose cluster and similarity are known; label -1 or a NaN similarity marks a row as invalid.
///
/// # Errors
/// [`Error::Budget`] when the budget cannot be met, [`Error::Shape`] for arrays of different lengths,
/// [`Error::Argument`] for labels and row numbers out of range, [`Error::InvalidRow`] for a preselected invalid row.
pub fn select(labels: &[i32], similarity: &[f32], options: &Options<'_>, par: &Par<'_>) -> Result<Selection> {
    let Options { fill, within, seed, .. } = *options;
    if fill == Fill::Zscore && !matches!(within, Within::Nearest | Within::Far) {
        return Err(Error::Argument(
            "fill=\"zscore\" ranks by similarity, so it goes with within=\"nearest\" or \"far\" only".into(),
        ));
    }
    let standing = Standing::new(labels, similarity, options, par)?;
    match within {
        Within::Nearest | Within::Far => {
            let sign = if within == Within::Far { -1.0 } else { 1.0 };
            let order = BySimilarity::new(similarity, sign);
            match fill {
                Fill::Zscore => choose(&standing, options, &order, &Standardised::new(&standing, sign.into()), par),
                _ => choose(&standing, options, &order, &order, par),
            }
        }
        Within::Random => choose(&standing, options, &Drawn { seed }, &Drawn { seed }, par),
        Within::Mid => {
            let order = MiddleOut::new(&standing, par)?;
            choose(&standing, options, &order, &order, par)
        }
    }
}

/// Selects by `order` within the clusters, and by `fill_order` from what they leave.
fn choose(
    standing: &Standing<'_>,
    options: &Options<'_>,
    order: &impl Order,
    fill_order: &impl Order,
    par: &Par<'_>,
) -> Result<Selection> {
    let Options { k, budget, fill, strict, .. } = *options;
    let clusters = Groups { of: standing.free(), count: k, order, par };
    let table = clusters.table()?;
    let preselected = standing.preselected();
    let pools: Vec<usize> = (0..k).map(|i| table.total(i) + preselected[i]).collect();
    let pool = pools.iter().sum();
    if strict {
        standing.check_budget(budget, pool)?;
    }
    let target = budget.min(pool);
    let by_quota = quotas(&pools, preselected, budget / k, target)?;
    // What each cluster keeps by itself; the rest of the target goes to the union of the remainders.
    let kept = match fill {
        Fill::Waterfill => apportion_evenly(target, &bounds(preselected, &pools))?,
        _ => by_quota.clone(),
    };
    let missing = target - kept.iter().sum::<usize>();
    let free =
        |held: &[usize]| -> Vec<usize> { held.iter().zip(preselected).map(|(held, before)| held - before).collect() };
    let quota_ranks = free(&by_quota.iter().zip(&kept).map(|(&quota, &kept)| quota.min(kept)).collect::<Vec<_>>());
    let quota_places = table.places(&quota_ranks);
    let fill_places = match fill {
        Fill::Global => vec![table.beyond(&quota_ranks).place(0, missing); k],
        Fill::Waterfill => table.places(&free(&kept)),
        Fill::Zscore | Fill::None => vec![Place::FIRST; k],
    };

    let mut listed = clusters.list(&quota_places, &fill_places)?;
    let quota_ends = clusters.keys_at(&quota_places, &listed, order, |cluster, _| Some(cluster))?;
    let in_quota = |cluster: usize, row| order.key(row) < quota_ends[cluster];
    let fill_ends = match fill {
        Fill::Global => {
            let beyond = |cluster, row| (!in_quota(cluster, row)).then_some(0);
            vec![clusters.keys_at(&fill_places[..1], &listed, fill_order, beyond)?[0]; k]
        }
        Fill::Waterfill => clusters.keys_at(&fill_places, &listed, fill_order, |cluster, _| Some(cluster))?,
        Fill::Zscore => {
            // Another order, which has bins of its own.
            let remains = |(row, &cluster): (usize, &i32)| cluster >= 0 && !in_quota(cluster as usize, row);
            let of = standing.free().iter().enumerate().map(|row| if remains(row) { 0 } else { NOWHERE });
            let of: Vec<i32> = of.collect();
            let remainder = Groups { of: &of, count: 1, order: fill_order, par };
            let place = remainder.table()?.place(0, missing);
            let others = remainder.list(&[place], &[place])?;
            let end = remainder.keys_at(&[place], &others, fill_order, |group, _| Some(group))?[0];
            listed.iter_mut().zip(&others).for_each(|(list, others)| list.merge(others));
            vec![end; k]
        }
        Fill::None => vec![Key::LEAST; k],
    };
    let phase = |row, cluster: usize| {
        let in_fill = || fill_order.key(row) < fill_ends[cluster];
        if in_quota(cluster, row) { Some(Phase::Quota) } else { in_fill().then_some(Phase::Fill) }
    };
    let count = |i: usize| Counts { pool: pools[i], quota: quota_ranks[i], fill: 0, preselected: preselected[i] };
    standing.selection((0..k).map(count).collect(), &listed, phase, par)
}

/// Rows that each cluster holds by quota, its preselected ones included: `min(quota, pool)`, but never fewer than are
/// preselected. Where preselected rows exceed their cluster's quota so far that the target would not hold all quotas,
/// those of the other clusters are lowered evenly.
fn quotas(pools: &[usize], preselected: &[usize], quota: usize, target: usize) -> Result<Vec<usize>> {
    let wanted: Vec<usize> =
        pools.iter().zip(preselected).map(|(&pool, &before)| pool.min(quota).max(before)).collect();
    if wanted.iter().sum::<usize>() <= target {
        Ok(wanted)
    } else {
        apportion_evenly(target, &bounds(preselected, &wanted))
    }
}

fn bounds(lower: &[usize], upper: &[usize]) -> Vec<Bound> {
    lower.iter().zip(upper).map(|(&lower, &upper)| Bound { lower, upper }).collect()
}
