//! A search for the columns that are at least as similar to a row as its query asks: the bounds of [`super::bounds`] on
//! cosines, with a floor for each row instead of the nearest column alone, and columns of any length.
//!
//! A column `y` is rounded as the unit vector `y / |y|` less a center `m`, so that with `x = s p + e` as in
//! [`super::bounds`], `cos(x, y) = (<x, c> + <x, m>) / |x|`. A floor `f` of cosines is `(f |x| - <x, m>) / s` in units of
//! the row's scale, where bounds are compared. What rounding to float32 may add to a cosine is taken off the floor, so that
//! a column is excluded only if its similarity *as rounded* is below.

use super::bounds::{Keep, columns as columns_of, prune_by_bound};
use super::int_gemm::{Microkernel, Prefetcher, multiply};
use super::nearest::{PANEL, Scores, Width};
use super::packed::{PackedColumns, QuantizedColumn};
use super::quantize::{Int8, Int16, Quantized, QuantizedBlock, quantize};
use crate::runtime::cpu::{Level, dispatch};
use crate::simd::{Isa, LANES, Lane16};

/// Columns of a panel: floors may rise from one panel to the next.
pub(crate) const PANEL_COLUMNS: usize = PANEL * LANES;

/// Taken off floors, as a share of the norms that they come from. Rounding a cosine to float32 and a floor to float32
/// take at most 2^-24 each.
const ROUNDING_SLACK: f64 = 1.0 / (1 << 22) as f64;

/// Columns of any length, ready to be excluded.
#[derive(Debug)]
pub(crate) struct BoundedSearch {
    level: Level,
    dim: usize,
    /// `m`: the mean of the unit vectors, or near it.
    center: Vec<f32>,
    width: Width,
    columns: PackedColumns,
}

/// A row's norm `|x|`, and its dot product with the center.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct RowNorm {
    pub(crate) norm: f64,
    pub(crate) center: f64,
}

/// The columns that a row looks for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Query {
    /// The lowest similarity of interest.
    pub(crate) floor: f32,
    /// Only columns of lower numbers are of interest.
    pub(crate) limit: usize,
    /// The number of best columns of a panel that are enough, with others that may be as good; 0 for all.
    pub(crate) best: usize,
}

/// Buffers of a thread.
#[derive(Debug, Default)]
pub(crate) struct SearchScratch {
    rows8: QuantizedBlock<Int8>,
    rows16: QuantizedBlock<Int16>,
    scores: Scores,
    /// By row, in units of its scale.
    scaled: Vec<RowNorm>,
    groups: usize,
}

impl SearchScratch {
    /// The columns of the panel, by their number in it, that the bounds cannot exclude for `row`.
    pub(crate) fn candidates(&self, row: usize) -> impl Iterator<Item = u32> + use<'_> {
        let masks = &self.scores.masks[row * self.groups..(row + 1) * self.groups];
        masks.iter().enumerate().flat_map(|(group, &mask)| columns_of(group, mask))
    }
}

/// The groups of a panel, and what each row looks for there.
#[derive(Clone, Copy)]
struct Panel<'q> {
    first: usize,
    groups: usize,
    queries: &'q [Query],
}

impl BoundedSearch {
    /// A search of `level`, or `None` if it has no instructions that make this faster than float64. Columns whose norm is
    /// no positive number are never found.
    pub(crate) fn new(level: Level, vectors: &[f32], norms: &[f64], dim: usize) -> Option<Self> {
        let width = Width::of(level, dim)?;
        let mut sum = vec![0f64; dim];
        for (vector, &norm) in vectors.chunks_exact(dim).zip(norms).filter(|(_, norm)| is_direction(**norm)) {
            sum.iter_mut().zip(vector).for_each(|(s, &v)| *s += f64::from(v) / norm);
        }
        let center: Vec<f32> = sum.iter().map(|s| (s / norms.len() as f64) as f32).collect();
        let columns = match width {
            Width::Int8 => pack_int8(level, vectors, norms, &center),
            Width::Int16 => pack_int16(level, vectors, norms, &center),
        };
        Some(BoundedSearch { level, dim, center, width, columns })
    }

    /// The center `m` of [`RowNorm`].
    pub(crate) fn center(&self) -> &[f32] {
        &self.center
    }

    /// Takes in the rows that the next panels are searched for. Those whose norm is no positive number find nothing.
    pub(crate) fn take_rows(&self, rows: &[f32], norms: &[RowNorm], scratch: &mut SearchScratch) {
        let SearchScratch { rows8, rows16, scaled, .. } = scratch;
        match self.width {
            Width::Int8 => {
                quantize(self.level, rows, self.dim, rows8);
                scale(norms, rows8, self.dim, scaled);
            }
            Width::Int16 => {
                quantize(self.level, rows, self.dim, rows16);
                scale(norms, rows16, self.dim, scaled);
            }
        }
    }

    /// Searches the columns from `first` on, at most [`PANEL_COLUMNS`] and no more than any of `queries`, one a row, allows.
    pub(crate) fn search(&self, first: usize, queries: &[Query], scratch: &mut SearchScratch) {
        let limit = queries.iter().map(|query| query.limit).max().unwrap_or_default();
        let left = self.columns.b.groups() - first / LANES;
        let groups = PANEL.min(left).min(limit.saturating_sub(first).div_ceil(LANES));
        let panel = Panel { first: first / LANES, groups, queries };
        let SearchScratch { rows8, rows16, scores, scaled, groups: searched } = scratch;
        *searched = groups;
        match self.width {
            Width::Int8 => int8_search(self.level, panel, rows8, scaled, &self.columns, scores),
            Width::Int16 => int16_search(self.level, panel, rows16, scaled, &self.columns, scores),
        }
    }
}

