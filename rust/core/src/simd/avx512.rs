//! One register of 512 bits for a vector.
//!
//! Every `unsafe` block here executes AVX-512 F, BW or VNNI: what the contract of the traits lets their callers promise.

use std::arch::x86_64::*;

use super::vector::{DotAccumulate, F32x16, F64x8, I32x16, LANES, Lane16};

/// Sixteen whole numbers. With `VNNI` products are those of AVX-512 VNNI.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ints<const VNNI: bool>(__m512i);

/// Sixteen float32 numbers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Floats(__m512);

impl<const VNNI: bool> I32x16 for Ints<VNNI> {
    type F32 = Floats;
    // 18 sums, 3 of columns, 6 of rows and 1 of products, of 32 registers: with 24 sums compilers spill.
    const MR: usize = 6;
    const NR: usize = 3;

    #[inline(always)]
    unsafe fn load(numbers: &Lane16<i32>) -> Self {
        // SAFETY: AVX-512 F is present, as the caller promises; the numbers fill a register, and are aligned.
        Self(unsafe { _mm512_load_si512((&raw const numbers.0).cast()) })
    }

    #[inline(always)]
    unsafe fn splat(number: i32) -> Self {
        // SAFETY: AVX-512 F is present, as the caller promises.
        Self(unsafe { _mm512_set1_epi32(number) })
    }

    #[inline(always)]
    unsafe fn store(self, numbers: &mut Lane16<i32>) {
        // SAFETY: AVX-512 F is present, as the caller promises; the numbers fill a register, and are aligned.
        unsafe { _mm512_store_si512((&raw mut numbers.0).cast(), self.0) };
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: AVX-512 F is present, as the caller promises.
        Self(unsafe { _mm512_add_epi32(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn to_f32(self) -> Floats {
        // SAFETY: AVX-512 F is present, as the caller promises.
        Floats(unsafe { _mm512_cvtepi32_ps(self.0) })
    }

    #[inline(always)]
    unsafe fn sum(self) -> i32 {
        // SAFETY: AVX-512 F is present, as the caller promises.
        unsafe { _mm512_reduce_add_epi32(self.0) }
    }
}

impl<const VNNI: bool> DotAccumulate<[i16; 2]> for Ints<VNNI> {
    #[inline(always)]
    unsafe fn add_dot(self, row: Self, column: Self) -> Self {
        // SAFETY: AVX-512 F and BW, and with VNNI that too, are present, as the caller promises.
        Self(unsafe {
            if VNNI {
                _mm512_dpwssd_epi32(self.0, row.0, column.0)
            } else {
                _mm512_add_epi32(self.0, _mm512_madd_epi16(row.0, column.0))
            }
        })
    }
}

impl DotAccumulate<[u8; 4]> for Ints<true> {
    #[inline(always)]
    unsafe fn add_dot(self, row: Self, column: Self) -> Self {
        // SAFETY: AVX-512 VNNI is present, as the caller promises.
        Self(unsafe { _mm512_dpbusd_epi32(self.0, row.0, column.0) })
    }
}

impl F32x16 for Floats {
    #[inline(always)]
    unsafe fn load(numbers: &[f32; LANES]) -> Self {
        // SAFETY: AVX-512 F is present, as the caller promises; there are 16 numbers.
        Self(unsafe { _mm512_loadu_ps(numbers.as_ptr()) })
    }

    #[inline(always)]
    unsafe fn splat(number: f32) -> Self {
        // SAFETY: AVX-512 F is present, as the caller promises.
        Self(unsafe { _mm512_set1_ps(number) })
    }

    #[inline(always)]
    unsafe fn to_array(self) -> [f32; LANES] {
        let mut array = [0.0; LANES];
        // SAFETY: AVX-512 F is present, as the caller promises; there is room for 16 numbers.
        unsafe { _mm512_storeu_ps(array.as_mut_ptr(), self.0) };
        array
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: AVX-512 F is present, as the caller promises.
        Self(unsafe { _mm512_add_ps(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        // SAFETY: AVX-512 F is present, as the caller promises.
        Self(unsafe { _mm512_sub_ps(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        // SAFETY: AVX-512 F is present, as the caller promises.
        Self(unsafe { _mm512_mul_ps(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, summand: Self) -> Self {
        // SAFETY: AVX-512 F is present, as the caller promises.
        Self(unsafe { _mm512_fmadd_ps(self.0, factor.0, summand.0) })
    }

    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        // SAFETY: AVX-512 F is present, as the caller promises.
        Self(unsafe { _mm512_max_ps(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn abs(self) -> Self {
        // SAFETY: AVX-512 F is present, as the caller promises.
        Self(unsafe { _mm512_abs_ps(self.0) })
    }

    #[inline(always)]
    unsafe fn at_least(self, floor: Self) -> u16 {
        // SAFETY: AVX-512 F is present, as the caller promises.
        unsafe { _mm512_cmp_ps_mask::<_CMP_GE_OQ>(self.0, floor.0) }
    }

    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        // SAFETY: AVX-512 F is present, as the caller promises.
        unsafe { _mm512_reduce_add_ps(self.0) }
    }

    #[inline(always)]
    unsafe fn largest(self) -> f32 {
        // SAFETY: AVX-512 F is present, as the caller promises.
        unsafe { _mm512_reduce_max_ps(self.0) }
    }

    #[inline(always)]
    unsafe fn low8(self) -> [u8; LANES] {
        let mut array = [0; LANES];
        // SAFETY: AVX-512 F is present, as the caller promises; there is room for 16 numbers.
        unsafe { _mm_storeu_si128(array.as_mut_ptr().cast(), _mm512_cvtepi32_epi8(_mm512_castps_si512(self.0))) };
        array
    }

    #[inline(always)]
    unsafe fn low16(self) -> [i16; LANES] {
        let mut array = [0; LANES];
        // SAFETY: AVX-512 F is present, as the caller promises; there is room for 16 numbers.
        unsafe {
            _mm256_storeu_si256(array.as_mut_ptr().cast(), _mm512_cvtepi32_epi16(_mm512_castps_si512(self.0)));
        }
        array
    }
}

/// Eight float64 numbers in a register.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Doubles(__m512d);

impl F64x8 for Doubles {
    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: AVX-512 F is present, as the caller promises.
        Self(unsafe { _mm512_setzero_pd() })
    }

    #[inline(always)]
    unsafe fn load(numbers: &[f64; 8]) -> Self {
        // SAFETY: AVX-512 F is present, as the caller promises; there are 8 numbers.
        Self(unsafe { _mm512_loadu_pd(numbers.as_ptr()) })
    }

    #[inline(always)]
    unsafe fn widen(numbers: &[f32; 8]) -> Self {
        // SAFETY: AVX-512 F is present, as the caller promises; there are 8 numbers.
        Self(unsafe { _mm512_cvtps_pd(_mm256_loadu_ps(numbers.as_ptr())) })
    }

    #[inline(always)]
    unsafe fn add_product<const FUSED: bool>(self, x: Self, y: Self) -> Self {
        // SAFETY: AVX-512 F is present, as the caller promises.
        Self(unsafe {
            if FUSED { _mm512_fmadd_pd(x.0, y.0, self.0) } else { _mm512_add_pd(self.0, _mm512_mul_pd(x.0, y.0)) }
        })
    }

    #[inline(always)]
    unsafe fn to_array(self) -> [f64; 8] {
        let mut array = [0.0; 8];
        // SAFETY: AVX-512 F is present, as the caller promises; there is room for 8 numbers.
        unsafe { _mm512_storeu_pd(array.as_mut_ptr(), self.0) };
        array
    }
}
