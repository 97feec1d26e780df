//! Finds the winner fast: low-precision scores, a bound on their error, and every centroid that it cannot exclude.
//!
//! Rows `x` and centroids less their mean `c` are rounded to whole numbers of a scale, `x = s p + e` and `c = t q + f`
//! ([`code`], [`packed`]). The dot product of the digits is exact in 32 bits, so that by Cauchy and Schwarz
//!
//! `|x.c - s t p.q| = |e.(t q) + x.f| <= |e| |t q| + |x| |f|`,
//!
//! with nothing on the right but norms, computed and rounded upwards. A centroid whose upper bound is below another's
//! lower bound is not the nearest. Digits of eight bits exclude most; what they leave is judged again by sixteen, and
//! what these leave, mostly one, the caller scores in float64, as the definition says.
//!
//! The bounds cover the rounding of that definition too: what is excluded here would have lost there. No result depends
//! on how many digits there are, on the instruction set, or on the size of a block.

mod code;
mod packed;
mod screen;
mod simd;
#[cfg(test)]
mod tests;

use std::ops::Range;
use std::sync::OnceLock;

use self::code::{Code, Digits, I8, I8_MAX_DIM, I16, Size, encode};
use self::packed::{Bounds, Packed, Single};
use self::simd::{Dot, Floats, Group, Ints, LANES};
use crate::runtime::cpu::{self, Level};
pub(crate) use screen::{Ask, Measure, PANEL_VECTORS, Screen, Screening};

/// Vectors longer than this might break the bounds of [`encode`].
pub(super) const MAX_DIM: usize = 1 << 20;

/// Scores of a block are kept for about this many groups of centroids at a time.
const PANEL: usize = 64;

/// A row and a centroid that may be its nearest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Survivor {
    /// Number of the row in its block.
    pub(super) row: u32,
    /// Number of the centroid.
    pub(super) label: u32,
}

/// Centroids, ready to be excluded.
#[derive(Debug)]
pub(super) struct Filter<'c> {
    level: Level,
    vectors: &'c [f32],
    dim: usize,
    /// Eight bits for all centroids, then sixteen for those that are left.
    coarse: Option<(Packed<I8>, Single<I16>)>,
    /// Sixteen bits for all.
    fine: OnceLock<Packed<I16>>,
}

/// A block of rows as digits, which hold for any centroids.
#[derive(Debug)]
pub(super) struct Kept {
    eight: Option<Digits<I8>>,
    sixteen: Option<Digits<I16>>,
}

impl Kept {
    /// What [`Filter::survivors`] would make of `rows` each time, or `None` where there is no [`Filter`].
    pub(super) fn new(level: Level, rows: &[f32], dim: usize) -> Option<Self> {
        let mut kept = Kept { eight: None, sixteen: None };
        match Width::of(level, dim)? {
            Width::Eight => run_encode(level, rows, dim, kept.eight.insert(Digits::default())),
            Width::Sixteen => run_encode(level, rows, dim, kept.sixteen.insert(Digits::default())),
        }
        Some(kept)
    }
}

/// Bits of the digits that all centroids are judged by.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Width {
    Eight,
    Sixteen,
}

impl Width {
    /// `None` if `level` has no instructions that make digits faster than float64.
    fn of(level: Level, dim: usize) -> Option<Self> {
        let eight = level.has_vnni() && dim <= I8_MAX_DIM;
        (level != Level::Scalar && dim <= MAX_DIM).then_some(if eight { Width::Eight } else { Width::Sixteen })
    }
}

/// Buffers of a thread, and what it has seen.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    digits8: Digits<I8>,
    digits16: Digits<I16>,
    /// Of one row.
    words16: Vec<<I16 as Code>::Word>,
    /// Eight bits left too many centroids over: from now on sixteen.
    needs_fine: bool,
    block: Block,
}

#[derive(Debug, Default)]
struct Block {
    scores: Vec<Group<i32>>,
    uppers: Vec<Group<f32>>,
    /// Of each row: no centroid of a lower upper bound is the nearest.
    floors: Vec<f32>,
    /// `[row][group]`: a bit for each centroid that may be nearest.
    masks: Vec<u16>,
    /// Of one row, with their upper bounds.
    judged: Vec<(u32, f32)>,
    survivors: Vec<Survivor>,
}

impl<'c> Filter<'c> {
    /// For `level`, or `None` if it has no instructions that make this faster than float64.
    pub(super) fn new(level: Level, vectors: &'c [f32], dim: usize) -> Option<Self> {
        let coarse = || (Packed::new(vectors, dim), Single::new(vectors, dim));
        let coarse = (Width::of(level, dim)? == Width::Eight).then(coarse);
        Some(Filter { level, vectors, dim, coarse, fine: OnceLock::new() })
    }

