//! YCbCr to RGB or to gray levels, 32 pixels at a time.

use std::arch::x86_64::*;

use crate::image::gray::{BLUE, HALF, RED};
use crate::image::jpeg::avx2::{load32, store16, store32};

/// See [`crate::image::jpeg::color::rgb_from_ycbcr`].
#[target_feature(enable = "avx2")]
pub fn rgb_from_ycbcr(y: &[u8], cb: &[u8], cr: &[u8], out: &mut [u8]) {
    let (ys, y_rest) = y.as_chunks();
    let (cbs, cb_rest) = cb.as_chunks();
    let (crs, cr_rest) = cr.as_chunks();
    let (pixels, out_rest) = out.as_chunks_mut::<96>();
    for (((pixels, y), cb), cr) in pixels.iter_mut().zip(ys).zip(cbs).zip(crs) {
        convert(y, cb, cr, pixels);
    }
    if !out_rest.is_empty() {
        let mut whole = [0; 96];
        convert(&filled(y_rest), &filled(cb_rest), &filled(cr_rest), &mut whole);
        out_rest.copy_from_slice(&whole[..out_rest.len()]);
    }
}

/// See [`crate::image::jpeg::color::levels_from_ycbcr`].
#[target_feature(enable = "avx2")]
pub fn levels_from_ycbcr(y: &[u8], cb: &[u8], cr: &[u8], out: &mut [u8]) {
    let (ys, y_rest) = y.as_chunks();
    let (cbs, cb_rest) = cb.as_chunks();
    let (crs, cr_rest) = cr.as_chunks();
    let (levels, out_rest) = out.as_chunks_mut::<32>();
    for (((levels, y), cb), cr) in levels.iter_mut().zip(ys).zip(cbs).zip(crs) {
        store32(levels, weigh(y, cb, cr));
    }
    if !out_rest.is_empty() {
        let mut whole = [0; 32];
        store32(&mut whole, weigh(&filled(y_rest), &filled(cb_rest), &filled(cr_rest)));
        out_rest.copy_from_slice(&whole[..out_rest.len()]);
    }
}

/// Up to 32 samples and zeros behind them.
fn filled(rest: &[u8]) -> [u8; 32] {
    let mut whole = [0; 32];
    whole[..rest.len().min(32)].copy_from_slice(&rest[..rest.len().min(32)]);
    whole
}

#[inline]
#[target_feature(enable = "avx2")]
fn convert(y: &[u8; 32], cb: &[u8; 32], cr: &[u8; 32], out: &mut [u8; 96]) {
    let [lo, hi] = halves(y, cb, cr);
    let [r, g, b] = [0, 1, 2].map(|i| _mm256_packus_epi16(lo[i], hi[i]));
    interleave(r, g, b, out);
}

/// The gray levels of 32 pixels.
#[inline]
#[target_feature(enable = "avx2")]
fn weigh(y: &[u8; 32], cb: &[u8; 32], cr: &[u8; 32]) -> __m256i {
    let [lo, hi] = halves(y, cb, cr).map(|rgb| {
        let (black, white) = (_mm256_setzero_si256(), _mm256_set1_epi16(255));
        let [r, g, b] = rgb.map(|x| _mm256_min_epi16(_mm256_max_epi16(x, black), white));
        // The three weights are 1 in sum: what red and blue are more than green is weighed.
        let (r, b) = (_mm256_sub_epi16(r, g), _mm256_sub_epi16(b, g));
        let weights = _mm256_set1_epi32((RED | BLUE << 16) as i32);
        let more = |pairs| {
            let sum = _mm256_add_epi32(_mm256_madd_epi16(pairs, weights), _mm256_set1_epi32(HALF as i32));
            _mm256_srai_epi32::<16>(sum)
        };
        let (lo, hi) = (_mm256_unpacklo_epi16(r, b), _mm256_unpackhi_epi16(r, b));
        _mm256_add_epi16(g, _mm256_packs_epi32(more(lo), more(hi)))
    });
    _mm256_packus_epi16(lo, hi)
}

