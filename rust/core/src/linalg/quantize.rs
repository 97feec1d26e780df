//! Rows as whole numbers: `x = scale * numbers + error`, with the norm of the error at hand.

use crate::runtime::cpu::dispatch;
use crate::simd::{F32x16, Isa, LANES, Word};

/// Whole numbers of one width, and how they fill words of 32 bits.
pub(crate) trait Quantized: Copy + Send + Sync + 'static {
    /// The consecutive numbers of a vector that fill 32 bits.
    type Word: Word;
    /// Numbers in a word.
    const PER_WORD: usize;
    /// The largest magnitude of a number.
    const MAX: f32;
    /// The word that stands for zeros of a row.
    const ZERO_WORD: Self::Word;
    /// The number that stands for zero in a row: instructions multiply unsigned bytes with signed ones.
    const ZERO_POINT: i32;

    /// The norm that the numbers of a vector of `dim` must not exceed before they are rounded, so that no dot product
    /// leaves 32 bits.
    fn max_norm(dim: usize) -> f32;

    /// Stores sixteen consecutive numbers of a row, from the low bits of `rounded`. There may be fewer words at the end of
    /// a row.
    ///
    /// # Safety
    /// The CPU must have the instructions of `F`: see [`crate::simd`].
    unsafe fn store_row<F: F32x16>(words: &mut [Self::Word], rounded: F);

    /// The word of a column's numbers; zeros for missing ones.
    fn word(numbers: &[i32]) -> Self::Word;
}

/// Whole numbers of -127 to 127.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Int8;

/// Whole numbers of -32767 to 32767.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Int16;

/// Beyond this, dot products of eight-bit numbers might leave 32 bits: 127 * 127 * 2^17 < 2^31.
pub(crate) const INT8_MAX_DIM: usize = 1 << 17;

/// Vectors longer than this might break the bounds of [`quantize_row`].
pub(crate) const MAX_DIM: usize = 1 << 20;

impl Quantized for Int8 {
    type Word = [u8; 4];
    const PER_WORD: usize = 4;
    const MAX: f32 = 127.0;
    const ZERO_WORD: [u8; 4] = [128; 4];
    const ZERO_POINT: i32 = 128;

    fn max_norm(_dim: usize) -> f32 {
        f32::INFINITY
    }

    #[inline(always)]
    unsafe fn store_row<F: F32x16>(words: &mut [[u8; 4]], rounded: F) {
        // SAFETY: the caller promises that the CPU has these instructions.
        let numbers = unsafe { rounded.low8() }.map(|number| number ^ 0x80);
        put(words, numbers.as_chunks().0);
    }

    fn word(numbers: &[i32]) -> [u8; 4] {
        std::array::from_fn(|i| numbers.get(i).map_or(0, |&number| number as u8))
    }
}

impl Quantized for Int16 {
    type Word = [i16; 2];
    const PER_WORD: usize = 2;
    const MAX: f32 = 32767.0;
    const ZERO_WORD: [i16; 2] = [0; 2];
    const ZERO_POINT: i32 = 0;

    /// By Cauchy and Schwarz no dot product exceeds the product of the norms, which must stay below 2^31 = 46340.9^2;
    /// rounding adds at most `sqrt(dim) / 2` to either.
    fn max_norm(dim: usize) -> f32 {
        46_300.0 - (dim as f32).sqrt() / 2.0
    }

    #[inline(always)]
    unsafe fn store_row<F: F32x16>(words: &mut [[i16; 2]], rounded: F) {
        // SAFETY: the caller promises that the CPU has these instructions.
        put(words, unsafe { rounded.low16() }.as_chunks().0);
    }

    fn word(numbers: &[i32]) -> [i16; 2] {
        std::array::from_fn(|i| numbers.get(i).map_or(0, |&number| number as i16))
    }
}

/// Stores as many of `numbers` as there are `words`.
#[inline(always)]
fn put<W: Copy>(words: &mut [W], numbers: &[W]) {
    words.iter_mut().zip(numbers).for_each(|(word, &numbers)| *word = numbers);
}

/// The part of a row that its whole numbers leave out, in units of its scale. Both are upper bounds.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct RowError {
    /// The norm of the row.
    pub(crate) norm: f32,
    /// The norm of its error.
    pub(crate) error: f32,
}

