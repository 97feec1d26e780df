//! Counts of ranked rows in buckets, from which thresholds follow without sorting. Histograms merge: the counts of a
//! whole are the sums of the counts of its parts.

use std::ops::Range;

use super::ranking::{Bucket, bucket};
use crate::error::{Error, Result};

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

    /// Number of groups.
    pub fn groups(&self) -> usize {
        self.counts.len() / self.buckets
    }

    /// Number of buckets of each group.
    pub fn buckets(&self) -> usize {
        self.buckets
    }

    /// The counts of all buckets, group by group.
    pub fn counts(&self) -> &[u32] {
        &self.counts
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

/// A histogram of scores, best first, whose buckets divide a given range evenly: a mergeable summary of rows that are
/// spread over shards.
///
/// Two passes select from shards of any number of rows. In the first each shard is counted, and the histograms are
/// merged. Limits follow from the sum: scores below which no row can be selected. In the second pass each shard lists
/// its rows from the limits on, which are few more than are selected, and the exact selection is made from those. Neither
/// the way in which rows are split nor the order of merging shows in the limits.
#[derive(Debug, Clone, PartialEq)]
pub struct RankHistogram {
    histogram: Histogram,
    range: Range<f64>,
}

impl RankHistogram {
    /// Counters by which [`RankHistogram::default_buckets`] goes: 4 MiB.
    const COUNTERS: usize = 1 << 20;

    /// An empty histogram of scores in `groups` groups. Scores beyond the range count in its first or last bucket.
    ///
    /// # Errors
    /// [`Error::Argument`] for no groups or buckets, more than 2^23 buckets, or a range that is empty or not finite.
    pub fn new(groups: usize, range: Range<f64>, buckets: usize) -> Result<Self> {
        if groups == 0 || i32::try_from(groups).is_err() || !(1..=1 << 23).contains(&buckets) {
            return Err(Error::Argument(format!("a histogram of {groups} groups and {buckets} buckets")));
        }
        if !(range.start < range.end && (range.end - range.start).is_finite()) {
            return Err(Error::Argument(format!("a histogram of scores from {} to {}", range.start, range.end)));
        }
        Ok(RankHistogram { histogram: Histogram::new(groups, buckets), range })
    }

    /// As many buckets for so many groups as make a histogram of a few MiB, but enough to tell rows apart.
    pub fn default_buckets(groups: usize) -> usize {
        (Self::COUNTERS / groups.max(1)).clamp(64, 4096)
    }

    /// Counts rows. Those without a group (label -1) or a score (NaN) count nowhere. Without `labels` all rows are of
    /// the first group.
    ///
    /// # Errors
    /// [`Error::Shape`] for labels of another number of rows, [`Error::Argument`] for labels out of range or more than
    /// 2^32 - 1 rows.
    pub fn update<T: Copy + Into<f64>>(&mut self, scores: &[T], labels: Option<&[i32]>) -> Result<()> {
        let groups = self.histogram.groups() as i32;
        if let Some(labels) = labels {
            if labels.len() != scores.len() {
                return Err(Error::Shape(format!("{} labels of {} scores", labels.len(), scores.len())));
            }
            if let Some(label) = labels.iter().find(|&&label| !(-1..groups).contains(&label)) {
                return Err(Error::Argument(format!("label {label}; expected 0 to {}, or -1", groups - 1)));
            }
        }
        self.check_rows(scores.len() as u64)?;
        for (row, &score) in scores.iter().enumerate() {
            let (score, label) = (score.into(), labels.map_or(0, |labels| labels[row]));
            if label >= 0 && !score.is_nan() {
                let bucket = self.bucket(score) as usize;
                self.histogram.counts[label as usize * self.histogram.buckets + bucket] += 1;
            }
        }
        Ok(())
    }

    /// Adds what another histogram has counted.
    ///
    /// # Errors
    /// [`Error::Shape`] where groups, buckets or ranges differ, [`Error::Argument`] for more than 2^32 - 1 rows.
    pub fn merge(&mut self, other: &RankHistogram) -> Result<()> {
        let shape = |one: &RankHistogram| (one.histogram.groups(), one.histogram.buckets, one.range.clone());
        if shape(self) != shape(other) {
            return Err(Error::Shape(format!(
                "a histogram of {:?} merged with one of {:?}",
                shape(self),
                shape(other)
            )));
        }
        self.check_rows(other.rows())?;
        self.histogram.add(&other.histogram);
        Ok(())
    }

    /// Adds counts that were read from [`Histogram::counts`].
    ///
    /// # Errors
    /// [`Error::Shape`] for another number of counts, [`Error::Argument`] for more than 2^32 - 1 rows.
    pub fn add_counts(&mut self, counts: Vec<u32>) -> Result<()> {
        if counts.len() != self.histogram.counts.len() {
            return Err(Error::Shape(format!("{} counts of {} buckets", counts.len(), self.histogram.counts.len())));
        }
        let histogram = Histogram::from_counts(self.histogram.buckets, counts);
        self.merge(&RankHistogram { histogram, range: self.range.clone() })
    }

    /// The counts.
    pub fn histogram(&self) -> &Histogram {
        &self.histogram
    }

    /// The range that the buckets divide.
    pub fn range(&self) -> Range<f64> {
        self.range.clone()
    }

    /// For every group the score from which on its best `ranks[group]` rows are found, and at most the rest of one
    /// bucket more; -inf where the group has no more rows than that.
    ///
    /// # Errors
    /// [`Error::Shape`] for another number of ranks.
    pub fn limits(&self, ranks: &[usize]) -> Result<Vec<f64>> {
        if ranks.len() != self.histogram.groups() {
            return Err(Error::Shape(format!("{} ranks of {} groups", ranks.len(), self.histogram.groups())));
        }
        Ok(self.histogram.thresholds(ranks).iter().map(|threshold| self.limit(*threshold)).collect())
    }

    /// For every group the score below which [`select`](super::select) takes no row of it, with [`Fill::Global`] or
    /// [`Fill::None`] and [`Within::Nearest`]. From the rows on or above the limits it selects what it selects from all.
    ///
    /// [`Fill::Global`]: super::Fill::Global
    /// [`Fill::None`]: super::Fill::None
    /// [`Within::Nearest`]: super::Within::Nearest
    pub fn selection_limits(&self, budget: usize) -> Vec<f64> {
        let k = self.histogram.groups();
        let pools: Vec<usize> = (0..k).map(|group| self.histogram.total(group)).collect();
        let quotas: Vec<usize> = pools.iter().map(|&pool| pool.min(budget / k)).collect();
        let missing = budget.min(pools.iter().sum()) - quotas.iter().sum::<usize>();
        let fill = self.histogram.beyond(&quotas).threshold(0, missing);
        self.histogram.thresholds(&quotas).iter().map(|&quota| self.limit(quota.max(fill))).collect()
    }

    fn rows(&self) -> u64 {
        self.histogram.counts.iter().map(|&count| u64::from(count)).sum()
    }

    fn check_rows(&self, more: u64) -> Result<()> {
        let rows = self.rows() + more;
        if rows > u64::from(u32::MAX) {
            return Err(Error::Argument(format!("a histogram of {rows} rows; at most {} are counted", u32::MAX)));
        }
        Ok(())
    }

    /// The bucket of a score; it never ascends with the score.
    fn bucket(&self, score: f64) -> Bucket {
        let position = (self.range.end - score) / (self.range.end - self.range.start);
        bucket(position as f32, self.histogram.buckets)
    }

    /// The smallest score in the bucket of the threshold, or before it if no row of that is wanted.
    fn limit(&self, threshold: Threshold) -> f64 {
        let last = match threshold {
            Threshold { bucket, .. } if bucket as usize >= self.histogram.buckets => return f64::NEG_INFINITY,
            Threshold { bucket: 0, rank: 0 } => return f64::INFINITY,
            Threshold { bucket, rank: 0 } => bucket - 1,
            Threshold { bucket, .. } => bucket,
        };
        // Bisection over all floats, which are counted from -inf up.
        let (mut outside, mut inside) = (ordinal(f64::NEG_INFINITY), ordinal(f64::INFINITY));
        if self.bucket(f64::NEG_INFINITY) <= last {
            return f64::NEG_INFINITY;
        }
        while inside - outside > 1 {
            let middle = outside + (inside - outside) / 2;
            if self.bucket(from_ordinal(middle)) <= last { inside = middle } else { outside = middle }
        }
        from_ordinal(inside)
    }
}

/// The place of a float among all floats in ascending order.
fn ordinal(value: f64) -> u64 {
    let bits = value.to_bits();
    if bits >> 63 == 1 { !bits } else { bits | 1 << 63 }
}

fn from_ordinal(ordinal: u64) -> f64 {
    f64::from_bits(if ordinal >> 63 == 1 { ordinal ^ 1 << 63 } else { !ordinal })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::runtime::parallel::Par;
    use crate::select::{Fill, Options, select};

    fn scores() -> impl Strategy<Value = Vec<(i32, f32)>> {
        // Ties, scores beyond the range, and rows that count nowhere.
        let score = prop_oneof![-1f32..1.0, Just(0.5), Just(-0.0), Just(0.0), Just(7.0), Just(-7.0), Just(f32::NAN)];
        proptest::collection::vec((-1i32..4, score), 1..150)
    }

    fn of(rows: &[(i32, f32)], buckets: usize) -> RankHistogram {
        let (labels, scores): (Vec<i32>, Vec<f32>) = rows.iter().copied().unzip();
        let mut histogram = RankHistogram::new(4, -1.0..1.0, buckets).unwrap();
        histogram.update(&scores, Some(&labels)).unwrap();
        histogram
    }

    proptest! {
        #[test]
        fn any_split_and_any_order_of_merging_give_the_same(
            rows in scores(),
            shards in proptest::collection::vec(0usize..5, 150),
            order in Just([0, 1, 2, 3, 4]).prop_shuffle(),
            buckets in 1usize..40,
        ) {
            let whole = of(&rows, buckets);
            let shard = |shard| -> Vec<(i32, f32)> {
                rows.iter().zip(&shards).filter(|(_, of)| **of == shard).map(|(row, _)| *row).collect()
            };
            let mut merged = RankHistogram::new(4, -1.0..1.0, buckets).unwrap();
            for part in order {
                merged.merge(&of(&shard(part), buckets)).unwrap();
            }
            prop_assert_eq!(&merged, &whole);
            prop_assert_eq!(merged.selection_limits(20), whole.selection_limits(20));
        }

        #[test]
        fn limits_hold_the_best_rows_and_part_of_a_bucket(rows in scores(), ranks in [0usize..40, 0..40, 0..40, 0..40], buckets in 1usize..40) {
            let histogram = of(&rows, buckets);
            for (group, (&limit, &rank)) in histogram.limits(&ranks).unwrap().iter().zip(&ranks).enumerate() {
                let valid = |(label, score): &&(i32, f32)| *label == group as i32 && !score.is_nan();
                let group: Vec<f64> = rows.iter().filter(valid).map(|row| row.1.into()).collect();
                let listed = group.iter().filter(|&&score| score >= limit).count();
                prop_assert!(listed >= rank.min(group.len()));
                // Without the bucket at the limit there are too few, if there are any too many with it.
                let better = group.iter().filter(|&&score| histogram.bucket(score) < histogram.bucket(limit)).count();
                prop_assert!(better < rank || listed == rank);
            }
        }

        #[test]
        fn what_is_selected_from_the_listed_rows_is_what_is_selected_from_all(
            rows in scores(), budget in 1usize..200, buckets in 1usize..40, fill in prop_oneof![Just(Fill::Global), Just(Fill::None)],
        ) {
            let limits = of(&rows, buckets).selection_limits(budget);
            let listed: Vec<usize> = (0..rows.len())
                .filter(|&row| rows[row].0 >= 0 && f64::from(rows[row].1) >= limits[rows[row].0 as usize])
                .collect();
            let run = |rows: Vec<(i32, f32)>| {
                let (labels, scores): (Vec<i32>, Vec<f32>) = rows.into_iter().unzip();
                let options = Options { fill, strict: false, ..Options::new(4, budget) };
                select(&labels, &scores, &options, &Par::new(Some(1)))
            };
            let from_all = run(rows.clone()).unwrap();
            let indices: Vec<i64> = match run(listed.iter().map(|&row| rows[row]).collect()) {
                Ok(from_listed) => from_listed.indices.iter().map(|&i| listed[i as usize] as i64).collect(),
                Err(_) => Vec::new(),
            };
            prop_assert_eq!(indices, from_all.indices);
        }
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        assert!(RankHistogram::new(0, 0.0..1.0, 8).is_err());
        assert!(RankHistogram::new(1, 1.0..1.0, 8).is_err());
        assert!(RankHistogram::new(1, 0.0..f64::INFINITY, 8).is_err());
        let mut histogram = RankHistogram::new(2, 0.0..1.0, 8).unwrap();
        assert!(histogram.update(&[0.5], Some(&[2])).is_err());
        assert!(histogram.update(&[0.5, 0.5], Some(&[1])).is_err());
        assert!(histogram.merge(&RankHistogram::new(2, 0.0..2.0, 8).unwrap()).is_err());
        assert!(histogram.add_counts(vec![0; 15]).is_err());
        histogram.add_counts(vec![1 << 28; 15].into_iter().chain([0]).collect()).unwrap();
        assert!(histogram.clone().merge(&histogram).is_err());
    }
}
