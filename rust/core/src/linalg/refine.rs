//! A second look at the columns that fewer bits have left of a row: one by one, with more bits.

use super::bounds::columns;
use super::packed::RowMajor;
use super::quantize::{Quantized, RowRange, quantize_row};
use crate::simd::{DotAccumulate, Isa, LANES};

/// A row and a column that may be its nearest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Candidate {
    /// Number of the row in its block.
    pub(crate) row: u32,
    /// Number of the column.
    pub(crate) label: u32,
}

/// Buffers of [`refine`].
#[derive(Debug)]
pub(crate) struct RefineScratch<Q: Quantized> {
    /// One row.
    words: Vec<Q::Word>,
    /// The columns of a row, with their upper bounds.
    uppers: Vec<(u32, f32)>,
}

impl<Q: Quantized> Default for RefineScratch<Q> {
    fn default() -> Self {
        RefineScratch { words: Vec::new(), uppers: Vec::new() }
    }
}

/// Makes `candidates` the pairs that `masks`, a bit for each column of each row, name and that the bounds of `Q` cannot
/// exclude either.
///
/// # Safety
/// The CPU must have the instructions of `I`: see [`crate::simd`].
#[inline(always)]
pub(crate) unsafe fn refine<I: Isa, Q: Quantized>(
    rows: &[f32],
    ranges: &[Option<RowRange>],
    masks: &[u16],
    row_major: &RowMajor<Q>,
    scratch: &mut RefineScratch<Q>,
    candidates: &mut Vec<Candidate>,
) where
    I::I32: DotAccumulate<Q::Word>,
{
    let RefineScratch { words, uppers } = scratch;
    let (dim, groups) = (rows.len() / ranges.len(), masks.len() / ranges.len());
    words.resize(row_major.steps, Q::ZERO_WORD);
    candidates.clear();
    for (row, (range, masks)) in ranges.iter().zip(masks.chunks_exact(groups)).enumerate() {
        let labels = || masks.iter().enumerate().flat_map(|(group, &mask)| columns(group, mask));
        let count: u32 = masks.iter().map(|mask| mask.count_ones()).sum();
        // One or two are as soon scored in float64.
        let Some(range) = range.filter(|_| count > 2) else {
            candidates.extend(labels().map(|label| Candidate { row: row as u32, label }));
            continue;
        };
        // SAFETY: the caller promises that the CPU has these instructions.
        let errors = unsafe { quantize_row::<I::F32, Q>(&rows[row * dim..][..dim], range, words) };
        let mut floor = f32::NEG_INFINITY;
        uppers.clear();
        for label in labels() {
            let (column_words, column) = row_major.get(label as usize);
            // SAFETY: the caller promises that the CPU has these instructions.
            let middle = unsafe { dot::<I::I32, Q>(words, column_words) } as f32 * column.scale;
            let off = errors.error * column.norm + errors.norm * column.error;
            floor = floor.max(middle - off);
            uppers.push((label, middle + off));
        }
        let left = uppers.iter().filter(|(_, upper)| *upper >= floor);
        candidates.extend(left.map(|&(label, _)| Candidate { row: row as u32, label }));
    }
}

/// The dot product of the whole numbers of two vectors, which fill whole registers.
///
/// # Safety
/// The CPU must have the instructions of `V`: see [`crate::simd`].
#[inline(always)]
unsafe fn dot<V: DotAccumulate<Q::Word>, Q: Quantized>(x: &[Q::Word], y: &[Q::Word]) -> i32 {
    let (x, y) = (x.as_chunks::<LANES>().0, y.as_chunks::<LANES>().0);
    let ((fours_x, last_x), (fours_y, last_y)) = (x.as_chunks::<4>(), y.as_chunks::<4>());
    // SAFETY: the caller promises that the CPU has these instructions.
    unsafe {
        let mut sums = [V::splat(0); 4];
        for (x, y) in fours_x.iter().zip(fours_y) {
            for i in 0..4 {
                sums[i] = sums[i].add_dot(V::load_words(&x[i]), V::load_words(&y[i]));
            }
        }
        for ((sum, x), y) in sums.iter_mut().zip(last_x).zip(last_y) {
            *sum = sum.add_dot(V::load_words(x), V::load_words(y));
        }
        let [a, b, c, d] = sums;
        a.add(b).add(c.add(d)).sum()
    }
}
