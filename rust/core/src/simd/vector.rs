//! The vectors that kernels are written over.
//!
//! # Safety
//!
//! The methods of these traits are unsafe for one reason: an implementation executes instructions that its instruction
//! set adds to the target's floor. They may be called only where the CPU has these instructions, and should be inlined
//! into a function that enables them: there they become single instructions, and vectors stay in registers. `dispatch!`
//! sees to both, by making its instances of types that belong to the level that it has checked. Memory is reached through
//! references alone, so that nothing else can go wrong.
//!
//! A generic function over these traits hands the promise on: it is unsafe too, and its safety section names the type
//! whose instructions its caller must have.

/// Numbers of 32 bits in a vector: of a column each, or consecutive ones of a row.
pub(crate) const LANES: usize = 16;

/// A number of each of sixteen columns, as aligned as a register.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Lane16<T>(pub(crate) [T; LANES]);

/// Sixteen whole numbers of 32 bits.
pub(crate) trait I32x16: Copy {
    /// The float32 numbers of the same instruction set.
    type F32: F32x16;
    /// Rows of a tile of products whose sums stay in registers: 6, or 4 if [`I32x16::NR`] is 1.
    const MR: usize;
    /// Vectors of columns of such a tile, at most 3.
    const NR: usize;

    unsafe fn load(numbers: &Lane16<i32>) -> Self;
    unsafe fn splat(number: i32) -> Self;
    unsafe fn store(self, numbers: &mut Lane16<i32>);
    /// The sums, modulo 2^32.
    unsafe fn add(self, other: Self) -> Self;
    /// Rounded to the nearest float32.
    unsafe fn to_f32(self) -> Self::F32;

    /// The sum of all, which must fit 32 bits.
    #[inline(always)]
    unsafe fn sum(self) -> i32 {
        let mut numbers = Lane16([0; LANES]);
        // SAFETY: the caller's promise.
        unsafe { self.store(&mut numbers) };
        reduce(numbers.0, i32::wrapping_add)
    }
}

/// Several small numbers in 32 bits.
pub(crate) trait Word: Copy + Default + Send + Sync + std::fmt::Debug {
    /// The 32 bits, the first number in the lowest.
    fn bits(self) -> i32;
}

impl Word for [u8; 4] {
    #[inline(always)]
    fn bits(self) -> i32 {
        i32::from_le_bytes(self)
    }
}

impl Word for [i16; 2] {
    #[inline(always)]
    fn bits(self) -> i32 {
        i32::from(self[0] as u16) | i32::from(self[1] as u16) << 16
    }
}

/// Adds up products of the numbers in words of `W`.
pub(crate) trait DotAccumulate<W: Word>: I32x16 {
    /// Adds to each lane the products of the numbers of a row's word and of a column's, modulo 2^32. Bytes of a row are
    /// unsigned, everything else is signed.
    unsafe fn add_dot(self, row: Self, column: Self) -> Self;

    /// Sixteen words.
    #[inline(always)]
    unsafe fn load_words(words: &[W; LANES]) -> Self {
        // SAFETY: the caller's promise.
        unsafe { Self::load(&Lane16(words.map(W::bits))) }
    }
}

/// Sixteen float32 numbers.
pub(crate) trait F32x16: Copy {
    unsafe fn load(numbers: &[f32; LANES]) -> Self;
    unsafe fn splat(number: f32) -> Self;
    unsafe fn to_array(self) -> [f32; LANES];
    unsafe fn add(self, other: Self) -> Self;
    unsafe fn sub(self, other: Self) -> Self;
    unsafe fn mul(self, other: Self) -> Self;
    /// `self * factor + summand`, rounded once.
    unsafe fn mul_add(self, factor: Self, summand: Self) -> Self;
    /// The larger ones; any of the two if one is NaN.
    unsafe fn max(self, other: Self) -> Self;
    unsafe fn abs(self) -> Self;
    /// A bit for each lane that is not below `floor`.
    unsafe fn at_least(self, floor: Self) -> u16;
    /// The low 8 bits of each.
    unsafe fn low8(self) -> [u8; LANES];
    /// The low 16 bits of each.
    unsafe fn low16(self) -> [i16; LANES];

    /// The sum of all, in any order.
    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        // SAFETY: the caller's promise.
        reduce(unsafe { self.to_array() }, |a, b| a + b)
    }

    /// The largest of all; any if one is NaN.
    #[inline(always)]
    unsafe fn largest(self) -> f32 {
        // SAFETY: the caller's promise.
        reduce(unsafe { self.to_array() }, |a, b| if a > b { a } else { b })
    }
}

/// Eight float64 numbers.
pub(crate) trait F64x8: Copy {
    unsafe fn zero() -> Self;
    unsafe fn load(numbers: &[f64; 8]) -> Self;
    /// Eight float32 numbers, exactly.
    unsafe fn widen(numbers: &[f32; 8]) -> Self;
    /// `self + x * y`, the product rounded and the sum rounded. `FUSED` may save an instruction, and asks for products that
    /// are exact, where it changes no bit.
    unsafe fn add_product<const FUSED: bool>(self, x: Self, y: Self) -> Self;
    unsafe fn to_array(self) -> [f64; 8];
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
