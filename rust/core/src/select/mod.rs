//! Stage II: selects the rows that a budget keeps.
//!
//! Each of K clusters fills a quota of `floor(B / K)` of the budget B, or one of its own, with its best rows. What is left of B, because K
//! does not divide it or because clusters are too small, goes to the best of all remaining rows (RS-Prune, Sec. 3.3).
//! [`Within`] says which rows are best, [`Fill`] how the rest is distributed. Ties go to the lowest row.
//!
//! Cost is O(N): rows are counted into buckets by rank, rows up to the buckets in which the quotas and the fill end are
//! listed, and only the rows in those buckets are compared to find the exact ends ([`grouped`]). Rows are neither moved
//! nor sorted (except by [`Within::Mid`], which needs ranks), so memory beyond the result stays small: two bytes for
//! each listed row, and four more for each row with [`Fill::Zscore`] or where rows are excluded, preselected or without
//! a label.

pub mod apportion;
mod grouped;
mod histogram;
mod options;
mod pool;
mod ranking;
mod result;
#[cfg(test)]
mod tests;

use num_bigint::BigInt;

use crate::error::{Error, Result};
use crate::runtime::parallel::Par;
use apportion::{Bound, Weights, apportion, apportion_evenly};
use grouped::GroupedRanking;
use histogram::Threshold;
pub use options::{Fill, Options, Within};
use pool::{EXCLUDED, Pool};
use ranking::{BySimilarity, Key, MiddleOut, Ranking, Shuffled, Standardized};
pub use result::{Counts, Phase, Selection};

/// Selects from rows whose cluster and similarity are known; label -1 or a NaN similarity marks a row as invalid.
///
/// # Errors
/// [`Error::Budget`] when the budget cannot be met, [`Error::Shape`] for arrays of different lengths,
/// [`Error::Argument`] for labels and row numbers out of range, [`Error::InvalidRow`] for a preselected invalid row.
pub fn select(labels: &[i32], similarity: &[f32], options: &Options<'_>, par: &Par<'_>) -> Result<Selection> {
    let Options { fill, within, seed, numbers, .. } = *options;
    if fill == Fill::Zscore && !matches!(within, Within::Nearest | Within::Far) {
        return Err(Error::Argument(
            "fill=\"zscore\" ranks by similarity, so it goes with within=\"nearest\" or \"far\" only".into(),
        ));
    }
    let pool = Pool::new(labels, similarity, options, par)?;
    match within {
        Within::Nearest | Within::Far => {
            let sign = if within == Within::Far { -1.0 } else { 1.0 };
            let ranking = BySimilarity::new(similarity, sign);
            match fill {
                Fill::Zscore => select_by(&pool, options, &ranking, &Standardized::new(&pool, sign.into()), par),
                _ => select_by(&pool, options, &ranking, &ranking, par),
            }
        }
        Within::Random => {
            let ranking = Shuffled::new(seed, numbers);
            select_by(&pool, options, &ranking, &ranking, par)
        }
        Within::Mid => {
            let ranking = MiddleOut::new(&pool, par)?;
            select_by(&pool, options, &ranking, &ranking, par)
        }
    }
}

