//! Sixteen 32-bit numbers, in the registers of each instruction set.

use super::code::{Code, I8, I16};

/// Numbers in a register, or in two of half the width: a centroid each, or consecutive ones of a vector.
pub(super) const LANES: usize = 16;

/// A number of each of sixteen centroids.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Group<T>(pub(super) [T; LANES]);

/// Sixteen whole numbers.
pub(super) trait Ints: Copy {
    type Floats: Floats;
    /// Rows and groups of centroids whose sums fit into the registers at a time: 6 and at most 3, or 4 and 1.
    const ROWS: usize;
    /// See [`Ints::ROWS`].
    const GROUPS: usize;

    fn load(group: &Group<i32>) -> Self;
    fn splat(word: i32) -> Self;
    fn store(self, group: &mut Group<i32>);
    /// The sums, cut to 32 bits.
    fn add(self, other: Self) -> Self;
    /// Rounded to the nearest float32.
    fn to_floats(self) -> Self::Floats;

    /// The sum of all, which must not leave 32 bits.
    #[inline(always)]
    fn sum(self) -> i32 {
        let mut group = Group([0; LANES]);
        self.store(&mut group);
        reduce(group.0, i32::wrapping_add)
    }
}

/// Multiplies words of `C`.
pub(super) trait Dot<C: Code>: Ints {
    /// Adds to each sum the products of the digits of a row's word and a centroid's.
    fn add_dot(self, row: Self, centroids: Self) -> Self;

    /// The bits of sixteen words.
    #[inline(always)]
    fn load_words(words: &[C::Word; LANES]) -> Self {
        Self::load(&Group(words.map(C::bits)))
    }
}

/// Sixteen float32 numbers.
pub(super) trait Floats: Copy {
    fn load(values: &[f32; LANES]) -> Self;
    fn splat(value: f32) -> Self;
    fn to_array(self) -> [f32; LANES];
    fn add(self, other: Self) -> Self;
    fn sub(self, other: Self) -> Self;
    fn mul(self, other: Self) -> Self;
    /// `self * factor + summand`, rounded once.
    fn mul_add(self, factor: Self, summand: Self) -> Self;
    /// The larger ones; any if one is NaN.
    fn max(self, other: Self) -> Self;
    fn abs(self) -> Self;
    /// A bit for each that is not below `floor`.
    fn at_least(self, floor: Self) -> u16;
    /// The low 8 bits of each.
    fn low8(self) -> [u8; LANES];
    /// The low 16 bits of each.
    fn low16(self) -> [i16; LANES];

    /// The sum of all, in any order.
    #[inline(always)]
    fn sum(self) -> f32 {
        reduce(self.to_array(), |a, b| a + b)
    }

    /// The largest of all; any if one is NaN.
    #[inline(always)]
    fn largest(self) -> f32 {
        reduce(self.to_array(), |a, b| if a > b { a } else { b })
    }
}

/// All lanes combined by `f`, half with half.
#[inline(always)]
fn reduce<T: Copy>(mut lanes: [T; LANES], f: impl Fn(T, T) -> T) -> T {
    for half in [8, 4, 2, 1] {
        for l in 0..half {
            lanes[l] = f(lanes[l], lanes[l + half]);
        }
    }
    lanes[0]
}

/// What every target has: the oracle of the others, and what the compiler makes NEON of.
impl Ints for [i32; LANES] {
    type Floats = [f32; LANES];
    const ROWS: usize = 4;
    const GROUPS: usize = 1;

    #[inline(always)]
    fn load(group: &Group<i32>) -> Self {
        group.0
    }

    #[inline(always)]
    fn splat(word: i32) -> Self {
        [word; LANES]
    }

    #[inline(always)]
    fn store(self, group: &mut Group<i32>) {
        group.0 = self;
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        std::array::from_fn(|l| self[l].wrapping_add(other[l]))
    }

