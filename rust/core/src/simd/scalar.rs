//! Arrays, which every target has. The methods are unsafe as their traits are, but ask for nothing.

use super::vector::{DotAccumulate, F32x16, F64x8, I32x16, LANES, Lane16};

impl I32x16 for [i32; LANES] {
    type F32 = [f32; LANES];
    const MR: usize = 4;
    const NR: usize = 1;

    #[inline(always)]
    unsafe fn load(numbers: &Lane16<i32>) -> Self {
        numbers.0
    }

    #[inline(always)]
    unsafe fn splat(number: i32) -> Self {
        [number; LANES]
    }

    #[inline(always)]
    unsafe fn store(self, numbers: &mut Lane16<i32>) {
        numbers.0 = self;
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        std::array::from_fn(|l| self[l].wrapping_add(other[l]))
    }

    #[inline(always)]
    unsafe fn to_f32(self) -> [f32; LANES] {
        self.map(|v| v as f32)
    }
}

impl DotAccumulate<[u8; 4]> for [i32; LANES] {
    #[inline(always)]
    unsafe fn add_dot(self, row: Self, column: Self) -> Self {
        std::array::from_fn(|l| {
            let (x, y) = (row[l].to_le_bytes(), column[l].to_le_bytes());
            (0..4).fold(self[l], |sum, i| sum.wrapping_add(i32::from(x[i]) * i32::from(y[i] as i8)))
        })
    }
}

impl DotAccumulate<[i16; 2]> for [i32; LANES] {
    #[inline(always)]
    unsafe fn add_dot(self, row: Self, column: Self) -> Self {
        std::array::from_fn(|l| {
            let (x, y) = (row[l], column[l]);
            let low = i32::from(x as i16) * i32::from(y as i16);
            self[l].wrapping_add(low).wrapping_add((x >> 16) * (y >> 16))
        })
    }
}

impl F32x16 for [f32; LANES] {
    #[inline(always)]
    unsafe fn load(numbers: &[f32; LANES]) -> Self {
        *numbers
    }

    #[inline(always)]
    unsafe fn splat(number: f32) -> Self {
        [number; LANES]
    }

    #[inline(always)]
    unsafe fn to_array(self) -> [f32; LANES] {
        self
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        std::array::from_fn(|l| self[l] + other[l])
    }

    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        std::array::from_fn(|l| self[l] - other[l])
    }

    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        std::array::from_fn(|l| self[l] * other[l])
    }

    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, summand: Self) -> Self {
        std::array::from_fn(|l| self[l].mul_add(factor[l], summand[l]))
    }

    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        std::array::from_fn(|l| if self[l] > other[l] { self[l] } else { other[l] })
    }

    #[inline(always)]
    unsafe fn abs(self) -> Self {
        self.map(f32::abs)
    }

    #[inline(always)]
    unsafe fn at_least(self, floor: Self) -> u16 {
        (0..LANES).fold(0, |mask, l| mask | u16::from(self[l] >= floor[l]) << l)
    }

    #[inline(always)]
    unsafe fn low8(self) -> [u8; LANES] {
        self.map(|v| v.to_bits() as u8)
    }

    #[inline(always)]
    unsafe fn low16(self) -> [i16; LANES] {
        self.map(|v| v.to_bits() as i16)
    }
}

impl F64x8 for [f64; 8] {
    #[inline(always)]
    unsafe fn zero() -> Self {
        [0.0; 8]
    }

    #[inline(always)]
    unsafe fn load(numbers: &[f64; 8]) -> Self {
        *numbers
    }

    #[inline(always)]
    unsafe fn widen(numbers: &[f32; 8]) -> Self {
        numbers.map(f64::from)
    }

    /// Never fused: without an instruction for it, each would be the call of a function.
    #[inline(always)]
    unsafe fn add_product<const FUSED: bool>(mut self, x: Self, y: Self) -> Self {
        for l in 0..8 {
            self[l] += x[l] * y[l];
        }
        self
    }

    #[inline(always)]
    unsafe fn to_array(self) -> [f64; 8] {
        self
    }
}
