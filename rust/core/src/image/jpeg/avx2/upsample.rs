//! Interpolation to twice the width.

use std::arch::x86_64::*;

use super::{load16, store32};
use crate::image::jpeg::upsample::{across_from, both_from};

/// See [`crate::image::jpeg::upsample::row`]: 16 samples at a time, whose neighbours are loaded beside them.
#[target_feature(enable = "avx2")]
pub fn across(samples: &[u8], out: &mut [u8]) {
    let wide = |samples| _mm256_cvtepu8_epi16(load16(samples));
    let done = inner(samples.len(), out, |x, two| {
        let [left, mid, right] = around(samples, x)?.map(wide);
        let three = _mm256_add_epi16(mid, _mm256_add_epi16(mid, mid));
        let even = _mm256_add_epi16(_mm256_add_epi16(three, left), _mm256_set1_epi16(1));
        let odd = _mm256_add_epi16(_mm256_add_epi16(three, right), _mm256_set1_epi16(2));
        store32(two, interleaved(_mm256_srli_epi16::<2>(even), _mm256_srli_epi16::<2>(odd)));
        Some(())
    });
    across_from(samples, &mut out[..2.min(2 * samples.len())], 0);
    across_from(samples, out, done);
}

/// See [`crate::image::jpeg::upsample::row`].
#[target_feature(enable = "avx2")]
pub fn both(near: &[u8], far: &[u8], out: &mut [u8]) {
    let sum = |near, far| {
        let (near, far) = (_mm256_cvtepu8_epi16(load16(near)), _mm256_cvtepu8_epi16(load16(far)));
        _mm256_add_epi16(_mm256_add_epi16(near, _mm256_add_epi16(near, near)), far)
    };
    let done = inner(near.len(), out, |x, two| {
        let ([n0, n1, n2], [f0, f1, f2]) = (around(near, x)?, around(far, x)?);
        let (left, mid, right) = (sum(n0, f0), sum(n1, f1), sum(n2, f2));
        let three = _mm256_add_epi16(mid, _mm256_add_epi16(mid, mid));
        let even = _mm256_add_epi16(_mm256_add_epi16(three, left), _mm256_set1_epi16(8));
        let odd = _mm256_add_epi16(_mm256_add_epi16(three, right), _mm256_set1_epi16(7));
        store32(two, interleaved(_mm256_srli_epi16::<4>(even), _mm256_srli_epi16::<4>(odd)));
        Some(())
    });
    both_from(near, far, &mut out[..2.min(2 * near.len())], 0);
    both_from(near, far, out, done);
}

/// Gives `pixels` the first of 16 samples and the place of their 32 pixels, from the second sample of the row on, as long
/// as it finds all it needs. Returns the sample at which it stopped.
#[inline]
#[target_feature(enable = "avx2")]
fn inner(samples: usize, out: &mut [u8], mut pixels: impl FnMut(usize, &mut [u8; 32]) -> Option<()>) -> usize {
    let mut x = 1;
    while x + 16 < samples {
        let Some(two) = out.get_mut(2 * x..).and_then(<[u8]>::first_chunk_mut) else {
            break;
        };
        if pixels(x, two).is_none() {
            break;
        }
        x += 16;
    }
    x
}

/// The 16 samples left of, at and right of `x`.
#[inline(always)]
fn around(samples: &[u8], x: usize) -> Option<[&[u8; 16]; 3]> {
    let window: &[u8; 18] = samples.get(x - 1..)?.first_chunk()?;
    Some([window[..16].first_chunk()?, window[1..17].first_chunk()?, window[2..].first_chunk()?])
}

/// 16-bit lanes of two registers, alternating, as bytes.
#[inline]
#[target_feature(enable = "avx2")]
fn interleaved(even: __m256i, odd: __m256i) -> __m256i {
    _mm256_or_si256(even, _mm256_slli_epi16::<8>(odd))
}
