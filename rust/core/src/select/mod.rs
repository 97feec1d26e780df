//! Stage II: which rows a budget keeps.
//!
//! Of a budget of B rows every one of K clusters may fill a quota of `floor(B / K)` with its best rows; what is left of
//! B, because K does not divide it or because clusters are too small, goes to the best of all remaining rows
//! (RS-Prune, Sec. 3.3). What "best" means is [`Within`], who gets the rest is [`Fill`]. Ties go to the lowest row.
//!
//! Cost is O(N) on average: rows are counted into clusters and partitioned there, never sorted (but for
//! [`Within::Mid`], which needs ranks).

pub mod allocate;
mod key;
mod pool;
mod standing;
#[cfg(test)]
mod tests;

use crate::error::{Error, Result};
use crate::par::Par;
use allocate::{Share, allocate};
use key::Key;
use pool::{Cluster, Moments};
use standing::Standing;

/// Who gets what the quotas leave of the budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fill {
    /// The best of all remaining rows, whatever their cluster: the paper.
    Global,
    /// Every cluster alike, as far as its rows reach: see [`allocate`].
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
    let standing = Standing::new(labels, similarity, options)?;
    let run = Run { similarity, options, standing: &standing, par };
    let chosen = match within {
        // Keys of 8 bytes halve the memory traffic of the common orders.
        Within::Nearest => run.choose(pool::gather(labels, &standing, |row| key::descending(similarity[row], row))),
        Within::Far => run.choose(pool::gather(labels, &standing, |row| key::descending(-similarity[row], row))),
        Within::Random => run.choose(pool::gather(labels, &standing, |row| key::random(seed, row))),
        Within::Mid => {
            let by_rank = pool::gather(labels, &standing, |row| key::descending(similarity[row], row));
            run.choose(pool::middle_out(by_rank, par)?)
        }
    }?;
    Ok(standing.selection(chosen, labels, similarity))
}

/// What the steps of one selection share.
struct Run<'a> {
    similarity: &'a [f32],
    options: &'a Options<'a>,
    standing: &'a Standing,
    par: &'a Par<'a>,
}

impl Run<'_> {
    /// The rows to add to the preselected ones, and why, in any order.
    fn choose<K: Key>(&self, mut clusters: Vec<Cluster<K>>) -> Result<Vec<(usize, Phase)>> {
        let Options { k, budget, fill, within, .. } = *self.options;
        let target = budget.min(self.standing.pool());
        let by_quota = quotas(&clusters, budget / k, target)?;
        // What each cluster keeps by itself; the rest of the target goes to the union of the remainders.
        let kept = match fill {
            Fill::Waterfill => allocate(target, &shares(&clusters, |cluster| cluster.pool))?,
            _ => by_quota.clone(),
        };
        let moments = match fill {
            // Over the whole pool and in row order, so before anything is dropped or moved.
            Fill::Zscore => self.par.map(k, || (), |(), i| Ok(Moments::of(&clusters[i], self.similarity)))?,
            _ => Vec::new(),
        };
        self.par.for_blocks(
            &mut clusters,
            1,
            || (),
            |(), i, cluster| {
                cluster[0].keep(by_quota[i].min(kept[i]), kept[i], self.standing);
                Ok(())
            },
        )?;

        let rest = target - kept.iter().sum::<usize>();
        let fill_rows: Vec<usize> = match fill {
            Fill::Global => rows(key::smallest(clusters.iter().flat_map(Cluster::remainder).copied().collect(), rest)),
            Fill::Zscore => {
                let sign = if within == Within::Far { -1.0 } else { 1.0 };
                let z = |(cluster, moments): (&Cluster<K>, &Moments)| {
                    let key = |&row| key::descending64(sign * moments.standardise(self.similarity[row]), row);
                    rows(cluster.remainder().to_vec()).iter().map(key).collect::<Vec<u128>>()
                };
                rows(key::smallest(clusters.iter().zip(&moments).flat_map(z).collect(), rest))
            }
            Fill::Waterfill | Fill::None => Vec::new(),
        };
        let own = clusters.iter().flat_map(Cluster::kept);
        Ok(own.chain(fill_rows.into_iter().map(|row| (row, Phase::Fill))).collect())
    }
}

fn rows<K: Key>(keys: Vec<K>) -> Vec<usize> {
    keys.into_iter().map(Key::row).collect()
}

/// Rows that each cluster holds by quota, its preselected ones included: `min(quota, pool)`, but never fewer than are
/// preselected. Where preselected rows exceed their cluster's quota so far that the target would not hold all quotas,
/// those of the other clusters are lowered evenly.
fn quotas<K>(clusters: &[Cluster<K>], quota: usize, target: usize) -> Result<Vec<usize>> {
    let shares = shares(clusters, |cluster| cluster.pool.min(quota).max(cluster.preselected));
    let wanted: Vec<usize> = shares.iter().map(|share| share.most).collect();
    if wanted.iter().sum::<usize>() <= target { Ok(wanted) } else { allocate(target, &shares) }
}

fn shares<K>(clusters: &[Cluster<K>], most: impl Fn(&Cluster<K>) -> usize) -> Vec<Share> {
    clusters.iter().map(|c| Share { least: c.preselected, most: most(c), weight: 1.0 }).collect()
}
