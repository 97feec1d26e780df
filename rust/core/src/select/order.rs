//! Orders of rows as integers: the smallest key is the best row. No two keys are equal: they end with the row's number.

use super::standing::Standing;
use crate::error::Result;
use crate::runtime::parallel::Par;
use crate::runtime::rng::hash64;

/// An order of the rows.
pub(super) trait Order: Sync {
    /// 8 bytes where they do.
    type Key: Key;

    /// Below [`Key::MOST`].
    fn key(&self, row: usize) -> Self::Key;

    /// Roughly where in the order the row stands, from 0, the best, to 1: where keys ascend, places never descend.
    /// What is below 0, or no number, counts as 0, what is above 1 as 1.
    fn place(&self, row: usize) -> f32;

    /// The places of the rows from `first` on.
    fn places(&self, first: usize, places: &mut [f32]) {
        places.iter_mut().enumerate().for_each(|(i, place)| *place = self.place(first + i));
    }
}

/// An integer.
pub(super) trait Key: Copy + Ord + Send + Sync {
    /// No key is below it.
    const LEAST: Self;
    /// Every key is below it.
    const MOST: Self;
}

impl Key for u64 {
    const LEAST: u64 = u64::MIN;
    const MOST: u64 = u64::MAX;
}

impl Key for u128 {
    const LEAST: u128 = u128::MIN;
    const MOST: u128 = u128::MAX;
}

/// Largest similarity first, or smallest where `sign` is -1; of equal ones the lower row.
pub(super) struct BySimilarity<'a> {
    similarity: &'a [f32],
    sign: f32,
    spread: Spread,
}

impl<'a> BySimilarity<'a> {
    pub(super) fn new(similarity: &'a [f32], sign: f32) -> Self {
        BySimilarity { similarity, sign, spread: Spread::of(similarity.len(), |row| sign * similarity[row]) }
    }
}

impl Order for BySimilarity<'_> {
    type Key = u64;

    fn key(&self, row: usize) -> u64 {
        descending(self.sign * self.similarity[row], row)
    }

    fn place(&self, row: usize) -> f32 {
        self.spread.place(self.sign * self.similarity[row])
    }

    fn places(&self, first: usize, places: &mut [f32]) {
        let similarity = &self.similarity[first..][..places.len()];
        places.iter_mut().zip(similarity).for_each(|(place, &s)| *place = self.spread.place(self.sign * s));
    }
}

/// The same of similarities standardised within their cluster.
pub(super) struct Standardised<'a> {
    standing: &'a Standing<'a>,
    sign: f64,
    /// Mean and population standard deviation of every cluster's pool, summed in row order.
    moments: Vec<(f64, f64)>,
    spread: Spread,
}

impl<'a> Standardised<'a> {
    pub(super) fn new(standing: &'a Standing<'a>, sign: f64) -> Self {
        let sums = |value: &dyn Fn(usize, f64) -> f64| {
            let mut sums = vec![0.0; standing.k()];
            for row in 0..standing.rows() {
                if let Some(cluster) = standing.pool(row) {
                    sums[cluster] += value(cluster, standing.similarity(row).into());
                }
            }
            sums
        };
        let sizes = sums(&|_, _| 1.0);
        let means: Vec<f64> = sums(&|_, s| s).iter().zip(&sizes).map(|(sum, n)| sum / n).collect();
        let squares = sums(&|cluster, s| (s - means[cluster]) * (s - means[cluster]));
        let deviations = squares.iter().zip(&sizes).map(|(sum, n)| (sum / n).sqrt());
        let moments = means.iter().copied().zip(deviations).collect();
        let mut order = Standardised { standing, sign, moments, spread: Spread::default() };
        order.spread = Spread::of(standing.rows(), |row| order.score(row) as f32);
        order
    }

    /// `(s - mean) / deviation`, or 0 where all are alike (or one is infinite, so that no mean exists).
    fn score(&self, row: usize) -> f64 {
        let Some(cluster) = self.standing.pool(row) else { return 0.0 };
        let (mean, deviation) = self.moments[cluster];
        let z = (f64::from(self.standing.similarity(row)) - mean) / deviation;
        if z.is_finite() { self.sign * z } else { 0.0 }
    }
}

impl Order for Standardised<'_> {
    type Key = u128;

    fn key(&self, row: usize) -> u128 {
        // Adding +0.0 makes -0.0 equal to it.
        let bits = (self.score(row) + 0.0).to_bits();
        let ascending = if bits >> 63 == 1 { !bits } else { bits | 1 << 63 };
        (u128::from(!ascending) << 64) | row as u128
    }

    fn place(&self, row: usize) -> f32 {
        self.spread.place(self.score(row) as f32)
    }
}

/// Largest score first.
fn descending(score: f32, row: usize) -> u64 {
    // Adding +0.0 makes -0.0 equal to it.
    let bits = (score + 0.0).to_bits();
    // The bits of negative numbers descend already; those of others do once flipped, all but the sign.
    let flips = !((bits as i32 >> 31) as u32) >> 1;
    (u64::from(bits ^ flips) << 32) | row as u64
}

/// Descending scores to places, evenly over the range of a sample. Scores beyond it are all first or last.
#[derive(Default)]
struct Spread {
    high: f32,
    scale: f32,
}

