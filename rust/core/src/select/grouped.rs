//! Where to cut off rankings of rows in groups, without sorting or moving any: rows are counted into buckets, the rows
//! up to the bucket of a threshold are listed, and only the rows in that bucket are compared one by one.

use super::histogram::{Histogram, Threshold};
use super::pool::{BLOCK, CHUNK, EXCLUDED, PRESELECTED};
use super::ranking::{Bucket, Key, Ranking, bucket};
use crate::error::Result;
use crate::runtime::parallel::Par;

/// Counters that fit in a core's second-level cache.
const COUNTERS: usize = 1 << 16;

/// More buckets than this gain nothing, even for a single group.
const MAX_BUCKETS: usize = 1 << 12;

/// Rows in groups, each group ranked.
pub(super) struct GroupedRanking<'a, R> {
    /// The group of every row: below `groups`, [`EXCLUDED`] or [`PRESELECTED`].
    pub(super) labels: &'a [i32],
    pub(super) groups: usize,
    pub(super) ranking: &'a R,
    pub(super) par: &'a Par<'a>,
}

/// Some rows of a block of [`BLOCK`], by their offset in it, ascending.
#[derive(Default)]
pub(super) struct Candidates {
    pub(super) rows: Vec<u16>,
    /// Those of them that rank in the bucket of a threshold.
    pub(super) in_threshold_bucket: Vec<u16>,
}

impl Candidates {
    /// Adds other candidates of the same block.
    pub(super) fn merge(&mut self, other: &Candidates) {
        for (own, others) in
            [(&mut self.rows, &other.rows), (&mut self.in_threshold_bucket, &other.in_threshold_bucket)]
        {
            own.extend(others);
            own.sort_unstable();
            own.dedup();
        }
    }
}

/// Row numbers of offsets in a block.
pub(super) fn row_numbers(block: usize, offsets: &[u16]) -> impl Iterator<Item = usize> {
    offsets.iter().map(move |&offset| block * BLOCK + usize::from(offset))
}