/// Red, green and blue of 32 pixels, not yet clamped: the lower halves of both halves of the registers, and the upper
/// ones. Packing undoes it.
#[inline]
#[target_feature(enable = "avx2")]
fn halves(y: &[u8; 32], cb: &[u8; 32], cr: &[u8; 32]) -> [[__m256i; 3]; 2] {
    let zero = _mm256_setzero_si256();
    let (y, cb, cr) = (load32(y), load32(cb), load32(cr));
    [
        sixteen(_mm256_unpacklo_epi8(y, zero), _mm256_unpacklo_epi8(cb, zero), _mm256_unpacklo_epi8(cr, zero)),
        sixteen(_mm256_unpackhi_epi8(y, zero), _mm256_unpackhi_epi8(cb, zero), _mm256_unpackhi_epi8(cr, zero)),
    ]
}

/// Red, green and blue of 16 pixels, not yet clamped.
#[inline]
#[target_feature(enable = "avx2")]
fn sixteen(y: __m256i, cb: __m256i, cr: __m256i) -> [__m256i; 3] {
    let middle = _mm256_set1_epi16(128);
    let (cb, cr) = (_mm256_sub_epi16(cb, middle), _mm256_sub_epi16(cr, middle));
    // The factors are split into whole parts and fractions that fit 16 bits. `high(2x, f)` is `2xf >> 16`; adding one and
    // halving gives `xf / 65536`, rounded.
    let one = _mm256_set1_epi16(1);
    let rounded = |x, factor: i16| {
        let double = _mm256_mulhi_epi16(_mm256_add_epi16(x, x), _mm256_set1_epi16(factor));
        _mm256_srai_epi16::<1>(_mm256_add_epi16(double, one))
    };
    let red = _mm256_add_epi16(_mm256_add_epi16(y, cr), rounded(cr, (91_881 - 65_536) as i16));
    let blue = _mm256_add_epi16(_mm256_add_epi16(y, _mm256_add_epi16(cb, cb)), rounded(cb, (116_130 - 131_072) as i16));
    let factors = _mm256_set1_epi32((-22_554 & 0xffff) | (65_536 - 46_802) << 16);
    let half = _mm256_set1_epi32(0x8000);
    let green = |pairs| _mm256_srai_epi32::<16>(_mm256_add_epi32(_mm256_madd_epi16(pairs, factors), half));
    let (lo, hi) = (_mm256_unpacklo_epi16(cb, cr), _mm256_unpackhi_epi16(cb, cr));
    let green = _mm256_sub_epi16(_mm256_packs_epi32(green(lo), green(hi)), cr);
    [red, _mm256_add_epi16(y, green), blue]
}

/// Three planes of 32 samples to 32 pixels.
#[inline]
#[target_feature(enable = "avx2")]
fn interleave(r: __m256i, g: __m256i, b: __m256i, out: &mut [u8; 96]) {
    // Sample i belongs at byte 3i of the 48 that a half becomes. 3 has an inverse modulo 16: one shuffle brings all 16
    // samples to their places in the three parts at once, and blends pick each part's.
    let order = _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 11, 6, 1, 12, 7, 2, 13, 8, 3, 14, 9, 4, 15, 10, 5));
    let r = _mm256_shuffle_epi8(r, order);
    let g = _mm256_shuffle_epi8(g, _mm256_alignr_epi8::<15>(order, order));
    let b = _mm256_shuffle_epi8(b, _mm256_alignr_epi8::<14>(order, order));
    // Bytes that are 1 and 2 modulo 3.
    let first = _mm256_broadcastsi128_si256(_mm_setr_epi8(0, -1, 0, 0, -1, 0, 0, -1, 0, 0, -1, 0, 0, -1, 0, 0));
    let second = _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 0, -1, 0, 0, -1, 0, 0, -1, 0, 0, -1, 0, 0, -1, 0));
    let pick = |a, b, c| _mm256_blendv_epi8(_mm256_blendv_epi8(a, b, first), c, second);
    // Part p starts with byte 16p, which is p modulo 3.
    let parts = [pick(r, g, b), pick(g, b, r), pick(b, r, g)];
    let (places, _) = out.as_chunks_mut();
    for (i, part) in parts.into_iter().enumerate() {
        store16(&mut places[i], _mm256_castsi256_si128(part));
        store16(&mut places[i + 3], _mm256_extracti128_si256::<1>(part));
    }
}
