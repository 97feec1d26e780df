//! Vectors as whole numbers: `x = scale * digits + error`, with the norm of the error at hand.

use super::simd::{Floats, LANES};

/// Digits of one width, and how four bytes of them are multiplied.
pub(super) trait Code: Copy + Send + Sync + 'static {
    /// As many digits of a vector as fill 32 bits.
    type Word: Copy + Default + Send + Sync;
    /// Digits in a word.
    const PER_WORD: usize;
    /// The largest digit.
    const MAX: f32;
    /// The word of a row that stands for zeros.
    const ROW_ZERO: Self::Word;
    /// What a row's digits are raised by: the multiplication wants those of rows unsigned.
    const RAISED: i32;

    /// The norm that the digits of a vector of `dim` numbers must not exceed before they are rounded, so that no dot
    /// product leaves 32 bits.
    fn max_norm(dim: usize) -> f32;

    /// The digits of sixteen consecutive numbers of a row, from the low bits of `rounded`, into their words: there may
    /// be fewer words at the end of a row.
    fn put_row<F: Floats>(words: &mut [Self::Word], rounded: F);

    /// The word of digits that are not raised; zeros for missing ones.
    fn word(digits: &[i32]) -> Self::Word;

    /// The bits of a word.
    fn bits(word: Self::Word) -> i32;
}

/// Four digits of -127 to 127 in a word.
#[derive(Debug, Clone, Copy)]
pub(super) struct I8;

/// Two digits of -32767 to 32767 in a word.
#[derive(Debug, Clone, Copy)]
pub(super) struct I16;

/// Beyond this, dot products of eight-bit digits might leave 32 bits: 127 * 127 * 2^17 < 2^31.
pub(super) const I8_MAX_DIM: usize = 1 << 17;

impl Code for I8 {
    type Word = [u8; 4];
    const PER_WORD: usize = 4;
    const MAX: f32 = 127.0;
    const ROW_ZERO: [u8; 4] = [128; 4];
    const RAISED: i32 = 128;

    fn max_norm(_dim: usize) -> f32 {
        f32::INFINITY
    }

    #[inline(always)]
    fn put_row<F: Floats>(words: &mut [[u8; 4]], rounded: F) {
        let digits = rounded.low8().map(|digit| digit ^ 0x80);
        put(words, digits.as_chunks().0);
    }

    fn word(digits: &[i32]) -> [u8; 4] {
        std::array::from_fn(|i| digits.get(i).map_or(0, |&digit| digit as u8))
    }

    #[inline(always)]
    fn bits(word: [u8; 4]) -> i32 {
        i32::from_le_bytes(word)
    }
}

impl Code for I16 {
    type Word = [i16; 2];
    const PER_WORD: usize = 2;
    const MAX: f32 = 32767.0;
    const ROW_ZERO: [i16; 2] = [0; 2];
    const RAISED: i32 = 0;

    /// By Cauchy and Schwarz no dot product exceeds the product of the norms, which must stay below 2^31 = 46340.9^2;
    /// rounding adds at most `sqrt(dim) / 2` to either.
    fn max_norm(dim: usize) -> f32 {
        46_300.0 - (dim as f32).sqrt() / 2.0
    }

    #[inline(always)]
    fn put_row<F: Floats>(words: &mut [[i16; 2]], rounded: F) {
        put(words, rounded.low16().as_chunks().0);
    }

    fn word(digits: &[i32]) -> [i16; 2] {
        std::array::from_fn(|i| digits.get(i).map_or(0, |&digit| digit as i16))
    }

    #[inline(always)]
    fn bits(word: [i16; 2]) -> i32 {
        i32::from(word[0] as u16) | i32::from(word[1] as u16) << 16
    }
}

/// As many of `digits` as there are `words`.
#[inline(always)]
fn put<W: Copy>(words: &mut [W], digits: &[W]) {
    words.iter_mut().zip(digits).for_each(|(word, &digits)| *word = digits);
}

/// What is left of a row beside its digits, in units of its scale. Both are upper bounds.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct RowCode {
    /// The norm of the row.
    pub(super) norm: f32,
    /// The norm of its error.
    pub(super) error: f32,
}

/// The digits of rows, and what is left beside them.
#[derive(Debug)]
pub(super) struct Digits<C: Code> {
    /// The words of one row after the other.
    pub(super) words: Vec<C::Word>,
    /// Of the rows that can be judged.
    pub(super) sizes: Vec<Option<Size>>,
    pub(super) codes: Vec<RowCode>,
}

impl<C: Code> Default for Digits<C> {
    fn default() -> Self {
        Digits { words: Vec::new(), sizes: Vec::new(), codes: Vec::new() }
    }
}

impl<C: Code> Digits<C> {
    /// Makes them those of `rows`.
    #[inline(always)]
    pub(super) fn of_rows<F: Floats>(&mut self, rows: &[f32], dim: usize) {
        let steps = dim.div_ceil(C::PER_WORD);
        self.words.resize(rows.len() / dim * steps, C::ROW_ZERO);
        self.sizes.clear();
        self.codes.clear();
        for (row, words) in rows.chunks_exact(dim).zip(self.words.chunks_exact_mut(steps)) {
            let size = Size::of::<F>(row);
            self.sizes.push(size);
            // No closure: one that is not inlined is compiled without the instruction set of its caller.
            self.codes.push(match size {
                Some(size) => encode::<F, C>(row, size, words),
                None => RowCode::default(),
            });
        }
    }
}

