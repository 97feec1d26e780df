//! Two registers of 256 bits for a vector.
//!
//! Every `unsafe` block here executes AVX2, FMA or AVX-VNNI: what the contract of the traits lets their callers promise.

use std::arch::x86_64::*;

use super::vector::{DotAccumulate, F32x16, F64x8, I32x16, LANES, Lane16};

/// Sixteen whole numbers. With `VNNI` products are those of AVX-VNNI.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ints<const VNNI: bool>([__m256i; 2]);

/// Sixteen float32 numbers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Floats([__m256; 2]);

impl<const VNNI: bool> I32x16 for Ints<VNNI> {
    type F32 = Floats;
    // 8 sums, 2 of columns, 4 of rows and 2 of products: all 16 registers.
    const MR: usize = 4;
    const NR: usize = 1;

    #[inline(always)]
    unsafe fn load(numbers: &Lane16<i32>) -> Self {
        let first = (&raw const numbers.0).cast::<__m256i>();
        // SAFETY: AVX2 is present, as the caller promises; the numbers fill two registers, and are aligned.
        Self(unsafe { [_mm256_load_si256(first), _mm256_load_si256(first.add(1))] })
    }

    #[inline(always)]
    unsafe fn splat(number: i32) -> Self {
        // SAFETY: AVX2 is present, as the caller promises.
        Self([unsafe { _mm256_set1_epi32(number) }; 2])
    }

    #[inline(always)]
    unsafe fn store(self, numbers: &mut Lane16<i32>) {
        let first = (&raw mut numbers.0).cast::<__m256i>();
        // SAFETY: AVX2 is present, as the caller promises; the numbers fill two registers, and are aligned.
        unsafe {
            _mm256_store_si256(first, self.0[0]);
            _mm256_store_si256(first.add(1), self.0[1]);
        }
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: AVX2 is present, as the caller promises.
        Self(std::array::from_fn(|half| unsafe { _mm256_add_epi32(self.0[half], other.0[half]) }))
    }

    #[inline(always)]
    unsafe fn to_f32(self) -> Floats {
        // SAFETY: AVX2 is present, as the caller promises.
        Floats(self.0.map(|v| unsafe { _mm256_cvtepi32_ps(v) }))
    }
}

impl<const VNNI: bool> DotAccumulate<[i16; 2]> for Ints<VNNI> {
    #[inline(always)]
    unsafe fn add_dot(self, row: Self, column: Self) -> Self {
        Self(std::array::from_fn(|half| {
            let (sum, x, c) = (self.0[half], row.0[half], column.0[half]);
            // SAFETY: AVX2, and with VNNI AVX-VNNI, is present, as the caller promises.
            unsafe {
                if VNNI { _mm256_dpwssd_avx_epi32(sum, x, c) } else { _mm256_add_epi32(sum, _mm256_madd_epi16(x, c)) }
            }
        }))
    }
}

impl DotAccumulate<[u8; 4]> for Ints<true> {
    #[inline(always)]
    unsafe fn add_dot(self, row: Self, column: Self) -> Self {
        Self(std::array::from_fn(|half| {
            // SAFETY: AVX-VNNI is present, as the caller promises.
            unsafe { _mm256_dpbusd_avx_epi32(self.0[half], row.0[half], column.0[half]) }
        }))
    }
}

impl Floats {
    /// `f` of both halves, which is an intrinsic of AVX2 or FMA.
    #[inline(always)]
    fn zip(self, other: Self, f: impl Fn(__m256, __m256) -> __m256) -> Self {
        Self([f(self.0[0], other.0[0]), f(self.0[1], other.0[1])])
    }
}

impl F32x16 for Floats {
    #[inline(always)]
    unsafe fn load(numbers: &[f32; LANES]) -> Self {
        // SAFETY: AVX2 is present, as the caller promises; there are 8 numbers from 0 and 8 from 8 on.
        Self(unsafe { [_mm256_loadu_ps(numbers.as_ptr()), _mm256_loadu_ps(numbers.as_ptr().add(8))] })
    }

    #[inline(always)]
    unsafe fn splat(number: f32) -> Self {
        // SAFETY: AVX2 is present, as the caller promises.
        Self([unsafe { _mm256_set1_ps(number) }; 2])
    }

