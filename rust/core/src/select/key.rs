//! Orders as integers: the smallest key is the best row, and its low 32 bits are the row's number, which breaks ties.

use crate::seed::hash64;

/// A packed (order, row).
pub(super) trait Key: Copy + Ord + Send + Sync {
    /// The row.
    fn row(self) -> usize;
}

impl Key for u64 {
    fn row(self) -> usize {
        self as u32 as usize
    }
}

impl Key for u128 {
    fn row(self) -> usize {
        self as u32 as usize
    }
}

/// Largest score first.
pub(super) fn descending(score: f32, row: usize) -> u64 {
    // Adding +0.0 makes -0.0 equal to it.
    let bits = (score + 0.0).to_bits();
    let ascending = if bits >> 31 == 1 { !bits } else { bits | 1 << 31 };
    (u64::from(!ascending) << 32) | row as u64
}

/// Largest score first, in double precision.
pub(super) fn descending64(score: f64, row: usize) -> u128 {
    let bits = (score + 0.0).to_bits();
    let ascending = if bits >> 63 == 1 { !bits } else { bits | 1 << 63 };
    (u128::from(!ascending) << 64) | row as u128
}

/// By a draw that depends on seed and row alone.
pub(super) fn random(seed: u64, row: usize) -> u128 {
    (u128::from(hash64(seed, row as u64)) << 64) | row as u128
}

/// Middle rank of `n` first, then the smaller rank. Clusters differ in size: the distance from the middle counts as a
/// fraction of `n`, which two float64 tell apart whenever `n` is below 2^26.
pub(super) fn middle(rank: usize, n: usize, row: usize) -> u128 {
    let distance = (2 * rank).abs_diff(n - 1) as f64 / n as f64;
    // The bits of floats that are not negative ascend with them.
    (u128::from(distance.to_bits()) << 64) | ((rank as u128) << 32) | row as u128
}

/// The `count` smallest of `keys`, in any order.
pub(super) fn smallest<K: Key>(mut keys: Vec<K>, count: usize) -> Vec<K> {
    split(&mut keys, count);
    keys.truncate(count);
    keys
}

/// Brings the `count` smallest of `keys` to the front, in any order.
pub(super) fn split<K: Key>(keys: &mut [K], count: usize) {
    if 0 < count && count < keys.len() {
        keys.select_nth_unstable(count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn larger_scores_and_then_lower_rows_come_first() {
        let best_first =
            [(f32::INFINITY, 9), (1.5, 8), (1e-40, 7), (0.0, 3), (-0.0, 4), (0.0, 5), (-1e-40, 2), (-7.0, 1)];
        let narrow: Vec<u64> = best_first.iter().map(|&(score, row)| descending(score, row)).collect();
        assert!(narrow.is_sorted_by(|a, b| a < b));
        let wide: Vec<u128> = best_first.iter().map(|&(score, row)| descending64(score.into(), row)).collect();
        assert!(wide.is_sorted_by(|a, b| a < b));
        assert!(narrow.iter().zip(&best_first).all(|(key, &(_, row))| key.row() == row));
    }

    #[test]
    fn middle_ranks_come_first() {
        let order = |n: usize| {
            let mut keys: Vec<u128> = (0..n).map(|rank| middle(rank, n, 100 + rank)).collect();
            keys.sort_unstable();
            keys.into_iter().map(|key| key.row() - 100).collect::<Vec<_>>()
        };
        assert_eq!(order(5), [2, 1, 3, 0, 4]);
        assert_eq!(order(4), [1, 2, 0, 3]);
        assert_eq!(order(1), [0]);
    }
}