    /// The centroids that may be nearest to each of `rows`, by row and then by label. A row without any is one that the
    /// filter cannot judge, since it holds NaN, infinity or numbers beyond the range of its arithmetic.
    ///
    /// `kept` are the digits of `rows`, if they are known. `upcoming` is the memory that will be read next: it is fetched meanwhile.
    pub(super) fn survivors<'s>(
        &self,
        rows: &[f32],
        kept: Option<&Kept>,
        upcoming: &[u8],
        scratch: &'s mut Scratch,
    ) -> &'s [Survivor] {
        let (level, job) = (self.level, Job { rows, dim: self.dim, upcoming });
        let Scratch { digits8, digits16, words16, needs_fine, block } = scratch;
        match &self.coarse {
            Some((packed, single)) if !*needs_fine => {
                let digits = kept.and_then(|kept| kept.eight.as_ref()).unwrap_or_else(|| {
                    run_encode(level, rows, self.dim, digits8);
                    digits8
                });
                run_coarse(level, job, digits, packed, single, words16, block);
                // Judging one centroid again costs about as much as eight coarse products.
                let limit = rows.len() / self.dim * packed.len.div_ceil(8).max(2);
                let candidates: usize = block.masks.iter().map(|mask| mask.count_ones() as usize).sum();
                *needs_fine = candidates > limit;
            }
            _ => {
                let packed = self.fine.get_or_init(|| Packed::new(self.vectors, self.dim));
                let digits = kept.and_then(|kept| kept.sixteen.as_ref()).unwrap_or_else(|| {
                    run_encode(level, rows, self.dim, digits16);
                    digits16
                });
                run_fine(level, job, digits, packed, block);
            }
        }
        &block.survivors
    }
}

/// A block of rows.
#[derive(Clone, Copy)]
struct Job<'r> {
    rows: &'r [f32],
    dim: usize,
    upcoming: &'r [u8],
}