/// Rows as whole numbers, and what these leave out.
#[derive(Debug)]
pub(crate) struct QuantizedBlock<Q: Quantized> {
    /// The words of one row after the other.
    pub(crate) words: Vec<Q::Word>,
    /// The ranges of rows; `None` for rows that have no bounds.
    pub(crate) ranges: Vec<Option<RowRange>>,
    pub(crate) errors: Vec<RowError>,
}

impl<Q: Quantized> Default for QuantizedBlock<Q> {
    fn default() -> Self {
        QuantizedBlock { words: Vec::new(), ranges: Vec::new(), errors: Vec::new() }
    }
}

dispatch! {
    /// Makes `block` the whole numbers of `rows`.
    pub(crate) fn quantize<Q: Quantized>(level: Level, rows: &[f32], dim: usize, block: &mut QuantizedBlock<Q>) {
        Avx512 | Avx2 | Scalar as I => quantize_rows::<I, Q>(rows, dim, block),
    }
}

/// # Safety
/// The CPU must have the instructions of `I`: see [`crate::simd`].
#[inline(always)]
pub(crate) unsafe fn quantize_rows<I: Isa, Q: Quantized>(rows: &[f32], dim: usize, block: &mut QuantizedBlock<Q>) {
    let steps = dim.div_ceil(Q::PER_WORD);
    block.words.resize(rows.len() / dim * steps, Q::ZERO_WORD);
    block.ranges.clear();
    block.errors.clear();
    for (row, words) in rows.chunks_exact(dim).zip(block.words.chunks_exact_mut(steps)) {
        // SAFETY: the caller promises that the CPU has these instructions.
        let range = unsafe { RowRange::of::<I::F32>(row) };
        block.ranges.push(range);
        // No closure: one that is not inlined is compiled without the instruction set of its caller.
        block.errors.push(match range {
            // SAFETY: the caller promises that the CPU has these instructions.
            Some(range) => unsafe { quantize_row::<I::F32, Q>(row, range, words) },
            None => RowError::default(),
        });
    }
}

/// Magnitudes of a row's largest number outside of which float32 might over- or underflow here.
pub(crate) const RANGE: std::ops::RangeInclusive<f32> = 1.0 / (1u64 << 40) as f32..=(1u64 << 40) as f32;

/// Adding it to a number of less than 2^22 leaves the number, rounded to a whole one, in the low bits.
const ROUND: f32 = 12_582_912.0; // 1.5 * 2^23

/// The magnitude of a row's numbers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RowRange {
    /// The largest magnitude.
    largest: f32,
    /// The norm: an upper bound.
    norm: f32,
}

impl RowRange {
    /// That of `row`; `None` if it holds NaN or infinity or is out of [`RANGE`].
    ///
    /// # Safety
    /// The CPU must have the instructions of `F`: see [`crate::simd`].
    #[inline(always)]
    pub(crate) unsafe fn of<F: F32x16>(row: &[f32]) -> Option<Self> {
        let (chunks, tail) = row.as_chunks::<LANES>();
        let (fours, last) = chunks.as_chunks::<CHAINS>();
        // SAFETY: the caller promises that the CPU has these instructions.
        let (largest, squares) = unsafe {
            let mut sums = [Sums::<F>::none(); CHAINS];
            for four in fours {
                for i in 0..CHAINS {
                    sums[i] = sums[i].with(&four[i]);
                }
            }
            for (sums, chunk) in sums.iter_mut().zip(last.iter().chain([&padded(tail)])) {
                *sums = sums.with(chunk);
            }
            let [a, b, c, d] = sums;
            let largest = a.largest.max(b.largest).max(c.largest.max(d.largest)).largest();
            (largest, a.squares.add(b.squares).add(c.squares.add(d.squares)).sum())
        };
        let is_in_range = RANGE.contains(&largest) && squares.is_finite();
        is_in_range.then(|| RowRange { largest, norm: squares.sqrt() * above(row.len()) })
    }

    /// The scale of a row of `dim` numbers of this range.
    #[inline(always)]
    pub(crate) fn scale<Q: Quantized>(self, dim: usize) -> f32 {
        (self.largest / Q::MAX).max(self.norm / Q::max_norm(dim))
    }
}

/// The factor that makes the root of a float32 sum of `dim` squares an upper bound.
///
/// Every float32 operation is off by at most `u = 2^-24` of its result, so the sum by at most about `D u` of it, whatever
/// its order, and the root by half of that: `1 + 2 D u` is above it for all `D <= 2^20`.
#[inline(always)]
fn above(dim: usize) -> f32 {
    1.0 + dim as f32 * (1.0 / (1 << 23) as f32)
}

