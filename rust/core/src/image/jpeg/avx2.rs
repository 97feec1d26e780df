//! Loads and stores of the kernels for AVX2, which give bit for bit what the portable code beside them gives.

use std::arch::x86_64::*;

#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn load16(bytes: &[u8; 16]) -> __m128i {
    // SAFETY: the reference guarantees 16 readable bytes; the instruction needs no alignment.
    unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn load32(bytes: &[u8; 32]) -> __m256i {
    // SAFETY: the reference guarantees 32 readable bytes; the instruction needs no alignment.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
}

/// Eight coefficients or steps.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn load_words(words: &[i16; 8]) -> __m128i {
    // SAFETY: the reference guarantees 16 readable bytes; the instruction needs no alignment.
    unsafe { _mm_loadu_si128(words.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn store16(to: &mut [u8; 16], bytes: __m128i) {
    // SAFETY: the reference guarantees 16 writable bytes; the instruction needs no alignment.
    unsafe { _mm_storeu_si128(to.as_mut_ptr().cast(), bytes) }
}

#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn store32(to: &mut [u8; 32], bytes: __m256i) {
    // SAFETY: the reference guarantees 32 writable bytes; the instruction needs no alignment.
    unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast(), bytes) }
}
