//! The nearest column of each row, fast: whole-number scores, a bound on their error ([`super::bounds`]), and every column
//! that it cannot exclude.
//!
//! Scores of eight bits exclude most columns; what they leave is looked at again with sixteen ([`super::refine`]), and what
//! these leave, mostly one, is scored in float64, as the definition says.

use std::sync::OnceLock;

use super::bounds::{BoundScratch, Keep, columns, prune_by_bound};
use super::exact_gemm::{Best, PAIRS, dot4};
use super::int_gemm::{Microkernel, Prefetcher, multiply};
use super::norm::Norm;
use super::packed::{PackedColumns, RowMajor, centered};
use super::quantize::{INT8_MAX_DIM, Int8, Int16, MAX_DIM, Quantized, QuantizedBlock, quantize};
use super::refine::{RefineScratch, refine};
use crate::runtime::cpu::{Level, dispatch};
use crate::simd::{Isa, LANES, Lane16};

pub(crate) use super::refine::Candidate;

/// Groups of columns whose scores are kept at a time.
pub(crate) const PANEL: usize = 64;

/// A block of rows as float64 fills about this many bytes: it must stay in the second-level cache (1 MB a core, or 512
/// KB on older machines) together with a tile of columns.
pub(crate) const BLOCK_BYTES: usize = 256 << 10;

/// Rows in a block of float32.
pub(crate) fn block_rows(dim: usize) -> usize {
    (BLOCK_BYTES / (dim * size_of::<f32>())).clamp(12, 1536).next_multiple_of(6)
}

/// Columns, ready to be excluded.
#[derive(Debug)]
pub(crate) struct NearestFilter<'c> {
    level: Level,
    vectors: &'c [f32],
    dim: usize,
    /// Eight bits for all columns, then sixteen for those that are left.
    int8: Option<(PackedColumns, RowMajor<Int16>)>,
    /// Sixteen bits for all.
    int16: OnceLock<PackedColumns>,
}

/// A block of rows as whole numbers, which hold for any columns.
#[derive(Debug)]
pub(crate) struct CachedBlock {
    int8: Option<QuantizedBlock<Int8>>,
    int16: Option<QuantizedBlock<Int16>>,
}

impl CachedBlock {
    /// Quantizes `rows` as [`NearestFilter::candidates`] would each time; `None` where there is no filter.
    pub(crate) fn new(level: Level, rows: &[f32], dim: usize) -> Option<Self> {
        let mut cached = CachedBlock { int8: None, int16: None };
        match Width::of(level, dim)? {
            Width::Int8 => quantize(level, rows, dim, cached.int8.insert(QuantizedBlock::default())),
            Width::Int16 => quantize(level, rows, dim, cached.int16.insert(QuantizedBlock::default())),
        }
        Some(cached)
    }
}

/// The whole numbers that all columns are scored with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Width {
    Int8,
    Int16,
}

impl Width {
    /// The best of `level`, or `None` if it has no instructions that make whole numbers faster than float64.
    pub(crate) fn of(level: Level, dim: usize) -> Option<Self> {
        let int8 = level.has_vnni() && dim <= INT8_MAX_DIM;
        (level != Level::Scalar && dim <= MAX_DIM).then_some(if int8 { Width::Int8 } else { Width::Int16 })
    }
}

/// Buffers of a thread, and what it has seen.
#[derive(Debug, Default)]
pub(crate) struct NearestScratch {
    rows8: QuantizedBlock<Int8>,
    rows16: QuantizedBlock<Int16>,
    refine: RefineScratch<Int16>,
    /// Eight bits left too many columns over: from now on sixteen.
    pub(crate) needs_int16: bool,
    scores: Scores,
    candidates: Vec<Candidate>,
}

/// The scores of a panel, and what follows from them.
#[derive(Debug, Default)]
pub(crate) struct Scores {
    pub(crate) scores: Vec<Lane16<i32>>,
    pub(crate) bounds: BoundScratch,
    /// By row: no column of a lower upper bound is the nearest.
    lower_bounds: Vec<f32>,
    /// `[row][group]`: a bit for each column that may be the answer.
    pub(crate) masks: Vec<u16>,
}

