//! Counts of ranked rows in buckets, from which thresholds follow without sorting. Histograms merge: the counts of a
//! whole are the sums of the counts of its parts.

use super::ranking::Bucket;

/// How many rows of each group rank in each bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Histogram {
    buckets: usize,
    counts: Vec<u32>,
}

/// Where a ranking is cut off: after all rows of lower buckets, and `rank` rows of this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Threshold {
    pub(super) bucket: Bucket,
    pub(super) rank: usize,
}

impl Threshold {
    /// Before all rows.
    pub(super) const FIRST: Threshold = Threshold { bucket: 0, rank: 0 };
}

impl Histogram {
    /// An empty histogram.
    pub fn new(groups: usize, buckets: usize) -> Self {
        Histogram { buckets, counts: vec![0; groups * buckets] }
    }

    pub(super) fn from_counts(buckets: usize, counts: Vec<u32>) -> Self {
        Histogram { buckets, counts }
    }

    /// Adds the counts of `other`, which has the same groups and buckets.
    pub(super) fn add(&mut self, other: &Histogram) {
        self.counts.iter_mut().zip(&other.counts).for_each(|(sum, count)| *sum += count);
    }

    /// Number of rows of a group.
    pub fn total(&self, group: usize) -> usize {
        self.group(group).iter().map(|&count| count as usize).sum()
    }

    fn group(&self, group: usize) -> &[u32] {
        &self.counts[group * self.buckets..][..self.buckets]
    }

    /// The threshold after the best `rank` rows of a group: after all buckets where it has no more.
    pub fn threshold(&self, group: usize, mut rank: usize) -> Threshold {
        for (bucket, &count) in self.group(group).iter().enumerate() {
            if rank < count as usize {
                return Threshold { bucket: bucket as Bucket, rank };
            }
            rank -= count as usize;
        }
        Threshold { bucket: self.buckets as Bucket, rank: 0 }
    }

    /// The thresholds after the best `ranks[group]` rows of every group.
    pub fn thresholds(&self, ranks: &[usize]) -> Vec<Threshold> {
        ranks.iter().enumerate().map(|(group, &rank)| self.threshold(group, rank)).collect()
    }

    /// The histogram of the rows that remain after the best `ranks[group]` of every group, as a single group.
    pub fn beyond(&self, ranks: &[usize]) -> Histogram {
        let mut counts = vec![0; self.buckets];
        for (group, &rank) in ranks.iter().enumerate() {
            let mut before = rank as u32;
            for (sum, &count) in counts.iter_mut().zip(self.group(group)) {
                *sum += count.saturating_sub(before);
                before = before.saturating_sub(count);
            }
        }
        Histogram { buckets: self.buckets, counts }
    }
}
