//! Weights in three digits of 8 bits, of which an instruction multiplies and adds four at a time.

use std::arch::x86_64::*;

use super::{
    BANDS, GROUP, HALF, LANES, PRECISION, PackedWeights, Rows, RowsMut, STRIP, check_horizontal, check_vertical,
};

/// The lowest digits of the four weights, the next ones, and the highest ones.
pub fn pack(mut weights: [i32; GROUP]) -> [i32; GROUP] {
    let mut digit = || {
        let digits = weights.map(|weight| weight as i8);
        weights = std::array::from_fn(|i| (weights[i] - i32::from(digits[i])) >> 8);
        i32::from_le_bytes(digits.map(|digit| digit as u8))
    };
    [digit(), digit(), digit(), 0]
}

/// Sums by digit, in sixteen places.
#[derive(Clone, Copy)]
struct Sums([__m512i; 3]);

impl Sums {
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn new() -> Self {
        Sums([_mm512_set1_epi32(HALF), _mm512_setzero_si512(), _mm512_setzero_si512()])
    }

    /// Adds the products of four samples in each place with the weights of a group.
    #[inline]
    #[target_feature(enable = "avx512f,avx512vnni")]
    fn add(&mut self, samples: __m512i, weights: &[i32; GROUP]) {
        for (sum, &digits) in self.0.iter_mut().zip(weights) {
            *sum = _mm512_dpbusd_epi32(*sum, samples, _mm512_set1_epi32(digits));
        }
    }

    /// The integral parts.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn rounded(self) -> __m512i {
        let [low, middle, high] = self.0;
        let high = _mm512_add_epi32(middle, _mm512_slli_epi32::<8>(high));
        _mm512_srai_epi32::<PRECISION>(_mm512_add_epi32(low, _mm512_slli_epi32::<8>(high)))
    }
}

/// The kernel of [`super::horizontal`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub fn horizontal(weights: &PackedWeights, input: &Rows<'_>, output: &mut RowsMut<'_>) {
    check_horizontal(weights, input, output);
    // The samples of each band of four pixels.
    let bands = _mm_setr_epi8(0, 3, 6, 9, 1, 4, 7, 10, 2, 5, 8, 11, -1, -1, -1, -1);
    let bands = _mm512_broadcast_i32x4(bands);
    for (x, span) in weights.spans.iter().enumerate() {
        let mut sums = Sums::new();
        for (group, weights) in weights.groups(span).iter().enumerate() {
            let start = BANDS * (span.start + group * GROUP);
            // SAFETY: the group starts at a pixel that is needed, and `check_horizontal` found 16 bytes behind the last one in
            // every row.
            let pixels = unsafe {
                let row = |y: usize| input.bytes.as_ptr().add(y * input.stride + start);
                let (low, high) = (
                    _mm256_loadu2_m128i(row(1).cast(), row(0).cast()),
                    _mm256_loadu2_m128i(row(3).cast(), row(2).cast()),
                );
                _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high)
            };
            sums.add(_mm512_shuffle_epi8(pixels, bands), weights);
        }
        let positive = _mm512_max_epi32(sums.rounded(), _mm512_setzero_si512());
        let bytes = _mm512_cvtusepi32_epi8(positive);
        let pixels = [
            _mm_cvtsi128_si32(bytes),
            _mm_extract_epi32::<1>(bytes),
            _mm_extract_epi32::<2>(bytes),
            _mm_extract_epi32::<3>(bytes),
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
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub fn vertical(groups: &[[i32; GROUP]], input: &Rows<'_>, output: &mut [u8]) {
    check_vertical(groups, input, output);
    for (block, output) in output.chunks_mut(LANES).enumerate() {
        let mut sums = [Sums::new(); 4];
        for (group, weights) in groups.iter().enumerate() {
            let row = |i: usize| {
                let at = (group * GROUP + i) * input.stride + block * LANES;
                // SAFETY: `check_vertical` found so many rows, each a multiple of the block long.
                unsafe { _mm512_loadu_si512(input.bytes.as_ptr().add(at).cast()) }
            };
            let [a, b, c, d] = [row(0), row(1), row(2), row(3)];
            let (ab, cd) = (_mm512_unpacklo_epi8(a, b), _mm512_unpacklo_epi8(c, d));
            sums[0].add(_mm512_unpacklo_epi16(ab, cd), weights);
            sums[1].add(_mm512_unpackhi_epi16(ab, cd), weights);
            let (ab, cd) = (_mm512_unpackhi_epi8(a, b), _mm512_unpackhi_epi8(c, d));
            sums[2].add(_mm512_unpacklo_epi16(ab, cd), weights);
            sums[3].add(_mm512_unpackhi_epi16(ab, cd), weights);
        }
        // The packs undo the order of the unpacks.
        let low = _mm512_packs_epi32(sums[0].rounded(), sums[1].rounded());
        let high = _mm512_packs_epi32(sums[2].rounded(), sums[3].rounded());
        let mut bytes = [0; LANES];
        // SAFETY: `bytes` is 64 bytes long.
        unsafe { _mm512_storeu_si512(bytes.as_mut_ptr().cast(), _mm512_packus_epi16(low, high)) };
        output.copy_from_slice(&bytes[..output.len()]);
    }
}
