//! Where to cut an order of rows, without sorting or moving any: rows are counted into bins by their place, rows up to
//! the bin of the cut are listed, and only those in it are looked at one by one.

use super::order::{Key, Order};
use super::standing::BLOCK;
use crate::error::Result;
use crate::runtime::parallel::Par;

/// Counters that a core keeps in its second cache.
const COUNTERS: usize = 1 << 16;

/// Bins beyond which even one group gains nothing.
const MOST_BINS: usize = 1 << 12;

/// Rows whose bins are found before anything is done with them.
pub(super) const CHUNK: usize = 512;

/// The group of a row that is in no group, and never listed.
pub(super) const NOWHERE: i32 = -1;

/// The group of a row that is in no group, but always listed.
pub(super) const ALWAYS: i32 = -2;

/// Rows in groups, in some order.
pub(super) struct Groups<'a, O> {
    /// The group of every row: below `count`, [`NOWHERE`] or [`ALWAYS`].
    pub(super) of: &'a [i32],
    pub(super) count: usize,
    pub(super) order: &'a O,
    pub(super) par: &'a Par<'a>,
}

/// How many rows of each group stand where.
pub(super) struct Table {
    bins: usize,
    counts: Vec<u32>,
}

/// The place of a cut: before it are all rows of lower bins, and `rank` rows of its own.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Place {
    pub(super) bin: u32,
    rank: usize,
}

impl Place {
    /// Before all rows.
    pub(super) const FIRST: Place = Place { bin: 0, rank: 0 };
}

impl Table {
    /// Rows of a group.
    pub(super) fn total(&self, group: usize) -> usize {
        self.of(group).iter().map(|&count| count as usize).sum()
    }

    fn of(&self, group: usize) -> &[u32] {
        &self.counts[group * self.bins..][..self.bins]
    }

    /// The place behind the best `rank` rows of a group: behind all bins where it has no more.
    pub(super) fn place(&self, group: usize, mut rank: usize) -> Place {
        for (bin, &count) in self.of(group).iter().enumerate() {
            if rank < count as usize {
                return Place { bin: bin as u32, rank };
            }
            rank -= count as usize;
        }
        Place { bin: self.bins as u32, rank: 0 }
    }

    /// The places behind the best `ranks[group]` rows of every group.
    pub(super) fn places(&self, ranks: &[usize]) -> Vec<Place> {
        ranks.iter().enumerate().map(|(group, &rank)| self.place(group, rank)).collect()
    }

    /// The table of what stands from `ranks` on, one rank a group, as a single group.
    pub(super) fn beyond(&self, ranks: &[usize]) -> Table {
        let mut counts = vec![0; self.bins];
        for (group, &rank) in ranks.iter().enumerate() {
            let mut before = rank as u32;
            for (sum, &count) in counts.iter_mut().zip(self.of(group)) {
                *sum += count.saturating_sub(before);
                before = before.saturating_sub(count);
            }
        }
        Table { bins: self.bins, counts }
    }
}

/// Some rows of a block of [`BLOCK`], by their number in it, ascending.
#[derive(Default)]
pub(super) struct Listed {
    pub(super) rows: Vec<u16>,
    /// Those of them whose bin holds a cut.
    pub(super) near: Vec<u16>,
}

impl Listed {
    /// Adds what another list of the same block holds.
    pub(super) fn merge(&mut self, other: &Listed) {
        for (mine, others) in [(&mut self.rows, &other.rows), (&mut self.near, &other.near)] {
            mine.extend(others);
            mine.sort_unstable();
            mine.dedup();
        }
    }
}

/// Row numbers of what is listed of the `i`-th block.
pub(super) fn rows_of(i: usize, listed: &[u16]) -> impl Iterator<Item = usize> {
    listed.iter().map(move |&offset| i * BLOCK + usize::from(offset))
}

