//! Rankings of rows by integer keys: the best row has the smallest key. Keys end with the row's number, so no two are
//! equal.

use super::pool::Pool;
use crate::error::Result;
use crate::runtime::parallel::Par;
use crate::runtime::rng::hash64;

/// The number of a bucket; bucket 0 holds the best rows.
pub type Bucket = u32;

/// A ranking of the rows.
pub(super) trait Ranking: Sync {
    /// `u64` where 8 bytes hold the score and the row, `u128` elsewhere.
    type Key: Key;

    /// The key of a row, below [`Key::MAX`].
    fn key(&self, row: usize) -> Self::Key;

    /// The row's approximate position in the ranking, from 0 (best) to 1: where keys ascend, positions never descend.
    /// Anything below 0 and NaN count as 0, anything above 1 as 1.
    fn position(&self, row: usize) -> f32;

    /// The positions of the rows from `first` on.
    fn positions(&self, first: usize, positions: &mut [f32]) {
        positions.iter_mut().enumerate().for_each(|(i, position)| *position = self.position(first + i));
    }
}

/// An integer key.
pub(super) trait Key: Copy + Ord + Send + Sync {
    /// No key is smaller.
    const MIN: Self;
    /// Every key is smaller.
    const MAX: Self;
}

impl Key for u64 {
    const MIN: u64 = u64::MIN;
    const MAX: u64 = u64::MAX;
}

impl Key for u128 {
    const MIN: u128 = u128::MIN;
    const MAX: u128 = u128::MAX;
}

/// Ranks by similarity, largest first (smallest where `sign` is -1); ties go to the lower row.
pub(super) struct BySimilarity<'a> {
    similarity: &'a [f32],
    sign: f32,
    scale: BucketScale,
}

impl<'a> BySimilarity<'a> {
    pub(super) fn new(similarity: &'a [f32], sign: f32) -> Self {
        BySimilarity { similarity, sign, scale: BucketScale::new(similarity.len(), |row| sign * similarity[row]) }
    }
}

impl Ranking for BySimilarity<'_> {
    type Key = u64;

    fn key(&self, row: usize) -> u64 {
        descending(self.sign * self.similarity[row], row)
    }

    fn position(&self, row: usize) -> f32 {
        self.scale.position(self.sign * self.similarity[row])
    }

    fn positions(&self, first: usize, positions: &mut [f32]) {
        let similarity = &self.similarity[first..][..positions.len()];
        positions.iter_mut().zip(similarity).for_each(|(position, &s)| *position = self.scale.position(self.sign * s));
    }
}

/// Ranks by similarity standardized within the cluster.
pub(super) struct Standardized<'a> {
    pool: &'a Pool<'a>,
    sign: f64,
    /// Mean and population standard deviation of the rows to select from in every cluster, summed in row order.
    moments: Vec<(f64, f64)>,
    scale: BucketScale,
}

impl<'a> Standardized<'a> {
    pub(super) fn new(pool: &'a Pool<'a>, sign: f64) -> Self {
        let sums = |value: &dyn Fn(usize, f64) -> f64| {
            let mut sums = vec![0.0; pool.k()];
            for row in 0..pool.rows() {
                if let Some(cluster) = pool.cluster(row) {
                    sums[cluster] += value(cluster, pool.similarity(row).into());
                }
            }
            sums
        };
        let sizes = sums(&|_, _| 1.0);
        let means: Vec<f64> = sums(&|_, s| s).iter().zip(&sizes).map(|(sum, n)| sum / n).collect();
        let squares = sums(&|cluster, s| (s - means[cluster]) * (s - means[cluster]));
        let deviations = squares.iter().zip(&sizes).map(|(sum, n)| (sum / n).sqrt());
        let moments = means.iter().copied().zip(deviations).collect();
        let mut ranking = Standardized { pool, sign, moments, scale: BucketScale::default() };
        ranking.scale = BucketScale::new(pool.rows(), |row| ranking.score(row) as f32);
        ranking
    }

    /// `(s - mean) / deviation`, or 0 where that does not exist: all similarities are equal, or one is infinite.
    fn score(&self, row: usize) -> f64 {
        let Some(cluster) = self.pool.cluster(row) else { return 0.0 };
        let (mean, deviation) = self.moments[cluster];
        let z = (f64::from(self.pool.similarity(row)) - mean) / deviation;
        if z.is_finite() { self.sign * z } else { 0.0 }
    }
}

impl Ranking for Standardized<'_> {
    type Key = u128;

    fn key(&self, row: usize) -> u128 {
        // Adding +0.0 makes -0.0 equal to it.
        let bits = (self.score(row) + 0.0).to_bits();
        let ascending = if bits >> 63 == 1 { !bits } else { bits | 1 << 63 };
        (u128::from(!ascending) << 64) | row as u128
    }

    fn position(&self, row: usize) -> f32 {
        self.scale.position(self.score(row) as f32)
    }
}

/// A key for descending scores.
fn descending(score: f32, row: usize) -> u64 {
    // Adding +0.0 makes -0.0 equal to it.
    let bits = (score + 0.0).to_bits();
    // As integers the bits of negative floats descend already; those of others do once all but the sign are flipped.
    let flips = !((bits as i32 >> 31) as u32) >> 1;
    (u64::from(bits ^ flips) << 32) | row as u64
}

/// Maps descending scores to positions, evenly over the range of a sample. Scores beyond it are all first or last.
#[derive(Default)]
struct BucketScale {
    high: f32,
    scale: f32,
}

