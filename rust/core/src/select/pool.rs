//! The rows of a cluster, as keys, while they are chosen from.

use super::Phase;
use super::key::{self, Key};
use super::standing::Standing;
use crate::error::Result;
use crate::par::Par;

/// The pool of one cluster.
pub(super) struct Cluster<K> {
    /// At first all of the pool in row order; after [`Cluster::keep`] without the preselected, the kept ones first.
    keys: Vec<K>,
    /// Rows to select from, the preselected included.
    pub(super) pool: usize,
    /// Rows selected before.
    pub(super) preselected: usize,
    /// How many of `keys`, from the front, are kept by quota.
    by_quota: usize,
    /// How many of `keys`, from the front, are kept at all.
    kept: usize,
}

/// The pools of all clusters: a counting sort of the rows.
pub(super) fn gather<K: Key>(labels: &[i32], standing: &Standing, key: impl Fn(usize) -> K) -> Vec<Cluster<K>> {
    let empty =
        |(pool, preselected)| Cluster { keys: Vec::with_capacity(pool), pool, preselected, by_quota: 0, kept: 0 };
    let mut clusters: Vec<Cluster<K>> = standing.clusters().map(empty).collect();
    for (row, &label) in labels.iter().enumerate() {
        if standing.is_in_pool(row) {
            clusters[label as usize].keys.push(key(row));
        }
    }
    clusters
}

/// The same pools in middle-out order of their ranks.
pub(super) fn middle_out(mut clusters: Vec<Cluster<u64>>, par: &Par<'_>) -> Result<Vec<Cluster<u128>>> {
    par.for_blocks(
        &mut clusters,
        1,
        || (),
        |(), _, cluster| {
            cluster[0].keys.sort_unstable();
            Ok(())
        },
    )?;
    let by_middle = |cluster: Cluster<u64>| {
        let n = cluster.keys.len();
        let keys = cluster.keys.iter().enumerate().map(|(rank, key)| key::middle(rank, n, key.row())).collect();
        Cluster { keys, pool: cluster.pool, preselected: cluster.preselected, by_quota: 0, kept: 0 }
    };
    Ok(clusters.into_iter().map(by_middle).collect())
}

impl<K: Key> Cluster<K> {
    /// Keeps the best rows so that, with the preselected, `by_quota` are held by quota and `held` in all.
    pub(super) fn keep(&mut self, by_quota: usize, held: usize, standing: &Standing) {
        if self.preselected > 0 {
            self.keys.retain(|key| !standing.is_preselected(key.row()));
        }
        self.by_quota = by_quota.saturating_sub(self.preselected);
        self.kept = held - self.preselected;
        key::split(&mut self.keys, self.kept);
        key::split(&mut self.keys[..self.kept], self.by_quota);
    }

    /// The rows kept, and why.
    pub(super) fn kept(&self) -> impl Iterator<Item = (usize, Phase)> {
        let phase = |i| if i < self.by_quota { Phase::Quota } else { Phase::Fill };
        self.keys[..self.kept].iter().enumerate().map(move |(i, key)| (key.row(), phase(i)))
    }

    /// The keys of the rows not kept.
    pub(super) fn remainder(&self) -> &[K] {
        &self.keys[self.kept..]
    }
}

/// Mean and population standard deviation of a pool's similarities, summed in row order.
pub(super) struct Moments {
    mean: f64,
    deviation: f64,
}

impl Moments {
    /// The moments of a pool still in row order.
    pub(super) fn of<K: Key>(cluster: &Cluster<K>, similarity: &[f32]) -> Self {
        let values = || cluster.keys.iter().map(|key| f64::from(similarity[key.row()]));
        let n = cluster.keys.len() as f64;
        let mean = values().sum::<f64>() / n;
        let deviation = (values().map(|s| (s - mean) * (s - mean)).sum::<f64>() / n).sqrt();
        Moments { mean, deviation }
    }

    /// `(s - mean) / deviation`, or 0 where all are alike (or one is infinite, so that no mean exists).
    pub(super) fn standardise(&self, s: f32) -> f64 {
        let z = (f64::from(s) - self.mean) / self.deviation;
        if z.is_finite() { z } else { 0.0 }
    }
}