fn is_direction(norm: f64) -> bool {
    norm > 0.0 && norm.is_finite()
}

/// The norms of rows in units of their scales.
fn scale<Q: Quantized>(norms: &[RowNorm], rows: &QuantizedBlock<Q>, dim: usize, scaled: &mut Vec<RowNorm>) {
    scaled.clear();
    scaled.extend(norms.iter().zip(&rows.ranges).map(|(norm, range)| {
        let scale = range.map_or(1.0, |range| f64::from(range.scale::<Q>(dim)));
        RowNorm { norm: norm.norm / scale, center: norm.center / scale }
    }));
}

dispatch! {
    fn pack_int8(level: Level, vectors: &[f32], norms: &[f64], center: &[f32]) -> PackedColumns {
        Avx512Vnni | AvxVnni | Scalar as I => pack::<I, Int8>(vectors, norms, center),
    }
}

dispatch! {
    fn pack_int16(level: Level, vectors: &[f32], norms: &[f64], center: &[f32]) -> PackedColumns {
        Avx512Vnni | Avx512 | AvxVnni | Avx2 | Scalar as I => pack::<I, Int16>(vectors, norms, center),
    }
}

fn pack<M: Microkernel<Q>, Q: Quantized>(vectors: &[f32], norms: &[f64], center: &[f32]) -> PackedColumns {
    let mut centered = Vec::with_capacity(center.len());
    let columns = vectors.chunks_exact(center.len()).zip(norms).map(|(vector, &norm)| {
        centered.clear();
        centered.extend(vector.iter().zip(center).map(|(&v, &m)| f64::from(v) / norm - f64::from(m)));
        is_direction(norm).then(|| QuantizedColumn::new::<Q>(&centered, 1.0))
    });
    PackedColumns::new::<M, Q>(columns, norms.len(), center.len())
}

dispatch! {
    fn int8_search(
        level: Level,
        panel: Panel<'_>,
        rows: &QuantizedBlock<Int8>,
        norms: &[RowNorm],
        columns: &PackedColumns,
        scores: &mut Scores,
    ) {
        Avx512Vnni | AvxVnni | Scalar as I => search_panel::<I, I, Int8>(panel, rows, norms, columns, scores),
    }
}

dispatch! {
    fn int16_search(
        level: Level,
        panel: Panel<'_>,
        rows: &QuantizedBlock<Int16>,
        norms: &[RowNorm],
        columns: &PackedColumns,
        scores: &mut Scores,
    ) {
        Avx512Vnni | Avx512 | AvxVnni | Avx2 | Scalar as I => {
            search_panel::<I, I, Int16>(panel, rows, norms, columns, scores)
        },
    }
}

/// Marks the columns of a panel that may be what each row looks for.
///
/// # Safety
/// The CPU must have the instructions of `I` and `M`: see [`crate::simd`].
#[inline(always)]
unsafe fn search_panel<I: Isa, M: Microkernel<Q>, Q: Quantized>(
    panel: Panel<'_>,
    rows: &QuantizedBlock<Q>,
    norms: &[RowNorm],
    columns: &PackedColumns,
    scores: &mut Scores,
) {
    let Panel { first, groups, queries } = panel;
    let Scores { scores, bounds, masks, .. } = scores;
    masks.clear();
    masks.resize(queries.len() * groups, 0);
    if groups == 0 {
        return;
    }
    scores.resize(queries.len() * groups, Lane16([0; LANES]));
    let mut prefetcher = Prefetcher::new::<M, Q>(&[], queries.len(), &columns.b);
    // SAFETY: the caller promises that the CPU has these instructions.
    unsafe { multiply::<M, Q>(&rows.words, &columns.b, first..first + groups, scores, &mut prefetcher) };
    let column_bounds = &columns.bounds[first..first + groups];
    for (row, (query, masks)) in queries.iter().zip(masks.chunks_exact_mut(groups)).enumerate() {
        // Columns of the panel that may be found.
        let count = query.limit.min(columns.len).saturating_sub(first * LANES).min(groups * LANES);
        let RowNorm { norm, center } = norms[row];
        if count == 0 || norm.is_nan() || norm <= 0.0 {
            continue;
        }
        if rows.ranges[row].is_none() {
            let groups = count.div_ceil(LANES);
            masks[..groups].fill(u16::MAX);
            masks[groups - 1] = u16::MAX >> (groups * LANES - count);
            continue;
        }
        let errors = rows.errors[row];
        let floor = f64::from(query.floor) * norm - center - ROUNDING_SLACK * (norm + center.abs());
        let slack = 2.0 * ROUNDING_SLACK as f32 * errors.norm;
        let keep = Keep { count, best: query.best, slack, floor: floor as f32 };
        let scores = &scores[row * groups..][..groups];
        // SAFETY: the caller promises that the CPU has these instructions.
        unsafe { prune_by_bound::<I>(scores, column_bounds, errors, keep, bounds, masks) };
    }
}