/// Writes the whole numbers of `row` to `words`.
///
/// The error of a number, `x - scale * number`, is itself off by at most `2 u |x| + u |error|`.
///
/// # Safety
/// The CPU must have the instructions of `F`: see [`crate::simd`].
#[inline(always)]
pub(crate) unsafe fn quantize_row<F: F32x16, Q: Quantized>(
    row: &[f32],
    range: RowRange,
    words: &mut [Q::Word],
) -> RowError {
    let (chunks, tail) = row.as_chunks::<LANES>();
    let scale = range.scale::<Q>(row.len());
    let inverse = 1.0 / scale;
    let (fours, last) = chunks.as_chunks::<CHAINS>();
    let each = LANES / Q::PER_WORD;
    let (words, rest) = words.split_at_mut(fours.len() * CHAINS * each);
    let rest = rest.chunks_mut(each).chain([&mut [] as &mut [_]]);
    // SAFETY: the caller promises that the CPU has these instructions.
    let squares = unsafe {
        let (to_numbers, to_values) = (F::splat(inverse), F::splat(-scale));
        let mut squares = [F::splat(0.0); CHAINS];
        for (four, words) in fours.iter().zip(words.chunks_exact_mut(CHAINS * each)) {
            for i in 0..CHAINS {
                squares[i] = round::<F, Q>(&four[i], to_numbers, to_values, squares[i], &mut words[i * each..][..each]);
            }
        }
        for ((squares, chunk), words) in squares.iter_mut().zip(last.iter().chain([&padded(tail)])).zip(rest) {
            *squares = round::<F, Q>(chunk, to_numbers, to_values, *squares, words);
        }
        let [a, b, c, d] = squares;
        a.add(b).add(c.add(d)).sum()
    };
    let error = squares.sqrt() * above(row.len()) + range.norm * (1.0 / (1 << 22) as f32);
    // Both divisions round, by less than this.
    let above = 1.0 + 1.0 / (1 << 20) as f32;
    RowError { norm: range.norm * inverse * above, error: error * inverse * above }
}

/// Chains of additions side by side, which hide their latency.
const CHAINS: usize = 4;

/// Running maxima and sums of squares.
#[derive(Clone, Copy)]
struct Sums<F> {
    /// The largest magnitudes.
    largest: F,
    /// Sums of squares.
    squares: F,
}

impl<F: F32x16> Sums<F> {
    /// # Safety
    /// The CPU must have the instructions of `F`: see [`crate::simd`].
    #[inline(always)]
    unsafe fn none() -> Self {
        // SAFETY: the caller promises that the CPU has these instructions.
        unsafe { Sums { largest: F::splat(0.0), squares: F::splat(0.0) } }
    }

    /// # Safety
    /// The CPU must have the instructions of `F`: see [`crate::simd`].
    #[inline(always)]
    unsafe fn with(self, chunk: &[f32; LANES]) -> Self {
        // SAFETY: the caller promises that the CPU has these instructions.
        unsafe {
            let x = F::load(chunk);
            Sums { largest: x.abs().max(self.largest), squares: x.mul_add(x, self.squares) }
        }
    }
}

/// Writes the whole numbers of a chunk; adds the squares of their errors to `squares`.
///
/// # Safety
/// The CPU must have the instructions of `F`: see [`crate::simd`].
#[inline(always)]
unsafe fn round<F: F32x16, Q: Quantized>(
    chunk: &[f32; LANES],
    to_numbers: F,
    to_values: F,
    squares: F,
    words: &mut [Q::Word],
) -> F {
    // SAFETY: the caller promises that the CPU has these instructions.
    unsafe {
        let x = F::load(chunk);
        let rounded = x.mul_add(to_numbers, F::splat(ROUND));
        let error = rounded.sub(F::splat(ROUND)).mul_add(to_values, x);
        Q::store_row(words, rounded);
        error.mul_add(error, squares)
    }
}

/// The last numbers of a row, and zeros.
#[inline(always)]
fn padded(tail: &[f32]) -> [f32; LANES] {
    let mut chunk = [0.0; LANES];
    chunk[..tail.len()].copy_from_slice(tail);
    chunk
}