impl BucketScale {
    const SAMPLE: usize = 4096;

    /// A scale for the scores of rows below `n`.
    fn new(n: usize, score: impl Fn(usize) -> f32) -> Self {
        let size = n.min(Self::SAMPLE);
        let sample = (0..size).map(|i| score(i * n / size)).filter(|score| score.is_finite());
        let (low, high) = sample.fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), s| (low.min(s), high.max(s)));
        BucketScale { high, scale: (high - low).recip() }
    }

    fn position(&self, score: f32) -> f32 {
        (self.high - score) * self.scale
    }
}

/// Ranks at random: by a hash of seed and the number of the row.
pub(super) struct Shuffled<'a> {
    seed: u64,
    numbers: Option<&'a [i64]>,
}

impl<'a> Shuffled<'a> {
    pub(super) fn new(seed: u64, numbers: Option<&'a [i64]>) -> Self {
        Shuffled { seed, numbers }
    }

    fn draw(&self, row: usize) -> u64 {
        hash64(self.seed, self.numbers.map_or(row as u64, |numbers| numbers[row] as u64))
    }
}

impl Ranking for Shuffled<'_> {
    type Key = u128;

    fn key(&self, row: usize) -> u128 {
        (u128::from(self.draw(row)) << 64) | row as u128
    }

    fn position(&self, row: usize) -> f32 {
        self.draw(row) as f32 / 2f32.powi(64)
    }
}

/// Ranks by distance from the middle rank by similarity, then by that rank. Distances are fractions of the cluster's
/// size, so that clusters of different sizes compare; float64 tells two apart in clusters below 2^26 rows.
pub(super) struct MiddleOut<'a> {
    pool: &'a Pool<'a>,
    /// The rank of every row in its cluster.
    ranks: Vec<u32>,
    sizes: Vec<usize>,
}

impl<'a> MiddleOut<'a> {
    /// Ranks the rows of every cluster.
    pub(super) fn new(pool: &'a Pool<'a>, par: &Par<'_>) -> Result<Self> {
        let mut clusters: Vec<Vec<u64>> = vec![Vec::new(); pool.k()];
        for row in 0..pool.rows() {
            if let Some(cluster) = pool.cluster(row) {
                clusters[cluster].push(descending(pool.similarity(row), row));
            }
        }
        let sort = |(): &mut (), _, cluster: &mut [Vec<u64>]| {
            cluster[0].sort_unstable();
            Ok(())
        };
        par.for_blocks(&mut clusters, 1, || (), sort)?;
        let mut ranks = vec![0; pool.rows()];
        for cluster in &clusters {
            for (rank, &key) in cluster.iter().enumerate() {
                ranks[key as u32 as usize] = rank as u32;
            }
        }
        Ok(MiddleOut { pool, ranks, sizes: clusters.iter().map(Vec::len).collect() })
    }

    /// The distance from the middle rank, as a fraction of the cluster's size.
    fn distance(&self, row: usize) -> f64 {
        let n = self.pool.cluster(row).map_or(1, |cluster| self.sizes[cluster]);
        (2 * self.ranks[row] as usize).abs_diff(n - 1) as f64 / n as f64
    }
}

impl Ranking for MiddleOut<'_> {
    type Key = u128;

    fn key(&self, row: usize) -> u128 {
        // As integers the bits of floats that are not negative ascend.
        let distance = u128::from(self.distance(row).to_bits());
        (distance << 64) | (u128::from(self.ranks[row]) << 32) | row as u128
    }

    fn position(&self, row: usize) -> f32 {
        self.distance(row) as f32
    }
}

/// The bucket of a position.
#[inline]
pub(super) fn bucket(position: f32, buckets: usize) -> Bucket {
    let position = position * buckets as f32;
    let last = (buckets - 1) as f32;
    // Comparisons, which are one instruction each; the first one is false for NaN.
    let position = if position > 0.0 { position } else { 0.0 };
    let position = if position < last { position } else { last };
    // Floats from 2^23 on have no bits for fractions: the sum's low bits are the rounded position.
    (position + 8_388_608.0).to_bits() & 0x7f_ffff
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
        let ranked = |n: usize| {
            let similarity: Vec<f32> = (0..n).map(|i| -(i as f32)).collect();
            let labels = vec![0; n];
            let options = super::super::Options::new(1, 1);
            let pool = Pool::new(&labels, &similarity, &options, &Par::new(Some(1))).unwrap();
            let middle_out = MiddleOut::new(&pool, &Par::new(Some(1))).unwrap();
            let mut rows: Vec<usize> = (0..n).collect();
            rows.sort_by_key(|&row| middle_out.key(row));
            rows
        };
        assert_eq!(ranked(5), [2, 1, 3, 0, 4]);
        assert_eq!(ranked(4), [1, 2, 0, 3]);
        assert_eq!(ranked(1), [0]);
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
        fn positions_never_descend_where_keys_ascend(scores in proptest::collection::vec(score(), 1..40)) {
            let ranking = BySimilarity::new(&scores, 1.0);
            let mut rows: Vec<usize> = (0..scores.len()).collect();
            rows.sort_by_key(|&row| ranking.key(row));
            let positions: Vec<u64> = rows.iter().map(|&row| (ranking.position(row) * 1e6) as u64).collect();
            prop_assert!(positions.is_sorted(), "{:?}", positions);
        }
    }
}