fn run_encode<C: Code>(level: Level, rows: &[f32], dim: usize, digits: &mut Digits<C>) {
    match level {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the level was found present on this CPU.
        Level::Avx512Icl | Level::Avx512Vnni | Level::Avx512 => unsafe { x86::encode_avx512(rows, dim, digits) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the level was found present on this CPU.
        Level::AvxVnni | Level::Avx2 => unsafe { x86::encode_avx2(rows, dim, digits) },
        _ => digits.of_rows::<[f32; LANES]>(rows, dim),
    }
}

fn run_coarse(
    level: Level,
    job: Job<'_>,
    digits: &Digits<I8>,
    packed: &Packed<I8>,
    single: &Single<I16>,
    words: &mut Vec<<I16 as Code>::Word>,
    block: &mut Block,
) {
    match level {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the level was found present on this CPU.
        Level::Avx512Vnni | Level::Avx512Icl => unsafe {
            x86::coarse_avx512_vnni(job, digits, packed, single, words, block)
        },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the level was found present on this CPU.
        Level::AvxVnni => unsafe { x86::coarse_avx_vnni(job, digits, packed, single, words, block) },
        _ => coarse::<[i32; LANES]>(job, digits, packed, single, words, block),
    }
}

fn run_fine(level: Level, job: Job<'_>, digits: &Digits<I16>, packed: &Packed<I16>, block: &mut Block) {
    match level {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the level was found present on this CPU.
        Level::Avx512Vnni | Level::Avx512Icl => unsafe { x86::fine_avx512_vnni(job, digits, packed, block) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the level was found present on this CPU.
        Level::Avx512 => unsafe { x86::fine_avx512(job, digits, packed, block) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the level was found present on this CPU.
        Level::AvxVnni => unsafe { x86::fine_avx_vnni(job, digits, packed, block) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the level was found present on this CPU.
        Level::Avx2 => unsafe { x86::fine_avx2(job, digits, packed, block) },
        _ => fine::<[i32; LANES]>(job, digits, packed, block),
    }
}

/// Writing digits, [`coarse`] and [`fine`] as compiled for each instruction set.
#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::simd::x86::{Ymm, YmmFloats, Zmm, ZmmFloats};
    use super::*;

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma")]
    pub(super) fn encode_avx512<C: Code>(rows: &[f32], dim: usize, digits: &mut Digits<C>) {
        digits.of_rows::<ZmmFloats>(rows, dim);
    }

    #[target_feature(enable = "avx2,fma")]
    pub(super) fn encode_avx2<C: Code>(rows: &[f32], dim: usize, digits: &mut Digits<C>) {
        digits.of_rows::<YmmFloats>(rows, dim);
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma")]
    pub(super) fn coarse_avx512_vnni(
        job: Job<'_>,
        digits: &Digits<I8>,
        packed: &Packed<I8>,
        single: &Single<I16>,
        words: &mut Vec<<I16 as Code>::Word>,
        block: &mut Block,
    ) {
        coarse::<Zmm<true>>(job, digits, packed, single, words, block);
    }

    #[target_feature(enable = "avxvnni,avx2,fma")]
    pub(super) fn coarse_avx_vnni(
        job: Job<'_>,
        digits: &Digits<I8>,
        packed: &Packed<I8>,
        single: &Single<I16>,
        words: &mut Vec<<I16 as Code>::Word>,
        block: &mut Block,
    ) {
        coarse::<Ymm<true>>(job, digits, packed, single, words, block);
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma")]
    pub(super) fn fine_avx512_vnni(job: Job<'_>, digits: &Digits<I16>, packed: &Packed<I16>, block: &mut Block) {
        fine::<Zmm<true>>(job, digits, packed, block);
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma")]
    pub(super) fn fine_avx512(job: Job<'_>, digits: &Digits<I16>, packed: &Packed<I16>, block: &mut Block) {
        fine::<Zmm<false>>(job, digits, packed, block);
    }

    #[target_feature(enable = "avxvnni,avx2,fma")]
    pub(super) fn fine_avx_vnni(job: Job<'_>, digits: &Digits<I16>, packed: &Packed<I16>, block: &mut Block) {
        fine::<Ymm<true>>(job, digits, packed, block);
    }

    #[target_feature(enable = "avx2,fma")]
    pub(super) fn fine_avx2(job: Job<'_>, digits: &Digits<I16>, packed: &Packed<I16>, block: &mut Block) {
        fine::<Ymm<false>>(job, digits, packed, block);
    }
}

/// Eight bits, then sixteen.
#[inline(always)]
fn coarse<S: Dot<I8> + Dot<I16>>(
    job: Job<'_>,
    digits: &Digits<I8>,
    packed: &Packed<I8>,
    single: &Single<I16>,
    words: &mut Vec<<I16 as Code>::Word>,
    block: &mut Block,
) {
    judge_all::<S, I8>(job, digits, packed, block);
    judge_again::<S, I16>(job, &digits.sizes, single, words, block);
}

/// Sixteen bits at once.
#[inline(always)]
fn fine<S: Dot<I16>>(job: Job<'_>, digits: &Digits<I16>, packed: &Packed<I16>, block: &mut Block) {
    judge_all::<S, I16>(job, digits, packed, block);
    block.survivors.clear();
    for (row, masks) in (0u32..).zip(block.masks.chunks_exact(packed.groups())) {
        for (group, &mask) in masks.iter().enumerate() {
            block.survivors.extend(labels(group, mask).map(|label| Survivor { row, label }));
        }
    }
}

/// The centroids of a group that `mask` names.
#[inline(always)]
fn labels(group: usize, mut mask: u16) -> impl Iterator<Item = u32> {
    std::iter::from_fn(move || {
        let lane = (mask != 0).then(|| mask.trailing_zeros())?;
        mask &= mask - 1;
        Some((group * LANES) as u32 + lane)
    })
}

/// Leaves in `block.masks` what the digits of `C` cannot exclude of all centroids.
#[inline(always)]
fn judge_all<S: Dot<C>, C: Code>(job: Job<'_>, digits: &Digits<C>, packed: &Packed<C>, block: &mut Block) {
    let n = digits.sizes.len();
    block.floors.clear();
    block.floors.resize(n, f32::NEG_INFINITY);
    // Rows that cannot be judged keep none.
    block.masks.clear();
    block.masks.resize(n * packed.groups(), 0);
    let mut ahead = Ahead::new(job.upcoming, n, packed);
    for first in (0..packed.groups()).step_by(PANEL) {
        let groups = PANEL.min(packed.groups() - first);
        block.scores.resize(n * groups, Group([0; LANES]));
        multiply::<S, C>(&digits.words, packed, first, groups, &mut block.scores, &mut ahead);
        exclude::<S, C>(&packed.bounds[first..first + groups], digits, first, packed.groups(), block);
    }
}

/// The dot products of the digits of all rows with those of `groups` groups of centroids.
#[inline(always)]
fn multiply<S: Dot<C>, C: Code>(
    words: &[C::Word],
    packed: &Packed<C>,
    first: usize,
    groups: usize,
    scores: &mut [Group<i32>],
    ahead: &mut Ahead<'_>,
) {
    // As many groups at a time as there are registers for, or one fewer, rather than a small rest; and of these as many
    // steps as stay in the first cache while all rows pass by.
    let tiles = groups.div_ceil(S::GROUPS);
    for tile in 0..tiles {
        let columns = tile * groups / tiles..(tile + 1) * groups / tiles;
        for start in (0..packed.steps).step_by(STEPS) {
            let steps = start..packed.steps.min(start + STEPS);
            let tile = Tile { first: first + columns.start, column: columns.start, columns: groups, steps };
            match columns.len() {
                3 => multiply_tile::<S, C, 6, 3>(words, packed, tile, scores, ahead),
                2 => multiply_tile::<S, C, 6, 2>(words, packed, tile, scores, ahead),
                _ if S::ROWS == 6 => multiply_tile::<S, C, 6, 1>(words, packed, tile, scores, ahead),
                _ => multiply_tile::<S, C, 4, 1>(words, packed, tile, scores, ahead),
            }
        }
    }
}

/// A few groups of centroids and steps.
#[derive(Clone)]
struct Tile {
    /// The first group.
    first: usize,
    /// Where its scores lie among the `columns` of a row.
    column: usize,
    columns: usize,
    steps: Range<usize>,
}

/// Steps of a tile, at most: of three groups 24 KB.
const STEPS: usize = 128;

#[inline(always)]
fn multiply_tile<S: Dot<C>, C: Code, const R: usize, const G: usize>(
    words: &[C::Word],
    packed: &Packed<C>,
    tile: Tile,
    scores: &mut [Group<i32>],
    ahead: &mut Ahead<'_>,
) {
    let Tile { first, column, columns, steps } = tile;
    let count = steps.len();
    let centroids: [&[Group<i32>]; G] = std::array::from_fn(|g| &packed.group(first + g)[steps.clone()][..count]);
    for (rows, scores) in words.chunks(R * packed.steps).zip(scores.chunks_mut(R * columns)) {
        // A last tile of fewer rows repeats one of them: its sums are dropped.
        let last = scores.len() / columns - 1;
        let rows: [&[C::Word]; R] =
            std::array::from_fn(|r| &rows[r.min(last) * packed.steps..][steps.clone()][..count]);
        let mut sums = [[S::splat(0); G]; R];
        for r in 0..R {
            for g in 0..G {
                let first_steps = &packed.start[first + g];
                let so_far = &scores[r.min(last) * columns + column + g];
                sums[r][g] = S::load(if steps.start == 0 { first_steps } else { so_far });
            }
        }
        for s in 0..count {
            if s % Ahead::STEPS == 0 {
                ahead.fetch();
            }
            let c: [S; G] = std::array::from_fn(|g| S::load(&centroids[g][s]));
            for r in 0..R {
                let x = S::splat(C::bits(rows[r][s]));
                for g in 0..G {
                    sums[r][g] = sums[r][g].add_dot(x, c[g]);
                }
            }
        }
        for (r, scores) in scores.chunks_exact_mut(columns).enumerate() {
            let scores = &mut scores[column..column + G];
            for g in 0..G {
                sums[r][g].store(&mut scores[g]);
            }
        }
    }
}

/// Memory that is fetched into the cache little by little, so that it arrives while the products are computed.
struct Ahead<'r> {
    lines: std::slice::ChunksExact<'r, u8>,
    /// Lines at a time.
    each: usize,
}

impl<'r> Ahead<'r> {
    /// Steps of a tile between two fetches.
    const STEPS: usize = 8;
    /// Bytes in a cache line.
    const LINE: usize = 64;

    /// Spread over the tiles of `n` rows.
    fn new<C: Code>(upcoming: &'r [u8], n: usize, packed: &Packed<C>) -> Self {
        // A lower bound: there may be more tiles, of fewer groups.
        let times = packed.groups().div_ceil(3) * n.div_ceil(6) * packed.steps.div_ceil(Self::STEPS);
        Ahead { lines: upcoming.chunks_exact(Self::LINE), each: (upcoming.len() / Self::LINE).div_ceil(times) }
    }

    #[inline(always)]
    fn fetch(&mut self) {
        for line in self.lines.by_ref().take(self.each) {
            cpu::prefetch(line);
        }
    }
}

/// Raises the floors by the scores of these groups, the `first` and on of `all`, and marks the centroids that are not
/// below them.
#[inline(always)]
fn exclude<S: Ints, C: Code>(bounds: &[Bounds], digits: &Digits<C>, first: usize, all: usize, block: &mut Block) {
    block.uppers.resize(bounds.len(), Group([0.0; LANES]));
    let Block { scores, uppers, floors, masks, .. } = block;
    let Digits { sizes, codes, .. } = digits;
    for (row, scores) in scores.chunks_exact(bounds.len()).enumerate() {
        if sizes[row].is_none() {
            continue;
        }
        let (error, norm) = (S::Floats::splat(codes[row].error), S::Floats::splat(codes[row].norm));
        let mut lowest = S::Floats::splat(f32::NEG_INFINITY);
        for ((score, bounds), upper) in scores.iter().zip(bounds).zip(uppers.iter_mut()) {
            let [lower, highest] = ends::<S>(score, bounds, error, norm);
            lowest = lower.max(lowest);
            upper.0 = highest.to_array();
        }
        floors[row] = floors[row].max(lowest.largest());
        let floor = S::Floats::splat(floors[row]);
        let masks = &mut masks[row * all + first..][..uppers.len()];
        for (mask, upper) in masks.iter_mut().zip(uppers.iter()) {
            *mask = S::Floats::load(&upper.0).at_least(floor);
        }
    }
}

/// The lower and the upper bounds of the scores of a group, for a row of this `error` and `norm`.
#[inline(always)]
fn ends<S: Ints>(score: &Group<i32>, bounds: &Bounds, error: S::Floats, norm: S::Floats) -> [S::Floats; 2] {
    let middle = S::load(score).to_floats().mul(S::Floats::load(&bounds.scale.0));
    let of_norm = error.mul(S::Floats::load(&bounds.norm.0));
    let bound = norm.mul_add(S::Floats::load(&bounds.error.0), of_norm);
    [middle.sub(bound), middle.add(bound)]
}

/// Leaves in `block.survivors` what the digits of `C` cannot exclude of several candidates of a row.
#[inline(always)]
fn judge_again<S: Dot<C>, C: Code>(
    job: Job<'_>,
    sizes: &[Option<Size>],
    single: &Single<C>,
    words: &mut Vec<C::Word>,
    block: &mut Block,
) {
    let Block { masks, judged, survivors, .. } = block;
    let groups = masks.len() / sizes.len();
    words.resize(single.steps, C::ROW_ZERO);
    survivors.clear();
    for (row, (size, masks)) in sizes.iter().zip(masks.chunks_exact(groups)).enumerate() {
        let candidates = || masks.iter().enumerate().flat_map(|(group, &mask)| labels(group, mask));
        let count: u32 = masks.iter().map(|mask| mask.count_ones()).sum();
        // One or two are as soon scored in float64.
        let Some(size) = size.filter(|_| count > 2) else {
            survivors.extend(candidates().map(|label| Survivor { row: row as u32, label }));
            continue;
        };
        let code = encode::<S::Floats, C>(&job.rows[row * job.dim..][..job.dim], size, words);
        let mut floor = f32::NEG_INFINITY;
        judged.clear();
        for label in candidates() {
            let (digits, centroid) = single.get(label as usize);
            let middle = dot::<S, C>(words, digits) as f32 * centroid.scale;
            let bound = code.error * centroid.norm + code.norm * centroid.error;
            floor = floor.max(middle - bound);
            judged.push((label, middle + bound));
        }
        let left = judged.iter().filter(|(_, upper)| *upper >= floor);
        survivors.extend(left.map(|&(label, _)| Survivor { row: row as u32, label }));
    }
}

/// The dot product of the digits of two vectors, of whole registers.
#[inline(always)]
fn dot<S: Dot<C>, C: Code>(x: &[C::Word], y: &[C::Word]) -> i32 {
    let mut sums = [S::splat(0); 4];
    let (x, y) = (x.as_chunks::<LANES>().0, y.as_chunks::<LANES>().0);
    let ((fours_x, last_x), (fours_y, last_y)) = (x.as_chunks::<4>(), y.as_chunks::<4>());
    for (x, y) in fours_x.iter().zip(fours_y) {
        for i in 0..4 {
            sums[i] = sums[i].add_dot(S::load_words(&x[i]), S::load_words(&y[i]));
        }
    }
    for ((sum, x), y) in sums.iter_mut().zip(last_x).zip(last_y) {
        *sum = sum.add_dot(S::load_words(x), S::load_words(y));
    }
    let [a, b, c, d] = sums;
    a.add(b).add(c.add(d)).sum()
}