/// Selects by `ranking` within the clusters, and by `fill_ranking` from the rows that remain.
fn select_by(
    pool: &Pool<'_>,
    options: &Options<'_>,
    ranking: &impl Ranking,
    fill_ranking: &impl Ranking,
    par: &Par<'_>,
) -> Result<Selection> {
    let Options { k, budget, fill, strict, weights, .. } = *options;
    let clusters = GroupedRanking { labels: pool.labels(), groups: k, ranking, par };
    let histogram = clusters.histogram()?;
    let preselected = pool.preselected();
    let there: Vec<usize> = (0..k).map(|i| histogram.total(i) + preselected[i]).collect();
    let pools = options.pools.map_or_else(|| there.clone(), <[usize]>::to_vec);
    if pools.len() != k || pools.iter().zip(&there).any(|(pool, there)| pool < there) {
        return Err(Error::Argument(format!("pools of other than {k} clusters, or smaller than the rows given")));
    }
    let size = pools.iter().sum();
    if strict {
        pool.check_budget(budget, size)?;
    }
    let target = budget.min(size);
    if weights.is_some_and(|weights| weights.len() != k || weights.iter().all(|&weight| weight == 0)) {
        return Err(Error::Argument(format!("weights of other than {k} clusters, or all of them 0")));
    }
    let by_quota = quotas(&pools, preselected, &quotas_of(budget, k, weights), target)?;
    // What each cluster keeps by itself; the rest of the target goes to the best of what remains of all.
    let kept = match fill {
        Fill::Waterfill => waterfill(target, weights, preselected, &pools)?,
        _ => by_quota.clone(),
    };
    if kept.iter().zip(&there).any(|(kept, there)| kept > there) {
        return Err(Error::Argument("fewer rows of a cluster than are selected of it".into()));
    }
    let missing = target - kept.iter().sum::<usize>();
    let ranks =
        |kept: &[usize]| -> Vec<usize> { kept.iter().zip(preselected).map(|(kept, before)| kept - before).collect() };
    let quota_ranks = ranks(&by_quota.iter().zip(&kept).map(|(&quota, &kept)| quota.min(kept)).collect::<Vec<_>>());
    let quota_thresholds = histogram.thresholds(&quota_ranks);
    let fill_thresholds = match fill {
        Fill::Global => vec![histogram.beyond(&quota_ranks).threshold(0, missing); k],
        Fill::Waterfill => histogram.thresholds(&ranks(&kept)),
        Fill::Zscore | Fill::None => vec![Threshold::FIRST; k],
    };

    let mut candidates = clusters.list(&quota_thresholds, &fill_thresholds)?;
    let quota_ends = clusters.threshold_keys(&quota_thresholds, &candidates, ranking, |cluster, _| Some(cluster))?;
    let in_quota = |cluster: usize, row| ranking.key(row) < quota_ends[cluster];
    let fill_ends = match fill {
        Fill::Global => {
            let remains = |cluster, row| (!in_quota(cluster, row)).then_some(0);
            vec![clusters.threshold_keys(&fill_thresholds[..1], &candidates, fill_ranking, remains)?[0]; k]
        }
        Fill::Waterfill => {
            clusters.threshold_keys(&fill_thresholds, &candidates, fill_ranking, |cluster, _| Some(cluster))?
        }
        Fill::Zscore => {
            // Another ranking, which has buckets of its own.
            let remains = |(row, &cluster): (usize, &i32)| cluster >= 0 && !in_quota(cluster as usize, row);
            let labels = pool.labels().iter().enumerate().map(|row| if remains(row) { 0 } else { EXCLUDED });
            let labels: Vec<i32> = labels.collect();
            let remainder = GroupedRanking { labels: &labels, groups: 1, ranking: fill_ranking, par };
            let threshold = remainder.histogram()?.threshold(0, missing);
            let others = remainder.list(&[threshold], &[threshold])?;
            let end = remainder.threshold_keys(&[threshold], &others, fill_ranking, |group, _| Some(group))?[0];
            candidates.iter_mut().zip(&others).for_each(|(list, others)| list.merge(others));
            vec![end; k]
        }
        Fill::None => vec![Key::MIN; k],
    };
    let phase = |row, cluster: usize| {
        let in_fill = || fill_ranking.key(row) < fill_ends[cluster];
        if in_quota(cluster, row) { Some(Phase::Quota) } else { in_fill().then_some(Phase::Fill) }
    };
    let count = |i: usize| Counts { pool: pools[i], quota: quota_ranks[i], fill: 0, preselected: preselected[i] };
    result::assemble(pool, (0..k).map(count).collect(), &candidates, phase, par)
}

/// `floor(B / K)` for every cluster, or `floor(B * weight / sum)`.
fn quotas_of(budget: usize, k: usize, weights: Option<&[u64]>) -> Vec<usize> {
    let Some(weights) = weights else { return vec![budget / k; k] };
    let sum: u128 = weights.iter().map(|&weight| u128::from(weight)).sum();
    // No more than the budget, so that it fits.
    weights.iter().map(|&weight| (budget as u128 * u128::from(weight) / sum) as usize).collect()
}

/// The rows that each cluster keeps by quota, including its preselected ones: `min(quota, pool)`, but never fewer than
/// are preselected. Where clusters have so many preselected rows beyond their quotas that all together would exceed the
/// target, the quotas of the other clusters are lowered evenly.
fn quotas(pools: &[usize], preselected: &[usize], quotas: &[usize], target: usize) -> Result<Vec<usize>> {
    let wanted = pools.iter().zip(quotas).zip(preselected);
    let wanted: Vec<usize> = wanted.map(|((&pool, &quota), &before)| pool.min(quota).max(before)).collect();
    if wanted.iter().sum::<usize>() <= target {
        Ok(wanted)
    } else {
        apportion_evenly(target, &bounds(preselected, &wanted))
    }
}

/// Shares the target out between the clusters, in proportion to their weights as far as their rows reach; what is left
/// then goes evenly to those of weight 0.
fn waterfill(target: usize, weights: Option<&[u64]>, lower: &[usize], upper: &[usize]) -> Result<Vec<usize>> {
    let bounds_of_all = bounds(lower, upper);
    let Some(weights) = weights else { return apportion_evenly(target, &bounds_of_all) };
    let most =
        weights.iter().zip(&bounds_of_all).map(|(&weight, bound)| if weight > 0 { bound.upper } else { bound.lower });
    let weighted = target.min(most.sum());
    let exact: Vec<BigInt> = weights.iter().map(|&weight| weight.into()).collect();
    let shares = apportion(weighted, Weights::Integers(&exact), &bounds_of_all, apportion::Options::default())?;
    if weighted == target { Ok(shares) } else { apportion_evenly(target, &bounds(&shares, upper)) }
}

fn bounds(lower: &[usize], upper: &[usize]) -> Vec<Bound> {
    lower.iter().zip(upper).map(|(&lower, &upper)| Bound { lower, upper }).collect()
}
