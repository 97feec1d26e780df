//! Weights in two digits of 16 bits, of which an instruction multiplies and adds two at a time.

use std::arch::x86_64::*;

use super::{BANDS, GROUP, HALF, PRECISION, PackedWeights, Rows, RowsMut, STRIP, check_horizontal, check_vertical};

/// Samples of a row that [`vertical`] takes at a time.
const LANES: usize = 32;

/// The low digits of the first and the last two weights, then the high ones.
pub fn pack(weights: [i32; GROUP]) -> [i32; GROUP] {
    let low = weights.map(|weight| weight as i16);
    let high = std::array::from_fn::<_, GROUP, _>(|i| ((weights[i] - i32::from(low[i])) >> 16) as i16);
    let pair = |digits: [i16; GROUP], i: usize| i32::from(digits[i + 1]) << 16 | i32::from(digits[i] as u16);
    [pair(low, 0), pair(low, 2), pair(high, 0), pair(high, 2)]
}

/// Sums by the low and by the high digits, in eight places.
#[derive(Clone, Copy)]
struct Sums {
    low: __m256i,
    high: __m256i,
}

impl Sums {
    #[inline]
    #[target_feature(enable = "avx2")]
    fn new() -> Self {
        Sums { low: _mm256_set1_epi32(HALF), high: _mm256_setzero_si256() }
    }

    /// Adds the products of two pairs of samples with the weights of a group.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn add(&mut self, [first, last]: [__m256i; 2], weights: [__m256i; 4]) {
        self.low = _mm256_add_epi32(self.low, _mm256_madd_epi16(first, weights[0]));
        self.low = _mm256_add_epi32(self.low, _mm256_madd_epi16(last, weights[1]));
        self.high = _mm256_add_epi32(self.high, _mm256_madd_epi16(first, weights[2]));
        self.high = _mm256_add_epi32(self.high, _mm256_madd_epi16(last, weights[3]));
    }

    /// The integral parts.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn rounded(self) -> __m256i {
        let total = _mm256_add_epi32(self.low, _mm256_slli_epi32::<16>(self.high));
        _mm256_srai_epi32::<{ PRECISION as i32 }>(total)
    }
}

/// The kernel of [`super::horizontal`].
#[target_feature(enable = "avx2")]
pub fn horizontal(weights: &PackedWeights, input: &Rows<'_>, output: &mut RowsMut<'_>) {
    check_horizontal(weights, input, output);
    // Pairs of the samples of each band, of the first two of four pixels and of the last two.
    let first = _mm_setr_epi8(0, -1, 3, -1, 1, -1, 4, -1, 2, -1, 5, -1, -1, -1, -1, -1);
    let last = _mm_setr_epi8(6, -1, 9, -1, 7, -1, 10, -1, 8, -1, 11, -1, -1, -1, -1, -1);
    let pairs = [first, last].map(|places| _mm256_broadcastsi128_si256(places));
    for (x, span) in weights.spans.iter().enumerate() {
        let mut sums = [Sums::new(); 2];
        for (group, weights) in weights.groups(span).iter().enumerate() {
            let weights = weights.map(|digits| _mm256_set1_epi32(digits));
            let start = BANDS * (span.start + group * GROUP);
            for (sums, y) in sums.iter_mut().zip([0, 2]) {
                // SAFETY: the group starts at a pixel that is needed, and `check_horizontal` found 16 bytes behind the last
                // one in every row.
                let pixels = unsafe {
                    let at = input.bytes.as_ptr().add(y * input.stride + start);
                    _mm256_loadu2_m128i(at.add(input.stride).cast(), at.cast())
                };
                sums.add(pairs.map(|places| _mm256_shuffle_epi8(pixels, places)), weights);
            }
        }
        // The packs work within halves, which are rows 0 and 2, and 1 and 3.
        let words = _mm256_packs_epi32(sums[0].rounded(), sums[1].rounded());
        let bytes = _mm256_packus_epi16(words, words);
        let (even, odd) = (_mm256_castsi256_si128(bytes), _mm256_extracti128_si256::<1>(bytes));
        let pixels = [
            _mm_cvtsi128_si32(even),
            _mm_cvtsi128_si32(odd),
            _mm_extract_epi32::<1>(even),
            _mm_extract_epi32::<1>(odd),
        ];
        for (y, pixel) in pixels.into_iter().enumerate().take(STRIP) {
            // SAFETY: `check_horizontal` found a byte behind the last pixel of every row.
            unsafe {
                output.bytes.as_mut_ptr().add(y * output.stride + BANDS * x).cast::<i32>().write_unaligned(pixel)
            };
        }
    }
}

/// The kernel of [`super::vertical`].
#[target_feature(enable = "avx2")]
pub fn vertical(groups: &[[i32; GROUP]], input: &Rows<'_>, output: &mut [u8]) {
    check_vertical(groups, input, output);
    let zero = _mm256_setzero_si256();
    for (block, output) in output.chunks_mut(LANES).enumerate() {
        let mut sums = [Sums::new(); 4];
        for (group, weights) in groups.iter().enumerate() {
            let weights = weights.map(|digits| _mm256_set1_epi32(digits));
            let row = |i: usize| {
                let at = (group * GROUP + i) * input.stride + block * LANES;
                // SAFETY: `check_vertical` found so many rows, each a multiple of the block long.
                unsafe { _mm256_loadu_si256(input.bytes.as_ptr().add(at).cast()) }
            };
            let [a, b, c, d] = [row(0), row(1), row(2), row(3)];
            let low = [_mm256_unpacklo_epi8(a, b), _mm256_unpacklo_epi8(c, d)];
            let high = [_mm256_unpackhi_epi8(a, b), _mm256_unpackhi_epi8(c, d)];
            sums[0].add(low.map(|pairs| _mm256_unpacklo_epi8(pairs, zero)), weights);
            sums[1].add(low.map(|pairs| _mm256_unpackhi_epi8(pairs, zero)), weights);
            sums[2].add(high.map(|pairs| _mm256_unpacklo_epi8(pairs, zero)), weights);
            sums[3].add(high.map(|pairs| _mm256_unpackhi_epi8(pairs, zero)), weights);
        }
        // The packs undo the order of the unpacks.
        let low = _mm256_packs_epi32(sums[0].rounded(), sums[1].rounded());
        let high = _mm256_packs_epi32(sums[2].rounded(), sums[3].rounded());
        let mut bytes = [0; LANES];
        // SAFETY: `bytes` is 32 bytes long.
        unsafe { _mm256_storeu_si256(bytes.as_mut_ptr().cast(), _mm256_packus_epi16(low, high)) };
        output.copy_from_slice(&bytes[..output.len()]);
    }
}