    #[inline(always)]
    fn to_floats(self) -> [f32; LANES] {
        self.map(|v| v as f32)
    }
}

impl Dot<I8> for [i32; LANES] {
    #[inline(always)]
    fn add_dot(self, row: Self, centroids: Self) -> Self {
        std::array::from_fn(|l| {
            let (x, c) = (row[l].to_le_bytes(), centroids[l].to_le_bytes());
            (0..4).fold(self[l], |sum, i| sum.wrapping_add(i32::from(x[i]) * i32::from(c[i] as i8)))
        })
    }
}

impl Dot<I16> for [i32; LANES] {
    #[inline(always)]
    fn add_dot(self, row: Self, centroids: Self) -> Self {
        std::array::from_fn(|l| {
            let (x, c) = (row[l], centroids[l]);
            let low = i32::from(x as i16) * i32::from(c as i16);
            self[l].wrapping_add(low).wrapping_add((x >> 16) * (c >> 16))
        })
    }
}

impl Floats for [f32; LANES] {
    #[inline(always)]
    fn load(values: &[f32; LANES]) -> Self {
        *values
    }

    #[inline(always)]
    fn splat(value: f32) -> Self {
        [value; LANES]
    }

    #[inline(always)]
    fn to_array(self) -> [f32; LANES] {
        self
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        std::array::from_fn(|l| self[l] + other[l])
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        std::array::from_fn(|l| self[l] - other[l])
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        std::array::from_fn(|l| self[l] * other[l])
    }

    #[inline(always)]
    fn mul_add(self, factor: Self, summand: Self) -> Self {
        std::array::from_fn(|l| self[l].mul_add(factor[l], summand[l]))
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        std::array::from_fn(|l| if self[l] > other[l] { self[l] } else { other[l] })
    }

    #[inline(always)]
    fn abs(self) -> Self {
        self.map(f32::abs)
    }

    #[inline(always)]
    fn at_least(self, floor: Self) -> u16 {
        (0..LANES).fold(0, |mask, l| mask | u16::from(self[l] >= floor[l]) << l)
    }

    #[inline(always)]
    fn low8(self) -> [u8; LANES] {
        self.map(|v| v.to_bits() as u8)
    }

    #[inline(always)]
    fn low16(self) -> [i16; LANES] {
        self.map(|v| v.to_bits() as i16)
    }
}

/// Registers wider than the target's floor. Everything here is inlined into functions that enable the instructions
/// that it uses and are called only where those are present: this is why each block of intrinsics is sound.
#[cfg(target_arch = "x86_64")]
pub(super) mod x86 {
    use std::arch::x86_64::*;

    use super::*;

    /// AVX2 and FMA, with `VNNI` AVX-VNNI too.
    #[derive(Debug, Clone, Copy)]
    pub(in super::super) struct Ymm<const VNNI: bool>([__m256i; 2]);

    /// AVX2 and FMA.
    #[derive(Debug, Clone, Copy)]
    pub(in super::super) struct YmmFloats([__m256; 2]);

    impl<const VNNI: bool> Ints for Ymm<VNNI> {
        type Floats = YmmFloats;
        // 8 sums, 2 of centroids, 4 of rows and 2 of products: all 16 registers.
        const ROWS: usize = 4;
        const GROUPS: usize = 1;

        #[inline(always)]
        fn load(group: &Group<i32>) -> Self {
            let first = (&raw const group.0).cast::<__m256i>();
            // SAFETY: AVX2 is present, see above; a group is two registers, aligned.
            Self(unsafe { [_mm256_load_si256(first), _mm256_load_si256(first.add(1))] })
        }

        #[inline(always)]
        fn splat(word: i32) -> Self {
            // SAFETY: AVX2 is present, see above.
            Self([unsafe { _mm256_set1_epi32(word) }; 2])
        }

