//! Numbers of two bytes as float32.
//!
//! Every kernel gives the same values; of a NaN it is only certain that it stays one.

use half::f16;

use crate::runtime::cpu::dispatch;

dispatch! {
    /// Widens float16, as little-endian bytes that need not be aligned.
    pub(super) fn from_f16(level: Level, halves: &[[u8; 2]], out: &mut [f32]) {
        Avx512 => x86::from_f16_avx512(halves, out),
        Avx2 => x86::from_f16_f16c(halves, out),
        Scalar => from_f16_scalar(halves, out),
    }
}

dispatch! {
    /// Widens bfloat16, as little-endian bytes that need not be aligned.
    pub(super) fn from_bf16(level: Level, halves: &[[u8; 2]], out: &mut [f32]) {
        Avx512 | Avx2 | Scalar => from_bf16_scalar(halves, out),
    }
}

#[inline(always)]
fn from_f16_scalar(halves: &[[u8; 2]], out: &mut [f32]) {
    for (out, &half) in out.iter_mut().zip(halves) {
        *out = f16::from_le_bytes(half).to_f32_const();
    }
}

/// Not `bf16::to_f32`, which branches on NaN: a shift is exact too, and vectorises.
#[inline(always)]
fn from_bf16_scalar(halves: &[[u8; 2]], out: &mut [f32]) {
    for (out, &half) in out.iter_mut().zip(halves) {
        *out = f32::from_bits(u32::from(u16::from_le_bytes(half)) << 16);
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::*;

    #[target_feature(enable = "avx512f")]
    pub(super) fn from_f16_avx512(halves: &[[u8; 2]], out: &mut [f32]) {
        let ((halves, last), (out, last_out)) = (halves.as_chunks::<16>(), out.as_chunks_mut::<16>());
        for (halves, out) in halves.iter().zip(out) {
            // SAFETY: 32 bytes are read and 64 written.
            unsafe {
                let wide = _mm512_cvtph_ps(_mm256_loadu_si256(halves.as_ptr().cast()));
                _mm512_storeu_ps(out.as_mut_ptr(), wide);
            }
        }
        from_f16_scalar(last, last_out);
    }

    #[target_feature(enable = "avx,f16c")]
    pub(super) fn from_f16_f16c(halves: &[[u8; 2]], out: &mut [f32]) {
        let ((halves, last), (out, last_out)) = (halves.as_chunks::<8>(), out.as_chunks_mut::<8>());
        for (halves, out) in halves.iter().zip(out) {
            // SAFETY: 16 bytes are read and 32 written.
            unsafe {
                let wide = _mm256_cvtph_ps(_mm_loadu_si128(halves.as_ptr().cast()));
                _mm256_storeu_ps(out.as_mut_ptr(), wide);
            }
        }
        from_f16_scalar(last, last_out);
    }
}

#[cfg(test)]
mod tests {
    use half::bf16;

    use super::*;
    use crate::runtime::cpu::Level;

    /// All numbers of two bytes, in places that no vector is aligned to, and in lengths that none divides.
    fn check(kernel: impl Fn(Level, &[[u8; 2]], &mut [f32]), oracle: impl Fn(u16) -> f32) {
        let all: Vec<[u8; 2]> = (0..=u16::MAX).map(u16::to_le_bytes).collect();
        for level in Level::present() {
            for (start, length) in [(0, all.len()), (1, all.len() - 1), (3, 7), (5, 8), (31_743, 67), (0, 0)] {
                let halves = &all[start..start + length];
                let mut out = vec![0.0; length];
                kernel(level, halves, &mut out);
                for (&half, out) in halves.iter().zip(out) {
                    let expected = oracle(u16::from_le_bytes(half));
                    assert!(
                        out.to_bits() == expected.to_bits() || out.is_nan() && expected.is_nan(),
                        "{level:?} {half:?}: {out} instead of {expected}"
                    );
                }
            }
        }
    }

    #[test]
    fn every_float16_is_widened_as_half_does() {
        check(from_f16, |bits| f16::from_bits(bits).to_f32_const());
    }

    #[test]
    fn every_bfloat16_is_widened_as_half_does() {
        check(from_bf16, |bits| bf16::from_bits(bits).to_f32_const());
    }
}