impl<O: Order> Groups<'_, O> {
    fn bins(&self) -> usize {
        (COUNTERS / self.count).clamp(1, MOST_BINS)
    }

    /// Counts all rows.
    pub(super) fn table(&self) -> Result<Table> {
        let (bins, rows) = (self.bins(), self.of.len());
        let size = self.count * bins;
        // Every block has a table of its own: together they are no larger than the rows.
        let block = BLOCK.max(rows.div_ceil(64)).max(size);
        let tables = self.par.map(
            rows.div_ceil(block),
            || (),
            |(), i| {
                // The last counter is that of rows in no group.
                let mut counts = vec![0u32; size + 1];
                self.for_chunks(i * block..rows.min((i + 1) * block), |_, groups, places| {
                    for (&group, &bin) in groups.iter().zip(places) {
                        let counter = if group < 0 { size } else { group as usize * bins + bin as usize };
                        counts[counter] += 1;
                    }
                });
                Ok(counts)
            },
        )?;
        let mut tables = tables.into_iter();
        let mut counts = tables.next().unwrap_or_else(|| vec![0; size]);
        for table in tables {
            counts.iter_mut().zip(table).for_each(|(sum, count)| *sum += count);
        }
        Ok(Table { bins, counts })
    }

    /// Lists the rows of every block that stand before one of two cuts of their group, or in the same bin.
    pub(super) fn list(&self, one: &[Place], other: &[Place]) -> Result<Vec<Listed>> {
        // By group, behind those of the two that are none.
        let last = one.iter().zip(other).map(|(one, other)| one.bin.max(other.bin) as i32);
        let last: Vec<i32> =
            [(ALWAYS, i32::MAX), (NOWHERE, -1)].map(|(_, last)| last).into_iter().chain(last).collect();
        let cuts = one.iter().zip(other).map(|(one, other)| [one.bin, other.bin]);
        let cuts: Vec<[u32; 2]> = [[u32::MAX; 2]; 2].into_iter().chain(cuts).collect();
        let rows = self.of.len();
        self.par.map(
            rows.div_ceil(BLOCK),
            || (vec![0; BLOCK], vec![0; BLOCK]),
            |(listed, near), i| {
                let (listed, near) = (&mut listed[..], &mut near[..]);
                let (mut rows_len, mut near_len) = (0, 0);
                self.for_chunks(i * BLOCK..rows.min((i + 1) * BLOCK), |start, groups, bins| {
                    // Without branches, which would be mispredicted at every other row that is listed.
                    let (first, before) = (start % BLOCK, rows_len);
                    for (offset, (&group, &bin)) in (first..).zip(groups.iter().zip(bins)) {
                        listed[rows_len] = offset as u16;
                        rows_len += usize::from(bin as i32 <= last[(group - ALWAYS) as usize]);
                    }
                    for &offset in &listed[before..rows_len] {
                        let at = usize::from(offset) - first;
                        let (group, bin) = ((groups[at] - ALWAYS) as usize, bins[at]);
                        near[near_len] = offset;
                        near_len += usize::from(cuts[group].contains(&bin));
                    }
                });
                Ok(Listed { rows: listed[..rows_len].to_vec(), near: near[..near_len].to_vec() })
            },
        )
    }

    /// The keys at the places of groups of `order`: below the key of a group are all its rows before its place. The
    /// groups are these ones merged and thinned out: `among` says in which a row is, if any.
    pub(super) fn keys_at<F: Order>(
        &self,
        places: &[Place],
        listed: &[Listed],
        order: &F,
        among: impl Fn(usize, usize) -> Option<usize> + Sync,
    ) -> Result<Vec<F::Key>> {
        let in_bin = |row: usize| {
            let group = among(usize::try_from(self.of[row]).ok()?, row)?;
            (bin(self.order.place(row), self.bins()) == places[group].bin).then(|| (group, order.key(row)))
        };
        let near = |(): &mut (), i| Ok(rows_of(i, &listed[i].near).filter_map(in_bin).collect());
        let near: Vec<Vec<_>> = self.par.map(listed.len(), || (), near)?;
        let mut ends: Vec<(F::Key, Vec<F::Key>)> = places.iter().map(|_| (Key::MOST, Vec::new())).collect();
        for (group, key) in near.into_iter().flatten() {
            ends[group].1.push(key);
        }
        let select = |(): &mut (), group: usize, end: &mut [(F::Key, Vec<F::Key>)]| {
            let (end, keys) = &mut end[0];
            if !keys.is_empty() {
                *end = *keys.select_nth_unstable(places[group].rank).1;
            }
            Ok(())
        };
        self.par.for_blocks(&mut ends, 1, || (), select)?;
        Ok(ends.into_iter().map(|(end, _)| end).collect())
    }

    /// Calls `f` with the first row, the groups and the bins of every chunk of `rows`.
    fn for_chunks(&self, rows: std::ops::Range<usize>, mut f: impl FnMut(usize, &[i32], &[u32])) {
        let count = self.bins();
        let (mut places, mut bins) = ([0.0; CHUNK], [0; CHUNK]);
        for start in rows.clone().step_by(CHUNK) {
            let groups = &self.of[start..rows.end.min(start + CHUNK)];
            let (places, bins) = (&mut places[..groups.len()], &mut bins[..groups.len()]);
            self.order.places(start, places);
            bins.iter_mut().zip(&*places).for_each(|(bin_of, &place)| *bin_of = bin(place, count));
            f(start, groups, bins);
        }
    }
}

#[inline]
fn bin(place: f32, bins: usize) -> u32 {
    let place = place * bins as f32;
    let last = (bins - 1) as f32;
    // In terms of comparisons, which are one instruction each; the first one is false for NaN.
    let place = if place > 0.0 { place } else { 0.0 };
    let place = if place < last { place } else { last };
    // 2^23 has no bits for fractions: the sum's low bits are the rounded place.
    (place + 8_388_608.0).to_bits() & 0x7f_ffff
}