        #[inline(always)]
        fn store(self, group: &mut Group<i32>) {
            let first = (&raw mut group.0).cast::<__m256i>();
            // SAFETY: AVX2 is present, see above; a group is two registers, aligned.
            unsafe {
                _mm256_store_si256(first, self.0[0]);
                _mm256_store_si256(first.add(1), self.0[1]);
            }
        }

        #[inline(always)]
        fn add(self, other: Self) -> Self {
            // SAFETY: AVX2 is present, see above.
            Self(std::array::from_fn(|half| unsafe { _mm256_add_epi32(self.0[half], other.0[half]) }))
        }

        #[inline(always)]
        fn to_floats(self) -> YmmFloats {
            // SAFETY: AVX2 is present, see above.
            YmmFloats(self.0.map(|v| unsafe { _mm256_cvtepi32_ps(v) }))
        }
    }

    impl<const VNNI: bool> Dot<I16> for Ymm<VNNI> {
        #[inline(always)]
        fn add_dot(self, row: Self, centroids: Self) -> Self {
            Self(std::array::from_fn(|half| {
                let (sum, x, c) = (self.0[half], row.0[half], centroids.0[half]);
                // SAFETY: AVX2, and with VNNI AVX-VNNI, is present, see above.
                unsafe {
                    if VNNI {
                        _mm256_dpwssd_avx_epi32(sum, x, c)
                    } else {
                        _mm256_add_epi32(sum, _mm256_madd_epi16(x, c))
                    }
                }
            }))
        }
    }

    impl Dot<I8> for Ymm<true> {
        #[inline(always)]
        fn add_dot(self, row: Self, centroids: Self) -> Self {
            Self(std::array::from_fn(|half| {
                // SAFETY: AVX-VNNI is present, see above.
                unsafe { _mm256_dpbusd_avx_epi32(self.0[half], row.0[half], centroids.0[half]) }
            }))
        }
    }

    impl YmmFloats {
        /// `f` of both halves, which is an intrinsic of AVX2 or FMA.
        #[inline(always)]
        fn zip(self, other: Self, f: impl Fn(__m256, __m256) -> __m256) -> Self {
            Self([f(self.0[0], other.0[0]), f(self.0[1], other.0[1])])
        }
    }

    impl Floats for YmmFloats {
        #[inline(always)]
        fn load(values: &[f32; LANES]) -> Self {
            // SAFETY: AVX2 is present, see above; there are 8 numbers from 0 and 8 from 8 on.
            Self(unsafe { [_mm256_loadu_ps(values.as_ptr()), _mm256_loadu_ps(values.as_ptr().add(8))] })
        }

        #[inline(always)]
        fn splat(value: f32) -> Self {
            // SAFETY: AVX2 is present, see above.
            Self([unsafe { _mm256_set1_ps(value) }; 2])
        }

        #[inline(always)]
        fn to_array(self) -> [f32; LANES] {
            let mut array = [0.0; LANES];
            // SAFETY: AVX2 is present, see above; there is room for 8 numbers from 0 and for 8 from 8 on.
            unsafe {
                _mm256_storeu_ps(array.as_mut_ptr(), self.0[0]);
                _mm256_storeu_ps(array.as_mut_ptr().add(8), self.0[1]);
            }
            array
        }

        #[inline(always)]
        fn add(self, other: Self) -> Self {
            // SAFETY: AVX2 is present, see above.
            self.zip(other, |a, b| unsafe { _mm256_add_ps(a, b) })
        }

        #[inline(always)]
        fn sub(self, other: Self) -> Self {
            // SAFETY: AVX2 is present, see above.
            self.zip(other, |a, b| unsafe { _mm256_sub_ps(a, b) })
        }

        #[inline(always)]
        fn mul(self, other: Self) -> Self {
            // SAFETY: AVX2 is present, see above.
            self.zip(other, |a, b| unsafe { _mm256_mul_ps(a, b) })
        }