impl<R: Ranking> GroupedRanking<'_, R> {
    fn buckets(&self) -> usize {
        (COUNTERS / self.groups).clamp(1, MAX_BUCKETS)
    }

    /// Counts all rows.
    pub(super) fn histogram(&self) -> Result<Histogram> {
        let (buckets, rows) = (self.buckets(), self.labels.len());
        let size = self.groups * buckets;
        // Every block has counters of its own: together they are no larger than the rows.
        let block = BLOCK.max(rows.div_ceil(64)).max(size);
        let parts = self.par.map(
            rows.div_ceil(block),
            || (),
            |(), i| {
                // The last counter is that of rows in no group.
                let mut counts = vec![0u32; size + 1];
                self.for_chunks(i * block..rows.min((i + 1) * block), |_, labels, row_buckets| {
                    for (&label, &bucket) in labels.iter().zip(row_buckets) {
                        let counter = if label < 0 { size } else { label as usize * buckets + bucket as usize };
                        counts[counter] += 1;
                    }
                });
                counts.truncate(size);
                Ok(Histogram::from_counts(buckets, counts))
            },
        )?;
        let mut parts = parts.into_iter();
        let first = parts.next().unwrap_or_else(|| Histogram::new(self.groups, buckets));
        Ok(parts.fold(first, |mut sum, part| {
            sum.add(&part);
            sum
        }))
    }

    /// Lists the rows of every block that rank before one of two thresholds of their group, or in the bucket of one;
    /// and all preselected rows.
    pub(super) fn list(&self, one: &[Threshold], other: &[Threshold]) -> Result<Vec<Candidates>> {
        // Labels from `PRESELECTED` on index these tables, which therefore begin with the two that are no groups.
        debug_assert_eq!((PRESELECTED, EXCLUDED), (-2, -1));
        let last = one.iter().zip(other).map(|(one, other)| one.bucket.max(other.bucket) as i32);
        let last: Vec<i32> = [i32::MAX, -1].into_iter().chain(last).collect();
        let ends = one.iter().zip(other).map(|(one, other)| [one.bucket, other.bucket]);
        let ends: Vec<[Bucket; 2]> = [[Bucket::MAX; 2]; 2].into_iter().chain(ends).collect();
        let rows = self.labels.len();
        self.par.map(
            rows.div_ceil(BLOCK),
            || (vec![0; BLOCK], vec![0; BLOCK]),
            |(listed, near), i| {
                let (listed, near) = (&mut listed[..], &mut near[..]);
                let (mut listed_len, mut near_len) = (0, 0);
                self.for_chunks(i * BLOCK..rows.min((i + 1) * BLOCK), |start, labels, buckets| {
                    // Without branches, which would be mispredicted at every other row that is listed.
                    let (first, before) = (start % BLOCK, listed_len);
                    for (offset, (&label, &bucket)) in (first..).zip(labels.iter().zip(buckets)) {
                        listed[listed_len] = offset as u16;
                        listed_len += usize::from(bucket as i32 <= last[(label - PRESELECTED) as usize]);
                    }
                    for &offset in &listed[before..listed_len] {
                        let at = usize::from(offset) - first;
                        let (label, bucket) = ((labels[at] - PRESELECTED) as usize, buckets[at]);
                        near[near_len] = offset;
                        near_len += usize::from(ends[label].contains(&bucket));
                    }
                });
                Ok(Candidates { rows: listed[..listed_len].to_vec(), in_threshold_bucket: near[..near_len].to_vec() })
            },
        )
    }

    /// The keys at the thresholds of groups ranked by `ranking`: the rows of a group before its threshold are those of
    /// smaller keys. These groups are made of the ones here: `regroup(group, row)` is the new group of a row, if any.
    pub(super) fn threshold_keys<F: Ranking>(
        &self,
        thresholds: &[Threshold],
        candidates: &[Candidates],
        ranking: &F,
        regroup: impl Fn(usize, usize) -> Option<usize> + Sync,
    ) -> Result<Vec<F::Key>> {
        let in_threshold_bucket = |row: usize| {
            let group = regroup(usize::try_from(self.labels[row]).ok()?, row)?;
            let is_in = bucket(self.ranking.position(row), self.buckets()) == thresholds[group].bucket;
            is_in.then(|| (group, ranking.key(row)))
        };
        let list = |(): &mut (), i| {
            Ok(row_numbers(i, &candidates[i].in_threshold_bucket).filter_map(in_threshold_bucket).collect())
        };
        let lists: Vec<Vec<_>> = self.par.map(candidates.len(), || (), list)?;
        let mut ends: Vec<(F::Key, Vec<F::Key>)> = thresholds.iter().map(|_| (Key::MAX, Vec::new())).collect();
        for (group, key) in lists.into_iter().flatten() {
            ends[group].1.push(key);
        }
        let select = |(): &mut (), group: usize, end: &mut [(F::Key, Vec<F::Key>)]| {
            let (end, keys) = &mut end[0];
            if !keys.is_empty() {
                *end = *keys.select_nth_unstable(thresholds[group].rank).1;
            }
            Ok(())
        };
        self.par.for_blocks(&mut ends, 1, || (), select)?;
        Ok(ends.into_iter().map(|(end, _)| end).collect())
    }

    /// Calls `f` with the first row, the labels and the buckets of every chunk of `rows`.
    fn for_chunks(&self, rows: std::ops::Range<usize>, mut f: impl FnMut(usize, &[i32], &[Bucket])) {
        let count = self.buckets();
        let (mut positions, mut buckets) = ([0.0; CHUNK], [0; CHUNK]);
        for start in rows.clone().step_by(CHUNK) {
            let labels = &self.labels[start..rows.end.min(start + CHUNK)];
            let (positions, buckets) = (&mut positions[..labels.len()], &mut buckets[..labels.len()]);
            self.ranking.positions(start, positions);
            buckets.iter_mut().zip(&*positions).for_each(|(to, &position)| *to = bucket(position, count));
            f(start, labels, buckets);
        }
    }
}
