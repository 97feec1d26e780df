//! The inverse DCT of two blocks at a time, one in each half of the registers.

use std::arch::x86_64::*;

use super::{HALFWAY, POINT, factor, flat, inverse};
use crate::image::jpeg::avx2::{load_words, store16};
use crate::image::jpeg::scan::Block;

/// See [`crate::image::jpeg::idct::row_of_blocks`].
#[target_feature(enable = "avx2")]
pub fn row_of_blocks(blocks: &[Block], quantizer: &[u16; 64], out: &mut [u8], stride: usize) {
    let steps = quantizer.map(|step| step as i16);
    let (rows, _) = steps.as_chunks();
    let steps: [__m256i; 8] = std::array::from_fn(|i| _mm256_broadcastsi128_si256(load_words(&rows[i])));
    let (pairs, last) = blocks.as_chunks();
    for (x, [left, right]) in pairs.iter().enumerate() {
        let rows = pair(left, right, &steps, quantizer);
        for (y, row) in rows.iter().enumerate() {
            out[y * stride + 16 * x..][..16].copy_from_slice(row);
        }
    }
    if let [block] = last {
        let rows = pair(block, &[0; 64], &steps, quantizer);
        for (y, row) in rows.iter().enumerate() {
            out[y * stride + 16 * pairs.len()..][..8].copy_from_slice(&row[..8]);
        }
    }
}

/// Eight rows of the samples of two blocks side by side.
#[inline]
#[target_feature(enable = "avx2")]
fn pair(left: &Block, right: &Block, steps: &[__m256i; 8], quantizer: &[u16; 64]) -> [[u8; 16]; 8] {
    let ((l, _), (r, _)) = (left.as_chunks(), right.as_chunks());
    let mut v: [__m256i; 8] = std::array::from_fn(|i| _mm256_set_m128i(load_words(&r[i]), load_words(&l[i])));

    let ac = _mm256_setr_epi16(0, -1, -1, -1, -1, -1, -1, -1, 0, -1, -1, -1, -1, -1, -1, -1);
    let rest = v[1..].iter().fold(_mm256_and_si256(v[0], ac), |or, &row| _mm256_or_si256(or, row));
    if _mm256_testz_si256(rest, rest) != 0 {
        let step = _mm256_extract_epi16::<0>(steps[0]) as i16;
        let flat = [left[0], right[0]].map(|dc| flat(dc.wrapping_mul(step)));
        let row = std::array::from_fn(|x| flat[x / 8]);
        return [row; 8];
    }

    for (row, &step) in v.iter_mut().zip(steps) {
        *row = _mm256_mullo_epi16(*row, step);
    }
    // First rows that a shift would take out of 16 bits: no image has such.
    let back = _mm256_srai_epi16::<HALFWAY>(_mm256_slli_epi16::<HALFWAY>(v[0]));
    let lost = _mm256_xor_si256(back, v[0]);
    if _mm256_testz_si256(lost, lost) == 0 {
        return one_by_one(left, right, quantizer);
    }
    let columns = transposed(&pass::<{ POINT - HALFWAY }>(&v));
    bytes(&pass::<{ POINT + HALFWAY + 3 }>(&columns))
}

/// The same by the portable method, which knows the exceptions.
#[cold]
fn one_by_one(left: &Block, right: &Block, quantizer: &[u16; 64]) -> [[u8; 16]; 8] {
    let [left, right] = [left, right].map(|block| inverse(block, quantizer));
    std::array::from_fn(|y| std::array::from_fn(|x| if x < 8 { left[8 * y + x] } else { right[8 * y + x - 8] }))
}