        #[inline(always)]
        fn mul_add(self, factor: Self, summand: Self) -> Self {
            // SAFETY: FMA is present, see above.
            let half = |i: usize| unsafe { _mm256_fmadd_ps(self.0[i], factor.0[i], summand.0[i]) };
            Self([half(0), half(1)])
        }

        #[inline(always)]
        fn max(self, other: Self) -> Self {
            // SAFETY: AVX2 is present, see above.
            self.zip(other, |a, b| unsafe { _mm256_max_ps(a, b) })
        }

        #[inline(always)]
        fn abs(self) -> Self {
            // SAFETY: AVX2 is present, see above.
            self.zip(Self::splat(-0.0), |a, sign| unsafe { _mm256_andnot_ps(sign, a) })
        }

        #[inline(always)]
        fn at_least(self, floor: Self) -> u16 {
            let half = |i: usize| {
                // SAFETY: AVX2 is present, see above.
                unsafe { _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_GE_OQ>(self.0[i], floor.0[i])) }
            };
            (half(0) | half(1) << 8) as u16
        }

        #[inline(always)]
        fn low8(self) -> [u8; LANES] {
            self.to_array().map(|v| v.to_bits() as u8)
        }

        #[inline(always)]
        fn low16(self) -> [i16; LANES] {
            let mut array = [0; LANES];
            // SAFETY: AVX2 is present, see above; there is room for 16 numbers.
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

    /// AVX-512 F, BW and VL, with `VNNI` its VNNI too.
    #[derive(Debug, Clone, Copy)]
    pub(in super::super) struct Zmm<const VNNI: bool>(__m512i);

    /// AVX-512 F.
    #[derive(Debug, Clone, Copy)]
    pub(in super::super) struct ZmmFloats(__m512);

    impl<const VNNI: bool> Ints for Zmm<VNNI> {
        type Floats = ZmmFloats;
        // 18 sums, 3 of centroids, 6 of rows and 1 of products, of 32 registers: with 24 sums compilers spill.
        const ROWS: usize = 6;
        const GROUPS: usize = 3;

        #[inline(always)]
        fn load(group: &Group<i32>) -> Self {
            // SAFETY: AVX-512 F is present, see above; a group is one register, aligned.
            Self(unsafe { _mm512_load_si512((&raw const group.0).cast()) })
        }

        #[inline(always)]
        fn splat(word: i32) -> Self {
            // SAFETY: AVX-512 F is present, see above.
            Self(unsafe { _mm512_set1_epi32(word) })
        }

        #[inline(always)]
        fn store(self, group: &mut Group<i32>) {
            // SAFETY: AVX-512 F is present, see above; a group is one register, aligned.
            unsafe { _mm512_store_si512((&raw mut group.0).cast(), self.0) };
        }

        #[inline(always)]
        fn add(self, other: Self) -> Self {
            // SAFETY: AVX-512 F is present, see above.
            Self(unsafe { _mm512_add_epi32(self.0, other.0) })
        }

        #[inline(always)]
        fn to_floats(self) -> ZmmFloats {
            // SAFETY: AVX-512 F is present, see above.
            ZmmFloats(unsafe { _mm512_cvtepi32_ps(self.0) })
        }

        #[inline(always)]
        fn sum(self) -> i32 {
            // SAFETY: AVX-512 F is present, see above.
            unsafe { _mm512_reduce_add_epi32(self.0) }
        }
    }

    impl<const VNNI: bool> Dot<I16> for Zmm<VNNI> {
        #[inline(always)]
        fn add_dot(self, row: Self, centroids: Self) -> Self {
            // SAFETY: AVX-512 F and BW, and with VNNI that too, are present, see above.
            Self(unsafe {
                if VNNI {
                    _mm512_dpwssd_epi32(self.0, row.0, centroids.0)
                } else {
                    _mm512_add_epi32(self.0, _mm512_madd_epi16(row.0, centroids.0))
                }
            })
        }
    }

    impl Dot<I8> for Zmm<true> {
        #[inline(always)]
        fn add_dot(self, row: Self, centroids: Self) -> Self {
            // SAFETY: AVX-512 VNNI is present, see above.
            Self(unsafe { _mm512_dpbusd_epi32(self.0, row.0, centroids.0) })
        }
    }

    impl Floats for ZmmFloats {
        #[inline(always)]
        fn load(values: &[f32; LANES]) -> Self {
            // SAFETY: AVX-512 F is present, see above; there are 16 numbers.
            Self(unsafe { _mm512_loadu_ps(values.as_ptr()) })
        }

        #[inline(always)]
        fn splat(value: f32) -> Self {
            // SAFETY: AVX-512 F is present, see above.
            Self(unsafe { _mm512_set1_ps(value) })
        }

        #[inline(always)]
        fn to_array(self) -> [f32; LANES] {
            let mut array = [0.0; LANES];
            // SAFETY: AVX-512 F is present, see above; there is room for 16 numbers.
            unsafe { _mm512_storeu_ps(array.as_mut_ptr(), self.0) };
            array
        }

        #[inline(always)]
        fn add(self, other: Self) -> Self {
            // SAFETY: AVX-512 F is present, see above.
            Self(unsafe { _mm512_add_ps(self.0, other.0) })
        }

        #[inline(always)]
        fn sub(self, other: Self) -> Self {
            // SAFETY: AVX-512 F is present, see above.
            Self(unsafe { _mm512_sub_ps(self.0, other.0) })
        }

        #[inline(always)]
        fn mul(self, other: Self) -> Self {
            // SAFETY: AVX-512 F is present, see above.
            Self(unsafe { _mm512_mul_ps(self.0, other.0) })
        }

        #[inline(always)]
        fn mul_add(self, factor: Self, summand: Self) -> Self {
            // SAFETY: AVX-512 F is present, see above.
            Self(unsafe { _mm512_fmadd_ps(self.0, factor.0, summand.0) })
        }

        #[inline(always)]
        fn max(self, other: Self) -> Self {
            // SAFETY: AVX-512 F is present, see above.
            Self(unsafe { _mm512_max_ps(self.0, other.0) })
        }

        #[inline(always)]
        fn abs(self) -> Self {
            // SAFETY: AVX-512 F is present, see above.
            Self(unsafe { _mm512_abs_ps(self.0) })
        }

        #[inline(always)]
        fn at_least(self, floor: Self) -> u16 {
            // SAFETY: AVX-512 F is present, see above.
            unsafe { _mm512_cmp_ps_mask::<_CMP_GE_OQ>(self.0, floor.0) }
        }

        #[inline(always)]
        fn sum(self) -> f32 {
            // SAFETY: AVX-512 F is present, see above.
            unsafe { _mm512_reduce_add_ps(self.0) }
        }

        #[inline(always)]
        fn largest(self) -> f32 {
            // SAFETY: AVX-512 F is present, see above.
            unsafe { _mm512_reduce_max_ps(self.0) }
        }

        #[inline(always)]
        fn low8(self) -> [u8; LANES] {
            let mut array = [0; LANES];
            // SAFETY: AVX-512 F is present, see above; there is room for 16 numbers.
            unsafe { _mm_storeu_si128(array.as_mut_ptr().cast(), _mm512_cvtepi32_epi8(_mm512_castps_si512(self.0))) };
            array
        }

        #[inline(always)]
        fn low16(self) -> [i16; LANES] {
            let mut array = [0; LANES];
            // SAFETY: AVX-512 F is present, see above; there is room for 16 numbers.
            unsafe {
                _mm256_storeu_si256(array.as_mut_ptr().cast(), _mm512_cvtepi32_epi16(_mm512_castps_si512(self.0)));
            }
            array
        }
    }
}