    #[inline(always)]
    unsafe fn to_array(self) -> [f32; LANES] {
        let mut array = [0.0; LANES];
        // SAFETY: AVX2 is present, as the caller promises; there is room for 8 numbers from 0 and for 8 from 8 on.
        unsafe {
            _mm256_storeu_ps(array.as_mut_ptr(), self.0[0]);
            _mm256_storeu_ps(array.as_mut_ptr().add(8), self.0[1]);
        }
        array
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: AVX2 is present, as the caller promises.
        self.zip(other, |a, b| unsafe { _mm256_add_ps(a, b) })
    }

    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        // SAFETY: AVX2 is present, as the caller promises.
        self.zip(other, |a, b| unsafe { _mm256_sub_ps(a, b) })
    }

    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        // SAFETY: AVX2 is present, as the caller promises.
        self.zip(other, |a, b| unsafe { _mm256_mul_ps(a, b) })
    }

    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, summand: Self) -> Self {
        // SAFETY: FMA is present, as the caller promises.
        let half = |i: usize| unsafe { _mm256_fmadd_ps(self.0[i], factor.0[i], summand.0[i]) };
        Self([half(0), half(1)])
    }

    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        // SAFETY: AVX2 is present, as the caller promises.
        self.zip(other, |a, b| unsafe { _mm256_max_ps(a, b) })
    }

    #[inline(always)]
    unsafe fn abs(self) -> Self {
        // SAFETY: AVX2 is present, as the caller promises.
        let sign = unsafe { Self::splat(-0.0) };
        // SAFETY: as above, it is present.
        self.zip(sign, |a, sign| unsafe { _mm256_andnot_ps(sign, a) })
    }

    #[inline(always)]
    unsafe fn at_least(self, floor: Self) -> u16 {
        let half = |i: usize| {
            // SAFETY: AVX2 is present, as the caller promises.
            unsafe { _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_GE_OQ>(self.0[i], floor.0[i])) }
        };
        (half(0) | half(1) << 8) as u16
    }

    #[inline(always)]
    unsafe fn low8(self) -> [u8; LANES] {
        // SAFETY: AVX2 is present, as the caller promises.
        unsafe { self.to_array() }.map(|v| v.to_bits() as u8)
    }

    #[inline(always)]
    unsafe fn low16(self) -> [i16; LANES] {
        let mut array = [0; LANES];
        // SAFETY: AVX2 is present, as the caller promises; there is room for 16 numbers.
        unsafe {
            let mask = _mm256_set1_epi32(0xffff);
            let half = |i: usize| _mm256_and_si256(_mm256_castps_si256(self.0[i]), mask);
            // Packing interleaves quarters: 0, 2, 1, 3 puts them in order again.
            let packed = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packus_epi32(half(0), half(1)));
            _mm256_storeu_si256(array.as_mut_ptr().cast(), packed);
        }
        array
    }
}

/// Eight float64 numbers in two registers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Doubles([__m256d; 2]);

impl F64x8 for Doubles {
    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: AVX is present, as the caller promises.
        Self([unsafe { _mm256_setzero_pd() }; 2])
    }

    #[inline(always)]
    unsafe fn load(numbers: &[f64; 8]) -> Self {
        // SAFETY: AVX is present, as the caller promises; there are 4 numbers from 0 and 4 from 4 on.
        Self(unsafe { [_mm256_loadu_pd(numbers.as_ptr()), _mm256_loadu_pd(numbers.as_ptr().add(4))] })
    }

    #[inline(always)]
    unsafe fn widen(numbers: &[f32; 8]) -> Self {
        // SAFETY: AVX is present, as the caller promises; there are 4 numbers from 0 and 4 from 4 on.
        Self(unsafe {
            [_mm256_cvtps_pd(_mm_loadu_ps(numbers.as_ptr())), _mm256_cvtps_pd(_mm_loadu_ps(numbers.as_ptr().add(4)))]
        })
    }

    #[inline(always)]
    unsafe fn add_product<const FUSED: bool>(self, x: Self, y: Self) -> Self {
        Self(std::array::from_fn(|half| {
            let (x, y, sum) = (x.0[half], y.0[half], self.0[half]);
            // SAFETY: AVX and FMA are present, as the caller promises.
            unsafe { if FUSED { _mm256_fmadd_pd(x, y, sum) } else { _mm256_add_pd(sum, _mm256_mul_pd(x, y)) } }
        }))
    }

    #[inline(always)]
    unsafe fn to_array(self) -> [f64; 8] {
        let mut array = [0.0; 8];
        // SAFETY: AVX is present, as the caller promises; there is room for 4 numbers from 0 and for 4 from 4 on.
        unsafe {
            _mm256_storeu_pd(array.as_mut_ptr(), self.0[0]);
            _mm256_storeu_pd(array.as_mut_ptr().add(4), self.0[1]);
        }
        array
    }
}