/// One-dimensional transforms: `v[i]` holds the i-th values of the columns of both blocks.
#[inline]
#[target_feature(enable = "avx2")]
fn pass<const SHIFT: i32>(v: &[__m256i; 8]) -> [__m256i; 8] {
    // Coefficient pairs stand side by side, for the instruction that multiplies and adds pairs.
    let dot = |(lo, hi): (__m256i, __m256i), [a, b]: [i32; 2]| {
        let factors = _mm256_set1_epi32((a & 0xffff) | b << 16);
        (_mm256_madd_epi16(lo, factors), _mm256_madd_epi16(hi, factors))
    };
    let zero = _mm256_setzero_si256();
    let round = _mm256_set1_epi32(1 << (SHIFT - 1));
    // Rounding is added here once for all eight outputs.
    let fixed = |x| {
        let (lo, hi) = zip(zero, x);
        let (lo, hi) = (_mm256_srai_epi32::<{ 16 - POINT }>(lo), _mm256_srai_epi32::<{ 16 - POINT }>(hi));
        (_mm256_add_epi32(lo, round), _mm256_add_epi32(hi, round))
    };

    let sum = fixed(_mm256_add_epi16(v[0], v[4]));
    let difference = fixed(_mm256_sub_epi16(v[0], v[4]));
    let v26 = zip(v[2], v[6]);
    let (outer, inner) = (dot(v26, factor::OUTER), dot(v26, factor::INNER));
    let even = [add(sum, outer), add(difference, inner), sub(difference, inner), sub(sum, outer)];

    let sums = zip(_mm256_add_epi16(v[7], v[3]), _mm256_add_epi16(v[5], v[1]));
    let (z73, z51) = (dot(sums, factor::SUMS_73), dot(sums, factor::SUMS_51));
    let (v71, v53) = (zip(v[7], v[1]), zip(v[5], v[3]));
    let odd = [
        add(dot(v71, factor::TERM_1), z51),
        add(dot(v53, factor::TERM_3), z73),
        add(dot(v53, factor::TERM_5), z51),
        add(dot(v71, factor::TERM_7), z73),
    ];

    let narrow = |(lo, hi)| _mm256_packs_epi32(_mm256_srai_epi32::<SHIFT>(lo), _mm256_srai_epi32::<SHIFT>(hi));
    std::array::from_fn(|i| if i < 4 { narrow(add(even[i], odd[i])) } else { narrow(sub(even[7 - i], odd[7 - i])) })
}

#[inline]
#[target_feature(enable = "avx2")]
fn zip(a: __m256i, b: __m256i) -> (__m256i, __m256i) {
    (_mm256_unpacklo_epi16(a, b), _mm256_unpackhi_epi16(a, b))
}

#[inline]
#[target_feature(enable = "avx2")]
fn add(a: (__m256i, __m256i), b: (__m256i, __m256i)) -> (__m256i, __m256i) {
    (_mm256_add_epi32(a.0, b.0), _mm256_add_epi32(a.1, b.1))
}

#[inline]
#[target_feature(enable = "avx2")]
fn sub(a: (__m256i, __m256i), b: (__m256i, __m256i)) -> (__m256i, __m256i) {
    (_mm256_sub_epi32(a.0, b.0), _mm256_sub_epi32(a.1, b.1))
}

/// Both halves transposed.
#[inline]
#[target_feature(enable = "avx2")]
fn transposed(v: &[__m256i; 8]) -> [__m256i; 8] {
    let (a0, a1) = zip(v[0], v[4]);
    let (b0, b1) = zip(v[1], v[5]);
    let (c0, c1) = zip(v[2], v[6]);
    let (d0, d1) = zip(v[3], v[7]);
    // Three rounds of a perfect shuffle transpose 8 x 8.
    let (e0, e1) = zip(a0, c0);
    let (e2, e3) = zip(a1, c1);
    let (f0, f1) = zip(b0, d0);
    let (f2, f3) = zip(b1, d1);
    let ((g0, g1), (g2, g3)) = (zip(e0, f0), zip(e1, f1));
    let ((g4, g5), (g6, g7)) = (zip(e2, f2), zip(e3, f3));
    [g0, g1, g2, g3, g4, g5, g6, g7]
}

/// Columns of levels around zero to rows of samples.
#[inline]
#[target_feature(enable = "avx2")]
fn bytes(columns: &[__m256i; 8]) -> [[u8; 16]; 8] {
    let middle = _mm256_set1_epi8(-128);
    let narrow = |a, b| _mm256_xor_si256(_mm256_packs_epi16(a, b), middle);
    let [c01, c23] = [narrow(columns[0], columns[1]), narrow(columns[2], columns[3])];
    let [c45, c67] = [narrow(columns[4], columns[5]), narrow(columns[6], columns[7])];
    let zip = |a, b| (_mm256_unpacklo_epi8(a, b), _mm256_unpackhi_epi8(a, b));
    let ((c02, c13), (c46, c57)) = (zip(c01, c23), zip(c45, c67));
    let ((top_left, bottom_left), (top_right, bottom_right)) = (zip(c02, c13), zip(c46, c57));
    let quarters = [
        _mm256_unpacklo_epi32(top_left, top_right),
        _mm256_unpackhi_epi32(top_left, top_right),
        _mm256_unpacklo_epi32(bottom_left, bottom_right),
        _mm256_unpackhi_epi32(bottom_left, bottom_right),
    ];
    let mut rows = [[0; 16]; 8];
    for (rows, quarter) in rows.chunks_exact_mut(2).zip(quarters) {
        // The first row of both blocks, then the second.
        let two = _mm256_permute4x64_epi64::<0b11_01_10_00>(quarter);
        store16(&mut rows[0], _mm256_castsi256_si128(two));
        store16(&mut rows[1], _mm256_extracti128_si256::<1>(two));
    }
    rows
}