/// Magnitudes of a row's largest number outside of which float32 might over- or underflow here.
pub(super) const RANGE: std::ops::RangeInclusive<f32> = 1.0 / (1u64 << 40) as f32..=(1u64 << 40) as f32;

/// Adding it to a number of less than 2^22 leaves the number, rounded to a whole one, in the low bits.
const ROUND: f32 = 12_582_912.0; // 1.5 * 2^23

/// How large the numbers of a row are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Size {
    /// The largest magnitude.
    largest: f32,
    /// The norm: an upper bound.
    norm: f32,
}

impl Size {
    /// Of `row`; `None` if it holds NaN or infinity or is out of [`RANGE`].
    #[inline(always)]
    pub(super) fn of<F: Floats>(row: &[f32]) -> Option<Self> {
        let (chunks, tail) = row.as_chunks::<LANES>();
        let mut sums = [Sums::<F>::none(); CHAINS];
        let (fours, last) = chunks.as_chunks::<CHAINS>();
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
        let squares = a.squares.add(b.squares).add(c.squares.add(d.squares)).sum();
        let is_in_range = RANGE.contains(&largest) && squares.is_finite();
        is_in_range.then(|| Size { largest, norm: squares.sqrt() * above(row.len()) })
    }

    /// The scale of the digits of a row of `dim` numbers of this size.
    #[inline(always)]
    pub(super) fn scale<C: Code>(self, dim: usize) -> f32 {
        (self.largest / C::MAX).max(self.norm / C::max_norm(dim))
    }
}

/// What the root of a float32 sum of `dim` squares must be multiplied by to be an upper bound.
///
/// Every float32 operation is off by at most `u = 2^-24` of its result, so the sum by at most about `D u` of it, whatever
/// its order, and the root by half of that: `1 + 2 D u` is above it for all `D <= 2^20`.
#[inline(always)]
fn above(dim: usize) -> f32 {
    1.0 + dim as f32 * (1.0 / (1 << 23) as f32)
}

/// Writes the digits of `row`.
///
/// The error of a number, `x - scale * digit`, is itself off by at most `2 u |x| + u |error|`.
#[inline(always)]
pub(super) fn encode<F: Floats, C: Code>(row: &[f32], size: Size, words: &mut [C::Word]) -> RowCode {
    let (chunks, tail) = row.as_chunks::<LANES>();
    let scale = size.scale::<C>(row.len());
    let inverse = 1.0 / scale;
    let (to_digits, to_numbers) = (F::splat(inverse), F::splat(-scale));
    let mut squares = [F::splat(0.0); CHAINS];
    let (fours, last) = chunks.as_chunks::<CHAINS>();
    let each = LANES / C::PER_WORD;
    let (words, rest) = words.split_at_mut(fours.len() * CHAINS * each);
    for (four, words) in fours.iter().zip(words.chunks_exact_mut(CHAINS * each)) {
        for i in 0..CHAINS {
            squares[i] = round::<F, C>(&four[i], to_digits, to_numbers, squares[i], &mut words[i * each..][..each]);
        }
    }
    let rest = rest.chunks_mut(each).chain([&mut [] as &mut [_]]);
    for ((squares, chunk), words) in squares.iter_mut().zip(last.iter().chain([&padded(tail)])).zip(rest) {
        *squares = round::<F, C>(chunk, to_digits, to_numbers, *squares, words);
    }
    let [a, b, c, d] = squares;
    let squares = a.add(b).add(c.add(d)).sum();
    let error = squares.sqrt() * above(row.len()) + size.norm * (1.0 / (1 << 22) as f32);
    // Both divisions round, by less than this.
    let above = 1.0 + 1.0 / (1 << 20) as f32;
    RowCode { norm: size.norm * inverse * above, error: error * inverse * above }
}

/// Chains of additions side by side, which hide their latency.
const CHAINS: usize = 4;

/// What is known of numbers so far.
#[derive(Clone, Copy)]
struct Sums<F> {
    /// The largest magnitudes.
    largest: F,
    /// Sums of squares.
    squares: F,
}

impl<F: Floats> Sums<F> {
    #[inline(always)]
    fn none() -> Self {
        Sums { largest: F::splat(0.0), squares: F::splat(0.0) }
    }

    #[inline(always)]
    fn with(self, chunk: &[f32; LANES]) -> Self {
        let x = F::load(chunk);
        Sums { largest: x.abs().max(self.largest), squares: x.mul_add(x, self.squares) }
    }
}

/// Writes the digits of a chunk; adds the squares of their errors to `squares`.
#[inline(always)]
fn round<F: Floats, C: Code>(
    chunk: &[f32; LANES],
    to_digits: F,
    to_numbers: F,
    squares: F,
    words: &mut [C::Word],
) -> F {
    let x = F::load(chunk);
    let rounded = x.mul_add(to_digits, F::splat(ROUND));
    let error = rounded.sub(F::splat(ROUND)).mul_add(to_numbers, x);
    C::put_row(words, rounded);
    error.mul_add(error, squares)
}

/// The last numbers of a row, and zeros.
#[inline(always)]
fn padded(tail: &[f32]) -> [f32; LANES] {
    let mut chunk = [0.0; LANES];
    chunk[..tail.len()].copy_from_slice(tail);
    chunk
}
