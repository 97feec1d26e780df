//! Products of quantized rows with quantized columns: exact sums of 32 bits.
//!
//! [`multiply`] fills a panel of scores, `[row][group of columns][lane]`, which is all that the bounds read. How it is
//! filled is up to a [`Microkernel`]: a matrix unit takes its place behind the same panel.

mod registers;

use std::ops::Range;

use super::quantize::Quantized;
use crate::runtime::cpu;
use crate::simd::{LANES, Lane16, Word};

/// Multiplies tiles of rows and columns of `Q`.
pub(crate) trait Microkernel<Q: Quantized> {
    /// Rows of a tile whose sums stay in registers.
    const MR: usize;
    /// Groups of [`LANES`] columns of a tile, at most.
    const NR: usize;
    /// Words of the inner dimension that are multiplied at a time. [`multiply`] cuts it at multiples of this, so that only
    /// the last part of it may be shorter.
    const KR: usize;

    /// Packs a column of whole numbers where [`Microkernel::tile`] reads it: a word of each column of a group side by side.
    fn pack_b(b: &mut PackedB, column: usize, numbers: &[i32]) {
        let (group, lane) = (column / LANES, column % LANES);
        for (step, numbers) in numbers.chunks(Q::PER_WORD).enumerate() {
            b.words[group * b.steps + step].0[lane] = Q::word(numbers).bits();
        }
        b.start[group].0[lane] = -Q::ZERO_POINT * numbers.iter().sum::<i32>();
    }

    /// Adds the products of all rows with the columns and steps of `tile` to `scores`, or for the first steps to what the
    /// columns start from.
    ///
    /// # Safety
    /// The CPU must have the instructions of the kernel, and the caller should enable them: see [`crate::simd`].
    unsafe fn tile(
        rows: &[Q::Word],
        b: &PackedB,
        tile: Tile,
        scores: &mut [Lane16<i32>],
        prefetcher: &mut Prefetcher<'_>,
    );
}

/// Columns of whole numbers as a [`Microkernel`] reads them.
#[derive(Debug)]
pub(crate) struct PackedB {
    /// `[group][step]`: a word of each column of the group.
    words: Vec<Lane16<i32>>,
    /// Words in a column, and in a row.
    steps: usize,
    /// The numbers that the sums of each group start from, which cancel the zero point of rows; -1 where there is no column.
    start: Vec<Lane16<i32>>,
}

impl PackedB {
    /// Room for `len` columns of `steps` words.
    pub(crate) fn new(len: usize, steps: usize) -> Self {
        let groups = len.div_ceil(LANES);
        PackedB { words: vec![Lane16([0; LANES]); groups * steps], steps, start: vec![Lane16([-1; LANES]); groups] }
    }

    /// Groups of [`LANES`] columns.
    pub(crate) fn groups(&self) -> usize {
        self.start.len()
    }

    /// The words of one group.
    #[inline(always)]
    fn group(&self, group: usize) -> &[Lane16<i32>] {
        &self.words[group * self.steps..(group + 1) * self.steps]
    }
}

/// A few groups of columns and steps.
#[derive(Debug, Clone)]
pub(crate) struct Tile {
    /// The groups.
    pub(crate) groups: Range<usize>,
    /// The place of the first of them among the `panel_groups` of a row's scores.
    pub(crate) place: usize,
    pub(crate) panel_groups: usize,
    /// The words of the inner dimension.
    pub(crate) steps: Range<usize>,
}

/// Steps of a tile, at most: of three groups 24 KB.
const STEPS: usize = 128;

/// Writes the dot products of all rows with the columns of `groups` to `scores`.
///
/// # Safety
/// The CPU must have the instructions of `M`: see [`crate::simd`].
#[inline(always)]
pub(crate) unsafe fn multiply<M: Microkernel<Q>, Q: Quantized>(
    rows: &[Q::Word],
    b: &PackedB,
    groups: Range<usize>,
    scores: &mut [Lane16<i32>],
    prefetcher: &mut Prefetcher<'_>,
) {
    const { assert!(STEPS.is_multiple_of(M::KR)) };
    // As many groups at a time as there are registers for, or one fewer, rather than a small rest; and of these as many
    // steps as stay in the first cache while all rows pass by.
    let panel_groups = groups.len();
    let tiles = panel_groups.div_ceil(M::NR);
    for tile in 0..tiles {
        let places = tile * panel_groups / tiles..(tile + 1) * panel_groups / tiles;
        for start in (0..b.steps).step_by(STEPS) {
            let steps = start..b.steps.min(start + STEPS);
            let groups = groups.start + places.start..groups.start + places.end;
            let tile = Tile { groups, place: places.start, panel_groups, steps };
            // SAFETY: the caller promises that the CPU has these instructions.
            unsafe { M::tile(rows, b, tile, scores, prefetcher) };
        }
    }
}

/// Fetches memory into the cache little by little, so that it arrives while products are computed.
pub(crate) struct Prefetcher<'r> {
    lines: std::slice::ChunksExact<'r, u8>,
    /// Lines at a time.
    each: usize,
}

impl<'r> Prefetcher<'r> {
    /// Steps of a tile between two fetches.
    const STEPS: usize = 8;
    /// Bytes in a cache line.
    const LINE: usize = 64;

    /// Spreads the `upcoming` memory over the tiles of `n` rows.
    pub(crate) fn new<M: Microkernel<Q>, Q: Quantized>(upcoming: &'r [u8], n: usize, b: &PackedB) -> Self {
        // A lower bound: there may be more tiles, of fewer groups.
        let times = b.groups().div_ceil(M::NR) * n.div_ceil(M::MR) * b.steps.div_ceil(Self::STEPS);
        Prefetcher { lines: upcoming.chunks_exact(Self::LINE), each: (upcoming.len() / Self::LINE).div_ceil(times) }
    }

    #[inline(always)]
    fn fetch(&mut self) {
        for line in self.lines.by_ref().take(self.each) {
            cpu::prefetch(line);
        }
    }
}