/// A block of rows, and the memory that will be read next.
#[derive(Clone, Copy)]
struct RowBlock<'r> {
    rows: &'r [f32],
    upcoming: &'r [u8],
}

impl<'c> NearestFilter<'c> {
    /// A filter of `level`, or `None` if it has no instructions that make this faster than float64.
    pub(crate) fn new(level: Level, vectors: &'c [f32], dim: usize) -> Option<Self> {
        let int8 = || (pack_int8(level, vectors, dim), RowMajor::new(vectors, dim));
        let int8 = (Width::of(level, dim)? == Width::Int8).then(int8);
        Some(NearestFilter { level, vectors, dim, int8, int16: OnceLock::new() })
    }

    /// The columns that may be nearest to each of `rows`, by row and then by label. A row without any is one that the
    /// filter has no bounds for, since it holds NaN, infinity or numbers beyond the range of its arithmetic.
    ///
    /// `cached` are the whole numbers of `rows`, if they are known. `upcoming` is the memory that will be read next: it is
    /// fetched meanwhile.
    pub(crate) fn candidates<'s>(
        &self,
        rows: &[f32],
        cached: Option<&CachedBlock>,
        upcoming: &[u8],
        scratch: &'s mut NearestScratch,
    ) -> &'s [Candidate] {
        let (level, block) = (self.level, RowBlock { rows, upcoming });
        let NearestScratch { rows8, rows16, refine, needs_int16, scores, candidates } = scratch;
        match &self.int8 {
            Some((columns, row_major)) if !*needs_int16 => {
                let quantized = cached.and_then(|cached| cached.int8.as_ref()).unwrap_or_else(|| {
                    quantize(level, rows, self.dim, rows8);
                    rows8
                });
                int8_candidates(level, block, quantized, columns, row_major, refine, scores, candidates);
                // Looking at one column again costs about as much as eight products of eight bits.
                let limit = rows.len() / self.dim * columns.len.div_ceil(8).max(2);
                let left: usize = scores.masks.iter().map(|mask| mask.count_ones() as usize).sum();
                *needs_int16 = left > limit;
            }
            _ => {
                let columns = self.int16.get_or_init(|| pack_int16(level, self.vectors, self.dim));
                let quantized = cached.and_then(|cached| cached.int16.as_ref()).unwrap_or_else(|| {
                    quantize(level, rows, self.dim, rows16);
                    rows16
                });
                int16_candidates(level, block, quantized, columns, scores, candidates);
            }
        }
        candidates
    }
}

dispatch! {
    fn pack_int8(level: Level, vectors: &[f32], dim: usize) -> PackedColumns {
        Avx512Vnni | AvxVnni | Scalar as I => pack::<I, Int8>(vectors, dim),
    }
}

dispatch! {
    fn pack_int16(level: Level, vectors: &[f32], dim: usize) -> PackedColumns {
        Avx512Vnni | Avx512 | AvxVnni | Avx2 | Scalar as I => pack::<I, Int16>(vectors, dim),
    }
}

fn pack<M: Microkernel<Q>, Q: Quantized>(vectors: &[f32], dim: usize) -> PackedColumns {
    PackedColumns::new::<M, Q>(centered::<Q>(vectors, dim).map(Some), vectors.len() / dim, dim)
}

dispatch! {
    /// Eight bits, then sixteen.
    fn int8_candidates(
        level: Level,
        block: RowBlock<'_>,
        quantized: &QuantizedBlock<Int8>,
        columns: &PackedColumns,
        row_major: &RowMajor<Int16>,
        scratch: &mut RefineScratch<Int16>,
        scores: &mut Scores,
        candidates: &mut Vec<Candidate>,
    ) {
        Avx512Vnni | AvxVnni | Scalar as I => {
            score_all::<I, I, Int8>(block.upcoming, quantized, columns, scores);
            refine::<I, Int16>(block.rows, &quantized.ranges, &scores.masks, row_major, scratch, candidates);
        },
    }
}

