//! Intervals of scores, and the columns that they cannot exclude.
//!
//! Rows `x` and columns `c` are rounded to whole numbers of a scale, `x = s p + e` and `c = t q + f`. The dot product of
//! the whole numbers is exact in 32 bits, so that by Cauchy and Schwarz
//!
//! `|x.c - s t p.q| = |e.(t q) + x.f| <= |e| |t q| + |x| |f|`,
//!
//! with nothing on the right but norms, computed and rounded upwards. A column whose upper bound is below a lower bound of
//! the answer is not the answer. The bounds cover the rounding of the exact dot product too: what is excluded here would
//! have lost there.

use super::quantize::RowError;
use crate::simd::{F32x16, I32x16, Isa, LANES, Lane16};

/// Columns of a group, in units of a row's scale: with `sum` the dot product of the whole numbers, the score of a row is
/// `scale * sum`, off by at most `row.error * norm + row.norm * error`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ColumnBounds {
    pub(crate) scale: Lane16<f32>,
    pub(crate) norm: Lane16<f32>,
    pub(crate) error: Lane16<f32>,
}

impl ColumnBounds {
    /// The bounds of absent columns, whose sum is -1: their score is minus infinity.
    pub(crate) const ABSENT: Self =
        Self { scale: Lane16([f32::INFINITY; LANES]), norm: Lane16([0.0; LANES]), error: Lane16([0.0; LANES]) };
}

/// The columns of a panel that are to be kept for one row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Keep {
    /// The number of columns that count, from the first: at least one.
    pub(crate) count: usize,
    /// Only columns that may be among this many best are kept; 0 for no such limit.
    pub(crate) best: usize,
    /// A margin below the score of the last of these best.
    pub(crate) slack: f32,
    /// Only columns that may reach this score are kept.
    pub(crate) floor: f32,
}

/// Buffers of [`prune_by_bound`].
#[derive(Debug, Default)]
pub(crate) struct BoundScratch {
    uppers: Vec<Lane16<f32>>,
    lowers: Vec<f32>,
}

/// Marks in `masks`, a bit a column, the columns of a panel that the bounds of a row's scores cannot exclude: those whose
/// upper bound is at least the floor that is returned.
///
/// # Safety
/// The CPU must have the instructions of `I`: see [`crate::simd`].
#[inline(always)]
pub(crate) unsafe fn prune_by_bound<I: Isa>(
    scores: &[Lane16<i32>],
    columns: &[ColumnBounds],
    row: RowError,
    keep: Keep,
    scratch: &mut BoundScratch,
    masks: &mut [u16],
) -> f32 {
    let BoundScratch { uppers, lowers } = scratch;
    let groups = keep.count.div_ceil(LANES);
    let last = u16::MAX >> (groups * LANES - keep.count);
    uppers.resize(columns.len(), Lane16([0.0; LANES]));
    lowers.clear();
    // SAFETY: the caller promises that the CPU has these instructions.
    unsafe {
        let (error, norm) = (I::F32::splat(row.error), I::F32::splat(row.norm));
        let mut lowest = I::F32::splat(f32::NEG_INFINITY);
        for (group, ((score, columns), upper)) in
            scores[..groups].iter().zip(columns).zip(uppers.iter_mut()).enumerate()
        {
            let [lower, highest] = score_interval::<I>(score, columns, error, norm);
            upper.0 = highest.to_array();
            // Some of the last group's columns may not count.
            let is_cut = group + 1 == groups && last != u16::MAX;
            if !is_cut {
                lowest = lower.max(lowest);
            }
            if keep.best > 1 || is_cut {
                lowers.extend_from_slice(&lower.to_array());
            }
        }
        lowers.truncate(lowers.len().saturating_sub(groups * LANES - keep.count));
        let best = match keep.best {
            0 => f32::NEG_INFINITY,
            1 => lowers.iter().fold(lowest.largest(), |a, &b| a.max(b)),
            best if best <= lowers.len() => *lowers.select_nth_unstable_by(best - 1, |a, b| b.total_cmp(a)).1,
            _ => f32::NEG_INFINITY,
        };
        let floor = (best - keep.slack).max(keep.floor);
        let lanes = I::F32::splat(floor);
        for (mask, upper) in masks.iter_mut().zip(&uppers[..groups]) {
            *mask = I::F32::load(&upper.0).at_least(lanes);
        }
        masks[groups - 1] &= last;
        floor
    }
}

/// The lower and the upper bounds of the scores of a group, for a row of this `error` and `norm`.
///
/// # Safety
/// The CPU must have the instructions of `I`: see [`crate::simd`].
#[inline(always)]
unsafe fn score_interval<I: Isa>(
    score: &Lane16<i32>,
    columns: &ColumnBounds,
    error: I::F32,
    norm: I::F32,
) -> [I::F32; 2] {
    // SAFETY: the caller promises that the CPU has these instructions.
    unsafe {
        let middle = I::I32::load(score).to_f32().mul(I::F32::load(&columns.scale.0));
        let of_norm = error.mul(I::F32::load(&columns.norm.0));
        let off = norm.mul_add(I::F32::load(&columns.error.0), of_norm);
        [middle.sub(off), middle.add(off)]
    }
}

/// The columns of a group that `mask` names.
#[inline(always)]
pub(crate) fn columns(group: usize, mut mask: u16) -> impl Iterator<Item = u32> {
    std::iter::from_fn(move || {
        let lane = (mask != 0).then(|| mask.trailing_zeros())?;
        mask &= mask - 1;
        Some((group * LANES) as u32 + lane)
    })
}