impl Spread {
    const SAMPLE: usize = 4096;

    /// For the scores of rows below `n`.
    fn of(n: usize, score: impl Fn(usize) -> f32) -> Self {
        let size = n.min(Self::SAMPLE);
        let sample = (0..size).map(|i| score(i * n / size)).filter(|score| score.is_finite());
        let (low, high) = sample.fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), s| (low.min(s), high.max(s)));
        Spread { high, scale: (high - low).recip() }
    }

    fn place(&self, score: f32) -> f32 {
        (self.high - score) * self.scale
    }
}

/// By a draw that depends on seed and row alone.
pub(super) struct Drawn {
    pub(super) seed: u64,
}

impl Order for Drawn {
    type Key = u128;

    fn key(&self, row: usize) -> u128 {
        (u128::from(hash64(self.seed, row as u64)) << 64) | row as u128
    }

    fn place(&self, row: usize) -> f32 {
        hash64(self.seed, row as u64) as f32 / 2f32.powi(64)
    }
}

/// Middle rank by similarity first, then the smaller rank. Clusters differ in size: the distance from the middle counts
/// as a fraction of the size, which two float64 tell apart whenever that is below 2^26.
pub(super) struct MiddleOut<'a> {
    standing: &'a Standing<'a>,
    /// Of every row of the pool in its cluster.
    ranks: Vec<u32>,
    sizes: Vec<usize>,
}

impl<'a> MiddleOut<'a> {
    /// Ranks the rows of every cluster.
    pub(super) fn new(standing: &'a Standing<'a>, par: &Par<'_>) -> Result<Self> {
        let mut clusters: Vec<Vec<u64>> = vec![Vec::new(); standing.k()];
        for row in 0..standing.rows() {
            if let Some(cluster) = standing.pool(row) {
                clusters[cluster].push(descending(standing.similarity(row), row));
            }
        }
        let sort = |(): &mut (), _, cluster: &mut [Vec<u64>]| {
            cluster[0].sort_unstable();
            Ok(())
        };
        par.for_blocks(&mut clusters, 1, || (), sort)?;
        let mut ranks = vec![0; standing.rows()];
        for cluster in &clusters {
            for (rank, &key) in cluster.iter().enumerate() {
                ranks[key as u32 as usize] = rank as u32;
            }
        }
        Ok(MiddleOut { standing, ranks, sizes: clusters.iter().map(Vec::len).collect() })
    }

    /// From the middle, as a fraction of the cluster's size.
    fn distance(&self, row: usize) -> f64 {
        let n = self.standing.pool(row).map_or(1, |cluster| self.sizes[cluster]);
        (2 * self.ranks[row] as usize).abs_diff(n - 1) as f64 / n as f64
    }
}

impl Order for MiddleOut<'_> {
    type Key = u128;

    fn key(&self, row: usize) -> u128 {
        // The bits of floats that are not negative ascend with them.
        let distance = u128::from(self.distance(row).to_bits());
        (distance << 64) | (u128::from(self.ranks[row]) << 32) | row as u128
    }

    fn place(&self, row: usize) -> f32 {
        self.distance(row) as f32
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn larger_scores_and_then_lower_rows_come_first() {
        let best_first =
            [(f32::INFINITY, 9), (1.5, 8), (1e-40, 7), (0.0, 3), (-0.0, 4), (0.0, 5), (-1e-40, 2), (-7.0, 1)];
        let keys: Vec<u64> = best_first.iter().map(|&(score, row)| descending(score, row)).collect();
        assert!(keys.is_sorted_by(|a, b| a < b));
    }

    #[test]
    fn middle_ranks_come_first() {
        let order = |n: usize| {
            let similarity: Vec<f32> = (0..n).map(|i| -(i as f32)).collect();
            let labels = vec![0; n];
            let options = super::super::Options::new(1, 1);
            let standing = Standing::new(&labels, &similarity, &options, &Par::new(Some(1))).unwrap();
            let middle_out = MiddleOut::new(&standing, &Par::new(Some(1))).unwrap();
            let mut rows: Vec<usize> = (0..n).collect();
            rows.sort_by_key(|&row| middle_out.key(row));
            rows
        };
        assert_eq!(order(5), [2, 1, 3, 0, 4]);
        assert_eq!(order(4), [1, 2, 0, 3]);
        assert_eq!(order(1), [0]);
    }

    fn score() -> impl Strategy<Value = f32> {
        prop_oneof![
            (-1f32..1.0),
            (0f32..1e-40),
            Just(0.0),
            Just(-0.0),
            Just(f32::INFINITY),
            Just(f32::NEG_INFINITY),
            Just(f32::MAX),
            Just(-f32::MAX),
        ]
    }

    proptest! {
        #[test]
        fn places_never_descend_where_keys_ascend(scores in proptest::collection::vec(score(), 1..40)) {
            let order = BySimilarity::new(&scores, 1.0);
            let mut rows: Vec<usize> = (0..scores.len()).collect();
            rows.sort_by_key(|&row| order.key(row));
            let places: Vec<u64> = rows.iter().map(|&row| (order.place(row) * 1e6) as u64).collect();
            prop_assert!(places.is_sorted(), "{:?}", places);
        }
    }
}