dispatch! {
    /// Sixteen bits at once.
    fn int16_candidates(
        level: Level,
        block: RowBlock<'_>,
        quantized: &QuantizedBlock<Int16>,
        columns: &PackedColumns,
        scores: &mut Scores,
        candidates: &mut Vec<Candidate>,
    ) {
        Avx512Vnni | Avx512 | AvxVnni | Avx2 | Scalar as I => {
            score_all::<I, I, Int16>(block.upcoming, quantized, columns, scores);
            list(&scores.masks, columns.b.groups(), candidates);
        },
    }
}

/// The pairs that `masks` names.
#[inline(always)]
fn list(masks: &[u16], groups: usize, candidates: &mut Vec<Candidate>) {
    candidates.clear();
    for (row, masks) in (0u32..).zip(masks.chunks_exact(groups)) {
        for (group, &mask) in masks.iter().enumerate() {
            candidates.extend(columns(group, mask).map(|label| Candidate { row, label }));
        }
    }
}

/// Leaves in `scores.masks` the columns that the numbers of `Q` cannot exclude. Rows without bounds keep none.
///
/// # Safety
/// The CPU must have the instructions of `I` and `M`: see [`crate::simd`].
#[inline(always)]
pub(crate) unsafe fn score_all<I: Isa, M: Microkernel<Q>, Q: Quantized>(
    upcoming: &[u8],
    rows: &QuantizedBlock<Q>,
    columns: &PackedColumns,
    scores: &mut Scores,
) {
    let (n, all) = (rows.ranges.len(), columns.b.groups());
    let Scores { scores, bounds, lower_bounds, masks } = scores;
    lower_bounds.clear();
    lower_bounds.resize(n, f32::NEG_INFINITY);
    masks.clear();
    masks.resize(n * all, 0);
    let mut prefetcher = Prefetcher::new::<M, Q>(upcoming, n, &columns.b);
    for first in (0..all).step_by(PANEL) {
        let panel = first..all.min(first + PANEL);
        scores.resize(n * panel.len(), Lane16([0; LANES]));
        // SAFETY: the caller promises that the CPU has these instructions.
        unsafe { multiply::<M, Q>(&rows.words, &columns.b, panel.clone(), scores, &mut prefetcher) };
        let column_bounds = &columns.bounds[panel.clone()];
        for (row, scores) in scores.chunks_exact(panel.len()).enumerate() {
            if rows.ranges[row].is_some() {
                let masks = &mut masks[row * all + first..][..panel.len()];
                // Columns that are absent have a score of minus infinity: all may count.
                let keep = Keep { count: panel.len() * LANES, best: 1, slack: 0.0, floor: lower_bounds[row] };
                // SAFETY: the caller promises that the CPU has these instructions.
                lower_bounds[row] =
                    unsafe { prune_by_bound::<I>(scores, column_bounds, rows.errors[row], keep, bounds, masks) };
            }
        }
    }
}

/// The best of the `candidates` of each row, and the norm of the row, into `best`: those of the definition.
pub(crate) fn best_candidates(
    level: Level,
    candidates: &[Candidate],
    rows: &[f32],
    vectors: &[f32],
    dim: usize,
    best: &mut [Option<(Best, Norm)>],
) {
    for candidates in candidates.chunks(PAIRS) {
        let pair = |i: usize| {
            let Candidate { row, label } = candidates[i.min(candidates.len() - 1)];
            (&rows[row as usize * dim..][..dim], &vectors[label as usize * dim..][..dim])
        };
        for (candidate, (dot, square)) in candidates.iter().zip(dot4(level, std::array::from_fn(pair))) {
            let best = &mut best[candidate.row as usize];
            if best.is_none_or(|(best, _)| dot > best.dot) {
                *best = Some((Best { label: candidate.label, dot }, Norm::from_square(square)));
            }
        }
    }
}
