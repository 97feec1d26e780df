//! Where to cut an order of rows, without sorting or moving any: rows are counted into bins by their place, and only
//! those of the bin that holds the cut are looked at again.

use super::order::{Key, Order};
use super::standing::BLOCK;
use crate::error::Result;
use crate::par::Par;

/// Counters that a core keeps in its second cache.
const COUNTERS: usize = 1 << 16;

/// Bins beyond which even one group gains nothing.
const MOST_BINS: usize = 1 << 12;

/// The counter of rows that are in no group.
const NOWHERE: u32 = u32::MAX;

/// Rows in groups, in some order.
pub(super) struct Groups<'a, O, G, A> {
    /// Rows are numbered below this.
    pub(super) rows: usize,
    /// Groups are numbered below this.
    pub(super) count: usize,
    /// The group of a row, if it is in any.
    pub(super) of: G,
    /// Whether a row of a group counts. Asked of few rows, unless a table is made.
    pub(super) among: A,
    pub(super) order: &'a O,
    pub(super) par: &'a Par<'a>,
}

/// How many rows of each group stand where.
pub(super) struct Table {
    bins: usize,
    counts: Vec<u32>,
}

impl Table {
    /// Rows of a group.
    pub(super) fn total(&self, group: usize) -> usize {
        self.of(group).iter().map(|&count| count as usize).sum()
    }

    fn of(&self, group: usize) -> &[u32] {
        &self.counts[group * self.bins..][..self.bins]
    }

    /// The bin that holds `rank`, counted from 0, and the rank within it; None where the group has not so many rows.
    fn find(&self, group: usize, mut rank: usize) -> Option<(usize, usize)> {
        for (bin, &count) in self.of(group).iter().enumerate() {
            if rank < count as usize {
                return Some((bin, rank));
            }
            rank -= count as usize;
        }
        None
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

impl<O, G, A> Groups<'_, O, G, A>
where
    O: Order,
    G: Fn(usize) -> Option<usize> + Sync,
    A: Fn(usize) -> bool + Sync,
{
    /// Counts all rows.
    pub(super) fn table(&self) -> Result<Table> {
        let bins = (COUNTERS / self.count).clamp(1, MOST_BINS);
        let size = self.count * bins;
        // Every block has a table of its own: together they are no larger than the rows.
        let block = BLOCK.max(self.rows.div_ceil(64)).max(size);
        let tables = self.par.map(
            self.rows.div_ceil(block),
            || (),
            |(), i| {
                let mut counts = vec![0u32; size];
                let end = self.rows.min((i + 1) * block);
                let mut counters = [0; CHUNK];
                for start in (i * block..end).step_by(CHUNK) {
                    let counters = &mut counters[..CHUNK.min(end - start)];
                    for (row, counter) in (start..).zip(counters.iter_mut()) {
                        *counter = (self.of)(row)
                            .filter(|_| (self.among)(row))
                            .map_or(NOWHERE, |group| (group * bins + self.bin(row, bins)) as u32);
                    }
                    for counter in counters.iter().filter(|&&counter| counter != NOWHERE) {
                        counts[*counter as usize] += 1;
                    }
                }
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

    /// For every group the key of rank `ranks[group]`, counted from 0: below it are that many rows of the group.
    pub(super) fn cuts(&self, table: &Table, ranks: &[usize]) -> Result<Vec<O::Key>> {
        let found: Vec<Option<(usize, usize)>> =
            ranks.iter().enumerate().map(|(group, &rank)| table.find(group, rank)).collect();
        let bins: Vec<usize> = found.iter().map(|found| found.map_or(table.bins, |(bin, _)| bin)).collect();
        let near = pick(self.rows, self.par, |row| {
            (self.of)(row).is_some_and(|group| self.bin(row, table.bins) == bins[group]) && (self.among)(row)
        })?;
        let room = |(group, found): (usize, &Option<(usize, usize)>)| {
            Vec::with_capacity(found.map_or(0, |(bin, _)| table.of(group)[bin] as usize))
        };
        let mut keys: Vec<Vec<O::Key>> = found.iter().enumerate().map(room).collect();
        for row in near.iter().enumerate().flat_map(|(i, block)| picked(i, block)) {
            if let Some(group) = (self.of)(row) {
                keys[group].push(self.order.key(row));
            }
        }
        let mut cuts: Vec<(O::Key, Vec<O::Key>)> = keys.into_iter().map(|keys| (Key::MOST, keys)).collect();
        self.par.for_blocks(
            &mut cuts,
            1,
            || (),
            |(), group, cut| {
                if let ((cut, keys), Some((_, rank))) = (&mut cut[0], found[group]) {
                    *cut = *keys.select_nth_unstable(rank).1;
                }
                Ok(())
            },
        )?;
        Ok(cuts.into_iter().map(|(cut, _)| cut).collect())
    }

    fn bin(&self, row: usize, bins: usize) -> usize {
        let place = self.order.place(row) * bins as f32;
        let last = (bins - 1) as f32;
        // In terms of comparisons, which are one instruction each; the first one is false for NaN.
        let place = if place > 0.0 { place } else { 0.0 };
        let place = if place < last { place } else { last };
        // 2^23 has no bits for fractions: the sum's low bits are the rounded place.
        ((place + 8_388_608.0).to_bits() & 0x7f_ffff) as usize
    }
}

/// Rows that are looked at before anything is written, so that what is borrowed for it stays in registers.
const CHUNK: usize = 64;

/// The rows of which `wanted` is true, ascending, a list a block: see [`picked`].
pub(super) fn pick(rows: usize, par: &Par<'_>, wanted: impl Fn(usize) -> bool + Sync) -> Result<Vec<Vec<u16>>> {
    par.map(
        rows.div_ceil(BLOCK),
        || vec![0; BLOCK],
        |found, i| {
            let found = &mut found[..];
            let mut len = 0;
            let mut flags = [false; CHUNK];
            let end = rows.min((i + 1) * BLOCK);
            for start in (i * BLOCK..end).step_by(CHUNK) {
                let flags = &mut flags[..CHUNK.min(end - start)];
                flags.iter_mut().enumerate().for_each(|(at, flag)| *flag = wanted(start + at));
                if !flags.iter().fold(false, |any, &flag| any | flag) {
                    continue;
                }
                for (offset, &flag) in (start % BLOCK..).zip(flags.iter()) {
                    // Without a branch, which would be mispredicted at every other row that is wanted.
                    found[len] = offset as u16;
                    len += usize::from(flag);
                }
            }
            Ok(found[..len].to_vec())
        },
    )
}

/// The rows of the `i`-th list.
pub(super) fn picked(i: usize, list: &[u16]) -> impl Iterator<Item = usize> {
    list.iter().map(move |&offset| i * BLOCK + usize::from(offset))
}
