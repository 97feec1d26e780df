//! Interpolation to twice the width.

use std::arch::x86_64::*;
use std::ops::Range;

use super::{across_outside, both_outside};
use crate::image::jpeg::avx2::{load16, store32};

/// See [`crate::image::jpeg::upsample::row`].
#[target_feature(enable = "avx2")]
pub fn across(samples: &[u8], out: &mut [u8]) {
    let wide = |samples| _mm256_cvtepu8_epi16(load16(samples));
    let inner = doubled(samples.len(), out, |x| {
        let [left, mid, right] = around(samples, x)?.map(wide);
        let three = _mm256_add_epi16(mid, _mm256_add_epi16(mid, mid));
        let even = _mm256_add_epi16(_mm256_add_epi16(three, left), _mm256_set1_epi16(1));
        let odd = _mm256_add_epi16(_mm256_add_epi16(three, right), _mm256_set1_epi16(2));
        Some((_mm256_srli_epi16::<2>(even), _mm256_srli_epi16::<2>(odd)))
    });
    across_outside(samples, out, inner);
}

/// See [`crate::image::jpeg::upsample::row`].
#[target_feature(enable = "avx2")]
pub fn both(near: &[u8], far: &[u8], out: &mut [u8]) {
    let sum = |near, far| {
        let (near, far) = (_mm256_cvtepu8_epi16(load16(near)), _mm256_cvtepu8_epi16(load16(far)));
        _mm256_add_epi16(_mm256_add_epi16(near, _mm256_add_epi16(near, near)), far)
    };
    let inner = doubled(near.len(), out, |x| {
        let ([n0, n1, n2], [f0, f1, f2]) = (around(near, x)?, around(far, x)?);
        let (left, mid, right) = (sum(n0, f0), sum(n1, f1), sum(n2, f2));
        let three = _mm256_add_epi16(mid, _mm256_add_epi16(mid, mid));
        let even = _mm256_add_epi16(_mm256_add_epi16(three, left), _mm256_set1_epi16(8));
        let odd = _mm256_add_epi16(_mm256_add_epi16(three, right), _mm256_set1_epi16(7));
        Some((_mm256_srli_epi16::<4>(even), _mm256_srli_epi16::<4>(odd)))
    });
    both_outside(near, far, out, inner);
}

/// Fills in the pixels of the samples that have neighbors, 16 samples at a time, by what `pixels` makes of those from
/// its argument on: even pixels and odd ones. Returns the range of samples that are done.
#[inline]
#[target_feature(enable = "avx2")]
fn doubled(width: usize, out: &mut [u8], pixels: impl Fn(usize) -> Option<(__m256i, __m256i)>) -> Range<usize> {
    let Some(last) = width.checked_sub(17).filter(|&last| last > 0) else {
        return 0..0;
    };
    // The last step overlaps the one before it.
    for x in (1..last).step_by(16).chain([last]) {
        let Some((even, odd)) = pixels(x) else { return 0..0 };
        let Some(place) = out.get_mut(2 * x..).and_then(<[u8]>::first_chunk_mut) else { return 0..0 };
        store32(place, _mm256_or_si256(even, _mm256_slli_epi16::<8>(odd)));
    }
    1..width - 1
}

/// The 16 samples left of, at and right of `x`.
#[inline(always)]
fn around(samples: &[u8], x: usize) -> Option<[&[u8; 16]; 3]> {
    let window: &[u8; 18] = samples.get(x - 1..)?.first_chunk()?;
    Some([window[..16].first_chunk()?, window[1..17].first_chunk()?, window[2..].first_chunk()?])
}
